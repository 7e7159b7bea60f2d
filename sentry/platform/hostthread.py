"""PtraceThread: one guest thread, which is a host thread of a stub process (both platforms).

`_c` is the engine's struct guest_thread (csrc/abi/engine.h).  What is done by the thread itself on our
order, and not to its memory, is here; memory is PtraceSpace's.
"""

from __future__ import annotations

import errno

from sentry._engine import ffi, lib
from sentry.abi.errors import SysError
from sentry.abi.resource import RUSAGE
from sentry.abi.time import CLOCK_THREAD_CPUTIME_ID, NS, TIMESPEC
from sentry.platform.base import SYSCALL, Thread, Trap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.platform.ptrace import PtracePlatform, PtraceSpace

SYS_GETRUSAGE = 98
SYS_CLOCK_GETTIME = 228

SCRATCH_SIZE = 64 * 1024
XSTATE_MAX = 16384
#: Host threads of one process that are kept stopped for the next new_thread.
MAX_PARKED = 4
#: And of all processes that are about to end, until they do.
MAX_LEFT = 4096

unzeroed = ffi.new_allocator(should_clear_after_alloc=False)
scratch = unzeroed("char[]", SCRATCH_SIZE)
scratch_view = ffi.buffer(scratch)
xstate = ffi.new("char[]", XSTATE_MAX)
xstate_view = ffi.buffer(xstate)

_frame = ffi.new("struct signal_frame *")
_frame_info = ffi.buffer(_frame.info)

STOPPED = lib.THREAD_STOPPED
PARKED = lib.THREAD_PARKED


def check(result: int) -> int:
    """`result`, or SysError where it is -errno."""
    if result < 0:
        raise SysError(-result)
    return result


