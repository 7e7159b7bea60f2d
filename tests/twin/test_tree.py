"""A tree below the overlay, read and changed: like Linux, with fast paths and without.

SENTRY_SEED repeats a failure.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from test_paths import SEEDS, same

TYPE_CHECKING = False
if TYPE_CHECKING:
    from conftest import Runner

PROGRAM = Path(__file__).resolve().parent / "tree.py"
PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable


def plant(top: Path) -> None:
    for number in range(90):
        path = top / f"d{number % 4}" / ("", "below")[number % 3 == 0] / f"file{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d " % number * number)
    os.symlink("../d1/file1", top / "d0" / "link")
    os.link(top / "d1" / "file1", top / "d2" / "twin")
    os.mkfifo(top / "d3" / "fifo")
    (top / "d3" / "closed").write_bytes(b"secret")
    (top / "d3" / "closed").chmod(0)


@pytest.mark.parametrize("seed", SEEDS)
def test_tree(seed: int, runner: Runner, work_dir: Path, long_form: bool) -> None:
    places = [work_dir / "native", work_dir / "inside"]
    for place in places:
        plant(place)
        if os.getuid() == 0 and not runner.is_root:
            for path in (place, *place.rglob("*")):
                shutil.chown(path, work_dir.owner(), work_dir.group())
                os.chown(path, work_dir.stat().st_uid, work_dir.stat().st_gid, follow_symlinks=False)
    steps = "1000" if long_form else "150"
    command = [PYTHON, str(PROGRAM), str(seed), steps]
    native = runner.native(*command, str(places[0]), timeout=100.0)
    assert native.status == 0, native
    fast = runner.run(*command, str(places[1]), flags=["--debug"], timeout=300.0)
    assert fast.status == 0, fast
    slow = runner.run(*command, str(places[1]), flags=["--no-fastpath"], timeout=300.0)
    assert slow.status == 0, slow
    assert re.search(r"answered by fast paths: [1-9]\d\d", fast.err), fast.err
    same("fast and slow", slow.out, fast.out)
    same("native and sandboxed", *[re.sub(r"(?m)^~.*\n", "", run.out) for run in (native, fast)])
