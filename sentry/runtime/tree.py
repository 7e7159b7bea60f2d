"""The guest's file tree, standard files and terminal: what is mounted where, and what 0, 1 and 2 are."""

from __future__ import annotations

import errno
import fcntl
import os

from sentry.abi.errors import SysError
from sentry.abi.fcntl import O_NONBLOCK
from sentry.abi.mman import PAGE_SIZE
from sentry.fs import memfd, setup, walk
from sentry.fs.dentry import MNT_NODEV, MNT_NOEXEC, MNT_NOSUID, Path
from sentry.fs.dev.populate import populate_dev
from sentry.fs.dev.table import DeviceTable
from sentry.fs.devpts.bridge import HostTerminal
from sentry.fs.devpts.filesystem import DevptsFilesystem
from sentry.fs.hostfile import HostFile, host_kind
from sentry.fs.pipe import open_fifo
from sentry.fs.proc.base import current_ipc, current_task
from sentry.fs.proc.filesystem import ProcFilesystem
from sentry.fs.registry import MOUNTABLE, TMPFS_DEFAULTS
from sentry.fs.sys import SysFilesystem
from sentry.fs.tmpfs.inode import Tmpfs
from sentry.kernel.credentials import Credentials
from sentry.kernel.userns import INITIAL
from sentry.runtime.errors import Fatal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.fs.gofer.client import Client
    from sentry.fs.mqueue import Mqueue
    from sentry.kernel.group import ProcessGroup
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.task import Task

ROOT_EXPORT = b"root"
#: Who puts the tree together.
ROOT = Credentials(0, 0)
#: Of the sandbox's memory, what files in memory may take when --memory sets a limit.
TMPFS_SHARE = 2


