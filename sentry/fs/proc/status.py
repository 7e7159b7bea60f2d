"""/proc/PID/stat, status, limits and other texts about one task.  All of them work for a zombie."""

from __future__ import annotations

import errno

from sentry.abi.capability import CAP_SYS_NICE, CAP_SYS_RESOURCE
from sentry.abi.core import FILTER_BITS
from sentry.abi.errors import SysError
from sentry.fs.proc.access import may_access
from sentry.fs.proc.base import current_task
from sentry.fs.proc.maps import code_size
from sentry.mm import residence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.credentials import Credentials
    from sentry.kernel.group import ThreadGroup
    from sentry.kernel.pids import Pid, PidNamespace
    from sentry.kernel.task import Task
    from sentry.mm.manager import MemoryManager

TICK_NS = 10_000_000
_U64 = (1 << 64) - 1
_STATES = {
    b"R": b"R (running)", b"S": b"S (sleeping)", b"D": b"D (disk sleep)", b"T": b"T (stopped)",
    b"t": b"t (tracing stop)",
    b"Z": b"Z (zombie)", b"X": b"X (dead)",
}  # fmt: skip
_LIMITS = (
    (0, b"Max cpu time", b"seconds"),
    (1, b"Max file size", b"bytes"),
    (2, b"Max data size", b"bytes"),
    (3, b"Max stack size", b"bytes"),
    (4, b"Max core file size", b"bytes"),
    (5, b"Max resident set", b"bytes"),
    (6, b"Max processes", b"processes"),
    (7, b"Max open files", b"files"),
    (8, b"Max locked memory", b"bytes"),
    (9, b"Max address space", b"bytes"),
    (10, b"Max file locks", b"locks"),
    (11, b"Max pending signals", b"signals"),
    (12, b"Max msgqueue size", b"bytes"),
    (13, b"Max nice priority", b""),
    (14, b"Max realtime priority", b""),
    (15, b"Max realtime timeout", b"us"),
)
_RLIM_INFINITY = _U64
#: PF_RANDOMIZE, as ps and top know it in flags.
_PF_RANDOMIZE = 0x00400000


def _state(task: Task) -> bytes:
    return b"Z" if task.exited and task.group.zombie else task.state


def _ppid(task: Task, pids: PidNamespace) -> int:
    parent = task.group.parent
    return parent.pid.nr(pids) if parent is not None else 0


def _tracer(task: Task, pids: PidNamespace) -> int:
    return 0 if task.trace is None else task.trace.tracer.pid.nr(pids)


def _ns_line(name: bytes, pid: Pid, pids: PidNamespace) -> bytes:
    """The numbers from the reader's namespace inwards."""
    return name + b"".join([b"\t%d" % number for number in pid.numbers[pids.level :]]) + b"\n"


def _signal_sets(task: Task) -> tuple[int, int]:
    """(ignored, caught) as signal masks."""
    ignored = caught = 0
    for signo, action in task.group.sighand.chosen():
        if action[0] == 1:
            ignored |= 1 << (signo - 1)
        elif action[0] != 0:
            caught |= 1 << (signo - 1)
    return ignored, caught


def _tty(task: Task, pids: PidNamespace) -> tuple[int, int]:
    """(device number, foreground process group) of the controlling terminal; (0, -1) without one."""
    tty = task.group.tty
    if tty is None:
        return 0, -1
    index = getattr(tty, "index", None)
    device = getattr(tty, "rdev", 0) or (136 << 8 | index if index is not None else 4 << 8 | 1)
    return device, -1 if tty.pgrp is None else tty.pgrp.nr(pids)


