"""The commands that have to work, each one started as a user would, by root and by an ordinary user."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from conftest import Runner

COUNT_LINES = "for f in /etc/*.conf; do wc -l < $f; done | sort -n | tail -3"
HELLO_C = '#include <stdio.h>\nint main(void) { puts("compiled inside"); return 3; }\n'


def test_echo(runner: Runner) -> None:
    result = runner.run("/bin/echo", "hello")
    assert (result.status, result.out, result.err) == (0, "hello\n", "")


def test_name_is_looked_up_in_path(runner: Runner) -> None:
    assert runner.run("echo", "a  b", "").out == "a  b \n"


def test_without_the_dashes(runner: Runner) -> None:
    assert runner.cli("run", "echo", "-n", "x").out == "x"


@pytest.mark.parametrize("code", [0, 1, 7, 126, 255])
def test_exit_status(runner: Runner, code: int) -> None:
    assert runner.run("/bin/sh", "-c", f"exit {code}").status == code


@pytest.mark.parametrize("name, number", [("TERM", 15), ("KILL", 9), ("SEGV", 11), ("USR1", 10)])
def test_signal_death(runner: Runner, name: str, number: int) -> None:
    assert runner.run("/bin/sh", "-c", f"kill -{name} $$").status == 128 + number


def test_bash_pipeline(runner: Runner) -> None:
    native = runner.native("bash", "-c", COUNT_LINES)
    result = runner.run("bash", "-c", COUNT_LINES)
    assert (result.status, result.out) == (0, native.out)


def test_bash_process_substitution(runner: Runner) -> None:
    """Opening /dev/fd/N of a pipe whose writer has gone doesn't wait for another one."""
    result = runner.run("bash", "-c", "cat <(echo sub); diff <(seq 3) <(seq 4); echo $?")
    assert (result.status, result.out) == (0, "sub\n3a4\n> 4\n1\n"), result


def test_python_subprocess(runner: Runner) -> None:
    program = 'import json, os, subprocess, re; print(subprocess.check_output(["uname","-a"]))'
    result = runner.run("python3", "-c", program)
    assert result.status == 0, result
    assert result.out.startswith("b'Linux sentry "), result


def test_python_threads_and_multiprocessing(runner: Runner) -> None:
    program = (
        "import threading, multiprocessing, os\n"
        "seen = []\n"
        "threads = [threading.Thread(target=seen.append, args=(i,)) for i in range(8)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\n"
        "with multiprocessing.get_context('fork').Pool(2) as pool:\n"
        "    print(sorted(seen), pool.map(abs, [-1, -2, -3]))\n"
    )
    result = runner.run("python3", "-c", program)
    assert (result.status, result.out) == (0, "[0, 1, 2, 3, 4, 5, 6, 7] [1, 2, 3]\n"), result


def test_git(runner: Runner) -> None:
    result = runner.run("git", "-C", "/tmp", "init", "r")
    assert result.status == 0, result
    assert "Initialized empty Git repository in /tmp/r/.git/" in result.out
    assert not Path("/tmp/r").exists()


def test_git_commit_and_log(runner: Runner) -> None:
    script = (
        "set -e; cd /tmp; git init -q repo; cd repo; git config user.name n; git config user.email e@x; "
        "echo text > file; git add .; git commit -qm first; git log --format=%s; git status --short; git fsck"
    )
    result = runner.run("sh", "-c", script)
    assert result.status == 0, result
    assert result.out.splitlines()[0] == "first"


def test_perl(runner: Runner) -> None:
    assert runner.run("perl", "-e", 'print "ok\n"').out == "ok\n"


def test_gcc_version(runner: Runner) -> None:
    result = runner.run("gcc", "--version")
    assert result.status == 0, result
    assert result.out == runner.native("gcc", "--version").out


def test_compile_and_run(runner: Runner) -> None:
    script = "cd /tmp && cat > hello.c && gcc -O1 -o hello hello.c && ./hello"
    result = runner.run("sh", "-c", script, stdin=HELLO_C.encode(), timeout=120)
    assert (result.status, result.out) == (3, "compiled inside\n"), result


