"""Single values of `--strace` lines: flags, strings, and the structs worth showing.

Every function here takes hostile input: guest memory is read once, in small bounded pieces, and
what cannot be read is shown as its address.
"""

from __future__ import annotations

from _struct import Struct

from sentry.abi import epoll, fcntl, ioctl, mman, poll, resource, sched, signal, wait
from sentry.abi import time as abi_time
from sentry.abi.errors import SysError
from sentry.abi.signal import SigInfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

    from sentry.kernel.task import Task

STRING_MAX = 32
PATH_SHOWN = 4096
ITEMS_MAX = 16


def names_of(module: ModuleType, *prefixes: str, leave: tuple[str, ...] = ()) -> dict[int, str]:
    """The constants of an abi module by value; of two names for one value the first counts."""
    found: dict[int, str] = {}
    for name, value in vars(module).items():
        if name.startswith(prefixes) and name not in leave and isinstance(value, int):
            found.setdefault(value, name)
    return found


OPEN_FLAGS = names_of(
    fcntl, "O_", leave=("O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE", "O_VALID", "O_SETFL")
)
PROT = names_of(mman, "PROT_", leave=("PROT_NONE", "PROT_RWX"))
MAP = names_of(
    mman, "MAP_", leave=("MAP_KNOWN", "MAP_TYPE", "MAP_SHARED", "MAP_PRIVATE", "MAP_SHARED_VALIDATE")
)
MADVISE = names_of(mman, "MADV_")
MREMAP = names_of(mman, "MREMAP_")
MSYNC = names_of(mman, "MS_")
CLONE = names_of(sched, "CLONE_", leave=("CLONE_NEWTIME",))
WAIT = names_of(wait, "W", leave=("WUNTRACED",))
ID_TYPES = names_of(wait, "P_")
POLL = names_of(poll, "POLL", leave=("POLLFD", "POLLALWAYS", "POLLREADY"))
EPOLL = names_of(
    epoll, "EPOLLIN", "EPOLLPRI", "EPOLLOUT", "EPOLLERR", "EPOLLHUP", "EPOLLRD", "EPOLLONE", "EPOLLET"
)
EPOLL_OPS = names_of(epoll, "EPOLL_CTL_")
GRND = {1: "GRND_NONBLOCK", 2: "GRND_RANDOM", 4: "GRND_INSECURE"}
EFD = {1: "EFD_SEMAPHORE", 0o2000000: "EFD_CLOEXEC", 0o4000: "EFD_NONBLOCK"}
FCNTL = names_of(
    fcntl, "F_", leave=tuple(n for n in vars(fcntl) if n.startswith("F_SEAL_") or n.endswith("LCK"))
)
FCNTL |= {fcntl.F_GETLK: "F_GETLK", fcntl.F_SETLK: "F_SETLK"}
WHENCE = names_of(fcntl, "SEEK_")
AT_FLAGS = names_of(fcntl, "AT_", leave=("AT_FDCWD", "AT_EACCESS", "AT_STATX_SYNC_TYPE"))
RENAME = names_of(fcntl, "RENAME_")
LOCK = names_of(fcntl, "LOCK_")
CLOCKS = names_of(abi_time, "CLOCK_")
ITIMERS = {0: "ITIMER_REAL", 1: "ITIMER_VIRTUAL", 2: "ITIMER_PROF"}
IOCTL = names_of(ioctl, "T", "FI", "RND", leave=("TIOCINQ",))
ACCESS = {4: "R_OK", 2: "W_OK", 1: "X_OK"}
SA_FLAGS = names_of(signal, "SA_", leave=("SA_KNOWN",))
SIGMASK_HOW = {0: "SIG_BLOCK", 1: "SIG_UNBLOCK", 2: "SIG_SETMASK"}
FUTEX_OPS = dict(
    enumerate(
        [
            "WAIT",
            "WAKE",
            "FD",
            "REQUEUE",
            "CMP_REQUEUE",
            "WAKE_OP",
            "LOCK_PI",
            "UNLOCK_PI",
            "TRYLOCK_PI",
            "WAIT_BITSET",
            "WAKE_BITSET",
            "WAIT_REQUEUE_PI",
            "CMP_REQUEUE_PI",
            "LOCK_PI2",
        ]
    )
)
RESOURCES = {n: name for name, n in vars(resource).items() if name.startswith("RLIMIT_")}
FILE_TYPES = {0o14: "SOCK", 0o12: "LNK", 0o10: "REG", 0o6: "BLK", 0o4: "DIR", 0o2: "CHR", 0o1: "IFO"}
SI_CODES = {
    signal.SI_USER: "SI_USER", signal.SI_KERNEL: "SI_KERNEL", signal.SI_QUEUE: "SI_QUEUE",
    signal.SI_TIMER: "SI_TIMER", signal.SI_TKILL: "SI_TKILL",
}  # fmt: skip
CLD_CODES = names_of(signal, "CLD_")
_ESCAPES = {0x0A: "\\n", 0x09: "\\t", 0x0D: "\\r", 0x0B: "\\v", 0x0C: "\\f", 0x22: '\\"', 0x5C: "\\\\"}

