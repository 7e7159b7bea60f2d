"""Putting a sandbox's tree together: the root, and mounts over directories and files of it.

    namespace = await build_root(client, cred, True, client.reopen_readonly, tmpfs_limit=n)
    place = await ensure_dir(namespace, cred, b"/dev")      # made where it is missing
    mount_at(namespace, place, fs, flags)                   # fs.root over it
    await bind(namespace, cred, client, b"bind:0", b"/data", readonly=True)

All of it runs before the first task; `cred` is who makes what is missing: root of the sandbox.
"""

from __future__ import annotations

import errno

from sentry.abi.errors import SysError
from sentry.abi.fcntl import O_CREAT, O_WRONLY
from sentry.fs import modify, registry, special
from sentry.fs.dentry import MNT_READONLY, Dentry, FsContext, Mount, MountNamespace, Path
from sentry.fs.gofer.filesystem import GoferFilesystem
from sentry.fs.opening import open_file
from sentry.fs.overlay.inode import OverlayFilesystem
from sentry.fs.tmpfs.inode import Tmpfs
from sentry.fs.walk import Resolver

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from sentry.fs.gofer.client import Client
    from sentry.fs.inode import Filesystem, Inode
    from sentry.kernel.credentials import Credentials


async def attach(client: Client, aname: bytes, exclusive: bool, fixed: bool = False) -> GoferFilesystem:
    """The Gofer's export `aname` as a file system; `exclusive` and `fixed` as there."""
    fid, _ = await client.attach(aname)
    attr = await client.getattr(fid)
    return GoferFilesystem(client, fid, attr, exclusive, fixed)


async def build_root(
    client: Client,
    cred: Credentials,
    overlay: bool,
    reopen_readonly: Callable[[int], Awaitable[int]] | None,
    tmpfs_limit: int,
    aname: bytes = b"",
) -> MountNamespace:
    """A namespace whose root is the Gofer's export `aname`, with a writable overlay of at most
    `tmpfs_limit` bytes (0: no limit) or as it is."""
    registry.TMPFS_DEFAULTS.update(limit_bytes=tmpfs_limit, reopen_readonly=reopen_readonly)
    lower = await attach(client, aname, exclusive=True, fixed=overlay)
    fs: Filesystem = lower
    root: Inode = lower.root
    if overlay:
        upper = OverlayFilesystem(lower.root, cred, tmpfs_limit, reopen_readonly)
        fs, root = upper, upper.root
    return MountNamespace(Mount(fs, Dentry(None, b"", root)))


def context(namespace: MountNamespace) -> FsContext:
    """A file system context at the root of `namespace`."""
    root = Path(namespace.root, namespace.root.root)
    return FsContext(namespace, root, root)


async def _ensure(
    namespace: MountNamespace, cred: Credentials, path: bytes, directory: bool, mode: int
) -> Path:
    fs = context(namespace)
    names = [name for name in path.split(b"/") if name]
    done = b""
    for index, name in enumerate(names):
        done += b"/" + name
        last = index == len(names) - 1
        try:
            await Resolver(fs, cred, done).finish()
            continue
        except SysError as error:
            if error.errno != errno.ENOENT:
                raise
        if last and not directory:
            (await open_file(fs, cred, done, O_CREAT | O_WRONLY, mode)).put()
        else:
            resolver = Resolver(fs, cred, done)
            await resolver.parent()
            await modify.mkdir(resolver.path, name, mode if last else 0o755, 0, cred)
    return await Resolver(fs, cred, path or b"/").finish(directory=directory)


async def ensure_dir(namespace: MountNamespace, cred: Credentials, path: bytes, mode: int = 0o755) -> Path:
    """The directory at absolute `path`, made with all its parents where it is missing.

    SysError(EROFS, EPERM…) where that can't be, SysError(ENOTDIR).
    """
    return await _ensure(namespace, cred, path, True, mode)


async def ensure_file(namespace: MountNamespace, cred: Credentials, path: bytes, mode: int = 0o644) -> Path:
    """The file at absolute `path` (of any kind), made as an empty regular one where it is missing."""
    return await _ensure(namespace, cred, path, False, mode)


def mount_at(
    namespace: MountNamespace, where: Path, fs: Filesystem, flags: int = 0, root: Inode | Dentry | None = None
) -> Mount:
    """Mount `fs` over `where`: its root, or the inode or dentry `root` of it."""
    if root is None:
        root = fs.root  # type: ignore[attr-defined]
    dentry = root if isinstance(root, Dentry) else Dentry(None, b"", root)
    mount = Mount(fs, dentry, flags)
    namespace.attach(mount, where)
    return mount


async def mount_tmpfs(
    namespace: MountNamespace,
    cred: Credentials,
    path: bytes,
    limit: int,
    reopen_readonly: Callable[[int], Awaitable[int]] | None,
    mode: int = 0o1777,
    flags: int = 0,
) -> Mount:
    """A fresh tmpfs at `path`."""
    fs = Tmpfs(limit, reopen_readonly, mode)
    return mount_at(namespace, await ensure_dir(namespace, cred, path), fs, flags)


async def bind(
    namespace: MountNamespace, cred: Credentials, client: Client, aname: bytes, path: bytes, readonly: bool
) -> Mount:
    """Mount the Gofer's export `aname`, a directory or a single file, at `path`."""
    fs = await attach(client, aname, exclusive=False)
    fs.source = aname
    where = await (ensure_dir if fs.root.is_dir else ensure_file)(namespace, cred, path)
    return mount_at(namespace, where, fs, MNT_READONLY if readonly else 0)


def register_special(fifo_opener: Any, device_opener: Any) -> None:
    """Tell the file systems who opens FIFOs and device nodes; see special.py."""
    special.fifo_opener = fifo_opener
    special.device_opener = device_opener
