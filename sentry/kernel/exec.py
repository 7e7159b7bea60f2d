"""execve: a new program for a task (execve(2), fs/exec.c).

The new image is built in an address space of its own, beside the old one, so everything that can
fail fails while the old program can still be told.  Only then do the other threads go, and the
task moves over.
"""

from __future__ import annotations

import errno
import os

from sentry.abi.capability import CAP_SYS_PTRACE
from sentry.abi.errors import SysError
from sentry.abi.inotify import IN_ACCESS, IN_OPEN
from sentry.abi.ptrace import PTRACE_EVENT_EXEC
from sentry.abi.resource import RLIMIT_STACK
from sentry.abi.signal import SI_USER, SIGTRAP, SS_DISABLE, SigInfo
from sentry.abi.stat import S_IFREG
from sentry.fs import fsnotify, walk
from sentry.fs.dentry import MNT_NOEXEC, MNT_NOSUID
from sentry.kernel.bound import FORCED_PROTECTION
from sentry.kernel.credentials import exec_credentials, loses_dumpable, parse_file_caps
from sentry.kernel.robust import leave_futexes
from sentry.kernel.sched import READ_IMPLIES_EXEC
from sentry.kernel.wait import Interrupted, block, each
from sentry.mm import elf
from sentry.mm.manager import MemoryManager
from sentry.mm.patch import CodePatches
from sentry.mm.stack import stack_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.fs.dentry import Path
    from sentry.fs.file import File
    from sentry.kernel.credentials import Credentials
    from sentry.kernel.task import Task
    from sentry.kernel.templates import Template
    from sentry.kernel.userns import UserNamespace
    from sentry.platform.base import Thread

MAY_EXEC, MAY_READ = 1, 4
ADDR_NO_RANDOMIZE = 0x0040000
#: READ_IMPLIES_EXEC, ADDR_NO_RANDOMIZE, ADDR_COMPAT_LAYOUT, MMAP_PAGE_ZERO.
PER_CLEAR_ON_SETID = 0x0400000 | 0x0040000 | 0x0200000 | 0x0100000
SHEBANG_SIZE = 256
SHEBANG_DEPTH = 4
NAME_SIZE = 15
USER_EFLAGS = 0x202
U64 = (1 << 64) - 1
USER_CS = 0x33
USER_SS = 0x2B
_CLEARED = (
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
    "fs_base", "gs_base", "ds", "es", "fs", "gs",
)  # fmt: skip


async def check_program(task: Task, path: Path) -> None:
    """Whether the file at `path` may be executed; SysError(EACCES…)."""
    inode = path.inode
    await inode.refresh()
    if inode.kind != S_IFREG or path.mount.flags & MNT_NOEXEC:
        raise SysError(errno.EACCES)
    walk.permission(inode, task.cred, MAY_EXEC)
    if inode.writers:
        raise SysError(errno.ETXTBSY)


async def open_program(task: Task, path: Path) -> File:
    """The file at `path`, opened for execution; SysError(EACCES…)."""
    await check_program(task, path)
    file = await path.inode.open(path, os.O_RDONLY, task.cred)
    if fsnotify.watching:
        fsnotify.happened(path, IN_OPEN)
        fsnotify.happened(path, IN_ACCESS)
    return file


def parse_shebang(head: bytes) -> tuple[bytes, bytes | None] | None:
    """(interpreter, optional argument) of a script's first bytes; None: not a script.

    SysError(ENOEXEC) for a line without an interpreter, or whose interpreter may be cut off.
    """
    if not head.startswith(b"#!"):
        return None
    line, newline, _ = head[2:SHEBANG_SIZE].partition(b"\n")
    line = line.partition(b"\0")[0]
    if not newline:
        name = line.lstrip(b" \t")
        if len(head) >= SHEBANG_SIZE and not (b" " in name or b"\t" in name):
            raise SysError(errno.ENOEXEC)
    line = line.strip(b" \t")
    if not line:
        raise SysError(errno.ENOEXEC)
    cut = min((i for i in (line.find(b" "), line.find(b"\t")) if i >= 0), default=len(line))
    argument = line[cut:].strip(b" \t")
    return line[:cut], argument or None


