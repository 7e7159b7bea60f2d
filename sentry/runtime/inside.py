"""Inside the namespaces: pid 1 until it becomes the reaper, and the Sentry until it is locked down.

pid 1 comes here from a raw clone, as a copy of the CLI with everything imported and open.  It takes
the uid it was given and forks the Sentry.  The Sentry starts the platform, the last step that reads
or executes files; then pid 1 replaces the root of the whole namespace by an empty read-only one, gives
up all rights and executes the reaper, while the Sentry locks itself down and only then lets the kernel
run guest code.
"""

from __future__ import annotations

import _signal
import errno
import gc
import os
import resource
import select

from sentry._engine import ffi, lib
from sentry.abi.mount import MNT_DETACH, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_PRIVATE, MS_RDONLY, MS_REC
from sentry.abi.prctl import PR_SET_DUMPABLE
from sentry.runtime import boot, bundle, confine, diagnose
from sentry.runtime.boot import NOBODY
from sentry.runtime.control import Control
from sentry.runtime.errors import Fatal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from sentry.platform.base import Platform
    from sentry.runtime.boot import Plan


#: Sent to the terminal's foreground group or by people; the CLI passes them on as messages.
IGNORED = (
    _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM, _signal.SIGHUP, _signal.SIGUSR1,
    _signal.SIGUSR2, _signal.SIGPIPE, _signal.SIGALRM,
)  # fmt: skip

#: Private memory of a stub that the Sentry does not account for: the stub's own, rounding.
DATA_SLACK = 16 << 20


def settle_signals() -> None:
    """What a helper process of a run starts with: the CLI's signals are not its business."""
    for signo in IGNORED:
        _signal.signal(signo, _signal.SIG_IGN)
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def debug(plan: Plan, text: str) -> None:
    if plan.config.debug:
        try:
            os.write(2, f"sentry[debug]: {text}\n".encode())
        except OSError:
            pass


def _mount_step(result: int, step: str) -> None:
    if result < 0:
        raise Fatal(diagnose.mounting_refused(-result, step))


def empty_root() -> None:
    """Make an empty, read-only tmpfs the root of this mount namespace, and nothing else in it."""
    none = ffi.NULL
    _mount_step(lib.host_mount(b"none", b"/", none, MS_REC | MS_PRIVATE, none), "making mounts private")
    flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC
    # Any directory will do; /proc is there, or we would not have got here.
    _mount_step(lib.host_mount(b"empty", b"/proc", b"tmpfs", flags, b"size=4k,nr_inodes=2,mode=555"), "mount")
    os.chdir("/proc")
    # The old root lands on top of the new one and goes with the next call.
    _mount_step(lib.host_pivot_root(b".", b"."), "pivot_root")
    _mount_step(lib.host_umount2(b".", MNT_DETACH), "umount")
    os.chdir("/")


def become_nobody() -> None:
    """From the host's root to a uid that owns nothing.  The new user namespace knows only NOBODY."""
    try:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    except OSError as error:
        raise Fatal(diagnose.mounting_refused(error.errno or 0, "changing to an unused uid")) from None


def _await_parent(go_fd: int) -> bool:
    """Wait for the CLI to write our id maps; false when it died instead."""
    try:
        if os.read(go_fd, 1) != b"g":
            return False
    except OSError:
        return False
    return True


def _parent_is_gone(go_fd: int) -> bool:
    poll = select.poll()
    poll.register(go_fd, 0)  # POLLHUP is always reported
    return bool(poll.poll(0))


def first_process(plan: Plan, go_fd: int) -> NoReturn:
    """The life of pid 1, up to the reaper.  `go_fd`: the read end of a pipe that the CLI holds open."""
    control = Control(plan.control_fd)
    status = 128
    try:
        settle_signals()
        if not _await_parent(go_fd):
            os._exit(128)
        if plan.as_nobody:
            become_nobody()
        confine.die_with_parent()  # behind the change of uid, which clears it
        if _parent_is_gone(go_fd):
            os._exit(128)
        os.close(go_fd)
        os.chdir("/")  # the empty root will take its place for all who are there
        debug(plan, f"pid 1: own user, pid, mount, net, ipc, uts and cgroup namespaces, uid {os.getuid()}")
        started_read, started = os.pipe2(os.O_CLOEXEC)
        emptied, emptied_write = os.pipe2(os.O_CLOEXEC)
        sentry = os.fork()
        if sentry == 0:
            _sentry_process(plan, control, started, emptied)
        os.close(started)
        if os.read(started_read, 1) == b"s":
            empty_root()
            os.write(emptied_write, b"e")
            _become_reaper(plan, sentry)
        # The Sentry has failed and said why; the exit of pid 1 ends it if it has not ended itself.
        os.waitpid(sentry, 0)
    except Fatal as error:
        control.failed(error.text, error.status)
        status = error.status
    except BaseException as error:
        _internal_error(plan, control, error)
    os._exit(status)


def _internal_error(plan: Plan, control: Control, error: BaseException) -> None:
    if plan.config.debug:
        debug(plan, "internal error\n" + confine.describe(error))
    control.failed(f"internal error: {type(error).__name__}: {error}; run with --debug for details", 128)


