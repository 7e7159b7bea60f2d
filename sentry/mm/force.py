"""Guest memory for debuggers: accesses that mappings' protections do not stop (FOLL_FORCE in mm/gup.c).

What a program may not read can be read if it might make it readable, and private memory can be written even
if it is read-only: the page becomes a copy.  Shared memory is written only where the program could do so.
So breakpoints go into the text of a program without going into its file.
"""

from __future__ import annotations

import errno

from sentry.abi.errors import SysError
from sentry.abi.mman import (
    PAGE_SIZE,
    PROT_READ,
    PROT_WRITE,
    VM_EXEC,
    VM_MAYREAD,
    VM_MAYWRITE,
    VM_PFNMAP,
    VM_READ,
    VM_SHARED,
    VM_WRITE,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.mm.manager import MemoryManager
    from sentry.mm.vma import Vma


def read_upto(mm: MemoryManager, addr: int, size: int) -> bytes:
    """As many of `size` bytes at `addr` as there are, at least one.  SysError(EFAULT)."""
    pieces: list[bytes] = []
    while size:
        vma = _find(mm, addr)
        if vma is None or not vma.flags & VM_MAYREAD or vma.flags & VM_PFNMAP:
            break
        piece = min(size, vma.end - addr)
        try:
            if vma.flags & VM_READ:
                data = mm.read_upto(addr, piece)
            else:
                piece = min(piece, PAGE_SIZE - addr % PAGE_SIZE)
                data = _read_hidden(mm, vma, addr, piece)
        except SysError:
            break
        pieces.append(data)
        if len(data) < piece:
            break
        addr += piece
        size -= piece
    if size and not pieces:
        raise SysError(errno.EFAULT)
    return b"".join(pieces)


def write_upto(mm: MemoryManager, addr: int, data: bytes) -> int:
    """As much of `data` as can be written, at least one byte: how many.  SysError(EFAULT)."""
    done = 0
    while done < len(data):
        at = addr + done
        vma = _find(mm, at)
        if vma is None or vma.flags & VM_PFNMAP or not vma.flags & (VM_WRITE | VM_MAYWRITE):
            break
        if not vma.flags & VM_WRITE and vma.flags & VM_SHARED:
            break
        try:
            if vma.flags & VM_WRITE and not vma.flags & VM_EXEC:
                piece = data[done : done + vma.end - at]
                mm.space.write(at, piece)
            else:
                piece = data[done : done + PAGE_SIZE - at % PAGE_SIZE]
                _write_page(mm, vma, at, piece)
        except SysError:
            break
        done += len(piece)
    if data and not done:
        raise SysError(errno.EFAULT)
    return done


def _find(mm: MemoryManager, addr: int) -> Vma | None:
    vma = mm.find(addr)
    if vma is None and mm.handle_fault(addr, 6):  # a stack that grows
        vma = mm.find(addr)
    return vma


def _write_page(mm: MemoryManager, vma: Vma, addr: int, data: bytes) -> None:
    """Other threads may execute it meanwhile: by the platform's way of changing code, if it has one."""
    if vma.flags & VM_EXEC:
        try:
            mm.space.write_code(addr, data, vma.prot)
        except SysError as error:
            if error.errno != errno.ENOSYS:
                raise
        else:
            return
    page = addr & -PAGE_SIZE
    mm.space.protect(page, PAGE_SIZE, vma.prot | PROT_READ | PROT_WRITE)
    try:
        mm.space.write(addr, data)
    finally:
        mm.space.protect(page, PAGE_SIZE, vma.prot)


def _read_hidden(mm: MemoryManager, vma: Vma, addr: int, size: int) -> bytes:
    page = addr & -PAGE_SIZE
    mm.space.protect(page, PAGE_SIZE, PROT_READ)
    try:
        return mm.space.read(addr, size)
    finally:
        mm.space.protect(page, PAGE_SIZE, vma.prot)