async def execve(
    task: Task,
    path: Path,
    filename: bytes,
    argv: list[bytes],
    envp: list[bytes],
    script_name: bytes | None = None,
) -> None:
    """Replace the program of `task` by the one at `path`; on return its registers are at the start.

    `filename` is what the program hears as its name (AT_EXECFN), `script_name` what an interpreter
    is given to open (b"": there is no way to open it).  SysError leaves the task as it was.
    """
    argv = argv or [b""]
    name = filename
    file = await open_program(task, path)
    try:
        for depth in range(SHEBANG_DEPTH + 2):
            head = await file.pread(elf.HEAD_SIZE, 0)
            shebang = parse_shebang(head[:SHEBANG_SIZE])
            if shebang is None:
                break
            if depth > SHEBANG_DEPTH:
                raise SysError(errno.ELOOP)
            interpreter, argument = shebang
            if script_name == b"":
                raise SysError(errno.ENOENT)
            script = script_name or name
            argv = [interpreter, *([argument] if argument else []), script, *argv[1:]]
            name, script_name = interpreter, None
            path = await task.kernel.templates.walk(task, interpreter)
            script_file, file = file, await open_program(task, path)
            script_file.put()
        await _load(task, path, file, head, filename, argv, envp)
    finally:
        file.put()


async def _load(
    task: Task, path: Path, file: File, head: bytes, filename: bytes, argv: list[bytes], envp: list[bytes]
) -> None:
    kernel = task.kernel
    image = await elf.read_image(file, head)
    inode = path.inode
    group, trace, old_pid = task.group, task.trace, task.pid
    before, unsafe = task.cred, _unsafe(task)
    nosuid = bool(path.mount.flags & MNT_NOSUID)
    value = inode.file_caps
    caps = None if value is None else parse_file_caps(value, task.cred.user_ns)
    privileges = inode.mode, inode.uid, inode.gid, nosuid
    cred, secure = exec_credentials(before, *privileges, unsafe, caps)
    opened = None
    paths = [path]
    if image.headers.interp is not None:
        if not image.headers.interp:
            raise SysError(errno.EACCES)  # the working directory, to Linux
        where = await kernel.templates.walk(task, image.headers.interp)
        await check_program(task, where)
        paths.append(where)
    mm = None
    try:
        randomize = not task.sched.personality & ADDR_NO_RANDOMIZE
        size = stack_size(argv, envp, filename, task.group.limit(RLIMIT_STACK))
        template = None
        if not secure:
            template = await kernel.templates.find(task, image, paths, randomize, open_program)
        mm, thread, place = _new_space(task, template, image, randomize, size)
        if place is None and len(paths) > 1:
            opened = await open_program(task, paths[1])
            image.interpreter = await elf.read_interpreter(opened)
        run = (argv, envp, cred, filename, os.urandom(16), secure, randomize)
        if place is not None:
            start = elf.enter_program(mm, image, place, *run)
        else:
            start = await elf.load_program(mm, image, *run)
        await _leave_other_threads(task)
    except BaseException:
        if mm is not None:
            mm.put()
        raise
    finally:
        if opened is not None:
            opened.put()
    if task.cred is not before or (_unsafe(task) and not unsafe):
        # Somebody has begun to trace it meanwhile, or the like: less than the new program was told, maybe.
        cred, _ = exec_credentials(task.cred, *privileges, _unsafe(task), caps)
    dump_ns = _dump_ns(task, paths)
    old_thread, old = task.thread, task.mm
    file.claim_text()
    if old is not None:
        leave_futexes(task)
    _replace_memory(task, mm, thread, old_thread, old)
    await _close_on_exec(task)
    _reset(task, path, filename, cred, secure)
    if dump_ns is not None:
        group.dumpable = 0
    group.dump_ns = dump_ns or task.cred.user_ns
    regs = task.regs
    for register in _CLEARED:
        setattr(regs, register, 0)
    regs.rip, regs.rsp, regs.eflags, regs.cs, regs.ss = start.rip, start.rsp, USER_EFLAGS, USER_CS, USER_SS
    regs.orig_rax = task.nr & U64
    trace = task.trace
    if trace is not None:
        if trace.options >> PTRACE_EVENT_EXEC & 1:
            regs.rax = -errno.ENOSYS & U64  # not over yet
            await trace.event(PTRACE_EVENT_EXEC, old_pid.nr(trace.tracer.pid.ns))
            regs.rax = 0
        elif not trace.seized:
            task.send_signal(SIGTRAP, SigInfo(SIGTRAP, SI_USER, group.pid.vnr, task.cred.shown_ids()[0]))


def _unsafe(task: Task) -> bool:
    """Whether a set-id program must gain nothing: others share what it looks paths up from, or it is in the
    hands of a tracer who may not do as much (LSM_UNSAFE_…)."""
    trace = task.trace
    if trace is not None and not trace.cred.ns_capable(task.cred.user_ns, CAP_SYS_PTRACE):
        return True
    return task.fs.users > len(task.group.tasks)


