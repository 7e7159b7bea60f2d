"""Making pipes, eventfds, timerfds, signalfds and memfds."""

from __future__ import annotations

import errno

from sentry.abi.capability import CAP_WAKE_ALARM
from sentry.abi.epoll import (
    EFD_CLOEXEC,
    EFD_NONBLOCK,
    EFD_SEMAPHORE,
    SFD_CLOEXEC,
    SFD_NONBLOCK,
    TFD_CLOEXEC,
    TFD_NONBLOCK,
    TFD_TIMER_ABSTIME,
    TFD_TIMER_CANCEL_ON_SET,
)
from sentry.abi.errors import SysError
from sentry.abi.fcntl import O_CLOEXEC, O_DIRECT, O_NONBLOCK
from sentry.abi.signal import UNBLOCKABLE
from sentry.abi.syscall_nr import SYS
from sentry.abi.time import (
    CLOCK_BOOTTIME_ALARM,
    CLOCK_REALTIME_ALARM,
    ITIMERSPEC,
    pack_itimerspec,
    unpack_itimerspec,
)
from sentry.fs import memfd
from sentry.fs.eventfd import EventFile
from sentry.fs.pipe import open_pipe
from sentry.fs.signalfd import SignalFile
from sentry.fs.timerfd import CLOCKS, FAR, TimerFile
from sentry.syscalls.table import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.syscalls.args import Addr, Fd, Int, Size, UInt

O_NOTIFICATION_PIPE = 0o200


def _pipe(task: Task, addr: int, flags: int) -> None:
    if flags & ~(O_CLOEXEC | O_NONBLOCK | O_DIRECT | O_NOTIFICATION_PIPE):
        raise SysError(errno.EINVAL)
    if flags & O_NOTIFICATION_PIPE:
        raise SysError(errno.ENOPKG)
    cloexec = bool(flags & O_CLOEXEC)
    reader, writer = open_pipe(flags, task.cred)
    try:
        first = task.install(reader, cloexec)
    except SysError:
        writer.put()
        raise
    try:
        second = task.install(writer, cloexec)
    except SysError:
        task.files.close(first)
        raise
    try:
        task.mm.write_u64(addr, first | second << 32)
    except SysError:
        task.files.close(first)
        task.files.close(second)
        raise


@syscall(SYS.pipe)
def pipe(task: Task, fds: Addr) -> None:
    """pipe(2)."""
    _pipe(task, fds, 0)


@syscall(SYS.pipe2)
def pipe2(task: Task, fds: Addr, flags: UInt) -> None:
    """pipe2(2)."""
    _pipe(task, fds, flags)


def _eventfd(task: Task, count: int, flags: int) -> int:
    if flags & ~(EFD_SEMAPHORE | EFD_CLOEXEC | EFD_NONBLOCK):
        raise SysError(errno.EINVAL)
    file = EventFile(count, bool(flags & EFD_SEMAPHORE), flags & EFD_NONBLOCK)
    return task.install(file, bool(flags & EFD_CLOEXEC))


@syscall(SYS.eventfd)
def eventfd(task: Task, count: UInt) -> int:
    """eventfd(2) without flags."""
    return _eventfd(task, count, 0)


@syscall(SYS.eventfd2)
def eventfd2(task: Task, count: UInt, flags: UInt) -> int:
    """eventfd(2)."""
    return _eventfd(task, count, flags)


@syscall(SYS.timerfd_create)
def timerfd_create(task: Task, clock: Int, flags: UInt) -> int:
    """timerfd_create(2)."""
    if flags & ~(TFD_CLOEXEC | TFD_NONBLOCK) or clock not in CLOCKS:
        raise SysError(errno.EINVAL)
    if clock in (CLOCK_REALTIME_ALARM, CLOCK_BOOTTIME_ALARM) and not task.cred.capable(CAP_WAKE_ALARM):
        raise SysError(errno.EPERM)
    file = TimerFile(clock, flags & TFD_NONBLOCK, task.kernel.scheduler)
    return task.install(file, bool(flags & TFD_CLOEXEC))


def _timer(task: Task, fd: int) -> TimerFile:
    file = task.files.get(fd)
    if not isinstance(file, TimerFile):
        raise SysError(errno.EINVAL)
    return file


@syscall(SYS.timerfd_settime, partial="the clock being set neither moves timers nor cancels reads")
def timerfd_settime(task: Task, fd: Fd, flags: Int, new: Addr, old: Addr) -> None:
    """timerfd_settime(2)."""
    data = task.mm.read(new, ITIMERSPEC.size)
    if flags & ~(TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET):
        raise SysError(errno.EINVAL)
    interval, value = unpack_itimerspec(data)
    timer = _timer(task, fd)
    before = timer.settime(flags, min(interval, FAR), min(value, FAR))
    if old:
        task.mm.write(old, pack_itimerspec(*before))


@syscall(SYS.timerfd_gettime)
def timerfd_gettime(task: Task, fd: Fd, current: Addr) -> None:
    """timerfd_gettime(2)."""
    task.mm.write(current, pack_itimerspec(*_timer(task, fd).gettime()))


async def _signalfd(task: Task, fd: int, addr: int, size: int, flags: int) -> int:
    if size != 8:
        raise SysError(errno.EINVAL)
    mask = task.mm.read_u64(addr) & ~UNBLOCKABLE
    if flags & ~(SFD_CLOEXEC | SFD_NONBLOCK):
        raise SysError(errno.EINVAL)
    if fd == -1:
        return task.install(SignalFile(mask, flags & SFD_NONBLOCK), bool(flags & SFD_CLOEXEC))
    file = task.files.get(fd)
    if not isinstance(file, SignalFile):
        raise SysError(errno.EINVAL)
    file.set_mask(mask)
    return fd


@syscall(SYS.signalfd)
async def signalfd(task: Task, fd: Fd, mask: Addr, size: Size) -> int:
    """signalfd(2) without flags."""
    return await _signalfd(task, fd, mask, size, 0)


@syscall(SYS.signalfd4)
async def signalfd4(task: Task, fd: Fd, mask: Addr, size: Size, flags: UInt) -> int:
    """signalfd(2)."""
    return await _signalfd(task, fd, mask, size, flags)


@syscall(SYS.memfd_create, partial="no huge pages")
def memfd_create(task: Task, name: Addr, flags: UInt) -> int:
    """memfd_create(2)."""
    known = memfd.MFD_CLOEXEC | memfd.MFD_ALLOW_SEALING | memfd.MFD_NOEXEC_SEAL | memfd.MFD_EXEC
    both = memfd.MFD_EXEC | memfd.MFD_NOEXEC_SEAL
    huge = flags & memfd.MFD_HUGETLB
    if flags & ~(known | huge | (memfd.HUGE_SIZES if huge else 0)) or flags & both == both:
        raise SysError(errno.EINVAL)
    text = task.mm.read_cstring(name, memfd.NAME_MAX + 1)
    if text is None:
        raise SysError(errno.EINVAL)
    if huge:
        raise SysError(errno.ENODEV)  # as where no page of that size is supported
    return task.install(memfd.memfd_create(text, flags, task.cred), bool(flags & memfd.MFD_CLOEXEC))
