"""A hostile client: whatever it sends, the Gofer answers or hangs up, and lives on."""

from __future__ import annotations

import array
import errno
import os
import random
import socket
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gofer import messages as m
from gofer.main import Export
from sentry.abi.errors import SysError


def frame(kind: int, tag: int, body: bytes) -> bytes:
    return struct.pack("<IBH", 7 + len(body), kind, tag) + body


def receive(sock: socket.socket) -> tuple[int, m.Message] | None:
    """The next reply; None at the end of the connection."""
    data = b""
    while len(data) < 4 or len(data) < int.from_bytes(data[:4], "little"):
        want = 4 if len(data) < 4 else int.from_bytes(data[:4], "little")
        try:
            part = sock.recv(want - len(data))
        except ConnectionResetError:
            return None
        if not part:
            return None
        data += part
    return m.decode_reply(data)


def ask(sock: socket.socket, message: m.Message, tag: int = 1) -> m.Message:
    sock.sendall(message.encode(tag))
    answer = receive(sock)
    assert answer is not None and answer[0] == tag
    return answer[1]


@pytest.fixture
def gofer(start: Any, tree: Path) -> Any:
    (tree / "file").write_bytes(b"content")
    return start(Export(b"", str(tree), readonly=False))


@pytest.fixture
def sock(gofer: Any) -> socket.socket:
    sock: socket.socket = gofer.sock
    assert ask(sock, m.Tversion(8192, m.VERSION_SENTRY)) == m.Rversion(8192, m.VERSION_SENTRY)
    assert type(ask(sock, m.Tattach(0, m.NOFID, b"u", b"", 0))) is m.Rattach
    return sock


def test_version(gofer: Any) -> None:
    sock = gofer.sock
    assert ask(sock, m.Tgetattr(0, 0)) == m.Rlerror(errno.EPROTO)  # nothing comes before Tversion
    assert ask(sock, m.Tversion(100, m.VERSION_L)) == m.Rlerror(errno.EINVAL)
    assert ask(sock, m.Tversion(8192, b"9P2000.u")) == m.Rversion(8192, b"unknown")
    assert ask(sock, m.Tversion(1 << 31, m.VERSION_L), m.NOTAG) == m.Rversion(1 << 20, m.VERSION_L)
    assert ask(sock, m.Tversion(8192, b"9P2000.L.other")) == m.Rversion(8192, m.VERSION_L)
    assert type(ask(sock, m.Tattach(7, m.NOFID, b"", b"/", 0))) is m.Rattach
    for extension in (
        m.Twalkgetattr(7, 8, []),
        m.Tlook(7, 8, [b"x"], 1),
        m.Tlopenfd(7, 0),
        m.Tlcreatefd(7, 8, b"x", 0, 0, 0, 0),
        m.Treopen(),
    ):
        assert ask(sock, extension) == m.Rlerror(errno.EOPNOTSUPP)
    # A new Tversion forgets every fid.
    assert ask(sock, m.Tversion(8192, m.VERSION_L)) == m.Rversion(8192, m.VERSION_L)
    assert ask(sock, m.Tgetattr(7, 0)) == m.Rlerror(errno.EBADF)


def test_auth_is_refused(sock: socket.socket) -> None:
    assert ask(sock, m.Tauth(5, b"root", b"", 0)) == m.Rlerror(0)
    assert type(ask(sock, m.Tattach(5, 6, b"root", b"", 0))) is m.Rlerror
    assert ask(sock, m.Tflush(77)) == m.Rflush()


@pytest.mark.parametrize("size", [0, 1, 6, 8193, 1 << 20, 0xFFFFFFFF])
def test_impossible_sizes_end_the_connection(gofer: Any, sock: socket.socket, size: int) -> None:
    try:
        sock.sendall(struct.pack("<IBH", size, 24, 1) + bytes(100))
    except (BrokenPipeError, ConnectionResetError):
        pass
    assert receive(sock) is None
    assert gofer.wait() == 0
    assert gofer.log() == ""


