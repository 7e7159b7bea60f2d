"""Limits that can be set in /proc/sys: those of the IPC namespace of whoever asks (kernel/{shm*,sem*,msg*},
fs/mqueue), and those of inotify, leases, pipes and asynchronous I/O (proc_sys_kernel(5), proc_sys_fs(5))."""

from __future__ import annotations

import errno

from sentry.abi.capability import CAP_CHECKPOINT_RESTORE, CAP_SYS_ADMIN
from sentry.abi.errors import SysError
from sentry.abi.ipc import IPCMNI
from sentry.abi.mman import PAGE_SIZE
from sentry.abi.mqueue import HARD_MSGMAX, HARD_MSGSIZEMAX, MIN_MSGSIZEMAX
from sentry.fs import aio, dnotify, inotify, leases, pipe
from sentry.fs.proc.base import Text, current_ipc, current_task

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sentry.kernel.ipc.namespace import IpcNamespace
    from sentry.kernel.kernel import Kernel

INT_MAX = 0x7FFFFFFF
ULONG_MAX = (1 << 64) - 1


def numbers(data: bytes, count: int, least: int, most: int) -> list[int]:
    """What was written to a sysctl of up to `count` numbers; SysError(EINVAL)."""
    words = data.split(b"\0", 1)[0].split()
    if not words or not all(word.removeprefix(b"-").isdigit() and len(word) < 24 for word in words[:count]):
        raise SysError(errno.EINVAL)
    values = [int(word) for word in words[:count]]
    if not all(least <= value <= most for value in values):
        raise SysError(errno.EINVAL)
    return values


def check_privilege(cap: int = CAP_SYS_ADMIN, other: int = CAP_SYS_ADMIN) -> None:
    """SysError(EPERM) unless whoever writes has one of the two capabilities."""
    task = current_task()
    if task is not None and not task.cred.capable(cap) and not task.cred.capable(other):
        raise SysError(errno.EPERM)


def _limit(
    table: str, field: str, least: int, most: int, done: Callable[[IpcNamespace], None] | None = None
) -> Text:
    """One number, `field` of the table of that name."""

    def make(kernel: Kernel) -> bytes:
        return b"%d\n" % getattr(getattr(current_ipc(kernel), table), field)

    def store(kernel: Kernel, data: bytes) -> None:
        check_privilege()
        ipc = current_ipc(kernel)
        (value,) = numbers(data, 1, least, most)
        setattr(getattr(ipc, table), field, value)
        if done is not None:
            done(ipc)

    return Text(0o644, make, store)


def _next_id(table: str) -> Text:
    def make(kernel: Kernel) -> bytes:
        return b"%d\n" % getattr(current_ipc(kernel), table).next_id

    def store(kernel: Kernel, data: bytes) -> None:
        check_privilege(CAP_CHECKPOINT_RESTORE)
        (getattr(current_ipc(kernel), table).next_id,) = numbers(data, 1, 0, INT_MAX)

    return Text(0o444, make, store)  # the capability lets its owner write all the same


def _sem(kernel: Kernel) -> bytes:
    sem = current_ipc(kernel).sem
    return b"%d\t%d\t%d\t%d\n" % (sem.msl, sem.mns, sem.opm, sem.mni)


def _store_sem(kernel: Kernel, data: bytes) -> None:
    check_privilege()
    sem = current_ipc(kernel).sem
    values = numbers(data, 4, 0, INT_MAX)
    values += [sem.msl, sem.mns, sem.opm, sem.mni][len(values) :]
    if not 0 <= values[3] <= IPCMNI:
        raise SysError(errno.EINVAL)
    sem.msl, sem.mns, sem.opm, sem.mni = values


def _rmid_forced(ipc: IpcNamespace) -> None:
    if ipc.shm.rmid_forced:
        ipc.shm.destroy_orphans()


def make_tree() -> dict[bytes, Any]:
    """What these add to /proc/sys/kernel."""
    return {
        b"auto_msgmni": Text(0o644, b"0\n", lambda kernel, data: None),
        b"msg_next_id": _next_id("msg"),
        b"msgmax": _limit("msg", "max", 0, INT_MAX),
        b"msgmnb": _limit("msg", "mnb", 0, INT_MAX),
        b"msgmni": _limit("msg", "mni", 0, IPCMNI),
        b"sem": Text(0o644, _sem, _store_sem),
        b"sem_next_id": _next_id("sem"),
        b"shm_next_id": _next_id("shm"),
        b"shm_rmid_forced": _limit("shm", "rmid_forced", 0, 1, _rmid_forced),
        b"shmall": _limit("shm", "all", 0, ULONG_MAX),
        b"shmmax": _limit("shm", "max", 0, ULONG_MAX),
        b"shmmni": _limit("shm", "mni", 0, IPCMNI),
    }


