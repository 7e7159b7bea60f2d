"""What each process of a running sandbox holds, read from outside in /proc."""

from __future__ import annotations

import os
import select
import signal
import stat
import time
from pathlib import Path

import pytest
from outside import NAMESPACES, Running, Start, read_status

NOBODY = "65534"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may look into other users' /proc")


def links(pid: int) -> dict[int, str]:
    folder = f"/proc/{pid}/fd"
    return {int(name): os.readlink(f"{folder}/{name}") for name in os.listdir(folder)}


def test_status_of_all(start: Start) -> None:
    sandbox = start("stubs").ready()
    assert len(sandbox.stubs) == 3  # the zygote and two address spaces
    for pid in (sandbox.reaper, sandbox.sentry, sandbox.gofer, *sandbox.stubs):
        status = read_status(pid)
        assert status["Seccomp"] == "2", pid
        assert status["NoNewPrivs"] == "1", pid
        kept = 0x4 if pid == sandbox.gofer and not sandbox.as_user else 0  # CAP_DAC_READ_SEARCH
        for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert int(status[name], 16) & ~kept == 0, (pid, name)
        if pid in (sandbox.reaper, sandbox.sentry):
            assert int(status["CapBnd"], 16) == 0


@needs_root
def test_uids(start: Start) -> None:
    sandbox = start("stubs").ready()
    expected = "1000" if sandbox.as_user else NOBODY
    for pid in (sandbox.reaper, sandbox.sentry, *sandbox.stubs):
        status = read_status(pid)
        assert status["Uid"].split() == [expected] * 4
        assert status["Gid"].split() == [expected] * 4
        assert status["Groups"].split() == []


@needs_root
def test_namespaces(start: Start) -> None:
    sandbox = start("stubs").ready()
    for name in NAMESPACES:
        ours = os.readlink(f"/proc/self/ns/{name}")
        pids = (sandbox.reaper, sandbox.sentry, *sandbox.stubs)
        inside = {os.readlink(f"/proc/{pid}/ns/{name}") for pid in pids}
        assert len(inside) == 1
        assert ours not in inside, name
    for name in ("user", "pid"):  # where the Sentry cannot reach it
        assert os.readlink(f"/proc/{sandbox.gofer}/ns/{name}") == os.readlink(f"/proc/self/ns/{name}")


@needs_root
def test_roots_are_empty(start: Start) -> None:
    sandbox = start("stubs").ready()
    for pid in (sandbox.reaper, sandbox.sentry, *sandbox.stubs):
        assert os.listdir(f"/proc/{pid}/root/") == []
        assert os.listdir(f"/proc/{pid}/cwd/") == []
        mounts = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
        assert len(mounts) == 1, "nothing but the empty root is mounted"
        options = mounts[0].split()[5].split(",")
        assert {"ro", "nosuid", "nodev", "noexec"} <= set(options)


@needs_root
def test_descriptors(start: Start) -> None:
    """Nobody holds a directory, a block device, or a file that is not the caller's stdio."""
    sandbox = start("stubs").ready()
    # Pid 1 may still be about to execute the reaper, whose descriptor closes by that.
    deadline = time.monotonic() + 30
    while links(sandbox.reaper) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert links(sandbox.reaper) == {}
    for pid in sandbox.stubs:
        assert links(pid) == {}
    stdio = {os.stat(f"/proc/{sandbox.process.pid}/fd/2").st_ino, sandbox_inode(sandbox)}
    for fd, target in links(sandbox.sentry).items():
        found = os.stat(f"/proc/{sandbox.sentry}/fd/{fd}")
        if target.startswith(("socket:", "anon_inode:")):
            continue
        if stat.S_ISFIFO(found.st_mode):
            assert found.st_ino in stdio, (fd, target)
        else:
            assert target == "/dev/null", (fd, target)


def sandbox_inode(sandbox: Running) -> int:
    assert sandbox.process.stdout is not None
    return os.fstat(sandbox.process.stdout.fileno()).st_ino


@needs_root
def test_not_dumpable(start: Start) -> None:
    """An undumpable process's /proc files are root's, whoever it runs as; its memory is nobody else's."""
    sandbox = start("stubs").ready()
    for pid in (sandbox.sentry, sandbox.reaper, sandbox.gofer):
        assert os.stat(f"/proc/{pid}/environ").st_uid == 0
    limits = Path(f"/proc/{sandbox.sentry}/limits").read_text().splitlines()
    assert next(line for line in limits if line.startswith("Max core")).split()[4:6] == ["0", "0"]


@needs_root
def test_guests_are_the_oom_killers_first_choice(start: Start) -> None:
    sandbox = start("stubs").ready()
    for pid in sandbox.stubs:
        assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "1000\n"
    own = Path("/proc/self/oom_score_adj").read_text()
    assert Path(f"/proc/{sandbox.sentry}/oom_score_adj").read_text() == own


def test_the_cli_lets_go_of_the_callers_descriptors(start: Start) -> None:
    """A pipe's reader sees the end when the guest is done with it, though the CLI still runs."""
    sandbox = start("stubs").ready()
    held = links(sandbox.cli) if not sandbox.as_user or os.geteuid() == 0 else {}
    assert {held.get(0, "/dev/null"), held.get(1, "/dev/null")} == {"/dev/null"}
    ends = [os.stat(f"/proc/{sandbox.cli}/fd/{fd}").st_ino for fd in held if fd != 2]
    assert sandbox_inode(sandbox) not in ends


def test_debug_says_what_was_applied(start: Start) -> None:
    sandbox = start("stubs", "--debug").ready()
    # This kernel asks nothing of the Gofer, which may still be locking itself down.
    deadline = time.monotonic() + 20
    said = ""
    assert sandbox.process.stderr is not None
    while "gofer: cap" not in said and time.monotonic() < deadline:
        if select.select([sandbox.process.stderr], [], [], 1)[0]:
            said += os.read(sandbox.process.stderr.fileno(), 65536).decode()
    sandbox.process.terminate()
    status, _, rest = sandbox.end()
    assert status == 128 + signal.SIGTERM
    for text in ("pid 1: own user, pid", "becomes the reaper of pid 2", "sentry: empty root", "gofer: cap"):
        assert text in said + rest


def test_quiet_without_debug(start: Start) -> None:
    assert start("exit 0").end() == (0, "hello\n", "")
