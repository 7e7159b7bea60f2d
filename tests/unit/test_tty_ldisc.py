"""The line discipline does what the host's does: on a host pty the same bytes and modes give the same."""

from __future__ import annotations

import errno
import fcntl
import os
import select

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentry.abi import termios as t
from sentry.abi.ioctl import FIONREAD, TCGETS, TCSETS
from sentry.fs.devpts.ldisc import LineDiscipline
from sentry.fs.devpts.modes import Termios, initial

PATIENCE_MS = 200


class HostPty:
    """A pty of the host, neither side blocking."""

    def __init__(self):
        self.master, self.slave = os.openpty()
        for fd in (self.master, self.slave):
            os.set_blocking(fd, False)

    def close(self):
        os.close(self.master)
        os.close(self.slave)

    def receive_output(self, expected):
        """Everything the master can read, after waiting for `expected` bytes: echo comes asynchronously."""
        data = b""
        poll = select.poll()
        poll.register(self.master, select.POLLIN)
        while poll.poll(PATIENCE_MS if len(data) < expected else 0):
            data += os.read(self.master, 65536)
        return data

    def wait_input(self, count):
        """Until the slave's discipline holds `count` readable bytes."""
        poll = select.poll()
        poll.register(self.slave, select.POLLIN)
        for _ in range(60):
            poll.poll(0)  # flushes what is on its way
            if int.from_bytes(fcntl.ioctl(self.slave, FIONREAD, bytes(4)), "little") == count:
                return
            select.select([], [], [], 0.005)

    def set_modes(self, termios):
        fcntl.ioctl(self.slave, TCSETS, termios.pack(TCGETS))

    def read(self, size):
        try:
            return os.read(self.slave, size)
        except OSError as error:
            return error.errno

    def write(self, data):
        try:
            return os.write(self.slave, data)
        except OSError as error:
            return error.errno


class Ours:
    def __init__(self):
        self.signals = []
        self.ldisc = LineDiscipline(self.signals.append, lambda: None, lambda: None)

    def read(self, size):
        ldisc = self.ldisc
        if not ldisc.available():
            lflag = ldisc.termios.lflag
            return b"" if not lflag & t.ICANON and not ldisc.termios.cc[t.VMIN] else errno.EAGAIN
        return ldisc.read(size)

    def write(self, data):
        return self.ldisc.write(data) or errno.EAGAIN


def check(steps):
    """Run the steps on both.  The host's input is processed by a worker that nothing can be asked to wait
    for, so a difference counts only if it shows again when the worker is given time after each step."""
    try:
        run(steps, 0)
    except AssertionError:
        run(steps, 0.03)


def run(steps, pause):
    host, ours = HostPty(), Ours()
    try:
        for kind, value in steps:
            if kind == "modes":
                host.set_modes(value)
                ours.ldisc.set_termios(ours.ldisc.termios.changed(TCSETS, value.pack(TCGETS)))
            elif kind == "type":
                assert ours.ldisc.receive(value) == len(value)
                assert os.write(host.master, value) == len(value)
            elif kind == "print":
                assert ours.write(value) == host.write(value)
            select.select([], [], [], pause)
            out = ours.ldisc.take_output(1 << 20)
            assert host.receive_output(len(out)) == out
            if kind == "type":
                host.wait_input(ours.ldisc.count())
            if kind == "read":
                got = ours.read(value)
                assert host.read(value) == got
                out = ours.ldisc.take_output(1 << 20)
                assert host.receive_output(len(out)) == out
    finally:
        host.close()


IFLAGS = (t.ISTRIP, t.INLCR, t.IGNCR, t.ICRNL, t.IUCLC, t.IXON, t.IXANY, t.IUTF8, t.PARMRK)
OFLAGS = (t.OPOST, t.OLCUC, t.ONLCR, t.OCRNL, t.ONOCR, t.ONLRET, t.XTABS)
LFLAGS = (t.ICANON, t.ECHO, t.ECHOE, t.ECHOK, t.ECHONL, t.ECHOCTL, t.ECHOPRT, t.ECHOKE, t.IEXTEN, t.ISIG)
KEYS = b"\x03\x04\x7f\x15\x17\x16\x12\x11\x13\x1a\x1c\r\n\t\b\x00\xff\x01/ ab_Z9\xc3\xa9\xe2\x82\xac\xa9|"


