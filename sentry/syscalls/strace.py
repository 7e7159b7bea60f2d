"""`--strace`: one line a call on stderr, in the manner of strace(1).

    [2] openat(AT_FDCWD, "/etc/passwd", O_RDONLY|O_CLOEXEC) = 3

A call's arguments are formatted when it is entered, those that it fills in when it returns.  When
another task's line comes between, the line is cut with `<unfinished ...>` and taken up later.

SIGNATURES says what each argument is.  Calls that it doesn't know are shown by the decoder's
kinds, or, for calls that nobody handles, by python-ptrace's prototypes: `load` imports them, before
the Sentry locks itself down.
"""

from __future__ import annotations

import errno
import os

from sentry.abi import fcntl
from sentry.abi.prctl import ARCH_NAMES
from sentry.abi.prctl import NAMES as PRCTL_NAMES
from sentry.abi.syscall_nr import NAMES
from sentry.syscalls import strace_values as v
from sentry.syscalls.args import REGISTERS
from sentry.syscalls.table import TABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sentry.abi.signal import SigInfo
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.task import Task

    #: Makes text of argument `i` of a call: (task, arguments, i, result).
    Format = Callable[[Task, tuple[int, ...], int, int], str]

TIMESPEC = ("tv_sec", "tv_nsec")
TIMEVAL = ("tv_sec", "tv_usec")

#: Arguments of each call: names of FORMATS (known at entry) and of RESULTS (filled in by the call).
_SIGNATURES = """
read fd obuf size;write fd buf:2 size;pread64 fd obuf size ld;pwrite64 fd buf:2 size ld
readv fd oiov:2 d;writev fd iov:2 d;preadv fd oiov:2 d ld;pwritev fd iov:2 d ld
preadv2 fd oiov:2 d ld ld x;pwritev2 fd iov:2 d ld ld x
open path oflags mode:1;openat dirfd path oflags mode:2;openat2 dirfd path how size;creat path mode;close fd
close_range u u x;stat path ostat;lstat path ostat;fstat fd ostat;newfstatat dirfd path ostat at
statx dirfd path at x x;access path amode;faccessat dirfd path amode;faccessat2 dirfd path amode at
lseek fd ld whence;dup fd;dup2 fd fd;dup3 fd fd oflags;fcntl fd fcntl fcntlarg;ioctl fd ioctl ioctlarg
flock fd lock
mmap x size prot mapflags fd off;mprotect x size prot;munmap x size;mremap x size size mremap x
madvise x size madvise;msync x size msync;mincore x size x;brk x;mlock x size;munlock x size
pipe ofds;pipe2 ofds oflags;poll pollfd:1 d d;ppoll pollfd:1 d ts sigset size;select d x x x tv
pselect6 d x x x ts x;epoll_create1 oflags;epoll_ctl fd epollop fd epoll;epoll_wait fd oepoll d d
epoll_pwait fd oepoll d d sigset size;eventfd2 u efd;timerfd_create clock oflags;timerfd_settime fd x its oits
signalfd4 fd sigset size oflags;memfd_create path x;getdents64 fd x size;getdents fd x size
getcwd opath size;chdir path;fchdir fd;rename path path;renameat dirfd path dirfd path
renameat2 dirfd path dirfd path rename;mkdir path mode;mkdirat dirfd path mode;rmdir path;link path path
linkat dirfd path dirfd path at;unlink path;unlinkat dirfd path rmat
symlink path path;symlinkat path dirfd path
readlink path obuf size;readlinkat dirfd path obuf size;chmod path mode;fchmod fd mode
fchmodat dirfd path mode
chown path d d;fchown fd d d;lchown path d d;fchownat dirfd path d d at;umask mode;statfs path x;fstatfs fd x
truncate path ld;ftruncate fd ld;fallocate fd x ld ld;fsync fd;fdatasync fd;utimensat dirfd path x at
mknod path mode x;mknodat dirfd path mode x;chroot path;mount path path path x x;umount2 path x
getxattr path path x size;lgetxattr path path x size;fgetxattr fd path x size;listxattr path x size
llistxattr path x size;flistxattr fd x size;sendfile fd fd x size;copy_file_range fd x fd x size u
clone clone x x x x;clone3 clone3 size;fork;vfork;execve path argv envp;execveat dirfd path argv envp at
exit d;exit_group d;wait4 d owstatus wait x;waitid idtype d x wait x;kill d sig;tkill d sig;tgkill d d sig
rt_sigaction sig sigaction osigaction size;rt_sigprocmask how sigset osigset size;rt_sigreturn;pause
rt_sigsuspend sigset size;rt_sigpending osigset size;rt_sigtimedwait sigset x ts size;sigaltstack x x
getpid;gettid;getppid;getuid;geteuid;getgid;getegid;getpgrp;getpgid d;setpgid d d;getsid d;setsid
setuid d;setgid d;setreuid d d;setregid d d;setresuid d d d;setresgid d d d;getgroups d x;setgroups d x
getresuid ofd1 ofd1 ofd1;getresgid ofd1 ofd1 ofd1;setfsuid d;setfsgid d
futex x futexop u futexts x x;set_tid_address x;set_robust_list x size;get_robust_list d x x;rseq x size x x
arch_prctl arch x;prctl prctl prctlarg x x x;getrlimit rlim orlimit;setrlimit rlim rlimit
prlimit64 d rlim rlimit orlimit;getrusage d x;uname x;sysinfo x;getrandom obuf size grnd;personality x
nanosleep ts ots;clock_nanosleep clock x ts ots;clock_gettime clock ots;clock_getres clock ots
gettimeofday otv x;time x;times x;alarm u;getitimer itimer oitv;setitimer itimer itv oitv
timer_create clock x ofd1;timer_settime d x its oits;timer_gettime d oits;timer_delete d;timer_getoverrun d
sched_yield;sched_getaffinity d size x;sched_setaffinity d size x;getpriority d d;setpriority d d d
restart_syscall;sync;vhangup
"""


