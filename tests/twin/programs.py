"""Random programs of system calls on files, for calls.c.

Most numbers come from short lists of what is on an edge: of a page, of a buffer inside the Sentry, of the
address space, of what a file may be long.  A program that Linux runs as well leaves out what other file
systems do in their own way.
"""

from __future__ import annotations

import os
import random

(
    RESET, OPEN, CLOSE, DUP, DUP2, READ, WRITE, PREAD, PWRITE, READV, WRITEV, LSEEK, FSTAT, FCNTL, TRUNCATE,
    CHMOD, MEMFD, PIPE, MAP, UNLINK, ALLOCATE, LIMIT, SENDFILE, CHILD, TIMES,
    LOCK, DUPFD, DUP3, SYNC, ADVISE, TERMINAL, CHOWN,
) = range(32)  # fmt: skip

SLOTS = 12
#: How often each call is tried.
WEIGHTS = {
    RESET: 1, OPEN: 14, CLOSE: 2, DUP: 3, DUP2: 1, READ: 22, WRITE: 18, PREAD: 14, PWRITE: 14, READV: 6,
    WRITEV: 6, LSEEK: 10, FSTAT: 6, FCNTL: 8, TRUNCATE: 4, CHMOD: 2, MEMFD: 2, PIPE: 2, MAP: 2, UNLINK: 1,
    ALLOCATE: 2, LIMIT: 1, SENDFILE: 1, CHILD: 1, TIMES: 2, LOCK: 12, DUPFD: 3,
    DUP3: 1, SYNC: 2, ADVISE: 1, TERMINAL: 1, CHOWN: 1,
}  # fmt: skip
SIZES = [
    0, 1, 7, 100, 511, 1000, 4095, 4096, 4097, 5000, 8192, 12288, 16383, 16384, 16385, 20000, 65535, 65536,
    65537, 100000, 200000, 262144, 300000, 1 << 20, 0x7FFFF000, 0x7FFFF001, 1 << 31, (1 << 63) - 1, -1,
]  # fmt: skip
FAIR_SIZES = SIZES[:23]
OFFSETS = [
    0, 0, 0, 1, 100, 1000, 4095, 4096, 4097, 10000, 16383, 16384, 30000, 65536, 131072, 300000, 1 << 20,
    1 << 28, -1, -100, 1 << 62, (1 << 63) - 1, -(1 << 63),
]  # fmt: skip
FAIR_OFFSETS = OFFSETS[:18]
O_RDONLY, O_WRONLY, O_RDWR = 0, 1, 2
O_CREAT, O_TRUNC, O_APPEND, O_NONBLOCK, O_DIRECTORY, O_NOATIME, O_PATH = (
    0o100, 0o1000, 0o2000, 0o4000, 0o200000, 0o1000000, 0o10000000,
)  # fmt: skip
F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_ADD_SEALS, F_GET_SEALS = 0, 1, 2, 3, 4, 1033, 1034
F_GETLK, F_SETLK, F_OFD_GETLK, F_OFD_SETLK = 5, 6, 36, 37
O_CLOEXEC = 0o2000000
FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE = 1, 2
HOST_FILES, DIRECTORY = (6, 7), 8


