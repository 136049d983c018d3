# SPDX-License-Identifier: LGPL-2.1-or-later
"""Waiting for a running container: for a condition, and until its init has brought the system up."""

from __future__ import annotations

import os
import time

from ._raw import IN_ROOT, openat2
from .errors import LiblxcError, OptionError, UnsupportedError
from .inside import read_file, root_of
from .names import check_seconds
from .processes import sleeps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Union

    from .container import Container

    Condition = Union[Callable[[], object], Sequence[str]]

# How long an unknown init may take to become a known one, in seconds.
_PATIENCE = 1.0

# How long between two looks, in seconds.
_INTERVAL = 0.03

# How long busybox's init must sleep without a child that tells for one that has started all, in seconds.
_QUIET = 0.15

_LARGEST_FILE = 1 << 20


def wait_until(container: Container, condition: Condition, timeout: float | None = None) -> None:
    """Wait until something is so.

    Args:
        container: The running container.
        condition: A function that returns whether it is, or a command to run in the container that then ends with 0.
        timeout: In seconds; None for ever.

    Raises:
        OptionError: It is neither.
        TimeoutError: It is not so by then.
        LiblxcError: The container has ended.
    """
    check_seconds("timeout", timeout)
    look = condition if callable(condition) else _Command(container, condition, timeout)
    _wait(container, look, timeout, "what was waited for is not so")


def wait_booted(container: Container, timeout: float | None = None) -> None:
    """Wait until the init has started all that it starts: systemd, OpenRC or busybox's.

    Args:
        container: The running container.
        timeout: In seconds; None for ever.

    Raises:
        TimeoutError: It has not by then.
        UnsupportedError: It is another init, of which nobody can tell.
        LiblxcError: The container has ended.
    """
    _wait(container, _Boot(container).finished, check_seconds("timeout", timeout), "it has not booted")


def _wait(container: Container, look: Callable[[], object], timeout: float | None, lack: str) -> None:
    deadline = None if timeout is None else time.monotonic() + timeout
    while not look():
        if deadline is not None and time.monotonic() + _INTERVAL > deadline:
            raise TimeoutError(f"{container.where}: {lack} after {timeout} seconds")
        if container.watched:
            container.wait_gone(_INTERVAL)  # which also waits for commands that ended, without which it cannot end
        else:
            time.sleep(_INTERVAL)
        if not container.running:
            raise LiblxcError("wait for", container.name, container.lxcpath, "it is not running")


class _Command:
    """Whether a command ends with 0. It sees nothing of ours, and is killed when the time is up."""

    def __init__(self, container: Container, argv: Sequence[str], timeout: float | None) -> None:
        from .request import DEVNULL, Request

        if not hasattr(argv, "__iter__"):
            raise OptionError(f"the condition must be a function or a command, not {argv!r}")
        self._container = container
        self._request = Request(argv, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL)
        self._deadline = None if timeout is None else time.monotonic() + timeout

    def __call__(self) -> bool:
        import subprocess

        from .popen import Popen

        process = Popen(self._container, self._request)
        try:
            return process.wait(None if self._deadline is None else self._deadline - time.monotonic()) == 0
        except subprocess.TimeoutExpired:
            process.kill_tree()
            return False
        except BaseException:
            process.kill_tree()
            raise


class _Boot:
    """How far the init of a container has come."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._quiet_since = 0.0
        self._unknown_since = 0.0

    def finished(self) -> bool:
        """Whether it has started all that it starts.

        Raises:
            UnsupportedError: It is an init of which nobody can tell.
        """
        init = self._container.init_pid
        try:
            program = os.path.basename(os.readlink(f"/proc/{init}/exe"))
            if program == "busybox" or program.startswith("busybox."):
                return self._busybox(init)
            if program == "systemd":
                return self._systemd()
            return self._openrc(program)
        except OSError:
            return False  # it has ended, or is about to become another program

    def _systemd(self) -> bool:
        from .popen import run
        from .request import DEVNULL, PIPE, RunRequest

        argv = ["systemctl", "is-system-running"]
        done = run(self._container, RunRequest(argv, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL, timeout=5))
        return done.stdout.strip() in (b"running", b"degraded")

    def _openrc(self, program: str) -> bool:
        root = root_of(self._container)
        try:
            level = read_file(root, "run/openrc/softlevel", _LARGEST_FILE).strip()
            busy = bool(level) and _any_in(root, "run/openrc/starting")
        finally:
            os.close(root)
        if level:
            return level not in (b"boot", b"sysinit") and not busy
        now = time.monotonic()
        self._unknown_since = self._unknown_since or now
        if now - self._unknown_since > _PATIENCE:
            where = self._container.where
            raise UnsupportedError(f"{where} has the init {program!r}, of which nobody can tell whether it has booted")
        return False

    def _busybox(self, init: int) -> bool:
        """It starts what lasts, such as a login, only when what runs once is done."""
        root = root_of(self._container)
        try:
            once = once_in(read_file(root, "etc/inittab", _LARGEST_FILE).decode("utf-8", "replace"))
        finally:
            os.close(root)
        children = [_words(child) for child in _children(init)]
        if any(once & set(words) for words in children) or not sleeps(init):
            self._quiet_since = 0.0
            return False
        own = _words(init)  # also those of a child that is about to be another program, or asks for a key
        now = time.monotonic()
        self._quiet_since = self._quiet_since or now
        return any(words != own for words in children) or now - self._quiet_since > _QUIET


def once_in(inittab: str) -> set[str]:
    """Return the programs that busybox's init runs to their end before it starts what lasts."""
    found = set()
    for line in inittab.splitlines():
        fields = line.split(":", 3)
        if (
            len(fields) == 4
            and not line.startswith("#")
            and fields[2].strip() in ("sysinit", "wait")
            and fields[3].split()
        ):
            found.add(fields[3].split()[0].lstrip("-"))
    return found if inittab.strip() else {"/etc/init.d/rcS"}


def _any_in(root: int, path: str) -> bool:
    fd = openat2(root, path, os.O_RDONLY | os.O_DIRECTORY, IN_ROOT)
    try:
        return bool(os.listdir(fd))
    finally:
        os.close(fd)


def _children(init: int) -> list[int]:
    with open(f"/proc/{init}/task/{init}/children", encoding="ascii") as file:
        return [int(child) for child in file.read().split()]


def _words(pid: int) -> list[str]:
    """The command line of a process; nothing where it has ended."""
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
            return file.read().rstrip("\0").split("\0")
    except OSError:
        return []