def test_malformed_bodies_are_answered(gofer: Any, sock: socket.socket) -> None:
    for kind in range(256):
        for body in (b"", b"\xff", bytes(3), b"\xff" * 60):
            sock.sendall(frame(kind, kind, body))
            answer = receive(sock)
            assert answer is not None and answer[0] == kind, kind
    sock.close()
    assert gofer.wait() == 0
    assert gofer.log() == ""


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(cls.TYPE for cls in m.REPLY_OF)), st.binary(max_size=80)), max_size=8
    )
)
def test_random_requests(sock: socket.socket, requests: list[tuple[int, bytes]]) -> None:
    for tag, (kind, body) in enumerate(requests):
        sock.sendall(frame(kind, tag, body))
    for tag in range(len(requests)):
        answer = receive(sock)
        assert answer is not None and answer[0] == tag


def test_any_request_on_any_fid(gofer: Any, sock: socket.socket) -> None:
    """Well-formed nonsense: a seeded walk through all requests and few fids; none uncovers a bug."""
    rng = random.Random(9)
    names = [b"file", b"a", b"b", b"c"]
    values = {
        "u8": lambda: rng.randrange(4),
        "u16": lambda: rng.randrange(9),
        "u32": lambda: rng.choice((0, 1, 2, 3, 4, 64)),
        "u64": lambda: rng.choice((0, 1, 7, 1 << 63, (1 << 64) - 1)),
        "off": lambda: rng.choice((0, 1, 4096, (1 << 63) - 1)),
        "string": lambda: rng.choice((b"", b"user.a", b"x\0y")),
        "name": lambda: rng.choice(names),
        "path": lambda: rng.choice((b"/", b"x" * 4095)),
        "names": lambda: rng.choices(names, k=rng.randrange(3)),
        "manynames": lambda: rng.choices(names, k=rng.randrange(65)),
        "data": lambda: bytes(rng.randrange(20)),
    }
    requests = [cls for cls in m.REPLY_OF if cls not in (m.Tversion, m.Treopen)]
    for i in range(6000):
        if i % 200 == 0:
            ask(sock, m.Tversion(8192, m.VERSION_SENTRY))
            ask(sock, m.Tattach(0, m.NOFID, b"u", b"", 0))
        cls = rng.choice(requests)
        message = cls(*[values[kind]() for kind in cls.KINDS])
        sock.sendall(message.encode(5))
        data, ancillary, _, _ = sock.recvmsg(8192, socket.CMSG_SPACE(4))
        for _, _, payload in ancillary:
            for fd in array.array("i", payload[:4]):
                os.close(fd)
        _, reply = m.decode_reply(data)
        assert type(reply) in (m.REPLY_OF[cls], m.Rlerror)
    sock.close()
    assert gofer.wait() == 0
    assert gofer.log() == ""


def test_trickled_and_batched_frames(sock: socket.socket) -> None:
    for byte in m.Tgetattr(0, m.GETATTR_BASIC).encode(3):
        sock.sendall(bytes([byte]))
    answer = receive(sock)
    assert answer is not None and answer[0] == 3 and type(answer[1]) is m.Rgetattr
    sock.sendall(b"".join(m.Twalk(0, 10 + i, []).encode(i) for i in range(200)))
    assert [receive(sock) for _ in range(200)] == [(i, m.Rwalk(())) for i in range(200)]


def test_fid_numbers(sock: socket.socket) -> None:
    bad = m.Rlerror(errno.EBADF)
    assert ask(sock, m.Tattach(0, m.NOFID, b"", b"", 0)) == bad  # in use
    assert ask(sock, m.Twalk(0, m.NOFID, [])) == bad
    assert ask(sock, m.Twalk(9, 10, [])) == bad
    assert ask(sock, m.Tclunk(9)) == bad
    assert ask(sock, m.Twalk(0, 0, [])) == m.Rwalk(())
    assert type(ask(sock, m.Twalk(0, 0, [b"file"]))) is m.Rwalk  # in place
    assert ask(sock, m.Treaddir(0, 0, 100)) == m.Rlerror(errno.ENOTDIR)
    assert ask(sock, m.Tclunk(0)) == m.Rclunk()
    assert ask(sock, m.Tclunk(0)) == bad


