# SPDX-License-Identifier: LGPL-2.1-or-later
"""The files by which a system knows itself: host name, hosts, machine id.

liblxc writes /etc/hostname through symbolic links, as root, on the host (SPEC B8). Here every path is looked up below
the root file system it belongs to, and only regular files are touched.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress

from . import _raw
from ._raw import IN_ROOT, NO_LINKS
from .names import random_suffix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Optional

    Edit = Callable[[bytes], Optional[bytes]]
    Write = Callable[[int, bytes], None]

# None of these files is ever this big; a hostile one must not fill our memory.
_LARGEST = 1 << 20

# As the kernel counts them in one path.
_MOST_LINKS = 40


def open_root(path: str) -> int:
    """Return a descriptor of a root file system's directory."""
    return _raw.above_stdio(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))


def resolve(root: int, path: str) -> str:
    """Return a path in a root file system with its symbolic links replaced by what they lead to; it need not exist.

    Args:
        root: A descriptor of the root directory.
        path: An absolute path without ``.`` and ``..``.

    Raises:
        OSError: It leads through a file, or in a circle.
    """
    pending = path.strip("/").split("/")
    done: list[str] = []
    links = 0
    while pending:
        part = pending.pop(0)
        if part == "..":  # of a link's text
            del done[-1:]
        if part in ("", ".", ".."):
            continue
        try:
            with _opened(root, "/".join(done) or ".", os.O_PATH) as directory:
                link = os.readlink(part, dir_fd=directory)
        except OSError as error:
            # It is no link, or it is not there, and nor is what follows; but ".." may lead back from it.
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                raise OSError(error.errno, error.strerror, path) from error
            done.append(part)
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        pending[:0] = link.split("/")
        if link.startswith("/"):
            done.clear()
    return "/" + "/".join(done)


def personalise(root: int, name: str, *, fresh_id: bool = True) -> None:
    """Give a system its own host name, its own line in hosts and its own machine id, where it has these files.

    Args:
        root: A descriptor of its root directory.
        name: The host name.
        fresh_id: Whether to make a machine id.

    Raises:
        OSError: A file could not be written.

    Reproduces: lxccontainer.c:clone_update_rootfs(). Differs: hosts and machine-id too, links never lead outside.
    """
    for path, edit, flags in _edits(name, fresh_id=fresh_id):
        _edit(root, path, edit, flags, _overwrite)


def personalise_above(top: int, lower: int, name: str, *, fresh_id: bool = True) -> None:
    """Do the same for an overlay that is not mounted yet, by writing what is different into its upper layer.

    Args:
        top: A descriptor of the upper layer, which is empty.
        lower: A descriptor of the only lower layer, which stays as it is.
        name: The host name.
        fresh_id: Whether to make a machine id.

    Raises:
        OSError: A file could not be written.
    """
    for path, edit, flags in _edits(name, fresh_id=fresh_id):
        _edit(lower, path, edit, flags, lambda fd, new: _write_above(top, lower, fd, new))


def new_files(lower: int, name: str) -> dict[str, bytes]:
    """Return what personalise_above() would write, by the path of each file, which leads through no link.

    Raises:
        OSError: A file could not be read.
    """
    files: dict[str, bytes] = {}
    for path, edit, flags in _edits(name, fresh_id=True):
        _edit(lower, path, edit, flags, lambda fd, new: files.update({_path_below(lower, fd): new}))
    return files


def _path_below(root: int, fd: int) -> str:
    return os.path.relpath(os.readlink(f"/proc/self/fd/{fd}"), os.readlink(f"/proc/self/fd/{root}"))


def _edits(name: str, *, fresh_id: bool) -> tuple[tuple[str, Edit, int], ...]:
    machine_id = _new_machine_id()
    old_names: list[bytes] = []

    def edit_hostname(old: bytes) -> bytes:
        old_names.extend(old.split()[:1])
        return name.encode() + b"\n"

    def edit_machine_id(old: bytes) -> bytes | None:
        return machine_id if fresh_id and _is_machine_id(old) else None

    return (
        ("etc/hostname", edit_hostname, 0),
        ("etc/hosts", lambda old: _edit_hosts(old, old_names, name.encode()), 0),
        ("etc/machine-id", edit_machine_id, 0),
        # Mostly a link to the one in /etc; some systems have two files.
        ("var/lib/dbus/machine-id", edit_machine_id, os.O_NOFOLLOW),
    )


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


def _edit_hosts(old: bytes, old_names: list[bytes], name: bytes) -> bytes | None:
    lines = old.split(b"\n")
    edited = [_edit_hosts_line(line, old_names, name) for line in lines]
    return b"\n".join(edited) if edited != lines else None


