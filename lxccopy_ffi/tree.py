# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writing a root file system from members that nobody vouches for: nothing is written outside, nor through a link.

Every member's directory is looked up below the root's descriptor, without links and mount points on the way, and what
is there already is removed, never opened.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress

from . import identity
from ._raw import NO_MOUNTS, openat2
from .errors import AccessError, LxcCopyError, UnsupportedError
from .removal import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    # The first id on the host, and how many there are.
    Range = tuple[int, int]

# A kind of member beside those of stat.S_IFMT().
HARD_LINK = 0

# Device nodes that a system may expect, and that can do no harm in a container.
_DEVICES = frozenset(
    os.makedev(*numbers) for numbers in ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (10, 229))
)

# Ids without a map: all but -1, which means none.
_ALL_IDS = ((0, (1 << 32) - 1), (0, (1 << 32) - 1))

# Far more than any system has.
_MOST_MEMBERS = 4_000_000

# More than ext4 can have in one file.
_LARGEST = 1 << 44

# What is copied of a member's extended attributes; trusted ones, labels and an overlay's own belong to the host.
_DEFAULT = "system.posix_acl_default"
_ATTRIBUTES = ("security.capability", "system.posix_acl_access", _DEFAULT)

# How layers of an image say what of those below is not there any more.
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"

_FEW = 3


class Member:
    """Something to be made in a root file system.

    Args:
        path: Where, in the source's words.
        kind: HARD_LINK, or one of those of stat.S_IFMT().
        mode: Its mode; bits that are none are ignored.
        owner: The ids of its user and its group.
        time: When it was last changed, in nanoseconds.
        target: Of a symbolic link, its text; of a hard link, the path of the member that it is.
        device: Of a device node, which one.
        size: Of a file, in bytes, with its holes.
        stored: How many of them are not in holes.
        content: The parts of a file that are not in holes, each with its offset.
        attributes: Its extended attributes.
    """

    def __init__(
        self,
        path: str,
        kind: int,
        *,
        mode: int = 0o755,
        owner: tuple[int, int] = (0, 0),
        time: int = 0,
        target: str = "",
        device: int = 0,
        size: int = 0,
        stored: int | None = None,
        content: Iterable[tuple[int, bytes]] = (),
        attributes: dict[str, bytes] | None = None,
    ) -> None:
        self.path = path
        self.kind = kind
        self.mode = mode & 0o7777
        self.owner = owner
        self.time = time
        self.target = target
        self.device = device
        self.size = size
        self.stored = size if stored is None else stored
        self.content = content
        self.attributes = attributes or {}


