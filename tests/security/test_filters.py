"""The seccomp filters: the files are what the sources say, and what they forbid kills."""

from __future__ import annotations

from pathlib import Path

import pytest
from outside import Start

import sentry
from sentry.runtime import filters

BIN = Path(sentry.__file__).parent / "_bin"

FORBIDDEN = [
    "open",
    "openat",
    "stat_path",
    "socket",
    "execve",
    "execveat",
    "fork",
    "vfork",
    "clone",
    "clone_thread",
    "clone3",
    "io_uring_setup",
    "io_uring_enter",
    "unshare",
    "setns",
    "mount",
    "chroot",
    "bpf",
    "perf_event_open",
    "userfaultfd",
    "keyctl",
    "ptrace_attach",
    "ptrace_seize",
    "prctl",
    "seccomp",
    "landlock",
    "kill_group",
    "kill_all",
    "kill_other_group",
    "pidfd_open",
    "pidfd_getfd",
    "process_madvise",
    "memfd_secret",
    "mmap_exec",
    "mprotect_exec",
    "tiocsti",
    "tiocsctty",
    "f_setown",
    "setuid",
    "capset",
    "personality",
    "setrlimit",
    "getppid_x32",
]


def test_installed_filters_are_those_of_the_sources() -> None:
    for name, program in filters.compile_all().items():
        assert (BIN / f"{name}.bpf").read_bytes() == program, f"{name}.bpf is stale: build again"


def test_compilation_is_deterministic() -> None:
    assert filters.compile_all() == filters.compile_all()


def test_filters_fit_the_kernel() -> None:
    for name, program in filters.compile_all().items():
        assert len(program) % 8 == 0
        assert 0 < len(program) // 8 <= 4096, name


@pytest.mark.parametrize("call", FORBIDDEN)
def test_forbidden_calls_kill(call: str, start_once: Start) -> None:
    status, out, err = start_once(f"call {call}").end()
    assert (status, out) == (128, "")
    assert err.startswith("sentry: the sandbox died (signal 31 SIGSYS")


def test_platform_calls_are_allowed() -> None:
    from sentry.platform.ptrace import HOST_SYSCALLS

    special = {"ioctl", "ptrace", "kill", "fcntl", "mmap", "mprotect", "move_pages"}
    assert set(HOST_SYSCALLS) - special <= set(filters.SENTRY_PLAIN)


def test_a_forgotten_import_is_an_error_with_a_name(start: Start) -> None:
    status, out, err = start("import").end()
    assert (status, out) == (128, "")
    assert err == (
        "sentry: internal error: ModuleNotFoundError: No module named 'this_module_does_not_exist'; "
        "run with --debug for details\n"
    )


def test_a_traceback_opens_no_file(start: Start) -> None:
    status, _, err = start("raise", "--debug").end()
    assert status == 128
    assert "ValueError: boo" in err and "in guest_main" in err
    assert err.endswith("sentry: internal error: ValueError: boo; run with --debug for details\n")
