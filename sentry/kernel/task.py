"""Task: one guest thread and its way between its program and the kernel (struct task_struct).

A task is always in one of these states:

    running    its platform thread executes guest code; only `kick` may touch it
    in a call  a handler runs or sleeps (`Runner.busy`)
    parked     stopped by job control, on its way back to the program
    exited     gone; the group may still be there

`on_trap` takes it out of the program, `return_to_user` puts it back and is the only place where
signals are delivered.  A handler that has set up the registers by itself (sigreturn, execve)
returns NO_RESULT.
"""

from __future__ import annotations

import errno
from time import monotonic_ns

from sentry._engine import lib
from sentry.abi.core import CORE_SIGNALS
from sentry.abi.errors import SysError
from sentry.abi.resource import RLIMIT_NOFILE
from sentry.abi.signal import (
    IGNORED_BY_DEFAULT,
    SA_NODEFER,
    SA_RESETHAND,
    SA_RESTART,
    SI_USER,
    SIG_DFL,
    SIG_IGN,
    SIGSEGV,
    SIGSTOP,
    STOP_SIGNALS,
    UNBLOCKABLE,
    SigInfo,
    bit,
)
from sentry.abi.syscall_nr import SYS
from sentry.abi.wait import signal_status
from sentry.kernel import frames, ioacct
from sentry.kernel.bound import Bound
from sentry.kernel.cputime import task_times
from sentry.kernel.sched import Sched
from sentry.kernel.signals import DEFAULT, sanitize_mask
from sentry.kernel.wait import Interrupted, Runner, WaitQueue
from sentry.platform.base import DEAD, FAULT, KICKED, SITE, SYSCALL, Trap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.fs.file import File
    from sentry.kernel.credentials import Credentials
    from sentry.kernel.group import ThreadGroup
    from sentry.kernel.ipc.sem import UndoList
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.pids import Pid
    from sentry.kernel.ptrace import Tracee

NO_RESULT = object()

ERESTARTSYS = 512
ERESTARTNOINTR = 513
ERESTARTNOHAND = 514
ERESTART_RESTARTBLOCK = 516
SYSCALL_INSTRUCTION_SIZE = 2
PASSING, PASS_ENDED = 1, 2
U64 = 0xFFFFFFFFFFFFFFFF
#: Without what `Task.step` adds for those that do not come from a trap.
run_coroutine = Runner.step