class PtraceThread(Thread):
    """A host thread: `_c` is the engine's struct guest_thread, whose slot dies with the thread."""

    __slots__ = ("_c", "_platform", "_syscall_trap", "parked", "used_before")
    space: PtraceSpace

    def __init__(self, platform: PtracePlatform, space: PtraceSpace, c: Any) -> None:
        self._platform = platform
        self._c = c
        self._syscall_trap = Trap(self, SYSCALL)
        self.parked = self.used_before = False
        self.space = space
        self.regs = c.regs
        self.hot = c.hot
        c.files = c.patches = c.mm = c.sighand = c.fs = c.cred = c.io = ffi.NULL
        c.task_tid = c.forced = 0
        c.hot.altstack = 0
        lib.guest_tell_actions(c, ffi.NULL)
        self.owner: object = None
        platform._threads[c.slot] = self
        space.threads.append(self)

    def resume(self) -> None:
        if (result := lib.guest_resume(self._platform._engine, self._c)) < 0:
            raise SysError(-result)

    def set_files(self, table: Any) -> None:
        self._c.files = ffi.NULL if table is None else table

    def set_task(self, sighand: Any, tgid: int, tid: int, uid: int, nested: bool = False) -> None:
        c = self._c
        c.sighand = ffi.NULL if sighand is None else sighand
        c.task_tgid, c.task_tid, c.task_uid, c.task_nested = tgid, tid, uid, nested

    def set_io(self, counts: Any) -> None:
        self._c.io = ffi.NULL if counts is None else counts

    def tell_actions(self, sighand: Any) -> None:
        lib.guest_tell_actions(self._c, sighand)

    def set_forced(self, forced: int, allowed: list[int] | None = None) -> None:
        c, hot = self._c, self.hot
        if allowed is not None:
            c.allowed = hot.allowed = allowed
        c.forced = hot.forced = forced

    def set_altstack(self, there: bool) -> None:
        self.hot.altstack = there

    def push_frame(
        self, action: tuple[int, int, int, int], info: bytes, mask: int, stack: int, lowest: int,
        alt: tuple[int, int, int], fault: tuple[int, int, int],
    ) -> bool:  # fmt: skip
        frame = _frame
        frame.handler, _, frame.restorer, _ = action
        frame.mask, frame.stack, frame.lowest = mask, stack, lowest
        frame.alt_base, frame.alt_flags, frame.alt_size = alt
        frame.error, frame.trapno, frame.cr2 = fault
        _frame_info[0:128] = info
        return bool(lib.guest_push_frame(self._platform._engine, self._c, frame) == 0)

    def set_memory(self, mm: Any) -> None:
        self._c.mm = ffi.NULL if mm is None else mm

    def set_fs(self, context: Any) -> None:
        self._c.fs = ffi.NULL if context is None else context

    def set_cred(self, cred: Any) -> None:
        self._c.cred = ffi.NULL if cred is None else cred

    def kick(self) -> None:
        lib.guest_kick(self._platform._engine, self._c)

    def stop(self) -> None:
        check(lib.guest_stop(self._platform._engine, self._c))

    def set_patches(self, table: Any) -> None:
        self._c.patches = ffi.NULL if table is None else table

    def set_pending(self, bits: int) -> None:
        lib.guest_set_pending(self._c, bits)

    @property
    def asleep(self) -> bool:
        return bool(self._c.state == PARKED)

    @property
    def blocked(self) -> bool:
        return bool(lib.guest_blocked(self._platform._engine, self._c))

    def take_idle(self) -> int:
        c = self._c
        if not c.idle_ns and c.state != PARKED:
            return 0
        idle: int = lib.thread_take_idle(c)
        return idle

    def take_progress(self) -> int:
        progress: int = self._c.progress
        if progress:
            self._c.progress = 0
        return progress

    def take_deadline(self) -> int:
        deadline: int = self._c.deadline
        if deadline:
            self._c.deadline = 0
        return deadline

    def _ask(self, number: int, what: int, size: int) -> bytes | None:
        if lib.guest_ask(self._platform._engine, self._c, number, what, scratch, size) < 0:
            return None
        data: bytes = scratch_view[:size]
        return data

    def cpu_ns(self) -> int | None:
        data = self._ask(SYS_CLOCK_GETTIME, CLOCK_THREAD_CPUTIME_ID, TIMESPEC.size)
        if data is None:
            return None
        seconds, nanoseconds = TIMESPEC.unpack(data)
        total: int = seconds * NS + nanoseconds
        return total

    def rusage(self, who: int) -> bytes | None:
        return self._ask(SYS_GETRUSAGE, who, RUSAGE.size)

    def exit(self, all_go: bool = False) -> None:
        space = self.space
        if self not in space.threads:
            return
        self._c.files = self._c.mm = self._c.sighand = ffi.NULL
        if len(space.threads) == 1:
            space.destroy()
            return
        space.threads.remove(self)
        c = self._c
        room = len(space.parked) < MAX_PARKED or (all_go and self._platform.parked < MAX_LEFT)
        if c.state == STOPPED and (c.pid == c.tgid or room):
            self.parked = True
            space.park(self)
        elif c.state == lib.THREAD_DEAD and c.pid == c.tgid:
            space.park(self)  # destroy() needs the leader's slot
            self.parked = True
        else:
            self._drop()
            lib.guest_exit_thread(self._platform._engine, c)

    def _drop(self) -> None:
        """Forget the Python side: the slot may belong to somebody else soon."""
        self._platform._threads.pop(self._c.slot, None)

    def get_fpstate(self) -> bytes:
        size = check(lib.guest_get_fpstate(self._platform._engine, self._c, xstate, XSTATE_MAX))
        data: bytes = xstate_view[:size]
        return data

    def set_fpstate(self, data: bytes) -> None:
        size = self._platform.fpstate_size
        if not 576 <= len(data) <= size:  # the legacy area and the XSAVE header are the least
            raise SysError(errno.EINVAL)
        if len(data) < size:
            data = data + bytes(size - len(data))
        check(lib.guest_set_fpstate(self._platform._engine, self._c, data, size))

    def reset_fpstate(self) -> None:
        self.set_fpstate(self._platform.fresh_fpstate)
