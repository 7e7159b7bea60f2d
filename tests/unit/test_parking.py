"""Calls that sleep in the engine (csrc/engine/parking.c), and the queues that C and Python share."""

from __future__ import annotations

import errno
import gc
import os
import signal
import sys
from pathlib import Path
from time import monotonic_ns

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from io_fakes import Kernel
from platform_harness import CODE, DATA, PAGE, READ, SYSCALL, WRITE, Guest
from sentry._engine import ffi, lib

from sentry.abi.errors import SysError
from sentry.abi.poll import POLLIN, POLLOUT, POLLRDNORM
from sentry.abi.syscall_nr import SYS
from sentry.fs.epoll import EpollFile
from sentry.fs.eventfd import EventFile
from sentry.fs.pipe import open_pipe
from sentry.kernel.credentials import Credentials
from sentry.kernel.wait import Entry
from sentry.platform import base
from sentry.platform.queue import SharedQueue, drain

pytest_plugins = ["platform_harness"]

#: A second system call, so that the end of the first one shows.
TWO_CALLS = SYSCALL + b"\xb8\xff\x0f\x00\x00" + SYSCALL  # mov $4095,%eax
END = 4095


def heard(queue, mask=0xFFFFFFFF):
    events = []
    entry = Entry(events.append, mask)
    queue.add(entry)
    return events, entry


def test_a_queue_tells_python_of_what_c_wakes():
    """An eventfd in an epoll set: C's registration is woken, and wakes the set's queue with our entry."""
    epoll, event = EpollFile(), EventFile(0, False, 0)
    events, entry = heard(epoll.queue)
    epoll.insert(3, event, POLLIN, 7)
    event.signal(1)
    assert events == [POLLIN | POLLRDNORM]
    assert [(item.data, got) for item, got in epoll.collect(8)] == [(7, POLLIN)]
    epoll.queue.remove(entry)
    event.signal(1)
    assert len(events) == 1


def test_wake_ups_are_merged_until_they_are_taken():
    epoll, event = EpollFile(), EventFile(0, False, 0)
    epoll.insert(3, event, POLLIN | POLLOUT, 7)
    events, _ = heard(epoll.queue)
    c = event.event
    for _ in range(3):
        lib.queue_wake(ffi.addressof(c, "queue"), POLLIN)
    assert events == []
    drain()
    assert events == [POLLIN | POLLRDNORM]
    drain()
    assert len(events) == 1


def test_a_queue_that_is_gone_or_empty_is_not_told():
    epoll, event = EpollFile(), EventFile(0, False, 0)
    epoll.insert(3, event, POLLIN, 7)
    events, entry = heard(epoll.queue)
    lib.queue_wake(ffi.addressof(event.event, "queue"), POLLIN)
    epoll.queue.remove(entry)
    drain()
    assert events == []
    events, entry = heard(epoll.queue)
    lib.queue_wake(ffi.addressof(event.event, "queue"), POLLIN)
    epoll.put()
    epoll.queue.remove(entry)
    del epoll, entry
    gc.collect()
    drain()
    assert events == []


def test_a_queue_of_its_own_behaves_as_any_other():
    queue = SharedQueue()
    events, entry = heard(queue, POLLIN)
    assert queue and queue.wake(POLLIN) == 1 and queue.wake(POLLOUT) == 0
    order = []
    first, second = Entry(lambda _: order.append(1), 4, True), Entry(lambda _: order.append(2), 4, True)
    queue.add(first)
    queue.add(second)
    assert queue.wake(4, 1) == 1 and order == [1]
    for one in (entry, first, second):
        queue.remove(one)
    assert not queue and queue.wake() == 0 and events == [POLLIN]


class Process(Guest):
    """A guest thread with a pipe on descriptors 0 and 1 and an event counter on 2."""

    def __init__(self, platform, thread=None):
        super().__init__(platform, thread)
        self.task = Kernel().process()
        self.reader, self.writer = open_pipe(0, Credentials(0, 0))
        self.event = EventFile(0, False, 0)
        for file in (self.reader, self.writer, self.event):
            self.task.install(file)
        self.thread.set_files(self.task.files.c)

    def begin(self, nr, *args):
        """Let the thread make a call, and the engine serve or park it."""
        registers = dict(zip(("rdi", "rsi", "rdx", "r10", "r8", "r9"), args, strict=False))
        self.code(TWO_CALLS, rax=nr, **registers)
        self.thread.resume()

    def park(self, nr, *args):
        self.begin(nr, *args)
        while not self.thread.asleep:
            assert self.platform.wait(10_000_000) == []

    def end(self):
        """The call under way is served without Python."""
        trap = self.trap()
        assert trap.kind == base.SYSCALL and self.regs.orig_rax == END, self.regs.orig_rax

    def close(self, fd):
        self.task.files.close(fd)