def _number(text: str) -> tuple[str, int]:
    """A kind such as "buf:2": its name, and the number of the argument that it depends on (-1: none)."""
    name, _, index = text.partition(":")
    return name, int(index) if index else -1


def _parse(text: str) -> dict[str, tuple[tuple[str, int], ...]]:
    found = {}
    for entry in text.replace("\n", ";").split(";"):
        if entry:
            name, *kinds = entry.split()
            found[name] = tuple(_number(kind) for kind in kinds)
    return found


SIGNATURES = _parse(_SIGNATURES)


def _dirfd(value: int) -> str:
    fd = v.signed(value)
    return "AT_FDCWD" if fd == fcntl.AT_FDCWD else str(fd)


def _futex(value: int) -> str:
    value &= 0xFFFFFFFF
    text = "FUTEX_" + v.FUTEX_OPS.get(value & 0x7F, hex(value & 0x7F))
    return text + ("_PRIVATE" if value & 0x80 else "") + ("|FUTEX_CLOCK_REALTIME" if value & 0x100 else "")


def _access_mode(value: int) -> str:
    return v.flags(value & 0xFFFFFFFF, v.ACCESS, "F_OK")


#: Kinds that are told by the register alone.
PLAIN: dict[str, Callable[[int], str]] = {
    "d": lambda a: str(v.signed(a)),
    "u": lambda a: str(a & 0xFFFFFFFF),
    "ld": lambda a: str(v.signed(a, 64)),
    "size": str,
    "x": v.pointer,
    "off": lambda a: hex(a) if a else "0",
    "grnd": lambda a: v.flags(a & 0xFFFFFFFF, v.GRND),
    "fd": lambda a: str(v.signed(a)),
    "dirfd": _dirfd,
    "oflags": lambda a: v.open_flags(a & 0xFFFFFFFF),
    "amode": _access_mode,
    "mode": v.mode,
    "at": lambda a: v.flags(a & 0xFFFFFFFF, v.AT_FLAGS),
    "rmat": lambda a: "AT_REMOVEDIR" if a & 0xFFFFFFFF == 0x200 else v.flags(a & 0xFFFFFFFF, v.AT_FLAGS),
    "whence": lambda a: v.choice(a & 0xFFFFFFFF, v.WHENCE),
    "fcntl": lambda a: v.choice(a & 0xFFFFFFFF, v.FCNTL),
    "ioctl": lambda a: v.choice(a & 0xFFFFFFFF, v.IOCTL),
    "lock": lambda a: v.flags(a & 0xFFFFFFFF, v.LOCK),
    "rename": lambda a: v.flags(a & 0xFFFFFFFF, v.RENAME),
    "prot": lambda a: v.flags(a, v.PROT, "PROT_NONE"),
    "mapflags": v.map_flags,
    "mremap": lambda a: v.flags(a, v.MREMAP),
    "madvise": lambda a: v.choice(a & 0xFFFFFFFF, v.MADVISE),
    "msync": lambda a: v.flags(a & 0xFFFFFFFF, v.MSYNC),
    "epollop": lambda a: v.choice(a & 0xFFFFFFFF, v.EPOLL_OPS),
    "efd": lambda a: v.flags(a & 0xFFFFFFFF, v.EFD),
    "clock": lambda a: v.choice(a & 0xFFFFFFFF, v.CLOCKS),
    "itimer": lambda a: v.choice(a & 0xFFFFFFFF, v.ITIMERS),
    "clone": v.clone_flags,
    "wait": lambda a: v.flags(a & 0xFFFFFFFF, v.WAIT),
    "idtype": lambda a: v.choice(a & 0xFFFFFFFF, v.ID_TYPES),
    "sig": lambda a: v.signal_name(a & 0xFFFFFFFF),
    "how": lambda a: v.choice(a & 0xFFFFFFFF, v.SIGMASK_HOW),
    "futexop": _futex,
    "arch": lambda a: v.choice(a & 0xFFFFFFFF, ARCH_NAMES),
    "prctl": lambda a: v.choice(a & 0xFFFFFFFF, PRCTL_NAMES),
    "rlim": lambda a: v.choice(a & 0xFFFFFFFF, v.RESOURCES),
}


