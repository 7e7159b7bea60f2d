"""System V IPC: commands, flags, limits and struct layouts (include/uapi/linux/{ipc,shm,sem,msg}.h)."""

from __future__ import annotations

from _struct import Struct

IPC_PRIVATE = 0
IPC_CREAT, IPC_EXCL, IPC_NOWAIT = 0o1000, 0o2000, 0o4000
IPC_RMID, IPC_SET, IPC_STAT, IPC_INFO = 0, 1, 2, 3

#: An id is a sequence number above the index of a table slot.
IPCMNI_SHIFT = 15
IPCMNI = 1 << IPCMNI_SHIFT
IPCID_SEQ_MAX = 0x7FFFFFFF >> IPCMNI_SHIFT
#: What `ipcperms` is asked for: the bits of all three classes.
S_IRUGO, S_IWUGO, S_IXUGO = 0o444, 0o222, 0o111

SHM_HUGETLB, SHM_NORESERVE = 0o4000, 0o10000
SHM_RDONLY, SHM_RND, SHM_REMAP, SHM_EXEC = 0o10000, 0o20000, 0o40000, 0o100000
SHM_LOCK, SHM_UNLOCK, SHM_STAT, SHM_INFO, SHM_STAT_ANY = 11, 12, 13, 14, 15
#: Bits of a segment's mode.
SHM_DEST, SHM_LOCKED = 0o1000, 0o2000
SHMMIN, SHMMNI = 1, 4096
SHMMAX = SHMALL = (1 << 64) - 1 - (1 << 24)

GETPID, GETVAL, GETALL, GETNCNT, GETZCNT, SETVAL, SETALL = 11, 12, 13, 14, 15, 16, 17
SEM_STAT, SEM_INFO, SEM_STAT_ANY = 18, 19, 20
SEM_UNDO = 0x1000
SEMMSL, SEMMNS, SEMOPM, SEMMNI = 32000, 1024000000, 500, 32000
SEMVMX = SEMAEM = 32767
#: What struct seminfo says the unused semusz is.
SEMUSZ = 20

MSG_STAT, MSG_INFO, MSG_STAT_ANY = 11, 12, 13
MSG_NOERROR, MSG_EXCEPT, MSG_COPY = 0o10000, 0o20000, 0o40000
MSGMNI, MSGMAX, MSGMNB = 32000, 8192, 16384
MSGSSZ, MSGSEG = 16, 0xFFFF

#: key uid gid cuid cgid mode seq
IPC64_PERM = "iIIIIIHHIQQ"
#: perm, otime, ctime, nsems
SEMID_DS = Struct("<" + IPC64_PERM + "qQqQQQQ")
#: perm, segsz, atime, dtime, ctime, cpid, lpid, nattch
SHMID_DS = Struct("<" + IPC64_PERM + "QqqqiiQQQ")
#: perm, stime, rtime, ctime, cbytes, qnum, qbytes, lspid, lrpid
MSQID_DS = Struct("<" + IPC64_PERM + "qqqQQQiiQQ")
#: shmmax shmmin shmmni shmseg shmall
SHMINFO = Struct("<QQQQQ4Q")
#: used_ids, shm_tot, shm_rss, shm_swp, swap_attempts, swap_successes
SHM_INFO_DS = Struct("<i4xQQQQQ")
SEMINFO = Struct("<10i")
MSGINFO = Struct("<7iH2x")
#: sem_num sem_op sem_flg
SEMBUF = Struct("<Hhh")
