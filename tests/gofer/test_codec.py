"""The codec: every message survives the round trip, and no bytes raise anything but ProtocolError."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gofer import messages as m
from gofer.codec import Attr, Message, ProtocolError, Qid

MESSAGES = sorted(Message.__subclasses__(), key=lambda cls: cls.TYPE)


def uint(bits: int) -> st.SearchStrategy[int]:
    return st.integers(0, (1 << bits) - 1)


names = st.binary(min_size=1, max_size=255).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)
qids = st.tuples(uint(8), uint(32), uint(64)).map(Qid)
times = st.integers(-9_000_000_000 * 10**9, 9_000_000_000 * 10**9)
attrs = st.builds(
    Attr,
    qids,
    uint(16),
    uint(32),
    uint(32),
    uint(63),
    uint(63),
    uint(63),
    uint(32),
    uint(63),
    times,
    times,
    times,
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "u8": uint(8),
    "u16": uint(16),
    "u32": uint(32),
    "u64": uint(64),
    "off": uint(63),
    "bool": uint(1),
    "string": st.binary(max_size=300),
    "name": names,
    "path": st.binary(min_size=1, max_size=4095).filter(lambda path: b"\0" not in path),
    "link": st.binary(max_size=4095).filter(lambda path: b"\0" not in path),
    "names": st.lists(names, max_size=16).map(tuple),
    "manynames": st.lists(names, max_size=64).map(tuple),
    "qid": qids,
    "qids": st.lists(qids, max_size=16).map(tuple),
    "attr": attrs,
    "attrs": st.lists(attrs, max_size=16).map(tuple),
    "data": st.binary(max_size=2000),
}
any_message = st.sampled_from(MESSAGES).flatmap(
    lambda cls: st.builds(cls, *[FIELDS[kind] for kind in cls.KINDS])
)


@pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.__name__)
def test_every_message_round_trips(cls: type[Message]) -> None:
    @given(st.builds(cls, *[FIELDS[kind] for kind in cls.KINDS]), uint(16))
    def check(message: Message, tag: int) -> None:
        frame = message.encode(tag)
        assert int.from_bytes(frame[:4], "little") == len(frame)
        assert m.decode(frame) == (tag, message)
        assert type(m.decode(frame)[1]) is cls
        decode = m.decode_request if cls.__name__[0] == "T" else m.decode_reply
        other = m.decode_reply if cls.__name__[0] == "T" else m.decode_request
        assert decode(frame) == (tag, message)
        with pytest.raises(ProtocolError):
            other(frame)

    check()


@given(st.binary(max_size=300))
def test_random_bytes(data: bytes) -> None:
    for decode in (m.decode, m.decode_request, m.decode_reply, m.decode_dirents):
        try:
            decode(data)
        except ProtocolError as exc:
            assert exc.errno


@given(st.sampled_from(MESSAGES), st.binary(max_size=300))
def test_random_bodies(cls: type[Message], body: bytes) -> None:
    frame = (7 + len(body)).to_bytes(4, "little") + bytes([cls.TYPE]) + b"\0\0" + body
    try:
        _, message = m.decode(frame)
    except ProtocolError:
        return
    # What decodes is what would have been sent, but for times beyond the limit and unused fields.
    assert m.decode(message.encode(0)) == (0, message)


@given(any_message, st.data())
def test_truncated_and_padded(message: Message, data: st.DataObject) -> None:
    frame = message.encode(1)
    cut = data.draw(st.integers(0, len(frame) - 1))
    with pytest.raises(ProtocolError):
        m.decode(frame[:cut])
    if cut >= 7:
        with pytest.raises(ProtocolError):
            m.decode(cut.to_bytes(4, "little") + frame[4:cut])
    longer = (len(frame) + 1).to_bytes(4, "little") + frame[4:] + b"x"
    with pytest.raises(ProtocolError):
        m.decode(longer)


@given(any_message, st.data())
def test_flipped_bytes(message: Message, data: st.DataObject) -> None:
    frame = bytearray(message.encode(1))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    try:
        m.decode(bytes(frame))
    except ProtocolError:
        pass


@pytest.mark.parametrize(
    ("name", "error"),
    [
        (b"", errno.EINVAL), (b".", errno.EINVAL), (b"..", errno.EINVAL), (b"a/b", errno.EINVAL),
        (b"a\0b", errno.EINVAL), (b"x" * 256, errno.ENAMETOOLONG),
    ],
)  # fmt: skip
def test_bad_names(name: bytes, error: int) -> None:
    body = (
        (1).to_bytes(4, "little")
        + (2).to_bytes(4, "little")
        + b"\1\0"
        + len(name).to_bytes(2, "little")
        + name
    )
    frame = (7 + len(body)).to_bytes(4, "little") + bytes([m.Twalk.TYPE]) + b"\0\0" + body
    with pytest.raises(ProtocolError) as caught:
        m.decode(frame)
    assert caught.value.errno == error
    with pytest.raises(ProtocolError):
        m.Twalk(1, 2, [name]).encode(0)


def test_bounds() -> None:
    with pytest.raises(ProtocolError):
        m.Twalk(1, 2, [b"x"] * 17).encode(0)
    with pytest.raises(ProtocolError):
        m.Tread(1, 1 << 63, 1).encode(0)
    with pytest.raises(TypeError):
        m.Tread(1, 2)


dirents = st.lists(
    st.tuples(qids, uint(63), st.integers(0, 15), names | st.sampled_from([b".", b".."])), max_size=20
)


@given(dirents)
def test_dirents_round_trip(entries: list[tuple[Qid, int, int, bytes]]) -> None:
    assert m.decode_dirents(b"".join([m.encode_dirent(*entry) for entry in entries])) == entries


def test_layout_is_that_of_the_wire() -> None:
    """Frames written by hand from the protocol's description."""
    assert (
        m.Tversion(8192, b"9P2000.L").encode(0xFFFF)
        == bytes.fromhex("15000000 64 ffff 00200000 0800") + b"9P2000.L"
    )
    assert (
        m.Twalk(1, 2, [b"etc"]).encode(3)
        == bytes.fromhex("16000000 6e 0300 01000000 02000000 0100 0300") + b"etc"
    )
    assert m.Rlopen(Qid((0x80, 1, 2)), 4096).encode(5) == bytes.fromhex(
        "18000000 0d 0500 80 01000000 0200000000000000 00100000"
    )
    assert m.Rlerror(2).encode(1) == bytes.fromhex("0b000000 07 0100 02000000")
    assert len(m.Rgetattr(0, Attr(Qid((0, 0, 0)), *[0] * 11)).encode(0)) == 160  # P9 Rgetattr: 7 + 153


@pytest.mark.parametrize("target", [b"a\0b", b"x" * 4096])
def test_a_look_tells_no_target_that_readlink_could_not(target: bytes) -> None:
    good = m.Rlook(0, [], b"y" * len(target), 0)
    with pytest.raises(ProtocolError):
        m.Rlook(0, [], target, 0).encode(1)
    if len(target) < 4096:
        frame = good.encode(1)
        with pytest.raises(ProtocolError):
            m.decode_reply(frame.replace(b"y" * len(target), target))
