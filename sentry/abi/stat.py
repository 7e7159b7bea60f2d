"""struct stat, statx, statfs and directory entries, as x86-64 lays them out (stat(2), getdents(2))."""

from __future__ import annotations

from _struct import Struct

S_IFMT = 0o170000
S_IFSOCK = 0o140000
S_IFLNK = 0o120000
S_IFREG = 0o100000
S_IFBLK = 0o060000
S_IFDIR = 0o040000
S_IFCHR = 0o020000
S_IFIFO = 0o010000
S_ISUID = 0o4000
S_ISGID = 0o2000
S_ISVTX = 0o1000
S_IWOTH = 0o002
S_IXGRP = 0o010

DT_UNKNOWN = 0
DT_CHR = 2
DT_DIR = 4
DT_REG = 8
DT_LNK = 10

STATX_BASIC_STATS = 0x7FF
STATX_BTIME = 0x800
STATX_MNT_ID = 0x1000
STATX__RESERVED = 0x80000000
STATX_ATTR_MOUNT_ROOT = 0x2000
#: STATX_ATTR_IMMUTABLE, _APPEND and _NODUMP.
STATX_ATTR_FLAGS = 0x70

#: dev ino nlink | mode uid gid pad rdev | size blksize blocks | atime mtime ctime (sec, nsec) | unused
STAT = Struct("<QQQIIIxxxxQqqqqQqQqQ24x")
#: mask blksize attributes nlink uid gid mode ino size blocks attributes_mask |
#: atime btime ctime mtime (sec, nsec, pad) | rdev dev (major, minor) | mnt_id dio_mem dio_offset | spare
STATX = Struct("<IIQIIIHxxQQQQ" + "qIxxxx" * 4 + "IIIIQII96x")
#: type bsize blocks bfree bavail files ffree fsid namelen frsize flags spare
STATFS = Struct("<qqQQQQQQqqq32x")
DIRENT64 = Struct("<QqHB")
DIRENT = Struct("<QqH")

ST_RDONLY = 1
ST_NOSUID = 2
ST_NODEV = 4
ST_NOEXEC = 8
ST_VALID = 0x20
ST_RELATIME = 0x1000
ST_NOSYMFOLLOW = 0x2000


def makedev(major: int, minor: int) -> int:
    """The 64-bit dev_t of the kernel's new encoding (makedev(3), low 32 bits as the kernel has them)."""
    return (minor & 0xFF) | (major & 0xFFF) << 8 | (minor & 0xFFF00) << 12


def major(dev: int) -> int:
    return dev >> 8 & 0xFFF


def minor(dev: int) -> int:
    return dev & 0xFF | dev >> 12 & 0xFFF00
