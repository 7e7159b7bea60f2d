"""Fast paths and their Python twins: the same results, errnos and state.

A program of random calls (programs.py) is performed (calls.c) in a sandbox with fast paths and in one
without, and, where Linux says the same, natively.  The long form takes new ones each time; SENTRY_SEED
repeats those of a failure.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from programs import Programs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Runner

HERE = Path(__file__).resolve().parent
#: Where the host has files in memory, as a sandbox has.
MEMORY = "/dev/shm"
CALLS = 400
PLATFORMS = ["trap", "ptrace"]
#: What the long form performs.
LONG_PROGRAMS, LONG_CALLS = 20, 2000


@pytest.fixture(scope="session")
def program(shared_dir: Path) -> Path:
    path = shared_dir / "twin-calls"
    command = ["gcc", "-O1", "-Wall", "-Werror", "-o", path, HERE / "calls.c"]
    subprocess.run(command, check=True, timeout=120)
    return path


@pytest.fixture(scope="session")
def host_files(shared_dir: Path) -> tuple[Path, Path]:
    """A long and a short file of the host."""
    paths = shared_dir / "twin-long", shared_dir / "twin-short"
    for path, size in zip(paths, (300000, 1000), strict=True):
        path.write_bytes(random.Random(size).randbytes(size))
        path.chmod(0o644)
        now = path.stat().st_mtime
        os.utime(path, (now + 3600, now))  # reading does not change it any more
    return paths


@pytest.fixture
def fresh(runner: Runner) -> Iterator[object]:
    """Makes empty directories of the host that the runner's user owns, natively in memory as in a sandbox."""
    made = []

    def make(parent: str | Path = runner.home) -> str:
        path = tempfile.mkdtemp(prefix="sentry-twin-", dir=parent)
        os.chmod(path, 0o777)
        made.append(path)
        return path

    yield make
    for path in made:
        shutil.rmtree(path, ignore_errors=True)


class Twins:
    """One program's ways to be performed."""

    def __init__(  # type: ignore[no-untyped-def]
        self, runner: Runner, program: Path, host_files: tuple[Path, Path], text: str, fresh, platform: str
    ) -> None:
        self.runner = runner
        self.fresh = fresh
        self.text = Path(fresh(), "program")
        self.text.write_text(text)
        self.text.chmod(0o644)
        self.lines = text.splitlines()
        self.program = program
        self.platform = platform
        self.host_files = [str(path) for path in host_files]

    def sandboxed(self, *flags: str) -> tuple[list[str], int]:
        """What was printed, and how many calls fast paths answered."""
        bind = [
            "--bind",
            self.fresh("/dev/shm") + ":/bound:rw",
            "--debug",
            "--platform",
            self.platform,
            *flags,
        ]
        command = [str(self.program), str(self.text), self.fresh(), "/bound", *self.host_files]
        result = self.runner.run(*command, flags=bind, timeout=100.0)
        assert result.status == 0, result
        count = re.search(r"answered by fast paths: (\d+)", result.err)
        assert count is not None, result.err
        return result.out.splitlines(), int(count[1])

    def native(self) -> list[str]:
        command = [
            str(self.program),
            str(self.text),
            self.fresh("/dev/shm"),
            self.fresh("/dev/shm"),
            *self.host_files,
        ]
        result = self.runner.native(*command, timeout=300.0)
        assert result.status == 0, result
        return result.out.splitlines()

    def compare(self, names: str, left: list[str], right: list[str]) -> None:
        for number, (one, two) in enumerate(zip(left, right, strict=True)):
            if one != two:
                before = [f"  {self.lines[i]}\n      {left[i]}" for i in range(max(0, number - 8), number)]
                pytest.fail(
                    f"{names} differ as {self.runner.who}, call {number + 1}: {self.lines[number]}\n"
                    f"  {one}\n  {two}\nafter\n" + "\n".join(before),
                    pytrace=False,
                )


def plain(lines: list[str]) -> list[str]:
    """Without what is in front of the tab for the two ways through one kernel only."""
    return [line.partition("\t")[0] for line in lines]


def check(twins: Twins, native: bool) -> None:
    fast, served = twins.sandboxed()
    slow, none = twins.sandboxed("--no-fastpath")
    assert none == 0
    assert served > len(twins.lines) // 10
    twins.compare("fast and slow", fast, slow)
    if native:
        twins.compare("native and sandboxed", plain(twins.native()), plain(slow))


@pytest.mark.parametrize("platform", PLATFORMS)
def test_twins(runner: Runner, program: Path, host_files: tuple[Path, Path], fresh, platform: str) -> None:  # type: ignore[no-untyped-def]
    text = Programs(random.Random(platform), native=False).text(CALLS)
    check(Twins(runner, program, host_files, text, fresh, platform), native=False)


def test_twins_and_linux(runner: Runner, program: Path, host_files: tuple[Path, Path], fresh) -> None:  # type: ignore[no-untyped-def]
    text = Programs(random.Random("linux"), native=True).text(CALLS)
    check(Twins(runner, program, host_files, text, fresh, PLATFORMS[0]), native=True)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_many_twins(  # type: ignore[no-untyped-def]
    runner: Runner,
    program: Path,
    host_files: tuple[Path, Path],
    fresh,
    seeded: random.Random,
    long_form: bool,
    platform: str,
) -> None:
    if not long_form:
        pytest.skip("the long form")
    for number in range(LONG_PROGRAMS):
        native = bool(number % 2)
        text = Programs(seeded, native).text(LONG_CALLS)
        check(Twins(runner, program, host_files, text, fresh, platform), native)
