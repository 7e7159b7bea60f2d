"""/proc/config.gz: what this kernel has, in the words of Linux's configuration (IKCONFIG_PROC).

Programs look there before they try: LTP, `docker`'s and `podman`'s checks, systemd's.  An option stands for
"y" where what it is about works here, whatever it would build on Linux; most hang on a system call that is in
the table or not.  The gzip file is made of stored blocks, so that nothing has to be imported for it.
"""

from __future__ import annotations

from sentry.abi.syscall_nr import SYS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.kernel import Kernel

#: Always there.
HAVE = """
    64BIT X86_64 X86 MMU SMP MULTIUSER PREEMPT_DYNAMIC FUTEX EPOLL SIGNALFD TIMERFD EVENTFD SHMEM
    POSIX_TIMERS HIGH_RES_TIMERS FILE_LOCKING ADVISE_SYSCALLS CROSS_MEMORY_ATTACH BINFMT_ELF BINFMT_SCRIPT
    ELF_CORE TTY UNIX98_PTYS DEVTMPFS PROC_FS PROC_SYSCTL PROC_PAGE_MONITOR SYSFS TMPFS TMPFS_XATTR
    OVERLAY_FS NAMESPACES UTS_NS IPC_NS USER_NS PID_NS NET_NS NET UNIX IKCONFIG IKCONFIG_PROC
    BLOCK BLK_DEV BLK_DEV_LOOP DNOTIFY
"""
#: There if the call is.
BY_CALL = {
    "SYSVIPC": SYS.shmget, "SYSVIPC_SYSCTL": SYS.shmget, "CHECKPOINT_RESTORE": SYS.shmget,
    "POSIX_MQUEUE": SYS.mq_open, "POSIX_MQUEUE_SYSCTL": SYS.mq_open, "AIO": SYS.io_setup,
    "IO_URING": SYS.io_uring_setup, "INOTIFY_USER": SYS.inotify_init1, "FANOTIFY": SYS.fanotify_init,
    "MODULES": SYS.init_module, "KEXEC": SYS.kexec_load, "SWAP": SYS.swapon, "QUOTACTL": SYS.quotactl,
    "BSD_PROCESS_ACCT": SYS.acct, "KEYS": SYS.keyctl, "PERF_EVENTS": SYS.perf_event_open,
    "BPF_SYSCALL": SYS.bpf, "USERFAULTFD": SYS.userfaultfd, "SECCOMP": SYS.seccomp,
    "SECCOMP_FILTER": SYS.seccomp, "SECURITY_LANDLOCK": SYS.landlock_create_ruleset,
    "SECURITY": SYS.lsm_get_self_attr, "RSEQ": SYS.rseq, "MODIFY_LDT_SYSCALL": SYS.modify_ldt,
    "X86_IOPL_IOPERM": SYS.iopl, "X86_INTEL_MEMORY_PROTECTION_KEYS": SYS.pkey_alloc, "NUMA": SYS.mbind,
    "X86_USER_SHADOW_STACK": SYS.map_shadow_stack, "SECRETMEM": SYS.memfd_secret, "KCMP": SYS.kcmp,
    "FHANDLE": SYS.name_to_handle_at, "SYSFS_SYSCALL": SYS.sysfs, "USELIB": SYS.uselib,
    "MEMBARRIER": SYS.membarrier, "MEMFD_CREATE": SYS.memfd_create, "CACHESTAT_SYSCALL": SYS.cachestat,
}  # fmt: skip
#: Asked for by programs, and not there, whatever the table says.
HAVE_NOT = """
    CGROUPS CGROUP_PIDS MEMCG FUSE_FS EXT4_FS XFS_FS BTRFS_FS VFAT_FS MEMORY_FAILURE TIME_NS INET IPV6
    TUN VETH BRIDGE NETFILTER TRANSPARENT_HUGEPAGE HUGETLBFS TMPFS_POSIX_ACL TRACING IA32_EMULATION
"""
BLOCK = 0xFFFF


def options(kernel: Kernel) -> dict[str, bool]:
    """Option, without CONFIG_ → whether it is there."""
    table = dict.fromkeys(HAVE.split(), True)
    table.update(dict.fromkeys(HAVE_NOT.split(), False))
    for option, nr in BY_CALL.items():
        table[option] = nr in kernel.table or nr in kernel.late
    return table


def text(kernel: Kernel) -> bytes:
    head = (
        f"#\n# Automatically generated: what this kernel has.\n# Linux/x86 {kernel.uts.release.decode()}\n#\n"
    )
    lines = [
        f"CONFIG_{name}=y\n" if there else f"# CONFIG_{name} is not set\n"
        for name, there in sorted(options(kernel).items())
    ]
    return (head + "".join(lines)).encode()


def crc32(data: bytes) -> int:
    """As gzip files have it (RFC 1952, section 8)."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0xEDB88320 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def gzip_stored(data: bytes) -> bytes:
    """A gzip file of `data` in blocks that are not compressed (RFC 1951, section 3.2.4)."""
    file = bytearray(b"\x1f\x8b\x08\0\0\0\0\0\0\x03")
    for at in range(0, len(data) or 1, BLOCK):
        piece = data[at : at + BLOCK]
        size = len(piece)
        file.append(at + BLOCK >= len(data))
        file += size.to_bytes(2, "little") + (size ^ 0xFFFF).to_bytes(2, "little") + piece
    return bytes(file + crc32(data).to_bytes(4, "little") + len(data).to_bytes(4, "little"))


def config_gz(kernel: Kernel) -> bytes:
    return gzip_stored(text(kernel))
