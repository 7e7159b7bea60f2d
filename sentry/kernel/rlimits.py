"""Resource limits of a fresh sandbox: what a login on Debian has, cut to what the sandbox was given."""

from __future__ import annotations

from sentry.abi import resource as r

#: fs.nr_open: the highest hard RLIMIT_NOFILE that anybody can set.
NR_OPEN = 1048576
DEFAULT_STACK = 8 << 20
DEFAULT_MEMLOCK = 8 << 20


def default_limits(pids: int = 0, sigpending: int = 0) -> dict[int, tuple[int, int]]:
    """RLIMIT number → (soft, hard) for the first process.

    `pids` is the most tasks that the sandbox may have (0: no limit of its own); pending signals
    take Sentry memory and so always have a limit.
    """
    infinity = r.RLIM_INFINITY
    limits = {number: (infinity, infinity) for number in range(r.RLIM_NLIMITS)}
    limits[r.RLIMIT_STACK] = (DEFAULT_STACK, infinity)
    limits[r.RLIMIT_CORE] = (0, infinity)
    limits[r.RLIMIT_NPROC] = (pids, pids) if pids else (infinity, infinity)
    limits[r.RLIMIT_NOFILE] = (1024, NR_OPEN)
    limits[r.RLIMIT_MEMLOCK] = (DEFAULT_MEMLOCK, DEFAULT_MEMLOCK)
    limits[r.RLIMIT_SIGPENDING] = (sigpending or 4096, sigpending or 4096)
    limits[r.RLIMIT_MSGQUEUE] = (819200, 819200)
    limits[r.RLIMIT_NICE] = (0, 0)
    limits[r.RLIMIT_RTPRIO] = (0, 0)
    return limits
