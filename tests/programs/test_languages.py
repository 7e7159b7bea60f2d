"""Runtimes of languages: their processes, threads, signals and garbage collectors."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from installed import needs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from programs.conftest import Sandbox

HERE = Path(__file__).resolve().parent / "sources"
PYTHON = "/usr/bin/python3"


def source(sandbox: Sandbox, name: str) -> str:
    """A copy of a source file where the sandbox's user can read it."""
    path = sandbox.directory / name
    path.write_text((HERE / name).read_text())
    return str(path)


@pytest.mark.both_platforms
@pytest.mark.parametrize("name", ["processes.py", "threads.py", "signals.py", "subprocesses.py"])
def test_python(sandbox: Sandbox, name: str) -> None:
    sandbox.same(PYTHON, source(sandbox, name))


@needs("perl")
@pytest.mark.both_platforms
def test_perl(sandbox: Sandbox) -> None:
    sandbox.same("perl", source(sandbox, "forks.pl"))


@needs("node")
@pytest.mark.both_platforms
def test_node(sandbox: Sandbox) -> None:
    sandbox.same("node", source(sandbox, "workers.js"))


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where programs stand that were compiled natively."""
    return tmp_path_factory.mktemp("built")


@needs("java", "javac")
@pytest.mark.both_platforms
@pytest.mark.parametrize("collector", ["G1", "Parallel"])
def test_java(sandbox: Sandbox, built: Path, collector: str) -> None:
    """Threads, the collector's threads, null checks, stack overflow, a child process."""
    if not (built / "Hello.class").exists():
        subprocess.run(["javac", "-d", built, HERE / "Hello.java"], check=True, timeout=120)
    (sandbox.directory / "Hello.class").write_bytes((built / "Hello.class").read_bytes())
    sandbox.same("java", f"-XX:+Use{collector}GC", "-Xmx64m", "-cp", str(sandbox.directory), "Hello")


@needs("jshell")
def test_jshell(sandbox: Sandbox) -> None:
    """In one process: the usual way, two that talk over TCP, needs a network."""
    (sandbox.directory / "script").write_text(
        "int twice(int x) { return 2 * x; }\nSystem.out.println(twice(21));\n/exit\n"
    )
    command = ["jshell", "--execution", "local", "-R-XX:TieredStopAtLevel=1", "script"]
    out = sandbox.run(*command, flags=("--env", "HOME=/tmp")).out
    assert out == "42\n"


@needs("go")
@pytest.mark.both_platforms
def test_go(sandbox: Sandbox, built: Path) -> None:
    """A hundred goroutines, and preemption of loops by signals."""
    program = built / "routines"
    if not program.exists():
        where = {"PATH": "/usr/local/go/bin:/usr/bin:/bin", "HOME": str(built), "GO111MODULE": "off"}
        subprocess.run(
            ["go", "build", "-o", program, HERE / "routines.go"],
            check=True,
            timeout=300,
            env=where,
            cwd=built,
        )
    inside = sandbox.directory / "routines"
    inside.write_bytes(program.read_bytes())
    inside.chmod(0o755)
    sandbox.same(str(inside))
