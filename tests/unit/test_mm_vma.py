"""The VMA tree against a dictionary of pages."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from sentry.abi import mman
from sentry.mm import Commit
from sentry.mm.vma import Vma, VmaTree
from sentry.platform.base import GUEST_TOP

PAGE = 4096
PAGES = 24


class Backing:
    def __init__(self) -> None:
        self.refs = 0

    def get(self):
        self.refs += 1
        return self

    def put(self) -> None:
        self.refs -= 1


OPERATION = st.tuples(
    st.sampled_from(["map", "remove", "flags"]),
    st.integers(0, PAGES - 1),
    st.integers(1, 8),
    st.sampled_from([1, 3, 5]),
    st.sampled_from([None, 0, 1]),
    st.integers(0, 3),
)


def joins(left: Vma, right: Vma) -> bool:
    """Whether one mapping could describe both."""
    return (
        left.end == right.start
        and left.flags == right.flags
        and left.file is right.file
        and (left.file is None or left.offset + left.size == right.offset)
    )


def check(tree: VmaTree, model: dict, files: list[Backing]) -> None:
    seen = {}
    for left, right in zip(tree.vmas, tree.vmas[1:], strict=False):
        assert left.end <= right.start
        assert not joins(left, right)
    for vma in tree:
        assert vma.start < vma.end and vma.start % PAGE == 0 and vma.end % PAGE == 0
        for page in range(vma.start, vma.end, PAGE):
            seen[page // PAGE] = (vma.flags & ~mman.VM_PRISTINE, vma.file, vma.offset_of(page))
    assert seen == model
    for file in files:
        assert file.refs == any(vma.file is file for vma in tree)
    for page in range(PAGES + 1):
        vma = tree.at(page * PAGE)
        assert (vma is not None) == (page in model)
        after = tree.find(page * PAGE)
        higher = [p for p in model if p >= page]
        assert (after is None) == (not higher)
        if after is not None:
            assert max(after.start // PAGE, page) == min(higher)


@settings(max_examples=300, deadline=None)
@given(st.lists(OPERATION, max_size=30))
def test_against_pages(operations):
    commit = Commit()
    tree, model, files = VmaTree(commit.c), {}, [Backing(), Backing()]
    for kind, first, count, flags, which, offset in operations:
        start, end = first * PAGE, (first + count) * PAGE
        pages = range(first, first + count)
        if kind in ("map", "remove"):
            assert tree.remove(start, end) == any(page in model for page in pages)
            for page in pages:
                model.pop(page, None)
        if kind == "map":
            file = None if which is None else files[which]
            at = offset * PAGE if file else 0
            tree.insert(Vma(start, end, flags, file, at))
            for page in pages:
                model[page] = (flags, file, at + (page - first) * PAGE if file else 0)
        elif kind == "flags":
            tree.set_flags(start, end, 0xFF, flags)
            for page in pages:
                if page in model:
                    model[page] = (flags, *model[page][1:])
        check(tree, model, files)
        assert tree.covers(start, end) == all(page in model for page in pages)
        flagged = [vma for vma in tree.overlapping(start, end) if vma.flags & 2]
        assert tree.flagged(start, end, 2) == ((flagged[0].start, flagged[0].end) if flagged else None)
        assert tree.c.total_vm == len(model) * PAGE
    tree.clear()
    assert not any(file.refs for file in files) and commit.used == 0


def test_the_engine_knows_the_same_numbers():
    """csrc/engine/mman.h repeats what sentry.abi.mman and others say."""
    header = Path(__file__).resolve().parents[2] / "csrc/engine/mman.h"
    known = {name: value for name, value in vars(mman).items() if isinstance(value, int)}
    known |= {"GUEST_TOP": GUEST_TOP, "GUEST_PAGE": mman.PAGE_SIZE}
    checked = 0
    for line in header.read_text().splitlines():
        words = line.split()
        if words[:1] == ["#define"] and words[1] in known:
            assert int(words[2].rstrip("ul"), 0) == known[words[1]], words[1]
            checked += 1
    assert checked >= 14
