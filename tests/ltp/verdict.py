"""What the end of a test means."""

from __future__ import annotations

import re

#: Bits of a test's exit status (LTP's include/tst_res_flags.h), the gravest first.
BITS = ((2, "broken"), (1, "failed"), (4, "warned"), (32, "unfit"))
WORDS = {"failed": "TFAIL", "broken": "TBROK", "warned": "TWARN", "unfit": "TCONF"}

#: All verdicts.  `unfit`: the test itself says that this kernel has not what it is about (TCONF).
VERDICTS = ("passed", "failed", "broken", "warned", "unfit", "killed", "timeout", "missing", "sandbox")
NOTE_SIZE = 160


def verdict(status: int | None, sandboxed: bool) -> str:
    """The verdict for an exit status as a shell shows it; None: the test was ended by the runner."""
    if status is None:
        return "timeout"
    if status == 0:
        return "passed"
    if status in (126, 127):
        return "missing"
    if status == 128 and sandboxed:
        return "sandbox"
    if status >= 128:
        return "killed"
    return next((name for bit, name in BITS if status & bit), "failed")


def note(kind: str, output: str) -> str:
    """The line of the output that tells most about why it ended so, on one line without tabs."""
    if kind == "passed":
        return ""
    lines = [" ".join(line.split()) for line in output.splitlines() if line.strip()]
    order = [WORDS[kind]] if kind in WORDS else []
    for word in [*order, "TFAIL", "TBROK", "TWARN", "TCONF"]:
        found = next((line for line in lines if word in line), None)
        if found is not None:
            # Pids and addresses differ from run to run, and have no place in a table that is compared.
            return re.sub(r"\b0x[0-9a-f]{6,}\b", "ADDR", found)[:NOTE_SIZE]
    return lines[-1][:NOTE_SIZE] if lines else ""