@pytest.fixture
def process(platform):
    platform.set_fast(True)
    result = Process(platform)
    yield result
    platform.set_fast(False)
    if result.space in platform._spaces:
        result.space.destroy()


def write(process, data):
    assert process.task.do(process.writer.write(data)) == len(data)


def test_a_read_is_served(process):
    write(process, b"bytes")
    process.begin(SYS.read, 0, DATA, 100)
    process.end()
    assert process.space.read(DATA, 6) == b"bytes\0"


def test_a_read_sleeps_until_python_writes(process):
    process.park(SYS.read, 0, DATA, 100)
    assert process.reader.c.holds == 1
    assert process.reader.queue
    write(process, b"later")
    process.end()
    assert process.space.read(DATA, 6) == b"later\0"
    assert process.reader.c.holds == 0 and not process.reader.queue and not process.thread.asleep
    assert process.thread.take_idle() > 0 and process.thread.take_idle() == 0


def test_a_wake_up_in_vain_leaves_it_asleep(process):
    process.park(SYS.read, 0, DATA, 100)
    process.reader.queue.wake(POLLIN)
    assert process.platform.wait(1_000_000) == []
    assert process.thread.asleep and process.reader.c.holds == 1
    write(process, b"x")
    process.end()


def test_python_hears_of_what_a_guest_writes(process):
    events, _ = heard(process.reader.queue, POLLIN)
    process.space.write(DATA, b"guest")
    process.begin(SYS.write, 1, DATA, 5)
    process.end()
    assert events == [POLLIN]
    assert process.task.do(process.reader.read(10)) == b"guest"


def test_two_threads_of_two_processes(process, platform):
    other = Process(platform)
    other.task.files.replace(0, process.reader.get(), False)
    other.park(SYS.read, 0, DATA, 100)
    process.space.write(DATA, b"hello")
    process.begin(SYS.write, 1, DATA, 5)
    seen = set()
    while len(seen) < 2:
        for trap in platform.wait(10_000_000_000):
            assert trap.thread.regs.orig_rax == END
            seen.add(trap.thread)
    assert other.space.read(DATA, 5) == b"hello"
    other.space.destroy()


def test_a_kick_reports_the_call(process):
    process.park(SYS.read, 0, DATA, 100)
    process.thread.kick()
    trap = process.trap()
    assert trap.kind == base.SYSCALL and process.regs.orig_rax == SYS.read
    assert (process.regs.rdi, process.regs.rsi, process.regs.rdx) == (0, DATA, 100)
    assert process.reader.c.holds == 0 and not process.reader.queue
    process.thread.kick()
    assert process.platform.wait(0) == []


def test_a_kick_of_a_thread_that_was_woken(process):
    process.park(SYS.read, 0, DATA, 100)
    write(process, b"x")
    process.thread.kick()
    assert process.trap().kind == base.SYSCALL and process.regs.orig_rax == SYS.read
    assert process.reader.pipe.size == 1


def test_a_thread_that_was_kicked_does_not_park(process):
    process.begin(SYS.read, 0, DATA, 100)
    process.thread.kick()
    process.trap()
    assert not process.thread.asleep and process.reader.c.holds == 0


def test_progress_of_a_long_write(process):
    process.space.map_anon(0x1000_0000, 200 * 4096, READ | WRITE)
    process.park(SYS.write, 1, 0x1000_0000, 100 * 4096)
    assert process.reader.pipe.size == 65536
    assert len(process.task.do(process.reader.read(8192))) == 8192
    assert process.platform.wait(1_000_000) == [] and process.thread.asleep
    assert process.reader.pipe.size == 65536
    process.thread.kick()
    process.trap()
    assert process.thread.take_progress() == 65536 + 8192 and process.thread.take_progress() == 0


def test_memory_of_a_space_whose_only_thread_sleeps(process):
    process.park(SYS.read, 0, DATA, 100)
    process.space.map_anon(0x1000_0000, PAGE, READ | WRITE)
    process.space.write(0x1000_0000, b"there")
    assert process.space.read(0x1000_0000, 5) == b"there"
    process.space.unmap(0x1000_0000, PAGE)
    trap = process.trap()
    assert trap.kind == base.SYSCALL and process.regs.orig_rax == SYS.read


def test_fork_beside_a_sleeper(process):
    process.park(SYS.read, 0, DATA, 100)
    process.thread.kick()
    process.trap()
    sleeper = process.space.new_thread(process.thread)
    sleeper.set_files(process.task.files.c)
    sleeper.regs.rip = CODE
    sleeper.regs.rax = SYS.read
    sleeper.resume()
    while not sleeper.asleep:
        assert process.platform.wait(10_000_000) == []
    child = process.space.fork(process.thread)
    assert child.space.read(CODE, 2) == SYSCALL
    child.space.destroy()
    assert sleeper.asleep
    sleeper.exit()
    assert process.reader.c.holds == 0


