"""The line discipline of a terminal: Linux's n_tty, in its words (drivers/tty/n_tty.c).

Input arrives by `receive`, is edited, echoed and made into signals, and is taken by `read`.
Positions are counts since the beginning: the buffer holds `tail` to `head`; a line can be read up
to `canon_head`, and `ends` are the positions of the characters that end lines.  An end of file is
stored as a NUL that ends a line.  What there is no room for stays in `pending`.

This is the input side; output and echoes are in output.py.
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
    IXANY,
    IXON,
    NOFLSH,
    PARMRK,
    TIOCPKT_FLUSHREAD,
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
)
from sentry.fs.devpts.modes import Termios
from sentry.fs.devpts.output import (
    BS,
    BUFFER,
    CNTRL,
    CR,
    ERASE_TAB,
    MOVE_BACK,
    NL,
    PENDING,
    SET_CANON_COLUMN,
    TAB,
    OutputSide,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: Letters and digits of Latin-1, and the underscore: what words are made of.
_ALNUM = frozenset(
    c for c in range(256) if (c < 128 and chr(c).isalnum()) or c == 0x5F or (c >= 0xC0 and c | 0x20 != 0xF7)
)
_LOWER = bytes(c + 32 if 65 <= c <= 90 or (0xC0 <= c <= 0xDE and c != 0xD7) else c for c in range(256))


class LineDiscipline(OutputSide):
    """`on_signal(signo)` tells the foreground; `on_readable()` that input can be read; `on_output()` that
    output, or a packet-mode status, is there for the master."""

    def __init__(
        self, on_signal: Callable[[int], None], on_readable: Callable[[], None], on_output: Callable[[], None]
    ) -> None:
        super().__init__(on_output)
        self.on_signal = on_signal
        self.on_readable = on_readable
        self.pending = bytearray()
        self._reset_input()
        self._apply(None)

    def _reset_input(self) -> None:
        self._buffer = bytearray()
        self._tail = 0
        self._canon_head = 0
        self._ends: deque[int] = deque()
        self._committed = 0
        self._erasing = False
        self._lnext = False
        self._push = False

    def clear(self) -> None:
        """Forget all bytes, on both sides."""
        self._reset_input()
        self.pending.clear()
        self.output.clear()
        self._echoes.clear()

    @property
    def _head(self) -> int:
        return self._tail + len(self._buffer)

    # Modes

    def set_termios(self, new: Termios) -> None:
        """Change the modes (n_tty_set_termios)."""
        old, self.termios = self.termios, new
        self._apply(old)

    def _apply(self, old: Termios | None) -> None:
        """Act on the modes after `old`; None: the first ones."""
        new = self.termios
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
            found.add(NL)
        if iflag & IXON:
            indices += (VSTART, VSTOP)
        if lflag & ISIG:
            indices += (VINTR, VQUIT, VSUSP)
        found.update(cc[index] for index in indices)
        if iflag & (IGNCR | ICRNL):
            found.add(CR)
        if iflag & INLCR:
            found.add(NL)
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
        preprocessed = iflag & ISTRIP or (iflag & IUCLC and lflag & IEXTEN)
        if self._special is None or (lflag & EXTPROC and not preprocessed):
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
        assert self._marks is not None
        if termios.lflag & EXTPROC:
            self._buffer += chunk
            return
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
        if c == CR:
            if iflag & IGNCR:
                return
            if iflag & ICRNL:
                c = NL
        elif c == NL and iflag & INLCR:
            c = CR
        if self._icanon and self._canon_character(c):
            return
        if lflag & ECHO:
            self._finish_erasing()
            if c == NL:
                self._echo_op(NL)
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
                    self._echo_op(BS)
        elif c == cc[VREPRINT] and lflag & ECHO and extended:
            self._finish_erasing()
            self._echo(c)
            self._echo_op(NL)
            for kept in self._buffer[self._canon_head - self._tail :]:
                self._echo(kept)
        elif c == NL:
            if lflag & (ECHO | ECHONL):
                self._echo_op(NL)
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
                    self._echo_op(NL)
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
        elif c == TAB:
            self._echo_erased_tab(first)
        else:
            control = c in CNTRL
            times = (1 + control) if not control or lflag & ECHOCTL else 0
            for _ in range(times):
                for op in (BS, 0x20, BS):
                    self._echo_op(op)

    def _echo_erased_tab(self, first: int) -> None:
        columns, after_tab = 0, False
        for c in reversed(self._buffer[first:]):
            if c == TAB:
                after_tab = True
                break
            if c in CNTRL:
                if self.termios.lflag & ECHOCTL:
                    columns += 2
            elif not self._continues(c):
                columns += 1
        self._echo_op(ERASE_TAB + (columns & 7 | (0x80 if after_tab else 0)))

    # Reading

    def flush_input(self) -> None:
        """Drop input that has not been read (TCIFLUSH); what is still pending comes next."""
        self._drop_input()
        self._pump()

    def _drop_input(self) -> None:
        self._reset_input()
        self.note(TIOCPKT_FLUSHREAD)

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
