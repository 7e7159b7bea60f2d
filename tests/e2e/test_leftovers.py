"""However a sandbox ends, nothing of it stays: no process, no mount, no cgroup, no file.

A supervisor that is the subreaper of all that it starts runs each sandbox: whatever a sandbox leaves
behind becomes the supervisor's child, so "nothing left" is "no child left", whatever else
runs on this host.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from conftest import Runner

SUPERVISOR = r"""
import ctypes, json, os, random, signal, subprocess, sys, time

PR_SET_CHILD_SUBREAPER = 36
assert ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
job = json.loads(sys.argv[1])
numbers = random.Random(job["seed"])


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def descendants(pid):
    found = []
    for child in children(pid):
        found += [child, *descendants(child)]
    return found


def describe(pid):
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return f"{pid} {file.read()!r}"
    except OSError:
        return str(pid)


def last_child_gone(patience):
    deadline = time.monotonic() + patience
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return []
        if pid:
            continue
        if time.monotonic() > deadline:
            return [describe(pid) for pid in descendants(os.getpid())]
        time.sleep(0.005)


report = []
for turn, kill in enumerate(job["turns"]):
    process = subprocess.Popen(job["command"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, cwd="/", start_new_session=True)
    if kill is not None:
        time.sleep(numbers.uniform(0, job["window"]))
        victims = [process.pid] if kill == "cli" else descendants(os.getpid())
        if victims:
            try:
                os.kill(numbers.choice(victims), signal.SIGKILL)
            except ProcessLookupError:
                pass
    left = last_child_gone(30)
    if left:
        report.append(f"turn {turn} ({kill}): {left}")
        for pid in descendants(os.getpid()):
            os.kill(pid, signal.SIGKILL)
        last_child_gone(10)
print(json.dumps(report))
"""


def mounts() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()


def traces() -> set[str]:
    """Names that a sandbox might leave in the file system."""
    found = set()
    for top in ("/tmp", "/run", "/var/run", "/dev/shm", "/sys/fs/cgroup"):
        if Path(top).is_dir():
            found |= {f"{top}/{name}" for name in os.listdir(top) if "sentry" in name}
    for top in Path("/sys/fs/cgroup").glob("*/sentry*"):
        found.add(str(top))
    return found


def test_nothing_stays(runner: Runner, seeded: random.Random, long_form: bool) -> None:
    runs, kills = (200, 20) if long_form else (20, 6)
    turns: list[str | None] = [None] * (runs - kills) + ["cli", "any"] * (kills // 2)
    seeded.shuffle(turns)
    script = "for i in 1 2 3; do sleep 0.05 & done; (sleep 0.1; true) | cat; exit 0"
    job = {"seed": seeded.random(), "turns": turns, "window": 0.7, "command": runner.argv("sh", "-c", script)}
    mounts_before, traces_before = mounts(), traces()
    done = subprocess.run(
        [sys.executable, "-c", SUPERVISOR, json.dumps(job)],
        capture_output=True,
        timeout=60 + 30 * runs,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
    assert mounts() == mounts_before
    assert traces() - traces_before == set()


def test_background_processes_die_with_the_first(runner: Runner) -> None:
    """Like a container: when the first process ends, so does the sandbox."""
    result = runner.run("sh", "-c", "sleep 1000 & setsid sleep 1000 & exit 5")
    assert result.status == 5, result
