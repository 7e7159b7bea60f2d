"""gofer._native: csrc/gofer/native.c through cffi's API mode."""

from __future__ import annotations

from pathlib import Path

from cffi import FFI

HEADER = Path(__file__).resolve().parent / "gofer" / "native.h"

ffibuilder = FFI()
ffibuilder.cdef("\n".join(line for line in HEADER.read_text().splitlines() if not line.startswith("#")))
ffibuilder.set_source(
    "gofer._native",
    '#include "native.h"',
    sources=["csrc/gofer/native.c"],
    include_dirs=["csrc/gofer", "csrc/abi"],
    depends=["csrc/gofer/native.h", "csrc/abi/listed.h"],
    extra_compile_args=["-O2", "-Wall", "-Wextra"],
)
