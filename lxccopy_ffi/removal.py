# SPDX-License-Identifier: LGPL-2.1-or-later
"""Removing a container with all of its directory, through no link and no mount point."""

from __future__ import annotations

import errno
import os

from . import identity
from ._raw import NO_MOUNTS, openat2
from .container import Container
from .errors import LiblxcError
from .locking import forget_lock


def discard(name: str, lxcpath: str) -> None:
    """Stop and remove a container and all of its directory.

    Raises:
        LiblxcError: Something of it could not be removed.
    """
    with Container(name, lxcpath) as copy:
        copy.stop()
        try:
            # liblxc removes trees by recursion, and a container can have made one that is too deep for our stack.
            # But not what liblxc refuses to remove, as others depend on it, nor before a hook has seen it.
            if not (os.path.lexists(f"{copy.directory}/lxc_snapshots") or copy.config("lxc.hook.destroy")):
                for tree in ("overlay", "rootfs"):
                    _remove(f"{copy.directory}/{tree}", keep=True)
            if copy.defined:
                copy.destroy()
            _remove(copy.directory)
        except OSError as error:
            raise LiblxcError("remove", name, lxcpath, f"{error.filename}: {error.strerror}") from error
        except LiblxcError:
            if os.path.lexists(copy.config_file):
                raise  # otherwise its monitor was faster
            _remove(copy.directory)
    forget_lock(name, lxcpath)


def _remove(path: str, *, keep: bool = False) -> None:
    """Remove a directory that may be ours or our subordinate ids'."""
    try:
        remove_tree(path, keep=keep)
    except PermissionError:
        if os.geteuid() == 0:
            raise
        from . import userns

        userns.call("removal", "remove_tree", path, keep=keep)


def remove_tree(path: str, *, keep: bool = False) -> None:
    """Remove a directory and all below it, through no link and no mount point. Idempotent.

    However deep it is: what is in a subdirectory is moved up before the subdirectory goes.

    Args:
        path: The directory; anything else is left alone.
        keep: Only empty it.

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
            entries = os.listdir(top)
            if not entries:
                break
            for entry in entries:
                number = _remove_entry(top, entry, number)
    finally:
        os.close(top)
    if not keep:
        os.rmdir(path)


def _remove_entry(top: int, entry: str, number: int) -> int:
    """Remove a file, or a directory whose own subdirectories are moved to the top, where they get the next numbers."""
    try:
        os.unlink(entry, dir_fd=top)
    except IsADirectoryError:
        pass
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
