"""The code of all modules in one file: finding, opening and checking 170 of them takes longer than running
them.

`__pycache__/bundle.cpython-311` beside this module holds the marshalled code objects one after the other,
and a finder in front of Python's own takes modules from there.  Like a .pyc an entry counts as long as its
source has the size and the time of change that it had; a module whose entry does not count is imported as
ever, and then the file is written anew when the run is over.  Where it can't be written, every run imports
as ever.
"""

from __future__ import annotations

import marshal
import os
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import MAGIC_NUMBER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType
    from typing import Any

    #: Source relative to ROOT, whether it is a package, mtime in ns, size, and where the code is.
    Line = tuple[str, bool, int, int, int, int]

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FILE = os.path.join(ROOT, "sentry", "runtime", "__pycache__", f"bundle.{sys.implementation.cache_tag}")
PACKAGES = ("sentry", "gofer")

_lines: dict[str, Line] = {}
_data = b""
_base = 0
_outdated = False


class Finder:
    """An entry of sys.meta_path, and the loader of what it finds."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> Any:
        global _outdated
        line = _lines.get(name)
        if line is None:
            return None
        if not _is_valid(line):
            _outdated = True
            return None
        origin = os.path.join(ROOT, line[0])
        spec: Any = ModuleSpec(name, Finder, origin=origin, is_package=line[1])  # type: ignore[arg-type]
        spec.has_location = True
        if line[1]:
            spec.submodule_search_locations.append(os.path.dirname(origin))
        return spec

    @staticmethod
    def create_module(spec: object) -> None:
        """Python's own way."""

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        exec(Finder.get_code(module.__name__), module.__dict__)

    @staticmethod
    def get_code(name: str) -> CodeType:
        *_, start, size = _lines[name]
        code: CodeType = marshal.loads(memoryview(_data)[_base + start : _base + start + size])
        return code


def _is_valid(line: Line) -> bool:
    try:
        stat = os.stat(os.path.join(ROOT, line[0]))
    except OSError:
        return False
    return stat.st_mtime_ns == line[2] and stat.st_size == line[3]


def install() -> None:
    """Import from the bundle from now on, if there is one."""
    global _lines, _data, _base
    try:
        with open(FILE, "rb") as file:
            data = file.read()
        size = int.from_bytes(data[:8], "little")
        magic, lines = marshal.loads(memoryview(data)[8 : 8 + size])
    except (OSError, ValueError, EOFError, TypeError):
        return
    if magic == MAGIC_NUMBER and 8 + size + sum(line[5] for line in lines.values()) == len(data):
        _lines, _data, _base = lines, data, 8 + size
        sys.meta_path.insert(0, Finder)


def renew() -> None:
    """Write the bundle, unless everything could come from it."""
    # type(sys): the parts of an extension module stand in sys.modules, too.
    ours = [m for n, m in sys.modules.items() if n.partition(".")[0] in PACKAGES and type(m) is type(sys)]
    sources: list[Any] = [
        module for module in ours if (getattr(module, "__file__", None) or "").endswith(".py")
    ]
    if sys.dont_write_bytecode or not (_outdated or any(m.__name__ not in _lines for m in sources)):
        return
    lines: dict[str, Line] = {}
    codes: list[bytes] = []
    end = 0
    try:
        for module in sources:
            spec: Any = module.__spec__
            origin: str = spec.origin
            stat = os.stat(origin)
            code = marshal.dumps(spec.loader.get_code(spec.name))
            codes.append(code)
            package = spec.submodule_search_locations is not None
            where = os.path.relpath(origin, ROOT)
            lines[spec.name] = (where, package, stat.st_mtime_ns, stat.st_size, end, len(code))
            end += len(code)
        head = marshal.dumps((MAGIC_NUMBER, lines))
        fresh = f"{FILE}.{os.getpid()}"
        with open(fresh, "xb") as file:
            file.write(b"".join((len(head).to_bytes(8, "little"), head, *codes)))
        os.replace(fresh, FILE)
    except (OSError, ImportError):
        pass  # next time, or never: it is only faster
