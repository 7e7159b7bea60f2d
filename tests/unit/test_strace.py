"""`--strace`: what lines look like, and that no guest can break them."""

from __future__ import annotations

import errno
import os
from struct import pack
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from misc_support import BASE, SIZE, U64, World

from sentry.abi.signal import SIGCHLD, SIGSEGV, SigInfo
from sentry.abi.syscall_nr import NAMES, SYS
from sentry.syscalls import strace
from sentry.syscalls import strace_values as v
from sentry.syscalls.args import REGISTERS
from sentry.syscalls.table import TABLE

END = BASE + SIZE
strace.load()


class Trace:
    """A World whose calls are traced into `lines`."""

    def __init__(self) -> None:
        self.world = World()
        self.task = self.world.task
        self._read, write = os.pipe()
        self.strace = strace.Strace(self.world.kernel, write)

    def enter(self, nr: int, *args: int, task: object = None) -> None:
        task = task or self.task
        for i, name in enumerate(REGISTERS):
            setattr(task.regs, name, args[i] & U64 if i < len(args) else 0)  # type: ignore[attr-defined]
        self.strace.enter(task, nr)  # type: ignore[arg-type]

    def leave(self, nr: int, result: int, restart: int = 0, task: object = None) -> list[str]:
        task = task or self.task
        task.regs.rax = result & U64  # type: ignore[attr-defined]
        self.strace.leave(task, nr, restart)  # type: ignore[arg-type]
        return self.lines()

    def call(self, nr: int, *args: int, result: int = 0, restart: int = 0) -> str:
        """The line of a call, without the thread id."""
        self.enter(nr, *args)
        (line,) = self.leave(nr, result, restart)
        prefix = f"[{self.task.tid}] "
        assert line.startswith(prefix)
        return line[len(prefix) :]

    def lines(self) -> list[str]:
        return os.read(self._read, 1 << 20).decode().splitlines()


@pytest.fixture
def trace() -> Trace:
    return Trace()


def put(trace: Trace, data: bytes, at: int = BASE) -> int:
    trace.task.mm.write(at, data)
    return at


def test_openat(trace: Trace) -> None:
    path = put(trace, b"/etc/ld.so.cache\0")
    line = trace.call(SYS.openat, -100, path, 0o2000000, 0o7777, result=3)
    assert line == 'openat(AT_FDCWD, "/etc/ld.so.cache", O_RDONLY|O_CLOEXEC) = 3'
    line = trace.call(SYS.openat, 5, path, 0o1101, 0o644, result=-errno.ENOENT)
    assert line == 'openat(5, "/etc/ld.so.cache", O_WRONLY|O_CREAT|O_TRUNC, 0644) = ' + (
        "-1 ENOENT (No such file or directory)"
    )


def test_read_shows_what_came_and_write_what_goes(trace: Trace) -> None:
    put(trace, b'a\n"\x01\x007\xff' + b"x" * 40)
    assert trace.call(SYS.read, 0, BASE, 100, result=7) == 'read(0, "a\\n\\"\\1\\0007\\377", 100) = 7'
    assert trace.call(SYS.read, 0, BASE, 100, result=-errno.EBADF).startswith(
        f"read(0, {BASE:#x}, 100) = -1 EBADF"
    )
    put(trace, b"y" * 40)
    assert trace.call(SYS.write, 1, BASE, 40, result=40) == f'write(1, "{"y" * 32}"..., 40) = 40'


def test_interrupted_calls(trace: Trace) -> None:
    put(trace, pack("<qq", 5, 7))
    line = trace.call(SYS.nanosleep, BASE, 0, result=-errno.EINTR, restart=516)
    assert line == "nanosleep({tv_sec=5, tv_nsec=7}, NULL) = ? ERESTART_RESTARTBLOCK (To be restarted)"
    assert (
        trace.call(SYS.pause, result=-errno.EINTR, restart=514)
        == "pause() = ? ERESTARTNOHAND (To be restarted)"
    )


