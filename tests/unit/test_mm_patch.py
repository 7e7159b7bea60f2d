"""CodePatches: what may be patched, where trampolines go, and that the program's own bytes come back."""

from __future__ import annotations

import errno
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))

from fakespace import FakeSpace, FakeThread, HostFile, run
from sentry._engine import ffi, lib

from sentry.abi import mman
from sentry.abi.errors import SysError
from sentry.abi.mman import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, MAP_SHARED, PAGE_SIZE
from sentry.mm import Commit, MemoryManager, advise
from sentry.mm.patch import NAME, CodePatches
from sentry.mm.remap import remap
from sentry.mm.vma import Vma

ENTRY = 0x7FFF_FC00_0800
BASE = 0x5555_0000_0000
RX, RW, RWX = 5, 3, 7
#: Nothing in it looks like a jump.
FILLER = bytes.fromhex("4889c84801d04883c0104831d2")


class CodeSpace(FakeSpace):
    """Executable memory that can be written; `log` has each write, `refuse` the address that fails."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[tuple[int, bytes]] = []
        self.refuse = 0

    def write_code(self, addr: int, data: bytes, prot: int) -> None:
        if addr <= self.refuse < addr + len(data):
            raise SysError(errno.ENOMEM)
        assert prot == RX
        self.log.append((addr, data))
        for n, byte in enumerate(data):
            page = self.pages[addr + n & -PAGE_SIZE]
            assert page.prot & 4
            page.data[(addr + n) % PAGE_SIZE] = byte

    def fork(self, thread, memory=None):
        copy = CodeSpace()
        copy.pages = {addr: page.copy() for addr, page in self.pages.items()}
        return FakeThread(copy)


def text(*sites: tuple[int, bytes]) -> bytes:
    """Four pages of code: at each (offset of the syscall, instruction before) a site."""
    code = bytearray((FILLER * 1300)[: 4 * PAGE_SIZE])
    for offset, insn in sites:
        # The filler may be cut in two: no-ops let decoding find its way.
        start = offset - len(insn)
        code[start - 32 : start] = b"\x90" * 32
        code[start : offset + 3] = insn + b"\x0f\x05\xc3"
        code[offset + 3 : (offset + 18) & ~15] = b"\x90" * (((offset + 18) & ~15) - offset - 3)
    return bytes(code)


MOV = b"\xb8\x01\x00\x00\x00"
XOR = b"\x31\xc0"
LONG, SHORT, SECOND = 0x505, 0x802, PAGE_SIZE + 0x105
CODE = text((LONG, MOV), (SHORT, XOR), (SECOND, MOV))


def regs_at(site: int, number: int):
    return ffi.new("struct guest_regs *", {"rip": site + 2, "orig_rax": number})[0]


def make(prot: int = RX, flags: int = MAP_PRIVATE, code: bytes = CODE, threshold: int = 1):
    mm = MemoryManager(CodeSpace(), Commit())
    file = HostFile(data=code, writable=True)
    run(mm.map(BASE, len(code), prot, flags | MAP_FIXED, file))
    mm.patches = CodePatches(mm, ENTRY, threshold)
    return mm


def trap(mm, offset: int, number: int = 1, base: int = BASE) -> bool:
    """A trap at a site, as the platform will handle it: whether it is patched by that."""
    if not lib.patch_trap(mm.patches.table, base + offset):
        return False
    regs = ffi.new("struct guest_regs *", {"rip": base + offset + 2, "orig_rax": number})
    return mm.patches.consider(regs[0])


def code_of(mm, base: int = BASE, size: int = len(CODE)) -> bytes:
    return b"".join(bytes(mm.space.pages[addr].data) for addr in range(base, base + size, PAGE_SIZE))


def trampolines(mm):
    return [vma for vma in mm.tree if vma.name == NAME]


def jumps_to(mm, addr: int) -> int:
    """Where the jump at `addr` leads."""
    op, *rest = mm.space.read(addr, 5)
    if op == 0xEB:
        return jumps_to(mm, addr + 2 + int.from_bytes(bytes(rest[:1]), "little", signed=True))
    assert op == 0xE9
    return addr + 5 + int.from_bytes(bytes(rest), "little", signed=True)


def test_patch():
    mm = make()
    assert trap(mm, LONG)
    (page,) = trampolines(mm)
    assert page.prot == RX and page.max_prot == RX and page.end <= BASE
    target = jumps_to(mm, BASE + LONG - 5)
    assert page.start < target < page.end
    assert mm.space.read(target, 5) == MOV
    assert int.from_bytes(mm.space.read(page.start, 8), "little") == ENTRY
    assert mm.space.read(BASE + LONG, 2) == b"\x0f\x05"
    # Once is enough, and the second shares the page.
    assert not trap(mm, LONG)
    assert trap(mm, SHORT, 0)
    assert len(trampolines(mm)) == 1 and mm.patches.count == 2
    assert jumps_to(mm, BASE + SHORT - 2) == target + lib.PATCH_SLOT
    for addr, data in mm.space.log:
        assert addr % 8 + len(data) <= 8 or page.start <= addr < page.end


def test_threshold():
    mm = make(threshold=3)
    assert [trap(mm, LONG) for _ in range(5)] == [False, False, True, False, False]


@pytest.mark.parametrize(("prot", "flags"), [(RWX, MAP_PRIVATE), (RX, MAP_SHARED)])
def test_not_there(prot, flags):
    mm = make(prot, flags)
    assert not trap(mm, LONG)
    assert code_of(mm) == CODE if flags == MAP_PRIVATE else not mm.space.log
    assert not trampolines(mm)


def test_nowhere():
    mm = make()
    assert not trap(mm, 0, base=0x1234_5678)
    assert not trap(mm, LONG + 1)
    assert not trap(mm, LONG, 2) and not trap(mm, SHORT, 1)
    assert code_of(mm) == CODE


def test_fork():
    mm = make()
    trap(mm, LONG)
    child, _ = mm.fork(FakeThread(mm.space))
    assert child.patches.count == 1
    assert trap(child, SECOND) and not trap(child, LONG)
    assert mm.patches.count == 1 and child.patches.count == 2
    child.patches.stop()
    assert code_of(child) == CODE and code_of(mm) != CODE
    assert not trap(child, LONG) and not trap(child, SHORT, 0)


def test_fork_without_trampolines():
    """The parent asked that they are not copied, or wiped."""
    for advice in (mman.MADV_DONTFORK, mman.MADV_WIPEONFORK):
        mm = make()
        trap(mm, LONG)
        trap(mm, SHORT, 0)
        advise.advise(mm, trampolines(mm)[0].start, PAGE_SIZE, advice)
        child, _ = mm.fork(FakeThread(mm.space))
        assert code_of(child) == CODE, advice
        assert child.patches.count == 0 and mm.patches.count == 2


def test_unmap_code():
    mm = make()
    trap(mm, LONG)
    trap(mm, SECOND)
    mm.unmap(BASE, PAGE_SIZE)
    assert mm.patches.count == 1
    assert not lib.patch_find(mm.patches.table, BASE + LONG)
    run(mm.map(BASE, len(CODE), RX, MAP_PRIVATE | MAP_FIXED, HostFile(data=CODE)))
    assert mm.patches.count == 0
    # New code at the old place is examined on its own.
    assert trap(mm, LONG) and trap(mm, SECOND)


def test_unmap_trampolines():
    mm = make()
    trap(mm, LONG)
    trap(mm, SHORT, 0)
    page = trampolines(mm)[0]
    mm.unmap(page.start, PAGE_SIZE)
    assert code_of(mm) == CODE and mm.patches.count == 0
    assert not trap(mm, LONG)
    assert trap(mm, SECOND) and trampolines(mm)


def test_map_over_trampolines():
    mm = make()
    trap(mm, LONG)
    page = trampolines(mm)[0]
    run(mm.map(page.start, PAGE_SIZE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED))
    assert code_of(mm) == CODE
    # What is there now is no business of ours.
    regs = regs_at(0, 0)
    regs.rip = page.start + lib.PATCH_SLOT + 8
    assert not mm.patches.settle(regs) and regs.rip == page.start + lib.PATCH_SLOT + 8


@pytest.mark.parametrize("prot", [0, 1, RW, RWX])
def test_protect(prot):
    """Who may write code sees it as it was; executable again, it is examined anew."""
    mm = make()
    trap(mm, LONG)
    trap(mm, SECOND)
    mm.protect(BASE, PAGE_SIZE, prot)
    assert code_of(mm)[:PAGE_SIZE] == CODE[:PAGE_SIZE] and mm.patches.count == 1
    mm.protect(BASE, PAGE_SIZE, RX)
    assert trap(mm, LONG)


def test_protect_trampolines():
    mm = make()
    trap(mm, LONG)
    page = trampolines(mm)[0]
    with pytest.raises(SysError) as caught:
        mm.protect(page.start, PAGE_SIZE, RW)
    assert caught.value.errno == errno.EACCES
    assert mm.patches.count == 1
    mm.protect(page.start, PAGE_SIZE, 0)
    assert code_of(mm) == CODE


def test_move():
    mm = make()
    trap(mm, LONG)
    new = run(
        remap(mm, BASE, len(CODE), len(CODE), mman.MREMAP_MAYMOVE | mman.MREMAP_FIXED, BASE + (1 << 30))
    )
    assert code_of(mm, new) == CODE
    assert mm.patches.count == 0
    assert trap(mm, LONG, base=new)


def test_drop_pages():
    """MADV_DONTNEED brings the file's bytes back, which may hold the padding of a site elsewhere."""
    code = text((PAGE_SIZE - 1 - 0x10, XOR))
    code = code[: PAGE_SIZE - 0xE] + b"\x50" * 0x12 + b"\xc3" + b"\x90" * 11 + code[PAGE_SIZE + 16 :]
    mm = make(code=code)
    assert trap(mm, PAGE_SIZE - 1 - 0x10, 0)
    site = lib.patch_find(mm.patches.table, BASE + PAGE_SIZE - 1 - 0x10)
    assert site.plan.hole >= BASE + PAGE_SIZE
    advise.advise(mm, BASE + PAGE_SIZE, PAGE_SIZE, mman.MADV_DONTNEED)
    assert code_of(mm)[:PAGE_SIZE] == code[:PAGE_SIZE]
    assert mm.patches.count == 0


