"""Identity calls and capability transitions, checked against credentials(7) and capabilities(7)."""

from __future__ import annotations

import errno
from struct import pack, unpack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from misc_support import BASE, World

from sentry.abi import prctl as pr
from sentry.abi.capability import (
    CAP_ALL,
    CAP_FS_SET,
    CAP_NET_ADMIN,
    CAP_SETPCAP,
    CAP_SETUID,
    CAP_SYS_PTRACE,
    CAP_VERSION_3,
)
from sentry.abi.syscall_nr import SYS
from sentry.kernel.credentials import Credentials, exec_credentials

SETUID = 0o104755
SETGID = 0o102755
PLAIN = 0o100755


@pytest.fixture
def world() -> World:
    return World()


def test_setuid_of_root_drops_everything(world: World) -> None:
    assert world.call(SYS.setuid, 1000) == 0
    cred = world.task.cred
    assert (cred.uid, cred.euid, cred.suid, cred.fsuid) == (1000,) * 4
    assert cred.permitted == cred.effective == cred.ambient == 0
    assert world.call(SYS.setuid, 0) == -errno.EPERM


def test_setuid_without_capability_moves_between_its_own_ids() -> None:
    world = World(1000)
    assert world.call(SYS.setuid, 1001) == -errno.EPERM
    assert world.call(SYS.setuid, -1) == -errno.EINVAL
    assert world.call(SYS.setuid, 1000) == 0


def test_seteuid_and_back_keeps_permitted(world: World) -> None:
    assert world.call(SYS.setresuid, -1, 1000, -1) == 0
    cred = world.task.cred
    assert cred.effective == 0 and cred.permitted == CAP_ALL
    assert world.call(SYS.setresuid, -1, 0, -1) == 0
    assert world.task.cred.effective == CAP_ALL


def test_keepcaps_keeps_permitted_only(world: World) -> None:
    assert world.call(SYS.prctl, pr.PR_SET_KEEPCAPS, 1) == 0
    assert world.call(SYS.prctl, pr.PR_GET_KEEPCAPS) == 1
    assert world.call(SYS.setresuid, 1000, 1000, 1000) == 0
    assert world.task.cred.permitted == CAP_ALL and world.task.cred.effective == 0


def test_no_setuid_fixup_keeps_everything(world: World) -> None:
    assert world.call(SYS.prctl, pr.PR_SET_SECUREBITS, pr.SECBIT_NO_SETUID_FIXUP) == 0
    assert world.call(SYS.setresuid, 1000, 1000, 1000) == 0
    assert world.task.cred.effective == CAP_ALL


def test_securebits_locks() -> None:
    world = World()
    assert world.call(SYS.prctl, pr.PR_SET_SECUREBITS, pr.SECBIT_NOROOT | 2) == 0
    assert world.call(SYS.prctl, pr.PR_SET_SECUREBITS, 2) == -errno.EPERM
    assert world.call(SYS.prctl, pr.PR_SET_SECUREBITS, pr.SECBIT_NOROOT) == -errno.EPERM
    assert world.call(SYS.prctl, pr.PR_SET_SECUREBITS, 0x100) == -errno.EPERM
    assert world.call(SYS.prctl, pr.PR_GET_SECUREBITS) == 3


def test_setreuid_sets_the_saved_id(world: World) -> None:
    assert world.call(SYS.setreuid, 1000, 1001) == 0
    cred = world.task.cred
    assert (cred.uid, cred.euid, cred.suid, cred.fsuid) == (1000, 1001, 1001, 1001)
    assert world.call(SYS.setreuid, 1001, 1000) == 0
    assert world.call(SYS.setreuid, 5, -1) == -errno.EPERM


def test_setfsuid_returns_the_old_one_and_moves_file_capabilities(world: World) -> None:
    assert world.call(SYS.setfsuid, 1000) == 0
    assert world.task.cred.effective == CAP_ALL & ~CAP_FS_SET
    assert world.call(SYS.setfsuid, -1) == 1000
    assert world.call(SYS.setfsuid, 0) == 1000
    assert world.task.cred.effective == CAP_ALL


def test_groups_are_sorted(world: World) -> None:
    world.task.mm.write(BASE, pack("<3I", 30, 10, 20))
    assert world.call(SYS.setgroups, 3, BASE) == 0
    assert world.call(SYS.getgroups, 0, 0) == 3
    assert world.call(SYS.getgroups, 2, BASE) == -errno.EINVAL
    assert world.call(SYS.getgroups, 3, BASE + 64) == 3
    assert unpack("<3I", world.task.mm.read(BASE + 64, 12)) == (10, 20, 30)
    assert world.call(SYS.setgroups, 65537, BASE) == -errno.EINVAL
    assert world.call(SYS.setgroups, 1, 0) == -errno.EFAULT
    world.call(SYS.setuid, 1000)
    assert world.call(SYS.setgroups, 0, 0) == -errno.EPERM


