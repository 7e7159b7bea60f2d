"""Starting the platform: its zygote boots while the Sentry still imports the kernel.

So this imports the platform and nothing above it.
"""

from __future__ import annotations

import errno

from sentry.platform.ptrace import PtracePlatform
from sentry.platform.trap import TrapPlatform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.runtime.boot import Plan


def begin(plan: Plan) -> PtracePlatform:
    """The platform that the user wants, under way.  OSError."""
    if plan.config.platform == "trap":
        platform: PtracePlatform = TrapPlatform(plan.stub_fd, plan.filters["stub_trap"])
    else:
        platform = PtracePlatform(plan.stub_fd, plan.filters["stub"])
    platform.begin()
    return platform


def finish(plan: Plan, platform: PtracePlatform) -> PtracePlatform:
    """The platform, started; `ptrace` on a CPU that `trap` can't use.  OSError."""
    try:
        platform.finish()
        return platform
    except OSError as error:
        if plan.config.platform != "trap" or error.errno != errno.EOPNOTSUPP:
            raise
    plan.config.platform = "ptrace"
    platform = begin(plan)
    platform.finish()
    return platform
