"""POSIX message queues and their file system (mq_overview(7); Linux ipc/mqueue.c).

A queue is a file of the flat mqueue file system; a message queue descriptor is an open file of it.  Messages
go out by priority, the oldest first; one that somebody waits for goes to him at once, and room that comes
free goes to the sender that has waited longest.
"""

from __future__ import annotations

import errno
from _heapq import heappop, heappush

from sentry.abi.capability import CAP_SYS_RESOURCE
from sentry.abi.errors import SysError
from sentry.abi.fcntl import SEEK_CUR, SEEK_END, SEEK_SET
from sentry.abi.mqueue import (
    FILENT_SIZE,
    HARD_MSGMAX,
    HARD_MSGSIZEMAX,
    MQ_PRIO_MAX,
    MQUEUE_MAGIC,
    NOTIFY_REMOVED,
    NOTIFY_WOKENUP,
    SI_MESGQ,
    SIGEV_SIGNAL,
)
from sentry.abi.poll import POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM
from sentry.abi.signal import SigInfo
from sentry.fs.dentry import Dentry, Mount, Path
from sentry.fs.file import File
from sentry.fs.inode import CACHE_NEVER, LIVE
from sentry.fs.tmpfs.inode import DirectoryInode, Tmpfs
from sentry.fs.tmpfs.node import TmpfsInode
from sentry.kernel.wait import WaitQueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.fs.inode import Inode
    from sentry.kernel.credentials import Credentials

#: What all queues of all namespaces may come to hold: it is the Sentry's own memory.
MAX_MEMORY = 256 << 20
#: sizeof(struct msg_msg), and of a node of the tree that it stands in: they count for RLIMIT_MSGQUEUE.
_MESSAGE_SIZE = _NODE_SIZE = 48


class Waiting:
    """A sleeping mq_timedreceive(2), whose `message` comes, or a mq_timedsend(2), whose `message` goes."""

    __slots__ = ("done", "message", "priority", "queue")

    def __init__(self, message: bytes = b"", priority: int = 0) -> None:
        self.message = message
        self.priority = priority
        self.done = False
        self.queue = WaitQueue()

    def end(self) -> None:
        self.done = True
        self.queue.wake()


class Notification:
    """mq_notify(2): whom to tell of the next message in an empty queue, and how."""

    __slots__ = ("cookie", "files", "group", "kind", "room", "signo", "value")

    def __init__(self, group: Any, files: int, kind: int, signo: int, value: int) -> None:
        self.group = group
        #: The descriptor table of the process: when it closes the queue, this ends.
        self.files = files
        self.kind = kind
        self.signo = signo
        self.value = value
        #: SIGEV_THREAD: where the cookie goes (a sentry.net.netlink.Room), and the cookie but for its code.
        self.room: Any = None
        self.cookie = b""

    def write_cookie(self, code: int) -> None:
        if self.room is not None:
            self.room.deliver(self.cookie + bytes((code,)))


