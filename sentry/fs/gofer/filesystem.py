"""One attached tree of the Gofer's: its inodes by number, and what is kept of it for the next one who asks.

Inodes are found again by their qid as long as anybody refers to them (inode.py).  Listings and idle
descriptors are kept up to a limit, those used longest ago go first.
"""

from __future__ import annotations

from _weakref import ref

from sentry.abi.stat import S_IFMT
from sentry.fs import dcache
from sentry.fs.gofer.ahead import DEPTH, Ahead, Foresight
from sentry.fs.gofer.coming import Coming
from sentry.fs.gofer.inode import GoferInode, SharedInode
from sentry.fs.inode import Filesystem, Inode
from sentry.fs.mutex import Mutex

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from gofer.messages import Attr, Listing
    from sentry.fs.gofer.client import Client

V9FS_MAGIC = 0x01021997
#: How many idle host descriptors are kept for the next open.
RECENT_HANDLES = 64
#: How many inodes (each a fid, for which the server keeps a descriptor) make unused ones go.
MANY_INODES = 3072
#: From how many files on those are opened that are in a directory when it is listed.
AHEAD_SURE = 8
#: How much of what directories hold is kept, over all of a tree: up to a kilobyte a name.
LISTED_NAMES, LISTED_DIRECTORIES = 8192, 1024


class GoferFilesystem(Filesystem):
    """One attached tree.  `root_fid` passes to it."""

    type_name = b"9p"
    magic = V9FS_MAGIC

    def __init__(
        self, client: Client, root_fid: int, root_attr: Attr, exclusive: bool = True, fixed: bool = False
    ) -> None:
        super().__init__()
        self.client = client
        self.exclusive = exclusive
        self.fixed = fixed and exclusive and client.extended
        #: Directories (by number) that were listed, oldest first, and how many names of each are kept.
        self.listed: dict[int, int] = {}
        self._listed_names = 0
        self.ahead, self.ahead_lists = Ahead(), Ahead(DEPTH)
        self.foresight = Foresight()
        #: Beside the directory that is being listed: what will be listed next, names and numbers.
        self.likely: tuple[GoferInode, list[tuple[bytes, int]]] | None = None
        self.coming: list[Coming] = []
        #: How many files a directory had lately.
        self.files_each = 0
        self.lock = Mutex()
        self._inodes: dict[int, ref[GoferInode]] = {}
        self._shrink_at = MANY_INODES
        #: (inode, access mode) of idle and busy handles, used longest ago first.
        self.recent: dict[tuple[GoferInode, int], None] = {}
        self.root = self.adopt(root_fid, root_attr)

    def adopt(self, fid: int, attr: Attr) -> GoferInode:
        """The inode of `fid`: a known one (the fid is clunked) or a new one (which keeps the fid).

        Without a fid (-1) a new one needs a `place`.
        """
        key = attr.qid.path
        known = self._inodes.get(key)
        inode = None if known is None else known()
        if inode is not None and inode.mode & S_IFMT == attr.mode & S_IFMT:
            if fid >= 0 and inode.fid < 0:
                inode.fid = fid
            else:
                self.client.clunk(fid)
            if not self.exclusive:
                inode.take(attr)
            return inode
        inode = (GoferInode if self.exclusive else SharedInode)(self, fid, attr)
        self._inodes[key] = ref(inode)
        if len(self._inodes) > self._shrink_at:
            dcache.shrink()
            self._shrink_at = max(MANY_INODES, len(self._inodes) + 256)
        return inode

    def gone(self, inode: GoferInode) -> None:
        """`inode` is being freed."""
        known = self._inodes.get(inode.ino)
        if known is not None and known() in (None, inode):
            del self._inodes[inode.ino]
            self._listed_names -= self.listed.pop(inode.ino, 0)
        self.client.clunk(inode.fid)

    def files_ahead(self) -> int:
        """How many files of a directory are to be opened when it is listed."""
        return self.ahead.start if self.ahead.start >= AHEAD_SURE else 0

    def known_of(self, directory: Inode) -> Iterable[bytes]:
        assert isinstance(directory, GoferInode)
        inodes, listing = self._inodes, directory.listing
        return () if listing is None else [name for ino, _, name in listing.brief if ino in inodes]

    def keep_listing(self, inode: GoferInode, listing: Listing | None) -> None:
        """Remember what is in a directory, or that it is too much; old listings go when they are many."""
        count = 0 if listing is None else len(listing.brief)
        self._listed_names += count - self.listed.pop(inode.ino, 0)
        inode.listing = listing
        self.listed[inode.ino] = count
        while self._listed_names > LISTED_NAMES or len(self.listed) > LISTED_DIRECTORIES:
            ino = next(iter(self.listed))
            self._listed_names -= self.listed.pop(ino)
            known = self._inodes.get(ino)
            old = None if known is None else known()
            if old is not None:
                old.listing = old.order = old.below = old.opened = None

    def keep_handle(self, inode: GoferInode, access: int) -> None:
        """`inode.handles[access]` was used just now; the one unused for longest goes when they are many."""
        recent = self.recent
        recent.pop((inode, access), None)
        recent[inode, access] = None
        if len(recent) > RECENT_HANDLES:
            old, mode = next(iter(recent))
            del recent[old, mode]
            old.handles.pop(mode, None)

    def drop_handles(self, inode: GoferInode) -> None:
        for access in list(inode.handles):
            self.recent.pop((inode, access), None)
        inode.handles.clear()

    async def statfs(self) -> tuple[int, int, int, int, int, int]:
        reply = await self.client.statfs(self.root.fid)
        return (
            reply.bsize,
            reply.blocks,
            reply.bfree,
            reply.bavail,
            reply.files,
            reply.ffree,
        )
