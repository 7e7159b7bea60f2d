"""What /proc tells of the whole machine: processors, memory, load (proc(5))."""

from __future__ import annotations

from time import monotonic_ns

from sentry.fs.proc.base import current_task
from sentry.fs.proc.status import TICK_NS
from sentry.mm.residence import BUDGET, measure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.kernel import Kernel

#: Pages looked at to tell of all programs, and of each at least.
_MOST_PAGES, _LEAST_PAGES = 4 * BUDGET, 1024
FILESYSTEMS = (
    b"nodev\tsysfs\nnodev\ttmpfs\nnodev\tproc\nnodev\tcgroup2\nnodev\tdevtmpfs\nnodev\tsockfs\nnodev\tpipefs\n"
    b"nodev\tramfs\nnodev\tdevpts\nnodev\toverlay\nnodev\tmqueue\nnodev\t9p\n"
)
DEVICES = (
    b"Character devices:\n  1 mem\n  5 /dev/tty\n  5 /dev/console\n  5 /dev/ptmx\n 10 misc\n"
    b"128 ptm\n136 pts\n\nBlock devices:\n  7 loop\n"
)
SWAPS = b"Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
TTY_DRIVERS = (
    b"/dev/tty             /dev/tty        5       0 system:/dev/tty\n"
    b"/dev/console         /dev/console    5       1 system:console\n"
    b"/dev/ptmx            /dev/ptmx       5       2 system\n"
    b"pty_slave            /dev/pts      136 0-1048575 pty:slave\n"
    b"pty_master           /dev/ptm      128 0-1048575 pty:master\n"
)