class Programs:
    """`native`: the programs are for Linux, too."""

    def __init__(self, rng: random.Random, native: bool) -> None:
        self.rng = rng
        self.native = native

    def text(self, count: int) -> str:
        kinds, weights = list(WEIGHTS), list(WEIGHTS.values())
        lines = [[RESET], [OPEN, 0, 0, O_RDWR | O_CREAT], [OPEN, 1, 2, O_RDWR | O_CREAT]]
        if self.native:
            # Linux refuses some devices as a source; what a pipe gives to a bad address depends on its pages.
            weights[SENDFILE] = weights[PIPE] = 0
        lines += [self.line(kind) for kind in self.rng.choices(kinds, weights, k=count)]
        return "".join(" ".join(map(str, line)) + "\n" for line in lines)

    def slot(self) -> int:
        # Half of all calls go to a few slots, so that state comes together there.
        return self.rng.choice([0, 0, 1, 1, 2, 3, *range(SLOTS)])

    def fd(self) -> int:
        return self.slot() if self.rng.random() < 0.97 else self.rng.choice([-1, -1000])

    def size(self) -> int:
        roll = self.rng.random()
        if roll < 0.5:
            return self.rng.randrange(0, 20000)
        return self.rng.choice(FAIR_SIZES if roll < 0.95 else SIZES)

    def offset(self) -> int:
        roll = self.rng.random()
        if roll < 0.4:
            return self.rng.randrange(0, 70000)
        offset = self.rng.choice(FAIR_OFFSETS if roll < 0.93 else OFFSETS)
        # A file that is mapped counts whole here.
        return 0 if self.native and offset == 1 << 62 else offset

    def address(self, write: bool = False) -> list[int]:
        kind = self.rng.choice([0] * 24 + [1, 1, 2, 3, 4, 5, 6, 7, 7])
        if write and self.native:
            kind = 0  # some versions of Linux's tmpfs grow by a write that copies nothing
        if kind in (1, 7):
            return [kind, self.rng.choice([1, 8, 100, 4000, 4096])]
        if kind == 6:
            return [kind, self.rng.choice([0, 1, 4096])]
        return [kind, self.rng.choice([0, 0, 0, 1, 4090, 8192]) if kind in (0, 2) else 0]

    def place(self) -> int:
        """A file, and whether to make it, as two arguments of OPEN."""
        zero = 4 if self.native and os.stat("/dev/zero").st_mode & 0o777 != 0o666 else 5
        return self.rng.choice([0, 0, 0, 1, 2, 2, 2, 3, 4, zero, *HOST_FILES, *HOST_FILES, DIRECTORY])

    def open(self) -> list[int]:
        place, rng = self.place(), self.rng
        flags = rng.choice([O_RDONLY, O_RDWR, O_RDWR, O_WRONLY])
        if place in HOST_FILES and self.native:
            flags = O_RDONLY  # natively it would change for good
        if place < 4 and rng.random() < 0.9:
            flags |= O_CREAT
        for bit, chance in ((O_APPEND, 0.15), (O_NONBLOCK, 0.05), (O_NOATIME, 0.05), (O_PATH, 0.03)):
            if rng.random() < chance:
                flags |= bit
        if flags & 3 and rng.random() < 0.1:
            flags |= O_TRUNC
        return [OPEN, self.slot(), place, flags]

    def fcntl(self) -> list[int]:
        commands = [F_GETFD, F_SETFD, F_GETFL, F_GETFL, F_SETFL]
        if not self.native:  # Linux's tmpfs knows seals for all of its files
            commands += [F_ADD_SEALS, F_GET_SEALS]
        command = self.rng.choice(commands)
        argument = self.rng.choice([0, 1])
        if command == F_SETFL:
            argument = self.rng.choice([0, O_APPEND, O_NONBLOCK, O_APPEND | O_NONBLOCK])
        elif command == F_ADD_SEALS:
            argument = self.rng.choice([0, 1, 2, 4, 8, 15])
        return [FCNTL, self.fd(), command, argument]

    def lock(self) -> list[int]:
        """Never one that waits: nobody would let go of what it waits for."""
        rng = self.rng
        command = rng.choice([F_GETLK, F_SETLK, F_SETLK, F_OFD_GETLK, F_OFD_SETLK])
        start = rng.choice([0, 0, 1, 10, 20, 30, 50, 100, -1, (1 << 63) - 1])
        length = rng.choice([0, 1, 5, 10, 20, 50, -1, -10, (1 << 63) - 1])
        kind = rng.choice([0, 0, 1, 1, 2, 2, 3, -1])
        whence = rng.choice([0, 0, 0, 1, 1, 2, 3])
        child = int(command in (F_GETLK, F_SETLK) and rng.random() < 0.1)
        return [LOCK, self.fd(), command, kind, whence, start, length, child, rng.choice([0] * 15 + [4])]

    def vectors(self, kind: int) -> list[int]:
        count = self.rng.choice([0, 1, 1, 2, 2, 3, 4, -1])
        line = [kind, self.fd(), count, self.rng.choice([0] * 15 + [4])]
        for _ in range(4):
            line += [*self.address(kind == WRITEV), self.size() if self.rng.random() < 0.8 else 0]
        return line

    def line(self, kind: int) -> list[int]:
        rng, fd = self.rng, self.fd()
        if kind == OPEN:
            return self.open()
        if kind in (DUP, DUP2, PIPE):
            return [kind, self.slot(), self.slot()]
        if kind in (READ, WRITE):
            return [kind, fd, *self.address(kind == WRITE), self.size()]
        if kind in (PREAD, PWRITE):
            return [kind, fd, *self.address(kind == PWRITE), self.size(), self.offset()]
        if kind in (READV, WRITEV):
            return self.vectors(kind)
        if kind == LSEEK:
            offset = self.offset()
            if self.native and offset > FAIR_OFFSETS[-1]:
                offset = 0  # how long a file can be depends on the file system
            return [kind, fd, offset, rng.choice([0, 0, 0, 1, 1, 2, 2, 5, -1])]
        if kind == FSTAT:
            return [kind, fd, *self.address()]
        if kind == FCNTL:
            return self.fcntl()
        if kind == TRUNCATE:
            return [kind, fd, rng.choice([*FAIR_OFFSETS, -1])]
        if kind == CHMOD:
            # The host takes set-id bits from what the sandbox writes to, even if the guest's root keeps them.
            modes = [0o644, 0o600] if self.native else [0o644, 0o600, 0o4755, 0o2755, 0o6711]
            return [kind, self.slot(), rng.choice(modes)]
        if kind == MEMFD:
            return [kind, self.slot(), 2]
        if kind == MAP:
            return [kind, fd, rng.choice([0, 4096, 8192, 65536]), rng.choice([0, 1])]
        if kind == UNLINK:
            return [kind, rng.randrange(4)]
        if kind == ALLOCATE:
            mode = rng.choice([0, FALLOC_KEEP_SIZE, FALLOC_KEEP_SIZE | FALLOC_PUNCH_HOLE])
            mode = 0 if self.native else mode  # a bound directory has no more than that
            return [kind, fd, mode, rng.choice(FAIR_OFFSETS[:14]), rng.choice(FAIR_SIZES[1:20])]
        if kind == LIMIT:
            return [kind, rng.choice([-1, -1, 0, 5000, 100000])]
        if kind == SENDFILE:
            return [kind, self.slot(), self.slot(), self.size() if rng.random() < 0.5 else 5000]
        if kind == CHILD:
            return [kind, self.slot(), rng.choice([1, 100, 5000])]
        if kind == LOCK:
            return self.lock()
        if kind == DUPFD:
            minimum = rng.choice([0, 0, 5, 20, 40, 100, 1 << 20, -1])
            return [kind, fd, self.slot(), minimum, rng.choice([0, 1])]
        if kind == DUP3:
            return [kind, fd, self.slot(), rng.choice([0, O_CLOEXEC, O_NONBLOCK])]
        if kind == SYNC:
            return [kind, fd, rng.choice([0, 1])]
        if kind == ADVISE:
            offset, size = rng.choices([0, 4096, -1], k=2)
            return [kind, fd, offset, size, rng.choice([0, 1, 2, 3, 4, 5, 9])]
        if kind == TERMINAL:
            return [kind, fd, *self.address()]
        if kind == CHOWN:
            return [kind, self.slot(), rng.choice([0, 1]), rng.choice([0, 1])]
        if kind == TIMES:
            return [kind, self.slot(), rng.choice([1000, 2000, 1 << 31]), rng.choice([1000, 2000])]
        return [kind, fd]
