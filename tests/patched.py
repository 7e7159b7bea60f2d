"""`python tests/patched.py run -- COMMAND`: the sandbox on `ptrace`, with every call site patched at its first trap.

On this platform no thread has a record in its gs base, so each trampoline takes the slow way, back to the
`syscall`.  All else is as on `trap`: real programs run over replaced instructions, padding and trampolines,
fork them, unmap them, and take signals in them.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sentry._engine import lib
from sentry.abi.mman import PAGE_SIZE, PROT_EXEC, PROT_READ, PROT_RWX
from sentry.cli import main
from sentry.kernel import exec as execute
from sentry.kernel.task import Task
from sentry.mm.patch import CodePatches
from sentry.platform.base import FAULT, KICKED
from sentry.platform.ptrace import PtraceSpace

ENTRY = 0x7FFF_FC00_0800


def write_code(space: PtraceSpace, addr: int, data: bytes) -> None:
    start = addr & -PAGE_SIZE
    size = (addr + len(data) + PAGE_SIZE - 1 & -PAGE_SIZE) - start
    space.protect(start, size, PROT_RWX)
    space.write(addr, data)
    space.protect(start, size, PROT_READ | PROT_EXEC)


def attach(replace):
    def replace_memory(task, mm, *rest):
        mm.patches = CodePatches(mm, ENTRY, 1)
        replace(task, mm, *rest)

    return replace_memory


def count(enter):
    def enter_syscall(task, nr):
        patches = task.mm.patches
        if lib.patch_trap(patches.table, task.regs.rip - 2):
            patches.consider(task.regs)
        enter(task, nr)

    return enter_syscall


def settle(handle):
    def settle_first(task, trap):
        if trap.kind in (FAULT, KICKED) and not task.exited:
            signo = trap.signo if trap.kind == FAULT else 0
            if task.mm.patches.settle(task.regs, signo):
                task.return_to_user()
                return
        handle(task, trap)

    return settle_first


if __name__ == "__main__":
    PtraceSpace.write_code = write_code
    execute._replace_memory = attach(execute._replace_memory)
    Task.enter_syscall = count(Task.enter_syscall)
    Task._handle = settle(Task._handle)
    main()
