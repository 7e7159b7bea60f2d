"""strace and gdb, unmodified, on programs beside them in the sandbox."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from conftest import Runner

PROGRAM = r"""
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>
int total;
int add(int a, int b)
{
    total += a;
    return a + b;
}
static int twice(int n)
{
    int r = add(n, n);
    return r;
}
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static void *work(void *arg)
{
    for (int i = 0; i < 50; i++) {
        pthread_mutex_lock(&mutex);
        add(1, 0);
        pthread_mutex_unlock(&mutex);
    }
    return arg;
}
int main(int argc, char **argv)
{
    pthread_t threads[3];
    if (argc > 1) {
        for (int i = 0; i < 3; i++)
            pthread_create(threads + i, NULL, work, NULL);
        for (int i = 0; i < 3; i++)
            pthread_join(threads[i], NULL);
        printf("total %d\n", total);
        return 0;
    }
    for (int i = 0; i < 3; i++)
        printf("%d\n", twice(i));
    return 3;
}
"""

needs_strace = pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
needs_gdb = pytest.mark.skipif(not shutil.which("gdb"), reason="needs gdb")
on_both = pytest.mark.parametrize("platform", ["trap", "ptrace"])


@pytest.fixture(scope="module")
def program(shared_dir: Path) -> Path:
    source, binary = shared_dir / "debugged.c", shared_dir / "debugged"
    source.write_text(PROGRAM)
    command = ["gcc", "-g", "-O0", "-pthread", "-o", str(binary), str(source)]
    subprocess.run(command, check=True, timeout=60)
    return binary


@needs_strace
@on_both
def test_strace(runner: Runner, platform: str) -> None:
    """The calls of a program that is loaded at fixed places are those that it makes on the host."""
    command = ("strace", "-e", "trace=!mmap,brk", "/bin/busybox", "uname", "-s")
    result = runner.run(*command, flags=("--platform", platform))
    assert (result.status, result.out) == (0, "Linux\n"), result
    native = runner.native(*command)
    names = [re.findall(r"^(\w+)\(", text, re.M) for text in (native.err, result.err)]
    assert names[0] == names[1]
    assert "+++ exited with 0 +++" in result.err


@needs_strace
@on_both
def test_strace_of_children(runner: Runner, platform: str) -> None:
    result = runner.run("strace", "-f", "ls", "/", flags=("--platform", platform))
    assert result.status == 0 and "etc" in result.out, result
    assert re.search(r"^getdents64\(3", result.err, re.M), result
    script = "/bin/echo one; (exit 3); kill -TERM $$"
    result = runner.run("strace", "-f", "-e", "trace=execve,exit_group", "sh", "-c", script)
    assert result.status == 128 + 15 and result.out == "one\n", result
    assert result.err.count("execve(") == 2
    assert re.search(r"\[pid +\d+\] exit_group\(3\)", result.err)
    assert "--- SIGTERM {si_signo=SIGTERM, si_code=SI_USER" in result.err
    assert "+++ killed by SIGTERM +++" in result.err


@needs_strace
def test_strace_with_a_filter(runner: Runner) -> None:
    """It asks seccomp to stop at some calls only (SECCOMP_RET_TRACE)."""
    result = runner.run("strace", "-f", "--seccomp-bpf", "-e", "trace=uname", "sh", "-c", "uname; uname")
    assert result.status == 0 and result.err.count("uname({sysname=") == 2, result
    assert "openat(" not in result.err


@needs_strace
def test_strace_of_what_runs(runner: Runner) -> None:
    script = """
    while :; do read x < /etc/hostname; sleep 0.01; done & child=$!
    strace -q -e trace=openat -o /tmp/trace -p $child & tracer=$!
    until grep -q hostname /tmp/trace 2>/dev/null; do sleep 0.01; done
    kill -INT $tracer; wait $tracer
    grep -c TracerPid:.0$ /proc/$child/status
    kill $child; wait $child; echo $?
    """
    result = runner.run("bash", "-c", script)
    assert result.out.split() == ["1", "143"], result


@needs_strace
@on_both
def test_strace_of_threads(runner: Runner, program: Path, platform: str) -> None:
    result = runner.run("strace", "-f", "-c", str(program), "threads", flags=("--platform", platform))
    assert (result.status, result.out) == (0, "total 150\n"), result
    assert re.search(r"\s3\s+clone3?\n", result.err), result


def gdb(runner: Runner, platform: str, program: Path, *commands: str, arguments: tuple[str, ...] = ()) -> str:
    options = [part for command in ("set debuginfod enabled off", *commands) for part in ("-ex", command)]
    result = runner.run(
        "gdb", "-q", "-nx", "-batch", *options, "--args", str(program), *arguments,
        flags=("--platform", platform),
    )  # fmt: skip
    assert result.status == 0, result
    return result.out


@needs_gdb
@on_both
def test_gdb(runner: Runner, program: Path, platform: str) -> None:
    text = gdb(runner, platform, program, "break add", "run", "bt", "step", "finish", "delete", "continue")
    assert "Breakpoint 1, add (a=0, b=0)" in text
    assert re.search(r"#0 .*add \(.*\n#1 .*twice \(n=0\).*\n#2 .*main \(", text), text
    assert "Value returned is $1 = 0" in text
    assert "exited with code 03" in text


@needs_gdb
@on_both
def test_gdb_watches(runner: Runner, program: Path, platform: str) -> None:
    text = gdb(
        runner, platform, program, "tbreak main", "run", "watch total", "continue", "continue", "delete",
        "hbreak add if a == 2", "stepi", "print $pc != 0", "continue",
    )  # fmt: skip
    assert re.search(r"Old value = 0\nNew value = 1\n(.*\n)*.*Old value = 1\nNew value = 3\n", text), text


@needs_gdb
def test_gdb_with_threads(runner: Runner, program: Path) -> None:
    text = gdb(
        runner, "trap", program, "break add if total == 70", "run", "info threads", "thread apply all bt 1",
        "print total", "continue", arguments=("threads",),
    )  # fmt: skip
    assert "hit Breakpoint 1, add (a=1, b=0)" in text, text
    assert "$1 = 70" in text
    assert "total 150" in text and "exited normally" in text


@needs_gdb
def test_gdb_watches_by_itself(runner: Runner, program: Path) -> None:
    software = "set can-use-hw-watchpoints 0"
    text = gdb(runner, "trap", program, software, "tbreak add", "run", "watch total", "continue")
    assert "Watchpoint 2: total" in text and "New value = 1" in text, text


@needs_gdb
def test_gdb_attaches(runner: Runner) -> None:
    script = """
    sleep 100 & child=$!
    until grep -q ^S /proc/$child/wchan 2>/dev/null || grep -q 'State:.S' /proc/$child/status; do :; done
    gdb -q -nx -batch -ex 'set debuginfod enabled off' -ex 'info registers rip' -ex detach -p $child 2>&1 |
        grep -c -e ^rip -e detached
    kill $child; wait $child; echo $?
    """
    assert runner.run("bash", "-c", script).out.split() == ["2", "143"]
