"""The kernel's log, as far as a sandbox has one: what syslog(2) reads, and what a console would show."""

from __future__ import annotations

#: What would go to a console is more urgent than the first; the others are for messages without a level, the
#: least that the first can be, and what it was at first (kernel.printk in proc_sys_kernel(5)).
LEVELS = (4, 4, 1, 7)
HIGHEST = 8
BUFFER_SIZE = 1 << 17


class KernelLog:
    def __init__(self, release: bytes) -> None:
        lines = (b"Linux version %s (Sentry)" % release, b"Command line: quiet")
        #: Records as syslog(2) gives them.
        self.records = [b"<6>[    0.000000] %s\n" % line for line in lines]
        #: Records before these have been read by SYSLOG_ACTION_READ, or cleared for READ_ALL.
        self.unread = self.cleared = 0
        self.levels = list(LEVELS)
        #: The level to come back to after SYSLOG_ACTION_CONSOLE_OFF, or 0.
        self.saved = 0

    def take_unread(self, size: int) -> bytes:
        """The next whole records of at most `size` bytes."""
        taken = b""
        while self.unread < len(self.records) and len(taken) + len(self.records[self.unread]) <= size:
            taken += self.records[self.unread]
            self.unread += 1
        return taken

    def unread_size(self) -> int:
        return sum(map(len, self.records[self.unread :]))

    def last(self, size: int) -> bytes:
        """The last whole records that were not cleared, of at most `size` bytes."""
        taken = b""
        for record in reversed(self.records[self.cleared :]):
            if len(taken) + len(record) > size:
                break
            taken = record + taken
        return taken

    def console_off(self) -> None:
        self.saved = self.saved or self.levels[0]
        self.levels[0] = self.levels[2]

    def console_on(self) -> None:
        if self.saved:
            self.levels[0], self.saved = self.saved, 0

    def set_console_level(self, level: int) -> None:
        self.levels[0], self.saved = max(level, self.levels[2]), 0
