"""What file systems there are: sysfs(2) by name and number, ustat(2) by device."""

from __future__ import annotations

import errno
from _struct import Struct

from sentry.abi.errors import SysError
from sentry.abi.syscall_nr import SYS
from sentry.fs.proc.system import FILESYSTEMS
from sentry.syscalls.args import read_path
from sentry.syscalls.table import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.fs.inode import Filesystem
    from sentry.kernel.task import Task
    from sentry.syscalls.args import Addr, Int, UInt, ULong

#: struct ustat: free blocks, free inodes, two names that are never filled in.
USTAT = Struct("<i4xQ6s6s4x")
NAMES = [line.split(b"\t")[-1] for line in FILESYSTEMS.splitlines()]
BY_NAME, BY_INDEX, HOW_MANY = 1, 2, 3


@syscall(SYS.sysfs)
def sysfs(task: Task, option: Int, arg: ULong, buf: Addr) -> int:
    """sysfs(2): the types of /proc/filesystems; nothing to do with the file system of that name."""
    if option == HOW_MANY:
        return len(NAMES)
    if option == BY_NAME:
        name = read_path(task, arg)
        if not name:
            raise SysError(errno.ENOENT)
        if name not in NAMES:
            raise SysError(errno.EINVAL)
        return NAMES.index(name)
    index = arg & 0xFFFFFFFF
    if option != BY_INDEX or index >= len(NAMES):
        raise SysError(errno.EINVAL)
    task.mm.write(buf, NAMES[index] + b"\0")
    return 0


def _mounted(task: Task, device: int) -> Filesystem:
    """The file system mounted anywhere in the task's namespace whose files have `device` as st_dev."""
    for mount in task.fs.namespace.all():
        fs: Filesystem = mount.fs
        if fs.dev == device:
            return fs
    raise SysError(errno.EINVAL)


@syscall(SYS.ustat)
async def ustat(task: Task, device: UInt, buf: Addr) -> None:
    """ustat(2); deprecated: statfs(2) tells more."""
    _, _, free, _, _, inodes = await _mounted(task, device).statfs()
    task.mm.write(buf, USTAT.pack(min(free, 0x7FFFFFFF), inodes, bytes(6), bytes(6)))
