"""What the system tells of itself, and randomness: uname, sysinfo, getrandom, getcpu and the like."""

from __future__ import annotations

import errno
from _struct import Struct
from os import urandom
from time import monotonic_ns

from sentry.abi.capability import CAP_SYS_ADMIN, CAP_SYS_TTY_CONFIG
from sentry.abi.errors import SysError
from sentry.abi.fcntl import MAX_RW_COUNT
from sentry.abi.syscall_nr import SYS
from sentry.abi.time import NS
from sentry.kernel.bound import FORCED_PROTECTION
from sentry.kernel.sched import READ_IMPLIES_EXEC
from sentry.kernel.wait import yield_now
from sentry.syscalls.table import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.syscalls.args import Addr, Int, Size, UInt, ULong

UTS_FIELD = 65
PER_MASK = 0xFF
PER_LINUX32 = 8
PER_QUERY = 0xFFFF_FFFF

#: struct sysinfo: uptime, three loads, total/free/shared/buffer memory, total/free swap, processes,
#: total/free high memory, unit.
SYSINFO = Struct("<q 3Q 4Q 2Q H6x 2Q I4x")

GRND_NONBLOCK = 1
GRND_RANDOM = 2
GRND_INSECURE = 4
RANDOM_CHUNK = 256 << 10


@syscall(SYS.uname)
def uname(task: Task, buf: Addr) -> None:
    """uname(2)."""
    uts = task.nsproxy.uts
    machine = b"i686" if task.sched.personality & PER_MASK == PER_LINUX32 else b"x86_64"
    fields = (b"Linux", uts.nodename, uts.release, uts.version, machine, uts.domainname)
    task.mm.write(buf, b"".join(field[: UTS_FIELD - 1].ljust(UTS_FIELD, b"\0") for field in fields))


def _read_name(task: Task, name: int, size: int) -> bytes:
    if not task.cred.ns_capable(task.nsproxy.uts.user_ns, CAP_SYS_ADMIN):
        raise SysError(errno.EPERM)
    if not 0 <= size < UTS_FIELD:
        raise SysError(errno.EINVAL)
    return task.mm.read(name, size) if size else b""


@syscall(SYS.sethostname)
def sethostname(task: Task, name: Addr, size: Int) -> None:
    """sethostname(2)."""
    task.nsproxy.uts.set_name("nodename", _read_name(task, name, size))


@syscall(SYS.setdomainname)
def setdomainname(task: Task, name: Addr, size: Int) -> None:
    """setdomainname(2)."""
    task.nsproxy.uts.set_name("domainname", _read_name(task, name, size))


@syscall(SYS.sysinfo, partial="load averages are 0; memory is what the sandbox was promised")
def sysinfo(task: Task, info: Addr) -> None:
    """sysinfo(2)."""
    kernel = task.kernel
    total = kernel.config.memory or kernel.host.memory_total
    free = max(0, total - kernel.commit.used)
    uptime = (monotonic_ns() - kernel.boot_ns) // NS
    processes = min(len(kernel.tasks), 0xFFFF)
    data = SYSINFO.pack(uptime, 0, 0, 0, total, free, 0, 0, 0, 0, processes, 0, 0, 1)
    task.mm.write(info, data)


@syscall(SYS.getrandom)
async def getrandom(task: Task, buf: Addr, count: Size, flags: UInt) -> int:
    """getrandom(2).  The pool is the host's and always ready, so GRND_NONBLOCK makes no difference."""
    if flags & ~(GRND_NONBLOCK | GRND_RANDOM | GRND_INSECURE) or flags & 6 == GRND_RANDOM | GRND_INSECURE:
        raise SysError(errno.EINVAL)
    count = min(count, MAX_RW_COUNT)
    done = 0
    while done < count:
        data = urandom(min(count - done, RANDOM_CHUNK))
        try:
            written = task.mm.write_upto(buf + done, data)
        except SysError:
            if done:
                break
            raise
        done += written
        if written < len(data):
            break
        if done < count:
            # Others run between two chunks; as on Linux a signal ends a long request early.
            await yield_now()
            if task.signal_pending():
                break
    return done


@syscall(SYS.getcpu, partial="always the first CPU that the thread may use")
def getcpu(task: Task, cpu: Addr, node: Addr, cache: Addr) -> None:
    """getcpu(2)."""
    if cpu:
        task.mm.write_u32(cpu, (task.affinity & -task.affinity).bit_length() - 1)
    if node:
        task.mm.write_u32(node, 0)


@syscall(
    SYS.personality,
    partial="ADDR_COMPAT_LAYOUT, MMAP_PAGE_ZERO, ADDR_LIMIT_*, SHORT_INODE and WHOLE_SECONDS are only kept",
)
def personality(task: Task, persona: ULong) -> int:
    """personality(2): the previous value."""
    sched = task.sched
    old = sched.personality
    if persona & 0xFFFF_FFFF != PER_QUERY:
        sched.personality = persona & 0xFFFF_FFFF
        task.force(FORCED_PROTECTION, bool(persona & READ_IMPLIES_EXEC or task.mm.mdwe))
    return old


@syscall(SYS.vhangup)
def vhangup(task: Task) -> None:
    """vhangup(2)."""
    if not task.cred.capable(CAP_SYS_TTY_CONFIG):
        raise SysError(errno.EPERM)
    if task.group.tty is not None:
        task.group.tty.hang_up_slave()
