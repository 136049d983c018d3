# SPDX-License-Identifier: LGPL-2.1-or-later
"""An ordinary user's subordinate ids: those of /etc/subuid and /etc/subgid, and what it takes to use them."""

from __future__ import annotations

import os
import stat

from .errors import AccessError
from .storage import find_program
from .tmpfs import mapped_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    # The first id, and how many there are.
    Range = tuple[int, int]

_FILES = {"u": "/etc/subuid", "g": "/etc/subgid"}
_PROGRAMS = {"u": "newuidmap", "g": "newgidmap"}
_OWN = {"u": os.geteuid, "g": os.getegid}


def check() -> None:
    """Refuse early what would fail late: a user without subordinate ids, or without the programs that hand them out.

    Raises:
        AccessError: Something is missing.
    """
    for kind in "ug":
        ranges(kind)
    for program in _PROGRAMS.values():
        _check_program(program)


def _check_program(name: str) -> None:
    path = find_program(name)
    packages = "Debian and Ubuntu: uidmap; Fedora and Arch: shadow-utils, shadow; Alpine: shadow-uidmap"
    if not path:
        raise AccessError(f"the program {name} is not installed, which containers of ordinary users need ({packages})")
    found = os.stat(path)
    if not (found.st_mode & stat.S_ISUID and found.st_uid == 0) and not _has_capabilities(path):
        raise AccessError(
            f"{path} is not setuid root, so it cannot hand out subordinate ids; as root: chmod u+s {path}"
        )


def _has_capabilities(path: str) -> bool:
    try:
        return bool(os.getxattr(path, "security.capability"))
    except OSError:
        return False


def ranges(kind: str) -> list[Range]:
    """Return our subordinate ids, of users for ``"u"`` and of groups for ``"g"``; at least one range.

    Raises:
        AccessError: There are none.
    """
    file, user = _FILES[kind], user_name()
    found = _read(file, (user, str(os.geteuid())))
    if not found:
        option = f"--add-sub{kind}ids"
        raise AccessError(
            f"user {user!r} has no subordinate ids in {file}, which containers of ordinary users need;"
            f" as root: usermod {option} 100000-165535 {user}"
        )
    return found


def user_name() -> str:
    """Return our user's name, or the number where there is none."""
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _read(file: str, owners: tuple[str, str]) -> list[Range]:
    try:
        with open(file, encoding="utf-8", errors="replace") as lines:
            fields = [line.strip().split(":") for line in lines]
    except OSError:
        return []
    numbers = [words[1:] for words in fields if words[0] in owners and len(words) == 3]
    pairs = [(int(first), int(count)) for first, count in numbers if first.isdigit() and count.isdigit()]
    return [(first, count) for first, count in pairs if count > 0]


def idmap() -> list[str]:
    """Return what lxc.idmap says for a new container of ours: its ids from 0 on are the first range's.

    Raises:
        AccessError: There are no subordinate ids.
    """
    return [f"{kind} 0 {first} {count}" for kind in "ug" for first, count in ranges(kind)[:1]]


def check_idmap(text: str, where: str) -> None:
    """Refuse a container whose ids are not all ours.

    Args:
        text: Its lxc.idmap, a line for each entry.
        where: What an error calls it.

    Raises:
        AccessError: It has no map, or one with ids of others.
    """
    if not text:
        raise AccessError(f"{where} has no id map (lxc.idmap), so only root can start a copy of it")
    for line in text.splitlines():
        kinds, _, first, count = line.split()
        for kind in "ug" if kinds == "b" else kinds:
            wanted = (int(first), int(count))
            if wanted != (_OWN[kind](), 1) and not _covers(ranges(kind), wanted):
                raise AccessError(
                    f"{where} has the id map {line!r}, and {_FILES[kind]} does not give user {user_name()!r} all of"
                    f" those ids"
                )


def _covers(ours: Iterable[Range], wanted: Range) -> bool:
    """Whether ranges, which may follow one another, have all of another one."""
    first, end = wanted[0], wanted[0] + wanted[1]
    for start, count in sorted(ours):
        if start <= first < start + count:
            first = start + count
    return first >= end


def check_way(path: str, idmap: str) -> None:
    """Refuse a directory that the root of a container cannot get to, who is a stranger to our own.

    Args:
        path: An absolute path; what of it is missing does not matter.
        idmap: The container's lxc.idmap.

    Raises:
        AccessError: There is a directory on the way that others may not enter.
    """
    user, group = mapped_root(idmap)
    parts = path.split("/")
    for depth in range(1, len(parts) + 1):
        directory = "/".join(parts[:depth]) or "/"
        try:
            found = os.stat(directory)
        except OSError:
            return
        if not _may_enter(directory, found, user, group):
            raise AccessError(
                f"the root of the container, user {user} here, cannot enter {directory}, which is on the way to {path};"
                f" let others pass through it: chmod o+x {directory}"
            )


def _may_enter(directory: str, found: os.stat_result, user: int, group: int) -> bool:
    if found.st_uid == user:
        return bool(found.st_mode & stat.S_IXUSR)
    if _in_acl(directory, user):
        return bool(found.st_mode & stat.S_IXGRP)  # which is an ACL's mask
    return bool(found.st_mode & (stat.S_IXGRP if found.st_gid == group else stat.S_IXOTH))


def _in_acl(directory: str, user: int) -> bool:
    """Whether an access control list lets a user enter a directory."""
    import struct

    named_user, may_enter = 2, 1
    try:
        acl = os.getxattr(directory, "system.posix_acl_access")
    except OSError:
        return False
    entries = struct.iter_unpack("<HHI", acl[4:])
    return any(tag == named_user and number == user and rights & may_enter for tag, rights, number in entries)
