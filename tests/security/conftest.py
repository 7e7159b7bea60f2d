"""Sandboxes with a trivial kernel, started as root and as an ordinary user."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest
from outside import ORDINARY, PROGRAM, Running


def users() -> list[bool]:
    return [False, True] if os.geteuid() == 0 else [True]


@pytest.fixture(params=users(), ids=lambda as_user: "user" if as_user else "root")
def as_user(request: pytest.FixtureRequest) -> bool:
    """Both ways to start a sandbox, where the tests run as root; the runner's own otherwise."""
    if request.param and os.geteuid() != 0:
        ORDINARY.clear()
    elif request.param:
        if not shutil.which("setpriv"):
            pytest.skip("no setpriv")
        probe = subprocess.run([*ORDINARY, sys.executable, "-c", f"open({str(PROGRAM)!r})"], capture_output=True)
        if probe.returncode:
            pytest.skip("an ordinary user cannot read this source tree")
    return bool(request.param)


@pytest.fixture
def start(as_user: bool) -> Iterator[object]:
    """start(action, *flags) → Running; ended with the test."""
    made: list[Running] = []

    def make(action: str, *flags: str, **popen: object) -> Running:
        made.append(Running(action, as_user, flags, **popen))
        return made[-1]

    yield make
    for sandbox in made:
        sandbox.close()
