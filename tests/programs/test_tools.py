"""Editors, pagers, multiplexers and the tools of a developer, as a person uses them."""

from __future__ import annotations

import pytest
from installed import needs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from programs.conftest import Sandbox
    from terminals import Terminal

XTERM = ("--env", "TERM=xterm")


@needs("vim")
@pytest.mark.both_platforms
def test_vim_as_a_script(sandbox: Sandbox) -> None:
    edit = "-c 'call setline(1, [\"one\", \"two\", \"three\"])' -c 'g/t/s/^/> /' -c 'w text' -c q"
    script = (
        f"vim -u NONE -es {edit} && cat text && vim -u NONE -es -c '%s/o/0/' -c 'w! /dev/stdout' -c 'q!' text"
    )
    result = sandbox.run("bash", "-c", script)
    assert result.out == "one\n> two\n> three\n0ne\n> tw0\n> three\n"


@needs("vim")
def test_vim_on_the_screen(sandbox: Sandbox) -> None:
    screen = sandbox.terminal("bash", "-c", "vim -u NONE text; echo end-$?; cat text", flags=XTERM)
    try:
        screen.expect(rb'"text" \[New( File)?\]')
        screen.send(b"ihello\x1b")
        screen.send(b"yypAworld\x1b:wq\r")
        screen.expect(rb"end-0\r\nhello\r\nhelloworld\r\n")
        assert screen.wait() == 0
        assert screen.settings() == screen.before
    finally:
        screen.close()


@needs("vim")
def test_vim_is_suspended(shell: Terminal) -> None:
    shell.send(b"TERM=xterm vim -u NONE text\r")
    shell.expect(rb'"text" \[New( File)?\]')
    shell.send(b":stop\r")
    shell.expect(rb"Stopped +TERM=xterm vim -u NONE text\r\n")
    shell.expect(b"ready> ")
    shell.send(b"fg\r")
    shell.expect(b"~")
    shell.send(b":cq 5\r")
    shell.expect(b"ready> ")
    shell.send(b"echo status-$?\r")
    shell.expect(rb"status-5\r\n")


@needs("less")
def test_less(sandbox: Sandbox) -> None:
    screen = sandbox.terminal("bash", "-c", "seq 1000 | less; echo end-$?", flags=XTERM)
    try:
        screen.expect(rb"\n22\r\n23\r\n:")
        screen.send(b" ")
        screen.expect(rb"\n46\r\n")
        screen.send(b"/^77$\r")
        screen.expect(b"99\r\n")
        screen.send(b"G")
        screen.expect(b"1000\r\n")
        screen.resize(10, 40)
        screen.expect(rb"986\r\n")
        screen.press(b"g", rb"\x1bM1\r\n|H1\r\n")
        screen.send(b"q")
        screen.expect(rb"end-0\r\n")
        assert screen.wait() == 0
    finally:
        screen.close()


@needs("top")
@pytest.mark.both_platforms
def test_top(sandbox: Sandbox) -> None:
    out = sandbox.run("bash", "-c", "sleep 100 & top -b -n1; kill $!").out
    assert "Tasks:   4 total" in out and "load average" in out
    names = [line.split()[-1] for line in out.splitlines() if line.strip()[:1].isdigit()]
    assert sorted(names) == ["bash", "init", "sleep", "top"]


@needs("top")
def test_top_on_the_screen(sandbox: Sandbox) -> None:
    screen = sandbox.terminal("top", flags=XTERM)
    try:
        screen.expect(b"COMMAND")
        screen.expect(b"top")
        screen.send(b"q")
        assert screen.wait() == 0
        assert screen.settings() == screen.before
    finally:
        screen.close()


@needs("script")
@pytest.mark.both_platforms
def test_script(sandbox: Sandbox) -> None:
    inner = "test -t 0 && tty | tr -d 0-9 && stty size && exit 7"
    outer = f"script -q -e -c '{inner}' log < /dev/null; echo status $?; grep -c /dev/pts/ log"
    assert sandbox.run("bash", "-c", outer).out.replace("\r", "") == "/dev/pts/\n0 0\nstatus 7\n1\n"


@needs("tmux")
def test_tmux(sandbox: Sandbox) -> None:
    """Two panes, driven both by keys and by commands from inside."""
    screen = sandbox.terminal(
        "tmux", "-f", "/dev/null", "new-session", "bash --norc",
        flags=(*XTERM, "--env", "TMUX_TMPDIR=/tmp", "--env", "SHELL=/bin/bash"),
    )  # fmt: skip
    try:
        screen.expect(rb"bash-[\d.]+[#$] ")
        screen.send(b"tmux split-window 'bash --norc' && tmux display -p panes-#{window_panes}\r")
        screen.expect(b"panes-2")
        screen.send(b"echo lower-$((40 + 2)); stty size\r")
        screen.expect(b"lower-42")
        screen.expect(b"1[01] 80")
        screen.send(b"\x02\x1b[A")
        screen.send(b"echo upper-$((40 + 3))\r")
        screen.expect(b"upper-43")
        screen.send(b"tmux capture-pane -p -t 1 | grep -c lower; tmux list-panes | wc -l\r")
        screen.expect(rb"\b2\b")
        screen.send(b"tmux kill-server\r")
        screen.expect(rb"\[server exited\]")
        screen.wait()
        assert screen.settings() == screen.before
    finally:
        screen.close()


