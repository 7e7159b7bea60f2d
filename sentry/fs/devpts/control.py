"""ioctl on the two sides of a pty (ioctl_tty(2), ioctl_pipe…: Linux tty_io.c, tty_ioctl.c, pty.c)."""

from __future__ import annotations

import errno

from sentry.abi.capability import CAP_SYS_ADMIN
from sentry.abi.errors import SysError
from sentry.abi.fcntl import O_CLOEXEC
from sentry.abi.ioctl import (
    TCFLSH,
    TCGETS,
    TCSBRK,
    TCSBRKP,
    TCXONC,
    TIOCCBRK,
    TIOCCONS,
    TIOCEXCL,
    TIOCGDEV,
    TIOCGETD,
    TIOCGEXCL,
    TIOCGLCKTRMIOS,
    TIOCGPKT,
    TIOCGPTLCK,
    TIOCGPTN,
    TIOCGPTPEER,
    TIOCGSOFTCAR,
    TIOCGWINSZ,
    TIOCINQ,
    TIOCNXCL,
    TIOCOUTQ,
    TIOCPKT,
    TIOCSBRK,
    TIOCSETD,
    TIOCSIG,
    TIOCSLCKTRMIOS,
    TIOCSPGRP,
    TIOCSPTLCK,
    TIOCSSERIAL,
    TIOCSSOFTCAR,
    TIOCSTI,
    TIOCSWINSZ,
    TIOCVHANGUP,
)
from sentry.abi.signal import SIGINT, SIGQUIT, SIGTSTP
from sentry.abi.termios import (
    CLOCAL,
    EXTPROC,
    IXON,
    TCIFLUSH,
    TCIOFF,
    TCIOFLUSH,
    TCION,
    TCOFLUSH,
    TCOOFF,
    TCOON,
    TERMIOS,
    TIOCPKT_DOSTOP,
    TIOCPKT_IOCTL,
    TIOCPKT_NOSTOP,
    VSTART,
    VSTOP,
    WINSIZE,
)
from sentry.fs.devpts.job import current_task
from sentry.fs.devpts.modes import GETS, SETS, SIZES, Termios, keep_locked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sentry.fs.devpts.pty import Pty
    from sentry.fs.file import File

__all__ = ["TIOCSPGRP", "current_task", "ioctl"]


def ioctl(pty: Pty, task: Any, request: int, arg: int, file: File, master: bool) -> int:
    """Any request on a file of `pty`; SysError(ENOTTY) for unknown ones, and those of the other side."""
    if request in GETS:
        task.mm.write(arg, pty.ldisc.termios.pack(request))
        return 0
    if request in SETS:
        return _set_modes(pty, task, request, arg, master)
    handler = _COMMON.get(request) or (_MASTER if master else _SLAVE).get(request)
    if handler is not None:
        return handler(pty, task, arg)
    if request in (TIOCEXCL, TIOCNXCL):
        pty.exclusive[master] = request == TIOCEXCL
        return 0
    if request == TIOCGEXCL:
        task.mm.write_u32(arg, int(pty.exclusive[master]))
        return 0
    if request == TIOCSTI:
        return _insert_input(pty, task, arg, master)
    if request == TIOCVHANGUP:
        _privileged(task)
        (pty.hang_up if master else pty.hang_up_slave)()
        return 0
    if request == TIOCGDEV:
        task.mm.write_u32(arg, pty.device(master))
        return 0
    if request == TIOCINQ:
        task.mm.write_u32(arg, len(pty.ldisc.output) if master else pty.ldisc.count())
        return 0
    if request == TCFLSH:
        return _flush(pty, arg, master)
    if request == TCXONC:
        return _flow(pty, arg, master)
    done = pty.job_ioctl(task, request, arg, file.readable, master)
    if done is None:
        raise SysError(errno.ENOTTY)
    return done


