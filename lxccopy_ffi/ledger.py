# SPDX-License-Identifier: LGPL-2.1-or-later
"""What each copy says of itself until it is handed over: the file ``.lxccopy`` in its directory, locked by its maker.

It has a JSON object a line. The first one is written before the directory gets its name; it says who makes what, of
what. Each further one adds to it what has become of it. Whoever finds a ledger that nobody locks, and none of the
processes that it names, has found an orphan: see orphans.py.
"""

from __future__ import annotations

import os
import time

from ._raw import above_stdio, write_all
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

# What must be in a ledger, and what may be, by which kind of value: [x] is a list of x, and (x, y) has one of each.
_ALWAYS: dict[str, object] = {
    "name": str,
    "task": str,
    "base": (str, str),
    "pid": int,
    "start": int,
    "boot": str,
    "pidns": int,
    "host": str,
    "uid": int,
    "created": int,
}
_SOMETIMES: dict[str, object] = {
    "keep": bool,
    "tmpfs": str,
    "command": [str],
    "monitor": int,
    "monitor_start": int,
    "cgroups": [(str, str)],
    "detached": bool,
}
_OF_A_RENAME: dict[str, object] = {
    "inode": int,
    "files": [str],
    "inside": [str],
    "upper": str,
    "lower": [str],
    "bases": [(str, str)],
}


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
        before = os.fstat(self.fd).st_size
        try:
            write_all(self.fd, f"{_dumps(entries)}\n".encode("ascii"))
        except OSError:
            os.ftruncate(self.fd, before)  # half a line would spoil the next one
            raise

    def add_command(self, argv: list[str]) -> None:
        """Note what runs in the copy now."""
        words = []
        left = _LONGEST_COMMAND
        for word in argv:
            words.append(word[:left])
            left -= len(word) + 1
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

    Raises:
        ValueError: Something is missing, or is not what it should be.

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
        _check(entries, _ALWAYS)
        _check({key: value for key, value in entries.items() if value is not None}, _SOMETIMES, optional=True)
        if entries["task"] == "rename":
            _check(entries, {"to": str})
            _check(entries, _OF_A_RENAME, optional="inode" not in entries)
            if any(file.startswith("/") or ".." in file.split("/") for file in entries.get("files", [])):
                raise ValueError("its 'files' lead out of the container")
        self.entries = entries
        self.name: str = entries["name"]
        self.task: str = entries["task"]
        self.base: tuple[str, str] = tuple(entries["base"])
        self.owner: int = entries["uid"]
        self.created = float(entries["created"])
        self.command: list[str] = entries.get("command") or []
        self.kept = entries.get("keep") is True
        self.started = "monitor" in entries
        self.creator: int = entries["pid"]
        self.monitor: int = entries.get("monitor") or 0
        self._began = {self.creator: entries["start"], self.monitor: entries.get("monitor_start") or 0}

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

    *lines, _ = os.pread(fd, _LARGEST, 0).decode("ascii").split("\n")  # in the last one its writer died
    entries: dict[str, Any] = {}
    try:
        for line in lines:
            added = json.loads(line)
            if not isinstance(added, dict):
                raise ValueError(f"it has a line that is no object, {line[:40]!r}")  # noqa: TRY004
            entries.update(added)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if entries.get("schema") != SCHEMA:
        raise ValueError("it is no ledger of this version" if entries else "it is empty")
    return Record(entries)


def _check(entries: dict[str, Any], kinds: dict[str, object], *, optional: bool = False) -> None:
    for key, kind in kinds.items():
        if key not in entries:
            if not optional:
                raise ValueError(f"it lacks {key!r}")
        elif not _fits(entries[key], kind):
            raise ValueError(f"its {key!r} is no such thing: {entries[key]!r:.60}")


def _fits(value: object, kind: object) -> bool:
    if isinstance(kind, (list, tuple)):
        kinds = kind if isinstance(kind, tuple) else kind * len(value) if isinstance(value, list) else ()
        return isinstance(value, list) and len(value) == len(kinds) and all(map(_fits, value, kinds))
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 64
    return type(value) is kind


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
