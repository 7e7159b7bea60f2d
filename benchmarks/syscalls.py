"""Nanoseconds per operation, native and in a sandbox: `python benchmarks/syscalls.py [SCALE]`.

Both sides are measured in one run on one machine; only the ratios mean anything on another.
Where `runsc` is installed it is measured, too.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).resolve().parent / "syscalls.c"


def sentry_command() -> list[str]:
    beside = Path(sys.executable).parent / "sentry"
    return [str(beside)] if beside.exists() else [sys.executable, "-m", "sentry"]


def measure(prefix: list[str], program: Path, scale: str) -> dict[str, float]:
    done = subprocess.run(
        [*prefix, str(program), scale], stdout=subprocess.PIPE, text=True, timeout=1800, check=False
    )
    if done.returncode != 0:
        print(f"{' '.join(prefix)}: status {done.returncode}", file=sys.stderr)
    return {name: float(value) for name, value in (line.split() for line in done.stdout.splitlines())}


def main() -> None:
    scale = sys.argv[1] if len(sys.argv) > 1 else "1"
    contenders = {"sentry": [*sentry_command(), "run", "--"]}
    if shutil.which("runsc"):
        contenders["runsc"] = [
            "runsc", "--platform=ptrace", "--network=sandbox", "--ignore-cgroups", "do",
        ]  # fmt: skip
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        program = Path(directory) / "syscalls"
        subprocess.run(["gcc", "-O2", "-pthread", "-o", program, SOURCE], check=True)
        Path(directory).chmod(0o755)
        native = measure([], program, scale)
        results = {name: measure(prefix, program, scale) for name, prefix in contenders.items()}
    print(
        f"{'operation':22}{'native ns':>12}" + "".join(f"{name + ' ns':>14}{'ratio':>8}" for name in results)
    )
    for name, base in native.items():
        row = f"{name:22}{base:12.0f}"
        for result in results.values():
            value = result.get(name)
            row += (
                f"{value:14.0f}{value / max(base, 0.1):8.1f}" if value is not None else f"{'-':>14}{'-':>8}"
            )
        print(row)


if __name__ == "__main__":
    main()
