"""Host files by descriptor: the only module of the Gofer that reaches into a file system.

One component at a time: a child is opened O_PATH from its parent's O_PATH descriptor by openat2
with RESOLVE_BENEATH|RESOLVE_NO_MAGICLINKS|RESOLVE_NO_SYMLINKS, so a symlink is a file like any
other and is never followed for the guest, and `..` (which the codec refuses already) leads nowhere.

Reading and writing need a real open.  It goes through the magic link N in /proc/self/fd, whose
directory was opened before confinement: that reopens exactly the inode that the O_PATH descriptor
names, even when it was renamed or removed since, which opening by (parent, name) and comparing
could not.  The same link serves chmod, link and xattr calls, which refuse O_PATH descriptors.

Only regular files and directories are ever opened.  Host pseudo file systems (proc, sysfs, …) show
as empty directories: reading them would tell about the host, or act on it.
"""

from __future__ import annotations

import errno
import os
from _stat import S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG, S_IFSOCK
from _struct import Struct
from fcntl import fcntl

from gofer._native import ffi, lib
from gofer.messages import MAX_MSIZE, MAX_OPENFILES, QTDIR, QTFILE, QTSYMLINK, Attr, Qid, encode_dirent
from sentry.abi.errors import SysError
from sentry.abi.fcntl import (
    F_DUPFD_CLOEXEC,
    F_GET_SEALS,
    RESOLVE_BENEATH,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS

O_PATH_FLAGS = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
#: What a client may ask for when it opens; the rest is dropped (v9fs passes all of the caller's).
OPEN_FLAGS = os.O_ACCMODE | os.O_TRUNC | os.O_APPEND | os.O_DIRECTORY | os.O_SYNC | os.O_DSYNC | os.O_NOATIME
WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_TRUNC

#: f_type of file systems that are views of the host's kernel, not storage (linux/magic.h).
PSEUDO = frozenset((
    0x9FA0,  # proc
    0x62656572,  # sysfs
    0x1CD1,  # devpts
    0x27E0EB,  # cgroup
    0x63677270,  # cgroup2
    0x64626720,  # debugfs
    0x74726163,  # tracefs
    0x73636673,  # securityfs
    0xCAFE4A11,  # bpf
    0x62656570,  # configfs
    0x65735543,  # fusectl
    0x19800202,  # mqueue
    0x42494E4D,  # binfmt_misc
    0xDE5E81E4,  # efivarfs
    0x6165676C,  # pstore
    0xF97CFF8C,  # selinuxfs
    0x43415D53,  # smackfs
    0x7655821,  # resctrl
    0x6E736673,  # nsfs
    0x50494446,  # pidfs
    0x9041934,  # anonymous inodes
))  # fmt: skip

_DIRENT64 = Struct("<QqHB")  # struct linux_dirent64 up to its name
_DIRENT_MAX = 280  # struct linux_dirent64 with the longest name
MAX_DEVICES = 0x7FFF


def check(value: int) -> int:
    """The result of a native call, or OSError."""
    if value < 0:
        raise OSError(-value, os.strerror(-value))
    return value


def devtmpfs_devices() -> frozenset[int]:
    """st_dev of the mounted devtmpfs: statfs(2) calls them tmpfs, so mountinfo has to tell."""
    devices = set()
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            for line in file:
                left, _, right = line.partition(b" - ")
                if right.startswith(b"devtmpfs "):
                    major, minor = left.split()[2].split(b":")
                    devices.add(os.makedev(int(major), int(minor)))
    except (OSError, ValueError, IndexError):
        pass
    return frozenset(devices)


class LocalFS:
    """The host's files.  Methods raise OSError (host) or SysError (ours)."""

    __slots__ = ("_all", "_at", "_buffer", "_devices", "_fds", "_hidden", "_listing", "proc_fd")

    def __init__(self, proc_fd: int, hidden_devices: frozenset[int] = frozenset()) -> None:
        #: O_PATH (or directory) descriptor of /proc/self/fd.
        self.proc_fd = proc_fd
        self._devices: dict[int, int] = {}
        #: st_dev to whether it is a pseudo file system.
        self._hidden: dict[int, bool] = dict.fromkeys(hidden_devices, True)
        self._buffer = ffi.new("unsigned char[]", 32768)
        self._listing: Any = None
        self._all = ffi.new("int *")
        self._fds = ffi.new("int[]", MAX_OPENFILES)
        self._at = ffi.new("uint16_t[]", MAX_OPENFILES)

    def is_hidden(self, fd: int, dev: int) -> bool:
        hidden = self._hidden.get(dev)
        if hidden is None:
            if len(self._hidden) > MAX_DEVICES:
                self._hidden.clear()
            hidden = self._hidden[dev] = check(lib.gofer_fs_type(fd)) in PSEUDO
        return hidden

    def fs_type(self, fd: int) -> int:
        """f_type of statfs(2)."""
        return check(lib.gofer_fs_type(fd))

    def qid_path(self, dev: int, ino: int) -> int:
        """One 64-bit number for a device and inode number.

        Devices are numbered as they are met and stand in the upper bits, so files of the first one (the
        root file system) keep their inode number.  Inode numbers beyond 48 bits are mixed instead.
        """
        index = self._devices.get(dev)
        if index is None:
            index = len(self._devices)
            if index < MAX_DEVICES:
                self._devices[dev] = index
        if index < MAX_DEVICES and ino >> 48 == 0:
            return index << 48 | ino
        mixed = (ino * 0x9E3779B97F4A7C15 + dev * 0xC2B2AE3D27D4EB4F) & 0xFFFF_FFFF_FFFF_FFFF
        return 1 << 63 | (mixed ^ mixed >> 29)

    def qid(self, st: os.stat_result) -> Qid:
        kind = st.st_mode & 0o170000
        version = (st.st_mtime_ns ^ st.st_ctime_ns << 1 ^ st.st_size) & 0xFFFF_FFFF or 1
        qtype = QTDIR if kind == S_IFDIR else QTSYMLINK if kind == S_IFLNK else QTFILE
        return Qid((qtype, version, self.qid_path(st.st_dev, st.st_ino)))

    def attr(self, st: os.stat_result) -> Attr:
        return Attr(
            self.qid(st), st.st_mode, st.st_uid, st.st_gid, st.st_nlink, st.st_rdev, st.st_size,
            st.st_blksize, st.st_blocks, st.st_atime_ns, st.st_mtime_ns, st.st_ctime_ns,
        )  # fmt: skip

    def child(self, dir_fd: int, name: bytes) -> int:
        """O_PATH descriptor of one component; a symlink is opened itself."""
        return check(lib.gofer_openat2(dir_fd, name, O_PATH_FLAGS, 0, RESOLVE))

    def duplicate(self, path_fd: int) -> int:
        return fcntl(path_fd, F_DUPFD_CLOEXEC, 3)

    def path_of(self, fd: int) -> int:
        """An O_PATH descriptor of the file that is open as `fd`."""
        return check(lib.gofer_openat2(self.proc_fd, b"%d" % fd, os.O_PATH | os.O_CLOEXEC, 0, 0))

    def reopen(self, path_fd: int, kind: int, flags: int) -> int:
        """Open what `path_fd` names for input and output.

        SysError(ENXIO) for devices, FIFOs and sockets, ELOOP for symlinks: as open(2) does for a socket and
        with O_NOFOLLOW.
        """
        if kind == S_IFLNK:
            raise SysError(errno.ELOOP)
        if kind not in (S_IFREG, S_IFDIR):
            raise SysError(errno.ENXIO)
        if kind == S_IFDIR and flags & WRITE_FLAGS:
            raise SysError(errno.EISDIR)
        if flags & os.O_ACCMODE == os.O_ACCMODE:
            raise SysError(errno.EINVAL)
        if kind == S_IFDIR:
            flags |= os.O_DIRECTORY
        flags = flags & OPEN_FLAGS | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
        result = lib.gofer_openat2(self.proc_fd, b"%d" % path_fd, flags, 0, 0)
        if result == -errno.EPERM and flags & os.O_NOATIME:
            # Only the owner may; the guest's owner need not be the host's.
            result = lib.gofer_openat2(self.proc_fd, b"%d" % path_fd, flags & ~os.O_NOATIME, 0, 0)
        return check(result)

    def create(self, dir_fd: int, name: bytes, flags: int, mode: int) -> int:
        """Create a regular file that must not be there, and open it.  (O_EXCL never follows a symlink.)"""
        if flags & os.O_ACCMODE == os.O_ACCMODE:
            raise SysError(errno.EINVAL)
        flags = flags & OPEN_FLAGS & ~os.O_DIRECTORY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return check(lib.gofer_openat2(dir_fd, name, flags | os.O_NONBLOCK, mode & 0o7777, RESOLVE))

    def reopen_readonly(self, fd: int) -> int:
        """An O_RDONLY reopening of the memfd `fd` that a client sent.

        Only for a file that has seals and no name (F_GET_SEALS works on no O_PATH descriptor), so no client
        gets at a file this way to which it has no real descriptor.
        """
        from_client = os.fstat(fd)
        if from_client.st_mode & 0o170000 != S_IFREG or from_client.st_nlink != 0:
            raise SysError(errno.EPERM)
        try:
            fcntl(fd, F_GET_SEALS)
        except OSError as exc:
            raise SysError(errno.EPERM) from exc
        return check(lib.gofer_openat2(self.proc_fd, b"%d" % fd, os.O_RDONLY | os.O_CLOEXEC, 0, 0))

    def readdir(self, fd: int, dev: int, limit: int) -> tuple[bytes, int]:
        """Entries from where `fd` stands: (at most `limit` bytes of Rreaddir.data, last offset or -1).

        The offset is -1 when `fd` stands elsewhere than behind the last entry given.  SysError(EINVAL) when
        not even one entry fits.
        """
        size = check(lib.gofer_getdents(fd, self._buffer, min(len(self._buffer), max(limit, _DIRENT_MAX))))
        data, offset, complete = self._convert(bytes(ffi.buffer(self._buffer, size)), dev, limit)
        if not data and not complete:
            raise SysError(errno.EINVAL)
        return data, offset if complete and data else -1

    def listdir(self, fd: int, dev: int, limit: int, files: int) -> tuple[bytes, bool, list[int], bytes]:
        """What is in the directory `fd`, with attributes: (at most `limit` bytes of entries, all or none;
        whether all; up to `files` opened files; their indices as u16)."""
        if self._listing is None:
            self._listing = ffi.new("unsigned char[]", MAX_MSIZE)
        self.qid_path(dev, 0)
        index = self._devices.get(dev, -1)
        limit = max(0, min(limit, MAX_MSIZE))
        size = check(lib.gofer_list(fd, dev, index, self._listing, limit, self._all))
        if not self._all[0]:
            return b"", False, [], b""
        count = 0
        if files:
            count = lib.gofer_open_listed(
                fd,
                self._listing,
                size,
                dev,
                RESOLVE,
                min(files, MAX_OPENFILES),
                self._fds,
                self._at,
            )
        return (
            bytes(ffi.buffer(self._listing, size)), True, list(self._fds[0:count]),
            bytes(ffi.buffer(self._at, 2 * count)),
        )  # fmt: skip

    def open_file(self, dir_fd: int, name: bytes, dev: int) -> int:
        """The regular file `name` on the directory's own device `dev`, opened for reading; or minus errno."""
        result: int = lib.gofer_open_file(self.proc_fd, dir_fd, name, dev, RESOLVE)
        return result

    def _convert(self, raw: bytes, dev: int, limit: int) -> tuple[bytes, int, bool]:
        """struct linux_dirent64[] to 9P entries: (entries, offset behind the last one, all of them?)."""
        out: list[bytes] = []
        room = limit
        offset = pos = 0
        base = self.qid_path(dev, 0) if dev in self._devices else -1
        while pos < len(raw):
            ino, cookie, reclen, kind = _DIRENT64.unpack_from(raw, pos)
            name = raw[pos + 19 : raw.index(b"\0", pos + 19)]
            room -= 24 + len(name)
            if room < 0:
                return b"".join(out), offset, False
            path = base | ino if base >= 0 and ino >> 48 == 0 else self.qid_path(dev, ino)
            qtype = QTDIR if kind == 4 else QTSYMLINK if kind == 10 else QTFILE
            offset = cookie & 0x7FFF_FFFF_FFFF_FFFF
            out.append(encode_dirent(Qid((qtype, 0, path)), offset, kind, name))
            pos += reclen
        return b"".join(out), offset, True

    def chmod(self, path_fd: int, kind: int, mode: int) -> None:
        if kind == S_IFLNK:
            raise SysError(errno.EOPNOTSUPP)
        os.chmod(b"%d" % path_fd, mode & 0o7777, dir_fd=self.proc_fd)

    def chown(self, path_fd: int, uid: int, gid: int) -> None:
        """0xFFFFFFFF leaves one as it is."""
        check(lib.gofer_chown(path_fd, uid, gid))

    def truncate(self, path_fd: int, kind: int, size: int) -> None:
        if kind != S_IFREG:
            raise SysError(errno.EISDIR if kind == S_IFDIR else errno.EINVAL)
        fd = self.reopen(path_fd, kind, os.O_WRONLY)
        try:
            os.ftruncate(fd, size)
        finally:
            os.close(fd)

    def utimens(self, path_fd: int, atime: tuple[int, int], mtime: tuple[int, int]) -> None:
        """(seconds, nanoseconds) each; nanoseconds may be UTIME_NOW or UTIME_OMIT."""
        check(lib.gofer_utimens(path_fd, *atime, *mtime))

    def mknod(self, dir_fd: int, name: bytes, mode: int) -> None:
        """Regular files, FIFOs and sockets.  Never a device node: SysError(EPERM)."""
        if mode & 0o170000 not in (0, S_IFREG, S_IFIFO, S_IFSOCK):
            raise SysError(errno.EPERM)
        os.mknod(name, mode & 0o177777, 0, dir_fd=dir_fd)

    def link(self, path_fd: int, kind: int, dir_fd: int, name: bytes) -> None:
        os.link(b"%d" % path_fd, name, src_dir_fd=self.proc_fd, dst_dir_fd=dir_fd, follow_symlinks=True)

    def locate(self, root_fd: int, path_fd: int) -> tuple[int, bytes]:
        """(O_PATH descriptor of the parent, name) of a file, for the requests that name a file by fid alone.

        The kernel tells the present path; each component is then walked anew, and the file compared.
        SysError(ESTALE), or ENOENT from the host, when it is not there (any more).
        """
        root = os.readlink(b"%d" % root_fd, dir_fd=self.proc_fd).rstrip(b"/")
        path = os.readlink(b"%d" % path_fd, dir_fd=self.proc_fd)
        names = path[len(root) + 1 :].split(b"/")
        if not path.startswith(root + b"/") or not names[-1] or b".." in names:
            raise SysError(errno.ESTALE)
        parent = self.duplicate(root_fd)
        try:
            for name in names[:-1]:
                above, parent = parent, self.child(parent, name)
                os.close(above)
            found = os.stat(names[-1], dir_fd=parent, follow_symlinks=False)
            wanted = os.fstat(path_fd)
            if (found.st_dev, found.st_ino) != (wanted.st_dev, wanted.st_ino):
                raise SysError(errno.ESTALE)
        except BaseException:
            os.close(parent)
            raise
        return parent, names[-1]
