"""Core files (core(5)): a header, notes, and the memory of a program at its end (elf.h, sys/procfs.h)."""

from __future__ import annotations

from _struct import Struct

#: Signals whose default action dumps core (signal(7)): QUIT ILL TRAP ABRT BUS FPE SEGV XCPU XFSZ SYS.
CORE_SIGNALS = sum(1 << signo - 1 for signo in (3, 4, 5, 6, 7, 8, 11, 24, 25, 31))

EHDR = Struct("<16sHHIQQQIHHHHHH")
PHDR = Struct("<IIQQQQQQ")
IDENT = b"\x7fELF\2\1\1".ljust(16, b"\0")
ET_CORE, EM_X86_64, PT_LOAD, PT_NOTE, PN_XNUM = 4, 62, 1, 4, 0xFFFF
NOTE = Struct("<III")
NT_PRSTATUS, NT_FPREGSET, NT_PRPSINFO, NT_AUXV = 1, 2, 3, 6
NT_FILE, NT_SIGINFO = 0x46494C45, 0x53494749

#: struct elf_prstatus: signal, code and errno; the signal again; pending and blocked; pid, ppid, pgrp, sid;
#: four times; 27 registers; whether there are floating-point registers.
PRSTATUS = Struct("<3i h2x 2Q 4i 8q 27Q i4x")
REGISTERS = (
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi",
    "orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs",
)  # fmt: skip
#: struct elf_prpsinfo: state (number, letter), zombie, nice; flags; ids; pid, ppid, pgrp, sid; name; argv.
PRPSINFO = Struct("<bcbb4x Q 2I 4i 16s80s")
SIGINFO_SIZE = 128
FXSAVE_SIZE = 512
#: No NT_FILE larger than this is written (kernel.core_file_note_size_limit).
FILES_MAX = 4 << 20
#: A limit below this makes no core file (core_dump's min_coredump).
LEAST = 4096

#: What /proc/PID/coredump_filter lets be dumped, its bits in all, and what is at first.
FILTER_ANON_PRIVATE, FILTER_ANON_SHARED, FILTER_MAPPED_PRIVATE, FILTER_MAPPED_SHARED, FILTER_ELF_HEADERS = (
    1 << bit for bit in range(5)
)
FILTER_BITS = 9
FILTER_DEFAULT = 0x33
