"""What GoogleTest prints: the list of a program's cases, and how each has ended."""

from __future__ import annotations

import re

#: The words in brackets; a case that has begun and never ended has died.
_ENDED = re.compile(r"^\[ +(OK|FAILED|SKIPPED) +\] ([^\s,]+\.[^\s,]+)(?:, where| \(\d+ ms\)|$)", re.MULTILINE)
VERDICTS = {"OK": "passed", "FAILED": "failed", "SKIPPED": "unfit"}


def read_list(text: str) -> list[str]:
    """The full names of `--gtest_list_tests`, without those that are disabled."""
    found = []
    suite = ""
    for line in text.splitlines():
        name = line.split("#", 1)[0].strip()
        if not line.startswith(" "):
            suite = name
        elif name:
            found.append(suite + name)
    return [name for name in found if not re.search(r"(^|[/.])DISABLED_", name)]


def read_output(text: str) -> dict[str, str]:
    """name → verdict (`passed`, `failed`, `unfit`) of the cases that have ended."""
    verdicts: dict[str, str] = {}
    for word, name in _ENDED.findall(text):
        verdicts.setdefault(name, VERDICTS[word])
    return verdicts


def note(text: str) -> str:
    """The first lines of a failure, on one line without tabs."""
    at = text.find(": Failure")
    lines = text[at + 9 :].splitlines() if at >= 0 else text.splitlines()[-3:]
    return " ".join(" ".join(lines[:4]).split())[:160]
