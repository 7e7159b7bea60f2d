"""uname and friends, limits, scheduling parameters, prctl, and the calls that are refused."""

from __future__ import annotations

import errno
from struct import pack, unpack

import pytest
from misc_support import BASE, SIZE, World

from sentry.abi import prctl as pr
from sentry.abi.syscall_nr import SYS
from sentry.kernel.sched import Sched
from sentry.syscalls.table import REFUSED, TABLE

END = BASE + SIZE


@pytest.fixture
def world() -> World:
    return World()


def test_uname_and_names(world: World) -> None:
    assert world.call(SYS.uname, BASE) == 0
    fields = [
        bytes(field).rstrip(b"\0") for field in zip(*[iter(world.task.mm.read(BASE, 390))] * 65, strict=True)
    ]
    assert fields == [b"Linux", b"box", b"6.1.2-test", b"#1 SMP PREEMPT_DYNAMIC Sentry", b"x86_64", b"(none)"]
    world.task.mm.write(BASE, b"newname")
    assert world.call(SYS.sethostname, BASE, 3) == 0 and world.kernel.uts.nodename == b"new"
    assert world.call(SYS.sethostname, BASE, 65) == -errno.EINVAL
    assert world.call(SYS.setdomainname, 0, 3) == -errno.EFAULT
    world.task.cred = world.new_process(1000).cred
    assert world.call(SYS.sethostname, BASE, 3) == -errno.EPERM
    world.call(SYS.personality, 8)
    world.call(SYS.uname, BASE)
    assert world.task.mm.read(BASE + 4 * 65, 5) == b"i686\0"


def test_personality(world: World) -> None:
    assert world.call(SYS.personality, 0xFFFFFFFF) == 0
    assert world.call(SYS.personality, 0x0040000) == 0
    assert world.call(SYS.personality, 0xFFFFFFFF) == 0x0040000


def test_sysinfo_tells_of_the_sandbox(world: World) -> None:
    world.kernel.commit.used = 1 << 20
    assert world.call(SYS.sysinfo, BASE) == 0
    data = world.task.mm.read(BASE, 112)
    assert unpack("<2Q", data[32:48]) == (64 << 20, 63 << 20)
    assert unpack("<H", data[80:82])[0] == len(world.kernel.tasks) and unpack("<I", data[104:108]) == (1,)


def test_getrandom(world: World) -> None:
    assert world.call(SYS.getrandom, BASE, 256, 0) == 256
    assert len(set(world.task.mm.read(BASE, 256))) > 50
    assert world.call(SYS.getrandom, BASE, 8, 6) == -errno.EINVAL
    assert world.call(SYS.getrandom, BASE, 8, 8) == -errno.EINVAL
    assert world.call(SYS.getrandom, 0, 8, 0) == -errno.EFAULT
    assert world.call(SYS.getrandom, 0, 0, 0) == 0
    assert world.call(SYS.getrandom, END - 100, 1000, 0) == 100


def test_limits(world: World) -> None:
    mm = world.task.mm
    assert world.call(SYS.prlimit64, 0, 7, 0, BASE) == 0
    assert unpack("<2Q", mm.read(BASE, 16)) == (1024, 1048576)
    mm.write(BASE, pack("<2Q", 2000, 1000))
    assert world.call(SYS.setrlimit, 7, BASE) == -errno.EINVAL
    mm.write(BASE, pack("<2Q", 10, 1048577))
    assert world.call(SYS.setrlimit, 7, BASE) == -errno.EPERM
    mm.write(BASE, pack("<2Q", 10, 20))
    assert world.call(SYS.prlimit64, 0, 7, BASE, BASE + 16) == 0
    assert unpack("<2Q", mm.read(BASE + 16, 16)) == (1024, 1048576)
    assert world.task.group.limit(7) == 10
    assert world.call(SYS.getrlimit, 16, BASE) == -errno.EINVAL
    assert world.call(SYS.prlimit64, 4242, 7, 0, 0) == -errno.ESRCH
    other = world.new_process(1000)
    assert world.call(SYS.prlimit64, world.task.tid, 7, 0, 0, task=other) == -errno.EPERM
    other.group.limits[7] = (5, 10)
    other.mm.write(BASE, pack("<2Q", 5, 11))
    assert world.call(SYS.setrlimit, 7, BASE, task=other) == -errno.EPERM


