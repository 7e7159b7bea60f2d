"""The Sentry's main: from a started platform to the exit status of the guest's program.

`make_platform` runs before lock-down and reads what is wanted of the host; `main` runs after it.
Importing this module imports what the kernel needs for nearly any program.
"""

from __future__ import annotations

from sentry import syscalls
from sentry.abi.epoll import EPOLLIN
from sentry.abi.errors import SysError
from sentry.abi.resource import RLIM_INFINITY, RLIMIT_FSIZE, RLIMIT_NOFILE
from sentry.abi.signal import SI_USER, SIGINT, SIGQUIT, SigInfo
from sentry.fs import spare
from sentry.fs.dentry import FsContext
from sentry.fs.gofer import file as gofer_file
from sentry.fs.gofer.client import Client
from sentry.fs.tmpfs.node import storage
from sentry.kernel import pool
from sentry.kernel.credentials import Credentials
from sentry.kernel.fdtable import FDTable
from sentry.kernel.group import ProcessGroup, Session, ThreadGroup
from sentry.kernel.kernel import Kernel
from sentry.kernel.rlimits import default_limits
from sentry.kernel.signals import SigHand
from sentry.kernel.task import Task
from sentry.mm.commit import Commit
from sentry.runtime import control as messages
from sentry.runtime import zygote
from sentry.runtime.errors import Fatal
from sentry.runtime.host import Host
from sentry.runtime.program import start_program
from sentry.runtime.tree import Tree
from sentry.syscalls.args import decoder
from sentry.syscalls.table import LATE, REFUSED, TABLE, RestartBlock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from sentry.platform.base import Platform
    from sentry.platform.ptrace import PtracePlatform
    from sentry.runtime.boot import Plan
    from sentry.runtime.config import Config
    from sentry.runtime.control import Control

KERNEL_RELEASE = b"6.18.14-sentry"

#: Longer than the Gofer takes for most requests.
SPIN_NS = 150_000

#: Set by `make_platform`.
_host: Host
#: Set by `start_threads`.
_pool_fd = -1

syscalls.load()


def make_platform(plan: Plan, platform: PtracePlatform) -> Platform:
    """Finish the start of the platform: the last step that may execute a file or read the host's."""
    global _host
    _host = Host(plan.cpus)
    if plan.config.strace:
        from sentry.syscalls import strace

        strace.load()
    platform = zygote.finish(plan, platform)
    # A call that the engine answers is one that nobody can print.
    fast = plan.config.fastpath and not plan.config.strace
    platform.set_fast(fast)
    spare.enable(fast)
    return platform


def start_threads() -> None:
    """Start the threads that wait for the host's disk; called in the midst of lock-down."""
    global _pool_fd
    _pool_fd = pool.start()