def _dump_ns(task: Task, paths: list[Path]) -> UserNamespace | None:
    """If one of the files may be executed but not read: the namespace whose CAP_SYS_PTRACE it takes to see
    the program's memory (would_dump())."""
    found = None
    for path in paths:
        inode = path.inode
        if not walk.allowed(inode, task.cred, MAY_READ):
            found = found or task.cred.user_ns
            while found.parent is not None and not found.maps(inode.uid, inode.gid):
                found = found.parent
    return found


def _new_space(
    task: Task, template: Template | None, image: elf.Image, randomize: bool, stack: int
) -> tuple[MemoryManager, Thread, elf.Place | None]:
    """A new address space and its thread: from `template`, with a stack and the image mapped at the place
    that is returned, or empty."""
    kernel = task.kernel
    platform = kernel.platform
    place = None
    if template is not None:
        try:
            executable = image.headers.exec_stack
            mm, thread = template.copy(kernel.commit, task.group, randomize, stack, executable)
            place = template.place
        except SysError:
            kernel.templates.drop(template)  # its process may be dead
    if place is None:
        thread = platform.new_address_space()
        mm = MemoryManager(thread.space, kernel.commit, platform.vdso())
        mm.act_for(task.group)
    if platform.patched_entry and kernel.config.patch and task.trace is None:
        mm.patches = CodePatches(mm, platform.patched_entry)
    return mm, thread, place


def _replace_memory(task: Task, mm: MemoryManager, thread: object, old_thread: object, old: object) -> None:
    kernel = task.kernel
    task.group.sighand.keep()  # what the old thread has changed stands in its memory
    task.mm = mm
    mm.own_futexes = task.trace is not None
    task.bind(thread)  # type: ignore[arg-type]
    if old is None:
        return
    mm.dump_filter = old.dump_filter  # type: ignore[attr-defined]
    old_thread.owner = None  # type: ignore[attr-defined]
    if old.users > 1:  # type: ignore[attr-defined]
        old_thread.exit()  # type: ignore[attr-defined]
    kernel.leave_memory(task, old)  # type: ignore[arg-type]
    old.put()  # type: ignore[attr-defined]
    kernel.end_vfork(task)


async def _leave_other_threads(task: Task) -> None:
    """The program of a process is that of one thread: end the others, and become the leader."""
    group = task.group
    if task.kill_pending():
        raise Interrupted  # another thread was first
    if len(group.tasks) > 1 or task is not group.leader:
        group.exec_task = task
        try:
            for other in list(group.tasks):
                if other is not task:
                    other.kill_now()
            while len(group.tasks) > 1:
                await block((group.task_queue, 1), interruptible=False)
        finally:
            group.exec_task = None
    if task is not group.leader:
        if group.leader.trace is not None:
            tracer = group.leader.trace.tracer
            group.leader.trace.unlink()
            tracer.group.child_queue.wake()
        kernel = task.kernel
        kernel.forget_task(task)
        task.tid, task.pid = group.tgid, group.pid
        task.pid.task = task
        task.publish_ids()
        kernel.register(task)
        group.leader = task


async def _close_on_exec(task: Task) -> None:
    if task.files.users > 1:
        task.files.users -= 1
        task.set_files(task.files.copy())
    await each(task.files.closing(cloexec=True))


def _reset(task: Task, path: Path, filename: bytes, cred: Credentials, secure: bool) -> None:
    """What execve(2) says is not preserved."""
    group, old = task.group, task.cred
    if group.sighand.users > 1:
        group.sighand.users -= 1
        group.sighand = group.sighand.copy()
    group.sighand.reset_handlers()
    task.altstack = (0, SS_DISABLE, 0)
    task.restart_block = None
    if secure:
        task.pdeath_signal = 0
        task.sched.personality &= ~PER_CLEAR_ON_SETID
    task.force(FORCED_PROTECTION, bool(task.sched.personality & READ_IMPLIES_EXEC))
    task.set_cred(cred)  # tells the thread of the new handlers, too
    task.publish_actions()
    task.name = filename.rsplit(b"/", 1)[-1][:NAME_SIZE]
    group.exe = path
    group.exit_signal = 17
    group.did_exec = True
    # Not what AT_SECURE says: a program that was refused its rights may be dumped.
    mixed = old.euid != old.uid or old.egid != old.gid
    group.dumpable = 0 if mixed or loses_dumpable(cred, old) else 1
    for timer in group.posix_timers.values():
        timer.cancel()
    group.posix_timers.clear()
