"""Templates: programs that are executed again and again are mapped once, and copied.

Mapping a program and its interpreter takes many host calls in the new stub, and each mapping of a file a
seccomp notification.  A template is an address space in which that has been done and nothing has ever run; an
execve(2) of the same program clones it, as fork does, and adds what a run has for itself: stack, heap,
credentials' words in the auxiliary vector.  The second execution of a program makes its template.

A template is as good as mapping the files anew:
 - the same mappings of the same files are there.  Pages that were written while mapping (the end of the last
   page of initialised data) are copies of the file's, so it is only made of files that have not changed
   lately, and only used while their times and sizes are the same;
 - its runs differ in stack, heap and random bytes, but not in where the program and its libraries are.  So a
   template is used a few times only, and never for a set-id program (docs/security.md);
 - it is charged to nobody, and has no limits; each run is charged, and checked.

The paths of programs are remembered, too, and the engine is asked whether they still lead to where they
led; its walk takes a microsecond.

What is not executed for a while is let go, so that files that have been removed don't stay for ever.
"""

from __future__ import annotations

import errno
from time import monotonic_ns, time_ns

from sentry._engine import ffi, lib
from sentry.abi.errors import SysError
from sentry.abi.mman import PROT_EXEC, PROT_READ, PROT_WRITE, VM_WRITE
from sentry.abi.resource import RLIMIT_STACK
from sentry.fs import walk
from sentry.mm import elf
from sentry.mm.commit import Commit
from sentry.mm.layout import Layout
from sentry.mm.manager import MemoryManager
from sentry.mm.stack import make_stack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from sentry.fs.dentry import Path
    from sentry.fs.file import File
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.task import Task
    from sentry.platform.base import Thread

#: Address spaces that are kept, and programs of which it is known that they were executed.
MAX_TEMPLATES = 16
MAX_SEEN = 256
MAX_PATHS = 256
#: Runs with one layout.
MAX_RUNS = 32
#: A file that was changed less long ago might change again without a new time stamp.
SETTLED_NS = 2_000_000_000
IDLE_NS = 10_000_000_000
_walk = ffi.new("struct path_walk *")


class Template:
    """`mm` and its only thread, which has never run; `place` says where the image is."""

    __slots__ = ("_own_commit", "_thread", "fixed", "mm", "place", "runs", "version")

    def __init__(
        self, mm: MemoryManager, thread: Thread, place: elf.Place, version: tuple[int, ...], fixed: bool
    ) -> None:
        self.mm = mm
        self._thread = thread
        self._own_commit = mm.commit
        self.place = place
        self.version = version
        self.runs = 0
        #: Whether all is where the program's file wants it to be.
        self.fixed = fixed

    def copy(
        self, commit: Commit, group: Any, randomize: bool, stack: int, executable: bool
    ) -> tuple[MemoryManager, Thread]:
        """An address space for a run, with a `stack` of so many bytes, which may be `executable`; charged to
        `commit` and limited as `group`.  SysError(ENOMEM…)."""
        mine = self.mm
        layout = mine.layout.again(mine.top, randomize, not self.fixed)
        prot = PROT_READ | PROT_WRITE | (PROT_EXEC if executable else 0)
        # mm_fork charges, and hands on, what the parent has.
        mine.commit, mine.c.commit = commit, commit.c
        try:
            mm, thread = mine.fork(self._thread, (layout.stack_top - stack, stack, prot))
        finally:
            mine.commit, mine.c.commit = self._own_commit, self._own_commit.c
        try:
            mm.act_for(group)
            mm.check_expand(VM_WRITE, 0)
            mm.layout = layout
            make_stack(mm, stack, executable, True)
        except BaseException:
            mm.put()
            raise
        self.runs += 1
        return mm, thread


