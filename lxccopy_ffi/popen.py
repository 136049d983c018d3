# SPDX-License-Identifier: LGPL-2.1-or-later
"""A command in a container with subprocess.Popen's habits, and subprocess.run()'s built on it."""

from __future__ import annotations

import io
import os
import time
from contextlib import ExitStack, suppress

from ._raw import above_stdio, write_all
from .command import Command
from .errors import OptionError
from .names import check_seconds
from .pipes import LATE_OUTPUT, Pump
from .request import DEVNULL, PIPE, STDOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from subprocess import CompletedProcess
    from types import TracebackType
    from typing import IO, Any

    from .container import Container
    from .request import Request, RunRequest

_CHUNK = 1 << 16


class Popen:
    """A command that runs in a container; EphemeralCopy.popen() makes it.

    It ends with the container at the latest. Where it would get a terminal of ours, it gets a pipe, and what comes
    through that is passed on; it reads nothing from a terminal.

    Args:
        container: The running container.
        request: What to start.

    Attributes:
        args: The command and its arguments.
        pid: Its process id on the host.
        stdin: A file to write to what it reads; None where that is no pipe, as with the next two.
        stdout: A file to read what it prints.
        stderr: A file to read its errors.

    Raises:
        OptionError: The container has no such user or group, or its working directory cannot be entered.
        LiblxcError: The container could not be entered.
    """

    def __init__(self, container: Container, request: Request) -> None:
        self.args = request.argv
        self._request = request
        self._pump: Pump | None = None
        with ExitStack() as undo, ExitStack() as theirs:
            streams = _Streams(request, undo, theirs)
            self.stdin, self.stdout, self.stderr = streams.files
            self._command = Command(
                container,
                request.argv,
                stdin=streams.fds[0],
                stdout=streams.fds[1],
                stderr=streams.fds[2],
                env=request.env,
                cwd=request.cwd,
                user=request.user,
                group=request.group,
            )
            self._relays = [_Relay(*pair) for pair in streams.relays]
            undo.pop_all()
        self.pid = self._command.pid

    def __repr__(self) -> str:
        return f"<Popen: returncode: {self.returncode} args: {self.args!r}>"

    @property
    def returncode(self) -> int | None:
        """Its status as far as it was asked for: negative for a signal; None while it runs."""
        return self._command.returncode

    def poll(self) -> int | None:
        """Return its status; None if it still runs."""
        return self._command.wait(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return its status.

        Args:
            timeout: In seconds; None for ever.

        Raises:
            subprocess.TimeoutExpired: It still runs.
        """
        status = self._command.wait(check_seconds("timeout", timeout))
        if status is None:
            raise self._too_late(timeout)
        for relay in self._relays:
            relay.join()
        return status

    def send_signal(self, number: int) -> None:
        """Send it a signal; does nothing once it has ended."""
        self._command.send_signal(number)

    def terminate(self) -> None:
        """Send it SIGTERM."""
        self.send_signal(15)

    def kill(self) -> None:
        """Send it SIGKILL."""
        self.send_signal(9)

    def kill_tree(self) -> None:
        """Kill it, its descendants and whoever is in a session of theirs, and wait for its end."""
        self._command.kill_tree()

    def communicate(self, input: bytes | str | None = None, timeout: float | None = None) -> tuple[Any, Any]:  # noqa: A002 - as subprocess calls it
        """Write its input, read its output and wait for its end.

        Args:
            input: What it reads, where stdin is a pipe.
            timeout: In seconds; afterwards it can be called again, without input, and nothing is lost.

        Returns:
            What came through stdout and stderr; None for what is no pipe.

        Raises:
            OptionError: Input is of the wrong type, comes too late, or stdin is no pipe.
            subprocess.TimeoutExpired: It still runs. Has the output so far.
        """
        check_seconds("timeout", timeout)
        if input is not None and (self._pump is not None or self.stdin is None):
            raise OptionError("input cannot be given later" if self._pump else "input needs stdin=PIPE")
        if not self.exchange(self._request.encode(input), timeout):
            raise self._too_late(timeout)
        return self.output()

    def exchange(self, data: bytes, timeout: float | None) -> bool:
        """Do so and return whether it has ended in time; output() has what it has said."""
        deadline = None if timeout is None else time.monotonic() + timeout
        if self._pump is None:
            if self.stdin is not None and not self.stdin.closed:
                with suppress(BrokenPipeError):
                    self.stdin.flush()
            stdin = None if self.stdin is None or self.stdin.closed else self.stdin
            outputs = [None if file is None or file.closed else file for file in (self.stdout, self.stderr)]
            self._pump = Pump(self._command, stdin, data, outputs)
        if not self._pump.run(deadline):
            return False
        self._command.wait()
        self._pump.close()
        for relay in self._relays:
            relay.join()
        return True

    def output(self, errors: str = "") -> tuple[Any, Any]:
        """Return what came through stdout and stderr up to now.

        Args:
            errors: What becomes of what cannot be decoded, in place of what was asked for.
        """
        said = [None, None] if self._pump is None else self._pump.output()
        stdout, stderr = (None if data is None else self._request.decode(data, errors) for data in said)
        return stdout, stderr

    def drain(self) -> None:
        """Read what is left of its output once it has ended."""
        if self._pump is not None:
            self._pump.drain()

    def _too_late(self, timeout: float | None) -> Exception:
        import subprocess

        return subprocess.TimeoutExpired(self.args, timeout or 0, *self.output("replace"))

    def __enter__(self) -> Popen:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in (self.stdout, self.stderr, self.stdin):
            if file is not None:
                with suppress(BrokenPipeError):
                    file.close()
        self.wait()


class _Streams:
    """The three streams of a command that is to be started.

    Args:
        request: What to start.
        undo: Closes our ends.
        theirs: Closes the command's.

    Attributes:
        fds: The command's descriptors.
        files: Our ends of pipes.
        relays: Our ends of pipes in place of terminals, each with a descriptor of the terminal.
    """

    def __init__(self, request: Request, undo: ExitStack, theirs: ExitStack) -> None:
        self._request = request
        self._undo = undo
        self._theirs = theirs
        self.relays: list[tuple[int, int]] = []
        self.files: list[IO[Any] | None] = [None, None, None]
        self.fds = [self._open(0, request.stdin), self._open(1, request.stdout)]
        self.fds.append(self.fds[1] if request.stderr == STDOUT else self._open(2, request.stderr))

    def _open(self, number: int, wanted: int | None) -> int:
        if wanted == PIPE:
            ours, theirs = self._pipe(number)
            self.files[number] = self._file(ours, number)
            return theirs
        fd = number if wanted is None else wanted
        if wanted == DEVNULL or not _is_open(fd):
            return self._nothing()
        if not os.isatty(fd):
            return fd
        if number == 0:
            return self._nothing()
        ours, theirs = self._pipe(number)
        self._undo.callback(os.close, ours)
        terminal = above_stdio(os.dup(fd))
        self._undo.callback(os.close, terminal)
        self.relays.append((ours, terminal))
        return theirs

    def _pipe(self, number: int) -> tuple[int, int]:
        """Our end and theirs."""
        reader, writer = map(above_stdio, os.pipe())
        ours, theirs = (writer, reader) if number == 0 else (reader, writer)
        self._theirs.callback(os.close, theirs)
        return ours, theirs

    def _file(self, fd: int, number: int) -> IO[Any]:
        binary = open(fd, "rb" if number else "wb")  # noqa: SIM115 - the Popen's from here on
        self._undo.callback(binary.close)
        if not self._request.text:
            return binary
        return io.TextIOWrapper(binary, self._request.encoding, self._request.errors, write_through=number == 0)

    def _nothing(self) -> int:
        fd = above_stdio(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
        self._theirs.callback(os.close, fd)
        return fd


class _Relay:
    """Passes on to a terminal what comes through a pipe, from a thread of its own, and closes both at the end."""

    def __init__(self, pipe: int, terminal: int) -> None:
        import threading

        self._pipe = pipe
        self._terminal = terminal
        self._thread = threading.Thread(target=self._run, name="lxccopy-output", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        import signal

        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())  # they are the main thread's, to wake it
        try:
            while data := os.read(self._pipe, _CHUNK):
                write_all(self._terminal, data)
        except OSError:
            pass  # the terminal is gone
        finally:
            os.close(self._pipe)
            os.close(self._terminal)

    def join(self) -> None:
        """Wait for the last output, but not long for those who keep the pipe open after the command."""
        self._thread.join(LATE_OUTPUT)


def run(container: Container, request: RunRequest) -> CompletedProcess[Any]:
    """Run a command in a running container and wait for it, with subprocess.run()'s habits.

    Where it would write to our terminal, it gets one of the container's own instead.

    Returns:
        Its status (negative for a signal, 127 for a program that is not there, 126 for one that cannot be executed) and
        output.

    Raises:
        OptionError: The container has no such user or group, or its working directory cannot be entered.
        LiblxcError: The container could not be entered.
        subprocess.TimeoutExpired: It took too long. Has the output so far.
        subprocess.CalledProcessError: It failed, and check is set.

    Reproduces: lxcapi_attach_run_wait().
    """
    import subprocess

    terminals = _terminals(request)
    if terminals:
        ended, status = _run_on_terminal(container, request, terminals)
        output: tuple[Any, Any] = (None, None)
    else:
        ended, status, output = _run_with_pipes(container, request)
    if not ended:
        raise subprocess.TimeoutExpired(request.argv, request.timeout or 0, *output)
    if request.check and status:
        raise subprocess.CalledProcessError(status, request.argv, *output)
    return subprocess.CompletedProcess(request.argv, status, *output)


def _terminals(request: RunRequest) -> list[int]:
    """Which of our standard descriptors the command would get that are terminals, where it can be given another."""
    if (
        request.stdout is not None
        or request.stderr is not None
        or (request.stdin is not None and request.input is None)
    ):
        return []
    return [fd for fd in (0, 1, 2) if os.isatty(fd) and (fd or request.input is None)]


def _run_with_pipes(container: Container, request: RunRequest) -> tuple[bool, int, tuple[Any, Any]]:
    process = Popen(container, request)
    with process:
        try:
            ended = process.exchange(request.input or b"", request.timeout)
            if not ended:
                process.kill_tree()
                process.drain()
            output = process.output("" if ended else "replace")
        except BaseException:
            process.kill_tree()
            raise
        return ended, process.wait(), output


def _run_on_terminal(container: Container, request: RunRequest, terminals: list[int]) -> tuple[bool, int]:
    from .terminal import TerminalSession

    with ExitStack() as stack:
        stdin = 0
        if request.input is not None:
            stdin = above_stdio(os.memfd_create("lxccopy-input", os.MFD_CLOEXEC))
            stack.callback(os.close, stdin)
            write_all(stdin, request.input)
            os.lseek(stdin, 0, os.SEEK_SET)
        session = TerminalSession(
            container,
            request.argv,
            terminals,
            stdin=stdin,
            env=request.env,
            cwd=request.cwd,
            user=request.user,
            group=request.group,
        )
        return session.relay(request.timeout), session.command.wait() or 0


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
