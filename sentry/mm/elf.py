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
from sentry.mm.stack import build_stack, make_stack, stack_size
from sentry.mm.state import page_up
from sentry.platform.base import GUEST_TOP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.fs.file import File
    from sentry.kernel.credentials import Credentials
    from sentry.mm.manager import MemoryManager

#: As much of a file as usually holds its headers and the name of its interpreter.
HEAD_SIZE = 1024
#: Such beginnings → what they say.
_known: dict[bytes, Headers] = {}
_KNOWN_LIMIT = 256
#: Program headers have to fit into a page (ELF_MIN_ALIGN).
_MAX_HEADERS = PAGE_SIZE // PROGRAM_HEADER.size
_U64 = (1 << 64) - 1


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


class Run:
    """Segments that one mapping of the file can make: next to each other there as in memory.

    Addresses are those before relocation.  `pieces`: (start, size, PROT_, offset) of each segment's part;
    `protects`: (start, size, PROT_) of those that differ from the first.
    """

    __slots__ = ("bss", "offset", "pieces", "prot", "protects", "size", "start", "tail", "tail_prot")

    def __init__(self, start: int, size: int, prot: int, offset: int) -> None:
        self.start = start
        self.size = size
        self.prot = prot
        self.offset = offset
        self.pieces: list[tuple[int, int, int, int]] = [(start, size, prot, offset)] if size else []
        self.protects: list[tuple[int, int, int]] = []
        #: Where the last page has to be zero, 0: nowhere.
        self.tail = self.tail_prot = 0
        #: (start, size, PROT_) of memory without file behind it.
        self.bss: tuple[int, int, int] | None = None

    def add(self, start: int, size: int, prot: int, offset: int) -> bool:
        """Let another segment's part follow, if it fits."""
        end = self.start + self.size
        if start != end or offset != self.offset + self.size or self.tail or self.bss or not self.size:
            return False
        self.size += size
        self.pieces.append((start, size, prot, offset))
        if self.protects and self.protects[-1][2] == prot:
            first, so_far, _ = self.protects[-1]
            self.protects[-1] = (first, so_far + size, prot)
        elif self.protects or prot != self.prot:
            self.protects.append((start, size, prot))
        return True


class Headers:
    """What the checked headers of an ELF file say.  Never changed: files with equal ones share it."""

    __slots__ = (
        "alignment", "bounds", "dynamic", "entry", "exec_stack", "high", "interp", "low", "phdr", "phnum",
        "runs", "segments",
    )  # fmt: skip

    def __init__(self, dynamic: bool, entry: int, segments: list[Segment], phnum: int) -> None:
        #: ET_DYN: may be loaded anywhere.
        self.dynamic = dynamic
        self.entry = entry
        #: PT_LOAD only, in file order.
        self.segments = segments
        self.phnum = phnum
        #: Address of the program headers before relocation; 0 if no segment holds them.
        self.phdr = 0
        self.interp: bytes | None = None
        self.exec_stack = False
        #: Page-aligned range of the segments before relocation, and the greatest sensible p_align.
        self.low = min(segment.vaddr for segment in segments) & ~PAGE_MASK
        self.high = page_up(max(segment.vaddr + segment.mem_size for segment in segments))
        sizes = [s.align for s in segments if s.align & (s.align - 1) == 0 and s.align <= 1 << 30]
        self.alignment = max([PAGE_SIZE, *sizes])
        self.runs = _runs(segments)
        #: start_code, end_code, start_data and end_data before relocation (/proc/PID/stat).
        code = [segment for segment in segments if segment.flags & PF_X]
        data = max(segment.vaddr for segment in segments)
        self.bounds = (
            min((segment.vaddr for segment in code), default=0),
            max((segment.vaddr + segment.file_size for segment in code), default=0),
            data,
            max(data, *(segment.vaddr + segment.file_size for segment in segments)),
        )


def _runs(segments: list[Segment]) -> list[Run]:
    runs: list[Run] = []
    for segment in segments:
        if not segment.mem_size:
            continue
        vaddr, prot = segment.vaddr, segment.prot
        start, inside = vaddr & ~PAGE_MASK, vaddr & PAGE_MASK
        size = page_up(inside + segment.file_size) if segment.file_size else 0
        offset = segment.offset - inside if size else 0
        if not (size and runs and runs[-1].add(start, size, prot, offset)):
            runs.append(Run(start, size, prot, offset))
        run = runs[-1]
        if size and segment.mem_size > segment.file_size:
            run.tail, run.tail_prot = vaddr + segment.file_size, prot
        bss = page_up(vaddr + segment.mem_size) - start - size
        if bss > 0:
            run.bss = (start + size, bss, PROT_READ | PROT_WRITE | prot & PROT_EXEC)
    return runs


