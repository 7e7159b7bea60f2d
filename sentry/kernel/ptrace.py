"""Tracing: what a task has while another one traces it, and its stops (ptrace(2)).

A stop is a state of the tracee: `Tracee.stop` says why, tells the tracer, and what is to happen behind it;
`resume` is the tracer's word to go on.  Most stops stand at the edge between program and kernel, where
no coroutine is under way (a call is about to run, has run; a signal is about to be delivered): behind those
the way goes on by a callback.  Those in the middle of a call (`event`) suspend its coroutine.

The registers are the task's own (`Task.regs`), made to look as Linux shows them; who traces may change them.

While it is traced all calls of a task come to Python (FORCED_PTRACE), its code is unpatched, and
futexes of its memory are the kernel's for good: a wake-up must reach those that wait here and those that the
host lets wait, so they all wait here.

Linux's own names where they differ: `trap` is JOBCTL_TRAP_STOP, `notice` JOBCTL_TRAP_NOTIFY, `code` is
exit_code, `info` last_siginfo, `then` the rest of ptrace_stop's caller.
"""

from __future__ import annotations

import errno

from sentry.abi import ptrace as abi
from sentry.abi.errors import SysError
from sentry.abi.sched import CLONE_UNTRACED, CLONE_VFORK
from sentry.abi.signal import (
    CLD_STOPPED,
    CLD_TRAPPED,
    SA_NOCLDSTOP,
    SI_KERNEL,
    SI_USER,
    SIG_IGN,
    SIGCHLD,
    SIGKILL,
    SIGSTOP,
    SIGTRAP,
    TRAP_BRKPT,
    TRAP_HWBKPT,
    TRAP_TRACE,
    SigInfo,
)
from sentry.kernel.bound import FORCED_PTRACE
from sentry.kernel.debugregs import DR_STEP, DebugRegs
from sentry.kernel.frames import EFLAGS_TF
from sentry.kernel.group import cause_of_death
from sentry.kernel.task import (
    ERESTART_RESTARTBLOCK,
    ERESTARTNOHAND,
    ERESTARTNOINTR,
    ERESTARTSYS,
    U64,
    Task,
)
from sentry.kernel.wait import WaitQueue, block
from sentry.platform.base import FAULT, KICKED, SYSCALL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.kernel.credentials import Credentials
    from sentry.platform.base import Trap

    #: What follows a stop: called with the signal that the tracer gives, and the stop's siginfo.
    Then = Callable[[int, SigInfo | None], None]

RESTARTS = (ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND, ERESTART_RESTARTBLOCK)
USER_CS, USER_SS = 0x33, 0x2B
SIGN = 1 << 63
#: Opcodes that load the flags (popf, iret), and what may stand before them.
_LOAD_FLAGS = b"\x9d\xcf"
_PREFIXES = bytes((0x66, 0x67, 0x2E, 0x36, 0x3E, 0x26, 0x64, 0x65, 0xF0, 0xF2, 0xF3, *range(0x40, 0x50)))
INSN_MAX = 15


