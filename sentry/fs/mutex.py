"""A lock for the few places where an operation sleeps in the middle of changing something."""

from __future__ import annotations

from sentry.kernel.wait import WaitQueue, block


class Mutex:
    """`async with mutex:`; waiting for it is not interrupted by signals (it is short)."""

    __slots__ = ("_held", "_queue")

    def __init__(self) -> None:
        self._held = False
        self._queue = WaitQueue()

    async def __aenter__(self) -> None:
        while self._held:
            await block((self._queue, 1), interruptible=False, exclusive=True)
        self._held = True

    async def __aexit__(self, *_exc: object) -> None:
        self._held = False
        self._queue.wake(1, 1)