_SIGACTION = Struct("<QQQQ")
_STAT_HEAD = Struct("<QQQIIIxxxxQq")
_IOVEC = Struct("<QQ")


def signed(value: int, bits: int = 32) -> int:
    """The two's complement reading of the low `bits` of a register."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def pointer(value: int) -> str:
    return hex(value) if value else "NULL"


def flags(value: int, names: dict[int, str], zero: str = "0") -> str:
    """Names of the bits, largest combinations first, and what is left in hexadecimal."""
    if value == 0:
        return names.get(0, zero)
    parts = []
    for bits in sorted(names, reverse=True):
        if bits > 0 and value & bits == bits:
            parts.append((bits, names[bits]))
            value &= ~bits
    out = [name for _, name in sorted(parts)]
    if value:
        out.append(hex(value))
    return "|".join(out)


def choice(value: int, names: dict[int, str]) -> str:
    return names.get(value, hex(value))


def peek(task: Task, addr: int, size: int) -> bytes | None:
    """Exactly `size` bytes of guest memory, or None."""
    try:
        return task.mm.read(addr, size)
    except SysError:
        return None


def quote(data: bytes, cut: bool = False) -> str:
    """A C string literal; `cut` says that there was more."""
    out = []
    for i, byte in enumerate(data):
        if byte in _ESCAPES:
            out.append(_ESCAPES[byte])
        elif 0x20 <= byte < 0x7F:
            out.append(chr(byte))
        else:
            digit = i + 1 < len(data) and 0x30 <= data[i + 1] <= 0x39
            out.append(f"\\{byte:03o}" if digit else f"\\{byte:o}")
    return '"' + "".join(out) + '"' + ("..." if cut else "")


def buffer(task: Task, addr: int, size: int) -> str:
    """The first bytes of a buffer of `size` bytes."""
    if not addr:
        return "NULL"
    shown = min(size, STRING_MAX)
    data = peek(task, addr, shown) if shown else b""
    return hex(addr) if data is None else quote(data, size > shown)


def string(task: Task, addr: int, limit: int = PATH_SHOWN) -> str:
    """A NUL-terminated string, cut at `limit` bytes."""
    if not addr:
        return "NULL"
    data = bytearray()
    while len(data) <= limit and 0 not in data:
        # Up to the end of the page at most: what follows may not be mapped.
        chunk = peek(task, addr + len(data), min(256, 4096 - (addr + len(data)) % 4096))
        if chunk is None:
            if data:
                break
            return hex(addr)
        data += chunk
    text = bytes(data).split(b"\0", 1)[0]
    return quote(text[:limit], len(text) > limit or 0 not in data)


def strings(task: Task, addr: int) -> str:
    """argv: a NULL-terminated vector of strings."""
    items: list[str] = []
    for word in _words(task, addr):
        if len(items) == ITEMS_MAX:
            items.append("...")
            break
        items.append(string(task, word, 256))
    return "[" + ", ".join(items) + "]" if addr else "NULL"


def count_strings(task: Task, addr: int) -> str:
    """envp: only how many there are, as strace has it."""
    count = sum(1 for _ in _words(task, addr))
    return f"{pointer(addr)} /* {count} vars */"


def _words(task: Task, addr: int) -> list[int]:
    """The pointers of a NULL-terminated vector, at most a thousand."""
    found: list[int] = []
    while len(found) < 1000:
        data = peek(task, addr + 8 * len(found), 8)
        word = int.from_bytes(data or b"", "little")
        if not word:
            break
        found.append(word)
    return found


def signal_name(signo: int) -> str:
    if signo in signal.NAMES:
        return signal.NAMES[signo]
    return f"SIGRT_{signo - 32}" if 32 <= signo <= 64 else str(signo)


def signal_set(mask: int) -> str:
    """A signal set, or its complement with a tilde when that is shorter."""
    inverted = mask.bit_count() > 32
    if inverted:
        mask ^= (1 << 64) - 1
    names = [signal_name(n).removeprefix("SIG") for n in range(1, 65) if mask >> (n - 1) & 1]
    return ("~[" if inverted else "[") + " ".join(names) + "]"


def sigset_at(task: Task, addr: int) -> str:
    data = peek(task, addr, 8) if addr else None
    return pointer(addr) if data is None else signal_set(int.from_bytes(data, "little"))


def sigaction_at(task: Task, addr: int) -> str:
    data = peek(task, addr, 32) if addr else None
    if data is None:
        return pointer(addr)
    handler, bits, _, mask = _SIGACTION.unpack(data)
    shown = {0: "SIG_DFL", 1: "SIG_IGN"}.get(handler, hex(handler))
    return f"{{sa_handler={shown}, sa_mask={signal_set(mask)}, sa_flags={flags(bits, SA_FLAGS)}}}"


def siginfo(info: SigInfo) -> str:
    """What strace shows of a siginfo_t."""
    codes = CLD_CODES if info.signo == signal.SIGCHLD and info.code > 0 else SI_CODES
    parts = [f"si_signo={signal_name(info.signo)}", f"si_code={codes.get(info.code, info.code)}"]
    if info.code > 0 and signal.bit(info.signo) & signal.SYNCHRONOUS and info.signo != signal.SIGSYS:
        parts.append(f"si_addr={pointer(info.addr)}")
    elif info.code != signal.SI_KERNEL:
        parts += [f"si_pid={info.pid}", f"si_uid={info.uid}"]
        if info.signo == signal.SIGCHLD and info.code > 0:
            parts.append(f"si_status={info.status}")
    return "{" + ", ".join(parts) + "}"


def mode(value: int) -> str:
    """Permission bits as strace writes them."""
    value &= 0xFFFF
    kind = FILE_TYPES.get(value >> 12)
    return f"S_IF{kind}|{octal(value & 0o7777)}" if kind else octal(value)


def octal(value: int) -> str:
    """A C octal literal of at least three digits."""
    return f"0{value:03o}"


def open_flags(value: int) -> str:
    access = ("O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE")[value & 3]
    rest = value & ~3
    return access + ("|" + flags(rest, OPEN_FLAGS) if rest else "")


def map_flags(value: int) -> str:
    kinds = {1: "MAP_SHARED", 2: "MAP_PRIVATE", 3: "MAP_SHARED_VALIDATE"}
    kind = kinds.get(value & 15, hex(value & 15))
    return kind + ("|" + flags(value & ~15, MAP) if value & ~15 else "")


def clone_flags(value: int) -> str:
    """clone(2)'s flags with the exit signal in the low byte."""
    signo = value & 0xFF
    parts = [flags(value & ~0xFF, CLONE)] if value & ~0xFF else []
    if signo:
        parts.append(signal_name(signo))
    return "|".join(parts) or "0"


