"""Mappings of files as the engine makes them: like Linux's, like the Python twin's.

SENTRY_SEED repeats a failure.
"""

from __future__ import annotations

import difflib
import errno
import os
import random
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Runner

HERE = Path(__file__).resolve().parent
SEEDS = [int(os.environ["SENTRY_SEED"])] if "SENTRY_SEED" in os.environ else [1, 2, 3, 4]
STEPS = 300
LONG_PROGRAMS, LONG_STEPS = 15, 2000


@pytest.fixture(scope="session")
def program(shared_dir: Path) -> Path:
    path = shared_dir / "twin-maps"
    subprocess.run(["gcc", "-O1", "-Wall", "-Werror", "-o", path, HERE / "maps.c"], check=True, timeout=120)
    return path


@pytest.fixture(scope="session")
def host_file(shared_dir: Path) -> Path:
    path = shared_dir / "twin-mapped"
    path.write_bytes(random.Random(3).randbytes(50000))
    path.chmod(0o644)
    return path


@pytest.fixture
def in_memory(runner: Runner) -> Iterator[Path]:
    """A directory of the host where files are in memory, as in a sandbox."""
    path = Path(tempfile.mkdtemp(prefix="sentry-twin-", dir="/dev/shm"))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def same(names: str, left: list[str], right: list[str]) -> None:
    if left != right:
        lines = list(difflib.unified_diff(left, right, lineterm="", n=6))
        pytest.fail(f"{names} differ:\n" + "\n".join(lines[:60]), pytrace=False)


def plain(lines: list[str]) -> list[str]:
    return [line.partition("\t")[0] for line in lines]


def check(runner: Runner, program: Path, host_file: Path, native: Path, seed: int, steps: int) -> None:
    def sandboxed(*flags: str) -> tuple[list[str], int]:
        command = [str(program), str(seed), str(steps), "/tmp", str(host_file)]
        result = runner.run(*command, flags=["--debug", *flags], timeout=300.0)
        assert result.status == 0, result
        count = re.search(r"answered by fast paths: (\d+)", result.err)
        assert count is not None, result.err
        return result.out.splitlines(), int(count[1])

    result = runner.native(str(program), str(seed), str(steps), str(native), str(host_file), timeout=100.0)
    assert result.status == 0, result
    fast, served = sandboxed()
    slow, none = sandboxed("--no-fastpath")
    assert none == 0 and served > steps // 2
    same(f"seed {seed}: fast and slow", fast, slow)
    if seed % 2:
        same(f"seed {seed}: native and sandboxed", plain(result.out.splitlines()), plain(slow))


@pytest.mark.parametrize("seed", SEEDS)
def test_twins(runner: Runner, program: Path, host_file: Path, in_memory: Path, seed: int) -> None:
    check(runner, program, host_file, in_memory, seed, STEPS)


def test_a_file_is_mapped_again_without_python(runner: Runner, program: Path, host_file: Path) -> None:
    """Whoever closes it, and although each time it is another open of the file (seed 0)."""
    times = 200
    result = runner.run(
        str(program), "0", str(times), "/tmp", str(host_file), flags=["--debug"], timeout=60.0
    )
    assert result.status == 0, result
    assert result.out.split() == [str(times * host_file.read_bytes()[4096]), "3"]
    count = re.search(r"answered by fast paths: (\d+)", result.err)
    assert count is not None and int(count[1]) >= 4 * (times - 2), result.err


@pytest.mark.parametrize("fast", [True, False])
def test_memory_grows_where_it_is(runner: Runner, program: Path, fast: bool) -> None:
    """What has moved once has room to grow."""
    flags = ["--debug"] if fast else ["--debug", "--no-fastpath"]
    result = runner.run(str(program), "0", "-300", "/tmp", "/", flags=flags, timeout=60.0)
    good, moves = map(int, result.out.split())
    assert good == 299 and moves < 12, result
    count = re.search(r"answered by fast paths: (\d+)", result.err)
    assert count is not None and (int(count[1]) >= 299 if fast else count[1] == "0"), result.err


@pytest.mark.parametrize("flags", [(), ("--no-fastpath",)])
def test_no_code_from_a_mount_without(runner: Runner, program: Path, flags: tuple[str, ...]) -> None:
    """MNT_NOEXEC counts for mprotect(2), too."""
    if not runner.is_root:
        pytest.skip("only root mounts")
    script = f"mount -t tmpfs -o noexec none /mnt && cp {program} /mnt/f && {program} 0 0 /tmp /mnt/f"
    result = runner.run("/bin/sh", "-c", script, flags=flags, timeout=60.0)
    assert result.out.split() == ["1", "0", "-1", str(errno.EACCES), "0", str(errno.EPERM)] * 3, result


def test_many_twins(
    runner: Runner, program: Path, host_file: Path, in_memory: Path, seeded: random.Random, long_form: bool
) -> None:
    if not long_form:
        pytest.skip("the long form")
    for _ in range(LONG_PROGRAMS):
        check(runner, program, host_file, in_memory, seeded.randrange(1 << 30), LONG_STEPS)
        for path in in_memory.iterdir():
            path.unlink()
