"""DeviceTable: from a device number to what opens it; one a kernel."""

from __future__ import annotations

import errno

from sentry.abi.errors import SysError
from sentry.abi.fcntl import KEPT_FLAGS
from sentry.abi.loop import LOOP_CTRL_MINOR, LOOP_MAJOR, MISC_MAJOR
from sentry.abi.stat import S_IFBLK, S_IFMT
from sentry.fs.dev.memory import FullFile, NullFile, RandomFile, ZeroFile
from sentry.fs.devpts.filesystem import MAX_PTYS, DevptsFilesystem
from sentry.fs.devpts.job import current_task

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.fs.dentry import Path
    from sentry.fs.dev.loop import LoopDevices
    from sentry.fs.file import File
    from sentry.fs.inode import Inode
    from sentry.kernel.credentials import Credentials

    #: open(inode, path, flags, cred), a plain function.
    Opener = Callable[[Inode, Path, int, Credentials], File]

#: Unnamed majors of the rest of the table.
MEM, TTYAUX, PTS = 1, 5, 136


def makedev(major: int, minor: int) -> int:
    """A device number as struct stat has it (makedev(3))."""
    return (minor & 0xFF) | (major & 0xFFF) << 8 | (minor & ~0xFF) << 12 | (major & ~0xFFF) << 32


def major_minor(rdev: int) -> tuple[int, int]:
    return (rdev >> 8 & 0xFFF) | (rdev >> 32 & 0xFFFFF000), (rdev & 0xFF) | (rdev >> 12 & 0xFFFFFF00)


class DeviceTable:
    """Character devices by (major, minor).  `devpts` holds the pseudo-terminals; `console` is the
    terminal behind /dev/console, if there is one.  The only block devices are `loops`."""

    def __init__(self) -> None:
        self.devpts = DevptsFilesystem(MAX_PTYS)
        self._loops: LoopDevices | None = None
        self.console: object = None
        self._openers: dict[tuple[int, int], Opener] = {
            (MEM, 3): _simple(NullFile),
            (MEM, 5): _simple(ZeroFile),
            (MEM, 7): _simple(FullFile),
            (MEM, 8): _simple(RandomFile),
            (MEM, 9): _simple(RandomFile),
            (TTYAUX, 0): self._open_tty,
            (TTYAUX, 1): self._open_console,
            (TTYAUX, 2): self.devpts.open_ptmx,
            (MISC_MAJOR, LOOP_CTRL_MINOR): self._open_loop_control,
        }

    @property
    def loops(self) -> LoopDevices:
        if self._loops is None:
            from sentry.fs.dev.loop import LoopDevices

            self._loops = LoopDevices()
        return self._loops

    def _open_loop_control(self, inode: Inode, path: Path, flags: int, cred: Credentials) -> File:
        return self.loops.open_control(inode, path, flags, cred)

    def add(self, major: int, minor: int, opener: Opener) -> None:
        """Serve one more device."""
        self._openers[major, minor] = opener

    async def open(self, inode: Inode, path: Path, flags: int, cred: Credentials) -> File:
        """The File of the device node `inode`; SysError(ENXIO) for what is not in the table."""
        major, minor = major_minor(inode.rdev)
        if inode.mode & S_IFMT == S_IFBLK:
            if major != LOOP_MAJOR:
                raise SysError(errno.ENXIO)
            return self.loops.open(minor, inode, path, flags & KEPT_FLAGS)
        if major == PTS:
            return self.devpts.open_slave(minor, flags, path)
        opener = self._openers.get((major, minor))
        if opener is None:
            raise SysError(errno.ENXIO)
        return opener(inode, path, flags, cred)

    def _open_tty(self, inode: Inode, path: Path, flags: int, cred: Credentials) -> File:
        """/dev/tty: the caller's controlling terminal."""
        task = current_task()
        tty = None if task is None else task.group.tty
        if tty is None:
            raise SysError(errno.ENXIO)
        file: File = tty.open(flags | 0o400, path, inode)
        return file

    def _open_console(self, inode: Inode, path: Path, flags: int, cred: Credentials) -> File:
        if self.console is None:
            raise SysError(errno.ENODEV)
        file: File = self.console.open(flags | 0o400, path, inode)  # type: ignore[attr-defined]
        return file


def _simple(kind: type[File]) -> Opener:
    def opener(inode: Inode, path: Path, flags: int, cred: Credentials) -> File:
        return kind(inode, flags & KEPT_FLAGS, path)

    return opener
