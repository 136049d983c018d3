# SPDX-License-Identifier: LGPL-2.1-or-later
"""Finding copies whose makers died before they had tidied up, and removing them.

A copy is an orphan when its ledger can be read and is ours, nobody locks it, the processes that it names are gone, and
it does not run. While it is being removed its ledger is locked, so that two who reap at once do not meet.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from contextlib import ExitStack, suppress

from . import cgroups, ledger, rdepends
from ._raw import above_stdio, default_lxcpath, unmount
from .container import Container, ask_state
from .errors import LiblxcError, LxcCopyError, OptionError
from .ledger import FILE, HIDDEN
from .locking import forget_lock, lock_directory, locked
from .names import check_flag, check_name, check_path, random_suffix
from .processes import command_lines
from .removal import discard, remove_directory, remove_tree
from .rename import recover

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .ledger import Record
    from .names import StrPath

# Between two looks at whether a copy runs, in seconds: a monitor that has just begun answers a little later.
_SECOND_LOOK = 0.05

# How long a container may take to say that it is stopped, in seconds: one that starts does not answer.
_PATIENCE = 2.0


class Orphan:
    """What reap() has found, and what became of it.

    Attributes:
        name: The copy's name; for what never got one, that of the hidden directory.
        lxcpath: Where it is.
        base: The lxcpath and the name of what it is a copy of; empty texts where nobody knows.
        reason: Why it is there, or why it cannot be removed.
        action: ``"removed"``, ``"kept"`` (it has data that were to be kept, and is an ordinary container now),
            ``"renamed back"``, ``"left"`` (it cannot be judged), or ``"failed"``.
    """

    def __init__(self, name: str, lxcpath: str, base: tuple[str, str], reason: str, action: str) -> None:
        self.name = name
        self.lxcpath = lxcpath
        self.base = base
        self.reason = reason
        self.action = action

    def __repr__(self) -> str:
        return f"<Orphan {self.name!r} in {self.lxcpath}: {self.action}, {self.reason}>"


def reap(lxcpath: StrPath | None = None, *, dry_run: bool = False, everything: bool = False) -> list[Orphan]:
    """Remove the copies whose makers died before they had tidied up, with all that is left of them.

    Nothing that runs is touched, nor what is another user's or another machine's, or has a ledger that cannot be read.

    Args:
        lxcpath: Where to look; LXC's default where None.
        dry_run: Only tell.
        everything: Also stopped ephemeral containers of other tools, which lxc-destroy cannot remove.

    Returns:
        What was found, removed or not.

    Raises:
        OptionError: An argument is not allowed, or there is no such directory.
    """
    check_flag("dry_run", dry_run)
    check_flag("everything", everything)
    path = check_path(default_lxcpath() if lxcpath is None else lxcpath)
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        raise OptionError(f"cannot look for copies in {path}: {error.strerror}") from error
    found = []
    for name in names:
        with _Candidate(path, name) as candidate:
            orphan = candidate.judge(everything=everything)
            if orphan is not None and orphan.action != "left" and not dry_run:
                try:
                    candidate.bury(orphan)
                except (OSError, LxcCopyError) as error:
                    orphan.action, orphan.reason = "failed", _why(error)
            if orphan is not None:
                found.append(orphan)
    if not dry_run:
        _forget_locks(path)
    return found


def _why(error: OSError | LxcCopyError) -> str:
    """Why one could not be removed, which is said with its name."""
    if isinstance(error, LiblxcError):
        return error.reason or f"liblxc could not {error.operation} it and gave no reason"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


class _Leave(Exception):  # noqa: N818 - it is no error
    """It is not for us to remove."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class _Candidate:
    """A directory in an lxcpath that may be an orphan."""

    def __init__(self, lxcpath: str, name: str) -> None:
        self._lxcpath = lxcpath
        self._name = name
        self._directory = f"{lxcpath}/{name}"
        self._hidden = name.startswith(HIDDEN)
        self._record: Record | None = None
        self._stack = ExitStack()

    def __enter__(self) -> _Candidate:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def judge(self, *, everything: bool) -> Orphan | None:
        """What it is; None where it is nothing for us. Locks its ledger, until the end."""
        try:
            if not stat.S_ISDIR(os.lstat(self._directory).st_mode):
                return None  # a link could lead to another one's
            if self._hidden:
                self._hold()
            try:
                fd = ledger.open_in(self._directory)
            except FileNotFoundError:
                return self._judge_without_ledger(everything=everything)
            self._stack.callback(os.close, fd)
            return self._judge_ledger(fd, everything=everything)
        except _Leave as leave:
            return self._left(leave.reason) if leave.reason else None
        except FileNotFoundError:
            return None  # somebody else was faster
        except (OSError, ValueError) as error:
            return self._left(f"its ledger cannot be read: {error}")

    def _hold(self) -> None:
        """Lock a hidden directory before its ledger is touched: who renames or removes something has it locked."""
        fd = above_stdio(os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))
        self._stack.callback(os.close, fd)
        if not ledger.lock(fd, self._directory):
            raise _Leave

    def _judge_ledger(self, fd: int, *, everything: bool) -> Orphan:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid() or not ledger.lock(fd, f"{self._directory}/{FILE}"):
            raise _Leave  # another user's, or somebody has it
        if self._hidden and not status.st_size:
            return self._orphan("its maker died at once")
        self._record = record = ledger.read(fd)
        self._check_gone(record)
        if self._hidden and record.task != "rename":
            return self._orphan("its maker died")
        if record.detached and not record.started and not everything:
            raise _Leave  # it was made for others to start
        self._check_stopped(record.name)
        if record.task == "rename":
            self._check_stopped(str(record.entries["to"]))
            return self._orphan(f"who renamed it died, process {record.creator}", "renamed back")
        if record.kept and record.started:
            return self._orphan(f"its maker died, process {record.creator}; its data were to be kept", "kept")
        return self._orphan(f"its maker died, process {record.creator}")

    def _check_gone(self, record: Record) -> None:
        """That those whom a ledger names are gone, as far as that can be told from here."""
        check_name(record.name)
        if not record.is_of_this_machine:
            raise _Leave(f"it was made on another machine or in a container, {record.entries['host']!r}")
        if not self._hidden and (record.name != self._name or record.task == "rename"):
            raise _Leave(f"its ledger is that of {record.name!r}, or of its renaming")
        # A maker that has let it go may live on.
        if record.lives(record.monitor) or (record.lives(record.creator) and not record.detached):
            raise _Leave
        if record.owner != os.geteuid():
            raise _Leave

    def _judge_without_ledger(self, *, everything: bool) -> Orphan:
        """What has none: a hidden directory of ours, or an ephemeral container of others."""
        if self._hidden:
            if os.lstat(self._directory).st_uid != os.geteuid():
                raise _Leave
            return self._orphan("its maker died at once, or at the very end")
        if not everything or os.lstat(f"{self._directory}/config").st_uid != os.geteuid():
            raise _Leave
        self._check_config(self._name)
        try:
            with Container(self._name, self._lxcpath) as container:
                if container.config("lxc.ephemeral") != "1":
                    raise _Leave
        except LxcCopyError:
            raise _Leave from None
        self._check_stopped(self._name)
        return self._orphan("it is ephemeral, and stopped")

    def _orphan(self, reason: str, action: str = "removed") -> Orphan:
        record = self._record
        name = record.name if record is not None else self._name
        return Orphan(name, self._lxcpath, record.base if record is not None else ("", ""), reason, action)

    def _left(self, reason: str) -> Orphan:
        return Orphan(self._name, self._lxcpath, ("", ""), reason, "left")

    def _check_stopped(self, name: str) -> None:
        """That it does not run; looked at twice, and also for a monitor that is in another network namespace."""
        self._check_config(name)
        for look in range(2):
            if look:
                time.sleep(_SECOND_LOOK)
            if _is_monitored(name, self._lxcpath):
                raise _Leave
            try:
                if ask_state(name, self._lxcpath, _PATIENCE)[0] != "STOPPED":
                    raise _Leave
            except LiblxcError:
                pass  # half of a configuration, with which nothing can have been started

    def _check_config(self, name: str) -> None:
        """That its configuration is a file of ours: one of others' can have hooks, which would be run by us."""
        with suppress(FileNotFoundError):
            status = os.lstat(f"{self._lxcpath}/{name}/config")
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
                raise _Leave("its configuration is another user's, or no file; see whether it can be trusted")

    def bury(self, orphan: Orphan) -> None:
        """Do what is to be done with it.

        Raises:
            LxcCopyError: Something of it could not be removed.
            OSError: Likewise.
        """
        record = self._record
        if orphan.action == "kept":
            os.unlink(f"{self._directory}/{FILE}")
            return
        if orphan.action == "renamed back":
            assert record is not None  # noqa: S101 - for the type checker
            with locked(record.name, self._lxcpath):
                recover(self._directory, record)
            return
        for place in _mounts_below(os.path.realpath(self._directory)):
            unmount(place)
        if self._hidden:
            self._bury_hidden()
            return
        _remove_cgroups(self._name, record)
        if record is not None and record.base[1]:
            with suppress(FileNotFoundError):
                rdepends.forget(record.base, (self._lxcpath, record.name))
        try:
            discard(self._name, self._lxcpath)
        except LiblxcError as error:
            if error.operation != "open":
                raise
            remove_directory(self._name, self._lxcpath)  # half of a configuration
            forget_lock(self._name, self._lxcpath)

    def _bury_hidden(self) -> None:
        directory = self._directory
        if self._record is None:
            # Its maker may live, and be about to give it its name: only one of us can rename it.
            directory = f"{self._lxcpath}/{HIDDEN}{random_suffix()}"
            try:
                os.rename(self._directory, directory)
            except FileNotFoundError:
                return
        remove_tree(directory, last=FILE)


