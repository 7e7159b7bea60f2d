"""What the CLI does while a sandbox runs: wait, pass signals on, keep the time, clean up.

All signals come through one signalfd, so there is one place where the process sleeps and no handler
can interrupt anything.  The loop ends when pid 1 (the reaper) has ended: the kernel reports that only
after every process of the PID namespace is gone.
"""

from __future__ import annotations

import _signal
import os
import select
import time
from _struct import Struct

from sentry.runtime import control
from sentry.runtime.errors import SANDBOX, TIMED_OUT, Fatal, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.runtime.cgroup import MemoryGroup
    from sentry.runtime.config import Config
    from sentry.runtime.terminal import Terminal
    from sentry.runtime.watch import MemoryWatch

FORWARDED = (
    _signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP, _signal.SIGQUIT, _signal.SIGUSR1, _signal.SIGUSR2,
)  # fmt: skip

#: struct signalfd_siginfo: ssi_signo is its first word.
_SIGINFO = Struct("I124x")

#: After --timeout the Sentry has this long to end the guest before everything is killed.
GRACE = 1.0
#: After the Gofer's death without a report from the Sentry.
GOFER_GRACE = 2.0


def take_signals(tty: bool) -> int:
    """Block the signals that the supervisor handles; a signalfd for them.

    What the caller has set to be ignored (nohup) stays ignored.  Without a terminal of the guest's own
    the stop signals keep their meaning: CLI, Sentry and Gofer are one job and stop together.
    """
    from sentry._engine import lib
    from sentry.runtime.confine import check

    wanted = [s for s in FORWARDED if _signal.getsignal(s) is not _signal.SIG_IGN]
    wanted += [_signal.SIGCHLD, _signal.SIGCONT]
    if tty:
        wanted += [_signal.SIGWINCH, _signal.SIGTSTP]
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)  # an inherited SIG_IGN would eat exit statuses
    _signal.pthread_sigmask(_signal.SIG_BLOCK, wanted)
    return check(lib.host_signalfd(sum(1 << (int(s) - 1) for s in wanted)), "signalfd")


def signal_text(signo: int) -> str:
    reason = " SIGSYS: it made a call that its seccomp filter forbids" if signo == _signal.SIGSYS else ""
    return f"signal {signo}{reason}"


def size_text(size: int) -> str:
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size % (1 << shift) == 0:
            return f"{size >> shift} {unit}"
    return f"{size} bytes"


