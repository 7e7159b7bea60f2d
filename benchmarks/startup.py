"""Start to finish of /bin/true, the cost of the imports, and the memory of an idle sandbox."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.contenders import NATIVE, Contender, sentry_environment
from benchmarks.process import ENVIRONMENT, descendants, run, settle, wait_for
from benchmarks.rows import BIN_TRUE, IMPORT, INTERPRETER, PEAK, PRIVATE, PSS, Cell, Row

#: Long enough for a sandbox that has just said that it is up to go to sleep.
IDLE_SECONDS = 0.2


def timed(command: list[str], repeat: int, directory: Path, timeout: float, env: dict[str, str]) -> Cell:
    cell = Cell()
    for _ in range(repeat):
        outcome = run(command, cwd=directory, timeout=timeout, env=env)
        if outcome.status != 0:
            return Cell(failed=outcome.reason())
        cell.samples.append(outcome.seconds * 1000)
    return cell


def bin_true(contender: Contender, repeat: int, directory: Path, timeout: float) -> dict[Row, Cell]:
    command = contender.argv(["/bin/true"], directory)
    return {BIN_TRUE: timed(command, repeat, directory, timeout, contender.env)}


def imports(contender: Contender, repeat: int, directory: Path, timeout: float) -> dict[Row, Cell]:
    """Both without any sandbox: they stand in the column of the host alone."""
    if contender.name != NATIVE:
        return {}
    env = sentry_environment()
    bare = [sys.executable, "-I", "-S", "-c", "pass"]
    full = [sys.executable, "-c", "import sentry.runtime.boot"]
    return {
        INTERPRETER: timed(bare, repeat, directory, timeout, {}),
        IMPORT: timed(full, repeat, directory, timeout, env),
    }


def memory_of(pid: int) -> tuple[int, int, int]:
    """(private, PSS, peak RSS) in KiB; all zero for a process that has just gone."""
    private = pss = peak = 0
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0, 0
    for line in (rollup + status).splitlines():
        key, _, value = line.partition(":")
        if key in ("Private_Clean", "Private_Dirty"):
            private += int(value.split()[0])
        elif key == "Pss":
            pss = int(value.split()[0])
        elif key == "VmHWM":
            peak = int(value.split()[0])
    return private, pss, peak


def idle_memory(contender: Contender, directory: Path, timeout: float) -> dict[Row, Cell]:
    """A shell that waits for a line: what it and its sandbox take together."""
    rows = (PRIVATE, PSS, PEAK)
    process = subprocess.Popen(
        contender.argv(["/bin/sh", "-c", "echo up; read line"], directory),
        cwd=directory,
        env={**ENVIRONMENT, **contender.env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # Not /dev/null: see process.run.
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    try:
        if process.stdout.readline() != b"up\n":
            return {row: Cell(failed="it ended before it was idle") for row in rows}
        time.sleep(IDLE_SECONDS)
        sums = [0, 0, 0]
        for pid in descendants(os.getpid()):
            for i, value in enumerate(memory_of(pid)):
                sums[i] += value
        return {row: Cell([value / 1024]) for row, value in zip(rows, sums, strict=True)}
    except PermissionError as error:
        reason = f"can't look into {error.filename}: {error.strerror}"
        return {row: Cell(skipped=reason) for row in rows}
    finally:
        process.stdin.close()
        status = wait_for(process.pid, timeout)
        process.stdout.close()
        process.stderr.close()
        if status is None:
            process.kill()
            process.wait()
        process.returncode = -1 if status is None else status
        settle()
