"""The memory limit where there is no cgroup to hold it: the CLI looks, and kills as an OOM killer would.

The Sentry's accounts keep honest programs within --memory, and RLIMIT_DATA each single process.  What is left
is a guest that maps memory behind the Sentry's back in many processes.  So the CLI adds up from time to time
what the Sentry's children, the stubs, hold; beyond the limit it kills the largest.  For the guest that is a
SIGKILL.  The Sentry is never a candidate.

What is resident is read from /proc/PID/status, which costs little but counts a page that a fork shares in
each process.  So before anybody is killed, /proc/PID/smaps_rollup has the last word: there each process has
its share of a page only.  Page tables count, too: a guest that reads one byte of each two megabytes has
little else.  Shared memory is not counted: it is the Sentry's own, and has a limit of its own.

It looks seldom: every tenth of a second while something grows, every two seconds while nothing does.
"""

from __future__ import annotations

import _signal
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

#: What stubs need for themselves: nobody accounts for it.
SLACK = 16 << 20
SHORTEST, LONGEST = 0.1, 2.0
#: More than the guest's --pids, or else than anybody has, need not be added up.
MOST = 100_000


def read(path: str) -> bytes:
    """A file of /proc, b"" for a process that has gone (or is not ours to see)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    parts = []
    try:
        while part := os.read(fd, 1 << 16):
            parts.append(part)
    except OSError:
        return b""
    finally:
        os.close(fd)
    return b"".join(parts)


def children(pid: int) -> list[int]:
    """A process is the child of the thread that forked it."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    return [int(word) for tid in threads for word in read(f"/proc/{pid}/task/{tid}/children").split()]


def parent(pid: int) -> int:
    # "pid (comm) state ppid": the name is the process's own choice, and may contain anything.
    fields = read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return int(fields[1]) if len(fields) > 1 else 0


def _kilobytes(pid: int, names: tuple[bytes, ...]) -> int:
    """The sum of fields of /proc/PID/status, in bytes."""
    found = 0
    for line in read(f"/proc/{pid}/status").splitlines():
        if line.startswith(names):
            found += int(line.split()[1]) * 1024
    return found


def resident(pid: int) -> int:
    """Bytes of private memory, those shared by forks included, and of page tables."""
    return _kilobytes(pid, (b"RssAnon:", b"VmPTE:"))


def share(pid: int) -> int:
    """Bytes of private memory, of what forks share only the share; `resident` where that can't be read."""
    for line in read(f"/proc/{pid}/smaps_rollup").splitlines():
        if line.startswith(b"Pss_Anon:"):
            return int(line.split()[1]) * 1024 + _kilobytes(pid, (b"VmPTE:",))
    return resident(pid)


def kill(pid: int, father: int) -> bool:
    """Kill `pid` if it (still) is a child of `father`."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        # The handle is of whoever has the number now; and so is what /proc says, as long as it lives.
        if parent(pid) != father:
            return False
        _signal.pidfd_send_signal(handle, _signal.SIGKILL)
        return True
    except OSError:
        return False
    finally:
        os.close(handle)


class MemoryWatch:
    """`due`: when to `look` again, by time.monotonic().  `kills`: how many processes it has killed."""

    __slots__ = ("_interval", "_last", "_limit", "due", "kills")

    def __init__(self, limit: int) -> None:
        self._limit = limit + SLACK
        self._interval = SHORTEST
        self._last = 0
        self.due = 0.0
        self.kills = 0

    def look(self, now: float, init: int) -> None:
        """`init`: the sandbox's first process, whose child is the Sentry, whose children are the stubs."""
        total = 0
        for sentry in children(init):
            total += self._look_at(sentry)
        grown = total > self._last or total > self._limit
        self._interval = SHORTEST if grown else min(LONGEST, self._interval * 2)
        self._last = total
        self.due = now + self._interval

    def _look_at(self, sentry: int) -> int:
        stubs = children(sentry)[:MOST]
        total = sum(map(resident, stubs))
        if total > self._limit:
            total = self._enforce(sentry, stubs)
        return total

    def _enforce(self, sentry: int, stubs: Iterable[int]) -> int:
        sizes = sorted((share(pid), pid) for pid in stubs)
        total = sum(size for size, _ in sizes)
        while total > self._limit and sizes:
            size, pid = sizes.pop()
            if kill(pid, sentry):
                self.kills += 1
            total -= size
        return total
