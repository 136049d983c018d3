# SPDX-License-Identifier: LGPL-2.1-or-later
"""Running one program in a running container."""

from __future__ import annotations

import errno
import os
import select
import sys
import time

from ._raw import milliseconds, wait_readable
from .container import Container
from .errors import LiblxcError, OptionError
from .names import check_flag, check_seconds, check_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from subprocess import CompletedProcess
    from typing import Any

# What a session of root's has on every system, besides PATH and container=lxc, which liblxc sets.
ROOT_ENVIRONMENT = {"HOME": "/root", "USER": "root", "LOGNAME": "root"}

# How long output is still awaited from processes that outlive the command and hold its pipes, in seconds.
_LATE_OUTPUT = 0.2
_CHUNK = 1 << 16


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
    ) -> None:
        """Start it; the arguments are those of Container.attach(). Without env, it has a login session's of root."""
        self.argv = check_argv(argv)
        self.returncode: int | None = None
        self.exec_error = 0
        outcome, errors = os.pipe()
        try:
            self._child = container.attach(
                self.argv,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                env=ROOT_ENVIRONMENT if env is None else check_env(env),
                cwd=cwd,
                terminal=terminal,
                error_fd=errors,
            )
            os.close(errors)
            errors = -1
            # Its end of the pipe is closed by a successful exec. A signal sent before that would meet our own handlers.
            wait_readable(outcome)
            self.exec_error = int.from_bytes(os.read(outcome, 4), sys.byteorder)
        finally:
            os.close(outcome)
            if errors >= 0:
                os.close(errors)
        if self.exec_error == errno.EXDEV:
            self._child.wait()
            reason = "its root directory cannot be entered from here, since we run in a chroot"
            raise LiblxcError("run a command in", container.name, container.lxcpath, reason, "run it outside of that")
        self.pid = self._child.pid
        self.pidfd = self._child.pidfd

    def send_signal(self, number: int) -> None:
        """Send it a signal; does nothing once it has ended."""
        self._child.send_signal(number)

    def kill(self) -> None:
        """Kill it and wait for its end."""
        self.send_signal(9)
        self.wait()

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for its end and return its exit status, negative for a signal; None if it still runs.

        Args:
            timeout: In seconds; None for ever.
        """
        if self.returncode is None:
            status = self._child.wait(timeout)
            if status is not None:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


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


class Request:
    """A command to run and to wait for, checked before anything is started.

    Args:
        argv: The command and its arguments, looked up in the container's PATH; no shell is involved.
        input: What it reads from its standard input; ours where None.
        capture_output: Return its output, in place of passing it on to ours.
        text: Input and output are str in the locale's encoding, in place of bytes.
        timeout: How long it may take, in seconds; then it is killed.
        check: Raise an error for a status other than 0.
        env: Its environment besides PATH; a login session's of root where None.
        cwd: Its working directory; where None, ours if the container has it too, else ``/``.

    Raises:
        OptionError: An argument is not allowed.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        input: bytes | str | None = None,  # noqa: A002 - as subprocess.run() calls it
        capture_output: bool = False,
        text: bool = False,
        timeout: float | None = None,
        check: bool = False,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> None:
        self.argv = check_argv(argv)
        self.capture_output = check_flag("capture_output", capture_output)
        self.text = check_flag("text", text)
        self.timeout = check_seconds("timeout", timeout)
        self.check = check_flag("check", check)
        self.env = None if env is None else check_env(env)
        self.cwd = None if cwd is None else check_words("cwd", [cwd])[0]
        self.input = _encoded(input, text=text)


def run(container: Container, request: Request) -> CompletedProcess[Any]:
    """Run a command in a running container and wait for it, with subprocess.run()'s habits.

    Returns:
        Its status (negative for a signal, 127 for a program that is not there, 126 for one that cannot be executed) and
        output.

    Raises:
        LiblxcError: The container could not be entered.
        subprocess.TimeoutExpired: It took too long. Has the output so far.
        subprocess.CalledProcessError: It failed, and check is set.

    Reproduces: lxcapi_attach_run_wait().
    """
    import subprocess

    pipes = _Pipes()
    try:
        stdin = 0 if request.input is None else pipes.writer(request.input)
        stdout = pipes.reader() if request.capture_output else 1
        stderr = pipes.reader() if request.capture_output else 2
        with _stdin_or_null(stdin) as fd:
            command = Command(
                container, request.argv, stdin=fd, stdout=stdout, stderr=stderr, env=request.env, cwd=request.cwd
            )
        pipes.close_theirs()
        try:
            ended = pipes.communicate(command, request.timeout)
        except BaseException:
            command.kill()
            raise
        if not ended:
            command.kill()
            pipes.drain()
    finally:
        pipes.close()
    output: list[Any] = [_decoded(part, text=request.text) for part in pipes.output] or [None, None]
    if not ended:
        assert request.timeout is not None  # noqa: S101 - for the type checker
        raise subprocess.TimeoutExpired(command.argv, request.timeout, *output)
    assert command.returncode is not None  # noqa: S101 - for the type checker
    if request.check and command.returncode:
        raise subprocess.CalledProcessError(command.returncode, command.argv, *output)
    return subprocess.CompletedProcess(command.argv, command.returncode, *output)


