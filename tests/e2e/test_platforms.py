"""What every platform must do for whole programs; and what a sandbox costs its host when it does nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "security"))

from outside import parents, read_status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from conftest import Runner

PLATFORMS = ["trap", "ptrace"]


@pytest.fixture(params=PLATFORMS)
def platform(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def one_user(runner: Runner) -> Runner:
    """For what does not depend on the user."""
    if os.geteuid() == 0 and not runner.is_root:
        pytest.skip("the same as for root")
    return runner


def sh(runner: Runner, platform: str, script: str, *flags: str, **how: object):
    return runner.run("sh", "-c", script, flags=("--platform", platform, *flags), **how)


@pytest.mark.parametrize(
    ("script", "status", "out"),
    [
        ("exit 7", 7, ""),
        ("kill -9 $$", 137, ""),
        ("for i in 1 2 3; do echo $i | cat | cat; done", 0, "1\n2\n3\n"),
        ("seq 20000 | sort -rn | tail -1", 0, "1\n"),
        ("yes | head -c 1000000 | wc -c", 0, "1000000\n"),
        ("i=0; while [ $i -lt 30 ]; do /bin/true || exit 1; i=$((i+1)); done; echo $i", 0, "30\n"),
        ("sleep 100 & kill $!; wait $!; echo $?", 0, "143\n"),
        ("trap 'echo caught' USR1; kill -USR1 $$; echo after", 0, "caught\nafter\n"),
        ("timeout 1 sleep 100; echo $?", 0, "124\n"),
        ("(sleep 0.2; echo late) & wait; echo done", 0, "late\ndone\n"),
        ("cd /tmp && mkdir a && for i in $(seq 50); do echo $i > a/$i; done; cat a/* | wc -l", 0, "50\n"),
        ("exec 3<>/dev/null; ls /proc/self/fd | wc -l", 0, "5\n"),
    ],
)
def test_shell(script: str, status: int, out: str, platform: str, runner: Runner) -> None:
    result = sh(runner, platform, script)
    assert (result.status, result.out) == (status, out), result


THREADS = """
import os, threading, subprocess
total = []
def work(n):
    for i in range(100):
        r, w = os.pipe()
        os.write(w, b"x" * n)
        assert os.read(r, 100) == b"x" * n
        os.close(r), os.close(w)
    if n % 4 == 0:
        total.append(subprocess.run(["/bin/echo", str(n)], capture_output=True).stdout)
threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 17)]
[t.start() for t in threads]
[t.join() for t in threads]
print(sorted(int(x) for x in total))
"""


def test_python_with_threads_and_children(platform: str, one_user: Runner) -> None:
    """Many more threads than CPUs; each of them makes calls of its own, and some fork."""
    result = one_user.run("python3", "-c", THREADS, flags=("--platform", platform))
    assert (result.status, result.out) == (0, "[4, 8, 12, 16]\n"), result


@pytest.mark.parametrize("flags", [(), ("--no-fastpath",), ("--no-patch",), ("--no-fastpath", "--no-patch")])
def test_rooms(flags: tuple[str, ...], platform: str, one_user: Runner) -> None:
    """Whichever room answers a call, the answer is the same."""
    script = "cat /etc/passwd | sort | md5sum; sleep 0.1 & wait; python3 -c 'print(sum(range(1000)))'"
    plain = one_user.native("sh", "-c", script)
    result = sh(one_user, platform, script, *flags)
    assert (result.status, result.out) == (plain.status, plain.out), result


FILES = """
import fcntl, os
seen = set()
for _ in range(200):
    fd = os.open("/dev/urandom", os.O_RDONLY)
    seen.add(os.read(fd, 16))
    os.close(fd)
    fd = os.open("/dev/null", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    assert os.write(fd, b"x") == 1 and fcntl.fcntl(fd, fcntl.F_GETFL) & 3 == 1
    os.close(fd)
file = os.open("/tmp/file", os.O_RDWR | os.O_CREAT)
for i in range(200):
    fcntl.lockf(file, fcntl.LOCK_EX, 10, i)
    other = os.dup(file)
    os.dup2(file, other)
    os.fchmod(file, 0o600 + i % 8)
    assert not os.isatty(other)
    os.fsync(file)
    os.close(other)
print(len(seen), os.fstat(file).st_mode & 7)
"""


def test_files_that_need_no_python(platform: str, one_user: Runner) -> None:
    result = one_user.run("python3", "-c", FILES, flags=("--platform", platform, "--debug"))
    served = re.search(r"answered by fast paths: (\d+)", result.err)
    assert (result.status, result.out) == (0, "200 7\n") and served, result
    assert int(served[1]) > 200 * 14


def test_one_cpu(platform: str, one_user: Runner) -> None:
    """All share a CPU: nobody may spin for what another has to do."""
    cpu = str(min(os.sched_getaffinity(0)))
    started = time.monotonic()
    command = ["taskset", "-c", cpu, *one_user.argv("python3", "-c", THREADS, flags=("--platform", platform))]
    done = subprocess.run(command, capture_output=True, cwd="/", timeout=90, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (0, b"[4, 8, 12, 16]\n"), (done, time.monotonic() - started)


def everybody_below(pid: int) -> set[int]:
    found, tree = {pid}, parents()
    while more := {child for child, parent in tree.items() if parent in found and child not in found}:
        found |= more
    return found


def switches(pids: set[int]) -> int:
    """Context switches of all threads of these processes."""
    count = 0
    for pid in pids:
        for status in Path("/proc").glob(f"{pid}/task/*/status"):
            try:
                lines = status.read_text().splitlines()
            except OSError:
                continue  # it has ended meanwhile
            count += sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)
    return count


@pytest.mark.parametrize("kind", ["sleep", "tree"])
def test_an_idle_sandbox_is_not_woken(kind: str, platform: str, one_user: Runner, long_form: bool) -> None:
    """No timer, no poll, no spinning: at most 5 context switches in 10 seconds, whoever makes them."""
    script = {
        "sleep": "echo ready; exec sleep 1000",
        "tree": "sleep 1000 | cat & sleep 1000 & python3 -c 'import threading; threading.Event().wait()' & "
        "(sleep 1000) & sleep 1; echo ready; wait",
    }[kind]
    argv = one_user.argv("sh", "-c", script, flags=("--platform", platform))
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd="/")
    try:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        everybody = everybody_below(process.pid)
        assert len(everybody) >= 5, {pid: read_status(pid).get("Name") for pid in everybody}
        # Until the start has settled.
        deadline, last = time.monotonic() + 30, -1
        while (now := switches(everybody_below(process.pid))) != last:
            assert time.monotonic() < deadline
            last = now
            time.sleep(0.5)
        everybody = everybody_below(process.pid)
        before = switches(everybody)
        time.sleep(10 if long_form else 3)
        assert switches(everybody) - before <= 5
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        finally:
            process.stdout.close()
