"""Tlistdir and Topenfiles: a directory with all attributes, and many files in one message."""

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


def test_a_listing_tells_what_walks_tell(client: Any, full: Path) -> None:
    root, _ = client.run(client.attach())
    fid, attr, listing = client.run(client.list_attrs(root, [b"dir"]))
    assert attr == client.run(client.getattr(fid))
    assert sorted(listing) == sorted(os.listdir(os.fsencode(full / "dir")))
    for name, fields in listing.items():
        _, (walked,), _ = client.run(client.walkgetattr(fid, [name]))
        told = m.listed_attr(fields)
        told.qid = m.Qid((told.qid.type, walked.qid.version, told.qid.path))
        assert told == walked and fields[0] == walked.qid.path
    kinds = {entry.name: entry for entry in os.scandir(full / "dir")}
    assert listing[b"fifo"][13] == 1 and kinds["fifo"].is_file() is False
    assert client.run(client.list_attrs(fid))[2] == listing


def test_only_directories_are_listed_and_no_fid_is_left_behind(client: Any) -> None:
    root, _ = client.run(client.attach())
    for names, error in (
        ([b"dir", b"file"], errno.ENOTDIR),
        ([b"no"], errno.ENOENT),
        ([b"dir", b"link"], 20),
    ):
        with pytest.raises(SysError) as caught:
            client.run(client.list_attrs(root, names))
        assert caught.value.errno == error
    new, _ = client.run(client.walk(root, [b"dir"]))  # uses the number again
    assert client.run(client.list_attrs(new))[2]


def test_a_directory_that_is_too_large_has_no_list(client: Any, full: Path) -> None:
    for number in range(1500):
        (full / "dir" / f"{number}").write_bytes(b"")
    root, _ = client.run(client.attach())
    fid, _, listing = client.run(client.list_attrs(root, [b"dir"]))
    assert listing is None
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
    fid, _ = client.run(client.walk(root, [b"dir"]))
    names = [b"%d" % number for number in range(60)]
    names[10:10] = [b"no", b"below", b"link", b"fifo"]
    fds = client.run(client.open_files(fid, names))
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
            client.run(client.open_files(root, [name]))
    file, _ = client.run(client.walk(root, [b"dir", b"file"]))
    with pytest.raises(SysError) as caught:
        client.run(client.open_files(file, [b"x"]))
    assert caught.value.errno == errno.ENOTDIR
    plain = start(Export(b"", str(full))).client(extension=False)
    with pytest.raises(SysError) as caught:
        plain.run(plain.open_files(1, [b"x"]))
    assert caught.value.errno == errno.EOPNOTSUPP


def test_a_pseudo_file_system_is_empty(start: Any) -> None:
    client = start(Export(b"", "/proc")).client()
    root, _ = client.run(client.attach())
    assert client.run(client.list_attrs(root))[2] == {}
    assert client.run(client.open_files(root, [b"uptime"])) == [-errno.ENOENT]
