"""The socket calls (socket(2), send(2), recv(2) and their kin), for every family."""

from __future__ import annotations

import errno

from sentry.abi.errors import SysError
from sentry.abi.fcntl import MAX_RW_COUNT
from sentry.abi.resource import RLIMIT_NOFILE
from sentry.abi.socket import (
    ADDRESS_MAX,
    AF_MAX,
    AF_NETLINK,
    AF_UNIX,
    MSG_DONTWAIT,
    MSG_INTERNAL,
    SOCK_CLOEXEC,
    SOCK_MAX,
    SOCK_NONBLOCK,
    SOCK_TYPE_MASK,
)
from sentry.abi.syscall_nr import SYS
from sentry.fs.socket import SocketFile, socket_of
from sentry.net import netlink, unix
from sentry.net.socket import Message
from sentry.syscalls.file_io import check_range
from sentry.syscalls.guestbytes import GuestSink, GuestSource
from sentry.syscalls.table import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.kernel.task import Task
    from sentry.net.namespace import NetNamespace
    from sentry.net.socket import Sock
    from sentry.syscalls.args import Addr, Fd, Int, Size, UInt

#: Family → what makes a Sock of it: (namespace, type, protocol).
FAMILIES: dict[int, Callable[[NetNamespace, int, int], Sock]] = {
    AF_UNIX: lambda net, type_, protocol: unix.create(net.unix, type_, protocol),
    AF_NETLINK: lambda net, type_, protocol: netlink.create(net.netlink_ports, type_, protocol),
}
ONE_FAMILY = "AF_UNIX, and of AF_NETLINK what mq_notify needs"


def _split_type(kind: int) -> tuple[int, bool, bool]:
    """(type, close on exec, O_NONBLOCK) of what socket(2) is given; SysError(EINVAL)."""
    if kind & ~(SOCK_TYPE_MASK | SOCK_CLOEXEC | SOCK_NONBLOCK):
        raise SysError(errno.EINVAL)
    return kind & SOCK_TYPE_MASK, bool(kind & SOCK_CLOEXEC), bool(kind & SOCK_NONBLOCK)


def _create(task: Task, family: int, type_: int, protocol: int) -> Sock:
    if not 0 <= family < AF_MAX:
        raise SysError(errno.EAFNOSUPPORT)
    if type_ >= SOCK_MAX:
        raise SysError(errno.EINVAL)
    make = FAMILIES.get(family)
    if make is None:
        raise SysError(errno.EAFNOSUPPORT)
    return make(task.nsproxy.net, type_, protocol)


@syscall(SYS.socket, partial=ONE_FAMILY + ": EAFNOSUPPORT for others")
def socket(task: Task, family: Int, kind: Int, protocol: Int) -> int:
    """socket(2)."""
    type_, cloexec, nonblock = _split_type(kind)
    return task.install(SocketFile(_create(task, family, type_, protocol), nonblock, task.cred), cloexec)


@syscall(SYS.socketpair, partial=ONE_FAMILY + ": EAFNOSUPPORT for others")
def socketpair(task: Task, family: Int, kind: Int, protocol: Int, pair: Addr) -> None:
    """socketpair(2): the numbers are written before anything is made."""
    type_, cloexec, nonblock = _split_type(kind)
    limit = task.group.limit(RLIMIT_NOFILE)
    first = task.files.free(0)
    second = task.files.free(first + 1)
    if second >= limit:
        raise SysError(errno.EMFILE)
    task.mm.write(pair, first.to_bytes(4, "little") + second.to_bytes(4, "little"))
    ends = []
    try:
        for _ in range(2):
            ends.append(SocketFile(_create(task, family, type_, protocol), nonblock, task.cred))
        ends[0].sock.pair(ends[1].sock, task)
    except SysError:
        for file in ends:
            file.put()
        raise
    try:
        task.install(ends[0], cloexec)
    except SysError:
        ends[1].put()
        raise
    try:
        task.install(ends[1], cloexec)
    except SysError:
        task.files.close(first)
        raise


def read_address(task: Task, addr: int, size: int) -> bytes:
    """A struct sockaddr of the program; SysError(EINVAL, EFAULT)."""
    if not 0 <= size <= ADDRESS_MAX:
        raise SysError(errno.EINVAL)
    return task.mm.read(addr, size)


