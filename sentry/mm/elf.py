"""Loading ELF programs (binfmt_elf).

execve works in two steps.  `read_image` reads and checks headers while the old program still
runs, so that what can be refused is refused with an errno.  `load_program` then maps the program
and its interpreter into a fresh MemoryManager, and builds the first stack (stack.py).

Headers are hostile: every number is checked before it is used, and nothing but SysError comes out.
"""

from __future__ import annotations

import errno

from sentry.abi.elf import (
    ELFCLASS64,
    EM_X86_64,
    ET_DYN,
    ET_EXEC,
    HEADER,
    MAGIC,
    PF_R,
    PF_W,
    PF_X,
    PROGRAM_HEADER,
    PT_GNU_STACK,
    PT_INTERP,
    PT_LOAD,
)
from sentry.abi.errors import SysError
from sentry.abi.fcntl import PATH_MAX
from sentry.abi.mman import MMAP_MIN_ADDR, PAGE_MASK, PAGE_SIZE, PROT_EXEC, PROT_READ, PROT_WRITE, VM_MAYALL
from sentry.abi.resource import RLIMIT_STACK
from sentry.mm.layout import ELF_DYN_BASE, Layout
from sentry.mm.stack import build_stack, make_stack
from sentry.mm.state import page_up
from sentry.platform.base import GUEST_TOP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.fs.file import File
    from sentry.kernel.credentials import Credentials
    from sentry.mm.manager import MemoryManager

#: Program headers have to fit into a page (ELF_MIN_ALIGN).
_MAX_HEADERS = PAGE_SIZE // PROGRAM_HEADER.size


class Segment:
    """A program header, its numbers checked to lie in guest space."""

    __slots__ = ("align", "file_size", "flags", "mem_size", "offset", "type", "vaddr")

    def __init__(self, fields: tuple[int, ...]) -> None:
        self.type, self.flags, self.offset, self.vaddr, _, self.file_size, self.mem_size, self.align = fields

    @property
    def prot(self) -> int:
        flags = self.flags
        return (
            (PROT_READ if flags & PF_R else 0)
            | (PROT_WRITE if flags & PF_W else 0)
            | (PROT_EXEC if flags & PF_X else 0)
        )


class Image:
    """A checked ELF file.  `interpreter` is the Image of PT_INTERP's file, filled in by whoever
    resolves the path `interp`."""

    __slots__ = (
        "dynamic",
        "entry",
        "exec_stack",
        "file",
        "interp",
        "interpreter",
        "phdr",
        "phnum",
        "segments",
    )

    def __init__(self, file: File, dynamic: bool, entry: int, segments: list[Segment], phnum: int) -> None:
        self.file = file
        #: ET_DYN: may be loaded anywhere.
        self.dynamic = dynamic
        self.entry = entry
        #: PT_LOAD only, in file order.
        self.segments = segments
        self.phnum = phnum
        #: Address of the program headers before relocation; 0 if no segment holds them.
        self.phdr = 0
        self.interp: bytes | None = None
        self.interpreter: Image | None = None
        self.exec_stack = False

    def bounds(self) -> tuple[int, int]:
        """Page-aligned range of the segments before relocation."""
        low = min(segment.vaddr for segment in self.segments) & ~PAGE_MASK
        return low, page_up(max(segment.vaddr + segment.mem_size for segment in self.segments))


class Entry:
    """Where a program starts."""

    __slots__ = ("rip", "rsp")

    def __init__(self, rip: int, rsp: int) -> None:
        self.rip = rip
        self.rsp = rsp


