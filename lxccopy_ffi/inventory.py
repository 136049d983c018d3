# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which containers there are."""

from __future__ import annotations

import os

from . import _raw
from ._raw import ffi
from .errors import OptionError
from .names import check_flag, check_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .names import StrPath


def containers(lxcpath: StrPath | None = None, *, active: bool = True, defined: bool = True) -> list[str]:
    """Return the names of the containers in a directory, sorted; Container(name, lxcpath) opens one.

    They are names and not objects, as in python3-lxc, since opening a container can fail: it may have half a
    configuration, or go at any moment.

    Args:
        lxcpath: Where to look; LXC's default where None.
        active: Those that run, or start or stop, also such as are not defined.
        defined: Those that have a configuration file, whether they run or not.

    Raises:
        OptionError: There is no such directory, it cannot be read, or nothing is asked for.

    Reproduces: list_active_containers(), list_defined_containers() and list_all_containers().
    """
    check_flag("active", active)
    check_flag("defined", defined)
    if not active and not defined:
        raise OptionError("active and defined are both False: there is nothing to look for")
    liblxc = _raw.liblxc()
    path = check_path(_raw.default_lxcpath() if lxcpath is None else lxcpath)
    try:
        os.scandir(path).close()  # liblxc says nothing of the reason
    except OSError as error:
        raise OptionError(f"cannot look for containers in {path}: {error.strerror}") from error
    if active and defined:
        find = liblxc.list_all_containers
    else:
        find = liblxc.list_active_containers if active else liblxc.list_defined_containers
    names: Any = ffi.new("char ***")
    count = find(os.fsencode(path), names)
    return sorted(set(_raw.take_list(names[0], count))) if count > 0 else []
