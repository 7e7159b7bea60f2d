"""Who may look into whom (ptrace(2), "Ptrace access mode checking")."""

from __future__ import annotations

import errno

from sentry.abi.capability import CAP_SYS_PTRACE
from sentry.abi.errors import SysError
from sentry.fs.proc.base import current_task

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.credentials import Credentials
    from sentry.kernel.task import Task


def may_access(task: Task | None, cred: Credentials, target: Task, real: bool = False) -> bool:
    """Whether `task` with `cred` may look into `target`: by its file-system ids, or its `real` ones."""
    if task is not None and task.group is target.group:
        return True
    group = target.group
    if group.dumpable != 1 and not cred.ns_capable(group.dump_ns, CAP_SYS_PTRACE):
        return False
    return cred.may_access(target.cred, group.dumpable, real)


def require_access(target: Task, cred: Credentials | None = None) -> None:
    """SysError(EACCES) unless the current task may look into `target`."""
    task = current_task()
    if cred is None:
        if task is None:
            return
        cred = task.cred
    if not may_access(task, cred, target):
        raise SysError(errno.EACCES)
