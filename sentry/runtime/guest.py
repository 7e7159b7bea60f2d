"""Placeholder for the kernel's entry point: boots nothing and exits."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.platform.base import Platform
    from sentry.runtime.boot import Plan
    from sentry.runtime.config import Config
    from sentry.runtime.control import Control


def make_platform(plan: Plan) -> Platform:
    raise NotImplementedError


def main(
    config: Config, platform: Platform, sock_fd: int, control: Control, stdio: tuple[int, int, int]
) -> int:
    raise NotImplementedError
