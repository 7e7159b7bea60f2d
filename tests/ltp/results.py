"""Results of one place: a TSV that grows with each test, so that an interrupted run goes on where it was."""

from __future__ import annotations

import threading
from pathlib import Path

from ltp.runtest import Line

COLUMNS = ("test", "verdict", "status", "seconds", "note")


class Result:
    __slots__ = ("note", "seconds", "status", "test", "verdict")

    def __init__(self, test: str, verdict: str, status: str, seconds: float, note: str) -> None:
        self.test = test
        self.verdict = verdict
        #: As a shell shows it; "-" for a test that was ended.
        self.status = status
        self.seconds = seconds
        self.note = note

    def row(self) -> str:
        return "\t".join((self.test, self.verdict, self.status, f"{self.seconds:.1f}", self.note)) + "\n"


def read(path: Path) -> dict[str, Result]:
    """Results by test, {} for a file that is not there; of several for one test the last counts."""
    if not path.exists():
        return {}
    results = {}
    head, *rows = path.read_text().splitlines()
    if tuple(head.split("\t")) != COLUMNS:
        raise ValueError(f"{path}: not a table of results")
    for row in rows:
        test, verdict, status, seconds, note = row.split("\t")
        results[test] = Result(test, verdict, status, float(seconds), note)
    return results


class Table:
    """The file while tests run; any thread may add a row."""

    def __init__(self, path: Path, keep: dict[str, Result]) -> None:
        self.path = path
        self.results = dict(keep)
        self.lock = threading.Lock()
        self._write(list(keep.values()))

    def _write(self, results: list[Result]) -> None:
        text = "\t".join(COLUMNS) + "\n" + "".join(result.row() for result in results)
        self.path.write_text(text)

    def add(self, result: Result) -> None:
        with self.lock:
            self.results[result.test] = result
            with self.path.open("a") as file:
                file.write(result.row())

    def sort(self, lines: list[Line]) -> None:
        """Rewrite the file in the order of the list; results of tests that are not in it go."""
        with self.lock:
            self._write([self.results[line.name] for line in lines if line.name in self.results])
