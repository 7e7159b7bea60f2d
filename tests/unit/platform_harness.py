"""Runs a few bytes of machine code on a platform, without a kernel above it; the tests' fixtures."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sentry.abi.errors import SysError
from sentry.abi.mman import PAGE_SIZE as PAGE
from sentry.platform import base
from sentry.platform.ptrace import PtracePlatform
from sentry.platform.trap import TrapPlatform

BIN = Path(base.__file__).parent.parent / "_bin"
READ, WRITE, EXEC = 1, 2, 4
CODE = 0x40_0000
DATA = 0x50_0000
STACK = 0x60_0000


SYSCALL = bytes.fromhex("0f05")
SPIN = bytes.fromhex("ebfe")
LOAD = bytes.fromhex("8a07")  # mov (%rdi),%al
STORE = bytes.fromhex("8807")  # mov %al,(%rdi)
CALL_RAX = bytes.fromhex("ffd0")


PLATFORMS = ("ptrace", "trap")
#: csrc/abi/record.h; the bell is the one descriptor of a stub on `trap`.
KICK_SIGNAL = 12
BELL_FD = 0


def start(pin: bool = True, name: str = "ptrace") -> PtracePlatform:
    stub = os.open(BIN / "stub", os.O_RDONLY | os.O_CLOEXEC)
    platform: PtracePlatform
    try:
        if name == "ptrace":
            platform = PtracePlatform(stub, (BIN / "stub.bpf").read_bytes(), pin)
        else:
            platform = TrapPlatform(stub, (BIN / "stub_trap.bpf").read_bytes())
        platform.start()
    finally:
        os.close(stub)
    return platform


class Guest:
    """A thread with a code, a data and a stack page of its own."""

    def __init__(self, platform: PtracePlatform, thread: base.Thread | None = None) -> None:
        self.platform = platform
        if thread is None:
            thread = platform.new_address_space()
            for addr, prot in ((CODE, READ | WRITE | EXEC), (DATA, READ | WRITE), (STACK, READ | WRITE)):
                thread.space.map_anon(addr, PAGE, prot)
        self.thread = thread
        self.space = thread.space
        self.regs = thread.regs

    def code(self, code: bytes, **regs: int) -> None:
        """Put `code` at CODE and point the thread at it."""
        self.space.write(CODE, code)
        self.regs.rip = CODE
        self.regs.rsp = STACK + PAGE - 256
        for name, value in regs.items():
            setattr(self.regs, name, value)

    def trap(self) -> base.Trap:
        """The thread's next trap.  Traps of others at the same time are a test's mistake."""
        while True:
            for trap in self.platform.wait(10_000_000_000):
                assert trap.thread is self.thread, (trap.kind, trap.thread)
                return trap

    def run(self, code: bytes, **regs: int) -> base.Trap:
        self.code(code, **regs)
        self.thread.resume()
        return self.trap()

    def call(self, code: bytes, **regs: int) -> int:
        """Run `code` and then a syscall instruction; what stood in rdi at the syscall."""
        trap = self.run(code + SYSCALL, **regs)
        assert trap.kind == base.SYSCALL, (trap.kind, trap.signo, hex(trap.addr))
        return int(self.regs.rdi)


@pytest.fixture(scope="module", params=PLATFORMS)
def platform(request):
    result = start(name=request.param)
    yield result
    result.close()


@pytest.fixture
def guest(platform):
    result = Guest(platform)
    yield result
    result.space.destroy()


def raises(number):
    class Check:
        def __enter__(self):
            return self

        def __exit__(self, kind, error, _):
            assert kind is SysError, f"expected {errno.errorcode[number]}, got {error!r}"
            assert error.errno == number, str(error)
            return True

    return Check()


def host_maps(guest):
    with open(f"/proc/{guest.space._tgid}/maps") as file:
        return file.read().splitlines()


def descriptors(pid):
    """What a stub holds beside the bell."""
    return [
        fd
        for fd in os.listdir(f"/proc/{pid}/fd")
        if (int(fd), os.readlink(f"/proc/{pid}/fd/{fd}")) != (BELL_FD, "anon_inode:[eventfd]")
    ]


@pytest.fixture
def memfd():
    fd = os.memfd_create("test", os.MFD_CLOEXEC)
    os.write(fd, b"file" * PAGE)
    yield fd
    os.close(fd)
