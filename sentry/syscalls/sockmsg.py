"""sendmsg(2), recvmsg(2), sendmmsg(2), recvmmsg(2): struct msghdr and its control messages (cmsg(3))."""

from __future__ import annotations

import errno
from time import monotonic_ns, time_ns

from sentry.abi import socket as so
from sentry.abi.capability import CAP_SETGID, CAP_SETUID, CAP_SYS_ADMIN
from sentry.abi.errors import SysError
from sentry.abi.fcntl import IOV_MAX
from sentry.abi.syscall_nr import SYS
from sentry.abi.time import NS, TIMESPEC, unpack_timespec
from sentry.fs.pidfd import PidFile
from sentry.fs.socket import socket_of
from sentry.kernel.userns import INITIAL, OVERFLOW_ID
from sentry.kernel.wait import Interrupted, breathe
from sentry.net.socket import Ancillary, Message
from sentry.syscalls.file_io import iovecs
from sentry.syscalls.guestbytes import GuestSink, GuestSource
from sentry.syscalls.sockets import read_address, write_address
from sentry.syscalls.table import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.fs.socket import SocketFile
    from sentry.kernel.pids import Pid
    from sentry.kernel.task import Task
    from sentry.syscalls.args import Addr, Fd, UInt

#: net.core.optmem_max: how long control messages may be.
OPTMEM_MAX = 131072
MSG_CMSG_COMPAT = 0x80000000
#: struct mmsghdr is a struct msghdr and a length.
MMSGHDR_SIZE = 64
_NAMELEN_AT, _CONTROLLEN_AT, _FLAGS_AT, _LEN_AT = 8, 40, 48, 56


class Header:
    """A struct msghdr of the program."""

    __slots__ = ("addr", "control", "control_size", "name", "name_size", "vectors")

    def __init__(self, task: Task, addr: int) -> None:
        """SysError(EFAULT, EINVAL, EMSGSIZE)."""
        data = so.MSGHDR.unpack(task.mm.read(addr, so.MSGHDR.size))
        self.addr = addr
        self.name, name_size, vectors, count, self.control, self.control_size, _ = data
        if self.name and name_size >> 31:
            raise SysError(errno.EINVAL)
        self.name_size = min(name_size, so.ADDRESS_MAX) if self.name else 0
        if count > IOV_MAX:
            raise SysError(errno.EMSGSIZE)
        self.vectors = iovecs(task, vectors, count)


# Sending


def _read_control(task: Task, header: Header) -> Ancillary | None:
    """The control messages of SOL_SOCKET; SysError(EINVAL, EBADF, EPERM, ESRCH, ENOBUFS, EFAULT)."""
    size = header.control_size
    if not size:
        return None
    if size >= OPTMEM_MAX:
        raise SysError(errno.ENOBUFS)
    data = task.mm.read(header.control, size)
    ancillary = Ancillary()
    try:
        _take_control(task, data, ancillary)
    except SysError:
        ancillary.drop()
        raise
    return ancillary


def _take_control(task: Task, data: bytes, ancillary: Ancillary) -> None:
    at = 0
    while at + so.CMSGHDR.size <= len(data):
        length, level, kind = so.CMSGHDR.unpack_from(data, at)
        if length < so.CMSGHDR.size or length > len(data) - at:
            raise SysError(errno.EINVAL)
        if level == so.SOL_SOCKET:
            body = data[at + so.CMSGHDR.size : at + length]
            if kind == so.SCM_RIGHTS:
                _take_files(task, body, ancillary)
            elif kind == so.SCM_CREDENTIALS:
                _take_creds(task, body, ancillary)
            else:
                raise SysError(errno.EINVAL)
        at += length + 7 & ~7


def _take_files(task: Task, body: bytes, ancillary: Ancillary) -> None:
    count = len(body) // 4
    if len(ancillary.files) + count > so.SCM_MAX_FD:
        raise SysError(errno.EINVAL)
    for index in range(count):
        fd = int.from_bytes(body[4 * index : 4 * index + 4], "little", signed=True)
        if fd < 0:
            raise SysError(errno.EBADF)
        ancillary.files.append(task.files.get_any(fd).get())


def _take_creds(task: Task, body: bytes, ancillary: Ancillary) -> None:
    if len(body) != so.UCRED.size:
        raise SysError(errno.EINVAL)
    number, uid, gid = so.UCRED.unpack(body)
    cred, space = task.cred, task.pid.ns
    uid, gid = cred.user_ns.kuid(uid), cred.user_ns.kgid(gid)
    if (
        (number != task.group.pid.nr(space) and not cred.ns_capable(space.user_ns or INITIAL, CAP_SYS_ADMIN))
        or (uid not in (cred.uid, cred.euid, cred.suid) and not cred.own_capable(CAP_SETUID))
        or (gid not in (cred.gid, cred.egid, cred.sgid) and not cred.own_capable(CAP_SETGID))
    ):
        raise SysError(errno.EPERM)
    named = space.tasks.get(number) or space.groups.get(number)
    if named is None:
        raise SysError(errno.ESRCH)
    ancillary.creds = (named.pid, uid, gid)


