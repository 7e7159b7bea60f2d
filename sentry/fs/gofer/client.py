"""The 9P client: the Gofer's file operations as coroutines.

One method a request; transport.py sends and waits.  Errors are SysError with the server's errno, or
EIO once the server is gone.  A fid is a number that stays valid until it is clunked; whoever got it
from a call clunks it.

Works with any 9P2000.L server; what `9P2000.L.sentry` adds (`extended`) is emulated or done without.
Descriptors that come from the server are checked: regular files, open in the way asked for.
"""

from __future__ import annotations

import errno
import os
from _stat import S_ISREG
from fcntl import F_GETFL, fcntl

from gofer import messages as m
from gofer.messages import Attr, Message, ProtocolError, Qid
from sentry._engine import ffi, lib
from sentry.abi.errors import SysError
from sentry.abi.fcntl import XATTR_REPLACE, XATTR_SIZE_MAX
from sentry.fs.gofer.transport import DROPPED, Call, Transport, errno_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from typing import Any, TypeVar

    T = TypeVar("T")

MSIZE = 128 * 1024 + m.IOHDRSZ
#: While there is no event loop yet (`Client.run`).
START_UP_MS = 10_000


def _checked(fds: list[int]) -> list[int]:
    """`fds`, with minus errno for each that did not come, or is no regular file that is open for reading."""
    if not fds:
        return fds
    array = ffi.new("int32_t[]", fds)
    lib.lent_check(array, len(fds))
    return [-errno.ENFILE if fd == DROPPED else fd for fd in array]


