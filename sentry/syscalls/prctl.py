"""prctl(2): one small function an operation.

An operation that needs a feature that this kernel is built without gives EINVAL, as Linux does.
"""

from __future__ import annotations

import errno

from sentry.abi import prctl as pr
from sentry.abi.capability import CAP_LAST_CAP, CAP_SETPCAP, CAP_SYS_RESOURCE
from sentry.abi.errors import SysError
from sentry.abi.mman import MMAP_MIN_ADDR, PAGE_SIZE, USER_END
from sentry.abi.seccomp import SECCOMP_MODE_DISABLED, SECCOMP_MODE_FILTER, SECCOMP_MODE_STRICT
from sentry.abi.signal import NSIG
from sentry.abi.syscall_nr import SYS
from sentry.kernel.bound import FORCED_PROTECTION
from sentry.syscalls.seccomp import set_filter, set_strict
from sentry.syscalls.table import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.kernel.task import Task
    from sentry.syscalls.args import Int, ULong

    Operation = Callable[[Task, int, int, int, int], "int | None"]

COMM_SIZE = 16
ANON_NAME_SIZE = 80
#: Bytes of the auxiliary vector that the kernel keeps (AT_VECTOR_SIZE words).
MAX_AUXV = 8 * 54


def _einval_unless(condition: bool) -> None:
    if not condition:
        raise SysError(errno.EINVAL)


def _set_pdeathsig(task: Task, signo: int, *rest: int) -> None:
    _einval_unless(signo <= NSIG)
    task.pdeath_signal = signo


def _get_pdeathsig(task: Task, addr: int, *rest: int) -> None:
    task.mm.write_u32(addr, task.pdeath_signal)


def _get_dumpable(task: Task, *rest: int) -> int:
    return task.group.dumpable


def _set_dumpable(task: Task, value: int, *rest: int) -> None:
    _einval_unless(value in (0, 1))
    task.group.dumpable = value


def _get_keepcaps(task: Task, *rest: int) -> int:
    return int(bool(task.cred.securebits & pr.SECBIT_KEEP_CAPS))


def _set_keepcaps(task: Task, value: int, *rest: int) -> None:
    _einval_unless(value in (0, 1))
    if task.cred.securebits & pr.SECBIT_KEEP_CAPS_LOCKED:
        raise SysError(errno.EPERM)
    new = task.cred.copy()
    new.securebits = new.securebits & ~pr.SECBIT_KEEP_CAPS | (pr.SECBIT_KEEP_CAPS if value else 0)
    task.set_cred(new)


def _get_timing(task: Task, *rest: int) -> int:
    return 0


def _set_timing(task: Task, value: int, *rest: int) -> None:
    _einval_unless(value == 0)


def _set_name(task: Task, addr: int, *rest: int) -> None:
    name = bytearray()
    # Byte by byte at the end of a page: the name may stand right before unmapped memory.
    while len(name) < COMM_SIZE - 1:
        chunk = task.mm.read_upto(addr + len(name), COMM_SIZE - 1 - len(name))
        name += chunk
        if 0 in chunk:
            break
    task.name = bytes(name).split(b"\0", 1)[0]


def _get_name(task: Task, addr: int, *rest: int) -> None:
    task.mm.write(addr, task.name[: COMM_SIZE - 1].ljust(COMM_SIZE, b"\0"))


def _get_seccomp(task: Task, *rest: int) -> int:
    return SECCOMP_MODE_DISABLED if task.seccomp is None else task.seccomp.mode


def _set_seccomp(task: Task, mode: int, program: int, *rest: int) -> None:
    if mode == SECCOMP_MODE_STRICT:
        set_strict(task)
    elif mode == SECCOMP_MODE_FILTER:
        set_filter(task, 0, program)
    else:
        raise SysError(errno.EINVAL)


def _capbset_read(task: Task, cap: int, *rest: int) -> int:
    _einval_unless(cap <= CAP_LAST_CAP)
    return task.cred.bounding >> cap & 1


