# SPDX-License-Identifier: LGPL-2.1-or-later
"""The cgroups of a container, which liblxc leaves behind when it did not end in the ordinary way."""

from __future__ import annotations

import os

from ._raw import pidfd_open, wait_readable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    # The controllers of a hierarchy, as /proc/PID/cgroup names them, and a path in it.
    Membership = tuple[str, str]

# How long the last processes of a killed container may take to go, in seconds.
_GRACE = 5.0

_OURS = ("lxc.monitor.", "lxc.payload.")


def of_process(pid: int) -> set[Membership]:
    """Return the cgroups that liblxc made for a container and that a process of it is in, at most one a hierarchy."""
    found = set()
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return set()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        parts = path.split("/")
        # A process of the container may be further down, where its own system put it.
        depth = next((index for index, part in enumerate(parts) if part.startswith(_OURS)), None)
        if depth is not None:
            found.add((controllers, "/".join(parts[: depth + 1])))
    return found


def remove(memberships: Iterable[Membership]) -> None:
    """Remove cgroups that have no process any more, with those below them. Most often they are gone already.

    Args:
        memberships: From of_process(), while the container still ran.
    """
    roots = _hierarchies()
    for controllers, path in memberships:
        root = roots.get(controllers)
        if root is not None:
            _remove(root + path)


def _hierarchies() -> dict[str, str]:
    """Where each hierarchy is mounted, by its controllers; "" is cgroup2."""
    found: dict[str, str] = {}
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            kind, _, options = after.split(" ", 2)
            if kind == "cgroup2":
                found.setdefault("", before.split(" ")[4])
            elif kind == "cgroup":
                names = [
                    name for name in options.strip().split(",") if name not in ("rw", "ro", "xattr", "clone_children")
                ]
                found.setdefault(",".join(name for name in names if "release_agent=" not in name), before.split(" ")[4])
    return found


def _remove(cgroup: str) -> None:
    try:
        os.rmdir(cgroup)
    except FileNotFoundError:
        return
    except OSError:
        for directory, _, _ in os.walk(cgroup, topdown=False):
            _await_processes(directory)
            try:
                os.rmdir(directory)
            except OSError:
                return  # somebody lives there: it is not empty, and not ours to clear


def _await_processes(cgroup: str) -> None:
    """Wait for processes that are on their way out, such as those whose monitor was killed."""
    try:
        with open(f"{cgroup}/cgroup.procs", encoding="ascii") as file:
            pids = [int(line) for line in file]
    except OSError:
        return
    for pid in pids:
        try:
            pidfd = pidfd_open(pid)
        except OSError:
            continue
        try:
            wait_readable(pidfd, _GRACE)
        finally:
            os.close(pidfd)
