"""`python -m sentry` is `sentry`."""

from __future__ import annotations

from sentry.cli import main

main()
