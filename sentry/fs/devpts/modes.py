"""struct termios, and the ways in which user space passes it (termios(3), ioctl_tty(2))."""

from __future__ import annotations

from sentry.abi.ioctl import (
    TCGETA,
    TCGETS,
    TCGETS2,
    TCSETA,
    TCSETAF,
    TCSETAW,
    TCSETS,
    TCSETS2,
    TCSETSF,
    TCSETSF2,
    TCSETSW,
    TCSETSW2,
)
from sentry.abi.termios import (
    ADDRB,
    B38400,
    BOTHER,
    CBAUD,
    CREAD,
    CS8,
    CSIZE,
    ECHO,
    ECHOCTL,
    ECHOE,
    ECHOK,
    ECHOKE,
    IBSHIFT,
    ICANON,
    ICRNL,
    IEXTEN,
    INIT_CC,
    ISIG,
    IXON,
    NCCS,
    ONLCR,
    OPOST,
    PARENB,
    SPEEDS,
    TERMIO,
    TERMIOS,
    TERMIOS2,
)

GETS = (TCGETS, TCGETS2, TCGETA)
#: Request → (its plain form, whether it waits for output, whether it drops input).
SETS = {
    TCSETS: (TCSETS, False, False), TCSETSW: (TCSETS, True, False), TCSETSF: (TCSETS, True, True),
    TCSETS2: (TCSETS2, False, False), TCSETSW2: (TCSETS2, True, False), TCSETSF2: (TCSETS2, True, True),
    TCSETA: (TCSETA, False, False), TCSETAW: (TCSETA, True, False), TCSETAF: (TCSETA, True, True),
}  # fmt: skip
SIZES = {TCSETS: TERMIOS.size, TCSETS2: TERMIOS2.size, TCSETA: TERMIO.size}


class Termios:
    """The modes of a terminal; replaced as a whole, never changed."""

    __slots__ = ("cc", "cflag", "iflag", "ispeed", "lflag", "line", "oflag", "ospeed")

    def __init__(
        self, iflag: int, oflag: int, cflag: int, lflag: int, line: int = 0, cc: bytes = INIT_CC,
        ispeed: int = 38400, ospeed: int = 38400,
    ) -> None:  # fmt: skip
        self.iflag = iflag
        self.oflag = oflag
        self.cflag = cflag
        self.lflag = lflag
        self.line = line
        self.cc = cc
        self.ispeed = ispeed
        self.ospeed = ospeed

    def __repr__(self) -> str:
        flags = (self.iflag, self.oflag, self.cflag, self.lflag)
        return f"Termios({', '.join(oct(value) for value in flags)}, {self.line}, {self.cc!r})"

    def pack(self, request: int) -> bytes:
        """What TCGETS, TCGETS2 or TCGETA answers."""
        if request == TCGETA:
            flags = (self.iflag & 0xFFFF, self.oflag & 0xFFFF, self.cflag & 0xFFFF, self.lflag & 0xFFFF)
            return TERMIO.pack(*flags, self.line, self.cc[:8])
        flags = (self.iflag, self.oflag, self.cflag, self.lflag)
        if request == TCGETS:
            return TERMIOS.pack(*flags, self.line, self.cc)
        return TERMIOS2.pack(*flags, self.line, self.cc, self.ispeed, self.ospeed)

    def with_termio(self, data: bytes) -> Termios:
        """These modes with the lower halves and the eight characters of a struct termio (TCSETA)."""
        iflag, oflag, cflag, lflag, line, cc = TERMIO.unpack(data)
        return Termios(
            self.iflag & ~0xFFFF | iflag, self.oflag & ~0xFFFF | oflag, self.cflag & ~0xFFFF | cflag,
            self.lflag & ~0xFFFF | lflag, line, cc + self.cc[8:NCCS],
        )  # fmt: skip

    def with_cflag(self, cflag: int) -> Termios:
        return Termios(
            self.iflag, self.oflag, cflag, self.lflag, self.line, self.cc, self.ispeed, self.ospeed
        )

    def changed(self, request: int, data: bytes) -> Termios:
        """The modes that TCSETS, TCSETS2 or TCSETA with `data` asks for, made good for a pty."""
        if request == TCSETA:
            new = self.with_termio(data)
        elif request == TCSETS:
            new = Termios(*TERMIOS.unpack(data))
        else:
            new = Termios(*TERMIOS2.unpack(data))
        if request != TCSETS2:
            new.ispeed, new.ospeed = self.ispeed, self.ospeed
        output, input_ = new.cflag & CBAUD, new.cflag >> IBSHIFT & CBAUD
        if output != BOTHER:
            new.ospeed = SPEEDS[output]
        if not input_:
            new.ispeed = new.ospeed
        elif input_ != BOTHER:
            new.ispeed = SPEEDS[input_]
        # A pty always passes eight bits without parity, and has no addresses.
        new.cflag = new.cflag & ~(CSIZE | PARENB | ADDRB) | CS8 | CREAD
        return new


def keep_locked(old: Termios, new: Termios, locks: Termios) -> None:
    """Undo in `new` what `locks` doesn't let change (ioctl_tty(2), TIOCSLCKTRMIOS)."""
    for name in ("iflag", "oflag", "cflag", "lflag"):
        lock = getattr(locks, name)
        setattr(new, name, getattr(new, name) & ~lock | getattr(old, name) & lock)
    if locks.line:
        new.line = old.line
    if any(locks.cc):
        new.cc = bytes(a if lock else b for a, b, lock in zip(old.cc, new.cc, locks.cc, strict=True))


def initial() -> Termios:
    """A new pty's slave."""
    return Termios(
        ICRNL | IXON, OPOST | ONLCR, B38400 | CS8 | CREAD,
        ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN,
    )  # fmt: skip
