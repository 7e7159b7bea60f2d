"""The Gofer's tree as a file system: inodes over fids (client.py has the wire).

An inode holds one fid from its first lookup until nobody refers to it, and is found again by its
qid, so hard links are one inode here too.  `exclusive` trees are changed by nobody but us: attributes
and names are asked for once.  Shared ones (binds) are asked again at each look.  A `fixed` tree (below
an overlay) is changed by nobody at all: what a listing of a directory tells about its files is believed
for as long as it is kept, and an inode that comes from there gets its fid when it first needs one.

No operation here leaves a fid behind when it fails: either an inode owns it or it is clunked.
"""

from __future__ import annotations

import errno
import os

from gofer.messages import (
    MAX_WALK,
    SETATTR_ATIME,
    SETATTR_ATIME_SET,
    SETATTR_GID,
    SETATTR_MODE,
    SETATTR_MTIME,
    SETATTR_MTIME_SET,
    SETATTR_SIZE,
    SETATTR_UID,
    Listing,
    ProtocolError,
    make_attr,
)
from sentry.abi.errors import SysError
from sentry.abi.fcntl import AT_REMOVEDIR, O_ACCMODE, O_DIRECTORY, RENAME_EXCHANGE
from sentry.abi.stat import DT_DIR, DT_REG, S_IFDIR, S_IFMT, S_IFREG, major, minor
from sentry.fs import dcache, lent
from sentry.fs.dentry import Path
from sentry.fs.gofer.ahead import Foreseen, Order
from sentry.fs.gofer.coming import arrival, ask_all
from sentry.fs.gofer.file import Handle, HostFile, SnapshotDirectory
from sentry.fs.gofer.walking import EARLY_BYTES, EARLY_SIZE, WALKS, foresee
from sentry.fs.inode import CACHE_REVALIDATE, CHANGED, LIVE, Inode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gofer.messages import Attr
    from sentry.fs.file import File
    from sentry.fs.gofer.filesystem import GoferFilesystem
    from sentry.kernel.credentials import Credentials

#: What attributes can be at most: a server may say anything.
_MAX32, _MAX64 = 0x7FFF_FFFF, 0x7FFF_FFFF_FFFF_FFFF
_SETATTR = {
    "mode": SETATTR_MODE,
    "uid": SETATTR_UID,
    "gid": SETATTR_GID,
    "size": SETATTR_SIZE,
    "atime": SETATTR_ATIME | SETATTR_ATIME_SET,
    "mtime": SETATTR_MTIME | SETATTR_MTIME_SET,
}