class Tree:
    def __init__(self, kernel: Kernel, client: Client) -> None:
        self.kernel = kernel
        self.client = client
        self.terminal: HostTerminal | None = None
        kernel.dev = DeviceTable()
        MOUNTABLE.update(
            {b"proc": _make_proc, b"sysfs": _make_sys, b"devpts": _make_devpts, b"mqueue": _make_mqueue}
        )
        setup.register_special(open_fifo, kernel.dev.open)

    async def mount_all(self) -> Path:
        """Put the sandbox's tree together; its root."""
        kernel, client = self.kernel, self.client
        config = kernel.config
        limit = (config.memory or kernel.host.memory_total) // TMPFS_SHARE
        reopen = client.reopen_readonly
        memfd.filesystem.limit_pages = limit // PAGE_SIZE
        memfd.filesystem.reopen_readonly = reopen
        TMPFS_DEFAULTS.update(limit_bytes=limit, reopen_readonly=reopen)
        namespace = kernel.mounts = await setup.build_root(
            client, ROOT, config.overlay != "none", reopen, limit, ROOT_EXPORT
        )
        namespace.user_ns = INITIAL
        safe = MNT_NOSUID | MNT_NODEV | MNT_NOEXEC
        setup.mount_at(
            namespace,
            await setup.ensure_dir(namespace, ROOT, b"/proc", 0o555),
            ProcFilesystem(kernel, kernel.pid_ns),
            safe,
        )
        dev = Tmpfs(1 << 20, reopen, 0o755)
        dev.source = b"devtmpfs"
        setup.mount_at(namespace, await setup.ensure_dir(namespace, ROOT, b"/dev"), dev, MNT_NOSUID)
        await populate_dev(dev.root)
        devpts = kernel.dev.devpts
        setup.mount_at(
            namespace, await setup.ensure_dir(namespace, ROOT, b"/dev/pts"), devpts, MNT_NOSUID | MNT_NOEXEC
        )
        setup.mount_at(
            namespace, await setup.ensure_dir(namespace, ROOT, b"/dev/mqueue"), kernel.ipc.mqueue, safe
        )
        await setup.mount_tmpfs(namespace, ROOT, b"/dev/shm", limit, reopen, 0o1777, MNT_NOSUID | MNT_NODEV)
        setup.mount_at(
            namespace, await setup.ensure_dir(namespace, ROOT, b"/sys", 0o555), SysFilesystem(kernel), safe
        )
        await setup.ensure_dir(namespace, ROOT, b"/tmp", 0o1777)
        for number, bind in enumerate(config.binds):
            try:
                await setup.bind(namespace, ROOT, client, b"bind%d" % number, bind.target, not bind.writable)
            except SysError as error:
                target = bind.target.decode(errors="backslashreplace")
                raise Fatal(f"--bind: cannot mount at '{target}': {os.strerror(error.errno)}") from None
        return Path(namespace.root, namespace.root.root)

    async def enter_cwd(self, task: Task) -> None:
        """Start in config.cwd, or in / when that was only the caller's and is not there inside."""
        config = self.kernel.config
        try:
            path = await walk.walk(task.fs, task.cred, config.cwd)
            if not path.inode.is_dir:
                raise SysError(errno.ENOTDIR)
            walk.permission(path.inode, task.cred, walk.MAY_EXEC)
        except SysError as error:
            if config.cwd_given:
                text = config.cwd.decode(errors="backslashreplace")
                raise Fatal(f"--cwd '{text}': {os.strerror(error.errno)}") from None
            return
        task.fs.cwd = path

    async def open_stdio(self, task: Task, stdio: tuple[int, int, int]) -> None:
        """Descriptors 0, 1 and 2: the caller's, or with -t the guest's own terminal."""
        if self.kernel.config.tty:
            self._open_terminal(task, stdio)
            return
        shared: dict[tuple[int, int, int], HostFile] = {}
        for number, fd in enumerate(stdio):
            if fd < 0:
                continue
            flags = _host_flags(fd)
            stat = os.fstat(fd)
            key = (stat.st_dev, stat.st_ino, flags)
            kind = host_kind(fd)
            file = shared.get(key)
            if file is None or kind not in ("tty",):
                own = bool(flags & O_NONBLOCK)
                file = HostFile(
                    fd, flags & ~O_NONBLOCK, self.kernel.platform, kind, own, task.cred.uid, task.cred.gid
                )
                shared[key] = file
            else:
                os.close(fd)
                file.get()
            task.files.replace(number, file, False)
            if file.tty is not None and file.tty.session is None:
                # The caller's terminal is the controlling one: job control, and ^C for the foreground job.
                file.tty.acquire(task.group)

    def _open_terminal(self, task: Task, stdio: tuple[int, int, int]) -> None:
        kernel = self.kernel
        master, slave = kernel.dev.devpts.new_pair()
        host_in, host_out, host_err = stdio
        for number in range(3):
            task.files.replace(number, slave if number == 0 else slave.get(), False)
        tty = slave.tty
        tty.acquire(task.group)
        kernel.dev.console = tty
        self.terminal = HostTerminal(kernel, master, host_in, host_out, kernel.platform)
        if kernel.config.winsize is not None:
            self.resize(kernel.config.winsize)
        if host_err >= 0:
            os.close(host_err)

    def resize(self, winsize: tuple[int, ...]) -> None:
        """The host's terminal has a new size: (rows, columns, x pixels, y pixels)."""
        if self.terminal is not None:
            self.terminal.resize(*winsize)

    def foreground(self) -> ProcessGroup | None:
        """The process group that the terminal's signals are for, when the guest has a terminal."""
        tty = None if self.kernel.main is None else self.kernel.main.tty
        return None if tty is None else tty.foreground

    async def drain(self) -> None:
        """Let what the program wrote last reach the host's terminal."""
        if self.terminal is not None:
            await self.terminal.drain()


async def _make_proc(kernel: Kernel, source: bytes, data: bytes) -> ProcFilesystem:
    task = current_task()
    return ProcFilesystem(kernel, kernel.pid_ns if task is None else task.pid.ns)


async def _make_mqueue(kernel: Kernel, source: bytes, data: bytes) -> Mqueue:
    return current_ipc(kernel).mqueue


async def _make_sys(kernel: Kernel, source: bytes, data: bytes) -> SysFilesystem:
    return SysFilesystem(kernel)


async def _make_devpts(kernel: Kernel, source: bytes, data: bytes) -> DevptsFilesystem:
    """Each is an instance of its own, as if `newinstance` was said; modes and groups are the usual ones."""
    return DevptsFilesystem()


def _host_flags(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_GETFL) & 0o6003
