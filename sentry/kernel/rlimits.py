"""Resource limits of a fresh sandbox: what a login on Debian has, cut to what the sandbox was given."""

from __future__ import annotations

from sentry.abi import resource as r

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: fs.nr_open: the highest hard RLIMIT_NOFILE that anybody can set.
NR_OPEN = 1048576
DEFAULT_STACK = 8 << 20
DEFAULT_MEMLOCK = 8 << 20
#: Queued signals take the Sentry's own memory, so there is always a limit.
MAX_SIGPENDING = 4096


def default_limits(config: Any, host: Any) -> dict[int, tuple[int, int]]:
    """RLIMIT number → (soft, hard) for the first process.

    `config.pids` is the most tasks that the sandbox may have; 0 means no limit of its own.
    """
    infinity = r.RLIM_INFINITY
    limits = {number: (infinity, infinity) for number in range(r.RLIM_NLIMITS)}
    limits[r.RLIMIT_STACK] = (DEFAULT_STACK, infinity)
    limits[r.RLIMIT_CORE] = (0, infinity)
    if config.pids:
        limits[r.RLIMIT_NPROC] = (config.pids, config.pids)
    limits[r.RLIMIT_NOFILE] = (1024, NR_OPEN)
    limits[r.RLIMIT_MEMLOCK] = (DEFAULT_MEMLOCK, DEFAULT_MEMLOCK)
    limits[r.RLIMIT_SIGPENDING] = (MAX_SIGPENDING, MAX_SIGPENDING)
    limits[r.RLIMIT_MSGQUEUE] = (819200, 819200)
    limits[r.RLIMIT_NICE] = (0, 0)
    limits[r.RLIMIT_RTPRIO] = (0, 0)
    return limits