def stat(task: Task, pids: PidNamespace, alone: bool = False) -> bytes:
    """proc_pid_stat(5).  `alone`: times of this thread only, not of the process."""
    group, mm = task.group, task.mm
    utime, stime = task.cpu_times() if alone else group.cpu_times()
    ignored, caught = _signal_sets(task)
    tty, foreground = _tty(task, pids)
    sched = task.sched
    priority = -1 - sched.priority if sched.priority else 20 + sched.nice
    reader = current_task()
    permitted = reader is None or may_access(reader, reader.cred, task)
    memory = (0, 0) if mm is None else (mm.total_vm, residence.resident(mm) // 4096)
    code = (0, 0, 0) if mm is None else (1, 1, 0)
    data = (0,) * 7
    if mm is not None and permitted:
        # Where things are is for those who could look anyway.
        code = (mm.start_code, mm.end_code, mm.start_stack)
        data = (mm.start_data, mm.end_data, mm.start_brk, mm.arg_start, mm.arg_end, mm.env_start, mm.env_end)
    fields = (
        group.pgrp.pid.nr(pids), group.session.pid.nr(pids), tty, foreground, _PF_RANDOMIZE, 0, 0, 0, 0,
        utime // TICK_NS, stime // TICK_NS, group.child_utime // TICK_NS, group.child_stime // TICK_NS,
        priority, sched.nice,
        len(group.tasks) or 1, 0, max(0, task.start_ns - task.kernel.boot_ns) // TICK_NS, *memory,
        min(group.limits[5][0], _U64), *code, 0, 0, task.pending.bits & 0x7FFFFFFF, task.blocked & 0x7FFFFFFF,
        ignored & 0x7FFFFFFF, caught & 0x7FFFFFFF, 0, 0, 0, group.exit_signal, 0, sched.priority,
        sched.policy, 0, 0, 0, *data,
        group.exit_status if group.zombie and permitted else 0,
    )  # fmt: skip
    numbers = b" ".join([b"%d" % field for field in fields])
    return b"%d (%s) %s %d %s\n" % (task.pid.nr(pids), task.name, _state(task), _ppid(task, pids), numbers)


def _memory_lines(task: Task) -> bytes:
    mm = task.mm
    if mm is None:
        return b""
    anonymous, files, shared = residence.measure(mm)
    rss = anonymous + files + shared
    text = min(code_size(mm), mm.exec_vm)
    values = (
        (b"VmPeak", mm.peak_vm), (b"VmSize", mm.total_vm), (b"VmLck", mm.locked_vm), (b"VmPin", 0),
        (b"VmHWM", mm.peak_rss), (b"VmRSS", rss), (b"RssAnon", anonymous), (b"RssFile", files),
        (b"RssShmem", shared),
        (b"VmData", mm.data_vm), (b"VmStk", mm.stack_vm), (b"VmExe", text), (b"VmLib", mm.exec_vm - text),
        (b"VmPTE", 4096 * (rss // (512 * 4096) + 4 + len(mm.tree) // 2)), (b"VmSwap", 0),
        (b"HugetlbPages", 0),
    )  # fmt: skip
    lines = [b"%s:\t%8d kB\n" % (name, size // 1024) for name, size in values]
    return b"".join(lines) + b"CoreDumping:\t0\nTHP_enabled:\t1\nuntag_mask:\t0xffffffffffffffff\n"


def escape_name(name: bytes) -> bytes:
    return name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n")


def _cpu_list(mask: int) -> bytes:
    """0-3,5 for a mask."""
    runs = []
    cpu = 0
    while mask >> cpu:
        if mask >> cpu & 1:
            first = cpu
            while mask >> (cpu + 1) & 1:
                cpu += 1
            runs.append(b"%d" % first if first == cpu else b"%d-%d" % (first, cpu))
        cpu += 1
    return b",".join(runs)


def _id_lines(cred: Credentials) -> bytes:
    """Uid, Gid as the reader's user namespace has them."""
    reader = current_task()
    space = cred.user_ns if reader is None else reader.cred.user_ns
    uids = tuple(space.uid(number) for number in (cred.uid, cred.euid, cred.suid, cred.fsuid))
    gids = tuple(space.gid(number) for number in (cred.gid, cred.egid, cred.sgid, cred.fsgid))
    return b"Uid:\t%d\t%d\t%d\t%d\n" % uids + b"Gid:\t%d\t%d\t%d\t%d\n" % gids


def _groups_line(cred: Credentials) -> bytes:
    reader = current_task()
    space = cred.user_ns if reader is None else reader.cred.user_ns
    return b"Groups:\t%s\n" % (b"".join([b"%d " % space.gid(gid) for gid in cred.groups]) or b" ")


def status(task: Task, pids: PidNamespace) -> bytes:
    """proc_pid_status(5)."""
    group, cred, files = task.group, task.cred, task.files
    ignored, caught = _signal_sets(task)
    umask = b"Umask:\t%04o\n" % task.fs.umask if task.fs is not None and not task.exited else b""
    pending = task.pending.count() + group.pending.count()
    seccomp = task.seccomp
    sets = (
        (b"SigPnd", task.pending.bits), (b"ShdPnd", group.pending.bits), (b"SigBlk", task.blocked),
        (b"SigIgn", ignored), (b"SigCgt", caught), (b"CapInh", cred.inheritable), (b"CapPrm", cred.permitted),
        (b"CapEff", cred.effective), (b"CapBnd", cred.bounding), (b"CapAmb", cred.ambient),
    )  # fmt: skip
    return b"".join(
        (
            b"Name:\t%s\n" % escape_name(task.name),
            umask,
            b"State:\t%s\n" % _STATES[_state(task)],
            b"Tgid:\t%d\nNgid:\t0\nPid:\t%d\nPPid:\t%d\nTracerPid:\t%d\n"
            % (group.pid.nr(pids), task.pid.nr(pids), _ppid(task, pids), _tracer(task, pids)),
            _id_lines(cred),
            b"FDSize:\t%d\n" % (0 if files is None else files.size),
            _groups_line(cred),
            _ns_line(b"NStgid:", group.pid, pids),
            _ns_line(b"NSpid:", task.pid, pids),
            _ns_line(b"NSpgid:", group.pgrp.pid, pids),
            _ns_line(b"NSsid:", group.session.pid, pids),
            b"Kthread:\t0\n",
            _memory_lines(task),
            b"Threads:\t%d\n" % (len(group.tasks) or 1),
            b"SigQ:\t%d/%d\n" % (pending, min(group.limits[11][0], 1 << 31)),
            b"".join([b"%s:\t%016x\n" % pair for pair in sets]),
            b"NoNewPrivs:\t%d\nSeccomp:\t%d\nSeccomp_filters:\t%d\n"
            % (cred.no_new_privs, seccomp.mode if seccomp else 0, seccomp.length if seccomp else 0),
            b"Speculation_Store_Bypass:\tvulnerable\nSpeculationIndirectBranch:\talways enabled\n",
            b"Cpus_allowed:\t%x\nCpus_allowed_list:\t%s\n" % (task.affinity, _cpu_list(task.affinity)),
            b"Mems_allowed:\t00000000,00000001\nMems_allowed_list:\t0\n",
            b"voluntary_ctxt_switches:\t0\nnonvoluntary_ctxt_switches:\t0\n",
        )
    )


def limits(task: Task) -> bytes:
    """/proc/PID/limits (getrlimit(2))."""
    lines = [b"%-25s %-20s %-20s %-10s\n" % (b"Limit", b"Soft Limit", b"Hard Limit", b"Units")]
    for number, name, unit in _LIMITS:
        values = [b"unlimited" if v >= _RLIM_INFINITY else b"%d" % v for v in task.group.limits[number]]
        lines.append(b"%-25s %-20s %-20s %-10s\n" % (name, *values, unit))
    return b"".join(lines)


def _bytes_of(mm: MemoryManager, start: int, end: int) -> bytes:
    """Guest memory, as much of it as can be read."""
    if not mm.users or end <= start:
        return b""
    try:
        return mm.space.read_upto(start, min(end - start, 8 << 20))
    except SysError:
        return b""


def cmdline(task: Task) -> bytes:
    """The arguments; also those of programs that write over them, maybe into the environment
    (proc_pid_cmdline(5))."""
    mm = task.mm
    if mm is None:
        return b""
    data = _bytes_of(mm, mm.arg_start, mm.arg_end)
    if data and data[-1] and len(data) == mm.arg_end - mm.arg_start:
        data += _bytes_of(mm, mm.env_start, mm.env_end)
        return data[: data.find(0) + 1] if 0 in data else data
    return data


def environ(task: Task, mm: MemoryManager) -> bytes:
    return _bytes_of(mm, mm.env_start, mm.env_end)


def auxv(task: Task, mm: MemoryManager) -> bytes:
    return mm.auxv


def set_comm(task: Task, data: bytes) -> None:
    """A thread may rename its siblings (proc_pid_comm(5))."""
    task.name = data[:15].split(b"\0", 1)[0]


def oom_score(task: Task) -> bytes:
    adj = task.group.oom_score_adj
    return b"%d\n" % max(0, (666 + adj * 2 // 3) if adj else 666)


#: What is looked at of a longer write (PROC_NUMBUF).
_MOST_DIGITS = 12
#: The same of kstrtouint_from_user().
_MOST_NUMBER = 34


def _integer(text: bytes) -> int:
    """A number as kstrtoint() takes it, octal and hexadecimal too; SysError(EINVAL)."""
    digits = text[text[:1] in (b"-", b"+") :].lower()
    base = 10
    if digits[:2] == b"0x":
        digits, base = digits[2:], 16
    elif digits[:1] == b"0":
        base = 8
    if not digits or digits.strip(b"0123456789abcdef"[:base]):
        raise SysError(errno.EINVAL)
    return -int(digits, base) if text[:1] == b"-" else int(digits, base)


def set_oom_score_adj(task: Task, current: Task | None, data: bytes) -> None:
    """Going below what somebody with CAP_SYS_RESOURCE has set (0 at first) needs that capability."""
    value = _integer(data[:_MOST_DIGITS].split(b"\0", 1)[0].strip())
    if not -1000 <= value <= 1000:
        raise SysError(errno.EINVAL)
    group = task.group
    privileged = current is None or current.cred.capable(CAP_SYS_RESOURCE)
    if value < group.oom_score_adj_min and not privileged:
        raise SysError(errno.EACCES)
    for other in _sharing(task):
        other.oom_score_adj = value
        if privileged:
            other.oom_score_adj_min = value


def _sharing(task: Task) -> list[ThreadGroup]:
    """The process, and those that share its memory for good: a child of vfork(2) has a score of its own until
    it executes a program (__set_oom_adj)."""
    group, mm = task.group, task.mm
    if mm is None or not mm.multiprocess or task.vfork_queue is not None:
        return [group]
    init, tasks = task.kernel.init, task.kernel.tasks
    sharing = {
        member.group: None for member in tasks.values() if member.mm is mm and member.vfork_queue is None
    }
    return [group, *(other for other in sharing if other is not group and other is not init)]


def dump_filter(task: Task) -> bytes:
    return b"" if task.mm is None else b"%08x\n" % task.mm.dump_filter


def set_dump_filter(task: Task, data: bytes) -> None:
    """coredump_filter (core(5)); SysError(EINVAL, ERANGE), and ESRCH for what has no memory."""
    text = data[:_MOST_NUMBER].split(b"\0", 1)[0]
    value = _integer(text[:-1] if text[-1:] == b"\n" else text)
    if text[:1] == b"-":
        raise SysError(errno.EINVAL)
    if value >> 32:
        raise SysError(errno.ERANGE)
    if task.mm is None:
        raise SysError(errno.ESRCH)
    task.mm.dump_filter = value & (1 << FILTER_BITS) - 1


def system_call(task: Task) -> bytes:
    """proc_pid_syscall(5): the call that a task sleeps in, its arguments, stack and instruction pointer."""
    if task.thread is None or task.exited:
        return b"-1 0x0 0x0\n"
    if task.running and task.thread.asleep:
        task.thread.kick()  # only a call that comes to the kernel has all its registers
    elif task.running:
        return b"running\n"
    regs = task.regs
    where = (regs.rsp, regs.rip)
    if regs.orig_rax >> 63:
        return b"-1 0x%x 0x%x\n" % where
    arguments = (regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9)
    return b"%d 0x%x 0x%x 0x%x 0x%x 0x%x 0x%x 0x%x 0x%x\n" % (regs.orig_rax, *arguments, *where)


def children(task: Task, pids: PidNamespace) -> bytes:
    """proc_tid_children(5)."""
    mine = [child.pid.nr(pids) for child in task.group.children if child.creator is task]
    return b"".join([b"%d " % number for number in sorted(mine) if number])


def clear_refs(task: Task, data: bytes) -> None:
    """proc_pid_clear_refs(5): the host keeps referenced and soft-dirty bits; only the peak is ours."""
    word = data.strip()
    if word not in (b"1", b"2", b"3", b"4", b"5"):
        raise SysError(errno.EINVAL)
    if word == b"5" and task.mm is not None:
        task.mm.peak_rss = 0


def _require_nice(task: Task) -> None:
    """The slack of others is nobody's affair; SysError(EPERM)."""
    current = current_task()
    if current not in (None, task) and not current.cred.ns_capable(task.cred.user_ns, CAP_SYS_NICE):
        raise SysError(errno.EPERM)


def timerslack(task: Task) -> bytes:
    _require_nice(task)
    return b"%d\n" % task.sched.slack_ns


def set_timerslack(task: Task, data: bytes) -> None:
    try:
        value = int(data)
    except ValueError:
        raise SysError(errno.EINVAL) from None
    if not 0 <= value < 1 << 64:
        raise SysError(errno.EINVAL)
    _require_nice(task)
    sched = task.sched
    sched.slack_ns = value or sched.default_slack_ns


def sched_text(task: Task, pids: PidNamespace) -> bytes:
    return b"%s (%d, #threads: %d)\n" % (task.name, task.pid.nr(pids), len(task.group.tasks) or 1)
