"""Descriptors under way (SCM_RIGHTS): how many, whose, and which of them nobody can ever receive.

A socket may be sent through itself, or two through each other: closed then, they hold one another in their
queues.  `collect` finds such ones as Linux's garbage collector does: of the sockets that are only referred
to by messages, those that no other socket's messages can bring back are taken apart.
"""

from __future__ import annotations

import errno
from _collections import deque
from time import monotonic_ns

from sentry.abi.capability import CAP_SYS_ADMIN, CAP_SYS_RESOURCE
from sentry.abi.errors import SysError
from sentry.abi.resource import RLIMIT_NOFILE
from sentry.kernel import wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from sentry.kernel.task import Task
    from sentry.net.socket import Ancillary
    from sentry.net.unix.sock import UnixSock

#: Files under way by user id, and how often each Unix socket is.
_by_user: dict[int, int] = {}
_sockets: dict[UnixSock, int] = {}
#: With more sockets under way than this, or when it takes so long, `collect` runs at most that often.
MANY, LONG_NS, PAUSE_NS = 256, 5_000_000, 100_000_000
#: Files under way in the whole sandbox at most: they need no descriptor, so nothing else limits them.
MOST = 1 << 18
_total = 0
_collecting = False
_next_ns = 0
#: Files to be let go of.
_dropped: deque[Any] = deque()
_dropping = False


def attach(task: Task, ancillary: Ancillary) -> None:
    """Its files are under way from now on; SysError(ETOOMANYREFS), and then they are not."""
    global _total
    cred = task.cred
    user = cred.uid
    limited = not cred.capable(CAP_SYS_RESOURCE) and not cred.capable(CAP_SYS_ADMIN)
    if limited and _by_user.get(user, 0) > task.group.limit(RLIMIT_NOFILE):
        raise SysError(errno.ETOOMANYREFS)
    if _total + len(ancillary.files) > MOST:
        raise SysError(errno.ETOOMANYREFS)
    _total += len(ancillary.files)
    ancillary.user = user
    _by_user[user] = _by_user.get(user, 0) + len(ancillary.files)
    for file in ancillary.files:
        sock = _unix(file)
        if sock is not None:
            _sockets[sock] = _sockets.get(sock, 0) + 1


def detach(ancillary: Ancillary) -> list[Any]:
    """Its files, whose references pass, are under way no more."""
    global _total
    files, ancillary.files = ancillary.files, []
    _total -= len(files)
    left = _by_user.get(ancillary.user, 0) - len(files)
    if left > 0:
        _by_user[ancillary.user] = left
    else:
        _by_user.pop(ancillary.user, None)
    for file in files:
        sock = _unix(file)
        if sock is None:
            continue
        count = _sockets.get(sock, 0) - 1
        if count > 0:
            _sockets[sock] = count
        else:
            _sockets.pop(sock, None)
    return files


def drop(files: list[Any]) -> None:
    """Let go of files, one after the other: a socket that is closed by that may have carried others.  These
    wait for their turn, as those do that Linux closes by delayed work, so that no chain is too long."""
    global _dropping
    _dropped.extend(files)
    if _dropping:
        return
    _dropping = True
    try:
        while _dropped:
            _dropped.popleft().put()
    finally:
        _dropping = False


def _unix(file: Any) -> UnixSock | None:
    """The Unix socket behind a file, if it is one."""
    sock = getattr(file, "sock", None)
    return sock if hasattr(sock, "carried") else None


def closed() -> None:
    """A socket was closed: perhaps it was the last that could receive others."""
    global _next_ns
    if not _sockets or _collecting:
        return
    now = monotonic_ns()
    if now < _next_ns:
        return
    collect()
    took = monotonic_ns() - now
    if len(_sockets) > MANY or took > LONG_NS:
        _next_ns = now + max(PAUSE_NS, 20 * took)
        if wait._current is not None:
            wait._current.scheduler.at(_next_ns, collect)


def collect() -> None:
    """Throw away the messages of all sockets that can't be received any more."""
    global _collecting
    candidates = {sock: count for sock, count in _sockets.items() if _only_carried(sock, count)}
    inside = dict.fromkeys(candidates, 0)
    for sock in candidates:
        for other in _carried_by(sock):
            if other in inside:
                inside[other] += 1
    reachable = [sock for sock, count in candidates.items() if inside[sock] < count]
    while reachable:
        sock = reachable.pop()
        if candidates.pop(sock, None) is not None:
            reachable += [other for other in _carried_by(sock) if other in candidates]
    files = [file for sock in candidates for file in sock.take_carried()]
    _collecting = True
    try:
        drop(files)
    finally:
        _collecting = False


def _only_carried(sock: UnixSock, count: int) -> bool:
    """Whether nobody but messages refers to it, not even a call that sleeps."""
    file = sock.file
    return file is not None and file.refs == count and not file.c.holds


def _carried_by(sock: UnixSock) -> Iterator[UnixSock]:
    """The sockets in the messages that `sock` could receive; one that listens, by accepting."""
    for file in sock.carried():
        other = _unix(file)
        if other is not None:
            yield other
