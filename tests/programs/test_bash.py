"""bash at a terminal: jobs, redirections of every kind, traps, limits."""

from __future__ import annotations

import re

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from programs.conftest import Sandbox
    from terminals import Terminal


def ask(shell: Terminal, line: str, *answers: str) -> None:
    """Types a line; the answers, regular expressions, have to come one after the other, then the prompt."""
    shell.send(line.encode() + b"\r")
    shell.expect(re.escape(line).encode() + rb"\r\n")
    for answer in answers:
        shell.expect(answer.encode() + rb"\r\n")
    shell.expect(b"ready> ")


@pytest.mark.both_platforms
def test_job_control(shell: Terminal) -> None:
    ask(shell, "sleep 100 &", r"\[1\] \d+")
    ask(shell, "jobs", r"\[1\]\+  Running                 sleep 100 &")
    shell.send(b"fg\r")
    shell.expect(rb"fg\r\nsleep 100\r\n")
    shell.press(b"\x1a", rb"\^Z\r\n\[1\]\+  Stopped                 sleep 100\r\nready> ")
    ask(shell, "echo status-$?", "status-148")
    ask(shell, "ps -o stat= -p $!", "T")
    ask(shell, "bg", r"\[1\]\+ sleep 100 &")
    ask(shell, "jobs %sleep", r"\[1\]\+  Running                 sleep 100 &")
    ask(shell, "kill %1; wait %1; echo status-$?", "status-143")


@pytest.mark.both_platforms
def test_two_jobs(shell: Terminal) -> None:
    ask(
        shell,
        "(sleep 0.1; exit 3) & wait %1; echo status-$?",
        r"\[1\] \d+",
        r"\[1\]\+  Exit 3 +\( sleep 0.1; exit 3 \)",
        "status-3",
    )
    ask(shell, "sleep 200 & sleep 100 | cat &", r"\[1\] \d+", r"\[2\] \d+")
    shell.send(b"fg %2\r")
    shell.expect(rb"sleep 100 \| cat\r\n")
    shell.press(b"\x03", rb"\^C\r\nready> ")
    ask(shell, "echo ${PIPESTATUS[*]}; jobs", "130", r"\[1\]\+  Running +sleep 200 &")


def test_stopped_reader(shell: Terminal) -> None:
    ask(shell, "cat &", r"\[1\] \d+")
    ask(shell, "until jobs | grep Stopped; do :; done", r"\[1\]\+  Stopped                 cat")
    shell.send(b"fg\r")
    shell.expect(rb"cat\r\n")
    shell.send(b"text\r")
    shell.expect(rb"text\r\ntext\r\n")
    shell.send(b"\x04")
    shell.expect(b"ready> ")
    ask(shell, "stty tostop; echo blocked &", r"\[1\] \d+")
    ask(shell, "until jobs | grep Stopped; do :; done", r"\[1\]\+  Stopped +.*echo blocked")
    shell.send(b"fg\r")
    shell.expect(rb"echo blocked\r\nblocked\r\nready> ")


def test_suspended_shell(shell: Terminal) -> None:
    shell.send(b"PS1='inner> ' bash --norc\r")
    shell.expect(b"inner> ")
    shell.send(b"suspend\r")
    shell.expect(rb"Stopped +PS1='inner> ' bash --norc\r\nready> ")
    shell.send(b"fg\r")
    shell.expect(b"inner> ")
    shell.send(b"exit 7\r")
    shell.expect(b"ready> ")
    ask(shell, "echo status-$?", "status-7")


def test_quit_and_break(shell: Terminal) -> None:
    shell.send(b"sleep 100\r")
    shell.expect(rb"sleep 100\r\n")
    shell.press(b"\x1c", rb"\^\\Quit( \(core dumped\))?\r\nready> ")
    shell.send(b"while :; do :; done\r")
    shell.expect(rb"done\r\n")
    shell.press(b"\x03", rb"\^C\r\nready> ")
    ask(shell, "echo status-$?", "status-130")


