"""Argument decoding: a handler's annotations become one expression that reads the registers.

The annotations are these names (they are compared as strings, nothing is imported for them):

    Int Fd Signal Flags   32-bit signed             UInt Mode   32-bit unsigned
    Long                  64-bit signed             ULong Size Addr   64-bit unsigned
    Path                  the NUL-terminated path that the register points to, as bytes:
                          SysError(EFAULT), SysError(ENAMETOOLONG) from PATH_MAX (4096) on

As on Linux the upper half of a register that carries a 32-bit argument is ignored.
"""

from __future__ import annotations

import errno

from sentry.abi.errors import SysError
from sentry.abi.fcntl import PATH_MAX
from sentry.abi.mman import PAGE_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _struct import Struct
    from collections.abc import Callable
    from typing import Any, TypeAlias

    # What the annotations mean to a type checker.
    Int: TypeAlias = int
    Fd: TypeAlias = int
    Signal: TypeAlias = int
    Flags: TypeAlias = int
    UInt: TypeAlias = int
    Mode: TypeAlias = int
    Long: TypeAlias = int
    ULong: TypeAlias = int
    Size: TypeAlias = int
    Addr: TypeAlias = int
    Path: TypeAlias = bytes

REGISTERS = ("rdi", "rsi", "rdx", "r10", "r8", "r9")

_S32 = "((r.{0} & 0xffffffff ^ 0x80000000) - 0x80000000)"
_EXPRESSIONS = {
    "Int": _S32,
    "Fd": _S32,
    "Signal": _S32,
    "Flags": _S32,
    "UInt": "(r.{0} & 0xffffffff)",
    "Mode": "(r.{0} & 0xffffffff)",
    "Long": "((r.{0} ^ 0x8000000000000000) - 0x8000000000000000)",
    "ULong": "r.{0}",
    "Size": "r.{0}",
    "Addr": "r.{0}",
    "Path": "_path(t, r.{0})",
}
_compiled: dict[tuple[str, ...], Callable[..., Any]] = {}


def read_extensible(task: Any, addr: int, size: int, layout: Struct, least: int) -> tuple[Any, ...]:
    """The fields of a struct that grows with the kernel, of which the caller knows `size` bytes: those it
    does not know are 0, those that we do not know must be (openat2(2), "Extensibility").

    SysError(EINVAL) for less than `least` bytes, SysError(E2BIG, EFAULT)."""
    if size < least:
        raise SysError(errno.EINVAL)
    if size > PAGE_SIZE:
        raise SysError(errno.E2BIG)
    data: bytes = task.mm.read(addr, size)
    if any(data[layout.size :]):
        raise SysError(errno.E2BIG)
    return layout.unpack(data[: layout.size].ljust(layout.size, b"\0"))


def read_path(task: Any, addr: int) -> bytes:
    """The path at `addr` in the memory of `task`."""
    path: bytes | None = task.mm.read_cstring(addr, PATH_MAX)
    if path is None:
        raise SysError(errno.ENAMETOOLONG)
    return path


def decoder(kinds: tuple[str, ...]) -> Callable[..., Any]:
    """A function (handler, task, regs) that calls the handler with decoded arguments.

    Compiled at the first call of a signature, shared by all handlers that have the same one.
    """
    call = _compiled.get(kinds)
    if call is None:
        values = [
            _EXPRESSIONS[kind].format(register) for kind, register in zip(kinds, REGISTERS, strict=False)
        ]
        source = f"lambda f, t, r: f({', '.join(['t', *values])})"
        call = _compiled[kinds] = eval(source, {"_path": read_path})
    return call