async def _send(task: Task, file: SocketFile, addr: int, flags: int) -> tuple[int, bool]:
    """One message: (bytes sent, whether that was all)."""
    header = Header(task, addr)
    name = read_address(task, header.name, header.name_size)
    message = Message(flags | so.MSG_DONTWAIT if file.nonblock else flags, name)
    file.sock.check_connected()
    message.ancillary = _read_control(task, header)
    source = GuestSource(task, header.vectors)
    try:
        done = await file.sock.send(task, source, message)
    finally:
        if message.ancillary is not None:
            message.ancillary.drop()
    return done, not source.left


def _check_flags(flags: int) -> int:
    if flags & MSG_CMSG_COMPAT:
        raise SysError(errno.EINVAL)
    return flags & ~so.MSG_INTERNAL


@syscall(SYS.sendmsg)
async def sendmsg(task: Task, fd: Fd, header: Addr, flags: UInt) -> int:
    """sendmsg(2)."""
    flags = _check_flags(flags)
    file = socket_of(task, fd)
    file.get()
    try:
        return (await _send(task, file, header, flags))[0]
    finally:
        file.put()


@syscall(SYS.sendmmsg)
async def sendmmsg(task: Task, fd: Fd, headers: Addr, count: UInt, flags: UInt) -> int:
    """sendmmsg(2)."""
    flags = _check_flags(flags)
    file = socket_of(task, fd)
    file.get()
    sent = 0
    try:
        while sent < min(count, IOV_MAX):
            addr = headers + sent * MMSGHDR_SIZE
            done, whole = await _send(task, file, addr, flags)
            task.mm.write_u32(addr + _LEN_AT, done)
            sent += 1
            if not whole:
                break
            await breathe(sent)
    except (SysError, Interrupted):
        if not sent:
            raise
    finally:
        file.put()
    return sent


# Receiving


class _Control:
    """Where control messages for the program go, and how much room is left."""

    __slots__ = ("_addr", "_message", "_task", "left")

    def __init__(self, task: Task, header: Header, message: Message) -> None:
        self._task = task
        self._addr = header.control
        self._message = message
        self.left: int = min(header.control_size, 0x7FFFFFFF)

    def put(self, kind: int, data: bytes) -> None:
        """put_cmsg: as much of it as there is room for.  A bad address is nobody's error."""
        if not self._addr or self.left < so.CMSGHDR.size:
            self._message.out_flags |= so.MSG_CTRUNC
            return
        length = so.CMSGHDR.size + len(data)
        if self.left < length:
            self._message.out_flags |= so.MSG_CTRUNC
            length = self.left
        whole = so.CMSGHDR.pack(length, so.SOL_SOCKET, kind) + data
        try:
            self._task.mm.write(self._addr, whole[:length])
        except SysError:
            return
        self._move(len(whole) + 7 & ~7)

    def _move(self, size: int) -> None:
        size = min(size, self.left)
        self._addr += size
        self.left -= size

    def put_files(self, ancillary: Ancillary) -> None:
        """New descriptors for its files, as far as there is room and the table is not full."""
        task, files, cloexec = self._task, ancillary.files, self._message.flags & so.MSG_CMSG_CLOEXEC
        room = max(0, self.left - so.CMSGHDR.size) // 4
        done = 0
        for file in files[:room]:
            try:
                fd = task.install(file.get(), bool(cloexec))
            except SysError:
                break
            try:
                task.mm.write_u32(self._addr + so.CMSGHDR.size + 4 * done, fd)
            except SysError:
                task.files.close(fd)
                break
            done += 1
        if done:
            length = so.CMSGHDR.size + 4 * done
            try:
                task.mm.write(self._addr, so.CMSGHDR.pack(length, so.SOL_SOCKET, so.SCM_RIGHTS))
                self._move(length + 7 & ~7)
            except SysError:
                pass
        if done < len(files):
            self._message.out_flags |= so.MSG_CTRUNC

    def put_pidfd(self, pid: Pid | None) -> None:
        """A new descriptor of the sender's process, if there is room for its number."""
        if not self._addr or self.left < so.CMSGHDR.size + 4:
            self._message.out_flags |= so.MSG_CTRUNC
            return
        if pid is None:
            return
        try:
            fd = self._task.install(PidFile(pid, 0), True)
        except SysError as error:
            fd = -error.errno
        before = self.left
        self.put(so.SCM_PIDFD, (fd & 0xFFFFFFFF).to_bytes(4, "little"))
        if fd >= 0 and self.left == before:
            self._task.files.close(fd)


