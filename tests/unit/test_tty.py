"""Ptys: the two sides, job control, hang-up, controlling terminals, and the relay to the host's terminal."""

from __future__ import annotations

import errno
import os
import struct
import tty as host_tty

import pytest
from io_fakes import Interrupted, Kernel, Poller

from sentry.abi import ioctl as io
from sentry.abi import termios as t
from sentry.abi.errors import SysError
from sentry.abi.poll import POLLERR, POLLHUP, POLLIN, POLLOUT, POLLPRI
from sentry.abi.signal import SIG_IGN, SIGCONT, SIGHUP, SIGINT, SIGTTIN, SIGTTOU, SIGWINCH
from sentry.fs.dev.table import DeviceTable, makedev
from sentry.fs.devpts.bridge import HostTerminal
from sentry.fs.inode import Filesystem, Inode

ARG = 8192
O_NOCTTY, O_NONBLOCK = 0o400, 0o4000


@pytest.fixture
def kernel():
    kernel = Kernel()
    kernel.dev = DeviceTable()
    return kernel


def device(kernel, task, major, minor, flags=2):
    node = Inode(Filesystem(), 9, 0o020666)
    node.rdev = makedev(major, minor)
    return task.do(kernel.dev.open(node, None, flags, task.cred))


def fails(number, function, *args):
    with pytest.raises(SysError) as info:
        function(*args)
    assert info.value.errno == number


def pair(kernel, task):
    master = device(kernel, task, 5, 2)
    fails(errno.EIO, kernel.dev.devpts.open_slave, master.pty.index, 2)
    task.mm.write_u32(ARG, 0)
    task.do(master.ioctl(task, io.TIOCSPTLCK, ARG))
    return master


def open_slave(kernel, task, master, flags=2):
    async def opening():
        return kernel.dev.devpts.open_slave(master.pty.index, flags)

    return task.do(opening())


def ask(task, file, request):
    task.do(file.ioctl(task, request, ARG))
    return task.mm.read_u32(ARG)


def modes(task, file, *, lflag=None, cc=()):
    task.do(file.ioctl(task, io.TCGETS, ARG))
    values = list(t.TERMIOS.unpack(task.mm.read(ARG, 36)))
    if lflag is not None:
        values[3] = lflag
    chars = bytearray(values[5])
    for index, value in cc:
        chars[index] = value
    values[5] = bytes(chars)
    task.mm.write(ARG, t.TERMIOS.pack(*values))
    task.do(file.ioctl(task, io.TCSETS, ARG))


def test_both_sides(kernel):
    task = kernel.process()
    master = pair(kernel, task)
    slave = open_slave(kernel, task, master, 2 | O_NOCTTY)
    assert ask(task, master, io.TIOCGPTN) == 0
    assert slave.inode.rdev == makedev(136, 0)
    task.do(master.write(b"hi\n"))
    assert task.do(master.read(99)) == b"hi\r\n"
    assert slave.poll() & POLLIN and ask(task, slave, io.FIONREAD) == 3
    assert task.do(slave.read(99)) == b"hi\n"
    task.do(slave.write(b"a\nb"))
    assert master.poll() & POLLIN and ask(task, master, io.FIONREAD) == 4
    assert task.do(master.read(99)) == b"a\r\nb"
    with pytest.raises(SysError) as info:
        task.do(master.read(99))
    assert info.value.errno == errno.EAGAIN
    fails(errno.ENOTTY, ask, task, slave, io.TIOCGPTN)
    fails(errno.ENOTTY, ask, task, slave, 0x1234)


def test_closing_the_slave(kernel):
    task = kernel.process()
    master = pair(kernel, task)
    slave = open_slave(kernel, task, master)
    task.do(slave.write(b"last"))
    slave.put()
    assert master.poll() & (POLLHUP | POLLIN) == POLLHUP | POLLIN
    assert task.do(master.read(99)) == b"last"
    fails(errno.EIO, task.do, master.read(99))
    slave = open_slave(kernel, task, master)
    fails(errno.EAGAIN, task.do, master.read(99))


def test_closing_the_master_hangs_up(kernel):
    task = kernel.process()
    child = kernel.process(task, pgrp="new")
    master = pair(kernel, task)
    slave = open_slave(kernel, task, master)
    assert task.group.tty is slave.pty
    slave.pty.pgrp = child.group.pgrp.pid
    child.begin(slave.read(9))
    master.put()
    kernel.run()
    assert child.error.errno == errno.EIO
    assert task.group.signals == [SIGHUP, SIGCONT] and child.group.signals == []
    assert task.do(slave.read(9)) == b""
    fails(errno.EIO, task.do, slave.write(b"x"))
    fails(errno.EIO, ask, task, slave, io.TIOCGWINSZ)
    fails(errno.ENOTTY, ask, task, slave, io.TIOCSPGRP)
    assert slave.poll() & (POLLERR | POLLHUP | POLLIN | POLLOUT) == POLLERR | POLLHUP | POLLIN | POLLOUT
    fails(errno.ENXIO, device, kernel, task, 5, 0)
    assert not kernel.dev.devpts.ptys


