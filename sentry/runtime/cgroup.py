"""A memory cgroup for the guest's processes, where the host lets us make one (as root, mostly).

The stubs are inside, the Sentry is outside: when the limit is reached, the OOM killer takes a guest
process, never the kernel it runs on.  A group is named `sentry-PID` after the CLI's pid.  The CLI
removes it at the end; one whose CLI was killed is removed by the next run that makes a group.
Without a cgroup the Sentry's own commit accounting limits memory, and the CLI watches (watch.py).
"""

from __future__ import annotations

import os
import time

PREFIX = "sentry-"


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _read(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096).decode("ascii", "replace")
    finally:
        os.close(fd)


def counter(text: str, key: str) -> int:
    """The number behind `key` in a file of `key number` lines, 0 when it is not there."""
    for line in text.splitlines():
        words = line.split()
        if len(words) == 2 and words[0] == key and words[1].isdecimal():
            return int(words[1])
    return 0


def locate(self_cgroup: str, mounts: str) -> tuple[str, int] | None:
    """(directory of our own memory cgroup, version) from /proc/self/{cgroup,mountinfo}."""
    points: dict[str, str] = {}
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        fields, rest = left.split(), right.split()
        if len(fields) > 4 and len(rest) > 2:
            if rest[0] == "cgroup2":
                points.setdefault("v2", fields[4])
            elif rest[0] == "cgroup" and "memory" in rest[2].split(","):
                points.setdefault("v1", fields[4])
    for line in self_cgroup.splitlines():
        number, controllers, path = (*line.split(":", 2), "", "")[:3]
        if "memory" in controllers.split(",") and "v1" in points:
            return points["v1"] + path.rstrip("/"), 1
        if number == "0" and controllers == "" and "v2" in points and "v1" not in points:
            return points["v2"] + path.rstrip("/"), 2
    return None


def sweep(parent: str) -> None:
    """Remove groups that a CLI left behind because it was killed."""
    for name in os.listdir(parent):
        pid = name.removeprefix(PREFIX)
        if pid != name and pid.isdecimal() and not os.path.exists(f"/proc/{pid}"):
            try:
                os.rmdir(f"{parent}/{name}")
            except OSError:
                pass  # still in use, or not ours


class MemoryGroup:
    """One group.  `procs_fd` is for the Sentry, which writes the zygote's pid into it."""

    __slots__ = ("path", "procs_fd", "version")

    def __init__(self, path: str, version: int, limit: int) -> None:
        self.path = path
        self.version = version
        os.mkdir(path)
        try:
            if version == 1:
                _write(path + "/memory.limit_in_bytes", str(limit))
                swap = path + "/memory.memsw.limit_in_bytes"
                if os.path.exists(swap):
                    _write(swap, str(limit))
            else:
                _write(path + "/memory.max", str(limit))
                if os.path.exists(path + "/memory.swap.max"):
                    _write(path + "/memory.swap.max", "0")
            self.procs_fd = os.open(path + "/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        except BaseException:
            os.rmdir(path)
            raise

    def kills(self) -> int:
        """How many processes the OOM killer took."""
        name = "/memory.oom_control" if self.version == 1 else "/memory.events"
        try:
            return counter(_read(self.path + name), "oom_kill")
        except OSError:
            return 0

    def remove(self) -> None:
        for _ in range(100):
            try:
                os.rmdir(self.path)
                return
            except FileNotFoundError:
                return
            except OSError:
                # Processes that are dead but not yet taken out of the group.
                time.sleep(0.01)


def make_group(limit: int) -> MemoryGroup | None:
    """A group with the limit, beside or below our own; None where the host does not let us."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
            found = locate(_read("/proc/self/cgroup"), mounts.read())
        if found is None:
            return None
        own, version = found
        # In v2 a group with processes of its own cannot have children with limits: ours must be a sibling.
        parents = (own,) if version == 1 else (own, os.path.dirname(own))
    except OSError:
        return None
    for parent in parents:
        try:
            if os.access(parent, os.W_OK):
                sweep(parent)
                return MemoryGroup(f"{parent}/{PREFIX}{os.getpid()}", version, limit)
        except OSError:
            continue
    return None
