"""Runs each operation of the platform under a seccomp filter (see test_platform_engine).

Arguments: the platform, and "list" for a filter made of its HOST_SYSCALLS, "built" for the Sentry's own.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from platform_harness import BIN, CODE, DATA, PAGE, READ, SPIN, SYSCALL, WRITE, Guest, start

from sentry.platform import base, ptrace, trap

# What CPython itself uses: allocation, output, its end.
INTERPRETER = ("mmap", "munmap", "mremap", "brk", "madvise", "futex", "write", "exit_group", "getrandom")


def load(program: bytes) -> None:
    """seccomp(SECCOMP_SET_MODE_FILTER) of an array of struct sock_filter."""
    libc = ctypes.CDLL(None, use_errno=True)
    code = ctypes.create_string_buffer(program, len(program))
    fprog = ctypes.create_string_buffer(struct.pack("=H6xQ", len(program) // 8, ctypes.addressof(code)))
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.syscall(317, 1, 0, fprog) == 0, ctypes.get_errno()


def main() -> None:
    import pyseccomp as seccomp

    name = sys.argv[1]
    platform = start(name=name)
    left, _ = os.pipe()
    memfd = os.memfd_create("test")
    os.ftruncate(memfd, PAGE)
    if sys.argv[2] == "built":
        load((BIN / ("sentry_trap.bpf" if name == "trap" else "sentry.bpf")).read_bytes())
    else:
        rules = seccomp.SyscallFilter(seccomp.KILL_PROCESS)
        module = trap if name == "trap" else ptrace
        for call in {*module.HOST_SYSCALLS, *INTERPRETER}:
            rules.add_rule(seccomp.ALLOW, call)
        rules.load()

    platform.watch(left, 1, lambda events: None)
    guest = Guest(platform)
    assert guest.run(SYSCALL).kind == base.SYSCALL
    assert guest.run(b"\xf4").kind == base.FAULT
    assert guest.run(b"\xcd\x80", rcx=0).kind == base.FAULT
    guest.space.map_file(0x1000_0000, PAGE, READ | WRITE, True, memfd, 0)
    guest.space.write(0x1000_0000, b"x")
    assert guest.space.cmpxchg32(DATA, 0, 1) == 0
    threads = [guest.space.new_thread(guest.thread) for _ in range(8)]
    threads[0].set_fpstate(guest.thread.get_fpstate())
    for thread in threads:
        thread.exit()
    child = Guest(platform, guest.space.fork(guest.thread))
    child.code(SPIN)
    child.thread.resume()
    platform.wait(100_000_000)
    child.thread.kick()
    assert child.trap().kind == base.KICKED
    child.regs.rip = CODE
    child.thread.resume()
    child.space.destroy()
    platform.unwatch(left)
    platform.close()
    os.write(1, b"ok\n")
    os._exit(0)


try:
    main()
except BaseException as error:
    os.write(2, repr(error).encode())
    os._exit(1)
