"""What the Sentry wants to know of its host, read before lock-down, when files can still be opened."""

from __future__ import annotations

import os

from sentry.abi.auxv import host_auxv


def _read(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        chunks = []
        while chunk := os.read(fd, 1 << 16):
            chunks.append(chunk)
        return b"".join(chunks)
    finally:
        os.close(fd)


class Host:
    """cpus: how many CPUs there are for us; memory_total: bytes; cpuinfo: the text of /proc/cpuinfo;
    auxv: the host's auxiliary vector by AT_ number."""

    __slots__ = ("auxv", "cpuinfo", "cpus", "memory_total")

    def __init__(self, cpus: int) -> None:
        self.cpus = cpus
        self.cpuinfo = _read("/proc/cpuinfo")
        self.memory_total = 1 << 30
        for line in _read("/proc/meminfo").split(b"\n"):
            if line.startswith(b"MemTotal:"):
                self.memory_total = int(line.split()[1]) * 1024
        self.auxv = host_auxv()
