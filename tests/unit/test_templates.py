"""Templates of programs: when one is made and used, what its copies share, and when it goes."""

from __future__ import annotations

import errno
import os
import sys
from types import SimpleNamespace

import pytest

sys.path.insert(0, os.path.dirname(__file__))

from fakespace import FakeSpace, HostFile, run
from vfs_support import ROOT, context

from sentry.abi.errors import SysError
from sentry.abi.resource import RLIM_INFINITY, RLIMIT_DATA
from sentry.fs import modify
from sentry.fs import walk as fs_walk
from sentry.fs.tmpfs.inode import Tmpfs
from sentry.kernel import templates as module
from sentry.kernel.credentials import Credentials
from sentry.kernel.templates import MAX_RUNS, MAX_TEMPLATES, Template, Templates
from sentry.kernel.wait import Scheduler
from sentry.mm import Commit, MemoryManager, elf
from sentry.platform.base import GUEST_TOP

VDSO = (GUEST_TOP - 0x6000, GUEST_TOP - 0x2000, GUEST_TOP)
CRED = Credentials(1000, 1000)


class Inode:
    mtime = ctime = 1000
    size = ino = 1


class Platform:
    """Counts the address spaces that do not come from a template."""

    def __init__(self) -> None:
        self.spaces: list[FakeSpace] = []

    def new_address_space(self):
        self.spaces.append(FakeSpace())
        return self.spaces[-1].new_thread(None)

    def vdso(self):
        return VDSO


class World:
    def __init__(self) -> None:
        self.platform = Platform()
        self.scheduler = Scheduler()
        self.commit = Commit(1 << 30)
        self.templates = Templates(SimpleNamespace(platform=self.platform, scheduler=self.scheduler))
        self.limits = {RLIMIT_DATA: RLIM_INFINITY}
        group = SimpleNamespace(limit=lambda number: self.limits.get(number, 8 << 20))
        self.group = group
        self.task = SimpleNamespace(group=group)
        self.opened: list[HostFile] = []
        self.paths = {}

    def path(self, name: str):
        if name not in self.paths:
            inode = Inode()
            inode.size = os.path.getsize(name)
            self.paths[name] = SimpleNamespace(mount="m", dentry=name, inode=inode)
        return self.paths[name]

    async def open_program(self, task, path):
        self.opened.append(HostFile(path.dentry))
        return self.opened[-1]

    def image(self, name: str):
        image = run(elf.read_image(HostFile(name)))
        interp = os.fsdecode(image.headers.interp)
        image.interpreter = run(elf.read_interpreter(HostFile(interp)))
        return image, [self.path(name), self.path(interp)]

    def find(self, name: str = "/bin/true", randomize: bool = True) -> Template | None:
        image, paths = self.image(name)
        return run(self.templates.find(self.task, image, paths, randomize, self.open_program))

    def execute(self, template: Template, name: str = "/bin/true") -> MemoryManager:
        mm, _ = template.copy(self.commit, self.group, True, 1 << 18, False)
        image, _ = self.image(name)
        elf.enter_program(
            mm, image, template.place, [b"x"], [b"A=1"], CRED, b"x", bytes(16), False, True
        )  # fmt: skip
        return mm


def mapped(mm: MemoryManager) -> list[tuple[int, int, int]]:
    """What comes from files."""
    return [(vma.start, vma.end, vma.flags & 7) for vma in mm.tree if vma.file is not None]


@pytest.fixture
def world() -> World:
    return World()


def test_the_second_execution_makes_it(world: World) -> None:
    assert world.find() is None
    assert world.platform.spaces == []
    template = world.find()
    assert template is not None
    assert len(world.platform.spaces) == 1
    assert world.find() is template
    assert len(world.platform.spaces) == 1


def test_copies_share_files_and_nothing_else(world: World) -> None:
    world.find()
    template = world.find()
    first, second = world.execute(template), world.execute(template)
    assert mapped(first) == mapped(second) != []
    assert first.layout.stack_top != second.layout.stack_top
    assert first.start_stack != second.start_stack
    first.write_u64(first.start_stack, 7)
    assert second.read_u64(second.start_stack) == 1
    assert template.mm.tree.overlapping(first.layout.stack_top - 4096, first.layout.stack_top) == []