class Image:
    """An ELF file with its headers.  `interpreter` is the Image of PT_INTERP's file, filled in by whoever
    resolves the path `headers.interp`."""

    __slots__ = ("file", "headers", "interpreter")

    def __init__(self, file: File, headers: Headers) -> None:
        self.file = file
        self.headers = headers
        self.interpreter: Image | None = None


class Entry:
    """Where a program starts."""

    __slots__ = ("rip", "rsp")

    def __init__(self, rip: int, rsp: int) -> None:
        self.rip = rip
        self.rsp = rsp


class _Source:
    """Reads a file whose beginning is known already."""

    __slots__ = ("beyond", "file", "head")

    def __init__(self, file: File, head: bytes) -> None:
        self.file = file
        self.head = head
        #: Whether something was read that is not in `head`.
        self.beyond = False

    async def read(self, size: int, offset: int, error: int) -> bytes:
        """Exactly that, or SysError(error)."""
        if offset + size <= len(self.head):
            return self.head[offset : offset + size]
        self.beyond = True
        data = b""
        while len(data) < size:
            piece = await self.file.pread(size - len(data), offset + len(data))
            if not piece:
                raise SysError(error)
            data += piece
        return data


async def read_image(file: File, head: bytes | None = None) -> Image:
    """A program with its checked headers.  SysError(ENOEXEC, EINVAL, EIO).

    `head`: the first HEAD_SIZE bytes, if they have been read.  What they alone say is remembered.
    """
    if head is None:
        head = await file.pread(HEAD_SIZE, 0)
    headers = _known.get(head)
    if headers is None:
        source = _Source(file, head)
        headers = await _read_headers(source)
        if not source.beyond:
            if len(_known) >= _KNOWN_LIMIT:
                _known.clear()
            _known[head] = headers
    return Image(file, headers)


async def _read_headers(source: _Source) -> Headers:
    header = await source.read(HEADER.size, 0, errno.ENOEXEC)
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
    data = await source.read(phnum * phentsize, phoff, errno.ENOEXEC)
    segments = [Segment(fields) for fields in PROGRAM_HEADER.iter_unpack(data)]
    loads = [segment for segment in segments if segment.type == PT_LOAD]
    for segment in loads:
        _check_load(segment)
    if not loads:
        raise SysError(errno.EINVAL)
    headers = Headers(kind == ET_DYN, entry, loads, phnum)
    for segment in loads:
        if segment.offset <= phoff < segment.offset + segment.file_size:
            headers.phdr = phoff - segment.offset + segment.vaddr
            break
    for segment in segments:
        if segment.type == PT_GNU_STACK:
            headers.exec_stack = bool(segment.flags & PF_X)
        elif segment.type == PT_INTERP and headers.interp is None:
            headers.interp = await _read_interp(source, segment)
    return headers


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


async def _read_interp(source: _Source, segment: Segment) -> bytes:
    if not 2 <= segment.file_size <= PATH_MAX or segment.offset >= 1 << 62:
        raise SysError(errno.ENOEXEC)
    path = await source.read(segment.file_size, segment.offset, errno.EIO)
    if path[-1]:
        raise SysError(errno.ENOEXEC)
    return path.split(b"\0", 1)[0]


async def read_interpreter(file: File) -> Image:
    """The checked headers of a program interpreter.  SysError(ELIBBAD, EINVAL, EIO)."""
    try:
        return await read_image(file)
    except SysError as error:
        raise SysError(errno.ELIBBAD if error.errno == errno.ENOEXEC else error.errno) from None


class Place:
    """Where an image and its interpreter have been mapped."""

    __slots__ = ("base", "bias", "entry", "start")

    def __init__(self, bias: int, base: int, start: int, entry: int) -> None:
        #: Load bias of the program; of its interpreter (AT_BASE).
        self.bias = bias
        self.base = base
        #: Where the program begins (AT_ENTRY), and where the first thread does.
        self.start = start
        self.entry = entry


async def load_program(
    mm: MemoryManager, image: Image, argv: list[bytes], envp: list[bytes], cred: Credentials, execfn: bytes,
    random16: bytes, secure: bool | None = None, randomize: bool = True,
) -> Entry:  # fmt: skip
    """Fill the fresh `mm` with a program: where to start it.  SysError on hostile or hopeless files.

    Keeps a reference to `image.file` as `mm.exe`.  `secure` is AT_SECURE, by default whether the ids
    differ; `randomize` False is ADDR_NO_RANDOMIZE.  `mm.limit` has to be set before.
    """
    mm.layout = Layout(mm.top, mm.limit(RLIMIT_STACK), randomize)
    mm.owner = execfn.rsplit(b"/", 1)[-1]
    size = stack_size(argv, envp, execfn, mm.limit(RLIMIT_STACK))
    place = await map_image(mm, image)
    make_stack(mm, size, image.headers.exec_stack, False)
    return enter_program(mm, image, place, argv, envp, cred, execfn, random16, secure, randomize)