def _become_reaper(plan: Plan, sentry: int) -> None:
    """Give up everything and execute the reaper; returns never, or raises."""
    argv = [ffi.new("char[]", word) for word in (b"reaper", b"%d" % sentry)]
    argv_array = ffi.new("char *[]", [*argv, ffi.NULL])
    env_array = ffi.new("char *[]", [ffi.NULL])
    program = plan.filters["reaper"]
    debug(plan, f"pid 1: no capabilities, no_new_privs, seccomp; becomes the reaper of pid {sentry}")
    confine.close_all_but((plan.reaper_fd,))
    confine.drop_capabilities()
    confine.no_new_privs()
    raw = ffi.from_buffer(program)
    lib.host_confined_exec(raw, len(program) // 8, plan.reaper_fd, argv_array, env_array)
    os._exit(127)


def _sentry_process(plan: Plan, control: Control, started: int, emptied: int) -> NoReturn:
    """The life of the Sentry: platform, empty root, lock-down, kernel."""
    status = 128
    try:
        confine.die_with_parent()
        os.dup2(plan.null_fd, 0)
        os.dup2(plan.null_fd, 1)
        kept = (0, 1, 2, *plan.stdio, plan.control_fd, plan.sentry_sock)
        confine.close_all_but((*kept, plan.stub_fd, plan.procs_fd, started, emptied))
        platform = _start_platform(plan)
        bundle.forget_kernel()
        gc.freeze()
        gc.enable()
        os.write(started, b"s")
        if os.read(emptied, 1) != b"e":
            os._exit(128)  # pid 1 could not make the empty root, and says so
        if os.listdir("/") or os.listdir("."):
            raise Fatal("the sandbox's root is not empty")
        for fd in (plan.stub_fd, plan.procs_fd, started, emptied):
            if fd >= 0:
                os.close(fd)
        sentry_filter = "sentry" if plan.config.platform == "ptrace" else "sentry_trap"
        confine.lock_down(plan.filters[sentry_filter], plan.config.debug, plan.start_threads)
        debug(plan, "sentry: empty root, no capabilities, no_new_privs, not dumpable, seccomp allow-list")
        status = plan.guest_main(plan.config, platform, plan.sentry_sock, control, plan.stdio)
        control.exited(status)
    except Fatal as error:
        control.failed(error.text, error.status)
        status = error.status
    except BaseException as error:
        _internal_error(plan, control, error)
    os._exit(status & 0xFF)


def _start_platform(plan: Plan) -> Platform:
    """Import the kernel and start the platform; stubs inherit a high oom_score_adj and the memory cgroup."""
    # A change of uid has made us undumpable, and so our own files in /proc root's.
    lib.host_prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
    own_score = _set_oom_score(b"1000")
    confine.quiet_malloc()  # before there is a second thread
    plan.cpus = len(os.sched_getaffinity(0))
    bundle.open_kernel()
    from sentry.runtime import zygote

    try:
        started = zygote.begin(plan)
    except OSError as error:
        raise _no_platform(error) from error
    boot.import_kernel(plan)
    try:
        platform = plan.make_platform(plan, started)
    except OSError as error:
        raise _no_platform(error) from error
    if own_score:
        _set_oom_score(own_score)
    _join_group(plan, platform)
    _limit_data(plan, platform)
    return platform


def _no_platform(error: OSError) -> Fatal:
    return Fatal(diagnose.ptrace_refused(error.errno or 0, str(error.strerror or error)))


def _set_oom_score(score: bytes) -> bytes:
    """Set oom_score_adj, so that a host short of memory takes guests before it takes Sentries.

    Returns what it was, b"" when it could not be set; it is a preference, no more.
    """
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
        try:
            old = os.read(fd, 16).strip()
            os.pwrite(fd, score, 0)
            return old
        finally:
            os.close(fd)
    except OSError:
        return b""


def _join_group(plan: Plan, platform: Platform) -> None:
    """Put the zygote into the memory cgroup; every stub is forked from it and so is inside too."""
    zygote: int = platform.zygote_pid  # type: ignore[attr-defined]
    if plan.procs_fd < 0 or not zygote:
        return
    try:
        os.write(plan.procs_fd, b"%d" % zygote)
    except OSError as error:
        debug(plan, f"sentry: no memory cgroup: {errno.errorcode.get(error.errno or 0)}")
        return
    debug(plan, f"sentry: stubs are in a memory cgroup of {plan.config.memory} bytes")


def _limit_data(plan: Plan, platform: Platform) -> None:
    """What the Sentry accounts for is never more than the limit; a guest that uses its stub's own mmap is not
    accounted for, so the host holds each process to as much."""
    zygote: int = platform.zygote_pid  # type: ignore[attr-defined]
    if plan.config.memory and zygote:
        limit = plan.config.memory + DATA_SLACK
        resource.prlimit(zygote, resource.RLIMIT_DATA, (limit, limit))


def gofer_process(plan: Plan) -> NoReturn:
    """The Gofer's process, up to its own main: a child of the CLI in the host's namespaces."""
    try:
        settle_signals()
        boot.import_gofer(plan)
        bundle.forget()
        gc.enable()
        exports = [plan.export_type(name, b"", not writable, fd) for name, fd, writable in plan.exports]
        writable = any(writable for _, _, writable in plan.exports)
        plan.gofer_main(
            plan.gofer_sock,
            exports,
            plan.filters["gofer_rw" if writable else "gofer"],
            debug_fd=os.dup(2) if plan.config.debug else -1,
            status_fd=plan.status_fd,
            parent_pid=plan.cli_pid,
        )
    finally:
        os._exit(128)