def test_getrusage(world: World) -> None:
    world.task.utime_ns = 1_500_000_000
    world.task.group.child_stime = 2_000_000
    assert world.call(SYS.getrusage, 0, BASE) == 0
    assert unpack("<4q", world.task.mm.read(BASE, 32)) == (1, 500_000, 0, 0)
    assert world.call(SYS.getrusage, -1, BASE) == 0
    assert unpack("<4q", world.task.mm.read(BASE, 32)) == (0, 0, 0, 2000)
    assert world.call(SYS.getrusage, 2, BASE) == -errno.EINVAL


def test_affinity(world: World) -> None:
    mm = world.task.mm
    assert world.call(SYS.sched_getaffinity, 0, 128, BASE) == 8
    assert mm.read_u64(BASE) == 3
    assert world.call(SYS.sched_getaffinity, 0, 12, BASE) == -errno.EINVAL
    assert world.call(SYS.sched_getaffinity, 4242, 8, BASE) == -errno.ESRCH
    mm.write_u64(BASE, 0xFF02)
    assert world.call(SYS.sched_setaffinity, 0, 8, BASE) == 0
    assert world.task.affinity == 2
    assert world.call(SYS.getcpu, BASE, BASE + 4, 0) == 0 and mm.read_u32(BASE) == 1
    mm.write_u64(BASE, 4)
    assert world.call(SYS.sched_setaffinity, 0, 8, BASE) == -errno.EINVAL


def test_nice(world: World) -> None:
    assert world.call(SYS.getpriority, 0, 0) == 20
    assert world.call(SYS.setpriority, 0, 0, 50) == 0
    assert world.call(SYS.getpriority, 0, 0) == 1
    assert world.call(SYS.setpriority, 0, 0, -50) == 0
    assert world.call(SYS.getpriority, 0, 0) == 40
    assert world.call(SYS.getpriority, 3, 0) == -errno.EINVAL
    assert world.call(SYS.getpriority, 1, 4242) == -errno.ESRCH
    other = world.new_process(1000)
    assert world.call(SYS.setpriority, 0, 0, 5, task=other) == 0
    assert world.call(SYS.setpriority, 0, 0, 4, task=other) == -errno.EACCES
    assert world.call(SYS.setpriority, 0, world.task.tid, 5, task=other) == -errno.EPERM


def test_policies(world: World) -> None:
    mm = world.task.mm
    mm.write_u32(BASE, 10)
    assert world.call(SYS.sched_setscheduler, 0, 0, BASE) == -errno.EINVAL
    assert world.call(SYS.sched_setscheduler, 0, 2 | 0x40000000, BASE) == 0
    assert world.call(SYS.sched_getscheduler, 0) == 2 | 0x40000000
    assert world.call(SYS.sched_getparam, 0, BASE + 4) == 0 and mm.read_u32(BASE + 4) == 10
    assert world.call(SYS.sched_rr_get_interval, 0, BASE) == 0
    assert unpack("<2q", mm.read(BASE, 16)) == (0, 100_000_000)
    child = world.task.sched.for_child()
    assert (child.policy, child.priority, child.reset_on_fork) == (0, 0, False)
    other = world.new_process(1000)
    other.mm.write_u32(BASE, 10)
    assert world.call(SYS.sched_setscheduler, 0, 1, BASE, task=other) == -errno.EPERM
    assert world.call(SYS.sched_setscheduler, 0, 7, BASE, task=other) == -errno.EINVAL
    assert world.call(SYS.sched_get_priority_max, 1) == 99
    assert world.call(SYS.sched_get_priority_min, 4) == -errno.EINVAL