def _fcntl_arg(task: Task, args: tuple[int, ...], i: int, n: int) -> str:
    command = args[1] & 0xFFFFFFFF
    if command == fcntl.F_SETFL:
        return v.open_flags(args[i] & 0xFFFFFFFF)
    if command in (fcntl.F_GETFD, fcntl.F_GETFL):
        return ""
    if command == fcntl.F_SETFD:
        return "FD_CLOEXEC" if args[i] == 1 else str(args[i])
    return v.pointer(args[i]) if args[i] >= 4096 else str(args[i])


def _open_mode(task: Task, args: tuple[int, ...], i: int, n: int) -> str:
    """The mode argument counts only if a file may be created."""
    creates = args[n] & (fcntl.O_CREAT | 0o20000000) if n >= 0 else 1
    return v.mode(args[i]) if creates else ""


def _prctl_arg(task: Task, args: tuple[int, ...], i: int, n: int) -> str:
    name = PRCTL_NAMES.get(args[0] & 0xFFFFFFFF, "")
    return v.string(task, args[i], 16) if name == "PR_SET_NAME" else v.pointer(args[i])


def _futex_timeout(task: Task, args: tuple[int, ...], i: int, n: int) -> str:
    if v.FUTEX_OPS.get(args[1] & 0x7F) in ("WAIT", "WAIT_BITSET", "LOCK_PI", "WAIT_REQUEUE_PI"):
        return v.pairs(task, args[i], TIMESPEC)
    return v.pointer(args[i])


#: Kinds that need guest memory; `n` is the argument that they depend on.
FORMATS: dict[str, Format] = {
    "path": lambda t, a, i, n: v.string(t, a[i]),
    "mode": _open_mode,
    "buf": lambda t, a, i, n: v.buffer(t, a[i], a[n]),
    "iov": lambda t, a, i, n: v.iovecs(t, a[i], v.signed(a[n])),
    "argv": lambda t, a, i, n: v.strings(t, a[i]),
    "envp": lambda t, a, i, n: v.count_strings(t, a[i]),
    "how": lambda t, a, i, n: v.open_how(t, a[i]) if i == 2 else PLAIN["how"](a[i]),
    "fcntlarg": _fcntl_arg,
    "ioctlarg": lambda t, a, i, n: v.pointer(a[i]) if a[i] >= 4096 else str(a[i]),
    "prctlarg": _prctl_arg,
    "futexts": _futex_timeout,
    "pollfd": lambda t, a, i, n: v.pollfds(t, a[i], v.signed(a[n])),
    "epoll": lambda t, a, i, n: v.epoll_events(t, a[i], 1),
    "sigset": lambda t, a, i, n: v.sigset_at(t, a[i]),
    "sigaction": lambda t, a, i, n: v.sigaction_at(t, a[i]),
    "clone3": lambda t, a, i, n: v.clone_args(t, a[i], a[1]),
    "rlimit": lambda t, a, i, n: v.rlimit_at(t, a[i]),
    "ts": lambda t, a, i, n: v.pairs(t, a[i], TIMESPEC),
    "tv": lambda t, a, i, n: v.pairs(t, a[i], TIMEVAL),
    "its": lambda t, a, i, n: v.pairs(t, a[i], TIMESPEC, 2),
    "itv": lambda t, a, i, n: v.pairs(t, a[i], TIMEVAL, 2),
}

