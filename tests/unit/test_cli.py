"""The command line: flags to Config, and one line with the right status for everything wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sentry as sentry_package
from sentry.runtime.commands import run
from sentry.runtime.config import Config, environment, parse_bind, parse_size, parse_user
from sentry.runtime.errors import Fatal

PACKAGES = Path(sentry_package.__file__).resolve().parents[1]


def configure(*args: str) -> Config:
    values, command = run.split(list(args))
    return run.configure(values, command)


def sentry(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sentry", *args], cwd=PACKAGES, capture_output=True, text=True, timeout=30
    )


def test_flags_end_at_the_first_word_that_is_none() -> None:
    config = configure("--hostname", "box", "--strace", "ls", "--debug", "-l")
    assert config.argv == [b"ls", b"--debug", b"-l"]
    assert (config.hostname, config.strace, config.debug) == (b"box", True, False)


def test_flags_end_at_two_dashes() -> None:
    config = configure("--pids=5", "--", "--odd-name", "--", "x")
    assert config.argv == [b"--odd-name", b"--", b"x"]
    assert config.pids == 5


def test_all_flags() -> None:
    config = configure(
        "--rootfs", "/r", "--bind", "/a:/b", "--bind=/c:/d//d2/./e", "--bind", "/e:/f:rw", "--cwd",
        "/w", "-u", "5:6", "--kernel-release=6.1", "--timeout", "1.5", "--memory", "64M", "-t",
        "--platform", "ptrace", "--overlay", "none", "true",
    )  # fmt: skip
    assert config.rootfs == "/r"
    assert [(b.source, b.target, b.writable) for b in config.binds] == [
        ("/a", b"/b", False), ("/c", b"/d/d2/e", False), ("/e", b"/f", True),
    ]  # fmt: skip
    assert (config.cwd, config.cwd_given) == (b"/w", True)
    assert (config.uid, config.gid, config.groups) == (5, 6, [])
    assert config.kernel_release == b"6.1"
    assert (config.timeout, config.memory, config.tty, config.overlay) == (1.5, 64 << 20, True, "none")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--foo", "x"], "unknown flag '--foo' (see 'sentry run --help')"),
        (["--foo=1", "x"], "unknown flag '--foo' (see 'sentry run --help')"),
        (["--cwd"], "flag '--cwd' wants a value (see 'sentry run --help')"),
        (["--tty=1", "x"], "flag '--tty' takes no value (see 'sentry run --help')"),
        (["--timeout", "soon", "x"], "--timeout wants a number of seconds, not 'soon'"),
        (["--timeout", "nan", "x"], "--timeout wants a number of seconds, not 'nan'"),
        (["--timeout", "-1", "x"], "--timeout wants a number of seconds, not '-1'"),
        (["--memory", "lots", "x"], "--memory wants a size such as 64M or 2G, not 'lots'"),
        (["--memory", "4K", "x"], "--memory 4K is too small: a program needs at least 1M"),
        (["--pids", "0", "x"], "--pids wants a number of processes, not '0'"),
        (["--user", "root", "x"], "--user wants UID[:GID] in numbers, not 'root'"),
        (["--user", "4294967295", "x"], "--user wants UID[:GID] in numbers, not '4294967295'"),
        (["--bind", "/a", "x"], "--bind wants SRC:DST[:ro|rw], not '/a'"),
        (["--bind", "/a:/b:rx", "x"], "--bind wants SRC:DST[:ro|rw], not '/a:/b:rx'"),
        (["--bind", "/a:b", "x"], "--bind: the target 'b' is not an absolute path"),
        (["--bind", "/a:/b/../c", "x"], "--bind: the target '/b/../c' contains '..'"),
        (["--bind", "/a:/.", "x"], "--bind: the target is '/'; use --rootfs"),
        (["--cwd", "tmp", "x"], "--cwd wants an absolute path, not 'tmp'"),
        (["--env", "=x", "x"], "--env wants K=V or K, not '=x'"),
        (["--platform", "kvm", "x"], "unknown platform 'kvm': there are trap and ptrace"),
        (["--overlay", "disk", "x"], "--overlay wants 'memory' or 'none', not 'disk'"),
        (["--hostname", "", "x"], "--hostname wants 1 to 64 bytes"),
    ],
)
def test_bad_flags(args: list[str], message: str) -> None:
    with pytest.raises(Fatal) as caught:
        configure(*args)
    assert caught.value.text == message
    assert caught.value.status == 128


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["run"], "no command given (see 'sentry run --help')"),
        (["run", "--foo"], "unknown flag '--foo' (see 'sentry run --help')"),
        (["walk"], "unknown verb 'walk' (see 'sentry --help')"),
        (["--foo"], "unknown flag '--foo' (see 'sentry --help')"),
        (["help", "walk"], "unknown verb 'walk' (see 'sentry --help')"),
        (["run", "--rootfs", "/nowhere", "x"], "--rootfs '/nowhere': No such file or directory"),
        (["run", "--rootfs", "/etc/passwd", "x"], "--rootfs '/etc/passwd' is not a directory"),
        (
            ["run", "--bind", "/dev/null:/x", "x"],
            "--bind '/dev/null' is neither a directory nor a regular file",
        ),
    ],
)
def test_errors_are_one_line_and_128(args: list[str], message: str) -> None:
    done = sentry(*args)
    assert (done.returncode, done.stdout, done.stderr) == (128, "", f"sentry: {message}\n")


def test_help_and_version() -> None:
    assert sentry("--version").stdout.startswith("sentry ")
    assert sentry("--help").stdout == sentry("help").stdout
    text = sentry("run", "--help").stdout
    assert text == sentry("help", "run").stdout
    for flag in (*run.WITH_VALUE, *run.SWITCHES):
        assert flag in text


def test_no_arguments_is_an_error() -> None:
    done = sentry()
    assert done.returncode == 128
    assert "Usage" in done.stderr


def test_help_wins_over_a_missing_command() -> None:
    assert sentry("run", "-h").returncode == 0


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("4096", 4096), ("1k", 1024), ("64M", 64 << 20), ("64MiB", 64 << 20), ("2gb", 2 << 30),
     ("1.5G", 3 << 29), ("1T", 1 << 40)],
)  # fmt: skip
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@given(st.text(max_size=12))
def test_sizes_of_anything(text: str) -> None:
    try:
        assert 0 <= parse_size(text) < 1 << 63
    except ValueError:
        pass


@given(st.text(max_size=20))
def test_users_of_anything(text: str) -> None:
    try:
        uid, gid = parse_user(text)
        assert 0 <= uid < 0xFFFFFFFF and 0 <= gid < 0xFFFFFFFF
    except ValueError:
        pass


@given(st.text(max_size=30))
def test_binds_of_anything(text: str) -> None:
    try:
        bind = parse_bind(text)
    except Fatal:
        return
    assert bind.target.startswith(b"/") and len(bind.target) > 1
    assert b".." not in bind.target.split(b"/")


def test_group_defaults_to_the_users_number() -> None:
    assert parse_user("7") == (7, 7)
    assert parse_user("7:8") == (7, 8)


CALLER = {
    b"PATH": b"/bin", b"HOME": b"/home/me", b"LANG": b"C", b"LC_ALL": b"C", b"SSH_AUTH_SOCK": b"/s",
    b"PWD": b"/", b"AWS_SECRET": b"x", b"TERM": b"xterm", b"EMPTY": b"",
}  # fmt: skip


def test_environment_is_filtered() -> None:
    got = environment(CALLER, [], False, 1000)
    assert sorted(got) == [b"HOME=/home/me", b"LANG=C", b"LC_ALL=C", b"PATH=/bin", b"TERM=xterm"]


def test_environment_of_a_rootfs_has_its_own_paths() -> None:
    got = dict(entry.split(b"=", 1) for entry in environment(CALLER, [], True, 0))
    assert got[b"HOME"] == b"/root"
    assert got[b"PATH"].startswith(b"/usr/local/sbin:")
    assert got[b"TERM"] == b"xterm"
    assert b"HOME=/" in environment(CALLER, [], True, 5)


def test_environment_asked_for() -> None:
    got = environment(CALLER, [b"A=1", b"A=2=3", b"SSH_AUTH_SOCK", b"NOT_THERE", b"EMPTY"], False, 0)
    assert b"A=2=3" in got and b"A=1" not in got
    assert b"SSH_AUTH_SOCK=/s" in got and b"EMPTY=" in got
    assert not [entry for entry in got if entry.startswith(b"NOT_THERE")]


def test_cwd_is_the_callers_unless_there_is_a_rootfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert configure("x").cwd == os.fsencode(tmp_path)
    assert not configure("x").cwd_given
    assert configure("--rootfs", "/", "x").cwd == b"/"


def test_cli_imports_little() -> None:
    """What a run pays for before it can even look at its flags."""
    code = (
        f"import sys; sys.path.insert(0, {str(PACKAGES)!r}); import sentry.cli, sentry.runtime.commands.run; "
        "print(' '.join(sys.modules))"
    )
    command = [sys.executable, "-I", "-S", "-c", code]
    loaded = set(subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.split())
    heavy = (
        "re typing enum dataclasses argparse logging json asyncio socket subprocess contextlib inspect "
        "signal functools collections pyseccomp ptrace"
    )
    assert "sentry.runtime.commands.run" in loaded
    assert not loaded & set(heavy.split())
