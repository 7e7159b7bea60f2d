"""The `ptrace` platform: guest threads are traced host threads, guest memory is their own memory.

Each guest address space is a host process (a stub): a clone of the zygote or of another stub, with
one page of our code at GUEST_TOP and the vDSO below it.  Its threads run under PTRACE_SYSEMU.  Memory
operations are host system calls that a stopped thread of the process makes on our order, so page
faults, copy-on-write and huge pages are the host kernel's.  The work is done in C (csrc/engine and
csrc/platform; start with the opening comments there); this module keeps the objects.

Everything here belongs to one thread of the Sentry, the one that called `start`: the host ties a
tracee to the thread that attached it.
"""

from __future__ import annotations

import errno
import os
from time import clock_gettime_ns

from sentry._engine import ffi, lib
from sentry.abi.errors import SysError
from sentry.abi.mman import (
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_NORESERVE,
    MAP_PRIVATE,
    MAP_SHARED,
    MREMAP_FIXED,
    MREMAP_MAYMOVE,
    PAGE_SIZE,
)
from sentry.abi.time import CPUCLOCK_SCHED
from sentry.platform.base import (
    DEAD,
    FAULT,
    GUEST_TOP,
    SITE,
    SYSCALL,
    AddressSpace,
    Platform,
    Thread,
    Trap,
)
from sentry.platform.hostthread import (
    SCRATCH_SIZE,
    STOPPED,
    XSTATE_MAX,
    PtraceThread,
    check,
    scratch,
    scratch_view,
    unzeroed,
    xstate,
    xstate_view,
)
from sentry.platform.queue import and_then, drain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

#: Host system calls that this platform makes after `start`, for the Sentry's own seccomp filter.
#: What is not named here is made before lock-down.  Allocation (mmap, munmap, brk, mremap, madvise)
#: and Python's own needs are the runtime's to add.
HOST_SYSCALLS = (
    "ptrace",  # any request that needs an attached tracee; never SEIZE, ATTACH, TRACEME
    "wait4",  # any options of WNOHANG|__WALL, rusage NULL
    "epoll_pwait2",  # or, on hosts before 5.11, the next
    "epoll_pwait",
    "epoll_ctl",
    "ppoll",  # one descriptor, the seccomp listener
    "ioctl",  # SECCOMP_IOCTL_NOTIF_RECV 0xc0502100, _NOTIF_SEND 0xc0182101, _NOTIF_ADDFD 0x40182103
    "process_vm_readv",
    "process_vm_writev",
    "move_pages",  # nodes NULL: moves nothing
    "kill",  # SIGKILL to stubs
    "sched_setaffinity",
    "sched_yield",
    "rt_sigreturn",  # from the SIGCHLD handler
    "clock_gettime",  # of stubs' CPU time, or where the vDSO can't answer
    "close",  # this and the next two in Platform.close
    "rt_sigaction",
    "rt_sigprocmask",
)

SYS_MPROTECT = 10
SYS_MMAP = 9
SYS_MUNMAP = 11
SYS_MREMAP = 25
SYS_MADVISE = 28
NO_FD = 0xFFFF_FFFF_FFFF_FFFF

EVENT_BATCH = 128

EVENT_FD, EVENT_WOKEN = lib.EVENT_FD, lib.EVENT_WOKEN
_read = lib.memory_read
_write = lib.memory_write


