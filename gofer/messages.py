"""9P2000.L, and the extension 9P2000.L.sentry: every message, declared once.

The base protocol is what Linux's v9fs speaks (its numbers and layouts: include/net/9p/9p.h,
Documentation/filesystems/9p.rst, and diod's protocol.md).  The extension is used only when Tversion
settled on `9P2000.L.sentry`:

- Twalkgetattr: a walk that also tells the attributes of every component reached.  With no names it
  tells the attributes of `fid` itself and clones it.  `ecode` is 0 when all names were reached (only
  then is `newfid` made), else the error that stopped the walk behind the last entry of `attrs`.
- Tlopenfd: opens a regular file and sends its descriptor (SCM_RIGHTS) with the reply: `hasfd` is 1
  and `fid` stays unopened, free for further opens.  `hasfd` is 0: `fid` is open, as by Tlopen.
- Tlcreatefd: creates (never follows) a regular file in directory `dfid`; `newfid` names it; the
  descriptor comes as with Tlopenfd.
- Treopen: carries a descriptor of a memfd and gets an O_RDONLY reopening of the same file back.
- Tlistdirs: lists directories with the attributes of what is in them: those called `names` in the directory
  that `path` leads to from `fid`, or that one itself (no names).  Each is told whole or not at all, in
  at most `size` bytes together; `data` is described at DIRECTORY, and may stop early, but for the first.
  Up to `files` regular files of each are opened for reading, and their descriptors come along.
- Topenfiles: opens the regular files `names` of the directory that `path` leads to from `fid` for reading.
  `errors` has a u32 for each, 0 where the file's descriptor is among the `fds` that come along, in
  the order of the names.  EXDEV: not a regular file, or on another device than the directory.
- Tlook: Twalkgetattr with what is asked for next, mostly: `target` is where the symbolic link points to that
  was reached last ("" for anything else), also where the walk stops behind it; with `open`, a regular file
  that all names lead to is opened for reading if that can be done, and `fds` is 1.

Descriptors are attached to the first byte of their message: one, or `fds` of them.
"""

from __future__ import annotations

import errno
from _struct import Struct, unpack_from

from gofer.codec import (
    HEADER,
    MAX_MSIZE,
    MAX_OFFSET,
    MAX_WALK,
    MIN_MSIZE,
    QTDIR,
    QTFILE,
    QTSYMLINK,
    Attr,
    Message,
    ProtocolError,
    Qid,
    check_name,
    get_qid,
    make_attr,
    put_qid,
)

VERSION_L = b"9P2000.L"
VERSION_SENTRY = b"9P2000.L.sentry"
VERSION_UNKNOWN = b"unknown"

NOTAG = 0xFFFF
NOFID = 0xFFFF_FFFF
#: "no user": n_uname of Tattach, gid of the creating messages.
NONUNAME = 0xFFFF_FFFF

#: Bytes of Rread, Rreaddir, Twrite that are not data.
IOHDRSZ = 24

GETATTR_BASIC = 0x7FF  # mode nlink uid gid rdev atime mtime ctime ino size blocks

SETATTR_MODE = 0x1
SETATTR_UID = 0x2
SETATTR_GID = 0x4
SETATTR_SIZE = 0x8
SETATTR_ATIME = 0x10
SETATTR_MTIME = 0x20
SETATTR_CTIME = 0x40
SETATTR_ATIME_SET = 0x80
SETATTR_MTIME_SET = 0x100
SETATTR_ALL = 0x1FF

LOCK_SUCCESS = 0
LOCK_BLOCKED = 1
LOCK_ERROR = 2

#: Descriptors that one message carries at most.
MAX_OPENFILES = 128


# fmt: off
class Rlerror(Message, type=7, fields="ecode:u32"): ...
class Tstatfs(Message, type=8, fields="fid:u32"): ...
class Rstatfs(Message, type=9, fields="type:u32 bsize:u32 blocks:u64 bfree:u64 bavail:u64 files:u64 ffree:u64"
                                      " fsid:u64 namelen:u32"): ...
