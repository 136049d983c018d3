# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is worth saying and no error: to the program's log, or to whoever wants to show it otherwise."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def log(text: str) -> None:
    """Write to the logger ``lxccopy_ffi``."""
    import logging

    logging.getLogger("lxccopy_ffi").warning("%s", text)


_show: Callable[[str], None] = log


def warn(text: str) -> None:
    """Say something."""
    _show(text)


def show_with(show: Callable[[str], None]) -> None:
    """Let a function have what warn() says, in place of log()."""
    global _show  # noqa: PLW0603 - as there is one logger
    _show = show
