"""inotify_init, inotify_init1, inotify_add_watch, inotify_rm_watch."""

from __future__ import annotations

import errno

from sentry.abi.errors import SysError
from sentry.abi.fcntl import O_CLOEXEC, O_NONBLOCK
from sentry.abi.inotify import ALL_BITS, IN_DONT_FOLLOW, IN_MASK_ADD, IN_MASK_CREATE, IN_ONLYDIR
from sentry.abi.syscall_nr import SYS
from sentry.fs.inotify import InotifyFile
from sentry.fs.walk import MAY_READ, Resolver, permission
from sentry.syscalls.args import read_path
from sentry.syscalls.table import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.syscalls.args import Addr, Fd, Flags, Int, UInt


@syscall(SYS.inotify_init1)
def inotify_init1(task: Task, flags: Flags) -> int:
    """inotify_init1(2)."""
    if flags & ~(O_CLOEXEC | O_NONBLOCK):
        raise SysError(errno.EINVAL)
    return task.install(InotifyFile(flags & O_NONBLOCK, task.cred.uid), bool(flags & O_CLOEXEC))


@syscall(SYS.inotify_init)
def inotify_init(task: Task) -> int:
    """inotify_init(2)."""
    return task.install(InotifyFile(0, task.cred.uid), False)


def _instance(task: Task, fd: int) -> InotifyFile:
    file = task.files.get(fd)
    if not isinstance(file, InotifyFile):
        raise SysError(errno.EINVAL)
    return file


@syscall(
    SYS.inotify_add_watch,
    partial="no events of files that change outside the sandbox, or are generated (/proc); none of mmap",
)
async def inotify_add_watch(task: Task, fd: Fd, path: Addr, mask: UInt) -> int:
    """inotify_add_watch(2)."""
    if mask & ~ALL_BITS or not mask & ALL_BITS:
        raise SysError(errno.EINVAL)
    task.files.get(fd)
    if mask & IN_MASK_ADD and mask & IN_MASK_CREATE:
        raise SysError(errno.EINVAL)
    instance = _instance(task, fd)
    instance.get()  # it may be closed during the walk, and must not get a watch then that nobody ends
    try:
        return await _add_watch(task, instance, path, mask)
    finally:
        instance.put()


async def _add_watch(task: Task, instance: InotifyFile, path: int, mask: int) -> int:
    resolver = Resolver(task.fs, task.cred, read_path(task, path))
    place = await resolver.finish(not mask & IN_DONT_FOLLOW, directory=bool(mask & IN_ONLYDIR))
    permission(place.inode, task.cred, MAY_READ)
    return instance.watch(place, mask)


@syscall(SYS.inotify_rm_watch)
def inotify_rm_watch(task: Task, fd: Fd, wd: Int) -> None:
    """inotify_rm_watch(2)."""
    _instance(task, fd).unwatch(wd)
