"""Inodes and files that are generated when they are read; also what sysfs is made of.

A static tree is written down as a dictionary: name → what is there,

    bytes                    a file with these contents, mode 0444
    a function of the kernel a file with what it returns, mode 0444
    Text(mode, make, store)  a file, maybe writable
    Link(target)             a symbolic link
    a dictionary             a directory
    Room(make)               a directory that make(fs, kernel) gives
"""

from __future__ import annotations

import errno

from sentry.abi.errors import SysError
from sentry.abi.fcntl import SEEK_CUR, SEEK_DATA, SEEK_END, SEEK_HOLE, SEEK_SET
from sentry.abi.stat import S_IFDIR, S_IFLNK, S_IFREG
from sentry.fs.dirfile import DirectoryFile
from sentry.fs.file import File
from sentry.fs.inode import CACHE_EXACT, CACHE_NEVER, Inode
from sentry.kernel import wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sentry.fs.dentry import Path
    from sentry.fs.inode import Filesystem
    from sentry.kernel.credentials import Credentials
    from sentry.kernel.ipc.namespace import IpcNamespace
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.task import Task

O_NONCREATION = ~0o2001700  # O_CLOEXEC and what only acts at the time of open(2)
#: Inode numbers: Pid.serial << 24 | what, with THREAD set below task/.
TASK_SHIFT = 24
MAX_WRITE = 65536
#: How far one may seek in what has no size, as most of these files and directories (s_maxbytes); and in what
#: Linux moves about in by default_llseek().
MAX_SIZE, NO_MAX_SIZE = (1 << 31) - 1, (1 << 63) - 1
#: What generated files keep between the reads of those that have them open, all together.
MOST_KEPT = 16 << 20
_kept: dict[GeneratedFile, int] = {}
_kept_size = 0


def current_task() -> Task | None:
    """The task on whose behalf a coroutine runs; None in a kernel job."""
    runner: Any = wait._current
    return runner if hasattr(runner, "group") else None


def current_ipc(kernel: Kernel) -> IpcNamespace:
    """The IPC namespace of whoever asks."""
    task = current_task()
    return kernel.ipc if task is None else task.ipc


def current_cred(kernel: Kernel) -> Credentials:
    """The credentials of whoever asks."""
    return (current_task() or kernel.init.leader).cred


def require_alive(task: Task, error: int = errno.ENOENT) -> None:
    """SysError(error) when `task` has been waited for: who has its directory open finds it empty."""
    if task.pid.task is not task:
        raise SysError(error)


def seek_empty(file: File, offset: int, whence: int, most: int) -> int:
    """lseek(2) in a file of size 0, up to `most`; SysError(EINVAL, ENXIO)."""
    if whence in (SEEK_DATA, SEEK_HOLE):
        raise SysError(errno.ENXIO)
    if whence == SEEK_CUR:
        offset += file.pos
    elif whence not in (SEEK_SET, SEEK_END):
        raise SysError(errno.EINVAL)
    if not 0 <= offset <= most:
        raise SysError(errno.EINVAL)
    file.pos = offset
    return offset


class Text:
    """A generated file: `make(kernel)` gives its contents, `store(kernel, data)` takes a write."""

    __slots__ = ("make", "mode", "privilege", "store", "watch")

    def __init__(
        self, mode: int, make: Any, store: Callable[[Any, bytes], None] | None = None, privilege: int = -1,
        watch: Any = None,
    ) -> None:  # fmt: skip
        self.mode = mode
        #: A capability that, in the caller's own user namespace, makes him the owner.
        self.privilege = privilege
        self.make = make
        self.store = store
        #: A NameWatch that hears of changes (sysdir.py).
        self.watch = watch


class Link:
    """A symbolic link; `target` may be a function without arguments."""

    __slots__ = ("target",)

    def __init__(self, target: bytes | Callable[[], bytes]) -> None:
        self.target = target