class Tracee:
    """`Task.trace` of `task`, which `tracer` traces."""

    __slots__ = (
        "_asked", "_handler_step", "_hidden_tf", "_then", "calls", "code", "cred", "debug", "emulate",
        "exit_status", "exiting", "info", "listening", "message", "notice", "options", "seized", "step",
        "stop_signal", "stopped", "task", "tracer", "trap", "why",
    )  # fmt: skip

    def __init__(self, task: Task, tracer: Task, cred: Credentials, seized: bool, options: int) -> None:
        self.task = task
        self.tracer = tracer
        #: Who began it: what execve(2) of a set-id program asks for.
        self.cred = cred
        self.seized = seized
        self.options = options
        #: How the tracer has let it go: stop at calls, instead of calls, behind each instruction.
        self.calls = self.emulate = self.step = False
        #: Of the present stop, or the last one: what wait(2) shows (0: it has), why (CLD_), siginfo, message.
        self.stopped = False
        self.code = 0
        self.why = CLD_TRAPPED
        self.info: SigInfo | None = None
        self.message = 0
        self.listening = False
        #: To stop before it sees its program again: for PTRACE_INTERRUPT, or a group stop by that signal.
        self.trap = False
        self.notice = False
        self.stop_signal = 0
        self._then: Then = self._back
        #: The trap flag is ours, and not for the tracer to see.
        self._hidden_tf = False
        self._handler_step = False
        self.debug: DebugRegs | None = None
        #: The tracer has seen the call that a filter is looking at.
        self._asked = False
        #: PTRACE_EVENT_EXIT is over, or not wanted; the wait status, once the task has exited.
        self.exiting = False
        self.exit_status = 0

    # Stops

    def stop(
        self, code: int, then: Then, info: SigInfo | None, message: int = 0, why: int = CLD_TRAPPED
    ) -> None:
        """Stop here; `then` follows when the tracer lets the task go on."""
        task = self.task
        regs = task.regs
        if task.restart:
            regs.rax = -task.restart & U64
        regs.cs, regs.ss = USER_CS, USER_SS
        regs.ds = regs.es = regs.fs = regs.gs = 0
        self.code, self.why, self.info, self.message, self._then = code, why, info, message, then
        self.listening = self.trap = False
        self.stopped = True
        self._tell_tracer(why, task.group.stop_signal if why == CLD_STOPPED else code & 0x7F)

    def _event_info(self, code: int, signo: int = SIGTRAP) -> SigInfo:
        return SigInfo(signo, code, self.task.pid.vnr, self.task.cred.shown_ids()[0])

    def _tell_tracer(self, code: int, status: int) -> None:
        """do_notify_parent_cldstop."""
        task, group = self.task, self.tracer.group
        handler, flags, _, _ = group.sighand.get(SIGCHLD)
        if handler != SIG_IGN and not flags & SA_NOCLDSTOP:
            info = SigInfo(
                SIGCHLD, code, task.pid.nr(self.tracer.pid.ns), _shown_uid(task, self.tracer), status=status,
                child=True, utime=task.utime_ns // 10_000_000, stime=task.stime_ns // 10_000_000,
            )  # fmt: skip
            group.send_signal(SIGCHLD, info)
        group.child_queue.wake()

    def resume(self, signo: int) -> None:
        """The tracer's word: go on from the stop, with the signal `signo` (0: none)."""
        task, then, info = self.task, self._then, self.info
        self.stopped = self.listening = False
        self.code = 0
        self.info = None
        task.scheduler.at(0, lambda: _go(task, then, signo, info))

    def abort(self) -> None:
        """SIGKILL ends a stop."""
        if self.stopped:
            self.stopped = False
            self.task.scheduler.at(0, self.task.leave_stop)

    def _back(self, _signo: int, _info: SigInfo | None) -> None:
        take_registers(self.task)
        self.task.return_to_user()

    # The way in and out of the program (called by Task)

    def came(self, trap: Trap) -> None:
        """The task's thread has stopped."""
        regs = self.task.regs
        if self._hidden_tf:
            self._hidden_tf = False
            regs.eflags &= ~EFLAGS_TF
            if self.debug is not None and trap.kind == FAULT and trap.signo == SIGTRAP:
                self._look_at_watched(trap, self.debug)
        if trap.kind != SYSCALL:
            regs.orig_rax = U64

    def enter(self, nr: int) -> bool:
        """A call is about to be made; whether the task stops for that (syscall-enter-stop)."""
        task = self.task
        regs = task.regs
        if not (self.calls or self.emulate) or task.kill_pending():
            return False
        regs.orig_rax = nr if nr >> 31 == 0 else nr | U64 ^ 0xFFFFFFFF
        regs.rax = -errno.ENOSYS & U64
        emulate = self.emulate
        code = self._syscall_code()

        def then(signo: int, _info: SigInfo | None) -> None:
            if signo:
                send_priv(task, signo)
            if emulate:
                regs.orig_rax |= SIGN
            _make_call(task)

        self.stop(code, then, self._event_info(code), abi.PTRACE_EVENTMSG_SYSCALL_ENTRY)
        return True

    def ask_for_filter(self, data: int) -> bool:
        """A seccomp filter leaves a call to the tracer (SECCOMP_RET_TRACE, with its `data`): whether that has
        been asked, and the call is to be made as it is now.  Else the task is on its way."""
        if self._asked or not self.options >> abi.PTRACE_EVENT_SECCOMP & 1:
            if not self._asked:
                self.task.finished(-errno.ENOSYS, None)
            return self._asked
        code = SIGTRAP | abi.PTRACE_EVENT_SECCOMP << 8
        task = self.task
        task.regs.rax = -errno.ENOSYS & U64

        def then(_signo: int, _info: SigInfo | None) -> None:
            self._asked = True  # a filter sees it once more, since it may be another call now
            try:
                _make_call(task)
            finally:
                self._asked = False

        self.stop(code, then, self._event_info(code), data)
        return False

    def _syscall_code(self) -> int:
        return SIGTRAP | 0x80 if self.options & abi.PTRACE_O_TRACESYSGOOD else SIGTRAP

    def leave(self) -> bool:
        """A call is over; whether the task stops (syscall-exit-stop, or within exit(2) already)."""
        task = self.task
        if self.stopped or task.kill_pending():
            return self.stopped
        if self.step and not self.emulate:
            task.kernel.signals.force(task, SigInfo(SIGTRAP, TRAP_BRKPT, addr=task.regs.rip))
            return False
        if not self.calls:
            return False
        code = self._syscall_code()

        def then(signo: int, _info: SigInfo | None) -> None:
            if signo:
                send_priv(task, signo)
            take_registers(task)
            task.return_to_user()

        self.stop(code, then, self._event_info(code), abi.PTRACE_EVENTMSG_SYSCALL_EXIT)
        return True

    def trapped(self) -> bool:
        """Whether the task stops before it looks at signals: group-stops, PTRACE_INTERRUPT."""
        task = self.task
        if self._handler_step:
            self._handler_step = False
            self.stop(SIGTRAP, self._back, self._event_info(SIGTRAP))
            return True
        if not (self.trap or self.notice):
            return False
        stopped = task.group.stopped
        self.trap = self.notice = False
        if self.seized:
            signo = self.stop_signal if stopped and self.stop_signal else SIGTRAP
            code = signo | abi.PTRACE_EVENT_STOP << 8
            self.stop(code, self._back, self._event_info(code, signo), why=CLD_STOPPED)
        elif stopped:
            self.stop(self.stop_signal, self._back, None, why=CLD_STOPPED)
        return self.stopped

    def intercept(self, info: SigInfo) -> bool:
        """A signal is about to be delivered: whether the tracer is asked first (signal-delivery-stop)."""
        task = self.task
        if info.signo == SIGKILL:
            return False

        def then(signo: int, info: SigInfo | None) -> None:
            take_registers(task)
            task.go_on(_as_changed(self.tracer, task, signo, info) if signo else None)

        self.stop(info.signo, then, info)
        return True

    def _look_at_watched(self, trap: Trap, debug: DebugRegs) -> None:
        """Behind a step: was it one of the tracer's, has it hit what is watched, or is it nobody's?"""
        if trap.code != TRAP_TRACE:
            return
        if debug.active and debug.after_step(self.task) and not self.step:
            trap.code = TRAP_HWBKPT
        elif self.step:
            debug.happened |= DR_STEP
        else:
            trap.kind = KICKED

    def goes(self) -> None:
        """The task is about to see its program."""
        debug = self.debug
        if debug is not None and debug.active:
            debug.before_step(self.task)
            self._arm()
        elif self.step:
            self._arm()

    def _arm(self) -> None:
        """Trap behind the next instruction.  The flag is hidden from everybody, unless it is the program's
        own, or the instruction loads the flags (enable_single_step)."""
        task = self.task
        regs = task.regs
        if regs.eflags & EFLAGS_TF:
            return
        regs.eflags |= EFLAGS_TF
        try:
            code = task.mm.read_upto(regs.rip, INSN_MAX).lstrip(_PREFIXES)
        except SysError:
            code = b""
        self._hidden_tf = code[:1] not in (_LOAD_FLAGS[:1], _LOAD_FLAGS[1:])

    def entered_handler(self) -> None:
        """A signal handler is about to run: a step ends at its first instruction."""
        self._handler_step = self.step

    @property
    def wanted(self) -> bool:
        """Whether the task has to stop soon, whatever it sleeps for."""
        return self.trap or self.notice

    # What happens to the task elsewhere

    async def event(self, event: int, message: int) -> None:
        """PTRACE_EVENT_*, if the tracer wants to hear of it: stop in the middle of a call."""
        if not self.options >> event & 1 or self.task.kill_pending():
            return
        queue = WaitQueue()
        over = False

        def then(_signo: int, _info: SigInfo | None) -> None:
            nonlocal over
            over = True
            queue.wake()

        code = SIGTRAP | event << 8
        self.stop(code, then, self._event_info(code), message)
        try:
            while not over:
                await block((queue, 1), interruptible=False)
        finally:
            if not over:
                self.stopped = False

    def exit_stop(self, status: int) -> bool:
        """The task is about to exit: whether it stops before (PTRACE_EVENT_EXIT)."""
        task = self.task
        if self.exiting:
            return False
        self.exiting = True
        if not self.options >> abi.PTRACE_EVENT_EXIT & 1:
            return False
        code = SIGTRAP | abi.PTRACE_EVENT_EXIT << 8
        self.stop(
            code, lambda _signo, _info: task.kernel.exit_task(task, status), self._event_info(code), status
        )
        return True

    def group_stop(self, signo: int) -> None:
        """The process is being stopped by `signo`."""
        self.trap = True
        self.stop_signal = signo
        self._stir()

    def notify(self) -> None:
        """SIGCONT: a seized task says so by a stop (ptrace_trap_notify)."""
        if self.seized:
            self.notice = True
            self._stir()
        elif not self.task.group.stopped:
            self.trap = False

    def _stir(self) -> None:
        """A listening task stops once more."""
        if self.stopped and self.listening:
            self.resume(0)

    def listen(self) -> None:
        """PTRACE_LISTEN: stay stopped, but stop anew when something happens to the group."""
        self.listening = True
        if self.notice:
            self._stir()

    def interrupt(self) -> None:
        """PTRACE_INTERRUPT."""
        self.trap = True
        self._stir()
        self.task.notify_signal()

    def report(self) -> int:
        """What wait(2) has to say of the present stop, 0: nothing (more)."""
        return self.code if self.stopped and not self.listening else 0

    def clone_event(self, flags: int, exit_signal: int) -> int:
        """PTRACE_EVENT_* that clone(2) with these arguments is, 0: none that the tracer wants to see."""
        if flags & CLONE_UNTRACED:
            return 0
        event = abi.PTRACE_EVENT_FORK
        if flags & CLONE_VFORK:
            event = abi.PTRACE_EVENT_VFORK
        elif exit_signal != SIGCHLD:
            event = abi.PTRACE_EVENT_CLONE
        return event if self.options >> event & 1 else 0

    def adopt(self, child: Task) -> None:
        """Trace the new task `child`, too (ptrace_init_task)."""
        trace = link(child, self.tracer, self.cred, self.seized, self.options)
        if self.seized:
            trace.trap = True
        else:
            child.pending.add(SigInfo(SIGSTOP, SI_USER))

    def unlink(self) -> None:
        """Nobody traces the task any more; whether it runs on is another question."""
        task = self.task
        if task in self.tracer.tracees:
            del self.tracer.tracees[task]
            self.tracer.group.tracing -= 1
        task.trace = None
        if not task.exited:
            task.force(FORCED_PTRACE, False)

    def detach(self, signo: int) -> None:
        """PTRACE_DETACH, or the tracer's end: the task is on its own, in the state that its group is in."""
        self.unlink()
        if self.stopped:
            self.resume(signo)
        elif self.task.group.stopped:
            self.task.notify_signal()


