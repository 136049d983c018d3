# SPDX-License-Identifier: LGPL-2.1-or-later
"""A command on our terminal: a pseudo terminal of the container's own, and a relay between the two.

The host's terminal itself is never handed in: whoever holds a terminal can type into it.
"""

from __future__ import annotations

import fcntl
import os
import select
import termios
import time
import tty

from ._raw import milliseconds, open_terminal, write_all
from .command import Command
from .errors import OptionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .accounts import Id
    from .container import Container

_CHUNK = 1 << 16

# How long what is printed by processes that outlive the command is still shown, in seconds.
_LATE_OUTPUT = 0.2


def _open(container: Container) -> tuple[int, int]:
    """Both ends of a terminal in the container, so that tty(1) has a name for it; of the host's where it has none."""
    try:
        devpts = container.devpts()
    except OSError:
        return os.openpty()
    try:
        return open_terminal(devpts)
    except OSError:
        return os.openpty()
    finally:
        os.close(devpts)


class TerminalSession:
    """A command with a controlling terminal of its own in place of each standard descriptor that is a terminal.

    Args:
        container: The running container.
        argv: The command and its arguments.
        ours: Which of our descriptors 0 to 2 are terminals and the command's, at least one.
        stdin: Its standard input where that is no terminal.
        env: Its environment, with TERM added; a login session's of its user where None.
        cwd: Its working directory.
        user: Who it is; root where None.
        group: A group in place of the user's first one.
    """

    def __init__(
        self,
        container: Container,
        argv: Sequence[str],
        ours: Sequence[int],
        *,
        stdin: int = 0,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: Id | None = None,
        group: Id | None = None,
    ) -> None:
        self._input = 0 if 0 in ours else -1
        self._output = next((fd for fd in (1, 2) if fd in ours), -1)
        self._reopened = -1
        if self._output < 0:  # what is typed is echoed on it, though it may only be open for reading
            self._output = self._reopened = os.open("/proc/self/fd/0", os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)
        self._saved: list[object] | None = None
        # We keep the command's side open too: a terminal that nobody holds reports a hang-up without end.
        self._ours, self._theirs = _open(container)
        try:
            self.resize()
            if self._input < 0:
                _without_output_processing(self._theirs)  # our terminal, which stays as it is, does that
            streams = [self._theirs if fd in ours else fd or stdin for fd in (0, 1, 2)]
            term = os.environ.get("TERM", "")
            self.command = Command(
                container,
                argv,
                stdin=streams[0],
                stdout=streams[1],
                stderr=streams[2],
                env=env,
                cwd=cwd,
                terminal=ours[0],
                user=user,
                group=group,
                more_env={"TERM": term} if term and term.isprintable() else None,
            )
        except BaseException:
            self._close()
            raise

    def resize(self) -> None:
        """Give the command's terminal the size of ours; for a SIGWINCH handler."""
        try:
            size = fcntl.ioctl(self._output, termios.TIOCGWINSZ, b"\0" * 8)
            fcntl.ioctl(self._ours, termios.TIOCSWINSZ, size)
        except OSError:
            pass  # it has no size, or is gone

    def relay(self, timeout: float | None = None) -> bool:
        """Pass on what is typed and what is printed until the command ends; our terminal is raw meanwhile.

        Args:
            timeout: In seconds; then the command is killed.

        Returns:
            Whether it has ended in time.
        """
        try:
            self._make_raw()
            return self._loop(None if timeout is None else time.monotonic() + timeout)
        except BaseException:
            self.command.kill_tree()
            raise
        finally:
            self._restore()
            self._close()

    def _loop(self, deadline: float | None) -> bool:
        poll = select.poll()
        poll.register(self.command.pidfd, select.POLLIN)
        typed = b""  # what the command has not taken yet: never wait for it, its output may have to be read first
        os.set_blocking(self._ours, False)
        while True:
            poll.register(self._ours, select.POLLIN | (select.POLLOUT if typed else 0))
            if self._input >= 0 and not typed:
                poll.register(self._input, select.POLLIN)
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                self.command.kill_tree()
                return False
            events = dict(poll.poll(milliseconds(left)))
            if events.get(self._ours, 0) & select.POLLIN:
                self._print()
            if self._input in events:
                poll.unregister(self._input)
                typed = self._read(self._input)
                if not typed:
                    self._input = -1  # ours was closed; the command hears of it by SIGHUP
            if typed:
                typed = typed[self._type(typed) :]
            if self.command.pidfd in events:
                end = time.monotonic() + _LATE_OUTPUT
                while self._print() and time.monotonic() < end:
                    pass  # what it said last; others that it left may go on
                self.command.wait()
                return True

    def _print(self) -> bool:
        """Pass on what the command has printed; False if there was nothing."""
        data = self._read(self._ours)
        write_all(self._output, data)
        return bool(data)

    def _type(self, typed: bytes) -> int:
        try:
            return os.write(self._ours, typed)
        except BlockingIOError:
            return 0

    @staticmethod
    def _read(fd: int) -> bytes:
        """Read what is there; nothing at the end, which a terminal tells by EIO once nobody holds its other side."""
        try:
            return os.read(fd, _CHUNK)
        except OSError:
            return b""

    def _close(self) -> None:
        for fd in (self._ours, self._theirs, self._reopened):
            if fd >= 0:
                os.close(fd)

    def _make_raw(self) -> None:
        if self._input >= 0:
            self._saved = termios.tcgetattr(self._input)
            tty.setraw(self._input, termios.TCSADRAIN)

    def _restore(self) -> None:
        if self._saved is not None:
            try:
                termios.tcsetattr(0, termios.TCSADRAIN, self._saved)  # type: ignore[arg-type]
            except termios.error:
                pass  # the terminal was closed
            self._saved = None


def shell(container: Container, argv: Sequence[str]) -> int:
    """Run a command on our terminal, whose size it follows, and return its status, negative for a signal.

    Raises:
        OptionError: None of our standard descriptors is a terminal.
    """
    import signal
    import threading

    ours = [fd for fd in (0, 1, 2) if os.isatty(fd)]
    if not ours:
        raise OptionError("a shell needs a terminal as standard input, output or error; use run() without one")
    session = TerminalSession(container, argv, ours)
    if threading.current_thread() is not threading.main_thread():
        session.relay()  # only the main one hears of signals
    else:
        before = signal.signal(signal.SIGWINCH, lambda *_: session.resize())
        try:
            session.relay()
        finally:
            signal.signal(signal.SIGWINCH, before)
    return session.command.wait() or 0


def _without_output_processing(fd: int) -> None:
    attributes = termios.tcgetattr(fd)
    attributes[1] &= ~termios.OPOST
    termios.tcsetattr(fd, termios.TCSANOW, attributes)