def test_devpts_directory(kernel):
    task = kernel.process()
    masters = [pair(kernel, task) for _ in range(3)]
    masters[1].put()
    root = kernel.dev.devpts.root
    assert [name for _, _, name in task.do(root.snapshot())] == [b"ptmx", b"0", b"2"]
    assert task.do(root.lookup(b"2")) is masters[2].pty.inode
    fails(errno.ENOENT, task.do, root.lookup(b"1"))
    fails(errno.ENOENT, task.do, root.lookup(b"02"))
    assert pair(kernel, task).pty.index == 1


def test_controlling_terminal(kernel):
    task = kernel.process()
    master = pair(kernel, task)
    fails(errno.ENXIO, device, kernel, task, 5, 0)
    slave = open_slave(kernel, task, master, 2 | O_NOCTTY)
    assert task.group.tty is None
    fails(errno.ENOTTY, ask, task, slave, io.TIOCGPGRP)
    task.do(slave.ioctl(task, io.TIOCSCTTY, 0))
    assert task.group.tty is slave.pty
    assert ask(task, slave, io.TIOCGPGRP) == task.group.pgrp.pgid
    assert ask(task, slave, io.TIOCGSID) == task.group.session.sid
    same = device(kernel, task, 5, 0)
    assert same.pty is slave.pty
    other = kernel.process()
    with pytest.raises(SysError) as info:
        other.do(slave.ioctl(other, io.TIOCSCTTY, 0))
    assert info.value.errno == errno.EPERM
    other.do(slave.ioctl(other, io.TIOCSCTTY, 1))
    assert task.group.tty is None and other.group.tty is slave.pty
    other.do(slave.ioctl(other, io.TIOCNOTTY, 0))
    assert other.group.tty is None and slave.pty.session is None
    assert other.group.signals == [SIGHUP, SIGCONT]


def test_background_reads_and_changes_are_stopped(kernel):
    shell = kernel.process()
    master = pair(kernel, shell)
    slave = open_slave(kernel, shell, master)
    job = kernel.process(shell, pgrp="new")
    job.begin(slave.read(9))
    assert isinstance(job.error, Interrupted) and job.group.signals == [SIGTTIN]
    job.group.sighand.set(SIGTTIN, (SIG_IGN, 0, 0, 0))
    fails(errno.EIO, job.do, slave.read(9))
    assert job.do(slave.write(b"x")) == 1
    lflag = slave.pty.ldisc.termios.lflag
    modes(shell, slave, lflag=lflag | t.TOSTOP)
    job.begin(slave.write(b"x"))
    assert isinstance(job.error, Interrupted) and job.group.signals == [SIGTTIN, SIGTTOU]
    job.mm.write_u32(ARG, job.group.pgrp.pgid)
    job.begin(slave.ioctl(job, io.TIOCSPGRP, ARG))
    assert isinstance(job.error, Interrupted)
    job.blocked = 1 << (SIGTTOU - 1)
    job.do(slave.ioctl(job, io.TIOCSPGRP, ARG))
    assert slave.pty.foreground is job.group.pgrp
    job.blocked = 0
    job.group.sighand.set(SIGTTIN, (0, 0, 0, 0))
    master_input = shell.do(master.write(b"\x03"))
    assert master_input == 1 and job.group.signals[-1] == SIGINT
    assert SIGINT not in shell.group.signals


def test_orphans_get_eio(kernel):
    shell = kernel.process()
    master = pair(kernel, shell)
    slave = open_slave(kernel, shell, master)
    job = kernel.process(shell, pgrp="new")
    job.group.pgrp.session = shell.group.session
    job.group.parent = None
    fails(errno.EIO, job.do, slave.read(9))


def test_set_pgrp_errors(kernel):
    shell = kernel.process()
    master = pair(kernel, shell)
    slave = open_slave(kernel, shell, master)
    stranger = kernel.process()
    for number, pgid in ((errno.EINVAL, 0xFFFFFFFF), (errno.ESRCH, 7777), (errno.EPERM, stranger.group.tgid)):
        shell.mm.write_u32(ARG, pgid)
        fails(number, shell.do, slave.ioctl(shell, io.TIOCSPGRP, ARG))


def test_window_size(kernel):
    task = kernel.process()
    master = pair(kernel, task)
    slave = open_slave(kernel, task, master)
    task.mm.write(ARG, struct.pack("<HHHH", 24, 80, 1, 2))
    task.do(master.ioctl(task, io.TIOCSWINSZ, ARG))
    assert task.group.signals == [SIGWINCH]
    task.do(master.ioctl(task, io.TIOCSWINSZ, ARG))
    assert task.group.signals == [SIGWINCH]
    task.mm.write(ARG, bytes(8))
    task.do(slave.ioctl(task, io.TIOCGWINSZ, ARG))
    assert task.mm.read(ARG, 8) == struct.pack("<HHHH", 24, 80, 1, 2)