def test_sched_attr(world: World) -> None:
    mm = world.task.mm
    attr = pack("<IIQiIQQQ", 48, 0, 0, 7, 0, 0, 0, 0)
    mm.write(BASE, attr)
    assert world.call(SYS.sched_setattr, 0, BASE, 0) == 0
    assert world.call(SYS.getpriority, 0, 0) == 13
    assert world.call(SYS.sched_getattr, 0, BASE, 200, 0) == 0
    assert unpack("<IIQi", mm.read(BASE, 20)) == (56, 0, 0, 7)
    assert world.call(SYS.sched_getattr, 0, BASE, 47, 0) == -errno.EINVAL
    mm.write_u32(BASE, 47)
    assert world.call(SYS.sched_setattr, 0, BASE, 0) == -errno.E2BIG and mm.read_u32(BASE) == 56
    mm.write(BASE, pack("<I", 64) + attr[4:] + b"\1" * 16)
    assert world.call(SYS.sched_setattr, 0, BASE, 0) == -errno.E2BIG


def test_ioprio(world: World) -> None:
    assert world.call(SYS.ioprio_get, 1, 0) == 0
    assert world.call(SYS.ioprio_get, 2, 0) == 2 << 13 | 4
    assert world.call(SYS.ioprio_set, 1, 0, 2 << 13 | 5) == 0
    assert world.call(SYS.ioprio_get, 1, 0) == 2 << 13 | 5
    assert world.call(SYS.ioprio_set, 1, 0, 3) == -errno.EINVAL
    assert world.call(SYS.ioprio_get, 9, 0) == -errno.EINVAL


def test_children_inherit_a_copy() -> None:
    parent = Sched()
    parent.nice, parent.slack_ns = 3, 77
    child = parent.for_child()
    child.nice = 5
    assert parent.nice == 3 and child.default_slack_ns == 77


def test_prctl_name_at_the_end_of_memory(world: World) -> None:
    world.task.mm.write(END - 4, b"abc\0")
    assert world.call(SYS.prctl, pr.PR_SET_NAME, END - 4) == 0
    assert world.task.name == b"abc"
    world.task.mm.write(BASE, b"a name that is far too long")
    assert world.call(SYS.prctl, pr.PR_SET_NAME, BASE) == 0
    assert world.call(SYS.prctl, pr.PR_GET_NAME, BASE) == 0
    assert world.task.mm.read(BASE, 16) == b"a name that is \0"
    assert world.call(SYS.prctl, pr.PR_SET_NAME, 8) == -errno.EFAULT


