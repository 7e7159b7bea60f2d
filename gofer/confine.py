"""What the Gofer takes away from itself before it serves the first message.

As root it gets namespaces of its own and, as its root directory, a private copy of the mounts
beneath the rootfs; binds are detached copies of mounts (open_tree(2)), so `..` leads out of none of
them, and neither out of the copy of /proc/self/fd through which files are reopened.  It keeps only the
capabilities that file access needs.  An ordinary user's Gofer stays in the caller's user namespace.
Both have Landlock on top, where the kernel has it, and a seccomp filter of file calls.  Without
Landlock an ordinary user's Gofer is held by openat2 (its own code) and seccomp only.

`confine` says what it applied in lines for people; what the host refuses is said too.
"""

from __future__ import annotations

import _signal
import errno
import os
import resource
from _stat import S_ISDIR

from gofer._native import lib
from gofer.localfs import check
from sentry.abi.capability import (
    CAP_CHOWN,
    CAP_DAC_OVERRIDE,
    CAP_DAC_READ_SEARCH,
    CAP_FOWNER,
    CAP_FSETID,
    CAP_SYS_ADMIN,
)
from sentry.abi.mount import MS_PRIVATE
from sentry.abi.prctl import (
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAPBSET_DROP,
    PR_SET_DUMPABLE,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
)
from sentry.abi.sched import CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gofer.fids import Export


MOUNT_ATTR_RDONLY = 1
MOUNT_ATTR_NOSUID = 2
MOUNT_ATTR_NODEV = 4

# Landlock (uapi/linux/landlock.h).
FS_WRITE_FILE = 1 << 1
FS_READ_FILE = 1 << 2
FS_READ_DIR = 1 << 3
FS_REMOVE_DIR = 1 << 4
FS_REMOVE_FILE = 1 << 5
FS_MAKE_DIR = 1 << 7
FS_MAKE_REG = 1 << 8
FS_MAKE_SOCK = 1 << 9
FS_MAKE_FIFO = 1 << 10
FS_MAKE_SYM = 1 << 12
FS_REFER = 1 << 13
FS_TRUNCATE = 1 << 14
FS_IOCTL_DEV = 1 << 15
FS_ALL_ABI1 = (1 << 13) - 1
FS_READ = FS_READ_FILE | FS_READ_DIR
FS_WRITE = (
    FS_WRITE_FILE | FS_REMOVE_DIR | FS_REMOVE_FILE | FS_MAKE_DIR | FS_MAKE_REG | FS_MAKE_SOCK | FS_MAKE_FIFO
    | FS_MAKE_SYM | FS_REFER | FS_TRUNCATE
)  # fmt: skip
FS_ON_FILES = FS_READ_FILE | FS_WRITE_FILE | FS_TRUNCATE
NET_BIND_TCP = 1
NET_CONNECT_TCP = 2
SCOPE_ALL = 3  # abstract unix sockets, signals


class ConfineError(Exception):
    """The Gofer can't be confined as it must; one line for people."""


def capabilities() -> int:
    """The effective set."""
    with open("/proc/self/status", "rb") as file:
        for line in file:
            if line.startswith(b"CapEff:"):
                return int(line.split()[1], 16)
    return 0


def die_with_parent(parent_pid: int) -> None:
    """SIGKILL when the parent dies.  `parent_pid` closes the race: it may be dead already."""
    check(lib.gofer_prctl(PR_SET_PDEATHSIG, _signal.SIGKILL, 0, 0, 0))
    if parent_pid and os.getppid() != parent_pid:
        os._exit(1)


def close_all_but(keep: Iterable[int]) -> None:
    low = 0
    for fd in sorted(set(keep)):
        if fd < 0:
            continue
        if fd > low:
            check(lib.gofer_close_range(low, fd - 1))
        low = fd + 1
    check(lib.gofer_close_range(low, 0xFFFF_FFFF))


