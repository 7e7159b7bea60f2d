"""Sentry: a user-space Linux kernel that runs unmodified programs in a sandbox."""

__version__ = "0.1.0"