class Task(Bound):
    __slots__ = (
        "affinity",
        "chosen",
        "cpu_base",
        "fault_addr",
        "fault_error",
        "ipc",
        "name",
        "nr",
        "parked",
        "passing",
        "pdeath_signal",
        "restart",
        "restart_block",
        "resumed_ns",
        "running",
        "saved_mask",
        "sched",
        "signalled_ns",
        "start_ns",
        "stime_ns",
        "sysvsem",
        "trace",
        "tracees",
        "trapped_ns",
        "utime_ns",
        "vfork_parent",
        "vfork_queue",
    )  # fmt: skip

    def __init__(
        self, kernel: Kernel, tid: int, group: ThreadGroup, cred: Credentials, pid: Pid | None = None
    ) -> None:
        super().__init__(kernel, tid, group, cred, pid)
        self.name = b""
        #: Signals of the group that this task was chosen for, and when a CPU timer last did (`utime_ns`).
        self.chosen = self.signalled_ns = 0
        self.saved_mask: int | None = None
        self.pdeath_signal = 0
        #: Number of the call under way, and how it is restarted if a signal ended it.
        self.nr = -1
        self.restart = 0
        self.restart_block: Any = None
        self.fault_error = self.fault_addr = 0
        self.running = False
        self.parked = False
        #: Of a forced call that the platform makes after all (`pass_on`): PASSING, or PASS_ENDED by a kick.
        self.passing = 0
        #: While a child borrows this task's memory (vfork), and where that parent waits.
        self.vfork_queue: WaitQueue | None = None
        self.affinity = (1 << kernel.host.cpus) - 1
        self.start_ns = self.resumed_ns = monotonic_ns()
        #: When the trap under way began, 0 outside `on_trap`.
        self.trapped_ns = 0
        #: How long it was in its program, and how long its handlers took (sentry.kernel.cputime).
        self.utime_ns = self.stime_ns = 0
        self.cpu_base: int | None = None
        self.sched = Sched()
        self.ipc = kernel.ipc
        #: What the end of this task takes back of semaphores (SEM_UNDO).
        self.sysvsem: UndoList | None = None
        #: What tracing adds, while somebody does (ptrace(2)); and whom this task traces.
        self.trace: Tracee | None = None
        self.tracees: dict[Task, None] = {}

    @property
    def state(self) -> bytes:
        """The letter of /proc/PID/stat."""
        if self.exited:
            return b"Z"
        if self.trace is not None and self.trace.stopped:
            return b"t"
        if self.parked:
            return b"T"
        thread = self.thread
        return b"S" if self.sleeping or thread is None or thread.asleep or thread.blocked else b"R"

    def install(self, file: File, cloexec: bool = False, minimum: int = 0) -> int:
        """A descriptor for `file`, whose reference passes to the table (also when it is full: EMFILE)."""
        try:
            return self.files.install(file, self.group.limit(RLIMIT_NOFILE), cloexec, minimum)
        except SysError:
            file.put()
            raise

    def cpu_times(self) -> tuple[int, int]:
        """(user, system) nanoseconds."""
        return task_times(self)

    def io_text(self) -> bytes:
        """/proc/PID/task/TID/io."""
        return ioacct.of_task(self)

    # The way in

    def on_trap(self, trap: Trap) -> None:
        """The platform stopped this task's thread."""
        if trap.kind == SITE:
            patches = self.mm.patches
            if patches is not None:
                patches.consider(self.regs)
            if not trap.code:
                self.thread.resume()
                if self.signal_pending() or self.kill_pending():
                    self.thread.kick()
                return
            trap = Trap(trap.thread, SYSCALL)
        if self.trace is not None:
            self.trace.came(trap)
        now = self.trapped_ns = monotonic_ns()
        self.utime_ns += now - self.resumed_ns - self.thread.take_idle()
        self.running = False
        group = self.group
        try:
            if trap.kind == SYSCALL and not (group.dying or self.exited or group.exec_task):
                self.enter_syscall(self.regs.orig_rax & 0xFFFFFFFF)
            else:
                self._handle(trap)
        finally:
            self.stime_ns += (self.resumed_ns if self.running else monotonic_ns()) - now
            self.trapped_ns = 0

    def step(self, value: object, error: BaseException | None) -> None:
        """Run on; what is not inside `on_trap` counts as system time here."""
        if self.trapped_ns:
            super().step(value, error)
            return
        start = monotonic_ns()
        super().step(value, error)
        self.stime_ns += monotonic_ns() - start

    def _handle(self, trap: Trap) -> None:
        if self.exited:
            self.kernel.reap_thread(self)
            return
        kind = trap.kind
        if self.passing and kind != SYSCALL:
            self._passed(0)
        if kind == DEAD:
            self.kernel.lost_thread(self)
        elif self.kill_pending():
            self.return_to_user()
        elif kind == SYSCALL:
            self.enter_syscall(self.regs.orig_rax & 0xFFFFFFFF)
        else:
            patches = self.mm.patches
            if patches is not None and patches.settle(self.regs, trap.signo if kind == FAULT else 0):
                kind = KICKED
            if kind == FAULT:
                self._fault(trap)
            self.return_to_user()

    def _fault(self, trap: Trap) -> None:
        if trap.signo == SIGSEGV and self.mm.handle_fault(trap.addr, trap.error):
            return
        # What a signal frame has 64 bits for; on `trap` it is the guest's own word.
        self.fault_addr, self.fault_trapno, self.fault_error = trap.addr, trap.trapno & U64, trap.error & U64
        self.thread.set_altstack(True)
        self.kernel.signals.force(self, SigInfo(trap.signo, trap.code, addr=trap.addr))

    def enter_syscall(self, nr: int) -> None:
        """The program has made the call `nr`."""
        if self.trace is None or not self.trace.enter(nr):
            self.run_syscall(nr)

    def run_syscall(self, nr: int) -> None:
        """Run the handler of `nr` until it ends or sleeps."""
        self.nr = nr
        self.restart = 0
        kernel = self.kernel
        entry = kernel.table.get(nr) or kernel.late_syscall(nr)
        if self.passing:
            self._passed(PASS_ENDED if self.hot.passes == lib.PASS_BEGUN else 0)
        if self.passing != PASS_ENDED:
            if kernel.strace is not None:
                kernel.strace.enter(self, nr)
            seccomp = self.seccomp
            if seccomp is not None and not seccomp.always >> nr & 1 and not seccomp.check(self, nr):
                return
        if entry is None:
            self.finished(None, kernel.missing_syscall(self, nr))
            return
        call = entry.call
        if call is None:
            call = entry.call = kernel.decoder(entry.kinds)
        try:
            result = call(entry.handler, self, self.regs)
        except Exception as exc:
            self.finished(None, exc)
            return
        if entry.is_async:
            self._coro = result
            run_coroutine(self, None, None)
        else:
            self.finished(result, None)

    async def handle(self, nr: int) -> object:
        """What the handler of `nr` gives, for a call that was not made at once."""
        entry = self.kernel.table.get(nr) or self.kernel.late_syscall(nr)
        if entry is None:
            raise self.kernel.missing_syscall(self, nr)
        call = entry.call
        if call is None:
            call = entry.call = self.kernel.decoder(entry.kinds)
        result = call(entry.handler, self, self.regs)
        return await result if entry.is_async else result

    def pass_on(self) -> object:
        """Let the platform make the call, which is one of `hosts_futexes`; what its handler has to return.

        The thread goes back to the instruction with the word that this one time it is not forced.  If
        anybody but a filter forces its calls it tells of the end by KICKED."""
        self.hot.passes = lib.PASS_ONCE
        self.passing = PASSING
        self.regs.rax = self.nr
        self.regs.rip -= SYSCALL_INSTRUCTION_SIZE
        return NO_RESULT

    def was_kicked(self) -> bool:
        """Whether the futex(2) that traps has waited on the platform, until a kick."""
        begun = self.passing == PASS_ENDED or self.hot.passes == lib.PASS_BEGUN
        self.hot.passes = 0
        return begun

    def _passed(self, state: int) -> None:
        """A trap: what was passed on has ended with a result, was ended by a kick (`state` PASS_ENDED), or
        has not even begun; then it will come again."""
        if self.passing == PASSING and not self.hot.passes and self.kernel.strace is not None:
            self.kernel.strace.leave(self, self.nr, 0)
        self.hot.passes = 0
        self.passing = state

    # The way out

    def finished(self, result: Any, error: BaseException | None) -> None:
        """The handler came to its end: turn that into rax, and go back to the program."""
        if self.exited or self._coro is not None:  # Kernel.exit_task has begun
            return
        if self.group.dumping is self:  # no handler has ended, but coredump.run
            self.return_to_user()
            return
        if error is None:
            if result is not NO_RESULT:
                self.regs.rax = (result or 0) & U64
            if self.saved_mask is not None:
                self.blocked, self.saved_mask = self.saved_mask, None
        else:
            self._failed(error)
        kinds = ioacct.IO_CALLS.get(self.nr)
        if kinds is not None:
            ioacct.count(self, self.nr, kinds, self.regs.rax)
        if self.kernel.strace is not None and self.passing != PASSING:
            self.kernel.strace.leave(self, self.nr, self.restart)
        try:
            if self.trace is None or not self.trace.leave():
                self.return_to_user()
        except Exception as exc:
            self.kernel.task_bug(self, exc)

    def _failed(self, error: BaseException) -> None:
        """The only place where an exception of a handler becomes a number."""
        if isinstance(error, SysError):
            self.regs.rax = -error.errno & U64
            if self.saved_mask is not None:
                self.blocked, self.saved_mask = self.saved_mask, None
        elif isinstance(error, Interrupted):
            entry = self.kernel.table.get(self.nr)
            self.restart = error.restart or (ERESTARTSYS if entry is None else entry.on_signal)
            self.regs.rax = -errno.EINTR & U64
            if self.restart == errno.EINTR:
                self.restart = 0
        elif isinstance(error, self.kernel.restart_block_type):
            self.restart = ERESTART_RESTARTBLOCK
            self.restart_block = error.continuation  # type: ignore[attr-defined]
            self.regs.rax = -errno.EINTR & U64
        else:
            self.kernel.handler_bug(self, error)
            self.regs.rax = -errno.EIO & U64

    def return_to_user(self) -> None:
        """Deliver what is pending, then let the program run on."""
        if self._coro is not None or self.exited:
            return
        group, trace = self.group, self.trace
        while True:
            if trace is not None and trace.stopped:
                return
            if group.dying or group.exec_task not in (None, self):
                self.kernel.exit_task(self, group.exit_status)
                return
            if trace is not None:
                if trace.trapped():
                    return
            elif group.stopped:
                self.parked = True
                return
            bits = self.pending.bits | group.pending.bits
            if not bits & ~self.blocked:
                break
            info = self._take_deliverable()
            if info is None:
                break
            if trace is not None and trace.intercept(info):
                return
            if not self._deliver(info):
                return
        if self.restart:
            self._restart_syscall()
        if self.saved_mask is not None:
            self.blocked, self.saved_mask = self.saved_mask, None
            if self._deliverable():
                self.return_to_user()
                return
        if bits != self.hot.pending:
            self.thread.set_pending(bits)
        if trace is not None:
            trace.goes()
        self.resumed_ns = monotonic_ns()
        self.running = True
        self.thread.resume()

    def _restart_syscall(self) -> None:
        """No handler ran: go back to the instruction, as if the call had never been interrupted."""
        self.regs.rax = SYS.restart_syscall if self.restart == ERESTART_RESTARTBLOCK else self.nr
        self.regs.rip -= SYSCALL_INSTRUCTION_SIZE
        self.restart = 0

    def _deliver(self, info: SigInfo) -> bool:
        """Act on one signal; False when the task does not go on."""
        signo = info.signo
        hand = self.group.sighand
        action = hand.get(signo)
        handler, flags, _, mask = action
        if self.kernel.strace is not None:
            self.kernel.strace.signal(self, info)
        if handler == SIG_IGN:
            return True
        if handler == SIG_DFL:
            return self._default(info)
        if self.restart:
            if self.restart == ERESTARTNOINTR or (self.restart == ERESTARTSYS and flags & SA_RESTART):
                self._restart_syscall()
            self.restart = 0
        old = self.blocked if self.saved_mask is None else self.saved_mask
        try:
            frames.push(self, action, info, old)
        except SysError:
            return self._stack_overflow(signo)
        self.saved_mask = None
        if flags & SA_RESETHAND:
            hand.set(signo, (SIG_DFL, *action[1:]))
        blocked = self.blocked | mask | (0 if flags & SA_NODEFER else bit(signo))
        self.blocked = sanitize_mask(blocked)
        if self.trace is not None:
            self.trace.entered_handler()
        return True

    def go_on(self, info: SigInfo | None) -> None:
        """The way out goes on behind a stop for the tracer's sake, with the signal that it has left."""
        if self.exited or self.kill_pending() or info is None:
            self.return_to_user()
        elif self.blocked & bit(info.signo):
            self.pending.add(info)
            self.return_to_user()
        elif self._deliver(info):
            self.return_to_user()

    def _stack_overflow(self, signo: int) -> bool:
        """The frame could not be written: SIGSEGV, fatal if that was the signal (force_sigsegv)."""
        if signo == SIGSEGV:
            self.group.sighand.set(SIGSEGV, DEFAULT)
        self.kernel.signals.force(self, SigInfo(SIGSEGV, 0x80))
        return True

    def _default(self, info: SigInfo) -> bool:
        signo = info.signo
        mask = bit(signo)
        if mask & IGNORED_BY_DEFAULT or (self.group.unkillable and not mask & UNBLOCKABLE):
            return True
        if mask & STOP_SIGNALS:
            if signo == SIGSTOP or not self.group.pgrp.orphaned() or self.kernel.has_shell(self.group, signo):
                self.kernel.signals.stop_group(self.group, signo)
            return True
        self.die(info)
        return False

    def die(self, info: SigInfo) -> None:
        """The signal ends the process, maybe with a core file."""
        signo, group = info.signo, self.group
        if self.kernel.strace is not None:
            self.kernel.strace.killed(self, signo)
        if bit(signo) & CORE_SIGNALS and (group.dumping is not None or self._dumps()):
            if group.dumping is None:
                from sentry.kernel import coredump

                group.dumping = self
                self.start(coredump.run(self, info))
            else:
                self.parked = True  # the end of the group will be this one's
            return
        self.kernel.exit_group(group, signal_status(signo), by=self)
        self.kernel.exit_task(self, group.exit_status)

    def _dumps(self) -> bool:
        from sentry.kernel import coredump

        return coredump.wanted(self)

    # Signals

    def send_signal(self, signo: int, info: SigInfo | None = None) -> None:
        """Queue a signal for this very task (tgkill(2))."""
        self.kernel.signals.send_task(self, signo, info)

    def send_own(self, signo: int) -> None:
        """A signal that the task has brought upon itself, and that looks like its own kill(2): SIGPIPE,
        SIGXFSZ (send_sig() without information)."""
        self.send_signal(signo, SigInfo(signo, SI_USER, self.group.pid.vnr, self.cred.uid))

    def take_signal(self, mask: int) -> SigInfo | None:
        """Dequeue a pending signal of `mask`: the task's own first, then the group's."""
        info = self.pending.take(mask)
        return info if info is not None else self.group.pending.take(mask)

    def _shared(self) -> int:
        """The signals of the group that this task may take: not those that another was chosen for, which is
        the first thread where that can take them (complete_signal)."""
        leader = self.group.leader
        if leader is self or leader.exited or (leader.trace is not None and leader.trace.stopped):
            return -1
        return leader.blocked | self.chosen

    def _deliverable(self) -> int:
        return (self.pending.bits | self.group.pending.bits & self._shared()) & ~self.blocked

    def _take_deliverable(self) -> SigInfo | None:
        mask = ~self.blocked
        info = self.pending.take(mask)
        if info is None:
            info = self.group.pending.take(mask & self._shared())
            if info is not None and self.chosen:
                self.chosen &= ~bit(info.signo)
        return info

    def pending_bits(self) -> int:
        return self.pending.bits | self.group.pending.bits

    def signal_pending(self) -> bool:
        """Whether an interruptible sleep has to end."""
        group = self.group
        if (self.pending.bits | group.pending.bits) & ~self.blocked and self._deliverable():
            return True
        if group.dying or group.exec_task not in (None, self):
            return True
        return group.stopped if self.trace is None else self.trace.wanted

    def kill_pending(self) -> bool:
        """Whether the task has to go, whatever it sleeps for."""
        return self.group.dying or self.group.exec_task not in (None, self)

    def notify_signal(self) -> None:
        """A signal may be deliverable: wake the task, or take it out of its program."""
        if self.exited:
            return
        if self.running:
            self.thread.kick()
        elif self.busy:
            self.interrupt()

    def set_temporary_mask(self, mask: int) -> None:
        """For the call under way only (sigsuspend, ppoll): the old mask comes back with its end, or is
        what the handler that ends it returns to."""
        if self.saved_mask is None:
            self.saved_mask = self.blocked
        self.blocked = sanitize_mask(mask)

    def set_blocked(self, mask: int) -> None:
        """Replace the signal mask; what becomes deliverable is delivered on the way out."""
        self.blocked = sanitize_mask(mask)

    def unpark(self) -> None:
        """SIGCONT or SIGKILL: go on from a stop.

        Not at once: on the way it may die and so end the stop of its children, and so on without end.
        """
        if self.parked:
            self.parked = False
            self.scheduler.at(0, self.leave_stop)

    def leave_stop(self) -> None:
        """On the way out again, behind a stop."""
        try:
            self.return_to_user()
        except Exception as exc:
            self.kernel.task_bug(self, exc)

    def kill_now(self) -> None:
        """The group is dying, or another task of it is in execve: leave whatever it does."""
        if self.running:
            self.thread.kick()
        elif self.parked:
            self.unpark()
        elif self.busy:
            self.kill()
        elif self.trace is not None:
            self.trace.abort()
