"""Hostile guests: whatever a program does to the Sentry from inside, the sandbox survives it.

Each case is an attack of a program in `hostile/`.  It runs in a child of a guest process, which afterwards
looks whether fork, pipes and execve still work, and says so.  From outside we look that the Sentry has no
internal error, at most one line to say, and that its own memory stayed small.

SENTRY_LONG=1 (or --long) makes the fuzzer go on for minutes; SENTRY_SEED chooses its seed.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from outside import parents, read_status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from conftest import Runner

SOURCES = Path(__file__).resolve().parent / "hostile"
CFLAGS = ["-O1", "-w", "-pthread", "-static"]
#: What the Sentry may come to use by itself, in KiB.
MEMORY = 700 << 10
PATIENCE = 90.0
SURVIVED = "sandbox works"
#: Lines that a guest's own library may print before it dies.
GUESTS_OWN = 20


@pytest.fixture(scope="session")
def programs(shared_dir: Path) -> Path:
    """A directory with the hostile programs, static and readable by everybody."""
    target = shared_dir / "hostile"
    target.mkdir()
    for source in SOURCES.glob("*.c"):
        subprocess.run(["gcc", *CFLAGS, "-o", target / source.stem, source], check=True, timeout=120)
    return target


def sentry_of(cli: int) -> int:
    """The Sentry's pid: the child of pid 1 of the new PID namespace, 0 if there is none (yet)."""
    tree = parents()
    for pid, parent in tree.items():
        grandparent = tree.get(parent, 0)
        if grandparent == cli and len(read_status(pid).get("NSpid", "").split()) == 2:
            return pid
    return 0


def pid_namespace(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


def members(namespace: str) -> list[int]:
    """The host's ids of all processes in a PID namespace."""
    return [pid for pid in parents() if pid_namespace(pid) == namespace]


class Outcome:
    def __init__(self, status: int, out: str, err: str, peak: int) -> None:
        self.status, self.out, self.err, self.peak = status, out, err, peak

    def __repr__(self) -> str:
        head = f"status {self.status}, peak {self.peak >> 10} MiB"
        return f"{head}\nstdout: {self.out[-2000:]}\nstderr: {self.err[-4000:]}"


def attack(runner: Runner, *command: str, flags: tuple[str, ...] = (), patience: float = PATIENCE) -> Outcome:
    """Run the hostile command; the Sentry's peak of memory (KiB) is watched meanwhile."""
    argv = runner.argv(*command, flags=flags)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        environment = {"PATH": os.environ["PATH"], "SECRET_OF_THE_CALLER": "1"}
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd="/",
            env=environment,
            start_new_session=True,
        )
        deadline, peak, sentry, namespace, held = time.monotonic() + patience, 0, 0, "", -1
        while process.poll() is None:
            if time.monotonic() > deadline:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                err.seek(0)
                pytest.fail(f"{command}: still running after {patience} s\n{err.read()[-3000:]!r}")
            if not sentry:
                sentry = sentry_of(process.pid)
                namespace = pid_namespace(sentry)
                # As long as it is held, no other sandbox of this host gets its number.
                with suppress(OSError):
                    held = os.open(f"/proc/{sentry}/ns/pid", os.O_RDONLY)
            peak = max(peak, int(read_status(sentry).get("VmHWM", "0 kB").split()[0]) if sentry else 0)
            time.sleep(0.05)
        left = members(namespace) if held >= 0 else []
        if held >= 0:
            os.close(held)
        assert not left, "the sandbox has ended, and left processes behind"
        out.seek(0)
        err.seek(0)
        return Outcome(
            process.returncode, out.read().decode(errors="replace"), err.read().decode(errors="replace"), peak
        )


def survived(outcome: Outcome, lines: int = 0) -> None:
    assert "internal error" not in outcome.err and "Traceback" not in outcome.err, outcome
    assert outcome.status == 0, outcome
    assert SURVIVED in outcome.out, outcome
    said = outcome.err.strip().splitlines()
    assert len(said) <= lines, outcome
    assert outcome.peak < MEMORY, outcome


