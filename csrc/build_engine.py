"""Builds `sentry._engine` (cffi, API mode) out of csrc/engine and csrc/platform.

The declarations that Python sees are the headers in csrc/abi themselves, so that C and Python
cannot disagree about a struct.
"""

from __future__ import annotations

import re
from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parent.parent
HEADERS = [
    f"csrc/abi/{name}.h"
    for name in ("vfs", "dcache", "mm", "sighand", "queue", "unix", "engine", "host", "pool", "patch", "bpf")
]
SOURCES = sorted(
    str(path.relative_to(ROOT))
    for folder in ("csrc/engine", "csrc/platform")
    for path in (ROOT / folder).glob("*.c")
)
_CONSTANT = re.compile(r"#define\s+(\w+)\s+(0[xX][0-9a-fA-F]+|-?\d+)\b")

# The wrappers that cffi generates are not ours to keep free of warnings.
PREAMBLE = """
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#pragma GCC diagnostic ignored "-Wcast-function-type"
""" + "".join(f'#include "{Path(header).name}"\n' for header in HEADERS)


def declarations(header: str) -> str:
    """The header's text without what cffi's parser does not know."""
    lines = []
    for line in (ROOT / header).read_text().splitlines():
        if not line.startswith("#"):
            lines.append(line)
        elif constant := _CONSTANT.match(line):
            lines.append(f"#define {constant[1]} {constant[2]}")
    return "\n".join(lines)


ffibuilder = FFI()
for name in HEADERS:
    ffibuilder.cdef(declarations(name))
ffibuilder.set_source(
    "sentry._engine",
    PREAMBLE,
    sources=SOURCES,
    include_dirs=["csrc/abi", "csrc/engine", "csrc/platform"],
    depends=sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc").glob("*/*.h")),
    extra_compile_args=["-O2", "-g", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden"],
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
