"""The code of all modules in one file: finding, opening and checking 170 of them takes longer than running
them.

`__pycache__/bundle.cpython-311` beside this module holds marshalled code objects.  Those of the kernel that
are always wanted together are one blob that `load_kernel` runs through in the order in which they once were
imported, without any finder; of the others each is a blob that a finder in front of Python's own finds.
Nothing is read from files by then: whoever has `install`ed may lose the right to read them.  So the Sentry
imports what few programs want, the late modules, when it is wanted.  Without a bundle it has all at once.

Like a .pyc the file counts as long as its sources have the sizes and times of change that they had.  As soon
as one has not, all are imported as ever, and then the file is written anew when the run is over.  Where it
can't be written, every run imports as ever.
"""

from __future__ import annotations

import marshal
import os
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import MAGIC_NUMBER, PathFinder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import CodeType, ModuleType
    from typing import Any

    #: Source relative to ROOT, and whether it is a package.
    Source = tuple[str, bool]

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FILE = os.path.join(ROOT, "sentry", "runtime", "__pycache__", f"bundle.{sys.implementation.cache_tag}")
PACKAGES = ("sentry", "gofer")
#: Where late modules are.
LATE_PACKAGES = ("abi", "fs", "kernel", "mm", "net", "syscalls")
#: Modules there that are no part of a kernel.
TOOLS = ("sentry.syscalls.document", "sentry.syscalls.strace", "sentry.syscalls.strace_values")
#: What the CLI has not imported when the file is written: the Gofer has, or only some runs do.
OTHERS = (
    "gofer.main", "sentry.runtime.cgroup", "sentry.runtime.commands.help", "sentry.runtime.watch",
    "sentry.syscalls.strace",
)  # fmt: skip

_sources: dict[str, Source] = {}
#: Where the code of a module is; the kernel's modules in order, and where their code is.
_places: dict[str, tuple[int, int]] = {}
_kernel: list[str] = []
_kernel_place = (0, 0)
#: Of the kernel's modules those that `load_kernel` has not come to.
_pending: dict[str, CodeType] = {}
#: What the kernel wants of Python's own library.
_library: list[str] = []
#: System calls whose handlers are in late modules: number → module.
calls: dict[int, str] = {}
#: The file, and where in it the code begins.
_data: Any = b""
_base = 0
#: Where nothing could come from the file: our modules as their imports ended, and which are the kernel's.
_order: list[str] = []
_bounds = (0, 0)


class Finder:
    """An entry of sys.meta_path, and the loader of what it finds."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> Any:
        return _spec(name) if name in _pending or name in _places else None

    @staticmethod
    def create_module(spec: object) -> None:
        """Python's own way."""

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        name = module.__name__
        exec(_pending.pop(name) if name in _pending else _unmarshal(_places[name]), module.__dict__)


class Recorder:
    """In front of Python's own finders while nothing comes from the file: sees in which order imports end."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
        spec: Any = PathFinder.find_spec(name, path, target) if name.partition(".")[0] in PACKAGES else None
        if spec is not None and (spec.origin or "").endswith(".py"):
            run = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                run(module)
                _order.append(name)

            spec.loader.exec_module = exec_module
        return spec


def _spec(name: str) -> Any:
    where, package = _sources[name]
    origin = f"{ROOT}/{where}"
    spec: Any = ModuleSpec(name, Finder, origin=origin, is_package=package)  # type: ignore[arg-type]
    spec.has_location = True
    if package:
        spec.submodule_search_locations.append(origin.rpartition("/")[0])
    return spec


def _unmarshal(place: tuple[int, int]) -> Any:
    start, size = _base + place[0], place[1]
    with memoryview(_data) as view, view[start : start + size] as part:
        return marshal.loads(part)


def _read(path: str) -> Any:
    """The file's bytes, mapped: copying them would cost more than anything else here.

    Not by Python's mmap, which keeps a descriptor and closes its number in the end, whosever that is then."""
    from sentry._engine import ffi, lib

    size = ffi.new("size_t *")
    start = lib.host_map_file(os.fsencode(path), size)
    if not start:
        raise FileNotFoundError(path)
    return ffi.buffer(start, size[0])


def _unmap(data: Any) -> None:
    from sentry._engine import ffi, lib

    lib.host_unmap(ffi.from_buffer(data), len(data))


def install() -> bool:
    """Import from the bundle from now on, if there is one that counts: whether there is."""
    global _sources, _places, _kernel, _kernel_place, _library, calls, _data, _base
    try:
        from sentry._engine import ffi, lib

        data = _read(FILE)
        size = int.from_bytes(data[:8], "little")
        magic, rest, names, marks, *tables = marshal.loads(data[8 : 8 + size])
        counts = (
            magic == MAGIC_NUMBER and 8 + size + rest == len(data) and len(marks) == 16 * names.count(b"\0")
        )
        if counts and lib.host_files_are(
            os.fsencode(ROOT), names, ffi.from_buffer("long long[]", marks), len(marks) // 16
        ):
            _sources, _places, _kernel, _kernel_place, _library, calls = tables
            _data, _base = data, 8 + size
            sys.meta_path.insert(0, Finder)
            return True
    except (OSError, ValueError, EOFError, TypeError, ImportError):
        pass
    sys.meta_path.insert(0, Recorder)
    return False