def test_vmin_and_vtime(kernel):
    task = kernel.process()
    master = pair(kernel, task)
    slave = open_slave(kernel, task, master)
    modes(task, slave, lflag=0, cc=((t.VMIN, 3), (t.VTIME, 0)))
    task.begin(slave.read(9))
    for c in b"abc":
        assert task.busy
        master.pty.ldisc.receive(bytes((c,)))
        kernel.run()
    assert task.result == b"abc"
    master.pty.ldisc.receive(b"d")
    assert not slave.poll() & POLLIN
    modes(task, slave, lflag=0, cc=((t.VMIN, 0), (t.VTIME, 0)))
    assert task.do(slave.read(9)) == b"d"
    assert task.do(slave.read(9)) == b""
    modes(task, slave, lflag=0, cc=((t.VMIN, 1), (t.VTIME, 0)))
    slave.flags |= O_NONBLOCK
    fails(errno.EAGAIN, task.do, slave.read(9))


def test_interrupted_read_keeps_what_it_has(kernel):
    task = kernel.process()
    master = pair(kernel, task)
    slave = open_slave(kernel, task, master)
    modes(task, slave, lflag=0, cc=((t.VMIN, 5), (t.VTIME, 0)))
    task.begin(slave.read(9))
    master.pty.ldisc.receive(b"ab")
    kernel.run()
    assert task.busy
    task.interrupt()
    kernel.run()
    assert task.result == b"ab"


def test_packet_mode(kernel):
    task = kernel.process()
    master = pair(kernel, task)
    slave = open_slave(kernel, task, master)
    task.mm.write_u32(ARG, 1)
    task.do(master.ioctl(task, io.TIOCPKT, ARG))
    task.do(slave.write(b"data"))
    assert task.do(master.read(99)) == b"\0data"
    task.do(slave.ioctl(task, io.TCXONC, t.TCOOFF))
    assert master.poll() & POLLPRI
    assert task.do(master.read(99)) == bytes((t.TIOCPKT_STOP,))
    fails(errno.EAGAIN, task.do, slave.write(b"x"))
    task.do(slave.ioctl(task, io.TCXONC, t.TCOON))
    assert task.do(master.read(99)) == bytes((t.TIOCPKT_START,))
    task.do(slave.ioctl(task, io.TCFLSH, t.TCIFLUSH))
    assert task.do(master.read(99)) == bytes((t.TIOCPKT_FLUSHREAD,))


def test_output_is_bounded(kernel):
    task = kernel.process()
    master = pair(kernel, task)
    slave = open_slave(kernel, task, master)
    total = 0
    while slave.poll() & POLLOUT:
        total += task.do(slave.write(b"line\n" * 1000))
    with pytest.raises(SysError):
        for _ in range(100):
            task.do(slave.write(b"x" * 100))
    assert 4096 < total <= 16384
    task.begin(slave.read(1))
    task.interrupt()
    kernel.run()
    while master.poll() & POLLIN:
        task.do(master.read(1000))
    assert slave.poll() & POLLOUT


def test_peer_and_exclusive(kernel):
    task = kernel.process()
    master = pair(kernel, task)
    fd = task.do(master.ioctl(task, io.TIOCGPTPEER, 2 | O_NOCTTY | 0o2000000))
    slave = task.files.get(fd)
    assert slave.pty is master.pty and task.files.cloexec(fd)
    task.do(slave.ioctl(task, io.TIOCEXCL, 0))
    open_slave(kernel, task, master)
    task.cred.effective = 0
    fails(errno.EBUSY, open_slave, kernel, task, master)


def test_relay_to_the_host_s_terminal(kernel):
    master, slave = kernel.dev.devpts.new_pair()
    task = kernel.process()
    slave.pty.acquire(task.group)
    outer, inner = os.openpty()
    host_tty.setraw(inner)
    os.set_blocking(inner, False)
    poller = Poller()
    bridge = HostTerminal(kernel, master, inner, inner, poller)
    bridge.resize(30, 100)
    assert task.group.signals == [SIGWINCH]
    task.begin(slave.read(99))
    os.write(outer, b"typed\r")
    kernel.run(poller, lambda: not task.busy)
    assert task.result == b"typed\n"
    echoed = b""
    while len(echoed) < 7:
        kernel.run(poller, lambda: not master.pty.ldisc.output)
        echoed += os.read(outer, 99)
    assert echoed == b"typed\r\n"
    big = b"0123456789" * 5000

    async def print_all():
        left = big
        while left:
            try:
                left = left[await slave.write(left) :]
            except SysError:
                await kernel_block(slave)

    task.begin(print_all())
    got = b""
    os.set_blocking(outer, False)
    for _ in range(3000):
        kernel.scheduler.run()
        try:
            got += os.read(outer, 4096)
        except BlockingIOError:
            poller.wait(0.02)
        if len(got) == len(big):
            break
    assert got == big
    os.write(outer, b"\x03")
    kernel.run(poller, lambda: SIGINT in task.group.signals)
    assert SIGINT in task.group.signals
    os.close(outer)
    kernel.run(poller, lambda: slave.pty.hung_up)
    assert slave.pty.hung_up


async def kernel_block(slave):
    from sentry.kernel.wait import block

    await block((slave.queue, POLLOUT))
