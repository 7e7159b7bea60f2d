"""/proc/PID/{exe,cwd,root,fd,fdinfo,ns}: magic links to what a task has open.

Following such a link goes straight to the place, whatever its name says; readlink shows the name
(proc_pid_fd(5)).  Both need the right to look into the task.
"""

from __future__ import annotations

import errno

from sentry.abi.errors import SysError
from sentry.abi.fcntl import O_CLOEXEC, O_NONBLOCK, O_PATH, PATH_MAX
from sentry.abi.stat import DT_LNK, DT_REG, S_IFLNK
from sentry.fs import nsfs, walk
from sentry.fs.file import File
from sentry.fs.inode import Inode
from sentry.fs.pidfd import PidFile, namespace_of
from sentry.fs.proc.access import require_access
from sentry.fs.proc.base import GeneratedDirectory, current_task, require_alive
from sentry.fs.proc.sequence import SequenceInode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sentry.fs.dentry import Path
    from sentry.fs.inode import Filesystem
    from sentry.kernel.credentials import Credentials
    from sentry.kernel.task import Task

NAMESPACES = (
    b"cgroup", b"ipc", b"mnt", b"net", b"pid", b"pid_for_children", b"time", b"time_for_children", b"user",
    b"uts",
)  # fmt: skip


def exe_path(task: Task) -> Path | None:
    return task.group.exe if task.mm is not None else None


def cwd_path(task: Task) -> Path | None:
    return None if task.exited or task.fs is None else task.fs.cwd


def root_path(task: Task) -> Path | None:
    return None if task.exited or task.fs is None else task.fs.root


def text_of(path: Path, task: Task) -> bytes:
    """What readlink(2) of a link of `task` to `path` gives; SysError(ENAMETOOLONG) beyond a page."""
    current = current_task() or task
    text = walk.path_bytes(current.fs, path)
    if len(text) >= PATH_MAX:
        raise SysError(errno.ENAMETOOLONG)
    return text


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
        return text_of(self._place(), self._task)

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
        return text_of(file.path, self._task)

    async def follow(self) -> Path | None:
        path = self._file().path
        if path is None:
            raise SysError(errno.ENXIO)
        return path


def of_own_process(task: Task) -> bool:
    """A process may look at its own descriptors and mappings even where the files are root's, since it can't
    be dumped (proc_fd_permission)."""
    current = current_task()
    return current is not None and current.group is task.group


class FdDirectory(GeneratedDirectory):
    """fd/ and fdinfo/: one entry a descriptor; cursors are descriptor numbers."""

    __slots__ = ("_info", "_task")

    def __init__(self, fs: Filesystem, ino: int, task: Task, uid: int, gid: int, info: bool) -> None:
        super().__init__(fs, ino, 0o555 if info else 0o500, uid, gid)
        self._task = task
        self._info = info

    def grants(self, cred: Credentials, mask: int) -> bool:
        return not self._info and of_own_process(self._task)

    def _ino(self, fd: int) -> int:
        return self.ino + 1 + fd * 2

    async def lookup(self, name: bytes) -> Inode:
        if self._info:
            require_alive(self._task, errno.ESRCH)
            require_access(self._task)
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
        make: Any = lambda cursor: fdinfo(task, fd, cursor)  # noqa: E731
        return SequenceInode(self.fs, self._ino(fd), 0o444, make, None, self.uid, self.gid)

    async def open(self, path: Path, flags: int, cred: Credentials) -> File:
        if self._info:
            require_access(self._task, cred)
        return await super().open(path, flags, cred)

    async def entries(self, cursor: int, count: int) -> list[tuple[int, int, int, bytes]]:
        require_alive(self._task)
        files = self._task.files
        if files is None:
            return []
        kind = DT_REG if self._info else DT_LNK
        if cursor - 2 >= files.c.size:
            return []
        return [(self._ino(fd), fd + 3, kind, b"%d" % fd) for fd in files.numbers(cursor - 2, count)]


def fdinfo(task: Task, fd: int, cursor: int) -> tuple[bytes, int]:
    """proc_pid_fdinfo(5), piece by piece (sequence.py).  A File may add lines of its kind by a method
    `fdinfo`, or, where there may be many, `fdinfo_from(first)`, which gives some and how many those are."""
    files = task.files
    if files is None:
        raise SysError(errno.ENOENT)
    try:
        file = files.get_any(fd)
    except SysError:
        raise SysError(errno.ENOENT) from None
    if cursor:
        entries = getattr(file, "fdinfo_from", None)
        text, count = (b"", 0) if entries is None else entries(cursor - 1)
        return text, cursor + count
    flags = file.flags | (O_CLOEXEC if files.cloexec(fd) else 0)
    if not flags & (O_PATH | O_NONBLOCK) and file.inode.kind == 0o100000:
        flags |= 0o100000  # O_LARGEFILE
    mount = file.path.mount.id if file.path is not None else 0
    text = b"pos:\t%d\nflags:\t0%o\nmnt_id:\t%d\nino:\t%d\n" % (file.pos, flags, mount, file.inode.ino)
    if isinstance(file, PidFile):
        return text + file.fdinfo(current_task()), 1
    more = getattr(file, "fdinfo", None)
    return text + (more() if more is not None else b""), 1


class NsLink(Inode):
    __slots__ = ("_name", "_task")

    def __init__(self, fs: Filesystem, ino: int, task: Task, name: bytes, uid: int, gid: int) -> None:
        super().__init__(fs, ino, S_IFLNK | 0o777, uid, gid)
        self._task = task
        self._name = name

    def _find(self) -> Any:
        require_access(self._task)
        ns = namespace_of(self._task, self._name)
        # Before its first process a namespace for children is not there to be entered.
        if ns is None or (self._name == b"pid_for_children" and ns.init is None):
            raise SysError(errno.ENOENT)
        return ns

    async def readlink(self) -> bytes:
        ns = self._find()
        return b"%s:[%d]" % (ns.kind, ns.ino)

    async def follow(self) -> Path | None:
        return nsfs.path_of(self._find())


class NsDirectory(GeneratedDirectory):
    """ns/: one magic link a kind."""

    __slots__ = ("_task",)

    def __init__(self, fs: Filesystem, ino: int, task: Task, uid: int, gid: int) -> None:
        super().__init__(fs, ino, 0o511, uid, gid)
        self._task = task

    async def lookup(self, name: bytes) -> Inode:
        require_alive(self._task)
        if name not in NAMESPACES:
            raise SysError(errno.ENOENT)
        ino = self.ino + 1 + NAMESPACES.index(name)
        return NsLink(self.fs, ino, self._task, name, self.uid, self.gid)

    async def entries(self, cursor: int, count: int) -> list[tuple[int, int, int, bytes]]:
        require_alive(self._task)
        first = cursor - 2
        return [
            (self.ino + 1 + index, index + 3, DT_LNK, NAMESPACES[index])
            for index in range(first, min(first + count, len(NAMESPACES)))
        ]
