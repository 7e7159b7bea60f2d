"""memfd_create(2): regular files of a tmpfs without a name, with seals (fcntl(2), "File Sealing").

The data is a host memfd from the start, and its seals are the host's, which so also guards the
mappings.  Every one of them carries the host's seal against execution; `_exec_sealed` is whether the
guest asked for that.
"""

from __future__ import annotations

import errno
import os
from fcntl import fcntl as host_fcntl

from sentry.abi.errors import SysError
from sentry.abi.fcntl import (
    F_ADD_SEALS,
    F_GET_SEALS,
    F_SEAL_EXEC,
    F_SEAL_FUTURE_WRITE,
    F_SEAL_GROW,
    F_SEAL_SEAL,
    F_SEAL_SHRINK,
    F_SEAL_WRITE,
    O_ACCMODE,
    O_LARGEFILE,
    O_RDWR,
)
from sentry.abi.stat import S_IFREG
from sentry.fs.dentry import Dentry, Mount, Path
from sentry.fs.tmpfs.inode import Tmpfs
from sentry.fs.tmpfs.regular import SEALABLE, RegularFile, RegularInode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.fs.file import File
    from sentry.kernel.credentials import Credentials

MFD_CLOEXEC, MFD_ALLOW_SEALING, MFD_HUGETLB, MFD_NOEXEC_SEAL, MFD_EXEC = 1, 2, 4, 8, 16
#: MFD_HUGE_2MB and its like, where MFD_HUGETLB is.
HUGE_SIZES = 63 << 26
NAME_MAX = 249
ALL_SEALS = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE | F_SEAL_EXEC

#: Where they count; `limit_pages` and `reopen_readonly` may be set by whoever boots the sandbox.
filesystem = Tmpfs()
_mount = Mount(filesystem, Dentry(None, b"", filesystem.root))


def _host_memfd() -> int:
    flags = MFD_CLOEXEC | MFD_ALLOW_SEALING
    try:
        return os.memfd_create("memfd", flags | MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            number = errno.ENFILE if error.errno == errno.EMFILE else error.errno
            raise SysError(number or errno.EIO) from None
    try:
        return os.memfd_create("memfd", flags)
    except OSError as error:
        raise SysError(error.errno or errno.EIO) from None


class MemfdInode(RegularInode):
    __slots__ = ("_exec_sealed", "_sealable", "link_text")

    def __init__(self, name: bytes, flags: int, cred: Credentials) -> None:
        exec_sealed = bool(flags & MFD_NOEXEC_SEAL)
        mode = S_IFREG | (0o666 if exec_sealed else 0o777)
        super().__init__(filesystem, filesystem.new_ino(), mode, cred.fsuid, cred.fsgid)
        self._hold(_host_memfd())
        self.data.flags |= SEALABLE
        self.nlink = 0
        self.c.ours = 0  # seals can forbid it
        self.link_text = b"/memfd:" + name + b" (deleted)"
        self._exec_sealed = exec_sealed
        self._sealable = bool(flags & (MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL))

    def seals(self) -> int:
        """F_GET_SEALS."""
        if not self._sealable:
            return F_SEAL_SEAL
        seals = host_fcntl(self._fd, F_GET_SEALS) & ~F_SEAL_EXEC
        return seals | F_SEAL_EXEC if self._exec_sealed else seals

    def add_seals(self, seals: int) -> None:
        """F_ADD_SEALS; SysError(EINVAL, EPERM, EBUSY)."""
        if seals & ~ALL_SEALS:
            raise SysError(errno.EINVAL)
        if not self._sealable or self.seals() & F_SEAL_SEAL:
            raise SysError(errno.EPERM)
        if seals & F_SEAL_EXEC and self.mode & 0o111:
            # Sealing an executable file's mode makes it immutable, too (mm/memfd.c).
            seals |= F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE
        try:
            host_fcntl(self._fd, F_ADD_SEALS, seals & ~F_SEAL_EXEC)
        except OSError as error:
            raise SysError(error.errno or errno.EINVAL) from None
        if seals & F_SEAL_EXEC:
            self._exec_sealed = True

    def sealed(self) -> bool:
        return bool(self.seals())

    async def setattr(self, changes: dict[str, int]) -> None:
        if self._exec_sealed and (changes.get("mode", self.mode) ^ self.mode) & 0o111:
            raise SysError(errno.EPERM)
        await super().setattr(changes)

    async def open(self, path: Path, flags: int, cred: Credentials) -> File:
        return MemfdFile(self, flags, path)


class MemfdFile(RegularFile):
    __slots__ = ()
    inode: MemfdInode

    def seals(self) -> int:
        return self.inode.seals()

    @property
    def write_sealed(self) -> bool:  # type: ignore[override]
        return self.seals() & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE) != 0

    def add_seals(self, seals: int) -> None:
        if not self.writable:
            raise SysError(errno.EPERM)
        self.inode.add_seals(seals)

    async def host_mapping(self, shared: bool, writable: bool) -> int | None:
        if shared and self.flags & O_ACCMODE == O_RDWR:
            # The guest may turn a read-only mapping into a writable one by mprotect, as natively.
            return await self.inode.host_mapping(True, True)
        return await super().host_mapping(shared, writable)


def memfd_create(name: bytes, flags: int, cred: Credentials) -> MemfdFile:
    """The File of memfd_create(2), whose arguments have been checked."""
    inode = MemfdInode(name, flags, cred)
    return MemfdFile(inode, O_RDWR | O_LARGEFILE, Path(_mount, Dentry(None, inode.link_text, inode)))