#: Kinds that the call fills in: formatted when it has returned; the last parameter is the result.
RESULTS: dict[str, Callable[[Task, tuple[int, ...], int, int, int], str]] = {
    "obuf": lambda t, a, i, n, r: v.buffer(t, a[i], r),
    "opath": lambda t, a, i, n, r: v.string(t, a[i]),
    "oiov": lambda t, a, i, n, r: v.iovecs(t, a[i], v.signed(a[n]), r),
    "ostat": lambda t, a, i, n, r: v.stat_at(t, a[i]),
    "ofds": lambda t, a, i, n, r: v.words32(t, a[i], 2),
    "ofd1": lambda t, a, i, n, r: v.words32(t, a[i], 1),
    "owstatus": lambda t, a, i, n, r: v.wait_status(t, a[i]) if r > 0 else v.pointer(a[i]),
    "oepoll": lambda t, a, i, n, r: (
        v.epoll_events(t, a[i], r) if r != 1 else f"[{v.epoll_events(t, a[i], 1)}]"
    ),
    "osigset": lambda t, a, i, n, r: v.sigset_at(t, a[i]),
    "osigaction": lambda t, a, i, n, r: v.sigaction_at(t, a[i]),
    "orlimit": lambda t, a, i, n, r: v.rlimit_at(t, a[i]),
    "ots": lambda t, a, i, n, r: v.pairs(t, a[i], TIMESPEC),
    "otv": lambda t, a, i, n, r: v.pairs(t, a[i], TIMEVAL),
    "oits": lambda t, a, i, n, r: v.pairs(t, a[i], TIMESPEC, 2),
    "oitv": lambda t, a, i, n, r: v.pairs(t, a[i], TIMEVAL, 2),
}

_BY_DECODER = {
    "Int": "d",
    "Fd": "fd",
    "Signal": "sig",
    "Flags": "x",
    "UInt": "u",
    "Mode": "mode",
    "Long": "ld",
}
_BY_DECODER |= {"ULong": "x", "Size": "size", "Addr": "x", "Path": "path"}
_HEX_RESULTS = ("mmap", "mremap", "brk")
#: Prototypes of calls without a handler, from python-ptrace: name → kinds.
_foreign: dict[str, tuple[tuple[str, int], ...]] = {}


def load() -> None:
    """Import python-ptrace's prototypes; call it before the Sentry can no longer open files."""
    from ptrace.syscall.prototypes import (
        FILENAME_ARGUMENTS,
        SYSCALL_PROTOTYPES,
    )

    plain = {
        "int": "d",
        "pid_t": "d",
        "uid_t": "d",
        "gid_t": "d",
        "unsigned": "u",
        "unsigned int": "u",
        "u32": "u",
    }
    plain |= {
        "long": "ld",
        "off_t": "ld",
        "loff_t": "ld",
        "size_t": "size",
        "umode_t": "mode",
        "clockid_t": "clock",
    }
    for name in NAMES.values():
        kinds = []
        for kind, argument in SYSCALL_PROTOTYPES.get(name, ("", ()))[1]:
            if kind == "const char *" or argument in FILENAME_ARGUMENTS:
                kinds.append(("path", -1))
            else:
                kinds.append((plain.get(kind, "x"), -1))
        _foreign[name] = tuple(kinds)


def signature(nr: int) -> tuple[tuple[str, int], ...]:
    """The kinds of the arguments of call number `nr`."""
    name = NAMES.get(nr, "")
    known = SIGNATURES.get(name)
    if known is not None:
        return known
    entry = TABLE.get(nr)
    if entry is not None and name not in _foreign:
        return tuple((_BY_DECODER[kind], -1) for kind in entry.kinds)
    return _foreign.get(name, (("x", -1),) * 6)


def _argument(task: Task, args: tuple[int, ...], i: int, kind: str, n: int) -> str:
    if kind in FORMATS and not (kind == "mode" and n < 0):
        return FORMATS[kind](task, args, i, n)
    return PLAIN[kind](args[i])


def format_call(task: Task, nr: int, args: tuple[int, ...]) -> tuple[str, list[tuple[int, str, int]]]:
    """(the text up to the first argument that the call fills in, those arguments and what follows them).

    Never raises on guest data: a struct that can't be read is shown as its address.
    """
    kinds = signature(nr)
    parts: list[str] = []
    for i, (kind, n) in enumerate(kinds):
        if kind in RESULTS:
            return ", ".join(parts), [(i + k, *rest) for k, rest in enumerate(kinds[i:])]
        text = _argument(task, args, i, kind, n)
        if text:
            parts.append(text)
    return ", ".join(parts), []


