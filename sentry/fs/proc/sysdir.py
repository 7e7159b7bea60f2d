"""What /proc/sys is made of.  Capabilities override no mode here (proc_sys_permission); every file can be
polled, and some tell of changes so."""

from __future__ import annotations

from sentry.abi.poll import POLLERR, POLLIN, POLLOUT, POLLPRI, POLLRDNORM, POLLWRNORM
from sentry.fs.proc.base import (
    NO_MAX_SIZE,
    O_NONCREATION,
    GeneratedFile,
    GeneratedInode,
    StaticDirectory,
    Text,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sentry.fs.dentry import Path
    from sentry.fs.file import File
    from sentry.kernel.credentials import Credentials
    from sentry.kernel.namespaces import NameWatch

_ALWAYS = POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM


class SysctlFile(GeneratedFile):
    __slots__ = ()
    pollable = True


class WatchedFile(SysctlFile):
    """Ready for POLLPRI, once, after each change (proc_sys_poll)."""

    __slots__ = ("_seen", "_watch")

    def __init__(self, inode: GeneratedInode, flags: int, path: Path, watch: NameWatch) -> None:
        super().__init__(inode, flags, path)
        self._watch, self._seen = watch, watch.changes
        self.queue = watch.queue

    def poll(self) -> int:
        if self._seen == self._watch.changes:
            return _ALWAYS
        self._seen = self._watch.changes
        return POLLIN | POLLRDNORM | POLLERR | POLLPRI


class SysctlInode(GeneratedInode):
    __slots__ = ("watch",)
    watch: NameWatch | None
    strict = True

    async def open(self, path: Path, flags: int, cred: Credentials) -> File:
        flags &= O_NONCREATION
        if self.watch is None:
            return SysctlFile(self, flags, path)
        return WatchedFile(self, flags, path, self.watch)


class SysctlDirectory(StaticDirectory):
    __slots__ = ()
    strict = True

    def directory(self, tree: dict[bytes, Any]) -> SysctlDirectory:
        return SysctlDirectory(self.fs, tree, self.kernel)

    def file(self, node: Text, make: Callable[[], bytes], store: Any) -> SysctlInode:
        fs: Any = self.fs
        inode = SysctlInode(fs, fs.new_ino(), node.mode, make, store, privilege=node.privilege)
        inode.watch = node.watch
        inode.most = NO_MAX_SIZE
        return inode
