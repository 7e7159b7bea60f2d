"""The bundle: what is imported from it, and what is not any more."""

from __future__ import annotations

import importlib
import os
import sys

import pytest

from sentry.runtime import bundle


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of two modules, whose bundle has been written."""
    (tmp_path / "bundled").mkdir()
    (tmp_path / "bundled" / "__init__.py").write_text("NAME = 'package'\n")
    (tmp_path / "bundled" / "part.py").write_text("from bundled import NAME\n\nVALUE = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    for name, value in (
        ("ROOT", str(tmp_path)), ("FILE", str(tmp_path / "file")), ("PACKAGES", ("bundled",)),
        ("_lines", {}), ("_data", b""), ("_base", 0), ("_outdated", False),
    ):  # fmt: skip
        monkeypatch.setattr(bundle, name, value)
    importlib.import_module("bundled.part")
    bundle.renew()
    forget()
    yield tmp_path
    forget()


def forget():
    for name in ("bundled", "bundled.part"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()


def test_modules_come_from_the_bundle(package):
    bundle.install()
    part = importlib.import_module("bundled.part")
    assert part.VALUE == 1 and part.NAME == "package"
    assert part.__loader__ is bundle.Finder and part.__file__ == str(package / "bundled" / "part.py")
    assert sys.modules["bundled"].__path__ == [str(package / "bundled")]
    before = os.stat(bundle.FILE).st_ino
    bundle.renew()
    assert os.stat(bundle.FILE).st_ino == before


def test_changed_source_counts(package):
    source = package / "bundled" / "part.py"
    source.write_text("VALUE = 22\n")
    os.utime(source, ns=(1, 1))
    bundle.install()
    part = importlib.import_module("bundled.part")
    assert part.VALUE == 22 and part.__loader__ is not bundle.Finder
    bundle.renew()
    forget()
    bundle.install()
    part = importlib.import_module("bundled.part")
    assert part.VALUE == 22 and part.__loader__ is bundle.Finder


@pytest.mark.parametrize("damage", [b"", b"\0" * 7, b"\xff" * 64, b"\x08\0\0\0\0\0\0\0garbage!"])
def test_damaged_file_is_no_file(package, damage):
    (package / "file").write_bytes(damage or (package / "file").read_bytes()[:-1])
    bundle.install()
    assert importlib.import_module("bundled.part").__loader__ is not bundle.Finder


def test_nothing_is_written_where_bytecode_is_not(package, monkeypatch):
    os.unlink(bundle.FILE)
    importlib.import_module("bundled.part")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    bundle.renew()
    assert not os.path.exists(bundle.FILE)
