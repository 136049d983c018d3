# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a base is made from: a directory, an archive of a root file system, or an image."""

from __future__ import annotations

import os
import stat
import time

from . import archive, copying, systems
from ._raw import above_stdio
from .errors import AccessError, LxcCopyError, OptionError, UnsupportedError
from .names import check_file
from .oci import Image, is_image
from .removal import remove_tree
from .tree import Member, Tree, some
from .userns import tell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import IO

    from .names import StrPath
    from .tree import Range

    Progress = Callable[[int, int], None]

# What liblxc mounts on.
_MOUNT_POINTS = ("dev", "proc", "sys")

_INTERVAL = 0.2

# What the kernel shows where an id is not mapped.
_OVERFLOW = 65534


def check(source: StrPath, lxcpath: str) -> str:
    """Return the path of what a base is made from, made absolute, or refuse it.

    Args:
        source: A directory, or a file.
        lxcpath: Where the base will be.

    Raises:
        OptionError: It is not there, or is none of what a base can be made from.
        AccessError: It cannot be read.
        UnsupportedError: It is broken, has no room on the disk, or a program for it is missing.
    """
    path = check_file(source, "source of a base")
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
        if kind == stat.S_IFDIR:
            _check_directory(path, lxcpath)
        elif kind == stat.S_IFREG:
            with _open(path) as file:
                archive.check(file, path)
        else:
            raise OptionError(f"{path} is neither a directory nor a file; a stream has to be saved first")
    except LxcCopyError:
        raise
    except FileNotFoundError as error:
        raise OptionError(f"{error.filename} does not exist") from error
    except OSError as error:
        raise AccessError(f"cannot read {error.filename or path}: {error.strerror}") from error
    return path


def _check_directory(path: str, lxcpath: str) -> None:
    if is_image(path):
        Image(path)
        return
    ours, theirs = os.path.realpath(lxcpath), os.path.realpath(path)
    if os.path.commonpath([ours, theirs]) == theirs:
        raise OptionError(f"{path} cannot be copied into itself, to {lxcpath}")
    total = _measure(path)
    while not os.path.exists(ours):
        ours = os.path.dirname(ours)
    disk = os.statvfs(ours)
    if total > disk.f_bavail * disk.f_frsize:
        raise UnsupportedError(f"there is no room in {lxcpath} for the {total} bytes of {path}")


def _open(path: str) -> IO[bytes]:
    return open(above_stdio(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)), "rb", buffering=0)


def _measure(path: str) -> int:
    return sum(member.stored for member in copying.members(path))


def unpack(
    path: str,
    directory: str,
    ids: Sequence[Range] | None = None,
    progress: Progress | None = None,
    *,
    adopt: bool = False,
) -> tuple[list[str], list[str]]:
    """Make a container's root file system.

    Args:
        path: What from, as Source has checked it.
        directory: The container's directory.
        ids: The ranges of users and groups that the system's own are; those of the host where None.
        progress: Called a few times a second with how many bytes are done, and how many there are.
        adopt: Give root what belongs to nobody of these in a directory.

    Returns:
        What systems.look() found, and what is worth saying.

    Raises:
        UnsupportedError: There is something in it that could do harm, or it is broken.
        AccessError: Something cannot be read or written.
        OSError: The same.
    """
    rootfs = f"{directory}/rootfs"
    report = _Report(progress)
    notes = _fill(path, rootfs, ids, report, adopt=adopt)
    if not os.path.isdir(path) and is_image(rootfs):  # what docker save wrote
        image = f"{directory}/image"
        os.rename(rootfs, image)
        notes = _fill(image, rootfs, ids, report)
        remove_tree(image)
    found = systems.look(rootfs)
    return found, [*notes, *systems.warnings(found)]


def unpack_mapped(path: str, directory: str, ids: Sequence[Range], caller: int) -> tuple[list[str], list[str]]:
    """The same as root of a user namespace, for a directory which the group of the host's user may still write.

    Args:
        path: See unpack().
        directory: See unpack().
        ids: See unpack().
        caller: The process that wants it; without it nobody does.
    """
    os.chown(directory, 0, -1)

    def tell_caller(done: int, total: int) -> None:
        if os.getppid() != caller:
            raise UnsupportedError("nobody waits for it any more")
        tell(done, total)

    return unpack(path, directory, ids, tell_caller, adopt=True)


class _Report:
    """Tells how far it is, a few times a second."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._next = 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._progress is not None and now >= self._next:
            self._next = now + _INTERVAL
            self._progress(min(done, total), total)


def _fill(path: str, rootfs: str, ids: Sequence[Range] | None, report: _Report, *, adopt: bool = False) -> list[str]:
    """Make a root file system and return what is worth saying."""
    os.mkdir(rootfs, 0o755)
    tree = Tree(rootfs) if ids is None else Tree(rootfs, ids)
    try:
        tree.add(Member("/", stat.S_IFDIR, time=time.time_ns()))
        notes = []
        if not os.path.isdir(path):
            _add_archive(path, tree, report)
        elif is_image(path):
            _add_image(path, tree, report)
        else:
            notes = _add_directory(path, tree, report, ids if adopt else None)
        for name in _MOUNT_POINTS:
            if not os.path.lexists(f"{rootfs}/{name}"):
                tree.add(Member(name, stat.S_IFDIR, time=time.time_ns()))
        tree.finish()
        return notes + tree.notes
    finally:
        tree.close()


def _add_archive(path: str, tree: Tree, report: _Report) -> None:
    with _open(path) as file:
        _add_members(file, path, tree, lambda done: report(done, os.fstat(file.fileno()).st_size))


def _add_image(path: str, tree: Tree, report: _Report) -> None:
    image = Image(path)
    before = 0
    for layer in image.layers:
        tree.begin_layer()
        with image.open(layer) as file:

            def count(done: int, before: int = before) -> None:
                report(before + done, image.size)

            _add_members(file, f"{path}/{layer}", tree, count)
            before += os.fstat(file.fileno()).st_size


def _add_members(file: IO[bytes], path: str, tree: Tree, report: Callable[[int], None]) -> None:
    def tell() -> None:
        report(os.lseek(file.fileno(), 0, os.SEEK_CUR))

    with archive.opened(file, path) as stream:
        for member in archive.members(stream, path):
            member.content = _watched(member.content, tell)
            tree.add(member)
            tell()


def _add_directory(path: str, tree: Tree, report: _Report, ids: Sequence[Range] | None) -> list[str]:
    """Add what is in a directory; with ids, root gets what belongs to none of them."""
    total = _measure(path)
    mounted: list[str] = []

    def tell() -> None:
        report(tree.written, total)

    for member in copying.members(path, mounted.append):
        if ids is not None:
            (_, users), (_, groups) = ids
            user, group = member.owner
            member.owner = (user if _is_mapped(user, users) else 0, group if _is_mapped(group, groups) else 0)
        member.content = _watched(member.content, tell)
        tree.add(member)
        tell()
    return [f"what is mounted on {some(mounted)} in {path} is not copied"] if mounted else []


def _is_mapped(number: int, count: int) -> bool:
    return number < count and number != _OVERFLOW


def _watched(content: Iterable[tuple[int, bytes]], tell: Callable[[], None]) -> Iterator[tuple[int, bytes]]:
    for part in content:
        yield part
        tell()
