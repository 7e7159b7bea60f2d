"""Security modules, of which there is the one that is always there: capabilities."""

from __future__ import annotations

import errno

from sentry.abi.errors import SysError
from sentry.abi.syscall_nr import SYS
from sentry.syscalls.table import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.syscalls.args import Addr, UInt

LSM_ID_CAPABILITY = 100
ID_SIZE = 8


@syscall(SYS.lsm_list_modules)
def lsm_list_modules(task: Task, ids: Addr, size: Addr, flags: UInt) -> int:
    """lsm_list_modules(2)."""
    if flags:
        raise SysError(errno.EINVAL)
    room = task.mm.read_u32(size)
    task.mm.write_u32(size, ID_SIZE)
    if room < ID_SIZE:
        raise SysError(errno.E2BIG)
    task.mm.write_u64(ids, LSM_ID_CAPABILITY)
    return 1
