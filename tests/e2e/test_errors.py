"""What people are told when it doesn't work: one line with the cause, a status of its own, no traceback."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import time
from pathlib import Path

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from conftest import Result, Runner


def one_line(result: Result, status: int, *words: str) -> None:
    """Asserts the exit status and that stderr is one line with all of `words` in it."""
    assert result.status == status, result
    lines = result.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("sentry: "), result
    for word in words:
        assert word.lower() in lines[0].lower(), result


@pytest.mark.parametrize("program", ["/nonexistent/program", "no-such-program-here", "/etc/passwd/x"])
def test_missing_program(runner: Runner, program: str) -> None:
    one_line(runner.run(program), 126 if program == "/etc/passwd/x" else 127, program)


def test_missing_interpreter(runner: Runner, work_dir: Path) -> None:
    script = work_dir / "script"
    script.write_text("#!/nonexistent/interpreter\n")
    script.chmod(0o755)
    one_line(runner.run(str(script)), 127, "script")


@pytest.mark.parametrize("program", ["/etc/passwd", "/etc", "/dev/null"])
def test_not_executable(runner: Runner, program: str) -> None:
    one_line(runner.run(program), 126, program)


def test_not_a_program(runner: Runner, work_dir: Path) -> None:
    target = work_dir / "rubbish"
    target.write_bytes(b"\0\1\2\3" * 100)
    target.chmod(0o755)
    one_line(runner.run(str(target)), 126, "rubbish")


def elf_header(machine: int, bits: int) -> bytes:
    ident = b"\x7fELF" + bytes([bits // 32, 1, 1]) + bytes(9)
    return (
        ident
        + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0x400000, 64, 0, 0, 64, 56, 1, 0, 0, 0)
        + bytes(56)
    )


@pytest.mark.parametrize("machine, bits", [(183, 64), (40, 32), (3, 32), (243, 64)])
def test_wrong_architecture(runner: Runner, work_dir: Path, machine: int, bits: int) -> None:
    target = work_dir / "foreign"
    target.write_bytes(elf_header(machine, bits))
    target.chmod(0o755)
    one_line(runner.run(str(target)), 126, "foreign")


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--no-such-flag", "--", "true"],
        ["run", "--timeout"],
        ["run", "--timeout", "soon", "--", "true"],
        ["run", "--memory", "lots", "--", "true"],
        ["run", "--user", "nobody-here", "--", "true"],
        ["run", "--bind", "nonsense", "--", "true"],
        ["run", "--bind", "/nonexistent:/mnt", "--", "true"],
        ["run", "--cwd", "/nonexistent", "--", "true"],
        ["run", "--pids", "0", "--", "true"],
        ["run", "--strace=yes", "--", "true"],
        ["run"],
        ["run", "--"],
        ["run", "--", ""],
        ["no-such-verb"],
        ["run", "--rootfs", "/nonexistent", "--", "/bin/true"],
        ["run", "--rootfs", "/etc/passwd", "--", "/bin/true"],
    ],
    ids=" ".join,
)
def test_bad_arguments(runner: Runner, arguments: list[str]) -> None:
    one_line(runner.cli(*arguments), 128)


def test_unreadable_rootfs(runner: Runner, work_dir: Path) -> None:
    if runner.is_root:
        pytest.skip("root can read everything")
    root = work_dir / "closed"
    root.mkdir()
    root.chmod(0)
    one_line(runner.run("/bin/true", flags=["--rootfs", str(root)]), 128, str(root))


def test_no_user_namespaces(runner: Runner) -> None:
    """In a user namespace that may have no further one: what a host looks like that forbids them."""
    probe = runner.native("unshare", "-Ur", "true")
    if probe.status != 0:
        pytest.skip("this host has no user namespaces to forbid")
    forbid = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    command = ["unshare", "-Ur", "sh", "-c", forbid, "sh", *runner.sentry, "run", "--", "true"]
    one_line(runner.native(*command), 128, "namespace")


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def namespaced(pid: int) -> bool:
    """Whether the process has a number in a PID namespace of its own."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("NSpid:"))
    return len(line.split()) > 2


def sandbox_up(runner: Runner, script: str) -> subprocess.Popen[bytes]:
    """A sandbox whose shell has said "up", the first thing that `script` does."""
    process = subprocess.Popen(
        runner.argv("sh", "-c", script),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
    )
    assert process.stdout is not None
    if process.stdout.readline() != b"up\n":
        process.kill()
        pytest.fail(f"the shell did not come up: {process.communicate()[1]!r}")
    return process


def test_gofer_dies(runner: Runner) -> None:
    process = sandbox_up(runner, "echo up; read line; cat /etc/passwd")
    try:
        gofers = [pid for pid in children(process.pid) if not namespaced(pid)]
        assert len(gofers) == 1
        os.kill(gofers[0], signal.SIGKILL)
        _, err = process.communicate(b"go\n", timeout=60)
    finally:
        process.kill()
    text = err.decode()
    assert process.returncode == 128, text
    assert "Traceback" not in text
    # The guest's own programs may have complained about files that can't be read any more, and may have
    # died in the middle of a line.
    ours = [line for line in text.splitlines() if "sentry: " in line]
    assert len(ours) == 1 and "gofer" in ours[0].lower(), text


def test_sentry_dies(runner: Runner) -> None:
    """Whatever inside dies first, the command line ends, too, and says so."""
    process = sandbox_up(runner, "echo up; read line")
    try:
        inside = [pid for pid in children(process.pid) if namespaced(pid)]
        assert len(inside) == 1
        os.kill(inside[0], signal.SIGKILL)
        process.wait(timeout=60)  # with stdin still open: the guest must not end by itself
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128, err
    assert b"Traceback" not in err and len(err.splitlines()) == 1, err


ALONE, WITH_CHILDREN = "echo up; exec sleep 1000", "echo up; sleep 1000 | cat; true"


@pytest.mark.parametrize(
    ("number", "script"),
    [(signal.SIGTERM, ALONE), (signal.SIGINT, ALONE), (signal.SIGHUP, ALONE), (signal.SIGINT, WITH_CHILDREN)],
)
def test_signal_to_the_command_line(runner: Runner, number: signal.Signals, script: str) -> None:
    """A signal sent to `sentry run` reaches the program; unhandled, it ends it with 128+N.

    What Ctrl-C sends reaches a shell's children, too: the shell waits for them.
    """
    process = subprocess.Popen(
        runner.argv("sh", "-c", script),
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    status = process.returncode if process.returncode >= 0 else 128 - process.returncode
    assert status == 128 + number, err
    assert b"Traceback" not in err


def test_closed_stdout(runner: Runner) -> None:
    """A reader that goes away gives the program SIGPIPE, as in `yes | head -1`."""
    reader, writer = os.pipe()
    process = subprocess.Popen(runner.argv("yes"), stdout=writer, stderr=subprocess.PIPE, cwd="/")
    os.close(writer)
    try:
        assert os.read(reader, 2) == b"y\n"
        os.close(reader)
        started = time.monotonic()
        _, err = process.communicate(timeout=60)
        assert time.monotonic() - started < 60
    finally:
        process.kill()
    assert process.returncode in (128 + signal.SIGPIPE, -signal.SIGPIPE), err
    assert b"Traceback" not in err
