"""Listings on their way: asked for before anybody needs them, and told to the engine when they come.

Who lists one directory after the other waits for the first one only.  The next ones are asked for at once,
some in each message, while the reader goes through that one (see ahead.py for which, and how many).  What
comes stands in `GoferFilesystem.foresight`, and in the engine below the names that it has learnt, with the
files that were opened.
"""

from __future__ import annotations

from gofer.messages import MAX_OPENFILES
from sentry._engine import ffi, lib
from sentry.abi.errors import SysError
from sentry.fs import lent
from sentry.fs.gofer.ahead import Foreseen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.fs.dentry import Path
    from sentry.fs.gofer.filesystem import GoferFilesystem
    from sentry.fs.gofer.inode import GoferInode
    from sentry.fs.gofer.transport import Call

#: Messages under way, and directories in each.
MOST_CALLS, MOST_NAMES = 4, 16


class Coming:
    """Directories called `names`, numbered `inos`, in `above`, which stands at `place`."""

    __slots__ = ("above", "call", "inos", "names", "place")

    def __init__(self, above: GoferInode, place: Path, names: list[bytes], inos: list[int]) -> None:
        self.above = above
        self.place = place
        self.names = names
        self.inos = inos
        self.call: Call | None = None

    def ask(self, files: int) -> None:
        """Send the request; what goes wrong is found again by who really needs it."""
        fs = self.above.fs
        route = self.above.short_route()
        if route is None or len(fs.coming) >= MOST_CALLS:
            return
        try:
            self.call = fs.client.ask_listings(*route, self.names, files)
        except SysError:
            return
        self.call.then = self._came
        fs.coming.append(self)

    def _came(self) -> None:
        fs, call = self.above.fs, self.call
        assert call is not None
        fs.coming.remove(self)
        try:
            listed = fs.client.listings_of(call, len(self.names))
        except SysError:
            return
        came = []
        for name, ino, (_, listing, at, fds) in zip(self.names, self.inos, listed, strict=False):
            if listing is not None:
                foreseen = Foreseen(listing, at, fds)
                fs.foresight.add(ino, foreseen)
                came.append(foreseen)
                self._tell(name, ino, foreseen)
        fs.ahead_lists.came(came)
        fs.files_each = sum(len(fds) for *_, fds in listed) // len(listed)
        if len(listed) < len(self.names) and came:
            left = len(listed)
            Coming(self.above, self.place, self.names[left:], self.inos[left:]).ask(fs.files_ahead())

    def _tell(self, name: bytes, ino: int, foreseen: Foreseen) -> None:
        """Let the engine have it, if it knows the directory."""
        fs, place = self.above.fs, self.place
        data = foreseen.listing.data
        d = lib.dnode_learnt(place.dentry.c, name, len(name))
        if not d or d.vnode.ino != ino or d.listing or not lib.dnode_list(d, data, len(data)):
            return
        foreseen.told = ffi.gc(lib.listing_get(d.listing), lib.listing_put)
        lib.dnode_learn(d, data, len(data), d.vnode.dev, d.vnode.nlink)
        batch = lent.lend(d, place.mount, data, foreseen.at, fs.foresight.files_of(ino))
        if batch is not None:
            fs.ahead.more(batch)


def ask_all(above: GoferInode, place: Path, likely: list[tuple[bytes, int]]) -> None:
    """Ask for the directories `likely` (names and numbers) in `above`, as far as they are not known."""
    fs = above.fs
    asked = {ino for coming in fs.coming for ino in coming.inos}
    wanted = [
        (name, ino)
        for name, ino in likely
        if ino not in fs.foresight and ino not in fs.listed and ino not in asked
    ]
    files = fs.files_ahead()
    most = min(MOST_NAMES, max(1, MAX_OPENFILES // max(1, fs.files_each))) if files else MOST_NAMES
    for first in range(0, len(wanted), most):
        part = wanted[first : first + most]
        Coming(above, place, [name for name, _ in part], [ino for _, ino in part]).ask(files)


async def arrival(fs: GoferFilesystem, ino: int) -> None:
    """Wait for the directory `ino`, if it is on its way."""
    for coming in fs.coming:
        if ino in coming.inos and coming.call is not None:
            await fs.client.arrival(coming.call)
            return