def _go(task: Task, then: Then, signo: int, info: SigInfo | None) -> None:
    if task.exited:
        return
    try:
        then(signo, info)
    except Exception as exc:
        task.kernel.task_bug(task, exc)


def _make_call(task: Task) -> None:
    """The call that the tracer has left in orig_rax; a negative one is none."""
    number = task.regs.orig_rax
    if task.kill_pending():
        task.return_to_user()
    elif number & SIGN:
        task.nr, task.restart = -1, 0
        if task.trace is None or not task.trace.leave():
            task.return_to_user()
    else:
        task.run_syscall(number & 0xFFFFFFFF)


def take_registers(task: Task) -> None:
    """Whether the call that is over will be restarted is what the registers say: a debugger changes that by
    orig_rax (arch_do_signal_or_restart)."""
    regs = task.regs
    code = -regs.rax & U64
    if code in RESTARTS and not regs.orig_rax & SIGN:
        task.restart, task.nr = code, regs.orig_rax & 0xFFFFFFFF
        regs.rax = -errno.EINTR & U64
    else:
        task.restart = 0


def send_priv(task: Task, signo: int) -> None:
    """The tracer's signal where none was to be delivered (send_sig(…, 1))."""
    task.send_signal(signo, SigInfo(signo, SI_KERNEL))


