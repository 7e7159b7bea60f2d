"""What a compromised Gofer could do, seen from outside, and tried from inside."""

from __future__ import annotations

import errno
import mmap
import os
import select
import signal
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import USER_IDS, USERS

from gofer import main
from gofer.confine import close_all_but
from gofer.filter import compile_filter
from gofer.main import Export

ROOT = os.getuid() == 0


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def landlock_abi() -> int:
    from gofer._native import lib

    abi: int = lib.gofer_landlock_abi()
    return abi


@pytest.mark.parametrize("uid", USERS, ids=USER_IDS)
@pytest.mark.parametrize("readonly", [True, False], ids=["ro", "rw"])
def test_status(start: Any, tree: Path, uid: int, readonly: bool) -> None:
    gofer = start(Export(b"", str(tree), readonly), uid=uid)
    assert gofer.error == ""
    seen = status(gofer.pid)
    assert seen["Seccomp"] == "2"
    assert seen["NoNewPrivs"] == "1"
    expected = "0" if uid else "4" if readonly else "1f"
    for field in ("CapEff", "CapPrm"):
        assert seen[field].lstrip("0") == expected.lstrip("0")
    for field in ("CapInh", "CapAmb"):
        assert int(seen[field], 16) == 0
    if uid == 0:
        assert int(seen["CapBnd"], 16) == int(seen["CapEff"], 16)
    assert seen["Uid"].split() == [str(uid)] * 4
    assert seen["Umask"] == "0000"
    if ROOT:
        assert Path(f"/proc/{gofer.pid}/fd").stat().st_uid == 0  # not dumpable: even a user's belongs to root
    limits = Path(f"/proc/{gofer.pid}/limits").read_text()
    assert "Max core file size        0                    0" in limits
    assert any("seccomp filter" in line and "NO" not in line for line in gofer.applied), gofer.applied


@pytest.mark.skipif(not ROOT, reason="needs root")
def test_own_root_and_namespaces(start: Any, tree: Path) -> None:
    gofer = start(Export(b"", str(tree)))
    root = os.stat(f"/proc/{gofer.pid}/root/.")
    assert (root.st_dev, root.st_ino) == (tree.stat().st_dev, tree.stat().st_ino)
    cwd = os.stat(f"/proc/{gofer.pid}/cwd/.")
    assert cwd.st_ino == root.st_ino
    for namespace in ("mnt", "net", "ipc", "uts"):
        assert os.readlink(f"/proc/{gofer.pid}/ns/{namespace}") != os.readlink(f"/proc/self/ns/{namespace}")
    mounts = Path(f"/proc/{gofer.pid}/mountinfo").read_text().splitlines()
    assert len(mounts) == 1
    options = mounts[0].split()[5].split(",")
    assert {"ro", "nosuid", "nodev"} <= set(options)
    assert "shared:" not in mounts[0]


@pytest.mark.skipif(not ROOT, reason="needs root")
def test_root_of_the_host(start: Any) -> None:
    """rootfs "/": a private copy without proc, sys and dev; nothing changes for the host."""
    before = Path("/proc/self/mountinfo").read_text()
    gofer = start(Export(b"", "/"))
    assert gofer.error == ""
    points = [line.split()[4] for line in Path(f"/proc/{gofer.pid}/mountinfo").read_text().splitlines()]
    assert "/" in points
    assert not [point for point in points if point.startswith(("/proc", "/sys", "/dev"))]
    assert Path("/proc/self/mountinfo").read_text() == before


@pytest.mark.parametrize("uid", USERS, ids=USER_IDS)
def test_descriptors(start: Any, tree: Path, uid: int) -> None:
    """stdio, socket, /proc/self/fd, one for each export; whatever the CLI had open is closed."""
    leaked = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(leaked, True)
    gofer = start(Export(b"", str(tree)), Export(b"bind:0", "/etc"), uid=uid)
    os.close(leaked)
    if ROOT:
        names = sorted(os.readlink(entry.path) for entry in os.scandir(f"/proc/{gofer.pid}/fd"))
        kinds = [name for name in names if not name.startswith(("socket:", "pipe:", "/dev/null"))]
        assert len(names) == 7, names
        assert len(kinds) == 3, names


