"""Prints docs/syscalls.md, which is made from the table: `python -m sentry.syscalls.document`.

A test compares the file with what this prints.
"""

from __future__ import annotations

import errno
import sys

from sentry import syscalls
from sentry.abi.syscall_nr import NAMES
from sentry.syscalls.table import REFUSED, TABLE

HEAD = """\
# System calls

Made by `python -m sentry.syscalls.document > docs/syscalls.md`; a test holds this file against the table.

Of the {total} calls of x86-64 Linux that the Sentry knows by name, {full} are complete, {partial} partial,
{refused} refused as a kernel does that was built without the feature, and {missing} not implemented.

- **full**: behaves as the man page says, as far as we know. A difference is a bug: please report it.
- **partial**: the note says what is missing.
- **refused**: always gives that errno, the one a program meets on a Linux without the feature, or without
  the privilege. The note gives the reason.
- **not implemented**: gives ENOSYS, as numbers beyond this table do; `sentry run --debug` names it once.

A known difference that belongs to no call: the page fault error code in a signal frame (REG_ERR after
SIGSEGV) is a guess, since the host does not tell it to a tracer.

| nr | name | support | notes |
|---:|---|---|---|
"""


def describe(nr: int) -> tuple[str, str]:
    """(support, notes) of call number `nr`."""
    entry = TABLE.get(nr)
    if entry is not None:
        return ("partial", entry.partial) if entry.partial else ("full", "")
    if nr in REFUSED:
        number, reason = REFUSED[nr]
        return f"refused {errno.errorcode[number]}", reason
    return "not implemented", ""


def document() -> str:
    """The text of docs/syscalls.md."""
    syscalls.load_all()
    rows = [(nr, NAMES[nr], *describe(nr)) for nr in sorted(NAMES)]
    kinds = [row[2].split()[0] for row in rows]
    counts = {kind: kinds.count(kind) for kind in ("full", "partial", "refused")}
    head = HEAD.format(total=len(rows), missing=kinds.count("not"), **counts)
    return head + "".join(f"| {nr} | {name} | {support} | {notes} |\n" for nr, name, support, notes in rows)


if __name__ == "__main__":
    sys.stdout.write(document())
