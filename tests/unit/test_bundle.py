"""The bundle: what is imported from it, and what is not any more."""

from __future__ import annotations

import ast
import copy
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sentry.runtime import bundle

STATE = {
    "OTHERS": ("bundled.other",), "_sources": {}, "_places": {}, "_kernel": [], "_kernel_place": (0, 0),
    "_pending": {}, "calls": {},
    "_library": [], "_data": b"", "_base": 0, "_order": [], "_bounds": (0, 0), "LATE_PACKAGES": (),
}  # fmt: skip
#: In the order in which their imports end: a package that imports its parts itself comes after them.
KERNEL = ["bundled.part", "bundled"]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of three modules, whose bundle has been written; two of them are the kernel."""
    (tmp_path / "bundled").mkdir()
    (tmp_path / "bundled" / "__init__.py").write_text("NAME = 'package'\nfrom bundled import part\n")
    (tmp_path / "bundled" / "part.py").write_text("from bundled import NAME\nimport wave\n\nVALUE = 1\n")
    (tmp_path / "bundled" / "other.py").write_text("VALUE = 5\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    for name, value in (
        ("ROOT", str(tmp_path)),
        ("FILE", str(tmp_path / "file")),
        ("PACKAGES", ("bundled",)),
    ):
        monkeypatch.setattr(bundle, name, value)
    reset(monkeypatch)
    write()
    reset(monkeypatch)
    yield tmp_path
    forget()


def write():
    """A run without a bundle."""
    assert not bundle.install() and not bundle.is_whole()
    sys.modules.pop("wave", None)
    bundle.begin_kernel()
    bundle.open_kernel()
    bundle.load_kernel()
    importlib.import_module("bundled.part")
    bundle.end_kernel()
    bundle.renew()


def test_a_part_that_was_there_before_keeps_it_from_being_written(package, monkeypatch):
    os.unlink(bundle.FILE)
    for name in ("bundled", "bundled.part", "bundled.other"):
        sys.modules.pop(name, None)
    monkeypatch.setattr(bundle, "PACKAGES", ("other",))
    importlib.import_module("bundled")
    sys.modules.pop("bundled.part")
    monkeypatch.setattr(bundle, "_order", ["bundled.part"])
    monkeypatch.setattr(bundle, "_bounds", (0, 1))
    importlib.import_module("bundled.part")
    bundle.renew()
    assert not os.path.exists(bundle.FILE)


def forget():
    for name in ("bundled", "bundled.part", "bundled.other"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()


def reset(monkeypatch):
    """As in a new process."""
    for name, value in STATE.items():
        monkeypatch.setattr(bundle, name, copy.copy(value))
    sys.meta_path[:] = [finder for finder in sys.meta_path if finder not in (bundle.Finder, bundle.Recorder)]
    forget()


def test_the_kernel_comes_from_the_bundle_and_opens_no_file(package, monkeypatch):
    assert bundle.install() and bundle.is_whole() and bundle._kernel == KERNEL
    sys.modules.pop("wave")
    bundle.import_library()
    assert "wave" in sys.modules
    monkeypatch.setattr(sys, "path", [])
    bundle.open_kernel()
    bundle.load_kernel()
    part, whole = sys.modules["bundled.part"], sys.modules["bundled"]
    assert part.VALUE == 1 and part.NAME == "package" and whole.part is part
    assert part.__loader__ is bundle.Finder and part.__file__ == str(package / "bundled" / "part.py")
    assert part.__package__ == "bundled" == whole.__package__ and part.__spec__.name == "bundled.part"
    assert whole.__path__ == [str(package / "bundled")] and whole.__spec__.submodule_search_locations


def test_others_come_from_the_bundle_one_by_one(package, monkeypatch):
    bundle.install()
    bundle.open_kernel()
    bundle.load_kernel()
    monkeypatch.setattr(sys, "path", [])
    other = importlib.import_module("bundled.other")
    assert other.VALUE == 5 and other.__loader__ is bundle.Finder
    assert sys.modules["bundled"].other is other


def test_nothing_is_written_when_all_came_from_it(package):
    before = os.stat(bundle.FILE).st_ino
    bundle.install()
    bundle.open_kernel()
    bundle.load_kernel()
    bundle.renew()
    assert os.stat(bundle.FILE).st_ino == before


def test_nothing_can_be_imported_once_it_is_forgotten(package, monkeypatch):
    bundle.install()
    bundle.open_kernel()
    bundle.load_kernel()
    bundle.forget()
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises((ImportError, EOFError)):
        importlib.import_module("bundled.other")


@pytest.mark.parametrize("name", ["part.py", "other.py", "__init__.py"])
def test_one_changed_source_and_all_are_read(package, monkeypatch, name):
    source = package / "bundled" / name
    source.write_text(source.read_text() + "MORE = 22\n")
    os.utime(source, ns=(1, 1))
    write()
    part = importlib.import_module("bundled.part")
    assert part.__loader__ is not bundle.Finder
    reset(monkeypatch)
    assert bundle.install()
    bundle.open_kernel()
    bundle.load_kernel()
    module = importlib.import_module("bundled." + name.removesuffix(".py").replace("__init__", "part"))
    assert module.__loader__ is bundle.Finder
    assert name == "__init__.py" or module.MORE == 22


def test_a_source_that_is_gone(package):
    os.unlink(package / "bundled" / "other.py")
    assert not bundle.install()


@pytest.mark.parametrize("damage", [b"", b"\0" * 7, b"\xff" * 64, b"\x08\0\0\0\0\0\0\0garbage!"])
def test_damaged_file_is_no_file(package, damage):
    (package / "file").write_bytes(damage or (package / "file").read_bytes()[:-1])
    assert not bundle.install()
    assert importlib.import_module("bundled.part").__loader__ is not bundle.Finder


def test_nothing_is_written_where_bytecode_is_not(package, monkeypatch):
    os.unlink(bundle.FILE)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    write()
    assert not os.path.exists(bundle.FILE)


def test_it_holds_no_descriptor(package):
    """The Sentry closes what it does not know, and others get the number."""
    before = os.listdir("/proc/self/fd")
    assert bundle.install()
    assert os.listdir("/proc/self/fd") == before
    bundle.forget()
    assert os.listdir("/proc/self/fd") == before


WRITE = """
import sys
from pathlib import Path
sys.dont_write_bytecode = False
from sentry.runtime import bundle
bundle.FILE = sys.argv[1]
assert not bundle.install()
from sentry.runtime import boot, inside, supervise
bundle.begin_kernel()
boot.import_kernel(boot.Plan())
bundle.end_kernel()
bundle.renew()
"""
READ = """
import sys
from pathlib import Path
from sentry.runtime import bundle
bundle.FILE = sys.argv[1]
assert bundle.install()
from sentry.runtime import boot, inside, supervise
from sentry.runtime.config import Config
plan = boot.Plan()
plan.config = Config()
plan.config.strace = sys.argv[2] == "strace"
boot.import_from_files(plan)
# From here on as nobody, who can read nothing of ours nor, perhaps, of Python's.
sys.path.clear()
sys.path_importer_cache.clear()
sys.path_hooks.clear()
bundle.open_kernel()
from sentry.runtime import zygote
boot.import_kernel(plan)
if plan.config.strace:
    from sentry.syscalls import strace
    strace.load()
