# SPDX-License-Identifier: LGPL-2.1-or-later
"""Throwaway LXC containers in milliseconds, straight on liblxc.

from lxccopy_ffi import EphemeralCopy, run

run("base", ["cat", "/etc/hostname"], tmpfs=True, capture_output=True, text=True).stdout
"""

from __future__ import annotations

from ._raw import default_lxcpath, liblxc_version, log_to
from .clone import clone
from .container import CloneFlag, Container
from .ephemeral import EphemeralCopy, run
from .errors import (
    AccessError,
    ContainerExistsError,
    ContainerNotFoundError,
    LiblxcError,
    LiblxcMissingError,
    LxcCopyError,
    OptionError,
    UnsupportedError,
)
from .rename import rename

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .aio import AsyncEphemeralCopy, arun
    from .base import create_base
    from .checks import Finding, check
    from .children import Child
    from .console import Console
    from .inventory import containers
    from .listing import Copy, copies
    from .mounts import Mount
    from .orphans import Orphan, reap
    from .pool import Pool
    from .popen import Popen
    from .snapshots import Snapshot

# What most runs do not need is imported when it is first asked for.
_LATE = {
    "AsyncEphemeralCopy": "aio",
    "Child": "children",
    "Console": "console",
    "Copy": "listing",
    "Finding": "checks",
    "Mount": "mounts",
    "Orphan": "orphans",
    "Pool": "pool",
    "Popen": "popen",
    "Snapshot": "snapshots",
    "arun": "aio",
    "check": "checks",
    "containers": "inventory",
    "copies": "listing",
    "create_base": "base",
    "reap": "orphans",
}

__version__ = "0.1.0"

__all__ = [
    "AccessError",
    "AsyncEphemeralCopy",
    "Child",
    "CloneFlag",
    "Console",
    "Container",
    "ContainerExistsError",
    "ContainerNotFoundError",
    "Copy",
    "EphemeralCopy",
    "Finding",
    "LiblxcError",
    "LiblxcMissingError",
    "LxcCopyError",
    "Mount",
    "OptionError",
    "Orphan",
    "Pool",
    "Popen",
    "Snapshot",
    "UnsupportedError",
    "__version__",
    "arun",
    "check",
    "clone",
    "containers",
    "copies",
    "create_base",
    "default_lxcpath",
    "liblxc_version",
    "log_to",
    "reap",
    "rename",
    "run",
]


def __getattr__(name: str) -> object:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_LATE[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