def stat_at(task: Task, addr: int) -> str:
    data = peek(task, addr, _STAT_HEAD.size) if addr else None
    if data is None:
        return pointer(addr)
    _, _, _, st_mode, _, _, rdev, size = _STAT_HEAD.unpack(data)
    if st_mode >> 12 in (0o2, 0o6):
        major = rdev >> 8 & 0xFFF
        return f"{{st_mode={mode(st_mode)}, st_rdev=makedev({major:#x}, {rdev & 0xFF:#x}), ...}}"
    return f"{{st_mode={mode(st_mode)}, st_size={size}, ...}}"


def words32(task: Task, addr: int, count: int) -> str:
    """An array of ints, such as a pipe's descriptors."""
    data = peek(task, addr, 4 * min(count, ITEMS_MAX)) if addr else None
    if data is None:
        return pointer(addr)
    return "[" + ", ".join(str(signed(value)) for value in memoryview(data).cast("I")) + "]"


def wait_status(task: Task, addr: int) -> str:
    data = peek(task, addr, 4) if addr else None
    if data is None:
        return pointer(addr)
    status = int.from_bytes(data, "little")
    if status == 0xFFFF:
        return "[{WIFCONTINUED(s)}]"
    if status & 0xFF == 0x7F:
        return f"[{{WIFSTOPPED(s) && WSTOPSIG(s) == {signal_name(status >> 8 & 0xFF)}}}]"
    if status & 0x7F:
        core = " && WCOREDUMP(s)" if status & 0x80 else ""
        return f"[{{WIFSIGNALED(s) && WTERMSIG(s) == {signal_name(status & 0x7F)}{core}}}]"
    return f"[{{WIFEXITED(s) && WEXITSTATUS(s) == {status >> 8 & 0xFF}}}]"