def _set_modes(pty: Pty, task: Any, request: int, arg: int, master: bool) -> int:
    """TCSETS and its variants.  Output of a pty is "drained" when it is in the master's buffer: at once."""
    plain, _, flush = SETS[request]
    if not master:
        pty.check_change()
    ldisc = pty.ldisc
    old = ldisc.termios
    new = old.changed(plain, task.mm.read(arg, SIZES[plain]))
    keep_locked(old, new, pty.locks)
    if flush:
        pty.flush_input()
    ldisc.set_termios(new)
    _note_modes(pty, old, new)
    pty.slave_queue.wake()
    return 0


def _note_modes(pty: Pty, old: Termios, new: Termios) -> None:
    """Tell a master in packet mode whether ^S and ^Q act as such (pty_set_termios)."""

    def flow(termios: Termios) -> bool:
        return bool(termios.iflag & IXON) and termios.cc[VSTOP] == 19 and termios.cc[VSTART] == 17

    if flow(old) != flow(new):
        bits = (TIOCPKT_DOSTOP, TIOCPKT_NOSTOP)
        pty.ldisc.note(bits[not flow(new)], bits[flow(new)])
    if (old.lflag | new.lflag) & EXTPROC:
        pty.ldisc.note(TIOCPKT_IOCTL)


def _flush(pty: Pty, arg: int, master: bool) -> int:
    if arg not in (TCIFLUSH, TCOFLUSH, TCIOFLUSH):
        raise SysError(errno.EINVAL)
    ldisc = pty.ldisc
    if master:
        if arg != TCOFLUSH:
            ldisc.take_output(len(ldisc.output))
        if arg != TCIFLUSH:
            ldisc.pending.clear()
        return 0
    pty.check_change()
    if arg != TCOFLUSH:
        pty.flush_input()
    if arg != TCIFLUSH:
        ldisc.flush_output()
    return 0


def _flow(pty: Pty, arg: int, master: bool) -> int:
    """TCXONC (tcflow(3))."""
    ldisc = pty.ldisc
    if not master:
        pty.check_change()
    if arg not in (TCOOFF, TCOON, TCIOFF, TCION):
        raise SysError(errno.EINVAL)
    if arg in (TCIOFF, TCION):
        c = ldisc.termios.cc[VSTOP if arg == TCIOFF else VSTART]
        if c and master:
            ldisc.receive(bytes((c,)))
        elif c:
            ldisc.send(c)
    elif master:
        pass  # stopping the master's own output: nobody does that
    elif arg == TCOOFF:
        ldisc.stop()
        ldisc.tco_stopped = True
    elif ldisc.tco_stopped:
        ldisc.tco_stopped = False
        ldisc.start()
        ldisc.process_echoes()
    return 0


def _get_winsize(pty: Pty, task: Any, arg: int) -> int:
    task.mm.write(arg, WINSIZE.pack(*pty.winsize))
    return 0


def _set_winsize(pty: Pty, task: Any, arg: int) -> int:
    rows, columns, x, y = WINSIZE.unpack(task.mm.read(arg, WINSIZE.size))
    pty.resize((rows, columns, x, y))
    return 0


def _put_zero(pty: Pty, task: Any, arg: int) -> int:
    task.mm.write_u32(arg, 0)
    return 0


def _set_discipline(pty: Pty, task: Any, arg: int) -> int:
    if task.mm.read_u32(arg):
        raise SysError(errno.EINVAL)
    return 0


def _privileged(task: Any) -> None:
    if not task.cred.capable(CAP_SYS_ADMIN):
        raise SysError(errno.EPERM)


def _get_locks(pty: Pty, task: Any, arg: int) -> int:
    task.mm.write(arg, pty.locks.pack(TCGETS))
    return 0


def _set_locks(pty: Pty, task: Any, arg: int) -> int:
    _privileged(task)
    pty.locks = Termios(*TERMIOS.unpack(task.mm.read(arg, TERMIOS.size)))
    return 0


def _get_softcar(pty: Pty, task: Any, arg: int) -> int:
    task.mm.write_u32(arg, int(bool(pty.ldisc.termios.cflag & CLOCAL)))
    return 0


