# SPDX-License-Identifier: LGPL-2.1-or-later
"""Running one program in a running container."""

from __future__ import annotations

import os
import struct

from ._raw import wait_readable
from .container import ENTERED, FAILED_CWD, FAILED_EXEC, FAILED_ROOT, FAILED_USER, Container
from .errors import LiblxcError, OptionError
from .faults import reach
from .names import check_words
from .processes import kill_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .accounts import Id

# What a session of root's has on every system, besides PATH and container=lxc, which liblxc sets.
ROOT_ENVIRONMENT = {"HOME": "/root", "USER": "root", "LOGNAME": "root"}


class Command:
    """A program running in a container.

    Attributes:
        argv: The program and its arguments.
        pid: Its process id on the host.
        pidfd: Readable once it has ended.
        returncode: Its exit status, negative for a signal; None while it runs.
        exec_error: The errno with which it could not be executed; 0 where it could.
    """

    def __init__(
        self,
        container: Container,
        argv: Sequence[str],
        *,
        stdin: int,
        stdout: int,
        stderr: int,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        terminal: int = -1,
        user: Id | None = None,
        group: Id | None = None,
        more_env: Mapping[str, str] | None = None,
    ) -> None:
        """Start it; the arguments are those of Container.attach(), and of accounts.look_up().

        Without env, it has a login session's of its user, and more_env.
        """
        self.argv = check_argv(argv)
        own, ids = ROOT_ENVIRONMENT, None
        if user is not None or group is not None:
            from .accounts import look_up

            account = look_up(container, user, group)
            own, ids = account.environment, account.ids
        self.returncode: int | None = None
        self.exec_error = 0
        outcome, theirs = os.pipe()
        try:
            self._child = container.attach(
                self.argv,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                env={**(more_env or {}), **(own if env is None else check_env(env))},
                cwd=cwd,
                terminal=terminal,
                outcome_fd=theirs,
                ids=ids,
            )
            os.close(theirs)
            theirs = -1
            # A signal that is sent before the exec would meet our own handlers, so it is awaited.
            records = _read_records(outcome)
        finally:
            os.close(outcome)
            if theirs >= 0:
                os.close(theirs)
        self.pid = self._child.pid
        self.pidfd = self._child.pidfd
        self._judge(container, records, cwd)
        reach("command-entered")

    def _judge(self, container: Container, records: list[tuple[int, int]], cwd: str | None) -> None:
        """Raise where the command could not even be tried; remember why it could not be executed."""
        stage, error = records[-1] if records else (-1, 0)
        if stage == FAILED_EXEC:
            self.exec_error = error
        elif stage != ENTERED:
            self.kill()
            if stage == FAILED_CWD:
                raise OptionError(f"the directory {cwd!r} cannot be entered in {container.name}: {os.strerror(error)}")
            if stage == FAILED_USER:
                raise OptionError(f"user: it cannot be set in {container.name}: {os.strerror(error)}")
            if stage == FAILED_ROOT:
                reason = "its root directory cannot be entered from here, since we run in a chroot"
                raise LiblxcError("run a command in", container.name, container.lxcpath, reason, "leave the chroot")
            raise container.failure("run a command in")

    def signal_group(self, number: int) -> None:
        """Send a signal to it and those of its children that share its process group, as a terminal does."""
        self._child.signal_group(number)

    def send_signal(self, number: int) -> None:
        """Send it a signal; does nothing once it has ended."""
        self._child.send_signal(number)

    def kill(self) -> None:
        """Kill it and wait for its end."""
        self.send_signal(9)
        self.wait()

    def kill_tree(self) -> None:
        """Kill it and what it has started, and wait for its end."""
        if self.returncode is None:
            kill_tree(self.pid)
            self.kill()

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for its end and return its exit status, negative for a signal; None if it still runs.

        Args:
            timeout: In seconds; None for ever.
        """
        if self.returncode is None:
            status = self._child.wait(timeout)
            if status is not None:
                self.returncode = os.waitstatus_to_exitcode(status)
                reach("command-ended")
        return self.returncode


def _read_records(fd: int) -> list[tuple[int, int]]:
    """What command_exec() in csrc/command.c says: pairs of a stage and an errno, up to the exec or the end."""
    data = b""
    while True:
        wait_readable(fd)
        part = os.read(fd, 64)
        if not part:
            return list(struct.iter_unpack("ii", data))
        data += part


def check_argv(argv: Sequence[str]) -> list[str]:
    """Return the command as a list of str, or raise OptionError for what no exec can take."""
    words = check_words("the command", argv)
    if not words:
        raise OptionError("the command is empty")
    return words


def check_env(env: Mapping[str, str]) -> dict[str, str]:
    """Return an environment, or raise OptionError for what no exec can take."""
    if not hasattr(env, "items"):
        raise OptionError(f"the environment must be a dict of str, not {env!r}")
    checked: dict[str, str] = {}
    for pair in env.items():
        key, value = check_words("the environment", pair)
        if not key or "=" in key:
            raise OptionError(f"the environment variable {key!r} has a name that cannot be passed on")
        checked[key] = value
    return checked