def _as_changed(tracer: Task, task: Task, signo: int, info: SigInfo | None) -> SigInfo:
    """The signal that the tracer lets through (ptrace_signal)."""
    if info is not None and info.signo == signo:
        return info
    return SigInfo(signo, SI_USER, tracer.pid.nr(task.pid.ns), _shown_uid(tracer, task))


def _shown_uid(task: Task, reader: Task) -> int:
    return reader.cred.user_ns.uid(task.cred.uid)


# The beginning and the end


def link(task: Task, tracer: Task, cred: Credentials, seized: bool, options: int) -> Tracee:
    """Let `tracer` trace `task`.  The caller has checked that it may."""
    trace = task.trace = Tracee(task, tracer, cred, seized, options)
    tracer.tracees[task] = None
    tracer.group.tracing += 1
    task.force(FORCED_PTRACE, True)
    own_memory(task)
    return trace


def own_memory(task: Task) -> None:
    """All that the platform does by itself in the memory of `task` ends: patched sites and futexes.

    Every thread that may be at it is stopped first; those that wait in a futex make the call once more, here.
    """
    mm = task.mm
    if mm is None or mm.own_futexes:
        return
    kernel = task.kernel
    mm.own_futexes = True
    patches = mm.patches
    for other in [task] if mm.users == 1 else list(kernel.tasks.values()):
        if other.mm is not mm or other.thread is None:
            continue
        if other.running:
            try:
                other.thread.stop()
            except SysError:
                continue  # dead: that will be reported
            if patches is not None:
                patches.settle(other.regs)
        other.publish_ids()
    if patches is not None:
        patches.stop()


