"""The client against servers that answer late, wrongly, or not at all."""

from __future__ import annotations

import errno
import gc
import os
import select
import socket
import struct
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from gofer import messages as m
from sentry.abi.errors import SysError
from sentry.fs.gofer.client import Client
from sentry.fs.gofer.transport import MAX_CALLS
from sentry.kernel.wait import Runner, Scheduler

QID = m.Qid((0, 1, 2))
ATTR = m.Attr(QID, 0o100644, 0, 0, 1, 0, 5, 4096, 8, 0, 0, 0)


class Poller:
    """The platform's watch and unwatch, over epoll."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.callbacks: dict[int, Callable[[int], None]] = {}

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        (self.epoll.modify if fd in self.callbacks else self.epoll.register)(fd, events)
        self.callbacks[fd] = callback

    def unwatch(self, fd: int) -> None:
        self.epoll.unregister(fd)
        del self.callbacks[fd]

    def turn(self) -> None:
        for fd, events in self.epoll.poll(10):
            self.callbacks[fd](events)


class Job(Runner):
    outcome: object = None

    def finished(self, result: object, error: BaseException | None) -> None:
        self.outcome = error if error is not None else ("returned", result)


class World:
    """A client, its event loop, and the server's end of the socket in the test's hands."""

    def __init__(self) -> None:
        ours, self.server = socket.socketpair()
        self.server.settimeout(20)
        self.poller = Poller()
        self.deaths = 0
        self.client = Client(ours.detach(), self.poller, self._died)
        self.client._patience = 0
        self.client.extended = True
        self.client.msize = 65536
        self.scheduler = Scheduler()

    def _died(self) -> None:
        self.deaths += 1

    def spawn(self, coro: Coroutine[Any, Any, Any]) -> Job:
        job = Job(self.scheduler)
        job.start(coro)
        return job

    def finish(self, *jobs: Job) -> list[object]:
        while any(job.busy for job in jobs):
            if not self.scheduler.run():
                self.poller.turn()
        return [job.outcome for job in jobs]

    def request(self) -> tuple[int, m.Message]:
        header = self.server.recv(4)
        size = int.from_bytes(header, "little")
        while len(header) < size:
            header += self.server.recv(size - len(header))
        return m.decode_request(header)

    def reply(self, tag: int, message: m.Message, *fds: int) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))] if fds else []
        self.server.sendmsg([message.encode(tag)], rights)


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.client.close()
    world.server.close()


def is_error(outcome: object, error: int) -> bool:
    return isinstance(outcome, SysError) and outcome.errno == error


def count_fds() -> int:
    gc.collect()  # what earlier tests left in cycles must not be closed between two counts
    return len(os.listdir("/proc/self/fd"))


def test_replies_out_of_order(world: World) -> None:
    jobs = [world.spawn(world.client.getattr(fid)) for fid in (1, 2, 3)]
    assert all(job.busy for job in jobs)
    requests = [world.request() for _ in jobs]
    assert [message for _, message in requests] == [m.Tgetattr(fid, m.GETATTR_BASIC) for fid in (1, 2, 3)]
    assert len({tag for tag, _ in requests}) == 3
    for (tag, message), size in zip(reversed(requests), (30, 20, 10), strict=True):
        attr = m.Attr(QID, 0o100644, 0, 0, 1, 0, size, 4096, 8, 0, 0, 0)
        world.reply(tag, m.Rgetattr(m.GETATTR_BASIC, attr))
        assert message.fid == size // 10
    outcomes = world.finish(*jobs)
    assert [outcome[1].size for outcome in outcomes] == [10, 20, 30]  # type: ignore[index]


def test_errors(world: World) -> None:
    for ecode, expected in (
        (errno.ENOENT, errno.ENOENT),
        (0, errno.EIO),
        (4096, errno.EIO),
        (1 << 31, errno.EIO),
    ):
        job = world.spawn(world.client.readlink(1))
        world.reply(world.request()[0], m.Rlerror(ecode))
        assert is_error(world.finish(job)[0], expected)
    assert not world.client.dead


def test_death_fails_everything_once(world: World) -> None:
    jobs = [world.spawn(world.client.getattr(fid)) for fid in range(5)]
    world.server.close()
    assert all(is_error(outcome, errno.EIO) for outcome in world.finish(*jobs))
    assert is_error(world.finish(world.spawn(world.client.getattr(1)))[0], errno.EIO)
    world.client.clunk(1)
    assert world.deaths == 1 and world.client.dead and not world.poller.callbacks


@pytest.mark.parametrize(
    "answer",
    [
        m.Rgetattr(m.GETATTR_BASIC, ATTR).encode(999),  # answers nothing
        m.Rclunk().encode(0),  # answers something else
        m.Tgetattr(1, 2).encode(0),  # no reply
        struct.pack("<IBH", 3, m.Rgetattr.TYPE, 0),
        struct.pack("<IBH", 1 << 24, m.Rgetattr.TYPE, 0),
        struct.pack("<IBH", 8, m.Rgetattr.TYPE, 0) + b"x",
        b"\0" * 20,
    ],
)
def test_nonsense_is_death(world: World, answer: bytes) -> None:
    job = world.spawn(world.client.getattr(1))
    world.request()
    world.server.sendall(answer)
    assert is_error(world.finish(job)[0], errno.EIO)
    assert world.deaths == 1


def test_partial_frames(world: World) -> None:
    job = world.spawn(world.client.readlink(1))
    frame = m.Rreadlink(b"target").encode(world.request()[0])
    for byte in frame[:-1]:
        world.server.send(bytes([byte]))
        world.poller.turn()
        assert not world.scheduler.run() and job.busy
    world.server.send(frame[-1:])
    assert world.finish(job) == [("returned", b"target")]


def test_descriptors_that_were_not_expected_are_closed(world: World) -> None:
    before = count_fds()
    null = os.open("/dev/null", os.O_RDONLY)
    job = world.spawn(world.client.readlink(1))
    world.reply(world.request()[0], m.Rreadlink(b"target"), null)
    assert world.finish(job) == [("returned", b"target")]
    os.close(null)
    assert count_fds() == before and not world.client.dead


def test_promised_descriptor_that_is_missing(world: World) -> None:
    job = world.spawn(world.client.open_fd(1, os.O_RDONLY))
    world.reply(world.request()[0], m.Rlopenfd(QID, 0, 1))
    assert is_error(world.finish(job)[0], errno.EIO) and world.deaths == 1


def test_wrong_descriptors_are_refused(world: World, tmp_path: Any) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    before = count_fds()
    pipe = os.pipe()
    wrong = [os.open(path, os.O_RDWR), os.open(path, os.O_PATH), os.open(tmp_path, os.O_RDONLY), *pipe]
    for fd in wrong:
        job = world.spawn(world.client.open_fd(1, os.O_RDONLY))
        world.reply(world.request()[0], m.Rlopenfd(QID, 0, 1), fd)
        assert is_error(world.finish(job)[0], errno.EIO)
    right = os.open(path, os.O_RDONLY)
    job = world.spawn(world.client.open_fd(1, os.O_RDONLY))
    world.reply(world.request()[0], m.Rlopenfd(QID, 0, 1), right)
    outcome: Any = world.finish(job)[0]
    assert os.read(outcome[1][0], 10) == b"x" and not os.get_inheritable(outcome[1][0])
    for fd in (*wrong, right, outcome[1][0]):
        os.close(fd)
    assert count_fds() == before


def test_many_descriptors_are_counted_and_checked(world: World, tmp_path: Any) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    before = count_fds()
    good, bad = os.open(path, os.O_RDONLY), os.open(path, os.O_RDWR)
    none = struct.pack("3I", 0, errno.EACCES, 0)

    def ask(reply: m.Message, *fds: int) -> Any:
        job = world.spawn(world.client.open_files(1, [], [b"a", b"b", b"c"]))
        world.reply(world.request()[0], reply, *fds)
        return world.finish(job)[0]

    outcome = ask(m.Ropenfiles(none, 2), bad, good)
    assert outcome[1][:2] == [-errno.EIO, -errno.EACCES] and os.read(outcome[1][2], 9) == b"x"
    os.close(outcome[1][2])
    assert is_error(ask(m.Ropenfiles(none[:8], 2), good, good), errno.EIO) and world.deaths == 1
    for fd in (good, bad):
        os.close(fd)
    assert count_fds() < before  # the socket has gone, too


@pytest.mark.parametrize("count", [1, 3])
def test_other_than_the_promised_number_of_descriptors(world: World, tmp_path: Any, count: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    before = count_fds()
    fd = os.open(path, os.O_RDONLY)
    job = world.spawn(world.client.open_files(1, [], [b"a", b"b"]))
    world.reply(world.request()[0], m.Ropenfiles(bytes(8), 2), *[fd] * count)
    outcome: Any = world.finish(job)[0]
    os.close(fd)
    if count == 1:
        assert is_error(outcome, errno.EIO) and world.deaths == 1
    else:
        for received in outcome[1]:
            os.close(received)
        assert count_fds() == before


ENTRY = m.LISTED.pack(*[0] * 12, 1, 4, 1)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"x", m.DIRECTORY.pack(0, 1, 1, 0) + b"x", m.DIRECTORY.pack(0, 85, 1, 0) + ENTRY + b"/",
        m.DIRECTORY.pack(0, 83, 1, 0) + bytes(83), m.DIRECTORY.pack(0, 170, 1, 0) + (ENTRY + b"a") * 2,
        m.DIRECTORY.pack(0, 0, 1, 1) + bytes(2), m.DIRECTORY.pack(2, 85, 1, 1) + bytes(2) + ENTRY + b"a",
        m.DIRECTORY.pack(0, 85, 1, 1) + b"\1\0" + ENTRY + b"a", m.DIRECTORY.pack(2, 0, 0, 0) * 2,
        m.DIRECTORY.pack(0, 0xFFFFFFFF, 1, 255),
    ],
)  # fmt: skip
def test_listings_that_cannot_be(world: World, tmp_path: Any, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    before = count_fds()
    fd = os.open(path, os.O_RDONLY)
    job = world.spawn(world.client.list_dirs(1, []))
    world.reply(world.request()[0], m.Rlistdirs(data, 1), fd)
    assert is_error(world.finish(job)[0], errno.EIO) and world.deaths == 1
    os.close(fd)
    assert count_fds() < before


def test_another_file_for_a_reopen(world: World) -> None:
    ours, other = os.memfd_create("a"), os.memfd_create("b")
    twin = os.open(f"/proc/self/fd/{other}", os.O_RDONLY)
    job = world.spawn(world.client.reopen_readonly(ours))
    data, ancillary, _, _ = world.server.recvmsg(4096, socket.CMSG_SPACE(4))
    assert m.decode_request(data)[1] == m.Treopen()
    (received,) = struct.unpack("i", ancillary[0][2][:4])
    assert os.fstat(received).st_ino == os.fstat(ours).st_ino
    world.reply(m.decode_request(data)[0], m.Rreopen(1), twin)
    assert is_error(world.finish(job)[0], errno.EIO)
    for fd in (ours, other, twin, received):
        os.close(fd)


def test_clunk_frees_its_number_when_answered(world: World) -> None:
    job = world.spawn(world.client.walk(1, [b"x"]))
    tag, message = world.request()
    world.reply(tag, m.Rwalk([QID]))
    world.finish(job)
    world.client.clunk(message.newfid)
    clunk_tag, clunk = world.request()
    assert clunk == m.Tclunk(message.newfid)
    job = world.spawn(world.client.walk(1, [b"x"]))
    tag, second = world.request()
    assert second.newfid != message.newfid  # not before the clunk is answered
    world.reply(clunk_tag, m.Rlerror(errno.EIO))
    world.reply(tag, m.Rwalk([QID]))
    world.finish(job)
    world.spawn(world.client.walk(1, [b"x"]))
    assert world.request()[1].newfid == message.newfid


def test_abandoned_call(world: World, tmp_path: Any) -> None:
    """A caller that is unwound: its reply, and a descriptor in it, are dropped."""
    (tmp_path / "file").touch()
    before = count_fds()
    job = world.spawn(world.client.open_fd(1, os.O_RDONLY))
    tag, _ = world.request()
    assert job._coro is not None
    job._coro.close()
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    world.reply(tag, m.Rlopenfd(QID, 0, 1), fd)
    world.poller.turn()
    os.close(fd)
    assert count_fds() == before and not world.client.dead and not world.client._calls


def test_full_socket(world: World) -> None:
    """Requests that the socket does not take wait their turn, in order."""
    data = bytes(60000)
    jobs = [world.spawn(world.client.write(1, i, data)) for i in range(50)]
    assert world.client._out
    memfd = os.memfd_create("x")
    jobs.append(world.spawn(world.client.getattr(7)))
    reopen = world.spawn(world.client.reopen_readonly(memfd))
    for i in range(50):
        while select.select([world.server], [], [], 0)[0] == []:
            world.poller.turn()
        world.server.setblocking(False)
        frame = b""
        while len(frame) < 4 or len(frame) < int.from_bytes(frame[:4], "little"):
            try:
                frame += world.server.recv((int.from_bytes(frame[:4], "little") or 4) - len(frame))
            except BlockingIOError:
                world.poller.turn()
        tag, message = m.decode_request(frame)
        assert message.offset == i
        world.reply(tag, m.Rwrite(len(data)))
    world.poller.turn()
    world.server.setblocking(True)
    tag, message = world.request()
    assert message == m.Tgetattr(7, m.GETATTR_BASIC)
    world.reply(tag, m.Rgetattr(0, ATTR))
    assert world.finish(*jobs)[:-1] == [("returned", len(data))] * 50
    data, ancillary, _, _ = world.server.recvmsg(4096, socket.CMSG_SPACE(4))
    (received,) = struct.unpack("i", ancillary[0][2][:4])
    assert os.fstat(received).st_ino == os.fstat(memfd).st_ino
    twin = os.open(f"/proc/self/fd/{memfd}", os.O_RDONLY)
    world.reply(m.decode_request(data)[0], m.Rreopen(1), twin)
    (outcome,) = world.finish(reopen)
    assert isinstance(outcome, tuple)
    for fd in (received, memfd, twin, outcome[1]):
        os.close(fd)


def test_limit_of_calls(world: World) -> None:
    jobs = [world.spawn(world.client.readlink(1)) for _ in range(MAX_CALLS + 3)]
    assert len(world.client._calls) == MAX_CALLS
    for _ in jobs:
        while select.select([world.server], [], [], 0)[0] == []:
            if not world.scheduler.run():
                world.poller.turn()
        world.reply(world.request()[0], m.Rreadlink(b"t"))
        world.poller.turn()  # a socket holds few small messages
    assert world.finish(*jobs) == [("returned", b"t")] * len(jobs)


def test_lying_counts(world: World) -> None:
    job = world.spawn(world.client.read(1, 0, 10))
    world.reply(world.request()[0], m.Rread(b"x" * 11))
    assert is_error(world.finish(job)[0], errno.EIO)
    job = world.spawn(world.client.write(1, 0, b"xy"))
    world.reply(world.request()[0], m.Rwrite(3))
    assert is_error(world.finish(job)[0], errno.EIO)
    job = world.spawn(world.client.walkgetattr(1, [b"a"]))
    world.reply(world.request()[0], m.Rwalkgetattr(0, [ATTR, ATTR]))
    assert is_error(world.finish(job)[0], errno.EIO) and world.deaths == 1


def test_bad_directory_entries(world: World) -> None:
    job = world.spawn(world.client.readdir(1, 0))
    world.reply(world.request()[0], m.Rreaddir(m.encode_dirent(QID, 1, 8, b"a/b")))
    assert is_error(world.finish(job)[0], errno.EIO) and world.deaths == 1


def test_bad_names_never_leave(world: World) -> None:
    for name, error in ((b"..", errno.EINVAL), (b"x" * 256, errno.ENAMETOOLONG)):
        assert is_error(world.finish(world.spawn(world.client.mkdir(1, name, 0o755)))[0], error)
    assert not world.client._calls and not select.select([world.server], [], [], 0)[0]


def test_version_negotiation() -> None:
    for offered, answer, extended in (
        (True, m.VERSION_SENTRY, True), (True, m.VERSION_L, False), (False, m.VERSION_L, False),
        (True, b"unknown", None), (False, m.VERSION_SENTRY, None),
    ):  # fmt: skip
        world = World()
        world.client.extended = False
        job = world.spawn(world.client.start(offered, 65536))
        tag, message = world.request()
        assert tag == m.NOTAG and message.msize == 65536
        world.reply(tag, m.Rversion(8192, answer))
        (outcome,) = world.finish(job)
        if extended is None:
            assert is_error(outcome, errno.EPROTONOSUPPORT)
        else:
            assert world.client.extended is extended and world.client.msize == 8192
        world.client.close()
        world.server.close()


def test_server_that_refuses_the_extension(world: World) -> None:
    world.client.extended = False
    job = world.spawn(world.client.start(True, 65536))
    tag, message = world.request()
    assert message.version == m.VERSION_SENTRY
    world.reply(tag, m.Rlerror(errno.EIO))
    world.poller.turn()
    world.scheduler.run()
    tag, message = world.request()
    assert message.version == m.VERSION_L
    world.reply(tag, m.Rversion(8192, m.VERSION_L))
    assert world.finish(job) == [("returned", None)]
    assert not world.client.extended


def test_server_without_the_at_requests(world: World) -> None:
    """Older servers (diod 1.0) know Trename and Tremove only."""
    world.client.extended = False

    def serve(*exchange: tuple[type[m.Message], m.Message]) -> list[m.Message]:
        seen = []
        for cls, reply in exchange:
            while select.select([world.server], [], [], 0)[0] == []:
                if not world.scheduler.run():
                    world.poller.turn()
            tag, message = world.request()
            assert type(message) is cls
            seen.append(message)
            world.reply(tag, reply)
        return seen

    refused, found = m.Rlerror(errno.EOPNOTSUPP), m.Rwalk([QID])
    job = world.spawn(world.client.renameat(1, b"old", 2, b"new"))
    seen = serve((m.Trenameat, refused), (m.Twalk, found), (m.Trename, m.Rrename()), (m.Tclunk, m.Rclunk()))
    assert seen[2] == m.Trename(seen[1].newfid, 2, b"new")
    assert world.finish(job) == [("returned", None)]
    job = world.spawn(world.client.unlinkat(1, b"old"))
    serve((m.Tunlinkat, refused), (m.Twalk, found), (m.Tremove, m.Rremove()))
    assert world.finish(job) == [("returned", None)]
    job = world.spawn(world.client.unlinkat(1, b"old", 0x200))
    serve((m.Tunlinkat, refused), (m.Twalk, found), (m.Tclunk, m.Rclunk()))
    assert is_error(world.finish(job)[0], errno.ENOTDIR)
