"""devpts."""

from __future__ import annotations

import errno

from sentry.abi.errors import SysError
from sentry.fs.dentry import Dentry, Mount
from sentry.fs.inode import Filesystem, Inode


class DevptsFilesystem(Filesystem):
    type_name = b"devpts"
    magic = 0x1CD1

    def __init__(self) -> None:
        super().__init__()
        self.root = Inode(self, 1, 0o040755)
        self.mount = Mount(self, Dentry(None, b"", self.root))

    def open_ptmx(self, inode, path, flags, cred):
        raise SysError(errno.ENXIO)

    def open_slave(self, index, flags):
        raise SysError(errno.EIO)
