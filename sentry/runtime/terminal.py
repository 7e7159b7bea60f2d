"""The caller's terminal, if stdin, stdout or stderr is one: raw mode, window size, restoring it.

The guest may change the settings of a terminal that it was given directly (no -t) and die before it
puts them back; the CLI does that for it, as a courtesy to the shell.
"""

from __future__ import annotations

import _signal
import fcntl
import os
import termios
from _struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_WINSIZE = Struct("4H")

# Indices into the list of tcgetattr.
IFLAG, OFLAG, CFLAG, LFLAG, CC = 0, 1, 2, 3, 6


class Terminal:
    """One terminal, by a descriptor of our own (close-on-exec), and the settings it had."""

    __slots__ = ("fd", "is_raw", "saved")

    def __init__(self, fd: int) -> None:
        self.fd = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
        self.saved: list[Any] = termios.tcgetattr(self.fd)
        self.is_raw = False

    def winsize(self) -> tuple[int, int, int, int] | None:
        """Rows, columns, width and height in pixels."""
        try:
            raw = fcntl.ioctl(self.fd, termios.TIOCGWINSZ, bytes(_WINSIZE.size))
        except OSError:
            return None
        rows, columns, x, y = _WINSIZE.unpack(raw)
        return rows, columns, x, y

    def in_foreground(self) -> bool:
        try:
            return os.tcgetpgrp(self.fd) == os.getpgrp()
        except OSError:
            return False  # not our controlling terminal

    def make_raw(self) -> None:
        """As cfmakeraw(3): the guest's own terminal does the line editing.

        Only in the foreground: a background job must not change its shell's terminal.
        """
        if not self.in_foreground():
            return
        mode = termios.tcgetattr(self.fd)
        mode[IFLAG] &= ~(
            termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
            | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
        )  # fmt: skip
        mode[OFLAG] &= ~termios.OPOST
        mode[LFLAG] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        mode[CFLAG] = mode[CFLAG] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        mode[CC][termios.VMIN] = 1
        mode[CC][termios.VTIME] = 0
        self._set(mode)
        self.is_raw = True

    def restore(self) -> None:
        """The settings of the start, if they were changed and the terminal is ours to change."""
        try:
            if self.in_foreground() and termios.tcgetattr(self.fd) != self.saved:
                self._set(self.saved)
        except (OSError, termios.error):
            pass  # hung up
        self.is_raw = False

    def _set(self, mode: list[Any]) -> None:
        # A shell may have taken the terminal back in this moment: don't be stopped for it.
        old = _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGTTOU,))
        try:
            termios.tcsetattr(self.fd, termios.TCSADRAIN, mode)
        finally:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, old)


def find_terminal() -> Terminal | None:
    """The first of stdin, stdout, stderr that is a terminal."""
    for fd in (0, 1, 2):
        if os.isatty(fd):
            try:
                return Terminal(fd)
            except (OSError, termios.error):
                continue
    return None
