"""Builds benchmarks/micro/*.c, one static program, and reads what it prints."""

from __future__ import annotations

import glob
import os
import shutil
from pathlib import Path

from benchmarks.contenders import Contender
from benchmarks.process import run
from benchmarks.rows import Cell

SOURCES = Path(__file__).resolve().parent / "micro"


class BuildError(Exception):
    pass


def build(directory: Path) -> Path:
    program = directory / "micro"
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc")
    if not compiler:
        raise BuildError("no C compiler")
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-static", "-pthread"]
    sources = sorted(str(path) for path in SOURCES.glob("*.c"))
    outcome = run([*compiler.split(), *flags, "-o", str(program), *sources], timeout=120)
    if outcome.status != 0:
        raise BuildError(f"the micro-benchmark doesn't build: {outcome.reason()}")
    return program


def read_line(line: str) -> tuple[str, Cell] | None:
    """One line of the program (see micro.h); None for anything else, such as a sandbox's own messages."""
    words = line.split(" ", 2)
    if len(words) != 3 or words[1] not in ("ok", "skip", "fail"):
        return None
    name, verdict, rest = words
    if verdict == "skip":
        return name, Cell(skipped=rest)
    if verdict == "fail":
        return name, Cell(failed=rest)
    try:
        return name, Cell([float(word) for word in rest.split()])
    except ValueError:
        return None


class Micro:
    def __init__(self, program: Path, batch_ms: float, batches: int, timeout: float) -> None:
        self.program = program
        self.batch_ms = batch_ms
        self.batches = batches
        self.timeout = timeout
        self.prefix = f"/tmp/sentry-bench-{os.getpid()}-"

    def measure(self, contender: Contender, names: list[str]) -> dict[str, Cell]:
        """Each of `names`; one that ends or hangs the program fails, and the rest is started anew."""
        cells: dict[str, Cell] = {}
        left = list(names)
        barren = 0
        while left:
            found, reason = self.start(contender, left)
            barren = 0 if found else barren + 1
            cells.update(found)
            rest = [name for name in left if name not in found]
            if rest and not any(cell.failed for cell in found.values()):
                cells[rest[0]] = Cell(failed=reason)
                rest = rest[1:]
            if barren >= 2:
                cells.update((name, Cell(failed=f"not tried after: {reason}")) for name in rest)
                break
            left = rest
        return cells

    def start(self, contender: Contender, names: list[str]) -> tuple[dict[str, Cell], str]:
        directory = self.program.parent
        command = [str(self.program), self.prefix, str(self.batch_ms), str(self.batches), *names]
        try:
            outcome = run(
                contender.argv(command, directory), cwd=directory, timeout=self.timeout, env=contender.env
            )
        finally:
            self.clean()
        pairs = [pair for pair in map(read_line, outcome.out.splitlines()) if pair and pair[0] in names]
        return dict(pairs), outcome.reason()

    def clean(self) -> None:
        """A killed program leaves its files."""
        for path in glob.glob(glob.escape(self.prefix) + "*"):
            if os.path.isdir(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.unlink(path)