MAKEFILE = """\
parts := $(foreach n,1 2 3 4 5 6 7 8,part$(n).o)
program: main.o $(parts)
\t$(CC) -o $@ $^
%.o: %.c all.h
\t$(CC) -O1 -Wall -Werror -c -o $@ $<
.PHONY: test
test: program
\t./program
"""


@needs("make", "gcc")
@pytest.mark.both_platforms
def test_make(sandbox: Sandbox) -> None:
    """`make -j4` on a small tree; what is there already is not made again."""
    tree = sandbox.directory
    (tree / "Makefile").write_text(MAKEFILE)
    (tree / "all.h").write_text("".join(f"int part{n}(int);\n" for n in range(1, 9)))
    for n in range(1, 9):
        (tree / f"part{n}.c").write_text(f'#include "all.h"\nint part{n}(int x) {{ return x * {n}; }}\n')
    total = " + ".join(f"part{n}({n})" for n in range(1, 9))
    (tree / "main.c").write_text(
        f'#include <stdio.h>\n#include "all.h"\nint main(void) {{ printf("%d\\n", {total}); return 0; }}\n'
    )
    for path in tree.iterdir():
        path.chmod(0o666)
    out = sandbox.run("bash", "-c", "make -s -j4 test && touch part3.c && make -j4 test").out.splitlines()
    assert out[0] == out[-1] == "204"
    assert [line for line in out if " -c " in line] == ["cc -O1 -Wall -Werror -c -o part3.o part3.c"]


@needs("git")
def test_git(sandbox: Sandbox) -> None:
    script = """
    export GIT_AUTHOR_DATE='2020-01-01T00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00Z' HOME=$PWD
    git config --global user.name N; git config --global user.email e@x
    git init -q -b main tree && cd tree && seq 1000 > file && mkdir -p a/b && echo x > a/b/c
    git add . && git commit -q -m first && sed -i s/500/five/ file && git diff --stat
    git commit -q -a -m second && git branch side HEAD^ && git checkout -q side && echo y > a/d && git add a
    git commit -q -m third && git merge -q -m merge main && git log --oneline --graph --stat
    git gc -q && git fsck && git clone -q . ../copy && git -C ../copy log --format=%H -1
    """
    sandbox.same("bash", "-ec", f"cd $(mktemp -d -p .); {script}")


@needs("sqlite3")
def test_sqlite(sandbox: Sandbox) -> None:
    """Record locks, the write-ahead log and its shared memory, between processes."""
    script = """
    sqlite3 base 'pragma journal_mode=wal; create table t(n)'
    insert() { sqlite3 -cmd '.timeout 20000' base "insert into t values($1)"; }
    for i in 1 2 3 4; do (for j in 1 2 3 4 5; do insert $i$j; done) & done
    wait; sqlite3 base 'select count(*), sum(n) from t; pragma integrity_check'
    """
    assert sandbox.run("bash", "-c", script).out == "wal\n20|560\nok\n"


@needs("busybox")
def test_ash(sandbox: Sandbox) -> None:
    """Job control of a second shell."""
    screen = sandbox.terminal("busybox", "ash", flags=("--env", "PS1=ash> "))
    try:
        screen.expect(b"ash> ")
        screen.send(b"sleep 100\r")
        screen.press(b"\x1a", rb"\[1\]\+  Stopped +sleep 100\r\n")
        screen.expect(b"ash> ")
        screen.send(b"bg; kill %1; wait; echo end-$((1))\r")
        screen.expect(rb"end-1\r\n")
    finally:
        screen.close()


@needs("ssh-keygen", "openssl")
def test_keys(sandbox: Sandbox) -> None:
    script = """
    ssh-keygen -q -t ed25519 -N '' -C me -f key && ssh-keygen -y -f key | cut -d' ' -f1
    cipher='openssl enc -aes-256-ctr -pbkdf2 -pass pass:x'
    echo text | $cipher | $cipher -d
    openssl genpkey -algorithm ed25519 -out pem && openssl pkey -in pem -noout && openssl rand -hex 8 | wc -c
    """
    assert sandbox.run("bash", "-ec", script).out == "ssh-ed25519\ntext\n17\n"
