# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who a command in a container is: users and groups as the container's own /etc has them."""

from __future__ import annotations

import os

from .errors import OptionError
from .inside import read_file, root_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Union

    from .container import Container

    Id = Union[str, int]

_LARGEST_FILE = 16 << 20
_LARGEST_ID = (1 << 32) - 2


def check_id(name: str, value: Id | None) -> Id | None:
    """Return a user or group as it was given, or raise OptionError for what can be none.

    Args:
        name: What it is, for the error's text.
        value: A name, or a number, also as text.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise OptionError(f"{name} must be a name or a number, not {value!r}")
    if isinstance(value, int) and not 0 <= value <= _LARGEST_ID:
        raise OptionError(f"{name} must be from 0 to {_LARGEST_ID}, not {value}")
    if isinstance(value, str) and (not value or any(sign in ":,/" or not sign.isprintable() for sign in value)):
        raise OptionError(f"{name} must be a name or a number, not {value!r}")
    return value


class Account:
    """A user of a container.

    Attributes:
        uid: Its number.
        gid: Its group's.
        groups: Those of all groups that it is in.
        environment: What a login session of its has.
    """

    def __init__(self, uid: int, gid: int, groups: list[int], name: str, home: str) -> None:
        self.uid = uid
        self.gid = gid
        self.groups = groups
        self.environment = {"HOME": home, "USER": name, "LOGNAME": name}

    @property
    def ids(self) -> tuple[int, int, list[int]]:
        """As Container.attach() takes them."""
        return self.uid, self.gid, self.groups


def look_up(container: Container, user: Id | None, group: Id | None) -> Account:
    """Return who a command shall be.

    Args:
        container: The running container.
        user: The name or number of a user; root where None. A number need not be in the container's /etc/passwd: its
            group is then the one of the same number.
        group: The name or number of a group in place of the user's first one.

    Raises:
        OptionError: The container has no such user or group.
        LiblxcError: It does not run, or its files cannot be read.
    """
    root = root_of(container)
    try:
        users = _table(root, "etc/passwd", 7)
        groups = _table(root, "etc/group", 4)
    except OSError as error:
        raise OptionError(f"user: nobody can be looked up in {container.name!r}: {error.strerror}") from error
    finally:
        os.close(root)
    return choose(users, groups, user, group, container.name)


def choose(users: list[list[str]], groups: list[list[str]], user: Id | None, group: Id | None, where: str) -> Account:
    """Return who a command shall be, from the lines of a passwd and a group file."""
    found = _find(users, 0 if user is None else user)
    if found is None and not _is_number(user):
        raise OptionError(f"user: there is no user {user!r} in {where!r}")
    number = int(user or 0) if found is None else int(found[2])
    name = str(number) if found is None else found[0]
    gid = number if found is None else int(found[3])
    if group is not None:
        chosen = _find(groups, group)
        if chosen is None and not _is_number(group):
            raise OptionError(f"group: there is no group {group!r} in {where!r}")
        gid = int(group) if chosen is None else int(chosen[2])
    further = [int(line[2]) for line in groups if name in line[3].split(",") and int(line[2]) != gid]
    home = "/" if found is None else found[5] or "/"
    return Account(number, gid, [gid, *further], name, home)


def _table(root: int, path: str, fields: int) -> list[list[str]]:
    """The lines of such a file that are whole and have a number where one belongs."""
    text = read_file(root, path, _LARGEST_FILE).decode("utf-8", "surrogateescape")
    lines = [line.split(":") for line in text.split("\n") if "\0" not in line]
    numbers = slice(2, 4) if fields == 7 else slice(2, 3)
    return [line for line in lines if len(line) == fields and line[0] and all(map(_is_number, line[numbers]))]


def _find(lines: list[list[str]], wanted: Id) -> list[str] | None:
    """The first line of that name; or else, for a number, of that number."""
    named = [line for line in lines if line[0] == wanted]
    numbered = [line for line in lines if _is_number(wanted) and int(line[2]) == int(wanted)]
    return next(iter(named + numbered), None)


def _is_number(value: Id | None) -> bool:
    """Whether it is a number that an id can have."""
    digits = str(value)
    return digits.isascii() and digits.isdigit() and len(digits) <= 10 and int(digits) <= _LARGEST_ID
