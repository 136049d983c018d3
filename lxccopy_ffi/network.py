# SPDX-License-Identifier: LGPL-2.1-or-later
"""What liblxc tells about a running container's network, and what it has to be asked."""

from __future__ import annotations

import os

from . import _raw
from ._raw import ffi, lib
from .errors import OptionError
from .names import check_interface, check_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._liblxc import _Container, _StringList


def interfaces(container: _Container) -> list[str]:
    """Return the names of a container's interfaces; none where liblxc could not look."""
    return _taken(lib.container_get_interfaces(container))


def check_query(family: str | None, interface: str | None, scope: int) -> None:
    """Raise OptionError for what addresses() does not take."""
    if family not in {None, "inet", "inet6"}:
        raise OptionError(f"family must be 'inet', 'inet6' or None, not {family!r}")
    if interface is not None:
        check_interface(interface)
    check_number("scope", scope, 0)


def addresses(container: _Container, family: str | None, interface: str | None, scope: int) -> list[str]:
    """Return a container's addresses; none where there are none, or liblxc could not look."""
    words = [ffi.NULL if word is None else ffi.new("char[]", os.fsencode(word)) for word in (interface, family)]
    return _taken(lib.container_get_ips(container, words[0], words[1], scope))


def is_here(interface: str) -> bool:
    """Whether our own network namespace has such an interface."""
    import socket

    try:
        socket.if_nametoindex(interface)
    except OSError:
        return False
    return True


def _taken(pointer: _StringList) -> list[str]:
    """Return a NULL-terminated list as text, each once, and free it; NULL is an empty one."""
    if pointer == ffi.NULL:
        return []
    count = 0
    while pointer[count] != ffi.NULL:
        count += 1
    return list(dict.fromkeys(_raw.take_list(pointer, count)))
