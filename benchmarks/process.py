"""Runs one command at a time, with a time limit, and leaves nothing behind.

The benchmark makes itself the subreaper of all that it starts, so that a sandbox whose parts detach
themselves stays among its descendants: their memory can be summed up, and what is left after a
time-out or an ended command is found and ended.  Nothing else of the machine is ever touched.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
#: How long the rest of a sandbox may take to go away once its command has ended.
SETTLE_SECONDS = 3.0
#: The environment of every command, native or not.
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/tmp",
}


@dataclass
class Outcome:
    """How a command ended; `status` is 128+N for signal N, and -1 after a time-out."""

    status: int
    out: str
    err: str
    seconds: float

    @property
    def timed_out(self) -> bool:
        return self.status == -1

    def reason(self) -> str:
        """Why it failed, in one line."""
        if self.timed_out:
            return f"still running after {self.seconds:.0f} s"
        lines = [line.strip() for line in self.err.splitlines() if line.strip()]
        return f"status {self.status}" + (f": {lines[-1]}" if lines else "")


_is_subreaper = False


def become_subreaper() -> None:
    """From here on every descendant that is left over is taken for a part of the last command."""
    global _is_subreaper
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    _is_subreaper = True


def descendants(pid: int) -> list[int]:
    """All processes below `pid`, without itself."""
    found: list[int] = []
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(word) for task in tasks for word in (task / "children").read_text().split()]
    except (OSError, ValueError):
        return found
    for child in children:
        found += [child, *descendants(child)]
    return found


def reap() -> None:
    """Collects orphans that were handed to us; only called while no command runs."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0] > 0:
            pass
    except ChildProcessError:
        pass


def settle(seconds: float = SETTLE_SECONDS) -> None:
    """Waits until the last command's processes are gone (they would disturb the next), then ends them."""
    if not _is_subreaper:
        return
    deadline = time.monotonic() + seconds
    reap()
    while left := descendants(os.getpid()):
        if time.monotonic() > deadline:
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except OSError:
                    pass
        time.sleep(0.005)
        reap()
        if time.monotonic() > deadline + SETTLE_SECONDS:
            return


def wait_for(pid: int, timeout: float) -> int | None:
    """The status of our child `pid`, or None when it takes too long; no polling, which would be measured."""
    watch = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(watch, select.POLLIN)
        if not poll.poll(timeout * 1000):
            return None
    finally:
        os.close(watch)
    _, raw = os.waitpid(pid, 0)
    status = os.waitstatus_to_exitcode(raw)
    return status if status >= 0 else 128 - status


def ended_pipe() -> int:
    """A descriptor that reads as nothing."""
    reading, writing = os.pipe()
    os.close(writing)
    return reading


def run(
    command: list[str], *, cwd: Path | str = "/", timeout: float = 60, env: dict[str, str] | None = None
) -> Outcome:
    """Input is a pipe that has ended; output goes to files: a detached process that keeps a pipe open would
    be waited for.  Never a device of the host: runsc, as root, gives its standard files to nobody."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        empty = ended_pipe()
        start = time.perf_counter()
        try:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env={**ENVIRONMENT, **(env or {})},
                stdin=empty,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        except OSError as error:
            return Outcome(127, "", f"{command[0]}: {error.strerror}", 0.0)
        finally:
            os.close(empty)
        status = wait_for(process.pid, timeout)
        seconds = time.perf_counter() - start
        if status is None:
            os.killpg(process.pid, signal.SIGKILL)
            os.waitpid(process.pid, 0)
        process.returncode = -1 if status is None else status
        settle(0 if status is None else SETTLE_SECONDS)
        out.seek(0)
        err.seek(0)
        return Outcome(
            process.returncode,
            out.read().decode(errors="replace"),
            err.read().decode(errors="replace"),
            seconds,
        )
