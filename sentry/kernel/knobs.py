"""Settings of /proc/sys that whoever runs as root in the sandbox may change, and that the kernel looks at."""

from __future__ import annotations

from sentry.kernel.rlimits import NR_OPEN


class Knobs:
    __slots__ = ("nr_open",)

    def __init__(self) -> None:
        #: The highest that RLIMIT_NOFILE can be set to.
        self.nr_open = NR_OPEN