def _stamp(kind: int, at: int) -> bytes:
    if kind in (so.SO_TIMESTAMP, so.SO_TIMESTAMP_NEW):
        return so.TIMEVAL.pack(at // NS, at % NS // 1000)
    return TIMESPEC.pack(at // NS, at % NS)


def _packed_creds(task: Task, ancillary: Ancillary) -> bytes:
    if ancillary.creds is None:
        return so.UCRED.pack(0, OVERFLOW_ID, OVERFLOW_ID)
    pid, uid, gid = ancillary.creds
    ns = task.cred.user_ns
    return so.UCRED.pack(0 if pid is None else pid.nr(task.pid.ns), ns.uid(uid), ns.gid(gid))


def _write_control(task: Task, file: SocketFile, header: Header, message: Message) -> int:
    """Hand out what came along; how many bytes of the buffer that took."""
    options, ancillary = file.sock.options, message.ancillary
    control = _Control(task, header, message)
    room = control.left
    if ancillary is None:  # there was no message
        return 0
    if options.timestamp and message.stamped:
        at = time_ns() if message.timestamp is None else message.timestamp
        control.put(options.timestamp, _stamp(options.timestamp, at))
    if options.passcred:
        control.put(so.SCM_CREDENTIALS, _packed_creds(task, ancillary))
    if ancillary.files:
        if header.control:
            control.put_files(ancillary)
        else:
            message.out_flags |= so.MSG_CTRUNC
    if options.passpidfd:
        control.put_pidfd(None if ancillary.creds is None else ancillary.creds[0])
    if options.inq and message.inq is not None:
        control.put(so.SO_INQ, message.inq.to_bytes(4, "little"))
    return room - control.left


async def _receive(task: Task, file: SocketFile, addr: int, flags: int) -> tuple[int, int]:
    """One message: (bytes received, its flags)."""
    header = Header(task, addr)
    message = Message(flags | so.MSG_DONTWAIT if file.nonblock else flags)
    message.out_flags = flags & so.MSG_CMSG_CLOEXEC
    try:
        done = await file.sock.receive(task, GuestSink(task, header.vectors), message)
        used = _write_control(task, file, header, message)
    finally:
        if message.ancillary is not None:
            message.ancillary.drop()
    if header.name:
        write_address(task, message.name, header.name, addr + _NAMELEN_AT)
    task.mm.write_u32(addr + _FLAGS_AT, message.out_flags)
    task.mm.write_u64(addr + _CONTROLLEN_AT, used)
    return done, message.out_flags


@syscall(SYS.recvmsg)
async def recvmsg(task: Task, fd: Fd, header: Addr, flags: UInt) -> int:
    """recvmsg(2)."""
    if flags & MSG_CMSG_COMPAT:
        raise SysError(errno.EINVAL)
    file = socket_of(task, fd)
    file.get()
    try:
        return (await _receive(task, file, header, flags))[0]
    finally:
        file.put()


@syscall(SYS.recvmmsg)
async def recvmmsg(task: Task, fd: Fd, headers: Addr, count: UInt, flags: UInt, timeout: Addr) -> int:
    """recvmmsg(2).  The timeout is only looked at behind each message, as on Linux."""
    if flags & MSG_CMSG_COMPAT:
        raise SysError(errno.EINVAL)
    limit = unpack_timespec(task.mm.read(timeout, TIMESPEC.size)) if timeout else None
    deadline = None if limit is None else monotonic_ns() + limit
    file = socket_of(task, fd)
    file.get()
    try:
        got = await _receive_many(task, file, headers, count, flags, deadline)
    finally:
        file.put()
    if got and deadline is not None:
        left = max(0, deadline - monotonic_ns())
        task.mm.write(timeout, TIMESPEC.pack(left // NS, left % NS))
    return got


async def _receive_many(
    task: Task, file: SocketFile, headers: int, count: int, flags: int, deadline: int | None
) -> int:
    file.sock.check_error()
    got = 0
    try:
        while got < count:
            addr = headers + got * MMSGHDR_SIZE
            done, out_flags = await _receive(task, file, addr, flags & ~so.MSG_WAITFORONE)
            task.mm.write_u32(addr + _LEN_AT, done)
            got += 1
            if flags & so.MSG_WAITFORONE:
                flags |= so.MSG_DONTWAIT
            if out_flags & so.MSG_OOB or (deadline is not None and monotonic_ns() >= deadline):
                break
            await breathe(got)  # who only peeks, or is at the end, never runs out of messages
    except (SysError, Interrupted) as error:
        if not got:
            raise
        if isinstance(error, SysError) and error.errno != errno.EAGAIN:
            file.sock.keep_error(error.errno)
    return got