def test_getresuid(world: World) -> None:
    world.call(SYS.setresuid, 1, 2, 3)
    assert world.call(SYS.getresuid, BASE, BASE + 4, BASE + 8) == 0
    assert unpack("<3I", world.task.mm.read(BASE, 12)) == (1, 2, 3)
    assert world.call(SYS.getresuid, BASE, 0, 0) == -errno.EFAULT


def test_changing_ids_takes_dumpable_away(world: World) -> None:
    world.task.pdeath_signal = 9
    world.call(SYS.setresuid, -1, 1000, -1)
    assert world.task.group.dumpable == 0 and world.task.pdeath_signal == 0


def test_capget_versions(world: World) -> None:
    mm = world.task.mm
    mm.write(BASE, pack("<Ii", 0, 0))
    assert world.call(SYS.capget, BASE, 0) == 0
    assert mm.read_u32(BASE) == CAP_VERSION_3
    mm.write(BASE, pack("<Ii", 0, 0))
    assert world.call(SYS.capget, BASE, BASE + 64) == -errno.EINVAL
    assert world.call(SYS.capget, BASE, BASE + 64) == 0
    low = unpack("<6I", mm.read(BASE + 64, 24))
    assert low == (0xFFFFFFFF, 0xFFFFFFFF, 0, CAP_ALL >> 32, CAP_ALL >> 32, 0)
    mm.write(BASE, pack("<Ii", CAP_VERSION_3, 4242))
    assert world.call(SYS.capget, BASE, BASE + 64) == -errno.ESRCH
    mm.write(BASE, pack("<Ii", CAP_VERSION_3, -1))
    assert world.call(SYS.capget, BASE, BASE + 64) == -errno.EINVAL


def capset(world: World, effective: int, permitted: int, inheritable: int) -> int:
    words = [
        value >> shift & 0xFFFFFFFF for shift in (0, 32) for value in (effective, permitted, inheritable)
    ]
    world.task.mm.write(BASE, pack("<Ii6I", CAP_VERSION_3, 0, *words))
    return world.call(SYS.capset, BASE, BASE + 8)


def test_capset_only_drops(world: World) -> None:
    some = 1 << CAP_NET_ADMIN | 1 << CAP_SETUID
    assert capset(world, some, some, some) == 0
    assert capset(world, CAP_ALL, some, some) == -errno.EPERM
    assert capset(world, some, CAP_ALL, some) == -errno.EPERM
    assert capset(world, some, some, CAP_ALL) == -errno.EPERM
    assert capset(world, 0, 1 << CAP_NET_ADMIN, 0) == 0
    assert world.task.cred.permitted == 1 << CAP_NET_ADMIN


def test_ambient_needs_permitted_and_inheritable(world: World) -> None:
    raise_it = (SYS.prctl, pr.PR_CAP_AMBIENT, pr.PR_CAP_AMBIENT_RAISE, CAP_NET_ADMIN, 0, 0)
    assert world.call(*raise_it) == -errno.EPERM
    assert capset(world, CAP_ALL, CAP_ALL, 1 << CAP_NET_ADMIN) == 0
    assert world.call(*raise_it) == 0
    assert world.call(SYS.prctl, pr.PR_CAP_AMBIENT, pr.PR_CAP_AMBIENT_IS_SET, CAP_NET_ADMIN, 0, 0) == 1
    assert capset(world, CAP_ALL, CAP_ALL, 0) == 0
    assert world.task.cred.ambient == 0
    assert world.call(SYS.prctl, pr.PR_CAP_AMBIENT, pr.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 1) == -errno.EINVAL


def test_exec_of_a_setuid_root_program() -> None:
    new, secure = exec_credentials(Credentials(1000, 1000), SETUID, 0, 0)
    assert (new.uid, new.euid, new.suid, new.fsuid) == (1000, 0, 0, 0)
    assert new.permitted == new.effective == CAP_ALL and secure


def test_exec_set_id_bits_that_do_not_count() -> None:
    user = Credentials(1000, 1000)
    for nosuid, no_new_privs in ((True, False), (False, True)):
        user.no_new_privs = no_new_privs
        new, secure = exec_credentials(user, SETUID | SETGID, 0, 0, nosuid)
        assert new.euid == new.egid == 1000 and not new.permitted and not secure
    user.no_new_privs = False
    # Without group execute permission the bit means mandatory locking.
    assert exec_credentials(user, 0o102745, 0, 0)[0].egid == 1000
    assert exec_credentials(user, SETGID, 0, 7)[0].egid == 7


def test_exec_by_a_shared_file_system_context_gains_nothing() -> None:
    user = Credentials(1000, 1000)
    new, secure = exec_credentials(user, SETUID, 0, 0, shared=True)
    assert new.euid == 1000 and new.permitted == 0 and secure


def test_exec_by_root_gets_the_bounding_set() -> None:
    root = Credentials(0, 0)
    root.bounding = 1 << CAP_SETUID
    root.permitted = root.effective = 0
    new, secure = exec_credentials(root, PLAIN, 0, 0)
    assert new.permitted == new.effective == 1 << CAP_SETUID and not secure
    root = root.copy()
    root.securebits = pr.SECBIT_NOROOT | pr.SECBIT_KEEP_CAPS
    new, _ = exec_credentials(root, PLAIN, 0, 0)
    assert new.permitted == 0 and new.securebits == pr.SECBIT_NOROOT


