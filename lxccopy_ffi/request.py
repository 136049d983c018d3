# SPDX-License-Identifier: LGPL-2.1-or-later
"""One command to run and to wait for, with subprocess.run()'s habits: input, output, time limit, errors."""

from __future__ import annotations

import os
import select
import time
from contextlib import ExitStack

from ._raw import milliseconds, write_all
from .command import Command, check_argv, check_env
from .errors import OptionError
from .names import check_flag, check_seconds, check_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from subprocess import CompletedProcess
    from typing import Any

    from .container import Container

# How long output is still awaited from processes that outlive the command and hold its pipes, in seconds.
_LATE_OUTPUT = 0.2
_CHUNK = 1 << 16


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

    def run(self, container: Container) -> CompletedProcess[Any]:
        """Run it in a running container and wait for it, with subprocess.run()'s habits.

        Where a standard descriptor that it would inherit is a terminal, it gets one of the container's own instead.

        Returns:
            Its status (negative for a signal, 127 for a program that is not there, 126 for one that cannot be executed)
            and output.

        Raises:
            OptionError: Its working directory cannot be entered.
            LiblxcError: The container could not be entered.
            subprocess.TimeoutExpired: It took too long. Has the output so far.
            subprocess.CalledProcessError: It failed, and check is set.

        Reproduces: lxcapi_attach_run_wait().
        """
        import subprocess

        inherited = [] if self.capture_output else [1, 2]
        inherited += [0] if self.input is None else []
        terminals = [fd for fd in sorted(inherited) if os.isatty(fd)]
        if terminals and not self.capture_output:
            ended, command = self._run_on_terminal(container, terminals)
            output: list[Any] = [None, None]
        else:
            # Nobody types anything for a command whose output is not shown.
            ended, command, output = self._run_with_pipes(container, os.devnull if terminals else None)
        if not ended:
            assert self.timeout is not None  # noqa: S101 - for the type checker
            raise subprocess.TimeoutExpired(command.argv, self.timeout, *output)
        assert command.returncode is not None  # noqa: S101 - for the type checker
        if self.check and command.returncode:
            raise subprocess.CalledProcessError(command.returncode, command.argv, *output)
        return subprocess.CompletedProcess(command.argv, command.returncode, *output)

    def _run_on_terminal(self, container: Container, terminals: Sequence[int]) -> tuple[bool, Command]:
        from .terminal import TerminalSession

        with ExitStack() as stack:
            stdin = 0
            if self.input is not None:
                stdin = os.memfd_create("lxccopy-input", os.MFD_CLOEXEC)
                stack.callback(os.close, stdin)
                write_all(stdin, self.input)
                os.lseek(stdin, 0, os.SEEK_SET)
            session = TerminalSession(container, self.argv, terminals, stdin=stdin, env=self.env, cwd=self.cwd)
            return session.relay(self.timeout), session.command

    def _run_with_pipes(self, container: Container, stdin_file: str | None) -> tuple[bool, Command, list[Any]]:
        with ExitStack() as stack:
            pipes = _Pipes()
            stack.callback(pipes.close)
            if self.input is not None:
                stdin = pipes.writer(self.input)
            elif stdin_file or not _is_open(0):
                stdin = os.open(stdin_file or os.devnull, os.O_RDWR | os.O_CLOEXEC)
                stack.callback(os.close, stdin)
            else:
                stdin = 0
            stdout = pipes.reader() if self.capture_output else 1
            stderr = pipes.reader() if self.capture_output else 2
            command = Command(
                container, self.argv, stdin=stdin, stdout=stdout, stderr=stderr, env=self.env, cwd=self.cwd
            )
            pipes.close_theirs()
            try:
                ended = pipes.communicate(command, self.timeout)
            except BaseException:
                command.kill()
                raise
            if not ended:
                command.kill()
                pipes.drain()
            output = [_decoded(part, text=self.text, errors="strict" if ended else "replace") for part in pipes.output]
        return ended, command, output or [None, None]


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _encoded(data: bytes | str | None, *, text: bool) -> bytes | None:
    if data is None:
        return None
    if not isinstance(data, str if text else (bytes, bytearray, memoryview)):
        raise OptionError(f"input must be {'str' if text else 'bytes'} with text={text}, not {type(data).__name__}")
    try:
        return data.encode(_encoding()) if isinstance(data, str) else bytes(data)
    except UnicodeEncodeError as error:
        raise OptionError(f"input cannot be encoded: {error.reason}") from error


def _decoded(data: bytearray, *, text: bool, errors: str) -> bytes | str:
    if not text:
        return bytes(data)
    return data.decode(_encoding(), errors).replace("\r\n", "\n").replace("\r", "\n")


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
        while self._readers and time.monotonic() < deadline:
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
