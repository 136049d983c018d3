# SPDX-License-Identifier: LGPL-2.1-or-later
"""Removing a container with all of its directory, through no link and no mount point."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack, contextmanager, suppress

from . import identity, rdepends
from ._raw import NO_MOUNTS, above_stdio, openat2
from .container import Container
from .errors import LiblxcError
from .faults import reach
from .ledger import FILE, HIDDEN
from .locking import forget_lock
from .names import random_suffix
from .storage import Storage
from .tmpfs import MERGED, UPPER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def discard(name: str, lxcpath: str) -> None:
    """Stop and remove a container and all of its directory. What its base remembers of it goes first, its ledger last.

    Raises:
        LiblxcError: Something of it could not be removed.
    """
    with Container(name, lxcpath) as copy:
        copy.stop()
        try:
            if _needs_liblxc(copy):
                _destroy(copy)
            else:
                remove_directory(name, lxcpath)
        except OSError as error:
            raise LiblxcError("remove", name, lxcpath, f"{error.filename}: {error.strerror}") from error
    forget_lock(name, lxcpath)  # closing the handle may have made it again


def _needs_liblxc(copy: Container) -> bool:
    """Whether there is more to it than a directory of ours: volumes, hooks, snapshots, files of subordinate ids."""
    if os.geteuid() != 0 or copy.config("lxc.hook.destroy") or os.path.lexists(f"{copy.directory}/lxc_snapshots"):
        return True
    if not copy.defined:
        return False
    storage = Storage(copy)
    own = storage.upper or storage.lower[0]
    return bool(own) and not (storage.is_directory and (own in (UPPER, MERGED) or own.startswith(f"{copy.directory}/")))


def _destroy(copy: Container) -> None:
    # liblxc removes trees by recursion, and a container can have made one that is too deep for our stack.
    # But not what liblxc refuses to remove, as others depend on it, nor before a hook has seen it.
    if not (os.path.lexists(f"{copy.directory}/lxc_snapshots") or copy.config("lxc.hook.destroy")):
        for tree in ("overlay", "rootfs"):
            _remove(f"{copy.directory}/{tree}", keep=True)
    try:
        if copy.defined:
            copy.destroy()
    except LiblxcError:
        if os.path.lexists(copy.config_file):
            raise  # otherwise its monitor was faster
    _remove(copy.directory)


def remove_directory(name: str, lxcpath: str) -> None:
    """Remove a container that does not run and is all in its directory. Idempotent.

    Raises:
        OSError: Something of it could not be removed; the directory is still there.

    Reproduces: lxccontainer.c:container_destroy(). Differs: whoever dies here leaves something with a ledger.
    """
    directory = f"{lxcpath}/{name}"
    for base in rdepends.bases(directory):
        rdepends.forget(base, (lxcpath, name))
    reach("bases-told")
    forget_lock(name, lxcpath)
    reach("lock-removed")
    tomb = f"{lxcpath}/{HIDDEN}{random_suffix()}"
    with held(directory):
        try:
            os.rename(directory, tomb)  # its name is free from here on
        except FileNotFoundError:
            return
        reach("entombed")
        try:
            remove_tree(tomb, last=FILE)
        except BaseException:
            if os.path.isdir(tomb) and not os.path.lexists(directory):
                os.rename(tomb, directory)
            raise


@contextmanager
def held(directory: str) -> Iterator[None]:
    """Keep reap() from taking a directory that has no ledger, or loses it, for a dead one's while we remove it."""
    import fcntl

    with ExitStack() as stack:
        with suppress(OSError):  # then they may both remove it
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = above_stdio(os.open(directory, flags))
            stack.callback(os.close, fd)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _remove(path: str, *, keep: bool = False) -> None:
    """Remove a directory that may be ours or our subordinate ids'."""
    try:
        remove_tree(path, keep=keep)
    except PermissionError:
        if os.geteuid() == 0:
            raise
        from . import userns

        userns.call("removal", "remove_tree", path, keep=keep)


def remove_tree(path: str, *, keep: bool = False, last: str = "") -> None:
    """Remove a directory and all below it, through no link and no mount point. Idempotent.

    However deep it is: what is in a subdirectory is moved up before the subdirectory goes. What others remove meanwhile
    is as good as removed by us.

    Args:
        path: The directory; anything else is left alone.
        keep: Only empty it.
        last: The name of a file in it that goes after all others.

    Raises:
        OSError: Something could not be removed, such as a directory on which something is mounted (EXDEV, EBUSY).
    """
    parent, _, name = path.rpartition("/")
    try:
        directory = identity.open_root(parent)
        try:
            top = openat2(directory, name, os.O_DIRECTORY, NO_MOUNTS)
        finally:
            os.close(directory)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        if error.errno == errno.ELOOP:
            return  # a link
        raise
    try:
        number = 0
        while True:
            entries = [entry for entry in os.listdir(top) if entry != last]
            if not entries:
                break
            for entry in entries:
                number = _remove_entry(top, entry, number)
        if last and _exists_at(last, top):
            reach("emptied")
            with suppress(FileNotFoundError):
                os.unlink(last, dir_fd=top)
    finally:
        os.close(top)
    if not keep:
        with suppress(FileNotFoundError):
            os.rmdir(path)


def _remove_entry(top: int, entry: str, number: int) -> int:
    """Remove a file, or a directory whose own subdirectories are moved to the top, where they get the next numbers."""
    try:
        os.unlink(entry, dir_fd=top)
    except IsADirectoryError:
        pass
    except FileNotFoundError:
        return number
    else:
        return number
    fd = openat2(top, entry, os.O_DIRECTORY, NO_MOUNTS)
    try:
        for child in os.listdir(fd):
            try:
                os.unlink(child, dir_fd=fd)
            except IsADirectoryError:
                while True:
                    number += 1
                    if not _exists_at(f"{number}", top):
                        break
                os.rename(child, f"{number}", src_dir_fd=fd, dst_dir_fd=top)
    finally:
        os.close(fd)
    os.rmdir(entry, dir_fd=top)
    return number


def _exists_at(name: str, directory: int) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
