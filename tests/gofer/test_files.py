"""The acceptance suite: every file operation, over both protocols, as root and as a user, confined."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import NOBODY, USER_IDS, USERS

from gofer import messages as m
from gofer.main import Export
from sentry.abi.errors import SysError
from sentry.fs.gofer.client import Client


class Remote:
    """The client with its coroutines run to the end, and the root fid of an export."""

    def __init__(self, client: Client, aname: bytes = b"") -> None:
        self.client = client
        self.root = client.run(client.attach(aname))[0]

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.client, name)
        return lambda *args, **kwargs: self.client.run(method(*args, **kwargs))

    def at(self, *names: bytes) -> int:
        fid: int = self.walk(self.root, names)[0]
        return fid

    def read_file(self, *names: bytes) -> bytes:
        fid = self.at(*names)
        host_fd, _, _ = self.open_fd(fid, os.O_RDONLY)
        if host_fd is not None:
            with open(host_fd, "rb") as file:
                return file.read()
        data = b""
        while part := self.read(fid, len(data), 1 << 20):
            data += part
        return data

    def list(self, *names: bytes, size: int = 32768) -> list[tuple[bytes, int, int]]:
        fid = self.at(*names)
        self.open_fd(fid, os.O_RDONLY | os.O_DIRECTORY)
        found: list[tuple[bytes, int, int]] = []
        offset = 0
        while entries := self.readdir(fid, offset, size):
            found += [(name, kind, qid.path) for qid, _, kind, name in entries]
            offset = entries[-1][1]
        self.client.clunk(fid)
        return found


def raises(error: int, call: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    with pytest.raises(SysError) as caught:
        call(*args, **kwargs)
    assert caught.value.errno == error, caught.value


@pytest.fixture(params=USERS, ids=USER_IDS)
def uid(request: pytest.FixtureRequest) -> int:
    uid: int = request.param
    return uid


@pytest.fixture(params=[False, True], ids=["9P2000.L", "9P2000.L.sentry"])
def remote(request: pytest.FixtureRequest, start: Any, tree: Path, uid: int) -> Iterator[Remote]:
    """A writable export of `tree`."""
    gofer = start(Export(b"", str(tree), readonly=False), uid=uid)
    assert gofer.error == "", gofer.error
    client = gofer.client(request.param)
    assert client.extended is request.param
    yield Remote(client)
    client.close()
    gofer.sock.close()
    assert gofer.wait() == 0
    assert gofer.log() == ""


def test_walk_and_getattr(remote: Remote, tree: Path) -> None:
    (tree / "a/b").mkdir(parents=True)
    (tree / "a/b/file").write_bytes(b"12345")
    os.utime(tree / "a/b/file", ns=(-1_500_000_000, 7_000_000_123))
    fid, attrs, error = remote.walkgetattr(remote.root, [b"a", b"b", b"file"])
    assert error == 0 and len(attrs) == 3
    host = (tree / "a/b/file").stat()
    for attr in (attrs[2], remote.getattr(fid)):
        assert (attr.mode, attr.nlink, attr.uid, attr.gid) == (host.st_mode, 1, host.st_uid, host.st_gid)
        assert (attr.size, attr.blksize, attr.blocks) == (5, host.st_blksize, host.st_blocks)
        assert (attr.atime, attr.mtime, attr.ctime) == (-1_500_000_000, 7_000_000_123, host.st_ctime_ns)
        assert attr.ino == host.st_ino and attr.rdev == 0
    assert attrs[0].qid.type == m.QTDIR and attrs[2].qid.type == m.QTFILE
    clone, own, error = remote.walkgetattr(fid, [])
    assert error == 0 and own[0] == attrs[2] and clone != fid


def test_partial_walk(remote: Remote, tree: Path) -> None:
    (tree / "dir").mkdir()
    (tree / "dir/file").touch()
    fid, attrs, error = remote.walkgetattr(remote.root, [b"dir", b"none", b"x"])
    assert (fid, len(attrs), error) == (None, 1, errno.ENOENT)
    fid, attrs, error = remote.walkgetattr(remote.root, [b"dir", b"file", b"x"])
    assert (fid, len(attrs), error) == (None, 2, errno.ENOTDIR)
    assert remote.walkgetattr(remote.root, [b"none"]) == (None, [], errno.ENOENT)
    raises(errno.ENOENT, remote.walk, remote.root, [b"none"])
    raises(errno.ENOENT, remote.walk, remote.root, [b"dir", b"none"])
    raises(errno.ENOTDIR, remote.walk, remote.root, [b"dir", b"file", b"x"])


def test_symlinks_are_never_followed(remote: Remote, tree: Path) -> None:
    (tree / "dir").mkdir()
    (tree / "dir/file").write_bytes(b"x")
    os.symlink("/etc", tree / "abs")
    os.symlink("../../../../etc", tree / "rel")
    os.symlink("dir", tree / "inside")
    os.symlink("/proc/self/root", tree / "magic")
    for name in (b"abs", b"rel", b"inside", b"magic"):
        fid, attrs, error = remote.walkgetattr(remote.root, [name, b"file"])
        assert fid is None and error == errno.ENOTDIR
        assert [stat.S_ISLNK(attr.mode) for attr in attrs] == [True]
        link = remote.at(name)
        assert remote.readlink(link) == os.fsencode(os.readlink(tree / os.fsdecode(name)))
        raises(errno.ELOOP, remote.open_fd, link, os.O_RDONLY)
        raises(errno.ENOTDIR, remote.mkdir, link, b"x", 0o755)
        raises(errno.EEXIST, remote.create_fd, remote.root, name, os.O_RDWR, 0o644)
    raises(errno.EINVAL, remote.readlink, remote.at(b"dir"))


def test_dotdot_and_slashes_are_refused(remote: Remote, tree: Path) -> None:
    (tree / "dir").mkdir()
    for name in (b"..", b".", b"", b"a/b", b"a\0b"):
        raises(errno.EINVAL, remote.walk, remote.root, [name])
        raises(errno.EINVAL, remote.mkdir, remote.root, name, 0o755)
    raises(errno.ENAMETOOLONG, remote.walk, remote.root, [b"x" * 256])


def test_open_read_write(remote: Remote, tree: Path) -> None:
    (tree / "file").write_bytes(b"hello")
    fid = remote.at(b"file")
    host_fd, qid, iounit = remote.open_fd(fid, os.O_RDWR)
    assert qid.path == (tree / "file").stat().st_ino and iounit > 0
    if remote.client.extended:
        assert not os.get_inheritable(host_fd)
        assert os.pread(host_fd, 10, 0) == b"hello"
        assert os.pwrite(host_fd, b"HE", 0) == 2
        os.close(host_fd)
        # The fid was left unopened: it opens again, otherwise.
        host_fd, _, _ = remote.open_fd(fid, os.O_RDONLY)
        with pytest.raises(OSError):
            os.pwrite(host_fd, b"x", 0)
        os.close(host_fd)
        raises(errno.EBADF, remote.read, fid, 0, 10)
    else:
        assert host_fd is None
        assert remote.read(fid, 0, 10) == b"hello"
        assert remote.read(fid, 5, 10) == b""
        assert remote.write(fid, 0, b"HE") == 2
        raises(errno.EBUSY, remote.open_fd, fid, os.O_RDONLY)
    assert (tree / "file").read_bytes() == b"HEllo"
    remote.fsync(fid)
    remote.fsync(remote.root, True)


def test_open_survives_rename_and_unlink(remote: Remote, tree: Path) -> None:
    (tree / "file").write_bytes(b"content")
    fid = remote.at(b"file")
    gone = remote.at(b"file")
    remote.renameat(remote.root, b"file", remote.root, b"other")
    (tree / "file").write_bytes(b"impostor")
    assert remote.getattr(fid).size == 7
    remote.unlinkat(remote.root, b"other")
    assert remote.getattr(gone).nlink == 0
    host_fd, _, _ = remote.open_fd(gone, os.O_RDONLY)
    data = os.read(host_fd, 100) if host_fd is not None else remote.read(gone, 0, 100)
    if host_fd is not None:
        os.close(host_fd)
    assert data == b"content"


def test_large_read_and_write(remote: Remote, tree: Path) -> None:
    data = bytes(range(256)) * 4096
    (tree / "big").write_bytes(data)
    assert remote.read_file(b"big") == data
    if not remote.client.extended:
        fid = remote.at(b"big")
        remote.open_fd(fid, os.O_WRONLY | os.O_TRUNC)
        done = 0
        while done < len(data):
            done += remote.write(fid, done, data[done:])
        assert (tree / "big").read_bytes() == data


def test_create(remote: Remote, tree: Path) -> None:
    fid, host_fd, attr = remote.create_fd(remote.root, b"new", os.O_RDWR, 0o4751)
    assert stat.S_ISREG(attr.mode) and attr.mode & 0o7777 == 0o4751 and attr.size == 0
    if host_fd is not None:
        os.write(host_fd, b"abc")
        os.close(host_fd)
    else:
        assert remote.write(fid, 0, b"abc") == 3
    assert remote.getattr(fid).size == 3
    assert (tree / "new").read_bytes() == b"abc"
    raises(errno.EEXIST, remote.create_fd, remote.root, b"new", os.O_RDWR, 0o600)
    raises(errno.ENOTDIR, remote.create_fd, remote.at(b"new"), b"x", os.O_RDWR, 0o600)
    assert remote.at(b"new")  # the directory's fid is as it was


def test_create_gives_owner(remote: Remote, tree: Path, uid: int) -> None:
    _, host_fd, attr = remote.create_fd(remote.root, b"new", os.O_RDWR, 0o600, 12345, 23456)
    if host_fd is not None:
        os.close(host_fd)
    host = (tree / "new").stat()
    assert (attr.uid, attr.gid) == (host.st_uid, host.st_gid)
    if uid == 0:
        assert host.st_gid == 23456 and host.st_uid == (12345 if remote.client.extended else 0)
    else:
        assert (host.st_uid, host.st_gid) == (uid, uid if uid == NOBODY else host.st_gid)


def test_readdir(remote: Remote, tree: Path) -> None:
    (tree / "dir").mkdir()
    for i in range(500):
        (tree / "dir" / f"file-{i}").touch()
    (tree / "dir/sub").mkdir()
    os.symlink("x", tree / "dir/link")
    os.mkfifo(tree / "dir/fifo")
    expected = {b".": 4, b"..": 4, b"sub": 4, b"link": 10, b"fifo": 1}
    expected |= {b"file-%d" % i: 8 for i in range(500)}
    for size in (32768, 300, 4000):
        found = remote.list(b"dir", size=size)
        assert len(found) == len(expected)
        assert {name: kind for name, kind, _ in found} == expected
    inodes = {name: ino for name, _, ino in found}
    assert inodes[b"sub"] == (tree / "dir/sub").stat().st_ino == remote.getattr(remote.at(b"dir", b"sub")).ino
    fid = remote.at(b"dir")
    raises(errno.EBADF, remote.readdir, fid, 0)
    remote.open_fd(fid, os.O_RDONLY)
    raises(errno.EINVAL, remote.readdir, fid, 0, 10)
    # Seeking back and forth.
    first = remote.readdir(fid, 0, 1000)
    again = remote.readdir(fid, first[3][1], 1000)
    assert again[0] == first[4] and remote.readdir(fid, 0, 1000) == first
    raises(errno.EISDIR, remote.open_fd, remote.at(b"dir"), os.O_RDWR)


def test_mkdir_symlink_mknod_link(remote: Remote, tree: Path) -> None:
    qid = remote.mkdir(remote.root, b"dir", 0o1775)
    assert qid.type == m.QTDIR and qid.path == (tree / "dir").stat().st_ino
    assert stat.S_IMODE((tree / "dir").stat().st_mode) == 0o1775
    raises(errno.EEXIST, remote.mkdir, remote.root, b"dir", 0o755)
    assert remote.symlink(remote.root, b"link", b"/any/where").type == m.QTSYMLINK
    assert os.readlink(tree / "link") == "/any/where"
    remote.mknod(remote.root, b"fifo", stat.S_IFIFO | 0o640)
    remote.mknod(remote.root, b"sock", stat.S_IFSOCK | 0o640)
    remote.mknod(remote.root, b"reg", stat.S_IFREG | 0o640)
    assert stat.filemode((tree / "fifo").stat().st_mode) == "prw-r-----"
    for kind in (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFDIR):
        raises(errno.EPERM, remote.mknod, remote.root, b"dev", kind | 0o600, 1, 3)
    (tree / "reg").write_bytes(b"x")
    remote.link(remote.root, remote.at(b"reg"), b"hard")
    remote.link(remote.root, remote.at(b"link"), b"hardlink")
    assert (tree / "hard").stat().st_nlink == 2 and os.readlink(tree / "hardlink") == "/any/where"
    # Neither FIFOs nor sockets are opened, only looked at.
    for name in (b"fifo", b"sock"):
        fid = remote.at(name)
        assert remote.getattr(fid).mode & 0o777 == 0o640
        raises(errno.ENXIO, remote.open_fd, fid, os.O_RDONLY)


def test_rename_and_unlink(remote: Remote, tree: Path) -> None:
    remote.mkdir(remote.root, b"one", 0o755)
    remote.mkdir(remote.root, b"two", 0o755)
    (tree / "one/file").write_bytes(b"1")
    one, two = remote.at(b"one"), remote.at(b"two")
    remote.renameat(one, b"file", two, b"moved")
    assert (tree / "two/moved").read_bytes() == b"1"
    raises(errno.ENOENT, remote.renameat, one, b"file", two, b"moved")
    raises(errno.ENOTEMPTY, remote.unlinkat, remote.root, b"two", 0x200)
    raises(errno.EISDIR, remote.unlinkat, remote.root, b"two")
    raises(errno.ENOTDIR, remote.unlinkat, two, b"moved", 0x200)
    raises(errno.EINVAL, remote.unlinkat, two, b"moved", 1)
    remote.unlinkat(two, b"moved")
    remote.unlinkat(remote.root, b"two", 0x200)
    assert os.listdir(tree) == ["one"]


def test_rename_and_remove_by_fid(remote: Remote, tree: Path) -> None:
    (tree / "a/b").mkdir(parents=True)
    (tree / "a/b/file").write_bytes(b"1")
    fid = remote.at(b"a", b"b", b"file")
    remote._call(m.Trename(fid, remote.at(b"a"), b"up"))
    assert (tree / "a/up").read_bytes() == b"1"
    remote.remove(fid)
    assert not (tree / "a/up").exists()
    raises(errno.EBADF, remote.getattr, fid)
    remote.remove(remote.at(b"a", b"b"))
    assert os.listdir(tree / "a") == []
    raises(errno.ESTALE, remote.remove, remote.at())
    (tree / "gone").touch()
    fid = remote.at(b"gone")
    os.unlink(tree / "gone")
    raises(errno.ENOENT, remote.remove, fid)


def test_setattr(remote: Remote, tree: Path, uid: int) -> None:
    (tree / "file").write_bytes(b"12345")
    if uid:
        os.chown(tree / "file", uid, uid)
    fid = remote.at(b"file")
    remote.setattr(fid, m.SETATTR_SIZE, size=3)
    remote.setattr(fid, m.SETATTR_MODE, mode=0o2640)
    when = m.SETATTR_ATIME | m.SETATTR_MTIME | m.SETATTR_ATIME_SET | m.SETATTR_MTIME_SET
    remote.setattr(fid, when, atime=-5, mtime=1_000_000_007)
    host = (tree / "file").stat()
    assert (host.st_size, host.st_mode & 0o7777) == (3, 0o2640)
    assert (host.st_atime_ns, host.st_mtime_ns) == (-5, 1_000_000_007)
    remote.setattr(fid, m.SETATTR_MTIME)
    host = (tree / "file").stat()
    assert host.st_atime_ns == -5 and host.st_mtime_ns > 1_600_000_000 * 10**9
    raises(errno.EINVAL, remote.setattr, fid, 1 << 30)
    if uid == 0:
        remote.setattr(fid, m.SETATTR_UID | m.SETATTR_GID | m.SETATTR_MODE, uid=1234, gid=4321, mode=0o6755)
        host = (tree / "file").stat()
        assert (host.st_uid, host.st_gid, host.st_mode & 0o7777) == (1234, 4321, 0o6755)
    else:
        raises(errno.EPERM, remote.setattr, fid, m.SETATTR_UID, uid=1234)
    remote.mkdir(remote.root, b"dir", 0o755)
    raises(errno.EISDIR, remote.setattr, remote.at(b"dir"), m.SETATTR_SIZE, size=3)
    os.symlink("file", tree / "link")
    if uid:
        os.chown(tree / "link", uid, uid, follow_symlinks=False)
    link = remote.at(b"link")
    remote.setattr(link, when, atime=1, mtime=2)
    assert (tree / "link").lstat().st_mtime_ns == 2 and (tree / "file").stat().st_mtime_ns != 2
    raises(errno.EOPNOTSUPP, remote.setattr, link, m.SETATTR_MODE, mode=0o600)


def test_statfs(remote: Remote, tree: Path) -> None:
    found = remote.statfs(remote.root)
    host = os.statvfs(tree)
    assert (found.bsize, found.blocks, found.files, found.namelen) == (
        host.f_bsize,
        host.f_blocks,
        host.f_files,
        255,
    )
    assert found.type != 0


def test_xattrs(remote: Remote, tree: Path, uid: int) -> None:
    (tree / "file").touch()
    try:
        os.setxattr(tree / "file", "user.host", b"1")
    except OSError:
        pytest.skip("no user xattrs here")
    if uid:
        os.chown(tree / "file", uid, uid)
    fid = remote.at(b"file")
    value = bytes(range(256)) * 12
    remote.xattr_set(fid, b"user.a", value)
    assert os.getxattr(tree / "file", "user.a") == value == remote.xattr_get(fid, b"user.a")
    assert sorted(remote.xattr_list(fid)) == [b"user.a", b"user.host"]
    raises(errno.EEXIST, remote.xattr_set, fid, b"user.a", b"x", 1)
    remote.xattr_remove(fid, b"user.a")
    raises(errno.ENODATA, remote.xattr_get, fid, b"user.a")
    raises(errno.ENODATA, remote.xattr_remove, fid, b"user.a")
    raises(errno.EPERM, remote.xattr_set, fid, b"security.capability", b"x")
    raises(errno.EPERM, remote.xattr_set, fid, b"trusted.x", b"x")
    raises(errno.E2BIG, remote._call, m.Txattrcreate(fid, b"user.b", 1 << 20, 0))


def test_locks(remote: Remote, tree: Path) -> None:
    (tree / "file").write_bytes(b"x" * 100)
    one, two = remote.at(b"file"), remote.at(b"file")
    for fid in (one, two):
        remote._call(m.Tlopen(fid, os.O_RDWR))
    lock = lambda fid, kind: remote._call(m.Tlock(fid, kind, 0, 0, 10, 1, b"me")).status  # noqa: E731
    assert lock(one, 1) == m.LOCK_SUCCESS
    assert lock(two, 0) == m.LOCK_BLOCKED
    held = remote._call(m.Tgetlock(two, 0, 0, 50, 1, b"me"))
    assert (held.type, held.start, held.length) == (1, 0, 10)
    assert lock(one, 2) == m.LOCK_SUCCESS
    assert remote._call(m.Tgetlock(two, 0, 0, 50, 1, b"me")).type == 2
    assert lock(two, 0) == m.LOCK_SUCCESS


def test_reopen_readonly(remote: Remote, tree: Path) -> None:
    memfd = os.memfd_create("x", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(memfd, b"shared")
    if not remote.client.extended:
        raises(errno.EOPNOTSUPP, remote.reopen_readonly, memfd)
        return
    twin = remote.reopen_readonly(memfd)
    assert os.pread(twin, 10, 0) == b"shared" and os.fstat(twin).st_ino == os.fstat(memfd).st_ino
    with pytest.raises(OSError):
        os.write(twin, b"x")
    # Nothing that has a name, and nothing that is only a name.
    (tree / "file").touch()
    read_end, write_end = os.pipe()
    for path in (tree / "file", tree):
        for flags in (os.O_RDONLY, os.O_PATH):
            fd = os.open(path, flags)
            raises(errno.EPERM, remote.reopen_readonly, fd)
            os.close(fd)
    raises(errno.EPERM, remote.reopen_readonly, read_end)
    by_name = os.open(f"/proc/self/fd/{memfd}", os.O_PATH)
    raises(errno.EPERM, remote.reopen_readonly, by_name)
    for fd in (memfd, twin, read_end, write_end, by_name):
        os.close(fd)


def test_readonly_export(start: Any, tree: Path, uid: int) -> None:
    (tree / "dir").mkdir(mode=0o777)
    (tree / "dir").chmod(0o777)
    (tree / "file").write_bytes(b"x")
    (tree / "file").chmod(0o666)
    gofer = start(Export(b"", str(tree)), uid=uid)
    remote = Remote(gofer.client())
    root, fid, directory = remote.root, remote.at(b"file"), remote.at(b"dir")
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, os.O_WRONLY | os.O_TRUNC):
        raises(errno.EROFS, remote.open_fd, fid, flags)
        raises(errno.EROFS, remote._call, m.Tlopen(fid, flags))
    raises(errno.EROFS, remote.create_fd, root, b"new", os.O_RDWR, 0o600)
    none = m.NONUNAME
    for message in (
        m.Tlcreate(directory, b"new", os.O_RDWR, 0o600, none), m.Tmkdir(root, b"new", 0o755, none),
        m.Tsymlink(root, b"new", b"x", none), m.Tmknod(root, b"new", stat.S_IFREG, 0, 0, none),
        m.Tlink(root, fid, b"new"), m.Trename(fid, directory, b"new"), m.Tunlinkat(root, b"file", 0),
        m.Trenameat(root, b"file", root, b"new"), m.Tsetattr(fid, m.SETATTR_MODE, 0o600, *[0] * 7),
        m.Txattrcreate(fid, b"user.x", 1, 0), m.Tremove(remote.at(b"file")),
    ):  # fmt: skip
        raises(errno.EROFS, remote._call, message)
    assert remote.read_file(b"file") == b"x"
    assert sorted(os.listdir(tree)) == ["dir", "file"]


def test_several_exports(start: Any, tree: Path, uid: int) -> None:
    for name in ("root", "rw", "ro"):
        (tree / name).mkdir()
        (tree / name).chmod(0o777)
        (tree / name / "who").write_text(name)
    (tree / "single").write_bytes(b"one file")
    gofer = start(
        Export(b"", str(tree / "root")), Export(b"bind:0", str(tree / "rw"), readonly=False),
        Export(b"bind:1", str(tree / "ro")), Export(b"bind:2", str(tree / "single")), uid=uid,
    )  # fmt: skip
    assert gofer.error == ""
    client = gofer.client()
    remotes = [Remote(client, name) for name in (b"", b"bind:0", b"bind:1")]
    assert [remote.read_file(b"who") for remote in remotes] == [b"root", b"rw", b"ro"]
    root, rw, ro = remotes
    rw.mkdir(rw.root, b"made", 0o755)
    assert (tree / "rw/made").is_dir()
    for remote in (root, ro):
        raises(errno.EROFS, remote.mkdir, remote.root, b"made", 0o755)
    raises(errno.EROFS, rw.renameat, root.root, b"who", rw.root, b"x")
    single = Remote(client, b"bind:2")
    assert single.getattr(single.root).size == 8 and single.read_file() == b"one file"
    raises(errno.ENOTDIR, single.walk, single.root, [b"x"])
    with pytest.raises(SysError) as caught:
        client.run(client.attach(b"bind:3"))
    assert caught.value.errno == errno.ENOENT


def test_host_pseudo_file_systems_are_empty(start: Any, uid: int) -> None:
    gofer = start(Export(b"", "/"), Export(b"bind:0", "/proc"), uid=uid)
    assert gofer.error == ""
    client = gofer.client()
    remote = Remote(client)
    for name in (b"proc", b"sys"):
        assert stat.S_ISDIR(remote.getattr(remote.at(name)).mode)
        assert {entry[0] for entry in remote.list(name)} <= {b".", b".."}
        raises(errno.ENOENT, remote.walk, remote.root, [name, b"version"])
        raises(errno.ENOENT, remote.walk, remote.root, [name, b"self"])
        raises(errno.EROFS, remote.mkdir, remote.at(name), b"x", 0o755)
    raises(errno.ENOENT, remote.walk, remote.root, [b"dev", b"null"])
    proc = Remote(client, b"bind:0")
    assert proc.list() == []
    raises(errno.ENOENT, proc.walk, proc.root, [b"self"])
    assert remote.read_file(b"etc", b"passwd") == Path("/etc/passwd").read_bytes()


def test_device_nodes_are_never_opened(start: Any, tree: Path, uid: int) -> None:
    if os.getuid():
        pytest.skip("needs root")
    os.mknod(tree / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    gofer = start(Export(b"", str(tree), readonly=False), uid=uid)
    remote = Remote(gofer.client())
    fid = remote.at(b"null")
    attr = remote.getattr(fid)
    assert stat.S_ISCHR(attr.mode) and attr.rdev == os.makedev(1, 3)
    for flags in (os.O_RDONLY, os.O_RDWR):
        raises(errno.ENXIO, remote.open_fd, fid, flags)


def test_unreadable_files(start: Any, tree: Path, uid: int) -> None:
    (tree / "secret").write_bytes(b"x")
    (tree / "secret").chmod(0o600)
    gofer = start(Export(b"", str(tree)), uid=uid)
    remote = Remote(gofer.client())
    if uid == os.getuid():
        assert remote.read_file(b"secret") == b"x"
    else:
        assert remote.getattr(remote.at(b"secret")).uid == os.getuid()  # owners as they are on the host
        raises(errno.EACCES, remote.read_file, b"secret")
