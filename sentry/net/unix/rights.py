"""Descriptors under way (SCM_RIGHTS): how many, whose, and which of them nobody can ever receive.

A socket may be sent through itself, or two through each other: closed then, they hold one another in their
queues.  `collect` finds such ones as Linux's garbage collector does: of the sockets that are only referred
to by messages, those that no other socket's messages can bring back are taken apart.
"""

from __future__ import annotations

import errno
from time import monotonic_ns

from sentry.abi.capability import CAP_SYS_ADMIN, CAP_SYS_RESOURCE
from sentry.abi.errors import SysError
from sentry.abi.resource import RLIMIT_NOFILE
from sentry.kernel.wait import each
from sentry.net import disposal
from sentry.net.disposal import carry_out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from typing import Any

    from sentry.kernel.task import Task
    from sentry.net.socket import Ancillary
    from sentry.net.unix.sock import UnixSock

#: Files under way by user id, and how often each Unix socket is.
_by_user: dict[int, int] = {}
_sockets: dict[UnixSock, int] = {}
#: With more sockets under way than this `collect` takes many turns; when it takes so long it pauses.
MANY, LONG_NS, PAUSE_NS = 256, 5_000_000, 100_000_000
#: So many sockets are known to be garbage by what holds in one turn.
LITTLE = 2048
#: Files under way in the whole sandbox at most: they need no descriptor, so nothing else limits them.
MOST = 1 << 18
_total = 0
#: How often anything has become, or ceased to be, under way, or was peeked at.
_changes = 0
#: A job of `collect` is under way, or what it has found is let go of; whether to look again then.
_collecting = _throwing = _again = False
_next_ns = 0


def attach(task: Task, ancillary: Ancillary) -> None:
    """Its files are under way from now on; SysError(ETOOMANYREFS), and then they are not."""
    global _total, _changes
    cred = task.cred
    user = cred.uid
    limited = not cred.capable(CAP_SYS_RESOURCE) and not cred.capable(CAP_SYS_ADMIN)
    if limited and _by_user.get(user, 0) > task.group.limit(RLIMIT_NOFILE):
        raise SysError(errno.ETOOMANYREFS)
    if _total + len(ancillary.files) > MOST:
        raise SysError(errno.ETOOMANYREFS)
    _total += len(ancillary.files)
    _changes += 1
    ancillary.user = user
    _by_user[user] = _by_user.get(user, 0) + len(ancillary.files)
    for file in ancillary.files:
        sock = _unix(file)
        if sock is not None:
            _sockets[sock] = _sockets.get(sock, 0) + 1


def detach(ancillary: Ancillary) -> list[Any]:
    """Its files, whose references pass, are under way no more."""
    global _total, _changes
    files, ancillary.files = ancillary.files, []
    _total -= len(files)
    _changes += 1
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


def peek(ancillary: Ancillary) -> list[Any]:
    """References of one's own to its files, which stay under way."""
    global _changes
    _changes += 1
    return [file.get() for file in ancillary.files]


def dropping(ancillary: Ancillary) -> Iterator[None]:
    """Let go of its files, for `disposal.carry_out`."""
    for file in detach(ancillary):
        file.put()
        yield


def _unix(file: Any) -> UnixSock | None:
    """The Unix socket behind a file, if it is one."""
    sock = getattr(file, "sock", None)
    return sock if hasattr(sock, "carried") else None


def closed() -> None:
    """A socket was closed: perhaps it was the last that could receive others."""
    global _again, _next_ns
    if not _sockets:
        return
    if disposal.busy():
        disposal.afterwards(closed)
        return
    if _collecting or _throwing:
        _again = True
        return
    now = monotonic_ns()
    if now >= _next_ns:
        collect()
        took = monotonic_ns() - now
        if took > LONG_NS:
            _pause(20 * took)


def _pause(length: int) -> None:
    """`collect` shall run again then, and not before."""
    global _next_ns
    _next_ns = monotonic_ns() + max(PAUSE_NS, length)
    if disposal.scheduler is not None:
        disposal.scheduler.at(_next_ns, collect)


def collect() -> None:
    """Throw away the messages of all sockets that can't be received any more: now, or by a job if there are
    many to look at."""
    global _again, _collecting
    if _collecting or _throwing:
        return
    _again = False
    if len(_sockets) <= MANY or disposal.scheduler is None:
        for _ in _collect():
            pass
    else:
        _collecting = True
        disposal.scheduler.spawn(_collect_slowly())


async def _collect_slowly() -> None:
    global _collecting
    began = monotonic_ns()
    try:
        await each(_collect())
    finally:
        _collecting = False
    if _again:
        _pause(5 * (monotonic_ns() - began))


def _collect() -> Iterator[None]:
    """The steps of it.  Between them sockets come and go, so what was found is looked at once more."""
    candidates: dict[UnixSock, int] = {}
    for sock in list(_sockets):
        count = _sockets.get(sock, 0)
        if _only_carried(sock, count):
            candidates[sock] = count
        yield
    inside = dict.fromkeys(candidates, 0)
    yield from _count(inside)
    reachable = []
    for sock, count in candidates.items():
        if inside[sock] < count:
            reachable.append(sock)
        yield
    while reachable:
        sock = reachable.pop()
        if candidates.pop(sock, None) is None:
            continue
        for ancillary in sock.carrying():
            reachable += [other for other in _sockets_of(ancillary) if other in candidates]
            yield
    if candidates and (yield from _is_garbage(candidates)):
        carry_out(_throwing_away(list(candidates)))


def _count(inside: dict[UnixSock, int]) -> Iterator[None]:
    """How often each of these sockets is in messages that one of them could receive."""
    for sock in inside:
        for ancillary in sock.carrying():
            for other in _sockets_of(ancillary):
                if other in inside:
                    inside[other] += 1
            yield


def _is_garbage(found: dict[UnixSock, int]) -> Generator[None, None, bool]:
    """Whether nobody but they themselves refer to them: in one turn, or in several during which nothing has
    become or ceased to be under way."""
    inside, before, little = dict.fromkeys(found, 0), _changes, len(found) <= LITTLE
    for _ in _count(inside):
        if not little:
            yield
    for sock, count in inside.items():
        if count != _sockets.get(sock, 0) or not _only_carried(sock, count):
            return False
        if not little:
            yield
    return _changes == before


def _throwing_away(garbage: list[UnixSock]) -> Iterator[None]:
    """What they carry, for `disposal.carry_out`.  Nobody can reach them meanwhile."""
    global _throwing
    _throwing = True
    try:
        for sock in garbage:
            for ancillary in sock.carrying():
                yield from dropping(ancillary)
    finally:
        _throwing = False


def _only_carried(sock: UnixSock, count: int) -> bool:
    """Whether nobody but messages refers to it, not even a call that sleeps."""
    file = sock.file
    return file is not None and file.refs == count and not file.c.holds


def _sockets_of(ancillary: Ancillary) -> Iterator[UnixSock]:
    """Those that come with a message."""
    for file in ancillary.files:
        other = _unix(file)
        if other is not None:
            yield other
