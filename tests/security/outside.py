"""A running sandbox, seen from outside: how the tests start one and find its processes."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from pathlib import Path

PROGRAM = Path(__file__).with_name("trivial_sandbox.py")
NAMESPACES = ("user", "pid", "mnt", "net", "ipc", "uts", "cgroup")


def parents() -> dict[int, int]:
    """ppid by pid of everything that runs."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            status = read_status(int(name))
            if status:
                found[int(name)] = int(status["PPid"])
    return found


def read_status(pid: int) -> dict[str, str]:
    """/proc/PID/status, empty when there is no such process (a zombie counts as none)."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.splitlines())
    fields = {key: value.strip() for key, _, value in pairs}
    return {} if fields["State"].startswith(("Z", "X")) else fields


class Start:
    """start(action, *flags) → Running, by one of the two users."""

    def __init__(self, command: list[str], as_user: bool) -> None:
        self.command = command
        self.as_user = as_user
        self.made: list[Running] = []

    def __call__(self, action: str, *flags: str, **popen: object) -> Running:
        self.made.append(Running(self, action, flags, **popen))
        return self.made[-1]

    def close(self) -> None:
        for sandbox in self.made:
            sandbox.close()


class Running:
    """A sandbox and its processes, found by their places in the tree."""

    def __init__(self, start: Start, action: str, flags: tuple[str, ...] = (), **popen: object) -> None:
        command = [*start.command, "run", *flags, "--", "x"]
        popen = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **popen}
        self.as_user = start.as_user
        self.process = subprocess.Popen(
            command, cwd="/", env={**os.environ, "TRIVIAL": action}, **popen,  # type: ignore[call-overload]
        )  # fmt: skip
        self.cli = self.process.pid
        self.gofer = self.reaper = self.sentry = 0
        self.stubs: list[int] = []

    def ready(self) -> Running:
        """Wait until the kernel says so, then find everybody."""
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], 20)[0], "no sandbox after 20 s"
        line = os.read(self.process.stdout.fileno(), 100)
        assert line == b"ready\n", self.process.communicate(timeout=10)
        tree = parents()
        for pid in [pid for pid, parent in tree.items() if parent == self.cli]:
            if len(read_status(pid)["NSpid"].split()) == 1:
                self.gofer = pid
            else:
                self.reaper = pid
        (self.sentry,) = [pid for pid, parent in tree.items() if parent == self.reaper]
        self.stubs = [pid for pid, parent in tree.items() if parent == self.sentry]
        return self

    @property
    def everybody(self) -> list[int]:
        return [self.cli, self.gofer, self.reaper, self.sentry, *self.stubs]

    def end(self) -> tuple[int, str, str]:
        """(exit status, rest of stdout, stderr)"""
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out.decode(), err.decode()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=20)