def flags(choices):
    return st.sets(st.sampled_from(choices)).map(sum)


@st.composite
def modes(draw):
    base = initial()
    cc = bytearray(base.cc)
    cc[t.VMIN] = draw(st.sampled_from([0, 1, 3]))
    cc[t.VEOL] = draw(st.sampled_from([0, 0x7C]))
    cc[t.VEOL2] = draw(st.sampled_from([0, 0xFF]))
    iflag, oflag, lflag = draw(flags(IFLAGS)), draw(flags(OFLAGS)), draw(flags(LFLAGS))
    if draw(st.booleans()):
        iflag, oflag, lflag = iflag | base.iflag, oflag | base.oflag, lflag | base.lflag
    # Without NOFLSH a signal drops echoes that the host may, or may not, have passed on already.
    return Termios(iflag, oflag, base.cflag, lflag | t.NOFLSH, 0, bytes(cc))


keys = st.lists(st.sampled_from(KEYS), min_size=1, max_size=30).map(bytes)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("type"), keys),
        st.tuples(st.just("type"), keys),
        st.tuples(st.just("print"), keys),
        st.tuples(st.just("read"), st.sampled_from([1, 3, 7, 100])),
        st.tuples(st.just("modes"), modes()),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(modes(), steps)
def test_like_the_host(first, rest):
    check([("modes", first), *rest])


@settings(max_examples=80, deadline=None)
@given(steps)
def test_like_the_host_from_the_initial_modes(rest):
    plain = [step for step in rest if step[0] != "modes"]
    base = initial()
    first = Termios(base.iflag, base.oflag, base.cflag, base.lflag | t.NOFLSH, 0, base.cc)
    check([("modes", first), *plain])


def test_initial_modes_are_the_host_s():
    host = HostPty()
    try:
        assert initial().pack(TCGETS) == fcntl.ioctl(host.slave, TCGETS, bytes(36))
    finally:
        host.close()


@pytest.mark.parametrize("tail", [b"", b"\n", b"more\n", b"\x7f\x7f\n"])
def test_a_line_is_limited(tail):
    check([("type", b"x" * 4090), ("type", b"abcdefghij" + tail), ("read", 5000), ("read", 5000)])


def test_lines_and_ends_of_file():
    typed = b"hello\x04" + b"x\n" + b"\x04" + b"a" * 64 + b"\x04" + b"end\n"
    check([("type", typed), *[("read", size) for size in (5, 1, 1, 9, 64, 2, 99, 99)]])


def test_signal_characters():
    ours = Ours()
    assert ours.ldisc.receive(b"lost\x03\x1c\x1akept\n") == 12
    assert ours.signals == [2, 3, 20]
    assert ours.ldisc.read(99) == b"kept\n"
    assert ours.ldisc.take_output(99) == b"^Zkept\r\n"


def test_stop_and_start():
    ours = Ours()
    ours.ldisc.receive(b"\x13abc")
    assert ours.write(b"out") == errno.EAGAIN
    assert not ours.ldisc.output
    ours.ldisc.receive(b"\x11")
    assert ours.ldisc.take_output(99) == b"abc"
    assert ours.write(b"out") == 3


def test_input_waits_when_there_is_no_room():
    ours = Ours()
    raw = Termios(0, 0, initial().cflag, 0)
    ours.ldisc.set_termios(raw)
    taken = ours.ldisc.receive(bytes(20000))
    assert taken == 16384
    for _ in range(4):
        assert len(ours.ldisc.read(20000)) == 4095
    assert len(ours.ldisc.read(20000)) == 4
    assert not ours.ldisc.available()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.one_of(st.tuples(st.just("type"), st.binary(max_size=300)), st.tuples(st.just("modes"), modes()))
    )
)
def test_any_bytes_keep_the_limits(rest):
    ours = Ours()
    for kind, value in rest:
        if kind == "modes":
            ours.ldisc.set_termios(value)
        else:
            ours.ldisc.receive(value)
        assert ours.ldisc.room >= 0 and len(ours.ldisc.output) <= 16384
        assert ours.ldisc.count() >= 0
        while ours.ldisc.available():
            ours.ldisc.read(50)
