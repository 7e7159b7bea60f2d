"""Run by test_tree.py, natively and in sandboxes: looks at a tree that was there before, and changes of it.

    tree.py SEED STEPS DIRECTORY

Directories are listed and their files read one after the other, so that names come from listings and files
are opened ahead; in between, names, attributes and contents change.  Everything seen is printed, behind a ~
where an overlay differs: who had a file open before it was changed goes on reading the old one.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import random
import struct
import sys
import zlib

chance = random.Random(int(sys.argv[1]))
os.chdir(sys.argv[3])
os.umask(0o22)
kept = []  # (descriptor, what it was opened as)
held = []  # descriptors of directories
libc = ctypes.CDLL(None, use_errno=True)


def attributes(st):
    kind = st.st_mode & 0o170000
    if kind == 0o040000:
        return oct(st.st_mode), st.st_uid, st.st_gid
    # Those of a changed file are now's.
    return oct(st.st_mode), st.st_uid, st.st_gid, st.st_nlink, st.st_size


def directories():
    return sorted(path for path, _, _ in os.walk("."))


def files():
    return sorted(os.path.join(path, name) for path, _, names in os.walk(".") for name in names)


def some(names):
    return chance.choice(names) if names else "none"


def read_all():
    """Like grep -r in one directory."""
    top = some(directories())
    names = os.listdir(top)
    if chance.randrange(2):
        names.sort()
    seen, held = [], []
    salt, room = chance.randrange(8), len(kept) < 20
    dirfd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for name in names:
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=dirfd)
        except OSError as error:
            seen.append((name, errno.errorcode[error.errno]))
            continue
        try:
            seen.append((name, attributes(os.fstat(fd)), sum(os.read(fd, 100)) if not is_dir(fd) else "dir"))
        finally:
            if zlib.crc32(name.encode()) % 8 == salt and room:
                held.append((fd, os.path.join(top, name)))
            else:
                os.close(fd)
    os.close(dirfd)
    # What happens next may not depend on the order of the listing.
    kept.extend(sorted(held, key=lambda item: item[1]))
    print("read", top, sorted(seen, key=str))


def is_dir(fd):
    return os.fstat(fd).st_mode & 0o170000 == 0o040000


def stat_all():
    top = some(directories())
    print(
        "stat", top, sorted((name, attributes(os.lstat(os.path.join(top, name)))) for name in os.listdir(top))
    )


def stat_tree():
    print("all", [(name, attributes(os.lstat(name))) for name in files()])


def chmod():
    # What the host does not let us read it does not, whatever mode the file has inside.
    readable = [name for name in files() if not name.endswith("closed")]
    os.chmod(some(readable), chance.choice((0o600, 0o644, 0o755)))


def append():
    with open(some(files()), "ab") as file:
        file.write(b"more %d" % chance.randrange(1000))


def truncate():
    os.truncate(some(files()), chance.randrange(40))


def replace():
    name = some(files())
    with open(name + "~", "wb") as file:
        file.write(b"new")
    os.rename(name + "~", name)


def rename():
    os.rename(some(files()), os.path.join(some(directories()), f"moved{chance.randrange(5)}"))


def rename_directory():
    os.rename(some(directories()[1:]), os.path.join(some(directories()), f"dir{chance.randrange(5)}"))


def unlink():
    os.unlink(some(files()))


def link():
    os.link(some(files()), os.path.join(some(directories()), f"link{chance.randrange(9)}"))


def missing():
    print("missing", os.path.exists(os.path.join(some(directories()), f"no{chance.randrange(3)}")))


def empty():
    """Remove a directory with all that is in it, and maybe make it again."""
    top = some(directories()[1:])
    if top == "none":
        return
    for path, names, leaves in os.walk(top, topdown=False):
        for name in leaves:
            os.unlink(os.path.join(path, name))
        for name in names:
            os.rmdir(os.path.join(path, name))
    os.rmdir(top)
    if chance.randrange(2):
        os.mkdir(top)
        print("empty", os.listdir(top))


def use_kept():
    for fd, name in kept[:]:
        print("kept", name, attributes(os.fstat(fd)))
        what = chance.randrange(8)
        if is_dir(fd):
            what = 7
        if what == 0:
            print("~", sum(os.pread(fd, 50, 3)), os.lseek(fd, 0, os.SEEK_CUR))
        elif what == 1 and os.fstat(fd).st_size:
            with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as view:
                print("~ mapped", sum(view[:100]))
        elif what == 2:
            fcntl.flock(fd, fcntl.LOCK_SH)
        elif what == 3:
            print("~ dup", os.read(os.dup(fd), 7))
        elif what == 4:
            os.fchmod(fd, 0o640)
        elif what == 5:
            print(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")) == os.path.basename(name))
        elif what == 7:
            os.close(fd)
            kept.remove((fd, name))


def list_twice():
    """To the end, again from the start, and once more when the directory may have gone."""
    top = some(directories()[1:])
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    names = sorted(os.listdir(fd))
    os.lseek(fd, 0, os.SEEK_SET)
    print("twice", top, names, sorted(os.listdir(fd)) == names)
    if not names:
        os.listdir(fd)
        os.rmdir(top)
    try:
        print(sorted(os.listdir(fd)) == names)
    except OSError as error:
        print("gone", errno.errorcode[error.errno])
    os.close(fd)


def getdents(fd, size, addr=None):
    """One getdents64(2): its entries (inode, offset, type, name)."""
    buffer = ctypes.create_string_buffer(max(size, 1))
    count = libc.syscall(217, fd, ctypes.c_void_p(addr) if addr else buffer, ctypes.c_uint(size))
    if count < 0:
        raise OSError(ctypes.get_errno(), "getdents64")
    entries, pos, raw = [], 0, buffer.raw
    while pos < count:
        ino, offset, length, kind = struct.unpack_from("=QqHB", raw, pos)
        entries.append((ino, offset, kind, raw[pos + 19 : raw.index(b"\0", pos + 19)], length))
        pos += length
    return entries


def piece(fd, size, addr=None):
    """What a call gives, and where it leaves off: each file system has offsets of its own."""
    try:
        print("~", size, getdents(fd, size, addr))
    except OSError as error:
        print("~", size, errno.errorcode[error.errno])
    print("~", os.lseek(fd, 0, os.SEEK_CUR))


def hold_directory():
    if len(held) < 6:
        flags = chance.choice((0, os.O_DIRECTORY, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK))
        held.append(os.open(some(directories()), os.O_RDONLY | flags))
        print(oct(fcntl.fcntl(held[-1], fcntl.F_GETFL)), fcntl.fcntl(held[-1], fcntl.F_GETFD))


def use_directory():
    """In pieces, from anywhere, while the directory changes; and what else a descriptor is good for."""
    fd = some(held)
    if fd == "none":
        return
    what = chance.randrange(14)
    if what < 5:
        sizes = [chance.choice((20, 24, 60, 300, 32768, 100000)) for _ in range(chance.randrange(1, 4))]
        for size in sizes:
            piece(fd, size)
    elif what == 5:
        print("~", os.lseek(fd, chance.choice((0, 1, 2, 5, 1000)), os.SEEK_SET))
        piece(fd, 200)
    elif what == 6:
        os.lseek(fd, 0, os.SEEK_SET)
        piece(fd, 4000, 8)
    elif what == 7:
        os.lseek(fd, 0, os.SEEK_SET)
        seen = []
        while entries := getdents(fd, 500):
            seen += [(kind, name) for _, _, kind, name, _ in entries]
        print(sorted(seen), getdents(fd, 0), getdents(fd, 500))
    elif what == 8:
        other = os.dup(fd)
        piece(other, 100)
        piece(fd, 100)
        os.close(other)
    elif what == 9:
        os.fchdir(fd)
        os.chdir(sys.argv[3])
    elif what == 10:
        print(os.readlink(f"/proc/self/fd/{fd}").endswith(" (deleted)"), attributes(os.fstat(fd)))
    elif what == 11:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        os.lseek(fd, -1, os.SEEK_SET)
    elif what == 12:
        os.lseek(fd, 0, 90)
    else:
        os.close(fd)
        held.remove(fd)


def fork():
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        print("child", [(name, attributes(os.fstat(fd))) for fd, name in kept])
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(child, 0)


LOOKS = [
    read_all, read_all, read_all, list_twice, stat_all, stat_tree, missing, use_kept,
    hold_directory, hold_directory, use_directory, use_directory, use_directory,
]  # fmt: skip
CHANGES = [
    chmod, append, truncate, replace, rename, rename_directory, unlink, link, empty, fork,
]  # fmt: skip
for number in range(int(sys.argv[2])):
    step = chance.choice(LOOKS if number < 12 or chance.randrange(3) else CHANGES)
    try:
        step()
    except OSError as error:
        print(step.__name__, errno.errorcode[error.errno])
