"""Settings of /proc/sys that whoever runs as root in the sandbox may change, and that the kernel looks at."""

from __future__ import annotations

from sentry.kernel.rlimits import NR_OPEN


class Knobs:
    __slots__ = ("core_pattern", "core_uses_pid", "nr_open")

    def __init__(self) -> None:
        #: How core files are called, and whether a process id comes behind (core(5)).
        self.core_pattern = b"core"
        self.core_uses_pid = 0
        #: The highest that RLIMIT_NOFILE can be set to.
        self.nr_open = NR_OPEN
