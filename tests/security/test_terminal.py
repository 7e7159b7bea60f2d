"""The caller's terminal and standard files, seen from outside: what is reopened, raw mode, restoring."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator

import pytest
from outside import Running, Start


class Terminal:
    """A pseudo terminal of which a sandbox's CLI is the session leader."""

    def __init__(self) -> None:
        self.master, self.slave = pty.openpty()
        self.text = b""
        self.resize(24, 80)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def start(self, start: Start, action: str, *flags: str) -> Running:
        slave = self.slave

        def own_session() -> None:
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

        os.fchmod(slave, 0o666)
        return start(
            action, *flags, stdin=slave, stdout=slave, stderr=slave, preexec_fn=own_session, pass_fds=(slave,)
        )

    def expect(self, text: bytes) -> None:
        while text not in self.text:
            assert select.select([self.master], [], [], 20)[0], self.text
            self.text += os.read(self.master, 4096)

    def flags(self) -> tuple[bool, bool]:
        mode = termios.tcgetattr(self.slave)[3]
        return bool(mode & termios.ECHO), bool(mode & termios.ICANON)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    os.close(made.master)
    os.close(made.slave)


COOKED, RAW = (True, True), (False, False)


@pytest.mark.parametrize("signo", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_raw_mode_is_undone(start: Start, terminal: Terminal, signo: int) -> None:
    sandbox = terminal.start(start, "winsize", "-t")
    terminal.expect(b"(24, 80, 0, 0)")
    terminal.expect(b"ready")
    assert terminal.flags() == RAW
    terminal.resize(30, 100)
    terminal.expect(b"(30, 100, 0, 0)")
    sandbox.process.send_signal(signo)
    assert sandbox.process.wait(timeout=20) == 128 + signo
    assert terminal.flags() == COOKED


def test_raw_mode_is_undone_when_the_sandbox_fails(start: Start, terminal: Terminal) -> None:
    sandbox = terminal.start(start, "call open", "-t")
    assert sandbox.process.wait(timeout=20) == 128
    terminal.expect(b"sentry: the sandbox died (signal 31 SIGSYS")
    assert terminal.flags() == COOKED


def test_what_the_guest_changed_is_undone(start: Start, terminal: Terminal) -> None:
    sandbox = terminal.start(start, "noecho")
    terminal.expect(b"ready")
    assert terminal.flags() == RAW
    os.write(terminal.master, b"\x03")  # without -t the terminal makes signals, and the CLI gets them
    assert sandbox.process.wait(timeout=20) == 130
    assert terminal.flags() == COOKED


def test_terminal_is_reopened_without_blocking(start: Start, terminal: Terminal) -> None:
    """The guest's descriptors don't block; the caller's open file descriptions are left alone."""
    sandbox = terminal.start(start, "stdio")
    assert sandbox.process.wait(timeout=20) == 0
    terminal.expect(b"[False, False, False]")
    assert os.get_blocking(terminal.slave)


def test_pipes_are_reopened_files_are_not(start: Start, tmp_path: object) -> None:
    read_end, write_end = os.pipe()
    with open(f"{tmp_path}/out", "wb") as out:
        sandbox = start("stdio", stdin=read_end, stdout=out, stderr=subprocess.PIPE)
        assert sandbox.process.stderr is not None
        text = sandbox.process.stderr.read()
    assert sandbox.process.wait(timeout=20) == 0
    # A pipe made by another user cannot be opened again; then it stays as it is.
    kept = start.as_user and os.geteuid() == 0
    assert text.decode() == f"[{kept}, True, {kept}][True, True, True]"
    assert os.get_blocking(read_end) and os.get_blocking(write_end)
    os.close(read_end)
    os.close(write_end)


def test_closed_standard_files(start: Start) -> None:
    def close_two() -> None:
        os.close(0)
        os.close(1)

    sandbox = start("stdio", preexec_fn=close_two)
    assert sandbox.end()[2].endswith("][False, False, True]")