@pytest.mark.parametrize(
    "name",
    [
        "address_spaces", "vmas", "vmas_fork", "timers", "signals", "signals_many", "huge_sizes", "deep_dirs",
        "symlinks", "many_files", "many_names", "xattrs", "arguments", "threads", "locks", "locks_in_all",
        "zombies", "sessions", "death_chain", "names",
    ],
)  # fmt: skip
def test_resources(name: str, runner: Runner, programs: Path) -> None:
    if not runner.is_root:
        pytest.skip("the same code as for root")
    survived(attack(runner, str(programs / "resources"), name))


@pytest.mark.parametrize(
    "name",
    [
        "fds_dup", "events", "timerfds", "pipes", "memfds", "epolls", "host_files", "ptys", "sockets",
        "pipe_memory", "epoll_entries", "epoll_deep", "epoll_in_all",
    ],
)  # fmt: skip
def test_descriptors(name: str, runner: Runner, programs: Path) -> None:
    if not runner.is_root:
        pytest.skip("the same code as for root")
    survived(attack(runner, str(programs / "descriptors"), name))


@pytest.mark.parametrize(
    "name",
    [
        "aio_polls", "aio_limit", "aio_rings", "aio_long", "peek_long", "rights_chain", "sem_operations",
        "msg_senders", "mq_senders", "datagrams", "inotify_events", "mounts", "mount_names", "terminals",
    ],
)  # fmt: skip
def test_ipc(name: str, runner: Runner, programs: Path) -> None:
    if not runner.is_root:
        pytest.skip("the same code as for root")
    outcome = attack(runner, str(programs / "ipc"), name)
    survived(outcome)
    if name == "mount_names":
        assert outcome.peak < 400 << 10, outcome


@pytest.mark.parametrize("program, name, flags", [
    ("bombs", "fork_bomb", ("--pids", "60")), ("resources", "threads", ("--pids", "60")),
    ("bombs", "memory_bomb", ("--memory", "200M")), ("bombs", "file_bomb", ("--memory", "200M")),
    ("bombs", "shared_bomb", ("--memory", "200M")), ("bombs", "crowd_bomb", ("--memory", "200M")),
])  # fmt: skip
def test_limits(program: str, name: str, flags: tuple[str, str], runner: Runner, programs: Path) -> None:
    survived(attack(runner, str(programs / program), name, flags=flags), lines=1)


def test_page_tables_count(runner: Runner, programs: Path) -> None:
    """Nothing of it is charged.  Somebody of the guest is killed, most often who did it; but a host that is
    still busy taking down his tables may find that his parent has to go, too."""
    outcome = attack(runner, str(programs / "bombs"), "table_bomb", flags=("--memory", "200M"))
    killed = "sentry: memory limit of 200 MiB reached; a process of the guest was killed\n"
    assert outcome.err == killed, outcome
    assert outcome.status == 137 or (outcome.status == 0 and SURVIVED in outcome.out), outcome


def test_shared_memory_is_limited_without_flags(runner: Runner, programs: Path) -> None:
    """Files in memory and shared mappings are the Sentry's: no OOM killer frees them by killing guests."""
    survived(attack(runner, str(programs / "sparse"), "files"))


@pytest.mark.parametrize(
    "name",
    [
        "top",
        "vdso",
        "stub_jump",
        "step",
        "sigreturn",
        "instructions",
        "compat",
        "arch",
        "self_modifying",
        "no_stack",
    ],
)
def test_machine(name: str, runner: Runner, programs: Path) -> None:
    survived(attack(runner, str(programs / "machine"), name))


@pytest.mark.parametrize(
    "name", ["memory", "descriptors", "process_ends", "signal_storm", "handlers", "vforks", "hangups", "tree"]
)
def test_races(name: str, runner: Runner, programs: Path) -> None:
    survived(attack(runner, str(programs / "races"), name))


@pytest.mark.parametrize(
    "name",
    [
        "core_empty", "core_mappings", "queued", "group_lists", "first_process", "orphans", "set_id",
        "copies",
    ],
)  # fmt: skip
def test_processes(name: str, runner: Runner, programs: Path) -> None:
    if not runner.is_root:
        pytest.skip("takes root")
    survived(attack(runner, str(programs / "processes"), name))


STUB_ATTACKS = {
    "trap_code": ["scribble", "scribble_race", "unmap", "advise", "clocks"],
    "trap_calls": ["unordered", "flood", "bell", "lent", "ends", "ends_asleep"],
    "trap_records": ["forge", "forge_own", "results", "futexes", "frames", "returns", "refused"],
}


