"""Reading and writing guest memory on behalf of system calls (copy_from_user and its kind).

Every helper checks that the range is guest memory, asks the platform, and on EFAULT once tries
what a page fault of the guest would have done: grow a stack.  Sizes are limited by the caller.
"""

from __future__ import annotations

import errno
from _struct import Struct

from sentry.abi.errors import SysError
from sentry.abi.mman import PAGE_MASK, PAGE_SIZE
from sentry.platform.base import GUEST_TOP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.platform.base import AddressSpace

_U32 = Struct("<I")
_U64 = Struct("<Q")
#: First piece of a string that is read: most paths fit.
_STRING_PIECE = 256


class GuestAccess:
    """The part of MemoryManager that system calls use most."""

    __slots__ = ("space",)

    space: AddressSpace

    def _grow_stack(self, addr: int, size: int) -> bool:
        """Grow a stack over the unmapped beginning of [addr, addr+size); whether that was done."""
        raise NotImplementedError

    def _retry(self, addr: int, size: int, error: SysError) -> None:
        """After `error`: return if the access should be tried again, else raise it."""
        if error.errno != errno.EFAULT or not self._grow_stack(addr, size):
            raise error

    def read(self, addr: int, size: int) -> bytes:
        """Exactly `size` bytes, or SysError(EFAULT)."""
        if size == 0:
            return b""
        if addr + size > GUEST_TOP:
            raise SysError(errno.EFAULT)
        try:
            return self.space.read(addr, size)
        except SysError as error:
            self._retry(addr, size, error)
        return self.space.read(addr, size)

    def write(self, addr: int, data: bytes | bytearray | memoryview) -> None:
        """All of `data`, or SysError(EFAULT) (a prefix may have been written)."""
        size = len(data)
        if size == 0:
            return
        if addr + size > GUEST_TOP:
            raise SysError(errno.EFAULT)
        try:
            self.space.write(addr, data)
        except SysError as error:
            self._retry(addr, size, error)
            self.space.write(addr, data)

    def read_upto(self, addr: int, size: int) -> bytes:
        """As many of `size` bytes as can be read, at least one (unless size is 0), or SysError(EFAULT)."""
        if size == 0:
            return b""
        if addr >= GUEST_TOP:
            raise SysError(errno.EFAULT)
        size = min(size, GUEST_TOP - addr)
        try:
            return self.space.read_upto(addr, size)
        except SysError as error:
            self._retry(addr, size, error)
        return self.space.read_upto(addr, size)

    def write_upto(self, addr: int, data: bytes | bytearray | memoryview) -> int:
        """As much of `data` as can be written: bytes written, at least one, or SysError(EFAULT)."""
        size = len(data)
        if size == 0:
            return 0
        if addr >= GUEST_TOP:
            raise SysError(errno.EFAULT)
        if addr + size > GUEST_TOP:
            data = data[: GUEST_TOP - addr]
        try:
            return self.space.write_upto(addr, data)
        except SysError as error:
            self._retry(addr, size, error)
        return self.space.write_upto(addr, data)

    def read_cstring(self, addr: int, limit: int) -> bytes | None:
        """The bytes before the NUL at or after `addr`; None if there is none within `limit` bytes.

        SysError(EFAULT) when memory ends before either.  Never reads beyond the page of the NUL.
        """
        pieces: list[bytes] = []
        want = _STRING_PIECE
        while limit > 0:
            size = min(limit, want, PAGE_SIZE - (addr & PAGE_MASK))
            piece = self.read(addr, size)
            end = piece.find(0)
            if end >= 0:
                piece = piece[:end]
                return b"".join([*pieces, piece]) if pieces else piece
            pieces.append(piece)
            addr += size
            limit -= size
            want = PAGE_SIZE
        return None

    def read_u32(self, addr: int) -> int:
        value: int = _U32.unpack(self.read(addr, 4))[0]
        return value

    def read_u64(self, addr: int) -> int:
        value: int = _U64.unpack(self.read(addr, 8))[0]
        return value

    def write_u32(self, addr: int, value: int) -> None:
        self.write(addr, _U32.pack(value & 0xFFFFFFFF))

    def write_u64(self, addr: int, value: int) -> None:
        self.write(addr, _U64.pack(value & 0xFFFFFFFFFFFFFFFF))