def make_rootfs(runner: Runner, work_dir: Path) -> Path:
    root = work_dir / "root"
    for name in ("bin", "etc", "tmp", "proc", "dev"):
        (root / name).mkdir(parents=True)
    shutil.copy2("/bin/busybox", root / "bin" / "busybox")
    (root / "bin" / "sh").symlink_to("busybox")
    (root / "etc" / "marker").write_text("in the rootfs\n")
    if os.geteuid() == 0:
        owner = work_dir.stat()
        for path in [root, *root.rglob("*")]:
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
    return root


def test_rootfs(runner: Runner, work_dir: Path) -> None:
    root = make_rootfs(runner, work_dir)
    result = runner.run("/bin/busybox", "ls", "-la", "/", flags=["--rootfs", str(root)])
    assert result.status == 0, result
    names = {line.split()[-1] for line in result.out.splitlines() if len(line.split()) >= 9}
    assert {"bin", "etc", "tmp", "proc", "dev"} <= names


def test_rootfs_shows_nothing_else_and_stays_unchanged(runner: Runner, work_dir: Path) -> None:
    root = make_rootfs(runner, work_dir)
    script = (
        "cat /etc/marker; echo changed > /etc/marker; cat /etc/marker; echo new > /new; ls /usr 2>&1; pwd"
    )
    result = runner.run("/bin/sh", "-c", script, flags=["--rootfs", str(root)])
    lines = result.out.splitlines()
    assert lines[:2] == ["in the rootfs", "changed"], result
    assert "No such file" in lines[2] and lines[3] == "/", result
    assert (root / "etc" / "marker").read_text() == "in the rootfs\n"
    assert not (root / "new").exists()


def test_host_is_not_changed(runner: Runner, work_dir: Path) -> None:
    (work_dir / "kept").write_text("original")
    (work_dir / "gone").write_text("original")
    if os.geteuid() == 0:
        owner = work_dir.stat()
        for path in work_dir.iterdir():
            os.chown(path, owner.st_uid, owner.st_gid)
    script = (
        "echo new > made; echo more >> kept; rm gone; mkdir d; ln -s kept l; chmod 600 kept; "
        "ls; cat kept; pwd"
    )
    result = runner.run("sh", "-c", script, cwd=work_dir)
    assert result.status == 0, result
    assert result.out.split() == ["d", "kept", "l", "made", "originalmore", str(work_dir)]
    assert sorted(path.name for path in work_dir.iterdir()) == ["gone", "kept"]
    assert (work_dir / "kept").read_text() == "original"
    assert (work_dir / "kept").stat().st_mode & 0o777 == 0o644


def test_write_to_the_root(runner: Runner) -> None:
    script = (
        "echo x > /tmp/sentry-e2e-probe && cat /tmp/sentry-e2e-probe; "
        "touch /etc/sentry-e2e-probe; rm -f /etc/hostname"
    )
    result = runner.run("sh", "-c", script)
    assert result.out == "x\n", result
    assert not Path("/tmp/sentry-e2e-probe").exists()
    assert not Path("/etc/sentry-e2e-probe").exists()


def test_bind_read_write(runner: Runner, work_dir: Path) -> None:
    result = runner.run(
        "sh", "-c", "echo from inside > /mnt/file; ls /mnt", flags=["--bind", f"{work_dir}:/mnt:rw"]
    )
    assert (result.status, result.out) == (0, "file\n"), result
    assert (work_dir / "file").read_text() == "from inside\n"


@pytest.mark.parametrize("mode", ["", ":ro"])
def test_bind_read_only(runner: Runner, work_dir: Path, mode: str) -> None:
    (work_dir / "file").write_text("from outside\n")
    script = "cat /mnt/file; echo x > /mnt/new || echo refused; echo x > /mnt/file || echo refused"
    result = runner.run("sh", "-c", script, flags=["--bind", f"{work_dir}:/mnt{mode}"])
    assert result.out == "from outside\nrefused\nrefused\n", result
    assert "Read-only file system" in result.err
    assert [path.name for path in work_dir.iterdir()] == ["file"]


def test_environment(runner: Runner) -> None:
    result = runner.run(
        "env", flags=["--env", "GIVEN=a b=c", "-e", "EMPTY="], env={"SECRET_TOKEN": "x", "TERM": "dumb"}
    )
    lines = result.out.splitlines()
    assert "GIVEN=a b=c" in lines and "EMPTY=" in lines and "TERM=dumb" in lines
    assert not any(line.startswith("SECRET_TOKEN") for line in lines)
    assert any(line.startswith("PATH=") for line in lines)