def is_whole() -> bool:
    """Whether no source will have to be read."""
    return bool(_kernel)


def import_library() -> None:
    """Import what the kernel wants of Python's library, which comes from files."""
    for name in _library:
        if name not in sys.modules:
            __import__(name)


def open_kernel() -> None:
    """Have the kernel's modules at hand, if they come from the file: no file is opened for their import."""
    codes = zip(_kernel, _unmarshal(_kernel_place), strict=True) if _kernel else ()
    _pending.update((name, code) for name, code in codes if name not in sys.modules)


def load_kernel() -> None:
    """Import those of them that have not been imported."""
    modules = sys.modules
    kind: Any = type(sys)
    for name in _kernel:
        parent, _, part = name.rpartition(".")
        if parent in _pending:
            __import__(parent)  # a package that imports its parts itself
        if name not in _pending:
            continue
        module = modules[name] = kind(name)
        spec = _spec(name)
        module.__spec__, module.__loader__, module.__file__ = spec, Finder, spec.origin
        module.__package__ = spec.parent
        if spec.submodule_search_locations is not None:
            module.__path__ = spec.submodule_search_locations
        exec(_pending.pop(name), module.__dict__)
        if parent:
            setattr(modules[parent], part, module)


def forget() -> None:
    """Give the file's memory back; nothing can be imported from it any more."""
    global _data
    data, _data = _data, b""
    if data:
        _unmap(data)


def forget_kernel() -> None:
    """Give the memory back in which the code of the imported kernel is; late modules can be imported on."""
    global _data
    if not _data:
        return
    from sentry._engine import ffi, lib

    kept = min(_base + _kernel_place[0] + 4095 & ~4095, len(_data))
    start = ffi.from_buffer(_data)
    if kept < len(_data):
        lib.host_unmap(start + kept, len(_data) - kept)
    _data = ffi.buffer(start, kept)


def import_late() -> None:
    """Import the late modules: what comes from files can't come later."""
    for package in LATE_PACKAGES:
        for folder, _, files in os.walk(os.path.join(ROOT, "sentry", package)):
            where = os.path.relpath(folder, ROOT).replace("/", ".")
            for name in sorted(files):
                if name.endswith(".py") and name != "__init__.py" and f"{where}.{name[:-3]}" not in TOOLS:
                    __import__(f"{where}.{name[:-3]}")


def begin_kernel() -> None:
    """Between this and `end_kernel` the kernel is imported, and nothing else; then its late modules."""
    global _bounds
    _bounds = (len(_order), len(_order))
    _library[:] = sys.modules


def end_kernel() -> None:
    global _bounds
    _bounds = (_bounds[0], len(_order))
    import_late()
    known = set(_library)
    _library[:] = [n for n in sys.modules if n not in known and n.partition(".")[0] not in PACKAGES]


def renew() -> None:
    """Write the bundle, unless everything came from it."""
    if sys.dont_write_bytecode or _kernel or _bounds[0] == _bounds[1]:
        return
    kernel = set(_order[_bounds[0] : _bounds[1]])
    if not {name.rpartition(".")[0] for name in kernel} <= {*_order, *PACKAGES, "", __package__}:
        return  # somebody had imported some of it before us: it would not be whole
    try:
        for name in OTHERS:
            __import__(name)
        fresh = f"{FILE}.{os.getpid()}"
        with open(fresh, "xb") as file:
            file.write(b"".join(_content(kernel)))
        os.replace(fresh, FILE)
    except (OSError, ImportError):
        pass  # next time, or never: it is only faster


def _code(name: str) -> CodeType:
    spec: Any = sys.modules[name].__spec__
    code: CodeType = spec.loader.get_code(name)
    return code


def _content(kernel: Iterable[str]) -> list[bytes]:
    """The file in parts: size of the head, head, code."""
    from sentry.syscalls.table import TABLE

    sources: dict[str, Source] = {}
    # Those that were imported before the recorder was there are few, and are never asked for.
    for name in _order:
        spec: Any = sys.modules[name].__spec__
        sources[name] = (os.path.relpath(spec.origin, ROOT), spec.submodule_search_locations is not None)
    names, marks = b"", b""
    for where in (os.path.relpath(__file__, ROOT), *[where for where, _ in sources.values()]):
        stat = os.stat(os.path.join(ROOT, where))
        names += os.fsencode(where) + b"\0"
        marks += stat.st_mtime_ns.to_bytes(8, "little") + stat.st_size.to_bytes(8, "little")
    ordered = [name for name in _order if name in kernel]
    single = [name for name in _order if name not in kernel]
    blobs = [marshal.dumps(_code(name)) for name in single]
    blobs.append(marshal.dumps(tuple(_code(name) for name in ordered)))
    sizes = [len(blob) for blob in blobs]

    places = [(sum(sizes[:i]), size) for i, size in enumerate(sizes)]
    modules = {nr: line.handler.__module__ for nr, line in TABLE.items()}
    late = {nr: module for nr, module in modules.items() if module not in kernel}
    tables = (sources, dict(zip(single, places, strict=False)), ordered, places[-1], _library, late)
    head = marshal.dumps((MAGIC_NUMBER, sum(sizes), names, marks, *tables))
    return [len(head).to_bytes(8, "little"), head, *blobs]
