"""/proc/PID/maps, smaps, numa_maps and statm: the address space of a task, as its VMA tree has it."""

from __future__ import annotations

import errno

from sentry._engine import lib
from sentry.abi import mman
from sentry.abi.errors import SysError
from sentry.fs import walk
from sentry.fs.proc.base import current_task
from sentry.mm import policy, residence
from sentry.mm.shared import SHMEM_DEV, SharedAnonymous
from sentry.mm.vma import number_of
from sentry.platform.base import GUEST_TOP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.fs.dentry import FsContext
    from sentry.kernel.task import Task
    from sentry.mm.manager import MemoryManager
    from sentry.mm.vma import Vma

#: What the line of a mapping costs, in pages looked at.
_LINE = 64
#: Where names begin.
_NAME_COLUMN = 73
_VM_FLAGS = (
    (mman.VM_READ, b"rd"),
    (mman.VM_WRITE, b"wr"),
    (mman.VM_EXEC, b"ex"),
    (mman.VM_SHARED, b"sh"),
    (mman.VM_MAYREAD, b"mr"),
    (mman.VM_MAYWRITE, b"mw"),
    (mman.VM_MAYEXEC, b"me"),
    (mman.VM_SHARED, b"ms"),
    (mman.VM_GROWSDOWN, b"gd"),
    (mman.VM_PFNMAP, b"pf io"),
    (mman.VM_LOCKED, b"lo"),
    (mman.VM_SEQ_READ, b"sr"),
    (mman.VM_RAND_READ, b"rr"),
    (mman.VM_DONTCOPY, b"dc"),
    (mman.VM_DONTEXPAND, b"de"),
    (mman.VM_ACCOUNT, b"ac"),
    (mman.VM_NORESERVE, b"nr"),
    (mman.VM_WIPEONFORK, b"wf"),
    (mman.VM_DONTDUMP, b"dd"),
    (mman.VM_HUGEPAGE, b"hg"),
    (mman.VM_NOHUGEPAGE, b"nh"),
    (mman.VM_SEALED, b"sl"),
)
_SMAPS_KEYS = (
    b"Rss",
    b"Pss",
    b"Pss_Dirty",
    b"Shared_Clean",
    b"Shared_Dirty",
    b"Private_Clean",
    b"Private_Dirty",
    b"Referenced",
    b"Anonymous",
    b"KSM",
    b"LazyFree",
    b"AnonHugePages",
    b"ShmemPmdMapped",
    b"FilePmdMapped",
    b"Shared_Hugetlb",
    b"Private_Hugetlb",
    b"Swap",
    b"SwapPss",
    b"Locked",
)
_ROLLUP_KEYS = (*_SMAPS_KEYS[:3], b"Pss_Anon", b"Pss_File", b"Pss_Shmem", *_SMAPS_KEYS[3:])


def _form(keys: tuple[bytes, ...]) -> bytes:
    return b"".join([b"%-16s%%8d kB\n" % (key + b":") for key in keys])


_SMAPS = (
    _form((b"Size", b"KernelPageSize", b"MMUPageSize", *_SMAPS_KEYS))
    + b"THPeligible:           0\nVmFlags: %s \n"
)
_ROLLUP = _form(_ROLLUP_KEYS)
#: Texts of VmFlags by the flags.
_flag_texts: dict[int, bytes] = {}


def _reader(task: Task) -> FsContext:
    """Whose root names are relative to."""
    current = current_task()
    return (current or task).fs


def _name(mm: MemoryManager, vma: Vma, fs: FsContext) -> bytes:
    if vma.name:
        return vma.name
    file = vma.file
    if isinstance(file, SharedAnonymous):
        return file.map_name
    if file is not None:
        return b"" if file.path is None else walk.path_bytes(fs, file.path).replace(b"\n", b"\\012")
    if vma.start < mm.brk and vma.end > mm.start_brk:
        return b"[heap]"
    if vma.start <= mm.start_stack <= vma.end:
        return b"[stack]"
    return b""


