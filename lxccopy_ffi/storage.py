# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where a container's root file system is, and which copies liblxc can make of it."""

from __future__ import annotations

import os
import stat

from . import identity
from .errors import OptionError, UnsupportedError
from .names import check_path
from .tmpfs import MERGED, UPPER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .container import Container

KINDS = ("btrfs", "dir", "loop", "lvm", "nbd", "overlay", "rbd", "zfs")

_NO_SNAPSHOTS = ("loop", "nbd", "rbd")
_LARGEST = (1 << 63) - 1


def check_kind(kind: str) -> str:
    """Return a type of storage as liblxc calls it, or raise OptionError.

    Reproduces: lxc_copy.c:my_parser(), -B. Differs: no part of a name will do, and unknown ones are refused.
    """
    if kind == "overlayfs":
        return "overlay"
    if kind == "aufs":
        raise OptionError("the storage type 'aufs' was dropped from liblxc with version 3.0; use 'overlay'")
    if kind not in KINDS:
        raise OptionError(f"there is no storage type {kind!r}; it is one of {', '.join(KINDS)}")
    return kind


def check_size(size: str | int) -> int:
    """Return the size of a new image or volume in bytes, 0 for the driver's default, or raise OptionError.

    Args:
        size: Bytes; or a text of a decimal or, with ``0x``, hexadecimal number, optional blanks, and optionally a unit:
            B, K, M, G or T, powers of 1024 also where written out as KB or KiB; without one it is MiB.

    Reproduces: lxc_copy.c:get_fssize(). Differs: what is not a size is an error, in place of the default size.
    """
    if isinstance(size, bool) or not isinstance(size, (int, str)):
        raise OptionError(f"the size must be an int or a str, not {size!r}")
    value = _parse_size(size) if isinstance(size, str) else size
    if not 0 <= value <= _LARGEST:
        raise OptionError(f"the size {size!r} is out of range")
    return value


def _parse_size(size: str) -> int:
    import re

    found = re.fullmatch(
        r"(?:0x(?P<hex>[0-9a-f]+)|(?P<number>0|[1-9][0-9]*))[ \t]*(?P<unit>b?|(?P<prefix>[kmgt])(?:i?b)?)",
        size.lower() if len(size) < 32 and size.isascii() else "",
        re.ASCII,
    )
    if found is None:
        raise OptionError(f"the size {size!r} is not a number with B, K, M, G or T, such as 512M or 2G")
    number = int(found["hex"], 16) if found["hex"] else int(found["number"])
    prefix = found["prefix"] or ("" if found["unit"] else "m")
    return number << 10 * " kmgt".index(prefix or " ")


class Storage:
    """Where a container's root file system is: the ``KIND:PATH`` or ``overlay:LOWER...:UPPER`` of its lxc.rootfs.path.

    liblxc tells the path only, so the kind comes from the config file, or else from what is found at the path.

    Attributes:
        kind: dir, overlay, btrfs, zfs, lvm, loop, ...
        lower: The directories that are only read, topmost first: the root file system itself where it is no overlay.
        upper: The writable layer of an overlay; empty otherwise.
    """

    def __init__(self, container: Container) -> None:
        path = container.config("lxc.rootfs.path")
        kind = _kind_in_file(container.config_source, path) or _kind_of_path(path)
        self.kind = "overlay" if kind == "overlayfs" else kind
        self.lower = path.split(":") if self.kind == "overlay" else [path]
        self.upper = self.lower.pop() if self.kind == "overlay" else ""

    @property
    def is_directory(self) -> bool:
        """Whether the root file system is a directory, or an overlay of several, on the host."""
        return self.kind in ("dir", "overlay")

    @property
    def is_on_host(self) -> bool:
        """Whether its files can be reached from the host without mounting a volume: a btrfs subvolume's can, too."""
        return bool(self.upper) or os.path.isdir(self.lower[0])

    @property
    def layers(self) -> list[str]:
        """All its directories, topmost first."""
        return [self.upper, *self.lower] if self.upper else self.lower


