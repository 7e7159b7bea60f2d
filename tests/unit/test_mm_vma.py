"""The VMA tree against a dictionary of pages."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sentry.mm.vma import Vma, VmaTree, joins

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


def check(tree: VmaTree, model: dict, files: list[Backing]) -> None:
    seen = {}
    for left, right in zip(tree.vmas, tree.vmas[1:], strict=False):
        assert left.end <= right.start
        assert not joins(left, right)
    for vma in tree:
        assert vma.start < vma.end and vma.start % PAGE == 0 and vma.end % PAGE == 0
        for page in range(vma.start, vma.end, PAGE):
            seen[page // PAGE] = (vma.flags, vma.file, vma.offset_of(page))
    assert seen == model
    for file in files:
        assert file.refs == sum(1 for vma in tree if vma.file is file)
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
    tree, model, files = VmaTree(), {}, [Backing(), Backing()]
    for kind, first, count, flags, which, offset in operations:
        start, end = first * PAGE, (first + count) * PAGE
        pages = range(first, first + count)
        if kind in ("map", "remove"):
            for vma in tree.remove(start, end):
                assert start <= vma.start < vma.end <= end
                if vma.file is not None:
                    vma.file.put()
            for page in pages:
                model.pop(page, None)
        if kind == "map":
            file = None if which is None else files[which].get()
            at = offset * PAGE if file else 0
            vma = tree.insert(Vma(start, end, flags, file, at))
            assert vma.start <= start and vma.end >= end
            for page in pages:
                model[page] = (flags, file, at + (page - first) * PAGE if file else 0)
        elif kind == "flags":
            for vma in tree.isolate(start, end):
                vma.flags = flags
            tree.join(start, end)
            for page in pages:
                if page in model:
                    model[page] = (flags, *model[page][1:])
        check(tree, model, files)
        assert tree.covers(start, end) == all(page in model for page in pages)
