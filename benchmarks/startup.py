"""Start-up time and memory: `python benchmarks/startup.py [RUNS] [--json]`.

Prints, side by side from one run: a bare interpreter, the imports, `/bin/true` natively and in a
sandbox, and the private memory and PSS of all processes of an idle sandbox (from smaps_rollup).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

QUIET = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def sentry_command() -> list[str]:
    beside = Path(sys.executable).parent / "sentry"
    return [str(beside)] if beside.exists() else [sys.executable, "-m", "sentry"]


def milliseconds(commands: dict[str, list[str]], runs: int) -> dict[str, list[float]]:
    """Each command `runs` times, interleaved, so that a slow moment of the machine hits them alike."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, **QUIET)  # type: ignore[call-overload]
            times[name].append((time.perf_counter() - start) * 1000)
    return times


def descendants(pid: int) -> list[int]:
    found = [pid]
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += descendants(int(child))
    return found


def memory_of(pid: int) -> tuple[int, int]:
    """(private, PSS) in KiB; zeros when the process may not be looked into."""
    private = pss = 0
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError as error:
        print(f"can't read the memory of process {pid}: {error.strerror}", file=sys.stderr)
        return 0, 0
    for line in lines:
        key, _, value = line.partition(":")
        if key in ("Private_Clean", "Private_Dirty"):
            private += int(value.split()[0])
        elif key == "Pss":
            pss = int(value.split()[0])
    return private, pss


def idle_memory() -> dict[str, object]:
    command = [*sentry_command(), "run", "--", "/bin/sh", "-c", "echo up; read line"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    rows = []
    for pid in descendants(process.pid):
        name = Path(f"/proc/{pid}/comm").read_text().strip()
        rows.append((name, *memory_of(pid)))
    process.communicate(b"\n")
    return {
        "processes": rows,
        "private_mib": sum(row[1] for row in rows) / 1024,
        "pss_mib": sum(row[2] for row in rows) / 1024,
    }


def main() -> None:
    numbers = [int(word) for word in sys.argv[1:] if word.isdigit()]
    runs = numbers[0] if numbers else 15
    python = sys.executable
    commands = {
        "python -I -S -c pass": [python, "-I", "-S", "-c", "pass"],
        "import sentry.runtime.boot": [python, "-c", "import sentry.runtime.boot"],
        "/bin/true": ["/bin/true"],
        "sentry run -- /bin/true": [*sentry_command(), "run", "--", "/bin/true"],
    }
    times = milliseconds(commands, runs)
    memory = idle_memory()
    if "--json" in sys.argv:
        print(json.dumps({"milliseconds": times, "memory": memory}))
        return
    print(f"{'':32}{'median':>10}{'least':>10}   ms, {runs} runs, {os.cpu_count()} CPUs")
    for name, values in times.items():
        print(f"{name:32}{statistics.median(values):10.1f}{min(values):10.1f}")
    print(f"\n{'idle sandbox':32}{'private':>10}{'PSS':>10}   MiB")
    for name, private, pss in memory["processes"]:  # type: ignore[attr-defined]
        print(f"  {name:30}{private / 1024:10.1f}{pss / 1024:10.1f}")
    print(f"{'sum':32}{memory['private_mib']:10.1f}{memory['pss_mib']:10.1f}")


if __name__ == "__main__":
    main()
