# SPDX-License-Identifier: LGPL-2.1-or-later
"""The cgroups of a container, which liblxc leaves behind when it did not end in the ordinary way."""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress

from ._raw import pidfd_open, wait_readable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    # The controllers of a hierarchy, as /proc/PID/cgroup names them, and a path in it.
    Membership = tuple[str, str]

# What a cgroup1 mount's options are, besides its controllers and a release_agent.
_NO_CONTROLLERS = frozenset({"rw", "ro", "xattr", "clone_children", "noprefix", "cpuset_v2_mode", "favordynmods"})

# How long the last processes of a killed container may take to go, in seconds.
_GRACE = 5.0


def of_process(pid: int, name: str) -> set[Membership]:
    """Return the cgroups that liblxc made for a container and that a process of it is in, at most one a hierarchy.

    Args:
        pid: A process of the container, its monitor, or the one that started it.
        name: The container's name: we may ourselves be in another container's cgroup.
    """
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            return in_text(file.read(), name)
    except OSError:
        return set()


def in_text(text: str, name: str) -> set[Membership]:
    """Return the same from the text of a /proc/PID/cgroup."""
    found = set()
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        parts = path.split("/")
        # A process of the container may be further down, where its own system put it.
        depths = [index for index, part in enumerate(parts) if _belongs_to(part, name)]
        if depths:
            found.add((controllers, "/".join(parts[: depths[-1] + 1])))
    return found


def of_name(name: str) -> set[Membership]:
    """Return the cgroups of a container whose processes are gone, as far as they are where liblxc mostly makes them.

    That is at the top of each hierarchy, or beside our own cgroup. None where a process is in any of them: they are
    those of another container then, which has the same name elsewhere.
    """
    found = set()
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        ours = {controllers: path for _, controllers, path in (line.rstrip("\n").split(":", 2) for line in file)}
    for controllers, root in hierarchies().items():
        own = ours.get(controllers, "/")
        for parent in {"", own.rstrip("/"), os.path.dirname(own).rstrip("/")}:
            paths = [f"{parent}/lxc.{kind}.{name}" for kind in ("monitor", "payload")]
            found |= {(controllers, path) for path in paths if os.path.isdir(root + path)}
            if any(_processes(directory) for path in paths for directory, _, _ in os.walk(root + path)):
                return set()
    return found


def named(memberships: Iterable[Membership], name: str) -> set[Membership]:
    """Return those of some cgroups that have the name which liblxc gives a container's."""
    return {
        (controllers, path)
        for controllers, path in memberships
        if _belongs_to(os.path.basename(path), name) and ".." not in path.split("/")
    }


def memory(pid: int, name: str) -> int | None:
    """Return how much memory a container uses, in bytes; None where that is not accounted for.

    Args:
        pid: A process of it.
        name: Its name.
    """
    roots = hierarchies()
    for controllers, path in sorted(of_process(pid, name), reverse=True):
        version_1 = "memory" in controllers.split(",")
        file = "memory.usage_in_bytes" if version_1 else "memory.current"
        if (version_1 or not controllers) and controllers in roots:
            with suppress(OSError, ValueError), open(f"{roots[controllers]}{path}/{file}", encoding="ascii") as text:
                return int(text.read())
    return None


def _belongs_to(cgroup: str, name: str) -> bool:
    """Whether a cgroup is called as liblxc calls a container's: with -1, -2, ... at the end where that was taken."""
    for prefix in ("lxc.monitor.", "lxc.payload."):
        if cgroup.startswith(prefix + name):
            rest = cgroup[len(prefix + name) :]
            return not rest or (rest[0] == "-" and rest[1:].isdigit())
    return False


def remove(memberships: Iterable[Membership]) -> None:
    """Remove cgroups that have no process any more, with those below them. Most often they are gone already.

    Args:
        memberships: From of_process(), while the container still ran.
    """
    deadline = time.monotonic() + _GRACE
    roots = hierarchies()
    for controllers, path in memberships:
        root = roots.get(controllers)
        if root is not None:
            _remove(root + path, deadline)


def hierarchies() -> dict[str, str]:
    """Return where each hierarchy is mounted, by its controllers; "" is cgroup2."""
    found: dict[str, str] = {}
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            kind, _, options = after.split(" ", 2)
            if kind == "cgroup2":
                found.setdefault("", before.split(" ")[4])
            elif kind == "cgroup":
                names = [name for name in options.strip().split(",") if name not in _NO_CONTROLLERS]
                found.setdefault(",".join(name for name in names if "release_agent=" not in name), before.split(" ")[4])
    return found


def _remove(cgroup: str, deadline: float) -> None:
    try:
        os.rmdir(cgroup)
    except FileNotFoundError:
        return
    except OSError:
        directories = [directory for directory, _, _ in os.walk(cgroup, topdown=False)]
        for directory in directories:
            _await_processes(directory, deadline)
        if any(map(_processes, directories)):
            return  # somebody else's, with those in it that are empty
        for directory in directories:
            if not _remove_one(directory, deadline):
                return  # somebody has come to live there, and it is not ours to clear


def _remove_one(cgroup: str, deadline: float) -> bool:
    while True:
        try:
            os.rmdir(cgroup)
        except FileNotFoundError:
            return True
        except OSError as error:
            # A process on its way out is not listed any more before it has left.
            if error.errno != errno.EBUSY or _processes(cgroup) or time.monotonic() >= deadline:
                return False
            time.sleep(0.001)
        else:
            return True


def _processes(cgroup: str) -> set[int]:
    try:
        with open(f"{cgroup}/cgroup.procs", encoding="ascii") as file:
            return {int(line) for line in file}
    except OSError:
        return set()


def _await_processes(cgroup: str, deadline: float) -> None:
    """Wait for processes that are on their way out, such as those whose monitor was killed."""
    for pid in _processes(cgroup) - {os.getpid()}:
        try:
            pidfd = pidfd_open(pid)
        except OSError:
            continue
        try:
            wait_readable(pidfd, max(0.0, deadline - time.monotonic()))
        finally:
            os.close(pidfd)


def writable() -> set[str]:
    """Return the controllers of those hierarchies in which we may make cgroups below ours; "" is cgroup2."""
    roots = hierarchies()
    found = set()
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        for line in file.read().splitlines():
            _, controllers, path = line.split(":", 2)
            ours = roots.get(controllers, "") + path
            if controllers in roots and os.access(ours, os.W_OK) and os.access(f"{ours}/cgroup.procs", os.W_OK):
                found.add(controllers)
    return found
