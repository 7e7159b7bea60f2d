"""A kernel without a platform: handlers are called as the dispatcher does, on a task with real memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from fakespace import FakeSpace

from sentry import syscalls
from sentry.abi.errors import SysError
from sentry.kernel.credentials import Credentials
from sentry.kernel.fdtable import FDTable
from sentry.kernel.group import ProcessGroup, ThreadGroup
from sentry.kernel.kernel import Kernel
from sentry.kernel.rlimits import default_limits
from sentry.kernel.signals import SigHand
from sentry.kernel.task import Task
from sentry.mm.commit import Commit
from sentry.mm.manager import MemoryManager
from sentry.syscalls.args import REGISTERS, decoder
from sentry.syscalls.table import LATE, REFUSED, TABLE, RestartBlock

syscalls.load_all()

CONFIG = SimpleNamespace(
    hostname="box", kernel_release="6.1.2-test", memory=64 << 20, pids=0, debug=False, strace=False
)
HOST = SimpleNamespace(cpus=2, memory_total=1 << 30, cpuinfo=b"")
#: Where a task's memory is: sixteen pages, and nothing on either side.
BASE, SIZE = 0x10000, 0x10000
U64 = (1 << 64) - 1


class World:
    """A kernel with one process, whose leader is `task`."""

    def __init__(self, uid: int = 0) -> None:
        platform: Any = SimpleNamespace(wait=lambda timeout: [])
        self.kernel = Kernel(CONFIG, platform, HOST, TABLE, LATE, REFUSED, decoder, RestartBlock)
        self.kernel.commit = Commit()
        self.task = self.new_process(uid)

    def new_process(self, uid: int = 0) -> Task:
        kernel = self.kernel
        pid = kernel.new_pid()
        group = ThreadGroup(kernel, pid, kernel.init, SigHand())
        kernel.groups[pid] = group
        group.limits = default_limits(CONFIG, HOST)
        task = self.new_task(group, pid, uid)
        group.leader = task
        group.enter(ProcessGroup(pid, kernel.init.session))
        kernel.processes_by_pgid[pid] = group.pgrp
        return task

    def new_task(self, group: ThreadGroup, tid: int, uid: int = 0) -> Task:
        task = Task(self.kernel, tid, group, Credentials(uid, uid))
        task.mm = MemoryManager(FakeSpace(), Commit())
        task.mm.space.map_anon(BASE, SIZE, 3)
        task.files = FDTable()
        task.regs = SimpleNamespace(**dict.fromkeys((*REGISTERS, "rax", "rip", "fs_base", "gs_base"), 0))
        self.kernel.add_task(task)
        return task

    def call(self, nr: int, *args: int, task: Task | None = None) -> int:
        """The result of a system call that does not sleep, or -errno."""
        task = task or self.task
        for i, name in enumerate(REGISTERS):
            setattr(task.regs, name, args[i] & U64 if i < len(args) else 0xDEAD_0000 + i)
        entry = TABLE.get(nr)
        if entry is None:
            return -self.kernel.missing_syscall(task, nr).errno
        try:
            result = decoder(entry.kinds)(entry.handler, task, task.regs)
            if entry.is_async:
                try:
                    result.send(None)
                except StopIteration as stop:
                    result = stop.value
                else:
                    raise AssertionError("the call sleeps")
        except SysError as error:
            return -error.errno
        return result or 0
