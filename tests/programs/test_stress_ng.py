"""stress-ng: each stressor ends in time and finds nothing wrong.

docs/testing.md says what it reports as failed or skipped, and why.
"""

from __future__ import annotations

import re
import subprocess

import pytest
from installed import needs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from programs.conftest import Sandbox

SHORT = "fork vfork clone exit-group session sigrt timer futex pipe pthread"
CLASSES = ("scheduler", "interrupt", "pipe", "os")
#: What is wrong natively as well, is about a machine and not a program, or is known; see docs/testing.md.
UNFIT = """
    netlink-proc netlink-task dccp icmp-flood ping-sock rawpkt rawsock rawudp sock sockabuse sockdiag sockmany
    udp udp-flood swap reboot binderfs efivar pci quota
"""


def stressors(name: str) -> list[str]:
    """The stressors of a class, by stress-ng's own list."""
    said = subprocess.run(["stress-ng", "--class", f"{name}?"], capture_output=True, text=True, timeout=30)
    return re.sub(r"^.*stressors: ", "", (said.stdout + said.stderr).strip()).split()


def run(sandbox: Sandbox, name: str, seconds: int) -> None:
    command = ["stress-ng", f"--{name}", "2", "--timeout", str(seconds)]
    result = sandbox.runner.run(*command, flags=sandbox.flags(), traceback_ok=True, timeout=120)
    said = result.out + result.err
    assert "internal error" not in said, result
    assert result.status == 0 or "No stress workers invoked" in said, result


@needs("stress-ng")
@pytest.mark.parametrize("name", SHORT.split())
def test_short(sandbox: Sandbox, name: str) -> None:
    run(sandbox, name, 1)


@needs("stress-ng")
@pytest.mark.parametrize("name", CLASSES)
def test_class(sandbox: Sandbox, name: str, long_form: bool) -> None:
    if not long_form:
        pytest.skip("long")
    for stressor in stressors(name):
        if stressor not in UNFIT.split():
            run(sandbox, stressor, 2)
