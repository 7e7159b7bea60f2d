"""Fids: the handles by which the client names files, and the exports they hang off.

A fid owns up to two descriptors: `path_fd`, opened O_PATH|O_NOFOLLOW, which names the file for as
long as the fid lives whatever happens to its name, and `open_fd` once the fid is open.  The table
closes both when a fid is clunked; nobody else does.
"""

from __future__ import annotations

import errno
import os

from sentry.abi.errors import SysError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gofer.messages import Qid

#: Extended attribute values live in memory: bounds on how many and how large.
MAX_XATTR_FIDS = 64


class Export:
    """A file tree (or a single file) that Tattach can name.

    `name` is the aname: b"" for the root file system, b"bind:0"… for binds.  `path` is the host
    path.  `fd` is an O_PATH descriptor of its root; whoever gives none lets `open_exports` make it.
    """

    __slots__ = ("fd", "name", "path", "readonly")

    def __init__(self, name: bytes, path: bytes | str, readonly: bool = True, fd: int = -1) -> None:
        self.name = name
        self.path = os.fsencode(path)
        self.readonly = readonly
        self.fd = fd

    def __repr__(self) -> str:
        return f"Export({self.name!r}, {self.path!r}, {'ro' if self.readonly else 'rw'})"


class Xattr:
    """What an xattr fid carries: the value to read, or the value being written."""

    __slots__ = ("flags", "name", "size", "value", "writing")

    def __init__(self, name: bytes, value: bytes, size: int, flags: int, writing: bool) -> None:
        self.name = name
        self.value = bytearray(value)
        self.size = size
        self.flags = flags
        self.writing = writing


class Fid:
    __slots__ = (
        "dir_pos", "export", "hidden", "kind", "open_fd", "open_flags", "owner", "path_fd", "qid", "xattr",
    )  # fmt: skip

    def __init__(self, export: Export, owner: int, path_fd: int, kind: int, hidden: bool, qid: Qid) -> None:
        self.export = export
        #: n_uname of the attach it comes from: who owns what is created through it.
        self.owner = owner
        self.path_fd = path_fd
        #: The S_IFMT bits: they never change.
        self.kind = kind
        #: Lies in a host pseudo file system: attributes only, nothing beneath.
        self.hidden = hidden
        self.qid = qid
        self.open_fd = -1
        self.open_flags = -1
        #: Where the next getdents64 would read; -1: unknown.
        self.dir_pos = -1
        self.xattr: Xattr | None = None

    @property
    def is_open(self) -> bool:
        return self.open_flags >= 0

    def close(self) -> None:
        fd, self.path_fd = self.path_fd, -1
        if fd >= 0:
            os.close(fd)
        self.close_open()

    def close_open(self) -> None:
        fd, self.open_fd = self.open_fd, -1
        if fd >= 0:
            os.close(fd)
        self.open_flags = -1


class FidTable:
    """Fid numbers to fids, at most `limit` of them."""

    __slots__ = ("_fids", "limit", "xattrs")

    def __init__(self, limit: int) -> None:
        self._fids: dict[int, Fid] = {}
        self.limit = limit
        self.xattrs = 0

    def __len__(self) -> int:
        return len(self._fids)

    def get(self, number: int) -> Fid:
        """Any fid.  SysError(EBADF)."""
        fid = self._fids.get(number)
        if fid is None:
            raise SysError(errno.EBADF)
        return fid

    def find(self, number: int) -> Fid | None:
        return self._fids.get(number)

    def check_new(self, number: int) -> None:
        """Whether `number` may be added.  SysError(EBADF, EMFILE)."""
        if number in self._fids or number == 0xFFFFFFFF:
            raise SysError(errno.EBADF)
        if len(self._fids) >= self.limit:
            raise SysError(errno.EMFILE)

    def add(self, number: int, fid: Fid) -> None:
        """Take `fid` over, in place of what `number` named (check_new is the caller's affair)."""
        old = self._fids.get(number)
        if old is not None and old is not fid:
            old.close()
        self._fids[number] = fid

    def remove(self, number: int) -> Fid:
        """Forget a fid; the caller closes it.  SysError(EBADF)."""
        fid = self._fids.pop(number, None)
        if fid is None:
            raise SysError(errno.EBADF)
        if fid.xattr is not None:
            self.xattrs -= 1
        return fid

    def set_xattr(self, fid: Fid, xattr: Xattr) -> None:
        """Make `fid` an xattr fid.  SysError(ENOSPC) when there are too many."""
        if self.xattrs >= MAX_XATTR_FIDS:
            raise SysError(errno.ENOSPC)
        self.xattrs += 1
        fid.xattr = xattr

    def clear(self) -> None:
        for fid in self._fids.values():
            fid.close()
        self._fids.clear()
        self.xattrs = 0