def traceme(task: Task, parent: Task) -> None:
    """PTRACE_TRACEME.  SysError(EPERM)."""
    if task.trace is not None:
        raise SysError(errno.EPERM)
    link(task, parent, task.cred, False, 0)


def attach(tracer: Task, task: Task, seize: bool, options: int) -> None:
    """PTRACE_ATTACH and PTRACE_SEIZE behind their permission check."""
    trace = link(task, tracer, tracer.cred, seize, options)
    if not seize:
        task.send_signal(SIGSTOP, SigInfo(SIGSTOP, SI_KERNEL))
    if task.parked:
        # In a group stop: from now on that is one of ours, at once.
        trace.trap = True
        trace.stop_signal = task.group.stop_signal
        task.parked = False
        task.return_to_user()


def exit_tracer(tracer: Task) -> None:
    """A task ends: what it traces goes on, or ends with it (exit_ptrace)."""
    for task in list(tracer.tracees):
        trace = task.trace
        if trace is None:
            continue
        if trace.options & abi.PTRACE_O_EXITKILL:
            task.kernel.signals.send_group(task.group, SIGKILL)
        if task.exited:
            bury(task, tracer, False)
        elif trace.stopped:
            # What the tracer has not heard of happens: the signal is delivered.
            trace.detach(trace.code if trace.code < 0x80 and trace.why == CLD_TRAPPED else 0)
        else:
            trace.detach(0)


# Zombies.  A traced task that has exited stays until its tracer has waited for it; a process only begins to
# be its parent's zombie then.


def bury(task: Task, tracer: Task, waited: bool) -> None:
    """The tracer has waited for the exited `task`, or has gone itself."""
    assert task.trace is not None
    task.trace.unlink()
    kernel, group = task.kernel, task.group
    if task is not group.leader:
        kernel.forget_task(task)
        group.undead -= 1
        if not group.undead and group.zombie:
            kernel.announce(group)
    elif group.zombie and not group.undead:
        if waited and group.parent is tracer.group:
            kernel.reap(group, waited)
        elif group.parent is not tracer.group or tracer.group.sighand.ignores_children():
            kernel.notify_parent(group)


def exited(task: Task, status: int) -> None:
    """A traced task has ended: tell its tracer (do_notify_parent)."""
    trace = task.trace
    assert trace is not None
    trace.exit_status = status
    code, value = cause_of_death(status)
    group = trace.tracer.group
    info = SigInfo(
        SIGCHLD, code, task.pid.nr(trace.tracer.pid.ns), _shown_uid(task, trace.tracer), status=value,
        child=True, utime=task.utime_ns // 10_000_000, stime=task.stime_ns // 10_000_000,
    )  # fmt: skip
    group.send_signal(SIGCHLD, info)
    group.child_queue.wake()
    if group is task.kernel.init:  # it waits for everybody
        bury(task, trace.tracer, True)
