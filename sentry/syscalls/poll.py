"""Waiting for readiness: poll, ppoll, select, pselect6, and the epoll calls.

poll and select look at every file, and if nothing holds sleep in all their queues at once.  The
time that remains is written back where Linux does (select, pselect6, ppoll), however the call ends.
"""

from __future__ import annotations

import errno
from time import monotonic_ns

from sentry.abi.epoll import (
    EPOLL_CLOEXEC,
    EPOLL_CTL_ADD,
    EPOLL_CTL_DEL,
    EPOLL_CTL_MOD,
    EPOLL_EVENT,
    EPOLL_MAX_EVENTS,
)
from sentry.abi.errors import SysError
from sentry.abi.poll import POLLALWAYS, POLLFD, POLLNVAL, SELECT_EX, SELECT_IN, SELECT_OUT, SIGSET_ARG
from sentry.abi.resource import RLIMIT_NOFILE
from sentry.abi.syscall_nr import SYS
from sentry.abi.time import NS, TIMESPEC, unpack_timespec
from sentry.fs.epoll import EpollFile
from sentry.kernel.wait import Interrupted, block
from sentry.syscalls.table import EINTR, ERESTARTNOHAND, RestartBlock, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.fs.file import File
    from sentry.kernel.task import Task
    from sentry.syscalls.args import Addr, Fd, Int, Size, UInt

USEC = 1000
FOREVER = 0x7FFFFFFFFFFFFFFF


def _deadline(nanoseconds: int) -> int:
    """Absolute; far ends are no end at all (the caller treats FOREVER as one)."""
    return min(monotonic_ns() + nanoseconds, FOREVER)


def _until(task: Task, milliseconds: int) -> int | None:
    """The end of a timeout in ms, None for none; when the call slept in C before, it began then."""
    began = task.thread.take_deadline()
    if milliseconds < 0:
        return None
    return began or (_deadline(milliseconds * 1_000_000) if milliseconds else 0)


def _read_timespec(task: Task, addr: int) -> int | None:
    """The nanoseconds at `addr`, None for no limit; SysError(EINVAL, EFAULT)."""
    if not addr:
        return None
    return unpack_timespec(task.mm.read(addr, TIMESPEC.size))


#: personality(2): timeouts stay as they are.
STICKY_TIMEOUTS = 0x4000000


