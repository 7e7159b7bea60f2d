"""The messages of Unix sockets in C (csrc/engine/unix.c): what they count for, and who goes when."""

from __future__ import annotations

from pathlib import Path

import sanitized

TYPE_CHECKING = False
if TYPE_CHECKING:
    import random


def test_random_messages(tmp_path: Path, seeded: random.Random, long_form: bool) -> None:
    times = 2_000_000 if long_form else 60_000
    assert sanitized.run("unix", tmp_path, seeded.randrange(1 << 32), times) == "ok\n"
