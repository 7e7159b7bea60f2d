"""File handles (struct file_handle; include/linux/exportfs.h)."""

from __future__ import annotations

from _struct import Struct

MAX_HANDLE_SZ = 128
AT_HANDLE_FID = 0x200
AT_HANDLE_MNT_ID_UNIQUE = 1
AT_HANDLE_CONNECTABLE = 2
#: Of handle_type: the file system's own, and what the kernel may add to it.
FILEID_TYPES = 0xFFFF
FILEID_USER_FLAGS = 0x30000
#: handle_bytes, handle_type; then the bytes.
HEAD = Struct("<Ii")
#: What tmpfs gives: a generation, and the halves of an inode number.
TMPFS_HANDLE = Struct("<III")
TMPFS_TYPE = 1