def name_of(task: Task, mm: MemoryManager, vma: Vma) -> bytes:
    """What the line of a mapping of `task` ends with."""
    return _name(mm, vma, _reader(task))


def _head(mm: MemoryManager, vma: Vma, fs: FsContext) -> bytes:
    """The line of one mapping."""
    flags, file = vma.flags, vma.file
    device = ino = offset = 0
    if isinstance(file, SharedAnonymous):
        device, ino, offset = SHMEM_DEV, file.ino, vma.offset
    elif file is not None:
        device, ino, offset = file.inode.fs.dev, file.inode.ino, vma.offset
    line = b"%08x-%08x %s%s%s%s %08x %02x:%02x %d " % (
        vma.start,
        vma.end,
        b"r" if flags & mman.VM_READ else b"-",
        b"w" if flags & mman.VM_WRITE else b"-",
        b"x" if flags & mman.VM_EXEC else b"-",
        b"s" if flags & mman.VM_SHARED else b"p",
        offset,
        device >> 8 & 0xFFF,
        device & 0xFF,
        ino,
    )
    name = _name(mm, vma, fs)
    return (line.ljust(_NAME_COLUMN) + name if name else line) + b"\n"


def _piece(
    task: Task, mm: MemoryManager | None, cursor: int,
    show: Callable[[Task, MemoryManager, Vma, FsContext], bytes], weight: int,
) -> tuple[bytes, int]:  # fmt: skip
    """The text of the next mappings that end above `cursor`, and the cursor behind (sequence.py).

    About a page, as on Linux, and no more mappings than are little work.  `weight`: what the text of one
    costs, in pages looked at; 0: none are.
    """
    if mm is None or not mm.users:
        return b"", cursor
    fs = _reader(task)
    lines, cost, size = [], 0, 0
    for vma in mm.tree.above(cursor):
        record = show(task, mm, vma, fs)
        lines.append(record)
        size += len(record)
        cursor = vma.end
        cost += _LINE + (weight and weight + min(vma.size // mman.PAGE_SIZE, residence.BUDGET))
        if cost >= residence.BUDGET or size + len(record) > mman.PAGE_SIZE:
            break
    return b"".join(lines), cursor


def _maps_line(task: Task, mm: MemoryManager, vma: Vma, fs: FsContext) -> bytes:
    return _head(mm, vma, fs)


def maps(task: Task, mm: MemoryManager | None, cursor: int) -> tuple[bytes, int]:
    """proc_pid_maps(5)."""
    return _piece(task, mm, cursor, _maps_line, 0)


def _smaps_lines(task: Task, mm: MemoryManager, vma: Vma, fs: FsContext) -> bytes:
    values = _of_one(mm, vma)
    amounts = [values.get(key, 0) for key in _SMAPS_KEYS]
    return _head(mm, vma, fs) + _SMAPS % (vma.size // 1024, 4, 4, *amounts, _flags_text(vma.flags))


def smaps(task: Task, mm: MemoryManager | None, cursor: int) -> tuple[bytes, int]:
    """proc_pid_smaps(5); who shares a page, and which are dirty, is a guess by the kind of a mapping: a page
    of a shared one is taken to be in all mappings of the same open file, one of a private one in no other."""
    return _piece(task, mm, cursor, _smaps_lines, 4 * _LINE)


def _flags_text(flags: int) -> bytes:
    text = _flag_texts.get(flags)
    if text is None:
        names = [name for bit, name in _VM_FLAGS if flags & bit]
        if flags & mman.VM_SHARED and not flags & mman.VM_MAYWRITE:
            names.remove(b"sh")  # Linux calls a mapping shared that may be written to
        text = b" ".join(names)
        if len(_flag_texts) < 1000:
            _flag_texts[flags] = text
    return text


def _of_one(mm: MemoryManager, vma: Vma, step: int = 1, times: int = 1) -> dict[bytes, int]:
    """Kilobytes of a mapping, or of `times` such ones, by their names in smaps, where they are not 0."""
    rss = residence.of_vma(mm, vma, step) * times // 1024
    kind = residence.kind_of(vma)
    dirty = kind == residence.ANON or (kind == residence.SHMEM and vma.flags & mman.VM_MAYWRITE)
    users = lib.mm_object_refs(number_of(vma.file)) if vma.flags & mman.VM_SHARED else 1
    sharing = b"Shared" if users > 1 else b"Private"
    pss = rss // max(1, users)
    values = {
        b"Rss": rss,
        b"Pss": pss,
        b"Referenced": rss,
        sharing + (b"_Dirty" if dirty else b"_Clean"): rss,
    }
    if dirty:
        values[b"Pss_Dirty"] = pss
    if kind == residence.ANON:
        values[b"Anonymous"] = rss
    if vma.flags & mman.VM_LOCKED:
        values[b"Locked"] = rss
    return values


def smaps_rollup(task: Task, mm: MemoryManager) -> bytes:
    if not mm.users:
        raise SysError(errno.ESRCH)
    first, last = mm.tree.find(0), mm.tree.before(GUEST_TOP)
    if first is None or last is None:
        return b""
    sums: dict[bytes, int] = {}
    for vma, step, times in residence.sample(mm):
        kind = (b"Pss_Anon", b"Pss_File", b"Pss_Shmem")[residence.kind_of(vma)]
        for key, value in _of_one(mm, vma, step, times).items():
            sums[key] = sums.get(key, 0) + value
            if key == b"Pss":
                sums[kind] = sums.get(kind, 0) + value
    head = b"%08x-%08x ---p 00000000 00:00 0 " % (first.start, last.end)
    amounts = [sums.get(key, 0) for key in _ROLLUP_KEYS]
    return head.ljust(_NAME_COLUMN) + b"[rollup]\n" + _ROLLUP % (*amounts,)


def _numa_line(task: Task, mm: MemoryManager, vma: Vma, fs: FsContext) -> bytes:
    of_vma = mm.policies.at(vma.start) if mm.policies is not None else None
    mode, nodes = of_vma or task.sched.mempolicy
    name = _name(mm, vma, fs)
    pages = residence.of_vma(mm, vma) // mman.PAGE_SIZE
    line = b"%08x %s" % (vma.start, policy.text(mode, nodes))
    if vma.file is not None:
        line += b" file=" + name
    elif name in (b"[heap]", b"[stack]"):
        line += b" " + name.strip(b"[]")
    if pages:
        anonymous = residence.kind_of(vma) == residence.ANON
        line += (b" anon=%d dirty=%d" if anonymous else b" mapped=%d active=%d") % (pages, pages)
        line += b" N0=%d kernelpagesize_kB=4" % pages
    return line + b"\n"


def numa_maps(task: Task, mm: MemoryManager | None, cursor: int) -> tuple[bytes, int]:
    """numa_maps(5), with one node."""
    return _piece(task, mm, cursor, _numa_line, _LINE)


def code_size(mm: MemoryManager) -> int:
    """Bytes of the pages that the program's own code stands in (VmExe)."""
    return max(0, (mm.end_code + mman.PAGE_MASK & ~mman.PAGE_MASK) - (mm.start_code & ~mman.PAGE_MASK))


def statm(task: Task) -> bytes:
    """proc_pid_statm(5), in pages."""
    mm = task.mm
    if mm is None:
        return b"0 0 0 0 0 0 0\n"
    anonymous, files, shared = residence.measure(mm)
    values = (mm.total_vm, anonymous + files + shared, files + shared, code_size(mm))
    pages = tuple([value // mman.PAGE_SIZE for value in values])
    return b"%d %d %d %d 0 %d 0\n" % (*pages, (mm.data_vm + mm.stack_vm) // mman.PAGE_SIZE)