def _capbset_drop(task: Task, cap: int, *rest: int) -> None:
    if not task.cred.own_capable(CAP_SETPCAP):
        raise SysError(errno.EPERM)
    _einval_unless(cap <= CAP_LAST_CAP)
    new = task.cred.copy()
    new.bounding &= ~(1 << cap)
    task.set_cred(new)


def _get_tsc(task: Task, addr: int, *rest: int) -> None:
    task.mm.write_u32(addr, 1)


def _set_tsc(task: Task, value: int, *rest: int) -> None:
    _einval_unless(value == 1)


def _get_securebits(task: Task, *rest: int) -> int:
    return task.cred.securebits


def _set_securebits(task: Task, bits: int, *rest: int) -> None:
    """capabilities(7), "The securebits flags": locked bits stay, locks are never undone."""
    old = task.cred.securebits
    locks = old & pr.SECURE_ALL_LOCKS
    if (
        locks >> 1 & (old ^ bits)
        or locks & ~bits
        or bits & ~(pr.SECURE_ALL_LOCKS | pr.SECURE_ALL_BITS)
        or not task.cred.own_capable(CAP_SETPCAP)
    ):
        raise SysError(errno.EPERM)
    new = task.cred.copy()
    new.securebits = bits
    task.set_cred(new)


def _set_timerslack(task: Task, slack: int, *rest: int) -> None:
    sched = task.sched
    sched.slack_ns = slack or sched.default_slack_ns


def _get_timerslack(task: Task, *rest: int) -> int:
    return task.sched.slack_ns


def _mce_kill(task: Task, what: int, policy: int, arg4: int, arg5: int) -> None:
    _einval_unless(not arg4 and not arg5 and ((what == 0 and policy == 0) or (what == 1 and policy <= 2)))
    task.sched.mce_kill = policy if what else pr.PR_MCE_KILL_DEFAULT


def _mce_kill_get(task: Task, *rest: int) -> int:
    _einval_unless(not any(rest))
    return task.sched.mce_kill


def _get_tid_address(task: Task, addr: int, *rest: int) -> None:
    task.mm.write_u64(addr, task.clear_child_tid)


def _get_mdwe(task: Task, *rest: int) -> int:
    _einval_unless(not any(rest))
    return task.mm.mdwe


def _set_mdwe(task: Task, bits: int, arg3: int, arg4: int, arg5: int) -> None:
    _einval_unless(not arg3 and not arg4 and not arg5)
    _einval_unless(not bits & ~3 and bits != pr.PR_MDWE_NO_INHERIT)
    if task.mm.mdwe and task.mm.mdwe != bits:
        raise SysError(errno.EPERM)
    task.mm.mdwe = bits
    for other in task.kernel.tasks.values():
        if other.mm is task.mm:
            other.force(FORCED_PROTECTION, bool(bits))


#: PR_SET_MM_…: the field of a MemoryManager that it sets.
_MM_FIELDS = (
    "", "start_code", "end_code", "start_data", "end_data", "start_stack", "start_brk", "brk", "arg_start",
    "arg_end", "env_start", "env_end",
)  # fmt: skip


_MM_ORDER = (
    ("start_code", "end_code"), ("start_data", "end_data"), ("start_brk", "brk"), ("arg_start", "arg_end"),
    ("env_start", "env_end"),
)  # fmt: skip