def partitions(kernel: Kernel) -> bytes:
    loops = [] if kernel.dev is None else kernel.dev.loops.loops
    lines = [
        b"%4d  %7d %10d loop%d\n" % (7, loop.number, loop.size // 1024, loop.number)
        for loop in loops
        if loop.size
    ]
    return b"major minor  #blocks  name\n\n" + b"".join(lines)


def cpuinfo(kernel: Kernel) -> bytes:
    """The host's text for as many processors as the sandbox has, numbered from 0."""
    blocks = [block for block in kernel.host.cpuinfo.split(b"\n\n") if block.startswith(b"processor")]
    cpus = max(1, kernel.host.cpus)
    result = []
    for number, block in enumerate(blocks[:cpus]):
        lines = block.split(b"\n")
        lines[0] = b"processor\t: %d" % number
        for i, line in enumerate(lines):
            if line.startswith(b"siblings") or line.startswith(b"cpu cores"):
                lines[i] = line.split(b":")[0] + b": %d" % cpus
            elif line.startswith((b"core id", b"apicid", b"initial apicid")):
                lines[i] = line.split(b":")[0] + b": %d" % number
        result.append(b"\n".join(lines) + b"\n\n")
    return b"".join(result)


class Usage:
    """What guests hold, in bytes, as far as that can be told.

    That is anonymous memory, mapped files (once for each process that maps them), shared memory and files
    of tmpfs, and what is locked."""

    __slots__ = ("anonymous", "locked", "mapped", "shared", "total")
    total: int
    anonymous: int
    shared: int

    def __init__(self, kernel: Kernel) -> None:
        commit = kernel.commit
        self.total = kernel.config.memory or kernel.host.memory_total
        spaces = {id(task.mm): task.mm for task in kernel.tasks.values() if task.mm is not None}
        budget = min(BUDGET, max(_LEAST_PAGES, _MOST_PAGES // max(1, len(spaces))))
        sizes = [measure(mm, budget) for mm in spaces.values() if mm.users]
        self.anonymous = min(sum([size[0] for size in sizes]), self.total)
        self.mapped = sum([size[1] for size in sizes])
        self.shared = 0 if commit is None else min(commit.shared, self.total - self.anonymous)
        self.locked = sum([mm.locked_vm for mm in spaces.values()])

    @property
    def used(self) -> int:
        return self.anonymous + self.shared


def meminfo(kernel: Kernel) -> bytes:
    """proc_meminfo(5).  What the host caches of files is the host's, and not counted."""
    usage = Usage(kernel)
    total, anonymous, shared = usage.total, usage.anonymous, usage.shared
    commit = kernel.commit
    free = total - usage.used
    limit = commit.limit if commit is not None and commit.limit else total // 2
    committed = commit.used if commit is not None else usage.used
    values = (
        (b"MemTotal", total), (b"MemFree", free), (b"MemAvailable", free), (b"Buffers", 0),
        (b"Cached", shared), (b"SwapCached", 0), (b"Active", usage.used), (b"Inactive", 0),
        (b"Active(anon)", usage.used), (b"Inactive(anon)", 0), (b"Active(file)", 0), (b"Inactive(file)", 0),
        (b"Unevictable", usage.locked), (b"Mlocked", usage.locked), (b"SwapTotal", 0), (b"SwapFree", 0),
        (b"Dirty", 0), (b"Writeback", 0), (b"AnonPages", anonymous), (b"Mapped", usage.mapped),
        (b"Shmem", shared),
        (b"KReclaimable", 0), (b"Slab", 0), (b"SReclaimable", 0), (b"SUnreclaim", 0), (b"KernelStack", 0),
        (b"PageTables", 0), (b"CommitLimit", limit), (b"Committed_AS", committed), (b"VmallocTotal", 1 << 45),
        (b"VmallocUsed", 0), (b"VmallocChunk", 0), (b"AnonHugePages", 0), (b"ShmemHugePages", 0),
    )  # fmt: skip
    text = b"".join([b"%-16s%8d kB\n" % (name + b":", size // 1024) for name, size in values])
    return text + (
        b"HugePages_Total:       0\nHugePages_Free:        0\nHugePages_Rsvd:        0\n"
        b"HugePages_Surp:        0\nHugepagesize:       2048 kB\nHugetlb:               0 kB\n"
    )


def _busy_ns(kernel: Kernel) -> tuple[int, int]:
    """(user, system) nanoseconds of every process that there ever was."""
    user = system = 0
    for group in kernel.groups.values():
        utime, stime = group.cpu_times()
        user += utime + group.child_utime
        system += stime + group.child_stime
    return user, system


def stat(kernel: Kernel) -> bytes:
    """proc_stat(5).  Which processor a program ran on is not known: each has its share."""
    cpus = max(1, kernel.host.cpus)
    user, system = _busy_ns(kernel)
    uptime = monotonic_ns() - kernel.boot_ns
    idle = max(0, uptime * cpus - user - system)
    total = (user // TICK_NS, 0, system // TICK_NS, idle // TICK_NS)
    lines = [b"cpu  %d %d %d %d 0 0 0 0 0 0\n" % total]
    for cpu in range(cpus):
        lines.append(b"cpu%d %d %d %d %d 0 0 0 0 0 0\n" % (cpu, *(value // cpus for value in total)))
    running = sum(1 for task in kernel.tasks.values() if task.state == b"R")
    lines.append(
        b"intr 0\nctxt 0\nbtime %d\nprocesses %d\nprocs_running %d\nprocs_blocked 0\n"
        b"softirq 0 0 0 0 0 0 0 0 0 0 0\n"
        % (kernel.boot_realtime_ns // 1_000_000_000, kernel.forks, running or 1)
    )
    return b"".join(lines)


def _centiseconds(ns: int) -> bytes:
    return b"%d.%02d" % (ns // 1_000_000_000, ns // 10_000_000 % 100)


def uptime(kernel: Kernel) -> bytes:
    up = monotonic_ns() - kernel.boot_ns
    idle = max(0, up * max(1, kernel.host.cpus) - sum(_busy_ns(kernel)))
    return _centiseconds(up) + b" " + _centiseconds(idle) + b"\n"


def loadavg(kernel: Kernel) -> bytes:
    """Averages need a clock that ticks, and an idle sandbox has none: they stay 0."""
    tasks = kernel.tasks.values()
    running = sum(1 for task in tasks if task.state == b"R")
    return b"0.00 0.00 0.00 %d/%d %d\n" % (running or 1, len(tasks), max(kernel.tasks, default=1))


def version(kernel: Kernel) -> bytes:
    reader = current_task()
    uts = kernel.uts if reader is None else reader.nsproxy.uts
    return b"Linux version %s (sentry@sandbox) (gcc) %s\n" % (uts.release, uts.version)


def vmstat(kernel: Kernel) -> bytes:
    usage = Usage(kernel)
    pages = [
        size // 4096
        for size in (
            usage.total - usage.used, usage.anonymous, usage.anonymous, usage.mapped, usage.shared,
            usage.shared, usage.locked,
        )
    ]  # fmt: skip
    return (
        b"nr_free_pages %d\nnr_zone_inactive_anon 0\nnr_zone_active_anon %d\nnr_anon_pages %d\nnr_mapped %d\n"
        b"nr_file_pages %d\nnr_shmem %d\nnr_mlock %d\nnr_dirty 0\nnr_writeback 0\npgpgin 0\npgpgout 0\n"
        b"pswpin 0\npswpout 0\npgfault 0\npgmajfault 0\noom_kill 0\n" % tuple(pages)
    )