class Guest:
    """One run: the kernel and what ties it to the CLI."""

    def __init__(self, config: Config, platform: Platform, sock_fd: int, control: Control) -> None:
        if config.kernel_release is None:
            config.kernel_release = KERNEL_RELEASE
        self.config = config
        self.platform = platform
        self.control = control
        self.kernel = Kernel(config, platform, _host, TABLE, LATE, REFUSED, decoder, RestartBlock)
        self.kernel.commit = storage.commit = Commit(config.memory, _host.memory_total, self._out_of_memory)
        if config.strace:
            from sentry.syscalls.strace import Strace

            self.kernel.strace = Strace(self.kernel)
        self.client = Client(sock_fd, platform, self._gofer_died)
        self.client.spin_ns = SPIN_NS if _host.cpus > 1 else 0
        if _pool_fd >= 0:
            gofer_file.pool = pool.Pool(_pool_fd, platform)
        self.tree = Tree(self.kernel, self.client)
        self.failure: BaseException | None = None

    def _out_of_memory(self, who: bytes, size: int) -> None:
        name = who.decode(errors="backslashreplace") or "a program"
        limit = self.config.memory
        if limit:
            self.control.note(
                f"memory limit of {limit >> 20} MiB reached; {name} was refused {size >> 10} KiB"
            )

    def _gofer_died(self) -> None:
        self.kernel.log_debug("the gofer's connection was closed")

    async def _guarded(self, coro: Coroutine[Any, Any, None]) -> None:
        try:
            await coro
        except Exception as error:
            self.failure = error

    def run_to_end(self, coro: Coroutine[Any, Any, None]) -> None:
        """Run a job of the boot while nothing else is there to run."""
        scheduler = self.kernel.scheduler
        job = scheduler.spawn(self._guarded(coro))
        while job.busy:
            scheduler.run()
            if job.busy:
                self.platform.wait(scheduler.timeout())
        if self.failure is not None:
            raise self.failure

    def first_task(self) -> Task:
        """The task that will run config.argv: a child of init, leader of its own session."""
        kernel, config = self.kernel, self.config
        tid = kernel.new_pid()
        group = ThreadGroup(kernel, tid, kernel.init, SigHand())
        group.limits = default_limits(config, kernel.host)
        cred = Credentials(config.uid, config.gid, tuple(config.groups))
        task = Task(kernel, tid, group, cred)
        group.leader = task
        task.set_files(FDTable())
        if group.limit(RLIMIT_FSIZE) != RLIM_INFINITY:
            task.files.limit_sizes()
        task.files.set_limit(group.limit(RLIMIT_NOFILE))
        pgrp = ProcessGroup(tid, Session(tid, group, group.pid), group.pid)
        kernel.add_pgrp(pgrp)
        group.enter(pgrp)
        kernel.init.children.add(group)
        kernel.add_task(task)
        kernel.main = group
        return task

    async def boot(self, stdio: tuple[int, int, int]) -> None:
        """Mount the file systems, open the standard files, start the program."""
        kernel, config = self.kernel, self.config
        try:
            await self.client.start()
            root = await self.tree.mount_all()
        except SysError as error:
            raise Fatal(f"cannot set up the sandbox's file systems: {error}; did the gofer die?") from None
        task = self.first_task()
        task.set_fs(FsContext(kernel.mounts, root, root))
        await self.tree.enter_cwd(task)
        await self.tree.open_stdio(task, stdio)
        await start_program(task, config)
        self.task = task

    def on_control(self, _events: int) -> None:
        """Messages of the CLI."""
        group = self.kernel.main
        for kind, values in self.control.receive():
            if group is None or group.zombie:
                continue
            if kind == messages.SIGNAL and 1 <= values[0] <= 64:
                self._pass_on(group, values[0])
            elif kind == messages.WINSIZE:
                self.tree.resize(values)
            elif kind == messages.TIMEOUT:
                self.kernel.shutdown()

    def _pass_on(self, group: ThreadGroup, signo: int) -> None:
        """A signal that a person or the host's terminal meant for the program."""
        info = SigInfo(signo, SI_USER)
        foreground = self.tree.foreground()
        if foreground is None and signo in (SIGINT, SIGQUIT):
            foreground = group.pgrp  # Ctrl-C is for a shell's children, too
        if foreground is not None:
            self.kernel.signal_pgrp(foreground, signo, info)
        else:
            group.send_signal(signo, info)

    def run(self, stdio: tuple[int, int, int]) -> int:
        """The exit status of the CLI: the program's, or 128+N for a death by signal N."""
        self.run_to_end(self.boot(stdio))
        self.platform.watch(self.control.fd, EPOLLIN, self.on_control)
        if self.kernel.config.tty:
            self.kernel.on_main_stop = self.control.stopped
        self.task.return_to_user()
        status = self.kernel.run()
        self.kernel.log_debug(f"system calls answered by fast paths: {self.platform.fast_count()}")
        self.run_to_end(self.tree.drain())
        self.platform.close()
        return status >> 8 & 0xFF if not status & 0x7F else 128 + (status & 0x7F)


def main(
    config: Config, platform: Platform, sock_fd: int, control: Control, stdio: tuple[int, int, int]
) -> int:
    """Run the guest; its exit status as a shell would give it."""
    return Guest(config, platform, sock_fd, control).run(stdio)
