"""The pool of C threads: results, errors, many jobs at once, and no job lost.

The pool is one a process, so everything runs in a child with a poller of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import errno, os, select, sys
from sentry.abi.errors import SysError
from sentry.kernel import pool
from sentry.kernel.wait import Runner, Scheduler

class Poller:
    def watch(self, fd, events, callback):
        self.fd, self.callback = fd, callback
        self.poll = select.poll()
        self.poll.register(fd, select.POLLIN)

class Sleeper(Runner):
    outcome = None
    def finished(self, result, error):
        self.outcome = result if error is None else error

def run(*coros):
    sleepers = [Sleeper(scheduler) for _ in coros]
    for sleeper, coro in zip(sleepers, coros):
        sleeper.start(coro)
    while any(sleeper.busy for sleeper in sleepers):
        while scheduler.run():
            pass
        if any(sleeper.busy for sleeper in sleepers):
            assert poller.poll.poll(20000), "no result in 20 s"
            poller.callback(1)
    return [sleeper.outcome for sleeper in sleepers]

scheduler, poller = Scheduler(), Poller()
host = pool.Pool(pool.start(), poller)
path = sys.argv[1]
fd = os.open(path, os.O_RDWR)
data = os.pread(fd, 1 << 20, 0)

assert run(host.pread(fd, 100, 5)) == [data[5:105]]
assert run(host.pread(fd, 1 << 21, 0)) == [data]
assert run(host.pread(fd, 10, len(data))) == [b""]
[error] = run(host.pread(9999, 10, 0))
assert isinstance(error, SysError) and error.errno == errno.EBADF, error
[error] = run(host.pread(fd, 10, -1))
assert isinstance(error, SysError) and error.errno == errno.EINVAL, error
assert run(host.fsync(fd)) == [None]
# Far more than the rings hold.
assert run(*(host.pread(fd, 7, i) for i in range(1000))) == [data[i : i + 7] for i in range(1000)]
assert not host._jobs
try:
    pool.start()
except OSError as error:
    assert error.errno == errno.EINVAL
else:
    raise AssertionError("a second pool")
print("done")
"""


def test_pool(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(100_000))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
