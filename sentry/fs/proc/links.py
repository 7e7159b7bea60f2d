"""/proc/PID/{exe,cwd,root,fd,fdinfo,ns}: magic links to what a task has open.

Following such a link goes straight to the place, whatever its name says; readlink shows the name
(proc_pid_fd(5)).  Both need the right to look into the task.
"""

from __future__ import annotations

import errno

from sentry.abi.errors import SysError
from sentry.abi.fcntl import O_CLOEXEC, O_NONBLOCK, O_PATH
from sentry.abi.stat import DT_LNK, DT_REG, S_IFLNK
from sentry.fs import walk
from sentry.fs.anon import AnonFilesystem, AnonInode
from sentry.fs.file import File
from sentry.fs.inode import Inode
from sentry.fs.proc.access import require_access
from sentry.fs.proc.base import (
    O_NONCREATION,
    GeneratedDirectory,
    GeneratedInode,
    current_task,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.fs.dentry import Path
    from sentry.fs.inode import Filesystem
    from sentry.kernel.credentials import Credentials
    from sentry.kernel.task import Task

NSFS_MAGIC = 0x6E736673
NS_GET_USERNS, NS_GET_PARENT, NS_GET_NSTYPE, NS_GET_OWNER_UID = 0xB701, 0xB702, 0xB703, 0xB704
#: Namespaces by name, with the inode numbers that the first ones of a kernel have.
NAMESPACES = (
    (b"cgroup", 4026531835),
    (b"ipc", 4026531839),
    (b"mnt", 4026531832),
    (b"net", 4026531833),
    (b"pid", 4026531836),
    (b"pid_for_children", 4026531836),
    (b"time", 4026531834),
    (b"time_for_children", 4026531834),
    (b"user", 4026531837),
    (b"uts", 4026531838),
)


def exe_path(task: Task) -> Path | None:
    return task.group.exe if task.mm is not None else None


def cwd_path(task: Task) -> Path | None:
    return None if task.exited or task.fs is None else task.fs.cwd


def root_path(task: Task) -> Path | None:
    return None if task.exited or task.fs is None else task.fs.root


class MagicLink(Inode):
    """A link to a place that `find(task)` gives."""

    __slots__ = ("_find", "_task")

    def __init__(
        self, fs: Filesystem, ino: int, task: Task, find: Callable[[Task], Path | None], uid: int, gid: int
    ) -> None:
        super().__init__(fs, ino, S_IFLNK | 0o777, uid, gid)
        self._task = task
        self._find = find

    def _place(self) -> Path:
        require_access(self._task)
        path = self._find(self._task)
        if path is None:
            raise SysError(errno.ENOENT)
        return path

    async def readlink(self) -> bytes:
        current = current_task() or self._task
        return walk.path_bytes(current.fs, self._place())

    async def follow(self) -> Path | None:
        return self._place()


class FdLink(Inode):
    """/proc/PID/fd/N.  Its permission bits tell how the file is open."""

    __slots__ = ("_fd", "_task")

    def __init__(self, fs: Filesystem, ino: int, task: Task, fd: int, file: File, uid: int, gid: int) -> None:
        mode = S_IFLNK | (0o500 if file.readable else 0) | (0o300 if file.writable else 0)
        super().__init__(fs, ino, mode, uid, gid)
        self.size = 64
        self._task = task
        self._fd = fd

    def _file(self) -> File:
        require_access(self._task)
        files = self._task.files
        if files is None:
            raise SysError(errno.ENOENT)
        try:
            return files.get_any(self._fd)
        except SysError:
            raise SysError(errno.ENOENT) from None

    async def readlink(self) -> bytes:
        file = self._file()
        text = getattr(file.inode, "link_text", b"")
        if text or file.path is None:
            return text or b"anon_inode:[unknown]"
        current = current_task() or self._task
        return walk.path_bytes(current.fs, file.path)

    async def follow(self) -> Path | None:
        path = self._file().path
        if path is None:
            raise SysError(errno.ENXIO)
        return path


class FdDirectory(GeneratedDirectory):
    """fd/ and fdinfo/: one entry a descriptor; cursors are descriptor numbers."""

    __slots__ = ("_info", "_task")

    def __init__(self, fs: Filesystem, ino: int, task: Task, uid: int, gid: int, info: bool) -> None:
        super().__init__(fs, ino, 0o555 if info else 0o500, uid, gid)
        self._task = task
        self._info = info

    def _ino(self, fd: int) -> int:
        return self.ino + 1 + fd * 2

    async def lookup(self, name: bytes) -> Inode:
        files = self._task.files
        if files is None or not name.isdigit() or (name[:1] == b"0" and name != b"0") or len(name) > 10:
            raise SysError(errno.ENOENT)
        fd = int(name)
        try:
            file = files.get_any(fd)
        except SysError:
            raise SysError(errno.ENOENT) from None
        if not self._info:
            return FdLink(self.fs, self._ino(fd), self._task, fd, file, self.uid, self.gid)
        task = self._task
        return GeneratedInode(
            self.fs, self._ino(fd), 0o400, lambda: fdinfo(task, fd), None, self.uid, self.gid
        )  # fmt: skip

    async def open(self, path: Path, flags: int, cred: Credentials) -> File:
        if self._info:
            require_access(self._task, cred)
        return await super().open(path, flags, cred)

    async def entries(self, cursor: int, count: int) -> list[tuple[int, int, int, bytes]]:
        files = self._task.files
        if files is None:
            return []
        kind = DT_REG if self._info else DT_LNK
        numbers = [fd for fd, _ in files.items() if fd >= cursor - 2]
        return [(self._ino(fd), fd + 3, kind, b"%d" % fd) for fd in numbers[:count]]


def fdinfo(task: Task, fd: int) -> bytes:
    """proc_pid_fdinfo(5); a File may add lines of its kind by a method `fdinfo`."""
    files = task.files
    if files is None:
        raise SysError(errno.ENOENT)
    try:
        file = files.get_any(fd)
    except SysError:
        raise SysError(errno.ENOENT) from None
    flags = file.flags | (O_CLOEXEC if files.cloexec(fd) else 0)
    if not flags & (O_PATH | O_NONBLOCK) and file.inode.kind == 0o100000:
        flags |= 0o100000  # O_LARGEFILE
    mount = file.path.mount.id if file.path is not None else 0
    text = b"pos:\t%d\nflags:\t0%o\nmnt_id:\t%d\nino:\t%d\n" % (file.pos, flags, mount, file.inode.ino)
    more = getattr(file, "fdinfo", None)
    return text + (more() if more is not None else b"")


class NsInode(AnonInode):
    """What a link in ns/ leads to: only good for comparing (stat(2)) and for keeping open."""

    __slots__ = ()

    async def open(self, path: Path, flags: int, cred: Credentials) -> File:
        if flags & 3:
            raise SysError(errno.EPERM)
        return NsFile(self, flags & O_NONCREATION, path)


class NsFile(File):
    """An open namespace (ioctl_nsfs(2)).  There is no namespace above the ones we have."""

    __slots__ = ()

    async def ioctl(self, task: Task, request: int, arg: int) -> int:
        kind = self.inode.link_text.split(b":")[0]  # type: ignore[attr-defined]
        if request == NS_GET_USERNS:
            inode = _NS_INODES[_USER_NS]
            return task.install(NsFile(inode, 0, _NSFS.path(inode)), cloexec=True)
        if request == NS_GET_PARENT:
            raise SysError(errno.EPERM if kind in (b"pid", b"user") else errno.EINVAL)
        if request == NS_GET_NSTYPE:
            return _NS_TYPES[kind]
        if request == NS_GET_OWNER_UID and kind == b"user":
            task.mm.write_u32(arg, 0)
            return 0
        raise SysError(errno.EINVAL if request == NS_GET_OWNER_UID else errno.ENOTTY)


_USER_NS = 4026531837
#: CLONE_NEW… of each kind.
_NS_TYPES = {
    b"cgroup": 0x02000000,
    b"ipc": 0x08000000,
    b"mnt": 0x00020000,
    b"net": 0x40000000,
    b"pid": 0x20000000,
    b"time": 0x00000080,
    b"user": 0x10000000,
    b"uts": 0x04000000,
}
_NSFS = AnonFilesystem(b"nsfs", NSFS_MAGIC)
_NS_INODES = {
    number: NsInode(_NSFS, number, 0o100444, b"%s:[%d]" % (name.removesuffix(b"_for_children"), number))
    for name, number in NAMESPACES
}


class NsLink(Inode):
    __slots__ = ("_inode", "_task")

    def __init__(self, fs: Filesystem, ino: int, task: Task, inode: NsInode, uid: int, gid: int) -> None:
        super().__init__(fs, ino, S_IFLNK | 0o777, uid, gid)
        self._task = task
        self._inode = inode

    async def readlink(self) -> bytes:
        require_access(self._task)
        return self._inode.link_text

    async def follow(self) -> Path | None:
        require_access(self._task)
        return _NSFS.path(self._inode)


class NsDirectory(GeneratedDirectory):
    """ns/: there is one namespace of each kind."""

    __slots__ = ("_task",)

    def __init__(self, fs: Filesystem, ino: int, task: Task, uid: int, gid: int) -> None:
        super().__init__(fs, ino, 0o511, uid, gid)
        self._task = task

    async def lookup(self, name: bytes) -> Inode:
        for index, (known, number) in enumerate(NAMESPACES):
            if known == name:
                return NsLink(
                    self.fs, self.ino + 1 + index, self._task, _NS_INODES[number], self.uid, self.gid
                )
        raise SysError(errno.ENOENT)

    async def entries(self, cursor: int, count: int) -> list[tuple[int, int, int, bytes]]:
        first = cursor - 2
        return [
            (self.ino + 1 + index, index + 3, DT_LNK, NAMESPACES[index][0])
            for index in range(first, min(first + count, len(NAMESPACES)))
        ]
