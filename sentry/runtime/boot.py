"""The start of a run, in the CLI's process: open everything, import everything, start the others.

    CLI ── fork ──────────► gofer
     └──── clone(NEW*) ───► pid 1 ── fork ──► Sentry ── fork, exec ──► stubs
                             └─ exec ──► reaper

All children are forks of the one Python process, so they start without a second interpreter.  They are
forked as early as possible, while it is small: what only the Gofer or the Sentry needs they import
themselves, at the same time, the Sentry from the bundle's memory, since it is somebody by then who may not
read our files.  (Without a bundle the CLI imports all of it before.)  Once both are running the CLI only
supervises.
"""

from __future__ import annotations

import _signal
import errno
import gc
import os
import stat
import sys

from sentry.abi.capability import CAP_SETGID, CAP_SETUID
from sentry.abi.sched import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
)
from sentry.runtime import bundle, diagnose
from sentry.runtime.errors import Fatal
from sentry.runtime.terminal import Terminal, find_terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from gofer.fids import Export
    from sentry.platform.base import Platform
    from sentry.platform.ptrace import PtracePlatform
    from sentry.runtime.cgroup import MemoryGroup
    from sentry.runtime.config import Config
    from sentry.runtime.control import Control

NAMESPACES = (
    CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP
)

#: Nobody on the host; what a Sentry started by root becomes.
NOBODY = 65534
CAP_SETUID_SETGID = 1 << CAP_SETGID | 1 << CAP_SETUID

BIN = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "_bin")
FILTERS = ("sentry", "sentry_trap", "reaper", "stub", "stub_trap", "gofer", "gofer_rw")
AF_UNIX, SOCK_STREAM, SOCK_SEQPACKET, SOCK_NONBLOCK, SOCK_CLOEXEC = 1, 1, 5, 0o4000, 0o2000000

#: The name under which the Gofer attaches the root; binds follow as b"bind0", b"bind1"…
ROOT_EXPORT = b"root"


class Plan:
    """What the processes of one run are made from: descriptors, filters, entry points.

    exports    (attach name, O_PATH descriptor, writable) of the root and the binds, for the Gofer
    stdio      the guest's three descriptors (all above 2), -1 for one that the caller had closed
    control_fd, sentry_sock, gofer_sock, status_fd   see `_sockets`
    procs_fd   cgroup.procs of the memory group, or -1
    cpus       how many CPUs the Sentry may use, before it binds itself to one
    """

    __slots__ = (
        "as_nobody", "cli_fd", "cli_pid", "config", "control_fd", "cpus", "export_type", "exports", "filters",
        "gofer_main", "gofer_sock", "group", "guest_main", "make_platform", "null_fd", "procs_fd",
        "reaper_fd", "sentry_sock", "start_threads", "status_fd", "status_read_fd", "stdio", "stub_fd",
    )  # fmt: skip

    config: Config
    cli_pid: int
    cpus: int
    as_nobody: bool
    filters: dict[str, bytes]
    exports: list[tuple[bytes, int, bool]]
    stdio: tuple[int, int, int]
    group: MemoryGroup | None
    null_fd: int
    stub_fd: int
    reaper_fd: int
    procs_fd: int
    cli_fd: int
    control_fd: int
    sentry_sock: int
    gofer_sock: int
    status_fd: int
    status_read_fd: int
    gofer_main: Callable[..., NoReturn]
    export_type: type[Export]
    make_platform: Callable[[Plan, PtracePlatform], Platform]
    start_threads: Callable[[], None]
    guest_main: Callable[[Config, Platform, int, Control, tuple[int, int, int]], int]


def fill_standard_fds() -> set[int]:
    """Open /dev/null on those of 0, 1, 2 that are closed, so that nothing else lands there.

    Returns which they were."""
    closed = set()
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            closed.add(fd)
            os.dup2(os.open("/dev/null", os.O_RDWR), fd)  # the lowest free number: fd itself
    return closed


def reopen(fd: int) -> int:
    """A descriptor above 2 for guest I/O on the caller's descriptor `fd`.

    A terminal or pipe is opened anew where that is allowed, non-blocking: O_NONBLOCK belongs to the
    open file description, and setting it on the caller's would confuse whoever shares that.  Files,
    sockets and devices are only duplicated: they keep the offset that they share with the caller.
    """
    import fcntl

    mode = os.fstat(fd).st_mode
    if stat.S_ISFIFO(mode) or os.isatty(fd):
        access = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
        try:
            path = f"/proc/self/fd/{fd}"
            return os.open(path, access | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            pass  # another user's terminal, a pipe without a reader
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)


