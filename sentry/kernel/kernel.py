"""Kernel: the state that tasks share, and the life and death of tasks.

One Kernel is one sandbox.  `run` turns the loop: what is ready runs, then the platform is asked
for traps; nothing here knows how the platform makes them.
"""

from __future__ import annotations

import errno
import os
from time import monotonic_ns, time_ns

from sentry.abi.capability import CAP_SYS_ADMIN, CAP_SYS_RESOURCE
from sentry.abi.errors import SysError
from sentry.abi.signal import (
    SI_USER,
    SIG_IGN,
    SIGCHLD,
    SIGKILL,
    SIGSYS,
    SIGTSTP,
    SigInfo,
)
from sentry.abi.syscall_nr import NAMES
from sentry.abi.wait import signal_status
from sentry.fs.devpts.job import disassociate
from sentry.kernel import cputime, ioacct
from sentry.kernel.credentials import Credentials
from sentry.kernel.futex import Futexes
from sentry.kernel.group import ProcessGroup, Session, ThreadGroup, cause_of_death
from sentry.kernel.ipc.namespace import IpcNamespace
from sentry.kernel.knobs import Knobs
from sentry.kernel.namespaces import first_proxy
from sentry.kernel.pids import PidNamespace
from sentry.kernel.printk import KernelLog
from sentry.kernel.rlimits import default_limits
from sentry.kernel.robust import leave_futexes
from sentry.kernel.signals import SigHand, Signals
from sentry.kernel.task import Task
from sentry.kernel.templates import Templates
from sentry.kernel.userns import FIRST_INO
from sentry.kernel.wait import Scheduler, each
from sentry.net.namespace import NetNamespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sentry.mm.manager import MemoryManager
    from sentry.platform.base import Platform