class PtraceSpace(AddressSpace):
    """A stub process.  `threads` are the guest's, `parked` are stopped host threads without a guest
    thread: the leader, which must not exit before the others, and a few to be used again."""

    __slots__ = ("_engine", "_leader", "_platform", "_tgid", "parked", "threads")

    def __init__(self, platform: PtracePlatform, leader: Any) -> None:
        self._platform = platform
        self._engine = platform._engine
        self._leader = leader
        self._tgid = leader.pid
        self.threads: list[PtraceThread] = []
        self.parked: list[PtraceThread] = []
        platform._spaces.add(self)

    def park(self, thread: PtraceThread) -> None:
        self.parked.append(thread)
        self._platform.parked += 1

    def _worker(self) -> Any:
        """A stopped thread to make a host call with."""
        for thread in self.threads:
            if thread._c.state == STOPPED:
                return thread._c
        for thread in self.parked:
            if thread._c.state == STOPPED:
                return thread._c
        for thread in self.threads:
            if lib.guest_stop(self._engine, thread._c) == 0:
                return thread._c
        raise SysError(errno.ESRCH)

    def _call(self, number: int, a0: int, a1: int, a2: int = 0, a3: int = 0, a4: int = 0, a5: int = 0) -> int:
        result: int = lib.guest_syscall(self._engine, self._worker(), number, a0, a1, a2, a3, a4, a5)
        if result < 0:
            raise SysError(-result)
        return result

    def host_call(self, number: int, *args: int) -> int:
        padded = (*args, 0, 0, 0, 0, 0, 0)
        return self._call(number, *padded[:6])

    @staticmethod
    def _check_range(addr: int, size: int) -> None:
        if addr < 0 or size <= 0 or addr + size > GUEST_TOP or (addr | size) & (PAGE_SIZE - 1):
            raise SysError(errno.EINVAL)

    def map_anon(self, addr: int, size: int, prot: int, noreserve: bool = False) -> None:
        self._check_range(addr, size)
        flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | (MAP_NORESERVE if noreserve else 0)
        self._call(SYS_MMAP, addr, size, prot, flags, NO_FD, 0)

    def map_file(self, addr: int, size: int, prot: int, shared: bool, host_fd: int, offset: int) -> None:
        self._check_range(addr, size)
        flags = MAP_FIXED | (MAP_SHARED if shared else MAP_PRIVATE)
        check(lib.guest_map_file(self._engine, self._worker(), addr, size, prot, flags, host_fd, offset))

    def unmap(self, addr: int, size: int) -> None:
        self._check_range(addr, size)
        self._call(SYS_MUNMAP, addr, size)

    def protect(self, addr: int, size: int, prot: int) -> None:
        self._check_range(addr, size)
        self._call(SYS_MPROTECT, addr, size, prot)

    def remap(self, old: int, old_size: int, new: int, new_size: int) -> None:
        self._check_range(old, old_size)
        self._check_range(new, new_size)
        if new != old:
            self._call(SYS_MREMAP, old, old_size, new_size, MREMAP_MAYMOVE | MREMAP_FIXED, new)
            return
        try:
            self._call(SYS_MREMAP, old, old_size, new_size, 0)
        except SysError as error:
            # Unlike a move, growing in place does not push away what is there.
            if error.errno != errno.ENOMEM or new_size <= old_size:
                raise
            self._call(SYS_MUNMAP, old + old_size, new_size - old_size)
            self._call(SYS_MREMAP, old, old_size, new_size, 0)

    def advise(self, addr: int, size: int, advice: int) -> None:
        self._check_range(addr, size)
        self._call(SYS_MADVISE, addr, size, advice)

    def read(self, addr: int, size: int) -> bytes:
        data = self.read_upto(addr, size)
        if len(data) != size:
            raise SysError(errno.EFAULT)
        return data

    def read_upto(self, addr: int, size: int) -> bytes:
        if size <= SCRATCH_SIZE:
            if size == 0:
                return b""
            n = _read(self._tgid, addr, scratch, size)
            if n < 0:
                raise SysError(-n)
            data: bytes = scratch_view[:n]
            return data
        if addr + size > GUEST_TOP:
            size = max(GUEST_TOP - addr, 1)
        big = unzeroed("char[]", size)
        n = check(_read(self._tgid, addr, big, size))
        data = ffi.buffer(big, n)[:]
        return data

    def write(self, addr: int, data: bytes | bytearray | memoryview) -> None:
        size = len(data)
        if size and (n := _write(self._tgid, addr, ffi.from_buffer(data), size)) != size:
            raise SysError(-n if n < 0 else errno.EFAULT)

    def write_upto(self, addr: int, data: bytes | bytearray | memoryview) -> int:
        if not len(data):
            return 0
        return check(_write(self._tgid, addr, ffi.from_buffer(data), len(data)))

    def cmpxchg32(self, addr: int, expected: int, new: int) -> int:
        return check(lib.guest_cmpxchg32(self._engine, self._worker(), addr, expected, new))

    def write_code(self, addr: int, data: bytes, prot: int) -> None:
        worker = self._worker()
        check(lib.guest_write_code(self._engine, worker, addr, ffi.from_buffer(data), len(data), prot))

    def fork(self, thread: Thread, memory: tuple[int, int, int] | None = None) -> PtraceThread:
        assert isinstance(thread, PtraceThread)
        if memory is None:
            c = self._platform._clone(thread._c, False)
        else:
            addr, size, prot = memory
            self._check_range(addr, size)
            child = ffi.new("struct guest_thread **")
            check(lib.guest_clone_with(self._engine, thread._c, addr, size, prot, child))
            c = child[0]
        return PtraceThread(self._platform, PtraceSpace(self._platform, c), c)

    def new_thread(self, like: Thread) -> PtraceThread:
        assert isinstance(like, PtraceThread)
        for old in self.parked:
            if old._c.state == STOPPED:
                self.parked.remove(old)
                self._platform.parked -= 1
                thread = PtraceThread(self._platform, self, old._c)
                thread.used_before = True
                check(lib.guest_become(self._engine, old._c, like._c))
                return thread
        return PtraceThread(self._platform, self, self._platform._clone(like._c, True))

    def destroy(self) -> None:
        if self not in self._platform._spaces:
            return
        self._platform._spaces.discard(self)
        lib.guest_kill(self._engine, self._leader)
        for thread in self.threads + self.parked:
            thread._drop()
            lib.guest_forget(self._engine, thread._c)
        self.threads.clear()
        self._platform.parked -= len(self.parked)
        self.parked.clear()
        self._tgid = 0  # the host may give the number to another process

    def cpu_ns(self) -> int | None:
        try:
            return clock_gettime_ns(~self._tgid << 3 | CPUCLOCK_SCHED)
        except OSError:
            return None  # the process is gone

    def resident(self, addr: int, count: int, stride: int = PAGE_SIZE) -> int:
        found: int = lib.memory_resident(self._tgid, addr, stride, count, ffi.NULL)
        return max(found, -1)

    def page_states(self, addr: int, count: int) -> bytes | None:
        what = unzeroed("uint8_t[]", count)
        if lib.memory_resident(self._tgid, addr, PAGE_SIZE, count, what) < 0:
            return None
        result: bytes = ffi.buffer(what, count)[:]
        return result


