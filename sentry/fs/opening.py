"""open(2) from path to File: O_CREAT, O_EXCL, O_NOFOLLOW, O_DIRECTORY, O_TMPFILE, O_PATH (Linux do_last)."""

from __future__ import annotations

import errno

from sentry.abi.errors import SysError
from sentry.abi.fcntl import (
    __O_TMPFILE,
    O_ACCMODE,
    O_CLOEXEC,
    O_CREAT,
    O_DIRECTORY,
    O_EXCL,
    O_NOCTTY,
    O_NOFOLLOW,
    O_PATH,
    O_RDONLY,
    O_TRUNC,
    O_VALID,
    O_WRONLY,
    RESOLVE_CACHED,
)
from sentry.abi.inotify import IN_MODIFY, IN_OPEN
from sentry.abi.stat import S_IFREG
from sentry.fs import fsnotify, leases, modify
from sentry.fs.dentry import FsContext, Path
from sentry.fs.file import File
from sentry.fs.walk import Resolver, may_open, open_path, want_write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.kernel.credentials import Credentials

_TMPFILE = __O_TMPFILE
#: Flags that only act at the time of the call; F_GETFL doesn't show them.
CREATION_FLAGS = O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_CLOEXEC


def check_flags(flags: int) -> int:
    """`flags` of open(2) without what is ignored; SysError(EINVAL) for what can't go together."""
    flags &= O_VALID
    if flags & O_PATH:
        return flags & (O_DIRECTORY | O_NOFOLLOW | O_PATH | O_CLOEXEC)
    if flags & _TMPFILE:
        if not flags & O_DIRECTORY or flags & O_CREAT or flags & O_ACCMODE == O_RDONLY:
            raise SysError(errno.EINVAL)
    elif flags & O_CREAT and flags & O_DIRECTORY:
        raise SysError(errno.EINVAL)
    return flags


async def open_file(
    fs: FsContext, cred: Credentials, name: bytes, flags: int, mode: int = 0, start: Path | None = None,
    resolve: int = 0,
) -> File:  # fmt: skip
    """What `name` names, opened by `flags` (from check_flags); `mode` and the umask for a new file;
    `start` and `resolve` as in walk."""
    if resolve & RESOLVE_CACHED and flags & (O_TRUNC | O_CREAT | _TMPFILE):
        raise SysError(errno.EAGAIN)
    resolver = Resolver(fs, cred, name, start, resolve)
    if flags & _TMPFILE:
        directory = await resolver.finish(not flags & O_NOFOLLOW, directory=True)
        dentry = await modify.tmpfile(directory, mode, fs.umask, bool(flags & O_EXCL), cred)
        return await _open(fs, cred, Path(directory.mount, dentry), flags)
    if flags & O_CREAT:
        return await _create(fs, cred, resolver, flags, mode)
    resolver.opening = not flags & (O_ACCMODE | O_PATH | O_DIRECTORY | O_TRUNC)
    path = await resolver.finish(not flags & O_NOFOLLOW, directory=bool(flags & O_DIRECTORY))
    if flags & O_PATH:
        return await open_path(fs, cred, path, flags)
    return await _open_existing(fs, cred, path, flags)


async def _create(fs: FsContext, cred: Credentials, resolver: Resolver, flags: int, mode: int) -> File:
    """O_CREAT: make the file when the last name, after any symbolic links, doesn't exist."""
    follow = not flags & (O_NOFOLLOW | O_EXCL)
    while True:
        name = await resolver.parent()
        if name in (b".", b"..", b""):
            # A directory, or whatever a magic link led to.
            path = resolver.path
            if flags & O_EXCL:
                raise SysError(errno.EEXIST)
            if name or path.inode.is_dir:
                raise SysError(errno.EISDIR)
            return await _open_existing(fs, cred, path, flags)
        if resolver.must_dir:
            raise SysError(errno.EISDIR)
        child = await resolver.child(name)
        inode = child.inode
        if inode is None:
            try:
                child = await modify.create(resolver.path, name, mode, fs.umask, cred)
            except SysError as error:
                # Somebody else made it while we slept: open that one, unless it was to be new.
                if error.errno != errno.EEXIST or flags & O_EXCL:
                    raise
                resolver.todo.append(name)
                continue
            file = await _open(fs, cred, Path(resolver.mount, child), flags)
            file.created = True
            return file
        if flags & O_EXCL:
            raise SysError(errno.EEXIST)
        if inode.is_symlink and not child.mounted:
            if not follow:
                raise SysError(errno.ELOOP)
            await resolver.follow(Path(resolver.mount, child))
            continue
        resolver.enter(child)
        path = resolver.path
        if path.inode.is_dir:
            raise SysError(errno.EISDIR)
        return await _open_existing(fs, cred, path, flags)


async def _open_existing(fs: FsContext, cred: Credentials, path: Path, flags: int) -> File:
    inode = path.inode
    may_open(path, cred, flags)
    regular = inode.mode & 0o170000 == S_IFREG
    if leases.held:
        await leases.break_lease(inode, flags | (O_WRONLY if flags & O_TRUNC else 0))
    if inode.texts and (flags & O_ACCMODE or flags & O_TRUNC):
        raise SysError(errno.ETXTBSY)
    if flags & O_TRUNC and regular:
        want_write(path.mount)
        await modify.truncate(inode, 0, cred)
    file = await _open(fs, cred, path, flags)
    if fsnotify.watching and flags & O_TRUNC and regular:
        fsnotify.happened(path, IN_MODIFY)
    return file


async def open_found(fs: FsContext, cred: Credentials, path: Path, flags: int) -> File:
    """What is at `path`, which nobody walked to, opened by `flags` (from check_flags)."""
    if flags & O_PATH:
        return await open_path(fs, cred, path, flags)
    return await _open_existing(fs, cred, path, flags)


async def _open(fs: FsContext, cred: Credentials, path: Path, flags: int) -> File:
    file = await open_path(fs, cred, path, flags)
    file.flags &= ~CREATION_FLAGS
    if file.writable and file.inode.kind == S_IFREG:
        file.claim_write()
    if fsnotify.watching:
        fsnotify.happened(path, IN_OPEN)
    return file
