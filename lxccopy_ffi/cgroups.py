# SPDX-License-Identifier: LGPL-2.1-or-later
"""The cgroups that liblxc leaves when a container did not end in the ordinary way."""

from __future__ import annotations

import os

from ._raw import pidfd_open, wait_readable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# How long the last processes of a killed container may take to go, in seconds.
_GRACE = 5.0


def remove_leftovers(name: str) -> None:
    """Remove the empty ``lxc.monitor.NAME`` and ``lxc.payload.NAME`` of a container that has ended.

    Nothing is done while a container of that name runs or starts, in whatever lxcpath: its cgroups are called the same.

    Args:
        name: The container's name.
    """
    if _is_in_use(name):
        return
    for parent in _parents():
        try:
            found = os.listdir(parent)
        except OSError:
            continue
        for child in found:
            if _belongs_to(child, name):
                _remove(f"{parent}/{child}")


def _is_in_use(name: str) -> bool:
    """Whether some monitor listens for commands; it does so from before its cgroups are made until they are removed."""
    try:
        with open("/proc/net/unix", encoding="utf-8", errors="replace") as sockets:
            return any(line.rstrip("\n").endswith(f"/{name}/command") for line in sockets)
    except OSError:
        return True


def _belongs_to(cgroup: str, name: str) -> bool:
    """Whether it is a cgroup of the container; liblxc appends -1, -2, ... where the name was taken."""
    for prefix in ("lxc.monitor.", "lxc.payload."):
        if cgroup.startswith(prefix + name):
            rest = cgroup[len(prefix + name) :]
            return not rest or (rest[0] == "-" and rest[1:].isdigit())
    return False


def _parents() -> Iterator[str]:
    """The directories in which liblxc makes cgroups: the root of each hierarchy, and where we are in it."""
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        memberships = [line.rstrip("\n").split(":", 2) for line in file]
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        mounts = [line.split(" - ") for line in file]
    for before, after in mounts:
        kind, _, options = after.split(" ", 2)
        if kind not in ("cgroup", "cgroup2"):
            continue
        root = before.split(" ")[4]
        yield root
        for _, controllers, path in memberships:
            same = not controllers if kind == "cgroup2" else controllers and controllers in options
            if same and path != "/":
                yield root + path


def _remove(cgroup: str) -> None:
    for directory, _, _ in os.walk(cgroup, topdown=False):
        try:
            os.rmdir(directory)
        except OSError:
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
