"""Everything dies together, at whatever moment and whoever is killed first; nothing is left."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
from outside import Start, parents, read_status

PATIENCE = 20.0


def mounts() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()


def until_gone(pids: list[int]) -> list[int]:
    """Wait for processes that are not ours to wait for; those that are still there in the end."""
    limit = time.monotonic() + PATIENCE
    while left := [pid for pid in pids if read_status(pid)]:
        if time.monotonic() > limit:
            break
        os.sched_yield()
    return left


@pytest.mark.parametrize("victim", ["cli", "gofer", "sentry", "reaper"])
def test_all_die_with_one(start: Start, victim: str) -> None:
    before = mounts()
    sandbox = start("stubs").ready()
    os.kill(getattr(sandbox, victim), signal.SIGKILL)
    status, _, err = sandbox.end()
    assert until_gone(sandbox.everybody) == []
    assert mounts() == before
    expected = {
        "cli": (-9, ""),
        "gofer": (128, "the gofer died (signal 9); the sandbox was stopped, changes in memory are lost"),
        "sentry": (128, "the sandbox died (signal 9); run with --debug for details"),
        "reaper": (128, "the sandbox died (signal 9); run with --debug for details"),
    }
    assert (status, err.removeprefix("sentry: ").removesuffix("\n")) == expected[victim]


def test_stubs_are_not_needed_to_die(start: Start) -> None:
    """A stub's death is the kernel's matter, not the runtime's: the rest lives on."""
    sandbox = start("stubs").ready()
    os.kill(sandbox.stubs[-1], signal.SIGKILL)
    sandbox.process.send_signal(signal.SIGTERM)
    assert sandbox.end()[0] == 143
    assert until_gone(sandbox.everybody) == []


def descendants(root: int) -> list[int]:
    tree = parents()
    found = [root]
    for pid in found:
        found += [child for child, parent in tree.items() if parent == pid]
    return found


@pytest.mark.parametrize("seed", range(8))
def test_cli_killed_at_a_random_moment(start: Start, seed: int) -> None:
    """During the start too: no moment at which a process could miss the CLI's death."""
    sandbox = start("stubs")
    delay = time.monotonic() + random.Random(seed).uniform(0.0, 0.25)
    seen: set[int] = set()
    while time.monotonic() < delay:
        seen.update(descendants(sandbox.cli))
    os.kill(sandbox.cli, signal.SIGKILL)
    sandbox.process.communicate(timeout=PATIENCE)  # returns when nobody holds the pipes any more
    assert until_gone(sorted(seen)) == []


@pytest.mark.parametrize(
    "signo", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1]
)
def test_signals_are_passed_on(start: Start, signo: int) -> None:
    sandbox = start("stubs").ready()
    sandbox.process.send_signal(signo)
    assert sandbox.end() == (128 + signo, "", "")


@pytest.mark.parametrize("action", ["sleep", "stubborn"])
def test_timeout(start: Start, action: str) -> None:
    """A Sentry that does not react is killed a second later."""
    sandbox = start(action, "--timeout", "0.2")
    assert sandbox.end() == (137, "ready\n", "sentry: time limit of 0.2 s reached; the program was killed\n")


def test_exit_status(start: Start) -> None:
    assert start("exit 77").end() == (77, "hello\n", "")


def test_memory_group_is_removed(start: Start) -> None:
    def groups() -> set[str]:
        found = set()
        for root in ("/sys/fs/cgroup/memory", "/sys/fs/cgroup"):
            for place, names, _ in os.walk(root):
                found.update(os.path.join(place, name) for name in names if name.startswith("sentry-"))
        return found

    sandbox = start("stubs", "--memory", "64M").ready()
    mine = [path for path in groups() if path.endswith(f"/sentry-{sandbox.cli}")]
    if mine:
        inside = Path(mine[0], "cgroup.procs").read_text().split()
        assert sandbox.sentry not in map(int, inside)
        assert sorted(map(int, inside)) == sorted(sandbox.stubs)
    sandbox.process.send_signal(signal.SIGTERM)
    assert sandbox.end()[0] == 143
    assert not [path for path in groups() if path in mine]

    # One whose CLI was killed is removed by the next run.
    sandbox = start("stubs", "--memory", "64M").ready()
    os.kill(sandbox.cli, signal.SIGKILL)
    sandbox.end()
    assert until_gone(sandbox.everybody) == []
    assert start("exit 0", "--memory", "64M").end()[0] == 0
    assert not [path for path in groups() if path.endswith(f"/sentry-{sandbox.cli}")]


def test_what_is_too_large_is_killed(start: Start) -> None:
    """By the OOM killer, or by the CLI where no cgroup can be made: a guest's process, never the Sentry."""
    sandbox = start("hog", "--memory", "64M")
    status, _, err = sandbox.end()
    assert status == 137
    assert err == "sentry: memory limit of 64 MiB reached; a process of the guest was killed\n"
