"""Calls of features that this kernel is built without, each with the errno that Linux gives then.

Programs probe for such features and have a way to go on; so a plain, well-known errno is the best
answer.  Calls that stand neither here nor in the table give ENOSYS too, but are worth a note under
--debug, since they are gaps and not decisions.
"""

from __future__ import annotations

import errno

from sentry.abi.syscall_nr import SYS
from sentry.syscalls.table import refuse

#: Never implemented by design, or left for later: reason → numbers.  All give ENOSYS, as COND_SYSCALL does.
_ABSENT: dict[str, tuple[int, ...]] = {
    "no io_uring (CONFIG_IO_URING): a second way into the kernel": (
        SYS.io_uring_setup, SYS.io_uring_enter, SYS.io_uring_register,
    ),
    "no fanotify (CONFIG_FANOTIFY)": (SYS.fanotify_init, SYS.fanotify_mark),
    "no kernel modules (CONFIG_MODULES)": (SYS.init_module, SYS.finit_module, SYS.delete_module),
    "no kexec (CONFIG_KEXEC)": (SYS.kexec_load, SYS.kexec_file_load),
    "no swap (CONFIG_SWAP)": (SYS.swapon, SYS.swapoff),
    "no disk quotas (CONFIG_QUOTACTL)": (SYS.quotactl, SYS.quotactl_fd),
    "no process accounting (CONFIG_BSD_PROCESS_ACCT)": (SYS.acct,),
    "no key retention service (CONFIG_KEYS)": (SYS.add_key, SYS.request_key, SYS.keyctl),
    "no performance events (CONFIG_PERF_EVENTS)": (SYS.perf_event_open,),
    "no BPF (CONFIG_BPF_SYSCALL)": (SYS.bpf,),
    "no userfaultfd (CONFIG_USERFAULTFD)": (SYS.userfaultfd,),
    "no Landlock (CONFIG_SECURITY_LANDLOCK)": (
        SYS.landlock_create_ruleset, SYS.landlock_add_rule, SYS.landlock_restrict_self,
    ),
    "no security module keeps attributes of processes": (SYS.lsm_get_self_attr, SYS.lsm_set_self_attr),
    "no restartable sequences (CONFIG_RSEQ): docs/decisions/0021": (SYS.rseq,),
    "no local descriptor tables (CONFIG_MODIFY_LDT_SYSCALL)": (SYS.modify_ldt,),
    "no port access (CONFIG_X86_IOPL_IOPERM)": (SYS.iopl, SYS.ioperm),
    "no shadow stacks (CONFIG_X86_USER_SHADOW_STACK)": (SYS.map_shadow_stack,),
    "no secret memory (CONFIG_SECRETMEM)": (SYS.memfd_secret,),
    "none of the new mount calls yet; mount(2) is there": (
        SYS.open_tree, SYS.move_mount, SYS.fsopen, SYS.fsconfig, SYS.fsmount, SYS.fspick, SYS.mount_setattr,
        SYS.statmount, SYS.listmount,
    ),
    "compiled out in most kernels (CONFIG_USELIB)": (SYS.uselib,),
    "gone from Linux": (
        SYS._sysctl, SYS.create_module, SYS.get_kernel_syms, SYS.query_module, SYS.nfsservctl,
        SYS.lookup_dcookie,
    ),
    "not a call of 64-bit programs": (SYS.set_thread_area, SYS.get_thread_area),
    "never was implemented": (
        SYS.getpmsg, SYS.putpmsg, SYS.afs_syscall, SYS.tuxcall, SYS.security, SYS.vserver, SYS.epoll_ctl_old,
        SYS.epoll_wait_old,
    ),
}  # fmt: skip

#: What even root may not do here.
_FORBIDDEN: dict[int, str] = {
    SYS.reboot: "nobody has CAP_SYS_BOOT",
}


for _reason, _numbers in _ABSENT.items():
    for _nr in _numbers:
        refuse(_nr, errno.ENOSYS, _reason)
for _nr, _reason in _FORBIDDEN.items():
    refuse(_nr, errno.EPERM, _reason)
