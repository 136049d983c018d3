# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command ``lxccopy``: options to calls, errors to one line, the command's status to ours.

Reproduces: lxc_copy.c:main().
"""

from __future__ import annotations

import os
import signal
import sys

from .errors import LxcCopyError, OptionError
from .options import Parsed, help_text, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from .command import Command
    from .ephemeral import EphemeralCopy
    from .terminal import TerminalSession

FAILED = 1
FAILED_BEFORE_COMMAND = 125
NOT_EXECUTABLE = 126
NOT_FOUND = 127

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)

_LONGEST_NUMBER = 12

# How long a command that was told to end may take until it is killed, in seconds.
_SIGNAL_GRACE = 10


class _Interrupted(BaseException):
    """A signal that came before or after the command; what is under way is undone on the way up."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _Signals:
    """What a signal does: passed on to the command while there is one, else the end of what we are doing."""

    def __init__(self) -> None:
        self._forwarding = False
        self._command: Command | None = None
        self._received: list[int] = []

    def install(self) -> None:
        for number in _SIGNALS:
            # One that our caller ignores, as nohup(1) does with SIGHUP, stays ignored.
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._handle)
        # Inherited from a parent that ignores it, it would keep liblxc from seeing its children end.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def forward(self) -> None:
        """From here on they are for a command, which is about to start."""
        self._forwarding = True

    def forward_to(self, command: Command) -> None:
        """This is the command; it gets what came meanwhile."""
        self._command = command
        self._pass_on()

    def stop_forwarding(self) -> None:
        """The command has ended."""
        self._forwarding = False
        signal.alarm(0)

    def hold(self) -> None:
        """From here on we tidy up, which no signal shall stop halfway."""
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if not self._forwarding:
            self.hold()
            raise _Interrupted(number)
        self._received.append(number)
        self._pass_on()

    def _pass_on(self) -> None:
        command = self._command
        if command is None or not self._received:
            return
        if len(self._received) > 1:
            command.send_signal(signal.SIGKILL)
        else:
            command.send_signal(self._received[0])
            signal.signal(signal.SIGALRM, lambda *_: command.send_signal(signal.SIGKILL))
            signal.alarm(_SIGNAL_GRACE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run lxccopy and return its exit status.

    Args:
        arguments: The command line without the program's name; the process's own where None.
    """
    _open_stdio()
    parsed = Parsed()
    signals = _Signals()
    try:
        parse(sys.argv[1:] if arguments is None else arguments, parsed)
        signals.install()
        return _act(parsed, signals)
    except LxcCopyError as error:
        _complain(str(error))
    except _Interrupted as interrupt:
        _complain(f"ended by {signal.Signals(interrupt.number).name}")
        return 128 + interrupt.number
    except BrokenPipeError:
        pass  # whoever read our output has what they wanted
    except OSError as error:
        _complain(f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error))
    return FAILED_BEFORE_COMMAND if parsed.has_command else FAILED


def _act(parsed: Parsed, signals: _Signals) -> int:
    immediate = parsed.last_of("help", "version")
    if immediate == "help":
        _print(help_text())
        return 0
    if immediate == "version":
        from . import __version__, liblxc_version

        _print(f"{liblxc_version()}\nlxccopy {__version__}\n")
        return 0
    parsed.has_command = False
    if "create-base" in parsed:
        return _create_base(parsed)
    name, *words = (
        [parsed.values["name"], *parsed.words] if "name" in parsed else [*parsed.words, ""][: len(parsed.words) or 1]
    )
    if not name and "name" not in parsed:
        raise OptionError("no container is named: give its name with -n")
    if parsed.last_of("ephemeral", "snapshot") == "ephemeral":
        parsed.has_command = bool(words)
        return _ephemeral(name, words, parsed, signals)
    return _clone(name, words, parsed)


def _create_base(parsed: Parsed) -> int:
    from .base import create_base

    with create_base(parsed.values["create-base"], lxcpath=parsed.get("lxcpath")) as base:
        if "quiet" not in parsed:
            _print(f"Created {base.name} in {base.lxcpath}\n")
    return 0


def _clone(name: str, words: Sequence[str], parsed: Parsed) -> int:
    from .clone import clone

    newname = parsed.get("newname")
    if newname is None:
        raise OptionError("a name for the copy is needed: give it with -N")
    with clone(
        name,
        newname,
        lxcpath=parsed.get("lxcpath"),
        newpath=parsed.get("newpath"),
        snapshot="snapshot" in parsed,
        allow_running="allowrunning" in parsed,
        keep_name="keepname" in parsed,
        keep_mac="keepmac" in parsed,
        hook_args=words,
    ):
        return 0


def _ephemeral(name: str, words: Sequence[str], parsed: Parsed, signals: _Signals) -> int:
    from .ephemeral import EphemeralCopy

    copy = EphemeralCopy(
        name,
        parsed.get("newname"),
        tmpfs="tmpfs" in parsed,
        tmpfs_size=parsed.get("tmpfs-size"),
        tmpfs_inodes=_number(parsed, "tmpfs-inodes"),
        tmpfs_via=parsed.get("tmpfs-via"),
        keep_data="keepdata" in parsed,
        keep_name="keepname" in parsed,
        keep_mac="keepmac" in parsed,
        allow_running="allowrunning" in parsed,
        lxcpath=parsed.get("lxcpath"),
        newpath=parsed.get("newpath"),
        shutdown_timeout=_number(parsed, "shutdown-timeout"),
    )
    try:
        copy.start()
        _announce(copy, name, parsed, to_stderr=bool(words))
        if not words:
            copy.detach()
            return 0
        status = _command(copy, words, signals)
    except BaseException:
        signals.hold()
        copy.close(kill=True)
        raise
    try:
        copy.close()
    except BaseException:  # a signal hurries it: what is polite about it ends there
        signals.hold()
        copy.close(kill=True)
        raise
    return status


def _announce(copy: EphemeralCopy, source: str, parsed: Parsed, *, to_stderr: bool) -> None:
    if "quiet" in parsed:
        return
    message = f"Created {copy.name} as clone of {source}\n"
    _print(message, 2 if to_stderr else 1)  # with a command, stdout is the command's


def _command(copy: EphemeralCopy, words: Sequence[str], signals: _Signals) -> int:
    from .command import Command

    signals.forward()
    ours = [fd for fd in (0, 1, 2) if os.isatty(fd)]
    if ours:
        from .terminal import TerminalSession

        session = TerminalSession(copy.container, words, ours)
        _on_terminal(session, signals)
        command = session.command
    else:
        command = Command(copy.container, words, stdin=0, stdout=1, stderr=2)
        signals.forward_to(command)
        command.wait()
    signals.stop_forwarding()
    status = command.returncode
    if status is None:
        return FAILED_BEFORE_COMMAND
    if command.exec_error and status in (NOT_EXECUTABLE, NOT_FOUND):
        _complain(f"cannot run {words[0]!r} in {copy.name}: {os.strerror(command.exec_error)}")
    return 128 - status if status < 0 else status


def _on_terminal(session: TerminalSession, signals: _Signals) -> None:
    signals.forward_to(session.command)
    signal.signal(signal.SIGWINCH, lambda *_: session.resize())
    try:
        session.relay()
    finally:
        signal.signal(signal.SIGWINCH, signal.SIG_DFL)


def _number(parsed: Parsed, name: str) -> int | None:
    text = parsed.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.removeprefix("-").isdigit() and len(text) <= _LONGEST_NUMBER):
        raise OptionError(f"--{name} needs a whole number, not {text!r}")
    return int(text)


def _open_stdio() -> None:
    """Fill closed descriptors 0 to 2, so that no file of ours gets their number."""
    fd = os.open(os.devnull, os.O_RDWR)
    while fd <= 2:
        os.set_inheritable(fd, True)  # noqa: FBT003
        fd = os.open(os.devnull, os.O_RDWR)
    os.close(fd)


def _print(text: str, fd: int = 1) -> None:
    """Write at once, so that our lines and the command's stay in order; sys.stdout may not even be there."""
    from ._raw import write_all

    write_all(fd, os.fsencode(text))


def _complain(text: str) -> None:
    try:
        _print(f"lxccopy: {text}\n", 2)
    except OSError:
        pass  # nobody listens
