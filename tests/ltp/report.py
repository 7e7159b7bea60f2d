"""The tables: counts by area or family, what differs from the host, and what got worse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ltp.areas import area, family
from ltp.results import Result
from ltp.runtest import read_table
from ltp.verdict import VERDICTS

KNOWN = Path(__file__).resolve().parent / "known.tsv"
Results = dict[str, Result]


def read_known(path: Path = KNOWN) -> dict[str, tuple[str, str]]:
    """test → (area, reason) of the tests that pass natively and are known not to pass in the sandbox."""
    rows = read_table(path, "test", "area", "reason")
    known = {test: (area, reason) for test, area, reason in rows}
    if len(known) != len(rows):
        raise ValueError(f"{path}: a test stands there twice")
    return known


def passed(results: Results, test: str) -> bool:
    return test in results and results[test].verdict == "passed"


def lost(native: Results, sandbox: Results) -> list[str]:
    """Tests that pass natively and were run in the sandbox, and don't pass there."""
    return [test for test in sandbox if passed(native, test) and not passed(sandbox, test)]


def counts(
    native: Results, sandbox: Results, key: Callable[[str], str]
) -> list[tuple[str, int, int, int, int]]:
    """(key, tests, passed natively, passed in the sandbox, passed in both) for each key, sorted."""
    table: dict[str, list[int]] = {}
    for test in {**native, **sandbox}:
        there, here = passed(native, test), passed(sandbox, test)
        row = table.setdefault(key(test), [0, 0, 0, 0])
        for column, one in enumerate((True, there, here, there and here)):
            row[column] += one
    return [(name, *row) for name, row in sorted(table.items())]  # type: ignore[misc]


def _table(native: Results, sandbox: Results, key: Callable[[str], str], title: str) -> list[str]:
    rows = counts(native, sandbox, key)
    total = ("total", *(sum(row[column] for row in rows) for column in range(1, 5)))
    width = max(len(title), *(len(row[0]) for row in rows), 5)
    lines = [f"{title:{width}}  tests  native  sandbox  both"]
    lines += [f"{row[0]:{width}} {row[1]:6} {row[2]:7} {row[3]:8} {row[4]:5}" for row in [*rows, total]]
    return lines


def _verdicts(results: Results) -> str:
    found = {kind: sum(result.verdict == kind for result in results.values()) for kind in VERDICTS}
    return ", ".join(f"{count} {kind}" for kind, count in found.items() if count)


def report(
    native: Results, sandbox: Results, known: dict[str, tuple[str, str]], before: Results | None
) -> str:
    """The whole text; `before`: results of the sandbox at an earlier time."""
    lines = [f"native: {_verdicts(native)}", f"sandbox: {_verdicts(sandbox)}", ""]
    lines += [*_table(native, sandbox, area, "area"), "", *_table(native, sandbox, family, "family"), ""]
    missing = lost(native, sandbox)
    fresh = [test for test in missing if test not in known]
    lines += [f"{len(missing)} pass natively only, {len(fresh)} of them not in known.tsv:"]
    for test in fresh:
        result = sandbox[test]
        lines.append(f"  {test} ({area(test)}): {result.verdict}: {result.note}")
    stale = [test for test in known if passed(sandbox, test)]
    if stale:
        lines += ["", "known.tsv lists, and they pass: " + " ".join(stale)]
    if before is not None:
        worse = [test for test in sandbox if passed(before, test) and not passed(sandbox, test)]
        better = [
            test for test in sandbox if test in before and passed(sandbox, test) and not passed(before, test)
        ]
        lines += ["", f"better than before: {len(better)}; worse: {len(worse)}"]
        lines += [f"  {test}: {sandbox[test].verdict}: {sandbox[test].note}" for test in worse]
    return "\n".join(lines) + "\n"