class Tlopen(Message, type=12, fields="fid:u32 flags:u32"): ...
class Rlopen(Message, type=13, fields="qid:qid iounit:u32"): ...
class Tlcreate(Message, type=14, fields="fid:u32 name:name flags:u32 mode:u32 gid:u32"): ...
class Rlcreate(Message, type=15, fields="qid:qid iounit:u32"): ...
class Tsymlink(Message, type=16, fields="dfid:u32 name:name target:path gid:u32"): ...
class Rsymlink(Message, type=17, fields="qid:qid"): ...
class Tmknod(Message, type=18, fields="dfid:u32 name:name mode:u32 major:u32 minor:u32 gid:u32"): ...
class Rmknod(Message, type=19, fields="qid:qid"): ...
class Trename(Message, type=20, fields="fid:u32 dfid:u32 name:name"): ...
class Rrename(Message, type=21): ...
class Treadlink(Message, type=22, fields="fid:u32"): ...
class Rreadlink(Message, type=23, fields="target:path"): ...
class Tgetattr(Message, type=24, fields="fid:u32 mask:u64"): ...
class Rgetattr(Message, type=25, fields="valid:u64 attr:attr"): ...
class Tsetattr(Message, type=26, fields="fid:u32 valid:u32 mode:u32 uid:u32 gid:u32 size:u64 atime_sec:u64"
                                        " atime_nsec:u64 mtime_sec:u64 mtime_nsec:u64"): ...
class Rsetattr(Message, type=27): ...
class Txattrwalk(Message, type=30, fields="fid:u32 newfid:u32 name:string"): ...
class Rxattrwalk(Message, type=31, fields="size:u64"): ...
class Txattrcreate(Message, type=32, fields="fid:u32 name:string size:u64 flags:u32"): ...
class Rxattrcreate(Message, type=33): ...
class Treaddir(Message, type=40, fields="fid:u32 offset:off size:u32"): ...
class Rreaddir(Message, type=41, fields="data:data"): ...
class Tfsync(Message, type=50, fields="fid:u32 datasync:u32"): ...
class Rfsync(Message, type=51): ...
class Tlock(Message, type=52, fields="fid:u32 type:u8 flags:u32 start:u64 length:u64 proc_id:u32"
                                     " client_id:string"): ...
class Rlock(Message, type=53, fields="status:u8"): ...
class Tgetlock(Message, type=54, fields="fid:u32 type:u8 start:u64 length:u64 proc_id:u32"
                                        " client_id:string"): ...
class Rgetlock(Message, type=55, fields="type:u8 start:u64 length:u64 proc_id:u32 client_id:string"): ...
class Tlink(Message, type=70, fields="dfid:u32 fid:u32 name:name"): ...
class Rlink(Message, type=71): ...
class Tmkdir(Message, type=72, fields="dfid:u32 name:name mode:u32 gid:u32"): ...
class Rmkdir(Message, type=73, fields="qid:qid"): ...
class Trenameat(Message, type=74, fields="olddfid:u32 oldname:name newdfid:u32 newname:name"): ...
class Rrenameat(Message, type=75): ...
class Tunlinkat(Message, type=76, fields="dfid:u32 name:name flags:u32"): ...
class Runlinkat(Message, type=77): ...
class Tversion(Message, type=100, fields="msize:u32 version:string"): ...
class Rversion(Message, type=101, fields="msize:u32 version:string"): ...
class Tauth(Message, type=102, fields="afid:u32 uname:string aname:string n_uname:u32"): ...
class Rauth(Message, type=103, fields="qid:qid"): ...
class Tattach(Message, type=104, fields="fid:u32 afid:u32 uname:string aname:string n_uname:u32"): ...
class Rattach(Message, type=105, fields="qid:qid"): ...
class Tflush(Message, type=108, fields="oldtag:u16"): ...
class Rflush(Message, type=109): ...
class Twalk(Message, type=110, fields="fid:u32 newfid:u32 names:names"): ...
class Rwalk(Message, type=111, fields="qids:qids"): ...
class Tread(Message, type=116, fields="fid:u32 offset:off size:u32"): ...
class Rread(Message, type=117, fields="data:data"): ...
class Twrite(Message, type=118, fields="fid:u32 offset:off data:data"): ...
class Rwrite(Message, type=119, fields="size:u32"): ...
class Tclunk(Message, type=120, fields="fid:u32"): ...
class Rclunk(Message, type=121): ...
class Tremove(Message, type=122, fields="fid:u32"): ...
class Rremove(Message, type=123): ...