class Room:
    """A directory, or a file, of a kind of its own."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[[Any, Any], Inode]) -> None:
        self.make = make


class GeneratedInode(Inode):
    """A regular file whose contents `make()` gives; `store(data)` takes what is written."""

    __slots__ = ("make", "most", "privilege", "store")

    def __init__(
        self, fs: Filesystem, ino: int, mode: int, make: Callable[[], bytes],
        store: Callable[[bytes], None] | None = None, uid: int = 0, gid: int = 0, privilege: int = -1,
    ) -> None:  # fmt: skip
        super().__init__(fs, ino, S_IFREG | mode, uid, gid)
        self.privilege = privilege
        self.make = make
        self.store = store
        #: How far one may seek; 0: there is no SEEK_END (seq_lseek).
        self.most = 0

    def grants(self, cred: Credentials, mask: int) -> bool:
        cap = self.privilege
        return cap >= 0 and cred.own_capable(cap) and not mask & ~(self.mode >> 6) & 7

    async def open(self, path: Path, flags: int, cred: Credentials) -> File:
        return GeneratedFile(self, flags & O_NONCREATION, path)

    async def setattr(self, changes: dict[str, int]) -> None:
        """`echo 1 > file` truncates first; nothing else can be changed."""
        if set(changes) - {"size", "atime", "mtime"}:
            raise SysError(errno.EPERM)


def keep(file: GeneratedFile, data: bytes) -> None:
    """`data` stays with `file` until the next read, or until it is too much: what was kept longest goes, and
    is made anew when somebody reads on."""
    global _kept_size
    forget(file)
    file._data = data
    if data:
        _kept[file] = len(data)
        _kept_size += len(data)
    while _kept_size > MOST_KEPT and len(_kept) > 1:
        forget(next(iter(_kept)))


def forget(file: GeneratedFile) -> None:
    global _kept_size
    file._data = None
    _kept_size -= _kept.pop(file, 0)


class GeneratedFile(File):
    """`make` is its inode's, or what stands for what was there when the file was opened."""

    __slots__ = ("_data", "make")

    def __init__(self, inode: GeneratedInode, flags: int, path: Path | None) -> None:
        super().__init__(inode, flags, path)
        self.make: Callable[..., Any] = inode.make
        self._data: bytes | None = None

    pollable = False
    seekable = True

    def _contents(self, offset: int) -> bytes:
        if self._data is None or offset == 0:
            data: bytes = self.make()
            keep(self, data)
            return data
        return self._data

    def release(self) -> None:
        forget(self)

    async def read(self, size: int) -> bytes:
        piece = self._contents(self.pos)[self.pos : self.pos + size]
        self.pos += len(piece)
        return piece

    async def pread(self, size: int, offset: int) -> bytes:
        return self._contents(offset)[offset : offset + size]

    async def write(self, data: bytes) -> int:
        written = await self.pwrite(data, self.pos)
        self.pos += written
        return written

    async def pwrite(self, data: bytes, offset: int) -> int:
        store = self.inode.store  # type: ignore[attr-defined]
        if store is None:
            raise SysError(errno.EIO)
        if len(data) > MAX_WRITE:
            raise SysError(errno.EINVAL)
        store(bytes(data))
        return len(data)

    async def lseek(self, offset: int, whence: int) -> int:
        most = self.inode.most  # type: ignore[attr-defined]
        if most:
            return seek_empty(self, offset, whence, most)
        if whence == SEEK_CUR:
            offset += self.pos
        elif whence != SEEK_SET:
            raise SysError(errno.EINVAL)
        if not 0 <= offset < 1 << 63:
            raise SysError(errno.EINVAL)
        self.pos = offset
        return offset


class LinkInode(Inode):
    """A symbolic link whose target `target()` gives."""

    __slots__ = ("target",)

    def __init__(
        self,
        fs: Filesystem,
        ino: int,
        target: Callable[[], bytes],
        uid: int = 0,
        gid: int = 0,
        mode: int = 0o777,
    ) -> None:
        super().__init__(fs, ino, S_IFLNK | mode, uid, gid)
        self.target = target

    async def readlink(self) -> bytes:
        return self.target()