class Templates:
    """Those of one kernel."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        #: Least recently used first.
        self._templates: dict[tuple[object, ...], Template] = {}
        #: Programs that were executed (with what version), least recently first.  A hash holds no file; a
        #: collision makes a template early.
        self._seen: dict[int, tuple[int, ...]] = {}
        #: Where paths led to the last time.
        self._paths: dict[bytes, Path] = {}
        self._used_ns = 0
        self._watching = False

    async def walk(self, task: Task, path: bytes) -> Path:
        """What `path` names, as sentry.fs.walk.walk says."""
        known = self._paths.get(path)
        if known is not None and task.cred.c is not None:
            context = task.fs.c
            w = _walk
            w.fs, w.cred, w.mount, w.at = context, task.cred.c, context.cwd_mount, context.cwd
            if (
                not lib.path_walk(w, path, len(path))
                and w.at == known.dentry.c
                and w.mount == known.mount.c
                and known.dentry.inode is not None
            ):
                return known
            del self._paths[path]
        where = await walk.walk(task.fs, task.cred, path, opening=True)
        if len(self._paths) >= MAX_PATHS:
            self._paths.clear()
        self._paths[path] = where
        self._watch()
        return where

    async def find(
        self, task: Task, image: elf.Image, paths: list[Path], randomize: bool,
        open_program: Callable[[Task, Path], Coroutine[Any, Any, File]],
    ) -> Template | None:  # fmt: skip
        """A template for `image`, which was found at `paths` (the program's and its interpreter's), made now
        if it is worth it."""
        stack_limit = task.group.limit(RLIMIT_STACK)
        headers = image.headers
        places = [part for p in paths for part in (p.mount, p.dentry, p.inode)]
        key = (stack_limit, randomize, headers, *places)
        version = tuple(
            number for p in paths for number in (p.inode.mtime, p.inode.ctime, p.inode.size, p.inode.ino)
        )
        self._used_ns = monotonic_ns()
        template = self._templates.pop(key, None)
        if template is not None:
            if template.version == version and template.runs < MAX_RUNS:
                self._templates[key] = template
                return template
            template.mm.put()
        name = hash(key)
        seen = self._seen.pop(name, None)
        self._seen[name] = version
        if len(self._seen) > MAX_SEEN:
            del self._seen[next(iter(self._seen))]
        if seen != version or not _settled(paths):
            return None
        try:
            template = await self._make(task, image, paths, stack_limit, randomize, version, open_program)
        except SysError:
            return None  # whoever wants to run it will find out what is wrong
        self._keep(key, template)
        return template

    def drop(self, template: Template) -> None:
        """It could not be copied: its process is gone, maybe."""
        for key, other in self._templates.items():
            if other is template:
                del self._templates[key]
                template.mm.put()
                return

    async def _make(
        self, task: Task, image: elf.Image, paths: list[Path], stack_limit: int, randomize: bool,
        version: tuple[int, ...], open_program: Callable[[Task, Path], Coroutine[Any, Any, File]],
    ) -> Template:  # fmt: skip
        """Map the image; the files are opened once more, since those of a run keep others from writing."""
        files: list[File] = []
        mm = None
        try:
            for path in paths:
                files.append(await open_program(task, path))
            copy = elf.Image(files[0], image.headers)
            if len(files) > 1:
                copy.interpreter = await elf.read_interpreter(files[1])
            platform = self._kernel.platform
            thread = platform.new_address_space()
            mm = MemoryManager(thread.space, Commit(), platform.vdso())
            mm.layout = Layout(mm.top, stack_limit, randomize)
            place = await elf.map_image(mm, copy)
            if any(vma.end > mm.layout.mmap_base for vma in mm.tree if not vma.name):
                raise SysError(errno.ENOMEM)  # the next stack might be there
        except BaseException:
            if mm is not None:
                mm.put()
            raise
        finally:
            for file in files:
                file.put()
        fixed = not copy.headers.dynamic and copy.interpreter is None
        return Template(mm, thread, place, version, fixed)

    def _keep(self, key: tuple[object, ...], template: Template) -> None:
        old = self._templates.pop(key, None)  # made by somebody else meanwhile
        if old is not None:
            old.mm.put()
        self._templates[key] = template
        if len(self._templates) > MAX_TEMPLATES:
            self._templates.pop(next(iter(self._templates))).mm.put()
        self._watch()

    def _watch(self) -> None:
        if not self._watching:
            self._watching = True
            self._used_ns = monotonic_ns()
            self._kernel.scheduler.at(self._used_ns + IDLE_NS, self._look)

    def _look(self) -> None:
        idle_at = self._used_ns + IDLE_NS
        if monotonic_ns() < idle_at:
            self._kernel.scheduler.at(idle_at, self._look)
            return
        self._watching = False
        self.clear()

    def clear(self) -> None:
        """Let all of them go."""
        templates, self._templates = self._templates, {}
        self._seen.clear()
        self._paths.clear()
        for template in templates.values():
            template.mm.put()


def _settled(paths: list[Path]) -> bool:
    before = time_ns() - SETTLED_NS
    return all(p.inode.mtime < before and p.inode.ctime < before for p in paths)
