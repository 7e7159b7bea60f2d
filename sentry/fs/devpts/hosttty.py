"""A terminal of the host that the guest sees as its standard streams (without `-t`).

Modes, window size and flow belong to the host's terminal, as they would natively; sessions and
process groups are the Sentry's own.  Nothing that would wait for the host's terminal is passed on.
"""

from __future__ import annotations

import errno
from fcntl import ioctl as host_ioctl

from sentry.abi.errors import SysError
from sentry.abi.ioctl import (
    TCFLSH,
    TCGETA,
    TCGETS,
    TCGETS2,
    TCSBRK,
    TCSBRKP,
    TCSETA,
    TCSETAF,
    TCSETAW,
    TCSETS,
    TCSETS2,
    TCSETSF,
    TCSETSF2,
    TCSETSW,
    TCSETSW2,
    TCXONC,
    TIOCGETD,
    TIOCGWINSZ,
    TIOCINQ,
    TIOCOUTQ,
    TIOCSTI,
    TIOCSWINSZ,
)
from sentry.fs.devpts.job import Terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.fs.hostfile import HostFile

#: Request → size of what the host fills in.
_READS = {TCGETS: 36, TCGETS2: 44, TCGETA: 18, TIOCGWINSZ: 8, TIOCINQ: 4, TIOCOUTQ: 4, TIOCGETD: 4}
#: Request → (request that does not wait for output to drain, size, input is flushed before).
_SETS = {
    TCSETS: (TCSETS, 36, False), TCSETSW: (TCSETS, 36, False), TCSETSF: (TCSETS, 36, True),
    TCSETS2: (TCSETS2, 44, False), TCSETSW2: (TCSETS2, 44, False), TCSETSF2: (TCSETS2, 44, True),
    TCSETA: (TCSETA, 18, False), TCSETAW: (TCSETA, 18, False), TCSETAF: (TCSETA, 18, True),
}  # fmt: skip
_terminals: dict[int, HostTty] = {}


def _host(fd: int, request: int, arg: Any) -> Any:
    try:
        return host_ioctl(fd, request, arg)
    except OSError as error:
        raise SysError(error.errno or errno.EIO) from None


class HostTty(Terminal):
    """One host terminal, however many descriptors of it there are; `files` are the open ones."""

    def __init__(self) -> None:
        super().__init__()
        self.files: list[HostFile] = []

    async def ioctl(self, file: HostFile, task: Any, request: int, arg: int) -> int:
        fd = file.host_fd
        if request in _READS:
            task.mm.write(arg, _host(fd, request, bytes(_READS[request])))
            return 0
        if request in _SETS:
            quick, size, flush = _SETS[request]
            self.check_change()
            data = task.mm.read(arg, size)
            if flush:
                _host(fd, TCFLSH, 0)
            _host(fd, quick, data)
            return 0
        if request == TIOCSWINSZ:
            _host(fd, request, task.mm.read(arg, 8))
            return 0
        if request in (TCFLSH, TCXONC):
            self.check_change()
            _host(fd, request, arg & 0xFFFFFFFF if arg < 4 else 4)
            return 0
        if request in (TCSBRK, TCSBRKP):
            self.check_change()
            return 0
        if request == TIOCSTI:
            raise SysError(errno.EIO)
        done = self.job_ioctl(task, request, arg, file.readable)
        if done is None:
            raise SysError(errno.ENOTTY)
        return done

    def open(self, flags: int) -> HostFile:
        """/dev/tty: one more file on it; SysError(ENXIO) when all are closed."""
        need = flags & 3
        for file in self.files:
            if need == file.flags & 3 or file.flags & 3 == 2:
                return file.again(flags)
        raise SysError(errno.ENXIO)


def host_tty(rdev: int) -> HostTty:
    """The terminal of host device number `rdev`."""
    tty = _terminals.get(rdev)
    if tty is None:
        tty = _terminals[rdev] = HostTty()
    return tty
