# SPDX-License-Identifier: LGPL-2.1-or-later
"""Keeping what happened in a throwaway copy, as a container of its own.

As with docker commit, the copy stands still meanwhile, and what is mounted in it is not part of it.
"""

from __future__ import annotations

import os
from contextlib import ExitStack

from .clone import clone, open_merged, personalise
from .errors import LiblxcError, UnsupportedError
from .identity import open_root
from .inside import root_of
from .removal import discard
from .storage import Storage, find_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .container import Container

# What stands for something else in a pattern of rsync's.
_SPECIAL = "*?[]\\"


def commit(copy: Container, source: str, name: str, *, snapshot: bool, options: dict[str, Any]) -> Container:
    """Make a persistent container of what is in a running copy.

    Args:
        copy: The copy.
        source: The name of its base.
        name: The name for the container.
        snapshot: Whether it shares with the base what is the same.
        options: Where the base is, and where the new container goes: keywords of clone().

    Raises:
        LxcCopyError: As clone() does; nothing is left of the new container.
    """
    if os.geteuid() != 0:
        raise UnsupportedError("only root can keep a throwaway copy; -D keeps one on disk")
    if not find_program("rsync"):
        raise UnsupportedError("keeping a copy needs the program rsync, which is not installed (package rsync)")
    with ExitStack() as stack:
        root = root_of(copy)
        stack.callback(os.close, root)
        if copy.state != "FROZEN":
            copy.freeze()
            stack.callback(copy.unfreeze)
        made = clone(source, name, snapshot=snapshot, allow_running=True, **options)
        try:
            target = _open(made)
            try:
                _mirror(copy, root, target)
            finally:
                os.close(target)
            personalise(made)
        except BaseException:
            made.close()
            discard(name, made.lxcpath)
            raise
    return made


def _open(container: Container) -> int:
    """A descriptor of a stopped container's root directory."""
    storage = Storage(container)
    if not storage.is_on_host:
        raise UnsupportedError(f"{container.where} is stored as {storage.kind!r}, which cannot be written to from here")
    return open_merged(storage.lower, storage.upper) if storage.upper else open_root(storage.lower[0])


def _mirror(copy: Container, root: int, target: int) -> None:
    """Make one tree like the other, but for what is mounted on the other."""
    import subprocess

    with open(f"/proc/{copy.init_pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        filters = [f"--exclude={pattern(line.split()[4])}" for line in file if line.split()[4] != "/"]
    words = ["rsync", "-aHAXS", "--numeric-ids", "--delete", *filters]
    places = [f"/proc/self/fd/{fd}/" for fd in (root, target)]
    done = subprocess.run(
        [*words, *places],
        pass_fds=(root, target),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    if done.returncode:
        said = os.fsdecode(done.stderr).strip().splitlines()[:1] or [f"rsync failed with status {done.returncode}"]
        raise LiblxcError("keep", copy.name, copy.lxcpath, said[0])


def pattern(mount_point: str) -> str:
    """Return rsync's pattern for a mount point as the kernel writes it."""
    path = os.fsencode(mount_point)
    for character in b" \t\n\\":
        path = path.replace(b"\\%03o" % character, bytes([character]))
    text = os.fsdecode(path)
    if not any(sign in text for sign in "*?["):
        return text
    return "".join(f"\\{sign}" if sign in _SPECIAL else sign for sign in text)