def open_export(path: str, what: str, directory: bool) -> int:
    """An O_PATH descriptor of something that the user asked to show to the guest."""
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise Fatal(f"{what} '{path}': {os.strerror(error.errno or 0)}") from None
    mode = os.fstat(fd).st_mode
    if directory and not stat.S_ISDIR(mode):
        raise Fatal(f"{what} '{path}' is not a directory")
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise Fatal(f"{what} '{path}' is neither a directory nor a regular file")
    if not os.access(path, os.R_OK | (os.X_OK if stat.S_ISDIR(mode) else 0)):
        raise Fatal(f"{what} '{path}' is not readable for you")
    return fd


def open_exports(config: Config) -> list[tuple[bytes, int, bool]]:
    root = config.rootfs if config.rootfs is not None else "/"
    exports = [(ROOT_EXPORT, open_export(root, "--rootfs" if config.rootfs else "root", True), False)]
    for number, bind in enumerate(config.binds):
        exports.append((b"bind%d" % number, open_export(bind.source, "--bind", False), bind.writable))
    return exports


def _damaged(name: str, error: OSError) -> Fatal:
    return Fatal(f"the installation is damaged: {BIN}/{name}: {os.strerror(error.errno or 0)}")


def open_program(name: str) -> int:
    """A descriptor to execute sentry/_bin/NAME by, also as a stranger to the directory's owner."""
    path = os.path.join(BIN, name)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        mode = os.fstat(fd).st_mode
        if os.geteuid() != 0 or mode & 0o5 == 0o5:
            return fd
        # Installed under a strict umask: the uid that a root-started Sentry takes may not execute it.
        copy = os.memfd_create(name, os.MFD_CLOEXEC)
        os.sendfile(copy, fd, 0, os.fstat(fd).st_size)
        os.close(fd)
        return os.open(f"/proc/self/fd/{copy}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _damaged(name, error) from None


def read_filters() -> dict[str, bytes]:
    filters = {}
    for name in FILTERS:
        try:
            fd = os.open(os.path.join(BIN, name + ".bpf"), os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise _damaged(name + ".bpf", error) from None
        filters[name] = os.read(fd, 1 << 16)
        os.close(fd)
    return filters


def _sockets(plan: Plan) -> None:
    """The 9P socket pair (stream), the control pair (packets) and the Gofer's status pipe."""
    import _socket

    a, b = _socket.socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)
    plan.sentry_sock, plan.gofer_sock = a.detach(), b.detach()
    a, b = _socket.socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)
    plan.cli_fd, plan.control_fd = a.detach(), b.detach()
    plan.status_read_fd, plan.status_fd = os.pipe2(os.O_CLOEXEC)


def prepare(config: Config, closed: set[int]) -> Plan:
    """Open all that the run needs, as the user, with one clear line for what cannot be opened."""
    host = os.uname()
    diagnose.check_host(host.machine, host.release, diagnose.read_sysctl("kernel/yama/ptrace_scope"))
    plan = Plan()
    plan.config = config
    plan.cli_pid = os.getpid()
    plan.as_nobody = can_become_nobody()
    plan.exports = open_exports(config)
    plan.filters = read_filters()
    plan.stub_fd = open_program("stub")
    plan.reaper_fd = open_program("reaper")
    plan.null_fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    stdin, stdout, stderr = (-1 if fd in closed else reopen(fd) for fd in (0, 1, 2))
    plan.stdio = (stdin, stdout, stderr)
    plan.group = None
    plan.procs_fd = -1
    _sockets(plan)
    return plan


def covers(id_map: str, number: int) -> bool:
    """Whether a /proc/PID/uid_map or gid_map gives `number` a meaning inside its user namespace."""
    for line in id_map.splitlines():
        first, _, count = (int(word) for word in line.split())
        if first <= number < first + count:
            return True
    return False


def can_become_nobody() -> bool:
    """Whether we are a root that can give a child another uid: not so in a small user namespace."""
    from sentry._engine import lib

    if os.geteuid() != 0 or lib.host_effective_capabilities() & CAP_SETUID_SETGID != CAP_SETUID_SETGID:
        return False
    return all(covers(diagnose.read_file(f"/proc/self/{name}"), NOBODY) for name in ("uid_map", "gid_map"))


