"""`python -m benchmarks`: who takes part, what is measured in which order, and where the result goes.

The order is: for each round, for each group of rows, for each contender; so a slow moment of the
machine hits all of them, and each ratio is between neighbours in time.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

from benchmarks import machine, plot, report, startup
from benchmarks.contenders import Contender, discover
from benchmarks.micro import BuildError, Micro, build
from benchmarks.process import become_subreaper, settle
from benchmarks.programs import JOBS, Job, Programs
from benchmarks.rows import IMPORT_ROWS, MEMORY_ROWS, OPERATION_GROUPS, QUICK, START_ROWS, Cell, Row

#: Measures the given rows for one contender.
Measure = Callable[[Contender, list[Row]], dict[Row, Cell]]
TCP_PROBE = "tcp_lo_pingpong"


def parse(args: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few rows, one round: does it work at all?")
    parser.add_argument(
        "--only", metavar="PATTERN", help="rows or sections, with * and ?; several with commas"
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="default: 3")
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument(
        "--runsc", action="append", default=[], metavar="PATH[:PLATFORM,...]",
        help="one more runsc; default platforms: systrap,ptrace (repeatable)",
    )  # fmt: skip
    parser.add_argument(
        "--runsc-network", choices=["none", "sandbox"], default="none",
        help="sandbox needs iptables and changes the host's forwarding; all rows use the loopback alone",
    )  # fmt: skip
    parser.add_argument("--variants", action="store_true", help="also ours with --no-fastpath, --no-patch")
    parser.add_argument("--contenders", metavar="PATTERN", help="only these, and the host; as --only")
    parser.add_argument("--timeout", type=float, default=120, metavar="SECONDS", help="for one command")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--plot", metavar="FILE", help="an SVG of the ratios")
    options = parser.parse_args(args)
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds: at least 1")
    return options


def matches(patterns: str | None, *names: str) -> bool:
    words = [word for word in (patterns or "*").split(",") if word]
    return any(fnmatchcase(name, word) for name in names for word in words)


class Bench:
    def __init__(self, options: argparse.Namespace, directory: Path) -> None:
        self.options = options
        self.directory = directory
        self.rounds = options.rounds or (1 if options.quick else 3)
        self.repeat = 2 if options.quick else 5
        self.micro: Micro | BuildError | None = None
        self.programs = Programs(
            directory, options.timeout, lambda: self.make_micro().program, self.tcp_missing
        )
        self.no_tcp: dict[str, str] = {}

    def wanted(self, row: Row) -> bool:
        if self.options.quick and not self.options.only:
            return row.name in QUICK
        return matches(self.options.only, row.name, row.section)

    def make_micro(self) -> Micro:
        if self.micro is None:
            batch_ms = 2 if self.options.quick else 20
            try:
                self.micro = Micro(build(self.directory), batch_ms, 3, self.options.timeout)
            except BuildError as error:
                self.micro = error
        if isinstance(self.micro, BuildError):
            raise self.micro
        return self.micro

    def tcp_missing(self, contender: Contender) -> str:
        if contender.name not in self.no_tcp:
            cell = self.make_micro().measure(contender, [TCP_PROBE])[TCP_PROBE]
            why = cell.skipped or cell.failed
            self.no_tcp[contender.name] = f"no TCP over the loopback: {why}" if why else ""
        return self.no_tcp[contender.name]

    def operations(self, contender: Contender, rows: list[Row]) -> dict[Row, Cell]:
        cells = self.make_micro().measure(contender, [row.name for row in rows])
        return {row: cells[row.name] for row in rows}

    def true(self, contender: Contender, rows: list[Row]) -> dict[Row, Cell]:
        return startup.bin_true(contender, self.repeat, self.directory, self.options.timeout)

    def imports(self, contender: Contender, rows: list[Row]) -> dict[Row, Cell]:
        return startup.imports(contender, self.repeat, self.directory, self.options.timeout)

    def memory(self, contender: Contender, rows: list[Row]) -> dict[Row, Cell]:
        return startup.idle_memory(contender, self.directory, self.options.timeout)

    def job(self, job: Job) -> Measure:
        return lambda contender, rows: {job.row: self.programs.measure(job, contender)}

    def plan(self) -> list[tuple[list[Row], Measure]]:
        groups: list[tuple[list[Row], Measure]] = [(group, self.operations) for group in OPERATION_GROUPS]
        groups += [(START_ROWS, self.true), (IMPORT_ROWS, self.imports)]
        groups += [(MEMORY_ROWS, self.memory)]
        groups += [([job.row], self.job(job)) for job in JOBS]
        chosen = [([row for row in rows if self.wanted(row)], measure) for rows, measure in groups]
        return [(rows, measure) for rows, measure in chosen if rows]

    def attempt(self, measure: Measure, contender: Contender, rows: list[Row]) -> dict[Row, Cell]:
        """Whatever goes wrong is a failure of these rows, and the run goes on."""
        try:
            return measure(contender, rows)
        except (BuildError, OSError) as error:
            return {row: Cell(failed=str(error)) for row in rows}

    def run(self, found: report.Report, say: Callable[[str], None]) -> None:
        plan = self.plan()
        for number in range(1, self.rounds + 1):
            machine.watch(found.machine)
            for rows, measure in plan:
                for contender in found.contenders:
                    left = [row for row in rows if not found.cell(row, contender.name).ends()]
                    if not left:
                        continue
                    say(f"round {number} of {self.rounds}: {left[0].name}…, {contender.name}")
                    for row, cell in self.attempt(measure, contender, left).items():
                        if row in left:
                            found.add(row, contender, cell)
            found.rounds = number


def progress(line: str) -> None:
    """On a terminal one line that changes; nothing elsewhere."""
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)


def write(options: argparse.Namespace, found: report.Report) -> None:
    if options.json:
        Path(options.json).write_text(json.dumps(report.document(found), indent=1) + "\n")
    if options.plot:
        Path(options.plot).write_text(plot.draw(found))


def main(args: list[str]) -> int:
    options = parse(args)
    become_subreaper()
    about = machine.describe()
    with tempfile.TemporaryDirectory(prefix="sentry-bench-", dir="/var/tmp") as name:
        directory = Path(name)
        directory.chmod(0o755)
        taking, missing = discover(
            directory,
            peers=options.peers,
            runsc=options.runsc,
            network=options.runsc_network,
            variants=options.variants,
        )
        taking = [taking[0], *(one for one in taking[1:] if matches(options.contenders, one.name))]
        found = report.Report(taking, missing, about)
        try:
            Bench(options, directory).run(found, progress)
        except KeyboardInterrupt:
            print("\ninterrupted: what there is so far", file=sys.stderr)
        finally:
            settle(0)
    progress("")
    print(report.table(found))
    write(options, found)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
