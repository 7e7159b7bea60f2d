"""Pseudo-terminals (pty(7)): the pair, and the files on its two sides.

The slave is a terminal with a line discipline; the master is its far end, raw: what is written to it
is the slave's input, and what it reads is the slave's output and echoes.  The pair lives while the
master is open.  Closing the master hangs the slave up: its files then answer as hung-up ones do.
"""

from __future__ import annotations

import errno
from time import monotonic_ns

from sentry.abi.capability import CAP_SYS_ADMIN
from sentry.abi.errors import SysError
from sentry.abi.fcntl import KEPT_FLAGS, O_NONBLOCK
from sentry.abi.poll import POLLERR, POLLHUP, POLLIN, POLLOUT, POLLPRI, POLLRDNORM, POLLREADY, POLLWRNORM
from sentry.abi.signal import SIGTTIN, SIGWINCH
from sentry.abi.termios import EXTPROC, ICANON, NCCS, TOSTOP, VMIN, VTIME
from sentry.fs.devpts import control
from sentry.fs.devpts.job import Terminal
from sentry.fs.devpts.ldisc import LineDiscipline
from sentry.fs.devpts.modes import Termios, initial
from sentry.fs.file import File
from sentry.kernel.wait import Interrupted, WaitQueue, block

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.fs.dentry import Path
    from sentry.fs.devpts.filesystem import DevptsFilesystem
    from sentry.fs.inode import Inode

READABLE = POLLIN | POLLRDNORM
WRITABLE = POLLOUT | POLLWRNORM
#: Fewer bytes than this on their way make a terminal writable (WAKEUP_CHARS).
WAKEUP_CHARS = 256
TENTH = 100_000_000
PTM_MAJOR = 128


class Pty(Terminal):
    """A pair.  `inode` is the slave's node in devpts."""

    def __init__(self, fs: DevptsFilesystem, index: int) -> None:
        super().__init__()
        self.fs = fs
        self.index = index
        self.inode: Inode = None  # type: ignore[assignment]
        self.locked = True
        #: By TIOCEXCL, for each side: (slave, master).
        self.exclusive = [False, False]
        #: How often the slave was hung up by force: files from before are dead.
        self.hangups = 0
        #: The modes that TIOCSLCKTRMIOS has locked.
        self.locks = Termios(0, 0, 0, 0, cc=bytes(NCCS))
        self.winsize = (0, 0, 0, 0)
        self.slaves = 0
        self.master_closed = False
        #: The last slave was closed, and none opened since.
        self.slave_gone = False
        self.master_queue = WaitQueue()
        self.slave_queue = WaitQueue()
        self.ldisc = LineDiscipline(self.signal_foreground, self._readable, self._output)

    def _readable(self) -> None:
        self.slave_queue.wake(READABLE)

    def _output(self) -> None:
        self.master_queue.wake(READABLE | POLLPRI)
        if self.ldisc.output_room:
            self.slave_queue.wake(WRITABLE)

    def device(self, master: bool) -> int:
        """The device number of a side, as TIOCGDEV has it (new_encode_dev)."""
        return PTM_MAJOR << 8 | self.index & 0xFF | (self.index & ~0xFF) << 12 if master else self.inode.rdev

    def open(self, flags: int, path: Path | None = None, inode: Inode | None = None) -> SlaveFile:
        """Open the slave, by the device node `inode` (/dev/tty): SysError(EIO) when it is locked or hung up,
        SysError(EBUSY) by TIOCEXCL."""
        if self.locked or self.hung_up:
            raise SysError(errno.EIO)
        if self.exclusive[0]:
            task = control.current_task()
            if task is None or not task.cred.capable(CAP_SYS_ADMIN):
                raise SysError(errno.EBUSY)
        file = SlaveFile(self, flags & KEPT_FLAGS, path or self.fs.slave_path(self), inode or self.inode)
        self.acquire_on_open(flags)
        return file

    def close_slave(self) -> None:
        """The last file of the slave is gone: the master reads what is left, then EIO."""
        self.slave_gone = True
        self.master_queue.wake(READABLE | POLLHUP)
        if self.master_closed:
            self.fs.free(self)

    def close_master(self) -> None:
        """Nobody will read or write what is on its way."""
        self.master_closed = True
        self.hang_up()
        self.ldisc.clear()
        if not self.slaves:
            self.fs.free(self)

    def hang_up(self) -> None:
        """The master is gone."""
        if self.hung_up:
            return
        self.hung_up = True
        self.fs.forget(self)
        self.desert()
        self.slave_queue.wake(READABLE | WRITABLE | POLLHUP | POLLERR)
        self.master_queue.wake(READABLE | POLLHUP)

    def hang_up_slave(self) -> None:
        """vhangup(2), TIOCVHANGUP: whoever has it open has a dead file, and who opens it next starts anew."""
        self.hangups += 1
        self.flush_input()
        self.ldisc.set_termios(initial())
        self.desert()
        self.slave_queue.wake(READABLE | WRITABLE | POLLHUP | POLLERR)

    def flush_input(self) -> None:
        """Drop what the slave has not read; the master may have waited for room."""
        self.ldisc.flush_input()
        self.master_queue.wake(WRITABLE)

    def resize(self, winsize: tuple[int, int, int, int]) -> None:
        """TIOCSWINSZ: (rows, columns, x pixels, y pixels)."""
        if winsize != self.winsize:
            self.winsize = winsize
            self.signal_foreground(SIGWINCH)

    def take(self, size: int) -> bytes:
        """Output for the master, b"" when there is none."""
        data = self.ldisc.take_output(size)
        if data and self.ldisc.output_room:
            self.slave_queue.wake(WRITABLE)
        return data


