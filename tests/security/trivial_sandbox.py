"""`sentry` with another kernel: the complete boot and confinement, and a guest.main that does one thing.

Run as a program by the tests: TRIVIAL names what the "kernel" does once it is locked down.  It lets a
test look at, or misbehave as, a Sentry without depending on what a guest can make the real one do.
"""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import types
from pathlib import Path

# The source tree when it was built in place, a copied package beside this file, or else the installed one.
for place in (Path(__file__).resolve().parents[2], Path(__file__).resolve().parent):
    if list(place.glob("sentry/_engine*.so")):
        sys.path.insert(0, str(place))

from sentry._engine import ffi, lib  # noqa: E402

from sentry.abi.errors import SysError  # noqa: E402
from sentry.kernel import pool  # noqa: E402
from sentry.platform.ptrace import PtracePlatform  # noqa: E402

ACTION = os.environ["TRIVIAL"].split()


def begin(plan):
    plan.config.platform = "ptrace"  # which decides about the filter
    platform = PtracePlatform(plan.stub_fd, plan.filters["stub"])
    platform.begin()
    return platform


def make_platform(_plan, platform):
    platform.finish()
    return platform


def wait_for_messages(control, stdio):
    """Sleep; a signal ends the run, a time-out is ignored by `stubborn`."""
    poll = select.poll()
    poll.register(control.fd, select.POLLIN)
    os.write(stdio[1], b"ready\n")
    while True:
        poll.poll()
        for kind, values in control.receive():
            if kind == b"S":
                return 128 + values[0]
            if kind == b"W":
                os.write(stdio[1], repr(values).encode() + b"\n")
            if kind == b"T" and ACTION[0] != "stubborn":
                return 137


def misbehave(name):
    """Make a call that the filter must kill for."""
    path = ffi.new("char[]", b"/")
    word = int(ffi.cast("uintptr_t", path))
    calls = {
        "open": (2, word, 0), "openat": (257, -100, word, 0), "socket": (41, 2, 1, 0),
        "execve": (59, word, 0, 0), "execveat": (322, 0, word, 0, 0, 0x1000), "fork": (57,), "vfork": (58,),
        "clone": (56, 17), "clone_thread": (56, 0x10F00), "clone3": (435, word, 88),
        "io_uring_setup": (425, 8, word), "io_uring_enter": (426, 3, 1), "unshare": (272, 0x10000000),
        "setns": (308, 3, 0), "mount": (165, word, word), "bpf": (321, 0, word, 8),
        "perf_event_open": (298, word), "userfaultfd": (323, 0), "keyctl": (250, 0),
        "ptrace_attach": (101, 16, 1), "ptrace_seize": (101, 0x4206, 1), "prctl": (157, 38, 1),
        "seccomp": (317, 1, 0, 0), "kill_group": (62, 0, 0), "kill_all": (62, -1, 0),
        "kill_other_group": (62, -2, 0), "pidfd_getfd": (438, 0, 0, 0), "pidfd_open": (434, 1, 0),
        "mmap_exec": (9, 0, 4096, 7, 0x22, -1, 0), "mprotect_exec": (10, word & ~4095, 4096, 7),
        "tiocsti": (16, 2, 0x5412, word), "tiocsctty": (16, 0, 0x540E, 1), "f_setown": (72, 0, 8, 1),
        "stat_path": (262, -100, word, word, 0), "setuid": (105, 0), "capset": (126, word, 0),
        "personality": (135, 0),
        "setrlimit": (302, 0, 7, word, 0), "getppid_x32": (0x40000000 + 110,), "chroot": (161, word),
        "process_madvise": (440, 0, 0, 0, 0, 0), "memfd_secret": (447, 0), "landlock": (444, 0, 0, 1),
    }  # fmt: skip
    number, *args = calls[name]
    lib.host_syscall(number, *(args + [0] * (6 - len(args))))


def guest_main(config, platform, sock_fd, control, stdio):
    verb, *rest = ACTION
    if verb == "exit":
        os.write(stdio[1], b"hello\n")
        return int(rest[0])
    if verb == "call":
        misbehave(rest[0])
        return 0
    if verb == "raise":
        raise ValueError("boo")
    if verb == "import":
        import this_module_does_not_exist  # noqa: F401
    if verb == "hog":
        deadline = time.monotonic() + 20
        try:
            # Each within its own limit.
            for _ in range(6):
                space = platform.new_address_space().space
                space.map_anon(1 << 20, 48 << 20, 3)
                for offset in range(0, 48 << 20, 1 << 20):
                    space.write((1 << 20) + offset, bytes(1 << 20))
            spaces = list(platform._spaces)
            while time.monotonic() < deadline:
                for space in spaces:
                    space.read(1 << 20, 1)
                time.sleep(0.01)
        except SysError:
            return 137
        return 0
    if verb == "stdio":
        os.write(2, repr([fd < 0 or os.get_blocking(fd) for fd in stdio]).encode())
        os.write(2, repr([fd >= 0 for fd in stdio]).encode())
        return 0
    if verb == "noecho":
        mode = termios.tcgetattr(stdio[0])
        mode[3] &= ~(termios.ECHO | termios.ICANON)
        termios.tcsetattr(stdio[0], termios.TCSANOW, mode)
        return wait_for_messages(control, stdio)
    if verb == "winsize":
        os.write(stdio[1], repr(config.winsize).encode() + b"\n")
        return wait_for_messages(control, stdio)
    if verb == "stubs":
        spaces = [platform.new_address_space()]
        spaces.append(spaces[0].space.fork(spaces[0]))
        return wait_for_messages(control, stdio)
    return wait_for_messages(control, stdio)


fake = types.ModuleType("sentry.runtime.guest")
fake.make_platform = make_platform
fake.start_threads = pool.start
fake.main = guest_main
sys.modules["sentry.runtime.guest"] = fake
early = types.ModuleType("sentry.runtime.zygote")
early.begin = begin
sys.modules["sentry.runtime.zygote"] = early
import sentry.runtime  # noqa: E402

sentry.runtime.guest = fake
sentry.runtime.zygote = early

if __name__ == "__main__":
    from sentry.cli import main

    main()
