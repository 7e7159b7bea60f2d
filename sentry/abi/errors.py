"""SysError: the one exception that becomes an errno.

Raise a fresh instance (`raise SysError(errno.EBADF)`); only the system call dispatcher and the
9P server turn it into a number.  Whatever else escapes a handler is a bug of ours.
"""

from __future__ import annotations

import errno as _errno


class SysError(Exception):
    """A Linux error: `errno` is the positive number, as in <errno.h>."""

    def __init__(self, errno: int) -> None:
        super().__init__(errno)
        self.errno = errno

    def __str__(self) -> str:
        return _errno.errorcode.get(self.errno, str(self.errno))
