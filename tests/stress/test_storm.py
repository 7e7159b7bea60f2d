"""Threads × forks × execs × signals × terminals for a while: nothing hangs, and nothing is left of it.

SENTRY_LONG=1 (or --long): five minutes; SENTRY_SEED chooses the seed.
"""

from __future__ import annotations

import os
import random
import subprocess
import time
from pathlib import Path

import pytest
from inside import Sandbox

TYPE_CHECKING = False
if TYPE_CHECKING:
    from conftest import Runner

HERE = Path(__file__).resolve().parent
#: What may be there between two rounds: the program's own stub, the zygote, and templates
#: (sentry.kernel.templates).
STUBS = 2 + 16
RESTS = 10
#: Rests before the Sentry's caches are full.
WARM = 3


@pytest.fixture(scope="session")
def storm(shared_dir: Path) -> Path:
    target = shared_dir / "storm"
    flags = ["-O1", "-Wall", "-Werror", "-pthread"]
    subprocess.run(["gcc", *flags, "-o", target, HERE / "storm.c"], check=True, timeout=120)
    return target


@pytest.mark.parametrize("platform", ["trap", "ptrace"])
def test_storm(platform: str, storm: Path, runner: Runner, seeded: random.Random, long_form: bool) -> None:
    if os.geteuid() == 0 and not runner.is_root:
        pytest.skip("the same as for root")
    seconds = (300 if platform == "trap" else 60) if long_form else 6
    seed = seeded.randrange(1 << 30)
    argv = runner.argv(str(storm), str(seconds), str(seed), flags=("--platform", platform))
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/"
    )
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    memory, descriptors = [], []
    try:
        for _ in range(RESTS):
            line = process.stdout.readline()
            if not line.startswith(b"rest"):
                pytest.fail(f"seed {seed}: status {process.wait()}, {process.stderr.read()[-3000:]!r}")
            sandbox = Sandbox(process.pid)
            time.sleep(0.3)
            assert len(sandbox.stubs()) <= STUBS, (seed, sandbox.stubs())
            memory.append(sandbox.memory())
            descriptors.append(sandbox.descriptors())
            process.stdin.write(b"x")
            process.stdin.flush()
        assert process.wait(timeout=60) == 0, (seed, process.stderr.read()[-3000:])
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            pipe.close()
    if long_form:  # in seconds the caches have not filled
        least, most = min(memory[WARM:]), max(memory[WARM:])
        assert memory[-1] <= memory[WARM] * 1.05 + 512, (seed, memory)
        assert most <= least * 1.1 + 512, (seed, memory)
    for of_one in zip(*descriptors[WARM:], strict=True):
        assert max(of_one) <= of_one[0] + 20, (seed, descriptors)