@pytest.mark.parametrize(
    "args, result",
    [
        ((pr.PR_SET_DUMPABLE, 2), -errno.EINVAL),
        ((pr.PR_SET_DUMPABLE, 0), 0),
        ((pr.PR_SET_PDEATHSIG, 65), -errno.EINVAL),
        ((pr.PR_SET_NO_NEW_PRIVS, 1, 1, 0, 0), -errno.EINVAL),
        ((pr.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0),
        ((pr.PR_CAPBSET_READ, 40), 1),
        ((pr.PR_CAPBSET_READ, 41), -errno.EINVAL),
        ((pr.PR_CAPBSET_DROP, 41), -errno.EINVAL),
        ((pr.PR_GET_TIMERSLACK,), 50_000),
        ((pr.PR_MCE_KILL_GET, 0, 0, 0, 0), 2),
        ((pr.PR_GET_SPECULATION_CTRL, 9, 0, 0, 0), -errno.ENODEV),
        ((22, 2, BASE), -errno.EINVAL),
        ((9999,), -errno.EINVAL),
        ((-1,), -errno.EINVAL),
    ],
)
def test_prctl(world: World, args: tuple[int, ...], result: int) -> None:
    assert world.call(SYS.prctl, *args) == result


def test_prctl_values_come_back(world: World) -> None:
    for put, get, value in (
        (pr.PR_SET_PDEATHSIG, pr.PR_GET_PDEATHSIG, 15),
        (pr.PR_SET_CHILD_SUBREAPER, pr.PR_GET_CHILD_SUBREAPER, 1),
    ):
        assert world.call(SYS.prctl, put, value) == 0
        assert world.call(SYS.prctl, get, BASE) == 0 and world.task.mm.read_u32(BASE) == value
    assert world.call(SYS.prctl, pr.PR_SET_TIMERSLACK, 5) == 0
    assert world.call(SYS.prctl, pr.PR_GET_TIMERSLACK) == 5
    assert world.call(SYS.prctl, pr.PR_CAPBSET_DROP, 7) == 0
    assert world.call(SYS.prctl, pr.PR_CAPBSET_READ, 7) == 0


def test_arch_prctl(world: World) -> None:
    regs = world.task.regs
    assert world.call(SYS.arch_prctl, pr.ARCH_SET_FS, 0x1234) == 0 and regs.fs_base == 0x1234
    assert world.call(SYS.arch_prctl, pr.ARCH_SET_GS, 0x7FFF_FFFF_F000) == -errno.EPERM
    assert world.call(SYS.arch_prctl, pr.ARCH_GET_FS, BASE) == 0
    assert world.task.mm.read_u64(BASE) == 0x1234
    assert world.call(SYS.arch_prctl, pr.ARCH_GET_GS, 8) == -errno.EFAULT
    assert world.call(SYS.arch_prctl, pr.ARCH_REQ_XCOMP_PERM, 18) == -errno.EOPNOTSUPP
    assert world.call(SYS.arch_prctl, 0x5001, 1) == -errno.EINVAL


def test_kcmp(world: World) -> None:
    task, other = world.task, world.new_process()
    assert world.call(SYS.kcmp, task.tid, task.tid, 1, 0, 0) == 0
    one = world.call(SYS.kcmp, task.tid, other.tid, 1, 0, 0)
    two = world.call(SYS.kcmp, other.tid, task.tid, 1, 0, 0)
    assert {one, two} == {1, 2}
    assert world.call(SYS.kcmp, task.tid, task.tid, 0, 0, 0) == -errno.EBADF
    assert world.call(SYS.kcmp, task.tid, 4242, 1, 0, 0) == -errno.ESRCH
    assert world.call(SYS.kcmp, task.tid, task.tid, 9, 0, 0) == -errno.EINVAL


@pytest.mark.parametrize(
    "nr, number",
    [
        (SYS.io_uring_setup, errno.ENOSYS),
        (SYS.bpf, errno.ENOSYS),
        (SYS.keyctl, errno.ENOSYS),
        (SYS.reboot, errno.EPERM),
        (333 + 50, errno.ENOSYS),
    ],
)
def test_refused(world: World, nr: int, number: int) -> None:
    assert world.call(nr) == -number


def test_families_that_are_not_there(world: World) -> None:
    for family in (2, 10, 45, 46, -1):
        assert world.call(SYS.socket, family, 1, 0) == -errno.EAFNOSUPPORT
    assert world.call(SYS.socket, 1, 12, 0) == -errno.EINVAL
    assert world.call(SYS.socket, 1, 0x100, 0) == -errno.EINVAL
    assert world.call(SYS.connect, 5, BASE, 16) == -errno.EBADF


def test_refused_calls_are_not_implemented_elsewhere() -> None:
    assert not REFUSED.keys() & TABLE.keys()


def test_refused_errnos_are_what_programs_expect() -> None:
    assert {number for number, _ in REFUSED.values()} <= {
        errno.ENOSYS,
        errno.EPERM,
        errno.EINVAL,
        errno.EOPNOTSUPP,
    }
    assert all(reason for _, reason in REFUSED.values())
