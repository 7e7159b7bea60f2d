"""Fatal: what ends a run with one line for the user.

Everything that a user can cause or mend is raised as a Fatal, in whichever process notices it; the
CLI prints `sentry: TEXT` and exits with the status.  Any other exception is a bug of ours.
"""

from __future__ import annotations

import os

#: Exit statuses of the CLI that do not come from the guest.
NOT_FOUND = 127
NOT_EXECUTABLE = 126
SANDBOX = 128
TIMED_OUT = 137


class Fatal(Exception):
    """`text` is one line without a full stop; `status` the exit status of the CLI."""

    def __init__(self, text: str, status: int = SANDBOX) -> None:
        super().__init__(text)
        self.text = text
        self.status = status


def say(text: str) -> None:
    """One line on stderr, whatever state stderr is in."""
    try:
        os.write(2, f"sentry: {text}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        pass
