"""/proc/PID/mounts and mountinfo: the mounts that a task's root can see; poll(2) tells of changes."""

from __future__ import annotations

from sentry.abi.poll import POLLERR, POLLIN, POLLPRI, POLLRDNORM
from sentry.fs import propagation, walk
from sentry.fs.dentry import MNT_NODEV, MNT_NOEXEC, MNT_NOSUID, MNT_NOSYMFOLLOW, MNT_READONLY, Path
from sentry.fs.proc.base import GeneratedFile, GeneratedInode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.fs.dentry import FsContext, Mount


class MountsFile(GeneratedFile):
    """Ready for POLLPRI, once, after each change of the namespace (proc_pid_mounts(5))."""

    __slots__ = ("_event", "_namespace")

    def __init__(
        self, inode: GeneratedInode, flags: int, path: Path, fs: FsContext, show: Callable[[FsContext], bytes]
    ) -> None:
        """`fs`: nobody else's."""
        super().__init__(inode, flags, path)
        self.make = lambda: show(fs)
        self._namespace = fs.namespace
        self._event = fs.namespace.event
        self.queue = fs.namespace.queue

    pollable = True

    def poll(self) -> int:
        ready = POLLIN | POLLRDNORM
        if self._event != self._namespace.event:
            self._event = self._namespace.event
            ready |= POLLERR | POLLPRI
        return ready


def escape(name: bytes) -> bytes:
    """Octal escapes for what would end a field."""
    if b" " in name or b"\t" in name or b"\n" in name or b"\\" in name:
        name = name.replace(b"\\", b"\\134").replace(b" ", b"\\040")
        name = name.replace(b"\t", b"\\011").replace(b"\n", b"\\012")
    return name


def _visible(fs: FsContext) -> list[tuple[Mount, bytes]]:
    """Mounts with their places, as `fs` sees them; those outside its root are left out."""
    result = []
    for mount in fs.namespace.all():
        name, reached = walk.locate(fs, Path(mount, mount.root))
        if reached and name.startswith(b"/"):
            result.append((mount, name))
    return result


def _mount_options(mount: Mount) -> bytes:
    flags = mount.flags
    options = b"ro" if flags & MNT_READONLY else b"rw"
    for flag, name in ((MNT_NOSUID, b",nosuid"), (MNT_NODEV, b",nodev"), (MNT_NOEXEC, b",noexec")):
        if flags & flag:
            options += name
    return options + (b",relatime,nosymfollow" if flags & MNT_NOSYMFOLLOW else b",relatime")


def mounts(fs: FsContext) -> bytes:
    """As fstab(5) has it."""
    lines = []
    for mount, name in _visible(fs):
        options = _mount_options(mount)
        if mount.fs.readonly:
            options = b"ro" + options[2:]
        fields = (escape(mount.fs.source), escape(name), mount.fs.type_name, options + mount.fs.options())
        lines.append(b" ".join(fields) + b" 0 0\n")
    return b"".join(lines)


def mountinfo(fs: FsContext) -> bytes:
    """proc_pid_mountinfo(5)."""
    lines = []
    for mount, name in _visible(fs):
        device = mount.fs.dev
        parent = mount.parent.id if mount.parent is not None else mount.id - 1
        super_options = (b"ro" if mount.fs.readonly else b"rw") + mount.fs.options()
        lines.append(
            b"%d %d %d:%d %s %s %s - %s %s %s\n"
            % (
                mount.id, parent, device >> 8 & 0xFFF, device & 0xFF, escape(_root_in_fs(mount)),
                escape(name), _mount_options(mount) + propagation.fields(mount), mount.fs.type_name,
                escape(mount.fs.source), super_options,
            )
        )  # fmt: skip
    return b"".join(lines)


def mountstats(fs: FsContext) -> bytes:
    return b"".join(
        b"device %s mounted on %s with fstype %s\n"
        % (escape(mount.fs.source), escape(name), mount.fs.type_name)
        for mount, name in _visible(fs)
    )


def _root_in_fs(mount: Mount) -> bytes:
    """The directory of its file system that a mount shows."""
    names = []
    dentry = mount.root
    while dentry.parent is not None:
        names.append(dentry.name)
        dentry = dentry.parent
    return b"/" + b"/".join(reversed(names))
