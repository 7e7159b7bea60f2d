"""Runs tests of the public Linux Test Project natively and in the sandbox, and compares (docs/testing.md).

    python tests/ltp/run.py --ltp DIR --results DIR [native] [sandbox] [report]

    runtest.py    lines of LTP's `runtest/syscalls`, and which of them are left out
    areas.py      the family of a test, and the part of the kernel that it is about
    verdict.py    exit status and output of a test → passed, failed, broken, not for this kernel …
    places.py     where a test runs: natively in namespaces of its own, or in a fresh sandbox
    sysctl.py     puts back what tests left changed in the host's /proc/sys
    results.py    one TSV a place
    report.py     the tables

Nothing of LTP stands here: it is built outside, by its own README.
"""
