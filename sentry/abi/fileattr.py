"""Flags of files that ioctl(2) reads and sets (ioctl_iflags(2)), clones and extents (linux/fs.h)."""

from __future__ import annotations

from _struct import Struct

FS_IOC_GETFLAGS = 0x80086601
FS_IOC_SETFLAGS = 0x40086602
FS_IOC_FSGETXATTR = 0x801C581F
FS_IOC_FSSETXATTR = 0x401C5820
FS_IOC_FIEMAP = 0xC020660B
FICLONE = 0x40049409
FICLONERANGE = 0x4020940D

FS_IMMUTABLE_FL = 0x10
FS_APPEND_FL = 0x20
FS_NODUMP_FL = 0x40
FS_NOATIME_FL = 0x80
#: What tmpfs has.
FS_SETTABLE = FS_IMMUTABLE_FL | FS_APPEND_FL | FS_NODUMP_FL | FS_NOATIME_FL
#: FS_XFLAG_… of FS_IOC_FSGETXATTR → FS_…_FL.
XFLAGS = {0x8: FS_IMMUTABLE_FL, 0x10: FS_APPEND_FL, 0x40: FS_NOATIME_FL, 0x80: FS_NODUMP_FL}

#: All that FS_XFLAG_… names.
FS_XFLAGS_MASK = 0x8001FFFB
#: FS_XFLAG_EXTSIZE and FS_XFLAG_EXTSZINHERIT.
FS_XFLAGS_EXTENT = 0x1800
FS_XFLAG_COWEXTSIZE = 0x10000
#: struct file_attr: xflags, extent size, extents, project, copy-on-write extent size.
FILE_ATTR = Struct("<Q4I")
#: struct fsxattr: xflags, extent size, extents, project, copy-on-write extent size.
FSXATTR = Struct("<5I8x")
#: struct file_clone_range: source descriptor, its offset, length, offset of the destination.
CLONE_RANGE = Struct("<qQQQ")