def test_environment_of_the_caller_by_name(runner: Runner) -> None:
    assert runner.run("printenv", "MINE", flags=["--env", "MINE"], env={"MINE": "yes"}).out == "yes\n"


def test_cwd(runner: Runner) -> None:
    assert runner.run("pwd", flags=["--cwd", "/usr/bin"]).out == "/usr/bin\n"
    assert runner.run("pwd", cwd="/usr/share").out == "/usr/share\n"


def test_hostname(runner: Runner) -> None:
    assert runner.run("hostname", flags=["--hostname", "box"]).out == "box\n"
    assert runner.run("uname", "-n").out == "sentry\n"


def test_id(runner: Runner) -> None:
    native = runner.native("id", "-u", "-n").out if runner.is_root else ""
    result = runner.run("id")
    assert result.status == 0, result
    assert result.out.startswith(
        "uid=0(root) gid=0(root)" if native else f"uid={runner.native('id', '-u').out.strip()}"
    )


def test_user_flag(runner: Runner) -> None:
    script = "id -u; id -g; touch /etc/x 2>/dev/null && echo wrote || echo refused"
    result = runner.run("sh", "-c", script, flags=["--user", "1234:2345"])
    assert result.out.split() == ["1234", "2345", "refused"], result


def test_kernel_release(runner: Runner) -> None:
    own = runner.run("uname", "-r").out.strip()
    assert re.match(r"\d+\.\d+", own)
    assert own != os.uname().release
    assert runner.run("uname", "-r", flags=["--kernel-release", "9.8.7-mine"]).out == "9.8.7-mine\n"


def test_proc_self(runner: Runner) -> None:
    script = (
        "cat /proc/self/comm; cat /proc/self/cmdline | tr '\\0' ' '; echo; "
        "readlink /proc/self/exe /proc/self/cwd; "
        "grep -c . /proc/self/maps; grep ^Name /proc/self/status; ls /proc/self/fd; "
        "cat /proc/sys/kernel/hostname"
    )
    result = runner.run("sh", "-c", script, cwd="/usr")
    assert result.status == 0, result
    lines = result.out.splitlines()
    assert lines[0] == "cat" and lines[1] == "cat /proc/self/cmdline "
    assert lines[2].endswith("/readlink") and lines[3] == "/usr"
    assert int(lines[4]) > 5 and lines[5] == "Name:\tgrep"
    assert {"0", "1", "2"} <= set(lines[6:-1]) and lines[-1] == "sentry"


def test_ps_shows_the_sandbox_only(runner: Runner) -> None:
    result = runner.run("sh", "-c", "sleep 100 & ps aux; kill $!")
    assert result.status == 0, result
    lines = result.out.splitlines()
    assert lines[0].split()[:2] == ["USER", "PID"]
    commands = [line.split(None, 10)[10] for line in lines[1:]]
    names = sorted(command.split()[0] for command in commands)
    assert [name for name in names if name != "[init]"] == ["ps", "sh", "sleep"], result
    assert lines[1].split()[1] == "1"


def test_pstree_of_proc(runner: Runner) -> None:
    result = runner.run("sh", "-c", "ls /proc | grep -c '^[0-9]'")
    assert int(result.out) <= 4, result


def test_free(runner: Runner) -> None:
    result = runner.run("free", "-b", flags=["--memory", "256M"])
    assert result.status == 0, result
    total, used = (int(word) for word in result.out.splitlines()[1].split()[1:3])
    assert total == 256 << 20
    assert 0 <= used < total


def test_df(runner: Runner) -> None:
    result = runner.run("df")
    assert result.status == 0, result
    assert any(line.split()[-1] == "/" for line in result.out.splitlines()[1:]), result


@pytest.mark.parametrize("platform", ["trap", "ptrace"])
def test_nproc(runner: Runner, platform: str) -> None:
    result = runner.run("nproc", flags=("--platform", platform))
    assert result.out == runner.native("nproc").out


def test_mount(runner: Runner) -> None:
    result = runner.run("mount")
    assert result.status == 0, result
    places = {line.split(" on ", 1)[1].split(" type ")[0] for line in result.out.splitlines()}
    assert {"/", "/proc", "/dev"} <= places, result
    assert any(line.startswith("proc on /proc type proc") for line in result.out.splitlines())