def _write_remaining(task: Task, addr: int, timeout: int | None, deadline: int | None, unit: int) -> None:
    """Linux updates the timeout of select and ppoll; a bad address doesn't matter any more."""
    if timeout and deadline is not None and not task.sched.personality & STICKY_TIMEOUTS:
        left = max(0, deadline - monotonic_ns())
        try:
            task.mm.write(addr, TIMESPEC.pack(left // NS, left % NS // unit))
        except SysError:
            pass


def _set_mask(task: Task, addr: int, size: int) -> None:
    """The signal mask of the p-variants, for this call only."""
    if addr:
        if size != 8:
            raise SysError(errno.EINVAL)
        task.set_temporary_mask(task.mm.read_u64(addr))


async def _wait(wanted: list[tuple[File, int]], deadline: int | None) -> bool:
    """Sleep until one of the files may be ready, or `deadline`; False once that has passed."""
    if deadline is not None and deadline >= FOREVER:
        deadline = None
    return await block(*[(file.queue, mask) for file, mask in wanted], deadline=deadline)


# poll


async def _poll(task: Task, addr: int, count: int, deadline: int | None) -> int:
    """The common part of poll and ppoll, without what an interruption means."""
    if count > task.group.limit(RLIMIT_NOFILE):
        raise SysError(errno.EINVAL)
    data = task.mm.read(addr, count * POLLFD.size) if count else b""
    asked = list(POLLFD.iter_unpack(data))
    files: list[tuple[int, int, File]] = []
    revents = [0] * count
    bad = 0
    for index, (fd, events, _) in enumerate(asked):
        if fd < 0:
            continue
        try:
            file = task.files.get(fd)
        except SysError:
            revents[index] = POLLNVAL
            bad += 1
            continue
        files.append((index, events | POLLALWAYS, file.get()))
    try:
        ready = await _poll_files(files, revents, bad, deadline)
    except Interrupted:
        _write_polled(task, addr, asked, revents)  # nothing was ready: so it says, too
        raise
    finally:
        for _, _, file in files:
            file.put()
    _write_polled(task, addr, asked, revents)
    return ready


def _write_polled(task: Task, addr: int, asked: list[tuple[int, int, int]], revents: list[int]) -> None:
    if asked:
        packed = b"".join(
            [POLLFD.pack(fd, events, got) for (fd, events, _), got in zip(asked, revents, strict=True)]
        )
        task.mm.write(addr, packed)


async def _poll_files(
    files: list[tuple[int, int, File]], revents: list[int], bad: int, deadline: int | None
) -> int:
    waiting = [(file, mask) for _, mask, file in files]
    last = False
    while True:
        ready = bad
        for index, mask, file in files:
            got = file.poll() & mask & 0xFFFF
            revents[index] = got
            if got:
                ready += 1
        if ready or last:
            return ready
        last = not await _wait(waiting, deadline)


@syscall(SYS.poll)
async def poll(task: Task, fds: Addr, count: UInt, timeout: Int) -> int:
    """poll(2)."""
    return await _poll_restartable(task, fds, count, _until(task, timeout))


async def _poll_restartable(task: Task, fds: int, count: int, deadline: int | None) -> int:
    try:
        return await _poll(task, fds, count, deadline)
    except Interrupted:
        raise RestartBlock(lambda task: _poll_restartable(task, fds, count, deadline)) from None


@syscall(SYS.ppoll, on_signal=ERESTARTNOHAND)
async def ppoll(task: Task, fds: Addr, count: UInt, timeout: Addr, mask: Addr, size: Size) -> int:
    """ppoll(2)."""
    limit = _read_timespec(task, timeout)
    _set_mask(task, mask, size)
    deadline = None if limit is None else _deadline(limit) if limit else 0
    try:
        return await _poll(task, fds, count, deadline)
    finally:
        _write_remaining(task, timeout, limit, deadline, 1)


# select


async def _select(task: Task, n: int, addrs: tuple[int, int, int], deadline: int | None) -> int:
    """The common part of select and pselect6: three bitmaps in, the ready ones of them out."""
    if n < 0:
        raise SysError(errno.EINVAL)
    n = min(n, task.files.size)
    size = (n + 63) // 64 * 8
    limit = (1 << n) - 1
    sets = [int.from_bytes(task.mm.read(addr, size), "little") & limit if addr else 0 for addr in addrs]
    files: list[tuple[int, File, int]] = []
    try:
        for fd in _bits(sets[0] | sets[1] | sets[2]):
            file = task.files.get(fd)
            mask = 0
            for bits, bit_mask in zip(sets, (SELECT_IN, SELECT_OUT, SELECT_EX), strict=True):
                if bits >> fd & 1:
                    mask |= bit_mask
            files.append((fd, file.get(), mask))
        ready, result = await _select_files(files, sets, deadline)
    finally:
        for _, file, _ in files:
            file.put()
    for addr, bits in zip(addrs, result, strict=True):
        if addr and size:
            task.mm.write(addr, bits.to_bytes(size, "little"))
    return ready


def _bits(bits: int) -> list[int]:
    """The numbers of the set bits, lowest first."""
    numbers = []
    while bits:
        lowest = bits & -bits
        numbers.append(lowest.bit_length() - 1)
        bits ^= lowest
    return numbers


async def _select_files(
    files: list[tuple[int, File, int]], sets: list[int], deadline: int | None
) -> tuple[int, list[int]]:
    waiting = [(file, mask | POLLALWAYS) for _, file, mask in files]
    last = False
    while True:
        ready, result = 0, [0, 0, 0]
        for fd, file, _ in files:
            events = file.poll()
            for index, mask in enumerate((SELECT_IN, SELECT_OUT, SELECT_EX)):
                if sets[index] >> fd & 1 and events & mask:
                    result[index] |= 1 << fd
                    ready += 1
        if ready or last:
            return ready, result
        last = not await _wait(waiting, deadline)


@syscall(SYS.select, on_signal=ERESTARTNOHAND)
async def select(task: Task, n: Int, reads: Addr, writes: Addr, excepts: Addr, timeout: Addr) -> int:
    """select(2)."""
    limit = None
    if timeout:
        seconds, microseconds = TIMESPEC.unpack(task.mm.read(timeout, TIMESPEC.size))
        # Linux takes a number of microseconds beyond a second for what it is.
        seconds, microseconds = seconds + microseconds // 1_000_000, microseconds % 1_000_000
        if seconds < 0:
            raise SysError(errno.EINVAL)
        limit = seconds * NS + microseconds * USEC
    deadline = None if limit is None else _deadline(limit) if limit else 0
    try:
        return await _select(task, n, (reads, writes, excepts), deadline)
    finally:
        _write_remaining(task, timeout, limit, deadline, USEC)


@syscall(SYS.pselect6, on_signal=ERESTARTNOHAND)
async def pselect6(
    task: Task, n: Int, reads: Addr, writes: Addr, excepts: Addr, timeout: Addr, sigmask: Addr
) -> int:
    """pselect(2), whose last argument points to a pointer to the mask and its size."""
    mask, size = (0, 0) if not sigmask else SIGSET_ARG.unpack(task.mm.read(sigmask, SIGSET_ARG.size))
    limit = _read_timespec(task, timeout)
    _set_mask(task, mask, size)
    deadline = None if limit is None else _deadline(limit) if limit else 0
    try:
        return await _select(task, n, (reads, writes, excepts), deadline)
    finally:
        _write_remaining(task, timeout, limit, deadline, 1)


# epoll


@syscall(SYS.epoll_create)
def epoll_create(task: Task, size: Int) -> int:
    """epoll_create(2)."""
    if size <= 0:
        raise SysError(errno.EINVAL)
    return task.install(EpollFile())


@syscall(SYS.epoll_create1)
def epoll_create1(task: Task, flags: UInt) -> int:
    """epoll_create1(2)."""
    if flags & ~EPOLL_CLOEXEC:
        raise SysError(errno.EINVAL)
    return task.install(EpollFile(), bool(flags))


@syscall(SYS.epoll_ctl)
async def epoll_ctl(task: Task, epfd: Fd, op: Int, fd: Fd, event: Addr) -> None:
    """epoll_ctl(2).  A coroutine, so that a signalfd knows whose signals it is about."""
    events = data = 0
    if op != EPOLL_CTL_DEL:
        events, data = EPOLL_EVENT.unpack(task.mm.read(event, EPOLL_EVENT.size))
    epoll = task.files.get(epfd)
    file = task.files.get(fd)
    if not file.pollable:
        raise SysError(errno.EPERM)
    if epoll is file or not isinstance(epoll, EpollFile):
        raise SysError(errno.EINVAL)
    epoll.check(op, file, events)
    if op == EPOLL_CTL_ADD:
        epoll.insert(fd, file, events, data)
    elif op == EPOLL_CTL_MOD:
        epoll.modify(fd, file, events, data)
    elif op == EPOLL_CTL_DEL:
        epoll.delete(fd, file)
    else:
        raise SysError(errno.EINVAL)


async def _epoll_wait(task: Task, epfd: int, addr: int, count: int, deadline: int | None) -> int:
    if not 0 < count <= EPOLL_MAX_EVENTS:
        raise SysError(errno.EINVAL)
    if addr + count * EPOLL_EVENT.size > 1 << 47:
        raise SysError(errno.EFAULT)
    epoll = task.files.get(epfd)
    if not isinstance(epoll, EpollFile):
        raise SysError(errno.EINVAL)
    epoll.get()
    last = False
    try:
        while True:
            events = epoll.collect(count)
            if events:
                packed = b"".join([EPOLL_EVENT.pack(got, item.data) for item, got in events])
                try:
                    stored = task.mm.write_upto(addr, packed) // EPOLL_EVENT.size
                except SysError:
                    stored = 0
                if stored < len(events):
                    epoll.give_back(events[stored:])
                    if not stored:
                        raise SysError(errno.EFAULT)
                return stored
            if last or deadline == 0:
                return 0
            last = not await _wait([(epoll, 0xFFFFFFFF)], deadline)
    finally:
        epoll.put()


@syscall(SYS.epoll_wait, on_signal=EINTR)
async def epoll_wait(task: Task, epfd: Fd, events: Addr, count: Int, timeout: Int) -> int:
    """epoll_wait(2)."""
    return await _epoll_wait(task, epfd, events, count, _until(task, timeout))


@syscall(SYS.epoll_pwait, on_signal=EINTR)
async def epoll_pwait(
    task: Task, epfd: Fd, events: Addr, count: Int, timeout: Int, mask: Addr, size: Size
) -> int:
    """epoll_pwait(2)."""
    _set_mask(task, mask, size)
    return await _epoll_wait(task, epfd, events, count, _until(task, timeout))


@syscall(SYS.epoll_pwait2, on_signal=EINTR)
async def epoll_pwait2(
    task: Task, epfd: Fd, events: Addr, count: Int, timeout: Addr, mask: Addr, size: Size
) -> int:
    """epoll_pwait2(2)."""
    limit = _read_timespec(task, timeout)
    _set_mask(task, mask, size)
    deadline = None if limit is None else _deadline(limit) if limit else 0
    return await _epoll_wait(task, epfd, events, count, deadline)
