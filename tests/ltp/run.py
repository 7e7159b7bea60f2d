"""The command: see the package's opening comment, and `--help`."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ltp import report, results, sysctl, verdict
from ltp.places import Native, Sandbox, environment, execute
from ltp.runtest import Filter, Line, read_list

STEPS = ("native", "sandbox", "report")


def run_one(place: Native | Sandbox, line: Line, log: Path, timeout: float) -> results.Result:
    start = time.monotonic()
    status = execute(place.argv(line.command), place.environment, log, timeout)
    seconds = time.monotonic() - start
    kind = verdict.verdict(status, isinstance(place, Sandbox))
    text = log.read_text(errors="replace")
    return results.Result(
        line.name, kind, "-" if status is None else str(status), seconds, verdict.note(kind, text)
    )


def run_all(
    place: Native | Sandbox,
    lines: list[Line],
    todo: list[Line],
    table: results.Table,
    options: argparse.Namespace,
) -> None:
    """Runs `todo`, several at a time; a test that does not pass has `--retries` more tries, alone or not."""
    logs = options.results / "logs" / place.name
    logs.mkdir(parents=True, exist_ok=True)
    done = 0
    lock = threading.Lock()

    def work(line: Line) -> None:
        nonlocal done
        for _ in range(1 + options.retries):
            result = run_one(place, line, logs / f"{line.name}.txt", options.timeout)
            if result.verdict in ("passed", "unfit", "missing"):
                break
        table.add(result)
        with lock:
            done += 1
            print(
                f"{place.name} {done}/{len(todo)} {result.test}: {result.verdict} {result.seconds:.1f} s",
                flush=True,
            )

    with ThreadPoolExecutor(options.jobs) as pool:
        for future in [pool.submit(work, line) for line in todo]:
            future.result()
    table.sort(lines)


def step(place: Native | Sandbox, lines: list[Line], options: argparse.Namespace) -> None:
    """Runs the tests of `lines` in one place, those of earlier runs kept as the options say."""
    path = options.results / f"{place.name}.tsv"
    keep = results.read(path)
    chosen = [
        line for line in lines if not options.only or any(re.fullmatch(p, line.name) for p in options.only)
    ]
    if options.failing:
        todo = [line for line in chosen if line.name not in keep or keep[line.name].verdict != "passed"]
    elif options.resume:
        todo = [line for line in chosen if line.name not in keep]
    else:
        todo = chosen
        if not options.only:
            keep = {}
    run_all(place, lines, todo, results.Table(path, keep), options)


def arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="LTP tests, natively (as root!) and in the sandbox, compared."
    )
    parser.add_argument("steps", nargs="*", help="native, sandbox, report; without any: all three")
    parser.add_argument(
        "--ltp", type=Path, default=os.environ.get("LTPROOT"), help="LTP's prefix (default: $LTPROOT)"
    )
    parser.add_argument("--list", type=Path, help="a runtest file (default: LTP/runtest/syscalls)")
    parser.add_argument(
        "--results", type=Path, required=True, help="directory for native.tsv, sandbox.tsv and logs/"
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="REGEX", help="these tests only (repeatable)"
    )
    parser.add_argument("--resume", action="store_true", help="run what has no result yet")
    parser.add_argument("--failing", action="store_true", help="run again what did not pass")
    parser.add_argument(
        "--retries", type=int, default=0, help="more tries for a test that does not pass (default: 0)"
    )
    parser.add_argument("-j", "--jobs", type=int, default=1, help="tests at a time (default: 1)")
    parser.add_argument("--timeout", type=float, default=300, help="seconds for one test (default: 300)")
    parser.add_argument(
        "--multiplier", type=float, default=1, help="LTP_TIMEOUT_MUL for the tests (default: 1)"
    )
    parser.add_argument("--flag", action="append", default=[], help="a flag for 'sentry run' (repeatable)")
    parser.add_argument("--before", type=Path, help="an earlier sandbox.tsv to compare with")
    options = parser.parse_args(words)
    for name in options.steps:
        if name not in STEPS:
            parser.error(f"no step '{name}': there are {', '.join(STEPS)}")
    options.steps = options.steps or list(STEPS)
    if set(options.steps) - {"report"}:
        if options.ltp is None or not (Path(options.ltp) / "testcases/bin").is_dir():
            parser.error("--ltp (or LTPROOT) has to name the prefix that LTP was installed to")
        if Path(options.ltp).resolve().is_relative_to("/tmp"):
            parser.error("LTP may not stand below /tmp: each test sees an empty one")
        if os.geteuid() != 0:
            parser.error("has to be run as root: most tests need it, natively and in the sandbox")
        if "native" in options.steps and not shutil.which("unshare"):
            parser.error("needs unshare (util-linux)")
    return options


def main(words: list[str]) -> int:
    """0; 1 when tests that pass natively fail in the sandbox and are not in known.tsv."""
    options = arguments(words)
    options.results.mkdir(parents=True, exist_ok=True)
    if set(options.steps) - {"report"}:
        ltp = Path(options.ltp).resolve()
        left_out = Filter()
        lines = [
            line
            for line in read_list(options.list or ltp / "runtest/syscalls")
            if not left_out.reason(line.name)
        ]
        if "native" in options.steps:
            before = sysctl.snapshot()
            try:
                step(Native(environment(ltp, options.multiplier)), lines, options)
            finally:
                for path in sysctl.restore(before):
                    print(f"a test left {path} changed: put back")
        if "sandbox" in options.steps:
            # LTP makes its default, ext2, on a loop device; there is no file system on devices in here.
            inside = {**environment(ltp, options.multiplier), "LTP_DEV_FS_TYPE": "tmpfs"}
            step(Sandbox(inside, options.flag), lines, options)
    if "report" not in options.steps:
        return 0
    native, sandbox = (results.read(options.results / f"{name}.tsv") for name in ("native", "sandbox"))
    known = report.read_known()
    earlier = None if options.before is None else results.read(options.before)
    print(report.report(native, sandbox, known, earlier), end="")
    return 1 if set(report.lost(native, sandbox)) - set(known) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
