"""How a 9P message is laid out: field types, and messages compiled from a line of them.

A message class says its fields once, in wire order:

    class Tlopen(Message, type=12, fields="fid:u32 flags:u32"): ...

and is a tuple of the field values, also reachable by name.  Runs of fixed-size fields become one
`struct.Struct`; every other field type is a pair of functions (encode, decode).  A frame is
size[4] type[1] tag[2] body, little endian; strings are length[2] bytes.

Everything that arrives is hostile: `decode` of any bytes either gives a message whose every field
lies within the bounds of its type, or raises ProtocolError.
"""

from __future__ import annotations

import errno
from _collections import _tuplegetter
from _struct import Struct

from sentry.abi.fcntl import NAME_MAX, PATH_MAX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

#: Bounds that hold in both directions.
MAX_MSIZE = 1 << 20
MIN_MSIZE = 4096
MAX_WALK = 16
MAX_NAMES = 64
#: Offsets and sizes are loff_t on the host: beyond this they are malformed.
MAX_OFFSET = (1 << 63) - 1

HEADER = Struct("<IBH")


class ProtocolError(Exception):
    """Bytes that are no valid message.  `errno` is what a server answers where it can answer."""

    def __init__(self, reason: str, errno: int = errno.EPROTO) -> None:
        super().__init__(reason)
        self.errno = errno


class Qid(tuple):  # type: ignore[type-arg]
    """(type, version, path): a file's identity.  `path` is unique in the server's lifetime."""

    __slots__ = ()
    type = _tuplegetter(0, "QTDIR, QTSYMLINK or QTFILE")
    version = _tuplegetter(1, "changes when the file does; 0: don't cache")
    path = _tuplegetter(2, "folded from device and inode number")


QTDIR = 0x80
QTSYMLINK = 0x02
QTFILE = 0x00


class Attr:
    """What getattr tells.  Times are nanoseconds since the epoch, blocks are 512 bytes."""

    __slots__ = (
        "atime", "blksize", "blocks", "ctime", "gid", "mode", "mtime", "nlink", "qid", "rdev", "size", "uid",
    )  # fmt: skip

    def __init__(
        self, qid: Qid, mode: int, uid: int, gid: int, nlink: int, rdev: int, size: int, blksize: int,
        blocks: int, atime: int, mtime: int, ctime: int,
    ) -> None:  # fmt: skip
        self.qid = qid
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.nlink = nlink
        self.rdev = rdev
        self.size = size
        self.blksize = blksize
        self.blocks = blocks
        self.atime = atime
        self.mtime = mtime
        self.ctime = ctime

    @property
    def ino(self) -> int:
        path: int = self.qid[2]
        return path

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Attr) and all(getattr(self, f) == getattr(other, f) for f in self.__slots__)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Attr({', '.join(f'{f}={getattr(self, f)!r}' for f in self.__slots__)})"


# Field types with a fixed size: struct character, largest value.
_FIXED = {
    "u8": ("B", 0xFF),
    "u16": ("H", 0xFFFF),
    "u32": ("I", 0xFFFF_FFFF),
    "u64": ("Q", 0xFFFF_FFFF_FFFF_FFFF),
    "off": ("Q", MAX_OFFSET),
    "bool": ("B", 1),
}

_U16 = Struct("<H")
_U32 = Struct("<I")
_QID = Struct("<BIQ")
# mode uid gid nlink rdev size blksize blocks, then (sec, nsec) of atime mtime ctime btime, gen, data_version
_ATTR = Struct("<3I5Q8q2Q")
_SECOND = 1_000_000_000
#: Times are kept within int64 nanoseconds (until 2255); a file may claim otherwise.
_MAX_SECONDS = 9_000_000_000


def check_name(name: bytes, dots: bool = False) -> bytes:
    """One path component; `.` and `..` only where `dots`."""
    if len(name) > NAME_MAX:
        raise ProtocolError("name too long", errno.ENAMETOOLONG)
    if not name or b"/" in name or b"\0" in name or (not dots and name in (b".", b"..")):
        raise ProtocolError("bad name", errno.EINVAL)
    return name


def _put_string(value: bytes) -> bytes:
    if len(value) > 0xFFFF:
        raise ProtocolError("string too long", errno.ENAMETOOLONG)
    return _U16.pack(len(value)) + value


def _get_string(buf: bytes, pos: int) -> tuple[bytes, int]:
    start = pos + 2
    if start > len(buf):
        raise ProtocolError("short message")
    end = start + _U16.unpack_from(buf, pos)[0]
    if end > len(buf):
        raise ProtocolError("short message")
    return buf[start:end], end


