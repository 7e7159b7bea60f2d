"""What the file system tests share: a place to stand, a way to drive coroutines, a live Gofer."""

from __future__ import annotations

import os
import socket

from sentry.fs.dentry import Dentry, FsContext, Mount, MountNamespace, Path
from sentry.fs.gofer.client import Client
from sentry.fs.tmpfs.inode import Tmpfs
from sentry.kernel.credentials import Credentials
from sentry.kernel.wait import Runner, Scheduler

ROOT = Credentials(0, 0)


#: Clients of live Gofers: in place of the event loop, `run` lets them receive.
_clients: list[Client] = []


class _Job(Runner):
    def __init__(self, scheduler):
        super().__init__(scheduler)
        self.result = None
        self.error = None
        self.done = False

    def finished(self, result, error):
        self.result, self.error, self.done = result, error, True


def run(coro):
    """Drive a coroutine to its end, whatever it sleeps on that needs no event loop."""
    scheduler = Scheduler()
    job = _Job(scheduler)
    job.start(coro)
    scheduler.run()
    while not job.done and any(client._turn() for client in _clients):
        scheduler.run()
    assert job.done, "still asleep"
    if job.error is not None:
        raise job.error
    return job.result


def start(scheduler, coro):
    """Begin a coroutine beside others; the job tells `done`, `result` and `error`."""
    job = _Job(scheduler)
    job.start(coro)
    return job


def context(fs) -> FsContext:
    """A namespace with `fs` as its root."""
    mount = Mount(fs, Dentry(None, b"", fs.root))
    root = Path(mount, mount.root)
    return FsContext(MountNamespace(mount), root, root, 0)


def tmpfs_context(**options) -> FsContext:
    return context(Tmpfs(**options))


class Gofer:
    """A Gofer over a host directory, in a child process, and a client of it."""

    def __init__(self, path, readonly=True) -> None:
        ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                ours.close()
                _serve(theirs, path, readonly)
            finally:
                os._exit(0)
        theirs.close()
        self.client = Client(ours.detach(), None, None)
        self.client._patience = 10_000
        _clients.append(self.client)
        run(self.client.start())

    def close(self) -> None:
        _clients.remove(self.client)
        self.client.close()
        os.waitpid(self.pid, 0)


def _serve(sock, path, readonly):
    from gofer.fids import Export
    from gofer.localfs import LocalFS
    from gofer.server import Server
    from gofer.session import Session

    export = Export(b"", str(path), readonly)
    export.fd = os.open(str(path), os.O_PATH)
    proc = os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY)
    Server(sock, Session(LocalFS(proc), [export]), lambda line: os.write(2, line.encode() + b"\n")).serve()
