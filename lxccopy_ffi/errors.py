# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every error of this package.

LxcCopyError                                  catch this for all of them; never raised itself
├── OptionError            (ValueError)       malformed or contradictory options; nothing was created
├── ContainerNotFoundError (LookupError)      the container is not defined
├── ContainerExistsError   (FileExistsError)  the name of the copy is taken
├── AccessError            (PermissionError)  we may not read or control it
├── LiblxcMissingError     (ImportError)      liblxc, or the compiled extension, is not there
├── UnsupportedError                          this machine or this base cannot do it
└── LiblxcError                               liblxc said no

A command that fails in a container raises what subprocess would: CalledProcessError or TimeoutExpired.
"""

from __future__ import annotations


class LxcCopyError(Exception):
    """The base of every error of this package."""


class OptionError(LxcCopyError, ValueError):
    """An option is malformed or contradicts another one. Correct the call; nothing was created."""


class ContainerNotFoundError(LxcCopyError, LookupError):
    """There is no such container. Correct the name or the lxcpath."""


class ContainerExistsError(LxcCopyError, FileExistsError):
    """The name for the copy is taken. Choose another one, or remove what is there."""


class AccessError(LxcCopyError, PermissionError):
    """The container or its lxcpath may not be read or controlled. Run as the user who owns it."""


class LiblxcMissingError(LxcCopyError, ImportError):
    """The liblxc library, or our extension, cannot be loaded. The text names the package to install."""


class UnsupportedError(LxcCopyError):
    """The machine, or the base container, cannot do what was asked. The text says what would be needed."""


class LiblxcError(LxcCopyError):
    """A call of liblxc failed.

    Attributes:
        operation: What was tried, as a verb: ``"start"``.
        container: The container's name.
        lxcpath: The directory that holds the container.
        reason: Why, in liblxc's own words; empty where it gave none.
        hint: What to do about it; may be empty.
    """

    def __init__(self, operation: str, container: str, lxcpath: str, reason: str = "", hint: str = "") -> None:
        super().__init__(operation, container, lxcpath, reason, hint)
        self.operation = operation
        self.container = container
        self.lxcpath = lxcpath
        self.reason = reason
        self.hint = hint

    def __str__(self) -> str:
        text = f"cannot {self.operation} container {self.container!r} in {self.lxcpath}"
        if self.reason:
            text += f": {self.reason}"
        if self.hint:
            text += f" ({self.hint})"
        return text
