# SPDX-License-Identifier: LGPL-2.1-or-later
"""The snapshots that a container keeps of itself."""

from __future__ import annotations

import os

from . import _raw
from ._raw import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._liblxc import _Container


class Snapshot:
    """A snapshot that a container keeps of itself, below its own directory.

    Attributes:
        name: ``"snap0"``, ``"snap1"`` and so on.
        comment: What it was made for; empty where nobody said so.
        timestamp: When it was made, local time, as liblxc writes it: ``"2026:01:31 23:59:59"``.
        lxcpath: The directory that holds it: as a container, it has this lxcpath.
    """

    def __init__(self, name: str, comment: str, timestamp: str, lxcpath: str) -> None:
        self.name = name
        self.comment = comment
        self.timestamp = timestamp
        self.lxcpath = lxcpath

    def __repr__(self) -> str:
        return f"<Snapshot {self.name!r} in {self.lxcpath} of {self.timestamp}: {self.comment!r}>"


def listed(container: _Container) -> list[Snapshot]:
    """Return the snapshots of a container, the oldest first."""
    found: Any = ffi.new("struct lxc_snapshot **")
    count = lib.container_snapshot_list(container, found)
    try:
        snapshots = [_snapshot(found[0][index]) for index in range(max(count, 0))]
    finally:
        lib.snapshot_list_free(found[0], count)
    return sorted(snapshots, key=lambda snapshot: (len(snapshot.name), snapshot.name))  # snap10 comes after snap9


def make(container: _Container, comment: str) -> str:
    """Make a snapshot and return its name; empty where liblxc could not do it."""
    if not comment:
        return _name(lib.container_snapshot(container, ffi.NULL))
    fd = _raw.above_stdio(os.memfd_create("lxccopy-comment", os.MFD_CLOEXEC))  # liblxc copies it
    try:
        _raw.write_all(fd, os.fsencode(comment))
        return _name(lib.container_snapshot(container, b"/proc/self/fd/%d" % fd))
    finally:
        os.close(fd)


def _name(number: int) -> str:
    return f"snap{number}" if number >= 0 else ""


def _snapshot(found: Any) -> Snapshot:  # noqa: ANN401 - C data
    name, timestamp, lxcpath = (
        _raw.text(item) if item else "" for item in (found.name, found.timestamp, found.lxcpath)
    )
    return Snapshot(name, _comment(found.comment_pathname), timestamp, lxcpath)


def _comment(path: Any) -> str:  # noqa: ANN401 - C data
    try:
        with open(_raw.text(path), "rb") as file:
            return os.fsdecode(file.read())
    except OSError:
        return ""  # liblxc names the file also where there is none
