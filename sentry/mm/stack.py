"""The first stack of a program: strings, auxiliary vector, environment, arguments (create_elf_tables).

From the top: a null word, the file name, the environment's strings, the arguments' strings, some
random distance, "x86_64", 16 random bytes, then, 16-byte aligned, auxv, envp, argv and argc, where
the stack pointer is.
"""

from __future__ import annotations

import errno
from _struct import pack

from sentry.abi import auxv as at
from sentry.abi.errors import SysError
from sentry.abi.mman import PAGE_MASK, PAGE_SIZE, VM_EXEC, VM_GROWSDOWN, VM_MAYALL, VM_READ, VM_WRITE
from sentry.mm.layout import random_below

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.credentials import Credentials
    from sentry.mm.manager import MemoryManager

#: One string, with its NUL (MAX_ARG_STRLEN).
MAX_STRING = 32 * PAGE_SIZE
_ARG_MAX = 131072
_MAX_STRINGS_SIZE = 6 << 20
#: What a stack has beyond its first contents (setup_arg_pages).
_STACK_EXPAND = 131072
_PLATFORM = b"x86_64\0"
_TABLE_ROOM = 2 * PAGE_SIZE + 1024


def argument_limit(stack_limit: int) -> int:
    """Bytes that arguments, environment and their pointers may take under this RLIMIT_STACK."""
    return max(min(stack_limit // 4, _MAX_STRINGS_SIZE), _ARG_MAX)


def check_arguments(argv: list[bytes], envp: list[bytes], execfn: bytes, stack_limit: int) -> None:
    """SysError(E2BIG) for what execve(2) would not take ("Limits on size of arguments")."""
    total = len(execfn) + 1 + 8 * (len(argv) + len(envp))
    for strings in (argv, envp):
        for string in strings:
            if len(string) >= MAX_STRING:
                raise SysError(errno.E2BIG)
            total += len(string) + 1
    if total > argument_limit(stack_limit):
        raise SysError(errno.E2BIG)


def stack_size(argv: list[bytes], envp: list[bytes], execfn: bytes, stack_limit: int) -> int:
    """How large the first stack is: enough for its first contents, and a little more.  SysError(E2BIG)."""
    check_arguments(argv, envp, execfn, stack_limit)
    contents = sum(map(len, argv)) + sum(map(len, envp)) + 9 * (len(argv) + len(envp)) + len(execfn)
    contents = (contents + _TABLE_ROOM + 8192 + PAGE_MASK) & ~PAGE_MASK
    return max(min(contents + _STACK_EXPAND, stack_limit & ~PAGE_MASK), contents)


def make_stack(mm: MemoryManager, size: int, executable: bool, is_there: bool) -> None:
    """Map the stack, or only book one that `is_there`.  SysError(ENOMEM)."""
    flags = VM_READ | VM_WRITE | VM_MAYALL | VM_GROWSDOWN | (VM_EXEC if executable else 0)
    start = mm.layout.stack_top - size
    if mm.tree.overlapping(start, start + size):
        raise SysError(errno.ENOMEM)  # a program that wants to be where its stack is
    if is_there:
        mm.book(start, size, flags)
    else:
        mm.map_at(start, size, flags)


def build_stack(
    mm: MemoryManager, argv: list[bytes], envp: list[bytes], execfn: bytes, random16: bytes,
    cred: Credentials, secure: bool | None, randomize: bool, phdr: int, phnum: int, base: int, entry: int,
) -> int:  # fmt: skip
    """Write the contents; the stack pointer.  Sets the argument bounds and auxv of `mm`."""
    argv = argv or [b""]
    top = mm.layout.stack_top
    strings = b"\0".join([*argv, *envp, execfn, bytes(8)])
    p = top - len(strings)
    mm.arg_start = p
    argv_at = _addresses(argv, p)
    mm.arg_end = mm.env_start = p + sum(map(len, argv)) + len(argv)
    envp_at = _addresses(envp, mm.env_start)
    mm.env_end = mm.env_start + sum(map(len, envp)) + len(envp)
    p = (p - (random_below(8192) if randomize else 0)) & ~15
    platform = p = p - len(_PLATFORM)
    random = p = p - 16
    if secure is None:
        secure = cred.uid != cred.euid or cred.gid != cred.egid
    uid, euid, gid, egid = cred.shown_ids()
    host = at.host_auxv()
    vector = [
        at.AT_MINSIGSTKSZ, host[at.AT_MINSIGSTKSZ], at.AT_HWCAP, host[at.AT_HWCAP], at.AT_PAGESZ, PAGE_SIZE,
        at.AT_CLKTCK, 100, at.AT_PHDR, phdr, at.AT_PHENT, 56, at.AT_PHNUM, phnum, at.AT_BASE, base,
        at.AT_FLAGS, 0, at.AT_ENTRY, entry, at.AT_UID, uid, at.AT_EUID, euid, at.AT_GID, gid,
        at.AT_EGID, egid, at.AT_SECURE, int(secure), at.AT_RANDOM, random,
        at.AT_HWCAP2, host[at.AT_HWCAP2], at.AT_EXECFN, mm.env_end, at.AT_PLATFORM, platform, at.AT_NULL, 0,
    ]  # fmt: skip
    if mm.vdso[1]:
        vector[:0] = (at.AT_SYSINFO_EHDR, mm.vdso[1])
    mm.auxv = pack(f"<{len(vector)}Q", *vector)
    words = [len(argv), *argv_at, 0, *envp_at, 0]
    table = pack(f"<{len(words)}Q", *words) + mm.auxv
    sp = (p - len(table)) & ~15
    data = table.ljust(p - sp, b"\0") + random16 + _PLATFORM
    mm.write(sp, data.ljust(mm.arg_start - sp, b"\0") + strings)
    mm.start_stack = sp
    return sp


def _addresses(strings: list[bytes], start: int) -> list[int]:
    result = []
    for string in strings:
        result.append(start)
        start += len(string) + 1
    return result