@pytest.mark.parametrize(
    ("program", "name"), [(program, name) for program, names in STUB_ATTACKS.items() for name in names]
)
def test_stub(program: str, name: str, runner: Runner, programs: Path) -> None:
    """Attacks on the stub in the attacker's own address space; a bystander must not notice."""
    if not runner.is_root and name not in ("unordered", "bell"):
        pytest.skip("the same code as for root")
    outcome = attack(runner, str(programs / program), name, flags=("--platform", "trap"))
    survived(outcome, lines=GUESTS_OWN)
    assert "longest pause" in outcome.out


@pytest.mark.parametrize(
    ("program", "name"), [("trap_code", "unmap"), ("trap_calls", "ends"), ("trap_records", "forge_own")]
)
def test_no_stub_is_left(program: str, name: str, runner: Runner, programs: Path) -> None:
    """After the attack the sandbox has as many stubs as after a run that does nothing: none of a process that
    is no more.  When the sandbox has ended, it has none."""
    if not runner.is_root:
        pytest.skip("the same code as for root")

    def stubs(command: str, expected: int = 0) -> int:
        process = subprocess.Popen(
            runner.argv("sh", "-c", f"{command}; echo over; read line; exit 0", flags=("--platform", "trap")),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        try:
            assert process.stdin is not None and process.stdout is not None
            assert b"over\n" in iter(process.stdout.readline, b""), "it ended early"
            sentry = sentry_of(process.pid)
            namespace = pid_namespace(sentry)
            deadline = time.monotonic() + 10
            while True:  # the last ones may be on their way out
                there = [pid for pid, parent in parents().items() if parent == sentry]
                if len(there) <= expected or time.monotonic() > deadline or not expected:
                    break
                time.sleep(0.05)
            assert sentry in members(namespace)
            process.communicate(b"\n", timeout=PATIENCE)
            assert process.returncode == 0 and not members(namespace)
            return len(there)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()

    # Both execute the program more than once, so what is kept for its next run is in both.
    program = str(programs / program)
    expected = stubs(f"{program} again; {program} again; {program} again")
    assert expected >= 2
    assert stubs(f"{program} {name}", expected) <= expected


def test_memory_that_the_sentry_does_not_know_of(runner: Runner, programs: Path) -> None:
    """The stub's own mmap is not in the Sentry's accounts; the limit holds nevertheless."""
    outcome = attack(runner, str(programs / "trap_calls"), "unknown_memory", flags=("--memory", "200M"))
    survived(outcome, lines=1)
    assert "attack ended with 137" in outcome.out or "attack ended with 0" in outcome.out


def test_what_the_host_refuses_has_not_been(runner: Runner, programs: Path) -> None:
    """The Sentry lets a thread go on with a memory call that it has noted down; then the host refuses it."""
    outcome = attack(runner, str(programs / "trap_calls"), "refused_memory", flags=("--memory", "200M"))
    survived(outcome)
    assert "attack ended with 0" in outcome.out, outcome


def test_jumps_into_the_stub(runner: Runner, programs: Path, seeded: random.Random, long_form: bool) -> None:
    """Random registers at random places of the stub's text, most often at its system calls."""
    if not runner.is_root:
        pytest.skip("the same code as for root")
    for _ in range(40 if long_form else 1):
        seed = seeded.randrange(1 << 30)
        environment = ("env", f"SEED={seed}", "TIMES=150")
        outcome = attack(
            runner, *environment, str(programs / "trap_code"), "jumps", flags=("--platform", "trap")
        )
        survived(outcome, lines=GUESTS_OWN)


@pytest.fixture
def trap(runner: Runner, work_dir: Path, programs: Path) -> Iterator[tuple[Path, Path, Path]]:
    """(root, writable directory, the secret outside of both), laid out for `files.c`."""
    root, data, secret = work_dir / "root", work_dir / "data", work_dir / "outside" / "secret"
    for directory in (root, data, data / "dir", secret.parent):
        directory.mkdir()
    secret.write_text(TEXT)
    shutil.copy2(programs / "files", root / "program")
    (data / "link").symlink_to(secret)
    (data / "relative").symlink_to("../outside/secret")
    (data / "dir" / "link").symlink_to("../../outside/secret")
    (data / "proc").symlink_to(f"/proc/{os.getpid()}/root{secret}")
    (data / "chain").symlink_to("dir/link")
    (data / "hostproc").symlink_to("/proc/self/cwd/../outside/secret")
    (data / "magic").symlink_to("/proc/self/fd/0/../../outside/secret")
    (data / "up").symlink_to("..")
    (data / "root").symlink_to("/")
    os.mkfifo(data / "fifo")
    listener = socket.socket(socket.AF_UNIX)
    previous = os.getcwd()
    os.chdir(data)
    listener.bind("socket")
    os.chdir(previous)
    listener.listen()
    if runner.is_root:
        for name, kind, major, minor in (("mem", stat.S_IFCHR, 1, 1),
            ("disk", stat.S_IFBLK, 8, 0), ("tty", stat.S_IFCHR, 4, 64),
                                         ("unknown", stat.S_IFCHR, 250, 9)):  # fmt: skip
            os.mknod(data / name, kind | 0o666, os.makedev(major, minor))
    elif os.geteuid() == 0:
        for path in [root, *root.rglob("*"), data, *data.rglob("*")]:
            os.chown(path, 1000, 1000, follow_symlinks=False)
    yield root, data, secret
    listener.close()


TEXT = "the host's secret, 4711"


@pytest.mark.parametrize("name", ["names", "chroots", "mounts", "special", "proc", "view"])
def test_files(name: str, runner: Runner, trap: tuple[Path, Path, Path]) -> None:
    root, data, secret = trap
    before = secret.stat()
    flags = ("--rootfs", str(root), "--bind", f"{data}:/data:rw", "--cwd", "/")
    survived(attack(runner, "/program", name, str(secret), TEXT, flags=flags))
    after = secret.stat()
    assert secret.read_text() == TEXT
    assert (after.st_mode, after.st_nlink, after.st_uid) == (before.st_mode, before.st_nlink, before.st_uid)


def lent_descriptors(pid: int) -> list[str]:
    """What a stub holds, but for the bell on `trap`."""
    links = {fd: os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    return [f"{fd} {link}" for fd, link in links.items() if (fd, link) != ("0", "anon_inode:[eventfd]")]


@pytest.mark.parametrize("platform", ["trap", "ptrace"])
def test_stubs_hold_no_descriptor(platform: str, runner: Runner, programs: Path) -> None:
    """While the guest maps files, forks and executes: no stub keeps a descriptor of the host's."""
    busy = "for i in 1 2 3 4 5 6 7 8; do (cat /etc/passwd; ls /usr) > /dev/null; done"
    script = f"{busy}; sleep 30 & sleep 30 & echo ready; wait"
    process = subprocess.Popen(
        runner.argv("sh", "-c", script, flags=("--platform", platform)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        cwd="/",
        start_new_session=True,
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        sentry = sentry_of(process.pid)
        deadline = time.monotonic() + PATIENCE
        # The last children are in execve still: stubs come and go while we look.
        while True:
            stubs = [pid for pid, parent in parents().items() if parent == sentry]
            try:
                time.sleep(0.1)
                open_fds = {pid: lent_descriptors(pid) for pid in stubs} if os.geteuid() == 0 else {}
            except OSError:
                open_fds = {}
                stubs = []
            if (len(stubs) >= 4 and not any(open_fds.values())) or time.monotonic() > deadline:
                break
        assert len(stubs) >= 4
        assert not any(open_fds.values()), open_fds
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_fuzz(runner: Runner, programs: Path, seeded: random.Random, long_form: bool) -> None:
    """Random calls; not by number of calls but by time: about 10 s a user, or minutes."""
    deadline = time.monotonic() + (300 if long_form else 10)
    while time.monotonic() < deadline:
        seed = seeded.randrange(1 << 32)
        outcome = attack(runner, str(programs / "fuzz"), str(seed), "60", "300", flags=("--pids", "200"))
        where = f"fuzz {seed} 60 300"
        assert "internal error" not in outcome.err and "Traceback" not in outcome.err, (where, outcome)
        assert outcome.status == 0 and outcome.out.startswith("done 60 "), (where, outcome)
        assert outcome.peak < MEMORY, (where, outcome)
