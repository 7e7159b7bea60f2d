"""stdin, stdout, stderr may each be a file, a pipe or a terminal; `-t` gives the guest its own."""

from __future__ import annotations

import fcntl
import os
import shlex
import subprocess
from pathlib import Path

import pytest
from terminals import PATIENCE, PROMPT, SHELL, Terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from conftest import Runner


def test_pipe_through_cat(runner: Runner) -> None:
    assert runner.run("cat", stdin=b"text\n").out == "text\n"


def test_much_through_cat(runner: Runner) -> None:
    data = bytes(range(256)) * 4096
    assert runner.run("cat", stdin=data).stdout == data


def test_stderr_is_apart(runner: Runner) -> None:
    result = runner.run("sh", "-c", "echo out; echo err >&2")
    assert (result.out, result.err) == ("out\n", "err\n")


def test_null_stdin(runner: Runner) -> None:
    assert runner.run("wc", "-c").out == "0\n"


def test_files(runner: Runner, work_dir: Path) -> None:
    source, out, err = work_dir / "in", work_dir / "out", work_dir / "err"
    source.write_text("one\ntwo\nthree\n")
    with source.open("rb") as stdin, out.open("wb") as stdout, err.open("wb") as stderr:
        script = "read first; echo first $first; cat; echo done >&2"
        result = runner.run(
            "sh", "-c", script, stdin=stdin.fileno(), stdout=stdout.fileno(), stderr=stderr.fileno()
        )
    assert result.status == 0, result
    assert out.read_text() == "first one\ntwo\nthree\n"
    assert err.read_text() == "done\n"


def test_file_offset_is_shared_with_the_host(runner: Runner, work_dir: Path) -> None:
    source = work_dir / "in"
    source.write_text("one\ntwo\nthree\n")
    with source.open("rb") as stdin:
        runner.run("sh", "-c", "read first", stdin=stdin.fileno())
        assert os.lseek(stdin.fileno(), 0, os.SEEK_CUR) == 4


def test_append(runner: Runner, work_dir: Path) -> None:
    out = work_dir / "out"
    out.write_text("before\n")
    with out.open("ab") as stdout:
        runner.run("echo", "after", stdout=stdout.fileno())
    assert out.read_text() == "before\nafter\n"


def test_closed_descriptors(runner: Runner) -> None:
    command = runner.command(
        ["sh", "-c", '"$@" <&- 2>&-', "sh", *runner.sentry, "run", "--", "echo", "works"]
    )
    done = subprocess.run(command, capture_output=True, timeout=PATIENCE, cwd="/")
    assert (done.returncode, done.stdout) == (0, b"works\n")


def test_stdio_keeps_its_flags(runner: Runner) -> None:
    """The caller's pipe must not become non-blocking because of us."""
    reader, writer = os.pipe()
    try:
        before = fcntl.fcntl(writer, fcntl.F_GETFL)
        runner.run("echo", "x", stdout=writer)
        assert fcntl.fcntl(writer, fcntl.F_GETFL) == before
    finally:
        os.close(reader)
        os.close(writer)


@pytest.fixture
def shell(runner: Runner) -> Terminal:
    terminal = Terminal(runner.argv(*SHELL, flags=["-t", *PROMPT]), 40, 100)
    terminal.expect(b"ready> ")
    yield terminal
    terminal.close()


def test_terminal_stdin(runner: Runner) -> None:
    """Without -t a caller's terminal is passed through as it is."""
    script = "test -t 0 && test -t 1 && test -t 2 && stty size && read line && echo got $line"
    terminal = Terminal(runner.argv("sh", "-c", script), 33, 77)
    try:
        terminal.expect(b"33 77\r\n")
        terminal.send(b"typed\n")
        terminal.expect(b"got typed\r\n")
        assert terminal.wait() == 0
    finally:
        terminal.close()


def test_prompt_and_command(shell: Terminal) -> None:
    shell.send(b"echo sum-$((40+2))\r")
    shell.expect(b"sum-42\r\n")
    shell.expect(b"ready> ")


def test_line_editing(shell: Terminal) -> None:
    shell.send(b"echo abX\x7fc-$((1))\r")
    shell.expect(b"\nabc-1\r\n")
    shell.send(b"echo 2-ac\x1b[Db\r")
    shell.expect(b"\n2-abc\r\n")
    shell.expect(b"ready> ")
    shell.send(b"echo history-$((3))\r")
    shell.expect(b"\nhistory-3\r\n")
    shell.expect(b"ready> ")
    shell.send(b"\x1b[A\r")
    shell.expect(b"\nhistory-3\r\n")


