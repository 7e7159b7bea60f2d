"""Runs GoogleTest programs natively and in the sandbox, and compares case by case (docs/testing.md).

    python tests/gtest/run.py --programs DIR --results DIR [native] [sandbox] [report]

Made for gVisor's own syscall tests (its test/syscalls/linux), which are built outside: nothing of them
stands here. Where tests run, and what has come of them, is as for the Linux Test Project (tests/ltp).

    cases.py     the cases of a program, and what its output says of them
    known.tsv    cases that pass natively and not in the sandbox, with the reason
"""
