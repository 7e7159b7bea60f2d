"""Signals: what is pending, what is to be done, and who is to be told (signal(7)).

Sending queues a SigInfo and wakes a task that can take it; taking happens when a task is about to
return to its program (task.py).  Standard signals queue once, real-time ones as often as
RLIMIT_SIGPENDING allows.
"""

from __future__ import annotations

import errno

from sentry._engine import ffi, lib
from sentry.abi.errors import SysError
from sentry.abi.resource import RLIMIT_SIGPENDING
from sentry.abi.signal import (
    CLD_CONTINUED,
    CLD_STOPPED,
    IGNORED_BY_DEFAULT,
    NSIG,
    SA_NOCLDSTOP,
    SA_NOCLDWAIT,
    SIG_DFL,
    SIG_IGN,
    SIGCHLD,
    SIGCONT,
    SIGKILL,
    SIGRTMIN,
    STOP_SIGNALS,
    SYNCHRONOUS,
    UNBLOCKABLE,
    SigInfo,
    bit,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.kernel.group import ProcessGroup, ThreadGroup
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.task import Task

FULL_SET = (1 << NSIG) - 1
#: Real-time signals that wait in the whole sandbox; and POSIX timers in it.
MAX_QUEUED = 131072
_new = ffi.new

#: handler, flags, restorer, mask
Action = tuple[int, int, int, int]
DEFAULT: Action = (SIG_DFL, 0, 0, 0)


class SigHand:
    """The table of actions (struct sighand_struct), shared by CLONE_SIGHAND."""

    __slots__ = ("_actions", "c", "users")

    def __init__(self) -> None:
        #: struct sighand (csrc/abi/sighand.h): the engine answers rt_sigaction(2), too.
        self.c: Any = _new("struct sighand *")
        self._actions: Any = self.c.actions
        self.users = 1

    def _sync(self) -> None:
        """Before a look at actions: a thread may have changed some (csrc/platform/trap_actions.c)."""
        if self.c.teller:
            lib.sighand_sync(self.c)

    def keep(self) -> None:
        """The actions will be shared: no thread changes them by itself any more."""
        lib.sighand_keep(self.c)

    def get(self, signo: int) -> Action:
        self._sync()
        action = self._actions[signo]
        return action.handler, action.flags, action.restorer, action.mask

    def set(self, signo: int, action: Action) -> None:
        self._sync()
        self._actions[signo] = action
        lib.sighand_put(self.c, signo)

    def copy(self) -> SigHand:
        self._sync()
        new = SigHand()
        new.c[0] = self.c[0]
        new.c.teller = ffi.NULL
        return new

    def reset_handlers(self) -> None:
        """execve: handlers become the default, ignored signals stay ignored."""
        lib.sighand_reset(self.c)

    def ignores(self, signo: int) -> bool:
        self._sync()
        handler = self._actions[signo].handler
        return handler == SIG_IGN or (handler == SIG_DFL and bool(IGNORED_BY_DEFAULT & bit(signo)))

    def ignores_children(self) -> bool:
        """Whether children that end leave no zombies (wait(2), NOTES)."""
        handler, flags, _, _ = self.get(SIGCHLD)
        return handler == SIG_IGN or bool(flags & SA_NOCLDWAIT)

    def chosen(self) -> list[tuple[int, Action]]:
        """(signal, action) of all that are not the default."""
        self._sync()
        return [(signo, self.get(signo)) for signo in range(1, NSIG + 1) if self._actions[signo].handler]


class SigPending:
    """Signals that wait for delivery: `bits` is their set."""

    __slots__ = ("bits", "queues")
    #: Real-time ones in all that there are; they are limited, whatever RLIMIT_SIGPENDING says.
    total = 0

    def __init__(self) -> None:
        self.bits = 0
        self.queues: dict[int, list[SigInfo]] = {}

    def add(self, info: SigInfo) -> None:
        signo = info.signo
        if self.bits & bit(signo) and signo < SIGRTMIN and not info.preallocated:
            return
        self.bits |= bit(signo)
        self.queues.setdefault(signo, []).append(info)
        if signo >= SIGRTMIN:
            SigPending.total += 1

    def take(self, mask: int) -> SigInfo | None:
        """Remove and return the first of the lowest signal in `mask`, synchronous ones first."""
        ready = self.bits & mask
        if not ready:
            return None
        ready = ready & SYNCHRONOUS or ready
        signo = (ready & -ready).bit_length()
        queue = self.queues[signo]
        info = queue.pop(0)
        if signo >= SIGRTMIN:
            SigPending.total -= 1
        if not queue:
            del self.queues[signo]
            self.bits &= ~bit(signo)
        return info

    def discard(self, mask: int) -> None:
        for signo in [signo for signo in self.queues if bit(signo) & mask]:
            gone = self.queues.pop(signo)
            if signo >= SIGRTMIN:
                SigPending.total -= len(gone)
        self.bits &= ~mask

    def __del__(self) -> None:
        self.discard(FULL_SET)

    def queued(self) -> list[SigInfo]:
        """Everything that waits, each signal's in the order of arrival."""
        return [info for queue in self.queues.values() for info in queue]

    def count(self) -> int:
        return sum(len(queue) for queue in self.queues.values())


class Signals:
    """Sending, for one kernel."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def _accept(self, group: ThreadGroup, task: Task | None, info: SigInfo, force: bool) -> bool:
        """Whether the signal is to be queued: for `task`, or for any of the group when None.

        `force`: it comes from outside the namespace, whose init then obeys SIGKILL and SIGSTOP."""
        self._prepare(group, info.signo)
        if group.unkillable and not (force and bit(info.signo) & UNBLOCKABLE):
            blocked = any(
                member.blocked & bit(info.signo) for member in (group.tasks if task is None else [task])
            )
            if group.sighand.get(info.signo)[0] == SIG_DFL and not blocked:
                return False
        if info.signo == SIGKILL:
            group.kernel.kill_group(group, SIGKILL)
            return False
        if self._dropped(group, task, info.signo):
            return False
        return not self._overflows(group, group.pending if task is None else task.pending, info)

    def send_group(
        self, group: ThreadGroup, signo: int, info: SigInfo | None = None, force: bool = False,
        chosen: Task | None = None,
    ) -> None:  # fmt: skip
        """kill(2) without its permission check.  `chosen` takes the signal, unless the first thread comes by
        before it."""
        if group.zombie or group.tgid == 1:
            return
        info = info or SigInfo(signo, 0x80)
        if not self._accept(group, None, info, force):
            return
        group.pending.add(info)
        for task in group.tasks:
            task.publish_pending()
        if chosen is not None:
            chosen.chosen |= bit(signo)
        target = chosen or self._pick(group, signo)
        if target is not None:
            target.notify_signal()
        group.signal_queue.wake()

    def retarget(self, group: ThreadGroup) -> None:
        """A task of `group` is gone that may have been picked for a signal (retarget_shared_pending)."""
        for task in group.tasks:
            if group.pending.bits & ~task.blocked and task.signal_pending():
                task.notify_signal()

    def send_task(self, task: Task, signo: int, info: SigInfo | None = None, force: bool = False) -> None:
        """tgkill(2) without its permission check."""
        group = task.group
        if group.zombie or task.exited or group.tgid == 1:
            return
        info = info or SigInfo(signo, 0x80)
        if not self._accept(group, task, info, force):
            return
        task.pending.add(info)
        task.publish_pending()
        if not task.blocked & bit(signo):
            task.notify_signal()
        group.signal_queue.wake()

    def force(self, task: Task, info: SigInfo) -> None:
        """A fault of the task itself: blocked or ignored makes it fatal (force_sig_info)."""
        signo = info.signo
        hand = task.group.sighand
        handler = hand.get(signo)[0]
        if handler == SIG_IGN or task.blocked & bit(signo):
            hand.set(signo, DEFAULT)
            task.blocked &= ~bit(signo)
        if hand.get(signo)[0] == SIG_DFL:
            task.group.unkillable = False  # not even for an init
        task.pending.add(info)

    def send_pgrp(self, pgrp: ProcessGroup, signo: int, info: SigInfo | None = None) -> None:
        for member in list(pgrp.members):
            self.send_group(member, signo, info)

    def _prepare(self, group: ThreadGroup, signo: int) -> None:
        """Stop signals and SIGCONT cancel each other; SIGCONT and SIGKILL end a stop."""
        if bit(signo) & STOP_SIGNALS:
            self._discard_all(group, bit(SIGCONT))
        elif signo == SIGCONT:
            self._discard_all(group, STOP_SIGNALS)
            if group.stopped:
                self.resume_group(group)
            for task in group.tasks:
                if task.trace is not None:
                    task.trace.notify()

    def _discard_all(self, group: ThreadGroup, mask: int) -> None:
        group.pending.discard(mask)
        for task in group.tasks:
            task.pending.discard(mask)

    def _dropped(self, group: ThreadGroup, task: Task | None, signo: int) -> bool:
        """Whether an ignored signal is not even queued (it is while blocked: it may be wanted later)."""
        if not group.sighand.ignores(signo):
            return False
        if task is None:
            task = group.leader
        return task.trace is None and not task.blocked & bit(signo)

    def _overflows(self, group: ThreadGroup, queue: SigPending, info: SigInfo) -> bool:
        """Whether a real-time signal finds its queue full: SysError(EAGAIN) for a sender that is told, else
        the signal only stays pending if it is already (a plain kill), or is lost."""
        if info.signo < SIGRTMIN:
            return False
        pending = group.pending.count() + sum(task.pending.count() for task in group.tasks)
        if pending < group.limit(RLIMIT_SIGPENDING) and SigPending.total < MAX_QUEUED:
            return False
        if info.code < 0:
            raise SysError(errno.EAGAIN)
        return info.code > 0 or bool(queue.bits & bit(info.signo))

    def _pick(self, group: ThreadGroup, signo: int) -> Task | None:
        """The task to disturb: the leader if it can take the signal, else the first that can."""
        for task in (group.leader, *group.tasks):
            if task.exited or task.blocked & bit(signo) or (task.trace is not None and task.trace.stopped):
                continue
            return task
        return None

    def stop_group(self, group: ThreadGroup, signo: int) -> None:
        """Stop every task of the group (job control)."""
        for task in group.tasks:
            if task.trace is not None:
                task.trace.group_stop(signo)
                task.notify_signal()
        if group.stopped:
            return
        group.stopped = True
        group.stop_signal = signo
        group.stop_reported = False
        group.continued = False
        for task in group.tasks:
            task.notify_signal()
        tell = self.kernel.on_main_stop
        if tell is not None and self.kernel.has_shell(group, signo):
            tell()
        trace = group.leader.trace
        if trace is None or trace.tracer.group is not group.parent:  # else the stop of the leader tells
            self._tell_parent(group, CLD_STOPPED, signo)

    def resume_group(self, group: ThreadGroup) -> None:
        """SIGCONT: let the tasks go on, whether or not the signal itself is then ignored or blocked."""
        group.stopped = False
        group.stop_reported = True
        group.continued = True
        for task in list(group.tasks):
            task.unpark()
        self._tell_parent(group, CLD_CONTINUED, SIGCONT)

    def _tell_parent(self, group: ThreadGroup, code: int, status: int) -> None:
        parent = group.parent
        if parent is None:
            return
        handler, flags, _, _ = parent.sighand.get(SIGCHLD)
        if handler != SIG_IGN and not flags & SA_NOCLDSTOP:
            uid = parent.leader.cred.user_ns.uid(group.leader.cred.uid)
            parent.send_signal(
                SIGCHLD, SigInfo(SIGCHLD, code, group.pid.nr(parent.pid.ns), uid, status=status, child=True)
            )
        parent.child_queue.wake()


def sanitize_mask(mask: int) -> int:
    """A signal mask as the kernel keeps it: SIGKILL and SIGSTOP are never blocked."""
    return mask & FULL_SET & ~UNBLOCKABLE
