# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command ``lxccopy``: options to calls, errors to one line, the command's status to ours.

Reproduces: lxc_copy.c:main().
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager, suppress

from .errors import ContainerNotFoundError, LxcCopyError, OptionError
from .names import check_name
from .notices import log, show_with
from .options import UPKEEP, Parsed, help_text, parse, usage_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType
    from typing import Any

    from .command import Command
    from .ephemeral import EphemeralCopy
    from .mounts import Mount
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
        sys.unraisablehook = self._raise_again
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
        self._command = None
        signal.alarm(0)

    def uninstall(self) -> None:
        """We are done: let go of what a handler could still need, while there is a Python to do so."""
        self._command = None
        sys.unraisablehook = sys.__unraisablehook__
        signal.signal(signal.SIGALRM, signal.SIG_DFL)

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

    def _raise_again(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Raise once more what was raised in a destructor or the like, where Python can only drop it."""
        error = unraisable.exc_value
        if not isinstance(error, _Interrupted):
            sys.__unraisablehook__(unraisable)
            return

        def handle(*_: object) -> None:
            raise _Interrupted(error.number)

        signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.001)  # out of here

    def _pass_on(self) -> None:
        command = self._command
        if command is None or not self._received:
            return
        if len(self._received) > 1:
            command.signal_group(signal.SIGKILL)
        else:
            command.signal_group(self._received[0])
            signal.signal(signal.SIGALRM, lambda *_: command.signal_group(signal.SIGKILL))
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
        show_with(lambda text: None if "quiet" in parsed else _complain(f"warning: {text}"))
        return _act(parsed, signals)
    except LxcCopyError as error:
        # A command without a container before it is taken for one, as by lxc-copy.
        is_word = isinstance(error, ContainerNotFoundError) and "name" not in parsed
        _complain(f"{error}{'; give its name with -n' if is_word else ''}")
    except _Interrupted as interrupt:
        _complain(f"ended by {signal.Signals(interrupt.number).name}")
        return 128 + interrupt.number
    except BrokenPipeError as error:
        if parsed.last_of("help", "usage", "version"):
            return 0  # whoever read it has what they wanted
        _complain(f"{error.filename}: nobody reads it any more, so nothing was left running")
    except OSError as error:
        _complain(f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error))
    finally:
        signals.uninstall()
        show_with(log)
    return FAILED_BEFORE_COMMAND if parsed.has_command else FAILED


def _act(parsed: Parsed, signals: _Signals) -> int:
    immediate = parsed.last_of("help", "usage", "version", "?")
    if immediate is not None:
        return _inform(immediate)
    parsed.has_command = False
    if any(name in UPKEEP for name, _ in parsed.given):
        from .upkeep import perform, task_of

        return 0 if perform(task_of(parsed), parsed, _print, _complain) else FAILED
    call = _Call(parsed)
    if call.task == "ephemeral":
        return _ephemeral(call, signals)
    return _clone(call)


def _inform(what: str) -> int:
    if what == "version":
        from . import __version__, liblxc_version

        _print(f"{liblxc_version()}\nlxccopy {__version__}\n")
    elif what == "usage":
        _print(usage_text(_program()))
    elif what == "help":
        _print(help_text(_program()))
    else:  # -?
        _print(help_text(_program()), 2)
        return FAILED
    return 0


def _program() -> str:
    """What we were called as, where that is one of our names: scripts may have us in lxc-copy's place."""
    return "lxc-copy" if os.path.basename(sys.argv[0]) == "lxc-copy" else "lxccopy"


class _Call:
    """What is asked for, as far as it can be told from the command line alone.

    Attributes:
        parsed: The command line.
        name: The container.
        words: The trailing words: the command, or further arguments for hooks.
        task: ``"ephemeral"``, ``"snapshot"``, ``"rename"``, or ``""`` for a full copy.
        mounts: What to mount; as with the options below, wrong ones are errors whatever the task is.
        storage: The type of storage.
        size: Of a new volume.

    Raises:
        OptionError: Something is missing or wrong.
    """

    def __init__(self, parsed: Parsed) -> None:
        self.parsed = parsed
        self.words = list(parsed.words)
        name = parsed.get("name")
        if name is None:
            if not self.words:
                raise OptionError("No container name specified: give it with -n")
            name = self.words.pop(0)
        self.name = name
        self.task = parsed.last_of("ephemeral", "snapshot", "rename") or ""
        parsed.has_command = bool(self.words) and self.task == "ephemeral"
        self._status_fd = _number(parsed, "json-status-fd")
        self.mounts: list[Mount] = []
        self.storage = parsed.get("backingstorage")
        self.size = parsed.get("fssize")
        self._check()
        _open_log(name, parsed)

    def _check(self) -> None:
        if self._status_fd is not None:
            import fcntl

            try:
                mode = fcntl.fcntl(self._status_fd, fcntl.F_GETFL) & os.O_ACCMODE
            except (OSError, OverflowError, ValueError):
                raise OptionError(f"--json-status-fd: descriptor {self._status_fd} is not open") from None
            if mode == os.O_RDONLY:
                raise OptionError(f"--json-status-fd: descriptor {self._status_fd} is only for reading")
            os.set_inheritable(self._status_fd, self._status_fd <= 2)  # no hook's business
        if self.storage is not None or self.size is not None:
            from .storage import check_kind, check_size

            for kind in self.parsed.all("backingstorage"):
                check_kind(kind)
            for size in self.parsed.all("fssize"):
                check_size(size)
        for name in ("tmpfs-inodes", "shutdown-timeout", "wait-booted"):
            _number(self.parsed, name)
        for size in self.parsed.all("tmpfs-size"):
            from .tmpfs import check_size as check_tmpfs_size

            check_tmpfs_size(size)
        if "mount" in self.parsed:
            from .mounts import parse_all

            self.mounts = parse_all(self.parsed.all("mount"))

    @property
    def quiet(self) -> bool:
        return "quiet" in self.parsed

    def tell(self, event: str, name: str, **more: object) -> None:
        """Write what has happened to --json-status-fd."""
        if self._status_fd is not None:
            import json

            text = json.dumps({"event": event, "name": name, **more})
            try:
                _write(self._status_fd, text.encode() + b"\n", "--json-status-fd")
            except OSError:
                # Nobody knows of this copy; what has ended, or stays, is as good as if they did.
                if self.task == "ephemeral" and event in ("created", "started"):
                    raise


def _open_log(name: str, parsed: Parsed) -> None:
    """Do what -o and -l ask for, for a container that exists; what is wrong with another one is said later.

    Reproduces: log.c:lxc_log_init(). Differs: makes no directory for a container that is not defined.
    """
    file, level = parsed.get("logfile"), parsed.get("logpriority")
    if file is None and level is None:
        return
    from ._raw import LOG_LEVELS, default_lxcpath, log_to
    from .names import check_path

    level = "ERROR" if level is None else level.upper()
    if level not in LOG_LEVELS:
        raise OptionError(f"there is no log priority {level!r}; it is one of {', '.join(LOG_LEVELS)}")
    lxcpath = check_path(parsed.get("lxcpath") or default_lxcpath())
    own = f"{lxcpath}/{check_name(name)}"
    if file == "":
        raise OptionError("-o needs the path of a file")
    if file == "none" or not os.path.exists(own if "rcfile" in parsed else f"{own}/config"):
        return
    if file is None:
        common = "/var/log/lxc"
        file = (
            f"{common}/{name}.log"
            if lxcpath == default_lxcpath() and os.access(common, os.W_OK)
            else f"{own}/{name}.log"
        )
    os.makedirs(os.path.dirname(os.path.abspath(file)), exist_ok=True)
    log_to(file, level)


def _clone(call: _Call) -> int:
    parsed = call.parsed
    newname = parsed.get("newname")
    if newname is None:
        raise OptionError("You must provide a NEWNAME for the clone: give it with -N")
    where: dict[str, Any] = {"lxcpath": parsed.get("lxcpath"), "rcfile": parsed.get("rcfile")}
    from .meter import metered

    with metered(quiet=call.quiet) as progress:
        if call.task == "rename":
            from .rename import rename

            copy = rename(call.name, newname, **where, progress=progress)
        else:
            from .clone import clone

            copy = clone(
                call.name,
                newname,
                **where,
                newpath=parsed.get("newpath"),
                snapshot=call.task == "snapshot",
                storage=call.storage,
                size=call.size,
                allow_running="allowrunning" in parsed,
                keep_name="keepname" in parsed,
                keep_mac="keepmac" in parsed,
                hook_args=[*parsed.all("hook-arg"), *call.words],
                progress=progress,
            )
    copy.close()
    if call.task == "rename":
        call.tell("removed", call.name)
    call.tell("created", newname, base=call.name, lxcpath=copy.lxcpath)
    return 0


def _ephemeral(call: _Call, signals: _Signals) -> int:
    from .ephemeral import EphemeralCopy

    parsed, words = call.parsed, call.words
    copy = EphemeralCopy(
        call.name,
        parsed.get("newname"),
        tmpfs="tmpfs" in parsed,
        tmpfs_size=parsed.get("tmpfs-size"),
        tmpfs_inodes=_number(parsed, "tmpfs-inodes"),
        tmpfs_via=parsed.get("tmpfs-via"),
        mounts=call.mounts,
        storage=call.storage,
        size=call.size,
        keep_data="keepdata" in parsed,
        keep_name="keepname" in parsed,
        keep_mac="keepmac" in parsed,
        allow_running="allowrunning" in parsed,
        hook_args=parsed.all("hook-arg"),
        lxcpath=parsed.get("lxcpath"),
        newpath=parsed.get("newpath"),
        rcfile=parsed.get("rcfile"),
        on_event=lambda event, _: _announce(event, copy, call),
        shutdown_timeout=_number(parsed, "shutdown-timeout"),
    )
    if not words and parsed.last_of("foreground", "daemon") == "foreground":
        if "wait-booted" in parsed:
            raise OptionError("--wait-booted and -F contradict each other")
        return _foreground(copy, call, signals)
    try:
        copy.start()
        if "wait-booted" in parsed:
            copy.wait_booted(_number(parsed, "wait-booted"))
        if not words:
            copy.detach()
            return 0
        status = _command(copy, words, signals)
        call.tell("exited", copy.name, status=status)
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


def _foreground(copy: EphemeralCopy, call: _Call, signals: _Signals) -> int:
    """Reproduces: ``lxc-copy -e -F``. Differs: a signal ends it."""
    with _kept_terminal_modes():
        try:
            copy.start(foreground=True)
            call.tell("exited", copy.name)
        except BaseException:
            signals.hold()
            copy.close(kill=True)
            raise
        copy.close()
    return 0


@contextmanager
def _kept_terminal_modes() -> Iterator[None]:
    """Restore the terminal's modes at the end: liblxc, which changes them, cannot where it is killed."""
    import termios

    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:  # there is none
        yield
        return
    try:
        modes = termios.tcgetattr(terminal)
        try:
            yield
        finally:
            with suppress(termios.error):  # it has gone meanwhile
                if modes != termios.tcgetattr(terminal):
                    termios.tcsetattr(terminal, termios.TCSADRAIN, modes)
    finally:
        os.close(terminal)


def _announce(event: str, copy: EphemeralCopy, call: _Call) -> None:
    if event == "created":
        message = f"Created {copy.name} as clone of {copy.source}\n"
        if copy.tmpfs_via:
            message += "Container is placed on tmpfs.\n"
        if copy.tmpfs_via == "hook":
            message += "Rebooting will cause all changes made to it to be lost!\n"
        if not call.quiet:
            _print(message, 2 if call.words else 1)  # with a command, stdout is the command's
        call.tell(event, copy.name, base=copy.source, lxcpath=copy.container.lxcpath)
    elif event == "started":
        call.tell(event, copy.name, init_pid=copy.container.init_pid)
    else:
        call.tell(event, copy.name)


def _command(copy: EphemeralCopy, words: Sequence[str], signals: _Signals) -> int:
    from .command import Command

    copy.note_command([*words])
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
    if text is None or (name == "wait-booted" and not text):
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
    _write(fd, os.fsencode(text), ("standard input", "standard output", "standard error")[fd])


def _write(fd: int, data: bytes, name: str) -> None:
    from ._raw import write_all

    try:
        write_all(fd, data)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, name) from error


def _complain(text: str) -> None:
    try:
        _print(f"{_program()}: {text}\n", 2)
    except OSError:
        pass  # nobody listens
