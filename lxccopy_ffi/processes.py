# SPDX-License-Identifier: LGPL-2.1-or-later
"""Processes as /proc shows them."""

from __future__ import annotations

import os
import time

# How long kill_tree() goes on where processes cannot die, such as those of a frozen container, in seconds.
_LONGEST_KILLING = 5.0


def parent(pid: int) -> int:
    """Return the process id of a process's parent.

    Raises:
        OSError: It has ended.
    """
    return int(_status(pid)[1])


def start_time(pid: int) -> int:
    """Return when a process began, in clock ticks after the boot: with its id this tells it from all others.

    Raises:
        OSError: It has ended.
    """
    return int(_status(pid)[19])


def is_alive(pid: int, began: int) -> bool:
    """Whether the very process that began then still runs; a zombie does not."""
    try:
        status = _status(pid)
    except OSError:
        return False
    return int(status[19]) == began and status[0] not in (b"Z", b"X")


def sleeps(pid: int) -> bool:
    """Whether a process waits for something.

    Raises:
        OSError: It has ended.
    """
    return _status(pid)[0] == b"S"


def _status(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat from the state on."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()  # the name before it may hold anything


def command_lines() -> list[tuple[int, str]]:
    """Return the id and the command line, its words separated by blanks, of each process that has one."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as file:
                    words = file.read()
            except OSError:
                continue  # it has ended
            if words:
                found.append((int(entry), os.fsdecode(words.replace(b"\0", b" ").strip())))
    return found


def descendants(pid: int, task: int | None = None) -> list[int]:
    """Return the processes that a process has started, directly or not, the last ones first.

    Args:
        pid: The process.
        task: Which of its threads has started them; the main one where None.
    """
    try:
        with open(f"/proc/{pid}/task/{task or pid}/children", encoding="ascii") as file:
            children = [int(child) for child in file.read().split()]
    except OSError:  # it has ended, or this is a kernel without CONFIG_PROC_CHILDREN
        return []
    return [one for child in children for one in (*descendants(child), child)]


def kill(pid: int, number: int = 9) -> None:
    """Kill a process that may have ended, or send it another signal."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def kill_tree(leader: int) -> None:
    """Kill a process of ours, its descendants, and whoever is in a session that one of them leads, till none is left.

    Args:
        leader: The process; nobody has waited for it yet, so that its number is still its own.
    """
    deadline = time.monotonic() + _LONGEST_KILLING
    while (found := tree(leader)) and time.monotonic() < deadline:
        known: set[int] = set()
        while not found <= known:  # stopped first, so that none starts another one meanwhile
            for pid in found - known:
                kill(pid, 19)
            known |= found
            found = tree(leader)
        for pid in known:
            kill(pid)
        time.sleep(0.001)


def tree(leader: int) -> set[int]:
    """Return a process, its descendants, and who is in a session that one of them leads, but for those that ended."""
    everybody = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                status = _status(int(entry))
            except OSError:
                continue  # it has ended
            everybody[int(entry)] = (status[0], int(status[1]), int(status[3]))
    found = {leader}
    while more := {one for one, (_, *ties) in everybody.items() if not found.isdisjoint(ties)} - found:
        found |= more
    return {one for one in found if one in everybody and everybody[one][0] not in (b"Z", b"X")}
