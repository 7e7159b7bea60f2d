"""Runs each guest program natively and in the sandbox and compares what it printed and how it ended.

Linux is the specification: there are no expected outputs in the tree, the host gives them afresh.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from conftest import Runner

HERE = Path(__file__).resolve().parent
BUILD = HERE / "_build"
CFLAGS = ["-O1", "-Wall", "-Werror", "-pthread"]
PROGRAMS = sorted(path.stem for path in HERE.glob("*.c"))


def directive(name: str, key: str) -> str:
    """The value of a `KEY: value` line in the program's opening comment, or an empty string."""
    opening = (HERE / f"{name}.c").read_text().split("*/", 1)[0]
    found = re.search(rf"\b{key}: (.*)", opening)
    return found.group(1).strip() if found else ""


def build(name: str) -> Path:
    """Compiles one program unless that was done since its source changed."""
    source, binary = HERE / f"{name}.c", BUILD / name
    newest = max(path.stat().st_mtime_ns for path in [source, *HERE.glob("*.h")])
    if '.c"' in source.read_text():
        newest = max([newest, *(path.stat().st_mtime_ns for path in HERE.glob("*.c"))])
    if not binary.exists() or binary.stat().st_mtime_ns < newest:
        BUILD.mkdir(exist_ok=True)
        fresh = BUILD / f".{name}.{os.getpid()}"
        flags = directive(name, "FLAGS").split()
        subprocess.run(["gcc", *CFLAGS, *flags, "-o", fresh, source, "-lm"], check=True, timeout=120)
        fresh.rename(binary)
    return binary


@pytest.fixture(scope="session")
def program_dir(shared_dir: Path) -> Path:
    """Where the programs stand for everybody: the checkout may be closed to an ordinary user."""
    path = shared_dir / "guest"
    path.mkdir()
    return path


@pytest.mark.parametrize("platform", ["trap", "ptrace"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_same_as_native(name: str, platform: str, runner: Runner, program_dir: Path, long_form: bool) -> None:
    if platform == "ptrace" and os.geteuid() == 0 and not runner.is_root and not long_form:
        pytest.skip("root's run on ptrace and the user's on trap say the same")
    if directive(name, "USER") == "root" and not runner.is_root:
        pytest.skip("needs root natively")
    for need in directive(name, "NEEDS").split():
        path, _, content = need.partition("=")
        if not os.path.exists(path) or (content and Path(path).read_text().strip() != content):
            pytest.skip(f"needs {need} natively")
    program = program_dir / name
    if not program.exists():
        shutil.copy2(build(name), program)
    command = [str(program), *directive(name, "ARGS").split()]
    native = runner.native(*command)
    assert native.status == 0, native
    sandboxed = runner.run(*command, flags=("--platform", platform))
    difference = "\n".join(
        difflib.unified_diff(
            native.out.splitlines(), sandboxed.out.splitlines(), "native", "sandbox", lineterm="", n=2
        )
    )
    if difference or sandboxed.status != native.status:
        pytest.fail(
            f"{name} as {runner.who} on {platform}: status {sandboxed.status}, not {native.status}\n"
            f"{difference}\n"
            f"stderr: {sandboxed.err[-2000:]}",
            pytrace=False,
        )