def _set_mm(task: Task, what: int, addr: int, arg4: int, arg5: int) -> None:
    """PR_SET_MM: where /proc/PID says that things are; a program that moves its arguments says so."""
    _einval_unless(not arg5 and (not arg4 or what in (pr.PR_SET_MM_AUXV, *pr.PR_SET_MM_MAPS)))
    if what in pr.PR_SET_MM_MAPS:
        raise SysError(errno.EINVAL)  # as without CONFIG_CHECKPOINT_RESTORE
    if not task.cred.capable(CAP_SYS_RESOURCE):
        raise SysError(errno.EPERM)
    mm = task.mm
    if what == pr.PR_SET_MM_AUXV:
        _einval_unless(arg4 <= MAX_AUXV)
        auxv = mm.read(addr, arg4) if arg4 else b""
        mm.auxv = auxv[:-16] + bytes(16) if len(auxv) == MAX_AUXV else auxv
        return
    _einval_unless(0 < what < len(_MM_FIELDS) and MMAP_MIN_ADDR <= addr < USER_END)
    name = _MM_FIELDS[what]
    if name.startswith(("arg_", "env_")) and mm.tree.find(addr) is None:
        raise SysError(errno.EFAULT)
    for first, last in _MM_ORDER:
        low, high = (addr if name == field else getattr(mm, field) for field in (first, last))
        _einval_unless(low <= high)
    setattr(mm, name, addr)


def _set_subreaper(task: Task, value: int, *rest: int) -> None:
    task.group.subreaper = bool(value)


def _get_subreaper(task: Task, addr: int, *rest: int) -> None:
    task.mm.write_u32(addr, int(task.group.subreaper))


def _set_no_new_privs(task: Task, value: int, *rest: int) -> None:
    _einval_unless(value == 1 and not any(rest))
    new = task.cred.copy()
    new.no_new_privs = True
    task.set_cred(new)


def _get_no_new_privs(task: Task, *rest: int) -> int:
    _einval_unless(not any(rest))
    return int(task.cred.no_new_privs)


def _set_thp_disable(task: Task, value: int, *rest: int) -> None:
    _einval_unless(not any(rest))
    task.sched.thp_disable = bool(value)


def _get_thp_disable(task: Task, *rest: int) -> int:
    _einval_unless(not any(rest))
    return int(task.sched.thp_disable)


def _cap_ambient(task: Task, what: int, cap: int, arg4: int, arg5: int) -> int:
    old = task.cred
    if what == pr.PR_CAP_AMBIENT_CLEAR_ALL:
        _einval_unless(not cap and not arg4 and not arg5)
        new = old.copy()
        new.ambient = 0
        task.set_cred(new)
        return 0
    _einval_unless(cap <= CAP_LAST_CAP and not arg4 and not arg5)
    if what == pr.PR_CAP_AMBIENT_IS_SET:
        return old.ambient >> cap & 1
    _einval_unless(what in (pr.PR_CAP_AMBIENT_RAISE, pr.PR_CAP_AMBIENT_LOWER))
    new = old.copy()
    if what == pr.PR_CAP_AMBIENT_RAISE:
        may = (old.permitted & old.inheritable) >> cap & 1
        if not may or old.securebits & pr.SECBIT_NO_CAP_AMBIENT_RAISE:
            raise SysError(errno.EPERM)
        new.ambient |= 1 << cap
    else:
        new.ambient &= ~(1 << cap)
    task.set_cred(new)
    return 0


def _get_speculation(task: Task, which: int, *rest: int) -> int:
    _einval_unless(not any(rest))
    if which > 2:
        raise SysError(errno.ENODEV)
    return 0


def _set_speculation(task: Task, which: int, control: int, arg4: int, arg5: int) -> None:
    _einval_unless(not arg4 and not arg5)
    raise SysError(errno.ENODEV if which > 2 else errno.ENXIO)


def _set_io_flusher(task: Task, value: int, *rest: int) -> None:
    if not task.cred.capable(CAP_SYS_RESOURCE):
        raise SysError(errno.EPERM)
    _einval_unless(value in (0, 1) and not any(rest))
    task.sched.io_flusher = bool(value)


def _get_io_flusher(task: Task, *rest: int) -> int:
    if not task.cred.capable(CAP_SYS_RESOURCE):
        raise SysError(errno.EPERM)
    _einval_unless(not any(rest))
    return int(task.sched.io_flusher)


