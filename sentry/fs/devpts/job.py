"""Job control: what every terminal has, real or not (Linux drivers/tty/tty_jobctrl.c).

A session has at most one controlling terminal, a terminal at most one session.  Each process knows its
own (`ThreadGroup.tty`): a fork inherits it, and who was there before the leader took it does without.
"""

from __future__ import annotations

import errno

from sentry.abi.capability import CAP_SYS_ADMIN
from sentry.abi.errors import SysError
from sentry.abi.fcntl import O_ACCMODE, O_NOCTTY
from sentry.abi.ioctl import TIOCGPGRP, TIOCGSID, TIOCNOTTY, TIOCSCTTY, TIOCSPGRP
from sentry.abi.signal import SIG_IGN, SIGCONT, SIGHUP, SIGTTIN, SIGTTOU, bit
from sentry.kernel import wait
from sentry.kernel.wait import Interrupted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.kernel.group import ProcessGroup, Session, ThreadGroup
    from sentry.kernel.pids import Pid


def current_task() -> Any:
    """The task whose system call runs; None in a kernel job."""
    runner = wait._current
    return runner if hasattr(runner, "group") else None


def disassociate(group: ThreadGroup, exiting: bool = False) -> None:
    """`group`, which leads a session, gives up its terminal for all of it (disassociate_ctty)."""
    session = group.session
    tty = group.tty
    if tty is None:
        if exiting:
            _signal(session.old_foreground, SIGHUP, SIGCONT)
            session.old_foreground = None
        return
    # Who is stopped when the leader ends is told to go on as a member of an orphaned group.
    _signal(tty.pgrp, *((SIGHUP,) if exiting else (SIGHUP, SIGCONT)))
    tty.session = tty.pgrp = None
    _forsake(session)


def _signal(pid: Pid | None, *signals: int) -> None:
    """Send `signals` to the process group that `pid` names, if there is one."""
    pgrp = None if pid is None else pid.pgrp
    if pgrp is not None:
        for group in list(pgrp.members):
            for signo in signals:
                group.send_signal(signo)


def _forsake(session: Session) -> None:
    """Nobody in `session` has a controlling terminal any more (session_clear_tty)."""
    assert session.leader is not None
    for group in session.leader.kernel.groups.values():
        if group.session is session:
            group.tty = None


class Terminal:
    """Base of Pty and HostTty."""

    def __init__(self) -> None:
        #: The session that it controls.
        self.session: Session | None = None
        #: Names the foreground process group, which may have died; others are in the background all the same.
        self.pgrp: Pid | None = None
        self.hung_up = False

    @property
    def foreground(self) -> ProcessGroup | None:
        return None if self.pgrp is None else self.pgrp.pgrp

    def acquire(self, group: ThreadGroup) -> None:
        """Become the controlling terminal of `group` and its session, its process group in the foreground."""
        self.session = group.session
        self.pgrp = group.pgrp.pid
        group.tty = self

    def desert(self) -> None:
        """A hang-up: the session loses the terminal, its leader is told (tty_signal_session_leader)."""
        session, pgrp = self.session, self.pgrp
        self.session = self.pgrp = None
        if session is None:
            return
        _forsake(session)
        leader = session.leader
        if leader is not None and not leader.zombie:
            leader.send_signal(SIGHUP)
            leader.send_signal(SIGCONT)
            session.old_foreground = pgrp

    def hang_up_slave(self) -> None:
        """vhangup(2)."""
        self.desert()

    def signal_foreground(self, signo: int) -> None:
        """Send `signo` to the foreground process group, as the line discipline does."""
        _signal(self.pgrp, signo)

    def acquire_on_open(self, flags: int) -> None:
        """open(2) by a session leader without a terminal makes this one its own (unless O_NOCTTY)."""
        task = current_task()
        if task is None or flags & O_NOCTTY or flags & O_ACCMODE == 1 or self.session is not None:
            return
        group = task.group
        if group.session.leader is group and group.tty is None:
            self.acquire(group)

    def check_change(self, signo: int = SIGTTOU) -> None:
        """A process in the background is stopped before it changes, or reads, its terminal.

        Raises Interrupted after sending `signo` to its process group; SysError(EIO) where that would
        be no use (SIGTTIN ignored, or an orphaned process group).  Returns if the caller may go on.
        """
        task = current_task()
        if task is None:
            return
        group = task.group
        if group.tty is not self or self.pgrp is None or group.pgrp.pid is self.pgrp:
            return
        if task.blocked & bit(signo) or group.sighand.get(signo)[0] == SIG_IGN:
            if signo == SIGTTIN:
                raise SysError(errno.EIO)
            return
        if group.pgrp.orphaned():
            raise SysError(errno.EIO)
        for member in list(group.pgrp.members):
            member.send_signal(signo)
        raise Interrupted

    def job_ioctl(
        self, task: Any, request: int, arg: int, readable: bool, master: bool = False
    ) -> int | None:
        """The job control requests; None when `request` is another one."""
        group = task.group
        mine = group.tty is self
        if request == TIOCGPGRP:
            if not master and not mine:
                raise SysError(errno.ENOTTY)
            task.mm.write_u32(arg, 0 if self.pgrp is None else self.pgrp.nr(task.pid.ns))
        elif request == TIOCSPGRP:
            self._set_pgrp(task, arg, mine)
        elif request == TIOCGSID:
            if (not master and not mine) or self.session is None:
                raise SysError(errno.ENOTTY)
            task.mm.write_u32(arg, self.session.pid.nr(task.pid.ns))
        elif request == TIOCSCTTY:
            self._set_controlling(task, arg, readable)
        elif request == TIOCNOTTY:
            if not mine or master:
                raise SysError(errno.ENOTTY)
            if group.session.leader is group:
                disassociate(group)
            group.tty = None
        else:
            return None
        return 0

    def _set_pgrp(self, task: Any, arg: int, mine: bool) -> None:
        try:
            self.check_change()
        except SysError:
            raise SysError(errno.ENOTTY) from None
        pgid = task.mm.read_u32(arg)
        if pgid >> 31:
            raise SysError(errno.EINVAL)
        session = task.group.session
        if not mine or self.session is not session:
            raise SysError(errno.ENOTTY)
        # The id of a process that leads no group will do (session_of_pgrp): there may be one some time.
        named = task.find_pgrp(pgid) or task.find_group(pgid)
        if named is None:
            raise SysError(errno.ESRCH)
        if named.session is not session:
            raise SysError(errno.EPERM)
        self.pgrp = named.pid

    def _set_controlling(self, task: Any, arg: int, readable: bool) -> None:
        group = task.group
        session = group.session
        leads = session.leader is group
        if leads and self.session is session:
            return
        privileged = task.cred.capable(CAP_SYS_ADMIN)
        if not leads or group.tty is not None:
            raise SysError(errno.EPERM)
        if self.session is not None:
            if arg != 1 or not privileged:
                raise SysError(errno.EPERM)
            _forsake(self.session)
        if not readable and not privileged:
            raise SysError(errno.EPERM)
        self.acquire(group)
