"""/proc/PID and /proc/PID/task/TID.

A task's directory is made anew at each lookup; its files are closures over the task, and what
they say of one that has exited is what Linux says of a zombie.
"""

from __future__ import annotations

import errno

from sentry.abi.errors import SysError
from sentry.abi.stat import DT_DIR, DT_LNK, DT_REG
from sentry.fs.inode import Inode
from sentry.fs.proc import idmap, links, mapfiles, maps, mounts, status
from sentry.fs.proc.access import may_access, require_access
from sentry.fs.proc.base import (
    MAX_SIZE,
    NO_MAX_SIZE,
    O_NONCREATION,
    TASK_SHIFT,
    GeneratedDirectory,
    GeneratedFile,
    GeneratedInode,
    current_task,
    require_alive,
)
from sentry.fs.proc.mapquery import MapsFile
from sentry.fs.proc.memory import MemInode, PagemapInode, memory_of
from sentry.fs.proc.sequence import SequenceFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sentry.fs.dentry import Path
    from sentry.fs.file import File
    from sentry.fs.inode import Filesystem
    from sentry.kernel.credentials import Credentials
    from sentry.kernel.task import Task
    from sentry.mm.manager import MemoryManager

THREAD = 1 << 60
FD_INODES = 1 << 12
FDINFO_INODES = 1 << 23
PID_MAX_DIGITS = 8


def _constant(text: bytes) -> Callable[[Task], bytes]:
    return lambda task: text


#: The file's kind (_KINDS) knows its contents.
_OF_KIND = _constant(b"")

#: name → (mode, text of a task, whether opening needs the right to look into the task).
_TEXTS: dict[bytes, tuple[int, Callable[..., Any], bool]] = {
    b"auxv": (0o400, status.auxv, True),
    b"clear_refs": (0o200, _constant(b""), False),
    b"cgroup": (0o444, _constant(b"0::/\n"), False),
    b"cmdline": (0o444, status.cmdline, False),
    b"comm": (0o644, lambda task: task.name + b"\n", False),
    b"coredump_filter": (0o644, status.dump_filter, False),
    b"cpuset": (0o444, _constant(b"/\n"), False),
    b"environ": (0o400, status.environ, True),
    b"gid_map": (0o644, _OF_KIND, False),
    b"io": (0o400, lambda task: task.group.io_text(), True),
    b"limits": (0o444, status.limits, False),
    b"loginuid": (0o644, _constant(b"4294967295"), False),
    b"maps": (0o444, maps.maps, True),
    b"mountinfo": (0o444, _OF_KIND, False),
    b"mounts": (0o444, _OF_KIND, False),
    b"mountstats": (0o400, _OF_KIND, False),
    b"numa_maps": (0o444, maps.numa_maps, True),
    b"oom_score": (0o444, status.oom_score, False),
    b"oom_score_adj": (0o644, lambda task: b"%d\n" % task.group.oom_score_adj, False),
    b"personality": (0o400, lambda task: b"%08x\n" % task.sched.personality, True),
    b"projid_map": (0o644, _OF_KIND, False),
    b"sched": (0o644, status.sched_text, False),
    b"schedstat": (0o444, lambda task: b"%d 0 0\n" % sum(task.cpu_times()), False),
    b"sessionid": (0o444, _constant(b"4294967295"), False),
    b"setgroups": (0o644, _OF_KIND, False),
    b"smaps": (0o444, maps.smaps, True),
    b"smaps_rollup": (0o444, maps.smaps_rollup, True),
    b"stat": (0o444, status.stat, False),
    b"statm": (0o444, maps.statm, False),
    b"status": (0o444, status.status, False),
    b"syscall": (0o400, status.system_call, True),
    b"timerslack_ns": (0o666, status.timerslack, False),
    b"uid_map": (0o644, _OF_KIND, False),
    b"wchan": (0o444, _constant(b"0"), False),
}
#: Those that depend on the process id namespace that the /proc shows.
_NUMBERED = (b"sched", b"stat", b"status")
_LINKS = {b"cwd": links.cwd_path, b"exe": links.exe_path, b"root": links.root_path}
_DIRECTORIES = (b"fd", b"fdinfo", b"map_files", b"net", b"ns", b"task")
_NAMES = sorted([*_TEXTS, *_LINKS, *_DIRECTORIES, b"mem", b"pagemap"])
_THREAD_NAMES = sorted([*(name for name in _NAMES if name not in (b"task", b"map_files")), b"children"])


