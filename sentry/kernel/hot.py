"""What a task shares with its thread (Thread.hot, struct guest_hot in csrc/abi/engine.h)."""

from __future__ import annotations

#: Of Thread.hot: all of it is true; and private futexes are the kernel's.
ALL_KNOWN = 0x3FF
OWN_FUTEXES = 1 << 10


class Detached:
    """Stands in for `Thread.hot` while a task has no thread."""

    __slots__ = ("clear_tid", "ids", "known", "pending", "robust_list", "sigmask")

    def __init__(self, sigmask: int = 0) -> None:
        self.sigmask = sigmask
        self.clear_tid = self.robust_list = 0
        self.known = self.pending = 0
        self.ids: tuple[int, ...] = ()
