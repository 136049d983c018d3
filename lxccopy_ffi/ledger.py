# SPDX-License-Identifier: LGPL-2.1-or-later
"""What each copy says of itself until it is handed over: the file ``.lxccopy`` in its directory, locked by its maker.

It has a JSON object a line. The first one is written before the directory gets its name; it says who makes what, of
what. Each further one adds to it what has become of it. Whoever finds a ledger that nobody locks, and none of the
processes that it names, has found an orphan: see orphans.py.
"""

from __future__ import annotations

import os
import time

from ._raw import above_stdio
from .processes import is_alive, start_time

try:  # the package json costs more to import than all else that making a copy needs
    from _json import encode_basestring_ascii as _quote
except ImportError:  # not CPython
    from json.encoder import encode_basestring_ascii as _quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Union

    Value = Union[str, int, bool, None, "Sequence[Value]"]

FILE = ".lxccopy"

HIDDEN = ".lxccopy-"
"""How the names of directories begin that are about to become a container, or have been one."""

SCHEMA = 1

# Of a command that is noted, as its arguments can be megabytes.
_LONGEST_COMMAND = 1024

# No ledger is ever this big; a hostile one must not fill our memory.
_LARGEST = 1 << 20


class Ledger:
    """A ledger of ours, open and locked. The lock lasts as long as anybody has the descriptor, also after a fork.

    Args:
        directory: The directory for it, which has none.
        entries: The first line, besides who we are.

    Attributes:
        fd: Its descriptor.

    Raises:
        OSError: It cannot be written; FileNotFoundError where somebody has just tidied up here.
    """

    fd = -1

    def __init__(self, directory: str, **entries: Value) -> None:
        path = f"{directory}/{FILE}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self.fd = above_stdio(os.open(path, flags, 0o600))
        if not lock(self.fd, path):
            raise FileNotFoundError(path)
        self.add(schema=SCHEMA, **_ourselves(), **entries)

    def add(self, **entries: Value) -> None:
        """Write a further line.

        Raises:
            OSError: It cannot be written.
        """
        os.write(self.fd, f"{_dumps(entries)}\n".encode("ascii"))

    def add_command(self, argv: list[str]) -> None:
        """Note what runs in the copy now."""
        words = []
        left = _LONGEST_COMMAND
        for word in argv:
            words.append(word[:left])
            left -= len(word)
            if left <= 0:
                break
        if os.fstat(self.fd).st_size < _LARGEST // 2:
            self.add(command=words)

    def close(self) -> None:
        """Let go of it and, unless another process has it too, of its lock. Idempotent."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


class Record:
    """What a ledger says.

    Args:
        entries: All its lines, the later ones over the earlier ones.

    Attributes:
        name: The copy's.
        task: What was made: ``"ephemeral"``, ``"copy"``, ``"base"`` or ``"rename"``.
        base: The lxcpath and the name of what it is a copy of; empty for none.
        owner: The user id of its maker.
        created: When, in seconds since 1970.
        command: What ran in it last.
        kept: Whether its data are to be kept once it has run.
        started: Whether it has run.
        entries: All of it.
    """

    def __init__(self, entries: dict[str, Any]) -> None:
        self.entries = entries
        self.name = str(entries["name"])
        self.task = str(entries["task"])
        self.base = (str(entries["base"][0]), str(entries["base"][1]))
        self.owner = int(entries["uid"])
        self.created = float(entries["created"])
        self.command = [str(word) for word in entries.get("command", [])]
        self.kept = entries.get("keep") is True
        self.started = "monitor" in entries
        self.creator = int(entries["pid"])
        self.monitor = int(entries.get("monitor", 0))
        self._began = {self.creator: int(entries["start"]), self.monitor: int(entries.get("monitor_start", 0))}

    @property
    def is_of_this_machine(self) -> bool:
        """Whether it can be judged here: its maker ran on this machine, and we would see its processes."""
        visible = self.entries["boot"] != _boot_id() or self.entries["pidns"] == _pid_namespace()
        return bool(visible and self.entries["host"] == os.uname().nodename)

    @property
    def detached(self) -> bool:
        """Whether its maker has let it go, to live on its own."""
        return self.entries.get("detached") is True

    def lives(self, pid: int) -> bool:
        """Whether one of its processes, the creator or the monitor, is still there."""
        return pid > 0 and self.entries["boot"] == _boot_id() and is_alive(pid, self._began[pid])


def open_in(directory: str) -> int:
    """Return a descriptor of the ledger in a directory, read through no link.

    Raises:
        FileNotFoundError: There is none.
        OSError: It cannot be opened.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return above_stdio(os.open(f"{directory}/{FILE}", flags))
    except NotADirectoryError as error:
        raise FileNotFoundError(error.errno, error.strerror, directory) from error


def lock(fd: int, path: str) -> bool:
    """Lock a ledger until it is closed; False where somebody has it, or has just removed it."""
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return is_same(path, fd)


def is_locked(fd: int) -> bool:
    """Whether somebody has a ledger that is open here; does not keep it locked."""
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def read(fd: int) -> Record:
    """Return what a ledger says that is open.

    Raises:
        ValueError: It is none, or of another version of ours.
        OSError: It cannot be read.
    """
    import json

    lines = os.pread(fd, _LARGEST, 0).decode("ascii").splitlines(keepends=True)
    entries: dict[str, Any] = {}
    for line in lines:
        if line.endswith("\n"):  # not one in the middle of which its writer died
            entries.update(json.loads(line))
    if entries.get("schema") != SCHEMA:
        raise ValueError("it is no ledger of this version" if entries else "it is empty")
    try:
        return Record(entries)
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"it lacks {error}") from error


def is_same(path: str, fd: int) -> bool:
    """Whether a path still leads to the file that a descriptor stands for."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


def _ourselves() -> dict[str, Value]:
    pid = os.getpid()
    return {
        "pid": pid,
        "start": start_time(pid),
        "boot": _boot_id(),
        "pidns": _pid_namespace(),
        "host": os.uname().nodename,
        "uid": os.geteuid(),
        "created": int(time.time()),
    }


def _boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def _pid_namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino


def _dumps(value: Value | dict[str, Value]) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_quote(key)}: {_dumps(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str):
        return str(_quote(value))
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value) if isinstance(value, int) else "[" + ", ".join(map(_dumps, value)) + "]"
