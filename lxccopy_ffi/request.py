# SPDX-License-Identifier: LGPL-2.1-or-later
"""What can be asked of a command in a container, with subprocess's words, checked before anything is started."""

from __future__ import annotations

import os

from .accounts import check_id
from .command import check_argv, check_env
from .errors import OptionError
from .names import check_flag, check_seconds, check_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import IO, Any, Union

    from typing_extensions import TypedDict

    from .accounts import Id

    Stream = Union[int, IO[Any], None]

    class PopenOptions(TypedDict, total=False):
        """The keywords of Request, for type checkers."""

        stdin: Stream
        stdout: Stream
        stderr: Stream
        text: bool | None
        encoding: str | None
        errors: str | None
        env: Mapping[str, str] | None
        cwd: str | None
        user: Id | None
        group: Id | None

    class RunOptions(PopenOptions, total=False):
        """The keywords of RunRequest, for type checkers."""

        input: bytes | str | None
        capture_output: bool
        timeout: float | None
        check: bool


# subprocess's; it costs too much to import.
PIPE, STDOUT, DEVNULL = -1, -2, -3


class Request:
    """A command to start.

    Args:
        argv: The command and its arguments, looked up in the container's PATH; no shell is involved.
        stdin: What it reads: a descriptor or an object that has one, subprocess.PIPE or DEVNULL; ours where None.
        stdout: Where its output goes, likewise.
        stderr: Where its errors go, likewise; subprocess.STDOUT to the same place as the output.
        text: What goes through pipes is str, in place of bytes; so too with an encoding or errors.
        encoding: The encoding of that; the locale's where None.
        errors: What becomes of what cannot be encoded or decoded; ``"strict"`` where None.
        env: Its environment besides PATH; a login session's of its user where None.
        cwd: Its working directory; where None, ours if the container has it too, else ``/``.
        user: Who it is, by name or number, as the container's own /etc/passwd has it; root where None.
        group: A group in place of the user's first one, as /etc/group has it.

    Raises:
        OptionError: An argument is not allowed.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: Id | None = None,
        group: Id | None = None,
    ) -> None:
        self.argv = check_argv(argv)
        self.text = _check_text(text, encoding, errors)
        self.encoding = encoding or (_encoding() if self.text else "")
        self.errors = errors or "strict"
        self.env = None if env is None else check_env(env)
        self.cwd = None if cwd is None else check_words("cwd", [cwd])[0]
        self.user = check_id("user", user)
        self.group = check_id("group", group)
        self.stdin = _check_stream("stdin", stdin, os.O_RDONLY)
        self.stdout = _check_stream("stdout", stdout, os.O_WRONLY)
        self.stderr = STDOUT if stderr is STDOUT or stderr == STDOUT else _check_stream("stderr", stderr, os.O_WRONLY)
        self._keep = (stdin, stdout, stderr)  # which own the descriptors

    def encode(self, data: bytes | str | None) -> bytes:
        """Return what the command shall read as bytes; nothing where None.

        Raises:
            OptionError: It is of the wrong type, or cannot be encoded.
        """
        if data is None:
            return b""
        if not isinstance(data, str if self.text else (bytes, bytearray, memoryview)):
            wanted = "str" if self.text else "bytes"
            raise OptionError(f"input must be {wanted} with text={self.text}, not {type(data).__name__}")
        try:
            return data.encode(self.encoding, self.errors) if isinstance(data, str) else bytes(data)
        except UnicodeEncodeError as error:
            raise OptionError(f"input cannot be encoded: {error.reason}") from error

    def decode(self, data: bytes, errors: str = "") -> bytes | str:
        """Return what the command has printed as subprocess does: bytes, or text with plain newlines."""
        if not self.text:
            return data
        return data.decode(self.encoding, errors or self.errors).replace("\r\n", "\n").replace("\r", "\n")


class RunRequest(Request):
    """A command to run and to wait for.

    Args:
        argv: As for Request, like all that is not below.
        input: What it reads from its standard input, in place of stdin.
        capture_output: Return its output and errors; stdout and stderr are pipes.
        timeout: How long it may take, in seconds; then it is killed, and all that it has started.
        check: Raise an error for a status other than 0.
        streams: The keywords of Request.

    Raises:
        OptionError: An argument is not allowed, or contradicts another.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        input: bytes | str | None = None,  # noqa: A002 - as subprocess.run() calls it
        capture_output: bool = False,
        timeout: float | None = None,
        check: bool = False,
        **streams: Any,  # noqa: ANN401 - PopenOptions, checked there
    ) -> None:
        if check_flag("capture_output", capture_output):
            for name in ("stdout", "stderr"):
                if streams.get(name) is not None:
                    raise OptionError(f"{name} and capture_output contradict each other")
            streams.update(stdout=PIPE, stderr=PIPE)
        if input is not None:
            if streams.get("stdin") is not None:
                raise OptionError("stdin and input contradict each other")
            streams["stdin"] = PIPE
        super().__init__(argv, **streams)
        self.timeout = check_seconds("timeout", timeout)
        self.check = check_flag("check", check)
        self.input = None if input is None else self.encode(input)


# What run() gives to RunRequest; the rest is for the copy.
KEYWORDS = frozenset(
    "stdin stdout stderr text encoding errors env cwd user group input capture_output timeout check".split()  # noqa: SIM905
)


def _check_text(text: bool | None, encoding: str | None, errors: str | None) -> bool:  # noqa: FBT001 - it is what is checked
    if text is not None:
        check_flag("text", text)
    for name, value in (("encoding", encoding), ("errors", errors)):
        if value is None:
            continue
        if text is False:
            raise OptionError(f"{name} and text=False contradict each other")
        if not isinstance(value, str):
            raise OptionError(f"{name} must be a str, not {value!r}")
    import codecs

    try:
        "".encode(encoding or "utf-8")
    except (LookupError, ValueError):
        raise OptionError(f"encoding: there is none called {encoding!r}") from None
    try:
        codecs.lookup_error(errors or "strict")
    except (LookupError, ValueError):
        raise OptionError(f"errors: there is no way called {errors!r}") from None
    return bool(text or encoding is not None or errors is not None)


def _check_stream(name: str, stream: Stream, mode: int) -> int | None:
    """A descriptor that can be read or written, PIPE, DEVNULL or None."""
    if stream is None:
        return None
    fd = stream
    if not isinstance(fd, int) and hasattr(fd, "fileno"):
        try:
            fd = fd.fileno()
        except (OSError, ValueError) as error:
            raise OptionError(f"{name} has no descriptor: {error}") from None
    if type(fd) is not int:
        raise OptionError(f"{name} must be a descriptor, a file, PIPE or DEVNULL, not {stream!r}")
    if fd in (PIPE, DEVNULL):
        return fd
    import fcntl

    try:
        access = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
    except (OSError, OverflowError, ValueError):
        raise OptionError(f"{name}: descriptor {fd} is not open") from None
    if access not in (mode, os.O_RDWR):
        raise OptionError(f"{name} cannot be {'written' if mode else 'read'}")
    return fd


def _encoding() -> str:
    import locale

    return locale.getpreferredencoding(do_setlocale=False)
