"""The command: see the package's opening comment, and `--help`."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ltp import results
from ltp.places import Native, Sandbox, execute
from ltp.runtest import read_table
from ltp.verdict import verdict

from gtest import cases

STEPS = ("native", "sandbox", "report")
KNOWN = Path(__file__).resolve().parent / "known.tsv"
Place = Native | Sandbox


def environment() -> dict[str, str]:
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"PATH": path, "TEST_TMPDIR": "/tmp", "HOME": "/root", "LC_ALL": "C"}


class Runs:
    """Runs of one place, their output in files."""

    def __init__(self, place: Place, options: argparse.Namespace) -> None:
        self.place = place
        self.logs = options.results / "logs" / place.name
        self.logs.mkdir(parents=True, exist_ok=True)
        self.timeout = options.timeout

    def run(self, program: Path, name: str, *words: str) -> tuple[int | None, str]:
        """(status, output) of the program with these arguments; `name` is the log's."""
        log = self.logs / f"{re.sub('[^A-Za-z0-9_.]', '_', name)}.txt"
        command = shlex.join([str(program), *words])
        status = execute(self.place.argv(command), self.place.environment, log, self.timeout)
        return status, log.read_text(errors="replace")

    def results(self, program: Path) -> list[results.Result]:
        """One result for each case; those that a run together has not got to run alone."""
        sandboxed = isinstance(self.place, Sandbox)
        start = time.monotonic()
        status, listing = self.run(program, f"{program.name}.list", "--gtest_list_tests")
        names = cases.read_list(listing) if status == 0 else []
        if not names:
            return [results.Result(program.name, verdict(status, sandboxed), str(status), 0.0, "no cases")]
        _, text = self.run(program, program.name)
        verdicts, found = cases.read_output(text), []
        for name in names:
            began, output, kind, code = time.monotonic(), text, verdicts.get(name), "-"
            if kind != "passed" and kind != "unfit":
                status, output = self.run(program, f"{program.name}.{name}", f"--gtest_filter={name}")
                kind = cases.read_output(output).get(name) or verdict(status or None, sandboxed)
                code = str(status)
            note = "" if kind in ("passed", "unfit") else cases.note(output)
            found.append(results.Result(f"{program.name}:{name}", kind, code, time.monotonic() - began, note))
        print(
            f"{self.place.name} {program.name}: {len(names)} cases, {time.monotonic() - start:.0f} s",
            flush=True,
        )
        return found


def step(place: Place, programs: list[Path], options: argparse.Namespace) -> None:
    path = options.results / f"{place.name}.tsv"
    chosen = {program.name for program in programs}
    keep = {
        name: result for name, result in results.read(path).items() if name.split(":", 1)[0] not in chosen
    }
    table, runs = results.Table(path, keep), Runs(place, options)
    with ThreadPoolExecutor(options.jobs) as pool:
        for found in pool.map(runs.results, programs):
            for result in found:
                table.add(result)


def report(native: dict[str, results.Result], sandbox: dict[str, results.Result]) -> tuple[str, bool]:
    """The text, and whether all that passes natively passes in the sandbox or is known not to."""
    known = dict(read_table(KNOWN, "case", "reason"))
    there = [name for name, result in native.items() if result.verdict == "passed" and name in sandbox]
    lost = [name for name in there if sandbox[name].verdict != "passed"]
    here = sum(result.verdict == "passed" for result in sandbox.values())
    fresh = [name for name in lost if not any(re.fullmatch(pattern, name) for pattern in known)]
    both = len(there) - len(lost)
    lines = [
        f"{len(sandbox)} cases: {len(there)} pass natively, {here} in the sandbox, {both} in both",
        f"{len(lost)} pass natively only, {len(fresh)} of them not in known.tsv:",
        *(f"  {name}: {sandbox[name].verdict}: {sandbox[name].note}" for name in fresh),
    ]
    return "\n".join(lines) + "\n", not fresh


def arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="GoogleTest programs, natively (as root!) and in the sandbox, compared."
    )
    parser.add_argument("steps", nargs="*", help="native, sandbox, report; without any: all three")
    parser.add_argument("--programs", type=Path, required=True, help="directory of programs, NAME_test")
    parser.add_argument(
        "--results", type=Path, required=True, help="directory for native.tsv, sandbox.tsv and logs/"
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="REGEX", help="these programs only (repeatable)"
    )
    parser.add_argument("-j", "--jobs", type=int, default=1, help="programs at a time (default: 1)")
    parser.add_argument("--timeout", type=float, default=300, help="seconds for one run (default: 300)")
    parser.add_argument("--flag", action="append", default=[], help="a flag for 'sentry run' (repeatable)")
    options = parser.parse_args(words)
    for name in options.steps:
        if name not in STEPS:
            parser.error(f"no step '{name}': there are {', '.join(STEPS)}")
    options.steps = options.steps or list(STEPS)
    options.programs = options.programs.resolve()
    if not options.programs.is_dir():
        parser.error(f"{options.programs} is no directory")
    if options.programs.is_relative_to("/tmp"):
        parser.error("the programs may not stand below /tmp: each run sees an empty one")
    if os.geteuid() != 0:
        parser.error("has to be run as root: many cases need it, natively and in the sandbox")
    return options


def main(words: list[str]) -> int:
    """0; 1 when cases that pass natively don't pass in the sandbox and are not in known.tsv."""
    options = arguments(words)
    options.results.mkdir(parents=True, exist_ok=True)
    programs = [
        path
        for path in sorted(options.programs.glob("*_test"))
        if not options.only or any(re.fullmatch(pattern, path.name) for pattern in options.only)
    ]
    if "native" in options.steps:
        step(Native(environment()), programs, options)
    if "sandbox" in options.steps:
        step(Sandbox(environment(), options.flag), programs, options)
    if "report" not in options.steps:
        return 0
    text, good = report(*(results.read(options.results / f"{name}.tsv") for name in ("native", "sandbox")))
    print(text, end="")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