class PtracePlatform(Platform):
    """`stub_fd` is the stub program (sentry/_bin/stub), `filter_bytes` its seccomp filter
    (sentry/_bin/stub.bpf); both are needed by `start` only.  `pin`: keep the Sentry and stubs that trap
    often on one CPU (csrc/engine/placement.c)."""

    name = "ptrace"

    def __init__(self, stub_fd: int, filter_bytes: bytes, pin: bool = True) -> None:
        self._stub_fd = stub_fd
        self._filter = filter_bytes
        self._pin = pin
        self._engine: Any = ffi.NULL
        self._zygote: Any = None
        #: Between `begin` and `finish`.
        self._boot: Any = None
        self._boot_parts: Any = None
        self._booting: Any = None
        self._threads: dict[int, PtraceThread] = {}
        self._spaces: set[PtraceSpace] = set()
        #: How many threads all of them keep parked.
        self.parked = 0
        self._watches: dict[int, tuple[int, Callable[[int], None]]] = {}
        self._generation = 0
        self._late: list[Trap] = []
        self._events = ffi.new("struct engine_event[]", EVENT_BATCH)
        self._vdso = (GUEST_TOP, GUEST_TOP, GUEST_TOP)
        self.fpstate_size = 0
        self.fresh_fpstate = b""

    def start(self) -> None:
        """Start the zygote.  OSError: EPERM where ptrace is forbidden, ENOEXEC where the stub can't run,
        EOPNOTSUPP where `trap` lacks something of the CPU."""
        self.begin()
        self.finish()

    def begin(self) -> None:
        """The first half of `start`, which `trap` can do while its caller does something else."""
        error = ffi.new("int *")
        self._engine = lib.engine_new(self._pin, error)
        if not self._engine:
            raise OSError(error[0], "engine: " + os.strerror(error[0]))
        self._choose()
        parts = _vdso_parts()
        self._boot_parts = ffi.new("struct vdso_part[]", parts)
        self._boot = (
            self._engine,
            self._stub_fd,
            self._filter,
            len(self._filter),
            self._boot_parts,
            len(parts),
        )
        self._booting = self._begin_boot()

    def _begin_boot(self) -> Any:
        """A boot under way, or NULL when `finish` has to do it: ptrace is one thread's matter."""
        return ffi.NULL

    def finish(self) -> None:
        """The rest of `start`."""
        start, elf = ffi.new("uint64_t *"), ffi.new("uint64_t *")
        zygote = ffi.new("struct guest_thread **")
        if self._booting:
            result = lib.ptrace_boot_end(self._booting, start, elf, zygote)
        else:
            result = lib.ptrace_boot(*self._boot, start, elf, zygote)
        self._boot = self._boot_parts = self._booting = None
        if result < 0:
            lib.engine_free(self._engine)
            self._engine = ffi.NULL
            raise OSError(-result, "stub: " + os.strerror(-result))
        self._zygote = zygote[0]
        self._vdso = (start[0], elf[0], GUEST_TOP)
        #: For the memory cgroup, which every stub inherits from it.
        self.zygote_pid: int = self._zygote.pid
        self.fpstate_size = check(lib.guest_get_fpstate(self._engine, self._zygote, xstate, XSTATE_MAX))
        self.fresh_fpstate = xstate_view[: self.fpstate_size]
        lib.guest_fresh_fpstate(xstate, self.fpstate_size)

    def _choose(self) -> None:
        """Tell the engine which platform it serves, when that is not ptrace."""

    def _clone(self, c: Any, thread: bool) -> Any:
        child = ffi.new("struct guest_thread **")
        check(lib.guest_clone(self._engine, c, thread, child))
        return child[0]

    def new_address_space(self) -> PtraceThread:
        try:
            c = self._clone(self._zygote, False)
        except SysError as error:
            if error.errno == errno.ESRCH:  # the zygote was killed: there is no way to get another one
                raise SysError(errno.ENOMEM) from None
            raise
        return PtraceThread(self, PtraceSpace(self, c), c)

    def vdso(self) -> tuple[int, int, int]:
        return self._vdso

    def set_fast(self, on: bool) -> None:
        lib.engine_set_fast(self._engine, on)

    def fast_count(self) -> int:
        count: int = lib.engine_fast_count(self._engine)
        return count

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        # The generation tells a late event of an fd number's former life from one of this.
        self._generation = (self._generation + 1) & 0x7FFF_FFFF
        token = self._generation << 32 | fd
        result = lib.engine_watch(self._engine, fd, events, token)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        self._watches[fd] = (token, callback)

    def unwatch(self, fd: int) -> None:
        if self._watches.pop(fd, None):
            lib.engine_unwatch(self._engine, fd)

    def wait(self, timeout_ns: int) -> list[Trap]:
        if self._late:
            traps, self._late = self._late, []
            return traps
        events = self._events
        count = lib.engine_wait(self._engine, timeout_ns, events, EVENT_BATCH)
        if count < 0:
            raise OSError(-count, os.strerror(-count))
        traps = []
        ready = None
        woken = False
        for i in range(count):
            event = events[i]
            if event.what == 1:
                thread = self._threads.get(event.slot)
                if thread is None:  # nobody's: a clone that failed half-way
                    lib.guest_forget(self._engine, lib.engine_thread(self._engine, event.slot))
                    continue
                c = thread._c
                kind = c.kind
                if thread.parked:
                    continue
                if kind == SYSCALL:
                    traps.append(thread._syscall_trap)
                elif kind in (FAULT, SITE):
                    traps.append(Trap(thread, kind, c.signo, c.code, c.addr, c.trapno, c.error))
                else:
                    traps.append(Trap(thread, kind))
            elif event.what == EVENT_FD:
                if ready is None:
                    ready = []
                ready.append((event.token, event.events))
            else:
                woken = True
        if ready is not None or woken:
            self._call_back(ready or [], traps)
        return traps

    def _call_back(self, ready: list[tuple[int, int]], traps: list[Trap]) -> None:
        try:
            drain()
            for settle in and_then:
                settle()
            for token, events in ready:
                watch = self._watches.get(token & 0xFFFF_FFFF)
                if watch is not None and watch[0] == token:
                    watch[1](events)
        except BaseException:
            self._late = traps  # a callback's bug must not swallow traps
            raise

    def close(self) -> None:
        if not self._engine:
            return
        for space in list(self._spaces):
            space.destroy()
        lib.guest_kill(self._engine, self._zygote)
        lib.guest_forget(self._engine, self._zygote)
        lib.guest_reap(self._engine)
        lib.engine_free(self._engine)
        self._engine = ffi.NULL


def _vdso_parts() -> list[tuple[int, int]]:
    """(offset from the vDSO's ELF header, size) of each mapping of the vDSO's family.

    All processes of one kernel have the same layout, so the Sentry's own tells the zygote's.
    """
    found = []
    elf = None
    with open("/proc/self/maps", "rb") as maps:
        for line in maps:
            fields = line.split()
            name = fields[-1]
            if not name.startswith((b"[vvar", b"[vdso]")):
                continue
            first, last = (int(part, 16) for part in fields[0].split(b"-"))
            found.append((first, last - first))
            if name == b"[vdso]":
                elf = first
    if elf is None:
        return []
    return [(first - elf, size) for first, size in found]


__all__ = ["DEAD", "HOST_SYSCALLS", "PtracePlatform", "PtraceSpace", "PtraceThread"]
