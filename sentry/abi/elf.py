"""ELF64 for x86-64: the fields of headers that execve reads (elf(5))."""

from __future__ import annotations

from _struct import Struct

MAGIC = b"\x7fELF"
ELFCLASS64 = 2
EM_X86_64 = 62
ET_EXEC = 2
ET_DYN = 3

PT_LOAD = 1
PT_INTERP = 3
PT_GNU_STACK = 0x6474E551

PF_X = 1
PF_W = 2
PF_R = 4

#: e_ident e_type e_machine e_version e_entry e_phoff e_shoff e_flags e_ehsize e_phentsize e_phnum
#: e_shentsize e_shnum e_shstrndx
HEADER = Struct("<16sHHIQQQIHHHHHH")
#: p_type p_flags p_offset p_vaddr p_paddr p_filesz p_memsz p_align
PROGRAM_HEADER = Struct("<IIQQQQQQ")