def test_others_run():
    """With a second task in the address space a jump across words is written in steps."""
    offset = 0x50B  # mov at …06
    mm = make(code=text((offset, MOV)))
    mm.get()
    assert trap(mm, offset)
    steps = [data for addr, data in mm.space.log if BASE <= addr < BASE + len(CODE)]
    assert steps[0] == b"\xeb\xfe" and steps[-1][0] == 0xE9 and len(steps) == 3


def test_host_refuses():
    """Whatever fails, the code is as it was, and nobody waits for a last step."""
    for offset in (0x50A, 0x50B, 0x50C):
        for refuse in range(offset - 5, offset):
            code = text((offset, MOV))
            mm = make(code=code)
            mm.get()
            mm.space.refuse = BASE + refuse
            if not trap(mm, offset):
                assert code_of(mm) == code
                assert mm.patches.count == 0
    mm = make()
    mm.space.fail = errno.ENOMEM  # no page for trampolines
    assert not trap(mm, LONG)
    assert code_of(mm) == CODE


def test_out_of_reach():
    """No room for trampolines within 2 GiB."""
    mm = make()
    for start, end in ((mman.MMAP_MIN_ADDR, BASE), (BASE + len(CODE), BASE + (1 << 33))):
        mm.tree.insert(Vma(start, end, mman.VM_MAYALL))
    assert not trap(mm, LONG)
    assert code_of(mm) == CODE