class MasterFile(File):
    __slots__ = ("pty",)

    def __init__(self, pty: Pty, inode: Inode, flags: int, path: Path | None) -> None:
        super().__init__(inode, flags, path)
        self.pty = pty
        self.queue = pty.master_queue

    @property
    def tty(self) -> Pty:
        return self.pty

    def release(self) -> None:
        self.pty.close_master()

    def poll(self) -> int:
        pty = self.pty
        ldisc = pty.ldisc
        mask = 0
        if ldisc.output:
            mask |= READABLE
        if ldisc.packet and ldisc.status:
            mask |= READABLE | POLLPRI
        if pty.slave_gone:
            mask |= POLLHUP
        if ldisc.room:
            mask |= WRITABLE
        return mask

    async def read(self, size: int) -> bytes:
        pty = self.pty
        ldisc = pty.ldisc
        if ldisc.packet and ldisc.status:
            status, ldisc.status = ldisc.status, 0
            return bytes((status,))
        if not ldisc.output:
            raise SysError(errno.EIO if pty.slave_gone else errno.EAGAIN)
        if ldisc.packet:
            return b"\0" + pty.take(size - 1)
        return pty.take(size)

    async def write(self, data: bytes) -> int:
        if not data:
            return 0
        taken = self.pty.ldisc.receive(data)
        if not taken:
            raise SysError(errno.EAGAIN)
        return taken

    async def ioctl(self, task: Any, request: int, arg: int) -> int:
        return control.ioctl(self.pty, task, request, arg, self, True)


class SlaveFile(File):
    __slots__ = ("_hangups", "pty")

    def __init__(self, pty: Pty, flags: int, path: Path | None, inode: Inode) -> None:
        super().__init__(inode, flags, path)
        self.pty = pty
        self._hangups = pty.hangups
        self.queue = pty.slave_queue
        pty.slaves += 1
        pty.slave_gone = False

    @property
    def tty(self) -> Pty:
        return self.pty

    @property
    def dead(self) -> bool:
        """Hung up, for good."""
        return self.pty.hung_up or self._hangups != self.pty.hangups

    def release(self) -> None:
        self.pty.slaves -= 1
        if not self.pty.slaves:
            self.pty.close_slave()

    def poll(self) -> int:
        pty = self.pty
        if self.dead:
            return POLLREADY | POLLERR | POLLHUP
        mask = READABLE if pty.ldisc.available(polling=True) else 0
        if pty.ldisc.output_room >= WAKEUP_CHARS:
            mask |= WRITABLE
        return mask

    async def read(self, size: int) -> bytes:
        """By lines, or by VMIN and VTIME (termios(3)), for which it sleeps itself."""
        pty = self.pty
        if self.dead or not size:
            return b""
        pty.check_change(SIGTTIN)
        ldisc = pty.ldisc
        minimum, between, deadline = 1, 0, None
        if not ldisc.termios.lflag & ICANON:
            cc = ldisc.termios.cc
            if cc[VMIN]:
                minimum, between = cc[VMIN], cc[VTIME] * TENTH
            else:
                deadline = monotonic_ns() + cc[VTIME] * TENTH
        got = b""
        while len(got) < size:
            if not ldisc.available():
                if pty.hung_up and not got:
                    raise SysError(errno.EIO)
                if self.dead or (deadline is not None and deadline <= monotonic_ns()):
                    break
                if not await self._sleep(deadline, bool(got)):
                    break
                continue
            by_lines = ldisc.termios.lflag & (ICANON | EXTPROC) == ICANON
            got += ldisc.read(size - len(got))
            pty.master_queue.wake(WRITABLE)
            if by_lines or len(got) >= minimum:
                break
            if between:
                deadline = monotonic_ns() + between
        return got

    async def _sleep(self, deadline: int | None, partial: bool) -> bool:
        """Until there is input; False: the read ends with what it has.  SysError(EAGAIN), Interrupted."""
        if self.flags & O_NONBLOCK:
            if partial:
                return False
            raise SysError(errno.EAGAIN)
        try:
            await block((self.queue, READABLE | POLLHUP | POLLERR), deadline=deadline)
        except Interrupted:
            if partial:
                return False
            raise
        return True

    async def write(self, data: bytes) -> int:
        pty = self.pty
        if self.dead:
            raise SysError(errno.EIO)
        if pty.ldisc.termios.lflag & TOSTOP:
            pty.check_change()
        if not data:
            return 0
        taken = pty.ldisc.write(data)
        if not taken:
            raise SysError(errno.EAGAIN)
        return taken

    async def ioctl(self, task: Any, request: int, arg: int) -> int:
        if self.dead:
            raise SysError(errno.ENOTTY if request == control.TIOCSPGRP else errno.EIO)
        return control.ioctl(self.pty, task, request, arg, self, False)