class OpenDirectory(DirectoryFile):
    __slots__ = ()

    async def lseek(self, offset: int, whence: int) -> int:
        return seek_empty(self, offset, whence, MAX_SIZE)


class GeneratedDirectory(Inode):
    """A directory that is looked up anew each time; subclasses give `lookup` and `entries`."""

    __slots__ = ()
    caching = CACHE_NEVER

    def __init__(self, fs: Filesystem, ino: int, mode: int = 0o555, uid: int = 0, gid: int = 0) -> None:
        super().__init__(fs, ino, S_IFDIR | mode, uid, gid)
        self.nlink = 2

    async def entries(self, cursor: int, count: int) -> list[tuple[int, int, int, bytes]]:
        """(ino, next cursor, DT_ type, name) of at most `count` entries from `cursor` (2 at first) on."""
        return []

    async def open(self, path: Path, flags: int, cred: Credentials) -> File:
        return OpenDirectory(self, flags & O_NONCREATION, path)

    async def setattr(self, changes: dict[str, int]) -> None:
        """The mode stays, and the rest is as it was when it is looked up the next time (proc_setattr)."""
        if "mode" in changes:
            raise SysError(errno.EPERM)


class StaticDirectory(GeneratedDirectory):
    """A directory of a static tree, which may be a function that makes it when somebody looks; inodes are
    made when they are first looked up."""

    __slots__ = ("_children", "_make_tree", "_names", "_tree", "kernel")
    caching = CACHE_EXACT

    def __init__(
        self, fs: Any, tree: dict[bytes, Any] | Callable[[Kernel], dict[bytes, Any]], kernel: Kernel,
        ino: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(fs, ino or fs.new_ino())
        self.kernel = kernel
        self._children: dict[bytes, Inode] = {}
        self._make_tree = None if isinstance(tree, dict) else tree
        if isinstance(tree, dict):
            self._fill(tree)

    def _fill(self, tree: dict[bytes, Any]) -> None:
        self._tree, self._names = tree, list(tree)
        self.nlink = 2 + sum(1 for node in tree.values() if isinstance(node, dict))

    def look(self) -> None:
        """Let what stands here be known."""
        if self._make_tree is not None:
            make, self._make_tree = self._make_tree, None
            self._fill(make(self.kernel))

    async def refresh(self) -> None:
        self.look()

    async def setattr(self, changes: dict[str, int]) -> None:
        if changes:
            raise SysError(errno.EPERM)

    async def lookup(self, name: bytes) -> Inode:
        return self.child(name)

    def child(self, name: bytes) -> Inode:
        self.look()
        inode = self._children.get(name)
        if inode is None:
            node = self._tree.get(name)
            if node is None:
                raise SysError(errno.ENOENT)
            inode = self._children[name] = self._make(node)
        return inode

    def _make(self, node: Any) -> Inode:
        fs: Any = self.fs
        kernel = self.kernel
        if isinstance(node, dict):
            return self.directory(node)
        if isinstance(node, Room):
            return node.make(fs, kernel)
        if isinstance(node, Link):
            target = node.target
            return LinkInode(fs, fs.new_ino(), (lambda: target) if isinstance(target, bytes) else target)
        if not isinstance(node, Text):
            node = Text(0o444, node)
        make, keep = node.make, node.store
        store = None if keep is None else lambda data: keep(kernel, data)
        produce = (lambda: make) if isinstance(make, bytes) else lambda: make(kernel)
        return self.file(node, produce, store)

    def directory(self, tree: dict[bytes, Any]) -> StaticDirectory:
        return StaticDirectory(self.fs, tree, self.kernel)

    def file(self, node: Text, make: Callable[[], bytes], store: Any) -> GeneratedInode:
        fs: Any = self.fs
        return GeneratedInode(fs, fs.new_ino(), node.mode, make, store, privilege=node.privilege)

    async def entries(self, cursor: int, count: int) -> list[tuple[int, int, int, bytes]]:
        self.look()
        first = cursor - 2
        return [
            (self.child(name).ino, first + i + 3, self.child(name).mode >> 12 & 15, name)
            for i, name in enumerate(self._names[first : first + count])
        ]
