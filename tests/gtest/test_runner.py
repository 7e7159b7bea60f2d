"""The runner, with a program made here: a shell script that prints what GoogleTest's programs do."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from ltp import results

from gtest import cases, run

FAKE = r"""#!/bin/sh
good() { echo "[ RUN      ] Suite.Good"; echo "[       OK ] Suite.Good (0 ms)"; }
bad() {
    echo "[ RUN      ] Suite.Bad"; echo "a.cc:7: Failure"
    echo "Expected:	so"; echo "[  FAILED  ] Suite.Bad (1 ms)"
}
skipped() { echo "[ RUN      ] Suite.Skipped"; echo "[  SKIPPED ] Suite.Skipped (0 ms)"; }
inside() {
    echo "[ RUN      ] P/Given.Inside/1"
    if uname -v | grep -q Sentry; then echo "[       OK ] P/Given.Inside/1 (0 ms)"
    else echo "[  FAILED  ] P/Given.Inside/1, where GetParam() = 1 (0 ms)"; fi
}
dies() { echo "[ RUN      ] Suite.Dies"; kill -SEGV $$; }
case "$1" in
--gtest_list_tests) printf 'Running\nSuite.\n  Good\n  Bad\n  Skipped\n  DISABLED_Off\n  Dies\n  Behind\n'
    printf 'P/Given.\n  Inside/1  # GetParam() = 1\n';;
--gtest_filter=Suite.Dies) dies;;
--gtest_filter=Suite.Behind) echo "[ RUN      ] Suite.Behind"; echo "[       OK ] Suite.Behind (0 ms)";;
--gtest_filter=P/Given.Inside/1) inside;;
--gtest_filter=Suite.Bad) bad; exit 1;;
*) good; bad; skipped; dies;;
esac
"""
EXPECTED = {"Good": "passed", "Bad": "failed", "Skipped": "unfit", "Dies": "killed", "Behind": "passed"}


def test_output() -> None:
    text = "[       OK ] A.b (1 ms)\n[  FAILED  ] A.c/0, where GetParam() = 8-byte object <00>\n"
    text += "[  FAILED  ] 1 test, listed below:\n[  FAILED  ] A.c/0, where GetParam() = 8-byte object <00>\n"
    assert cases.read_output(text) == {"A.b": "passed", "A.c/0": "failed"}
    assert cases.note("x.cc:1: Failure\nExpected:\t1\n  Actual: 2\n") == "Expected: 1 Actual: 2"


def test_a_directory(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root makes the namespaces that tests run in natively")
    home = Path(tempfile.mkdtemp(dir="/var/tmp"))
    try:
        program = home / "fake_test"
        program.write_text(FAKE)
        program.chmod(0o755)
        words = ["--programs", str(home), "--results", str(tmp_path)]
        assert run.main(words) == 0
    finally:
        shutil.rmtree(home)
    for place, inside in (("native", "failed"), ("sandbox", "passed")):
        found = {name: result.verdict for name, result in results.read(tmp_path / f"{place}.tsv").items()}
        wanted = {f"fake_test:Suite.{name}": kind for name, kind in EXPECTED.items()}
        assert found == {**wanted, "fake_test:P/Given.Inside/1": inside}
    assert "6 cases: 2 pass natively, 3 in the sandbox, 2 in both" in capsys.readouterr().out


def test_what_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        run.arguments(["--programs", "/nowhere/at/all", "--results", str(tmp_path)])
    assert "no directory" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run.arguments(["--programs", str(tmp_path), "--results", str(tmp_path), "sandboxx"])
    assert "no step 'sandboxx'" in capsys.readouterr().err
