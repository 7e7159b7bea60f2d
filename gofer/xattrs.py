"""Extended attributes: a fid becomes a value to be read, or one that is written and set by Tclunk.

As in QEMU's and diod's servers, a value of size 0 with XATTR_REPLACE removes the attribute (v9fs
has no other way to say it).
"""

from __future__ import annotations

import errno
import os
from _stat import S_IFDIR, S_IFREG

from gofer.fids import Fid, FidTable, Xattr
from gofer.messages import Message, Rxattrcreate, Rxattrwalk
from sentry.abi.errors import SysError
from sentry.abi.fcntl import NAME_MAX, XATTR_REPLACE, XATTR_SIZE_MAX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from gofer.localfs import LocalFS

#: What a client may set.  security.* and trusted.* act on the host.
_SETTABLE = (b"user.", b"system.posix_acl_access", b"system.posix_acl_default")


def _check_name(name: bytes) -> None:
    if len(name) > NAME_MAX or not name or b"\0" in name:
        raise SysError(errno.ERANGE if name else errno.EINVAL)


class Xattrs:
    fs: LocalFS
    fids: FidTable

    if TYPE_CHECKING:
        fid: Callable[[int], Fid]
        writable: Callable[[int], Fid]
        new_fid: Callable[[Any, int, int], tuple[Fid, Any]]

    def _open(self, fid: Fid) -> int:
        """The f*xattr calls want a real open: a descriptor that the caller closes."""
        if fid.hidden or fid.kind not in (S_IFREG, S_IFDIR):
            raise SysError(errno.EOPNOTSUPP)
        return self.fs.reopen(fid.path_fd, fid.kind, os.O_RDONLY)

    def xattrwalk(self, msg: Message) -> Message:
        """Rxattrwalk(size): `newfid` reads the value, or with no name the list of names."""
        source = self.fid(msg.fid)
        self.fids.check_new(msg.newfid)
        if msg.name:
            _check_name(msg.name)
        fd = self._open(source)
        try:
            if msg.name:
                value = os.getxattr(fd, msg.name)
            else:
                value = b"".join([os.fsencode(name) + b"\0" for name in os.listxattr(fd)])
        finally:
            os.close(fd)
        fid, _ = self.new_fid(source.export, source.owner, self.fs.duplicate(source.path_fd))
        try:
            self.fids.set_xattr(fid, Xattr(msg.name, value, len(value), 0, False))
        except SysError:
            fid.close()
            raise
        self.fids.add(msg.newfid, fid)
        return Rxattrwalk(len(value))

    def xattrcreate(self, msg: Message) -> Message:
        fid = self.writable(msg.fid)
        _check_name(msg.name)
        if not msg.name.startswith(_SETTABLE):
            raise SysError(errno.EPERM)
        if msg.size > XATTR_SIZE_MAX:
            raise SysError(errno.E2BIG)
        if msg.flags & ~3 or fid.is_open:
            raise SysError(errno.EINVAL)
        self.fids.set_xattr(fid, Xattr(msg.name, b"", msg.size, msg.flags, True))
        return Rxattrcreate()

    def read_xattr(self, fid: Fid, offset: int, count: int) -> bytes:
        xattr = fid.xattr
        if xattr is None or xattr.writing:
            raise SysError(errno.EBADF)
        return bytes(xattr.value[offset : offset + count])

    def write_xattr(self, fid: Fid, offset: int, data: bytes) -> int:
        """Parts arrive in order, none beyond the announced size."""
        xattr = fid.xattr
        if xattr is None or not xattr.writing:
            raise SysError(errno.EBADF)
        if offset != len(xattr.value) or offset + len(data) > xattr.size:
            raise SysError(errno.EINVAL)
        xattr.value += data
        return len(data)

    def finish_xattr(self, fid: Fid) -> None:
        """At the clunk of `fid`: set what was written."""
        xattr = fid.xattr
        if xattr is None or not xattr.writing:
            return
        if len(xattr.value) != xattr.size:
            raise SysError(errno.EINVAL)
        fd = self._open(fid)
        try:
            if xattr.size == 0 and xattr.flags & XATTR_REPLACE:
                os.removexattr(fd, xattr.name)
            else:
                os.setxattr(fd, xattr.name, bytes(xattr.value), xattr.flags)
        finally:
            os.close(fd)
