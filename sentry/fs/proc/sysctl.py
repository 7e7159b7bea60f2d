"""/proc/sys (proc_sys(5)): what the kernel is set to.  Little of it can be changed."""

from __future__ import annotations

import errno
import os

from sentry.abi.capability import CAP_CHECKPOINT_RESTORE, CAP_LAST_CAP, CAP_SYS_ADMIN, CAP_SYS_RESOURCE
from sentry.abi.errors import SysError
from sentry.abi.limits import PID_MAX
from sentry.abi.mman import MAX_MAP_COUNT, MMAP_MIN_ADDR
from sentry.fs import epoll
from sentry.fs.devpts import filesystem as devpts
from sentry.fs.proc import limits
from sentry.fs.proc.base import Text, current_task
from sentry.fs.walk import Hardening
from sentry.net.socket import RMEM_DEFAULT, RMEM_MAX, WMEM_DEFAULT, WMEM_MAX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sentry.kernel.kernel import Kernel

NAME_MAX = 64
INT_MAX = 0x7FFFFFFF
NS_KINDS = (b"cgroup", b"ipc", b"mnt", b"net", b"pid", b"time", b"user", b"uts")


def new_uuid() -> bytes:
    """A random UUID, version 4, as text with a newline."""
    number = int.from_bytes(os.urandom(16), "big")
    number = number & ~(0xF << 76) & ~(3 << 62) | 4 << 76 | 2 << 62
    digits = b"%032x" % number
    return b"-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])) + b"\n"


def _uts(kernel: Kernel) -> Any:
    """The reader's UTS namespace."""
    task = current_task()
    return kernel.uts if task is None else task.nsproxy.uts


def _net(kernel: Kernel) -> Any:
    """The reader's network namespace."""
    task = current_task()
    return kernel.net if task is None else task.nsproxy.net


def _uts_text(kernel: Kernel, field: str) -> Text:
    """hostname and domainname: readable by all, set by whoever may call sethostname(2)."""

    def make(kernel: Kernel) -> bytes:
        value: bytes = getattr(_uts(kernel), field)
        return value + b"\n"

    def store(kernel: Kernel, data: bytes) -> None:
        task = current_task()
        if task is not None and not task.cred.ns_capable(_uts(kernel).user_ns, CAP_SYS_ADMIN):
            raise SysError(errno.EPERM)
        _uts(kernel).set_name(field, data.split(b"\n", 1)[0].split(b"\0", 1)[0][:NAME_MAX])

    return Text(0o644, make, store, watch=kernel.uts.watches[field])


def _refuse(kernel: Kernel, data: bytes) -> None:
    raise SysError(errno.EPERM)


def _number(value: int) -> Text:
    """A setting that is shown, and that nobody may change."""
    return Text(0o644, b"%d\n" % value, _refuse)


def _knob(field: str, low: int, high: int, place: str = "knobs") -> Text:
    """A field of kernel.knobs, or of what else has that name, a number from `low` to `high`."""

    def store(kernel: Kernel, data: bytes) -> None:
        text = data.strip(b" \t\n\0")
        if not text.isdigit() or len(text) > 20 or not low <= int(text) <= high:
            raise SysError(errno.EINVAL)
        setattr(getattr(kernel, place), field, int(text))

    return Text(0o644, lambda kernel: b"%d\n" % getattr(getattr(kernel, place), field), store)


def _set_core_pattern(kernel: Kernel, data: bytes) -> None:
    kernel.knobs.core_pattern = data.split(b"\n", 1)[0].split(b"\0", 1)[0][:127]


def _none_to_be_had() -> Text:
    """nr_hugepages: whatever is asked for, no memory is whole enough."""

    def store(kernel: Kernel, data: bytes) -> None:
        if not data.strip(b" \t\n\0").isdigit():
            raise SysError(errno.EINVAL)

    return Text(0o644, b"0\n", store)


def _hardening(field: str) -> Text:
    """protected_hardlinks and protected_symlinks, which walks look at."""

    def store(kernel: Kernel, data: bytes) -> None:
        text = data.strip(b" \t\n\0")
        if text not in (b"0", b"1"):
            raise SysError(errno.EINVAL)
        setattr(Hardening, field, int(text))

    return Text(0o644, lambda kernel: b"%d\n" % getattr(Hardening, field), store)


