"""One client's session: what each 9P request does.

`Session.handle` takes a decoded request and gives the reply, with a descriptor to send along where
the extension says so.  Handlers raise SysError or OSError, which become Rlerror; anything else is
a bug, answered with EIO and reported.  Requests are served one after the other: nothing runs
beside a handler, and Tflush always finds its request answered.

Per-user permissions are the client's affair (the Sentry checks them; v9fs with access=client
too): the session has the rights of the Gofer's own process, within its exports.
"""

from __future__ import annotations

import errno
import os
from _stat import S_IFDIR, S_IFLNK, S_IFREG
from _struct import pack, unpack
from fcntl import fcntl

from gofer.fids import Export, Fid, FidTable
from gofer.fileops import FileOps
from gofer.localfs import WRITE_FLAGS, LocalFS
from gofer.messages import (
    DIRECTORY,
    EXTENSION,
    IOHDRSZ,
    LOCK_BLOCKED,
    LOCK_ERROR,
    LOCK_SUCCESS,
    MAX_MSIZE,
    MAX_OFFSET,
    MAX_OPENFILES,
    MIN_MSIZE,
    NOFID,
    NONUNAME,
    REPLY_OF,
    VERSION_L,
    VERSION_SENTRY,
    VERSION_UNKNOWN,
    Message,
    Rattach,
    Rclunk,
    Rflush,
    Rfsync,
    Rgetlock,
    Rlcreate,
    Rlcreatefd,
    Rlerror,
    Rlistdirs,
    Rlock,
    Rlook,
    Rlopen,
    Rlopenfd,
    Ropenfiles,
    Rread,
    Rreaddir,
    Rreopen,
    Rversion,
    Rwalk,
    Rwalkgetattr,
    Rwrite,
    Treopen,
    Tversion,
)
from gofer.xattrs import Xattrs
from sentry.abi.errors import SysError
from sentry.abi.fcntl import F_OFD_GETLK, F_OFD_SETLK, F_UNLCK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Reply = Message | tuple[Message, int | Sequence[int]]

_FLOCK = "<hh4xqqi4x"  # struct flock: type whence start len pid


def _target(fid: Fid) -> list[bytes]:
    """Where a symbolic link points to."""
    try:
        return [os.readlink(b"", dir_fd=fid.path_fd)] if fid.kind == S_IFLNK else []
    except OSError:
        return []