def make_mqueue_tree() -> dict[bytes, Any]:
    """/proc/sys/fs/mqueue (mq_overview(7))."""
    return {
        b"msg_default": _limit("mqueue", "msg_default", 1, HARD_MSGMAX),
        b"msg_max": _limit("mqueue", "msg_max", 1, HARD_MSGMAX),
        b"msgsize_default": _limit("mqueue", "msgsize_default", MIN_MSGSIZEMAX, HARD_MSGSIZEMAX),
        b"msgsize_max": _limit("mqueue", "msgsize_max", MIN_MSGSIZEMAX, HARD_MSGSIZEMAX),
        b"queues_max": _limit("mqueue", "queues_max", 0, INT_MAX),
    }


def _inotify_limit(field: str) -> Text:
    def store(kernel: Kernel, data: bytes) -> None:
        check_privilege()
        (value,) = numbers(data, 1, 0, INT_MAX)
        setattr(inotify.limits, field, value)

    return Text(0o644, lambda kernel: b"%d\n" % getattr(inotify.limits, field), store)


def make_inotify_tree() -> dict[bytes, Any]:
    """/proc/sys/fs/inotify (inotify(7))."""
    return {
        field.encode(): _inotify_limit(field)
        for field in ("max_queued_events", "max_user_instances", "max_user_watches")
    }


def _store_aio(kernel: Kernel, data: bytes) -> None:
    check_privilege()
    (aio.limits.most,) = numbers(data, 1, 0, INT_MAX)


def make_aio_tree() -> dict[bytes, Any]:
    """/proc/sys/fs/aio-*."""
    return {
        b"aio-max-nr": Text(0o644, lambda kernel: b"%d\n" % aio.limits.most, _store_aio),
        b"aio-nr": lambda kernel: b"%d\n" % aio.limits.used,
    }


def _store_pipe_size(kernel: Kernel, data: bytes) -> None:
    check_privilege()
    (size,) = numbers(data, 1, 0, INT_MAX)
    if size > pipe.LARGEST:
        raise SysError(errno.EINVAL)
    # A power of two of pages (round_pipe_size).
    pipe.limits.max_size = max(PAGE_SIZE, 1 << (max(size, 1) - 1).bit_length())


def _pipe_pages(field: str) -> Text:
    def store(kernel: Kernel, data: bytes) -> None:
        check_privilege()
        setattr(pipe.limits, field, numbers(data, 1, 0, INT_MAX)[0])

    return Text(0o644, lambda kernel: b"%d\n" % getattr(pipe.limits, field), store)


def make_pipe_tree() -> dict[bytes, Any]:
    """/proc/sys/fs/pipe-* (pipe(7))."""
    return {
        b"pipe-max-size": Text(0o644, lambda kernel: b"%d\n" % pipe.limits.max_size, _store_pipe_size),
        b"pipe-user-pages-hard": _pipe_pages("hard_pages"),
        b"pipe-user-pages-soft": _pipe_pages("soft_pages"),
    }


def make_lease_tree() -> dict[bytes, Any]:
    """/proc/sys/fs/lease* (fcntl(2))."""

    def text(field: str, most: int) -> Text:
        def store(kernel: Kernel, data: bytes) -> None:
            check_privilege()
            setattr(leases.limits, field, numbers(data, 1, 0, most)[0])

        return Text(0o644, lambda kernel: b"%d\n" % getattr(leases.limits, field), store)

    return {b"lease-break-time": text("break_time", INT_MAX), b"leases-enable": text("enabled", INT_MAX)}


def _store_dnotify(kernel: Kernel, data: bytes) -> None:
    check_privilege()
    (dnotify.limits.enabled,) = numbers(data, 1, 0, INT_MAX)


def make_dnotify_tree() -> dict[bytes, Any]:
    """/proc/sys/fs/dir-notify-enable (F_NOTIFY of fcntl(2))."""
    return {
        b"dir-notify-enable": Text(0o644, lambda kernel: b"%d\n" % dnotify.limits.enabled, _store_dnotify)
    }