def write_maps(pid: int, as_nobody: bool) -> None:
    """Map one id into the user namespace of `pid`: NOBODY for root, our own otherwise.

    Inside it is never 0, since a uid of 0 would get capabilities back by exec.
    """
    uid, gid = (NOBODY, NOBODY) if as_nobody else (os.geteuid(), os.getegid())
    files = [("uid_map", f"{uid or NOBODY} {uid} 1"), ("gid_map", f"{gid or NOBODY} {gid} 1")]
    if not as_nobody:
        # The kernel's condition for an ordinary user; root's child needs setgroups once, to drop its own.
        files.insert(0, ("setgroups", "deny"))
    for name, text in files:
        try:
            fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, text.encode())
            finally:
                os.close(fd)
        except OSError as error:
            raise Fatal(diagnose.map_refused(name, error.errno or 0)) from None


def start_gofer(plan: Plan) -> int:
    from sentry.runtime import inside

    pid = os.fork()
    if pid == 0:
        inside.gofer_process(plan)
    return pid


def start_first_process(plan: Plan) -> tuple[int, int]:
    """(pid of pid 1, write end of its lifeline: to be held open as long as the sandbox may live)."""
    from sentry._engine import lib
    from sentry.runtime import inside

    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    pid: int = lib.host_clone(NAMESPACES)
    if pid == 0:
        os.close(write_fd)
        inside.first_process(plan, read_fd)
    os.close(read_fd)
    if pid < 0:
        raise Fatal(diagnose.namespaces_refused(-pid))
    try:
        write_maps(pid, plan.as_nobody)
        os.write(write_fd, b"g")
    except BaseException:
        os.close(write_fd)  # pid 1 reads end of file and leaves
        os.waitpid(pid, 0)
        raise
    return pid, write_fd


def import_gofer(plan: Plan) -> None:
    """Import the Gofer."""
    from gofer import main as gofer_main

    plan.gofer_main = gofer_main.run
    plan.export_type = gofer_main.Export


def import_kernel(plan: Plan) -> None:
    """Import what the Sentry will ever need."""
    bundle.load_kernel()
    from sentry.runtime import confine, guest
    from sentry.syscalls.table import LATE

    confine.preload()
    LATE.update(bundle.calls)
    plan.guest_main = guest.main
    plan.make_platform = guest.make_platform
    plan.start_threads = guest.start_threads


def import_from_files(plan: Plan) -> None:
    """Import here what the Sentry would have to read files for."""
    if not bundle.is_whole():
        bundle.begin_kernel()
        import_kernel(plan)
        bundle.end_kernel()
    bundle.import_library()
    if plan.config.strace:
        # It reads python-ptrace's tables.
        bundle.open_kernel()
        from sentry.syscalls import strace

        strace.load()


def let_go(plan: Plan) -> None:
    """Close the CLI's copies of what the others have now.

    0 and 1 become /dev/null, so that the far end of a pipe sees the end when the guest closes it."""
    for fd in (
        plan.control_fd, plan.sentry_sock, plan.gofer_sock, plan.status_fd, plan.stub_fd,
        plan.reaper_fd, plan.procs_fd, *plan.stdio, *(fd for _, fd, _ in plan.exports),
    ):  # fmt: skip
        if fd >= 0:
            os.close(fd)
    os.dup2(plan.null_fd, 0)
    os.dup2(plan.null_fd, 1)


def run(config: Config) -> int:
    """Run the sandbox that `config` describes; the CLI's exit status."""
    gc.disable()  # nothing that is made from here to the forks is garbage
    plan = prepare(config, fill_standard_fds())
    from sentry.runtime import supervise

    terminal: Terminal | None = find_terminal()
    if config.memory:
        from sentry.runtime.cgroup import make_group

        plan.group = make_group(config.memory)
        plan.procs_fd = plan.group.procs_fd if plan.group else -1
    signal_fd = supervise.take_signals(config.tty)
    if terminal and config.tty:
        config.winsize = terminal.winsize()
    sys.stdout = sys.stderr  # nobody prints from here on; buffers must not be written twice

    keeper = supervise.Supervisor(plan.cli_fd, signal_fd, config, terminal, plan.group, plan.status_read_fd)
    if config.memory and plan.group is None:
        from sentry.runtime.watch import MemoryWatch

        keeper.watch = MemoryWatch(config.memory)
    try:
        keeper.gofer = start_gofer(plan)
        import_from_files(plan)
        keeper.reaper, lifeline = start_first_process(plan)
        let_go(plan)
        bundle.forget()
        status = keeper.run()
        os.close(lifeline)
        bundle.renew()
        return status
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.ENOMEM):
            raise Fatal(f"cannot start the sandbox's processes: {os.strerror(error.errno)}") from None
        raise
    finally:
        keeper.clean_up()
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
