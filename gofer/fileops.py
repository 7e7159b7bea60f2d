"""Requests on attributes and names: the half of a session that opens nothing.

A mixin of session.Session, which has the fids and checks that what is changed may be changed.
"""

from __future__ import annotations

import errno
import os
from _stat import S_IFDIR, S_IFLNK

from gofer.messages import (
    GETATTR_BASIC,
    MAX_OFFSET,
    NONUNAME,
    SETATTR_ALL,
    SETATTR_ATIME,
    SETATTR_ATIME_SET,
    SETATTR_GID,
    SETATTR_MODE,
    SETATTR_MTIME,
    SETATTR_MTIME_SET,
    SETATTR_SIZE,
    SETATTR_UID,
    Message,
    Rgetattr,
    Rlink,
    Rmkdir,
    Rmknod,
    Rreadlink,
    Rremove,
    Rrename,
    Rrenameat,
    Rsetattr,
    Rstatfs,
    Rsymlink,
    Runlinkat,
)
from sentry.abi.errors import SysError
from sentry.abi.fcntl import AT_REMOVEDIR, NAME_MAX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from gofer.fids import Fid, FidTable
    from gofer.localfs import LocalFS

    Reply = Message | tuple[Message, int | Sequence[int]]

UTIME_NOW = (0, (1 << 30) - 1)
UTIME_OMIT = (0, (1 << 30) - 2)


class FileOps:
    fs: LocalFS
    fids: FidTable

    if TYPE_CHECKING:
        fid: Callable[[int], Fid]
        writable: Callable[[int], Fid]
        directory: Callable[[int], Fid]
        child: Callable[[Fid, bytes], tuple[Fid, Any]]
        own: Callable[[int, int, int, int, int], None]

    def getattr(self, msg: Message) -> Reply:
        return Rgetattr(GETATTR_BASIC, self.fs.attr(os.fstat(self.fid(msg.fid).path_fd)))

    def setattr(self, msg: Message) -> Reply:
        fid = self.writable(msg.fid)
        valid = msg.valid
        if valid & ~SETATTR_ALL:
            raise SysError(errno.EINVAL)
        if valid & SETATTR_SIZE:
            if msg.size > MAX_OFFSET:
                raise SysError(errno.EFBIG)
            if fid.open_fd >= 0 and fid.open_flags & os.O_ACCMODE:
                os.ftruncate(fid.open_fd, msg.size)
            else:
                self.fs.truncate(fid.path_fd, fid.kind, msg.size)
        if valid & (SETATTR_UID | SETATTR_GID):
            uid = msg.uid if valid & SETATTR_UID else NONUNAME
            self.fs.chown(fid.path_fd, uid, msg.gid if valid & SETATTR_GID else NONUNAME)
        if valid & SETATTR_MODE:  # behind chown, which clears set-id bits
            self.fs.chmod(fid.path_fd, fid.kind, msg.mode)
        if valid & (SETATTR_ATIME | SETATTR_MTIME):
            self.fs.utimens(
                fid.path_fd,
                _when(valid & SETATTR_ATIME, valid & SETATTR_ATIME_SET, msg.atime_sec, msg.atime_nsec),
                _when(valid & SETATTR_MTIME, valid & SETATTR_MTIME_SET, msg.mtime_sec, msg.mtime_nsec),
            )
        return Rsetattr()

    def statfs(self, msg: Message) -> Reply:
        fd = self.fid(msg.fid).path_fd
        st = os.fstatvfs(fd)
        return Rstatfs(
            self.fs.fs_type(fd), st.f_bsize, st.f_blocks, st.f_bfree, st.f_bavail, st.f_files, st.f_ffree,
            st.f_fsid, min(st.f_namemax, NAME_MAX),
        )  # fmt: skip

    def readlink(self, msg: Message) -> Reply:
        fid = self.fid(msg.fid)
        if fid.kind != S_IFLNK:
            raise SysError(errno.EINVAL)
        return Rreadlink(os.readlink(b"", dir_fd=fid.path_fd))

    # Names.

    def made(self, parent: Fid, name: bytes, gid: int, mode: int) -> Any:
        """Owner and qid of what was just made in `parent`."""
        fid, _ = self.child(parent, name)
        try:
            self.own(fid.path_fd, fid.kind, parent.owner, gid, mode)
        finally:
            fid.close()
        return fid.qid

    def mkdir(self, msg: Message) -> Reply:
        parent = self.directory(msg.dfid)
        os.mkdir(msg.name, msg.mode & 0o7777, dir_fd=parent.path_fd)
        return Rmkdir(self.made(parent, msg.name, msg.gid, msg.mode))

    def symlink(self, msg: Message) -> Reply:
        parent = self.directory(msg.dfid)
        os.symlink(msg.target, msg.name, dir_fd=parent.path_fd)
        return Rsymlink(self.made(parent, msg.name, msg.gid, 0))

    def mknod(self, msg: Message) -> Reply:
        parent = self.directory(msg.dfid)
        self.fs.mknod(parent.path_fd, msg.name, msg.mode)
        return Rmknod(self.made(parent, msg.name, msg.gid, msg.mode))

    def link(self, msg: Message) -> Reply:
        parent = self.directory(msg.dfid)
        fid = self.writable(msg.fid)
        if fid.export is not parent.export:
            raise SysError(errno.EXDEV)
        self.fs.link(fid.path_fd, fid.kind, parent.path_fd, msg.name)
        return Rlink()

    def renameat(self, msg: Message) -> Reply:
        old, new = self.directory(msg.olddfid), self.directory(msg.newdfid)
        if old.export is not new.export:
            raise SysError(errno.EXDEV)
        os.rename(msg.oldname, msg.newname, src_dir_fd=old.path_fd, dst_dir_fd=new.path_fd)
        return Rrenameat()

    def rename(self, msg: Message) -> Reply:
        fid, new = self.writable(msg.fid), self.directory(msg.dfid)
        if fid.export is not new.export:
            raise SysError(errno.EXDEV)
        parent, name = self.fs.locate(fid.export.fd, fid.path_fd)
        try:
            os.rename(name, msg.name, src_dir_fd=parent, dst_dir_fd=new.path_fd)
        finally:
            os.close(parent)
        return Rrename()

    def unlinkat(self, msg: Message) -> Reply:
        parent = self.directory(msg.dfid)
        if msg.flags & ~AT_REMOVEDIR:
            raise SysError(errno.EINVAL)
        if msg.flags:
            os.rmdir(msg.name, dir_fd=parent.path_fd)
        else:
            os.unlink(msg.name, dir_fd=parent.path_fd)
        return Runlinkat()

    def remove(self, msg: Message) -> Reply:
        """Tremove clunks its fid in every case."""
        try:
            fid = self.writable(msg.fid)
            parent, name = self.fs.locate(fid.export.fd, fid.path_fd)
            try:
                (os.rmdir if fid.kind == S_IFDIR else os.unlink)(name, dir_fd=parent)
            finally:
                os.close(parent)
        finally:
            self.fids.remove(msg.fid).close()
        return Rremove()


def _when(valid: int, given: int, sec: int, nsec: int) -> tuple[int, int]:
    if not valid:
        return UTIME_OMIT
    if not given:
        return UTIME_NOW
    if nsec >= 1_000_000_000:
        raise SysError(errno.EINVAL)
    return (sec - (1 << 64) if sec >> 63 else sec), nsec
