"""Mappings of an address space: Vma (struct vm_area_struct) and VmaTree, the ordered set of them.

Invariants of the tree: mappings are page aligned, not empty, do not overlap, and stand in order of
address; neighbours that could be one mapping are one (unless a mapping must keep its identity,
VM_DONTEXPAND).  The tree holds one reference to a file for all the mappings of it that there are.

The tree itself is a struct mm of the engine (csrc/abi/mm.h), which changes it for the calls that it
answers without Python.  A Vma is a picture of a mapping at the moment when it was asked for.
"""

from __future__ import annotations

import errno

from sentry._engine import ffi, lib
from sentry.abi.errors import SysError
from sentry.platform import queue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any


class Objects(dict[int, "Any"]):
    """What mappings refer to by number: files, SharedAnonymous and names."""

    #: Get to know the numbers that the engine has given (fs/spare.py).
    meet: Callable[[], None]

    def __missing__(self, number: int) -> Any:
        Objects.meet()
        if number not in self:
            raise KeyError(number)
        return self[number]


_objects = Objects({0: None})
_numbers: dict[Any, int] = {}
_NO_NAME = b""


def number_of(thing: Any) -> int:
    """The number of a file or name, 0 if no mapping refers to it."""
    return _numbers.get(thing, 0)


def take_number(thing: Any) -> int:
    """The number of a file or name (0 for none), with a reference that `mm_object_put` gives back."""
    if not thing:
        return 0
    number = _numbers.get(thing)
    if number is not None:
        lib.mm_object_get(number)
        return number
    made: int = lib.mm_object_new()
    if not made:
        raise SysError(errno.ENOMEM)
    _numbers[thing] = made
    _objects[made] = thing
    if type(thing) is not bytes:
        thing.get()
        vfile = getattr(thing, "c", None)
        if vfile is not None:
            lib.mm_object_bind(made, vfile)
            if thing.path is not None:
                vfile.mount = thing.path.mount.c
    return made


def lend_number(file: Any) -> None:
    """`file` is spare from now on (fs/spare.py): the engine may map it, and need not tell of it."""
    number: int = lib.mm_object_new()
    if number:
        lib.mm_object_bind(number, file.c)
        lib.mm_object_put(number)
        note_number(file)


def note_number(file: Any) -> None:
    """The spare `file` has a number, from `lend_number` or from the engine."""
    _numbers[file] = file.c.number
    _objects[file.c.number] = file


def end_loan(file: Any) -> bool:
    """`file` is spare no more.  Whether it is mapped; then a reference to it belongs to its mappings."""
    if lib.mm_object_drop(file.c.number):
        return True
    number = _numbers.pop(file, 0)
    if number:
        del _objects[number]
    return False


def let_go() -> None:
    """Put the files to which the last mapping has gone."""
    while number := lib.mm_dead_object():
        thing = _objects.pop(number)
        del _numbers[thing]
        if type(thing) is not bytes:
            thing.put()


queue.and_then.append(let_go)


class Vma:
    """[start, end) with one protection and one origin."""

    __slots__ = ("end", "file", "flags", "name", "offset", "start")

    def __init__(
        self, start: int, end: int, flags: int, file: Any = None, offset: int = 0, name: bytes = b""
    ) -> None:
        self.start = start
        self.end = end
        #: VM_* bits.
        self.flags = flags
        #: A File or SharedAnonymous, None for private anonymous memory.
        self.file = file
        #: Bytes into `file` at `start`; meaningless without one.
        self.offset = offset
        #: As /proc/PID/maps shows it, where that doesn't follow from file or place: [vdso], [anon:…].
        self.name = name

    @property
    def prot(self) -> int:
        """PROT_* as they are now."""
        return self.flags & 7

    @property
    def max_prot(self) -> int:
        """PROT_* that mprotect(2) may give."""
        return self.flags >> 4 & 7

    @property
    def size(self) -> int:
        return self.end - self.start

    def offset_of(self, addr: int) -> int:
        """Offset into the file at `addr` (0 for anonymous memory)."""
        return self.offset + addr - self.start if self.file is not None else 0

    def __repr__(self) -> str:
        origin = f"{self.file!r}, {self.offset:#x}, {self.name!r}"
        return f"Vma({self.start:#x}, {self.end:#x}, {self.flags:#x}, {origin})"


def _picture(c: Any) -> Vma:
    return Vma(c.start, c.end, c.flags, _objects[c.file], c.offset, _objects[c.name] or _NO_NAME)


