"""Start-up cost and layering: what importing the Gofer and its client pulls in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import gofer

ROOT = Path(gofer.__file__).parent.parent
COSTLY = {
    "argparse", "asyncio", "collections", "contextlib", "ctypes", "dataclasses", "enum", "functools",
    "inspect", "json", "logging", "pyseccomp", "re", "seccomp", "signal", "socket", "subprocess",
    "tempfile", "typing",
}  # fmt: skip


def imported(statement: str) -> set[str]:
    """Names of the modules that a fresh interpreter has after `statement`."""
    # -S: site may import what .pth files of the virtual environment want.
    path = [str(ROOT), *[entry for entry in sys.path if "site-packages" in entry]]
    program = f"import sys; sys.path += {path!r}; {statement}; print(*sys.modules)"
    command = [sys.executable, "-I", "-S", "-c", program]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize("statement", ["import gofer.main", "import sentry.fs.gofer.client"])
def test_nothing_costly(statement: str) -> None:
    assert not imported(statement) & COSTLY


def test_the_gofer_imports_only_itself_and_abi() -> None:
    modules = imported("import gofer.main")
    ours = {name for name in modules if name.startswith("sentry")}
    assert {name for name in ours if name != "sentry" and not name.startswith("sentry.abi")} == set()
    # What it takes from there are numbers: not much of it, for the sake of the start.
    assert len(ours) <= 8
