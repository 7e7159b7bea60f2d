"""Limits of the system (linux/limits.h, linux/threads.h)."""

from __future__ import annotations

#: Process ids are below this (PID_MAX_LIMIT).
PID_MAX = 4194304
