"""System calls: the table, argument decoding, and one module a family of handlers.

Importing a family module fills the table; `load()` imports them all (before lock-down).
"""

from __future__ import annotations


def load() -> None:
    """Import every family, so that the table is complete."""
    from sentry.syscalls import (  # noqa: F401
        aio,
        credentials,
        descriptors,
        events,
        exec,
        file_copy,
        file_io,
        file_space,
        filesystems,
        futex,
        futex2,
        handles,
        inotify,
        kcmp,
        kernel_log,
        limits,
        membarrier,
        memory,
        misc,
        mounts,
        mqueue,
        namespaces,
        numa,
        open,
        paths,
        pidfds,
        poll,
        prctl,
        process,
        process_vm,
        ptrace,
        scheduling,
        seccomp,
        security,
        signals,
        sockets,
        sockmsg,
        sockopt,
        sysv_msg,
        sysv_sem,
        sysv_shm,
        timers,
        waiting,
        xattr,
    )

    # isort: split
    # Last: it fills in only what nobody has implemented.
    from sentry.syscalls import refused  # noqa: F401