def test_uptime_and_date(runner: Runner) -> None:
    result = runner.run("sh", "-c", "date +%s; cut -d. -f1 /proc/uptime")
    now, uptime = (int(line) for line in result.out.split())
    assert abs(now - int(runner.native("date", "+%s").out)) < 120
    assert 0 <= uptime < 120


STRACE_LINE = re.compile(r"^(\[(pid +)?\d+\] |\d+ )?\w+\(.*\) += (-?\d+|0x[0-9a-f]+|\?)", re.M)


def test_strace(runner: Runner) -> None:
    result = runner.run("ls", "/tmp", flags=["--strace"])
    assert result.status == 0, result
    lines = STRACE_LINE.findall(result.err)
    assert len(lines) > 20, result
    assert 'openat(AT_FDCWD, "/tmp"' in result.err
    assert "ENOENT" in result.err
    assert "openat(" not in result.out


def test_strace_of_a_child(runner: Runner) -> None:
    result = runner.run("sh", "-c", "/bin/echo one; exit 4", flags=["--strace"])
    assert (result.status, result.out) == (4, "one\n")
    assert re.search(r'execve\("/bin/echo", \["/bin/echo", "one"\].*\) = 0', result.err), result
    assert re.search(r"\+\+\+ exited with 4 \+\+\+", result.err), result


def test_debug_says_what_was_applied(runner: Runner) -> None:
    result = runner.run("true", flags=["--debug"])
    assert result.status == 0, result
    assert "seccomp" in result.err.lower()


def test_timeout(runner: Runner) -> None:
    result = runner.run("sleep", "1000", flags=["--timeout", "1"])
    assert result.status == 137, result
    assert "time" in result.err and len(result.err.splitlines()) == 1


def test_timeout_not_reached(runner: Runner) -> None:
    result = runner.run("echo", "quick", flags=["--timeout", "50"])
    assert (result.status, result.out, result.err) == (0, "quick\n", "")


def test_memory_limit(runner: Runner) -> None:
    program = "x = bytearray(1 << 30); x[::4096] = b'x' * len(x[::4096]); print('allocated')"
    result = runner.run("python3", "-c", program, flags=["--memory", "200M"], traceback_ok=True)
    assert result.status != 0 and "allocated" not in result.out, result
    assert "memory" in result.err.lower(), result


def test_memory_limit_leaves_room(runner: Runner) -> None:
    result = runner.run("python3", "-c", "x = bytearray(32 << 20); print(len(x))", flags=["--memory", "200M"])
    assert (result.status, result.out) == (0, f"{32 << 20}\n"), result


def test_pids_limit(runner: Runner) -> None:
    program = (
        "import os\nmade = 0\n"
        "try:\n    while made < 100:\n        if os.fork() == 0:\n            os.read(0, 1); os._exit(0)\n"
        "        made += 1\n"
        "except BlockingIOError:\n    print('refused after', made)\n"
    )
    reader, writer = os.pipe()
    try:
        result = runner.run("python3", "-c", program, flags=["--pids", "12"], stdin=reader)
    finally:
        os.close(reader)
        os.close(writer)
    assert re.fullmatch(r"refused after (9|10|11)\n", result.out), result


def test_version_and_help(runner: Runner) -> None:
    assert re.match(r"sentry \d", runner.cli("--version").out)
    for arguments in (["--help"], ["run", "--help"], ["help", "run"]):
        result = runner.cli(*arguments)
        assert result.status == 0 and "Usage:" in result.out, result


def test_many_files_and_processes(runner: Runner) -> None:
    script = (
        "mkdir /tmp/many && cd /tmp/many && "
        "for i in $(seq 60); do echo $i > f$i; done; cat f* | sort -n | tail -1; ls | grep -c '^f'"
    )
    assert runner.run("bash", "-c", script).out == "60\n60\n"


def test_tar_round_trip(runner: Runner) -> None:
    script = (
        "mkdir /tmp/tar && cd /tmp/tar && mkdir a && cp /etc/passwd a/ && tar czf a.tgz a && "
        "mkdir b && tar xzf a.tgz -C b && cmp a/passwd b/a/passwd && echo same"
    )
    assert runner.run("sh", "-c", script).out == "same\n"
