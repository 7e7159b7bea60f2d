"""Guest memory: address spaces as Linux's mm_struct describes them, and what is loaded into them.

vma.py holds the tree of mappings, manager.py the MemoryManager (struct mm_struct) with its
mmap/munmap/mprotect/brk, remap.py and advise.py the rarer operations, elf.py and stack.py what
execve needs, commit.py the accounting.  Where bytes really are is the platform's business.
"""

from __future__ import annotations

from sentry.mm.commit import Commit
from sentry.mm.manager import MemoryManager

__all__ = ["Commit", "MemoryManager"]
