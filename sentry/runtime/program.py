"""The first program: finding it, starting it, and telling a person why it cannot be started."""

from __future__ import annotations

import errno
import os

from sentry.abi.elf import EM_X86_64
from sentry.abi.errors import SysError
from sentry.fs import walk
from sentry.kernel.exec import execve
from sentry.runtime.errors import Fatal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.fs.dentry import Path
    from sentry.kernel.task import Task
    from sentry.runtime.config import Config

NOT_FOUND = 127
NOT_EXECUTABLE = 126
MACHINES = {
    3: "x86 (32-bit)", 8: "MIPS", 20: "PowerPC", 21: "PowerPC64", 22: "S/390", 40: "ARM", 183: "ARM64",
    243: "RISC-V", 258: "LoongArch",
}  # fmt: skip


def _environment(env: list[bytes], name: bytes) -> bytes | None:
    for entry in env:
        key, _, value = entry.partition(b"=")
        if key == name:
            return value
    return None


async def find_program(task: Task, config: Config) -> tuple[Path, bytes]:
    """(place, name for the program itself) of argv[0], by PATH as a shell does."""
    name = config.argv[0]
    if b"/" in name:
        try:
            return await walk.walk(task.fs, task.cred, name), name
        except SysError as error:
            raise _unusable(name, error) from None
    found: SysError | None = None
    for directory in (_environment(config.env, b"PATH") or b"").split(b":"):
        candidate = (directory or b".") + b"/" + name
        try:
            path = await walk.walk(task.fs, task.cred, candidate)
            if path.inode.is_dir or not walk.allowed(path.inode, task.cred, walk.MAY_EXEC):
                found = found or SysError(errno.EACCES)
                continue
            return path, candidate
        except SysError as error:
            if error.errno == errno.EACCES:
                found = error
    if found is not None:
        raise _unusable(name, found)
    text = name.decode(errors="backslashreplace")
    raise Fatal(f"'{text}': executable file not found in $PATH of the sandbox", NOT_FOUND)


def _unusable(name: bytes, error: SysError, detail: str = "") -> Fatal:
    text = name.decode(errors="backslashreplace")
    status = NOT_FOUND if error.errno == errno.ENOENT else NOT_EXECUTABLE
    return Fatal(f"'{text}': {detail or os.strerror(error.errno).lower()}", status)


async def _explain(task: Task, path: Path, error: SysError) -> str:
    """What is wrong with a file that exists, in more words than its errno."""
    if error.errno == errno.EACCES:
        return (
            "is a directory" if path.inode.is_dir else "permission denied; it is not executable for this user"
        )
    if error.errno not in (errno.ENOEXEC, errno.ENOENT):
        return ""
    try:
        file = await path.inode.open(path, os.O_RDONLY, task.cred)
    except SysError:
        return ""
    try:
        head = await file.pread(256, 0)
    except SysError:
        return ""
    finally:
        file.put()
    if error.errno == errno.ENOENT:
        if head.startswith(b"#!"):
            interpreter = head[2:].split(b"\n")[0].strip().decode(errors="backslashreplace")
            return f"its interpreter '{interpreter}' is not in the sandbox"
        return "its dynamic loader is not in the sandbox; is the right --rootfs given?"
    if head.startswith(b"\x7fELF") and len(head) >= 20:
        machine = int.from_bytes(head[18:20], "big" if head[5] == 2 else "little")
        if machine != EM_X86_64 or head[4] != 2:
            name = MACHINES.get(machine, f"machine {machine}")
            return f"is built for {name}; the sandbox runs x86-64 programs"
    return "exec format error; it is neither an x86-64 ELF program nor a script with a '#!' line"


async def start_program(task: Task, config: Config) -> None:
    """Make `task` run config.argv; Fatal with status 127 or 126 when it cannot."""
    path, name = await find_program(task, config)
    try:
        await execve(task, path, name, list(config.argv), list(config.env))
    except SysError as error:
        raise _unusable(config.argv[0], error, await _explain(task, path, error)) from None
