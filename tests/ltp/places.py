"""Where a test runs.  Both places get the same environment and the same script: an empty /tmp, then the test.

Natively a test runs as root on this machine: in mount, PID, IPC and UTS namespaces of its own, so that
what it mounts, names and leaves running goes with it.  In the sandbox each test has a sandbox of its own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: The shell stays: pid 1 of a namespace ignores signals that tests send to themselves.
SCRIPT = 'mount -t tmpfs -o mode=1777 ltp /tmp && cd /tmp && sh -c "$1"; exit $?'
#: LTP keeps what its processes share in /dev/shm under names made of pids, and these are small here.
NATIVE_SCRIPT = "mount -t tmpfs -o mode=1777 ltp /dev/shm && " + SCRIPT


def environment(ltp: Path, multiplier: float) -> dict[str, str]:
    return {
        "LTPROOT": str(ltp),
        "PATH": f"{ltp}/testcases/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "TMPDIR": "/tmp",
        "HOME": "/root",
        "LC_ALL": "C",
        "LTP_COLORIZE_OUTPUT": "n",
        "LTP_TIMEOUT_MUL": str(multiplier),
    }


class Native:
    name = "native"

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment

    def argv(self, command: str) -> list[str]:
        unshare = ["unshare", "-m", "-p", "-i", "-u", "-f", "--mount-proc", "--kill-child"]
        return [*unshare, "sh", "-c", NATIVE_SCRIPT, "sh", command]


class Sandbox:
    name = "sandbox"

    def __init__(self, inside: dict[str, str], flags: list[str]) -> None:
        path = [str(ROOT)] if list(ROOT.glob("sentry/_engine*.so")) else []  # built in place, or installed
        self.environment = dict(os.environ, PYTHONPATH=os.pathsep.join([*path, *filter(None, sys.path)]))
        self.flags = [word for name in inside for word in ("-e", f"{name}={inside[name]}")] + flags

    def argv(self, command: str) -> list[str]:
        sentry = [sys.executable, "-m", "sentry", "run", "--cwd", "/"]
        return [*sentry, *self.flags, "--", "sh", "-c", SCRIPT, "sh", command]


def execute(argv: list[str], env: dict[str, str], log: Path, timeout: float) -> int | None:
    """Runs the command with output in `log`; its status as a shell shows it, or None after `timeout` seconds.

    Nothing of it is left when this returns: the death of unshare's child ends the PID namespace, that of
    `sentry` its sandbox."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True, cwd="/",
        )  # fmt: skip
        status: int | None = None
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            pass
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
    return 128 - status if status is not None and status < 0 else status
