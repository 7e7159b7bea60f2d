"""The auxiliary vector (getauxval(3)): numbers, and the values that only the host's CPU can tell."""

from __future__ import annotations

from _struct import Struct

AT_NULL = 0
AT_PHDR = 3
AT_PHENT = 4
AT_PHNUM = 5
AT_PAGESZ = 6
AT_BASE = 7
AT_FLAGS = 8
AT_ENTRY = 9
AT_UID = 11
AT_EUID = 12
AT_GID = 13
AT_EGID = 14
AT_PLATFORM = 15
AT_HWCAP = 16
AT_CLKTCK = 17
AT_SECURE = 23
AT_RANDOM = 25
AT_HWCAP2 = 26
AT_EXECFN = 31
AT_SYSINFO_EHDR = 33
AT_MINSIGSTKSZ = 51

_PAIR = Struct("<QQ")
_host: dict[int, int] = {}


def host_auxv() -> dict[int, int]:
    """AT_HWCAP, AT_HWCAP2 and AT_MINSIGSTKSZ of this host, read once: call it before lock-down."""
    if not _host:
        with open("/proc/self/auxv", "rb") as file:
            data = file.read()
        pairs = dict(_PAIR.iter_unpack(data[: len(data) & ~15]))
        for number, default in ((AT_HWCAP, 0), (AT_HWCAP2, 0), (AT_MINSIGSTKSZ, 2048)):
            _host[number] = pairs.get(number, default)
    return _host
