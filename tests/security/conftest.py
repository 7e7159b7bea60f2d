"""Sandboxes with a trivial kernel, started as root and as an ordinary user."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from outside import PROGRAM, Start

IS_ROOT = os.geteuid() == 0


@pytest.fixture(scope="session")
def user_command(user_sentry: list[str]) -> list[str]:
    """The command of the trivial sandbox for the ordinary user, who may not be able to reach this tree."""
    if not IS_ROOT:
        return [sys.executable, str(PROGRAM)]
    launcher = Path(user_sentry[0])
    copy = launcher.with_name(PROGRAM.name)
    shutil.copy(PROGRAM, copy)
    copy.chmod(0o644)
    python = launcher.read_text().splitlines()[0].removeprefix("#!").split()
    ids = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "--inh-caps=-all", "--"]
    return [*ids, *python, str(copy)]


@pytest.fixture(params=[False, True] if IS_ROOT else [True], ids=lambda user: "user" if user else "root")
def start(request: pytest.FixtureRequest) -> Iterator[Start]:
    """Both ways to start a sandbox, where the tests run as root; the runner's own otherwise."""
    command = [sys.executable, str(PROGRAM)]
    if request.param and IS_ROOT:
        command = request.getfixturevalue("user_command")
    starter = Start(command, request.param)
    yield starter
    starter.close()


@pytest.fixture
def start_once() -> Iterator[Start]:
    """As whoever runs the tests, where the user makes no difference."""
    starter = Start([sys.executable, str(PROGRAM)], not IS_ROOT)
    yield starter
    starter.close()