def owner_of(task: Task) -> tuple[int, int]:
    """Who owns the files of a task: its effective user, or root when it can't be dumped."""
    if task.group.dumpable == 1:
        return task.cred.euid, task.cred.egid
    return 0, 0


class TaskText(GeneratedInode):
    __slots__ = ("_guarded", "_task")

    def __init__(
        self, fs: Filesystem, ino: int, mode: int, task: Task, make: Callable[[], bytes],
        store: Callable[[bytes], None] | None, guarded: bool,
    ) -> None:  # fmt: skip
        super().__init__(fs, ino, mode, make, store, *owner_of(task))
        self._task = task
        self._guarded = guarded

    async def open(self, path: Path, flags: int, cred: Credentials) -> File:
        if self._guarded:
            require_access(self._task, cred)
        return await super().open(path, flags, cred)


class MemoryText(TaskText):
    """environ, auxv and smaps_rollup.  An open file tells of the memory that the task had then: it may
    execute a program that whoever opened it may not look into."""

    __slots__ = ()

    async def open(self, path: Path, flags: int, cred: Credentials) -> File:
        make: Callable[..., bytes] = self.make
        mm = memory_of(self._task, cred)
        file = GeneratedFile(self, flags & O_NONCREATION, path)
        file.make = lambda: make(mm)
        return file


class SequenceText(TaskText):
    """smaps and numa_maps: as MemoryText, but what has no memory can be opened."""

    __slots__ = ()

    async def open(self, path: Path, flags: int, cred: Credentials) -> File:
        require_access(self._task, cred)
        make: Callable[..., Any] = self.make
        mm = self._task.mm
        file = self._file(flags & O_NONCREATION, path)
        file.make = lambda cursor: make(mm, cursor)
        return file

    def _file(self, flags: int, path: Path) -> SequenceFile:
        return SequenceFile(self, flags, path)


class MapsText(SequenceText):
    """maps, of which single mappings can be asked for."""

    __slots__ = ()

    def _file(self, flags: int, path: Path) -> SequenceFile:
        file = MapsFile(self, flags, path)
        file.task, file.mm = self._task, self._task.mm
        return file


class MountsText(TaskText):
    """mounts and its kin, of the root and the namespace that the task had when the file was opened."""

    __slots__ = ()

    async def open(self, path: Path, flags: int, cred: Credentials) -> File:
        if self._task.fs is None or self._task.exited:
            raise SysError(errno.EINVAL)
        kind = mounts.MountstatsFile if path.dentry.name == b"mountstats" else mounts.MountsFile
        return kind(self, flags & O_NONCREATION, path, self._task.fs.copy())


class IdMapText(TaskText):
    """uid_map and its kin, and setgroups."""

    __slots__ = ()

    async def open(self, path: Path, flags: int, cred: Credentials) -> File:
        if self._task.pid.task is not self._task:
            raise SysError(errno.EINVAL)
        return idmap.IdMapFile(self, flags & O_NONCREATION, path, self._task, cred)


class SecretText(TaskText):
    """io, personality and syscall, which anybody may open whom the mode lets: it is reading that takes the
    right to look into the task, as it is then."""

    __slots__ = ()

    async def open(self, path: Path, flags: int, cred: Credentials) -> File:
        task, make = self._task, self.make
        error = errno.EACCES if path.dentry.name == b"io" else errno.EPERM

        def guarded() -> bytes:
            data = make()
            current = current_task()
            if current is not None and not may_access(current, current.cred, task):
                raise SysError(error)
            return data

        file = GeneratedFile(self, flags & O_NONCREATION, path)
        file.make = guarded
        return file


