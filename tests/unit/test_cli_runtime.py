"""The runtime's small parts that need no sandbox: messages, diagnoses, cgroup paths."""

from __future__ import annotations

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentry.runtime import boot, cgroup, control, diagnose, supervise
from sentry.runtime.errors import Fatal


def test_messages_to_the_sentry() -> None:
    ours, theirs = os.pipe()  # packets of a pipe in O_DIRECT mode would do too; one at a time is enough
    os.set_blocking(ours, False)
    end = control.Control(ours)
    assert end.receive() == []
    for packet, expected in (
        (control.signal_packet(15), (b"S", (15,))),
        (control.winsize_packet((24, 80, 0, 65535)), (b"W", (24, 80, 0, 65535))),
        (control.TIMEOUT, (b"T", ())),
    ):
        os.write(theirs, packet)
        assert end.receive() == [expected]
    os.write(theirs, b"?nonsense")
    assert end.receive() == []
    os.close(theirs)
    assert end.receive() == []
    os.close(ours)


def test_reports_of_the_sentry() -> None:
    assert control.parse_report(control.exit_packet(143)) == (b"X", 143, "")
    assert control.parse_report(control.fail_packet("no such 'x'", 127)) == (b"F", 127, "no such 'x'")
    assert control.parse_report(control.note_packet("limit")) == (b"N", 0, "limit")
    assert len(control.fail_packet("x" * 5000, 1)) == control.PACKET_SIZE


@given(st.binary(max_size=100))
def test_reports_are_hostile(packet: bytes) -> None:
    report = control.parse_report(packet)
    if report is not None:
        assert 0 <= report[1] <= 255
        assert report[2].isprintable()


def test_no_escape_sequence_gets_through() -> None:
    assert control.printable(b"a\x1b[2Jb\r\nc\xff") == "a?[2Jb??c\ufffd"


@pytest.mark.parametrize(
    ("release", "version"),
    [("6.8.0-45-generic", (6, 8)), ("5.14", (5, 14)), ("6.18.44-fc-v595", (6, 18)), ("odd", (0, 0))],
)
def test_kernel_versions(release: str, version: tuple[int, int]) -> None:
    assert diagnose.kernel_version(release) == version


@pytest.mark.parametrize(
    ("machine", "release", "scope", "word"),
    [
        ("aarch64", "6.1.0", "", "x86_64 only"),
        ("x86_64", "5.10.0", "", "Linux 5.14"),
        ("x86_64", "6.1.0", "2", "ptrace_scope=1"),
        ("x86_64", "6.1.0", "3", "reboot"),
    ],
)
def test_hosts_that_cannot_work(machine: str, release: str, scope: str, word: str) -> None:
    with pytest.raises(Fatal, match=word) as caught:
        diagnose.check_host(machine, release, scope)
    assert caught.value.status == 128


def test_hosts_that_can() -> None:
    for scope in ("", "0", "1"):
        diagnose.check_host("x86_64", "6.1.0", scope)


@pytest.mark.parametrize(
    ("sysctls", "error", "word"),
    [
        ({"kernel/unprivileged_userns_clone": "0"}, errno.EPERM, "sysctl kernel.unprivileged_userns_clone=1"),
        ({"user/max_user_namespaces": "0"}, errno.ENOSPC, "sysctl user.max_user_namespaces=10000"),
        ({"user/max_net_namespaces": "0"}, errno.ENOSPC, "sysctl user.max_net_namespaces=10000"),
        ({}, errno.EUSERS, "namespaces left"),
        ({}, errno.EINVAL, "CONFIG_USER_NS"),
        ({}, errno.EPERM, "forbids user namespaces"),
        ({}, errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_why_namespaces_are_refused(
    sysctls: dict[str, str], error: int, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnose, "read_sysctl", lambda path: sysctls.get(path, ""))
    monkeypatch.setattr(diagnose, "in_container", lambda: False)
    line = diagnose.namespaces_refused(error)
    assert word in line and "\n" not in line


def test_apparmor_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "kernel/apparmor_restrict_unprivileged_userns"
    monkeypatch.setattr(diagnose, "read_sysctl", lambda path: "1" if path == name else "")
    line = diagnose.mounting_refused(errno.EPERM, "mount")
    assert "sysctl kernel.apparmor_restrict_unprivileged_userns=0" in line


def test_containers_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnose, "read_sysctl", lambda path: "")
    monkeypatch.setattr(diagnose, "in_container", lambda: True)
    for line in (
        diagnose.namespaces_refused(errno.EPERM),
        diagnose.mounting_refused(errno.EACCES, "mount"),
        diagnose.ptrace_refused(errno.EPERM, "x"),
    ):
        assert "--security-opt seccomp=unconfined" in line


V1 = "30 24 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
V2 = "31 24 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n"


@pytest.mark.parametrize(
    ("own", "mounts", "found"),
    [
        ("5:memory:/jobs/a\n0::/\n", V1, ("/sys/fs/cgroup/memory/jobs/a", 1)),
        ("5:memory:/\n", V1, ("/sys/fs/cgroup/memory", 1)),
        ("0::/user.slice/x.scope\n", V2, ("/sys/fs/cgroup/user.slice/x.scope", 2)),
        ("0::/\n", "", None),
        ("nonsense", "more nonsense - x\n", None),
    ],
)
def test_own_memory_cgroup(own: str, mounts: str, found: tuple[str, int] | None) -> None:
    assert cgroup.locate(own, mounts) == found


def test_counters() -> None:
    assert cgroup.counter("low 1\noom_kill 3\n", "oom_kill") == 3
    assert cgroup.counter("oom_kill x\n", "oom_kill") == 0


def test_sizes_as_text() -> None:
    assert [supervise.size_text(n) for n in (64 << 20, 1 << 30, 1536 << 10, 1000)] == [
        "64 MiB", "1 GiB", "1536 KiB", "1000 bytes",
    ]  # fmt: skip


def test_id_maps() -> None:
    assert boot.covers("         0          0 4294967295", 65534)
    assert boot.covers("0 1000 1\n1 100000 65536", 65534)
    assert not boot.covers("0 1000 1", 65534)
    assert not boot.covers("", 0)