def inside(path: str) -> str:
    """Return a member's path below the root, as tar understands it: a leading slash does not count.

    Raises:
        UnsupportedError: It leads out of the root.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in path:
        raise UnsupportedError(f"the name {path!r} leads out of the root file system")
    return "/".join(parts)


def is_wanted(attribute: str) -> bool:
    """Whether an extended attribute of this name is copied."""
    return attribute in _ATTRIBUTES or (attribute.startswith("user.") and not attribute.startswith("user.overlay."))


class Tree:
    """A root file system that is being written.

    Args:
        path: Its directory, which nobody else writes to.
        ids: The ranges of users and groups that the system's own are, from 0 on.

    Attributes:
        written: How many bytes have been written.
    """

    def __init__(self, path: str, ids: Sequence[Range] = _ALL_IDS) -> None:
        self._root = identity.open_root(path)
        self._ids = ids
        found = os.statvfs(path)
        self._space = found.f_bavail * found.f_frsize * 9 // 10  # others write there, too
        self._members = min(_MOST_MEMBERS, found.f_favail or _MOST_MEMBERS)
        self._directories: dict[str, Member] = {}
        self._layer: set[str] | None = None
        self._parent = ("", -1)
        self._left_out: list[str] = []
        self._without: list[str] = []
        self.written = 0

    def close(self) -> None:
        """Let go of the directory. Idempotent."""
        self._forget_parent()
        root, self._root = self._root, -1
        if root >= 0:
            os.close(root)

    def begin_layer(self) -> None:
        """What comes now is the next layer of an image, which can also remove what is in those below."""
        self._layer = set()

    def add(self, member: Member) -> None:
        """Make a member, in place of what is there, but for directories, which are merged.

        Raises:
            UnsupportedError: It is one that could do harm, or there is no room for it.
            AccessError: It cannot be written.
        """
        path = inside(member.path)
        self._members -= 1
        if self._members < 0:
            raise UnsupportedError("there are more files in it than fit on the disk")
        try:
            if not path:
                self._dress_root(member)
            elif self._layer is None or not self._whiteout(path, member):
                self._make(path, member)
        except LxcCopyError:
            raise
        except OSError as error:
            raise AccessError(f"cannot write {member.path!r}: {error.strerror}") from error
        except ValueError as error:  # null characters
            raise UnsupportedError(f"{member.path!r} cannot be written: {error}") from error

    def finish(self) -> None:
        """Give directories what could only be given them when all was in them.

        That is their times, and what else would have been handed down.
        """
        self._forget_parent()
        for path, member in self._directories.items():
            with suppress(OSError, UnsupportedError), self._opened(path) as directory:  # it may have been replaced
                opened = f"/proc/self/fd/{directory}"
                if _DEFAULT in member.attributes:
                    self._set_attribute(opened, _DEFAULT, member.attributes[_DEFAULT], member)
                os.utime(opened, ns=(_time(member), _time(member)))

    @property
    def notes(self) -> list[str]:
        """What is worth saying."""
        notes = []
        if self._left_out:
            notes.append(f"{some(self._left_out)} left out: device nodes and sockets that no container needs")
        if self._without:
            notes.append(f"{some(self._without)} without some attributes, which cannot be set here")
        return notes

    def leave_out(self, path: str) -> None:
        """Note that something of the source is not in the tree."""
        self._left_out.append(path)

    def _make(self, path: str, member: Member) -> None:
        if self._layer is not None:
            parts = path.split("/")
            self._layer.update("/".join(parts[: depth + 1]) for depth in range(len(parts)))
        parent, name = self._enter(path)
        if member.kind == stat.S_IFDIR:
            self._make_directory(parent, name, path, member)
        elif member.kind == stat.S_IFREG:
            self._make_file(parent, name, member)
        elif member.kind == stat.S_IFLNK:
            self._remove(parent, name)
            os.symlink(member.target, name, dir_fd=parent)
            os.chown(name, *self._owner(member), dir_fd=parent, follow_symlinks=False)
            time = _time(member)
            os.utime(name, ns=(time, time), dir_fd=parent, follow_symlinks=False)
        elif member.kind == HARD_LINK:
            self._make_hard_link(path, member)
        else:
            self._make_node(parent, name, member)

    def _make_directory(self, parent: int, name: str, path: str, member: Member) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                self._remove(parent, name)
                os.mkdir(name, 0o700, dir_fd=parent)
        self._dress(parent, name, member)
        self._directories[path] = member

    def _make_file(self, parent: int, name: str, member: Member) -> None:
        if not 0 <= member.stored <= member.size <= _LARGEST:
            raise UnsupportedError(f"{member.path!r} has the impossible size {member.size}")
        self._check_space(member.path, member.stored)
        self._remove(parent, name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(name, flags, 0o600, dir_fd=parent)
        try:
            for offset, data in member.content:
                if not 0 <= offset <= offset + len(data) <= member.size:
                    raise UnsupportedError(f"{member.path!r} has more in it than its size, {member.size}")
                self._check_space(member.path, len(data))
                self._space -= len(data)
                self.written += len(data)
                _write_at(file, offset, data)
            os.ftruncate(file, member.size)
        finally:
            os.close(file)
        self._dress(parent, name, member)

    def _check_space(self, path: str, size: int) -> None:
        if size > self._space:
            raise UnsupportedError(f"there is no room for {path!r}: it has {size} bytes, and {self._space} are left")

    def _make_hard_link(self, path: str, member: Member) -> None:
        target = inside(member.target)
        if target == path:
            return  # as tar has them where a file was packed twice
        if not target or not self._is_file(target):
            raise UnsupportedError(f"{member.path!r} is a hard link to {member.target!r}, which is no file in it")
        parent, name = self._enter(path)
        if not target.startswith(f"{path}/"):
            self._remove(parent, name)
        with self._opened(os.path.dirname(target)) as directory:
            source = os.path.basename(target)
            os.link(source, name, src_dir_fd=directory, dst_dir_fd=parent, follow_symlinks=False)

    def _is_file(self, path: str) -> bool:
        """Whether there is something of that path that is no directory."""
        try:
            with self._opened(os.path.dirname(path)) as directory:
                found = os.stat(os.path.basename(path), dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return not stat.S_ISDIR(found.st_mode)

    def _make_node(self, parent: int, name: str, member: Member) -> None:
        if member.kind == stat.S_IFSOCK or not (
            member.kind == stat.S_IFIFO or (member.kind == stat.S_IFCHR and member.device in _DEVICES)
        ):
            self.leave_out(member.path)
            return
        self._remove(parent, name)
        try:
            os.mknod(name, member.kind | 0o600, member.device, dir_fd=parent)
        except PermissionError:
            self.leave_out(member.path)  # nobody but root may, nor in a user namespace
        else:
            self._dress(parent, name, member)

    def _dress_root(self, member: Member) -> None:
        if member.kind != stat.S_IFDIR:
            raise UnsupportedError(f"the root of it, {member.path!r}, is no directory")
        self._dress(self._root, ".", member)
        self._directories["."] = member

    def _dress(self, parent: int, name: str, member: Member) -> None:
        """Give what was just made its owner, mode, attributes and times."""
        time = _time(member)
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            path = f"/proc/self/fd/{fd}"
            os.chown(path, *self._owner(member))
            os.chmod(path, member.mode)
            for key, value in member.attributes.items():
                if key != _DEFAULT:
                    self._set_attribute(path, key, value, member)
            os.utime(path, ns=(time, time))
        finally:
            os.close(fd)

    def _set_attribute(self, path: str, key: str, value: bytes, member: Member) -> None:
        if not is_wanted(key):
            return
        if self._ids is not _ALL_IDS and self._ids[0][0]:
            value = _shifted(key, value, self._ids)
        try:
            os.setxattr(path, key, value)
        except OSError:
            self._without.append(member.path)

    def _owner(self, member: Member) -> tuple[int, int]:
        for number, (_, count) in zip(member.owner, self._ids):
            if not 0 <= number < count:
                raise UnsupportedError(f"{member.path!r} belongs to the id {number}, and there are only {count} ids")
        (user, group), ((first_user, _), (first_group, _)) = member.owner, self._ids
        return first_user + user, first_group + group

    def _enter(self, path: str) -> tuple[int, str]:
        """Return a descriptor of the directory that something is in, made where it is missing, and its name there."""
        directory, _, name = path.rpartition("/")
        if self._parent[1] < 0 or self._parent[0] != directory:
            self._forget_parent()
            try:
                fd = self._open(directory)
            except FileNotFoundError:
                self._make_directories(directory)
                fd = self._open(directory)
            self._parent = directory, fd
        return self._parent[1], name

    def _make_directories(self, path: str) -> None:
        parts = path.split("/")
        for depth, name in enumerate(parts):
            with self._opened("/".join(parts[:depth])) as parent:
                try:
                    os.mkdir(name, 0o700, dir_fd=parent)
                except FileExistsError:
                    continue
                self._dress(parent, name, Member(path, stat.S_IFDIR))

    def _open(self, path: str) -> int:
        """Open a directory of the tree."""
        try:
            return openat2(self._root, path or ".", os.O_PATH | os.O_DIRECTORY, NO_MOUNTS)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise UnsupportedError(
                    f"there are names in it that lead through {path!r}, which is no directory"
                ) from error
            raise

    @contextmanager
    def _opened(self, path: str) -> Iterator[int]:
        fd = self._open(path)
        try:
            yield fd
        finally:
            os.close(fd)

    def _forget_parent(self) -> None:
        fd, self._parent = self._parent[1], ("", -1)
        if fd >= 0:
            os.close(fd)

    def _remove(self, parent: int, name: str) -> None:
        """Remove what is there, without following it."""
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            pass
        except IsADirectoryError:
            remove_tree(f"/proc/self/fd/{parent}/{name}")

    # Layers

    def _whiteout(self, path: str, member: Member) -> bool:
        """Do what a member of a layer says of those below it, and return whether it said anything."""
        directory, _, name = path.rpartition("/")
        if member.kind == stat.S_IFCHR and member.device == 0:
            self._hide(path)
        elif name == _OPAQUE:
            self._hide_all(directory)
        elif name.startswith(_WHITEOUT):
            hidden = name[len(_WHITEOUT) :]
            if hidden in ("", ".", ".."):
                raise UnsupportedError(f"the name {member.path!r} leads out of the root file system")
            if not hidden.startswith(_WHITEOUT):  # otherwise it is some tool's own
                self._hide(f"{directory}/{hidden}" if directory else hidden)
        else:
            return False
        return True

    def _hide(self, path: str) -> None:
        """Remove something that is in layers below."""
        if path in (self._layer or ()):
            self._hide_all(path)
            return
        try:
            with self._opened(os.path.dirname(path)) as directory:
                self._remove(directory, os.path.basename(path))
        except FileNotFoundError:
            pass
        self._forget_parent()

    def _hide_all(self, path: str) -> None:
        """Remove from a directory what is in it in layers below, but not what is there of this one."""
        pending = [path]
        while pending:
            path = pending.pop()
            try:
                fd = openat2(self._root, path or ".", os.O_DIRECTORY, NO_MOUNTS)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    continue
                raise
            try:
                for name in os.listdir(fd):
                    child = f"{path}/{name}" if path else name
                    if child in (self._layer or ()):
                        pending.append(child)
                    else:
                        self._remove(fd, name)
            finally:
                os.close(fd)
        self._forget_parent()


def _write_at(file: int, offset: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        done = os.pwrite(file, rest, offset)
        rest, offset = rest[done:], offset + done


def _time(member: Member) -> int:
    """A time that every file system can have."""
    latest = (1 << 33) * 10**9
    return min(max(-latest, member.time), latest)


def some(paths: Sequence[str]) -> str:
    """Return the first few of some paths, in one line."""
    shown = ", ".join(f"{path!r}" for path in paths[:_FEW])
    return shown if len(paths) <= _FEW else f"{shown} and {len(paths) - _FEW} more"


def _shifted(key: str, value: bytes, ids: Sequence[Range]) -> bytes:
    """An extended attribute with the ids in it as they are on the host."""
    import struct

    if key == "security.capability":
        revision_2, revision_3, revision_mask = 0x02000000, 0x03000000, 0xFF000000
        if len(value) != 20:
            return value
        (magic,) = struct.unpack_from("<I", value)
        if magic & revision_mask != revision_2:
            return value
        return struct.pack("<I", magic & ~revision_mask | revision_3) + value[4:] + struct.pack("<I", ids[0][0])
    if not key.startswith("system.posix_acl_") or len(value) % 8 != 4:
        return value
    named = {0x02: ids[0], 0x08: ids[1]}
    shifted = value[:4]
    for tag, rights, number in struct.iter_unpack("<HHI", value[4:]):
        first, count = named.get(tag, (0, 0))
        shifted += struct.pack("<HHI", tag, rights, first + number if number < count else number)
    return shifted
