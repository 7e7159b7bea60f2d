"""What is measured: each row of the table, its unit, how its samples become one figure, and its target."""

from __future__ import annotations

from dataclasses import dataclass, field

OPERATIONS, START, MEMORY, PROGRAMS = "operations", "start-up", "memory", "programs"


@dataclass(frozen=True)
class Target:
    """Upper limits: `ratio` to native, and `value` in the row's unit; both must hold.

    A `peer` measured in the same run replaces `ratio`: `share` of its figure (of its overhead over native
    where `overhead` is set).
    """

    ratio: float | None = None
    value: float | None = None
    peer: str = ""
    share: float = 1.0
    overhead: bool = False


@dataclass(frozen=True)
class Row:
    name: str
    section: str
    unit: str = "ns"
    #: "least" or "median": which figure of the samples is compared.
    by: str = "least"
    target: Target | None = None
    #: Whether a ratio to native says anything.
    has_ratio: bool = True


@dataclass
class Cell:
    """What one contender has shown in one row: samples, or why there are none."""

    samples: list[float] = field(default_factory=list)
    failed: str = ""
    skipped: str = ""

    def figure(self, by: str) -> float | None:
        if self.failed or self.skipped or not self.samples:
            return None
        ordered = sorted(self.samples)
        middle = len(ordered) // 2
        if by == "least":
            return ordered[0]
        return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2

    def ends(self) -> bool:
        """True when it makes no sense to measure it again."""
        return bool(self.failed or self.skipped)


def operation(names: str, target: Target | None = None) -> list[Row]:
    return [Row(name, OPERATIONS, target=target) for name in names.split()]


#: A call of some hundred nanoseconds: as a ratio, and in all.
QUICK_CALL = Target(6.0, 1500.0)
#: Figures for programs were taken with gVisor's systrap on another machine; half of its overhead.
SYSTRAP = "systrap"


def half_overhead(systrap: float | None = None) -> Target:
    ratio = None if systrap is None else 1 + (systrap - 1) / 2
    return Target(ratio, peer=SYSTRAP, share=0.5, overhead=True)


#: In groups, each run by one start of the program.
OPERATION_GROUPS: list[list[Row]] = [
    [
        *operation("cpu_loop_1M", Target(1.1)),
        *operation("getppid getpid getuid gettid", Target(1.0)),
        *operation("getppid_generic clock_gettime"),
        *operation("clock_gettime_sys sched_yield sigprocmask futex_wake_none", Target(1.5)),
    ],
    [
        *operation("read_zero_1 write_null_1 lseek fstat", QUICK_CALL),
        *operation("dup_close"),
        *operation("pread_4k", Target(3.0)),
        *operation("pread_64k", Target(1.7)),
        *operation("pwrite_4k", Target(2.5)),
        *operation("open_close stat stat_enoent", Target(5.0)),
        *operation("create_unlink readdir_1000"),
    ],
    [
        *operation("mmap_munmap", Target(4.0)),
        *operation("anon_fault", Target(1.1)),
        *operation("file_map_read_1M", Target(2.0)),
    ],
    [*operation("signal_self fork_exit_wait spawn_exec_wait thread_create_join", Target(5.0))],
    [
        *operation("pipe_write_read_1 eventfd_write_read epoll_wait_ready", QUICK_CALL),
        *operation("pipe_pingpong", Target(5.0)),
        *operation("pipe_64k_chunk"),
        *operation("futex_pingpong", Target(1.5)),
    ],
    [
        *operation("unix_pingpong", Target(5.0)),
        *operation("tcp_lo_pingpong tcp_lo_connect_accept tcp_lo_64k_chunk udp_lo_send_recv"),
    ],
]

BIN_TRUE = Row("bin_true", START, "ms", "median", Target(peer="runsc:ptrace", share=2 / 3))
#: These two have no sandbox: what the interpreter and the imports cost by themselves.
INTERPRETER = Row("python_bare", START, "ms", "median", has_ratio=False)
IMPORT = Row("import_sentry", START, "ms", "median", has_ratio=False)

PRIVATE = Row("idle_private", MEMORY, "MiB", "median", has_ratio=False)
PSS = Row("idle_pss", MEMORY, "MiB", "median", has_ratio=False)
PEAK = Row("idle_peak", MEMORY, "MiB", "median", has_ratio=False)

START_ROWS, IMPORT_ROWS, MEMORY_ROWS = [BIN_TRUE], [INTERPRETER, IMPORT], [PRIVATE, PSS, PEAK]

#: The rows of --quick.
QUICK = {
    "getppid",
    "read_zero_1",
    "open_close",
    "pipe_write_read_1",
    "fork_exit_wait",
    "bin_true",
    "sh_pipelines",
}