def write_address(task: Task, address: bytes, addr: int, length: int) -> None:
    """Hand out `address`: as much as there is room for by the int at `length`, and then how long it is."""
    room = task.mm.read_u32(length)
    if room >> 31:
        raise SysError(errno.EINVAL)
    task.mm.write(addr, address[:room])
    task.mm.write_u32(length, len(address))


@syscall(SYS.bind)
async def bind(task: Task, fd: Fd, name: Addr, size: Int) -> None:
    """bind(2)."""
    file = socket_of(task, fd)
    address = read_address(task, name, size)
    file.get()
    try:
        await file.sock.bind(task, address)
    finally:
        file.put()


@syscall(SYS.listen)
def listen(task: Task, fd: Fd, backlog: Int) -> None:
    """listen(2)."""
    socket_of(task, fd).sock.listen(task, backlog)


@syscall(SYS.connect)
async def connect(task: Task, fd: Fd, name: Addr, size: Int) -> None:
    """connect(2)."""
    file = socket_of(task, fd)
    address = read_address(task, name, size)
    file.get()
    try:
        await file.sock.connect(task, address, file.nonblock)
    finally:
        file.put()


async def _accept(task: Task, fd: int, name: int, length: int, flags: int) -> int:
    found = task.files.get(fd)
    if flags & ~(SOCK_CLOEXEC | SOCK_NONBLOCK):
        raise SysError(errno.EINVAL)
    if task.files.free(0) >= task.group.limit(RLIMIT_NOFILE):
        raise SysError(errno.EMFILE)
    file = socket_of(task, fd)
    found.get()
    try:
        sock = await file.sock.accept(task, file.nonblock)
    finally:
        found.put()
    new = SocketFile(sock, bool(flags & SOCK_NONBLOCK), task.cred)
    if name:
        try:
            write_address(task, sock.accepted_name(), name, length)
        except SysError:
            new.put()
            raise
    return task.install(new, bool(flags & SOCK_CLOEXEC))


@syscall(SYS.accept)
async def accept(task: Task, fd: Fd, name: Addr, length: Addr) -> int:
    """accept(2)."""
    return await _accept(task, fd, name, length, 0)


@syscall(SYS.accept4)
async def accept4(task: Task, fd: Fd, name: Addr, length: Addr, flags: Int) -> int:
    """accept4(2)."""
    return await _accept(task, fd, name, length, flags)


@syscall(SYS.getsockname)
def getsockname(task: Task, fd: Fd, name: Addr, length: Addr) -> None:
    """getsockname(2)."""
    write_address(task, socket_of(task, fd).sock.name(), name, length)


@syscall(SYS.getpeername)
def getpeername(task: Task, fd: Fd, name: Addr, length: Addr) -> None:
    """getpeername(2)."""
    write_address(task, socket_of(task, fd).sock.peer_name(), name, length)


@syscall(SYS.shutdown)
def shutdown(task: Task, fd: Fd, how: Int) -> None:
    """shutdown(2)."""
    file = socket_of(task, fd)
    if not 0 <= how <= 2:
        raise SysError(errno.EINVAL)
    file.sock.shutdown(how + 1)


async def _send(file: SocketFile, task: Task, source: GuestSource, message: Message) -> int:
    if file.nonblock:
        message.flags |= MSG_DONTWAIT
    file.get()
    try:
        return await file.send_message(task, source, message)
    finally:
        if message.ancillary is not None:
            message.ancillary.drop()
        file.put()


@syscall(SYS.sendto)
async def sendto(task: Task, fd: Fd, buf: Addr, size: Size, flags: UInt, name: Addr, name_size: Int) -> int:
    """sendto(2)."""
    size = min(size, MAX_RW_COUNT)
    check_range(buf, size)
    file = socket_of(task, fd)
    message = Message(flags & ~MSG_INTERNAL, read_address(task, name, name_size) if name else b"")
    return await _send(file, task, GuestSource(task, [(buf, size)]), message)


@syscall(SYS.recvfrom)
async def recvfrom(task: Task, fd: Fd, buf: Addr, size: Size, flags: UInt, name: Addr, length: Addr) -> int:
    """recvfrom(2)."""
    size = min(size, MAX_RW_COUNT)
    check_range(buf, size)
    file = socket_of(task, fd)
    message = Message(flags | MSG_DONTWAIT if file.nonblock else flags)
    file.get()
    try:
        done = await file.sock.receive(task, GuestSink(task, [(buf, size)]), message)
        if name:
            write_address(task, message.name, name, length)
        return done
    finally:
        if message.ancillary is not None:
            message.ancillary.drop()
        file.put()
