"""Names, attributes and permissions as the engine tells them: like Linux, like the Python
twin.

paths.c changes a tree and looks at all of it after each change, so a stale answer would show.
SENTRY_SEED repeats a failure.
"""

from __future__ import annotations

import difflib
import os
import random
import re
import shutil
import subprocess
import uuid
from pathlib import Path

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from conftest import Runner

HERE = Path(__file__).resolve().parent
SEEDS = [int(os.environ["SENTRY_SEED"])] if "SENTRY_SEED" in os.environ else [1, 2]
STEPS = 60
LONG_PROGRAMS, LONG_STEPS = 15, 300


@pytest.fixture(scope="session")
def program(shared_dir: Path) -> Path:
    path = shared_dir / "twin-paths"
    command = ["gcc", "-O1", "-Wall", "-Werror", "-o", path, HERE / "paths.c"]
    subprocess.run(command, check=True, timeout=120)
    return path


def same(names: str, left: str, right: str) -> None:
    if left != right:
        lines = difflib.unified_diff(left.splitlines(), right.splitlines(), lineterm="", n=4)
        pytest.fail(f"{names} differ:\n" + "\n".join(list(lines)[:60]), pytrace=False)


def check(runner: Runner, program: Path, work_dir: Path, seed: int, steps: int, place: str) -> None:
    """`place`: a directory inside, made there."""

    def sandboxed(*flags: str) -> tuple[str, int]:
        script = f"mkdir {place} && exec {program} {seed} {steps} {place}"
        result = runner.run("/bin/sh", "-c", script, flags=["--debug", *flags], timeout=300.0)
        assert result.status == 0, result
        count = re.search(r"answered by fast paths: (\d+)", result.err)
        assert count is not None, result.err
        return result.out, int(count[1])

    native_place = work_dir / "tree"
    native_place.mkdir()
    if os.getuid() == 0 and not runner.is_root:
        shutil.chown(native_place, work_dir.owner(), work_dir.group())
    native = runner.native(str(program), str(seed), str(steps), str(native_place), timeout=100.0)
    assert native.status == 0, native
    fast, served = sandboxed()
    slow, none = sandboxed("--no-fastpath")
    assert none == 0
    assert served > 5 * len(fast.splitlines()) // 3, "most looks should not need Python"
    same("fast and slow", slow, fast)
    same("native and sandboxed", native.out, fast)


# The overlay shows the host's files: the name is one that nobody has.
PLACES = {"tmpfs": "/dev/shm/fresh", "overlay": f"/var/tmp/fresh-{uuid.uuid4()}"}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
@pytest.mark.parametrize("seed", SEEDS)
def test_paths(seed: int, place: str, runner: Runner, program: Path, work_dir: Path) -> None:
    check(runner, program, work_dir, seed, STEPS, place)


def test_many_paths(
    runner: Runner, program: Path, work_dir: Path, seeded: random.Random, long_form: bool
) -> None:
    if not long_form:
        pytest.skip("the long form")
    for _ in range(LONG_PROGRAMS):
        check(runner, program, work_dir, seeded.randrange(1 << 30), LONG_STEPS, "/dev/shm/fresh")
        shutil.rmtree(work_dir / "tree")
