"""kcmp(2): whether two tasks share something."""

from __future__ import annotations

import errno
from _struct import Struct
from os import urandom

from sentry.abi.errors import SysError
from sentry.abi.syscall_nr import SYS
from sentry.fs.epoll import EpollFile
from sentry.fs.proc.access import may_access
from sentry.syscalls.table import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.fs.file import File
    from sentry.kernel.task import Task
    from sentry.syscalls.args import Int, ULong

KCMP_FILE, KCMP_VM, KCMP_FILES, KCMP_FS, KCMP_SIGHAND, KCMP_IO, KCMP_SYSVSEM, KCMP_EPOLL_TFD = range(8)
#: struct kcmp_epoll_slot: efd, tfd, toff.
EPOLL_SLOT = Struct("<III")
#: Object identities are told only mixed with this, so that they show nothing of the Sentry's memory.
_key = int.from_bytes(urandom(8), "little")


@syscall(SYS.kcmp)
def kcmp(task: Task, pid1: Int, pid2: Int, kind: Int, idx1: ULong, idx2: ULong) -> int:
    """kcmp(2): 0 equal, 1 less, 2 greater, in an order that means nothing."""
    targets = [task.find_task(pid) for pid in (pid1, pid2)]
    first, second = targets
    if first is None or second is None:
        raise SysError(errno.ESRCH)
    for target in (first, second):
        if not may_access(task, task.cred, target, real=True):
            raise SysError(errno.EPERM)
    if kind == KCMP_EPOLL_TFD:
        one: Any = _file(first, idx1)
        other: Any = _watched(task, second, idx2)
    else:
        one, other = _object(first, kind, idx1), _object(second, kind, idx2)
    if one is other:
        return 0
    return 1 if id(one) ^ _key < id(other) ^ _key else 2


def _file(target: Task, fd: int) -> File:
    if target.files is None or fd >= 1 << 31:
        raise SysError(errno.EBADF)
    return target.files.get_any(fd)


def _watched(task: Task, target: Task, slot: int) -> File:
    """The file of a registration that struct kcmp_epoll_slot describes."""
    efd, tfd, offset = EPOLL_SLOT.unpack(task.mm.read(slot, EPOLL_SLOT.size))
    epoll = _file(target, efd)
    if not isinstance(epoll, EpollFile):
        raise SysError(errno.EINVAL)
    same = [item for item in epoll.items() if item.fd == tfd]
    if offset >= len(same):
        raise SysError(errno.ENOENT)
    file: File = same[offset].file
    return file


def _object(target: Task, kind: int, idx: int) -> Any:
    if kind == KCMP_FILE:
        return _file(target, idx)
    if kind == KCMP_IO:
        return None
    objects = {
        KCMP_VM: target.mm,
        KCMP_FILES: target.files,
        KCMP_FS: target.fs,
        KCMP_SIGHAND: target.group.sighand,
        KCMP_SYSVSEM: target.sysvsem,
    }
    if kind not in objects:
        raise SysError(errno.EINVAL)
    return objects[kind]