def _kind_in_file(file: str, path: str) -> str:
    """The prefix of the line for this path; empty where there is none, as in a config that includes it."""
    kind = ""
    with open(file, encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            key, _, value = line.partition("=")
            if key.strip() == "lxc.rootfs.path" and value.strip().endswith(f":{path}"):
                kind = value.strip()[: -len(path) - 1]
    return kind


def _kind_of_path(path: str) -> str:
    if path.startswith("/") and ":/" in path:
        return "overlay"
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return "dir"  # the layer check says what is wrong with it
    if stat.S_ISREG(mode):
        return "loop"
    return "block device" if stat.S_ISBLK(mode) else "dir"


class Plan:
    """How a container will be copied: what liblxc is told, and what it cannot do itself.

    Args:
        source: The container to copy.
        snapshot: Whether the copy shall share what it does not change.
        ephemeral: Whether it is for a moment only, and need not be of a form that liblxc can copy again.
        tmpfs: Whether its changes shall go to memory, which needs an overlay.
        kind: The type of storage that is asked for; liblxc's choice where None.
        allow_running: Whether the source may run.

    Attributes:
        storage: The source's.
        snapshot: As asked for.
        allow_running: As asked for.
        kind: The type of storage for clone(); None for liblxc's choice.
        stacked: Whether a snapshot of an overlay gets the source's writable layer as one more lower layer. liblxc would
            copy it, with rsync, and only where there is one lower layer.
        copies_files: Whether it takes a program that copies all files.

    Raises:
        UnsupportedError: The source's storage, its state or a missing program is in the way.
    """

    def __init__(
        self,
        source: Container,
        *,
        snapshot: bool,
        ephemeral: bool = False,
        tmpfs: bool = False,
        kind: str | None = None,
        allow_running: bool = False,
    ) -> None:
        self.storage = Storage(source)
        self.kind = kind
        self.snapshot = snapshot
        self.allow_running = allow_running
        self._where = source.where
        self._running = source.running
        if not self.storage.lower[0]:
            raise UnsupportedError(f"{self._where} has no root file system (lxc.rootfs.path in {source.config_source})")
        if self.storage.upper == UPPER or self.storage.lower == [MERGED]:
            raise UnsupportedError(f"{self._where} is a throwaway copy in memory, of which there can be no copies")
        if source.name not in source.config("lxc.rootfs.path"):
            raise UnsupportedError(
                f"{self._where} cannot be copied: liblxc wants its name in the path of its root file system, which is"
                f" {self.storage.lower[0]}"
            )
        if tmpfs and not self.storage.is_directory:
            raise UnsupportedError(
                f"{self._stored}, which no overlay can be put on; -t needs a base of type dir or overlay"
            )
        if snapshot:
            self._check_snapshot()
        else:
            self._check_full_copy()
        if self.storage.is_directory:
            for layer in self.storage.layers:
                _check_layer(layer, self._where)
        if self._running and not allow_running:
            raise UnsupportedError(
                f"{self._where} is running; stop it first, or allow the copy of a running container with -a"
            )
        self.stacked = snapshot and bool(self.storage.upper) and self._choose_stacking(source, ephemeral=ephemeral)
        self.copies_files = (
            self._full_copy_needs_rsync() if not snapshot else bool(self.storage.upper) and not self.stacked
        )
        if self.copies_files and not find_program("rsync"):
            what = "a snapshot of an overlay snapshot" if snapshot else "a full copy"
            raise UnsupportedError(f"{what} needs the program rsync, which is not installed (package rsync)")

    @property
    def _stored(self) -> str:
        return f"{self._where} is stored as {self.storage.kind!r}"

    def _check_snapshot(self) -> None:
        kind = self.storage.kind
        if kind in _NO_SNAPSHOTS:
            raise UnsupportedError(f"{self._stored}, of which liblxc makes no snapshots; copy it fully")
        possible = "overlay" if self.storage.is_directory else kind
        if self.kind not in (None, possible):
            raise UnsupportedError(f"{self._stored}, of which snapshots can only be {possible!r}, not {self.kind!r}")

    def _check_full_copy(self) -> None:
        if self.storage.kind == "overlay" and self.kind is None:
            self.kind = "dir"  # liblxc's own choice is an overlay, which it then refuses
        if self.kind == "overlay":
            raise UnsupportedError(
                f"a full copy cannot be an overlay, which is a snapshot: use -s, or -B dir ({self._where})"
            )
        if self.kind == "btrfs" and self.storage.kind != "btrfs":
            raise UnsupportedError(
                f"{self._stored}, of which liblxc's 'btrfs' copies are plain directories; use -B dir"
            )

    def _full_copy_needs_rsync(self) -> bool:
        """Whether liblxc's driver has no other way: some file systems can copy themselves."""
        return self.storage.kind not in ("btrfs", "zfs") or self.kind not in (None, self.storage.kind)

    def _choose_stacking(self, source: Container, *, ephemeral: bool) -> bool:
        several = len(self.storage.lower) > 1
        obstacle = (
            "it is running" if self._running else "it has an lxc.hook.clone" if source.config("lxc.hook.clone") else ""
        )
        if several and obstacle:
            raise UnsupportedError(
                f"{self._where} is an overlay on several layers, of which there is no snapshot while {obstacle}"
            )
        return (ephemeral or several) and not obstacle


def _check_layer(layer: str, where: str) -> None:
    try:
        check_path(layer, "root file system")
        os.close(identity.open_root(layer))
    except OptionError as error:
        raise UnsupportedError(f"{where} cannot be overlaid: {error}") from error
    except OSError as error:
        raise UnsupportedError(f"{where} has no usable root file system: {layer}: {error.strerror}") from error


def find_program(name: str) -> str:
    """Return the path of a program; empty where it is not installed."""
    for directory in os.get_exec_path():
        path = os.path.join(directory, name)
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    return ""
