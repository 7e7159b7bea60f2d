"""`python tests/patched.py run -- COMMAND`: the sandbox, with each call site patched at its first trap."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sentry.cli import main
from sentry.mm.patch import CodePatches

if __name__ == "__main__":
    CodePatches.__init__.__defaults__ = (1,)
    main()