def test_interrupt(shell: Terminal) -> None:
    shell.send(b"sh -c 'echo begin-$((1)); exec sleep 1000'\r")
    shell.expect(b"begin-1\r\n")
    shell.send(b"\x03")
    shell.expect(b"ready> ")
    shell.send(b"echo status-$?\r")
    shell.expect(b"status-130\r\n")


def test_interrupt_reaches_the_foreground_only(shell: Terminal) -> None:
    shell.send(b"sleep 1000 & sh -c 'echo begin-$((1)); exec cat'\r")
    shell.expect(b"begin-1\r\n")
    shell.send(b"\x03")
    shell.expect(b"ready> ")
    shell.send(b"jobs; kill %1; echo end-$((1))\r")
    shell.expect(b"Running +sleep 1000 &")
    shell.expect(b"end-1\r\n")


def test_suspend_and_resume(shell: Terminal) -> None:
    shell.send(b"sh -c 'echo begin-$((1)); exec cat'\r")
    shell.expect(b"begin-1\r\n")
    shell.send(b"first\r")
    shell.expect(b"first\r\nfirst\r\n")
    shell.send(b"\x1a")
    shell.expect(b"Stopped")
    shell.expect(b"ready> ")
    shell.send(b"fg\r")
    shell.expect(b"exec cat'\r\n")
    shell.send(b"again\r")
    shell.expect(b"again\r\nagain\r\n")
    shell.send(b"\x04")
    shell.expect(b"ready> ")


def test_end_of_file(shell: Terminal) -> None:
    shell.send(b"\x04")
    assert shell.wait() == 0


def test_exit_status_of_the_shell(shell: Terminal) -> None:
    shell.send(b"exit 9\r")
    assert shell.wait() == 9


def test_terminal_is_restored(shell: Terminal) -> None:
    before = shell.before
    shell.send(b"stty raw -echo; exit\r")
    assert shell.wait() == 0
    assert shell.settings() == before


def test_window_size(shell: Terminal) -> None:
    shell.send(b"stty size\r")
    shell.expect(b"\n40 100\r\n")
    shell.expect(b"ready> ")
    shell.resize(50, 120)
    shell.send(b'until [ "$(stty size)" = "50 120" ]; do :; done; echo resized-$((1))\r')
    shell.expect(b"resized-1\r\n")


def test_own_terminal(shell: Terminal) -> None:
    shell.send(b"tty; ps -o tty= -p $$; echo mine > /dev/tty\r")
    shell.expect(b"\n/dev/pts/\\d+\r\n")
    shell.expect(b"pts/\\d+")
    shell.expect(b"\nmine\r\n")


def test_terminal_without_a_terminal(runner: Runner) -> None:
    """`-t` in a pipeline: a terminal inside, plain bytes outside."""
    result = runner.run("sh", "-c", "test -t 1 && echo tty", flags=["-t"])
    assert result.status == 0, result
    assert result.out.replace("\r\n", "\n") == "tty\n"


@pytest.mark.parametrize("flags", [[], ["-t"]], ids=["passed through", "own terminal"])
def test_job_of_the_caller_s_shell(runner: Runner, flags: list[str]) -> None:
    """^Z stops the sandbox as any job, and gives the shell its terminal; `fg` goes on."""
    script = "echo begin-$((1+1)); while read line; do echo got-$line; done"
    outer = Terminal(runner.command(SHELL))
    try:
        outer.send(b"PS1='outer''> '\r")
        outer.expect(b"outer> ")
        outer.send(shlex.join([*runner.sentry, "run", *flags, "--", "sh", "-c", script]).encode() + b"\r")
        outer.expect(rb"begin-2\r\n")
        outer.send(b"one\r")
        outer.expect(rb"got-one\r\n")
        outer.send(b"\x1a")
        outer.expect(rb"Stopped")
        outer.expect(b"outer> ")
        outer.send(b"stty -a | grep -o -w -e -*icanon; fg\r")
        outer.expect(rb"[^-]icanon\r\n")
        outer.send(b"two\r")
        outer.expect(rb"got-two\r\n")
        outer.send(b"\x03")
        outer.expect(b"outer> ")
        outer.send(b"echo status-$?\r")
        outer.expect(rb"status-130\r\n")
    finally:
        outer.close()


def test_stop_where_nobody_would_resume(runner: Runner) -> None:
    """^Z at a program that no shell has started: it goes on, as a member of an orphaned group does."""
    terminal = Terminal(
        runner.argv("sh", "-c", "echo begin-$((1+1)); read line; echo got-$line", flags=["-t"])
    )
    try:
        terminal.expect(rb"begin-2\r\n")
        terminal.send(b"\x1a")
        terminal.expect(rb"\^Z")
        terminal.send(b"text\r")
        terminal.expect(rb"got-text\r\n")
        assert terminal.wait() == 0
    finally:
        terminal.close()