def set_limits() -> int:
    """No core dumps; as many descriptors as the hard limit allows: how many that is."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return 1 << 20 if hard < 0 else min(hard, 1 << 20)


def clone_mounts(exports: Sequence[Export], proc_fd: int, applied: list[str]) -> int:
    """Put a detached copy of its mounts in place of each export's descriptor; proc_fd's copy is returned."""
    tree: int
    for export in exports:
        tree = check(lib.gofer_open_tree(export.fd, b""))
        flags = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | (MOUNT_ATTR_RDONLY if export.readonly else 0)
        result = lib.gofer_mount_setattr(tree, flags, MS_PRIVATE)
        if result < 0:
            applied.append(f"mount flags of {_show(export)}: refused ({os.strerror(-result)})")
        os.close(export.fd)
        export.fd = tree
    tree = lib.gofer_open_tree(proc_fd, b"")
    if tree < 0:
        applied.append(f"own copy of /proc/self/fd: refused ({os.strerror(-tree)})")
        return proc_fd
    os.close(proc_fd)
    return tree


def _show(export: Export) -> str:
    return os.fsdecode(export.name) or "rootfs"


def own_root(exports: Sequence[Export], proc_fd: int, applied: list[str]) -> int:
    """Own namespaces, and the first directory exported as the root directory: the new proc_fd.

    The copies are made first: only mounts of the present namespace can be copied.  The root's copy is
    mounted over the old root, which makes the same code serve a rootfs of "/".
    """
    proc_fd = clone_mounts(exports, proc_fd, applied)
    check(lib.gofer_unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET))
    check(lib.gofer_make_private())
    root = next((export for export in exports if S_ISDIR(os.fstat(export.fd).st_mode)), None)
    if root is None:
        raise ConfineError("nothing exported is a directory")
    old = os.open("/", os.O_PATH | os.O_CLOEXEC)
    check(lib.gofer_mount_over(root.fd, old))
    os.close(old)
    os.fchdir(root.fd)
    check(lib.gofer_pivot_here())
    check(lib.gofer_detach(b"."))
    os.chdir("/")
    check(lib.gofer_make_private())
    for path in (b"/proc", b"/sys", b"/dev"):
        lib.gofer_detach(path)  # most are no mount points, which is fine
    applied.append(f"own root directory ({_show(root)}), own mount, IPC, UTS and network namespaces")
    return proc_fd


def drop_capabilities(keep: int) -> None:
    """Only `keep` stays, in the bounding set too; a process without capabilities has nothing to drop."""
    lib.gofer_prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    for number in range(64):
        if not keep >> number & 1 and lib.gofer_prctl(PR_CAPBSET_DROP, number, 0, 0, 0) == -errno.EINVAL:
            break  # past the kernel's last capability
    check(lib.gofer_capset(keep))


def landlock(exports: Sequence[Export]) -> str:
    """Reading beneath the exports, writing beneath the writable ones, nothing else: what was applied."""
    abi = lib.gofer_landlock_abi()
    if abi < 1:
        return f"Landlock: not available ({os.strerror(-abi)})"
    handled = FS_ALL_ABI1
    handled |= FS_REFER if abi >= 2 else 0
    handled |= FS_TRUNCATE if abi >= 3 else 0
    handled |= FS_IOCTL_DEV if abi >= 5 else 0
    net = NET_BIND_TCP | NET_CONNECT_TCP if abi >= 4 else 0
    scope = SCOPE_ALL if abi >= 6 else 0
    ruleset = check(lib.gofer_landlock_create(handled, net, scope, 24 if abi >= 6 else 16 if abi >= 4 else 8))
    try:
        for export in exports:
            access = FS_READ if export.readonly else FS_READ | FS_WRITE
            if not S_ISDIR(os.fstat(export.fd).st_mode):
                access &= FS_ON_FILES
            check(lib.gofer_landlock_beneath(ruleset, export.fd, access & handled))
        check(lib.gofer_prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        check(lib.gofer_landlock_restrict(ruleset))
    finally:
        os.close(ruleset)
    return f"Landlock ABI {abi}"


def confine(
    exports: Sequence[Export], proc_fd: int, keep_fds: Iterable[int], seccomp: bytes, parent_pid: int = 0
) -> tuple[int, list[str]]:
    """Apply everything: (proc_fd to use from now on, what was applied).

    Every export has its `fd`.  Descriptors but `keep_fds`, the exports' and `proc_fd` are closed.  Raises
    OSError or ConfineError when something fails that this host should allow.
    """
    applied: list[str] = []
    die_with_parent(parent_pid)
    os.umask(0)
    close_all_but([*keep_fds, proc_fd, *[export.fd for export in exports]])
    held = capabilities()
    if held & 1 << CAP_SYS_ADMIN:
        try:
            proc_fd = own_root(exports, proc_fd, applied)
        except OSError as exc:
            # Before unshare nothing has changed: a container may forbid it even to root.
            if exc.errno not in (errno.EPERM, errno.ENOSYS):
                raise
            applied.append(f"own root directory: refused ({exc.strerror})")
    keep = 1 << CAP_DAC_READ_SEARCH
    if not all(export.readonly for export in exports):
        keep |= 1 << CAP_DAC_OVERRIDE | 1 << CAP_CHOWN | 1 << CAP_FOWNER | 1 << CAP_FSETID
    drop_capabilities(held & keep)
    applied.append(f"capabilities {held & keep:#x}")
    check(lib.gofer_prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    applied.append(landlock(exports))
    check(lib.gofer_prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
    die_with_parent(parent_pid)  # a change of credentials may have cleared it
    if seccomp:
        check(lib.gofer_seccomp_load(seccomp, len(seccomp)))
        applied.append("no new privileges, not dumpable, seccomp filter")
    else:
        applied.append("no new privileges, not dumpable, NO seccomp filter")
    return proc_fd, applied
