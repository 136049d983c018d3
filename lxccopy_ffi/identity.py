# SPDX-License-Identifier: LGPL-2.1-or-later
"""The files by which a system knows itself: host name, hosts, machine id.

liblxc writes /etc/hostname through symbolic links, as root, on the host (SPEC B8). Here every path is looked up below
the root file system it belongs to, and only regular files are touched.
"""

from __future__ import annotations

import os
import stat

from . import _raw
from ._raw import IN_ROOT, NO_LINKS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Optional

    Edit = Callable[[bytes], Optional[bytes]]

# None of these files is ever this big; a hostile one must not fill our memory.
_LARGEST = 1 << 20


def open_root(path: str) -> int:
    """Return a descriptor of a root file system's directory."""
    return _raw.above_stdio(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))


def personalise(top: int, lower: Sequence[int], name: str) -> None:
    """Give a copy its own host name, its own line in hosts and its own machine id, where its base has them.

    Args:
        top: A descriptor of the directory to write to: a copy's root file system, or the upper layer of its overlay.
        lower: Descriptors of the overlay's lower layers, topmost first; empty for a plain root file system.
        name: The copy's name.

    Raises:
        OSError: A file could not be written.

    Reproduces: lxccontainer.c:clone_update_rootfs(). Differs: hosts and machine-id too, links never lead outside.
    """
    machine_id = _new_machine_id()

    def edit_machine_id(old: bytes) -> bytes | None:
        return machine_id if _is_machine_id(old) else None

    _edit(top, lower, "etc/hostname", lambda _: name.encode() + b"\n")
    _edit(top, lower, "etc/hosts", lambda old: _edit_hosts(old, name.encode()))
    _edit(top, lower, "etc/machine-id", edit_machine_id)
    # Mostly a link to the one in /etc; some systems have two files.
    _edit(top, lower, "var/lib/dbus/machine-id", edit_machine_id, flags=os.O_NOFOLLOW)


def _new_machine_id() -> bytes:
    """A random id in the format of machine-id(5): a version 4 UUID without dashes."""
    value = bytearray(os.urandom(16))
    value[6] = value[6] & 0x0F | 0x40
    value[8] = value[8] & 0x3F | 0x80
    return value.hex().encode() + b"\n"


def _is_machine_id(text: bytes) -> bool:
    """Whether it is one: an empty file or "uninitialized" shall stay for the system's first boot to fill."""
    digits = text.strip()
    return len(digits) == 32 and all(digit in b"0123456789abcdef" for digit in digits)


def _edit_hosts(old: bytes, name: bytes) -> bytes | None:
    lines = old.split(b"\n")
    edited = [b"127.0.1.1\t" + name if line.split()[:1] == [b"127.0.1.1"] else line for line in lines]
    return b"\n".join(edited) if edited != lines else None


def _edit(top: int, lower: Sequence[int], path: str, edit: Edit, flags: int = 0) -> None:
    """Rewrite one file of the merged layers; the result goes to the topmost one. What is not there stays away."""
    for layer in (top, *lower):
        try:
            fd = _raw.openat2(layer, path, os.O_PATH | flags, IN_ROOT)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return  # a loop of links, a name too long: not a file that anybody reads
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST:
                return  # also an overlay's whiteout, a device
            with open(f"/proc/self/fd/{fd}", "rb") as file:
                new = edit(file.read())
            if new is None:
                return
            if layer == top:
                with open(f"/proc/self/fd/{fd}", "wb") as file:
                    file.write(new)
            else:
                try:
                    _write_above(top, layer, _real_path(layer, fd), found, new)
                except (FileExistsError, NotADirectoryError):
                    return  # the top layer hides the directory: the file is not there for the container either
        finally:
            os.close(fd)
        return


def _real_path(layer: int, fd: int) -> str:
    """Where an open file is below its layer, with every link resolved."""
    return os.path.relpath(os.readlink(f"/proc/self/fd/{fd}"), os.readlink(f"/proc/self/fd/{layer}"))


def _write_above(top: int, layer: int, path: str, like: os.stat_result, content: bytes) -> None:
    """Write a file into the top layer; it and the directories made for it get mode and owner of those below."""
    parents = path.split("/")[:-1]
    directories = ["/".join(parents[: depth + 1]) for depth in range(len(parents))]
    below = [(directory, _make_directory(top, layer, directory)) for directory in directories]
    fd = _raw.openat2(top, path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, NO_LINKS, 0o600)
    with open(fd, "wb") as file:
        os.fchown(fd, like.st_uid, like.st_gid)
        os.fchmod(fd, stat.S_IMODE(like.st_mode))
        file.write(content)
    for directory, likeness in reversed(below):
        if likeness is None:
            continue
        fd = _raw.openat2(top, directory, os.O_DIRECTORY, NO_LINKS)
        try:
            os.utime(fd, ns=(likeness.st_atime_ns, likeness.st_mtime_ns))
        finally:
            os.close(fd)


def _make_directory(top: int, layer: int, path: str) -> os.stat_result | None:
    """Make a directory of the top layer like the one below; return what that is like, or None if it was there."""
    parent, _, name = path.rpartition("/")
    below = _raw.openat2(layer, path, os.O_PATH | os.O_DIRECTORY, NO_LINKS)
    above = _raw.openat2(top, parent or ".", os.O_PATH | os.O_DIRECTORY, NO_LINKS)
    try:
        like = os.fstat(below)
        try:
            os.mkdir(name, 0o700, dir_fd=above)
        except FileExistsError:
            return None
        fd = _raw.openat2(above, name, os.O_DIRECTORY, NO_LINKS)
        try:
            os.fchown(fd, like.st_uid, like.st_gid)
            os.fchmod(fd, stat.S_IMODE(like.st_mode))
        finally:
            os.close(fd)
        return like
    finally:
        os.close(below)
        os.close(above)