class Supervisor:
    """One running sandbox, seen from outside.  `gofer` and `reaper` are pids, 0 before and after."""

    __slots__ = (
        "config", "control_fd", "deadline", "gofer", "gofer_end", "gofer_error",
        "gofer_failed", "gofer_said", "group", "hard_deadline", "notes",
        "reaper", "reaper_end", "report", "signal_fd", "status_fd", "terminal", "timed_out",
        "watch",
    )  # fmt: skip

    def __init__(
        self, control_fd: int, signal_fd: int, config: Config, terminal: Terminal | None,
        group: MemoryGroup | None, status_fd: int,
    ) -> None:  # fmt: skip
        self.control_fd = control_fd
        self.signal_fd = signal_fd
        self.status_fd = status_fd
        self.config = config
        self.terminal = terminal
        self.group = group
        #: In place of a group.
        self.watch: MemoryWatch | None = None
        self.gofer = 0
        self.reaper = 0
        #: Wait statuses, None while running.
        self.gofer_end: int | None = None
        self.reaper_end: int | None = None
        #: Its status pipe so far, and what it says went wrong.
        self.gofer_said = b""
        self.gofer_error = ""
        #: It ended first, and badly: what the Sentry says afterwards is a consequence.
        self.gofer_failed = False
        #: What the Sentry said about the end: (EXIT or FAIL, status, text).
        self.report: tuple[bytes, int, str] | None = None
        self.notes: list[str] = []
        self.timed_out = False
        self.deadline = time.monotonic() + config.timeout if config.timeout else 0.0
        self.hard_deadline = 0.0

    def run(self) -> int:
        """Until the sandbox is gone; the exit status, or Fatal."""
        if self.terminal and self.config.tty:
            self.terminal.make_raw()
        poll = select.poll()
        poll.register(self.signal_fd, select.POLLIN)
        poll.register(self.control_fd, select.POLLIN)
        poll.register(self.status_fd, select.POLLIN)
        self._reap()  # whoever died before the signals were looked at
        while self.reaper_end is None:
            for fd, events in poll.poll(self._timeout_ms()):
                if fd == self.signal_fd:
                    self._take_signals()
                elif fd == self.status_fd:
                    if not self._take_status():
                        poll.unregister(fd)
                elif events & select.POLLIN:
                    self._take_reports()
                else:
                    poll.unregister(fd)  # the Sentry has closed its end; its death follows
            self._keep_time()
        self._take_reports()
        self._end_gofer()
        while self._take_status():
            pass
        if self.terminal:
            self.terminal.restore()
        return self._verdict()

    def _timeout_ms(self) -> int | None:
        look = self.watch.due if self.watch else 0.0
        soonest = min((d for d in (self.deadline, self.hard_deadline, look) if d), default=0.0)
        if not soonest:
            return None
        return max(0, int((soonest - time.monotonic()) * 1000) + 1)

    def _keep_time(self) -> None:
        now = time.monotonic()
        if self.deadline and now >= self.deadline:
            self.deadline = 0.0
            self.timed_out = True
            self._send(control.TIMEOUT)
            self._kill_in(GRACE)
        if self.hard_deadline and now >= self.hard_deadline:
            self.hard_deadline = 0.0
            self._kill()
        if self.watch and self.reaper and now >= self.watch.due:
            self.watch.look(now, self.reaper)

    def _kill_in(self, seconds: float) -> None:
        when = time.monotonic() + seconds
        self.hard_deadline = min(self.hard_deadline, when) if self.hard_deadline else when

    def _kill(self) -> None:
        if self.reaper and self.reaper_end is None:
            os.kill(self.reaper, _signal.SIGKILL)

    def _send(self, packet: bytes) -> None:
        try:
            os.write(self.control_fd, packet)
        except BlockingIOError:
            self._kill()  # hundreds of messages unread: it hangs
        except OSError:
            pass  # it is dying; SIGCHLD follows

    def _take_signals(self) -> None:
        while True:
            try:
                (signo,) = _SIGINFO.unpack(os.read(self.signal_fd, _SIGINFO.size))
            except BlockingIOError:
                return
            if signo == _signal.SIGCHLD:
                self._reap()
            elif signo == _signal.SIGWINCH:
                self._tell_winsize()
            elif signo == _signal.SIGTSTP:
                self._stop()
            elif signo == _signal.SIGCONT:
                self._continued()
            else:
                self._send(control.signal_packet(signo))

    def _tell_winsize(self) -> None:
        winsize = self.terminal.winsize() if self.terminal else None
        if winsize:
            self._send(control.winsize_packet(winsize))

    def _stop(self) -> None:
        """`kill -TSTP` with -t, or ^Z stopped the program: give the terminal back for the time being.

        Where nobody could start us again (an orphaned process group) the host ignores the signal, and
        the program goes on at once.
        """
        if not (self.terminal and self.config.tty):
            self._send(control.signal_packet(_signal.SIGCONT))
            return
        self.terminal.restore()
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_signal.SIGTSTP,))
        os.kill(os.getpid(), _signal.SIGTSTP)
        _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGTSTP,))
        self._continued()

    def _continued(self) -> None:
        if self.terminal and self.config.tty:
            self.terminal.make_raw()
            self._tell_winsize()
            self._send(control.signal_packet(_signal.SIGCONT))

    def _take_reports(self) -> None:
        while True:
            try:
                packet = os.read(self.control_fd, control.PACKET_SIZE)
            except OSError:
                return
            if not packet:
                return
            report = control.parse_report(packet)
            if report is None:
                continue
            if report[0] == control.STOPPED:
                self._stop()
            elif report[0] == control.NOTE:
                if len(self.notes) < 10 and report[2] not in self.notes:
                    self.notes.append(report[2])
            elif self.report is None:
                self.report = report

    def _take_status(self) -> bool:
        """Read what the Gofer says of its confinement; false at the end, when it is complete."""
        part = os.read(self.status_fd, 4096)
        self.gofer_said = (self.gofer_said + part)[:16384]
        if part:
            return True
        for line in control.printable_lines(self.gofer_said):
            if line.startswith("error: "):
                self.gofer_error = line[7:]
            elif self.config.debug and line != "ok":
                os.write(2, f"sentry[debug]: gofer: {line}\n".encode())
        self.gofer_said = b""
        return False

    def _reap(self) -> None:
        """Collect our children.  A Gofer that failed takes the sandbox with it."""
        for pid in (self.gofer, self.reaper):
            if not pid:
                continue
            try:
                found, status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                found, status = pid, 0
            if found != pid:
                continue
            if pid == self.reaper:
                self.reaper, self.reaper_end = 0, status
            else:
                self.gofer, self.gofer_end = 0, status
        if self.gofer_end is not None and self.reaper_end is None and not self.hard_deadline:
            self._take_reports()
            if self.gofer_end and self.report is None:
                self.gofer_failed = True
                self._kill()
            else:
                self._kill_in(GOFER_GRACE)

    def _end_gofer(self) -> None:
        """The Sentry's end of the 9P socket is closed: nothing is left for the Gofer to do."""
        if self.gofer:
            self._reap()
        if self.gofer:
            os.kill(self.gofer, _signal.SIGKILL)
            os.waitpid(self.gofer, 0)
            self.gofer = 0

    def _verdict(self) -> int:
        for note in self.notes:
            say(note)
        if (self.group and self.group.kills()) or (self.watch and self.watch.kills):
            say(f"memory limit of {size_text(self.config.memory)} reached; a process of the guest was killed")
        if self.timed_out:
            say(f"time limit of {self.config.timeout:g} s reached; the program was killed")
            return TIMED_OUT
        if self.report is None or self.gofer_failed or self.gofer_end:
            raise self._who_died()
        kind, status, text = self.report
        if kind != control.FAIL and self.reaper_end is not None and os.WIFSIGNALED(self.reaper_end):
            # The report may be the work of a guest that was dying already.
            raise self._who_died()
        if kind == control.FAIL:
            raise Fatal(text, status)
        return status

    def _who_died(self) -> Fatal:
        """The line for a sandbox that ended without a report."""
        if self.gofer_error:
            return Fatal(f"the gofer failed: {self.gofer_error}")
        if self.gofer_end:
            if os.WIFSIGNALED(self.gofer_end):
                why = signal_text(os.WTERMSIG(self.gofer_end))
            else:
                why = f"status {os.WEXITSTATUS(self.gofer_end)}"
            return Fatal(f"the gofer died ({why}); the sandbox was stopped, changes in memory are lost")
        end = self.reaper_end or 0
        if os.WIFSIGNALED(end):
            why = signal_text(os.WTERMSIG(end))
        elif os.WEXITSTATUS(end) > SANDBOX:
            why = signal_text(os.WEXITSTATUS(end) - SANDBOX)
        else:
            why = f"status {os.WEXITSTATUS(end)}"
        return Fatal(f"the sandbox died ({why}); run with --debug for details")

    def clean_up(self) -> None:
        """On every way out: nobody left running, the terminal as it was, no cgroup left."""
        for pid in (self.reaper, self.gofer):
            if pid:
                try:
                    os.kill(pid, _signal.SIGKILL)
                    os.waitpid(pid, 0)
                except OSError:
                    pass
        self.reaper = self.gofer = 0
        if self.terminal:
            self.terminal.restore()
        if self.group:
            self.group.remove()
            self.group = None
