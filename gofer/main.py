"""The Gofer's way from fork to the end of its session: `run`, called in a forked child of the CLI.

What it applied to itself, and whether it could, goes line by line over a pipe (`status_fd`): the
last line is "ok" or "error: …".  `read_status` is the other end.
"""

from __future__ import annotations

import gc
import os
from _signal import SIG_IGN, SIGHUP, SIGINT, SIGPIPE, SIGQUIT, set_wakeup_fd
from _signal import signal as set_handler
from _socket import AF_UNIX, SOCK_STREAM, socket

from gofer.confine import ConfineError, confine, set_limits
from gofer.fids import Export
from gofer.localfs import LocalFS, devtmpfs_devices
from gofer.server import Server
from gofer.session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import NoReturn

__all__ = ["Export", "read_status", "run"]

#: Descriptors that are not fids': exports, socket, files being opened.
_SPARE_FDS = 192
_MAX_LOG_LINES = 50


def run(
    sock_fd: int,
    exports: Sequence[Export],
    seccomp: bytes,
    keep_fds: Iterable[int] = (),
    debug_fd: int = -1,
    status_fd: int = -1,
    parent_pid: int = 0,
) -> NoReturn:
    """Confine this process and serve `sock_fd` until the peer closes it; ends by os._exit.

    The root file system is the first export.  `seccomp` is a raw filter (gofer.filter); `keep_fds` stay
    open besides the ones named here.  `debug_fd` gets a line for each bug; it becomes descriptor 2.  Give
    `parent_pid` (the CLI's own process id) to close the race of PR_SET_PDEATHSIG.
    """
    log = _Log(debug_fd)
    code = 1
    try:
        server, applied = prepare(sock_fd, exports, seccomp, keep_fds, log, status_fd, parent_pid)
        _report(status_fd, [*applied, "ok"])
        server.serve()
        code = 0
    except (OSError, ConfineError) as exc:
        _report(status_fd, [f"error: {_one_line(exc)}"])
    except BaseException as exc:
        # No traceback: printing one would open files.
        log(f"bug: {exc.__class__.__name__}: {exc}")
        _report(status_fd, [f"error: {exc.__class__.__name__}: {exc}"])
    finally:
        os._exit(code)


def prepare(
    sock_fd: int,
    exports: Sequence[Export],
    seccomp: bytes,
    keep_fds: Iterable[int],
    log: _Log,
    status_fd: int,
    parent_pid: int,
) -> tuple[Server, list[str]]:
    """Everything up to the first message."""
    for number in (SIGINT, SIGHUP, SIGQUIT, SIGPIPE):
        set_handler(number, SIG_IGN)
    set_wakeup_fd(-1)
    try:
        os.setsid()  # out of reach of the terminal's signals
    except PermissionError:
        pass  # leads a process group already
    open_exports(exports)
    proc_fd = os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    hidden = devtmpfs_devices()
    # The socket object asks for family and type, which the filter will not allow.
    sock = socket(fileno=sock_fd)
    _redirect_stdio(log, [sock_fd, status_fd, proc_fd, *keep_fds, *[export.fd for export in exports]])
    keep = [0, 1, 2, sock_fd, status_fd, *keep_fds]
    limit = set_limits()
    spin = len(os.sched_getaffinity(0)) > 1
    proc_fd, applied = confine(exports, proc_fd, keep, seccomp, parent_pid)
    session = Session(
        LocalFS(proc_fd, hidden), exports, pass_fds=sock.family == AF_UNIX and sock.type == SOCK_STREAM,
        max_fids=max(64, limit - _SPARE_FDS),
    )  # fmt: skip
    gc.freeze()
    return Server(sock, session, log, spin), [f"{limit} descriptors, no core dumps", *applied]


def open_exports(exports: Sequence[Export]) -> None:
    """An O_PATH descriptor for each; here, and only here, symlinks are followed: the path is the user's."""
    for export in exports:
        if export.fd < 0:
            try:
                export.fd = os.open(export.path, os.O_PATH | os.O_CLOEXEC)
            except OSError as exc:
                raise ConfineError(f"cannot open {os.fsdecode(export.path)!r}: {exc.strerror}") from None


def _redirect_stdio(log: _Log, used: Iterable[int]) -> None:
    """0 and 1 become /dev/null, 2 the debug descriptor, so that no stray write hits a file."""
    if any(0 <= fd <= 2 for fd in used):
        raise ConfineError("descriptors 0 to 2 must be open when the Gofer starts")
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for source, fd in ((log.fd if log.fd >= 0 else null, 2), (null, 0), (null, 1)):
        if source != fd:  # dup3(2) refuses
            os.dup2(source, fd, inheritable=False)
    if null > 2:
        os.close(null)
    log.fd = 2


class _Log:
    """Lines for people on a descriptor; a bounded number, since a client may provoke them."""

    __slots__ = ("fd", "left")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.left = _MAX_LOG_LINES

    def __call__(self, line: str) -> None:
        if self.left <= 0 or self.fd < 0:
            return
        self.left -= 1
        try:
            os.write(self.fd, b"gofer: " + line.replace("\n", " ").encode("utf-8", "replace") + b"\n")
        except OSError:
            pass


def _one_line(exc: Exception) -> str:
    text = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
    return text.replace("\n", " ")


def _report(status_fd: int, lines: Sequence[str]) -> None:
    if status_fd < 0:
        return
    try:
        os.write(status_fd, "".join([line + "\n" for line in lines]).encode("utf-8", "replace"))
        os.close(status_fd)
    except OSError:
        pass


def read_status(status_fd: int) -> tuple[list[str], str]:
    """(what was applied, error or ""): waits until the Gofer has said it, and closes the pipe."""
    data = b""
    while part := os.read(status_fd, 65536):
        data += part
    os.close(status_fd)
    lines = data.decode("utf-8", "replace").splitlines()
    if lines and lines[-1] == "ok":
        return lines[:-1], ""
    if lines and lines[-1].startswith("error: "):
        return lines[:-1], lines[-1][7:]
    return lines, "the Gofer died before it was ready"
