"""Real programs: each test runs one as it is installed, and looks at what a person would look at.

A test uses `sandbox`; it is run as root and as an ordinary user on `trap`, and, where it is marked
with `both_platforms`, on `ptrace` too.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path

import pytest
from terminals import PROMPT, SHELL, Terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from conftest import Result, Runner


class Sandbox:
    """Starts programs in a sandbox, as one of the two users and on one platform."""

    def __init__(self, runner: Runner, platform: str, directory: Path) -> None:
        self.runner = runner
        self.platform = platform
        #: A new directory of the host that this user owns; what is written there inside is gone at the end.
        self.directory = directory

    def flags(self, *more: str) -> list[str]:
        return ["--platform", self.platform, "--cwd", str(self.directory), *more]

    def run(self, *command: str, flags: tuple[str, ...] = (), status: int = 0, **how: object) -> Result:
        result = self.runner.run(*command, flags=self.flags(*flags), traceback_ok=True, **how)
        assert result.status == status, result
        return result

    def same(self, *command: str, **how: object) -> Result:
        """Runs `command` natively and inside; output and status have to be the same."""
        native = self.runner.native(*command, **{"cwd": self.directory, **how})  # type: ignore[arg-type]
        inside = self.runner.run(*command, flags=self.flags(), traceback_ok=True, **how)
        difference = "\n".join(
            difflib.unified_diff(
                native.out.splitlines(), inside.out.splitlines(), "native", "sandbox", lineterm="", n=2
            )
        )
        assert inside.status == native.status, (native, inside)
        assert not difference, f"{difference}\nstderr: {inside.err[-2000:]}"
        return inside

    def terminal(self, *command: str, flags: tuple[str, ...] = ()) -> Terminal:
        return Terminal(self.runner.argv(*command, flags=self.flags("-t", *flags)), 24, 80)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "both_platforms: runs on ptrace, too")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "sandbox" in metafunc.fixturenames:
        both = metafunc.definition.get_closest_marker("both_platforms")
        metafunc.parametrize("sandbox", ["trap", "ptrace"] if both else ["trap"], indirect=True)


@pytest.fixture
def sandbox(request: pytest.FixtureRequest, runner: Runner, work_dir: Path, long_form: bool) -> Sandbox:
    if request.param == "ptrace" and os.geteuid() == 0 and not runner.is_root and not long_form:
        pytest.skip("root's run on ptrace and the user's on trap say the same")
    return Sandbox(runner, request.param, work_dir)


@pytest.fixture
def shell(sandbox: Sandbox) -> Terminal:
    """`bash -i` on a terminal of the sandbox's own, at its prompt."""
    terminal = sandbox.terminal(*SHELL, flags=PROMPT)
    terminal.expect(b"ready> ")
    yield terminal
    terminal.close()
