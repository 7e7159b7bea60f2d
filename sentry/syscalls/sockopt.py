"""setsockopt(2) and getsockopt(2): the options of SOL_SOCKET (socket(7)).

Many of them mean nothing to the families that are here; they are kept all the same, and read as Linux
shows them.  A family may have other levels of its own.
"""

from __future__ import annotations

import errno
from _struct import Struct

from sentry.abi import socket as so
from sentry.abi.capability import CAP_NET_ADMIN, CAP_NET_RAW
from sentry.abi.errors import SysError
from sentry.abi.syscall_nr import SYS
from sentry.fs.pidfd import PidFile
from sentry.fs.socket import socket_of
from sentry.net.socket import RCVBUF_LEAST, RMEM_MAX, SNDBUF_LEAST, WMEM_MAX
from sentry.syscalls.table import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.kernel.task import Task
    from sentry.net.socket import Sock
    from sentry.syscalls.args import Addr, Fd, Int

INT_MAX = 0x7FFFFFFF
SECOND, MICROSECOND = 1_000_000_000, 1000
#: What setsockopt(2) copies at most of the options below.
LONGEST = 64
_MEMINFO = Struct("<9I")
_LONG = Struct("<q")
#: On or off, and nobody looks at it.
_SWITCHES = (
    so.SO_DEBUG, so.SO_REUSEADDR, so.SO_DONTROUTE, so.SO_BROADCAST, so.SO_KEEPALIVE, so.SO_NO_CHECK,
    so.SO_RXQ_OVFL, so.SO_WIFI_STATUS, so.SO_NOFCS, so.SO_LOCK_FILTER, so.SO_SELECT_ERR_QUEUE,
    so.SO_PREFER_BUSY_POLL, so.SO_RCVMARK, so.SO_RCVPRIORITY,
)  # fmt: skip
#: Numbers, and the capabilities one of which is needed to set more than the second number (SysError(EPERM)).
_NUMBERS: dict[int, tuple[tuple[int, ...], int]] = {
    so.SO_PRIORITY: ((CAP_NET_RAW, CAP_NET_ADMIN), 6), so.SO_MARK: ((CAP_NET_RAW, CAP_NET_ADMIN), -1),
    so.SO_BUSY_POLL: ((), 0), so.SO_INCOMING_CPU: ((), 0), so.SO_BINDTOIFINDEX: ((), 0),
}  # fmt: skip
#: What of these is there before anybody has set it.
_DEFAULTS = {so.SO_INCOMING_CPU: -1}
_NOT_NEGATIVE = (so.SO_BUSY_POLL, so.SO_BINDTOIFINDEX)
_FLAGS = {
    so.SO_OOBINLINE: "oobinline", so.SO_PASSCRED: "passcred", so.SO_PASSPIDFD: "passpidfd",
    so.SO_PASSSEC: "passsec", so.SO_PASSRIGHTS: "passrights",
}  # fmt: skip
_STAMPS = (so.SO_TIMESTAMP, so.SO_TIMESTAMPNS, so.SO_TIMESTAMP_NEW, so.SO_TIMESTAMPNS_NEW)
_STAMPING = (so.SO_TIMESTAMPING, so.SO_TIMESTAMPING_NEW)
_TIMESTAMPING_VALID = 0x3FFFF
_RECEIVE_TIMES, _SEND_TIMES = (so.SO_RCVTIMEO, so.SO_RCVTIMEO_NEW), (so.SO_SNDTIMEO, so.SO_SNDTIMEO_NEW)


def _capable(task: Task, *capabilities: int) -> bool:
    """Whether the caller may administer the network."""
    user_ns = task.nsproxy.net.user_ns
    return any(task.cred.ns_capable(user_ns, one) for one in capabilities)


def _int(value: int) -> bytes:
    return (value & 0xFFFFFFFF).to_bytes(4, "little")


# Setting


def _set_sndbuf(task: Task, sock: Sock, value: int, _data: bytes) -> None:
    _resize(sock, 1, min(value & 0xFFFFFFFF, WMEM_MAX))


