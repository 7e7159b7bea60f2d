"""Tlistdirs, Topenfiles, Tlook: whole directories, many files, and what is asked for next in one message."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from gofer import messages as m
from gofer.main import Export
from sentry.abi.errors import SysError


@pytest.fixture
def full(tree: Path) -> Path:
    (tree / "dir").mkdir()
    (tree / "dir" / "file").write_bytes(b"content")
    os.chmod(tree / "dir" / "file", 0o640)
    os.link(tree / "dir" / "file", tree / "dir" / "twin")
    os.symlink("/etc/passwd", tree / "dir" / "link")
    os.mkfifo(tree / "dir" / "fifo")
    (tree / "dir" / "below").mkdir()
    os.utime(tree / "dir" / "below", ns=(-1_500_000_000, 1 << 60))
    (tree / "dir" / ("n" * 255)).write_bytes(b"")
    return tree


@pytest.fixture
def client(start: Any, full: Path) -> Any:
    return start(Export(b"", str(full))).client()


def listing_of(client: Any, fid: int, *path: bytes) -> m.Listing:
    ((error, listing, at, fds),) = client.run(client.list_dirs(fid, path))
    assert not error and listing is not None and not at and not fds
    return listing


def test_a_listing_tells_what_walks_tell(client: Any, full: Path) -> None:
    root, _ = client.run(client.attach())
    fid, _ = client.run(client.walk(root, [b"dir"]))
    listing = listing_of(client, root, b"dir")
    assert sorted(name for _, _, name in listing.brief) == sorted(os.listdir(os.fsencode(full / "dir")))
    for path, kind, name in listing.brief:
        _, (walked,), _ = client.run(client.walkgetattr(fid, [name]))
        told: Any = listing.attr(name)
        told.qid = m.Qid((told.qid.type, walked.qid.version, told.qid.path))
        assert told == walked and path == walked.qid.path and kind == walked.mode >> 12
    assert listing_of(client, fid).data == listing.data


def test_many_directories_with_files(client: Any, full: Path) -> None:
    for top in range(10):
        (full / f"d{top}").mkdir()
        for number in range(top):
            (full / f"d{top}" / f"{number}").write_bytes(b"%d" % number)
        (full / f"d{top}" / "sub").mkdir()
    root, _ = client.run(client.attach())
    names = [b"d3", b"no", b"d0", b"d9"]
    result = client.run(client.list_dirs(root, [], names, files=5))
    assert [error for error, *_ in result] == [0, errno.ENOENT, 0, 0]
    for name, (error, listing, at, fds) in zip(names, result, strict=True):
        if error:
            assert listing is None
            continue
        regular = [entry[2] for entry in listing.brief if entry[1] == 8]
        assert len(listing.brief) == len(regular) + 1 == int(name[1:]) + 1
        assert at == [listing.at[file] for file in regular[:5]]
        for file, fd in zip(regular, fds, strict=False):
            assert os.read(fd, 9) == file
            os.close(fd)
    many = client.run(client.list_dirs(root, [], [b"d%d" % n for n in range(10)] * 5, files=9))
    assert len(many) < 50 and sum(len(fds) for *_, fds in many) == m.MAX_OPENFILES
    for *_, fds in many:
        for fd in fds:
            os.close(fd)


def test_only_directories_are_listed(client: Any) -> None:
    root, _ = client.run(client.attach())
    for path, error in (
        ([b"dir", b"file"], errno.ENOTDIR), ([b"no"], errno.ENOENT), ([b"dir", b"link"], errno.ENOTDIR),
    ):  # fmt: skip
        ((found, *_),) = client.run(client.list_dirs(root, path[:-1], path[-1:]))
        assert found == error
    with pytest.raises(SysError) as caught:
        client.run(client.list_dirs(root, [b"dir", b"link", b"x"]))
    assert caught.value.errno == errno.ENOTDIR


def test_a_directory_that_is_too_large_has_no_list(client: Any, full: Path) -> None:
    for number in range(1500):
        (full / "dir" / f"{number}").write_bytes(b"")
    root, _ = client.run(client.attach())
    fid, _ = client.run(client.walk(root, [b"dir"]))
    assert client.run(client.list_dirs(fid, [], files=3)) == [(0, None, [], [])]
    assert [listing for _, listing, *_ in client.run(client.list_dirs(root, [], [b"dir", b"dir"]))] == [None]
    offset, count = 0, 0
    assert client.run(client.open_fd(fid, os.O_RDONLY | os.O_DIRECTORY))[0] is None
    while entries := client.run(client.readdir(fid, offset)):
        count += len(entries)
        offset = entries[-1][1]
    assert count == 1500 + 6 + 2


def test_files_are_opened_in_the_order_of_their_names(client: Any, full: Path) -> None:
    for number in range(60):
        (full / "dir" / f"{number}").write_bytes(b"%d" % number)
    root, _ = client.run(client.attach())
    names = [b"%d" % number for number in range(60)]
    names[10:10] = [b"no", b"below", b"link", b"fifo"]
    fds = client.run(client.open_files(root, [b"dir"], names))
    assert fds[10:14] == [-errno.ENOENT, -errno.EXDEV, -errno.EXDEV, -errno.EXDEV]
    for name, fd in zip(names, fds, strict=True):
        if fd >= 0:
            assert os.read(fd, 10) == name and not os.get_inheritable(fd)
            with pytest.raises(OSError):
                os.write(fd, b"x")
            os.close(fd)
    assert sum(fd >= 0 for fd in fds) == 60


def test_no_name_leads_out(client: Any, start: Any, full: Path) -> None:
    root, _ = client.run(client.attach())
    for name in (b"..", b"../x", b"", b"a/b"):
        with pytest.raises(SysError):
            client.run(client.open_files(root, [], [name]))
        with pytest.raises(SysError):
            client.run(client.list_dirs(root, [name]))
    with pytest.raises(SysError) as caught:
        client.run(client.open_files(root, [b"dir", b"file"], [b"x"]))
    assert caught.value.errno == errno.ENOTDIR
    plain = start(Export(b"", str(full))).client(extension=False)
    with pytest.raises(SysError) as caught:
        plain.run(plain.open_files(1, [], [b"x"]))
    assert caught.value.errno == errno.EOPNOTSUPP


def test_a_pseudo_file_system_is_empty(start: Any) -> None:
    client = start(Export(b"", "/proc")).client()
    root, _ = client.run(client.attach())
    assert listing_of(client, root).brief == []
    assert client.run(client.open_files(root, [], [b"uptime"])) == [-errno.ENOENT]


def test_a_look_brings_along_what_is_asked_for_next(client: Any, full: Path) -> None:
    (full / "deep" / "er").mkdir(parents=True)
    (full / "deep" / "er" / "file").write_bytes(b"what is in it")
    (full / "deep" / "link").symlink_to("er/file")
    root, _ = client.run(client.attach())

    def look(*names: bytes, opening: bool = True) -> Any:
        return client.run(client.look(root, names, opening))

    fid, attrs, error, target, fd = look(b"deep", b"er", b"file")
    assert (error, target, attrs[-1].size) == (0, b"", 13) and os.pread(fd, 99, 0) == b"what is in it"
    with pytest.raises(OSError):
        os.write(fd, b"x")
    os.close(fd)
    assert client.run(client.getattr(fid)) == attrs[-1]
    fid, attrs, error, target, fd = look(b"deep", b"er", b"file", opening=False)
    assert fid is not None and (error, target, fd) == (0, b"", -1)
    fid, attrs, error, target, fd = look(b"deep", b"er")  # directories are not opened
    assert fid is not None and (error, target, fd) == (0, b"", -1)
    fid, attrs, error, target, fd = look(b"deep", b"link")  # nor is anything followed
    assert fid is not None and (error, target, fd, len(attrs)) == (0, b"er/file", -1, 2)
    fid, attrs, error, target, fd = look(b"deep", b"link", b"file")
    assert (fid, error, target, fd, len(attrs)) == (None, errno.ENOTDIR, b"er/file", -1, 2)
    assert look(b"deep", b"none", b"x")[0::2] == (None, errno.ENOENT, -1)
    assert look(b"none")[:3] == (None, [], errno.ENOENT)
    os.mkfifo(full / "deep" / "fifo")
    fid, _, error, target, fd = look(b"deep", b"fifo")
    assert fid is not None and (error, target, fd) == (0, b"", -1)
