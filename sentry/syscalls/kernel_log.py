"""syslog(2), the kernel's log: not syslog(3)."""

from __future__ import annotations

import errno

from sentry.abi.capability import CAP_SYSLOG
from sentry.abi.errors import SysError
from sentry.abi.poll import POLLIN
from sentry.abi.syscall_nr import SYS
from sentry.kernel.printk import BUFFER_SIZE, HIGHEST
from sentry.kernel.wait import WaitQueue, block
from sentry.syscalls.table import ERESTARTSYS, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.syscalls.args import Addr, Int

CLOSE, OPEN, READ, READ_ALL, READ_CLEAR, CLEAR, CONSOLE_OFF, CONSOLE_ON, CONSOLE_LEVEL = range(9)
SIZE_UNREAD, SIZE_BUFFER = 9, 10
_NEVER = WaitQueue()


@syscall(SYS.syslog, on_signal=ERESTARTSYS, partial="the log says how the sandbox began, and never grows")
async def syslog(task: Task, kind: Int, buf: Addr, size: Int) -> int:
    """syslog(2): always for CAP_SYSLOG only, as under kernel.dmesg_restrict."""
    if not task.cred.capable(CAP_SYSLOG):
        raise SysError(errno.EPERM)
    log = task.kernel.printk
    if kind in (READ, READ_ALL, READ_CLEAR):
        if not buf or size < 0:
            raise SysError(errno.EINVAL)
        if not size:
            return 0
        if kind == READ:
            while not log.unread_size():
                await block((_NEVER, POLLIN))
            data = log.take_unread(size)
        else:
            data = log.last(size)
        if data:
            task.mm.write(buf, data)
        if kind == READ_CLEAR:
            log.cleared = len(log.records)
        return len(data)
    if kind == CLEAR:
        log.cleared = len(log.records)
    elif kind == CONSOLE_OFF:
        log.console_off()
    elif kind == CONSOLE_ON:
        log.console_on()
    elif kind == CONSOLE_LEVEL:
        if not 1 <= size <= HIGHEST:
            raise SysError(errno.EINVAL)
        log.set_console_level(size)
    elif kind == SIZE_UNREAD:
        return log.unread_size()
    elif kind == SIZE_BUFFER:
        return BUFFER_SIZE
    elif kind not in (CLOSE, OPEN):
        raise SysError(errno.EINVAL)
    return 0
