"""What stands in /dev."""

from __future__ import annotations

from sentry.abi import loop
from sentry.abi.stat import S_IFBLK, S_IFCHR
from sentry.fs.dev.table import makedev

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.fs.inode import Inode

_NODES = (
    (b"null", 0o666, 1, 3), (b"zero", 0o666, 1, 5), (b"full", 0o666, 1, 7), (b"random", 0o666, 1, 8),
    (b"urandom", 0o666, 1, 9), (b"tty", 0o666, 5, 0), (b"console", 0o620, 5, 1),
)  # fmt: skip
#: The group of disks, as most distributions have it.
DISK_GID = 6
_LINKS = (
    (b"fd", b"/proc/self/fd"), (b"stdin", b"/proc/self/fd/0"), (b"stdout", b"/proc/self/fd/1"),
    (b"stderr", b"/proc/self/fd/2"), (b"core", b"/proc/kcore"),
)  # fmt: skip


async def populate_dev(root: Inode) -> None:
    """Fill the empty directory `root` (of a tmpfs that is mounted on /dev).

    Leaves the directories `mqueue`, `pts` and `shm` to mount on.
    """
    for name, mode, major, minor in _NODES:
        await root.mknod(name, S_IFCHR | mode, makedev(major, minor), 0, 0)
    await root.mknod(b"ptmx", S_IFCHR | 0o666, makedev(5, 2), 0, 5)
    control = makedev(loop.MISC_MAJOR, loop.LOOP_CTRL_MINOR)
    await root.mknod(b"loop-control", S_IFCHR | 0o660, control, 0, DISK_GID)
    for number in range(loop.COUNT):
        device = makedev(loop.LOOP_MAJOR, number)
        await root.mknod(b"loop%d" % number, S_IFBLK | 0o660, device, 0, DISK_GID)
    for name, target in _LINKS:
        await root.symlink(name, target, 0, 0)
    await root.mkdir(b"mqueue", 0o755, 0, 0)
    await root.mkdir(b"pts", 0o755, 0, 0)
    await root.mkdir(b"shm", 0o1777, 0, 0)
