"""Signals that a process sends to itself: like Linux, like the Python twin, on both platforms.

SENTRY_SEED repeats a failure.
"""

from __future__ import annotations

import difflib
import os
import random
import re
import subprocess
from pathlib import Path

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from conftest import Runner

HERE = Path(__file__).resolve().parent
SEEDS = [int(os.environ["SENTRY_SEED"])] if "SENTRY_SEED" in os.environ else [1, 2, 3]
STEPS = 500
LONG_PROGRAMS, LONG_STEPS = 10, 2000


@pytest.fixture(scope="session")
def program(shared_dir: Path) -> Path:
    path = shared_dir / "twin-signals"
    command = ["gcc", "-O1", "-Wall", "-Werror", "-pthread", "-o", path, HERE / "signals.c"]
    subprocess.run(command, check=True, timeout=120)
    return path


def check(runner: Runner, program: Path, seed: int, steps: int) -> None:
    command = [str(program), str(seed), str(steps)]
    native = runner.native(*command, timeout=100.0)
    assert native.status == 0, native
    for flags in (["--platform=trap"], ["--platform=trap", "--no-fastpath"], ["--platform=ptrace"]):
        result = runner.run(*command, flags=["--debug", *flags], timeout=300.0)
        lines = difflib.unified_diff(native.out.splitlines(), result.out.splitlines(), lineterm="", n=4)
        difference = "\n".join(list(lines)[:60])
        if difference:
            pytest.fail(f"native and {' '.join(flags)} differ, seed {seed}:\n{difference}", pytrace=False)
        assert result.status == 0, result
        count = re.search(r"answered by fast paths: (\d+)", result.err)
        assert count is not None and (int(count[1]) == 0) == ("--no-fastpath" in flags), result.err


@pytest.mark.parametrize("seed", SEEDS)
def test_like_linux(runner: Runner, program: Path, seed: int) -> None:
    check(runner, program, seed, STEPS)


def test_many(runner: Runner, program: Path, seeded: random.Random, long_form: bool) -> None:
    if not long_form:
        pytest.skip("the long form")
    for _ in range(LONG_PROGRAMS):
        check(runner, program, seeded.randrange(1 << 30), LONG_STEPS)