class Twalkgetattr(Message, type=200, fields="fid:u32 newfid:u32 names:names"): ...
class Rwalkgetattr(Message, type=201, fields="ecode:u32 attrs:attrs"): ...
class Tlopenfd(Message, type=202, fields="fid:u32 flags:u32"): ...
class Rlopenfd(Message, type=203, fields="qid:qid iounit:u32 hasfd:bool"): ...
class Tlcreatefd(Message, type=204, fields="dfid:u32 newfid:u32 name:name flags:u32 mode:u32 uid:u32"
                                           " gid:u32"): ...
class Rlcreatefd(Message, type=205, fields="attr:attr iounit:u32 hasfd:bool"): ...
class Treopen(Message, type=206): ...
class Rreopen(Message, type=207, fields="hasfd:bool"): ...
class Tlistdirs(Message, type=208, fields="fid:u32 path:names names:manynames size:u32 files:u8"): ...
class Rlistdirs(Message, type=209, fields="data:data fds:u8"): ...
class Topenfiles(Message, type=210, fields="fid:u32 path:names names:manynames"): ...
class Ropenfiles(Message, type=211, fields="errors:data fds:u8"): ...
class Tlook(Message, type=212, fields="fid:u32 newfid:u32 names:names open:u8"): ...
class Rlook(Message, type=213, fields="ecode:u32 attrs:attrs target:link fds:u8"): ...
# fmt: on


_BY_TYPE: dict[int, type[Message]] = {cls.TYPE: cls for cls in Message.__subclasses__()}
_REQUESTS = {number: cls for number, cls in _BY_TYPE.items() if cls.__name__[0] == "T"}
_REPLIES = {number: cls for number, cls in _BY_TYPE.items() if cls.__name__[0] == "R"}
#: What a request is answered with, unless by Rlerror.
REPLY_OF: dict[type[Message], type[Message]] = {cls: _REPLIES[n + 1] for n, cls in _REQUESTS.items()}
EXTENSION: frozenset[type[Message]] = frozenset(cls for n, cls in _BY_TYPE.items() if n >= 200)


def decode_header(frame: bytes) -> tuple[int, int, int]:
    """(size, type, tag) of a frame of which at least seven bytes are there."""
    if len(frame) < 7:
        raise ProtocolError("short header")
    size, number, tag = HEADER.unpack_from(frame)
    return size, number, tag


def _decode(frame: bytes, known: dict[int, type[Message]]) -> tuple[int, Message]:
    size, number, tag = decode_header(frame)
    if size != len(frame):
        raise ProtocolError("wrong size")
    cls = known.get(number)
    if cls is None:
        raise ProtocolError("unknown message type", errno.EOPNOTSUPP)
    return tag, cls.decode_body(frame)


def decode(frame: bytes) -> tuple[int, Message]:
    """(tag, message) of one whole frame, or ProtocolError."""
    return _decode(frame, _BY_TYPE)


def decode_request(frame: bytes) -> tuple[int, Message]:
    """As `decode`, for T-messages only."""
    return _decode(frame, _REQUESTS)


def decode_reply(frame: bytes) -> tuple[int, Message]:
    """As `decode`, for R-messages only."""
    return _decode(frame, _REPLIES)


_DIRENT = Struct("<QBH")  # offset type namelen, behind the qid


def encode_dirent(qid: Qid, offset: int, kind: int, name: bytes) -> bytes:
    """One entry of Rreaddir.data; `offset` continues behind it, `kind` is a DT_ value."""
    return put_qid(qid) + _DIRENT.pack(offset, kind, len(name)) + name


