"""What the file system tests share: a place to stand, a way to drive coroutines, a live Gofer."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import contextmanager

from sentry.abi.errors import SysError
from sentry.fs import setup, spare
from sentry.fs.dentry import Dentry, FsContext, Mount, MountNamespace, Path
from sentry.fs.gofer.client import Client
from sentry.fs.tmpfs.inode import Tmpfs
from sentry.fs.walk import walk
from sentry.kernel.credentials import Credentials
from sentry.kernel.fdtable import FDTable
from sentry.kernel.userns import INITIAL
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
    return FsContext(MountNamespace(mount, INITIAL), root, root, 0)


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


class Memory:
    """Guest memory: `size` bytes from BASE on, nothing elsewhere."""

    BASE = 0x10000

    def __init__(self, size=1 << 16) -> None:
        self.data = bytearray(size)

    def _offset(self, addr):
        offset = addr - self.BASE
        if not 0 <= offset < len(self.data):
            raise SysError(errno.EFAULT)
        return offset

    def read_upto(self, addr, size):
        offset = self._offset(addr)
        return bytes(self.data[offset : offset + size])

    def write_upto(self, addr, data):
        offset = self._offset(addr)
        count = min(len(data), len(self.data) - offset)
        self.data[offset : offset + count] = data[:count]
        return count

    def read(self, addr, size):
        if not size:
            return b""
        data = self.read_upto(addr, size)
        if len(data) < size:
            raise SysError(errno.EFAULT)
        return data

    def write(self, addr, data):
        if data and self.write_upto(addr, data) < len(data):
            raise SysError(errno.EFAULT)

    def read_cstring(self, addr, limit):
        data = self.read_upto(addr, limit)
        end = data.find(b"\0")
        return None if end < 0 else data[:end]

    def read_u64(self, addr):
        return int.from_bytes(self.read(addr, 8), "little")

    def write_u64(self, addr, value):
        self.write(addr, value.to_bytes(8, "little"))

    def put(self, data, at=0):
        """Store `data` at offset `at`: its address."""
        self.data[at : at + len(data)] = data
        return self.BASE + at


class _Group:
    def __init__(self) -> None:
        self.limits = {}

    def limit(self, resource):
        return self.limits.get(resource, (1 << 64) - 1)


class _Thread:
    """What a call asks of the platform's thread: it never slept there."""

    def take_progress(self):
        return 0


class FakeTask:
    """As much of a task as the file system calls use."""

    def __init__(self, fs: FsContext, cred=ROOT) -> None:
        self.fs = fs
        self.cred = cred
        self.mm = Memory()
        self.files = FDTable()
        self.group = _Group()
        self.thread = _Thread()
        self.signals = []

    def install(self, file, cloexec=False, minimum=0):
        return self.files.install(file, 1024, cloexec, minimum)

    def send_signal(self, signo, info=None):
        self.signals.append(signo)

    def send_own(self, signo):
        self.signals.append(signo)

    def signal_pending(self):
        return False


def outcome(coro):
    """What a call gives: its result, or the name of its errno."""
    try:
        if hasattr(coro, "send"):
            coro = run(coro)
        return coro
    except SysError as error:
        return errno.errorcode[error.errno]


@contextmanager
def overlay(host):
    """A context whose root is an overlay over the directory `host`, served by a live Gofer."""
    gofer = Gofer(host)
    namespace = run(setup.build_root(gofer.client, ROOT, True, gofer.client.reopen_readonly, 64 << 20))
    yield setup.context(namespace)
    spare.forget_all()
    gofer.close()


def place(fs, path):
    return run(walk(fs, ROOT, path))
