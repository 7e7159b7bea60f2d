"""The ring of a pipe (csrc/engine/pipe.c) against a model that keeps its slots in a list."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from sentry._engine import ffi, lib

PAGE = 4096
SIZES = st.one_of(
    st.integers(0, 20), st.integers(0, 3 * PAGE), st.sampled_from([PAGE - 1, PAGE, PAGE + 1, 65536])
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), SIZES, st.booleans()),
        st.tuples(st.just("put"), SIZES, st.just(False)),
        st.tuples(st.just("take"), SIZES, st.just(False)),
        st.tuples(st.just("copy"), SIZES, st.just(False)),
        st.tuples(st.just("untake"), SIZES, st.just(False)),
        st.tuples(st.just("resize"), st.integers(1, 40), st.just(False)),
    ),
    max_size=60,
)


class Model:
    def __init__(self, max_slots):
        self.max_slots = max_slots
        self.slots = []  # [data, start, packet]

    def put(self, data, packet):
        taken, odd = 0, len(data) % PAGE
        if odd and self.slots and not packet:
            last = self.slots[-1]
            if not last[2] and len(last[0]) + odd <= PAGE:
                last[0] += data[:odd]
                taken = odd
        while taken < len(data) and len(self.slots) < self.max_slots:
            self.slots.append([data[taken : taken + PAGE], 0, packet])
            taken = min(taken + PAGE, len(data))
        return taken

    def take(self, size):
        got = b""
        while self.slots and size > 0:
            slot = self.slots[0]
            piece = slot[0][slot[1] : slot[1] + size]
            got += piece
            size -= len(piece)
            slot[1] += len(piece)
            if slot[2] or slot[1] == len(slot[0]):
                self.slots.pop(0)
            if slot[2]:
                break
        return got

    def untake(self, data):
        self.slots[:0] = [[data[at : at + PAGE], 0, False] for at in range(0, len(data), PAGE)]

    def copy(self, target, size):
        done = 0
        for data, start, packet in self.slots:
            if done == size or len(target.slots) >= target.max_slots:
                break
            piece = data[start : start + size - done]
            target.slots.append([piece, 0, packet])
            done += len(piece)
        return done

    @property
    def size(self):
        return sum(len(data) - start for data, start, _ in self.slots)


def take(c, size):
    buffer = ffi.new("uint8_t[]", max(size, 1))
    return ffi.buffer(buffer, lib.pipe_take(c, buffer, size))[:]


@settings(max_examples=300, deadline=None)
@given(STEPS, st.integers(1, 16))
def test_like_the_model(steps, slots):
    model, other = Model(slots), Model(4)
    c, c_other = ffi.gc(lib.pipe_new(slots), lib.pipe_free), ffi.gc(lib.pipe_new(4), lib.pipe_free)
    for number, (what, size, packet) in enumerate(steps):
        if what == "put":
            data = bytes((number + i) & 0xFF for i in range(size))
            assert lib.pipe_put(c, data, size, packet) == model.put(data, packet)
        elif what == "take":
            assert take(c, size) == model.take(size)
        elif what == "copy":
            assert lib.pipe_copy(c, c_other, size) == model.copy(other, size)
            size = min(size, 5000)
            assert take(c_other, size) == other.take(size)
        elif what == "untake":
            data = bytes((number + i) & 0xFF for i in range(size))
            assert lib.pipe_untake(c, data, size) == 0
            model.untake(data)
        elif size >= len(model.slots):
            assert lib.pipe_resize(c, size) == 0
            model.max_slots = size
        assert (c.size, c.count) == (model.size, len(model.slots))
    assert take(c, 1 << 20) == model.take(1 << 20)
