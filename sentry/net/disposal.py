"""Letting go of much: files in messages, which may be sockets with messages, and so on.

`carry_out` does a little of it at once.  The rest is done by a job, between the turns of others, as Linux
does it by delayed work, so that nobody waits for that and no chain is too long.
"""

from __future__ import annotations

from _collections import deque

from sentry.kernel.wait import PARTS, yield_now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sentry.kernel.wait import Scheduler

#: Who has the turns.  Whoever queues anything of which there may be much tells us.
scheduler: Scheduler | None = None
#: Steps that are done at once, of all that is let go of in one turn of the loop.
AT_ONCE = 256
_turn = -1
_left = 0
#: What is being carried out while a step of it is done.
_work: deque[Iterator[None]] | None = None
#: To be called when that has come to its end.
_then: Callable[[], None] | None = None


def busy() -> bool:
    """Whether this is inside of a step."""
    return _work is not None


def afterwards(then: Callable[[], None]) -> None:
    """Inside of a step: call `then` when all is done."""
    global _then
    _then = then


def carry_out(steps: Iterator[None]) -> None:
    """Do `steps`, each little work: inside of another one behind what is under way, else now, as far as that
    is not too much."""
    global _turn, _left
    if _work is not None:
        _work.append(steps)
        return
    todo = deque([steps])
    if scheduler is None:
        while not _do(todo, AT_ONCE):
            pass
        return
    if scheduler.turns != _turn:
        _turn, _left = scheduler.turns, AT_ONCE
    if not _left or not _do(todo, _left):
        scheduler.spawn(_do_rest(todo))


def _do(todo: deque[Iterator[None]], count: int) -> bool:
    """`count` steps; whether that was all."""
    global _work, _left, _then
    _work = todo
    try:
        while todo:
            for _ in todo[0]:
                count -= 1
                _left = max(_left - 1, 0)
                if not count:
                    return False
            todo.popleft()
    finally:
        _work = None
    then, _then = _then, None
    if then is not None:
        then()
    return True


async def _do_rest(todo: deque[Iterator[None]]) -> None:
    while True:
        await yield_now()
        if _do(todo, PARTS):
            return
