"""Threads, forks, signals and execs at once, on two CPUs and on one: nothing hangs, nothing gets lost.

SENTRY_LONG=1 (or --long): 1,000 iterations each; SENTRY_SEED chooses the seed.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from conftest import Runner

SOURCE = Path(__file__).resolve().parent / "churn.c"


@pytest.fixture(scope="session")
def program(shared_dir: Path) -> Path:
    target = shared_dir / "churn"
    subprocess.run(
        ["gcc", "-O1", "-Wall", "-Werror", "-pthread", "-o", target, SOURCE], check=True, timeout=120
    )
    return target


@pytest.mark.parametrize("cpus", [1, 2])
@pytest.mark.parametrize("platform", ["trap", "ptrace"])
def test_churn(
    platform: str, cpus: int, program: Path, runner: Runner, seeded: random.Random, long_form: bool
) -> None:
    if os.geteuid() == 0 and not runner.is_root:
        pytest.skip("the same as for root")
    usable = sorted(os.sched_getaffinity(0))[:cpus]
    if len(usable) < cpus or not shutil.which("taskset"):
        pytest.skip(f"needs taskset and {cpus} CPUs")
    iterations = {"trap": 1000, "ptrace": 200}[platform] if long_form else 12
    seed = seeded.randrange(1 << 30)
    command = runner.argv(str(program), str(iterations), str(seed), flags=("--platform", platform))
    done = subprocess.run(
        ["taskset", "-c", ",".join(map(str, usable)), *command],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        cwd="/",
        timeout=3000 if long_form else 120,
    )
    assert (done.returncode, done.stdout) == (0, b"%d iterations\n" % iterations), (seed, done)
