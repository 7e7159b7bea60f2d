"""`python tests/patched.py run -- COMMAND`: the sandbox, with each call site patched at its first trap."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if list(ROOT.glob("sentry/_engine*.so")):
    sys.path.insert(0, str(ROOT))

if __name__ == "__main__":
    from sentry.cli import main
    from sentry.mm.patch import CodePatches

    CodePatches.__init__.__defaults__ = (1,)
    main()