class MqueueInode(TmpfsInode):
    __slots__ = (
        "_bytes", "_heap", "_sequence", "_user", "curmsgs", "maxmsg", "msgsize", "notify", "qsize", "queue",
        "receivers", "senders",
    )  # fmt: skip
    fs: Mqueue

    def __init__(self, fs: Mqueue, mode: int, uid: int, gid: int, maxmsg: int, msgsize: int) -> None:
        self._bytes = self._user = 0
        super().__init__(fs, fs.new_ino(), 0o100000 | mode, uid, gid)
        self.c.flags = LIVE
        self.size = FILENT_SIZE
        self.maxmsg, self.msgsize = maxmsg, msgsize
        #: (-priority, sequence, message).
        self._heap: list[tuple[int, int, bytes]] = []
        self._sequence = 0
        self.curmsgs = self.qsize = 0
        self.receivers: dict[Waiting, None] = {}
        self.senders: dict[Waiting, None] = {}
        self.notify: Notification | None = None
        #: All open files of the queue wait here.
        self.queue = WaitQueue()

    def charge(self, user: int, limit: int) -> None:
        """Count for `user`, whose RLIMIT_MSGQUEUE is `limit`; SysError(EMFILE, ENOMEM)."""
        most = self.maxmsg * (_MESSAGE_SIZE + self.msgsize) + min(self.maxmsg, MQ_PRIO_MAX) * _NODE_SIZE
        self.fs.charge_user(user, most, limit)
        self._user, self._bytes = user, most

    def __del__(self) -> None:
        if self._bytes:
            self.fs.charge_user(self._user, -self._bytes, 0)
        super().__del__()

    @staticmethod
    def charge_sender(size: int) -> None:
        """`size` bytes (maybe negative) more of a sender that waits for room; SysError(ENOMEM)."""
        if size > 0 and Mqueue.memory + size > MAX_MEMORY:
            raise SysError(errno.ENOMEM)
        Mqueue.memory += size

    @property
    def full(self) -> bool:
        return self.curmsgs >= self.maxmsg

    def send(self, message: bytes, priority: int, sender: Any) -> None:
        """Deliver a message for which there is room; `sender` is the process."""
        receiver = next(iter(self.receivers), None)
        if receiver is not None:
            del self.receivers[receiver]
            receiver.message, receiver.priority = message, priority
            receiver.end()
            return
        self._put(message, priority)
        self._tell(sender)
        self.queue.wake(POLLIN | POLLRDNORM)

    def tell(self, note: Notification) -> None:
        """Register for the next message; nobody else has."""
        self.notify = note
        self.c.guarded = 1  # closes of it are Python's from now on: one of them ends this

    def untell(self) -> None:
        """Whoever has registered is not to be told any more."""
        note, self.notify = self.notify, None
        if note is not None:
            note.write_cookie(NOTIFY_REMOVED)

    def _put(self, message: bytes, priority: int) -> None:
        self._sequence += 1
        heappush(self._heap, (-priority, self._sequence, message))
        self.curmsgs += 1
        self.qsize += len(message)

    def _tell(self, sender: Any) -> None:
        """The first message has arrived, and nobody was waiting for it."""
        note = self.notify
        if note is None or self.curmsgs != 1:
            return
        self.notify = None
        note.write_cookie(NOTIFY_WOKENUP)
        if note.kind == SIGEV_SIGNAL and note.signo:
            cred = sender.leader.cred
            note.group.send_signal(
                note.signo, SigInfo(note.signo, SI_MESGQ, sender.tgid, cred.uid, value=note.value)
            )

    def receive(self) -> tuple[bytes, int]:
        """(message, priority) of the first message of a queue that has one."""
        priority, _, message = heappop(self._heap)
        self.curmsgs -= 1
        self.qsize -= len(message)
        sender = next(iter(self.senders), None)
        if sender is None:
            self.queue.wake(POLLOUT | POLLWRNORM)
        else:
            del self.senders[sender]
            self._put(sender.message, sender.priority)
            sender.end()
        return message, -priority

    def poll(self) -> int:
        readable = POLLIN | POLLRDNORM if self.curmsgs else 0
        return readable | (0 if self.full else POLLOUT | POLLWRNORM)

    def text(self) -> bytes:
        """What read(2) shows of it."""
        note = self.notify
        signal = note is not None and note.kind == SIGEV_SIGNAL
        return b"QSIZE:%-10d NOTIFY:%-5d SIGNO:%-5d NOTIFY_PID:%-6d\n" % (
            self.qsize,
            note.kind if note is not None else 0,
            note.signo if note is not None and signal else 0,
            note.group.tgid if note is not None else 0,
        )

    async def open(self, path: Path, flags: int, cred: Credentials) -> File:
        return MqueueFile(self, flags, path)


class MqueueFile(File):
    """A message queue descriptor, or the file of a queue opened by name: they are the same."""

    __slots__ = ()
    inode: MqueueInode

    def __init__(self, inode: MqueueInode, flags: int, path: Path) -> None:
        super().__init__(inode, flags, path)
        self.queue = inode.queue

    def poll(self) -> int:
        return self.inode.poll()

    @property
    def seekable(self) -> bool:
        return True

    async def read(self, size: int) -> bytes:
        data = await self.pread(size, self.pos)
        self.pos += len(data)
        return data

    async def pread(self, size: int, offset: int) -> bytes:
        return self.inode.text()[offset : offset + size]

    async def pwrite(self, data: bytes, offset: int) -> int:
        raise SysError(errno.EINVAL)

    async def lseek(self, offset: int, whence: int) -> int:
        base = {SEEK_SET: 0, SEEK_CUR: self.pos, SEEK_END: FILENT_SIZE}.get(whence)
        if base is None or base + offset < 0:
            raise SysError(errno.EINVAL)
        self.pos = base + offset
        return self.pos

    def flush(self, owner: int) -> None:
        super().flush(owner)
        note = self.inode.notify
        if note is not None and note.files == owner:
            self.inode.untell()