class Client(Transport):
    """File operations.  `Client(sock_fd, poller, on_death)`; poller and on_death may be None."""

    #: Whether the server speaks 9P2000.L.sentry.
    extended = False

    def run(self, coro: Coroutine[Any, Any, T]) -> T:
        """Run one call to its end without an event loop, at start-up.  SysError(ETIMEDOUT)."""
        patience, self._patience = self._patience, START_UP_MS
        try:
            coro.send(None)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            self._patience = patience
        coro.close()
        raise SysError(errno.ETIMEDOUT)

    async def start(self, extension: bool = True, msize: int = MSIZE) -> None:
        """Negotiate the version; the first call on a connection.  SysError(EPROTONOSUPPORT)."""
        version = m.VERSION_SENTRY if extension else m.VERSION_L
        try:
            reply = await self._call(m.Tversion(msize, version), tag=m.NOTAG)
        except SysError:
            if self.dead or not extension:
                raise
            # diod calls a version that it doesn't know an error.
            return await self.start(False, msize)
        if reply.version not in (version, m.VERSION_L) or not m.MIN_MSIZE <= reply.msize <= msize:
            raise SysError(errno.EPROTONOSUPPORT)
        self.msize = reply.msize
        self.extended = reply.version == m.VERSION_SENTRY

    # Fids.

    def _new_fid(self) -> int:
        if self._free_fids:
            return self._free_fids.pop()
        self._next_fid += 1
        return self._next_fid - 1

    async def _with_fid(self, make: Callable[[int], Message]) -> tuple[int, Message]:
        """Do a request that makes a new fid: (fid, reply).  A failed request makes none."""
        fid = self._new_fid()
        try:
            return fid, await self._call(make(fid))
        except SysError:
            self._free_fids.append(fid)
            raise

    async def attach(
        self, aname: bytes = b"", uname: bytes = b"root", uid: int = m.NONUNAME
    ) -> tuple[int, Qid]:
        """(fid, qid) of an export's root.  SysError(ENOENT)."""
        fid, reply = await self._with_fid(lambda fid: m.Tattach(fid, m.NOFID, uname, aname, uid))
        return fid, reply.qid

    async def walk(self, fid: int, names: Sequence[bytes]) -> tuple[int, tuple[Qid, ...]]:
        """Walk up to 16 names, all or nothing: (new fid, qids).  No names: clone `fid`."""
        new, reply = await self._with_fid(lambda new: m.Twalk(fid, new, names))
        if len(reply.qids) != len(names):
            self._free_fids.append(new)
            if len(reply.qids) > len(names):
                self._die()
                raise SysError(errno.EIO)
            # A partial walk does not say why it stopped: behind a directory, something was not there.
            stopped_at = reply.qids[-1] if reply.qids else None
            missing = stopped_at is None or stopped_at.type & m.QTDIR
            raise SysError(errno.ENOENT if missing else errno.ENOTDIR)
        return new, reply.qids

    async def walkgetattr(self, fid: int, names: Sequence[bytes]) -> tuple[int | None, list[Attr], int]:
        """Walk up to 16 names: (new fid, attributes of each component reached, 0).

        When a component can't be reached, (None, attributes of those before it, errno); also when it is the
        first.  Symlinks are not followed: behind one the walk stops with ENOTDIR.  No names: clone `fid`,
        and its own attributes.
        """
        if not self.extended:
            return await self._walkgetattr_plain(fid, names)
        new = self._new_fid()
        try:
            reply = await self._call(m.Twalkgetattr(fid, new, names))
        except SysError as exc:
            self._free_fids.append(new)
            if self.dead or not names:
                raise
            return None, [], exc.errno
        complete = reply.ecode == 0
        if complete != (len(reply.attrs) == max(len(names), 1)) or len(reply.attrs) > max(len(names), 1):
            self._die()
            raise SysError(errno.EIO)
        if complete:
            return new, list(reply.attrs), 0
        self._free_fids.append(new)
        return None, list(reply.attrs), errno_of(reply.ecode)

    async def look(
        self, fid: int, names: Sequence[bytes], opening: bool
    ) -> tuple[int | None, list[Attr], int, bytes, int]:
        """`walkgetattr` of at least one name, and more: the target of the symbolic link that was reached last
        or b""; with `opening`, a descriptor of the regular file that all names lead to, or -1."""
        if not self.extended:
            return *await self._walkgetattr_plain(fid, names), b"", -1
        new = self._new_fid()
        try:
            call = await self._answered(self._submit(m.Tlook(fid, new, names, opening)))
        except SysError as exc:
            self._free_fids.append(new)
            if self.dead:
                raise
            return None, [], exc.errno, b"", -1
        reply = call.reply
        assert reply is not None
        complete, reached = reply.ecode == 0, len(reply.attrs)
        if complete != (reached == len(names)) or reached > len(names) or reply.fds > opening:
            self._give_up(call.fds)
            raise SysError(errno.EIO)
        fd = call.fds[0] if call.fds else -1
        if complete:
            return new, list(reply.attrs), 0, reply.target, fd
        self._free_fids.append(new)
        if fd >= 0:
            os.close(fd)
        return None, list(reply.attrs), errno_of(reply.ecode), reply.target, -1

    async def list_dirs(
        self,
        fid: int,
        path: Sequence[bytes],
        names: Sequence[bytes] = (),
        size: int = m.MAX_MSIZE,
        files: int = 0,
    ) -> list[tuple[int, m.Listing | None, list[int], list[int]]]:
        """List the directories `names` in the one that `path` leads to from `fid`, or that one itself.

        Of each: errno, listing, and of opened files the offsets in its data, and descriptors or minus errno;
        0 and no listing: it is too large for `size` bytes.  There may be fewer than names, but not none.
        Only for an `extended` server, as `open_files`.
        """
        size = min(size, self.msize - m.IOHDRSZ)
        call = await self._answered(self._submit(m.Tlistdirs(fid, path, names, size, files)))
        return self.listings_of(call, max(1, len(names)))

    def ask_listings(self, fid: int, path: Sequence[bytes], names: Sequence[bytes], files: int) -> Call:
        """Send the request of `list_dirs`; its result is `listings_of` the call once it is done."""
        return self._submit(m.Tlistdirs(fid, path, names, self.msize - m.IOHDRSZ, files))

    def listings_of(self, call: Call, most: int) -> list[tuple[int, m.Listing | None, list[int], list[int]]]:
        if call.reply is None:
            raise SysError(errno.EIO)
        if call.reply.__class__ is m.Rlerror:
            raise SysError(errno_of(call.reply.ecode))
        fds = _checked(call.fds)
        try:
            directories = m.decode_directories(call.reply.data)
            count = len(directories)
            if not 1 <= count <= most or sum(len(d[2]) for d in directories) != len(fds):
                raise ProtocolError("wrong number of directories or files")
        except ProtocolError:
            self._give_up(fds)
            raise SysError(errno.EIO) from None
        result: list[tuple[int, m.Listing | None, list[int], list[int]]] = []
        done = 0
        for error, listing, indices in directories:
            at = [] if listing is None else [listing.at[listing.brief[index][2]] for index in indices]
            result.append((errno_of(error) if error else 0, listing, at, fds[done : done + len(at)]))
            done += len(at)
        return result

    async def open_files(self, fid: int, path: Sequence[bytes], names: Sequence[bytes]) -> list[int]:
        """Open regular files of the directory that `path` leads to from `fid` for reading: a descriptor or
        minus errno for each.

        At most MAX_OPENFILES names.  -EXDEV: it has to be opened by its own fid.
        """
        call = await self._answered(self._submit(m.Topenfiles(fid, path, names)))
        assert call.reply is not None
        fds, errors = _checked(call.fds), memoryview(call.reply.errors)
        if len(errors) == 4 * len(names):
            codes = errors.cast("I")
            if sum(not code for code in codes) == len(fds):
                each = iter(fds)
                return [next(each) if not code else -errno_of(code) for code in codes]
        self._give_up(fds)
        raise SysError(errno.EIO)

    def _give_up(self, fds: Sequence[int]) -> None:
        """The server breaks the protocol."""
        self._die()
        for fd in fds:
            if fd >= 0:
                os.close(fd)

    async def _walkgetattr_plain(
        self, fid: int, names: Sequence[bytes]
    ) -> tuple[int | None, list[Attr], int]:
        at, _ = await self.walk(fid, ())
        attrs: list[Attr] = []
        try:
            for name in names:
                below, _ = await self.walk(at, (name,))
                self.clunk(at)
                at = below
                attrs.append(await self.getattr(at))
            if not names:
                attrs.append(await self.getattr(at))
        except SysError as exc:
            self.clunk(at)
            return None, attrs, exc.errno
        return at, attrs, 0

    def clunk(self, fid: int) -> None:
        """Forget a fid.  Nobody waits for the answer; the number is used again only after it."""
        if self.dead or fid < 0:
            return
        try:
            self._submit(m.Tclunk(fid)).clunks = fid
        except SysError:
            pass  # no tag left: the server keeps a fid too many, which nobody names again

    async def clunk_wait(self, fid: int) -> None:
        """Forget a fid and hear how it went (an xattr is set only then)."""
        try:
            await self._call(m.Tclunk(fid))
        finally:
            if not self.dead:
                self._free_fids.append(fid)

    async def remove(self, fid: int) -> None:
        """Tremove: unlink the file and forget the fid, which is gone also on failure."""
        try:
            await self._call(m.Tremove(fid))
        finally:
            if not self.dead:
                self._free_fids.append(fid)

    # Attributes.

    async def getattr(self, fid: int) -> Attr:
        reply = await self._call(m.Tgetattr(fid, m.GETATTR_BASIC))
        attr: Attr = reply.attr
        return attr

    async def setattr(
        self, fid: int, valid: int, mode: int = 0, uid: int = 0, gid: int = 0, size: int = 0, atime: int = 0,
        mtime: int = 0,
    ) -> None:  # fmt: skip
        """`valid` is of gofer.messages.SETATTR_*; times in nanoseconds, used with *_SET, else now."""
        asec, ansec = divmod(atime, 1_000_000_000)
        msec, mnsec = divmod(mtime, 1_000_000_000)
        wrap = (1 << 64) - 1
        await self._call(m.Tsetattr(fid, valid, mode, uid, gid, size, asec & wrap, ansec, msec & wrap, mnsec))

    async def statfs(self, fid: int) -> Message:
        """Rstatfs: type bsize blocks bfree bavail files ffree fsid namelen."""
        return await self._call(m.Tstatfs(fid))

    async def readlink(self, fid: int) -> bytes:
        reply = await self._call(m.Treadlink(fid))
        target: bytes = reply.target
        return target

    # Open files.

    async def open_fd(self, fid: int, flags: int) -> tuple[int | None, Qid, int]:
        """Open a file: (host descriptor, qid, iounit).

        With a descriptor (a regular file, from a server that sends them) `fid` itself stays unopened: it can
        be opened again, and the descriptor is the caller's to close.  With None (a directory, or a plain
        server) `fid` is now open for `read`, `write` or `readdir`, once.
        """
        if not self.extended:
            reply = await self._call(m.Tlopen(fid, flags))
            return None, reply.qid, self._iounit(reply.iounit)
        fd, reply = await self._exchange(m.Tlopenfd(fid, flags))
        if fd is not None:
            self._check_file(fd, flags)
        return fd, reply.qid, self._iounit(reply.iounit)

    async def create_fd(
        self, dfid: int, name: bytes, flags: int, mode: int, uid: int = m.NONUNAME, gid: int = m.NONUNAME
    ) -> tuple[int, int | None, Attr]:
        """Create a regular file in `dfid`: (its fid, host descriptor or None, attributes).  SysError(EEXIST).

        As with `open_fd`, the fid is open when there is no descriptor.  Owner and group are given as far as
        the server may.
        """
        if not self.extended:
            fid, _ = await self.walk(dfid, ())
            try:
                await self._call(m.Tlcreate(fid, name, flags | os.O_CREAT | os.O_EXCL, mode, gid))
                return fid, None, await self.getattr(fid)
            except SysError:
                self.clunk(fid)
                raise
        fid = self._new_fid()
        try:
            fd, reply = await self._exchange(m.Tlcreatefd(dfid, fid, name, flags, mode, uid, gid))
        except SysError:
            self._free_fids.append(fid)
            raise
        if fd is not None:
            self._check_file(fd, flags)
        return fid, fd, reply.attr

    async def reopen_readonly(self, fd: int) -> int:
        """An O_RDONLY descriptor of the same memfd as `fd`.  SysError(EPERM) for other files."""
        if not self.extended:
            raise SysError(errno.EOPNOTSUPP)
        new, _ = await self._exchange(m.Treopen(), fd)
        if new is None:
            raise SysError(errno.EIO)
        self._check_file(new, os.O_RDONLY)
        ours, theirs = os.fstat(fd), os.fstat(new)
        if (ours.st_dev, ours.st_ino) != (theirs.st_dev, theirs.st_ino):
            os.close(new)
            raise SysError(errno.EIO)
        return new

    def _check_file(self, fd: int, flags: int) -> None:
        """Refuse a descriptor that is not a regular file open as asked (a pipe could block us)."""
        if not S_ISREG(os.fstat(fd).st_mode) or (fcntl(fd, F_GETFL) ^ flags) & (os.O_ACCMODE | os.O_PATH):
            os.close(fd)
            raise SysError(errno.EIO)

    def _iounit(self, iounit: int) -> int:
        most = self.msize - m.IOHDRSZ
        return min(iounit, most) if iounit else most

    async def read(self, fid: int, offset: int, size: int) -> bytes:
        """Up to `size` bytes, maybe fewer (at most msize - IOHDRSZ)."""
        size = min(size, self.msize - m.IOHDRSZ)
        reply = await self._call(m.Tread(fid, offset, size))
        if len(reply.data) > size:
            raise SysError(errno.EIO)
        data: bytes = reply.data
        return data

    async def write(self, fid: int, offset: int, data: bytes) -> int:
        """Bytes written, maybe fewer than given."""
        data = data[: self.msize - m.IOHDRSZ]
        reply = await self._call(m.Twrite(fid, offset, data))
        if reply.size > len(data):
            raise SysError(errno.EIO)
        written: int = reply.size
        return written

    async def readdir(self, fid: int, offset: int, size: int = 32768) -> list[tuple[Qid, int, int, bytes]]:
        """Entries (qid, offset to continue behind it, DT_ type, name) from `offset`; none at the end."""
        reply = await self._call(m.Treaddir(fid, offset, min(size, self.msize - m.IOHDRSZ)))
        try:
            return m.decode_dirents(reply.data)
        except ProtocolError:
            self._die()
            raise SysError(errno.EIO) from None

    async def fsync(self, fid: int, datasync: bool = False) -> None:
        await self._call(m.Tfsync(fid, int(datasync)))

    # Names.

    async def mkdir(self, dfid: int, name: bytes, mode: int, gid: int = m.NONUNAME) -> Qid:
        reply = await self._call(m.Tmkdir(dfid, name, mode, gid))
        qid: Qid = reply.qid
        return qid

    async def symlink(self, dfid: int, name: bytes, target: bytes, gid: int = m.NONUNAME) -> Qid:
        reply = await self._call(m.Tsymlink(dfid, name, target, gid))
        qid: Qid = reply.qid
        return qid

    async def mknod(
        self, dfid: int, name: bytes, mode: int, major: int = 0, minor: int = 0, gid: int = m.NONUNAME
    ) -> Qid:
        """A regular file, FIFO or socket; SysError(EPERM) for device nodes."""
        reply = await self._call(m.Tmknod(dfid, name, mode, major, minor, gid))
        qid: Qid = reply.qid
        return qid

    async def link(self, dfid: int, fid: int, name: bytes) -> None:
        await self._call(m.Tlink(dfid, fid, name))

    async def renameat(self, olddfid: int, oldname: bytes, newdfid: int, newname: bytes) -> None:
        try:
            await self._call(m.Trenameat(olddfid, oldname, newdfid, newname))
        except SysError as exc:
            if exc.errno != errno.EOPNOTSUPP or self.extended:
                raise
            # An old server: rename by fid.
            fid, _ = await self.walk(olddfid, (oldname,))
            try:
                await self._call(m.Trename(fid, newdfid, newname))
            finally:
                self.clunk(fid)

    async def unlinkat(self, dfid: int, name: bytes, flags: int = 0) -> None:
        """`flags`: AT_REMOVEDIR or 0."""
        try:
            await self._call(m.Tunlinkat(dfid, name, flags))
        except SysError as exc:
            if exc.errno != errno.EOPNOTSUPP or self.extended:
                raise
            # An old server: Tremove takes files and directories alike.
            fid, qids = await self.walk(dfid, (name,))
            is_dir = qids[0].type & m.QTDIR
            if bool(is_dir) != bool(flags):
                self.clunk(fid)
                raise SysError(errno.EISDIR if is_dir else errno.ENOTDIR) from None
            await self.remove(fid)

    # Extended attributes.

    async def xattr_get(self, fid: int, name: bytes) -> bytes:
        """The value; with an empty name, the NUL-terminated names of all."""
        new, reply = await self._with_fid(lambda new: m.Txattrwalk(fid, new, name))
        try:
            if reply.size > XATTR_SIZE_MAX:
                raise SysError(errno.E2BIG)
            value = b""
            while len(value) < reply.size:
                part = await self.read(new, len(value), reply.size - len(value))
                if not part:
                    raise SysError(errno.EIO)
                value += part
            return value
        finally:
            self.clunk(new)

    async def xattr_list(self, fid: int) -> list[bytes]:
        return [name for name in (await self.xattr_get(fid, b"")).split(b"\0") if name]

    async def xattr_set(self, fid: int, name: bytes, value: bytes, flags: int = 0) -> None:
        """`flags`: XATTR_CREATE, XATTR_REPLACE or 0 (the protocol can't replace by an empty value)."""
        new, _ = await self.walk(fid, ())
        try:
            await self._call(m.Txattrcreate(new, name, len(value), flags))
            done = 0
            while done < len(value):
                count = await self.write(new, done, value[done:])
                if not count:
                    raise SysError(errno.EIO)
                done += count
        except SysError:
            self.clunk(new)
            raise
        await self.clunk_wait(new)

    async def xattr_remove(self, fid: int, name: bytes) -> None:
        await self.xattr_set(fid, name, b"", XATTR_REPLACE)
