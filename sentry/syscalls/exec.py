"""execve(2) and execveat(2)."""

from __future__ import annotations

import errno

from sentry.abi.errors import SysError
from sentry.abi.fcntl import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW
from sentry.abi.mman import PAGE_MASK, PAGE_SIZE
from sentry.abi.syscall_nr import SYS
from sentry.fs import walk
from sentry.kernel.exec import execve as replace_program
from sentry.kernel.task import NO_RESULT
from sentry.syscalls.table import ERESTARTNOINTR, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.fs.dentry import Path as FsPath
    from sentry.kernel.task import Task
    from sentry.mm.manager import MemoryManager
    from sentry.syscalls.args import Addr, Fd, Flags, Path

MAX_STRING = 128 * 1024
MAX_TOTAL = 6 * 1024 * 1024
POINTER = 8


class _Reader:
    """Reads guest memory a page at a time, since the arrays and strings of an execve lie close together."""

    __slots__ = ("data", "mm", "start")

    def __init__(self, mm: MemoryManager) -> None:
        self.mm = mm
        self.start = 0
        self.data = b""

    def at(self, addr: int) -> bytes:
        """What is readable from `addr` on to the end of its page: at least a byte, or SysError(EFAULT)."""
        skip = addr - self.start
        if not 0 <= skip < len(self.data):
            self.start = start = addr & ~PAGE_MASK
            skip = addr - start
            self.data = b""  # in case of EFAULT
            self.data = self.mm.read(start, PAGE_SIZE)
        return self.data[skip:] if skip else self.data

    def string(self, addr: int, limit: int) -> bytes:
        """The string at `addr`; SysError(E2BIG) when it has no end within `limit` bytes."""
        text = b""
        while True:
            piece = self.at(addr + len(text))
            end = piece.find(0)
            text += piece if end < 0 else piece[:end]
            if len(text) >= limit:
                raise SysError(errno.E2BIG)
            if end >= 0:
                return text


def read_strings(pointers: _Reader, texts: _Reader, addr: int) -> list[bytes]:
    """The NULL-terminated array of strings at `addr` (argv, envp); SysError(E2BIG, EFAULT)."""
    strings: list[bytes] = []
    total = 0
    if not addr:
        return strings
    mm = texts.mm
    while True:
        data = pointers.at(addr)
        if len(data) < POINTER:
            data = mm.read(addr, POINTER)
        for pointer in memoryview(data[: len(data) & -POINTER]).cast("Q"):
            if not pointer:
                return strings
            skip = pointer - texts.start
            end = texts.data.find(0, skip) if skip >= 0 else -1
            # Most strings lie in the page of the one before.
            text = texts.data[skip:end] if end >= 0 else texts.string(pointer, MAX_STRING)
            total += len(text) + 1 + POINTER
            if total > MAX_TOTAL:
                raise SysError(errno.E2BIG)
            strings.append(text)
            addr += POINTER


async def _exec(
    task: Task, path: FsPath, filename: bytes, argv: int, envp: int, script_name: bytes | None
) -> object:
    pointers, texts = _Reader(task.mm), _Reader(task.mm)
    arguments = read_strings(pointers, texts, argv)
    environment = read_strings(pointers, texts, envp)
    await replace_program(task, path, filename, arguments, environment, script_name)
    return NO_RESULT


@syscall(SYS.execve, on_signal=ERESTARTNOINTR)
async def execve(task: Task, path: Path, argv: Addr, envp: Addr) -> object:
    """execve(2)."""
    where = await task.kernel.templates.walk(task, path)
    return await _exec(task, where, path, argv, envp, None)


@syscall(SYS.execveat, on_signal=ERESTARTNOINTR)
async def execveat(task: Task, dirfd: Fd, path: Path, argv: Addr, envp: Addr, flags: Flags) -> object:
    """execveat(2)."""
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        raise SysError(errno.EINVAL)
    filename = path
    hidden = False
    if not path.startswith(b"/") and dirfd != AT_FDCWD:
        filename = b"/dev/fd/%d" % dirfd + (b"/" + path if path else b"")
    if not path:
        if not flags & AT_EMPTY_PATH:
            raise SysError(errno.ENOENT)
        file = task.files.get_any(dirfd)
        if file.path is None:
            raise SysError(errno.EACCES)
        where = file.path
        hidden = task.files.cloexec(dirfd)
    else:
        start = walk.start_of(task, dirfd, path)
        where = await walk.walk(task.fs, task.cred, path, start, follow=not flags & AT_SYMLINK_NOFOLLOW)
        if where.inode.is_symlink:
            raise SysError(errno.ELOOP)
        hidden = filename is not path and task.files.cloexec(dirfd)
    # A script's interpreter could not open it through a descriptor that is closed by then.
    return await _exec(task, where, filename, argv, envp, b"" if hidden else filename)