def test_dies_with_its_parent(seccomp_filter: bytes, tree: Path) -> None:
    ours, theirs = socket.socketpair()
    pid_r, pid_w = os.pipe()
    parent = os.fork()
    if parent == 0:
        child = os.fork()
        if child == 0:
            main.run(
                theirs.detach(),
                [Export(b"", str(tree))],
                seccomp_filter,
                status_fd=pid_w,
                parent_pid=os.getppid(),
            )
        os.write(pid_w, struct.pack("i", child))
        os.close(pid_w)
        signal.pause()
        os._exit(0)
    theirs.close()
    os.close(pid_w)
    data = b""
    while part := os.read(pid_r, 4096):
        data += part
    pid = struct.unpack("i", data[:4])[0]
    pidfd = os.pidfd_open(pid)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    assert select.select([pidfd], [], [], 20)[0], "the Gofer outlived its parent"
    os.close(pidfd)
    os.close(pid_r)
    ours.close()


def test_parent_that_is_gone_already(start: Any, tree: Path) -> None:
    gofer = start(Export(b"", str(tree)), parent_pid=1 if os.getpid() != 1 else 2)
    assert gofer.error == "the Gofer died before it was ready"
    assert gofer.wait() == 1


def test_errors_are_one_line(start: Any, tree: Path) -> None:
    gofer = start(Export(b"", str(tree / "none")))
    assert gofer.error == f"cannot open {str(tree / 'none')!r}: No such file or directory"
    assert gofer.wait() == 1


