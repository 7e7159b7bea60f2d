"""A terminal of the host that the guest sees as its standard streams (without `-t`).

Modes and window size are those of the host's terminal, as they would be natively; sessions and
process groups are the Sentry's own.  Only TCGETS, TCSETS, TCFLSH, TIOCGWINSZ, FIONREAD and TIOCOUTQ
reach the host (the Sentry's filter has no others), nothing that would wait for it.
"""

from __future__ import annotations

import errno
from fcntl import ioctl as host_ioctl

from sentry.abi.errors import SysError
from sentry.abi.ioctl import (
    TCFLSH,
    TCGETS,
    TCSBRK,
    TCSBRKP,
    TCSETA,
    TCSETS,
    TCXONC,
    TIOCGETD,
    TIOCGWINSZ,
    TIOCINQ,
    TIOCOUTQ,
    TIOCSTI,
    TIOCSWINSZ,
)
from sentry.abi.termios import CBAUD, SPEEDS, TCION, TERMIOS
from sentry.fs.devpts.job import Terminal
from sentry.fs.devpts.modes import GETS, SETS, SIZES, Termios

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.fs.dentry import Path
    from sentry.fs.hostfile import HostFile
    from sentry.fs.inode import Inode

#: Request → size of what the host fills in.
_READS = {TIOCGWINSZ: 8, TIOCINQ: 4, TIOCOUTQ: 4}
_terminals: dict[int, HostTty] = {}


def _host(fd: int, request: int, arg: Any) -> Any:
    try:
        return host_ioctl(fd, request, arg)
    except OSError as error:
        raise SysError(error.errno or errno.EIO) from None


def _modes(fd: int) -> Termios:
    modes = Termios(*TERMIOS.unpack(_host(fd, TCGETS, bytes(TERMIOS.size))))
    modes.ospeed = modes.ispeed = SPEEDS.get(modes.cflag & CBAUD, 38400)
    return modes


class HostTty(Terminal):
    """One host terminal, however many descriptors of it there are; `files` are the open ones."""

    def __init__(self) -> None:
        super().__init__()
        self.files: list[HostFile] = []

    async def ioctl(self, file: HostFile, task: Any, request: int, arg: int) -> int:
        fd = file.host_fd
        if request in GETS:
            task.mm.write(arg, _modes(fd).pack(request))
        elif request in SETS:
            self.check_change()
            plain, _, flush = SETS[request]
            data = task.mm.read(arg, SIZES[plain])
            if flush:
                _host(fd, TCFLSH, 0)
            if plain == TCSETA:
                data = _modes(fd).with_termio(data).pack(TCGETS)
            _host(fd, TCSETS, data[: TERMIOS.size])
        elif request in _READS:
            task.mm.write(arg, _host(fd, request, bytes(_READS[request])))
        elif request == TIOCGETD:
            task.mm.write_u32(arg, 0)
        elif request == TCFLSH:
            self.check_change()
            _host(fd, request, min(arg, 3))
        elif request in (TCXONC, TCSBRK, TCSBRKP):
            # Stopping and starting the caller's own terminal is left to its user.
            self.check_change()
            if request == TCXONC and arg > TCION:
                raise SysError(errno.EINVAL)
        elif request == TIOCSWINSZ:
            raise SysError(errno.EPERM)
        elif request == TIOCSTI:
            raise SysError(errno.EIO)
        elif self.job_ioctl(task, request, arg, file.readable) is None:
            raise SysError(errno.ENOTTY)
        return 0

    def open(self, flags: int, path: Path | None = None, inode: Inode | None = None) -> HostFile:
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
