"""Relays the host's terminal to a guest pty and back: `sentry run -t`.

The CLI has put the host's terminal into raw mode, so every key comes through to the guest's line
discipline.  Two kernel jobs carry the bytes; each holds at most one piece, and sleeps when the other
side has no room, so whoever produces too much waits as on a real terminal.
"""

from __future__ import annotations

import errno
import os
from time import monotonic_ns

from sentry.abi.errors import SysError
from sentry.abi.poll import POLLERR, POLLHUP, POLLIN, POLLOUT
from sentry.abi.termios import ICANON, VEOF
from sentry.fs.hostfile import TTY, HostFile, host_kind
from sentry.kernel.wait import WaitQueue, block

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.fs.devpts.pty import MasterFile
    from sentry.platform.base import Platform

CHUNK = 4096
DRAIN_NS = 2_000_000_000


class HostTerminal:
    """`host_in` and `host_out` are descriptors of the host (owned from now on), -1 for none."""

    def __init__(
        self, kernel: Any, tty_master: MasterFile, host_in: int, host_out: int, poller: Platform
    ) -> None:
        self._master = tty_master
        self._pty = tty_master.pty
        self._unwritten = b""
        #: Woken when all output has reached the host.
        self._idle = WaitQueue()
        if host_in >= 0 and host_in == host_out:
            host_out = os.dup(host_out)
        self._in = self._host_file(host_in, 0, poller)
        self._out = self._host_file(host_out, 1, poller)
        kernel.scheduler.spawn(self._carry_out())
        if self._in is not None:
            kernel.scheduler.spawn(self._carry_in(self._in))

    @staticmethod
    def _host_file(fd: int, flags: int, poller: Platform) -> HostFile | None:
        if fd < 0:
            return None
        return HostFile(fd, flags, poller, host_kind(fd), own=not os.get_blocking(fd))

    def resize(self, rows: int, cols: int, xpixel: int = 0, ypixel: int = 0) -> None:
        """The host's window changed."""
        self._pty.resize((rows, cols, xpixel, ypixel))

    async def drain(self) -> None:
        """Until everything the guest wrote has reached the host, but not for ever (^S on the host)."""
        deadline = monotonic_ns() + DRAIN_NS
        while self._out is not None and (self._unwritten or self._pty.ldisc.output):
            if not await block((self._idle, 1), deadline=deadline):
                return

    async def _carry_in(self, host: HostFile) -> None:
        pty = self._pty
        while not pty.hung_up:
            room = pty.ldisc.room
            if not room:
                await block((pty.master_queue, POLLOUT | POLLHUP), interruptible=False)
                continue
            try:
                data = await host.read(min(room, CHUNK))
            except SysError as error:
                if error.errno == errno.EAGAIN:
                    await block((host.queue, POLLIN | POLLHUP | POLLERR), interruptible=False)
                    continue
                data = b""
            if not data:
                self._end_of_input(host)
                return
            pty.ldisc.receive(data)

    def _end_of_input(self, host: HostFile) -> None:
        """The host's terminal was hung up; or input was no terminal and has ended, which reads as ^D."""
        ldisc = self._pty.ldisc
        if host.kind == TTY:
            self._pty.hang_up()
        elif ldisc.termios.lflag & ICANON:
            ldisc.receive(ldisc.termios.cc[VEOF : VEOF + 1])

    async def _carry_out(self) -> None:
        pty, host = self._pty, self._out
        while True:
            if not self._unwritten:
                self._unwritten = pty.take(CHUNK)
            if not self._unwritten:
                self._idle.wake()
                if pty.hung_up:
                    return
                await block((pty.master_queue, POLLIN | POLLHUP), interruptible=False)
                continue
            if host is None:
                self._unwritten = b""
                continue
            try:
                count = await host.write(self._unwritten)
            except SysError as error:
                if error.errno == errno.EAGAIN:
                    await block((host.queue, POLLOUT | POLLHUP | POLLERR), interruptible=False)
                    continue
                # Nobody sees the output any more: the guest learns of it as of a closed window.
                host = self._out = None
                pty.hang_up()
                continue
            self._unwritten = self._unwritten[count:]