class MqueueDirectory(DirectoryInode):
    """The root: queues can be made and removed here, and nothing else."""

    __slots__ = ()
    fs: Mqueue
    # Each mount of the file system has names of its own for the same files.
    caching = CACHE_NEVER
    plain = False

    async def create(self, name: bytes, mode: int, uid: int, gid: int) -> Inode:
        raise SysError(errno.EACCES)  # `make_queue` does, since it takes more than a name

    async def mkdir(self, name: bytes, mode: int, uid: int, gid: int) -> Inode:
        raise SysError(errno.EPERM)

    async def mknod(self, name: bytes, mode: int, rdev: int, uid: int, gid: int) -> Inode:
        raise SysError(errno.EPERM)

    async def symlink(self, name: bytes, target: bytes, uid: int, gid: int) -> Inode:
        raise SysError(errno.EPERM)

    async def link(self, name: bytes, inode: Inode) -> None:
        raise SysError(errno.EPERM)

    async def rename(self, name: bytes, new_dir: Inode, new_name: bytes, flags: int) -> None:
        raise SysError(errno.EPERM)

    async def tmpfile(self, mode: int, uid: int, gid: int) -> Inode:
        raise SysError(errno.EOPNOTSUPP)

    async def unlink(self, name: bytes) -> None:
        await super().unlink(name)
        self.fs.queues -= 1

    def add_queue(self, name: bytes, inode: MqueueInode) -> Inode:
        """Let `name`, which is vacant, be the new queue `inode`."""
        self._touch()
        self._put(name, inode)
        self.fs.queues += 1
        return inode


class Mqueue(Tmpfs):
    """The queues of one IPC namespace, and their limits (/proc/sys/fs/mqueue)."""

    type_name = b"mqueue"
    magic = MQUEUE_MAGIC
    #: Of MAX_MEMORY, how much is promised.
    memory = 0

    def __init__(self) -> None:
        super().__init__()
        self.queues_max, self.msg_max, self.msgsize_max = 256, 10, 8192
        self.msg_default, self.msgsize_default = 10, 8192
        self.queues = 0
        #: User id → bytes that the user's queues may come to hold.
        self.users: dict[int, int] = {}
        #: Where mq_open(3) looks names up.
        self.mount = Mount(self, Dentry(None, b"", self.root))

    def _make_root(self, mode: int, uid: int, gid: int) -> DirectoryInode:
        return MqueueDirectory(self, self.new_ino(), 0o040000 | mode, uid, gid)

    @property
    def place(self) -> Path:
        return Path(self.mount, self.mount.root)

    def charge_user(self, user: int, size: int, limit: int) -> None:
        """`size` bytes (maybe negative) more for `user`; SysError(EMFILE, ENOMEM)."""
        used = self.users.get(user, 0) + size
        if size > 0:
            if used > limit:
                raise SysError(errno.EMFILE)
            if Mqueue.memory + size > MAX_MEMORY:
                raise SysError(errno.ENOMEM)
        Mqueue.memory += size
        self.users[user] = used
        if not used:
            del self.users[user]

    def make_queue(
        self, mode: int, gid: int, attr: tuple[int, int] | None, cred: Credentials, limit: int
    ) -> MqueueInode:
        """A new queue; `attr` is (mq_maxmsg, mq_msgsize), `limit` RLIMIT_MSGQUEUE.

        SysError(ENOSPC, EINVAL, EMFILE, ENOMEM).
        """
        privileged = cred.capable(CAP_SYS_RESOURCE)
        if self.queues >= self.queues_max and not privileged:
            raise SysError(errno.ENOSPC)
        if attr is None:
            attr = min(self.msg_max, self.msg_default), min(self.msgsize_max, self.msgsize_default)
        maxmsg, msgsize = attr
        most = (HARD_MSGMAX, HARD_MSGSIZEMAX) if privileged else (self.msg_max, self.msgsize_max)
        if not 0 < maxmsg <= most[0] or not 0 < msgsize <= most[1]:
            raise SysError(errno.EINVAL)
        queue = MqueueInode(self, mode, cred.fsuid, gid, maxmsg, msgsize)
        queue.charge(cred.uid, limit)
        return queue
