"""A short list of LTP's tests, where LTP is installed: LTPROOT names its prefix (docs/testing.md)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ltp import report, results, run

#: One or two quick tests of each area, from several families.
SHORT = """
    fork01 execve01 waitpid01 waitid01 clone01 prctl01 setpgid01 setresuid01 capget01 kill03 sigaction01
    rt_sigqueueinfo01 mmap01 mprotect01 munmap01 brk01 pipe01 epoll_ctl01 eventfd01 poll01 select01
    timer_settime01 sched_setscheduler01 futex_wait01 setrlimit01 open01 stat01 flock01 symlink02 uname01
    getrandom01
"""


def test_short_list(tmp_path: Path) -> None:
    if not os.environ.get("LTPROOT"):
        pytest.skip("no Linux Test Project: LTPROOT does not name its prefix")
    if os.geteuid() != 0:
        pytest.skip("needs to be root, as most tests of LTP do")
    only = [word for name in SHORT.split() for word in ("--only", name)]
    run.main(["--results", str(tmp_path), "-j", "2", "--retries", "1", "native", "sandbox", *only])
    native, sandbox = (results.read(tmp_path / f"{name}.tsv") for name in ("native", "sandbox"))
    assert set(sandbox) == set(SHORT.split())
    unknown = set(report.lost(native, sandbox)) - set(report.read_known())
    assert not unknown, report.report(native, sandbox, report.read_known(), None)
