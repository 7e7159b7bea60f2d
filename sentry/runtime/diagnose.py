"""Why the host refused: the one line that names the cause and what would help.

The kernel's errno for a refused namespace says little (EPERM has five causes); the sysctls say the
rest.  Nothing here runs when all goes well, but `check_host`.
"""

from __future__ import annotations

import errno
import os

from sentry.runtime.errors import Fatal

OLDEST = (5, 14)


def read_file(path: str) -> str:
    """The start of a small file, without white space around; "" where it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, 4096).decode("ascii", "replace").strip()
    finally:
        os.close(fd)


def read_sysctl(name: str) -> str:
    return read_file("/proc/sys/" + name)


def kernel_version(release: str) -> tuple[int, int]:
    """(6, 8) of "6.8.0-45-generic"; (0, 0) where there is no number."""
    numbers = []
    for part in release.split(".")[:2]:
        digits = ""
        for character in part:
            if not character.isdigit():
                break
            digits += character
        numbers.append(int(digits or "0"))
    return (numbers[0], numbers[1]) if len(numbers) == 2 else (0, 0)


def check_host(machine: str, release: str, ptrace_scope: str) -> None:
    """Fatal for a host that cannot work, before anything is started."""
    if machine != "x86_64":
        raise Fatal(f"this host is {machine}; sentry runs on x86_64 only")
    if kernel_version(release) < OLDEST:
        raise Fatal(f"the host's kernel {release} is too old; sentry needs Linux {OLDEST[0]}.{OLDEST[1]}")
    if ptrace_scope in ("2", "3"):
        way_out = "" if ptrace_scope == "2" else " (3 can only be changed by a reboot)"
        raise Fatal(
            f"the host forbids ptrace (kernel.yama.ptrace_scope is {ptrace_scope}); "
            f"'sysctl kernel.yama.ptrace_scope=1' as root allows it{way_out}"
        )


def in_container() -> bool:
    return os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv")


CONTAINER_ADVICE = (
    "start the container with --security-opt seccomp=unconfined --security-opt apparmor=unconfined"
)


def namespaces_refused(error: int) -> str:
    """The line for a failed clone(CLONE_NEWUSER|…)."""
    if read_sysctl("kernel/unprivileged_userns_clone") == "0":
        return (
            "the host forbids user namespaces (kernel.unprivileged_userns_clone is 0); "
            "'sysctl kernel.unprivileged_userns_clone=1' as root allows them"
        )
    for name in ("user", "pid", "mnt", "net", "ipc", "uts", "cgroup"):
        limit = read_sysctl(f"user/max_{name}_namespaces")
        few = limit.isdecimal() and int(limit) < 16
        if limit == "0" or (few and error == errno.ENOSPC and name == "user"):
            return (
                f"the host allows too few namespaces (user.max_{name}_namespaces is {limit}); "
                f"'sysctl user.max_{name}_namespaces=10000' as root allows more"
            )
    if error in (errno.ENOSPC, errno.EUSERS):
        return "the host has no namespaces left (user.max_*_namespaces, or nested too deeply)"
    if error == errno.EINVAL:
        return "the host's kernel is built without some namespaces (CONFIG_USER_NS, PID_NS, NET_NS, …)"
    if error == errno.EPERM and in_container():
        return f"the container around us forbids user namespaces; {CONTAINER_ADVICE}"
    if error == errno.EPERM:
        return (
            "the host forbids user namespaces: a seccomp filter or security module of the host, or a chroot "
            "around us, refuses them; allow clone(CLONE_NEWUSER) for this process"
        )
    return f"cannot make namespaces: {os.strerror(error)}"


def map_refused(name: str, error: int) -> str:
    """The line for a uid_map, gid_map or setgroups file that could not be written."""
    if error == errno.EPERM and os.geteuid() == 0:
        return (
            "root without CAP_SETUID, CAP_SETGID and CAP_SETFCAP cannot set up a user namespace; "
            "run sentry as an ordinary user, or with these capabilities"
        )
    return f"cannot write {name} of the sandbox's user namespace: {os.strerror(error)}"


def mounting_refused(error: int, step: str) -> str:
    """The line for a mount, pivot_root or id change that failed in our own user namespace."""
    if read_sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return (
            "AppArmor takes the rights from user namespaces (kernel.apparmor_restrict_unprivileged_userns "
            "is 1); 'sysctl kernel.apparmor_restrict_unprivileged_userns=0' as root, or an AppArmor profile "
            "with 'userns,' for this program, allows them"
        )
    if error in (errno.EPERM, errno.EACCES) and in_container():
        return f"the container around us forbids {step}; {CONTAINER_ADVICE}"
    if error in (errno.EPERM, errno.EACCES):
        return f"a security module of the host forbids {step} in a user namespace ({os.strerror(error)})"
    return f"{step} failed: {os.strerror(error)}"


def being_traced() -> bool:
    try:
        with open("/proc/self/status", "rb") as status:
            return any(line.startswith(b"TracerPid:") and line.split()[1] != b"0" for line in status)
    except OSError:
        return False


def ptrace_refused(error: int, detail: str) -> str:
    """The line for a platform that did not start; `detail` is its own word on it."""
    if error == errno.EPERM and being_traced():
        return (
            "sentry itself is being traced (strace, gdb), and a process has one tracer only; stop tracing it"
        )
    if error == errno.EPERM and in_container():
        return f"the container around us forbids ptrace; {CONTAINER_ADVICE}"
    if error in (errno.EPERM, errno.EACCES):
        return (
            "the host forbids ptrace to our own children (a security module, or kernel.yama.ptrace_scope "
            f"above 1): {detail}"
        )
    return f"cannot start the ptrace platform: {detail}"
