# SPDX-License-Identifier: LGPL-2.1-or-later
"""liblxc's own lock of a container, which it holds while it changes files of the container on disk."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def lock_file(name: str, lxcpath: str) -> str:
    """Return the path of a container's lock file.

    Reproduces: lxclock.c:lxclock_name().
    """
    return f"{lock_directory(lxcpath)}/.{name}"


def lock_directory(lxcpath: str) -> str:
    """Return where the lock files of the containers in an lxcpath are."""
    runtime = os.environ.get("XDG_RUNTIME_DIR") or os.environ.get("HOME", "/") + "/.cache/lxc/run"
    return f"{'/run' if os.geteuid() == 0 else runtime}/lxc/lock{lxcpath}"


@contextmanager
def locked(name: str, lxcpath: str) -> Iterator[None]:
    """Hold a container's lock, as liblxc does.

    Raises:
        OSError: The lock file cannot be made.

    Reproduces: lxclock.c:lxclock().
    """
    file = lock_file(name, lxcpath)
    import fcntl
    import struct

    os.makedirs(os.path.dirname(file), mode=0o755, exist_ok=True)
    fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        # Of the open file description: one of the process would be lost with any other descriptor of the file.
        fcntl.fcntl(fd, fcntl.F_OFD_SETLKW, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        yield
    finally:
        os.close(fd)


def forget_lock(name: str, lxcpath: str) -> None:
    """Remove the lock file that liblxc made for a container that is gone."""
    with suppress(OSError):
        os.unlink(lock_file(name, lxcpath))
