"""Signals of x86-64: numbers, sets, siginfo and the structs around them (signal(7), asm/sigcontext.h)."""

from __future__ import annotations

from _struct import Struct

SIGHUP, SIGINT, SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGKILL, SIGUSR1 = range(1, 11)
SIGSEGV, SIGUSR2, SIGPIPE, SIGALRM, SIGTERM, SIGSTKFLT, SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP = range(11, 21)
SIGTTIN, SIGTTOU, SIGURG, SIGXCPU, SIGXFSZ, SIGVTALRM, SIGPROF, SIGWINCH = range(21, 29)
SIGIO, SIGPWR, SIGSYS = range(29, 32)
SIGRTMIN = 32
NSIG = 64

NAMES = {
    number: name
    for name, number in list(globals().items())
    if name.startswith("SIG") and isinstance(number, int) and number <= SIGSYS
}

SIG_DFL = 0
SIG_IGN = 1

SIG_BLOCK = 0
SIG_UNBLOCK = 1
SIG_SETMASK = 2

SA_NOCLDSTOP = 0x1
SA_NOCLDWAIT = 0x2
SA_SIGINFO = 0x4
SA_UNSUPPORTED = 0x400
SA_EXPOSE_TAGBITS = 0x800
SA_RESTORER = 0x04000000
SA_ONSTACK = 0x08000000
SA_RESTART = 0x10000000
SA_NODEFER = 0x40000000
SA_RESETHAND = 0x80000000
#: The flags that sigaction(2) keeps; others are cleared, so that programs can probe.
SA_KNOWN = (
    SA_NOCLDSTOP | SA_NOCLDWAIT | SA_SIGINFO | SA_EXPOSE_TAGBITS | SA_RESTORER | SA_ONSTACK | SA_RESTART
    | SA_NODEFER | SA_RESETHAND
)  # fmt: skip

SS_ONSTACK = 1
SS_DISABLE = 2
SS_AUTODISARM = 0x80000000
#: AT_MINSIGSTKSZ is larger; this is what sigaltstack(2) itself insists on.
MINSIGSTKSZ = 2048

SI_USER = 0
SI_KERNEL = 0x80
SI_QUEUE = -1
SI_TIMER = -2
SI_MESGQ = -3
SI_ASYNCIO = -4
SI_SIGIO = -5
SI_TKILL = -6

CLD_EXITED = 1
CLD_KILLED = 2
CLD_DUMPED = 3
CLD_TRAPPED = 4
CLD_STOPPED = 5
CLD_CONTINUED = 6

SEGV_MAPERR = 1
SEGV_ACCERR = 2
TRAP_BRKPT = 1
TRAP_TRACE = 2
TRAP_HWBKPT = 4


def bit(signo: int) -> int:
    """The bit of `signo` in a signal set."""
    return 1 << (signo - 1)


UNBLOCKABLE = bit(SIGKILL) | bit(SIGSTOP)
STOP_SIGNALS = bit(SIGSTOP) | bit(SIGTSTP) | bit(SIGTTIN) | bit(SIGTTOU)
IGNORED_BY_DEFAULT = bit(SIGCHLD) | bit(SIGURG) | bit(SIGWINCH) | bit(SIGCONT)
CORE_BY_DEFAULT = (
    bit(SIGQUIT) | bit(SIGILL) | bit(SIGTRAP) | bit(SIGABRT) | bit(SIGBUS) | bit(SIGFPE) | bit(SIGSEGV)
    | bit(SIGXCPU) | bit(SIGXFSZ) | bit(SIGSYS)
)  # fmt: skip
#: Delivered before others: raised by the thread's own instruction.
SYNCHRONOUS = (
    bit(SIGSEGV) | bit(SIGBUS) | bit(SIGILL) | bit(SIGTRAP) | bit(SIGFPE) | bit(SIGSYS)
)  # fmt: skip

#: struct sigaction as the kernel has it: handler, flags, restorer, mask.
SIGACTION = Struct("<QQQQ")
#: stack_t: sp, flags, size.
STACK_T = Struct("<QiiQ")
SIGINFO_SIZE = 128

