"""How a process of ours gives up what it does not need.

The order matters and is the same everywhere: descriptors, limits, capabilities, no_new_privs, the
dumpable flag, and the seccomp filter last, since it forbids all the others.  docs/security.md says
what each step is for.
"""

from __future__ import annotations

import _codecs
import _warnings
import os
import resource
import sys
import time

from sentry._engine import ffi, lib
from sentry.abi.prctl import PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, PR_SET_PDEATHSIG
from sentry.runtime import bundle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType


SECCOMP_FILTER_FLAG_TSYNC = 1
SOCK_FILTER_SIZE = 8

LAST_FD = 0xFFFF_FFFF


def check(result: int, what: str) -> int:
    """The result of a lib.host_* call; OSError(-result, …) when it is an error."""
    if result < 0:
        raise OSError(-result, f"{what}: {os.strerror(-result)}")
    return result


def die_with_parent() -> None:
    """SIGKILL for the caller when the thread that forked it ends.  Cleared by a change of uid."""
    check(lib.host_prctl(PR_SET_PDEATHSIG, 9, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def close_all_but(keep: Iterable[int]) -> None:
    """Close every descriptor that is not in `keep`."""
    start = 0
    for fd in sorted(set(keep)):
        if fd < start:
            continue  # -1: a descriptor that there isn't
        if fd > start:
            lib.host_close_range(start, fd - 1)
        start = fd + 1
    lib.host_close_range(start, LAST_FD)


def no_new_privs() -> None:
    check(lib.host_prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")


def drop_capabilities() -> None:
    check(lib.host_drop_capabilities(), "capset")
    if lib.host_effective_capabilities():
        raise OSError(1, "capabilities are left after capset")


def not_dumpable() -> None:
    check(lib.host_prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl(PR_SET_DUMPABLE)")


def load_filter(program: bytes) -> None:
    """Install a filter for every thread of the process: raw struct sock_filter, as filters.py writes."""
    if not program or len(program) % SOCK_FILTER_SIZE:
        raise ValueError("damaged seccomp filter")
    raw = ffi.from_buffer(program)
    check(lib.host_seccomp_load(raw, len(program) // SOCK_FILTER_SIZE, SECCOMP_FILTER_FLAG_TSYNC), "seccomp")


def quiet_malloc() -> None:
    """One heap for all threads, which never looks into /sys or /proc."""
    lib.host_quiet_malloc()


def set_limits() -> None:
    """No core dumps (they would write guest memory to the host's disk); as many files as we may have."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def describe(error: BaseException) -> str:
    """A traceback without source lines, which would have to be read from files.

    Frames of one exception only, innermost last; its causes follow in the same form.
    """
    lines: list[str] = []
    current: BaseException | None = error
    while current is not None and len(lines) < 200:
        lines.append(f"{type(current).__name__}: {current}")
        frame: TracebackType | None = current.__traceback__
        while frame is not None:
            code = frame.tb_frame.f_code
            lines.append(f"  {code.co_filename}:{frame.tb_lineno} in {code.co_qualname}")
            frame = frame.tb_next
        following = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
        current = following
    return "\n".join(lines)


def _report(text: str) -> None:
    try:
        os.write(2, text.encode("utf-8", "backslashreplace") + b"\n")
    except OSError:
        pass


def preload() -> None:
    """What Python would import at its first use; for a process that can still open files."""
    for name in ("ascii", "latin-1", "utf-8"):
        _codecs.lookup(name)


def tame_python(debug: bool) -> None:
    """Take from the interpreter every habit of opening files: imports, warnings, tracebacks, time zones.

    After this an import of what is not in the bundle's memory is an ImportError that names it, not a SIGSYS.
    """
    os.environ["TZ"] = "UTC0"
    time.tzset()
    _warnings.filters.insert(0, ("ignore", None, Warning, None, 0))
    _warnings._filters_mutated()  # type: ignore[attr-defined]

    def on_exception(kind: type[BaseException], error: BaseException, where: object) -> None:
        _report(describe(error) if debug else f"sentry: internal error: {kind.__name__}: {error}")

    def on_unraisable(info: sys.UnraisableHookArgs) -> None:
        if debug and info.exc_value is not None:
            _report(f"ignored in {info.object!r}: {describe(info.exc_value)}")

    sys.excepthook = on_exception
    sys.unraisablehook = on_unraisable
    sys.meta_path[:] = [finder for finder in sys.meta_path if finder is bundle.Finder]
    sys.path_hooks.clear()
    sys.path.clear()
    sys.path_importer_cache.clear()


def lock_down(program: bytes, debug: bool = False, start_threads: Callable[[], None] | None = None) -> None:
    """Make the calling process what a Sentry may be while guest code runs.  There is no way back.

    `start_threads` makes its threads: after the rights are gone, before the filter forbids it.

    Descriptors are the caller's matter: they must have been opened, and the rest closed, before.
    """
    tame_python(debug)
    quiet_malloc()
    set_limits()
    drop_capabilities()
    no_new_privs()
    not_dumpable()
    if start_threads is not None:
        start_threads()
    load_filter(program)
