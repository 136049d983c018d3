# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reading a directory as members of a root file system: through no link and no mount point."""

from __future__ import annotations

import errno
import os
import stat

from . import identity
from ._raw import NO_MOUNTS, openat2
from .errors import AccessError
from .tree import HARD_LINK, Member, is_wanted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_BLOCK = 1 << 20

# What st_blocks counts.
_SECTOR = 512


def ignore(_: str) -> None:
    """Take no notice of a mount point."""


def members(top: str, note: Callable[[str], None] = ignore) -> Iterator[Member]:
    """Yield what is in a directory, itself first, each to be used before the next one.

    Args:
        top: The directory.
        note: Gets the path of each mount point; of what is mounted there nothing is copied.

    Raises:
        AccessError: Something cannot be read.
    """
    root = identity.open_root(top)
    links: dict[tuple[int, int], str] = {}
    pending = [""]
    try:
        while pending:
            path = pending.pop()
            try:
                directory = openat2(root, path or ".", os.O_DIRECTORY, NO_MOUNTS)
            except OSError as error:
                if error.errno == errno.EXDEV:
                    note(path)
                    yield Member(path, stat.S_IFDIR)
                elif error.errno not in _GONE:
                    raise _unreadable(top, path, error) from error
                continue
            try:
                yield _member(directory, ".", path, os.fstat(directory))
                for name in sorted(os.listdir(directory), reverse=True):
                    child = f"{path}/{name}" if path else name
                    try:
                        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
                        if stat.S_ISDIR(found.st_mode):
                            pending.append(child)
                            continue
                        first = links.setdefault((found.st_dev, found.st_ino), child) if found.st_nlink > 1 else child
                        member = (
                            Member(child, HARD_LINK, target=first)
                            if first != child
                            else _member(directory, name, child, found)
                        )
                    except OSError as error:
                        if error.errno in _GONE:
                            continue
                        raise _unreadable(top, child, error) from error
                    yield member
            finally:
                os.close(directory)
    finally:
        os.close(root)


# What a file or directory says that has been removed or replaced meanwhile, as in a system that runs.
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def _unreadable(top: str, path: str, error: OSError) -> AccessError:
    return AccessError(f"cannot read {top}/{path}: {error.strerror}")


def _member(directory: int, name: str, path: str, found: os.stat_result) -> Member:
    kind = stat.S_IFMT(found.st_mode)
    is_file = kind == stat.S_IFREG
    return Member(
        path,
        kind,
        mode=stat.S_IMODE(found.st_mode),
        owner=(found.st_uid, found.st_gid),
        time=found.st_mtime_ns,
        target=os.readlink(name, dir_fd=directory) if kind == stat.S_IFLNK else "",
        device=found.st_rdev,
        size=found.st_size if is_file else 0,
        stored=min(found.st_size, found.st_blocks * _SECTOR) if is_file else 0,
        content=_content(directory, name, path, found.st_size) if is_file else (),
        attributes=_attributes(f"/proc/self/fd/{directory}/{name}"),
    )


def _attributes(path: str) -> dict[str, bytes]:
    try:
        names = [name for name in os.listxattr(path, follow_symlinks=False) if is_wanted(name)]
        return {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENODATA):
            return {}
        raise


def _content(directory: int, name: str, path: str, size: int) -> Iterator[tuple[int, bytes]]:
    """The parts of a file that are not in holes, up to the size that it had."""
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError as error:
        raise AccessError(f"cannot read {path}: {error.strerror}") from error
    try:
        begin = end = 0
        while begin < size:
            if begin >= end:
                try:
                    begin = os.lseek(file, begin, os.SEEK_DATA)
                    end = min(size, os.lseek(file, begin, os.SEEK_HOLE))
                except OSError as error:
                    if error.errno == errno.ENXIO:
                        return  # there are only holes
                    raise AccessError(f"cannot read {path}: {error.strerror}") from error
            data = os.pread(file, min(_BLOCK, end - begin), begin)
            if not data:
                return  # it has become shorter
            yield begin, data
            begin += len(data)
    finally:
        os.close(file)
