"""Limits of tables that all processes of a sandbox share, and of queues that others fill."""

from __future__ import annotations

import errno

import pytest
from sentry._engine import lib

from sentry.abi.errors import SysError
from sentry.abi.signal import SIGRTMIN, SIGUSR1, SigInfo, bit
from sentry.fs.file import File
from sentry.fs.inode import Filesystem, Inode
from sentry.kernel import fdtable
from sentry.kernel.fdtable import FDTable
from sentry.kernel.signals import RLIMIT_SIGPENDING, SigHand, Signals, SigPending


def refusal(call):
    with pytest.raises(SysError) as info:
        call()
    return info.value.errno


def test_descriptors_of_all_tables_are_counted(monkeypatch):
    monkeypatch.setattr(fdtable, "MAX_DESCRIPTORS", 5)
    before, lib.descriptor_count = lib.descriptor_count, 0
    table, file = FDTable(), File(Inode(Filesystem(), 1, 0o100644), 0)
    for _ in range(2):
        table.install(file.get(), 100)
    table.check_copy(1 << 20)
    other = table.copy()
    assert refusal(lambda: table.check_copy(1 << 20)) == errno.ENFILE
    other.replace(50, file.get(), False)
    other.replace(50, file.get(), False)
    refs = file.refs
    assert refusal(lambda: other.replace(51, file.get(), False)) == errno.ENFILE
    assert refusal(lambda: other.install(file, 100)) == errno.ENFILE
    assert file.refs == refs
    other.close_all()
    table.close_all()
    assert lib.descriptor_count == 0 and file.refs == 1
    lib.descriptor_count = before


class FakeGroup:
    zombie, tgid = False, 5

    def __init__(self, room):
        self.pending = SigPending()
        self.sighand = SigHand()
        self.tasks = []
        self.room = room

    def limit(self, number):
        assert number == RLIMIT_SIGPENDING
        return self.room


def test_a_full_queue_of_real_time_signals():
    signals, group = Signals(None), FakeGroup(2)
    queue = group.pending
    queued, plain, kernels = SigInfo(SIGRTMIN, -1), SigInfo(SIGRTMIN + 1, 0), SigInfo(SIGRTMIN + 2, 1)
    for info in (queued, queued):
        assert not signals._overflows(group, queue, info)
        queue.add(info)
    assert refusal(lambda: signals._overflows(group, queue, queued)) == errno.EAGAIN
    assert signals._overflows(group, queue, kernels)
    assert not signals._overflows(group, queue, plain)  # it stays pending, once
    queue.add(plain)
    assert signals._overflows(group, queue, plain)
    assert not signals._overflows(group, queue, SigInfo(SIGUSR1, 0))
    assert queue.bits == bit(SIGRTMIN) | bit(SIGRTMIN + 1)
