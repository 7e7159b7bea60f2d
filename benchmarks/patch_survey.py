"""How many `syscall` instructions of real programs call-site patching covers, and why not the others.

    python benchmarks/patch_survey.py [-v] FILE…

objdump (binutils) is the judge of where instructions begin.  The last lines are for the calls that
programs make most.  docs/patching.md quotes the table.
"""

from __future__ import annotations

import collections
import re
import subprocess
import sys
from pathlib import Path

from sentry._engine import ffi, lib

from sentry.abi import syscall_nr

WHY = {
    lib.PATCH_NO_INSN: "unclear",
    lib.PATCH_NO_MOVE: "not movable",
    lib.PATCH_NO_NUMBER: "wrong number",
    lib.PATCH_NO_HOLE: "no padding",
    lib.PATCH_NO_SIGRETURN: "sigreturn",
}
#: A long jump, or a short one into padding, by one store or by several; and the reasons not to.
DONE = ["long", "short", "long in steps", "short in steps"]
COLUMNS = [*DONE, *WHY.values(), "WRONG"]
IMPORTANT = [
    "read", "write", "pread64", "pwrite64", "readv", "writev", "lseek", "fstat", "newfstatat", "openat",
    "close", "access", "readlink", "getdents64", "fcntl", "dup", "pipe2", "ioctl", "poll", "ppoll",
    "select", "pselect6", "epoll_wait", "epoll_pwait", "sendto", "recvfrom", "sendmsg", "recvmsg",
    "futex", "rt_sigprocmask", "rt_sigaction", "kill", "tgkill", "clock_gettime", "nanosleep",
    "clock_nanosleep", "sched_yield", "getpid", "getppid", "gettid", "mmap", "munmap", "mprotect", "brk",
    "clone", "wait4",
]  # fmt: skip
NUMBERS = {value: name for name, value in vars(syscall_nr.SYS).items() if isinstance(value, int)}
REGISTERS = [*(f"r{n}" for n in range(8, 16)), *(f"r{n}" for n in ("ax", "bx", "cx", "dx", "si", "di", "bp"))]
_LINE = re.compile(r"\s*([0-9a-f]+):\t(\S+)\s*(.*)")
_SECTION = re.compile(r"\s*\[\s*\d+\]\s+\S+\s+PROGBITS\s+(\w+)\s+(\w+)\s+(\w+)\s+\w+\s+\w*X")
_NUMBER = re.compile(r"\$0x([0-9a-f]+),%[er]ax")


class Site:
    """A syscall instruction: its address, that of the instruction before it, the number if it is known."""

    def __init__(self, addr: int, before: tuple[int, str, str] | None, number: int | None) -> None:
        self.addr = addr
        self.before = before
        self.number = number


def run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def sections(path: str) -> list[tuple[int, bytes]]:
    """(address, contents) of what can be executed."""
    data = Path(path).read_bytes()
    found = []
    for line in run("readelf", "-SW", path).splitlines():
        if match := _SECTION.match(line):
            addr, offset, size = (int(group, 16) for group in match.groups())
            found.append((addr, data[offset : offset + size]))
    return found


def sites(path: str) -> list[Site]:
    found: list[Site] = []
    recent: collections.deque[tuple[int, str, str]] = collections.deque(maxlen=8)
    for line in run("objdump", "-d", "--no-show-raw-insn", path).splitlines():
        if not (match := _LINE.match(line)):
            if line.endswith(":"):
                recent.clear()
            continue
        addr, name, operands = int(match[1], 16), match[2], match[3]
        if name == "syscall":
            found.append(Site(addr, recent[-1] if recent else None, number_before(list(recent))))
        recent.append((addr, name, operands))
    return found


def number_before(recent: list[tuple[int, str, str]]) -> int | None:
    for _, name, operands in reversed(recent):
        if name.startswith("mov") and (match := _NUMBER.match(operands)):
            return int(match[1], 16)
        if name == "xor" and operands == "%eax,%eax":
            return 0
        if name in ("call", "syscall") or operands.endswith((",%eax", ",%rax")):
            return None
    return None


def examine(site: Site, addr: int, code: bytes) -> str:
    """The column of a site."""
    begin = max(addr, site.addr - lib.PATCH_BEFORE)
    window = code[begin - addr : site.addr - addr + lib.PATCH_AFTER]
    number = 1000 if site.number is None else site.number
    plan = ffi.new("struct patch_plan *")
    regs = ffi.new("struct guest_regs *")
    for name in [*REGISTERS, "orig_rax"]:
        setattr(regs, name, number)
    regs.rip = site.addr + 2
    result = lib.patch_analyze(window, len(window), begin, regs, plan)
    if result < 0:
        return WHY[result]
    if site.before is None or plan.start != site.before[0]:
        return "WRONG"
    size = 2 if plan.hole else 5
    return ("short" if plan.hole else "long") + ("" if plan.start % 8 + size <= 8 else " in steps")


def survey(path: str, totals: dict[str, collections.Counter[str]], verbose: bool) -> collections.Counter[str]:
    """Columns of one ELF file; `totals` gets those of each important call."""
    counts: collections.Counter[str] = collections.Counter()
    code = sections(path)
    for site in sites(path):
        for addr, data in code:
            if addr <= site.addr < addr + len(data):
                column = examine(site, addr, data)
                counts[column] += 1
                name = NUMBERS.get(site.number, "?") if site.number is not None else "?"
                totals[name][column] += 1
                if verbose and column not in DONE:
                    print(f"    {site.addr:#x} {name}: {column}: {site.before and site.before[1:]}")
                break
    return counts


def show(title: str, counts: collections.Counter[str]) -> None:
    total = sum(counts.values())
    done = sum(counts[name] for name in DONE)
    rest = ", ".join(f"{name} {counts[name]}" for name in COLUMNS if counts[name])
    print(f"{title:28} {total:5} sites {100 * done / max(total, 1):6.1f} %   {rest}")


def main() -> None:
    verbose = "-v" in sys.argv
    totals: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for path in sys.argv[1:]:
        if path != "-v":
            show(Path(path).name, survey(path, totals, verbose))
    print()
    for name in [*IMPORTANT, "?"]:
        if name in totals:
            show(name, totals[name])


if __name__ == "__main__":
    main()
