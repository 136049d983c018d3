# SPDX-License-Identifier: LGPL-2.1-or-later
"""CRIU, the program with which liblxc checkpoints and restores."""

from __future__ import annotations

from .errors import UnsupportedError


def require() -> None:
    """Raise UnsupportedError where liblxc would not find CRIU in the PATH."""
    import shutil

    if shutil.which("criu") is None:
        raise UnsupportedError("checkpoint and restore need the program criu in the PATH (package criu)")