def confined(
    attack: Callable[[list[Export], int], object], exports: list[Export], uid: int, seccomp: bytes
) -> int:
    """Confine a forked child, run `attack(exports, proc_fd)` in it: 0 if it returned something true."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            if os.getuid() != uid:
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
            fd = theirs.detach()
            server, _ = main.prepare(fd, exports, seccomp, (), main._Log(-1), -1, os.getppid())
            code = 0 if attack(exports, server.session.fs.proc_fd) else 1
        finally:
            os._exit(code)
    theirs.close()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    ours.close()
    return code


def can_read(path: str, dir_fd: int | None = None) -> bool:
    try:
        os.close(os.open(path, os.O_RDONLY, dir_fd=dir_fd))
    except OSError as exc:
        assert exc.errno in (errno.ENOENT, errno.EACCES, errno.ENOTDIR, errno.EPERM, errno.EXDEV)
        return False
    return True


@pytest.mark.parametrize("uid", USERS, ids=USER_IDS)
def test_no_way_out_by_path(tree: Path, uid: int) -> None:
    """Even with every call allowed (no seccomp) a compromised Gofer reads nothing but its exports."""
    if uid and landlock_abi() < 1:
        pytest.skip("nothing but seccomp and openat2 holds a user's Gofer without Landlock")
    for name in ("root/in", "bind/deep/in", "outside"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name)

    def attack(exports: list[Export], proc_fd: int) -> bool:
        up = "../" * 12
        root, bind = exports[0].fd, exports[1].fd
        inside = can_read("in", root) and can_read("in", bind)
        by_fd = [
            (root, "../outside"),
            (bind, "../../outside"),
            (root, up + "etc/passwd"),
            (bind, up + "etc/passwd"),
            (proc_fd, "../status"),
            (proc_fd, "../environ"),
            (proc_fd, "../../version"),
            (proc_fd, "../../sys/kernel/core_pattern"),
            (proc_fd, "../root/etc/passwd"),
            (proc_fd, "../../1/root/etc/passwd"),
            (proc_fd, f"../../{os.getppid()}/root/etc/passwd"),
        ]
        by_name = ["/etc/passwd", up + "etc/passwd", "/proc/self/status", "/dev/null"]
        outside = [can_read(path, fd) for fd, path in by_fd] + [can_read(path) for path in by_name]
        return inside and not any(outside)

    exports = [Export(b"", str(tree / "root")), Export(b"bind:0", str(tree / "bind/deep"), readonly=False)]
    assert confined(attack, exports, uid, b"") == 0


@pytest.mark.parametrize("uid", USERS, ids=USER_IDS)
def test_readonly_is_the_hosts_word_too(tree: Path, uid: int) -> None:
    if uid and landlock_abi() < 1:
        pytest.skip("no Landlock")
    (tree / "ro").mkdir()
    (tree / "rw").mkdir()

    def attack(exports: list[Export], proc_fd: int) -> bool:
        os.mkdir("made", dir_fd=exports[1].fd)
        try:
            os.mkdir("made", dir_fd=exports[0].fd)
        except OSError as exc:
            return exc.errno in (errno.EROFS, errno.EACCES)
        return False

    exports = [Export(b"", str(tree / "ro")), Export(b"bind:0", str(tree / "rw"), readonly=False)]
    assert confined(attack, exports, uid, b"") == 0
    assert (tree / "rw/made").is_dir() and not (tree / "ro/made").exists()


FORBIDDEN: dict[str, Callable[[], object]] = {
    "openat": lambda: os.open("/", os.O_RDONLY),
    "socket": lambda: socket.socket(),
    "fork": lambda: os.fork(),
    "execve": lambda: os.execv("/bin/true", ["true"]),
    "kill": lambda: os.kill(os.getppid(), 0),
    "pipe": lambda: os.pipe(),
    "chroot": lambda: os.chroot("/"),
    "setuid": lambda: os.setuid(0),
    "memfd_create": lambda: os.memfd_create("x"),
    "ioctl": lambda: os.isatty(0),
    "executable memory": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC),
    "device node": lambda: os.mknod("/x", 0o020600, os.makedev(1, 3)),
    "setsid": lambda: os.setsid(),
    "unshare": lambda: _unshare(),
}


def _unshare() -> None:
    from gofer._native import lib

    lib.gofer_unshare(0x10000000)


@pytest.mark.parametrize("name", FORBIDDEN)
def test_forbidden_calls_die(name: str, tree: Path, seccomp_filter: bytes) -> None:
    code = confined(
        lambda exports, proc_fd: FORBIDDEN[name](), [Export(b"", str(tree))], os.getuid(), seccomp_filter
    )
    assert code == -signal.SIGSYS


def test_filter_without_writing(tree: Path) -> None:
    readonly = compile_filter(writable=False)
    exports = [Export(b"", str(tree), readonly=False)]
    assert confined(lambda e, p: os.mkdir("/x"), exports, os.getuid(), readonly) == -signal.SIGSYS
    assert (
        confined(lambda e, p: os.mkdir("x", dir_fd=e[0].fd), exports, os.getuid(), readonly) == -signal.SIGSYS
    )
    assert confined(lambda e, p: os.fstat(e[0].fd), exports, os.getuid(), readonly) == 0
    assert not (tree / "x").exists()


def test_filter_is_the_same_every_time() -> None:
    assert compile_filter() == compile_filter()
    assert len(compile_filter()) % 8 == 0 and len(compile_filter()) // 8 <= 4096


def test_close_all_but() -> None:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            keep = [0, 2, 40]
            os.dup2(1, 40)
            close_all_but(keep)
            code = 0 if [fd for fd in range(100) if _is_open(fd)] == keep else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@pytest.mark.skipif(not ROOT, reason="needs root")
def test_nothing_stays_mounted(start: Any, tree: Path) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    gofer = start(Export(b"", "/"), Export(b"bind:0", str(tree), readonly=False))
    gofer.sock.close()
    assert gofer.wait() == 0
    assert Path("/proc/self/mountinfo").read_text() == before
    tree.rmdir()
    tree.mkdir()


@pytest.mark.skipif(not ROOT, reason="needs root")
def test_the_first_export_is_the_root(start: Any, tree: Path) -> None:
    (tree / "root").mkdir()
    (tree / "bind").mkdir()
    gofer = start(Export(b"root", str(tree / "root")), Export(b"bind:0", str(tree / "bind")))
    assert os.stat(f"/proc/{gofer.pid}/root/.").st_ino == (tree / "root").stat().st_ino
