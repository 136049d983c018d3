# SPDX-License-Identifier: LGPL-2.1-or-later
"""Throwaway LXC containers in milliseconds, straight on liblxc.

from lxccopy_ffi import EphemeralCopy, run

run("base", ["cat", "/etc/hostname"], tmpfs=True, capture_output=True, text=True).stdout
"""

from __future__ import annotations

from ._raw import default_lxcpath, liblxc_version
from .base import create_base
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

__version__ = "0.1.0"

__all__ = [
    "AccessError",
    "CloneFlag",
    "Container",
    "ContainerExistsError",
    "ContainerNotFoundError",
    "EphemeralCopy",
    "LiblxcError",
    "LiblxcMissingError",
    "LxcCopyError",
    "OptionError",
    "UnsupportedError",
    "__version__",
    "clone",
    "create_base",
    "default_lxcpath",
    "liblxc_version",
    "run",
]
