"""A program on a pseudo-terminal, driven from the far end: keys are sent, and what it prints is awaited."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
import time

import pytest

PATIENCE = float(os.environ.get("SENTRY_PATIENCE", "60"))


def take_terminal() -> None:
    """In a new child: make stdin its controlling terminal; its signals are the defaults."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Terminal:
    """A program on a new pseudo-terminal, driven from its master side."""

    def __init__(self, command: list[str], rows: int = 24, columns: int = 80) -> None:
        self.master, slave = os.openpty()
        self.resize(rows, columns)
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "TERM": "xterm",
            "HOME": "/tmp",
            "LANG": "C.UTF-8",
        }
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, cwd="/", env=environment,
            start_new_session=True,
            preexec_fn=take_terminal,
        )  # fmt: skip
        self.seen = b""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def send(self, data: bytes) -> None:
        os.write(self.master, data)

    def press(self, key: bytes, pattern: bytes) -> re.Match[bytes]:
        """Sends `key` until `pattern` is there: a shell names a job before it has left the foreground."""
        return self.expect(pattern, key)

    def expect(self, pattern: bytes, key: bytes = b"") -> re.Match[bytes]:
        """Reads until `pattern` is there; what was read up to its end is consumed."""
        deadline = time.monotonic() + PATIENCE
        again = time.monotonic()
        while not (found := re.search(pattern, self.seen)):
            left = deadline - time.monotonic()
            if left <= 0:
                pytest.fail(f"no {pattern!r} in {self.seen!r}")
            if key and time.monotonic() >= again:
                self.send(key)
                again = time.monotonic() + 1
            if not select.select([self.master], [], [], min(left, 0.2) if key else left)[0]:
                continue
            try:
                chunk = os.read(self.master, 65536)
            except OSError:
                chunk = b""
            if not chunk:
                pytest.fail(f"ended without {pattern!r}: {self.seen!r}")
            # Readline's bracketed paste mode is no matter of ours.
            self.seen = re.sub(rb"\x1b\[\?2004[hl]\r?", b"", self.seen + chunk)
        self.seen = self.seen[found.end() :]
        return found

    def wait(self) -> int:
        """The exit status; the output that nobody expected is read, so that nobody blocks on it."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < deadline:
            if select.select([self.master], [], [], 0.05)[0]:
                self.seen += os.read(self.master, 65536)
        assert self.process.poll() is not None, f"still running: {self.seen!r}"
        return self.process.returncode

    def settings(self) -> list[object]:
        return termios.tcgetattr(self.slave)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)


SHELL = ["bash", "--norc", "--noprofile"]
PROMPT = ("--env", "PS1=ready> ")