class _stdin_or_null:  # noqa: N801 - used like a function
    """The descriptor itself, or /dev/null where a caller's standard input is closed."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._null = -1

    def __enter__(self) -> int:
        try:
            os.fstat(self._fd)
        except OSError:
            self._fd = self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        return self._fd

    def __exit__(self, *_: object) -> None:
        if self._null >= 0:
            os.close(self._null)


def _encoded(data: bytes | str | None, *, text: bool) -> bytes | None:
    if data is None:
        return None
    if not isinstance(data, str if text else (bytes, bytearray, memoryview)):
        raise OptionError(f"input must be {'str' if text else 'bytes'} with text={text}, not {type(data).__name__}")
    try:
        return data.encode(_encoding()) if isinstance(data, str) else bytes(data)
    except UnicodeEncodeError as error:
        raise OptionError(f"input cannot be encoded: {error.reason}") from error


def _decoded(data: bytearray, *, text: bool) -> bytes | str:
    if not text:
        return bytes(data)
    return data.decode(_encoding()).replace("\r\n", "\n").replace("\r", "\n")


def _encoding() -> str:
    import locale

    return locale.getpreferredencoding(do_setlocale=False)


class _Pipes:
    """Our ends of the pipes to one command, and what goes through them."""

    def __init__(self) -> None:
        self.output: list[bytearray] = []
        self._readers: dict[int, bytearray] = {}
        self._writer = -1
        self._data = memoryview(b"")
        self._theirs: list[int] = []

    def writer(self, data: bytes) -> int:
        theirs, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._data = memoryview(data)
        self._theirs.append(theirs)
        return theirs

    def reader(self) -> int:
        ours, theirs = os.pipe()
        os.set_blocking(ours, False)
        self.output.append(bytearray())
        self._readers[ours] = self.output[-1]
        self._theirs.append(theirs)
        return theirs

    def communicate(self, command: Command, timeout: float | None) -> bool:
        """Move data until the command has ended and its output is read; False if it took too long."""
        deadline = None if timeout is None else time.monotonic() + timeout
        poll = select.poll()
        poll.register(command.pidfd, select.POLLIN)
        for fd in self._readers:
            poll.register(fd, select.POLLIN)
        if self._writer >= 0:
            poll.register(self._writer, select.POLLOUT)
        while command.returncode is None:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left < 0:
                return False
            for fd, _ in poll.poll(milliseconds(left)):
                if fd == command.pidfd:
                    poll.unregister(fd)
                    command.wait()
                elif fd == self._writer:
                    if not self._write():
                        poll.unregister(fd)
                        self._close_writer()
                elif not self._read(fd):
                    poll.unregister(fd)
                    self._close_reader(fd)
        self.drain()
        return True

    def drain(self) -> None:
        """Read what is left, but do not wait long for those who keep the pipes open after the command."""
        deadline = time.monotonic() + _LATE_OUTPUT
        while self._readers:
            poll = select.poll()
            for fd in self._readers:
                poll.register(fd, select.POLLIN)
            ready = poll.poll(milliseconds(deadline - time.monotonic()))
            if not ready:
                return
            for fd, _ in ready:
                if not self._read(fd):
                    self._close_reader(fd)

    def _write(self) -> bool:
        try:
            self._data = self._data[os.write(self._writer, self._data[:_CHUNK]) :] if self._data else self._data
        except BlockingIOError:
            return True
        except BrokenPipeError:
            return False
        return bool(self._data)

    def _read(self, fd: int) -> bool:
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return True
        self._readers[fd] += data
        return bool(data)

    def _close_reader(self, fd: int) -> None:
        del self._readers[fd]
        os.close(fd)

    def _close_writer(self) -> None:
        os.close(self._writer)
        self._writer = -1

    def close_theirs(self) -> None:
        while self._theirs:
            os.close(self._theirs.pop())

    def close(self) -> None:
        self.close_theirs()
        for fd in list(self._readers):
            self._close_reader(fd)
        if self._writer >= 0:
            self._close_writer()
