"""Many threads that wait: they cost no CPU, and the Sentry less than 40 KB each."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from inside import Sandbox

TYPE_CHECKING = False
if TYPE_CHECKING:
    from conftest import Runner

SOURCE = Path(__file__).resolve().parent / "idle.c"
#: Kilobytes of the Sentry's for each thread.
BOUND = 40


@pytest.fixture(scope="session")
def idle(shared_dir: Path) -> Path:
    target = shared_dir / "idle"
    subprocess.run(
        ["gcc", "-O1", "-Wall", "-Werror", "-pthread", "-o", target, SOURCE], check=True, timeout=120
    )
    return target


def measure(runner: Runner, idle: Path, platform: str, count: int) -> tuple[int, int]:
    """(kilobytes of the Sentry, ticks used by everybody in two seconds)."""
    argv = runner.argv(str(idle), str(count), flags=("--platform", platform))
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/")
    assert process.stdin is not None and process.stdout is not None
    try:
        assert process.stdout.readline() == b"waiting\n"
        sandbox = Sandbox(process.pid)
        time.sleep(1)
        before = sandbox.ticks()
        time.sleep(2)
        result = sandbox.memory(), sandbox.ticks() - before
        process.stdin.close()
        assert process.wait(timeout=60) == 0
        return result
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("platform", ["trap", "ptrace"])
def test_a_thousand_threads_that_wait(platform: str, idle: Path, runner: Runner, long_form: bool) -> None:
    if os.geteuid() == 0 and not runner.is_root:
        pytest.skip("the same as for root")
    count = 4000 if long_form and platform == "trap" else 1000
    few, _ = measure(runner, idle, platform, 8)
    many, ticks = measure(runner, idle, platform, count)
    assert (many - few) / count < BOUND, (few, many)
    assert ticks <= 2
