"""Lines of LTP's `runtest` files: a name, and a command line for a shell."""

from __future__ import annotations

import csv
import re
from pathlib import Path

HERE = Path(__file__).resolve().parent
LEFT_OUT = HERE / "left_out.tsv"


class Line:
    __slots__ = ("command", "name")

    def __init__(self, name: str, command: str) -> None:
        self.name = name
        self.command = command

    def __repr__(self) -> str:
        return f"Line({self.name!r}, {self.command!r})"


def read_list(path: Path) -> list[Line]:
    """The tests of a runtest file, in its order; ValueError for a missing command or a repeated name."""
    lines: list[Line] = []
    names: set[str] = set()
    for number, text in enumerate(path.read_text().splitlines(), 1):
        text = text.strip()
        if not text or text.startswith("#"):
            continue
        name, *command = text.split(None, 1)
        if not command:
            raise ValueError(f"{path}:{number}: {name} has no command")
        if name in names:
            raise ValueError(f"{path}:{number}: {name} stands there twice")
        names.add(name)
        lines.append(Line(name, command[0]))
    return lines


def read_table(path: Path, *columns: str) -> list[tuple[str, ...]]:
    """The rows of a TSV file whose first line names exactly `columns`; ValueError for any other."""
    with path.open(newline="") as file:
        rows = [tuple(row) for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    if not rows or rows[0] != columns:
        raise ValueError(f"{path}: the first line has to name the columns {', '.join(columns)}")
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(columns) or not all(row):
            raise ValueError(f"{path}:{number}: not {len(columns)} filled columns")
    return rows[1:]


class Filter:
    """The tests that are not run: rows of (a pattern that has to match the whole name, the reason)."""

    def __init__(self, path: Path = LEFT_OUT) -> None:
        self.rules = [
            (re.compile(pattern), reason) for pattern, reason in read_table(path, "pattern", "reason")
        ]

    def reason(self, name: str) -> str:
        """Why the test is left out, or an empty string."""
        return next((reason for pattern, reason in self.rules if pattern.fullmatch(name)), "")