def _is_monitored(name: str, lxcpath: str) -> bool:
    """Whether there is a monitor of liblxc's for a container, by whatever path its lxcpath was named."""
    start, end = "[lxc monitor] ", f" {name}"
    lines = [line for _, line in command_lines() if line.startswith(start) and line.endswith(end)]
    return any(_is_same_directory(line[len(start) : -len(end)], lxcpath) for line in lines)


def _is_same_directory(path: str, other: str) -> bool:
    if path == other:
        return True
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False


def _mounts_below(directory: str) -> Iterator[str]:
    """The mount points in a directory, the last ones first."""
    from .mounts import unescape

    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        places = [unescape(line.split(" ")[4]) for line in file]
    return reversed([place for place in places if place.startswith(f"{directory}/")])


def _remove_cgroups(name: str, record: Record | None) -> None:
    """Those that the ledger names; and, where nobody has noted them, those that have the copy's name."""
    noted = {(controllers, path) for controllers, path in record.entries.get("cgroups", [])} if record else set()
    cgroups.remove(cgroups.named(noted, name) or cgroups.of_name(name))


def _forget_locks(lxcpath: str) -> None:
    """Remove the lock files of containers that are gone: liblxc never does."""
    directory = lock_directory(lxcpath)
    try:
        names = os.listdir(directory)
    except OSError:
        return
    for file in names:
        path = f"{directory}/{file}"
        if file.startswith(".") and not os.path.lexists(f"{lxcpath}/{file[1:]}") and os.path.isfile(path):
            _forget_lock_unless_held(path, f"{lxcpath}/{file[1:]}")


def _forget_lock_unless_held(path: str, directory: str) -> None:
    import fcntl
    import struct

    try:
        fd = above_stdio(os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC))
    except OSError:
        return
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        if not os.path.lexists(directory):
            os.unlink(path)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES, errno.ENOENT):
            raise
    finally:
        os.close(fd)