def test_memory_calls(trace: Trace) -> None:
    line = trace.call(SYS.mmap, 0, 4096, 3, 0x22, -1, 0, result=0x7F0000000000)
    expected = "mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f0000000000"
    assert line == expected
    assert trace.call(SYS.mprotect, 4096, 4096, 0) == "mprotect(0x1000, 4096, PROT_NONE) = 0"


def test_execve(trace: Trace) -> None:
    put(trace, b"/bin/ls\0ls\0-l\0")
    put(trace, pack("<3Q", BASE + 8, BASE + 11, 0), BASE + 64)
    line = trace.call(SYS.execve, BASE, BASE + 64, BASE + 64)
    assert line == f'execve("/bin/ls", ["ls", "-l"], {BASE + 64:#x} /* 2 vars */) = 0'


def test_wait_pipe_and_stat(trace: Trace) -> None:
    put(trace, pack("<I", 7 << 8))
    assert trace.call(SYS.wait4, -1, BASE, 1, 0, result=5) == (
        "wait4(-1, [{WIFEXITED(s) && WEXITSTATUS(s) == 7}], WNOHANG, NULL) = 5"
    )
    put(trace, pack("<I", 0x8B))
    assert "WTERMSIG(s) == SIGSEGV && WCOREDUMP(s)" in trace.call(SYS.wait4, -1, BASE, 0, 0, result=5)
    put(trace, pack("<ii", 3, 4))
    assert trace.call(SYS.pipe2, BASE, 0o2000000) == "pipe2([3, 4], O_RDONLY|O_CLOEXEC) = 0"
    put(trace, pack("<QQQIII", 0, 0, 1, 0o100644, 0, 0) + bytes(12) + pack("<q", 99))
    assert trace.call(SYS.fstat, 1, BASE) == "fstat(1, {st_mode=S_IFREG|0644, st_size=99, ...}) = 0"


def test_signals(trace: Trace) -> None:
    put(trace, pack("<QQQQ", 0x400000, 0x14000000, 0, 1 << 16))
    line = trace.call(SYS.rt_sigaction, SIGCHLD, BASE, 0, 8)
    action = "{sa_handler=0x400000, sa_mask=[CHLD], sa_flags=SA_RESTORER|SA_RESTART}"
    assert line == f"rt_sigaction(SIGCHLD, {action}, NULL, 8) = 0"
    put(trace, pack("<Q", U64))
    assert trace.call(SYS.rt_sigprocmask, 0, BASE, 0, 8) == "rt_sigprocmask(SIG_BLOCK, ~[], NULL, 8) = 0"
    trace.strace.signal(trace.task, SigInfo(SIGCHLD, 1, 5, 0, status=7))
    trace.strace.signal(trace.task, SigInfo(SIGSEGV, 1, addr=0x10))
    trace.strace.killed(trace.task, SIGSEGV)
    tid = f"[{trace.task.tid}] "
    assert trace.lines() == [
        tid + "--- SIGCHLD {si_signo=SIGCHLD, si_code=CLD_EXITED, si_pid=5, si_uid=0, si_status=7} ---",
        tid + "--- SIGSEGV {si_signo=SIGSEGV, si_code=1, si_addr=0x10} ---",
        tid + "+++ killed by SIGSEGV +++",
    ]


def test_exit_has_no_result(trace: Trace) -> None:
    trace.enter(SYS.exit_group, 3)
    tid = f"[{trace.task.tid}] "
    assert trace.lines() == [tid + "exit_group(3) = ?", tid + "+++ exited with 3 +++"]


def test_calls_of_two_tasks_interleave(trace: Trace) -> None:
    other = trace.world.new_process()
    trace.enter(SYS.read, 0, BASE, 10)
    trace.enter(SYS.getpid, task=other)
    assert trace.leave(SYS.getpid, 9, task=other) == [
        f"[{trace.task.tid}] read(0 <unfinished ...>",
        f"[{other.tid}] getpid() = 9",
    ]
    put(trace, b"hi")
    assert trace.leave(SYS.read, 2) == [f'[{trace.task.tid}] <... read resumed>, "hi", 10) = 2']


