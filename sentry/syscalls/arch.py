"""arch_prctl(2): what is the processor's own."""

from __future__ import annotations

import errno

from sentry.abi import prctl as pr
from sentry.abi.errors import SysError
from sentry.abi.mman import USER_END
from sentry.abi.syscall_nr import SYS
from sentry.syscalls.table import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.syscalls.args import Addr, Int

#: x87, SSE and AVX: what a guest's FP state holds without asking.
XFEATURES = 0x7


@syscall(SYS.arch_prctl, partial="no shadow stacks, linear address masking, CPUID faulting or AMX")
def arch_prctl(task: Task, option: Int, addr: Addr) -> int:
    """arch_prctl(2)."""
    regs = task.regs
    if option in (pr.ARCH_SET_FS, pr.ARCH_SET_GS):
        if addr >= USER_END:
            raise SysError(errno.EPERM)
        if option == pr.ARCH_SET_FS:
            regs.fs_base = addr
        else:
            regs.gs_base = addr
    elif option == pr.ARCH_GET_FS:
        task.mm.write_u64(addr, regs.fs_base)
    elif option == pr.ARCH_GET_GS:
        task.mm.write_u64(addr, regs.gs_base)
    elif option == pr.ARCH_GET_CPUID:
        return 1
    elif option == pr.ARCH_SET_CPUID:
        raise SysError(errno.ENODEV)
    elif option in (pr.ARCH_GET_XCOMP_SUPP, pr.ARCH_GET_XCOMP_PERM):
        task.mm.write_u64(addr, XFEATURES)
    elif option == pr.ARCH_REQ_XCOMP_PERM:
        raise SysError(errno.EINVAL if addr >= 64 else errno.EOPNOTSUPP)
    else:
        raise SysError(errno.EINVAL)
    return 0
