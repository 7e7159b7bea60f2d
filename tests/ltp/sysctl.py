"""The host's /proc/sys around native tests: some set knobs, and not all that end early put them back."""

from __future__ import annotations

import os
from pathlib import Path

ROOMS = ("fs", "kernel", "user", "vm")
#: Change by themselves, or do something when they are written.
LIVING = ("random", "ns_last_pid", "drop_caches", "compact_memory", "stat_refresh", "-nr", "-state", "pty/nr")


def snapshot(root: Path = Path("/proc/sys")) -> dict[Path, bytes]:
    """What the knobs say that may be written."""
    values = {}
    for room in ROOMS:
        for folder, _, names in os.walk(root / room):
            for name in names:
                path = Path(folder, name)
                if any(word in str(path) for word in LIVING) or not path.stat().st_mode & 0o200:
                    continue
                try:
                    values[path] = path.read_bytes()
                except OSError:
                    continue  # written only
    return values


def restore(before: dict[Path, bytes]) -> list[Path]:
    """Writes back what differs from `before`; gives the knobs that did."""
    changed = []
    for path, value in before.items():
        try:
            if path.read_bytes() != value:
                changed.append(path)
                path.write_bytes(value)
        except OSError:
            continue
    return changed
