"""membarrier(2).

A barrier on every CPU that runs a thread of an address space is the host's to make: a thread of that stub
asks for it, with the one command that concerns nobody else.
"""

from __future__ import annotations

import errno

from sentry.abi.errors import SysError
from sentry.abi.syscall_nr import SYS
from sentry.syscalls.table import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sentry.kernel.task import Task
    from sentry.mm.manager import MemoryManager
    from sentry.syscalls.args import Int, UInt

QUERY = 0
GLOBAL = 1
GLOBAL_EXPEDITED = 2
REGISTER_GLOBAL_EXPEDITED = 4
PRIVATE_EXPEDITED = 8
REGISTER_PRIVATE_EXPEDITED = 16
PRIVATE_EXPEDITED_SYNC_CORE = 32
REGISTER_PRIVATE_EXPEDITED_SYNC_CORE = 64
GET_REGISTRATIONS = 512
#: All but those for restartable sequences, which there are none of.
SUPPORTED = 0x27F
_REGISTER = (
    REGISTER_GLOBAL_EXPEDITED, REGISTER_PRIVATE_EXPEDITED, REGISTER_PRIVATE_EXPEDITED_SYNC_CORE,
)  # fmt: skip


def _barrier(spaces: Iterable[MemoryManager], command: int) -> None:
    for mm in spaces:
        try:
            mm.space.host_call(SYS.membarrier, command << 1, 0, 0)
            mm.space.host_call(SYS.membarrier, command, 0, 0)
        except SysError as error:
            if error.errno != errno.ESRCH:  # the process has died meanwhile
                raise


def _running(task: Task) -> set[MemoryManager]:
    return {other.mm for other in task.kernel.tasks.values() if other.running or other is task}


@syscall(SYS.membarrier, partial="no commands for restartable sequences")
def membarrier(task: Task, command: Int, flags: UInt, cpu: Int) -> int:
    """membarrier(2)."""
    mm = task.mm
    if flags:
        raise SysError(errno.EINVAL)
    if command == QUERY:
        return SUPPORTED
    if command == GET_REGISTRATIONS:
        return mm.membarriers
    if command in _REGISTER:
        mm.membarriers |= command
    elif command == GLOBAL:
        _barrier(_running(task), PRIVATE_EXPEDITED)
    elif command == GLOBAL_EXPEDITED:
        registered = (other for other in _running(task) if other.membarriers & REGISTER_GLOBAL_EXPEDITED)
        _barrier(registered, PRIVATE_EXPEDITED)
    elif command in (PRIVATE_EXPEDITED, PRIVATE_EXPEDITED_SYNC_CORE):
        if not mm.membarriers & command << 1:
            raise SysError(errno.EPERM)
        _barrier((mm,), command)
    else:
        raise SysError(errno.EINVAL)
    return 0