def _put_name(value: bytes) -> bytes:
    return _put_string(check_name(value))


def _get_name(buf: bytes, pos: int) -> tuple[bytes, int]:
    value, pos = _get_string(buf, pos)
    return check_name(value), pos


def _check_path(value: bytes) -> bytes:
    """The target of a symlink: anything that readlink(2) may give."""
    if len(value) >= PATH_MAX:
        raise ProtocolError("path too long", errno.ENAMETOOLONG)
    if not value or b"\0" in value:
        raise ProtocolError("bad path", errno.ENOENT)
    return value


def _put_path(value: bytes) -> bytes:
    return _put_string(_check_path(value))


def _get_path(buf: bytes, pos: int) -> tuple[bytes, int]:
    value, pos = _get_string(buf, pos)
    return _check_path(value), pos


def _put_link(value: bytes) -> bytes:
    """A path, or nothing."""
    return _put_path(value) if value else _put_string(value)


def _get_link(buf: bytes, pos: int) -> tuple[bytes, int]:
    value, pos = _get_string(buf, pos)
    return _check_path(value) if value else value, pos


def _get_count(buf: bytes, pos: int, limit: int) -> tuple[int, int]:
    if pos + 2 > len(buf):
        raise ProtocolError("short message")
    count = _U16.unpack_from(buf, pos)[0]
    if count > limit:
        raise ProtocolError("too many elements", errno.EINVAL)
    return count, pos + 2


def _put_list(put: Callable[[Any], bytes], limit: int = MAX_WALK) -> Callable[[Any], bytes]:
    def put_list(values: Any) -> bytes:
        if len(values) > limit:
            raise ProtocolError("too many elements", errno.EINVAL)
        return _U16.pack(len(values)) + b"".join([put(value) for value in values])

    return put_list


def _get_list(
    get: Callable[[bytes, int], tuple[Any, int]], limit: int = MAX_WALK
) -> Callable[[bytes, int], tuple[Any, int]]:
    def get_list(buf: bytes, pos: int) -> tuple[Any, int]:
        count, pos = _get_count(buf, pos, limit)
        values = []
        for _ in range(count):
            value, pos = get(buf, pos)
            values.append(value)
        return tuple(values), pos

    return get_list


def _put_data(value: bytes) -> bytes:
    return _U32.pack(len(value)) + bytes(value)


def _get_data(buf: bytes, pos: int) -> tuple[bytes, int]:
    start = pos + 4
    if start > len(buf):
        raise ProtocolError("short message")
    end = start + _U32.unpack_from(buf, pos)[0]
    if end > len(buf):
        raise ProtocolError("short message")
    return buf[start:end], end


def put_qid(value: Qid) -> bytes:
    return _QID.pack(*value)


def get_qid(buf: bytes, pos: int) -> tuple[Qid, int]:
    if pos + 13 > len(buf):
        raise ProtocolError("short message")
    return Qid(_QID.unpack_from(buf, pos)), pos + 13


def _put_attr(attr: Attr) -> bytes:
    """qid and attributes as they stand in Rgetattr behind `valid`."""
    return _QID.pack(*attr.qid) + _ATTR.pack(
        attr.mode, attr.uid, attr.gid, attr.nlink, attr.rdev, attr.size, attr.blksize, attr.blocks,
        *divmod(attr.atime, _SECOND), *divmod(attr.mtime, _SECOND), *divmod(attr.ctime, _SECOND),
        0, 0, 0, 0,
    )  # fmt: skip


def _time(sec: int, nsec: int) -> int:
    if not 0 <= nsec < _SECOND:
        raise ProtocolError("bad time")
    return max(-_MAX_SECONDS, min(sec, _MAX_SECONDS)) * _SECOND + nsec


def _get_attr(buf: bytes, pos: int) -> tuple[Attr, int]:
    qid, pos = get_qid(buf, pos)
    end = pos + _ATTR.size
    if end > len(buf):
        raise ProtocolError("short message")
    f = _ATTR.unpack_from(buf, pos)
    mode, uid, gid, nlink, rdev, size, blksize, blocks = f[:8]
    if mode > 0xFFFF or blksize > 0xFFFF_FFFF or max(nlink, rdev, size, blocks) > MAX_OFFSET:
        raise ProtocolError("bad attributes")
    times = (_time(f[8], f[9]), _time(f[10], f[11]), _time(f[12], f[13]))
    return Attr(qid, mode, uid, gid, nlink, rdev, size, blksize, blocks, *times), end