class GoferInode(Inode):
    """`c.flags` has LIVE while the attributes are true, CHANGED since the file was written to last: whoever
    writes to it (the engine, too) takes the first and sets the second."""

    __slots__ = (
        "__weakref__",
        "below",
        "fid",
        "handles",
        "listing",
        "names",
        "opened",
        "order",
        "place",
        "target",
        "walked",
        "walks",
    )
    fs: GoferFilesystem
    fixed_link = True
    #: The attributes of a LIVE file need not be asked for again.
    _trusted = LIVE

    def __init__(self, fs: GoferFilesystem, fid: int, attr: Attr) -> None:
        super().__init__(fs, attr.qid.path, attr.mode)
        #: -1: none yet, see `named`.
        self.fid = fid
        #: Directory and name, in a fixed tree.
        self.place: tuple[GoferInode, bytes] | None = None
        #: All that is in this directory, where that is known.
        self.listing: Listing | None = None
        #: Which of its files are likely to be opened next.
        self.order: Order | None = None
        self.below: Order | None = None
        #: How many names were asked for one by one.
        self.walks = 0
        #: One that came with a longer walk and will be looked up now (None: there is no such file).
        self.walked: tuple[bytes, GoferInode | None] | None = None
        #: Files that came along with the listing, until they are lent.
        self.opened: Foreseen | None = None
        #: Access mode → host descriptor.
        self.handles: dict[int, Handle] = {}
        #: Names of the extended attributes, once asked; the target of a symbolic link, once asked.
        self.names: list[bytes] | None = None
        self.target: bytes | None = None
        self.take(attr)

    def __del__(self) -> None:
        self.fs.gone(self)

    def take(self, attr: Attr) -> None:
        """Copy what getattr told."""
        c = self.c
        c.mode = attr.mode
        c.uid, c.gid, c.nlink, c.rdev = attr.uid, attr.gid, attr.nlink, attr.rdev
        c.size, c.blocks = min(attr.size, _MAX64), min(attr.blocks, _MAX64)
        c.blksize = min(attr.blksize, _MAX32)
        self.atime, self.mtime, self.ctime = attr.atime, attr.mtime, attr.ctime
        self.btime = min(attr.mtime, attr.ctime)
        c.flags = self._trusted

    async def named(self) -> int:
        """The fid."""
        if self.fid < 0:
            assert self.place is not None
            above, name = self.place
            fid, attr = await above._walk(name)
            if self.fid >= 0:
                self.fs.client.clunk(fid)
            else:
                self._same(fid, attr)
        return self.fid

    def _same(self, fid: int, attr: Attr) -> None:
        """Take `fid`, which was found where this file was; SysError(ESTALE) if it is another one."""
        if attr.qid.path != self.ino or attr.mode & S_IFMT != self.mode & S_IFMT:
            self.fs.client.clunk(fid)
            raise SysError(errno.ESTALE)
        self.fid = fid

    async def refresh(self) -> None:
        if not self.c.flags & LIVE:
            await self._reload()

    async def _reload(self) -> None:
        c = self.c
        c.flags = 0
        attr = await self.fs.client.getattr(await self.named())
        changed = c.flags & CHANGED
        self.take(attr)
        if changed:
            c.flags = CHANGED

    def outdated(self) -> None:
        """The file was written to: its attributes have to be asked for again."""
        self.c.flags = CHANGED

    async def foresee(self, names: list[bytes], opening: bool) -> None:
        await foresee(self, names, opening)

    async def lookup(self, name: bytes) -> Inode:
        inode = self.lookup_now(name)
        if inode is None and self.fs.fixed and await self._list_early():
            inode = self.lookup_now(name)
        return inode or self.fs.adopt(*await self._walk(name))

    async def _list_early(self) -> bool:
        """Whether there is a listing now: a small directory in which names are looked up again and again
        had better be listed than asked for one after the other."""
        if self.listing is not None or self.mode & S_IFMT != S_IFDIR:
            return False
        self.walks += 1
        if self.walks != WALKS or self.size > EARLY_SIZE or self.ino in self.fs.listed:
            return False
        ((_, listing, _, _),) = await self.fs.client.list_dirs(*await self.route(), size=EARLY_BYTES)
        if listing is not None and self.listing is None:
            self.fs.keep_listing(self, listing)
        return self.listing is not None

    def listing_data(self) -> bytes | None:
        return None if self.listing is None else self.listing.data

    def lookup_now(self, name: bytes) -> GoferInode | None:
        """`lookup` where a listing or a longer walk has told all; None: ask.  SysError(ENOENT)."""
        walked, self.walked = self.walked, None
        if walked is not None and walked[0] == name:
            if walked[1] is None:
                raise SysError(errno.ENOENT)
            return walked[1]
        listing = self._look_ahead()
        if listing is None:
            return None
        try:
            attr = listing.attr(name)
        except KeyError:
            raise SysError(errno.ENOENT) from None
        except ProtocolError:
            return None
        if attr is None:
            return None
        return self._listed(name, attr)

    def _listed(self, name: bytes, attr: Attr) -> GoferInode:
        inode = self.fs.adopt(-1, attr)
        if inode.fid < 0 and inode.place is None:
            inode.place = self, name
        return inode

    async def _walk(self, name: bytes) -> tuple[int, Attr]:
        """Ask for the entry `name`: (its fid, its attributes)."""
        client = self.fs.client
        if self.mode & S_IFMT != S_IFDIR:
            raise SysError(errno.ENOTDIR)
        above, path = await self.route()
        names = [*path, name]
        fid, attrs, error = await client.walkgetattr(above, names)
        if error == errno.EMFILE:
            # The server holds a descriptor for each of our inodes: let go of what nobody uses.
            dcache.shrink()
            fid, attrs, error = await client.walkgetattr(above, names)
        if fid is None:
            raise SysError(error or errno.EIO)
        return fid, attrs[-1]

    async def route(self) -> tuple[int, list[bytes]]:
        """A fid, and the names that lead from there to this directory."""
        return self.short_route() or (await self.named(), [])

    def short_route(self) -> tuple[int, list[bytes]] | None:
        """The same without asking for anything; None: it is too long."""
        names: list[bytes] = []
        inode = self
        while inode.fid < 0 and inode.place is not None:
            inode, name = inode.place
            names.append(name)
        names.reverse()
        return (inode.fid, names) if len(names) < MAX_WALK else None

    async def _list(self) -> Listing | None:
        """All that is in this directory of a fixed tree; None: that is too much for one message.

        Of directories that will be listed next the same is asked for.
        """
        fs = self.fs
        if self.listing is not None or self.ino in fs.listed:
            return self.listing
        foreseen = fs.foresight.take(self.ino)
        if foreseen is None:
            await arrival(fs, self.ino)
            foreseen = fs.foresight.take(self.ino) or await self._ask_listing()
            if self.listing is not None:
                return self.listing
        if foreseen is None:
            fs.keep_listing(self, None)
            return None
        foreseen.used = True
        fs.keep_listing(self, foreseen.listing)
        if foreseen.files:
            self.opened = foreseen
        return foreseen.listing

    def _look_ahead(self) -> Listing | None:
        """What is known to be in this directory, though it may be that only the engine has listed it."""
        if self.listing is None and self.ino in self.fs.foresight:
            foreseen = self.fs.foresight.take(self.ino)
            assert foreseen is not None
            self.fs.keep_listing(self, foreseen.listing)
        return self.listing

    async def _ask_listing(self) -> Foreseen | None:
        fs, client = self.fs, self.fs.client
        above, name = self.place or (None, b"")
        listing = None if above is None else above._look_ahead()
        if above is not None and listing is not None:
            if above.below is None:
                above.below = Order(listing, DT_DIR)
            likely = above.below.after(name, fs.ahead_lists)
            fs.likely = above, [(other, listing.ino(other)) for other in likely]
        ((error, found, *opened),) = await client.list_dirs(*await self.route(), files=fs.files_ahead())
        if error in (errno.EMFILE, errno.ENFILE):
            dcache.shrink()
        elif error:
            raise SysError(error)
        return None if found is None else Foreseen(found, *opened)

    def lend(self, place: Path) -> None:
        """The engine has learnt what is in this directory, at `place`: lend it the files that came along."""
        opened, self.opened = self.opened, None
        if opened is None:
            return
        files, opened.files = opened.files, ()
        listing = opened.listing
        batch = lent.lend(place.dentry.c, place.mount, listing.data, opened.at, files)
        if self.order is None:
            self.order = Order(listing, DT_REG)
            self.order.came(len(files), self.fs.ahead)
            self.fs.ahead.came([] if batch is None else [batch])

    def foretell(self, place: Path) -> None:
        likely, self.fs.likely = self.fs.likely, None
        dentry, mount = place.dentry, place.mount
        if likely is None or self.place is None or likely[0] is not self.place[0]:
            return
        if dentry.parent is not None and dentry is not mount.root:
            ask_all(likely[0], Path(mount, dentry.parent), likely[1])

    async def _made(self, name: bytes, uid: int, gid: int) -> Inode:
        """What was just created as `name`, owned as far as the server may."""
        inode = await self.lookup(name)
        await self._reload()
        if (inode.uid, inode.gid) != (uid, gid):
            try:
                await inode.setattr({"uid": uid, "gid": gid})
            except SysError as error:
                if error.errno != errno.EPERM:
                    raise
        return inode

    async def create(self, name: bytes, mode: int, uid: int, gid: int) -> Inode:
        fid, fd, attr = await self.fs.client.create_fd(self.fid, name, os.O_RDWR, mode, uid, gid)
        if fd is None:
            # A plain server: the fid is open, and an inode needs one that isn't.
            self.fs.client.clunk(fid)
            return await self._made(name, uid, gid)
        inode = self.fs.adopt(fid, attr)
        if inode.fid == fid:
            inode.handles[os.O_RDWR] = Handle(self.fs.client, fd)
            self.fs.keep_handle(inode, os.O_RDWR)
        else:
            os.close(fd)
        await self._reload()
        return inode

    async def mkdir(self, name: bytes, mode: int, uid: int, gid: int) -> Inode:
        await self.fs.client.mkdir(self.fid, name, mode, gid)
        return await self._made(name, uid, gid)

    async def mknod(self, name: bytes, mode: int, rdev: int, uid: int, gid: int) -> Inode:
        await self.fs.client.mknod(self.fid, name, mode, major(rdev), minor(rdev), gid)
        return await self._made(name, uid, gid)

    async def symlink(self, name: bytes, target: bytes, uid: int, gid: int) -> Inode:
        await self.fs.client.symlink(self.fid, name, target, gid)
        return await self._made(name, uid, gid)

    async def link(self, name: bytes, inode: Inode) -> None:
        assert isinstance(inode, GoferInode)
        await self.fs.client.link(self.fid, inode.fid, name)
        await inode._reload()
        await self._reload()

    async def unlink(self, name: bytes) -> None:
        inode = await self.lookup(name)
        await self.fs.client.unlinkat(self.fid, name)
        assert isinstance(inode, GoferInode)
        inode.nlink = max(0, inode.nlink - 1)
        if not inode.nlink:
            self.fs.drop_handles(inode)
        await self._reload()

    async def rmdir(self, name: bytes) -> None:
        inode = await self.lookup(name)
        await self.fs.client.unlinkat(self.fid, name, AT_REMOVEDIR)
        inode.nlink = 0
        await self._reload()

    async def rename(self, name: bytes, new_dir: Inode, new_name: bytes, flags: int) -> None:
        assert isinstance(new_dir, GoferInode)
        if flags & RENAME_EXCHANGE:
            raise SysError(errno.EINVAL)
        await self.fs.client.renameat(self.fid, name, new_dir.fid, new_name)
        await self._reload()
        if new_dir is not self:
            await new_dir._reload()

    async def setattr(self, changes: dict[str, int]) -> None:
        valid = 0
        for key in changes:
            valid |= _SETATTR[key]
        await self.fs.client.setattr(self.fid, valid, **changes)
        await self._reload()

    async def readlink(self) -> bytes:
        target = self.target
        if target is None:
            target = await self.fs.client.readlink(await self.named())
            if self.fs.exclusive:
                self.target = target
        return target

    async def snapshot(self) -> list[tuple[int, int, bytes]]:
        if self.fs.fixed:
            known = await self._list()
            if known is not None:
                return known.brief
        client = self.fs.client
        fid, _ = await client.walk(await self.named(), ())
        listing: list[tuple[int, int, bytes]] = []
        try:
            await client.open_fd(fid, os.O_RDONLY | O_DIRECTORY)
            offset = 0
            while True:
                entries = await client.readdir(fid, offset)
                if not entries:
                    return listing
                for qid, after, kind, name in entries:
                    if name not in (b".", b".."):
                        listing.append((qid.path, kind, name))
                    offset = after
        finally:
            client.clunk(fid)

    async def handle(self, access: int, path: Path | None = None) -> Handle:
        """The host descriptor for O_RDONLY, O_WRONLY or O_RDWR; `path`: what is opened, if anything is."""
        handle = self.handles.get(access)
        if handle is None:
            client = self.fs.client
            if self.fid < 0 and self.place is not None and access == os.O_RDONLY:
                opened = await self._open_by_name(*self.place, path)
                if opened >= 0:
                    handle = self.handles.setdefault(access, Handle(client, opened))
                    self.fs.keep_handle(self, access)
                    return handle
            fid = await self.named()
            if client.extended:
                fd, _, _ = await client.open_fd(fid, access)
            else:
                fid, _ = await client.walk(fid, ())
                try:
                    fd, _, _ = await client.open_fd(fid, access)
                except SysError:
                    client.clunk(fid)
                    raise
            if fd is None:
                return Handle(client, -1, fid if fid != self.fid else -1)
            handle = self.handles.setdefault(access, Handle(client, fd))
        self.fs.keep_handle(self, access)
        return handle

    async def _open_by_name(self, above: GoferInode, name: bytes, path: Path | None) -> int:
        """Open a regular file of a fixed tree for reading without a fid of its own; -1: it takes one.

        Files that will be opened next come along, and are lent to the engine.
        """
        listing, place = above._look_ahead(), None
        names = [name]
        if listing is not None and path is not None and path.dentry.parent is not None:
            directory = path.dentry.parent
            place = path
            if above.order is None:
                above.order = Order(listing, DT_REG)
            names += [
                other for other in above.order.after(name, self.fs.ahead) if lent.free(directory, other)
            ]
        first, *fds = await self.fs.client.open_files(*await above.route(), names)
        if listing is not None and place is not None and fds:
            at = [listing.at[other] for other in names[1:]]
            batch = lent.lend(directory.c, place.mount, listing.data, at, fds)
            self.fs.ahead.came([] if batch is None else [batch])
        if first in (-errno.EMFILE, -errno.ENFILE):
            dcache.shrink()
        elif first < 0 and first != -errno.EXDEV:
            raise SysError(-first)
        return max(first, -1)

    def learnt(self, name: bytes, c: Any) -> Inode:
        times = c.atime, c.mtime, c.ctime
        attr = make_attr(
            c.ino, c.mode, c.uid, c.gid, c.nlink, c.rdev, c.size, c.blksize, c.blocks, *times
        )  # fmt: skip
        return self._listed(name, attr)

    async def open(self, path: Path, flags: int, cred: Credentials) -> File:
        kind = self.mode & S_IFMT
        if kind == S_IFDIR:
            return SnapshotDirectory(self, flags, path)
        if kind != S_IFREG:
            return await super().open(path, flags, cred)
        return HostFile(self, flags, path, await self.handle(flags & O_ACCMODE, path))

    async def listxattr(self) -> list[bytes]:
        names = self.names
        if names is None:
            names = await self.fs.client.xattr_list(await self.named())
            if self.fs.exclusive:
                self.names = names
        return names

    async def getxattr(self, name: bytes) -> bytes:
        if not name.startswith((b"user.", b"trusted.", b"security.")):
            raise SysError(errno.EOPNOTSUPP)
        if self.fs.exclusive and name not in await self.listxattr():
            raise SysError(errno.ENODATA)
        return await self.fs.client.xattr_get(await self.named(), name)

    async def setxattr(self, name: bytes, value: bytes, flags: int) -> None:
        self.names = None
        await self.fs.client.xattr_set(await self.named(), name, value, flags)

    async def removexattr(self, name: bytes) -> None:
        self.names = None
        await self.fs.client.xattr_remove(await self.named(), name)


class SharedInode(GoferInode):
    """An inode of a tree that others change too: it is never LIVE."""

    __slots__ = ()
    caching = CACHE_REVALIDATE
    fixed_link = False
    _trusted = 0