import sentry.fs.walk
assert sentry.fs.walk.__loader__ is bundle.Finder
print(len(bundle._kernel))
"""


@pytest.mark.parametrize("flag", ["", "strace"])
def test_a_sentry_reads_no_file(tmp_path, flag):
    """Root's Sentry is nobody when it imports the kernel."""
    file = str(tmp_path / "bundle")
    for script in (WRITE, READ):
        done = subprocess.run(
            [sys.executable, "-P", "-c", script, file, flag], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100


LATE = """
import os
from sentry import syscalls
from sentry.syscalls.table import LATE, TABLE
syscalls.load()
first = set(TABLE)
syscalls.load_all()
late = {nr: line.handler.__module__ for nr, line in TABLE.items() if nr not in first}
print(len(first), sorted(late.items()))
"""
ONE = """
import sys
from pathlib import Path
from sentry import syscalls
from sentry.syscalls.table import TABLE
syscalls.load()
__import__(sys.argv[1])
print(sorted(set(TABLE)))
"""


def python(code, *args):
    done = subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=60, check=True, cwd="/"
    )
    return done.stdout


def test_a_late_module_has_the_calls_that_it_is_asked_for():
    """`calls` takes a handler's own module for the one that registers it."""
    count, _, listed = python(LATE).partition(" ")
    late = dict(ast.literal_eval(listed))
    assert int(count) > 150 and len(late) > 100
    for module in sorted(set(late.values())):
        there = set(ast.literal_eval(python(ONE, module)))
        assert {nr for nr, name in late.items() if name == module} <= there, module


def test_the_late_modules_of_the_kernel_are_all_those_that_are_not_tools():
    code = "import sys; from sentry.runtime import bundle, guest; bundle.import_late()"
    there = set(ast.literal_eval(python(f"{code}; print(sorted(sys.modules))")))
    for package in bundle.LATE_PACKAGES:
        for path in sorted((Path(bundle.ROOT) / "sentry" / package).rglob("*.py")):
            name = ".".join(path.relative_to(bundle.ROOT).with_suffix("").parts).removesuffix(".__init__")
            assert name in there or name in bundle.TOOLS, name
