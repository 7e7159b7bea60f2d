"""`sentry run [FLAG...] -- CMD [ARG...]`: one program in a new sandbox, until it ends."""

from __future__ import annotations

import os

from sentry.runtime.config import Config, environment, parse_bind, parse_size, parse_user
from sentry.runtime.errors import SANDBOX, Fatal

HELP = """\
Usage: sentry run [FLAG...] [--] CMD [ARG...]

Runs CMD on a kernel of its own.  It sees the host's files read-only, with changes kept in memory
and thrown away at the end, in the caller's working directory, with a filtered environment.

Files:
  --rootfs DIR           use DIR as the root instead of the host's
  --bind SRC:DST[:ro|rw] show the host's SRC at DST; read-only unless 'rw' (repeatable)
  --overlay memory|none  where changes to the root go: memory (default), or nowhere: read-only
  --cwd DIR              working directory inside (default: the caller's if it exists inside, else /)

The program:
  -e, --env K=V          set an environment variable; '--env K' passes the caller's (repeatable)
  -u, --user UID[:GID]   run as this user (default: the caller's ids; GID defaults to UID)
  --hostname NAME        default: sentry
  --kernel-release R     what 'uname -r' says inside
  -t, --tty              give the program a terminal of its own, joined to the caller's

Limits:
  --timeout SECONDS      kill the program when the time is over (exit status 137)
  --memory BYTES         memory limit; suffixes K, M, G, T
  --pids N               most processes and threads at a time

Seeing what happens:
  --strace               print each system call on stderr
  --debug                print what the sandbox is made of, and tracebacks of internal errors
  --no-fastpath          answer every system call in Python, none in C (slower, for comparing)
  --no-patch             leave the program's code alone: each system call is a signal (slower)

Other:
  --platform NAME        how system calls are caught: trap (fast, the default) or ptrace
  -h, --help             print this text

Exit status: the program's own; 128+N when signal N ended it; 126 when it is not executable here;
127 when it does not exist; 128 when the sandbox itself failed; 137 after --timeout.
"""

#: Flag → the name of the value in `Flags`; None for one without a value.
WITH_VALUE = {
    "--rootfs": "rootfs", "--bind": "bind", "--overlay": "overlay", "--cwd": "cwd", "--env": "env",
    "-e": "env", "--user": "user", "-u": "user", "--hostname": "hostname",
    "--kernel-release": "kernel_release", "--timeout": "timeout", "--memory": "memory",
    "--pids": "pids", "--platform": "platform",
}  # fmt: skip
PLATFORMS = ("trap", "ptrace")
SWITCHES = {
    "-t": "tty", "--tty": "tty", "--strace": "strace", "--debug": "debug", "--no-fastpath": "no_fastpath",
    "--no-patch": "no_patch",
}  # fmt: skip

SMALLEST_MEMORY = 1 << 20