def _set_vma(task: Task, what: int, addr: int, size: int, name: int) -> None:
    _einval_unless(what == pr.PR_SET_VMA_ANON_NAME)
    text: bytes | None = b""
    if name:
        text = task.mm.read_cstring(name, ANON_NAME_SIZE)
        _einval_unless(text is not None and all(0x20 <= c <= 0x7E and c not in b"\\`$[]" for c in text))
    end = addr + (size + PAGE_SIZE - 1 & -PAGE_SIZE)
    _einval_unless(addr % PAGE_SIZE == 0 and addr <= end <= USER_END)
    if addr < end:
        task.mm.set_anon_name(addr, end, b"[anon:%s]" % text if text else b"")


def _get_auxv(task: Task, buf: int, size: int, arg4: int, arg5: int) -> int:
    _einval_unless(not arg4 and not arg5)
    data = task.mm.auxv[:size]
    if data:
        task.mm.write(buf, data)
    return len(task.mm.auxv)


OPERATIONS: dict[int, Operation] = {
    pr.PR_SET_PDEATHSIG: _set_pdeathsig,
    pr.PR_GET_PDEATHSIG: _get_pdeathsig,
    pr.PR_GET_DUMPABLE: _get_dumpable,
    pr.PR_SET_DUMPABLE: _set_dumpable,
    pr.PR_GET_KEEPCAPS: _get_keepcaps,
    pr.PR_SET_KEEPCAPS: _set_keepcaps,
    pr.PR_GET_TIMING: _get_timing,
    pr.PR_SET_TIMING: _set_timing,
    pr.PR_SET_NAME: _set_name,
    pr.PR_GET_NAME: _get_name,
    pr.PR_GET_SECCOMP: _get_seccomp,
    pr.PR_SET_SECCOMP: _set_seccomp,
    pr.PR_CAPBSET_READ: _capbset_read,
    pr.PR_CAPBSET_DROP: _capbset_drop,
    pr.PR_GET_TSC: _get_tsc,
    pr.PR_SET_TSC: _set_tsc,
    pr.PR_GET_SECUREBITS: _get_securebits,
    pr.PR_SET_SECUREBITS: _set_securebits,
    pr.PR_SET_TIMERSLACK: _set_timerslack,
    pr.PR_GET_TIMERSLACK: _get_timerslack,
    pr.PR_MCE_KILL: _mce_kill,
    pr.PR_MCE_KILL_GET: _mce_kill_get,
    pr.PR_SET_MM: _set_mm,
    pr.PR_GET_TID_ADDRESS: _get_tid_address,
    pr.PR_SET_MDWE: _set_mdwe,
    pr.PR_GET_MDWE: _get_mdwe,
    pr.PR_SET_CHILD_SUBREAPER: _set_subreaper,
    pr.PR_GET_CHILD_SUBREAPER: _get_subreaper,
    pr.PR_SET_NO_NEW_PRIVS: _set_no_new_privs,
    pr.PR_GET_NO_NEW_PRIVS: _get_no_new_privs,
    pr.PR_SET_THP_DISABLE: _set_thp_disable,
    pr.PR_GET_THP_DISABLE: _get_thp_disable,
    pr.PR_CAP_AMBIENT: _cap_ambient,
    pr.PR_GET_SPECULATION_CTRL: _get_speculation,
    pr.PR_SET_SPECULATION_CTRL: _set_speculation,
    pr.PR_SET_IO_FLUSHER: _set_io_flusher,
    pr.PR_GET_IO_FLUSHER: _get_io_flusher,
    pr.PR_SET_VMA: _set_vma,
    pr.PR_GET_AUXV: _get_auxv,
}


@syscall(SYS.prctl, partial="no core scheduling, dispatch or TSC faults; PR_SET_MM without MAP and EXE_FILE")
def prctl(task: Task, option: Int, arg2: ULong, arg3: ULong, arg4: ULong, arg5: ULong) -> int:
    """prctl(2)."""
    operation = OPERATIONS.get(option)
    if operation is None:
        raise SysError(errno.EINVAL)
    return operation(task, arg2, arg3, arg4, arg5) or 0
