"""Compiles the seccomp filters at build time: `python -m sentry.runtime.filters OUTDIR`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from sentry.platform.stub_filter import stub_filter


def main(out: str) -> None:
    with tempfile.TemporaryFile() as file:
        stub_filter().export_bpf(file)
        file.seek(0)
        Path(out, "stub.bpf").write_bytes(file.read())


if __name__ == "__main__":
    main(sys.argv[1])