def test_pages_are_limited(monkeypatch):
    sites = [(0x105 + 0x80 * n, MOV) for n in range(120)]
    mm = make(code=text(*sites))
    assert all(trap(mm, offset) for offset, _ in sites)
    assert len(trampolines(mm)) == 2
    monkeypatch.setattr("sentry.mm.patch.MAX_PAGES", 5)
    for _ in range(5):
        mm.protect(BASE, 4 * PAGE_SIZE, RWX)
        mm.protect(BASE, 4 * PAGE_SIZE, RX)
        for offset, _ in sites:
            trap(mm, offset)
    assert len(trampolines(mm)) == 5
    assert not any(trap(mm, offset) for offset, _ in sites)


def test_settle():
    mm = make()
    trap(mm, LONG)
    tramp = jumps_to(mm, BASE + LONG - 5)
    for rip, expected in (
        (tramp, BASE + LONG - 5),
        (tramp + 5, BASE + LONG),
        (BASE + LONG, BASE + LONG),
        (BASE + LONG - 5, BASE + LONG - 5),
        (ENTRY, ENTRY),
    ):
        regs = regs_at(0, 1)
        regs.rip = rip
        assert not mm.patches.settle(regs)
        assert regs.rip == expected


def test_stop_puts_all_back():
    mm = make()
    trap(mm, LONG)
    trap(mm, SHORT, 0)
    mm.patches.stop()
    assert code_of(mm) == CODE
    mm.get()
    mm = make()
    mm.get()
    trap(mm, LONG)
    trap(mm, SHORT, 0)
    mm.patches.stop()
    # Not alone: somebody may stand in the padding.
    differ = [n for n in range(len(CODE)) if code_of(mm)[n] != CODE[n]]
    assert differ and all(SHORT + 3 <= n < (SHORT + 18 & ~15) for n in differ)
