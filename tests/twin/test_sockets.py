"""Unix sockets: fast paths, their Python twins, and Linux itself, by random calls (sockets.c).

The long form takes new programs each time; SENTRY_SEED repeats those of a failure.
"""

from __future__ import annotations

import re
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    import random

    from conftest import Runner

HERE = Path(__file__).resolve().parent
CALLS = 1500
LONG_PROGRAMS, LONG_CALLS = 20, 6000
PLATFORMS = ["trap", "ptrace"]


@pytest.fixture(scope="session")
def program(shared_dir: Path) -> Path:
    path = shared_dir / "twin-sockets"
    command = ["gcc", "-O1", "-Wall", "-Werror", "-o", path, HERE / "sockets.c"]
    subprocess.run(command, check=True, timeout=120)
    return path


def compare(names: str, who: str, seed: int, left: list[str], right: list[str]) -> None:
    for number, (one, two) in enumerate(zip(left, right, strict=True)):
        if one != two:
            before = "\n".join(left[max(0, number - 8) : number])
            pytest.fail(f"{names} differ as {who}, seed {seed}:\n{before}\n< {one}\n> {two}", pytrace=False)


def check(runner: Runner, program: Path, seed: int, calls: int, platform: str) -> None:
    command = [str(program), str(seed), str(calls)]
    ways = [runner.native(*command, timeout=100.0)]
    for flags in ((), ("--no-fastpath",)):
        ways.append(runner.run(*command, flags=("--debug", "--platform", platform, *flags), timeout=100.0))
    assert [way.status for way in ways] == [0, 0, 0], ways
    served = [int(count) for way in ways for count in re.findall(r"answered by fast paths: (\d+)", way.err)]
    assert served[0] > calls // 5 and served[1:] == [0]
    for names, (one, two) in zip(("Linux and fast", "fast and slow"), pairwise(ways), strict=True):
        compare(names, runner.who, seed, one.out.splitlines(), two.out.splitlines())


@pytest.mark.parametrize("platform", PLATFORMS)
def test_twins_and_linux(runner: Runner, program: Path, platform: str) -> None:
    check(runner, program, PLATFORMS.index(platform) + 1, CALLS, platform)


def test_many_twins(runner: Runner, program: Path, seeded: random.Random, long_form: bool) -> None:
    if not long_form:
        pytest.skip("the long form")
    for number in range(LONG_PROGRAMS):
        check(runner, program, seeded.getrandbits(32), LONG_CALLS, PLATFORMS[number % 2])