def test_hangup_of_jobs(shell: Terminal) -> None:
    """The last stopped job keeps the first `exit` from ending the shell."""
    shell.send(b"sleep 100\r")
    shell.expect(rb"sleep 100\r\n")
    shell.press(b"\x1a", b"Stopped +sleep 100\r\nready> ")
    shell.send(b"exit\r")
    shell.expect(rb"There are stopped jobs.\r\nready> ")
    shell.send(b"exit\r")
    assert shell.wait() == 1


def test_time_and_limits(shell: Terminal) -> None:
    ask(shell, "time sleep 0.2", "", r"real\t0m0\.[2-9]\d\ds", r"user\t0m0\.\d+s", r"sys\t0m0\.\d+s")
    ask(shell, "ulimit -Sn 30; ulimit -n; exec 40</dev/null", "30", "bash: 40: Bad file descriptor")
    ask(shell, "(ulimit -f 1; yes > big; echo $?); ls -s big", "153", "[14] big")
    ask(shell, "(ulimit -t 1; while :; do :; done); echo $?", r"Killed", "137")
    ask(shell, "ulimit -S -s 1024; sh -c 'ulimit -s'", "1024")


SCRIPT = r"""
cd "$(mktemp -d -p .)"
cat <<END; cat <<'END'; cat <<-END
one $((1 + 1))
END
two $((1 + 1))
END
	three
END
cat <<< "string $0"
diff <(printf 'a\nb\n') <(printf 'a\nc\n')
printf 'x\ny\n' | tee >(sort -r > sorted; echo done > end) > /dev/null
until [ -e end ]; do :; done; cat sorted
exec 5<>file; echo text >&5; cat file; exec 5>&-
coproc BC { while read -r line; do echo "<$line>"; done; }
echo hello >&"${BC[1]}"; read -r answer <&"${BC[0]}"; echo "$answer"
eval "exec ${BC[1]}>&-"; wait "$BC_PID"; echo coproc $?
trap 'echo caught USR1' USR1; kill -USR1 $$
trap 'echo child' CHLD; (exit 0); trap - CHLD
trap 'echo error $?' ERR; false; trap - ERR
trap '' TERM; kill -TERM $$; trap; trap - TERM
(trap 'echo leaving' EXIT; exit 4); echo $?
(kill -TERM $BASHPID); echo $?
(kill -SEGV $BASHPID); echo $?
sleep 10 & kill -STOP $!; kill -CONT $!; kill $!; wait $!; echo $?
for i in 3 1 2; do (sleep 0.$i; exit $i) & done; wait -n; echo first $?; wait; echo all $?
read -t 0.1 -r nothing < <(sleep 1); echo $?
read -n 3 -r three <<< abcdef; echo "$three"
mkfifo pipe; (echo through > pipe) & cat pipe; wait
set -o pipefail; false | true; echo $? "${PIPESTATUS[@]}"
timeout 0.1 sleep 5; echo $?
timeout -s KILL 0.1 sleep 5; echo $?
timeout --foreground 5 true; echo $?
seq 20 | xargs -P4 -n1 sh -c 'echo $0' | sort -n | tr '\n' ' '
set -m; (sleep 0.1; exit 5) & fg; echo $?
set +m; shopt -s lastpipe; echo last | read -r word; echo "$word"
[[ -t 0 ]] || echo no terminal
exec 3< <(exit 9); wait $!; echo $?
ulimit -n 20; ulimit -n; umask 027; touch private; stat -c %a private
kill -l 20 SIGINT; echo $-
exec -a renamed bash -c 'echo $0 $BASHPID' | sed s/[0-9].*/PID/
"""


@pytest.mark.both_platforms
def test_script(sandbox: Sandbox) -> None:
    """The same as natively: here-documents, substitutions, coprocesses, traps, waits, pipes."""
    sandbox.same("bash", "-c", SCRIPT, "script")
