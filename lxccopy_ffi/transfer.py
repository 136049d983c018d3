# SPDX-License-Identifier: LGPL-2.1-or-later
"""Files and trees into a running container and out of it, with modes, owners, times and links.

Every name is looked up in a directory that is held open, and no link on the way is followed but for those in the path
that was asked for, which stay within the container. What is copied is never opened for writing: a new file takes the
place of an old one.
"""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack, suppress

from . import notices
from ._raw import IN_ROOT, NO_LINKS, openat2
from .accounts import check_id, look_up
from .errors import OptionError, UnsupportedError
from .identity import open_root
from .inside import root_of
from .names import check_file, check_words, random_suffix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .accounts import Id
    from .container import Container
    from .names import StrPath

    Owner = Callable[[os.stat_result], tuple[int, int]]

_CHUNK = 1 << 20
_ALL_MODES = 0o7777
_PERMISSIONS = 0o1777  # without those that let a program run as its owner or group
_NOBODY = 65534


def put(container: Container, source: StrPath, target: StrPath, owner: Id | None = None) -> None:
    """Copy a file or a tree of the host's into a running container.

    Args:
        container: The container.
        source: The host's path. A link is copied as such.
        target: The path in the container: a directory to put it in, or its new name in one.
        owner: Whose it is, a ``USER``, ``USER:GROUP`` or number of the container's; root where None.

    Raises:
        OptionError: An argument is not allowed; nothing was copied.
        UnsupportedError: We are not root.
        LiblxcError: The container does not run.
        OSError: A file cannot be read or written.
    """
    path, place = check_file(source, "source"), _check_inside(target, "target")
    user, group = check_owner(owner)
    name = os.path.basename(path)
    if not name:
        raise OptionError("source: the host's root directory is not copied")
    os.lstat(path)
    if os.geteuid() != 0:
        raise UnsupportedError(
            "only root can put files into a copy from outside; let a command read them: run(input=...)"
        )
    with ExitStack() as stack:
        root = _held(stack, root_of(container))
        ids = (0, 0)
        if owner is not None:
            account = look_up(container, user, group)
            ids = account.uid, account.gid
        maps = _Maps(container)
        outside = maps.to_host(ids)
        source_directory = _held(stack, open_root(os.path.dirname(path)))
        directory, new_name = _target_inside(root, place, name, stack)
        _Copier(lambda _: outside, _ALL_MODES).copy(source_directory, name, directory, new_name)


def get(container: Container, source: StrPath, target: StrPath) -> None:
    """Copy a file or a tree out of a running container.

    Args:
        container: The container.
        source: The path in the container. A link is copied as such, and never followed on the host.
        target: The host's path: a directory to put it in, or its new name in one.

    Raises:
        OptionError: An argument is not allowed; nothing was copied.
        LiblxcError: The container does not run.
        OSError: A file cannot be read or written.
    """
    place, path = _check_inside(source, "source"), check_file(target, "target")
    name = os.path.basename(place)
    parent, new_name = (path, name) if os.path.isdir(path) else os.path.split(path)
    if not name or not new_name:
        raise OptionError(f"source: {place!r} has no name, and {path!r} is a directory; give it a new name")
    with ExitStack() as stack:
        root = _held(stack, root_of(container))
        directory = _parent_inside(root, place, stack)
        _find(directory, name, place)
        host_directory = _held(stack, open_root(parent))
        maps = _Maps(container)

        def owner(status: os.stat_result) -> tuple[int, int]:
            return maps.to_container((status.st_uid, status.st_gid)) if os.geteuid() == 0 else (-1, -1)

        # A program of the container's that runs as its owner shall not do so on the host.
        _Copier(owner, _PERMISSIONS).copy(directory, name, host_directory, new_name)


def check_owner(owner: Id | None) -> tuple[Id | None, Id | None]:
    """Return the user and the group of ``USER:GROUP``, or raise OptionError."""
    user, colon, group = owner.partition(":") if isinstance(owner, str) else (owner, "", "")
    return check_id("owner", user), check_id("owner", group) if colon else None


def _check_inside(path: StrPath, what: str) -> str:
    """A path in a container, absolute and without ``.`` and ``..`` at its end."""
    text = check_words(what, [path])[0]  # type: ignore[list-item]
    if not text.startswith("/"):
        raise OptionError(f"{what} must be an absolute path in the container, not {text!r}")
    return os.path.normpath(text)


def _held(stack: ExitStack, fd: int) -> int:
    stack.callback(os.close, fd)
    return fd


def _find(directory: int, name: str, path: str) -> None:
    """Fail where it is not there, with the whole path in the error."""
    try:
        os.stat(name or ".", dir_fd=directory, follow_symlinks=False)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, path) from None


def _target_inside(root: int, place: str, name: str, stack: ExitStack) -> tuple[int, str]:
    """The directory to put something in, and its name there."""
    try:
        return _held(stack, openat2(root, place, os.O_PATH | os.O_DIRECTORY, IN_ROOT)), name
    except (FileNotFoundError, NotADirectoryError):
        return _parent_inside(root, place, stack), os.path.basename(place)