class Kernel:
    """`table`, `late`, `refused`, `decoder` and `restart_block_type` come from sentry.syscalls, above."""

    def __init__(
        self, config: Any, platform: Platform, host: Any, table: dict[int, Any], late: dict[int, str],
        refused: dict[int, tuple[int, str]], decoder: Callable[..., Any], restart_block_type: type,
    ) -> None:  # fmt: skip
        self.config = config
        self.platform = platform
        self.host = host
        self.table = table
        self.late = late
        self.refused = refused
        self.decoder = decoder
        self.restart_block_type = restart_block_type
        self.scheduler = Scheduler()
        self.signals = Signals(self)
        self.futexes = Futexes(self)
        #: Of the first process, and of whoever has none of his own.
        self.ipc = IpcNamespace()
        self.net = NetNamespace()
        self.templates = Templates(self)
        #: The outermost process id namespace, and everybody by the numbers there.
        self.pid_ns = PidNamespace(None)
        self.tasks: dict[int, Task] = self.pid_ns.tasks
        self.groups: dict[int, ThreadGroup] = self.pid_ns.groups
        self.processes_by_pgid: dict[int, ProcessGroup] = self.pid_ns.pgrps
        self.boot_ns = monotonic_ns()
        self.boot_realtime_ns = time_ns()
        self.knobs = Knobs()
        #: The namespaces of the first task.
        nodename, release = os.fsencode(config.hostname), os.fsencode(config.kernel_release)
        self.nsproxy = first_proxy(nodename, release, self.ipc, self.net, self.pid_ns)
        self.uts = self.nsproxy.uts
        self.printk = KernelLog(release)
        self.strace: Any = None
        #: Set by sentry.runtime.guest when the file systems are there.
        self.mounts: Any = None
        self.dev: Any = None
        self.commit: Any = None
        #: The process whose end is the sandbox's end, and its wait status then.
        #: Tells the caller that ^Z has stopped `main`, where it has a terminal of its own (-t).
        self.on_main_stop: Callable[[], None] | None = None
        self.main: ThreadGroup | None = None
        self.status: int | None = None
        self.forks = 0
        self._last_ns_ino = FIRST_INO
        self._missing: set[int] = set()
        self._complaints: set[str] = set()
        self.init = self._make_init()

    # Messages

    def log(self, message: str) -> None:
        """One line for the person who started the sandbox."""
        os.write(2, f"sentry: {message}\n".encode("utf-8", "replace"))

    def log_once(self, message: str) -> None:
        if message not in self._complaints and len(self._complaints) < 1000:
            self._complaints.add(message)
            self.log(message)

    def log_debug(self, message: str) -> None:
        if self.config.debug:
            self.log(message)

    def late_syscall(self, nr: int) -> Any:
        """The line of `nr`, which the table has not got: its module is imported now; or None."""
        if nr in self.late:
            __import__(self.late.pop(nr))
        return self.table.get(nr)

    def missing_syscall(self, task: Task, nr: int) -> SysError:
        """What a call without a handler answers."""
        refused = self.refused.get(nr)
        if refused is not None:
            return SysError(refused[0])
        if nr not in self._missing and len(self._missing) < 1000:
            self._missing.add(nr)
            self.log_debug(
                f"{NAMES.get(nr, nr)} is not implemented; {task.name.decode(errors='replace')} got ENOSYS"
            )
        return SysError(errno.ENOSYS)

    def handler_bug(self, task: Task, error: BaseException) -> None:
        """An exception that should not have left a handler: our bug; only this task suffers."""
        name = NAMES.get(task.nr, str(task.nr))
        regs = task.regs
        arguments = ", ".join(hex(getattr(regs, r)) for r in ("rdi", "rsi", "rdx", "r10", "r8", "r9"))
        self.report_bug(f"{name}({arguments})", error)

    def report_bug(self, what: str, error: BaseException) -> None:
        """One line (with --debug, the whole stack) on an exception that is nobody's errno."""
        where = error.__traceback__
        frames = []
        while where is not None:
            code = where.tb_frame.f_code
            frames.append(f"{os.path.basename(code.co_filename)}:{where.tb_lineno} in {code.co_name}")
            where = where.tb_next
        if self.config.debug:
            for frame in frames:
                self.log(f"  {frame}")
        place = frames[-1] if frames else "?"
        self.log(f"internal error in {what}: {type(error).__name__}: {error} ({place})")

    # Process ids, tasks and groups

    def new_pid(self) -> int:
        """An unused number of the outermost namespace."""
        return self.pid_ns.new_number()

    def new_ns_ino(self) -> int:
        """The identity of a new namespace."""
        self._last_ns_ino += 1
        return self._last_ns_ino

    def _make_init(self) -> ThreadGroup:
        """Process 1: the Sentry's own reaper of orphans.  It runs no guest code."""
        group = ThreadGroup(self, self.new_pid(), None, SigHand())
        group.sighand.set(SIGCHLD, (SIG_IGN, 0, 0, 0))
        group.limits = default_limits(self.config, self.host)
        task = Task(self, group.tgid, group, Credentials(0, 0))
        task.name = b"init"
        group.leader = task
        group.tasks.append(task)
        session = Session(group.tgid, group, group.pid)
        group.enter(ProcessGroup(group.tgid, session, group.pid))
        self.processes_by_pgid[group.tgid] = group.pgrp
        self.tasks[task.tid] = task
        self.groups[group.tgid] = group
        self.pid_ns.init = group
        return group

    def check_process_limit(self, task: Task) -> None:
        """SysError(EAGAIN) when one more task would be too many."""
        limit = self.config.pids
        if limit and len(self.tasks) > limit:
            self.log_once(f"process limit of {limit} reached; fork and clone fail (raise it with --pids)")
            raise SysError(errno.EAGAIN)
        soft = task.group.limit(6)
        if (
            soft < len(self.tasks)
            and not task.cred.capable(CAP_SYS_RESOURCE)
            and not task.cred.capable(CAP_SYS_ADMIN)
        ):
            mine = sum(1 for other in self.tasks.values() if other.cred.uid == task.cred.uid)
            if mine >= soft:
                raise SysError(errno.EAGAIN)

    def add_task(self, task: Task) -> None:
        """`task` exists from now on, and so does its group, if it is the first of it."""
        self.register(task)
        group = task.group
        if not group.tasks:
            for ns, number in zip(group.pid.spaces, group.pid.numbers, strict=True):
                ns.groups[number] = group
        group.tasks.append(task)
        self.forks += 1

    def register(self, task: Task) -> None:
        for ns, number in zip(task.pid.spaces, task.pid.numbers, strict=True):
            ns.tasks[number] = task

    def forget_task(self, task: Task) -> None:
        """Nobody finds `task` by its id any more."""
        pid = task.pid
        for ns, number in zip(pid.spaces, pid.numbers, strict=True):
            ns.tasks.pop(number, None)
        pid.task = None
        pid.notify()

    def add_pgrp(self, pgrp: ProcessGroup) -> None:
        for ns, number in zip(pgrp.pid.spaces or (self.pid_ns,), pgrp.pid.numbers, strict=True):
            ns.pgrps[number] = pgrp

    def forget_pgrp(self, pgrp: ProcessGroup) -> None:
        for ns, number in zip(pgrp.pid.spaces or (self.pid_ns,), pgrp.pid.numbers, strict=True):
            ns.pgrps.pop(number, None)

    def signal_pgrp(self, pgrp: ProcessGroup, signo: int, info: SigInfo | None = None) -> None:
        self.signals.send_pgrp(pgrp, signo, info)

    def has_shell(self, group: ThreadGroup, signo: int) -> bool:
        """Whether ^Z may stop `group` although nobody here would start it again: the caller's shell will."""
        return group is self.main and signo == SIGTSTP and self.on_main_stop is not None

    # The end of tasks

    def exit_group(self, group: ThreadGroup, status: int, by: Task | None = None) -> None:
        """exit_group(2) or a fatal signal: every task of `group` goes; `by` goes by itself."""
        if group.dying or group.zombie:
            return
        group.dying = True
        group.exit_status = status
        group.stopped = False
        for task in list(group.tasks):
            if task is not by:
                task.kill_now()

    def kill_group(self, group: ThreadGroup, signo: int) -> None:
        """SIGKILL."""
        if self.strace is not None and not group.dying:
            self.strace.killed(group.leader, signo)
        group.stopped = False
        self.exit_group(group, signal_status(signo))

    def lost_thread(self, task: Task) -> None:
        """The host ended the thread behind our back: out of memory, or somebody killed the stub."""
        name = task.name.decode(errors="replace")
        self.log_debug(f"the host killed task {task.tid} ({name})")
        if task.trace is not None:
            task.trace.exiting = True  # there is nothing to look at any more
        if task.busy:  # it goes when its call has been given up, as for a SIGKILL
            self.exit_group(task.group, signal_status(9))
            return
        self.exit_group(task.group, signal_status(9), by=task)
        self.exit_task(task, task.group.exit_status)

    def reap_thread(self, task: Task) -> None:
        """An exited task's thread trapped once more: nothing is left to do."""

    def exit_task(self, task: Task, status: int) -> None:
        """The end of one task (do_exit).  Its thread is stopped."""
        trace = task.trace
        if task.exited or (trace is not None and trace.exit_stop(status)):
            return
        if task.files.users == 1 and task.files.many and not task.busy:
            task.start(self._close_many(task, status))
            return
        task.exited = True
        if trace is not None:
            trace.stopped = False
        if task.tracees:
            from sentry.kernel.ptrace import exit_tracer

            exit_tracer(task)
        task.running = False
        group = task.group
        if task.thread is not None:
            task.thread.set_files(None)
            task.thread.set_memory(None)
            task.thread.set_task(None, 0, 0, 0)
            task.thread.set_io(None)
        self._release_memory(task)
        if task.seccomp is not None:
            for listener in task.seccomp.listeners:
                listener.left()
        if task.sysvsem is not None:
            from sentry.kernel.ipc.sem import leave_undo_list

            leave_undo_list(task)
        if task.ipc.has_segments:
            task.ipc.shm.exit_task(task)
        task.ipc.put()
        files = task.files
        files.users -= 1
        if files.users == 0:
            files.close_all()
        task.files = None  # type: ignore[assignment]
        task.fs.users -= 1
        task.fs = None  # type: ignore[assignment]
        task.nsproxy = self.nsproxy
        ioacct.add(group.io, task.io)
        group.dead_utime += task.utime_ns
        group.dead_stime += task.stime_ns
        group.tasks.remove(task)
        self._leave_children(task)
        if task is not group.leader:
            if trace is None:
                self.forget_task(task)
            else:
                group.undead += 1
                task.pid.notify()
                from sentry.kernel.ptrace import exited

                exited(task, group.exit_status if group.dying else status)
        group.task_queue.wake()
        if group.pending.bits and not group.dying:
            self.signals.retarget(group)
        if not group.tasks:
            if not group.dying:
                group.exit_status = status
            self._end_group(group)

    async def _close_many(self, task: Task, status: int) -> None:
        """The end of a task that has very many descriptors: others run meanwhile."""
        await each(task.files.closing())
        self.exit_task(task, status)

    def _leave_children(self, task: Task) -> None:
        """The children that `task` made belong to another thread now, and may want to hear of it (prctl(2),
        PR_SET_PDEATHSIG)."""
        group = task.group
        heir = group.tasks[0] if group.tasks else None
        for child in list(group.children):
            if child.creator is not task:
                continue
            child.creator = heir
            for member in child.tasks:
                if member.pdeath_signal and task.cred.may_signal(member.cred):
                    uid = member.cred.user_ns.uid(task.cred.uid)
                    info = SigInfo(member.pdeath_signal, SI_USER, group.pid.nr(child.pid.ns), uid)
                    child.send_signal(member.pdeath_signal, info)

    def _release_memory(self, task: Task) -> None:
        mm = task.mm
        task.group.max_rss = max(task.group.max_rss, mm.total_vm)
        self.end_vfork(task)
        leave_futexes(task)
        self.leave_memory(task, mm)
        task.mm = None  # type: ignore[assignment]
        task.unbind()
        if mm.users > 1:
            # Where all end, each by itself would wait for its turn on a CPU.
            task.thread.exit(task.group.dying or task.group.exec_task is not None)
        mm.put()

    def leave_memory(self, task: Task, mm: MemoryManager) -> None:
        """`task` gives `mm` up, by exit or execve: so its segments lose an attachment."""
        cputime.leave_memory(task, mm)
        if mm.users == 1 and task.ipc.has_segments:
            task.ipc.shm.leaving(task, mm)

    def end_vfork(self, task: Task) -> None:
        """The task gives up its parent's memory (execve or exit)."""
        queue, task.vfork_queue = task.vfork_queue, None
        if queue is not None:
            queue.wake()

    def _end_group(self, group: ThreadGroup) -> None:
        """The last task has gone: become a zombie, the init of a namespace as soon as all others are gone."""
        group.dying = True
        ns = group.pid.ns
        if ns.init is group and not ns.dead:
            ns.dead = True
            for other in list(ns.groups.values()):
                if other.zombie and other.parent is group:
                    if not other.undead and other.leader.trace is None:  # else its tracer is waited for
                        self.reap(other)
                elif other is not group:
                    self.kill_group(other, SIGKILL)
            if len(ns.groups) > 1:
                ns.on_empty = group
                return
        self._become_zombie(group)

    def _become_zombie(self, group: ThreadGroup) -> None:
        """Hand the children over, and tell the parent."""
        group.zombie = True
        group.pid.status = group.exit_status
        for timer in [group.itimer_real, *group.itimers.values(), *group.posix_timers.values()]:
            if timer is not None:
                timer.cancel()
        group.posix_timers.clear()
        if group.session.leader is group:
            disassociate(group, exiting=True)
        orphans = list(group.children)
        # Who it is takes a walk over all ancestors.
        reaper = self._reaper(group) if orphans else self.init
        for child in orphans:
            group.children.discard(child)
            child.parent = reaper
            child.creator = reaper.tasks[0] if reaper.tasks else None
            child.exit_signal = SIGCHLD
            reaper.children.add(child)
            for task in child.tasks:
                task.publish_ids()
            if child.zombie and not child.undead and child.leader.trace is None:
                self.notify_parent(child)
        group.hang_up_orphans(orphans)
        if group is self.main:
            self.status = group.exit_status
        if not group.undead:
            self.announce(group)

    def _reaper(self, group: ThreadGroup) -> ThreadGroup:
        """Who adopts the children of `group`: the next subreaper of its namespace, or the init there."""
        ns = group.pid.ns
        parent = group.parent
        while parent is not None and parent.pid.ns.level == ns.level:
            if parent.subreaper and parent.tasks:
                return parent
            parent = parent.parent
        return self.init if ns.init is None or ns.init is group else ns.init

    def announce(self, group: ThreadGroup) -> None:
        """The process has ended, and no thread of it keeps it: tell its tracer, or else its parent."""
        group.pid.notify()
        if group.leader.trace is None:
            self.notify_parent(group)
        else:
            from sentry.kernel.ptrace import exited

            exited(group.leader, group.exit_status)

    def notify_parent(self, group: ThreadGroup) -> None:
        """SIGCHLD, or the end of the zombie when its parent does not care (wait(2), NOTES)."""
        parent = group.parent
        assert parent is not None
        handler = parent.sighand.get(SIGCHLD)[0]
        # The Sentry's own init, or that of a namespace which waits for its last process to go.
        reaper = parent is self.init or parent.pid.ns.on_empty is parent
        unwanted = reaper or (group.exit_signal == SIGCHLD and parent.sighand.ignores_children())
        if group.exit_signal and not reaper and not (unwanted and handler == SIG_IGN):
            code, value = cause_of_death(group.exit_status)
            utime, stime = group.cpu_times()
            info = SigInfo(
                group.exit_signal, code, group.pid.nr(parent.pid.ns),
                parent.leader.cred.user_ns.uid(group.leader.cred.uid), status=value, child=True,
                utime=utime // 10_000_000, stime=stime // 10_000_000,
            )  # fmt: skip
            parent.send_signal(group.exit_signal, info)
        if unwanted:
            self.reap(group)
        parent.child_queue.wake()

    def reap(self, group: ThreadGroup, waited: bool = False) -> None:
        """Forget a zombie; what it used is its parent's only if it was `waited` for."""
        parent = group.parent
        if parent is not None:
            parent.children.discard(group)
        if parent is not None and waited:
            utime, stime = group.cpu_times()
            parent.child_max_rss = max(parent.child_max_rss, group.max_rss, group.child_max_rss)
            ioacct.add(parent.io, group.io)
            parent.child_utime += utime + group.child_utime
            parent.child_stime += stime + group.child_stime
        group.leave_pgrp()
        pid = group.pid
        for ns, number in zip(pid.spaces, pid.numbers, strict=True):
            ns.groups.pop(number, None)
        pid.group = None
        self.forget_task(group.leader)
        for ns in pid.spaces[1:]:
            waiting = ns.on_empty
            if waiting is not None and len(ns.groups) == 1:
                ns.on_empty = None
                self._become_zombie(waiting)
        self._let_go(group)

    def _let_go(self, group: ThreadGroup) -> None:
        """Nothing of a process that is gone holds namespaces, however long it is remembered."""
        ns = group.pid.ns
        if ns.init is group and ns is not self.pid_ns:
            ns.init = ns.charge = None
        group.leader.forget_cred(self.init.leader.cred)
        group.pid.retire()

    # The loop

    def run(self) -> int:
        """Turn the loop until the main process has ended; its wait status."""
        scheduler, platform = self.scheduler, self.platform
        while True:
            try:
                scheduler.run()
            except Exception as error:
                self.report_bug("a kernel job", error)
            if self.status is not None:
                return self.status
            for trap in platform.wait(scheduler.timeout()):
                task: Any = trap.thread.owner
                if task is None:
                    continue
                try:
                    task.on_trap(trap)
                except Exception as error:
                    self.task_bug(task, error)

    def task_bug(self, task: Task, error: BaseException) -> None:
        """Something failed outside any handler: report it, and end that process only."""
        try:
            self.handler_bug(task, error)
            self.exit_group(task.group, signal_status(SIGSYS), by=task)
            self.exit_task(task, task.group.exit_status)
        except Exception as again:
            self.report_bug("ending a task", again)

    def shutdown(self) -> None:
        """Kill every process."""
        for group in list(self.groups.values()):
            if group is not self.init:
                self.kill_group(group, 9)