def decode_dirents(data: bytes) -> list[tuple[Qid, int, int, bytes]]:
    """All of Rreaddir.data: (qid, offset, DT_ type, name); names may be `.` and `..`."""
    entries = []
    pos = 0
    while pos < len(data):
        qid, pos = get_qid(data, pos)
        end = pos + 11
        if end > len(data):
            raise ProtocolError("short directory entry")
        offset, kind, size = _DIRENT.unpack_from(data, pos)
        pos = end + size
        if pos > len(data) or offset > MAX_OFFSET or kind > 15:
            raise ProtocolError("bad directory entry")
        entries.append((qid, offset, kind, check_name(data[end:pos], dots=True)))
    return entries


#: An entry of a listing (Rlistdirs), its name behind it: qid path, nlink rdev size blocks, atime mtime ctime
#: in nanoseconds, mode uid gid blksize, the name's length, DT_ type, and whether more is known.
LISTED = Struct("<5Q3q4IHBB")


#: What stands before each directory's entries in Rlistdirs.data: errno (0, or the rest is 0), bytes of
#: entries, whether they are all (else there are none), and how many files were opened, whose entries'
#: indices (u16) come next.
DIRECTORY = Struct("<IIBB")


def decode_directories(data: bytes) -> list[tuple[int, Listing | None, tuple[int, ...]]]:
    """Rlistdirs.data: (errno, listing or None when it is too large, indices of opened files) of each."""
    directories: list[tuple[int, Listing | None, tuple[int, ...]]] = []
    pos, total = 0, len(data)
    while pos < total:
        if pos + DIRECTORY.size > total:
            raise ProtocolError("short directory")
        error, size, complete, opened = DIRECTORY.unpack_from(data, pos)
        pos += DIRECTORY.size
        start = pos + 2 * opened
        end = start + size
        if end > total:
            raise ProtocolError("short directory")
        at = unpack_from(f"<{opened}H", data, pos)
        listing = Listing(data[start:end]) if complete and not error else None
        if opened and (listing is None or max(at) >= len(listing.brief) or len(set(at)) != opened):
            raise ProtocolError("bad index")
        directories.append((error, listing, at))
        pos = end
    return directories


class Listing:
    """What Rlistdirs tells of a directory; ProtocolError for names that can't be, or stand there twice."""

    __slots__ = ("at", "brief", "data")

    def __init__(self, data: bytes) -> None:
        #: As it came.
        self.data = data
        #: (qid path, DT_ type, name) in the server's order.
        self.brief: list[tuple[int, int, bytes]] = []
        #: Where each name's entry begins in `data`.
        self.at: dict[bytes, int] = {}
        pos, total = 0, len(data)
        head, unpack = LISTED.size, LISTED.unpack_from
        while pos < total:
            if pos + head > total:
                raise ProtocolError("short entry")
            fields = unpack(data, pos)
            end = pos + head + fields[12]
            name = data[pos + head : end]
            if end > total or fields[13] > 15:
                raise ProtocolError("bad entry")
            self.brief.append((fields[0], fields[13], name))
            self.at[check_name(name)] = pos
            pos = end
        if len(self.at) != len(self.brief):
            raise ProtocolError("a name twice")

    def ino(self, name: bytes) -> int:
        ino: int = LISTED.unpack_from(self.data, self.at[name])[0]
        return ino

    def attr(self, name: bytes) -> Attr | None:
        """The attributes of `name`; None: it has to be walked to.  KeyError, ProtocolError."""
        path, nlink, rdev, size, blocks, atime, mtime, ctime, mode, uid, gid, blksize, _, _, known = (
            LISTED.unpack_from(self.data, self.at[name])
        )
        if not known:
            return None
        return make_attr(path, mode, uid, gid, nlink, rdev, size, blksize, blocks, atime, mtime, ctime)


# mypy's word for a re-export: `sentry` imports only this module.  (Messages need no mention.)
__all__ = [
    "HEADER", "MAX_MSIZE", "MAX_OFFSET", "MAX_WALK", "MIN_MSIZE", "QTDIR", "QTFILE",
    "QTSYMLINK", "Attr", "Message", "ProtocolError", "Qid", "make_attr",
]  # fmt: skip
