"""Looking at a sandbox from outside: who belongs to it, and what its parts hold."""

from __future__ import annotations

import os
from pathlib import Path


def _children(pid: int) -> list[int]:
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(word) for word in path.read_text().split()]
        except OSError:
            continue  # it has ended meanwhile
    return found


def everybody(pid: int) -> list[int]:
    """The process and all below it."""
    found = [pid]
    for one in found:
        found += _children(one)
    return found


def _status(pid: int) -> dict[str, str]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


class Sandbox:
    """The parts of a running sandbox by the pid of its CLI: `gofer`, `sentry`, and `stubs()`."""

    def __init__(self, cli: int) -> None:
        self.cli = cli
        self.gofer, reaper = _children(cli)[:2]
        if _status(self.gofer).get("Name") == "reaper":
            self.gofer, reaper = reaper, self.gofer
        (self.sentry,) = _children(reaper)

    def stubs(self) -> list[int]:
        """The zygote and the templates are among them."""
        return _children(self.sentry)

    def memory(self) -> int:
        """Kilobytes of the Sentry that belong to no file: its own, and what it shares with stubs."""
        status = _status(self.sentry)
        return sum(int(status[name].split()[0]) for name in ("RssAnon", "RssShmem"))

    def descriptors(self) -> tuple[int, int]:
        """Open descriptors of the Sentry and of the Gofer."""
        return len(os.listdir(f"/proc/{self.sentry}/fd")), len(os.listdir(f"/proc/{self.gofer}/fd"))

    def ticks(self) -> int:
        """CPU time that all of them have used, in ticks of 10 ms."""
        total = 0
        for pid in everybody(self.cli):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total
