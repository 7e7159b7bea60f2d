"""Core dumps: the file that a program leaves when a signal ends it whose default action says so (core(5)).

`run` takes the place of a handler of the dying task: it writes the file and then ends the group.  Pages that
are not in memory stay holes.  Of other threads only the registers of those are told that are in the kernel;
they go when the file is written, where Linux ends them first.
"""

from __future__ import annotations

import errno
from _struct import Struct
from itertools import islice
from time import time

from sentry.abi import core as abi
from sentry.abi import mman
from sentry.abi.errors import SysError
from sentry.abi.fcntl import O_CREAT, O_EXCL, O_LARGEFILE, O_NOFOLLOW, O_RDWR
from sentry.abi.mman import PAGE_SIZE
from sentry.abi.resource import RLIM_INFINITY, RLIMIT_CORE
from sentry.abi.stat import S_IFREG
from sentry.abi.wait import signal_status
from sentry.fs import modify, walk
from sentry.fs.opening import open_file
from sentry.kernel.wait import Interrupted, yield_now
from sentry.mm.shared import SharedAnonymous

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.abi.signal import SigInfo
    from sentry.fs.file import File
    from sentry.kernel.task import Task
    from sentry.mm.manager import MemoryManager
    from sentry.mm.vma import Vma

CHUNK = 1 << 20
#: Empty chunks that are skipped in one turn: a mapping without memory may have millions.
LOOKS = 64
#: Mappings that are written down in one turn.
PIECE = 256
_RANGE = Struct("<3Q")
NS = 1_000_000_000


def wanted(task: Task) -> bool:
    """Whether a signal that may dump core does."""
    group = task.group
    pattern = task.kernel.knobs.core_pattern
    enough = group.limit(RLIMIT_CORE) >= abi.LEAST
    return enough and group.dumpable == 1 and task.mm is not None and pattern[:1] not in (b"", b"|")


async def run(task: Task, info: SigInfo) -> None:
    """Dump, then end the group."""
    done = False
    try:
        done = await _dump(task, info)
    except (SysError, Interrupted):
        pass
    finally:
        task.kernel.exit_group(task.group, signal_status(info.signo, done), by=task)


def file_name(task: Task, signo: int) -> bytes:
    """kernel.core_pattern, its specifiers filled in; .PID behind it if kernel.core_uses_pid says so."""
    knobs = task.kernel.knobs
    pattern: bytes = knobs.core_pattern
    pid = task.group.pid.nr(task.pid.ns)
    values = {
        b"%": b"%", b"p": b"%d" % pid, b"P": b"%d" % task.group.tgid, b"i": b"%d" % task.pid.nr(task.pid.ns),
        b"I": b"%d" % task.tid, b"u": b"%d" % task.cred.uid, b"g": b"%d" % task.cred.gid, b"s": b"%d" % signo,
        b"t": b"%d" % time(), b"e": task.name.replace(b"/", b"!"), b"d": b"1",
        b"h": task.kernel.uts.nodename, b"c": b"%d" % (task.group.limit(RLIMIT_CORE) & (1 << 64) - 1),
    }  # fmt: skip
    name, numbered, at = b"", False, 0
    while at < len(pattern):
        letter = pattern[at : at + 1]
        if letter == b"%":
            at += 1
            letter = pattern[at : at + 1]
            numbered = numbered or letter == b"p"
            letter = values.get(letter, b"")
        name += letter
        at += 1
    return name if numbered or not knobs.core_uses_pid else b"%s.%d" % (name, pid)


async def _dump(task: Task, info: SigInfo) -> bool:
    """Whether there is a core file now."""
    name = file_name(task, info.signo)
    try:  # what has the name loses it, and is not written to
        directory, last, slash = await walk.walk_parent(task.fs, task.cred, name)
        await modify.unlink(directory, last, slash, task.cred)
    except SysError:
        pass
    flags = O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW | O_LARGEFILE
    file = await open_file(task.fs, task.cred, name, flags, 0o600)
    try:
        inode = file.inode
        if inode.kind != S_IFREG or inode.nlink != 1 or inode.uid != task.cred.fsuid:
            return False
        await _Writer(file, task.group.limit(RLIMIT_CORE)).write_all(task, info)
        return True
    finally:
        file.put()


