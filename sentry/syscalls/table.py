"""The system call table: which handler answers which number, and what `docs/syscalls.md` says of it.

    @syscall(SYS.read)
    async def read(task: Task, fd: Fd, buf: Addr, count: Size) -> int:
        \"\"\"read(2).\"\"\"

A handler is `def` when it never sleeps and `async def` when it may.  It returns an integer (or
None for 0) or raises SysError.  `on_signal` says what Interrupted becomes: it is restarted as
Linux does for that internal errno (include/linux/errno.h), or ends with EINTR.
"""

from __future__ import annotations

import errno

from sentry.abi.syscall_nr import NAMES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    F = TypeVar("F", bound=Callable[..., Any])

EINTR = errno.EINTR
ERESTARTSYS = 512  # restarted unless a handler without SA_RESTART runs
ERESTARTNOINTR = 513  # always restarted
ERESTARTNOHAND = 514  # restarted unless a handler runs
ERESTART_RESTARTBLOCK = 516  # continued by restart_syscall(2) unless a handler runs

_CO_COROUTINE = 0x80


class RestartBlock(Exception):
    """An interrupted sleep that goes on by `continuation(task)` (a coroutine function) unless a handler runs.

    Raised by handlers of calls with a relative timeout instead of Interrupted (restart_syscall(2)).
    """

    def __init__(self, continuation: Callable[[Any], Any]) -> None:
        super().__init__()
        self.continuation = continuation


class Syscall:
    """One line of the table.  `call(handler, task, regs)` decodes and calls; made at first use."""

    __slots__ = ("call", "handler", "is_async", "kinds", "name", "names", "nr", "on_signal", "partial")

    def __init__(self, nr: int, handler: Callable[..., Any], on_signal: int, partial: str) -> None:
        code = handler.__code__
        self.nr = nr
        self.name = NAMES[nr]
        self.handler = handler
        self.is_async = bool(code.co_flags & _CO_COROUTINE)
        self.names = code.co_varnames[1 : code.co_argcount]
        self.kinds = tuple(handler.__annotations__[name] for name in self.names)
        self.on_signal = on_signal
        self.partial = partial
        self.call: Callable[..., Any] | None = None


TABLE: dict[int, Syscall] = {}
#: Whose handlers are in a module that has not been imported: number → module.
LATE: dict[int, str] = {}
#: Calls that answer as a kernel does that was built without the feature: number → (errno, reason).
REFUSED: dict[int, tuple[int, str]] = {}


def syscall(nr: int, *, on_signal: int = ERESTARTSYS, partial: str = "") -> Callable[[F], F]:
    """Make the decorated function the handler of `nr`.

    `partial` names what is missing of the call's documented behaviour, for docs/syscalls.md.
    """

    def register(handler: F) -> F:
        assert nr not in TABLE and nr not in REFUSED, NAMES[nr]
        TABLE[nr] = Syscall(nr, handler, on_signal, partial)
        return handler

    return register


def refuse(nr: int, number: int, reason: str) -> None:
    """Answer `nr` always with errno `number`, as Linux does where the feature is compiled out."""
    assert nr not in TABLE and nr not in REFUSED, NAMES[nr]
    REFUSED[nr] = (number, reason)
