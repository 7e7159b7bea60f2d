"""Memory policies (numa(7)) of a machine with one node: kept, told, and without effect."""

from __future__ import annotations

import errno

from sentry._engine import lib
from sentry.abi.capability import CAP_SYS_NICE
from sentry.abi.errors import SysError
from sentry.abi.mman import PAGE_MASK, PAGE_SIZE
from sentry.abi.numa import (
    MAX_NUMNODES,
    MPOL_BIND,
    MPOL_F_ADDR,
    MPOL_F_MEMS_ALLOWED,
    MPOL_F_NODE,
    MPOL_INTERLEAVE,
    MPOL_MF_MOVE,
    MPOL_MF_MOVE_ALL,
    MPOL_MF_STRICT,
    MPOL_MODE_FLAGS,
    MPOL_PREFERRED_MANY,
    MPOL_WEIGHTED_INTERLEAVE,
)
from sentry.abi.syscall_nr import SYS
from sentry.mm import policy
from sentry.mm.state import page_up
from sentry.syscalls.table import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.syscalls.args import Addr, Int, Size, UInt, ULong

_MOST_BITS = PAGE_SIZE * 8
_U64 = (1 << 64) - 1


def read_nodes(task: Task, mask: int, maxnode: int) -> int:
    """A node mask of `maxnode` - 1 bits.  SysError(EINVAL) for nodes that no kernel has; SysError(EFAULT)."""
    bits = (maxnode - 1) & _U64
    if not bits or not mask:
        return 0
    if bits > _MOST_BITS:
        raise SysError(errno.EINVAL)
    nodes = int.from_bytes(task.mm.read(mask, -(-bits // 64) * 8), "little") & ((1 << bits) - 1)
    if nodes >> MAX_NUMNODES:
        raise SysError(errno.EINVAL)
    return nodes


def _write_nodes(task: Task, mask: int, maxnode: int, nodes: int) -> None:
    size = -(-(maxnode - 1) // 64) * 8
    if size > PAGE_SIZE:
        raise SysError(errno.EINVAL)
    if size > 0:
        task.mm.write(mask, nodes.to_bytes(size, "little"))


@syscall(SYS.set_mempolicy, partial="there is one node: no effect")
def set_mempolicy(task: Task, mode: Int, mask: Addr, maxnode: ULong) -> None:
    """set_mempolicy(2)."""
    nodes = read_nodes(task, mask, maxnode)
    task.sched.mempolicy = policy.make(mode & 0xFFFFFFFF, nodes)


@syscall(SYS.get_mempolicy)
def get_mempolicy(task: Task, mode: Addr, mask: Addr, maxnode: ULong, addr: Addr, flags: ULong) -> None:
    """get_mempolicy(2)."""
    if flags & ~(MPOL_F_NODE | MPOL_F_ADDR | MPOL_F_MEMS_ALLOWED) or (mask and not maxnode):
        raise SysError(errno.EINVAL)
    current: policy.Policy = task.sched.mempolicy
    if flags & MPOL_F_MEMS_ALLOWED:
        if flags & (MPOL_F_NODE | MPOL_F_ADDR):
            raise SysError(errno.EINVAL)
        value, nodes = 0, policy.NODES
    elif flags & MPOL_F_ADDR:
        mm = task.mm
        if mm.find(addr) is None:
            raise SysError(errno.EFAULT)
        value, nodes = (mm.policies.at(addr) if mm.policies else None) or policy.DEFAULT
        if flags & MPOL_F_NODE:
            mm.read(addr, 1)
            value = 0
    elif addr:
        raise SysError(errno.EINVAL)
    else:
        value, nodes = current
        if flags & MPOL_F_NODE:
            if value & ~MPOL_MODE_FLAGS not in (MPOL_INTERLEAVE, MPOL_WEIGHTED_INTERLEAVE):
                raise SysError(errno.EINVAL)
            value = 0
    if mode:
        task.mm.write_u32(mode, value)
    if mask:
        _write_nodes(task, mask, maxnode, nodes)


def _range(task: Task, start: int, size: int) -> int:
    """The end of the range that is to have a policy.  SysError(EINVAL)."""
    end = start + page_up(size)
    if start & PAGE_MASK or end >= 1 << 64:
        raise SysError(errno.EINVAL)
    return end


@syscall(SYS.mbind, partial="there is one node: no effect")
def mbind(task: Task, start: Addr, size: Size, mode: ULong, mask: Addr, maxnode: ULong, flags: UInt) -> None:
    """mbind(2)."""
    nodes = read_nodes(task, mask, maxnode)
    if flags & ~(MPOL_MF_STRICT | MPOL_MF_MOVE | MPOL_MF_MOVE_ALL):
        raise SysError(errno.EINVAL)
    if flags & MPOL_MF_MOVE_ALL and not task.cred.capable(CAP_SYS_NICE):
        raise SysError(errno.EPERM)
    end = _range(task, start, size)
    if end == start:
        return
    wanted = policy.make(mode, nodes)
    mm = task.mm
    if not mm.tree.covers(start, end) and (wanted != policy.DEFAULT or not mm.tree.overlapping(start, end)):
        raise SysError(errno.EFAULT)
    if mm.policies is None:
        if wanted == policy.DEFAULT:
            return
        mm.policies = policy.Ranges()
        mm.c.state |= lib.MM_POLICED
    mm.policies.put(start, end, wanted)


@syscall(SYS.set_mempolicy_home_node, partial="there is one node: no effect")
def set_mempolicy_home_node(task: Task, start: Addr, size: Size, node: ULong, flags: ULong) -> None:
    """set_mempolicy_home_node(2)."""
    if start & PAGE_MASK or flags or node:
        raise SysError(errno.EINVAL)
    end = _range(task, start, size)
    if end == start:
        return
    found = False
    for vma in task.mm.tree.overlapping(start, end):
        of_vma = task.mm.policies.at(max(vma.start, start)) if task.mm.policies else None
        if of_vma is None:
            continue
        if of_vma[0] & ~MPOL_MODE_FLAGS not in (MPOL_BIND, MPOL_PREFERRED_MANY):
            raise SysError(errno.EOPNOTSUPP)
        found = True
    if not found:
        raise SysError(errno.ENOENT)
