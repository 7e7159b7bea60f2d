"""A small kernel for the tests of files, terminals and their system calls: tasks without a guest."""

from __future__ import annotations

import inspect
import select

from sentry.abi.errors import SysError
from sentry.fs.pipe import open_pipe
from sentry.kernel.credentials import Credentials
from sentry.kernel.fdtable import FDTable
from sentry.kernel.group import ProcessGroup, Session
from sentry.kernel.knobs import Knobs
from sentry.kernel.pids import Pid, PidNamespace
from sentry.kernel.sched import Sched
from sentry.kernel.signals import SigHand, SigPending
from sentry.kernel.wait import Interrupted, Runner, Scheduler, WaitQueue


class Memory:
    """Guest memory: one flat range from address 4096 on."""

    BASE, SIZE = 4096, 1 << 20

    def __init__(self):
        self.data = bytearray(self.SIZE)

    def _at(self, addr, size):
        if addr < self.BASE or addr + size > self.BASE + self.SIZE:
            raise SysError(14)
        return addr - self.BASE

    def read(self, addr, size):
        at = self._at(addr, size)
        return bytes(self.data[at : at + size])

    def write(self, addr, data):
        at = self._at(addr, len(data))
        self.data[at : at + len(data)] = data

    def write_upto(self, addr, data):
        size = min(len(data), self.BASE + self.SIZE - addr)
        self.write(addr, data[: max(size, 1)])
        return size

    def read_u32(self, addr):
        return int.from_bytes(self.read(addr, 4), "little")

    def read_u64(self, addr):
        return int.from_bytes(self.read(addr, 8), "little")

    def write_u32(self, addr, value):
        self.write(addr, value.to_bytes(4, "little"))

    def write_u64(self, addr, value):
        self.write(addr, value.to_bytes(8, "little"))

    def read_cstring(self, addr, limit):
        at = self._at(addr, 1)
        end = self.data.find(0, at, at + limit)
        return None if end < 0 else bytes(self.data[at:end])


class Poller:
    """Platform.watch on a real epoll."""

    def __init__(self):
        self.epoll = select.epoll()
        self.callbacks = {}

    def watch(self, fd, events, callback):
        if fd in self.callbacks:
            self.epoll.modify(fd, events)
        else:
            self.epoll.register(fd, events)
        self.callbacks[fd] = callback

    def unwatch(self, fd):
        self.epoll.unregister(fd)
        del self.callbacks[fd]

    def wait(self, timeout):
        for fd, events in self.epoll.poll(timeout):
            if fd in self.callbacks:
                self.callbacks[fd](events)


class Kernel:
    def __init__(self):
        self.scheduler = Scheduler()
        self.processes_by_pgid = {}
        self.pid_ns = PidNamespace(None)
        self.knobs = Knobs()
        self.groups = {}
        self.tasks = {}
        self.last = 99

    def signal_pgrp(self, pgrp, signo, info=None):
        for group in list(pgrp.members):
            group.send_signal(signo, info)

    def process(self, parent=None, session=None, pgrp=None):
        """A new process with one task: in its parent's session and group unless told otherwise."""
        self.last += 1
        parent = None if parent is None else parent.group
        group = Group(self, self.last, parent)
        if session is None and parent is not None:
            session = parent.session
        if session is None:
            session = Session(self.last, group)
        if pgrp is None:
            pgrp = parent.pgrp if parent is not None and parent.session is session else None
        if pgrp is None or pgrp == "new":
            pgrp = ProcessGroup(self.last, session)
            self.processes_by_pgid[pgrp.pgid] = pgrp
        group.pgrp = pgrp
        if parent is not None and session is parent.session:
            group.tty = parent.tty
        pgrp.members.add(group)
        self.groups[group.tgid] = group
        task = Task(self, group)
        self.tasks[task.tid] = task
        group.tasks.append(task)
        group.leader = task
        return task

    def run(self, poller=None, until=None, rounds=200):
        """Run what is ready; with a `poller`, wait for the host until `until()` holds."""
        while self.scheduler.run():
            pass
        while poller is not None and not until() and rounds:
            poller.wait(0.05)
            while self.scheduler.run():
                pass
            rounds -= 1


class Group:
    def __init__(self, kernel, tgid, parent):
        self.kernel = kernel
        self.tgid = tgid
        self.pid = Pid((tgid,), (kernel.pid_ns,))
        self.parent = parent
        self.zombie = False
        self.sighand = SigHand()
        self.pending = SigPending()
        self.signal_queue = WaitQueue()
        self.tasks = []
        self.signals = []
        self.tty = None
        self.limits = {7: 1024}

    @property
    def session(self):
        return self.pgrp.session

    def limit(self, number):
        return self.limits[number]

    def send_signal(self, signo, info=None):
        self.signals.append(signo)
        self.signal_queue.wake()


class Thread:
    """What a call asks of the platform's thread: it never slept there."""

    def take_progress(self):
        return 0

    def take_deadline(self):
        return 0


class Task(Runner):
    def __init__(self, kernel, group):
        super().__init__(kernel.scheduler)
        self.pid = group.pid
        self.kernel = kernel
        self.group = group
        self.tid = group.tgid
        self.mm = Memory()
        self.files = FDTable()
        self.thread = Thread()
        self.cred = Credentials(0, 0)
        self.pending = SigPending()
        self.blocked = 0
        self.saved_mask = None
        self.result = None
        self.error = None
        self.sched = Sched()

    def set_files(self, files):
        self.files = files

    def find_task(self, number):
        return self.kernel.tasks.get(number)

    def find_group(self, number):
        return self.kernel.groups.get(number)

    def find_pgrp(self, number):
        return self.kernel.processes_by_pgid.get(number)

    def install(self, file, cloexec=False, minimum=0):
        try:
            return self.files.install(file, self.group.limit(7), cloexec, minimum)
        except SysError:
            file.put()
            raise

    def pending_bits(self):
        return self.pending.bits | self.group.pending.bits

    def take_signal(self, mask):
        return self.pending.take(mask)

    def set_temporary_mask(self, mask):
        self.saved_mask, self.blocked = self.blocked, mask

    def signal_pending(self):
        return bool(self.pending.bits & ~self.blocked)

    def send_signal(self, signo, info=None):
        self.group.send_signal(signo, info)

    def finished(self, result, error):
        self.result, self.error = result, error

    def begin(self, value):
        """Start a coroutine (or take the result of a plain call); it may go on sleeping."""
        self.result = self.error = None
        if inspect.iscoroutine(value):
            self.start(value)
            while self.kernel.scheduler.run():
                pass
        else:
            self.result = value

    def call(self, function, *args):
        """Call a handler with this task and return what it returns: it may not sleep."""
        return self.do(function(self, *args))

    def do(self, value):
        self.begin(value)
        assert not self.busy, "the call sleeps"
        if self.error is not None:
            raise self.error
        return self.result

    def errno(self, function, *args):
        """The errno that a call ends with; 0 when it succeeds."""
        try:
            self.call(function, *args)
        except SysError as error:
            return error.errno
        return 0


def pipe(task):
    """The descriptors of a new pipe: to read from, and to write to."""
    reader, writer = open_pipe(0, task.cred)
    return task.install(reader), task.install(writer)


__all__ = ["Group", "Interrupted", "Kernel", "Memory", "Poller", "Task", "pipe"]
