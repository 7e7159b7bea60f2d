"""A Gofer in a forked process, confined as in real life, and a client on the other end."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gofer.filter import compile_filter
from gofer.main import Export, read_status, run
from sentry.fs.gofer.client import Client

NOBODY = 65534
#: Who the Gofer runs as: root where the tests do, and an ordinary user.
USERS = [0, NOBODY] if os.getuid() == 0 else [os.getuid()]
USER_IDS = ["root", "user"] if os.getuid() == 0 else ["user"]


@pytest.fixture(scope="session")
def seccomp_filter() -> bytes:
    return compile_filter()


class Gofer:
    """A running Gofer: its pid, the raw socket to it, and what it said it applied."""

    def __init__(
        self, exports: list[Export], uid: int, seccomp: bytes, parent_pid: int | None = None
    ) -> None:
        ours, theirs = socket.socketpair()
        ours.settimeout(20)
        status_r, status_w = os.pipe()
        log_r, log_w = os.pipe()
        parent = os.getpid() if parent_pid is None else parent_pid
        self.pid = os.fork()
        if self.pid == 0:
            try:
                if os.getuid() != uid:
                    os.setgroups([])
                    os.setresgid(uid, uid, uid)
                    os.setresuid(uid, uid, uid)
                run(theirs.detach(), exports, seccomp, debug_fd=log_w, status_fd=status_w, parent_pid=parent)
            finally:
                os._exit(99)
        theirs.close()
        os.close(status_w)
        os.close(log_w)
        self.sock = ours
        self.applied, self.error = read_status(status_r)
        self._log = log_r
        self._exit: int | None = None

    def client(self, extension: bool = True) -> Client:
        client = Client(os.dup(self.sock.fileno()))
        client.run(client.start(extension))
        return client

    def wait(self) -> int:
        """Exit code, or minus the signal, once it has ended."""
        if self._exit is None:
            self._exit = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._exit

    def log(self) -> str:
        """Everything it logged; waits for its end."""
        data = b""
        while part := os.read(self._log, 65536):
            data += part
        return data.decode()

    def stop(self) -> None:
        self.sock.close()
        if self._exit is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()
        os.close(self._log)


@pytest.fixture
def tree() -> Iterator[Path]:
    """An empty directory that any user can reach and write to; so is what the test makes in it."""
    umask = os.umask(0)
    path = Path(tempfile.mkdtemp(prefix="gofer-test-"))
    path.chmod(0o777)
    yield path
    os.umask(umask)
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def start(seccomp_filter: bytes) -> Iterator[Callable[..., Gofer]]:
    """start(export…, uid=0): a Gofer that ends with the test."""
    running: list[Gofer] = []

    def start_one(*exports: Export, uid: int = os.getuid(), **options: object) -> Gofer:
        gofer = Gofer(list(exports), uid, seccomp_filter, **options)  # type: ignore[arg-type]
        running.append(gofer)
        return gofer

    yield start_one
    for gofer in running:
        gofer.stop()
