"""Build: two cffi extensions, two freestanding programs, and the compiled seccomp filters.

Metadata stands in pyproject.toml.  `python setup.py build_ext --inplace` builds a source tree
in place; `pip install .` builds a wheel with the same parts.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent

# Static programs without libc, each one C (or assembly) folder under csrc/.  They are executed by
# descriptor inside an empty root, so nothing dynamic can be needed.
FREESTANDING = {
    "stub": sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc/stub").glob("*.[Sc]")),
    "reaper": ["csrc/reaper/reaper.c"],
}
FREESTANDING_FLAGS = [
    "-O2", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-nostdlib", "-static", "-fpie",
    "-Wl,-no-pie", "-fvisibility=hidden", "-mfsgsbase", "-fno-stack-protector",
    "-fcf-protection=none", "-mgeneral-regs-only",
    "-fno-asynchronous-unwind-tables", "-Wl,--build-id=none", "-Wl,-z,noexecstack", "-Icsrc/abi",
]  # fmt: skip
LINKER_SCRIPTS = {"stub": "csrc/stub/stub.lds"}


class BuildAll(build_ext):
    """build_ext that also makes sentry/_bin: freestanding programs and seccomp filters."""

    def run(self) -> None:
        super().run()
        base = ROOT if self.inplace else Path(self.build_lib).resolve()
        out = base / "sentry" / "_bin"
        out.mkdir(parents=True, exist_ok=True)
        compiler = os.environ.get("CC", "gcc")
        for name, sources in FREESTANDING.items():
            command = [compiler, *FREESTANDING_FLAGS, "-o", str(out / name), *sources]
            if name in LINKER_SCRIPTS:
                command.append(f"-Wl,-T,{LINKER_SCRIPTS[name]}")
            subprocess.run(command, check=True, cwd=ROOT)
        # In a child, so that the tree's own modules are used however setup.py was started.
        subprocess.run(
            [sys.executable, "-m", "sentry.runtime.filters", str(out)],
            check=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        )


setup(
    cffi_modules=["csrc/build_engine.py:ffibuilder", "csrc/build_gofer.py:ffibuilder"],
    cmdclass={"build_ext": BuildAll},
    scripts=["bin/sentry"],
)
