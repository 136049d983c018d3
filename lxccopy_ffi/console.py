# SPDX-License-Identifier: LGPL-2.1-or-later
"""Console: a running container's terminal, lent to us."""

from __future__ import annotations

import os

from ._raw import ffi, lib, private
from .errors import OptionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

    from ._liblxc import _Container


class Console:
    """A running container's terminal: what is read from fd was printed on it, what is written was typed.

    It is ours until close(), which takes it away from nobody in the container.

    Attributes:
        fd: A descriptor of its outer end, above 2 and close-on-exec; -1 once closed.
        tty: Its number in the container: 1 is ``/dev/tty1``, 0 is ``/dev/console``.
    """

    def __init__(self, fd: int, tty: int, loan: int) -> None:
        self.fd = fd
        self.tty = tty
        self._loan = loan

    def fileno(self) -> int:
        """Return fd, for select() and the like."""
        return self.fd

    def close(self) -> None:
        """Give it back. Idempotent."""
        fds, self.fd, self._loan = (self.fd, self._loan), -1, -1
        for fd in fds:
            if fd >= 0:
                os.close(fd)

    def __enter__(self) -> Console:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Console of tty {self.tty}>"


def borrowed(container: _Container, tty: int) -> Console | None:
    """Return a terminal of a container; None where that is not to be had."""
    number: Any = ffi.new("int *", tty)
    terminal: Any = ffi.new("int *", -1)
    loan = lib.container_console_getfd(container, number, terminal)
    if loan < 0:
        return None
    return Console(private(terminal[0]), number[0], private(loan))


def escape_code(letter: str | None) -> int:
    """Return what liblxc takes for the letter that leaves a console after Ctrl, or raise OptionError."""
    if letter is None:
        return -1
    if not isinstance(letter, str) or len(letter) != 1 or not "a" <= letter <= "z":
        raise OptionError(f"escape must be a letter from a to z, or None, not {letter!r}")
    return ord(letter) - ord("a") + 1
