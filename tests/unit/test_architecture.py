"""The layout's promises: imports point downward, the Gofer stands apart, start-up imports stay few."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sentry.runtime import bundle

ROOT = Path(__file__).resolve().parents[2]
#: From the top down: a package may import itself and what stands behind it.
ORDER = ["cli", "runtime", "syscalls", "kernel", "fs", "net", "mm", "platform", "abi"]
#: Imported by everybody: they import nothing but sentry.abi themselves.
OPEN_MODULES = {"sentry.kernel.wait"}
#: Each costs milliseconds at every start; see the figures in docs/decisions/.
BANNED = [
    "argparse", "asyncio", "collections", "contextlib", "ctypes", "dataclasses", "enum",
    "functools", "inspect", "json", "logging", "pathlib", "ptrace", "pyseccomp", "random", "re",
    "seccomp", "shutil", "signal", "socket", "subprocess", "tempfile", "threading", "typing",
]  # fmt: skip
#: These run in the CLI before and beside the sandbox, or when the package is built.
NEVER_CONFINED = {
    "gofer/filter.py",
    "sentry/cli.py",
    "sentry/runtime/boot.py",
    "sentry/runtime/commands/run.py",
    "sentry/runtime/supervise.py",
}
#: Imports inside functions of modules that the Sentry uses, each with the reason why it may.
LATE_FUNCTIONS = {
    ("sentry/runtime/bundle.py", "_read"): "run by the CLI before any fork",
    ("sentry/runtime/bundle.py", "install"): "run by the CLI before any fork",
    ("sentry/runtime/bundle.py", "_unmap"): "the same module again",
    (
        "sentry/runtime/inside.py",
        "_start_platform",
    ): "before lock-down, and what it imports is small",
    ("sentry/runtime/bundle.py", "forget_kernel"): "the same module again",
    ("sentry/syscalls/strace.py", "load"): "for --strace only; run by make_platform before lock-down",
    ("sentry/runtime/guest.py", "make_platform"): "for --strace only; before lock-down",
    ("sentry/runtime/guest.py", "__init__"): "make_platform has loaded the module",
}


def module_name(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def imports(path: Path) -> list[tuple[int, str]]:
    """(line, absolute module name) of each import that runs; those for type checkers only don't."""
    found: list[tuple[int, str]] = []
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and is_type_checking(node.test):
            for child in node.orelse:
                visit(child)
            return
        if isinstance(node, ast.Import):
            found.extend((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            # `from sentry.kernel import wait` imports the module sentry.kernel.wait.
            for alias in node.names:
                inner = f"{name}.{alias.name}"
                is_module = (ROOT / inner.replace(".", "/")).with_suffix(".py").exists() or (
                    ROOT / inner.replace(".", "/")
                ).is_dir()
                found.append((node.lineno, inner if is_module else name))
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


def rank(module: str) -> int | None:
    parts = module.split(".")
    if parts[0] == "sentry" and len(parts) > 1 and parts[1] in ORDER:
        return ORDER.index(parts[1])
    return None


def test_imports_point_downward() -> None:
    wrong = []
    for path in modules("sentry"):
        own = rank(module_name(path))
        if own is None:
            continue
        for line, name in imports(path):
            target = rank(name)
            if target is not None and target < own and name not in OPEN_MODULES:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert wrong == []


@pytest.mark.parametrize("module", sorted(OPEN_MODULES))
def test_open_modules_import_only_abi(module: str) -> None:
    inner = [
        name for _, name in imports(ROOT / (module.replace(".", "/") + ".py")) if name.startswith("sentry")
    ]
    assert [name for name in inner if not name.startswith("sentry.abi")] == []


def test_abi_imports_nothing_of_ours() -> None:
    for path in modules("sentry/abi"):
        for line, name in imports(path):
            top = name.split(".")[0]
            assert top != "gofer", f"{path}:{line}"
            assert top != "sentry" or name.startswith("sentry.abi"), f"{path}:{line} imports {name}"


def test_the_gofer_stands_apart() -> None:
    wrong = []
    for path in modules("gofer"):
        for line, name in imports(path):
            if (
                name.split(".")[0] == "sentry"
                and name not in ("sentry", "sentry.abi")
                and not name.startswith("sentry.abi.")
            ):
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert wrong == []


def test_sentry_uses_only_the_codec_of_the_gofer() -> None:
    wrong = []
    for path in modules("sentry"):
        # The runtime starts the Gofer: it may import all of it.
        if module_name(path).startswith("sentry.runtime"):
            continue
        for line, name in imports(path):
            if name.split(".")[0] == "gofer" and name not in ("gofer", "gofer.messages"):
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert wrong == []


def test_every_module_says_what_it_is_for() -> None:
    for package in ("sentry", "gofer"):
        for path in modules(package):
            tree = ast.parse(path.read_text())
            assert ast.get_docstring(tree) or not tree.body, f"{path.relative_to(ROOT)} has no docstring"


def loaded_after(statement: str) -> list[str]:
    """The modules that `statement` loads in an interpreter that starts as `sentry` does."""
    probe = f"import sys\n{statement}\nsys.stdout.write('\\n'.join(sorted(sys.modules)))"
    paths = [entry for entry in sys.path if entry]
    script = f"import sys; sys.path[:0] = {json.dumps(paths)}\n{probe}"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")


@pytest.mark.parametrize(
    "module",
    [
        "sentry.cli",
        "sentry.runtime.commands.run",
        "sentry.runtime.boot",
        "sentry.runtime.guest",
        "gofer.main",
    ],
)
def test_start_up_imports(module: str) -> None:
    bare = set(loaded_after("pass"))
    loaded = set(loaded_after(f"import {module}")) - bare
    assert sorted(loaded & set(BANNED)) == []


def late_imports(path: Path) -> list[tuple[str, ast.Import | ast.ImportFrom]]:
    """(function, import) of each import inside a function."""
    return [
        (node.name, inner)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
        if isinstance(inner, ast.Import | ast.ImportFrom)
    ]


def is_at_hand(node: ast.Import | ast.ImportFrom) -> bool:
    """Whether all that is imported is a late module of the kernel, which `bundle.import_late` knows."""
    module = getattr(node, "module", None) or ""
    names = [module, *(f"{module}.{alias.name}" for alias in node.names)]
    files = [name for name in names if (ROOT / name.replace(".", "/")).with_suffix(".py").exists()]
    return any(rank(name) is not None for name in files) and all(
        name.split(".")[1] in bundle.LATE_PACKAGES and name not in bundle.TOOLS for name in files
    )


def test_nothing_is_imported_late() -> None:
    """Once locked down, Sentry and Gofer open no file: an import inside a function would fail there, unless
    the code is in memory."""
    late = []
    unused = set(LATE_FUNCTIONS)
    for package in ("sentry", "gofer"):
        for path in modules(package):
            name = str(path.relative_to(ROOT))
            if name in NEVER_CONFINED:
                continue
            for function, node in late_imports(path):
                if is_at_hand(node):
                    continue
                unused.discard((name, function))
                if (name, function) not in LATE_FUNCTIONS:
                    late.append(f"{name}:{node.lineno} in {function}")
    assert late == []
    assert unused == set(), "exceptions that nothing needs any more"


def test_no_file_is_too_long() -> None:
    """A file is a chapter: beyond this it has become two."""
    long = {
        str(path.relative_to(ROOT)): count
        for package in ("sentry", "gofer")
        for path in modules(package)
        if (count := len(path.read_text().splitlines())) > 650
    }
    assert long == {}


def test_the_source_tree_has_no_build_products() -> None:
    if not (ROOT / ".git").exists() or os.environ.get("SENTRY_SKIP_GIT"):
        pytest.skip("not a checkout")
    done = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode != 0:
        pytest.skip("git can't read this checkout")
    assert [name for name in done.stdout.split() if name.endswith((".so", ".o", ".pyc", ".bpf"))] == []
