"""POSIX message queues: mq_open, mq_unlink, mq_timedsend, mq_timedreceive, mq_notify, mq_getsetattr."""

from __future__ import annotations

import errno
from time import monotonic_ns, time_ns

from sentry.abi.errors import SysError
from sentry.abi.fcntl import O_ACCMODE, O_CREAT, O_EXCL, O_NONBLOCK, O_RDWR, O_WRONLY
from sentry.abi.mqueue import (
    MQ_ATTR,
    MQ_PRIO_MAX,
    NOTIFY_COOKIE_LEN,
    SIGEV_NONE,
    SIGEV_SIGNAL,
    SIGEV_THREAD,
    SIGEVENT,
    SIGEVENT_SIZE,
)
from sentry.abi.resource import RLIMIT_MSGQUEUE
from sentry.abi.signal import NSIG
from sentry.abi.syscall_nr import SYS
from sentry.abi.time import TIMESPEC, unpack_timespec
from sentry.fs import dcache, modify
from sentry.fs.dentry import Path as FsPath
from sentry.fs.mqueue import MqueueDirectory, MqueueFile, Notification, Waiting
from sentry.fs.opening import CREATION_FLAGS
from sentry.fs.socket import socket_of
from sentry.fs.walk import MAY_READ, MAY_WRITE, permission
from sentry.kernel.wait import Interrupted, block
from sentry.net.netlink import NetlinkSock
from sentry.syscalls.table import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.fs.inode import Inode
    from sentry.kernel.task import Task
    from sentry.syscalls.args import Addr, Fd, Int, Mode, Path, Size, UInt

_NAME_MAX = 255


def _check_name(name: bytes) -> None:
    """The C library has taken the leading slash away."""
    if not name:
        raise SysError(errno.ENOENT)
    if len(name) > _NAME_MAX:
        raise SysError(errno.ENAMETOOLONG)
    if b"/" in name or name in (b".", b".."):
        raise SysError(errno.EACCES)


@syscall(SYS.mq_open)
async def mq_open(task: Task, name: Path, flags: Int, mode: Mode, attr: Addr) -> int:
    """mq_open(2); the descriptor is close-on-exec, whatever `flags` say."""
    wanted = None
    if attr:
        _, maxmsg, msgsize, _ = MQ_ATTR.unpack(task.mm.read(attr, MQ_ATTR.size))
        wanted = (maxmsg, msgsize)
    _check_name(name)
    fs = task.ipc.mqueue
    place = fs.place
    dentry = await dcache.lookup(place.dentry, name)
    if dentry.inode is None:
        if not flags & O_CREAT:
            raise SysError(errno.ENOENT)

        async def make(directory: Inode, bits: int, gid: int) -> Inode:
            assert isinstance(directory, MqueueDirectory)
            limit = task.group.limit(RLIMIT_MSGQUEUE)
            return directory.add_queue(name, fs.make_queue(bits, gid, wanted, task.cred, limit))

        dentry = await modify.create(place, name, mode, task.fs.umask, task.cred, make)
    else:
        if flags & (O_CREAT | O_EXCL) == O_CREAT | O_EXCL:
            raise SysError(errno.EEXIST)
        access = flags & O_ACCMODE
        if access == O_RDWR | O_WRONLY:
            raise SysError(errno.EINVAL)
        permission(dentry.inode, task.cred, (MAY_READ, MAY_WRITE, MAY_READ | MAY_WRITE)[access])
    path = FsPath(place.mount, dentry)
    file = await path.inode.open(path, flags & (O_ACCMODE | O_NONBLOCK) & ~CREATION_FLAGS, task.cred)
    return task.install(file, True)


@syscall(SYS.mq_unlink)
async def mq_unlink(task: Task, name: Path) -> None:
    """mq_unlink(2)."""
    _check_name(name)
    await modify.unlink(task.ipc.mqueue.place, name, False, task.cred)


def _queue(task: Task, fd: int) -> MqueueFile:
    file = task.files.get(fd)
    if not isinstance(file, MqueueFile):
        raise SysError(errno.EBADF)
    return file


def _deadline(task: Task, addr: int) -> int | None:
    """The CLOCK_REALTIME at `addr` as a time of CLOCK_MONOTONIC; None: never.  SysError(EFAULT, EINVAL)."""
    if not addr:
        return None
    return unpack_timespec(task.mm.read(addr, TIMESPEC.size)) - time_ns() + monotonic_ns()