def test_open_state(sock: socket.socket) -> None:
    assert type(ask(sock, m.Twalk(0, 1, [b"file"]))) is m.Rwalk
    assert ask(sock, m.Tread(1, 0, 10)) == m.Rlerror(errno.EBADF)
    assert type(ask(sock, m.Tlopen(1, os.O_RDONLY))) is m.Rlopen
    assert ask(sock, m.Tlopen(1, os.O_RDONLY)) == m.Rlerror(errno.EBUSY)
    assert ask(sock, m.Twrite(1, 0, b"x")) == m.Rlerror(errno.EBADF)
    assert ask(sock, m.Tread(1, (1 << 63) - 1, 10)).__class__ in (m.Rread, m.Rlerror)
    assert ask(sock, m.Tread(1, 0, 0xFFFFFFFF)) == m.Rread(b"content")
    assert ask(sock, m.Tlopen(0, os.O_WRONLY | os.O_RDWR)).__class__ is m.Rlerror


def test_fid_limit(start: Any, tree: Path) -> None:
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard > 100_000:
        pytest.skip("too many descriptors to exhaust")
    gofer = start(Export(b"", str(tree)))
    client = gofer.client()
    root, _ = client.run(client.attach())
    held = []
    with pytest.raises(SysError) as caught:
        while True:
            held.append(client.run(client.walk(root, []))[0])
    assert caught.value.errno == errno.EMFILE
    assert len(held) > 64
    for fid in held[:10]:
        client.clunk(fid)
    client.run(client.walk(root, []))
    client.close()


def test_descriptors_that_nobody_asked_for(gofer: Any, sock: socket.socket) -> None:
    """They are closed: sending more of them than the Gofer may hold open does no harm."""
    before = len(os.listdir(f"/proc/{gofer.pid}/fd")) if os.getuid() == 0 else 0
    null = os.open("/dev/null", os.O_RDONLY)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", null))]
    for _ in range(100):
        sock.sendmsg([m.Tflush(0).encode(1)], rights)
        assert receive(sock) == (1, m.Rflush())
    assert ask(sock, m.Treopen()) == m.Rlerror(errno.EOPNOTSUPP)
    sock.sendmsg([m.Treopen().encode(1)], rights)
    assert receive(sock) == (1, m.Rlerror(errno.EPERM))
    ask(sock, m.Tflush(0))  # it closes a descriptor behind the reply
    if before:
        assert len(os.listdir(f"/proc/{gofer.pid}/fd")) == before
    os.close(null)


def test_xattr_memory_is_bounded(sock: socket.socket) -> None:
    created = 0
    for fid in range(1, 200):
        ask(sock, m.Twalk(0, fid, [b"file"]))
        created += type(ask(sock, m.Txattrcreate(fid, b"user.a", 65536, 0))) is m.Rxattrcreate
    assert created == 64
    assert ask(sock, m.Twrite(1, 1, b"x")) == m.Rlerror(errno.EINVAL)
    assert ask(sock, m.Tclunk(1)) == m.Rlerror(errno.EINVAL)  # less was written than was announced
    assert type(ask(sock, m.Txattrcreate(199, b"user.a", 1, 0))) is m.Rxattrcreate


def test_a_bug_is_eio_and_a_line(start: Any, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gofer import session

    def broken(self: Any, message: m.Message) -> m.Message:
        raise KeyError("oops")

    monkeypatch.setitem(session._HANDLERS, m.Tflush, broken)
    gofer = start(Export(b"", str(tree)))
    assert ask(gofer.sock, m.Tversion(8192, m.VERSION_L)) == m.Rversion(8192, m.VERSION_L)
    assert ask(gofer.sock, m.Tflush(1)) == m.Rlerror(errno.EIO)
    assert ask(gofer.sock, m.Tclunk(1)) == m.Rlerror(errno.EBADF)
    gofer.sock.close()
    assert gofer.wait() == 0
    assert gofer.log() == "gofer: bug while serving Tflush: KeyError: 'oops'\n"
