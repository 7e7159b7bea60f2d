"""C programs around one file of the engine, built with the sanitizers and run on damaged input."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FLAGS = [
    "-O1",
    "-g",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
]


def run(name: str, folder: Path, *arguments: object) -> str:
    """What tests/unit/native/`name`.c prints; it must end with 0."""
    program = folder / name
    source = ROOT / "tests/unit/native" / f"{name}.c"
    includes = [f"-I{ROOT / 'csrc' / part}" for part in ("abi", "engine")]
    subprocess.run(["gcc", *FLAGS, *includes, "-o", program, source], check=True, timeout=120)
    command = [program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, (command, done)
    return done.stdout
