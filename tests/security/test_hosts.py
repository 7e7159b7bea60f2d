"""Hosts that allow less: what still works, and the one line where it doesn't."""

from __future__ import annotations

import os
import shlex
import subprocess

import pytest
from outside import Start


def in_user_namespace(start: Start, before: str = "true", action: str = "exit 0") -> tuple[int, str, str]:
    """Run a trivial sandbox as the root of a small user namespace, after a shell command there."""
    # unshare has to be started by the same user as the sandbox.
    at = start.command.index("--") + 1 if "--" in start.command else 0
    prefix, command = start.command[:at], start.command[at:]
    script = f"{before} && exec {shlex.join(command)} run -- x"
    done = subprocess.run(
        [*prefix, "unshare", "-Ur", "sh", "-c", script],
        cwd="/", env={**os.environ, "TRIVIAL": action}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    if "unshare" in done.stderr:
        pytest.skip(done.stderr)
    return done.returncode, done.stdout, done.stderr


def test_inside_a_small_user_namespace(start: Start) -> None:
    """A root that can be nobody else: its one id is mapped to one that is not 0 inside."""
    assert in_user_namespace(start) == (0, "hello\n", "")


@pytest.mark.parametrize("kind", ["user", "net", "pid"])
def test_namespaces_switched_off(start: Start, kind: str) -> None:
    status, out, err = in_user_namespace(start, f"echo 0 > /proc/sys/user/max_{kind}_namespaces")
    assert (status, out) == (128, "")
    assert err == (
        f"sentry: the host allows too few namespaces (user.max_{kind}_namespaces is 0); "
        f"'sysctl user.max_{kind}_namespaces=10000' as root allows more\n"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root to have nothing left")
def test_root_without_capabilities(start_once: Start) -> None:
    done = subprocess.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *start_once.command, "run", "--", "x"],
        cwd="/", env={**os.environ, "TRIVIAL": "exit 0"}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 128
    assert done.stderr.startswith("sentry: root without CAP_SETUID, CAP_SETGID and CAP_SETFCAP")
