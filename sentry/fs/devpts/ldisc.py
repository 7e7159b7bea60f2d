"""The line discipline of a terminal: Linux's n_tty, in its words (drivers/tty/n_tty.c).

Input arrives by `receive`, is edited, echoed and made into signals, and is taken by `read`.
Positions are counts since the beginning: the buffer holds `tail` to `head`; a line can be read up
to `canon_head`, and `ends` are the positions of the characters that end lines.  An end of file is
stored as a NUL that ends a line.  What there is no room for stays in `pending`.

Output goes through `write` and its processing to `output`, where the other side takes it.  Echoes
have a queue of their own, since they wait while output is stopped (Ctrl-S): numbers below 256 are
characters, CONTROL + c is a control character shown as ^X, and the rest are instructions about columns.
"""

from __future__ import annotations

from _collections import deque

from sentry.abi.signal import SIGINT, SIGQUIT, SIGTSTP
from sentry.abi.termios import (
    ECHO,
    ECHOCTL,
    ECHOE,
    ECHOK,
    ECHOKE,
    ECHONL,
    ECHOPRT,
    EXTPROC,
    ICANON,
    ICRNL,
    IEXTEN,
    IGNCR,
    INLCR,
    ISIG,
    ISTRIP,
    IUCLC,
    IUTF8,
    IXANY,
    IXON,
    NOFLSH,
    OCRNL,
    OLCUC,
    ONLCR,
    ONLRET,
    ONOCR,
    OPOST,
    PARMRK,
    TABDLY,
    TIOCPKT_FLUSHREAD,
    TIOCPKT_FLUSHWRITE,
    TIOCPKT_START,
    TIOCPKT_STOP,
    VEOF,
    VEOL,
    VEOL2,
    VERASE,
    VINTR,
    VKILL,
    VLNEXT,
    VMIN,
    VQUIT,
    VREPRINT,
    VSTART,
    VSTOP,
    VSUSP,
    VTIME,
    VWERASE,
    XTABS,
)
from sentry.fs.devpts.modes import Termios, initial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: n_tty's buffer, what a pty's flip buffer holds before it, and both together for output.
BUFFER = 4096
PENDING = 8192
OUTPUT = BUFFER + PENDING
ECHOES = 4096

CONTROL = 0x100
ERASE_TAB = 0x200
SET_CANON_COLUMN = 0x400
MOVE_BACK = 0x401

_CNTRL = frozenset([*range(32), 127])
#: Letters and digits of Latin-1, and the underscore: what words are made of.
_ALNUM = frozenset(
    c for c in range(256) if (c < 128 and chr(c).isalnum()) or c == 0x5F or (c >= 0xC0 and c | 0x20 != 0xF7)
)
_TAB, _NL, _CR, _BS = 9, 10, 13, 8
_LOWER = bytes(c + 32 if 65 <= c <= 90 or (0xC0 <= c <= 0xDE and c != 0xD7) else c for c in range(256))
# As the kernel has it, also for the letters that have no upper case.
_UPPER = bytes(c - 32 if 97 <= c <= 122 or (c >= 0xDF and c != 0xF7) else c for c in range(256))