def make_attr(path: int, mode: int, *rest: int) -> Attr:
    """Attr of a mode and uid gid nlink rdev size blksize blocks atime mtime ctime; ProtocolError."""
    nlink, rdev, size, blksize, blocks = rest[2:7]
    if mode > 0xFFFF or blksize > 0xFFFF_FFFF or max(nlink, rdev, size, blocks) > MAX_OFFSET:
        raise ProtocolError("bad attributes")
    form = mode & 0o170000
    kind = QTDIR if form == 0o040000 else QTSYMLINK if form == 0o120000 else QTFILE
    return Attr(Qid((kind, 0, path)), mode, *rest)


# Every other field type: (encode, decode).
_VARIABLE: dict[str, tuple[Callable[[Any], bytes], Callable[[bytes, int], tuple[Any, int]]]] = {
    "string": (_put_string, _get_string),
    "name": (_put_name, _get_name),
    "path": (_put_path, _get_path),
    "link": (_put_link, _get_link),
    "names": (_put_list(_put_name), _get_list(_get_name)),
    "manynames": (_put_list(_put_name, MAX_NAMES), _get_list(_get_name, MAX_NAMES)),
    "qid": (put_qid, get_qid),
    "qids": (_put_list(put_qid), _get_list(get_qid)),
    "attr": (_put_attr, _get_attr),
    "attrs": (_put_list(_put_attr), _get_list(_get_attr)),
    "data": (_put_data, _get_data),
}


class _Run:
    """Consecutive fixed-size fields."""

    __slots__ = ("bounds", "end", "start", "struct")

    def __init__(self, start: int, kinds: list[str]) -> None:
        self.start = start
        self.end = start + len(kinds)
        self.struct = Struct("<" + "".join([_FIXED[kind][0] for kind in kinds]))
        # Only the types that don't use the whole range of their struct character need a look.
        self.bounds = [(i, _FIXED[kind][1]) for i, kind in enumerate(kinds) if kind in ("off", "bool")]

    def check(self, values: tuple[int, ...]) -> tuple[int, ...]:
        for i, limit in self.bounds:
            if values[i] > limit:
                raise ProtocolError("value out of range", errno.EINVAL)
        return values


class Message(tuple):  # type: ignore[type-arg]
    """Base of all messages: a tuple of field values in wire order."""

    __slots__ = ()
    TYPE: int
    FIELDS: tuple[str, ...]
    KINDS: tuple[str, ...]
    _plan: tuple[Any, ...]

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __new__(cls, *values: Any) -> Message:
        if len(values) != len(cls.FIELDS):
            raise TypeError(f"{cls.__name__} takes {cls.FIELDS}")
        return tuple.__new__(cls, values)

    def __init_subclass__(cls, type: int, fields: str = "") -> None:
        pairs = [field.split(":") for field in fields.split()]
        cls.TYPE = type
        cls.FIELDS = tuple([name for name, _ in pairs])
        cls.KINDS = tuple([kind for _, kind in pairs])
        for i, name in enumerate(cls.FIELDS):
            setattr(cls, name, _tuplegetter(i, cls.KINDS[i]))
        plan: list[Any] = []
        i = 0
        while i < len(pairs):
            start = i
            while i < len(pairs) and cls.KINDS[i] in _FIXED:
                i += 1
            if i > start:
                plan.append(_Run(start, list(cls.KINDS[start:i])))
            else:
                plan.append((start, *_VARIABLE[cls.KINDS[i]]))
                i += 1
        cls._plan = tuple(plan)

    def encode(self, tag: int) -> bytes:
        """The whole frame.  ProtocolError for a value that its field can't hold (names, counts)."""
        parts = []
        for step in self._plan:
            if step.__class__ is _Run:
                parts.append(step.struct.pack(*step.check(self[step.start : step.end])))
            else:
                parts.append(step[1](self[step[0]]))
        body = b"".join(parts)
        return HEADER.pack(7 + len(body), self.TYPE, tag) + body

    @classmethod
    def decode_body(cls, buf: bytes, pos: int = 7) -> Message:
        """The message whose body is exactly buf[pos:]."""
        values: list[Any] = []
        for step in cls._plan:
            if step.__class__ is _Run:
                end = pos + step.struct.size
                if end > len(buf):
                    raise ProtocolError("short message")
                values += step.check(step.struct.unpack_from(buf, pos))
                pos = end
            else:
                value, pos = step[2](buf, pos)
                values.append(value)
        if pos != len(buf):
            raise ProtocolError("trailing bytes")
        return tuple.__new__(cls, values)

    def __repr__(self) -> str:
        fields = ", ".join([f"{name}={value!r}" for name, value in zip(self.FIELDS, self, strict=True)])
        return f"{self.__class__.__name__}({fields})"