def test_as_if_mapped_anew(world: World) -> None:
    image, _ = world.image("/bin/true")
    mm = MemoryManager(FakeSpace(), Commit(), VDSO)
    run(elf.load_program(mm, image, [b"x"], [], CRED, b"x", bytes(16)))
    world.find()
    copy = world.execute(world.find())

    def contents(mm):
        base = mapped(mm)[0][0]
        return [
            (vma.start - mm.layout.pie_base, vma.end - vma.start, vma.flags, mm.read(vma.start, vma.size))
            for vma in mm.tree
            if base <= vma.start < base + (1 << 30) and vma.prot & 1 and not vma.name
        ]

    mine, theirs = contents(mm), contents(copy)
    assert mine and len(mine) == len(theirs)
    # Both images have a random base that is a multiple of a page.
    assert [(size, flags, data) for _, size, flags, data in mine] == [
        (size, flags, data) for _, size, flags, data in theirs
    ]
    assert mine[0][0] == theirs[0][0] == 0


@pytest.mark.parametrize("field", ["mtime", "ctime", "size", "ino"])
@pytest.mark.parametrize("which", [0, 1])
def test_a_changed_file_is_mapped_anew(world: World, field: str, which: int) -> None:
    world.find()
    template = world.find()
    _, paths = world.image("/bin/true")
    setattr(paths[which].inode, field, 77)
    assert world.find() is None
    assert template.mm.space.destroyed
    again = world.find()
    assert again is not None and again is not template


def test_not_of_a_file_that_is_changing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 5_000_000_000_000
    monkeypatch.setattr(module, "time_ns", lambda: now)
    world.path("/bin/true").inode.mtime = now - 1_000_000_000
    for _ in range(4):
        assert world.find() is None
    now += 2_000_000_000
    assert world.find() is not None


def test_other_stack_limit_other_template(world: World) -> None:
    world.find()
    first = world.find()
    world.limits[3] = RLIM_INFINITY
    assert world.find() is None
    assert world.find() is not first


def test_fixed_layout(world: World) -> None:
    assert world.find(randomize=False) is None
    template = world.find(randomize=False)
    assert template.mm.layout.pie_base == elf.ELF_DYN_BASE
    assert world.find() is None


def test_a_new_layout_after_some_runs(world: World) -> None:
    world.find()
    template = world.find()
    for _ in range(MAX_RUNS):
        assert world.find() is template
        world.execute(template).put()
    again = world.find()
    assert again is not None and again is not template
    assert template.mm.space.destroyed
    assert mapped(world.execute(again)) != []
    assert again.mm.layout.pie_base != template.mm.layout.pie_base


def test_runs_are_charged_and_templates_are_not(world: World) -> None:
    world.find()
    template = world.find()
    assert world.commit.used == 0
    mm = world.execute(template)
    assert world.commit.used > 0
    mm.put()
    assert world.commit.used == 0
    world.templates.clear()
    assert world.commit.used == 0


def test_limits_are_the_callers(world: World) -> None:
    world.find()
    template = world.find()
    world.limits[RLIMIT_DATA] = 4096
    with pytest.raises(SysError) as caught:
        template.copy(world.commit, world.group, True, 1 << 18, False)
    assert caught.value.errno == errno.ENOMEM
    assert world.commit.used == 0
    world.limits[RLIMIT_DATA] = RLIM_INFINITY
    template.copy(world.commit, world.group, True, 1 << 18, False)
    world.commit.c.limit = world.commit.used
    with pytest.raises(SysError):
        template.copy(world.commit, world.group, True, 1 << 18, False)


def test_all_references_come_back(world: World) -> None:
    world.find()
    template = world.find()
    mm = world.execute(template)
    assert [file.refs for file in world.opened] == [1, 1]
    world.templates.clear()
    assert [file.refs for file in world.opened] == [1, 1]
    mm.put()
    assert [file.refs for file in world.opened] == [0, 0]