_KINDS: dict[bytes, type[TaskText]] = {
    b"auxv": MemoryText, b"environ": MemoryText, b"gid_map": IdMapText, b"io": SecretText, b"maps": MapsText,
    b"mountinfo": MountsText, b"mounts": MountsText, b"mountstats": MountsText, b"numa_maps": SequenceText,
    b"personality": SecretText, b"projid_map": IdMapText, b"setgroups": IdMapText, b"smaps": SequenceText,
    b"smaps_rollup": MemoryText, b"syscall": SecretText, b"uid_map": IdMapText,
}  # fmt: skip
#: Those that can be seeked in as if they were empty (base.py); the others have no SEEK_END.
_SEEKABLE = {
    **dict.fromkeys(
        (b"auxv", b"cmdline", b"coredump_filter", b"environ", b"loginuid", b"sessionid"), MAX_SIZE
    ),
    b"oom_score_adj": NO_MAX_SIZE,
}
#: What an open file tells as long as it is open, whatever has become of the task.
_LASTING = (b"auxv", b"environ")


class TaskDirectory(GeneratedDirectory):
    """/proc/PID, or /proc/PID/task/TID when `thread`."""

    __slots__ = ("_names", "_task", "_thread")
    immutable = True

    def __init__(self, fs: Filesystem, task: Task, thread: bool) -> None:
        base = task.pid.serial << TASK_SHIFT | (THREAD if thread else 0)
        # The directory itself shows the effective user even if the task can't be dumped.
        super().__init__(fs, base | 1, 0o555, task.cred.euid, task.cred.egid)
        self.nlink = 7 if thread else 9
        self._task = task
        self._thread = thread
        self._names = _THREAD_NAMES if thread else _NAMES

    def target(self) -> Task:
        """For pidfd_send_signal(2); SysError(ESRCH), SysError(EBADF) for a thread's."""
        if self._thread:
            raise SysError(errno.EBADF)
        if self._task.pid.task is not self._task:
            raise SysError(errno.ESRCH)
        return self._task

    def _ino(self, name: bytes) -> int:
        base = self.ino - 1
        if name == b"fd":
            return base + FD_INODES
        if name == b"fdinfo":
            return base + FDINFO_INODES
        return base + 16 + 16 * self._names.index(name)

    async def lookup(self, name: bytes) -> Inode:
        require_alive(self._task, errno.ENOENT if self._thread else errno.ESRCH)
        if name not in self._names:
            raise SysError(errno.ENOENT)
        task, fs, ino = self._task, self.fs, self._ino(name)
        if name in _TEXTS:
            return self._text(name, ino)
        uid, gid = owner_of(task)
        if name in _LINKS:
            return links.MagicLink(fs, ino, task, _LINKS[name], uid, gid)
        if name in (b"fd", b"fdinfo"):
            return links.FdDirectory(fs, ino, task, uid, gid, name == b"fdinfo")
        if name == b"ns":
            return links.NsDirectory(fs, ino, task, uid, gid)
        if name == b"mem":
            return MemInode(fs, ino, task, uid, gid)
        if name == b"map_files":
            return mapfiles.MapDirectory(fs, ino, task, uid, gid)
        if name == b"pagemap":
            return PagemapInode(fs, ino, task, uid, gid)
        if name == b"net":
            net: Inode = await fs.net()  # type: ignore[attr-defined]
            return net
        if name == b"children":
            pids = fs.pids  # type: ignore[attr-defined]
            return TaskText(fs, ino, 0o444, task, lambda: status.children(task, pids), None, False)
        return ThreadsDirectory(fs, ino, task, uid, gid)

    def _text(self, name: bytes, ino: int) -> Inode:
        task = self._task
        mode, show, guarded = _TEXTS[name]
        pids = self.fs.pids  # type: ignore[attr-defined]
        if name == b"stat":
            make = self._alive(lambda task: status.stat(task, pids, alone=self._thread))
        elif name == b"io" and self._thread:
            make = self._alive(lambda task: task.io_text())
        elif name in _NUMBERED:
            make = self._alive(lambda task: show(task, pids))
        elif name in _LASTING:

            def make(mm: MemoryManager) -> bytes:
                return show(task, mm)  # type: ignore[no-any-return]

        else:
            make = self._alive(show)
        store: Callable[[bytes], None] | None = None
        if name == b"comm":
            store = self._set_comm
        elif name == b"oom_score_adj":

            def store(data: bytes) -> None:
                status.set_oom_score_adj(task, current_task(), data)

        elif name == b"coredump_filter":

            def store(data: bytes) -> None:
                status.set_dump_filter(task, data)

        elif name == b"clear_refs":

            def store(data: bytes) -> None:
                status.clear_refs(task, data)

        elif name == b"timerslack_ns":

            def store(data: bytes) -> None:
                status.set_timerslack(task, data)

        kind = _KINDS.get(name, TaskText)
        inode = kind(self.fs, ino, mode, task, make, store, guarded)
        inode.most = _SEEKABLE.get(name, 0)
        return inode

    def _alive(self, show: Callable[..., Any]) -> Callable[..., Any]:
        """Reading the file of a task that has been waited for is ESRCH."""
        task = self._task

        def make(*rest: Any) -> Any:
            if task.pid.task is not task:
                raise SysError(errno.ESRCH)
            return show(task, *rest)

        return make

    def _set_comm(self, data: bytes) -> None:
        current = current_task()
        if current is not None and current.group is not self._task.group:
            raise SysError(errno.EINVAL)
        status.set_comm(self._task, data)

    async def entries(self, cursor: int, count: int) -> list[tuple[int, int, int, bytes]]:
        require_alive(self._task)
        result = []
        for index in range(cursor - 2, min(cursor - 2 + count, len(self._names))):
            name = self._names[index]
            kind = DT_LNK if name in _LINKS else DT_DIR if name in _DIRECTORIES else DT_REG
            result.append((self._ino(name), index + 3, kind, name))
        return result


