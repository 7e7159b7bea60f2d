"""/proc/PID/mounts, mountinfo and mountstats: the mounts that a task's root can see; poll(2) tells of
changes."""

from __future__ import annotations

from sentry.abi.mman import PAGE_SIZE
from sentry.abi.poll import POLLERR, POLLIN, POLLPRI, POLLRDNORM
from sentry.fs import propagation, walk
from sentry.fs.dentry import MNT_NODEV, MNT_NOEXEC, MNT_NOSUID, MNT_NOSYMFOLLOW, MNT_READONLY, Path
from sentry.fs.proc.sequence import SequenceFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.fs.dentry import FsContext, Mount
    from sentry.fs.proc.base import GeneratedInode


class MountstatsFile(SequenceFile):
    """What `fs` sees, which is nobody else's."""

    __slots__ = ()

    def __init__(self, inode: GeneratedInode, flags: int, path: Path, fs: FsContext) -> None:
        super().__init__(inode, flags, path)
        show = _LINES[path.dentry.name]
        self.make = lambda cursor: _piece(fs, cursor, show)


class MountsFile(MountstatsFile):
    """Ready for POLLPRI, once, after each change of the namespace (proc_pid_mounts(5))."""

    __slots__ = ("_event", "_namespace")

    def __init__(self, inode: GeneratedInode, flags: int, path: Path, fs: FsContext) -> None:
        super().__init__(inode, flags, path, fs)
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


def _piece(fs: FsContext, cursor: int, show: Callable[[Mount, bytes], bytes]) -> tuple[bytes, int]:
    """The lines of the next mounts, by their ids (sequence.py), as `fs` sees them: those outside its root are
    left out.  A page or so: the name of a place may be long, and all names together no bounds."""
    lines, size = [], 0
    for mount in fs.namespace.all():
        if mount.id < cursor:
            continue
        cursor = mount.id + 1
        name, reached = walk.locate(fs, Path(mount, mount.root))
        size += len(name)
        if reached and name.startswith(b"/"):
            line = show(mount, name)
            size += len(line)
            lines.append(line)
        if size > PAGE_SIZE:
            break
    return b"".join(lines), cursor


def _mount_options(mount: Mount) -> bytes:
    flags = mount.flags
    options = b"ro" if flags & MNT_READONLY else b"rw"
    for flag, name in ((MNT_NOSUID, b",nosuid"), (MNT_NODEV, b",nodev"), (MNT_NOEXEC, b",noexec")):
        if flags & flag:
            options += name
    return options + (b",relatime,nosymfollow" if flags & MNT_NOSYMFOLLOW else b",relatime")


def _mounts_line(mount: Mount, name: bytes) -> bytes:
    """As fstab(5) has it."""
    options = _mount_options(mount)
    if mount.fs.readonly:
        options = b"ro" + options[2:]
    fields = (escape(mount.fs.source), escape(name), mount.fs.type_name, options + mount.fs.options())
    return b" ".join(fields) + b" 0 0\n"


def _mountinfo_line(mount: Mount, name: bytes) -> bytes:
    """proc_pid_mountinfo(5)."""
    device = mount.fs.dev
    parent = mount.parent.id if mount.parent is not None else mount.id - 1
    super_options = (b"ro" if mount.fs.readonly else b"rw") + mount.fs.options()
    return b"%d %d %d:%d %s %s %s - %s %s %s\n" % (
        mount.id, parent, device >> 8 & 0xFFF, device & 0xFF, escape(_root_in_fs(mount)), escape(name),
        _mount_options(mount) + propagation.fields(mount), mount.fs.type_name, escape(mount.fs.source),
        super_options,
    )  # fmt: skip


def _mountstats_line(mount: Mount, name: bytes) -> bytes:
    fields = (escape(mount.fs.source), escape(name), mount.fs.type_name)
    return b"device %s mounted on %s with fstype %s\n" % fields


def _root_in_fs(mount: Mount) -> bytes:
    """The directory of its file system that a mount shows."""
    names = []
    dentry = mount.root
    while dentry.parent is not None:
        names.append(dentry.name)
        dentry = dentry.parent
    return b"/" + b"/".join(reversed(names))


_LINES = {b"mountinfo": _mountinfo_line, b"mounts": _mounts_line, b"mountstats": _mountstats_line}