class LineDiscipline:
    """`on_signal(signo)` tells the foreground; `on_readable()` that input can be read; `on_output()` that
    output, or a packet-mode status, is there for the master."""

    def __init__(
        self, on_signal: Callable[[int], None], on_readable: Callable[[], None], on_output: Callable[[], None]
    ) -> None:
        self.on_signal = on_signal
        self.on_readable = on_readable
        self.on_output = on_output
        self.output = bytearray()
        self.pending = bytearray()
        self.packet = False
        #: TIOCPKT_ bits that the master has not read.
        self.status = 0
        self.stopped = False
        #: Stopped by TCOOFF, which only TCOON ends.
        self.tco_stopped = False
        self._column = 0
        self._canon_column = 0
        self._echoes: list[int] = []
        self._reset_input()
        self.set_termios(initial(), first=True)

    def _reset_input(self) -> None:
        self._buffer = bytearray()
        self._tail = 0
        self._canon_head = 0
        self._ends: deque[int] = deque()
        self._committed = 0
        self._erasing = False
        self._lnext = False
        self._push = False

    @property
    def _head(self) -> int:
        return self._tail + len(self._buffer)

    # Modes

    def set_termios(self, new: Termios, first: bool = False) -> None:
        """Change the modes (n_tty_set_termios)."""
        old = None if first else self.termios
        self.termios = new
        lflag, iflag = new.lflag, new.iflag
        if old is None or (old.lflag ^ lflag) & (ICANON | EXTPROC):
            self._ends.clear()
            if not lflag & ICANON or not self._buffer:
                self._canon_head = self._tail
                self._push = False
            else:
                self._ends.append(self._head - 1)
                self._canon_head = self._head
                self._push = True
            self._committed = self._head
            self._erasing = self._lnext = False
        self._icanon = bool(lflag & ICANON)
        self._lines = self._icanon and not lflag & EXTPROC
        self._special = self._make_special()
        special = self._special
        self._marks = None if special is None else bytes(c in special for c in range(256))
        if not iflag & IXON and old is not None and old.iflag & IXON and not self.tco_stopped:
            self.start()
            self.process_echoes()

    def _make_special(self) -> frozenset[int] | None:
        """The characters that are more than data; None: raw, nothing is looked at."""
        termios = self.termios
        iflag, lflag, cc = termios.iflag, termios.lflag, termios.cc
        cooked = iflag & (ISTRIP | IUCLC | IGNCR | ICRNL | INLCR | IXON | PARMRK)
        if not cooked and not lflag & (ICANON | ISIG | ECHO):
            return None
        indices: list[int] = []
        found = set()
        if lflag & ICANON:
            indices += (VERASE, VKILL, VEOF, VEOL)
            if lflag & IEXTEN:
                indices += (VWERASE, VLNEXT, VEOL2)
                if lflag & ECHO:
                    indices.append(VREPRINT)
            found.add(_NL)
        if iflag & IXON:
            indices += (VSTART, VSTOP)
        if lflag & ISIG:
            indices += (VINTR, VQUIT, VSUSP)
        found.update(cc[index] for index in indices)
        if iflag & (IGNCR | ICRNL):
            found.add(_CR)
        if iflag & INLCR:
            found.add(_NL)
        found.discard(0)
        return frozenset(found)

    # Input

    @property
    def room(self) -> int:
        """How many bytes `receive` takes now."""
        return max(0, PENDING - len(self.pending))

    def receive(self, data: bytes) -> int:
        """Input from the terminal's far end: how many bytes were taken."""
        data = data[: self.room]
        self.pending += data
        self._pump()
        return len(data)

    def _pump(self) -> None:
        """Process what is pending as far as there is room (n_tty_receive_buf_common)."""
        while self.pending:
            room = BUFFER - len(self._buffer)
            if self.termios.iflag & PARMRK:
                room = -(-room // 3)
            room -= 1
            if room <= 0:
                # A line without an end may go on, its last character replaced each time.
                overflow = self._icanon and self._canon_head == self._tail
                if overflow and room < 0:
                    del self._buffer[-1:]
                room = int(overflow)
            chunk = bytes(self.pending[:room])
            if not chunk:
                return
            del self.pending[:room]
            self._receive(chunk)

    def _receive(self, chunk: bytes) -> None:
        lflag, iflag = self.termios.lflag, self.termios.iflag
        if self._special is None or (lflag & EXTPROC and not iflag & ISTRIP):
            self._buffer += chunk
        else:
            self._receive_standard(chunk)
        self.process_echoes()
        if not self._lines:
            self._committed = self._head
            if self._buffer:
                self.on_readable()

    def _receive_standard(self, chunk: bytes) -> None:
        termios = self.termios
        if termios.iflag & ISTRIP:
            chunk = bytes([c & 0x7F for c in chunk])
        if termios.iflag & IUCLC and termios.lflag & IEXTEN:
            chunk = chunk.translate(_LOWER)
        assert self._marks is not None and self._special is not None
        marks = chunk.translate(self._marks)
        at, end = 0, len(chunk)
        plain = not termios.lflag & ECHO and not termios.iflag & PARMRK
        while at < end:
            if self._lnext:
                self._lnext = False
                self._character(chunk[at])
                at += 1
            elif marks[at]:
                self._special_character(chunk[at])
                at += 1
            elif plain and not self.stopped:
                special = marks.find(1, at)
                stop = end if special < 0 else special
                self._buffer += chunk[at:stop]
                at = stop
            else:
                self._character(chunk[at])
                at += 1

    def _restart_any(self) -> None:
        if self.stopped and not self.tco_stopped and self.termios.iflag & IXON and self.termios.iflag & IXANY:
            self.start()
            self.process_echoes()

    def _put(self, c: int) -> None:
        if c == 0xFF and self.termios.iflag & PARMRK:
            self._buffer.append(c)
        self._buffer.append(c)

    def _character(self, c: int) -> None:
        """One ordinary character (n_tty_receive_char)."""
        self._restart_any()
        if self.termios.lflag & ECHO:
            self._finish_erasing()
            self._mark_column()
            self._echo(c)
        self._put(c)

    def _mark_column(self) -> None:
        """Record the column of the first character of a line."""
        if self._canon_head == self._head:
            self._echo_op(SET_CANON_COLUMN)

    def _special_character(self, c: int) -> None:
        termios = self.termios
        cc, iflag, lflag = termios.cc, termios.iflag, termios.lflag
        if iflag & IXON:
            if c == cc[VSTART]:
                self.start()
                self.process_echoes()
                return
            if c == cc[VSTOP]:
                self.stop()
                return
        if lflag & ISIG and c in (cc[VINTR], cc[VQUIT], cc[VSUSP]):
            self._signal_character(c)
            return
        self._restart_any()
        if c == _CR:
            if iflag & IGNCR:
                return
            if iflag & ICRNL:
                c = _NL
        elif c == _NL and iflag & INLCR:
            c = _CR
        if self._icanon and self._canon_character(c):
            return
        if lflag & ECHO:
            self._finish_erasing()
            if c == _NL:
                self._echo_op(_NL)
            else:
                self._mark_column()
                self._echo(c)
        self._put(c)

    def _signal_character(self, c: int) -> None:
        cc, lflag = self.termios.cc, self.termios.lflag
        signo = SIGINT if c == cc[VINTR] else SIGQUIT if c == cc[VQUIT] else SIGTSTP
        self.on_signal(signo)
        if not lflag & NOFLSH:
            self._echoes.clear()
            self.flush_output()
            self._drop_input()
        if self.termios.iflag & IXON:
            self.start()
        if lflag & ECHO:
            self._echo(c)
        else:
            self.process_echoes()

    def _canon_character(self, c: int) -> bool:
        """Editing and ends of lines; False: `c` is just data (n_tty_receive_char_canon)."""
        cc, lflag = self.termios.cc, self.termios.lflag
        extended = lflag & IEXTEN
        if c in (cc[VERASE], cc[VKILL]) or (c == cc[VWERASE] and extended):
            self._erase(c)
        elif c == cc[VLNEXT] and extended:
            self._lnext = True
            if lflag & ECHO:
                self._finish_erasing()
                if lflag & ECHOCTL:
                    self._echo_op(0x5E)
                    self._echo_op(_BS)
        elif c == cc[VREPRINT] and lflag & ECHO and extended:
            self._finish_erasing()
            self._echo(c)
            self._echo_op(_NL)
            for kept in self._buffer[self._canon_head - self._tail :]:
                self._echo(kept)
        elif c == _NL:
            if lflag & (ECHO | ECHONL):
                self._echo_op(_NL)
            self._end_line(c)
        elif c == cc[VEOF]:
            self._end_line(0)
        elif c == cc[VEOL] or (c == cc[VEOL2] and extended):
            if lflag & ECHO:
                self._mark_column()
                self._echo(c)
            if c == 0xFF and self.termios.iflag & PARMRK:
                self._buffer.append(c)
            self._end_line(c)
        else:
            return False
        return True

    def _end_line(self, c: int) -> None:
        self._ends.append(self._head)
        self._buffer.append(c)
        self._canon_head = self._head
        self.on_readable()

    # Erasing

    def _continues(self, c: int) -> bool:
        return bool(self.termios.iflag & IUTF8) and c & 0xC0 == 0x80

    def _finish_erasing(self) -> None:
        if self._erasing:
            self._echo_op(0x2F)
            self._erasing = False

    def _erase(self, c: int) -> None:
        """ERASE a character, WERASE a word or KILL the line (eraser)."""
        cc, lflag = self.termios.cc, self.termios.lflag
        first = self._canon_head - self._tail
        buffer = self._buffer
        if len(buffer) == first:
            return
        erase, word = c == cc[VERASE], c == cc[VWERASE] and c != cc[VERASE]
        if not erase and not word:
            if not lflag & ECHO:
                del buffer[first:]
                return
            if not (lflag & ECHOK and lflag & ECHOKE and lflag & ECHOE):
                del buffer[first:]
                self._finish_erasing()
                self._echo(cc[VKILL])
                if lflag & ECHOK:
                    self._echo_op(_NL)
                return
        seen = False
        while len(buffer) > first:
            at = len(buffer) - 1
            while self._continues(buffer[at]) and at > first:
                at -= 1
            c = buffer[at]
            if self._continues(c):
                break
            if word:
                if c in _ALNUM:
                    seen = True
                elif seen:
                    break
            gone = bytes(buffer[at:])
            del buffer[at:]
            if lflag & ECHO:
                self._echo_erased(gone, erase, first)
            if erase:
                break
        if len(buffer) == first and lflag & ECHO:
            self._finish_erasing()

    def _echo_erased(self, gone: bytes, erase: bool, first: int) -> None:
        """Show that the character `gone` (several bytes in UTF-8) is no more."""
        lflag, c = self.termios.lflag, gone[0]
        if lflag & ECHOPRT:
            if not self._erasing:
                self._echo_op(0x5C)
                self._erasing = True
            self._echo(c)
            for byte in gone[1:]:
                self._echo_op(byte)
                self._echo_op(MOVE_BACK)
        elif erase and not lflag & ECHOE:
            self._echo(self.termios.cc[VERASE])
        elif c == _TAB:
            self._echo_erased_tab(first)
        else:
            control = c in _CNTRL
            times = (1 + control) if not control or lflag & ECHOCTL else 0
            for _ in range(times):
                for op in (_BS, 0x20, _BS):
                    self._echo_op(op)

    def _echo_erased_tab(self, first: int) -> None:
        columns, after_tab = 0, False
        for c in reversed(self._buffer[first:]):
            if c == _TAB:
                after_tab = True
                break
            if c in _CNTRL:
                if self.termios.lflag & ECHOCTL:
                    columns += 2
            elif not self._continues(c):
                columns += 1
        self._echo_op(ERASE_TAB + (columns & 7 | (0x80 if after_tab else 0)))

    # Echo and output

    def _echo_op(self, op: int) -> None:
        self._echoes.append(op)
        if len(self._echoes) > ECHOES:
            del self._echoes[0]

    def _echo(self, c: int) -> None:
        control = c in _CNTRL and c != _TAB and self.termios.lflag & ECHOCTL
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
        if c == _NL:
            if oflag & ONLRET:
                self._column = 0
            if oflag & ONLCR:
                self._canon_column = self._column = 0
                self.output += b"\r\n"
                return
            self._canon_column = self._column
        elif c == _CR:
            if oflag & ONOCR and self._column == 0:
                return
            if oflag & OCRNL:
                c = _NL
                if oflag & ONLRET:
                    self._canon_column = self._column = 0
            else:
                self._canon_column = self._column = 0
        elif c == _TAB:
            spaces = 8 - (self._column & 7)
            self._column += spaces
            if oflag & TABDLY == XTABS:
                self.output += b" " * spaces
                return
        elif c == _BS:
            self._column = max(0, self._column - 1)
        elif c not in _CNTRL:
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
            if c == _TAB:
                column += 8 - (column & 7)
            elif c == _BS:
                column = max(0, column - 1)
            elif c not in _CNTRL and not self._continues(c):
                column += 1
        self._column = column

    def take_output(self, size: int) -> bytes:
        """Up to `size` bytes for the far end."""
        data = bytes(self.output[:size])
        del self.output[:size]
        self.process_echoes()
        return data

    def send(self, c: int) -> None:
        """A character past all queues (TCIOFF, TCION)."""
        self.output.append(c)
        self.on_output()

    # Flow

    def stop(self) -> None:
        if not self.stopped:
            self.stopped = True
            self._note(TIOCPKT_STOP, TIOCPKT_START)

    def start(self) -> None:
        if self.stopped and not self.tco_stopped:
            self.stopped = False
            self._note(TIOCPKT_START, TIOCPKT_STOP)
            self.on_output()

    def _note(self, bit: int, instead: int = 0) -> None:
        """A status for a master in packet mode."""
        if self.packet:
            self.status = self.status & ~instead | bit
            self.on_output()

    def note(self, bit: int, instead: int = 0) -> None:
        self._note(bit, instead)

    def flush_input(self) -> None:
        """Drop input that has not been read (TCIFLUSH); what is still pending comes next."""
        self._drop_input()
        self._pump()

    def _drop_input(self) -> None:
        self._reset_input()
        self._note(TIOCPKT_FLUSHREAD)

    def flush_output(self) -> None:
        """Drop output on its way (TCOFLUSH): on a pty what the far end's buffer holds stays."""
        del self.output[BUFFER - 1 :]
        self._note(TIOCPKT_FLUSHWRITE)
        self.on_output()

    # Reading

    def available(self, polling: bool = False) -> bool:
        """Whether a read would find something; polling without VTIME waits for VMIN characters."""
        if self._lines:
            return self._canon_head != self._tail
        cc = self.termios.cc
        amount = cc[VMIN] if polling and not cc[VTIME] and cc[VMIN] else 1
        return self._committed - self._tail >= amount

    def count(self) -> int:
        """What FIONREAD answers: of lines without their ends of file."""
        if not self._lines:
            return self._committed - self._tail
        marks = sum(1 for end in self._ends if self._buffer[end - self._tail] == 0)
        return self._canon_head - self._tail - marks

    def read(self, size: int) -> bytes:
        """Up to `size` bytes: in canonical mode of one line, b"" for an end of file.

        Only when something is `available`.
        """
        if self._lines:
            data = self._read_line(size)
        else:
            data = bytes(self._buffer[: min(size, self._committed - self._tail)])
            self._consume(len(data))
        self._pump()
        return data

    def _consume(self, count: int) -> None:
        del self._buffer[:count]
        self._tail += count
        if self._canon_head < self._tail:
            self._canon_head = self._tail

    def _read_line(self, size: int) -> bytes:
        ends = self._ends
        limit = min(size, self._canon_head - self._tail)
        if ends and ends[0] - self._tail < limit:
            end = ends.popleft() - self._tail
            # A NUL that ends a line is an end of file: it is taken, but not read.
            data = bytes(self._buffer[: end + (self._buffer[end] != 0)])
            self._consume(end + 1)
            self._push = False
            return data
        data = bytes(self._buffer[:limit])
        self._consume(limit)
        if ends and ends[0] == self._tail and self._buffer[0] == 0:
            # The buffer was full right before an end of file, which so goes with it (canon_skip_eof).
            ends.popleft()
            self._consume(1)
        return data
