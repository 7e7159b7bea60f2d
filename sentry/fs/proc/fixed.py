"""What stands in /proc beside the processes."""

from __future__ import annotations

import errno

from sentry.abi.errors import SysError
from sentry.fs.proc import kconfig, sysctl, system
from sentry.fs.proc.base import Link, Room, current_cred, current_ipc, current_task
from sentry.fs.proc.sysdir import SysctlDirectory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.kernel.kernel import Kernel
    from sentry.kernel.pids import PidNamespace


def _me(pids: PidNamespace) -> tuple[int, int]:
    """(process id, thread id) of the reader in a /proc of `pids`; SysError(ENOENT) where it has none."""
    task = current_task()
    tid = 0 if task is None else task.pid.nr(pids)
    if task is None or not tid:
        raise SysError(errno.ENOENT)
    return task.group.pid.nr(pids), tid


def _locks(kernel: Kernel) -> bytes:
    return b""


def make_tree(kernel: Kernel, pids: PidNamespace) -> dict[bytes, Any]:
    """What stands in a /proc of `pids`."""
    return {
        b"buddyinfo": b"",
        b"bus": {},
        b"cgroups": b"#subsys_name\thierarchy\tnum_cgroups\tenabled\n",
        b"cmdline": b"quiet\n",
        b"config.gz": kconfig.config_gz,
        b"consoles": b"",
        b"cpuinfo": system.cpuinfo,
        b"crypto": b"",
        b"devices": system.DEVICES,
        b"diskstats": b"",
        b"driver": {},
        b"filesystems": system.FILESYSTEMS,
        b"fs": {},
        b"interrupts": b"",
        b"loadavg": system.loadavg,
        b"locks": _locks,
        b"meminfo": system.meminfo,
        b"misc": b"237 loop-control\n",
        b"modules": b"",
        b"mounts": Link(b"self/mounts"),
        b"net": Link(b"self/net"),
        b"partitions": system.partitions,
        b"self": Link(lambda: b"%d" % _me(pids)[0]),
        b"stat": system.stat,
        b"swaps": system.SWAPS,
        b"sys": Room(lambda fs, kernel: SysctlDirectory(fs, sysctl.make_tree(kernel), kernel)),
        b"sysvipc": {
            b"msg": lambda kernel: current_ipc(kernel).msg.listing(current_cred(kernel)),
            b"sem": lambda kernel: current_ipc(kernel).sem.listing(current_cred(kernel)),
            b"shm": lambda kernel: current_ipc(kernel).shm.listing(current_cred(kernel)),
        },
        b"thread-self": Link(lambda: b"%d/task/%d" % _me(pids)),
        b"tty": {b"drivers": system.TTY_DRIVERS, b"ldiscs": b"n_tty       0\n"},
        b"uptime": system.uptime,
        b"version": system.version,
        b"vmstat": system.vmstat,
    }  # fmt: skip