class VmaTree:
    """The mappings of one address space in order of address."""

    __slots__ = ("c",)

    def __init__(self, commit: Any = ffi.NULL) -> None:
        """`commit`: the struct commit that is charged."""
        c = lib.mm_new(commit)
        if not c:
            raise SysError(errno.ENOMEM)
        #: struct mm.
        self.c: Any = ffi.gc(c, lib.mm_free)

    @property
    def vmas(self) -> list[Vma]:
        c = self.c
        return [_picture(vma) for vma in c.vmas[0 : c.count]] if c.count else []

    def __len__(self) -> int:
        count: int = self.c.count
        return count

    def __iter__(self) -> Iterator[Vma]:
        return iter(self.vmas)

    def find(self, addr: int) -> Vma | None:
        """The first mapping that ends above `addr` (find_vma): it may begin above it, too."""
        c = self.c
        i = lib.mm_index(c, addr)
        return _picture(c.vmas[i]) if i < c.count else None

    def at(self, addr: int) -> Vma | None:
        """The mapping that contains `addr` (vma_lookup)."""
        c = self.c
        i = lib.mm_index(c, addr)
        if i < c.count:
            vma = c.vmas[i]
            if vma.start <= addr:
                return _picture(vma)
        return None

    def nth(self, i: int) -> Vma:
        return _picture(self.c.vmas[i])

    def large(self, size: int, most: int) -> list[int]:
        """Which mappings are larger than `size` bytes, the first `most` of them."""
        found = ffi.new("uint32_t[]", most)
        count = lib.mm_large(self.c, size, found, most)
        return list(found[0:count])

    def flags_at(self, addr: int) -> int:
        """VM_* of the mapping that contains `addr`, 0 if there is none."""
        c = self.c
        i = lib.mm_index(c, addr)
        if i < c.count:
            vma = c.vmas[i]
            if vma.start <= addr:
                flags: int = vma.flags
                return flags
        return 0

    def before(self, addr: int) -> Vma | None:
        """The last mapping that begins below `addr`."""
        if addr <= 0:
            return None
        c = self.c
        i = lib.mm_index(c, addr - 1)
        if i < c.count and c.vmas[i].start < addr:
            return _picture(c.vmas[i])
        return _picture(c.vmas[i - 1]) if i else None

    def above(self, addr: int) -> Iterator[Vma]:
        """Mappings that end above `addr`, in order, as long as the tree stays as it is."""
        c = self.c
        for i in range(lib.mm_index(c, addr), c.count):
            yield _picture(c.vmas[i])

    def overlapping(self, start: int, end: int) -> list[Vma]:
        """Mappings that share a byte with [start, end), in order."""
        c = self.c
        found = []
        for i in range(lib.mm_index(c, start), c.count):
            vma = c.vmas[i]
            if vma.start >= end:
                break
            found.append(_picture(vma))
        return found

    def covers(self, start: int, end: int) -> bool:
        """Whether every page of [start, end) is mapped."""
        return bool(lib.mm_hole(self.c, start, end) == end) if start < end else True

    def flagged(self, start: int, end: int, flags: int) -> tuple[int, int] | None:
        """Start and end of the first mapping that shares a byte with [start, end) and has one of `flags`."""
        c = self.c
        i = lib.mm_flagged(c, start, end, flags)
        return (c.vmas[i].start, c.vmas[i].end) if i < c.count else None

    def insert(self, vma: Vma) -> None:
        """Add a mapping where nothing is; nothing is charged.  SysError(ENOMEM)."""
        file, name = take_number(vma.file), take_number(vma.name)
        offset = vma.offset if file else 0
        result = lib.mm_insert(self.c, vma.start, vma.end, vma.flags, file, offset, name)
        lib.mm_object_put(file)
        lib.mm_object_put(name)
        if result:
            let_go()
            raise SysError(-result)

    def remove(self, start: int, end: int, uncharge: bool = True) -> bool:
        """Take [start, end) out; whether there was something.  SysError(ENOMEM)."""
        result: int = lib.mm_remove(self.c, start, end, uncharge)
        if result > 0:
            let_go()
        elif result:
            raise SysError(-result)
        return bool(result)

    def set_flags(self, start: int, end: int, clear: int, put: int) -> None:
        """Change flags of what is mapped of [start, end).  SysError(ENOMEM)."""
        if result := lib.mm_set_flags(self.c, start, end, clear, put):
            raise SysError(-result)
        let_go()

    def clear(self) -> None:
        """Empty the tree, and give back what was charged."""
        lib.mm_clear(self.c)
        let_go()