def format_rest(task: Task, args: tuple[int, ...], rest: list[tuple[int, str, int]], result: int) -> str:
    """The arguments that `format_call` left, when the call has ended with `result` (negative: -errno)."""
    parts = []
    for i, kind, n in rest:
        if kind not in RESULTS:
            text = _argument(task, args, i, kind, n)
        elif result < 0:
            text = v.pointer(args[i])
        else:
            text = RESULTS[kind](task, args, i, n, result)
        if text:
            parts.append(text)
    return ", ".join(parts)


_RESTARTS = {512: "ERESTARTSYS", 513: "ERESTARTNOINTR", 514: "ERESTARTNOHAND", 516: "ERESTART_RESTARTBLOCK"}


def format_result(nr: int, rax: int, restart: int = 0) -> str:
    """What stands behind the equals sign; `restart` is the internal errno of an interrupted call."""
    if restart:
        return f"? {_RESTARTS.get(restart, restart)} (To be restarted)"
    value = v.signed(rax, 64)
    if -4096 < value < 0:
        return f"-1 {errno.errorcode.get(-value, -value)} ({os.strerror(-value)})"
    name = NAMES.get(nr, "")
    if name in _HEX_RESULTS or (name == "fcntl" and value >= 1024):
        return hex(rax)
    return v.octal(value) if name == "umask" else str(value)


class Strace:
    """The kernel's `strace` hook: told of every call, signal and end."""

    __slots__ = ("_fd", "_kernel", "_open")

    def __init__(self, kernel: Kernel, fd: int = 2) -> None:
        self._kernel = kernel
        self._fd = fd
        #: tid → what has been formatted of the call under way, whether a part of it is already out.
        self._open: dict[int, Any] = {}

    def enter(self, task: Task, nr: int) -> None:
        """`task` is about to run the handler of `nr`."""
        regs = task.regs
        args = tuple(getattr(regs, name) for name in REGISTERS)
        name = NAMES.get(nr, f"syscall_{nr:#x}")
        try:
            head, rest = format_call(task, nr, args)
        except Exception as error:
            head, rest = f"/* {type(error).__name__} */ " + ", ".join(map(v.pointer, args)), []
        if name in ("exit", "exit_group"):
            self._line(task, f"{name}({head}) = ?")
            self._line(task, f"+++ exited with {args[0] & 0xFF} +++")
            return
        if name == "rt_sigreturn":
            head = "{mask=...}"
        self._open[task.tid] = [name, args, head, rest, False]

    def leave(self, task: Task, nr: int, restart: int) -> None:
        """The call has its result in rax."""
        call = self._open.pop(task.tid, None)
        if call is None:
            return
        name, args, head, rest, cut = call
        rax = task.regs.rax
        value = v.signed(rax, 64)
        failed = -4096 < value < 0
        try:
            tail = (
                format_rest(task, args, rest, -1 if failed or restart else value)
                if task.mm is not None
                else ""
            )
        except Exception as error:
            tail = f"/* {type(error).__name__} */"
        between = ", " if head and tail else ""
        start = f"<... {name} resumed>" + (", " if between else "") if cut else f"{name}({head}{between}"
        self._line(task, f"{start}{tail}) = {format_result(nr, rax, restart)}")

    def signal(self, task: Task, info: SigInfo) -> None:
        """A signal is delivered."""
        try:
            text = v.siginfo(info)
        except Exception:
            text = "{...}"
        self._line(task, f"--- {v.signal_name(info.signo)} {text} ---")

    def killed(self, task: Task, signo: int) -> None:
        """A signal ends the process of `task`."""
        self._open.pop(task.tid, None)
        self._line(task, f"+++ killed by {v.signal_name(signo)} +++")

    def cloned(self, task: Task, child: Task) -> None:
        """`child` is about to run for the first time."""

    def _line(self, task: Task, text: str) -> None:
        """Write a line of `task`, after cutting those of the calls that are still open."""
        out = []
        for tid, call in list(self._open.items()):
            if tid == task.tid or call[4]:
                continue
            other = self._kernel.tasks.get(tid)
            if other is None or other.exited:
                del self._open[tid]
                continue
            call[4] = True
            out.append(f"[{tid}] {call[0]}({call[2]} <unfinished ...>\n")
        out.append(f"[{task.tid}] {text}\n")
        try:
            os.write(self._fd, "".join(out).encode("utf-8", "replace"))
        except OSError:
            pass