class Session(FileOps, Xattrs):
    """State between Tversion and the end of the connection."""

    def __init__(
        self, fs: LocalFS, exports: Sequence[Export], pass_fds: bool = True, max_fids: int = 4096
    ) -> None:
        self.fs = fs
        self.exports = {b"" if export.name == b"/" else export.name: export for export in exports}
        #: Whether the transport can carry descriptors.
        self.pass_fds = pass_fds
        self.fids = FidTable(max_fids)
        self.msize = MIN_MSIZE * 2
        self.protocol = b""

    def handle(self, message: Message, received: int = -1) -> Reply:
        """The reply to `message`; a descriptor in it is the caller's to close.  `received` came with it."""
        cls = message.__class__
        if not self.protocol and cls is not Tversion:
            raise SysError(errno.EPROTO)
        if cls is Treopen:
            if self.protocol != VERSION_SENTRY or received < 0:
                raise SysError(errno.EOPNOTSUPP if received < 0 else errno.EPROTO)
            return Rreopen(1), self.fs.reopen_readonly(received)
        if cls in EXTENSION and self.protocol != VERSION_SENTRY:
            raise SysError(errno.EOPNOTSUPP)
        return _HANDLERS[cls](self, message)

    def close(self) -> None:
        self.fids.clear()
        self.protocol = b""

    def fid(self, number: int) -> Fid:
        """A fid that names a file."""
        fid = self.fids.get(number)
        if fid.xattr is not None:
            raise SysError(errno.EBADF)
        return fid

    def writable(self, number: int) -> Fid:
        """A fid whose file, or what is in it, may be changed.  SysError(EROFS)."""
        fid = self.fid(number)
        if fid.export.readonly or fid.hidden:
            raise SysError(errno.EROFS)
        return fid

    def directory(self, number: int) -> Fid:
        fid = self.writable(number)
        if fid.kind != S_IFDIR:
            raise SysError(errno.ENOTDIR)
        return fid

    # Session and fids.

    def version(self, msg: Message) -> Reply:
        if msg.msize < MIN_MSIZE:
            raise SysError(errno.EINVAL)
        self.close()
        self.msize = min(msg.msize, MAX_MSIZE)
        if msg.version == VERSION_SENTRY and self.pass_fds:
            self.protocol = VERSION_SENTRY
        elif msg.version == VERSION_L or msg.version.startswith(VERSION_L + b"."):
            self.protocol = VERSION_L
        else:
            return Rversion(self.msize, VERSION_UNKNOWN)
        return Rversion(self.msize, self.protocol)

    def auth(self, msg: Message) -> Reply:
        """No authentication: error 0 is what diod's clients take for "not needed" (v9fs never asks)."""
        return Rlerror(0)

    def attach(self, msg: Message) -> Reply:
        if msg.afid != NOFID:
            raise SysError(errno.EBADF)
        export = self.exports.get(b"" if msg.aname == b"/" else msg.aname)
        if export is None:
            raise SysError(errno.ENOENT)
        self.fids.check_new(msg.fid)
        path_fd = self.fs.duplicate(export.fd)
        fid, _ = self.new_fid(export, msg.n_uname, path_fd)
        self.fids.add(msg.fid, fid)
        return Rattach(fid.qid)

    def new_fid(self, export: Export, owner: int, path_fd: int) -> tuple[Fid, os.stat_result]:
        """A fid for `path_fd`, which it takes over (also on failure)."""
        try:
            st = os.fstat(path_fd)
            hidden = self.fs.is_hidden(path_fd, st.st_dev)
        except BaseException:
            os.close(path_fd)
            raise
        return Fid(export, owner, path_fd, st.st_mode & 0o170000, hidden, self.fs.qid(st)), st

    def child(self, parent: Fid, name: bytes) -> tuple[Fid, os.stat_result]:
        if parent.kind != S_IFDIR:
            raise SysError(errno.ENOTDIR)
        if parent.hidden:
            raise SysError(errno.ENOENT)
        return self.new_fid(parent.export, parent.owner, self.fs.child(parent.path_fd, name))

    def walk_names(self, msg: Message, links: list[bytes] | None = None) -> tuple[list[os.stat_result], int]:
        """Walk `names` from `fid`: (attributes of what was reached, error that stopped it or 0).

        `links`: gets the target of a symbolic link that was reached last.

        Makes `newfid` when everything was reached.  At most two fids are held at a time.
        """
        start = self.fid(msg.fid)
        if msg.newfid != msg.fid:
            self.fids.check_new(msg.newfid)
        if not msg.names:
            if msg.newfid != msg.fid:
                fid, _ = self.new_fid(start.export, start.owner, self.fs.duplicate(start.path_fd))
                self.fids.add(msg.newfid, fid)
            return [], 0
        if start.is_open and msg.newfid == msg.fid:
            raise SysError(errno.EBUSY)
        stats: list[os.stat_result] = []
        fid = start
        for name in msg.names:
            try:
                below, st = self.child(fid, name)
            except (SysError, OSError) as exc:
                if links is not None and fid is not start:
                    links += _target(fid)
                return stats, exc.errno or errno.EIO
            finally:
                if fid is not start:
                    fid.close()
            fid = below
            stats.append(st)
        if links is not None:
            links += _target(fid)
        self.fids.add(msg.newfid, fid)
        return stats, 0

    def walk(self, msg: Message) -> Reply:
        stats, error = self.walk_names(msg)
        if error and not stats:
            raise SysError(error)
        return Rwalk([self.fs.qid(st) for st in stats])

    def walkgetattr(self, msg: Message) -> Reply:
        stats, error = self.walk_names(msg)
        if error and not stats:
            raise SysError(error)
        if not msg.names:
            stats = [os.fstat(self.fid(msg.fid).path_fd)]
        return Rwalkgetattr(error, [self.fs.attr(st) for st in stats])

    def look(self, msg: Message) -> Reply:
        links: list[bytes] = []
        stats, error = self.walk_names(msg, links)
        if not stats:
            raise SysError(error or errno.EINVAL)
        attrs = [self.fs.attr(st) for st in stats]
        fds: list[int] = []
        if msg.open and not error:
            fid = self.fid(msg.newfid)
            if fid.kind == S_IFREG:
                try:
                    fds.append(self.open(fid, os.O_RDONLY))
                except (SysError, OSError):
                    pass  # who really opens it is told why
        return Rlook(error, attrs, links[0] if links else b"", len(fds)), fds

    def reach(self, msg: Message) -> Fid:
        """What `path` leads to from `fid`: itself, or one that is in no table, which the caller closes."""
        start = fid = self.fid(msg.fid)
        for name in msg.path:
            try:
                below, _ = self.child(fid, name)
            finally:
                if fid is not start:
                    fid.close()
            fid = below
        return fid

    def listdirs(self, msg: Message) -> Reply:
        top = self.reach(msg)
        room = min(msg.size, self.msize - IOHDRSZ)
        data: list[bytes] = []
        fds: list[int] = []
        try:
            for name in msg.names or (b"",):
                most = min(msg.files, MAX_OPENFILES - len(fds))
                complete = True
                try:
                    part, complete, opened = self.listing(top, name, room - DIRECTORY.size - 2 * most, most)
                    fds += opened
                except (SysError, OSError) as exc:
                    part = DIRECTORY.pack(exc.errno or errno.EIO, 0, 0, 0)
                data.append(part)
                room -= len(part)
                if not complete or room <= DIRECTORY.size or (msg.files and len(fds) >= MAX_OPENFILES):
                    break
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise
        finally:
            if top is not self.fids.find(msg.fid):
                top.close()
        return Rlistdirs(b"".join(data), len(fds)), fds

    def listing(self, top: Fid, name: bytes, room: int, files: int) -> tuple[bytes, bool, list[int]]:
        """DIRECTORY and entries of `name` in `top` (b"": of `top`), whether all, and its opened files."""
        fid = self.child(top, name)[0] if name else top
        try:
            if fid.kind != S_IFDIR:
                raise SysError(errno.ENOTDIR)
            if fid.hidden:
                return DIRECTORY.pack(0, 0, 1, 0), True, []
            fd = self.fs.reopen(fid.path_fd, S_IFDIR, os.O_RDONLY)
            try:
                entries, complete, opened, at = self.fs.listdir(fd, os.fstat(fd).st_dev, room, files)
            finally:
                os.close(fd)
        finally:
            if fid is not top:
                fid.close()
        head = DIRECTORY.pack(0, len(entries), complete, len(opened))
        return head + at + entries, complete, opened

    def openfiles(self, msg: Message) -> Reply:
        fid = self.reach(msg)
        try:
            if fid.kind != S_IFDIR:
                raise SysError(errno.ENOTDIR)
            dev = os.fstat(fid.path_fd).st_dev
            results = [
                -errno.ENOENT if fid.hidden else self.fs.open_file(fid.path_fd, name, dev)
                for name in msg.names
            ]
        finally:
            if fid is not self.fids.find(msg.fid):
                fid.close()
        fds = [result for result in results if result >= 0]
        errors = pack(f"<{len(results)}I", *[max(0, -result) for result in results])
        return Ropenfiles(errors, len(fds)), fds

    def clunk(self, msg: Message) -> Reply:
        fid = self.fids.remove(msg.fid)
        try:
            self.finish_xattr(fid)
        finally:
            fid.close()
        return Rclunk()

    def flush(self, msg: Message) -> Reply:
        return Rflush()

    # Open files.

    def open(self, fid: Fid, flags: int) -> int:
        """The descriptor for I/O; -1 for a directory that shows as empty."""
        if fid.is_open:
            raise SysError(errno.EBUSY)
        if flags & WRITE_FLAGS and (fid.export.readonly or fid.hidden):
            raise SysError(errno.EROFS)
        if fid.hidden:
            if fid.kind != S_IFDIR:
                raise SysError(errno.EACCES)
            return -1
        return self.fs.reopen(fid.path_fd, fid.kind, flags)

    def lopen(self, msg: Message) -> Reply:
        fid = self.fid(msg.fid)
        fid.open_fd = self.open(fid, msg.flags)
        fid.open_flags = msg.flags & 0x7FFF_FFFF
        fid.dir_pos = 0
        return Rlopen(fid.qid, self.msize - IOHDRSZ)

    def lopenfd(self, msg: Message) -> Reply:
        fid = self.fid(msg.fid)
        if fid.kind == S_IFREG:
            fd = self.open(fid, msg.flags)
            return Rlopenfd(fid.qid, self.msize - IOHDRSZ, 1), fd
        return Rlopenfd(*self.lopen(msg), 0)

    def create(self, parent: Fid, msg: Message, uid: int) -> tuple[Fid, os.stat_result, int]:
        """(fid of the new file, its attributes, its descriptor)."""
        fd = self.fs.create(parent.path_fd, msg.name, msg.flags, msg.mode)
        try:
            self.own(fd, S_IFREG, uid, msg.gid, msg.mode)
            fid, st = self.new_fid(parent.export, parent.owner, self.fs.path_of(fd))
        except BaseException:
            os.close(fd)
            raise
        return fid, st, fd

    def own(self, fd: int, kind: int, uid: int, gid: int, mode: int) -> None:
        """Give a new file its owner, where the Gofer may; chown clears set-id bits, so put them back."""
        if uid == NONUNAME and gid == NONUNAME:
            return
        try:
            self.fs.chown(fd, uid, gid)
            if mode & 0o6000:
                self.fs.chmod(fd, kind, mode)
        except OSError as exc:
            if exc.errno != errno.EPERM:
                raise

    def lcreate(self, msg: Message) -> Reply:
        parent = self.directory(msg.fid)
        if parent.is_open:
            raise SysError(errno.EBUSY)
        fid, _, fd = self.create(parent, msg, parent.owner)
        fid.open_fd = fd
        fid.open_flags = msg.flags & 0x7FFF_FFFF
        self.fids.add(msg.fid, fid)
        return Rlcreate(fid.qid, self.msize - IOHDRSZ)

    def lcreatefd(self, msg: Message) -> Reply:
        parent = self.directory(msg.dfid)
        self.fids.check_new(msg.newfid)
        fid, st, fd = self.create(parent, msg, msg.uid)
        self.fids.add(msg.newfid, fid)
        return Rlcreatefd(self.fs.attr(st), self.msize - IOHDRSZ, 1), fd

    def open_fid(self, number: int) -> Fid:
        fid = self.fid(number)
        if fid.open_fd < 0:
            raise SysError(errno.EBADF)
        return fid

    def read(self, msg: Message) -> Reply:
        size = min(msg.size, self.msize - IOHDRSZ)
        fid = self.fids.get(msg.fid)
        if fid.xattr is not None:
            return Rread(self.read_xattr(fid, msg.offset, size))
        return Rread(os.pread(self.open_fid(msg.fid).open_fd, size, msg.offset))

    def write(self, msg: Message) -> Reply:
        fid = self.fids.get(msg.fid)
        if fid.xattr is not None:
            return Rwrite(self.write_xattr(fid, msg.offset, msg.data))
        return Rwrite(os.pwrite(self.open_fid(msg.fid).open_fd, msg.data, msg.offset))

    def readdir(self, msg: Message) -> Reply:
        fid = self.fid(msg.fid)
        if fid.kind != S_IFDIR:
            raise SysError(errno.ENOTDIR)
        if not fid.is_open:
            raise SysError(errno.EBADF)
        if fid.hidden:
            return Rreaddir(b"")
        if msg.offset != fid.dir_pos:
            os.lseek(fid.open_fd, msg.offset, os.SEEK_SET)
        fid.dir_pos = -1
        limit = min(msg.size, self.msize - IOHDRSZ)
        data, fid.dir_pos = self.fs.readdir(fid.open_fd, os.fstat(fid.open_fd).st_dev, limit)
        return Rreaddir(data)

    def fsync(self, msg: Message) -> Reply:
        fid = self.fid(msg.fid)
        if fid.hidden:
            return Rfsync()
        fd = fid.open_fd if fid.open_fd >= 0 else self.fs.reopen(fid.path_fd, fid.kind, os.O_RDONLY)
        try:
            os.fdatasync(fd) if msg.datasync else os.fsync(fd)
        finally:
            if fd != fid.open_fd:
                os.close(fd)
        return Rfsync()

    def ofd_lock(self, number: int, command: int, kind: int, start: int, length: int) -> tuple[Any, ...]:
        """F_OFD_SETLK or F_OFD_GETLK on an open fid: (type, whence, start, length, pid) as it came back."""
        if kind > F_UNLCK or start > MAX_OFFSET or length > MAX_OFFSET:
            raise SysError(errno.EINVAL)
        flock = pack(_FLOCK, kind, 0, start, length, 0)
        return unpack(_FLOCK, fcntl(self.open_fid(number).open_fd, command, flock))

    def lock(self, msg: Message) -> Reply:
        try:
            self.ofd_lock(msg.fid, F_OFD_SETLK, msg.type, msg.start, msg.length)
        except OSError as exc:
            return Rlock(LOCK_BLOCKED if exc.errno in (errno.EAGAIN, errno.EACCES) else LOCK_ERROR)
        return Rlock(LOCK_SUCCESS)

    def getlock(self, msg: Message) -> Reply:
        kind, _, start, length, _ = self.ofd_lock(msg.fid, F_OFD_GETLK, msg.type, msg.start, msg.length)
        if kind == F_UNLCK:
            return Rgetlock(F_UNLCK, msg.start, msg.length, msg.proc_id, msg.client_id)
        return Rgetlock(kind, start, length, 0, b"")


_HANDLERS: dict[type[Message], Callable[[Session, Any], Reply]] = {
    cls: getattr(Session, cls.__name__[1:]) for cls in REPLY_OF if cls is not Treopen
}