def parse_pid(name: bytes) -> int:
    """The number that `name` spells as /proc does; SysError(ENOENT)."""
    if not name.isdigit() or name[0] == 0x30 or len(name) > PID_MAX_DIGITS:
        raise SysError(errno.ENOENT)
    return int(name)


class ThreadsDirectory(GeneratedDirectory):
    """/proc/PID/task; cursors are thread ids."""

    __slots__ = ("_task",)

    def __init__(self, fs: Filesystem, ino: int, task: Task, uid: int, gid: int) -> None:
        super().__init__(fs, ino, 0o555, uid, gid)
        self._task = task
        self.nlink = 2 + len(self._tasks())

    def _tasks(self) -> list[Task]:
        group = self._task.group
        return group.tasks or [group.leader]

    async def lookup(self, name: bytes) -> Inode:
        tid = parse_pid(name)
        pids = self.fs.pids  # type: ignore[attr-defined]
        for task in self._tasks():
            if task.pid.nr(pids) == tid:
                return TaskDirectory(self.fs, task, True)
        raise SysError(errno.ENOENT)

    async def entries(self, cursor: int, count: int) -> list[tuple[int, int, int, bytes]]:
        require_alive(self._task)
        pids = self.fs.pids  # type: ignore[attr-defined]
        tasks = [(task.pid.nr(pids), task.pid.serial) for task in self._tasks()]
        found = sorted(pair for pair in tasks if pair[0] >= cursor - 2)[:count]
        return [(serial << TASK_SHIFT | THREAD | 1, nr + 3, DT_DIR, b"%d" % nr) for nr, serial in found]
