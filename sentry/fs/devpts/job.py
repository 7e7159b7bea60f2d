"""Job control: what every terminal has, real or not (Linux drivers/tty/tty_jobctrl.c).

A session has at most one controlling terminal, a terminal at most one session.  `foreground` may be
None while `pgid` still names a process group that has died: others are in the background all the same.
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

    from sentry.kernel.group import ProcessGroup, Session


def current_task() -> Any:
    """The task whose system call runs; None in a kernel job."""
    runner = wait._current
    return runner if hasattr(runner, "group") else None


def controlling(session: Session) -> Any:
    """The controlling terminal of `session`, unless it was hung up."""
    tty = session.tty
    return None if tty is None or tty.hung_up else tty


class Terminal:
    """Base of Pty and HostTty."""

    def __init__(self) -> None:
        self.session: Session | None = None
        self.foreground: ProcessGroup | None = None
        self.pgid = 0
        self.hung_up = False

    def set_foreground(self, pgrp: ProcessGroup) -> None:
        self.foreground = pgrp
        self.pgid = pgrp.pgid

    def acquire(self, session: Session, pgrp: ProcessGroup) -> None:
        """Become the controlling terminal of `session`, with `pgrp` in the foreground."""
        self.session = session
        session.tty = self
        self.set_foreground(pgrp)

    def disown(self) -> None:
        """Be nobody's controlling terminal any more; nobody is told."""
        session, self.session = self.session, None
        self.foreground = None
        self.pgid = 0
        if session is not None and session.tty is self:
            session.tty = None

    def signal_foreground(self, signo: int) -> None:
        """Send `signo` to the foreground process group, as the line discipline does."""
        pgrp = self.foreground
        if pgrp is not None:
            for group in list(pgrp.members):
                group.send_signal(signo)

    def acquire_on_open(self, flags: int) -> None:
        """open(2) by a session leader without a terminal makes this one its own (unless O_NOCTTY)."""
        task = current_task()
        if task is None or flags & O_NOCTTY or flags & O_ACCMODE == 1 or self.session is not None:
            return
        group = task.group
        session = group.session
        if session.leader is group and controlling(session) is None:
            self.acquire(session, group.pgrp)

    def check_change(self, signo: int = SIGTTOU) -> None:
        """A process in the background is stopped before it changes, or reads, its terminal.

        Raises Interrupted after sending `signo` to its process group; SysError(EIO) where that would
        be no use (SIGTTIN ignored, or an orphaned process group).  Returns if the caller may go on.
        """
        task = current_task()
        if task is None:
            return
        group = task.group
        if group.session.tty is not self or not self.pgid or group.pgrp.pgid == self.pgid:
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
        mine = controlling(group.session) is self
        if request == TIOCGPGRP:
            if not master and not mine:
                raise SysError(errno.ENOTTY)
            task.mm.write_u32(arg, self._shown(task))
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
            self._give_up(group)
        else:
            return None
        return 0

    def _shown(self, task: Any) -> int:
        """The foreground process group as `task` sees it; its number stays when it has died."""
        foreground = self.foreground
        return self.pgid if foreground is None else foreground.pid.nr(task.pid.ns)

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
        pgrp = task.find_pgrp(pgid)
        if pgrp is None:
            # Any process id will do for "not a group of this session".
            raise SysError(errno.EPERM if task.find_group(pgid) else errno.ESRCH)
        if pgrp.session is not session:
            raise SysError(errno.EPERM)
        self.set_foreground(pgrp)

    def _set_controlling(self, task: Any, arg: int, readable: bool) -> None:
        group = task.group
        session = group.session
        leads = session.leader is group
        if leads and self.session is session:
            return
        privileged = task.cred.capable(CAP_SYS_ADMIN)
        if not leads or controlling(session) is not None:
            raise SysError(errno.EPERM)
        if self.session is not None:
            if arg != 1 or not privileged:
                raise SysError(errno.EPERM)
            self.disown()
        if not readable and not privileged:
            raise SysError(errno.EPERM)
        self.acquire(session, group.pgrp)

    def _give_up(self, group: Any) -> None:
        """TIOCNOTTY: the session leader takes the terminal from everybody (for others: no effect, since
        the terminal belongs to the session here, not to each process)."""
        if group.session.leader is not group:
            return
        pgrp = self.foreground
        self.disown()
        if pgrp is not None:
            for member in list(pgrp.members):
                member.send_signal(SIGHUP)
                member.send_signal(SIGCONT)
