"""What tasks read and write (proc_pid_io(5)): bytes that calls have moved, and the calls.  Those that the
engine answers it counts itself, in the same struct io_counts."""

from __future__ import annotations

import errno

from sentry._engine import ffi
from sentry.abi.syscall_nr import SYS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.kernel.group import ThreadGroup
    from sentry.kernel.task import Task

_READS, _WRITES = (0,), (1,)
_BOTH = (0, 1)
#: Which of the counts a call belongs to.
IO_CALLS = {
    SYS.read: _READS, SYS.pread64: _READS, SYS.readv: _READS, SYS.preadv: _READS, SYS.preadv2: _READS,
    SYS.write: _WRITES, SYS.pwrite64: _WRITES, SYS.writev: _WRITES, SYS.pwritev: _WRITES,
    SYS.pwritev2: _WRITES, SYS.sendfile: _BOTH, SYS.copy_file_range: _BOTH,
}  # fmt: skip
#: Those that count only once they have come to the file.
_AT_FILE = (SYS.read, SYS.pread64, SYS.write, SYS.pwrite64, SYS.sendfile, SYS.copy_file_range)
_U64 = (1 << 64) - 1
_BEFORE = (-errno.EBADF & _U64, -errno.EINVAL & _U64)
_ERRORS = _U64 - 4095


def new() -> Any:
    return ffi.new("struct io_counts *")


def count(task: Task, nr: int, kinds: tuple[int, ...], result: int) -> None:
    """The call `nr`, one of IO_CALLS, has ended with `result` in rax."""
    if result in _BEFORE and nr in _AT_FILE:
        return
    io = task.io
    for kind in kinds:
        io.calls[kind] = (io.calls[kind] + 1) & _U64
        if result < _ERRORS:
            io.bytes[kind] = (io.bytes[kind] + result) & _U64


def add(total: Any, more: Any) -> None:
    for kind in _BOTH:
        total.calls[kind] = (total.calls[kind] + more.calls[kind]) & _U64
        total.bytes[kind] = (total.bytes[kind] + more.bytes[kind]) & _U64


def _text(io: Any) -> bytes:
    values = (*io.bytes, *io.calls)
    return b"rchar: %d\nwchar: %d\nsyscr: %d\nsyscw: %d\n" % values + (
        b"read_bytes: 0\nwrite_bytes: 0\ncancelled_write_bytes: 0\n"
    )


def of_task(task: Task) -> bytes:
    return _text(task.io)


def of_group(group: ThreadGroup) -> bytes:
    """Of all threads, of those that are gone, and of children that were waited for."""
    fresh = new()
    add(fresh, group.io)
    for task in group.tasks:
        add(fresh, task.io)
    return _text(fresh)
