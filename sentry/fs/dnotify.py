"""F_NOTIFY of fcntl(2): signals about what happens in a directory (Linux fs/notify/dnotify)."""

from __future__ import annotations

from sentry.abi.inotify import (
    IN_ACCESS,
    IN_ATTRIB,
    IN_CREATE,
    IN_DELETE,
    IN_MODIFY,
    IN_MOVED_FROM,
    IN_MOVED_TO,
)
from sentry.abi.poll import POLLMSG
from sentry.fs import fsnotify
from sentry.fs.owner import owner_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.fs.file import File
    from sentry.fs.inode import Inode

DN_MULTISHOT = 0x80000000
#: DN_ACCESS, DN_MODIFY, DN_CREATE, DN_DELETE, DN_RENAME, DN_ATTRIB: what they are about.
_EVENTS = (
    (1, IN_ACCESS), (2, IN_MODIFY), (4, IN_CREATE | IN_MOVED_TO), (8, IN_DELETE | IN_MOVED_FROM),
    (0x10, fsnotify.FS_RENAME), (0x20, IN_ATTRIB),
)  # fmt: skip


class Limits:
    """/proc/sys/fs/dir-notify-enable."""

    def __init__(self) -> None:
        self.enabled = 1


limits = Limits()


class DirectoryMark:
    """What one process wants to hear by one open directory."""

    __slots__ = ("_fd", "_mask", "_multishot", "_owner", "file", "inode")

    def __init__(self, file: File, owner: int, fd: int) -> None:
        self.file = file
        #: The descriptor table, and the number there that the signal tells.
        self._owner = owner
        self._fd = fd
        self._mask = 0
        self._multishot = False
        self.inode: Inode = file.inode

    def event(self, mask: int, cookie: int, name: bytes, unlinked: bool) -> None:
        if not mask & self._mask:
            return
        owner_of(self.file).report(POLLMSG, self._fd)
        if not self._multishot:
            fsnotify.remove(self)

    def inode_gone(self) -> None:
        fsnotify.remove(self)

    def closed(self, file: File, owner: int) -> None:
        if file is self.file and owner == self._owner:
            fsnotify.remove(self)

    def want(self, arg: int) -> None:
        self._mask |= sum(bits for bit, bits in _EVENTS if arg & bit)
        self._multishot = bool(arg & DN_MULTISHOT)

    def is_of(self, file: File, owner: int) -> bool:
        return self.file is file and self._owner == owner


def notify(file: File, owner: int, fd: int, arg: int) -> None:
    """F_NOTIFY with the events `arg`, in addition to those of before; none: no more at all."""
    found = None
    for mark in fsnotify.marks_of(file.inode):
        if isinstance(mark, DirectoryMark) and mark.is_of(file, owner):
            found = mark
    if not arg & ~DN_MULTISHOT:
        if found is not None:
            fsnotify.remove(found)
        return
    if found is None:
        found = DirectoryMark(file, owner, fd)
        fsnotify.add(found)
    found.want(arg)