async def _sleep(waiting: Waiting, waiters: dict[Waiting, None], deadline: int | None) -> None:
    """Until somebody has dealt with `waiting`; SysError(ETIMEDOUT), Interrupted."""
    waiters[waiting] = None
    try:
        while not waiting.done:
            try:
                if not await block((waiting.queue, 1), deadline=deadline) and not waiting.done:
                    raise SysError(errno.ETIMEDOUT)
            except Interrupted:
                if not waiting.done:
                    raise
    finally:
        waiters.pop(waiting, None)


@syscall(SYS.mq_timedsend)
async def mq_timedsend(task: Task, fd: Fd, msg: Addr, size: Size, priority: UInt, timeout: Addr) -> None:
    """mq_send(3)."""
    deadline = _deadline(task, timeout)
    if priority >= MQ_PRIO_MAX:
        raise SysError(errno.EINVAL)
    file = _queue(task, fd)
    if not file.writable:
        raise SysError(errno.EBADF)
    queue = file.inode
    if size > queue.msgsize:
        raise SysError(errno.EMSGSIZE)
    data = task.mm.read(msg, size)
    if not queue.full:
        queue.send(data, priority, task.group)
        return
    if file.flags & O_NONBLOCK:
        raise SysError(errno.EAGAIN)
    queue.charge_sender(size)
    file.get()
    try:
        await _sleep(Waiting(data, priority), queue.senders, deadline)
    finally:
        queue.charge_sender(-size)
        file.put()


@syscall(SYS.mq_timedreceive)
async def mq_timedreceive(task: Task, fd: Fd, msg: Addr, size: Size, priority: Addr, timeout: Addr) -> int:
    """mq_receive(3)."""
    deadline = _deadline(task, timeout)
    file = _queue(task, fd)
    if not file.readable:
        raise SysError(errno.EBADF)
    queue = file.inode
    if size < queue.msgsize:
        raise SysError(errno.EMSGSIZE)
    if queue.curmsgs:
        data, number = queue.receive()
    else:
        if file.flags & O_NONBLOCK:
            raise SysError(errno.EAGAIN)
        waiting = Waiting()
        file.get()
        try:
            await _sleep(waiting, queue.receivers, deadline)
        finally:
            file.put()
        data, number = waiting.message, waiting.priority
    if priority:
        task.mm.write_u32(priority, number)
    task.mm.write(msg, data)
    return len(data)


@syscall(SYS.mq_notify)
async def mq_notify(task: Task, fd: Fd, event: Addr) -> None:
    """mq_notify(2)."""
    value = signo = kind = 0
    if event:
        value, signo, kind = SIGEVENT.unpack(task.mm.read(event, SIGEVENT_SIZE)[: SIGEVENT.size])
        if kind not in (SIGEV_NONE, SIGEV_SIGNAL, SIGEV_THREAD):
            raise SysError(errno.EINVAL)
        if kind == SIGEV_SIGNAL and not 0 <= signo <= NSIG:
            raise SysError(errno.EINVAL)
    note = Notification(task.group, task.files.owner, kind, signo, value)
    if kind == SIGEV_THREAD:
        cookie = task.mm.read(value, NOTIFY_COOKIE_LEN)
        sock = socket_of(task, signo).sock
        if not isinstance(sock, NetlinkSock):
            raise SysError(errno.EINVAL)
        note.room, note.cookie = await sock.reserve(), cookie[:-1]
    queue = _queue(task, fd).inode
    group = task.group
    if not event:
        if queue.notify is not None and queue.notify.group is group:
            queue.untell()
    elif queue.notify is not None:
        raise SysError(errno.EBUSY)
    else:
        queue.tell(note)


@syscall(SYS.mq_getsetattr)
def mq_getsetattr(task: Task, fd: Fd, new: Addr, old: Addr) -> None:
    """mq_getsetattr(2): of what is set, only O_NONBLOCK counts."""
    flags = None
    if new:
        flags = MQ_ATTR.unpack(task.mm.read(new, MQ_ATTR.size))[0]
        if flags & ~O_NONBLOCK:
            raise SysError(errno.EINVAL)
    file = _queue(task, fd)
    queue = file.inode
    before = MQ_ATTR.pack(file.flags & O_NONBLOCK, queue.maxmsg, queue.msgsize, queue.curmsgs)
    if flags is not None:
        file.flags = file.flags & ~O_NONBLOCK | flags
    if old:
        task.mm.write(old, before)