def _printk(kernel: Kernel) -> bytes:
    return b"%d\t%d\t%d\t%d\n" % tuple(kernel.printk.levels)


def _set_printk(kernel: Kernel, data: bytes) -> None:
    words = data.split()
    if not words or not all(word.isdigit() and len(word) < 10 for word in words):
        raise SysError(errno.EINVAL)
    for at, word in enumerate(words[:4]):
        kernel.printk.levels[at] = int(word)


def _line(value: bytes) -> Text:
    return Text(0o644, value + b"\n", _refuse)


def _setting(value: bytes) -> Text:
    """A setting that takes any number and means nothing: programs set it, and go on."""
    contents = [value + b"\n"]

    def store(kernel: Kernel, data: bytes) -> None:
        words = data.split()
        if not words or not all(word.lstrip(b"-").isdigit() for word in words):
            raise SysError(errno.EINVAL)
        contents[0] = b"\t".join(words)[:256] + b"\n"

    return Text(0o644, lambda kernel: contents[0], store)


def _dgram_qlen(kernel: Kernel) -> bytes:
    return b"%d\n" % _net(kernel).unix.max_dgram_qlen


def _set_dgram_qlen(kernel: Kernel, data: bytes) -> None:
    (_net(kernel).unix.max_dgram_qlen,) = limits.numbers(data, 1, 0, INT_MAX)


def _last_pid(kernel: Kernel) -> bytes:
    """The id that was given last in the reader's namespace; the next one follows (pid_namespaces(7))."""
    task = current_task()
    return b"%d\n" % (kernel.pid_ns if task is None else task.pid.ns).last_pid


def _set_last_pid(kernel: Kernel, data: bytes) -> None:
    task = current_task()
    ns = kernel.pid_ns if task is None else task.pid.ns
    caps = CAP_SYS_ADMIN, CAP_CHECKPOINT_RESTORE
    if task is not None and not any(task.cred.ns_capable(ns.user_ns, cap) for cap in caps):
        raise SysError(errno.EPERM)
    (ns.last_pid,) = limits.numbers(data, 1, 0, PID_MAX - 1)


def _namespace_limit(kind: bytes) -> Text:
    """How many namespaces of a kind a user may have in the reader's user namespace (namespaces(7))."""

    def make(kernel: Kernel) -> bytes:
        task = current_task()
        space = kernel.init.leader.cred.user_ns if task is None else task.cred.user_ns
        return b"%d\n" % space.limit(kind)

    def store(kernel: Kernel, data: bytes) -> None:
        task = current_task()
        if task is None or not task.cred.own_capable(CAP_SYS_RESOURCE):
            raise SysError(errno.EPERM)
        (task.cred.user_ns.limits[kind],) = limits.numbers(data, 1, 0, INT_MAX)

    return Text(0o644, make, store, CAP_SYS_RESOURCE)


def _map_count() -> Text:
    """vm.max_map_count: told as it was set, kept to what the host allows its own processes."""
    value = [MAX_MAP_COUNT]

    def store(kernel: Kernel, data: bytes) -> None:
        value[:] = limits.numbers(data, 1, 0, INT_MAX)
        if kernel.commit is not None:
            # None at all would be no limit in C.
            kernel.commit.max_maps = max(1, value[0])

    return Text(0o644, lambda kernel: b"%d\n" % value[0], store)


def _uts_line(field: str) -> Callable[[Any], bytes]:
    return lambda kernel: getattr(_uts(kernel), field) + b"\n"


