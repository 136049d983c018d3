# SPDX-License-Identifier: LGPL-2.1-or-later
"""A running container's files, reached from outside: no path in it leads out of it, whatever links it has."""

from __future__ import annotations

import os
import stat

from . import _raw
from .errors import LiblxcError
from .identity import open_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .container import Container


def root_of(container: Container) -> int:
    """Return a descriptor of a running container's root directory, with all that is mounted there.

    Raises:
        LiblxcError: It does not run, or is not ours to look into.
    """
    init = container.init_pid
    operation = "look into"
    if init <= 0:
        raise LiblxcError(operation, container.name, container.lxcpath, "it is not running")
    try:
        root = open_root(f"/proc/{init}/root")
    except OSError as error:
        raise LiblxcError(operation, container.name, container.lxcpath, error.strerror or str(error)) from error
    if container.init_pid != init:  # then it may be another process's
        os.close(root)
        raise LiblxcError(operation, container.name, container.lxcpath, "it has just ended")
    return root


def read_file(root: int, path: str, most: int) -> bytes:
    """Return what is in a regular file below a root directory; nothing where it is not there.

    Args:
        root: A descriptor of the root directory.
        path: Where.
        most: How many bytes at most, since it may be a hostile one.

    Raises:
        OSError: It cannot be read.
    """
    try:
        fd = _raw.openat2(root, path, os.O_PATH, _raw.IN_ROOT)
    except FileNotFoundError:
        return b""
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return b""
        with open(f"/proc/self/fd/{fd}", "rb") as file:  # only now, as opening a device or a pipe can do something
            return file.read(most)
    finally:
        os.close(fd)
