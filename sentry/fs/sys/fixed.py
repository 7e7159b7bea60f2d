"""What stands in /sys."""

from __future__ import annotations

from sentry.fs.proc.system import Usage
from sentry.fs.sys import block

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.kernel.kernel import Kernel


def _cpu_tree(number: int, cpus: int) -> dict[bytes, Any]:
    siblings = b"0-%d\n" % (cpus - 1) if cpus > 1 else b"0\n"
    tree: dict[bytes, Any] = {
        b"topology": {
            b"core_id": b"%d\n" % number,
            b"physical_package_id": b"0\n",
            b"core_siblings_list": siblings,
            b"thread_siblings_list": b"%d\n" % number,
            b"thread_siblings": b"%08x\n" % (1 << number),
            b"core_siblings": b"%08x\n" % ((1 << cpus) - 1),
        },
        b"cache": {},
    }
    if number:
        tree[b"online"] = b"1\n"
    return tree


def _node_memory(kernel: Kernel) -> bytes:
    usage = Usage(kernel)
    total, used = usage.total, usage.used
    values = ((b"MemTotal", total), (b"MemFree", total - used), (b"MemUsed", used))
    return b"".join([b"Node 0 %-15s %8d kB\n" % (name + b":", size // 1024) for name, size in values])


def make_tree(kernel: Kernel) -> dict[bytes, Any]:
    cpus = max(1, kernel.host.cpus)
    online = b"0-%d\n" % (cpus - 1) if cpus > 1 else b"0\n"
    cpu: dict[bytes, Any] = {
        b"isolated": b"\n",
        b"kernel_max": b"8191\n",
        b"offline": b"\n",
        b"online": online,
        b"possible": online,
        b"present": online,
        b"smt": {b"active": b"0\n", b"control": b"notsupported\n"},
    }
    for number in range(cpus):
        cpu[b"cpu%d" % number] = _cpu_tree(number, cpus)
    node = {
        b"has_cpu": b"0\n",
        b"has_memory": b"0\n",
        b"online": b"0\n",
        b"possible": b"0\n",
        b"node0": {
            b"cpulist": online,
            b"cpumap": b"%08x\n" % ((1 << cpus) - 1),
            b"distance": b"10\n",
            b"meminfo": _node_memory,
        },
    }
    return {
        b"block": block.make_tree(kernel),
        b"bus": {},
        b"class": {b"net": {}, b"tty": {}},
        b"dev": {b"block": {}, b"char": {}},
        b"devices": {b"system": {b"cpu": cpu, b"node": node}, b"virtual": {}},
        b"firmware": {},
        b"fs": {b"cgroup": {}},
        b"kernel": {
            b"mm": {
                b"transparent_hugepage": {
                    b"enabled": b"always [madvise] never\n",
                    b"hpage_pmd_size": b"2097152\n",
                    b"shmem_enabled": b"always within_size advise [never] deny force\n",
                },
                b"hugepages": {},
            },
        },
        b"module": {},
        b"power": {},
    }
