# SPDX-License-Identifier: LGPL-2.1-or-later
"""Putting a copy's writable layer in memory.

Two ways. *monitor*: a tmpfs made here is mounted in the mount namespace of the container's monitor, so it survives a
reboot of the container, ends with the monitor and never shows on the host. *hook*: lxc-copy's pre-mount script, for
containers that somebody else starts or that we may not mount for.

Reproduces: lxc_copy.c:mount_tmpfs(). Differs: neither way can end up on disk in silence, see SPEC A5.4.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from . import _raw
from .errors import OptionError, UnsupportedError
from .identity import copy_attributes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .container import Container

# The same for every copy: each monitor sees its own tmpfs there.
MOUNT_POINT = "/run/lxccopy"
UPPER = f"{MOUNT_POINT}/upper/delta"

MERGED = f"{MOUNT_POINT}/merged"
"""Where a monitor has the root file system of a container with an id map: an overlay of root's, which can forget the
directories below it, as one of a user namespace cannot."""

# On the host a link to nowhere stands in its place. liblxc would make a missing upper directory, and a copy that is
# started by other means would run on disk; through this link, in /proc, not even root can make one.
_DEAD_END = "/proc/only-a-monitor-of-lxccopy-has-a-tmpfs-here"

MONITOR = "monitor"
HOOK = "hook"

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_LARGEST = (1 << 63) - 1
_MOST_INODES = (1 << 31) - 1


class Limits:
    """How much a tmpfs may hold.

    Args:
        size: Bytes with an optional suffix K, M or G, or a percentage of memory (``"50%"``); None for the kernel's
            default, half of memory.
        inodes: How many files and directories; None for the kernel's default.

    Raises:
        OptionError: One of them is malformed or zero.
    """

    def __init__(self, size: str | int | None = None, inodes: int | None = None) -> None:
        self.size = None if size is None else check_size(size)
        if inodes is not None and (type(inodes) is not int or not 1 <= inodes <= _MOST_INODES):
            raise OptionError(f"the number of inodes of the tmpfs must be from 1 to {_MOST_INODES}, not {inodes!r}")
        self.inodes = None if inodes is None else str(inodes)

        self.options = {key: value for key, value in (("size", self.size), ("nr_inodes", self.inodes)) if value}

    @property
    def mount_options(self) -> str:
        """The options as mount(8) takes them, each with a leading comma."""
        return "".join(f",{key}={value}" for key, value in self.options.items())


def check_size(size: str | int) -> str:
    """Return a tmpfs size as the kernel reads it, or raise OptionError.

    Args:
        size: Bytes; or digits with an optional K, M or G, or 1% to 100%.
    """
    wrong = OptionError(f"the size of the tmpfs, {size!r}, is not a number of bytes such as 64M or 1G, nor 1% to 100%")
    if type(size) is int:
        size = str(size)
    if not isinstance(size, str) or not size.isascii():
        raise wrong
    number, unit = (size, "") if size[-1:].isdigit() else (size[:-1], size[-1:].upper())
    if not number.isdigit() or len(number) > 19:
        raise wrong
    value = int(number)
    if unit == "%":
        if not 1 <= value <= 100:
            raise wrong
    elif unit not in _UNITS or not 1 <= value * _UNITS[unit] <= _LARGEST:
        raise wrong
    return f"{value}{unit}"


def make(limits: Limits, root: str) -> int:
    """Return a descriptor of a new tmpfs, mounted nowhere, with an upper and a work directory for an overlay.

    Args:
        limits: Its size.
        root: The base's root directory, whose owner, mode and attributes the copy's gets.

    Raises:
        UnsupportedError: The kernel cannot, or we may not.
    """
    fd = make_empty(limits)
    try:
        for directory in ("upper", "upper/work", "upper/delta"):
            os.mkdir(directory, 0o700, dir_fd=fd)
        delta = os.open("upper/delta", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
        try:
            copy_attributes(root, delta)
            like = os.stat(root)
            os.utime(delta, ns=(like.st_atime_ns, like.st_mtime_ns))
        finally:
            os.close(delta)
    except OSError as error:
        os.close(fd)
        raise UnsupportedError(f"the tmpfs is too small to hold anything: {error.strerror}") from error
    return fd


def make_empty(limits: Limits) -> int:
    """Return a descriptor of a new tmpfs with nothing in it, mounted nowhere.

    Raises:
        UnsupportedError: The kernel cannot, or we may not.
    """
    try:
        return _raw.new_mount("tmpfs", {"source": "lxccopy", "mode": "0755", **limits.options})
    except OSError as error:
        raise UnsupportedError(f"cannot make a tmpfs (mode=0755{limits.mount_options}): {error.strerror}") from error


def overlay_options(lower: Iterable[str], upper: str, work: str) -> str:
    """Return the options of an overlay mount; none of the paths has a comma, colon or backslash.

    Raises:
        UnsupportedError: The kernel takes no more than a page of them.
    """
    options = f"lowerdir={':'.join(lower)},upperdir={upper},workdir={work}"
    if len(os.fsencode(options)) >= os.sysconf("SC_PAGESIZE"):
        raise UnsupportedError(f"the paths of the layers are too long for an overlay: {options[:80]}...")
    return options


class Layer:
    """A directory that the overlay of a mount needs: its writable layer or its work directory.

    Its owner is the source's, and the mode too, but for all users may enter it: the mode of the writable layer is what
    the copy's users see. In a user namespace it is owned by its root, for nobody else can write it.

    Args:
        source: What the overlay is put on.
        name: The directory's name.
        copy: The container it is for.
    """

    def __init__(self, source: str, name: str, copy: Container) -> None:
        like = os.stat(source)
        self.name = name
        self.mode = stat.S_IMODE(like.st_mode) | 0o555
        self.mapped = bool(copy.config("lxc.idmap"))
        self.owner = mapped_root(copy.config("lxc.idmap")) if self.mapped else (like.st_uid, like.st_gid)


def mapped_root(idmap: str) -> tuple[int, int]:
    """Return the host's ids of a container's root, from lines ``u|g|b CONTAINER HOST COUNT``; ours without any."""
    found = {"u": os.geteuid(), "g": os.getegid()}
    for line in idmap.splitlines():
        kind, inside, outside, _ = line.split()
        if inside == "0":
            found.update(dict.fromkeys("ug" if kind == "b" else kind, int(outside)))
    return found["u"], found["g"]


def make_layers(directory: str, layers: Iterable[Layer]) -> None:
    """Make layers in a directory.

    Raises:
        OSError: One of them cannot be made.
    """
    for layer in layers:
        path = f"{directory}/{layer.name}"
        os.mkdir(path, 0o700)
        os.chown(path, *layer.owner)
        os.chmod(path, layer.mode)


def ensure_mount_point() -> None:
    """Make the host directory that each tmpfs is mounted over, or refuse what somebody else put there.

    Raises:
        UnsupportedError: It is not ours, or cannot be made.
    """
    try:
        with suppress(FileExistsError):
            os.mkdir(MOUNT_POINT, 0o755)
        check_mount_point()
        with suppress(FileExistsError):
            os.symlink(_DEAD_END, os.path.dirname(UPPER))
    except OSError as error:
        raise UnsupportedError(f"cannot make {error.filename2 or error.filename}: {error.strerror}") from error
    check_mount_point()


def check_mount_point() -> None:
    """Refuse what somebody else put where ensure_mount_point() makes something; nothing there yet is fine.

    Raises:
        UnsupportedError: It is not ours.
    """
    upper = os.path.dirname(UPPER)
    if os.path.lexists(MOUNT_POINT):
        found = os.lstat(MOUNT_POINT)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != 0:
            raise UnsupportedError(f"{MOUNT_POINT} is not a directory of root's; remove it")
    if os.path.lexists(upper) and not (os.path.islink(upper) and os.readlink(upper) == _DEAD_END):
        raise UnsupportedError(f"{upper} is not the link to nowhere that we put there; remove it")


def hook_script(directory: str, name: str, limits: Limits, layers: Iterable[Layer] = (), *, keep_name: bool) -> str:
    """Return the text of the pre-mount hook that mounts a tmpfs over a copy's overlay directory.

    For ordinary names and paths this is lxc-copy's script, with ``set -e`` added: without it a failing mount would
    leave the container on disk.

    Args:
        directory: The copy's directory, an absolute path.
        name: The copy's name.
        limits: The size of the tmpfs.
        layers: What else to make on it.
        keep_name: Leave the host name alone.
    """
    import shlex

    lines = ["#! /bin/sh", "set -e", mount_line(directory, limits)]
    if not keep_name:
        etc = shlex.quote(f"{directory}/overlay/delta/etc")
        target = shlex.quote(f"{directory}/overlay/delta/etc/hostname")
        lines += [f"mkdir -p {etc}", f"echo {shlex.quote(name)} > {target}"]
    for layer in layers:
        path = shlex.quote(f"{directory}/overlay/{layer.name}")
        lines += [f"mkdir {path}", f"chmod {layer.mode:o} {path}"]
        if not layer.mapped:
            lines += [f"chown {layer.owner[0]}:{layer.owner[1]} {path}"]
    return "\n".join(lines) + "\n"


def mount_line(directory: str, limits: Limits) -> str:
    """Return the line of a hook that mounts the tmpfs over a copy's overlay directory."""
    import shlex

    return f"mount -n -t tmpfs -o mode=0755{limits.mount_options} none {shlex.quote(f'{directory}/overlay')}"


def carry(directory: str) -> str:
    """Move the writable layer of a copy out of where the tmpfs will hide it; return its new path."""
    carried = f"{directory}/carried"
    os.rename(f"{directory}/overlay/delta", carried)
    os.mkdir(f"{directory}/overlay/delta", 0o755)
    return carried


def write_hook(directory: str, script: str) -> str:
    """Write the hook into a copy's directory under lxc-copy's kind of name; return what lxc.hook.pre-mount shall say.

    Raises:
        OSError: It cannot be written.
    """
    from .names import random_name

    path = f"{directory}/{random_name('pre-start').replace('_', '-')}"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o755)
    with open(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
        os.fchmod(fd, 0o755)
        file.write(script)
    # liblxc runs the value through a shell. No quotes: loading a config file strips them from a value's ends.
    return "".join(
        character if character.isalnum() or character in "_@%+=:,./-" else f"\\{character}" for character in path
    )