def pairs(task: Task, addr: int, names: tuple[str, str], count: int = 1) -> str:
    """One or two (seconds, fraction) structs: timespec, timeval, itimerspec, itimerval."""
    data = peek(task, addr, 16 * count) if addr else None
    if data is None:
        return pointer(addr)
    parts = []
    for i in range(count):
        first, second = abi_time.TIMESPEC.unpack_from(data, 16 * i)
        parts.append(f"{{{names[0]}={first}, {names[1]}={second}}}")
    return parts[0] if count == 1 else f"{{it_interval={parts[0]}, it_value={parts[1]}}}"


def rlimit_at(task: Task, addr: int) -> str:
    data = peek(task, addr, 16) if addr else None
    if data is None:
        return pointer(addr)

    def shown(value: int) -> str:
        if value == (1 << 64) - 1:
            return "RLIM64_INFINITY"
        return f"{value // 1024}*1024" if value and value % 1024 == 0 else str(value)

    soft, hard = _IOVEC.unpack(data)
    return f"{{rlim_cur={shown(soft)}, rlim_max={shown(hard)}}}"


def iovecs(task: Task, addr: int, count: int, left: int | None = None) -> str:
    """An iovec array; `left` is how many bytes count in all (the result of a read)."""
    data = peek(task, addr, 16 * min(count, ITEMS_MAX)) if addr and count > 0 else None
    if data is None:
        return pointer(addr)
    parts = []
    for i in range(len(data) // 16):
        base, size = _IOVEC.unpack_from(data, 16 * i)
        used = size if left is None else min(size, left)
        if left is not None:
            left -= used
        parts.append(f"{{iov_base={buffer(task, base, used)}, iov_len={size}}}")
    if count > ITEMS_MAX:
        parts.append("...")
    return "[" + ", ".join(parts) + "]"


def pollfds(task: Task, addr: int, count: int, ready: bool = False) -> str:
    """pollfd array: what is asked, or (`ready`) what has come of it."""
    data = peek(task, addr, 8 * min(count, ITEMS_MAX)) if addr and count > 0 else None
    if data is None:
        return pointer(addr)
    parts = []
    for i in range(len(data) // 8):
        fd, events, revents = poll.POLLFD.unpack_from(data, 8 * i)
        if ready and revents:
            parts.append(f"{{fd={fd}, revents={flags(revents, POLL)}}}")
        elif not ready:
            parts.append(f"{{fd={fd}, events={flags(events & 0xFFFF, POLL)}}}")
    return "[" + ", ".join(parts) + "]"


def epoll_events(task: Task, addr: int, count: int) -> str:
    data = peek(task, addr, 12 * min(count, ITEMS_MAX)) if addr and count > 0 else None
    if data is None:
        return "[]" if count == 0 else pointer(addr)
    parts = []
    for i in range(len(data) // 12):
        events, value = epoll.EPOLL_EVENT.unpack_from(data, 12 * i)
        parts.append(f"{{events={flags(events, EPOLL)}, data={value:#x}}}")
    return parts[0] if count == 1 else "[" + ", ".join(parts) + "]"


def clone_args(task: Task, addr: int, size: int) -> str:
    """clone3(2)'s struct: flags and exit signal."""
    data = peek(task, addr, 40) if addr and size >= 40 else None
    if data is None:
        return pointer(addr)
    words = memoryview(data).cast("Q")
    return f"{{flags={flags(words[0], CLONE)}, exit_signal={signal_name(words[4]) if words[4] else 0}, ...}}"


def open_how(task: Task, addr: int) -> str:
    data = peek(task, addr, 24) if addr else None
    if data is None:
        return pointer(addr)
    words = memoryview(data).cast("Q")
    resolve = flags(words[2], names_of(fcntl, "RESOLVE_", leave=("RESOLVE_VALID",)))
    return f"{{flags={open_flags(words[0])}, mode={mode(words[1])}, resolve={resolve}}}"