def test_only_so_many(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []
    for number in range(MAX_TEMPLATES + 3):
        world.limits[3] = (8 << 20) + number * 4096
        world.find()
        kept.append(world.find())
    assert [template.mm.space.destroyed for template in kept] == [True] * 3 + [False] * MAX_TEMPLATES


def test_what_is_idle_is_let_go(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000_000_000_000
    monkeypatch.setattr(module, "monotonic_ns", lambda: now)
    monkeypatch.setattr("sentry.kernel.wait.monotonic_ns", lambda: now)
    world.find()
    template = world.find()
    now += 6_000_000_000
    world.scheduler.run()
    world.find()
    now += 6_000_000_000
    world.scheduler.run()
    assert not template.mm.space.destroyed
    now += 5_000_000_000
    world.scheduler.run()
    assert template.mm.space.destroyed
    assert world.scheduler.timeout() == -1


def test_a_dead_one_is_dropped(world: World) -> None:
    world.find()
    template = world.find()
    world.templates.drop(template)
    assert template.mm.space.destroyed
    assert world.find() is not template


def test_hopeless_files_are_left_to_whoever_runs_them(world: World) -> None:
    world.find()
    opened = world.open_program

    async def fails(task, path):
        if world.opened:
            raise SysError(errno.EACCES)
        return await opened(task, path)

    image, paths = world.image("/bin/true")
    assert run(world.templates.find(world.task, image, paths, True, fails)) is None
    assert [file.refs for file in world.opened] == [0]


class Disk:
    """A real tree of names, and a task that walks it."""

    def __init__(self) -> None:
        self.fs = context(Tmpfs(limit_bytes=1 << 20))
        self.cred = Credentials(1000, 1000)
        for name in (b"/bin", b"/usr"):
            self.mkdir(name)
        self.task = SimpleNamespace(fs=self.fs, cred=self.cred)
        self.templates = Templates(SimpleNamespace(platform=None, scheduler=Scheduler()))
        self.slow = 0

    def mkdir(self, path: bytes, mode: int = 0o755) -> None:
        where, name, _ = run(fs_walk.walk_parent(self.fs, ROOT, path))
        run(modify.mkdir(where, name, mode, 0, ROOT))

    def rename(self, old: bytes, new: bytes) -> None:
        source, name, _ = run(fs_walk.walk_parent(self.fs, ROOT, old))
        target, new_name, _ = run(fs_walk.walk_parent(self.fs, ROOT, new))
        run(modify.rename(source, name, False, target, new_name, False, 0, ROOT))

    def walk(self, path: bytes):
        return run(self.templates.walk(self.task, path))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    real = module.walk.walk

    async def counted(*args, **how):
        disk.slow += 1
        return await real(*args, **how)

    monkeypatch.setattr(module.walk, "walk", counted)
    return disk


def test_a_known_path_is_not_walked_again(disk: Disk) -> None:
    first = disk.walk(b"/bin")
    assert [disk.walk(b"/bin") for _ in range(3)] == [first] * 3
    assert disk.slow == 1
    disk.walk(b"/usr")
    assert disk.slow == 2


def test_a_known_path_leads_elsewhere(disk: Disk) -> None:
    old = disk.walk(b"/bin").dentry
    disk.rename(b"/bin", b"/old")
    with pytest.raises(SysError) as caught:
        disk.walk(b"/bin")
    assert caught.value.errno == errno.ENOENT
    disk.rename(b"/usr", b"/bin")
    assert disk.walk(b"/bin").dentry is not old
    assert disk.walk(b"/old").dentry is old


def test_a_known_path_is_for_those_who_may_walk_it(disk: Disk) -> None:
    disk.mkdir(b"/bin/private", 0o700)
    disk.task.cred = ROOT
    disk.mkdir(b"/bin/private/x")
    disk.walk(b"/bin/private/x")
    disk.task.cred = disk.cred
    with pytest.raises(SysError) as caught:
        disk.walk(b"/bin/private/x")
    assert caught.value.errno == errno.EACCES


def test_a_known_path_begins_where_its_walker_is(disk: Disk) -> None:
    for name in (b"/bin/x", b"/usr/x"):
        disk.mkdir(name)
    disk.fs.cwd = disk.walk(b"/bin")
    first = disk.walk(b"x")
    disk.fs.cwd = disk.walk(b"/usr")
    assert disk.walk(b"x").dentry is not first.dentry