async def _read_exact(file: File, size: int, offset: int, error: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = await file.pread(size - len(data), offset + len(data))
        if not piece:
            raise SysError(error)
        data += piece
    return data


async def read_image(file: File) -> Image:
    """The checked headers of a program.  SysError(ENOEXEC, EINVAL, EIO)."""
    header = await _read_exact(file, HEADER.size, 0, errno.ENOEXEC)
    ident, kind, machine, _, entry, phoff, _, _, _, phentsize, phnum, _, _, _ = HEADER.unpack(header)
    if (
        ident[:4] != MAGIC
        or ident[4] != ELFCLASS64
        or kind not in (ET_EXEC, ET_DYN)
        or machine != EM_X86_64
        or phentsize != PROGRAM_HEADER.size
        or not 0 < phnum <= _MAX_HEADERS
        or phoff >= 1 << 62
    ):
        raise SysError(errno.ENOEXEC)
    data = await _read_exact(file, phnum * phentsize, phoff, errno.ENOEXEC)
    segments = [Segment(fields) for fields in PROGRAM_HEADER.iter_unpack(data)]
    loads = [segment for segment in segments if segment.type == PT_LOAD]
    for segment in loads:
        _check_load(segment)
    if not loads:
        raise SysError(errno.EINVAL)
    image = Image(file, kind == ET_DYN, entry, loads, phnum)
    for segment in loads:
        if segment.offset <= phoff < segment.offset + segment.file_size:
            image.phdr = phoff - segment.offset + segment.vaddr
            break
    for segment in segments:
        if segment.type == PT_GNU_STACK:
            image.exec_stack = bool(segment.flags & PF_X)
        elif segment.type == PT_INTERP and image.interp is None:
            image.interp = await _read_interp(file, segment)
    return image


def _check_load(segment: Segment) -> None:
    if (
        segment.vaddr >= GUEST_TOP
        or segment.file_size > segment.mem_size
        or segment.mem_size > GUEST_TOP - segment.vaddr
        or segment.offset >= 1 << 62
    ):
        raise SysError(errno.EINVAL)
    if segment.file_size and (segment.offset - segment.vaddr) & PAGE_MASK:
        raise SysError(errno.EINVAL)
    if segment.file_size and segment.offset < segment.vaddr & PAGE_MASK:
        raise SysError(errno.EINVAL)


async def _read_interp(file: File, segment: Segment) -> bytes:
    if not 2 <= segment.file_size <= PATH_MAX or segment.offset >= 1 << 62:
        raise SysError(errno.ENOEXEC)
    path = await _read_exact(file, segment.file_size, segment.offset, errno.EIO)
    if path[-1]:
        raise SysError(errno.ENOEXEC)
    return path.split(b"\0", 1)[0]


async def read_interpreter(file: File) -> Image:
    """The checked headers of a program interpreter.  SysError(ELIBBAD, EINVAL, EIO)."""
    try:
        return await read_image(file)
    except SysError as error:
        raise SysError(errno.ELIBBAD if error.errno == errno.ENOEXEC else error.errno) from None


async def load_program(
    mm: MemoryManager, image: Image, argv: list[bytes], envp: list[bytes], cred: Credentials, execfn: bytes,
    random16: bytes, secure: bool | None = None, randomize: bool = True,
) -> Entry:  # fmt: skip
    """Fill the fresh `mm` with a program: where to start it.  SysError on hostile or hopeless files.

    Keeps a reference to `image.file` as `mm.exe`.  `secure` is AT_SECURE, by default whether the ids
    differ; `randomize` False is ADDR_NO_RANDOMIZE.  `mm.limit` has to be set before.
    """
    stack_limit = mm.limit(RLIMIT_STACK)
    mm.layout = layout = Layout(mm.top, stack_limit, randomize)
    mm.owner = execfn.rsplit(b"/", 1)[-1]
    make_stack(mm, argv, envp, execfn, image.exec_stack)
    bias = await _map_program(mm, image, layout)
    _set_bounds(mm, image, bias, layout)
    entry, base = image.entry + bias, 0
    if image.interpreter is not None:
        base = await _map_anywhere(mm, image.interpreter)
        entry = image.interpreter.entry + base
    if entry >= GUEST_TOP:
        raise SysError(errno.EINVAL)
    mm.exe = image.file.get()
    phdr = image.phdr + bias if image.phdr else 0
    stack = build_stack(
        mm, argv, envp, execfn, random16, cred, secure, randomize,
        phdr=phdr & 0xFFFFFFFFFFFFFFFF, phnum=image.phnum, base=base, entry=image.entry + bias,
    )  # fmt: skip
    return Entry(entry, stack)


async def _map_program(mm: MemoryManager, image: Image, layout: Layout) -> int:
    """Map the program proper; its load bias."""
    if not image.dynamic:
        await _map_segments(mm, image, 0)
        return 0
    if image.interp is None:
        # A static-pie program, or an interpreter started by its name, lives among the mappings.
        return await _map_anywhere(mm, image)
    low, high = image.bounds()
    alignment = _alignment(image)
    start = layout.pie_base & ~(alignment - 1)
    if start + high - low > GUEST_TOP or mm.tree.overlapping(start, start + high - low):
        raise SysError(errno.ENOMEM)
    await _map_segments(mm, image, start - low)
    return start - low


def _alignment(image: Image) -> int:
    """The greatest sensible p_align."""
    sizes = [s.align for s in image.segments if s.align & (s.align - 1) == 0 and s.align <= 1 << 30]
    return max([PAGE_SIZE, *sizes])


async def _map_anywhere(mm: MemoryManager, image: Image) -> int:
    """Map an image where there is room; its load bias."""
    if not image.dynamic:
        await _map_segments(mm, image, 0)
        return 0
    low, high = image.bounds()
    alignment = _alignment(image)
    start = mm.find_free(high - low + alignment - PAGE_SIZE)
    if not start:
        raise SysError(errno.ENOMEM)
    start = (start + alignment - 1) & ~(alignment - 1)
    await _map_segments(mm, image, start - low)
    return start - low


async def _map_segments(mm: MemoryManager, image: Image, bias: int) -> None:
    file = image.file
    host_fd = await file.host_mapping(False, False)
    for segment in image.segments:
        if not segment.mem_size:
            continue
        vaddr = segment.vaddr + bias
        start, inside = vaddr & ~PAGE_MASK, vaddr & PAGE_MASK
        if start < MMAP_MIN_ADDR:
            raise SysError(errno.EPERM)
        end = page_up(vaddr + segment.mem_size)
        if end > GUEST_TOP:
            raise SysError(errno.ENOMEM)
        mapped = start
        if segment.file_size:
            size = page_up(inside + segment.file_size)
            backing, fd = (None, None) if host_fd is None else (file, host_fd)
            mm.map_at(start, size, segment.prot | VM_MAYALL, backing, segment.offset - inside, fd)
            mapped += size
            if segment.mem_size > segment.file_size:
                _clear_tail(mm, vaddr + segment.file_size, segment.prot)
        if end > mapped:
            prot = PROT_READ | PROT_WRITE | segment.prot & PROT_EXEC
            mm.map_at(mapped, end - mapped, prot | VM_MAYALL)


def _clear_tail(mm: MemoryManager, addr: int, prot: int) -> None:
    """Zero the rest of the page: the file goes on there, the program's data doesn't."""
    size = -addr & PAGE_MASK
    try:
        mm.write(addr, bytes(size))
    except SysError:
        if prot & PROT_WRITE:
            raise


def _set_bounds(mm: MemoryManager, image: Image, bias: int, layout: Any) -> None:
    """The fields that /proc/PID/stat and brk(2) use."""
    segments = image.segments
    code = [segment for segment in segments if segment.flags & PF_X]
    mm.start_code = min((segment.vaddr for segment in code), default=0) + bias
    mm.end_code = max((segment.vaddr + segment.file_size for segment in code), default=0) + bias
    mm.start_data = max(segment.vaddr for segment in segments) + bias
    mm.end_data = max(mm.start_data, *(segment.vaddr + segment.file_size + bias for segment in segments))
    if image.dynamic and image.interp is None:
        brk = ELF_DYN_BASE
    else:
        brk = image.bounds()[1] + bias
    mm.start_brk = mm.brk = brk + layout.brk_random
