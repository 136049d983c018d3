# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who is a snapshot of whom: a base's file lxc_snapshots, and a snapshot's file lxc_rdepends.

Both have two lines for each container: its lxcpath and its name. liblxc destroys no base that has snapshots.
"""

from __future__ import annotations

import errno
import os
import stat

from ._raw import above_stdio
from .identity import prepared
from .locking import locked

TYPE_CHECKING = False
if TYPE_CHECKING:
    Pair = tuple[str, str]


def snapshots(directory: str) -> list[Pair]:
    """Return the lxcpath and name of each snapshot of the container in a directory."""
    return _read(f"{directory}/lxc_snapshots")


def bases(directory: str) -> list[Pair]:
    """Return the lxcpath and name of each container that the one in a directory is a snapshot of."""
    return _read(f"{directory}/lxc_rdepends")


def _read(file: str) -> list[Pair]:
    try:
        fd = above_stdio(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
            return []  # none, or a link or a socket, which liblxc never makes
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return []
    with open(fd, encoding="utf-8", errors="surrogateescape", newline="") as text:
        lines = text.read().removesuffix("\n").split("\n")
    return list(zip(lines[::2], lines[1::2]))


def replace(base: Pair, old: Pair, new: Pair) -> None:
    """Let a base remember a snapshot of its by another lxcpath or name.

    Raises:
        OSError: Its file cannot be written.

    Reproduces: lxccontainer.c:mod_rdep().
    """
    _change(base, old, [new])


def forget(base: Pair, snapshot: Pair) -> None:
    """Let a base forget a snapshot, each time that it is named. Without any, its file goes, as liblxc has it.

    Raises:
        OSError: Its file cannot be written.

    Reproduces: lxccontainer.c:mod_rdep().
    """
    _change(base, snapshot, [])


def _change(base: Pair, old: Pair, new: list[Pair]) -> None:
    lxcpath, name = base
    # The pair can be from a copy's file, and who has written that is not to be trusted with our paths.
    if not lxcpath.startswith("/") or "/" in name or ".." in (name, *lxcpath.split("/")) or "\0" in lxcpath + name:
        return
    file = f"{lxcpath}/{name}/lxc_snapshots"
    if not os.path.lexists(file):
        return
    with locked(name, lxcpath):
        before = _read(file)
        if old not in before:
            return
        first = before.index(old)
        rest = before[first + 1 :] if new else [pair for pair in before[first:] if pair != old]
        after = before[:first] + new + rest
        if not after:
            os.unlink(file)
            return
        with prepared(file, "".join(f"{line}\n" for pair in after for line in pair)) as written:
            os.rename(written, file)
