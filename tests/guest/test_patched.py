"""Guest programs with every call site patched at its first trap do what they do natively."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from test_guest import build, directive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from conftest import Runner

PATCHED = Path(__file__).resolve().parents[1] / "patched.py"
#: Threads, signals wherever they hit, processes, memory that moves; and a bit of everything else.
PROGRAMS = [
    "exec", "file_io", "futex", "kill", "mmap", "mprotect", "mremap", "pipes", "sig_basic", "sig_context",
    "sig_fault", "sig_restart", "spawn", "threads",
]  # fmt: skip


@pytest.fixture(scope="module")
def patched_dir(shared_dir: Path) -> Path:
    path = shared_dir / "guest-patched"
    path.mkdir(exist_ok=True)  # the tests of one module may be run in two rounds
    return path


@pytest.mark.parametrize("name", PROGRAMS)
def test_same_when_patched(name: str, runner: Runner, patched_dir: Path) -> None:
    if not runner.is_root:
        pytest.skip("the source tree is closed to an ordinary user")
    program = Path(shutil.copy2(build(name), patched_dir / name))
    command = [str(program), *directive(name, "ARGS").split()]
    native = runner.native(*command)
    patched = runner.native(sys.executable, str(PATCHED), "run", "--", *command)
    assert patched.out == native.out, patched
    assert patched.status == native.status, patched