def split(args: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    """(values by name, the command).  Flags end at `--` or at the first word that is none."""
    values: dict[str, list[str]] = {}
    words = iter(range(len(args)))
    for at in words:
        word = args[at]
        if word == "--":
            return values, args[at + 1 :]
        if not word.startswith("-") or word == "-":
            return values, args[at:]
        name, equals, value = word.partition("=")
        if name in WITH_VALUE:
            if not equals:
                if next(words, None) is None:
                    raise Fatal(f"flag '{name}' wants a value (see 'sentry run --help')")
                value = args[at + 1]
            values.setdefault(WITH_VALUE[name], []).append(value)
        elif word in SWITCHES:
            values[SWITCHES[word]] = [""]
        elif word in ("-h", "--help"):
            values["help"] = [""]
        elif name in SWITCHES:
            raise Fatal(f"flag '{name}' takes no value (see 'sentry run --help')")
        else:
            raise Fatal(f"unknown flag '{name}' (see 'sentry run --help')")
    return values, []


def _number(values: dict[str, list[str]], name: str, what: str) -> float:
    text = values.get(name, ["0"])[-1]
    if name not in values:
        return 0.0
    try:
        number = float(text)
        if 0 < number < 1e9:
            return number
    except ValueError:
        pass
    raise Fatal(f"--{name} wants {what}, not '{text}'")


def _limits(config: Config, values: dict[str, list[str]]) -> None:
    config.timeout = _number(values, "timeout", "a number of seconds")
    if "pids" in values:
        text = values["pids"][-1]
        if not (text.isdecimal() and text.isascii() and 0 < int(text) <= 1 << 22):
            raise Fatal(f"--pids wants a number of processes, not '{text}'")
        config.pids = int(text)
    if "memory" in values:
        text = values["memory"][-1]
        try:
            config.memory = parse_size(text)
        except ValueError:
            raise Fatal(f"--memory wants a size such as 64M or 2G, not '{text}'") from None
        if config.memory < SMALLEST_MEMORY:
            raise Fatal(f"--memory {text} is too small: a program needs at least 1M")


def _identity(config: Config, values: dict[str, list[str]]) -> None:
    config.uid, config.gid, config.groups = os.getuid(), os.getgid(), sorted(os.getgroups())
    if "user" in values:
        text = values["user"][-1]
        try:
            config.uid, config.gid = parse_user(text)
        except ValueError:
            raise Fatal(f"--user wants UID[:GID] in numbers, not '{text}'") from None
        config.groups = []
    if "hostname" in values:
        config.hostname = os.fsencode(values["hostname"][-1])
        if not 0 < len(config.hostname) <= 64:
            raise Fatal("--hostname wants 1 to 64 bytes")
    if "kernel_release" in values:
        config.kernel_release = os.fsencode(values["kernel_release"][-1])
        if not 0 < len(config.kernel_release) <= 64:
            raise Fatal("--kernel-release wants 1 to 64 bytes")


def _view(config: Config, values: dict[str, list[str]]) -> None:
    if "rootfs" in values:
        config.rootfs = values["rootfs"][-1]
    config.binds = [parse_bind(text) for text in values.get("bind", [])]
    config.overlay = values.get("overlay", ["memory"])[-1]
    if config.overlay not in ("memory", "none"):
        raise Fatal(f"--overlay wants 'memory' or 'none', not '{config.overlay}'")
    if "cwd" in values:
        config.cwd, config.cwd_given = os.fsencode(values["cwd"][-1]), True
        if not config.cwd.startswith(b"/"):
            raise Fatal(f"--cwd wants an absolute path, not '{values['cwd'][-1]}'")
    elif config.rootfs is None:
        try:
            config.cwd = os.getcwdb()
        except OSError:
            config.cwd = b"/"  # deleted, or not ours to name


def configure(values: dict[str, list[str]], command: list[str]) -> Config:
    """The Config that checked flags make; Fatal for the first bad one."""
    config = Config()
    config.argv = [os.fsencode(word) for word in command]
    for name in ("tty", "strace", "debug"):
        setattr(config, name, name in values)
    config.fastpath = "no_fastpath" not in values
    config.patch = "no_patch" not in values and not config.strace
    config.platform = values.get("platform", [config.platform])[-1]
    if config.platform not in PLATFORMS:
        raise Fatal(f"unknown platform '{config.platform}': there are {' and '.join(PLATFORMS)}")
    _identity(config, values)
    _limits(config, values)
    _view(config, values)
    asked = [os.fsencode(entry) for entry in values.get("env", [])]
    for entry in asked:
        if not entry.partition(b"=")[0]:
            raise Fatal(f"--env wants K=V or K, not '{os.fsdecode(entry)}'")
    config.env = environment(os.environb, asked, config.rootfs is not None, config.uid)
    return config


def main(args: list[str]) -> int:
    values, command = split(args)
    if "help" in values:
        os.write(1, HELP.encode())
        return 0
    if not command:
        raise Fatal("no command given (see 'sentry run --help')")
    if not command[0]:
        raise Fatal("the command is an empty string", SANDBOX)
    config = configure(values, command)

    from sentry.runtime import boot

    return boot.run(config)