def _note(kind: int, data: bytes) -> bytes:
    padded = data.ljust(-(-len(data) // 4) * 4, b"\0")
    return abi.NOTE.pack(5, len(data), kind) + b"CORE\0\0\0\0" + padded


def _ids(task: Task) -> tuple[int, int, int, int]:
    group, ns = task.group, task.pid.ns
    parent, pgrp = group.parent, group.pgrp
    ppid = parent.pid.nr(ns) if parent is not None else 0
    return task.pid.nr(ns), ppid, pgrp.pid.nr(ns), pgrp.session.pid.nr(ns)


def _status(task: Task, signo: int) -> bytes:
    times = (task.utime_ns // NS, task.utime_ns % NS // 1000, task.stime_ns // NS, task.stime_ns % NS // 1000)
    registers = [getattr(task.regs, name) for name in abi.REGISTERS]
    data = abi.PRSTATUS.pack(
        signo, 0, 0, signo, task.pending.bits, task.blocked, *_ids(task), *times, 0, 0, 0, 0, *registers, 1
    )
    fpregs = task.thread.get_fpstate()[: abi.FXSAVE_SIZE].ljust(abi.FXSAVE_SIZE, b"\0")
    return _note(abi.NT_PRSTATUS, data) + _note(abi.NT_FPREGSET, fpregs)


async def _mappings(task: Task) -> list[Vma]:
    """Pictures of them, as many as a core file can have."""
    found: list[Vma] = []
    above, most = 0, abi.PN_XNUM - 2
    while piece := list(islice(task.mm.tree.above(above), min(PIECE, most - len(found)))):
        found += piece
        above = piece[-1].end
        await yield_now()
    return found


async def _files(task: Task, vmas: list[Vma]) -> bytes:
    """NT_FILE: what is mapped from files, by which a debugger finds libraries.  None when it is too much."""
    ranges, names = bytearray(), bytearray()
    known: dict[File, bytes] = {}
    for count, vma in enumerate(vmas, 1):
        if not count % PIECE:
            await yield_now()
        file = vma.file
        if file is None or isinstance(file, SharedAnonymous) or file.path is None:
            continue
        name = known.get(file)
        if name is None:
            name = known[file] = walk.path_bytes(task.fs, file.path) + b"\0"
        ranges += _RANGE.pack(vma.start, vma.end, vma.offset // PAGE_SIZE)
        names += name
        if len(ranges) + len(names) > abi.FILES_MAX:
            return b""
    head = (len(ranges) // _RANGE.size).to_bytes(8, "little") + PAGE_SIZE.to_bytes(8, "little")
    return _note(abi.NT_FILE, head + ranges + names)


async def _notes(task: Task, info: SigInfo, vmas: list[Vma]) -> bytes:
    group, mm = task.group, task.mm
    arguments = mm.read(mm.arg_start, min(80, mm.arg_end - mm.arg_start)) if mm.arg_start else b""
    process = abi.PRPSINFO.pack(
        0, b"R", 0, 0, 0, task.cred.uid, task.cred.gid, group.pid.nr(task.pid.ns), *_ids(task)[1:], task.name,
        arguments.replace(b"\0", b" "),
    )  # fmt: skip
    notes = [_status(task, info.signo), _note(abi.NT_PRPSINFO, process)]
    notes += [_note(abi.NT_SIGINFO, info.pack().ljust(abi.SIGINFO_SIZE, b"\0")), _note(abi.NT_AUXV, mm.auxv)]
    notes.append(await _files(task, vmas))
    for other in group.tasks:
        if other is not task and not other.running and not other.exited and other.regs is not None:
            notes.append(_status(other, info.signo))
    return b"".join(notes)


def _dumped(mm: MemoryManager, vma: Vma) -> int:
    """How many bytes of a mapping are dumped, by /proc/PID/coredump_filter (vma_dump_size)."""
    file, flags, wanted = vma.file, vma.flags, mm.dump_filter
    if not flags & mman.VM_READ or flags & (mman.VM_DONTDUMP | mman.VM_PFNMAP):
        return 0
    if vma.name == b"[vdso]":
        return vma.size
    if flags & mman.VM_SHARED:
        nameless = isinstance(file, SharedAnonymous) or not file.inode.nlink
        return vma.size if wanted & (abi.FILTER_ANON_SHARED if nameless else abi.FILTER_MAPPED_SHARED) else 0
    if not flags & mman.VM_PRISTINE and wanted & abi.FILTER_ANON_PRIVATE:
        return vma.size
    if file is None or isinstance(file, SharedAnonymous):
        return 0
    if wanted & abi.FILTER_MAPPED_PRIVATE:
        return vma.size
    if vma.offset or not wanted & abi.FILTER_ELF_HEADERS:
        return 0
    try:
        return PAGE_SIZE if file.inode.mode & 0o111 or mm.read(vma.start, 4) == abi.IDENT[:4] else 0
    except SysError:
        return 0


class _Writer:
    """The file, up to RLIMIT_CORE."""

    def __init__(self, file: File, limit: int) -> None:
        self.file = file
        self.limit = 1 << 62 if limit == RLIM_INFINITY else limit
        self.at = 0
        #: Chunks that were looked at since others had their turn.
        self._looks = 0

    async def put(self, data: bytes) -> None:
        """SysError(EFBIG) when the limit is reached; what is there by then stays."""
        data = data[: self.limit - self.at]
        if not data:
            raise SysError(errno.EFBIG)
        while data:
            count = await self.file.pwrite(data, self.at)
            self.at += count
            data = data[count:]

    async def write_all(self, task: Task, info: SigInfo) -> None:
        vmas = await _mappings(task)
        notes = await _notes(task, info, vmas)
        begin = abi.EHDR.size + abi.PHDR.size * (len(vmas) + 1)
        data = -(-(begin + len(notes)) // PAGE_SIZE) * PAGE_SIZE
        head = abi.EHDR.pack(
            abi.IDENT, abi.ET_CORE, abi.EM_X86_64, 1, 0, abi.EHDR.size, 0, 0, abi.EHDR.size, abi.PHDR.size,
            len(vmas) + 1, 0, 0, 0,
        )  # fmt: skip
        table = bytearray(abi.PHDR.pack(abi.PT_NOTE, 0, begin, 0, 0, len(notes), 0, 4))
        places = []
        for count, vma in enumerate(vmas, 1):
            if not count % PIECE:
                await yield_now()
            size = _dumped(task.mm, vma)
            places.append((data, vma.start, size))
            flags = sum(1 << 2 - bit for bit in range(3) if vma.flags & (mman.VM_READ << bit))
            table += abi.PHDR.pack(abi.PT_LOAD, flags, data, vma.start, 0, size, vma.size, PAGE_SIZE)
            data += size
        try:
            await self.put(head + table + notes)
            for place, start, size in places:
                await self._copy(task, place, start, size)
            if data > self.at and data <= self.limit:
                await self.file.truncate(data)
        except SysError as error:
            if error.errno not in (errno.EFBIG, errno.ENOSPC):
                raise

    async def _copy(self, task: Task, place: int, start: int, size: int) -> None:
        mm = task.mm
        for offset in range(0, size, CHUNK):
            step = min(CHUNK, size - offset)
            self._looks += 1
            if mm.space.resident(start + offset, step // PAGE_SIZE, PAGE_SIZE):
                self._looks += LOOKS
                try:
                    data = mm.read(start + offset, step)
                except SysError:
                    data = b""
                if data:
                    self.at = place + offset
                    await self.put(data)
            if self._looks < LOOKS:
                continue
            self._looks = 0
            await yield_now()
            if task.group.dying:  # SIGKILL ends a dump, too
                raise SysError(errno.EFBIG)
