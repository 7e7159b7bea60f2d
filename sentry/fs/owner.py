"""FileOwner: who is told by a signal that a file got ready (F_SETOWN, F_SETSIG, O_ASYNC: fcntl(2))."""

from __future__ import annotations

from sentry._engine import lib
from sentry.abi.poll import (
    POLLERR,
    POLLHUP,
    POLLIN,
    POLLMSG,
    POLLOUT,
    POLLPRI,
    POLLRDBAND,
    POLLRDNORM,
    POLLWRBAND,
    POLLWRNORM,
)
from sentry.abi.signal import SIGIO, SigInfo
from sentry.abi.stat import S_IFIFO
from sentry.kernel.wait import Entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sentry.fs.file import File

F_OWNER_TID, F_OWNER_PID, F_OWNER_PGRP = 0, 1, 2
#: si_code by what happened: POLL_IN, POLL_OUT, POLL_MSG, POLL_ERR, POLL_PRI, POLL_HUP.
_CODES = ((POLLHUP, 6), (POLLERR, 4), (POLLPRI, 5), (POLLIN, 1), (POLLOUT, 2), (POLLMSG, 3))
#: si_band that goes with each of them (band_table of fs/fcntl.c).
_BANDS = (0x41, 0x304, 0x441, 8, 0x82, 0x18)
_IN, _OUT = POLLIN | POLLRDNORM | POLLRDBAND, POLLOUT | POLLWRNORM | POLLWRBAND
_ALWAYS = POLLERR | POLLHUP | POLLPRI | POLLMSG


class FileOwner:
    """Stands in `File.owner` once one of the calls above was made."""

    __slots__ = ("_entry", "_fd", "_is_pipe", "kernel", "kind", "number", "signo")

    def __init__(self) -> None:
        self.kernel: Any = None
        self.kind = F_OWNER_PID
        #: A task, process or process group by number; 0: nobody.
        self.number = 0
        #: 0 stands for SIGIO without details.
        self.signo = 0
        self._entry: Entry | None = None
        self._fd = -1
        self._is_pipe = False

    def set_async(self, file: File, on: bool, fd: int = -1) -> None:
        """O_ASYNC was set (by the descriptor `fd`) or cleared."""
        if on and self._entry is None:
            mask = _ALWAYS | lib.QUEUE_SIGNALLED
            # The two ends of a pipe have one queue.
            mask |= _IN if file.readable else 0
            mask |= _OUT if file.writable else 0
            self._is_pipe = file.inode.kind == S_IFIFO
            self._fd = fd
            self._entry = Entry(self._on_event, mask)
            file.queue.add(self._entry)
        elif not on and self._entry is not None:
            file.queue.remove(self._entry)
            self._entry = None

    def _on_event(self, events: int) -> None:
        entry = self._entry
        if self._is_pipe and entry is not None:
            events = POLLIN if entry.mask & POLLIN else POLLOUT  # also when the other end is closed
        self.report(events, self._fd)

    def report(self, events: int, fd: int) -> None:
        """Something of the poll bits `events` has happened to descriptor `fd` (send_sigio)."""
        info = None
        if self.signo:
            code = next((code for bit, code in _CODES if events & bit), 1)
            info = SigInfo(self.signo, code, fd=fd, band=_BANDS[code - 1])
        self.send(self.signo or SIGIO, info)

    def send(self, signo: int, info: SigInfo | None = None) -> None:
        """Signal whoever is named."""
        if self.kernel is None or not self.number:
            return
        if self.kind == F_OWNER_PGRP:
            pgrp = self.kernel.processes_by_pgid.get(self.number)
            if pgrp is not None:
                self.kernel.signal_pgrp(pgrp, signo, info)
            return
        task = self.kernel.tasks.get(self.number)
        if task is not None:
            target = task if self.kind == F_OWNER_TID else task.group
            target.send_signal(signo, info)


def owner_of(file: File) -> FileOwner:
    """The owner record of `file`, made if need be."""
    owner = file.owner
    if owner is None:
        owner = file.owner = FileOwner()
    return owner
