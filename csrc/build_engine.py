"""cffi build of sentry._engine: every csrc/engine and csrc/platform source, cdefs from csrc/abi."""

from __future__ import annotations

import re
from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parent.parent
HEADERS = sorted((ROOT / "csrc/abi").glob("*.h"))
SOURCES = sorted([*(ROOT / "csrc/engine").glob("*.c"), *(ROOT / "csrc/platform").glob("*.c")])
CDEF = re.compile(r"/\* cdef begin \*/(.*?)/\* cdef end \*/", re.DOTALL)

ffibuilder = FFI()
for header in HEADERS:
    for part in CDEF.findall(header.read_text()):
        ffibuilder.cdef(part)
ffibuilder.set_source(
    "sentry._engine",
    "".join(f'#include "{header.name}"\n' for header in HEADERS),
    sources=[str(source.relative_to(ROOT)) for source in SOURCES],
    include_dirs=["csrc/abi"],
    extra_compile_args=["-O2", "-Wall", "-Wextra", "-Wno-unused-parameter"],
)
