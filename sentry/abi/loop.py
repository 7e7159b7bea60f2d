"""Loop devices and block devices: requests and structs (linux/loop.h, linux/fs.h)."""

from __future__ import annotations

from _struct import Struct

#: Device numbers of the devices, and of loop-control among the miscellaneous ones; how many there are.
LOOP_MAJOR, MISC_MAJOR, LOOP_CTRL_MINOR = 7, 10, 237
COUNT = 8

LOOP_SET_FD = 0x4C00
LOOP_CLR_FD = 0x4C01
LOOP_SET_STATUS = 0x4C02
LOOP_GET_STATUS = 0x4C03
LOOP_SET_STATUS64 = 0x4C04
LOOP_GET_STATUS64 = 0x4C05
LOOP_CHANGE_FD = 0x4C06
LOOP_SET_CAPACITY = 0x4C07
LOOP_SET_DIRECT_IO = 0x4C08
LOOP_SET_BLOCK_SIZE = 0x4C09
LOOP_CONFIGURE = 0x4C0A
LOOP_CTL_ADD = 0x4C80
LOOP_CTL_REMOVE = 0x4C81
LOOP_CTL_GET_FREE = 0x4C82

LO_FLAGS_READ_ONLY = 1
LO_FLAGS_AUTOCLEAR = 4
LO_FLAGS_PARTSCAN = 8
LO_FLAGS_DIRECT_IO = 16
LO_KEY_SIZE = 32

#: device, inode, rdevice, offset, sizelimit, number, encrypt type, key size, flags, file name, cipher's
#: name, key, two words for ciphers.
LOOP_INFO64 = Struct("5Q4I64s64s32s2Q")
#: number, device, inode, rdevice, offset, encrypt type, key size, flags, name, key, init, reserved.
LOOP_INFO = Struct("i4xQQQiiii64s32s2Q4s4x")
#: fd, block size, a loop_info64, reserved.
LOOP_CONFIG = Struct(f"II{LOOP_INFO64.size}s64s")

BLKROSET = 0x125D
BLKROGET = 0x125E
BLKRRPART = 0x125F
BLKGETSIZE = 0x1260
BLKFLSBUF = 0x1261
BLKRASET = 0x1262
BLKRAGET = 0x1263
BLKFRASET = 0x1264
BLKFRAGET = 0x1265
BLKSECTGET = 0x1267
BLKSSZGET = 0x1268
BLKDISCARD = 0x1277
BLKIOMIN = 0x1278
BLKIOOPT = 0x1279
BLKALIGNOFF = 0x127A
BLKPBSZGET = 0x127B
BLKDISCARDZEROES = 0x127C
BLKROTATIONAL = 0x127E
BLKZEROOUT = 0x127F
BLKBSZGET = 0x80081270
BLKBSZSET = 0x40081271
BLKGETSIZE64 = 0x80081272
