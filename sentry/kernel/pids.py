"""Process ids and the namespaces that they are numbers in (struct pid, pid_namespaces(7)).

A `Pid` is what a number stands for: it names one thread, process, process group or session for as long as
somebody holds it, in the namespace it was made in and in all that are around that one.  Nothing leaves the
kernel, or is looked up, but in the namespace of whoever asks:

    task.pid.nr(other.pid.ns)       the id of `task` as `other` sees it, 0 if it doesn't
    task.pid.ns.tasks.get(number)   the task that `number` means to `task`

The numbers of the outermost namespace also stand in `Task.tid`, `ThreadGroup.tgid`, `ProcessGroup.pgid` and
`Session.sid`; they are for the kernel's own use.
"""

from __future__ import annotations

import errno

from sentry.abi.errors import SysError
from sentry.abi.limits import PID_MAX
from sentry.kernel.userns import INITIAL, Namespace
from sentry.kernel.wait import WaitQueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.group import ProcessGroup, ThreadGroup
    from sentry.kernel.task import Task
    from sentry.kernel.userns import UserNamespace

FIRST_RECYCLED_PID = 300
#: How deep namespaces nest (MAX_PID_NS_LEVEL).
MAX_LEVEL = 32
INITIAL_INO = 4026531836


class PidNamespace(Namespace):
    """Numbers for processes; the process with number 1 is its init."""

    __slots__ = (
        "dead",
        "groups",
        "init",
        "last_pid",
        "level",
        "on_empty",
        "parent",
        "pgrps",
        "pid_max",
        "tasks",
    )
    kind = b"pid"

    def __init__(self, parent: PidNamespace | None, user_ns: UserNamespace = INITIAL, ino: int = 0) -> None:
        super().__init__(user_ns, ino or INITIAL_INO)
        self.parent = parent
        self.level: int = 0 if parent is None else parent.level + 1
        self.tasks: dict[int, Task] = {}
        self.groups: dict[int, ThreadGroup] = {}
        self.pgrps: dict[int, ProcessGroup] = {}
        self.last_pid = 0
        #: New numbers are below this (kernel.pid_max in proc_sys_kernel(5)).
        self.pid_max: int = PID_MAX if parent is None else parent.pid_max
        #: Who adopts orphans; None before the first process.
        self.init: ThreadGroup | None = None
        #: The init is gone, or going: nothing can be born here any more.
        self.dead = False
        #: Its init waits for the last of the others to go.
        self.on_empty: ThreadGroup | None = None

    def _free(self, number: int) -> bool:
        return number not in self.tasks and number not in self.groups and number not in self.pgrps

    def new_number(self) -> int:
        number = self.last_pid
        for _ in range(self.pid_max):
            number += 1
            if number >= self.pid_max:
                number = FIRST_RECYCLED_PID
            if self._free(number):
                self.last_pid = number
                return number
        raise SysError(errno.EAGAIN)

    def claim_number(self, number: int) -> int:
        """clone3's set_tid; SysError(EINVAL, EEXIST)."""
        if not 0 < number < self.pid_max or (number != 1 and self.init is None):
            raise SysError(errno.EINVAL)
        if not self._free(number):
            raise SysError(errno.EEXIST)
        return number

    def contains(self, ns: PidNamespace | None) -> bool:
        """Whether `ns` is this one or lies within it."""
        while ns is not None:
            if ns is self:
                return True
            ns = ns.parent
        return False


class Pid:
    """What a process id stands for.  `task`, `group` and `pgrp` are who has it now."""

    __slots__ = (
        "group",
        "ino",
        "ns",
        "numbers",
        "pgrp",
        "queue",
        "serial",
        "spaces",
        "status",
        "task",
        "vnr",
    )
    #: The innermost namespace, which is that of the process.
    ns: PidNamespace
    _last_serial = 0

    def __init__(self, numbers: tuple[int, ...], spaces: tuple[PidNamespace, ...] = ()) -> None:
        #: From the outermost namespace to the one it was made in.
        self.numbers = numbers
        #: The number in the process's own namespace: what it takes itself for.
        self.vnr = numbers[-1]
        #: Never given twice, as the numbers are.
        self.serial = Pid._last_serial = Pid._last_serial + 1
        self.spaces = spaces
        if spaces:
            self.ns = spaces[-1]
        #: None when it is gone altogether (a zombie is still there).
        self.task: Task | None = None
        self.group: ThreadGroup | None = None
        self.pgrp: ProcessGroup | None = None
        #: Woken at the end of the task, and of the process; made when a pidfd wants it.
        self.queue: WaitQueue | None = None
        #: The wait status that the process had, for PIDFD_GET_INFO.
        self.status: int | None = None
        #: Of pidfds; 0: none was made yet.
        self.ino = 0

    def nr(self, ns: PidNamespace) -> int:
        """The number in `ns`, or 0."""
        level = ns.level
        if not level:
            return self.numbers[0]
        spaces = self.spaces
        return self.numbers[level] if level < len(spaces) and spaces[level] is ns else 0

    def retire(self) -> None:
        """Nobody has it any more: let the namespaces go, which may be gone then."""
        if len(self.numbers) > 1 and self.pgrp is None and self.spaces:
            self.ns = self.spaces[0]
            self.spaces = ()

    def notify(self) -> None:
        """Readiness of the pidfds may have changed."""
        if self.queue is not None:
            self.queue.wake()


def new_pid(ns: PidNamespace, wanted: tuple[int, ...] = ()) -> Pid:
    """An unused id in `ns` and all around it.  `wanted`: the numbers it is to have, the innermost first.

    SysError(ENOMEM) in a namespace whose init is gone, SysError(EAGAIN, EINVAL, EEXIST).
    """
    if ns.dead:
        raise SysError(errno.ENOMEM)
    spaces: list[PidNamespace] = []
    numbers: list[int] = []
    space: PidNamespace | None = ns
    for depth in range(ns.level + 1):
        assert space is not None
        if depth < len(wanted):
            numbers.append(space.claim_number(wanted[depth]))
        else:
            numbers.append(space.new_number())
        spaces.append(space)
        space = space.parent
    return Pid(tuple(reversed(numbers)), tuple(reversed(spaces)))