def _parent_inside(root: int, place: str, stack: ExitStack) -> int:
    """The directory that something in the container is in; the whole path is in its errors."""
    try:
        return _held(stack, openat2(root, os.path.dirname(place), os.O_PATH | os.O_DIRECTORY, IN_ROOT))
    except OSError as error:
        raise type(error)(error.errno, error.strerror, place) from None


class _Maps:
    """The ids of a container and of the host, as the kernel has them for its init."""

    def __init__(self, container: Container) -> None:
        self._maps = [list(_ranges(f"/proc/{container.init_pid}/{kind}_map")) for kind in ("uid", "gid")]

    def to_host(self, ids: tuple[int, int]) -> tuple[int, int]:
        """The host's numbers of a user and a group of the container."""
        user, group = (_mapped(one, ranges, "owner") for one, ranges in zip(ids, self._maps))
        return user, group

    def to_container(self, ids: tuple[int, int]) -> tuple[int, int]:
        """The container's numbers of a user and a group of the host; those of nobody where it has none."""
        back = [[(outside, inside, count) for inside, outside, count in ranges] for ranges in self._maps]
        user, group = (_mapped(one, ranges) for one, ranges in zip(ids, back))
        return user, group


def _ranges(path: str) -> Iterator[tuple[int, int, int]]:
    with open(path, encoding="ascii") as file:
        for line in file:
            inside, outside, count = map(int, line.split())
            yield inside, outside, count


def _mapped(number: int, ranges: list[tuple[int, int, int]], what: str = "") -> int:
    for start, there, count in ranges:
        if start <= number < start + count:
            return there + number - start
    if what:
        raise OptionError(f"{what}: the container's ids do not reach to {number}")
    return _NOBODY


class _Copier:
    """Copies what has a name in one directory to a name in another one; both are descriptors.

    Args:
        owner: Whose the copy of what has a status is.
        modes: The bits of a mode that are kept.
    """

    def __init__(self, owner: Owner, modes: int) -> None:
        self._owner = owner
        self._modes = modes

    def copy(self, source: int, name: str, target: int, new_name: str) -> None:
        """Copy it. An existing file is replaced, and a directory filled."""
        status = os.stat(name or ".", dir_fd=source, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            self._copy_directory(source, name, target, new_name)
        elif stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
            self._replace(source, name, target, new_name)
        else:
            notices.warn(f"{name!r} is neither a file, a directory nor a link, and is not copied")

    def _copy_directory(self, source: int, name: str, target: int, new_name: str) -> None:
        with ExitStack() as stack:
            flags = os.O_RDONLY | os.O_DIRECTORY
            old = _held(stack, openat2(source, name or ".", flags, NO_LINKS))
            made = True
            try:
                os.mkdir(new_name, 0o700, dir_fd=target)
            except FileExistsError:
                made = False
            new = _held(stack, openat2(target, new_name, flags, NO_LINKS))
            for entry in os.listdir(old):
                self.copy(old, entry, new, entry)
            if made:
                self._set(new, os.fstat(old))

    def _replace(self, source: int, name: str, target: int, new_name: str) -> None:
        """Copy a file or a link beside its place, and move it there."""
        beside = f".lxccopy-{random_suffix()}"
        try:
            old = openat2(source, name, os.O_PATH | os.O_NOFOLLOW, NO_LINKS)
            try:
                if not self._copy_beside(old, target, beside):
                    return
            finally:
                os.close(old)
            os.rename(beside, new_name, src_dir_fd=target, dst_dir_fd=target)
        except BaseException:
            with suppress(OSError):
                os.unlink(beside, dir_fd=target)
            raise

    def _copy_beside(self, old: int, target: int, name: str) -> bool:
        """Make a new file or link; False where it has become another kind of thing just now."""
        status = os.fstat(old)
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink("", dir_fd=old), name, dir_fd=target)
            os.chown(name, *self._owner(status), dir_fd=target, follow_symlinks=False)
            os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=target, follow_symlinks=False)
            return True
        if not stat.S_ISREG(status.st_mode):
            return False
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with open(openat2(target, name, flags, NO_LINKS, 0o600), "wb", buffering=0) as new:
            _copy_content(old, new.fileno())
            self._set(new.fileno(), status)
        return True

    def _set(self, fd: int, status: os.stat_result) -> None:
        """Owner, mode and times, in this order, as each may change what follows."""
        os.fchown(fd, *self._owner(status))
        os.fchmod(fd, stat.S_IMODE(status.st_mode) & self._modes)
        os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))


def _copy_content(old: int, new: int) -> None:
    with open(f"/proc/self/fd/{old}", "rb", buffering=0) as file:
        while block := file.read(_CHUNK):
            rest = memoryview(block)
            while rest:
                rest = rest[os.write(new, rest) :]
