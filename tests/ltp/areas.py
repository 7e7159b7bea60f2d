"""The family of a test, and the part of the kernel that the family is about."""

from __future__ import annotations

import re

#: Patterns of families; the first area of which one matches the whole family counts.
AREAS = {
    "process": r"""
        clone\d* fork vfork exec.* exit.* wait.* getp?pid gettid [gs]et(s|pg)id [gs]etpgrp set_tid.* pidfd.*
        ioctl_pidfd prctl arch_prctl personality kcmp process_vm.* ptrace seccomp unshare setns ioctl_ns
        [gs]et(host|domain)name switch getcontext profil [gs]et_thread_area modify_ldt iopl ioperm
    """,
    "credentials": r"[gs]etr?e?s?[ug]id setfs[ug]id [gs]etgroups cap[gs]et umask prot_hsymlinks",
    "signal": r"t?g?kill abort pause (rt_)?sig.* rt_tgsig.* [gs]{1,2}etmask alarm",
    "memory": r"""
        mmap.* munmap mremap mprotect s?brk m(un)?lock.* mincore madvise msync mall(info|opt).* mseal pkey
        memfd.* remap_file_pages userfaultfd process_madvise dirtyc0w.* mem(set|cmp|cpy) cacheflush
    """,
    "ipc": r"""
        msg.* sem.* shm.* mq_.* pipe.* eventfd.* epoll.* p?poll p?select splice tee vmsplice sendfile
        inotify.* copy_file_range dirtypipe
    """,
    "time": r"clock_.* .*nanosleep timer.* [gs]etitimer gettimeofday times?",
    "scheduler": r"""
        sched_.* nice [gs]etpriority futex.* [gs]et_robust.* membarrier getcpu ioprio.* [gs]etrlimit
        getrusage ulimit
    """,
    "sockets": r"""
        accept.* bind connect listen recv.* send.* socket.* sockioctl [gs]etsockopt get(sock|peer)name
        shutdown gethostby.*
    """,
    "optional": r"io_.* .*_?key keyctl landlock lsm_.* quotactl acct sysfs ustat vhangup cachestat",
    "system": r"(new)?uname sys(ctl|info|conf|call|log) confstr getrandom gethostid getpagesize fmtmsg str.*",
    "files": r".*",
}
_COMPILED = {name: re.compile("|".join(patterns.split())) for name, patterns in AREAS.items()}


def family(test: str) -> str:
    """`fcntl` for fcntl14_64: the name without what numbers the tests and the widths of types."""
    return re.sub(r"(_64|_16)$", "", test).rstrip("0123456789").rstrip("_") or test


def area(test: str) -> str:
    name = family(test)
    return next(area for area, pattern in _COMPILED.items() if pattern.fullmatch(name))
