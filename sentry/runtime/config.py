"""Config: everything the command line (later: an OCI bundle) says about a run.

A plain object, made by the CLI before any fork and never changed afterwards; the Sentry's process
inherits it.  What the guest gets to see (argv, environment, paths inside) is bytes; what names
something on the host (rootfs, bind sources) is str.
"""

from __future__ import annotations

from sentry.runtime.errors import Fatal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DEFAULT_PATH = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

#: What of the caller's environment the guest gets to see, beside LC_*: what says how to talk to the
#: user, nothing that may hold a secret or name a host's socket.
PASSED = (
    b"PATH", b"HOME", b"USER", b"LOGNAME", b"SHELL", b"TERM", b"LANG", b"LANGUAGE", b"TZ", b"COLORTERM",
)  # fmt: skip
#: With a root of its own, the caller's paths and names mean nothing.
PASSED_ROOTFS = (b"TERM", b"LANG", b"LANGUAGE", b"TZ", b"COLORTERM")


class Bind:
    """A host directory or file shown at `target` (absolute, inside)."""

    __slots__ = ("source", "target", "writable")

    def __init__(self, source: str, target: bytes, writable: bool) -> None:
        self.source = source
        self.target = target
        self.writable = writable


class Config:
    """One run.

    memory  bytes, or 0 for no limit          timeout  seconds, or 0.0 for no limit
    pids    processes and threads of the guest, 0 for the kernel's own default
    cwd     inside; with `cwd_given` false the guest falls back to "/" where it does not exist
    rootfs  None: the host's root
    fastpath  whether the engine may answer system calls without the Python kernel
    patch     whether call sites of the program may be patched (docs/patching.md)
    winsize rows, columns, x and y pixels of the caller's terminal, or None
    """

    __slots__ = (
        "argv", "binds", "cwd", "cwd_given", "debug", "env", "fastpath", "gid", "groups", "hostname",
        "kernel_release", "memory", "overlay", "patch", "pids", "platform", "rootfs", "strace", "timeout",
        "tty", "uid", "winsize",
    )  # fmt: skip

    def __init__(self) -> None:
        self.argv: list[bytes] = []
        self.env: list[bytes] = []
        self.rootfs: str | None = None
        self.overlay = "memory"
        self.binds: list[Bind] = []
        self.cwd = b"/"
        self.cwd_given = False
        self.hostname = b"sentry"
        self.uid = 0
        self.gid = 0
        self.groups: list[int] = []
        self.kernel_release: bytes | None = None
        self.platform = "trap"
        self.timeout = 0.0
        self.memory = 0
        self.pids = 0
        self.tty = False
        self.strace = False
        self.debug = False
        self.fastpath = True
        self.patch = True
        self.winsize: tuple[int, int, int, int] | None = None


def environment(caller: Mapping[bytes, bytes], asked: Iterable[bytes], rootfs: bool, uid: int) -> list[bytes]:
    """The guest's environment: the part of the caller's that it may see, then --env in order.

    An entry of `asked` is `K=V`, or `K` for the caller's own value (nothing when it has none).
    """
    chosen: dict[bytes, bytes] = {}
    if rootfs:
        chosen[b"PATH"] = DEFAULT_PATH
        chosen[b"HOME"] = b"/root" if uid == 0 else b"/"
    passed = PASSED_ROOTFS if rootfs else PASSED
    for key, value in caller.items():
        if key in passed or key.startswith(b"LC_"):
            chosen[key] = value
    chosen.setdefault(b"PATH", DEFAULT_PATH)
    for entry in asked:
        key, equals, value = entry.partition(b"=")
        if equals:
            chosen[key] = value
        elif key in caller:
            chosen[key] = caller[key]
    return [key + b"=" + value for key, value in chosen.items()]


def parse_size(text: str) -> int:
    """`64M`, `1.5G`, `65536`, `512KiB` in bytes; ValueError for anything else."""
    body = text.strip().upper().removesuffix("IB").removesuffix("B")
    shift = 0
    if body and body[-1] in "KMGT":
        shift = 10 * (1 + "KMGT".index(body[-1]))
        body = body[:-1]
    if not body.replace(".", "", 1).isdigit() or not body.isascii():
        raise ValueError(text)
    size = int(float(body) * (1 << shift)) if "." in body else int(body) << shift
    if size >= 1 << 63:
        raise ValueError(text)
    return size


def parse_user(text: str) -> tuple[int, int]:
    """`UID[:GID]`; the group is the user's number where it is left out."""
    uid_text, colon, gid_text = text.partition(":")
    if not colon:
        gid_text = uid_text
    if not (uid_text.isdecimal() and gid_text.isdecimal() and text.isascii()):
        raise ValueError(text)
    uid, gid = int(uid_text), int(gid_text)
    # (uid_t)-1 means "leave it" to every call that takes one.
    if uid >= 0xFFFFFFFF or gid >= 0xFFFFFFFF:
        raise ValueError(text)
    return uid, gid


def parse_bind(text: str) -> Bind:
    """`SRC:DST[:ro|rw]`.  A colon inside SRC or DST cannot be expressed."""
    parts = text.split(":")
    mode = parts.pop() if len(parts) == 3 else "ro"
    if len(parts) != 2 or not parts[0] or not parts[1] or mode not in ("ro", "rw"):
        raise Fatal(f"--bind wants SRC:DST[:ro|rw], not '{text}'")
    source, target = parts
    if not target.startswith("/"):
        raise Fatal(f"--bind: the target '{target}' is not an absolute path")
    kept: list[str] = []
    for name in target.split("/"):
        if name == "..":
            raise Fatal(f"--bind: the target '{target}' contains '..'")
        if name not in ("", "."):
            kept.append(name)
    if not kept:
        raise Fatal("--bind: the target is '/'; use --rootfs")
    return Bind(source, ("/" + "/".join(kept)).encode("utf-8", "surrogateescape"), mode == "rw")