def _edit_hosts_line(line: bytes, old_names: list[bytes], name: bytes) -> bytes:
    """The line of 127.0.1.1 with the old host name replaced, also before a domain, or else with the new one added."""
    entry, hash_sign, comment = line.partition(b"#")
    address, *words = entry.split() or [b""]
    if address != b"127.0.1.1":
        return line
    if not old_names:  # nobody knows which of them was the host's
        return b"127.0.1.1\t" + name
    edited = []
    for word in words:
        host, dot, domain = word.partition(b".")
        edited.append(name + dot + domain if host in old_names else word)
    if edited == words and name not in words:
        edited.append(name)
    return b"127.0.1.1\t" + b" ".join(edited) + (b" #" + comment if hash_sign else b"")


def _edit(root: int, path: str, edit: Edit, flags: int, write: Write) -> None:
    """Let one regular file of a root file system be written anew; what is not there, or is none, stays as it is."""
    try:
        fd = _raw.openat2(root, path, os.O_PATH | flags, IN_ROOT)
    except OSError:
        return  # not there, or a loop of links: not a file that anybody reads
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST:
            return
        with open(f"/proc/self/fd/{fd}", "rb") as file:
            new = edit(file.read())
        if new is not None:
            write(fd, new)
    finally:
        os.close(fd)


def _overwrite(fd: int, content: bytes) -> None:
    """Not emptied first: at no time is there nothing."""
    file = _raw.above_stdio(os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_CLOEXEC))
    try:
        _raw.write_all(file, content)
        os.ftruncate(file, len(content))
    finally:
        os.close(file)


def read_all(root: int) -> dict[str, bytes]:
    """Return what the files of a system are now that personalise() changes, by their paths."""
    files: dict[str, bytes] = {}
    for path, _, flags in _edits("", fresh_id=False):

        def remember(old: bytes, path: str = path) -> None:
            files[path] = old

        _edit(root, path, remember, flags, _overwrite)
    return files


def write_all(root: int, files: dict[str, bytes]) -> None:
    """Give files the content that they had, where it is another one now.

    Raises:
        OSError: One of them could not be written.
    """
    for path, content in files.items():

        def revert(now: bytes, content: bytes = content) -> bytes | None:
            return content if now != content else None

        _edit(root, path, revert, 0, _overwrite)


def _write_above(top: int, lower: int, fd: int, content: bytes) -> None:
    """Write a file of the lower layer into the top one, with the mode, owner and directories that it has below."""
    path = _path_below(lower, fd)
    parents = path.split("/")[:-1]
    directories = ["/".join(parents[: depth + 1]) for depth in range(len(parents))]
    for directory in directories:
        _make_directory(top, lower, directory)
    with open(_raw.openat2(top, path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, NO_LINKS, 0o600), "wb") as file:
        copy_attributes(f"/proc/self/fd/{fd}", file.fileno())
        file.write(content)
    for directory in (*reversed(directories), "."):
        _copy_times(lower, top, directory)


def copy_attributes(source: int | str, target: int, mask: int = 0o7777) -> None:
    """Give a file or directory the owner, mode and extended attributes, such as labels and ACLs, of another.

    Args:
        source: The other one.
        target: A descriptor of the file.
        mask: Which bits of the mode it gets.

    Raises:
        OSError: The owner or the mode cannot be set; an attribute that cannot is left out.
    """
    like = os.stat(source)
    os.fchown(target, like.st_uid, like.st_gid)
    os.fchmod(target, like.st_mode & mask)
    with suppress(OSError):
        for name in os.listxattr(source):
            if not name.startswith("trusted.overlay."):  # those say how the layers go together
                with suppress(OSError):
                    os.setxattr(target, name, os.getxattr(source, name))


def write_like(file: str, path: str, content: bytes) -> None:
    """Write a new file with the owner, mode and attributes of another; never one that lends its owner's rights.

    Raises:
        OSError: It cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(path, flags, 0o600), "wb") as new:
        copy_attributes(file, new.fileno(), 0o777)
        new.write(content)


@contextmanager
def prepared(file: str, text: str) -> Iterator[str]:
    """Write a text beside a file, with the file's owner, mode and attributes, to be renamed to it; remove it otherwise.

    Raises:
        OSError: It cannot be written.
    """
    path = f"{file}.{random_suffix()}"
    try:
        write_like(file, path, text.encode("utf-8", "surrogateescape"))
        yield path
    finally:
        with suppress(FileNotFoundError):
            os.unlink(path)


def _copy_times(lower: int, top: int, path: str) -> None:
    with _opened(lower, path) as below, _opened(top, path) as above:
        like = os.fstat(below)
        os.utime(above, ns=(like.st_atime_ns, like.st_mtime_ns))


def _make_directory(top: int, lower: int, path: str) -> None:
    parent, _, name = path.rpartition("/")
    with _opened(lower, path) as below, _opened(top, parent or ".") as above:
        try:
            os.mkdir(name, 0o700, dir_fd=above)
        except FileExistsError:
            return  # made for the file before
        with _opened(above, name) as made:
            copy_attributes(below, made)


@contextmanager
def _opened(root: int, path: str, flags: int = 0) -> Iterator[int]:
    fd = _raw.openat2(root, path, os.O_DIRECTORY | flags, NO_LINKS)
    try:
        yield fd
    finally:
        os.close(fd)