def test_destroy_with_a_sleeper(process):
    process.park(SYS.read, 0, DATA, 100)
    process.space.destroy()
    assert process.reader.c.holds == 0 and not process.reader.queue
    write(process, b"nobody")
    assert process.platform.wait(0) == []


def test_the_host_kills_a_sleeper(process):
    process.park(SYS.read, 0, DATA, 100)
    os.kill(process.thread._c.pid, signal.SIGKILL)
    assert process.trap().kind == base.DEAD
    assert process.reader.c.holds == 0 and not process.reader.queue


def test_closed_while_it_sleeps(process):
    process.park(SYS.read, 0, DATA, 100)
    pipe = process.reader.pipe
    process.close(0)
    assert pipe.readers == 1
    write(process, b"late")
    process.end()
    assert process.space.read(DATA, 4) == b"late"
    process.platform.wait(0)
    assert pipe.readers == 0
    with pytest.raises(SysError) as info:
        process.task.do(process.writer.write(b"x"))
    assert info.value.errno == errno.EPIPE


def test_closed_while_it_sleeps_and_then_killed(process):
    process.park(SYS.read, 0, DATA, 100)
    pipe = process.reader.pipe
    process.close(0)
    process.space.destroy()
    process.platform.wait(0)
    assert pipe.readers == 0


def test_the_last_writer_goes(process):
    process.park(SYS.read, 0, DATA, 100)
    process.close(1)
    process.end()


def poll_fds(process, *fds):
    process.space.write(DATA, b"".join(fd.to_bytes(4, "little") + b"\1\0\0\0" for fd in fds))


def test_poll_sleeps_in_several_queues(process):
    poll_fds(process, 0, 2, 0)
    process.park(SYS.poll, DATA, 3, 0xFFFFFFFF)
    assert (process.reader.c.holds, process.event.c.holds) == (2, 1)
    process.event.signal(1)
    process.end()
    assert process.space.read(DATA + 8, 8) == b"\2\0\0\0\1\0\1\0"
    assert (process.reader.c.holds, process.event.c.holds) == (0, 0)
    assert not process.reader.queue and not process.event.queue


def test_poll_until_its_deadline(process):
    poll_fds(process, 0)
    start = monotonic_ns()
    process.park(SYS.poll, DATA, 1, 30)
    process.end()
    assert monotonic_ns() - start >= 30_000_000


def test_the_deadline_of_a_reported_poll(process):
    poll_fds(process, 0)
    start = monotonic_ns()
    process.park(SYS.poll, DATA, 1, 30_000)
    process.thread.kick()
    process.trap()
    deadline = process.thread.take_deadline()
    assert start + 30_000_000_000 <= deadline <= monotonic_ns() + 30_000_000_000
    assert process.thread.take_deadline() == 0


def test_poll_of_no_files_is_a_sleep(process):
    process.park(SYS.poll, 0, 0, 10)
    process.end()


def test_epoll_sleeps_for_python_and_c(process):
    epoll = EpollFile()
    fd = process.task.install(epoll)
    epoll.insert(2, process.event, POLLIN, 0x1234)
    process.park(SYS.epoll_wait, fd, DATA, 4, 0xFFFFFFFF)
    process.event.signal(1)
    process.end()
    assert process.space.read(DATA, 12) == b"\1\0\0\0\x34\x12\0\0\0\0\0\0"


def test_many_sleepers_are_served_in_order(process):
    threads = []
    process.begin(SYS.poll, 0, 0, 0)
    process.end()
    for i in range(5):
        thread = process.space.new_thread(process.thread)
        thread.set_files(process.task.files.c)
        thread.regs.rip, thread.regs.rax = CODE, SYS.read
        thread.regs.rdi, thread.regs.rsi, thread.regs.rdx = 0, DATA + 8 * i, 1
        thread.resume()
        while not thread.asleep:
            assert process.platform.wait(10_000_000) == []
        threads.append(thread)
    for i, thread in enumerate(threads):
        write(process, bytes([65 + i]))
        while not (traps := process.platform.wait(10_000_000)):
            pass
        assert [trap.thread for trap in traps] == [thread]
    assert process.space.read(DATA, 40)[::8] == b"ABCDE"


def test_without_fast_paths_nothing_parks(process):
    process.platform.set_fast(False)
    process.begin(SYS.read, 0, DATA, 100)
    assert process.trap().kind == base.SYSCALL and process.regs.orig_rax == SYS.read