def make_tree(kernel: Kernel) -> dict[bytes, Any]:
    """The tree of one sandbox."""
    boot_id = new_uuid()
    memory = kernel.config.memory or kernel.host.memory_total
    threads = max(128, min(PID_MAX, kernel.config.pids or memory // (8 * 4096 * 8)))
    random = {
        b"boot_id": boot_id,
        b"entropy_avail": b"256\n",
        b"poolsize": b"256\n",
        b"urandom_min_reseed_secs": _number(60),
        b"uuid": lambda kernel: new_uuid(),
        b"write_wakeup_threshold": _number(256),
    }
    return {
        b"abi": {},
        b"debug": {},
        b"dev": {},
        b"fs": {
            **limits.make_aio_tree(),
            **limits.make_dnotify_tree(),
            b"epoll": {b"max_user_watches": _number(epoll.MAX_ITEMS)},
            b"file-max": _line(b"9223372036854775807"),
            b"file-nr": lambda kernel: b"%d\t0\t9223372036854775807\n" % _open_files(kernel),
            b"inotify": limits.make_inotify_tree(),
            **limits.make_lease_tree(),
            b"mount-max": _number(100000),
            b"mqueue": limits.make_mqueue_tree(),
            b"nr_open": _knob("nr_open", 64, (1 << 31) - 64),
            b"overflowgid": _number(65534),
            b"overflowuid": _number(65534),
            **limits.make_pipe_tree(),
            b"protected_fifos": _number(0),
            b"protected_hardlinks": _hardening("hardlinks"),
            b"protected_regular": _number(0),
            b"protected_symlinks": _hardening("symlinks"),
            b"suid_dumpable": _number(0),
        },
        b"kernel": {
            b"arch": b"x86_64\n",
            b"cap_last_cap": b"%d\n" % CAP_LAST_CAP,
            b"core_pattern": Text(0o644, lambda kernel: kernel.knobs.core_pattern + b"\n", _set_core_pattern),
            b"core_uses_pid": _knob("core_uses_pid", 0, 1),
            b"dmesg_restrict": _number(1),
            b"domainname": _uts_text(kernel, "domainname"),
            b"hostname": _uts_text(kernel, "nodename"),
            b"io_uring_disabled": _number(2),
            b"kptr_restrict": _number(2),
            b"ngroups_max": b"65536\n",
            b"ns_last_pid": Text(0o666, _last_pid, _set_last_pid),
            b"osrelease": _uts_line("release"),
            b"ostype": b"Linux\n",
            b"overflowgid": _number(65534),
            b"overflowuid": _number(65534),
            b"panic": _number(0),
            b"perf_event_paranoid": _number(4),
            b"pid_max": _knob("pid_max", 301, PID_MAX, "pid_ns"),
            b"printk": Text(0o644, _printk, _set_printk),
            b"pty": {
                b"max": _number(devpts.MAX_PTYS),
                b"nr": lambda kernel: b"%d\n" % devpts.DevptsFilesystem.count,
                b"reserve": _number(devpts.RESERVED),
            },
            b"random": random,
            b"randomize_va_space": _number(2),
            b"sched_autogroup_enabled": _number(0),
            b"tainted": _number(0),
            b"threads-max": _number(threads),
            b"unprivileged_bpf_disabled": _number(2),
            b"version": _uts_line("version"),
            **limits.make_tree(),
        },
        b"net": {
            b"core": {
                b"somaxconn": _setting(b"4096"),
                b"rmem_default": _number(RMEM_DEFAULT),
                b"wmem_default": _number(WMEM_DEFAULT),
                b"rmem_max": _number(RMEM_MAX),
                b"wmem_max": _number(WMEM_MAX),
            },
            b"ipv4": {
                b"ip_local_port_range": _setting(b"32768\t60999"),
                b"tcp_fin_timeout": _setting(b"60"),
                b"ip_forward": _number(0),
            },
            b"unix": {b"max_dgram_qlen": Text(0o644, _dgram_qlen, _set_dgram_qlen)},
        },
        b"user": {b"max_%s_namespaces" % kind: _namespace_limit(kind) for kind in NS_KINDS},
        b"vm": {
            b"dirty_background_ratio": _setting(b"10"),
            b"dirty_ratio": _setting(b"20"),
            b"drop_caches": Text(0o200, b"", lambda kernel, data: None),
            b"max_map_count": _map_count(),
            b"nr_hugepages": _none_to_be_had(),
            b"min_free_kbytes": _setting(b"67584"),
            b"mmap_min_addr": _number(MMAP_MIN_ADDR),
            b"overcommit_memory": _number(2 if kernel.config.memory else 0),
            b"overcommit_ratio": _number(100 if kernel.config.memory else 50),
            b"overcommit_kbytes": _number(0),
            b"page-cluster": _number(3),
            b"swappiness": _setting(b"60"),
            b"vfs_cache_pressure": _setting(b"100"),
        },
    }


def _open_files(kernel: Kernel) -> int:
    tables = {id(task.files): task.files for task in kernel.tasks.values() if task.files is not None}
    return sum(table.c.used for table in tables.values())
