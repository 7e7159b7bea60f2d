"""An AddressSpace in a dictionary of pages: the twin of a platform for tests of sentry.mm."""

from __future__ import annotations

import errno
import os

from sentry.abi.errors import SysError
from sentry.abi.mman import PAGE_SIZE
from sentry.platform.base import AddressSpace, Thread


class Page:
    """One page: contents, protection; `shared` is (fd, offset) of what it is a window on."""

    __slots__ = ("data", "prot", "shared")

    def __init__(self, prot: int, data: bytes = b"", shared: tuple[int, int] | None = None) -> None:
        self.prot = prot
        self.data = bytearray(data.ljust(PAGE_SIZE, b"\0"))
        self.shared = shared

    def copy(self) -> Page:
        return Page(self.prot, bytes(self.data), self.shared)


class FakeThread(Thread):
    def __init__(self, space: FakeSpace) -> None:
        self.space = space
        self.regs = None
        self.owner = None

    def resume(self) -> None: ...
    def set_files(self, table: object) -> None: ...
    def set_fs(self, context: object) -> None: ...
    def set_cred(self, cred: object) -> None: ...
    def kick(self) -> None: ...
    def set_pending(self, bits: int) -> None: ...
    def set_patches(self, table: object) -> None: ...
    def exit(self, all_go=False) -> None: ...
    def get_fpstate(self) -> bytes:
        return b""

    def set_fpstate(self, data: bytes) -> None: ...
    def reset_fpstate(self) -> None: ...


class FakeSpace(AddressSpace):
    def __init__(self) -> None:
        self.pages: dict[int, Page] = {}
        self.destroyed = False
        self.calls: list[tuple[object, ...]] = []
        #: When set, the next mapping fails with it.
        self.fail: int | None = None

    def _range(self, addr: int, size: int) -> range:
        assert addr % PAGE_SIZE == 0 and size % PAGE_SIZE == 0 and size > 0, (hex(addr), hex(size))
        return range(addr, addr + size, PAGE_SIZE)

    def _maybe_fail(self) -> None:
        if self.fail is not None:
            number, self.fail = self.fail, None
            raise SysError(number)

    def map_anon(self, addr: int, size: int, prot: int, noreserve: bool = False) -> None:
        self._maybe_fail()
        for page in self._range(addr, size):
            self.pages[page] = Page(prot)

    def map_file(self, addr: int, size: int, prot: int, shared: bool, host_fd: int, offset: int) -> None:
        self._maybe_fail()
        for page in self._range(addr, size):
            at = offset + page - addr
            if shared:
                self.pages[page] = Page(prot, shared=(host_fd, at))
            else:
                self.pages[page] = Page(prot, os.pread(host_fd, PAGE_SIZE, at))

    def unmap(self, addr: int, size: int) -> None:
        for page in self._range(addr, size):
            self.pages.pop(page, None)

    def protect(self, addr: int, size: int, prot: int) -> None:
        for page in self._range(addr, size):
            self.pages[page].prot = prot

    def remap(self, old: int, old_size: int, new: int, new_size: int) -> None:
        self._maybe_fail()
        moved = [self.pages.pop(page) for page in self._range(old, old_size)]
        for page, content in zip(self._range(new, new_size), moved, strict=False):
            self.pages[page] = content
        last = moved[-1]
        for page in self._range(new, new_size)[len(moved) :]:
            assert new != old or page not in self.pages
            shared = None
            if last.shared is not None:
                shared = (last.shared[0], last.shared[1] + page - new - (len(moved) - 1) * PAGE_SIZE)
            self.pages[page] = Page(last.prot, shared=shared)

    def advise(self, addr: int, size: int, advice: int) -> None:
        self.calls.append(("advise", addr, size, advice))
        if advice == 4:
            for page in self._range(addr, size):
                if self.pages[page].shared is None:
                    self.pages[page].data = bytearray(PAGE_SIZE)

    def _bytes(self, addr: int, prot: int) -> Page:
        page = self.pages.get(addr & -PAGE_SIZE)
        if page is None or not page.prot & prot:
            raise SysError(errno.EFAULT)
        return page

    def read(self, addr: int, size: int) -> bytes:
        data = self.read_upto(addr, size)
        if len(data) < size:
            raise SysError(errno.EFAULT)
        return data

    def read_upto(self, addr: int, size: int) -> bytes:
        data = b""
        while len(data) < size:
            at = addr + len(data)
            inside = at % PAGE_SIZE
            want = min(size - len(data), PAGE_SIZE - inside)
            try:
                page = self._bytes(at, 1)
            except SysError:
                if data:
                    return data
                raise
            if page.shared is not None:
                fd, offset = page.shared
                data += os.pread(fd, want, offset + inside).ljust(want, b"\0")
            else:
                data += page.data[inside : inside + want]
        return data

    def write(self, addr: int, data: bytes | bytearray | memoryview) -> None:
        if self.write_upto(addr, data) < len(data):
            raise SysError(errno.EFAULT)

    def write_upto(self, addr: int, data: bytes | bytearray | memoryview) -> int:
        done = 0
        while done < len(data):
            at = addr + done
            inside = at % PAGE_SIZE
            piece = bytes(data[done : done + PAGE_SIZE - inside])
            try:
                page = self._bytes(at, 2)
            except SysError:
                if done:
                    return done
                raise
            if page.shared is not None:
                os.pwrite(page.shared[0], piece, page.shared[1] + inside)
            else:
                page.data[inside : inside + len(piece)] = piece
            done += len(piece)
        return done

    def cmpxchg32(self, addr: int, expected: int, new: int) -> int:
        old = int.from_bytes(self.read(addr, 4), "little")
        if old == expected:
            self.write(addr, new.to_bytes(4, "little"))
        return old

    def fork(self, thread: Thread, memory: tuple[int, int, int] | None = None) -> Thread:
        copy = FakeSpace()
        copy.pages = {addr: page.copy() for addr, page in self.pages.items()}
        if memory is not None:
            copy.map_anon(*memory)
        return FakeThread(copy)

    def new_thread(self, like: Thread) -> Thread:
        return FakeThread(self)

    def destroy(self) -> None:
        self.destroyed = True
        self.pages.clear()

    def resident(self, addr: int, count: int, stride: int = PAGE_SIZE) -> int:
        return sum(addr + i * stride in self.pages for i in range(count))

    def page_states(self, addr: int, count: int) -> bytes:
        return bytes(addr + i * PAGE_SIZE in self.pages for i in range(count))


class HostFile:
    """A regular host file as sentry.mm wants files: readable, writable, counted."""

    def __init__(self, path: str | None = None, data: bytes = b"", writable: bool = False) -> None:
        if path is None:
            self.fd = os.memfd_create("test")
            os.pwrite(self.fd, data, 0)
        else:
            self.fd = os.open(path, os.O_RDONLY)
        self.refs = 1
        self.path = None
        self.inode = None
        self.readable = True
        self.writable = writable
        self.write_sealed = False

    def get(self) -> HostFile:
        self.refs += 1
        return self

    def put(self) -> None:
        self.refs -= 1
        if not self.refs:
            os.close(self.fd)

    async def pread(self, size: int, offset: int) -> bytes:
        return os.pread(self.fd, size, offset)

    async def host_mapping(self, shared: bool, writable: bool) -> int | None:
        return self.fd

    async def fsync(self) -> None: ...


def run(coro):
    """The result of a coroutine that never suspends."""
    try:
        coro.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it suspended")
