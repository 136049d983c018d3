# SPDX-License-Identifier: LGPL-2.1-or-later
"""What goes through the pipes to one command, in both directions at once, however much it is."""

from __future__ import annotations

import io
import os
import select
import time
from contextlib import suppress

from ._raw import milliseconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import IO, Any

    from .command import Command

# How long output is still awaited from processes that outlive the command and hold its pipes, in seconds.
LATE_OUTPUT = 0.2

_CHUNK = 1 << 16


class Pump:
    """Writes a command's input and collects its output; it can be stopped and go on.

    Args:
        command: The command.
        stdin: Our end of its input, which is closed when all is written; None where there is none.
        data: What it reads.
        outputs: Our ends of its output, which stay open; None where there is none.
    """

    def __init__(self, command: Command, stdin: IO[Any] | None, data: bytes, outputs: Sequence[IO[Any] | None]) -> None:
        self._command = command
        self._stdin = stdin
        self._writer = -1 if stdin is None else stdin.fileno()
        self._data = memoryview(data)
        self._files = outputs
        self._output = {file.fileno(): io.BytesIO() for file in outputs if file is not None}
        self._said: list[bytes | None] = []
        self._open = set(self._output)
        if self._writer >= 0:
            os.set_blocking(self._writer, False)

    def output(self) -> list[bytes | None]:
        """Return what has come through each of the outputs so far."""
        return self._said or [None if file is None else self._output[file.fileno()].getvalue() for file in self._files]

    def close(self) -> None:
        """Close the outputs; output() still has what came through them."""
        self._said = self.output()
        self._open.clear()
        for file in self._files:
            if file is not None:
                file.close()

    def run(self, deadline: float | None) -> bool:
        """Move data until the command has ended and its output is read; False if that is not so by then.

        Args:
            deadline: As time.monotonic() tells it.
        """
        while self._command.returncode is None:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left < 0:
                return False
            ready = self._wait(left, self._command.pidfd)
            if self._command.pidfd in ready:
                self._command.wait()
        self.drain()
        return True

    def drain(self) -> None:
        """Read what is left, but do not wait long for those who keep the pipes open after the command."""
        deadline = time.monotonic() + LATE_OUTPUT
        self._end_input()
        while self._open and time.monotonic() < deadline:
            if not self._wait(deadline - time.monotonic()):
                return

    def _wait(self, timeout: float | None, *others: int) -> list[int]:
        """Wait until something can be moved, and move it; return which descriptors were ready."""
        poll = select.poll()
        for fd in (*self._open, *others):
            poll.register(fd, select.POLLIN)
        if self._writer >= 0:
            poll.register(self._writer, select.POLLOUT)
        ready = [fd for fd, _ in poll.poll(milliseconds(timeout))]
        for fd in ready:
            if fd == self._writer:
                self._write()
            elif fd in self._open:
                self._read(fd)
        return ready

    def _write(self) -> None:
        try:
            self._data = self._data[os.write(self._writer, self._data[:_CHUNK]) :] if self._data else self._data
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._data = self._data[:0]
        if not self._data:
            self._end_input()

    def _end_input(self) -> None:
        self._writer = -1
        if self._stdin is not None:
            with suppress(BrokenPipeError):
                self._stdin.close()

    def _read(self, fd: int) -> None:
        data = os.read(fd, _CHUNK)
        self._output[fd].write(data)
        if not data:
            self._open.remove(fd)