def test_exec_of_a_plain_program_makes_new_ones_only_for_a_change() -> None:
    user = Credentials(1000, 1000)
    assert exec_credentials(user, PLAIN, 0, 0) == (user, False)
    assert exec_credentials(user, PLAIN, 0, 0)[0] is user
    changed = user.copy()
    changed.euid = changed.fsuid = 7
    first, secure = exec_credentials(changed, PLAIN, 0, 0)
    assert first is not changed and secure and (first.suid, first.euid) == (7, 7)
    assert exec_credentials(changed, PLAIN, 0, 0)[0] is first
    again = first.copy()
    again.egid = 5
    assert exec_credentials(again, PLAIN, 0, 0)[0].egid == 5
    assert exec_credentials(user, SETUID, 3, 0)[0].euid == 3


def test_exec_keeps_ambient_unless_set_id() -> None:
    user = Credentials(1000, 1000)
    user.permitted = user.inheritable = user.ambient = 1 << CAP_NET_ADMIN
    new, secure = exec_credentials(user, PLAIN, 0, 0)
    assert new.permitted == new.effective == new.ambient == 1 << CAP_NET_ADMIN and not secure
    new, secure = exec_credentials(user, SETGID, 0, 7)
    assert new.ambient == new.permitted == 0 and secure


SETS = st.integers(0, CAP_ALL)
CREDENTIALS = st.tuples(*[st.sampled_from((0, 1000))] * 2, SETS, SETS, SETS, SETS, st.booleans())


@given(CREDENTIALS, st.sampled_from((PLAIN, SETUID, SETGID, SETUID | SETGID)), st.booleans())
def test_exec_invariants(fields: tuple[int, ...], mode: int, nosuid: bool) -> None:
    uid, gid, permitted, inheritable, ambient, bounding, no_new_privs = fields
    cred = Credentials(uid, gid)
    cred.permitted, cred.inheritable, cred.bounding = permitted, inheritable, bounding
    cred.ambient = ambient & permitted & inheritable
    cred.effective = permitted
    cred.no_new_privs = bool(no_new_privs)
    new, _ = exec_credentials(cred, mode, 0, 0, nosuid)
    assert not new.effective & ~new.permitted
    assert not new.ambient & ~(new.permitted & new.inheritable)
    assert new.inheritable == cred.inheritable and new.uid == cred.uid
    if no_new_privs:
        assert not new.permitted & ~cred.permitted and new.euid in (cred.uid, cred.euid)


def test_ptrace_access() -> None:
    user, other, root = Credentials(1000, 1000), Credentials(1001, 1000), Credentials(0, 0)
    assert user.may_access(Credentials(1000, 1000))
    assert not user.may_access(Credentials(1000, 1000), dumpable=0)
    assert not user.may_access(other) and not user.may_access(root)
    assert root.may_access(other) and root.may_access(root, dumpable=0)
    stronger = Credentials(1000, 1000)
    stronger.permitted = 1 << CAP_SETPCAP
    assert not user.may_access(stronger)
    user.effective = user.permitted = 1 << CAP_SYS_PTRACE
    assert user.may_access(stronger)


@pytest.mark.parametrize("nr", [SYS.getuid, SYS.geteuid, SYS.getgid, SYS.getegid])
def test_plain_getters(nr: int) -> None:
    assert World(1000).call(nr) == 1000


def test_set_mm(world):
    mm = world.task.mm
    for name, value in (("start_stack", BASE), ("end_code", BASE), ("start_brk", BASE), ("brk", BASE)):
        setattr(mm, name, value)

    def call(*args):
        return world.call(SYS.prctl, pr.PR_SET_MM, *args)

    start, stack, brk = 8, 5, 7
    assert call(start, BASE, 0, 0) == -errno.EFAULT  # nothing is mapped there
    assert call(stack, BASE + 4, 0, 0) == 0 and mm.start_stack == BASE + 4
    assert call(brk, BASE + 8, 0, 0) == 0 and mm.brk == BASE + 8
    assert call(brk, BASE - 1, 0, 0) == -errno.EINVAL
    assert call(stack, 1, 0, 0) == -errno.EINVAL
    assert call(start, BASE, 1, 0) == -errno.EINVAL
    assert call(start, BASE, 0, 1) == -errno.EINVAL
    assert call(99, BASE, 0, 0) == -errno.EINVAL
    assert call(pr.PR_SET_MM_AUXV, BASE, 16, 0) == 0 and len(mm.auxv) == 16
    assert call(pr.PR_SET_MM_AUXV, BASE, 4096, 0) == -errno.EINVAL
    user = world.new_process(1000)
    assert world.call(SYS.prctl, pr.PR_SET_MM, start, BASE, 0, 0, task=user) == -errno.EPERM