def _set_softcar(pty: Pty, task: Any, arg: int) -> int:
    cflag = pty.ldisc.termios.cflag
    cflag = cflag | CLOCAL if task.mm.read_u32(arg) else cflag & ~CLOCAL
    pty.ldisc.set_termios(pty.ldisc.termios.with_cflag(cflag))
    return 0


def _set_serial(pty: Pty, task: Any, arg: int) -> int:
    """No serial line: but the request, a struct serial_struct, is looked at first."""
    task.mm.read(arg, 72)
    raise SysError(errno.ENOTTY)


def _break(pty: Pty, task: Any, arg: int) -> int:
    """A pty has no line to break; waiting for its output is over at once."""
    pty.check_change()
    return 0


def _insert_input(pty: Pty, task: Any, arg: int, master: bool) -> int:
    """TIOCSTI, as where dev.tty.legacy_tiocsti is 0."""
    if not task.cred.capable(CAP_SYS_ADMIN):
        raise SysError(errno.EIO)
    byte = task.mm.read(arg, 1)
    if master:
        pty.ldisc.send(byte[0])
    else:
        pty.ldisc.receive(byte)
    return 0


def _take_console(pty: Pty, task: Any, arg: int) -> int:
    """There is no console whose output could go here."""
    raise SysError(errno.EPERM)


def _get_number(pty: Pty, task: Any, arg: int) -> int:
    task.mm.write_u32(arg, pty.index)
    return 0


def _set_lock(pty: Pty, task: Any, arg: int) -> int:
    pty.locked = bool(task.mm.read_u32(arg))
    return 0


def _get_lock(pty: Pty, task: Any, arg: int) -> int:
    task.mm.write_u32(arg, int(pty.locked))
    return 0


def _get_peer(pty: Pty, task: Any, arg: int) -> int:
    """TIOCGPTPEER: a descriptor of the slave without its path."""
    file = pty.open(arg & 0xFFFFFFFF)
    fd: int = task.install(file, bool(arg & O_CLOEXEC))
    return fd


def _no_peer(pty: Pty, task: Any, arg: int) -> int:
    raise SysError(errno.EIO)


def _set_packet(pty: Pty, task: Any, arg: int) -> int:
    on = bool(task.mm.read_u32(arg))
    if on and not pty.ldisc.packet:
        pty.ldisc.status = 0
    pty.ldisc.packet = on
    return 0


def _get_packet(pty: Pty, task: Any, arg: int) -> int:
    task.mm.write_u32(arg, int(pty.ldisc.packet))
    return 0


def _signal(pty: Pty, task: Any, arg: int) -> int:
    """TIOCSIG: one of the terminal's signals to the slave's foreground."""
    if arg not in (SIGINT, SIGQUIT, SIGTSTP):
        raise SysError(errno.EINVAL)
    pty.signal_foreground(arg)
    return 0


_COMMON: dict[int, Callable[[Pty, Any, int], int]] = {
    TIOCGWINSZ: _get_winsize, TIOCSWINSZ: _set_winsize, TIOCOUTQ: _put_zero, TIOCGETD: _put_zero,
    TIOCSETD: _set_discipline, TCSBRK: _break, TCSBRKP: _break, TIOCSBRK: _break, TIOCCBRK: _break,
    TIOCGLCKTRMIOS: _get_locks, TIOCSLCKTRMIOS: _set_locks, TIOCGSOFTCAR: _get_softcar,
    TIOCSSOFTCAR: _set_softcar, TIOCSSERIAL: _set_serial, TIOCCONS: _take_console,
}  # fmt: skip
_MASTER: dict[int, Callable[[Pty, Any, int], int]] = {
    TIOCGPTN: _get_number, TIOCSPTLCK: _set_lock, TIOCGPTLCK: _get_lock, TIOCGPTPEER: _get_peer,
    TIOCPKT: _set_packet, TIOCGPKT: _get_packet, TIOCSIG: _signal,
}  # fmt: skip
_SLAVE: dict[int, Callable[[Pty, Any, int], int]] = {TIOCGPTPEER: _no_peer}
