"""The output side of a terminal: processing, echoes, and flow control (n_tty's other half).

Output goes through `write` and its processing to `output`, where the far end takes it.  Echoes have
a queue of their own, since they wait while output is stopped (Ctrl-S) or full: numbers below 256 are
characters, CONTROL + c is a control character shown as ^X, and the rest are instructions about columns.
"""

from __future__ import annotations

from sentry.abi.termios import (
    ECHOCTL,
    IUTF8,
    OCRNL,
    OLCUC,
    ONLCR,
    ONLRET,
    ONOCR,
    OPOST,
    TABDLY,
    TIOCPKT_FLUSHWRITE,
    TIOCPKT_START,
    TIOCPKT_STOP,
    XTABS,
)
from sentry.fs.devpts.modes import Termios, initial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: n_tty's buffer, what a pty's flip buffer holds before it, and what there is for output.
BUFFER = 4096
PENDING = 16384
OUTPUT = 12288
ECHOES = 4096

CONTROL = 0x100
ERASE_TAB = 0x200
SET_CANON_COLUMN = 0x400
MOVE_BACK = 0x401

CNTRL = frozenset([*range(32), 127])
TAB, NL, CR, BS = 9, 10, 13, 8
# As the kernel has it, also for the letters that have no upper case.
_UPPER = bytes(c - 32 if 97 <= c <= 122 or (c >= 0xDF and c != 0xF7) else c for c in range(256))


class OutputSide:
    """`on_output()` tells that output, or a packet-mode status, is there for the master."""

    def __init__(self, on_output: Callable[[], None]) -> None:
        self.on_output = on_output
        self.termios: Termios = initial()
        self.output = bytearray()
        self.packet = False
        #: TIOCPKT_ bits that the master has not read.
        self.status = 0
        self.stopped = False
        #: Stopped by TCOOFF, which only TCOON ends.
        self.tco_stopped = False
        self._column = 0
        self._canon_column = 0
        self._echoes: list[int] = []

    def _continues(self, c: int) -> bool:
        return bool(self.termios.iflag & IUTF8) and c & 0xC0 == 0x80

    def _echo_op(self, op: int) -> None:
        self._echoes.append(op)
        if len(self._echoes) > ECHOES:
            del self._echoes[0]

    def _echo(self, c: int) -> None:
        control = c in CNTRL and c != TAB and self.termios.lflag & ECHOCTL
        self._echo_op(CONTROL + c if control else c)

    def process_echoes(self) -> None:
        """Output the echoes that are due, unless output is stopped or full."""
        if not self._echoes or self.stopped:
            return
        post = self.termios.oflag & OPOST
        done = 0
        for op in self._echoes:
            if len(self.output) + 8 > OUTPUT:
                break
            done += 1
            if op == 0xFF:
                # n_tty's queue escapes by this byte, so it goes out unprocessed.
                self.output.append(op)
                self._column += 1
            elif op < CONTROL:
                if post:
                    self._output_character(op)
                else:
                    self.output.append(op)
            elif op < ERASE_TAB:
                self.output += bytes((0x5E, op & 0xFF ^ 0x40))
                self._column += 2
            elif op < SET_CANON_COLUMN:
                columns = op & 0xFF
                if not columns & 0x80:
                    columns += self._canon_column
                back = 8 - (columns & 7)
                self.output += b"\b" * back
                self._column = max(0, self._column - back)
            elif op == SET_CANON_COLUMN:
                self._canon_column = self._column
            else:
                self._column = max(0, self._column - 1)
        del self._echoes[:done]
        self.on_output()

    def _output_character(self, c: int) -> None:
        """Output processing of one character (do_output_char)."""
        oflag = self.termios.oflag
        if c == NL:
            if oflag & ONLRET:
                self._column = 0
            if oflag & ONLCR:
                self._canon_column = self._column = 0
                self.output += b"\r\n"
                return
            self._canon_column = self._column
        elif c == CR:
            if oflag & ONOCR and self._column == 0:
                return
            if oflag & OCRNL:
                c = NL
                if oflag & ONLRET:
                    self._canon_column = self._column = 0
            else:
                self._canon_column = self._column = 0
        elif c == TAB:
            spaces = 8 - (self._column & 7)
            self._column += spaces
            if oflag & TABDLY == XTABS:
                self.output += b" " * spaces
                return
        elif c == BS:
            self._column = max(0, self._column - 1)
        elif c not in CNTRL:
            if oflag & OLCUC:
                c = _UPPER[c]
            if not self._continues(c):
                self._column += 1
        self.output.append(c)

    @property
    def output_room(self) -> int:
        return 0 if self.stopped else max(0, OUTPUT - len(self.output))

    def write(self, data: bytes) -> int:
        """Output from the program: bytes taken, 0 when there is no room (or output is stopped)."""
        self.process_echoes()
        room = self.output_room
        oflag = self.termios.oflag
        if not oflag & OPOST:
            data = data[:room]
            self.output += data
        elif room < 8:
            return 0
        elif not oflag & (OCRNL | ONOCR | ONLRET | OLCUC) and oflag & TABDLY != XTABS and oflag & ONLCR:
            data = data[: room // 2]
            self.output += data.replace(b"\n", b"\r\n")
            self._count_columns(data)
        else:
            data = data[: room // 8]
            for c in data:
                self._output_character(c)
        if data:
            self.on_output()
        return len(data)

    def _count_columns(self, data: bytes) -> None:
        """The column after plain output, of which only the last line counts."""
        start = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        if start:
            self._column = self._canon_column = 0
        column = self._column
        for c in data[start:]:
            if c == TAB:
                column += 8 - (column & 7)
            elif c == BS:
                column = max(0, column - 1)
            elif c not in CNTRL and not self._continues(c):
                column += 1
        self._column = column

    def take_output(self, size: int) -> bytes:
        """Up to `size` bytes for the far end."""
        data = bytes(self.output[:size])
        del self.output[:size]
        self.process_echoes()
        return data

    def send(self, c: int) -> None:
        """A character past all queues (TCIOFF, TCION); lost where there is no room at all."""
        if len(self.output) < OUTPUT:
            self.output.append(c)
            self.on_output()

    def stop(self) -> None:
        if not self.stopped:
            self.stopped = True
            self.note(TIOCPKT_STOP, TIOCPKT_START)

    def start(self) -> None:
        if self.stopped and not self.tco_stopped:
            self.stopped = False
            self.note(TIOCPKT_START, TIOCPKT_STOP)
            self.on_output()

    def note(self, bit: int, instead: int = 0) -> None:
        """A status for a master in packet mode."""
        if self.packet:
            self.status = self.status & ~instead | bit
            self.on_output()

    def flush_output(self) -> None:
        """Drop output on its way (TCOFLUSH): on a pty what the far end's buffer holds stays."""
        del self.output[BUFFER - 1 :]
        self.note(TIOCPKT_FLUSHWRITE)
        self.on_output()