async def map_image(mm: MemoryManager, image: Image) -> Place:
    """Map a program and its interpreter into `mm`, which has its layout."""
    headers = image.headers
    bias = await _map_program(mm, image, mm.layout)
    start = entry = headers.entry + bias & _U64
    base = 0
    if image.interpreter is not None:
        base = await _map_anywhere(mm, image.interpreter)
        entry = image.interpreter.headers.entry + base & _U64
    if entry >= GUEST_TOP:
        raise SysError(errno.EINVAL)
    return Place(bias, base, start, entry)


def enter_program(
    mm: MemoryManager, image: Image, place: Place, argv: list[bytes], envp: list[bytes], cred: Credentials,
    execfn: bytes, random16: bytes, secure: bool | None, randomize: bool,
) -> Entry:  # fmt: skip
    """Fill in what one run of a mapped program has for itself: the stack's contents, the heap's place.

    The stack is there.
    """
    headers = image.headers
    mm.owner = execfn.rsplit(b"/", 1)[-1]
    _set_bounds(mm, headers, place.bias, mm.layout)
    mm.exe = image.file.get()
    phdr = headers.phdr + place.bias if headers.phdr else 0
    stack = build_stack(
        mm, argv, envp, execfn, random16, cred, secure, randomize,
        phdr=phdr & _U64, phnum=headers.phnum, base=place.base & _U64, entry=place.start,
    )  # fmt: skip
    return Entry(place.entry, stack)


async def _map_program(mm: MemoryManager, image: Image, layout: Layout) -> int:
    """Map the program proper; its load bias."""
    headers = image.headers
    if not headers.dynamic:
        await _map_segments(mm, image, 0)
        return 0
    if headers.interp is None:
        # A static-pie program, or an interpreter started by its name, lives among the mappings.
        return await _map_anywhere(mm, image)
    low, size = headers.low, headers.high - headers.low
    start = layout.pie_base & ~(headers.alignment - 1)
    if start + size > GUEST_TOP or mm.tree.overlapping(start, start + size):
        raise SysError(errno.ENOMEM)
    await _map_segments(mm, image, start - low)
    return start - low


async def _map_anywhere(mm: MemoryManager, image: Image) -> int:
    """Map an image where there is room; its load bias."""
    headers = image.headers
    if not headers.dynamic:
        await _map_segments(mm, image, 0)
        return 0
    alignment = headers.alignment
    start = mm.find_free(headers.high - headers.low + alignment - PAGE_SIZE)
    if not start:
        raise SysError(errno.ENOMEM)
    start = (start + alignment - 1) & ~(alignment - 1)
    await _map_segments(mm, image, start - headers.low)
    return start - headers.low


def _check_place(headers: Headers, bias: int) -> None:
    for segment in headers.segments:
        if segment.mem_size:
            if (segment.vaddr + bias & ~PAGE_MASK) < MMAP_MIN_ADDR:
                raise SysError(errno.EPERM)
            if page_up(segment.vaddr + bias + segment.mem_size) > GUEST_TOP:
                raise SysError(errno.ENOMEM)


async def _map_segments(mm: MemoryManager, image: Image, bias: int) -> None:
    headers, file = image.headers, image.file
    host_fd = await file.host_mapping(False, False)
    _check_place(headers, bias)
    for run in headers.runs:
        if host_fd is None:
            for start, size, prot, _ in run.pieces:
                mm.map_at(start + bias, size, prot | VM_MAYALL)
        elif run.size:
            for start, size, prot, offset in run.pieces:
                mm.book(start + bias, size, prot | VM_MAYALL, file, offset)
            mm.space.map_file(run.start + bias, run.size, run.prot, False, host_fd, run.offset)
            for start, size, prot in run.protects:
                mm.space.protect(start + bias, size, prot)
        if run.tail:
            _clear_tail(mm, run.tail + bias, run.tail_prot)
        if run.bss is not None:
            start, size, prot = run.bss
            mm.map_at(start + bias, size, prot | VM_MAYALL)


def _clear_tail(mm: MemoryManager, addr: int, prot: int) -> None:
    """Zero the rest of the page: the file goes on there, the program's data doesn't."""
    size = -addr & PAGE_MASK
    try:
        mm.write(addr, bytes(size))
    except SysError:
        if prot & PROT_WRITE:
            raise


def _set_bounds(mm: MemoryManager, headers: Headers, bias: int, layout: Layout) -> None:
    """The fields that /proc/PID/stat and brk(2) use."""
    start_code, end_code, start_data, end_data = headers.bounds
    mm.start_code, mm.end_code = start_code + bias, end_code + bias
    brk = ELF_DYN_BASE if headers.dynamic and headers.interp is None else headers.high + bias
    c = mm.c
    c.start_data, c.end_data = start_data + bias, end_data + bias
    c.start_brk = c.brk = brk + layout.brk_random