def _set_rcvbuf(task: Task, sock: Sock, value: int, _data: bytes) -> None:
    _resize(sock, 2, min(value & 0xFFFFFFFF, RMEM_MAX))


def _force_sndbuf(task: Task, sock: Sock, value: int, _data: bytes) -> None:
    _force(task, sock, 1, value)


def _force_rcvbuf(task: Task, sock: Sock, value: int, _data: bytes) -> None:
    _force(task, sock, 2, value)


def _force(task: Task, sock: Sock, which: int, value: int) -> None:
    if not _capable(task, CAP_NET_ADMIN):
        raise SysError(errno.EPERM)
    _resize(sock, which, max(0, value))


def _resize(sock: Sock, which: int, value: int) -> None:
    """The kernel doubles what it is told, for its own overhead (socket(7))."""
    value = min(value, INT_MAX // 2) * 2
    sock.options.buf_lock |= which
    if which == 1:
        sock.sndbuf = max(value, SNDBUF_LEAST)
        sock.write_space()
    else:
        sock.rcvbuf = max(value, RCVBUF_LEAST)


def _set_linger(task: Task, sock: Sock, value: int, data: bytes) -> None:
    if len(data) < so.LINGER.size:
        raise SysError(errno.EINVAL)
    on, seconds = so.LINGER.unpack_from(data)
    sock.options.linger = (1, seconds) if on else (0, sock.options.linger[1])


def _set_rcvlowat(task: Task, sock: Sock, value: int, _data: bytes) -> None:
    sock.options.rcvlowat = INT_MAX if value < 0 else value or 1


def _set_reuseport(task: Task, sock: Sock, value: int, _data: bytes) -> None:
    if value and not sock.supports(so.SO_REUSEPORT):
        raise SysError(errno.EOPNOTSUPP)
    sock.options.stored[so.SO_REUSEPORT] = int(value != 0)


def _set_peek_off(task: Task, sock: Sock, value: int, _data: bytes) -> None:
    sock.set_peek_off(value)


def _set_buf_lock(task: Task, sock: Sock, value: int, _data: bytes) -> None:
    if value & ~3:
        raise SysError(errno.EINVAL)
    sock.options.buf_lock = value


def _set_inq(task: Task, sock: Sock, value: int, data: bytes) -> None:
    if not sock.supports(so.SO_INQ):
        raise SysError(errno.ENOPROTOOPT)
    if value not in (0, 1) or len(data) != 4:
        raise SysError(errno.EINVAL)
    sock.options.inq = bool(value)


def _set_pacing_rate(task: Task, sock: Sock, value: int, data: bytes) -> None:
    rate = _LONG.unpack_from(data)[0] if len(data) >= 8 else value if value == -1 else value & 0xFFFFFFFF
    sock.options.stored[so.SO_MAX_PACING_RATE] = rate


def _set_budget(task: Task, sock: Sock, value: int, _data: bytes) -> None:
    if not 0 <= value <= 0xFFFF:
        raise SysError(errno.EINVAL)
    if value and not _capable(task, CAP_NET_ADMIN):
        raise SysError(errno.EPERM)


def _set_reserve_mem(task: Task, sock: Sock, value: int, _data: bytes) -> None:
    raise SysError(errno.EINVAL if value < 0 else errno.EOPNOTSUPP)


def _always(number: int) -> Callable[[Task, Sock, int, bytes], None]:
    def answer(task: Task, sock: Sock, value: int, _data: bytes) -> None:
        if number:
            raise SysError(number)

    return answer


_SETTERS: dict[int, Callable[[Task, Sock, int, bytes], None]] = {
    so.SO_SNDBUF: _set_sndbuf, so.SO_RCVBUF: _set_rcvbuf, so.SO_SNDBUFFORCE: _force_sndbuf,
    so.SO_RCVBUFFORCE: _force_rcvbuf, so.SO_LINGER: _set_linger, so.SO_RCVLOWAT: _set_rcvlowat,
    so.SO_REUSEPORT: _set_reuseport, so.SO_PEEK_OFF: _set_peek_off, so.SO_BUF_LOCK: _set_buf_lock,
    so.SO_INQ: _set_inq, so.SO_MAX_PACING_RATE: _set_pacing_rate, so.SO_BUSY_POLL_BUDGET: _set_budget,
    so.SO_RESERVE_MEM: _set_reserve_mem, so.SO_BSDCOMPAT: _always(0), so.SO_CNX_ADVICE: _always(0),
    so.SO_ZEROCOPY: _always(errno.EOPNOTSUPP), so.SO_TXREHASH: _always(errno.EOPNOTSUPP),
    so.SO_TXTIME: _always(errno.EINVAL), so.SO_DETACH_FILTER: _always(errno.ENOENT),
    so.SO_DETACH_REUSEPORT_BPF: _always(errno.EINVAL), so.SO_DEVMEM_DONTNEED: _always(errno.EBADF),
    **dict.fromkeys(so.SO_ATTACH_FILTERS, _always(errno.EINVAL)),
}  # fmt: skip


def _set_time(sock: Sock, option: int, data: bytes) -> None:
    if len(data) < so.TIMEVAL.size:
        raise SysError(errno.EINVAL)
    seconds, microseconds = so.TIMEVAL.unpack_from(data)
    if not 0 <= microseconds < 1_000_000:
        raise SysError(errno.EDOM)
    limit: int | None = seconds * SECOND + microseconds * MICROSECOND
    if seconds < 0:
        limit = 0
    elif not limit or seconds > 1 << 31:
        limit = None
    if option in _RECEIVE_TIMES:
        sock.options.rcvtimeo = limit
    else:
        sock.options.sndtimeo = limit
    sock.options_changed()


def _set_switch(task: Task, sock: Sock, option: int, value: int) -> None:
    if option == so.SO_DEBUG and value and not _capable(task, CAP_NET_ADMIN):
        raise SysError(errno.EACCES)
    if option == so.SO_PREFER_BUSY_POLL and value and not _capable(task, CAP_NET_ADMIN):
        raise SysError(errno.EPERM)
    if option == so.SO_LOCK_FILTER and not value and sock.options.stored.get(option):
        raise SysError(errno.EPERM)
    sock.options.stored[option] = int(value != 0)


def _set_number(task: Task, sock: Sock, option: int, value: int) -> None:
    capabilities, free = _NUMBERS[option]
    if option in _NOT_NEGATIVE and value < 0:
        raise SysError(errno.EINVAL)
    if capabilities and not 0 <= value <= free and not _capable(task, *capabilities):
        raise SysError(errno.EPERM)
    sock.options.stored[option] = value


def _bind_to_device(task: Task, data: bytes) -> None:
    name = data[:15].split(b"\0", 1)[0]
    if name not in (b"", b"lo"):
        raise SysError(errno.ENODEV)


def set_option(task: Task, sock: Sock, option: int, data: bytes) -> None:
    """One of SOL_SOCKET; SysError(ENOPROTOOPT, EINVAL, EPERM…)."""
    options = sock.options
    if option == so.SO_BINDTODEVICE:
        _bind_to_device(task, data)
        return
    if len(data) < 4:
        raise SysError(errno.EINVAL)
    value = int.from_bytes(data[:4], "little", signed=True)
    setter = _SETTERS.get(option)
    if setter is not None:
        setter(task, sock, value, data)
    elif option in _SWITCHES:
        _set_switch(task, sock, option, value)
    elif option in _FLAGS:
        if not sock.supports(option):
            raise SysError(errno.EOPNOTSUPP)
        setattr(options, _FLAGS[option], value != 0)
        sock.options_changed()
    elif option in _NUMBERS:
        _set_number(task, sock, option, value)
    elif option in _STAMPS:
        options.timestamp = option if value else 0
    elif option in _STAMPING:
        if value & ~_TIMESTAMPING_VALID:
            raise SysError(errno.EINVAL)
        options.stored[so.SO_TIMESTAMPING] = value
    elif option in _RECEIVE_TIMES or option in _SEND_TIMES:
        _set_time(sock, option, data)
    else:
        raise SysError(errno.ENOPROTOOPT)
    if option == so.SO_RCVLOWAT:
        sock.options_changed()


@syscall(SYS.setsockopt, partial="no socket filters (EINVAL), no devices to bind to but lo")
def setsockopt(task: Task, fd: Fd, level: Int, option: Int, value: Addr, size: Int) -> None:
    """setsockopt(2)."""
    if size < 0:
        raise SysError(errno.EINVAL)
    sock = socket_of(task, fd).sock
    if level != so.SOL_SOCKET:
        sock.set_own_option(task, level, option, value, size)
        return
    if size < 4 and option != so.SO_BINDTODEVICE:
        raise SysError(errno.EINVAL)
    set_option(task, sock, option, task.mm.read(value, min(size, LONGEST)))


# Reading


def _peer_cred(task: Task, sock: Sock, size: int) -> bytes:
    cred = sock.peer_cred
    if cred is None:
        return so.UCRED.pack(0, 0xFFFFFFFF, 0xFFFFFFFF)
    pid, theirs = cred
    ns = task.cred.user_ns
    return so.UCRED.pack(pid.nr(task.pid.ns), ns.uid(theirs.euid), ns.gid(theirs.egid))


def _peer_name(task: Task, sock: Sock, size: int) -> bytes:
    name = sock.peer_name()
    if len(name) < size:
        raise SysError(errno.EINVAL)
    return name[:size]


def _error(task: Task, sock: Sock, size: int) -> bytes:
    return _int(sock.take_error())


def _cookie(task: Task, sock: Sock, size: int) -> bytes:
    if size < 8:
        raise SysError(errno.EINVAL)
    return sock.give_cookie().to_bytes(8, "little")


def _meminfo(task: Task, sock: Sock, size: int) -> bytes:
    received, sent = sock.memory()
    return _MEMINFO.pack(received, sock.rcvbuf, sent, sock.sndbuf, 0, 0, 0, 0, 0)


def _netns_cookie(task: Task, sock: Sock, size: int) -> bytes:
    if size != 8:
        raise SysError(errno.EINVAL)
    return (1).to_bytes(8, "little")


def _time(limit: int | None) -> bytes:
    microseconds = (limit or 0) // MICROSECOND
    return so.TIMEVAL.pack(microseconds // 1_000_000, microseconds % 1_000_000)


_GETTERS: dict[int, Callable[[Task, Sock, int], bytes]] = {
    so.SO_TYPE: lambda task, sock, size: _int(sock.type),
    so.SO_DOMAIN: lambda task, sock, size: _int(sock.family),
    so.SO_PROTOCOL: lambda task, sock, size: _int(sock.protocol),
    so.SO_ERROR: _error,
    so.SO_ACCEPTCONN: lambda task, sock, size: _int(sock.state == so.TCP_LISTEN),
    so.SO_SNDBUF: lambda task, sock, size: _int(sock.sndbuf),
    so.SO_RCVBUF: lambda task, sock, size: _int(sock.rcvbuf),
    so.SO_LINGER: lambda task, sock, size: so.LINGER.pack(*sock.options.linger),
    so.SO_BSDCOMPAT: lambda task, sock, size: _int(0),
    so.SO_REUSEPORT: lambda task, sock, size: _int(sock.options.stored.get(so.SO_REUSEPORT, 0)),
    so.SO_PEERCRED: _peer_cred,
    so.SO_PEERNAME: _peer_name,
    so.SO_RCVLOWAT: lambda task, sock, size: _int(sock.options.rcvlowat),
    so.SO_SNDLOWAT: lambda task, sock, size: _int(1),
    so.SO_BINDTODEVICE: lambda task, sock, size: b"",
    so.SO_ATTACH_FILTER: lambda task, sock, size: b"",
    so.SO_PEEK_OFF: lambda task, sock, size: _int(sock.options.peek_off),
    so.SO_BPF_EXTENSIONS: lambda task, sock, size: _int(64),
    so.SO_MAX_PACING_RATE: lambda task, sock, size: _LONG.pack(
        sock.options.stored.get(so.SO_MAX_PACING_RATE, -1)
    ),
    so.SO_MEMINFO: _meminfo,
    so.SO_INCOMING_NAPI_ID: lambda task, sock, size: _int(0),
    so.SO_COOKIE: _cookie,
    so.SO_ZEROCOPY: lambda task, sock, size: _int(0),
    so.SO_TXTIME: lambda task, sock, size: bytes(8),
    so.SO_NETNS_COOKIE: _netns_cookie,
    so.SO_BUF_LOCK: lambda task, sock, size: _int(sock.options.buf_lock),
    so.SO_RESERVE_MEM: lambda task, sock, size: _int(0),
}


def get_option(task: Task, sock: Sock, option: int, size: int) -> bytes:
    """One of SOL_SOCKET, as long as it is by itself; `size`: how much of it there is room for."""
    options = sock.options
    getter = _GETTERS.get(option)
    if getter is not None:
        return getter(task, sock, size)
    if option in _SWITCHES or option in _NUMBERS:
        return _int(options.stored.get(option, _DEFAULTS.get(option, 0)))
    if option in _FLAGS:
        if not sock.supports(option):
            raise SysError(errno.EOPNOTSUPP)
        return _int(getattr(options, _FLAGS[option]))
    if option in _STAMPS:
        shown = (option, so.SO_TIMESTAMPNS_NEW) if option == so.SO_TIMESTAMP_NEW else (option,)
        return _int(options.timestamp in shown)
    if option in _STAMPING:
        return _int(options.stored.get(so.SO_TIMESTAMPING, 0)) + _int(0)
    if option in _RECEIVE_TIMES:
        return _time(options.rcvtimeo)
    if option in _SEND_TIMES:
        return _time(options.sndtimeo)
    if option == so.SO_TXREHASH:
        raise SysError(errno.EOPNOTSUPP)
    raise SysError(errno.ENOPROTOOPT)


def _peer_groups(task: Task, sock: Sock, value: int, length: int, size: int) -> None:
    if sock.peer_cred is None:
        raise SysError(errno.ENODATA)
    ns = task.cred.user_ns
    groups = [ns.gid(group) for group in sock.peer_cred[1].groups]
    task.mm.write_u32(length, len(groups) * 4)
    if size < len(groups) * 4:
        raise SysError(errno.ERANGE)
    task.mm.write(value, b"".join([_int(group) for group in groups]))


def _peer_pidfd(task: Task, sock: Sock, value: int, length: int, size: int) -> None:
    if sock.peer_cred is None:
        raise SysError(errno.ENODATA)
    fd = task.install(PidFile(sock.peer_cred[0], 0), True)
    try:
        task.mm.write(value, _int(fd)[:size])
        task.mm.write_u32(length, min(size, 4))
    except SysError:
        task.files.close(fd)
        raise


@syscall(SYS.getsockopt)
def getsockopt(task: Task, fd: Fd, level: Int, option: Int, value: Addr, length: Addr) -> None:
    """getsockopt(2)."""
    sock = socket_of(task, fd).sock
    if level != so.SOL_SOCKET:
        sock.get_own_option(task, level, option, value, length)
        return
    size = task.mm.read_u32(length)
    if size >> 31:
        raise SysError(errno.EINVAL)
    if option == so.SO_PEERGROUPS:
        _peer_groups(task, sock, value, length, size)
        return
    if option == so.SO_PEERPIDFD:
        _peer_pidfd(task, sock, value, length, size)
        return
    data = get_option(task, sock, option, size)[:size]
    task.mm.write(value, data)
    task.mm.write_u32(length, len(data))