_HEAD = Struct("<iiii")
_KILL = Struct("<iiiiiI")
_POLL = Struct("<iiiiqi")
_QUEUE = Struct("<iiiiiIQ")
_TIMER = Struct("<iiiiiiQ")
_CHLD = Struct("<iiiiiIiiqq")
_FAULT = Struct("<iiiiQ")
_SYS = Struct("<iiiiQiI")
_FAULTS = (SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP)


class SigInfo:
    """siginfo_t before it is written: which fields count follows from `signo` and `code`."""

    __slots__ = (
        "addr", "arch", "band", "child", "code", "errno", "fd", "overrun", "pid", "raw", "signo", "status",
        "stime",
        "syscall", "timerid", "uid", "utime", "value",
    )  # fmt: skip

    #: Whether it waits although one of its number does (a POSIX timer's own).
    preallocated = False

    def __init__(
        self, signo: int, code: int = SI_USER, pid: int = 0, uid: int = 0, *, addr: int = 0, value: int = 0,
        status: int = 0, utime: int = 0, stime: int = 0, timerid: int = 0, overrun: int = 0, syscall: int = 0,
        arch: int = 0, errno: int = 0, raw: bytes | None = None, child: bool = False,
        fd: int | None = None, band: int = 0,
    ) -> None:  # fmt: skip
        self.signo = signo
        self.code = code
        self.errno = errno
        self.pid = pid
        self.uid = uid
        self.addr = addr
        self.value = value
        self.status = status
        self.utime = utime
        self.stime = stime
        self.timerid = timerid
        self.overrun = overrun
        self.syscall = syscall
        self.arch = arch
        #: About a child: the layout of SIGCHLD, whatever the signal.
        self.child = child
        #: About a file that got ready: its descriptor and poll bits (si_fd, si_band).
        self.fd = fd
        self.band = band
        #: The bytes as rt_sigqueueinfo(2) was given them.
        self.raw = raw

    def pack(self) -> bytes:
        """The 128 bytes of siginfo_t (asm-generic/siginfo.h)."""
        signo, code = self.signo, self.code
        if self.raw is not None:
            return self.raw
        if code == SI_TIMER:
            data = _TIMER.pack(signo, self.errno, code, 0, self.timerid, self.overrun, self.value)
        elif code < 0 and code != SI_TKILL:
            data = _QUEUE.pack(signo, self.errno, code, 0, self.pid, self.uid, self.value)
        elif self.fd is not None:
            data = _POLL.pack(signo, self.errno, code, 0, self.band, self.fd)
        elif self.child:
            data = _CHLD.pack(
                signo, self.errno, code, 0, self.pid, self.uid, self.status, 0, self.utime, self.stime
            )
        elif signo == SIGSYS and code == 1:
            data = _SYS.pack(signo, self.errno, code, 0, self.addr, self.syscall, self.arch)
        elif code > 0 and code != SI_KERNEL and not self.pid and signo in _FAULTS:
            data = _FAULT.pack(signo, self.errno, code, 0, self.addr)
        else:
            data = _KILL.pack(signo, self.errno, code, 0, self.pid, self.uid)
        return data.ljust(SIGINFO_SIZE, b"\0")


#: struct sigcontext_64, without the eight reserved words at its end.
SIGCONTEXT = Struct("<8Q 8Q Q Q HHHH Q Q Q Q Q")
SIGCONTEXT_SIZE = 256
#: struct ucontext: flags, link, stack_t, sigcontext, sigmask.
UCONTEXT_HEAD = Struct("<QQQIiQ")
UCONTEXT_SIZE = 40 + SIGCONTEXT_SIZE + 8
UC_FP_XSTATE = 1
UC_SIGCONTEXT_SS = 2
UC_STRICT_RESTORE_SS = 4

#: Where struct _fpx_sw_bytes stands in the FXSAVE area, and its magics.
FP_SW_OFFSET = 464
FP_SW = Struct("<IIQI")
FP_XSTATE_MAGIC1 = 0x46505853
FP_XSTATE_MAGIC2 = 0x46505845
FXSAVE_SIZE = 512
