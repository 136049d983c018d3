# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which copies of ours there are, from their ledgers, and how they are."""

from __future__ import annotations

import os
import stat

from . import cgroups, ledger
from ._raw import default_lxcpath
from .container import ask_state
from .errors import LxcCopyError, OptionError
from .names import check_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .ledger import Record
    from .names import StrPath


# How long one that starts may take to say so, in seconds.
_PATIENCE = 1.0


class Copy:
    """A copy that is ours until it is gone or handed over.

    Attributes:
        name: Its name.
        lxcpath: Where it is.
        base: The name of what it is a copy of.
        base_lxcpath: Where that is.
        state: ``"CREATING"``, ``"STARTING"``, or what liblxc says, such as ``"RUNNING"`` and ``"STOPPED"``.
        orphan: Whether nobody looks after it any more, and it does not run: reap() would take it.
        created: When it was made, in seconds since 1970.
        creator: The process id of its maker.
        creator_alive: Whether that still runs.
        init_pid: The process id of its init; -1 where it does not run.
        tmpfs: ``"monitor"`` or ``"hook"``, by which its changes are in memory; None where they are not.
        tmpfs_used: How much of that is used, in bytes; None where nobody knows.
        tmpfs_size: How much it may hold, in bytes; None likewise.
        memory: What all of it uses, with its tmpfs, in bytes; None where that is not accounted for.
        command: What was run in it last; empty for nothing.
    """

    tmpfs_used: int | None = None
    tmpfs_size: int | None = None
    memory: int | None = None

    def __init__(self, record: Record, lxcpath: str, *, locked: bool) -> None:
        self.name = record.name
        self.lxcpath = lxcpath
        self.base_lxcpath, self.base = record.base
        self.created = record.created
        self.creator = record.creator
        self.creator_alive = record.lives(record.creator)
        self.command = record.command
        self.tmpfs = record.entries.get("tmpfs")
        self.state, self.init_pid = "CREATING", -1
        # liblxc does not answer for a container while that starts, so its maker is believed.
        if record.started or not locked:
            self.state, self.init_pid = _state(record.name, lxcpath)
        elif record.task == "ephemeral" and os.path.exists(f"{lxcpath}/{record.name}/config"):
            self.state = "STARTING"
        self.orphan = self.state == "STOPPED" and not locked
        if self.init_pid > 0:
            self.memory = cgroups.memory(self.init_pid, self.name)
            if self.tmpfs:
                self._look_at_tmpfs()

    def _look_at_tmpfs(self) -> None:
        try:
            found = os.statvfs(f"/proc/{self.init_pid}/root")  # an overlay's is that of its upper layer
        except OSError:
            return  # it has ended, or is not ours to look into
        self.tmpfs_size = found.f_blocks * found.f_frsize
        self.tmpfs_used = (found.f_blocks - found.f_bfree) * found.f_frsize

    def __repr__(self) -> str:
        return f"<Copy {self.name!r} of {self.base!r} in {self.lxcpath}: {self.state}>"


def copies(lxcpath: StrPath | None = None) -> list[Copy]:
    """Return the copies of ours in a directory, by name: throwaway ones, and those that are being made.

    Args:
        lxcpath: Where to look; LXC's default where None.

    Raises:
        OptionError: There is no such directory.
    """
    path = check_path(default_lxcpath() if lxcpath is None else lxcpath)
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        raise OptionError(f"cannot look for copies in {path}: {error.strerror}") from error
    found = []
    for name in names:
        try:
            fd = ledger.open_in(f"{path}/{name}")
        except OSError:
            continue  # none of ours, or not ours to look at
        try:
            record, locked = ledger.read(fd), ledger.is_locked(fd)
        except (OSError, ValueError):
            continue
        finally:
            os.close(fd)
        if record.name == name:
            found.append(Copy(record, path, locked=locked))
    return found


def _state(name: str, lxcpath: str) -> tuple[str, int]:
    try:
        if not stat.S_ISREG(os.lstat(f"{lxcpath}/{name}/config").st_mode):
            return "STOPPED", -1  # nothing can have been started with it, and a pipe would be waited for
        return ask_state(name, lxcpath, _PATIENCE)
    except (OSError, LxcCopyError):
        return "STOPPED", -1  # it has half a configuration, or has just gone
