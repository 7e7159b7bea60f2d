"""The socket between the CLI and the Sentry: a few fixed messages, one a packet.

CLI to Sentry                         Sentry (or pid 1 before it) to CLI
  b"S" u8 signal   pass on to guest     b"X" u32 status      the guest ended: exit with this
  b"W" 4 * u16     window size          b"F" u8 status text  no run: say `text`, exit with status
  b"T"             time over: kill      b"N" text            something to say at the end
                                        b"P"                 the program was stopped at its terminal (-t)

The Sentry is the less trusted end: `parse_report` accepts anything.
"""

from __future__ import annotations

import os
from _struct import Struct

#: Longer packets are cut off by the reader.
PACKET_SIZE = 1024

_EXIT = Struct("<cI")
_FAIL = Struct("<cB")
_SIGNAL = Struct("<cB")
_WINSIZE = Struct("<c4H")

SIGNAL = b"S"
WINSIZE = b"W"
TIMEOUT = b"T"
EXIT = b"X"
FAIL = b"F"
NOTE = b"N"
STOPPED = b"P"


def signal_packet(signo: int) -> bytes:
    return _SIGNAL.pack(SIGNAL, signo)


def winsize_packet(winsize: tuple[int, int, int, int]) -> bytes:
    return _WINSIZE.pack(WINSIZE, *winsize)


def exit_packet(status: int) -> bytes:
    return _EXIT.pack(EXIT, status & 0xFFFFFFFF)


def fail_packet(text: str, status: int) -> bytes:
    return _FAIL.pack(FAIL, status & 0xFF) + text.encode("utf-8", "backslashreplace")[: PACKET_SIZE - 2]


def note_packet(text: str) -> bytes:
    return NOTE + text.encode("utf-8", "backslashreplace")[: PACKET_SIZE - 1]


def printable(raw: bytes) -> str:
    """One harmless line: no control character of a hostile Sentry reaches the user's terminal."""
    text = raw.decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "?" for c in text)


def printable_lines(raw: bytes) -> list[str]:
    return [printable(line) for line in raw.split(b"\n") if line]


def parse_report(packet: bytes) -> tuple[bytes, int, str] | None:
    """(EXIT, FAIL, NOTE or STOPPED; status; text) of a packet from the Sentry, None for nonsense."""
    kind = packet[:1]
    if kind == EXIT and len(packet) == _EXIT.size:
        return kind, _EXIT.unpack(packet)[1] & 0xFF, ""
    if kind == FAIL and len(packet) >= _FAIL.size:
        return kind, packet[1], printable(packet[2:])
    if kind == NOTE:
        return kind, 0, printable(packet[1:])
    if packet == STOPPED:
        return kind, 0, ""
    return None


class Control:
    """The Sentry's end.  `fd` is non-blocking and for the platform's epoll (EPOLLIN)."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def receive(self) -> list[tuple[bytes, tuple[int, ...]]]:
        """What has arrived: (SIGNAL, (signo,)), (WINSIZE, (rows, columns, x, y)), (TIMEOUT, ()).

        Empty when the CLI has nothing to say; the CLI's end is not noticed here, it is fatal anyway.
        """
        messages: list[tuple[bytes, tuple[int, ...]]] = []
        while True:
            try:
                packet = os.read(self.fd, PACKET_SIZE)
            except (BlockingIOError, ConnectionError):
                return messages
            if not packet:
                return messages
            kind = packet[:1]
            if kind == SIGNAL and len(packet) == _SIGNAL.size:
                messages.append((kind, (packet[1],)))
            elif kind == WINSIZE and len(packet) == _WINSIZE.size:
                messages.append((kind, _WINSIZE.unpack(packet)[1:]))
            elif kind == TIMEOUT:
                messages.append((kind, ()))

    def _send(self, packet: bytes) -> None:
        try:
            os.write(self.fd, packet)
        except OSError:
            pass  # nobody listens, or nobody has for a long time: the exit status must do

    def exited(self, status: int) -> None:
        self._send(exit_packet(status))

    def failed(self, text: str, status: int) -> None:
        self._send(fail_packet(text, status))

    def stopped(self) -> None:
        self._send(STOPPED)

    def note(self, text: str) -> None:
        """Have the CLI print `sentry: TEXT` when the run is over (a limit was reached, say)."""
        self._send(note_packet(text))
