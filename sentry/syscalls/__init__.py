"""System calls: the table, argument decoding, and one module a family of handlers.

Importing a family module fills the table.  `load()` imports those that nearly every program wants, before
lock-down; `load_all()` the others, too.  Where the code of all is at hand these wait for the first of their
calls (`table.LATE`): what nobody uses costs no time and no memory.
"""

from __future__ import annotations


def load() -> None:
    """Import the families that any program may want at once."""
    from sentry.syscalls import (  # noqa: F401
        arch,
        descriptors,
        events,
        exec,
        file_io,
        futex,
        listing,
        memory,
        misc,
        open,
        paths,
        poll,
        process,
        refused,
        signals,
        timers,
        waiting,
    )


def load_all() -> None:
    """Import every family, so that the table is complete."""
    load()
    from sentry.syscalls import (  # noqa: F401
        aio,
        credentials,
        file_copy,
        file_space,
        filesystems,
        futex2,
        handles,
        inotify,
        kcmp,
        kernel_log,
        limits,
        membarrier,
        mounts,
        mqueue,
        namespaces,
        numa,
        pages,
        pidfds,
        prctl,
        process_vm,
        ptrace,
        scheduling,
        seccomp,
        security,
        sockets,
        sockmsg,
        sockopt,
        sysv_msg,
        sysv_sem,
        sysv_shm,
        xattr,
    )