def test_futex_clone_fcntl_and_names(trace: Trace) -> None:
    line = trace.call(SYS.futex, BASE, 0x80 | 1, 1, 0, 0, 0, result=1)
    assert line == f"futex({BASE:#x}, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, NULL) = 1"
    line = trace.call(SYS.clone, 0x1200011, 0, 0, 0, 0, result=7)
    assert line == "clone(CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|SIGCHLD, NULL, NULL, NULL, NULL) = 7"
    assert trace.call(SYS.fcntl, 3, 2, 1) == "fcntl(3, F_SETFD, FD_CLOEXEC) = 0"
    assert trace.call(SYS.fcntl, 3, 3, 0, result=2) == "fcntl(3, F_GETFL) = 2"
    assert trace.call(SYS.ioctl, 1, 0x5413, BASE).startswith("ioctl(1, TIOCGWINSZ, 0x")
    assert trace.call(SYS.prlimit64, 0, 3, 0, 0) == "prlimit64(0, RLIMIT_STACK, NULL, NULL) = 0"


def test_calls_nobody_handles_have_arguments_too(trace: Trace) -> None:
    put(trace, b"/dev/sda\0")
    line = trace.call(SYS.acct, BASE, result=-errno.ENOSYS)
    assert line == 'acct("/dev/sda") = -1 ENOSYS (Function not implemented)'
    assert trace.call(999, 1, result=-errno.ENOSYS).startswith("syscall_0x3e7(0x1, NULL")


def test_strings_up_to_the_end_of_memory(trace: Trace) -> None:
    put(trace, b"abc\0", END - 4)
    assert trace.call(SYS.chdir, END - 4) == 'chdir("abc") = 0'
    put(trace, b"abcd", END - 4)
    assert trace.call(SYS.chdir, END - 4) == 'chdir("abcd"...) = 0'
    assert trace.call(SYS.chdir, 0x10) == "chdir(0x10) = 0"


def test_signatures_name_known_calls_and_kinds() -> None:
    names = set(NAMES.values())
    kinds = strace.PLAIN.keys() | strace.FORMATS.keys() | strace.RESULTS.keys()
    for name, signature in strace.SIGNATURES.items():
        assert name in names, name
        assert {kind for kind, _ in signature} <= kinds, name
        assert all(n < len(signature) for _, n in signature)
    for nr, entry in TABLE.items():
        # The upper half of these calls' offset is always 0.
        if NAMES[nr] in strace.SIGNATURES and NAMES[nr].rstrip("2") not in ("preadv", "pwritev"):
            assert len(strace.signature(nr)) >= len(entry.kinds), NAMES[nr]


POINTERS = st.one_of(
    st.integers(0, U64),
    st.integers(BASE, END),
    st.sampled_from((0, 1, END - 1, END - 8, U64, 1 << 63, 0x7FFF_FFFF, 0xFFFF_FFFF)),
)


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(sorted(NAMES)),
    st.lists(POINTERS, min_size=6, max_size=6),
    POINTERS,
    st.binary(max_size=200),
)
def test_hostile_arguments(nr: int, args: list[int], result: int, memory: bytes) -> None:
    task = HOSTILE.task
    task.mm.write(BASE, memory)
    task.mm.write(END - len(memory), memory)
    head, rest = strace.format_call(task, nr, tuple(args))
    tail = strace.format_rest(task, tuple(args), rest, v.signed(result, 64))
    assert len(head) + len(tail) < 1 << 17
    assert "\n" not in head + tail
    assert strace.format_result(nr, result)


HOSTILE = World()


@given(st.integers(), st.integers(-200, 200), st.integers(0, U64))
def test_any_siginfo(signo: int, code: int, value: int) -> None:
    assert v.siginfo(SigInfo(max(1, min(64, signo)), code, 5, 6, addr=value, status=7)).startswith(
        "{si_signo="
    )


def test_a_broken_output_is_no_trouble() -> None:
    world = World()
    tracer = strace.Strace(world.kernel, -1)
    tracer.signal(world.task, SigInfo(SIGCHLD))
    tracer.leave(SimpleNamespace(tid=99), 0, 0)  # type: ignore[arg-type]
