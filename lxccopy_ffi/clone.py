# SPDX-License-Identifier: LGPL-2.1-or-later
"""Copies and snapshots of a container, checked before anything is created and removed again if they fail."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack, suppress

from . import identity
from ._raw import NO_MOUNTS, default_lxcpath, new_mount, openat2
from .container import CloneFlag, Container
from .errors import AccessError, ContainerExistsError, LiblxcError, LxcCopyError, OptionError, UnsupportedError
from .names import check_flag, check_name, check_path, check_words, random_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .names import StrPath

_MOUNT_POINT = "lxc.rootfs.mount"
_NO_SNAPSHOTS = ("loop", "nbd", "rbd")


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
        kind = _kind_in_file(container.config_file, path) or _kind_of_path(path)
        self.kind = "overlay" if kind == "overlayfs" else kind
        self.lower = path.split(":") if self.kind == "overlay" else [path]
        self.upper = self.lower.pop() if self.kind == "overlay" else ""

    @property
    def is_directory(self) -> bool:
        """Whether the root file system is a directory, or an overlay of several, on the host."""
        return self.kind in ("dir", "overlay")


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


def open_source(name: str, lxcpath: StrPath | None = None) -> Container:
    """Return a reference to a container that exists and that we may copy.

    Raises:
        ContainerNotFoundError: It is not defined.
        AccessError: Its configuration may not be read, or we may not control it.
    """
    path = check_path(default_lxcpath() if lxcpath is None else lxcpath)
    file = f"{path}/{check_name(name)}/config"
    try:
        open(file, "rb").close()
    except FileNotFoundError:
        pass  # require_defined() words it
    except OSError as error:
        raise AccessError(
            f"cannot read container {name!r}: {file}: {error.strerror}; run as the user who owns it"
        ) from error
    with ExitStack() as undo:
        source = undo.enter_context(Container(name, path))
        source.require_defined()
        if not source.controllable:
            raise AccessError(f"container {name!r} in {source.lxcpath} may not be controlled by this user")
        undo.pop_all()
    return source


def check_source(source: Container, *, snapshot: bool, allow_running: bool, tmpfs: bool = False) -> Storage:
    """Return the source's storage, or refuse what could not be copied in the way that is asked for.

    Args:
        source: The container to copy.
        snapshot: Whether the copy shall be a snapshot rather than a full copy.
        allow_running: Whether the source may run.
        tmpfs: Whether the copy's changes shall go to memory, which needs an overlay.

    Raises:
        UnsupportedError: The source's storage, its state or a missing program is in the way.
    """
    storage = Storage(source)
    where = f"container {source.name!r} in {source.lxcpath}"
    if not storage.lower[0]:
        raise UnsupportedError(f"{where} has no root file system (lxc.rootfs.path)")
    if tmpfs and not storage.is_directory:
        raise UnsupportedError(
            f"{where} is stored as {storage.kind!r}, which no overlay can be put on; -t needs a base of type dir or"
            " overlay"
        )
    if snapshot and storage.kind in _NO_SNAPSHOTS:
        raise UnsupportedError(
            f"{where} is stored as {storage.kind!r}, of which liblxc makes no snapshots; copy it fully"
        )
    if storage.is_directory:
        for layer in storage.lower:
            _check_layer(layer, where)
    if source.running and not allow_running:
        raise UnsupportedError(f"{where} is running; stop it first, or allow the copy of a running container with -a")
    if (not snapshot or storage.upper) and storage.is_directory and not _find_program("rsync"):
        kind = "a snapshot of an overlay snapshot" if snapshot else "a full copy"
        raise UnsupportedError(f"{kind} needs the program rsync, which is not installed (package rsync)")
    return storage


def _check_layer(layer: str, where: str) -> None:
    try:
        check_path(layer, "root file system")
        os.close(identity.open_root(layer))
    except OptionError as error:
        raise UnsupportedError(f"{where} cannot be overlaid: {error}") from error
    except OSError as error:
        raise UnsupportedError(f"{where} has no usable root file system: {layer}: {error.strerror}") from error


def _find_program(name: str) -> str:
    for directory in os.get_exec_path():
        path = os.path.join(directory, name)
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    return ""


def check_target(name: str | None, lxcpath: str) -> None:
    """Refuse a target that exists, or a directory where none can be made.

    Raises:
        OptionError: The lxcpath is no directory.
        ContainerExistsError: There is something of that name.
        AccessError: Nothing can be made there.
    """
    if not os.path.isdir(lxcpath):
        raise OptionError(f"the directory for the copy, {lxcpath}, does not exist")
    if name is not None and os.path.lexists(f"{lxcpath}/{name}"):
        raise _exists(name, lxcpath)
    if not os.access(lxcpath, os.W_OK | os.X_OK):
        raise AccessError(f"no directory can be made in {lxcpath}: permission denied")


class Claim:
    """A copy's directory, made by us: its name is reserved.

    Args:
        name: The copy's name; None for a random one, as lxc-copy's.
        base: The base's name, for a random one.
        lxcpath: Where to make it.
        undo: Gets what removes the copy again, in whatever state it is then.

    Attributes:
        name: The copy's name.

    Raises:
        ContainerExistsError: Somebody else was faster.
        AccessError: It cannot be made.
    """

    _fd = -1

    def __init__(self, name: str | None, base: str, lxcpath: str, undo: ExitStack) -> None:
        self._lxcpath = lxcpath
        self._made: list[None] = []
        undo.callback(self.discard_quietly)
        while True:
            self.name = name or random_name(base)
            try:
                # In one call, between whose parts no signal handler can raise: it tells whether the directory is ours.
                self._made.extend(map(os.mkdir, (self.directory,), (0o770,)))
            except FileExistsError:
                if name is not None:
                    raise _exists(name, lxcpath) from None
            except OSError as error:
                raise AccessError(f"cannot make the directory {self.directory}: {error.strerror}") from error
            else:
                # Held open, so that its inode's number is not used again for another directory of the same name.
                self._fd = identity.open_root(self.directory)
                os.chmod(self.directory, 0o770)  # noqa: S103 - as lxc-copy, whatever the umask
                return

    @property
    def directory(self) -> str:
        """The copy's directory."""
        return f"{self._lxcpath}/{self.name}"

    def close(self) -> None:
        """Do nothing more with the directory. Idempotent."""
        self._made.clear()
        self._close_fd()

    def _close_fd(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self._close_fd()

    def holds(self) -> bool:
        """Whether the directory is still there, and still the one that we made: its name may have been used again."""
        if not self._made:
            return False
        try:
            found = os.lstat(self.directory)
        except FileNotFoundError:
            return False
        return self._fd < 0 or os.path.samestat(found, os.fstat(self._fd))

    def discard(self) -> None:
        """Remove the copy, whole or half-made, with what its base remembers of it. Idempotent.

        Raises:
            LiblxcError: Something of it could not be removed.
        """
        if self.holds():
            discard(self.name, self._lxcpath)
        elif self._made and not os.path.lexists(self.directory):
            forget_lock(self.name, self._lxcpath)
        self.close()

    def discard_quietly(self) -> None:
        """Do so on the way out of another error, which must stay the one that is seen: this one is logged."""
        try:
            self.discard()
        except LxcCopyError as error:
            import logging

            logging.getLogger("lxccopy_ffi").warning("%s", error)


def _exists(name: str, lxcpath: str) -> ContainerExistsError:
    return ContainerExistsError(f"there is already a {name!r} in {lxcpath}; choose another name or destroy it first")


def discard(name: str, lxcpath: str) -> None:
    """Stop and remove a container and all of its directory.

    Raises:
        LiblxcError: Something of it could not be removed.
    """
    with Container(name, lxcpath) as copy:
        copy.stop()
        try:
            # liblxc removes trees by recursion, and a container can have made one that is too deep for our stack.
            if not os.path.lexists(f"{copy.directory}/lxc_snapshots"):  # liblxc refuses what others depend on
                for tree in ("overlay", "rootfs"):
                    remove_tree(f"{copy.directory}/{tree}", keep=True)
            if copy.defined:
                copy.destroy()
            remove_tree(copy.directory)
        except OSError as error:
            raise LiblxcError("remove", name, lxcpath, f"{error.filename}: {error.strerror}") from error
        except LiblxcError:
            if os.path.lexists(copy.config_file):
                raise  # otherwise its monitor was faster
            remove_tree(copy.directory)
    forget_lock(name, lxcpath)


def remove_tree(path: str, *, keep: bool = False) -> None:
    """Remove a directory and all below it, through no link and no mount point. Idempotent.

    However deep it is: what is in a subdirectory is moved up before the subdirectory goes.

    Args:
        path: The directory; anything else is left alone.
        keep: Only empty it.

    Raises:
        OSError: Something could not be removed, such as a directory on which something is mounted (EXDEV).
    """
    parent, _, name = path.rpartition("/")
    try:
        directory = identity.open_root(parent)
        try:
            top = openat2(directory, name, os.O_DIRECTORY, NO_MOUNTS)
        finally:
            os.close(directory)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        if error.errno == errno.ELOOP:
            return  # a link
        raise
    try:
        number = 0
        while True:
            entries = os.listdir(top)
            if not entries:
                break
            for entry in entries:
                number = _remove_entry(top, entry, number)
    finally:
        os.close(top)
    if not keep:
        os.rmdir(path)


def _remove_entry(top: int, entry: str, number: int) -> int:
    """Remove a file, or a directory whose own subdirectories are moved to the top, where they get the next numbers."""
    try:
        os.unlink(entry, dir_fd=top)
    except IsADirectoryError:
        pass
    else:
        return number
    fd = openat2(top, entry, os.O_DIRECTORY, NO_MOUNTS)
    try:
        for child in os.listdir(fd):
            try:
                os.unlink(child, dir_fd=fd)
            except IsADirectoryError:
                while True:
                    number += 1
                    if not _exists_at(f"{number}", top):
                        break
                os.rename(child, f"{number}", src_dir_fd=fd, dst_dir_fd=top)
    finally:
        os.close(fd)
    os.rmdir(entry, dir_fd=top)
    return number


def _exists_at(name: str, directory: int) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def forget_lock(name: str, lxcpath: str) -> None:
    """Remove the lock file that liblxc made for a container that is gone."""
    runtime = "/run" if os.geteuid() == 0 else os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime:
        with suppress(OSError):
            os.unlink(f"{runtime}/lxc/lock{lxcpath}/.{name}")


def make(
    source: Container,
    name: str,
    lxcpath: str,
    *,
    snapshot: bool,
    keep_name: bool = False,
    keep_mac: bool = False,
    allow_running: bool = False,
    hook_args: Sequence[str] = (),
) -> Container:
    """Call clone() into a directory from claim(); the caller removes it again on any error.

    liblxc never gets to set the host name itself, since it follows links on the host (SPEC B8): it goes into the config
    here, and into the files by personalise().
    """
    flags = CloneFlag.KEEPNAME
    flags |= CloneFlag.SNAPSHOT if snapshot else 0
    flags |= CloneFlag.KEEPMACADDR if keep_mac else 0
    flags |= CloneFlag.ALLOW_RUNNING if allow_running else 0
    # Debian and others ship the directory that liblxc mounts root file systems on apart from the library itself.
    has_mount_point = os.path.isdir(source.config(_MOUNT_POINT))
    if not has_mount_point:
        source.set_config(_MOUNT_POINT, source.directory)
    copy = source.clone(name, newpath=lxcpath, flags=flags, hook_args=hook_args)
    try:
        if not has_mount_point:
            copy.replace_config(_MOUNT_POINT, f"{copy.directory}/rootfs")
        if not keep_name:
            copy.replace_config("lxc.uts.name", name)
    except BaseException:
        copy.close()
        raise
    return copy


def personalise(copy: Container, top: str = "") -> None:
    """Write a copy's host name, hosts line and machine id into its root file system or its upper layer.

    Args:
        copy: The copy, not running.
        top: A directory that will lie above the upper layer. It is written to where that is possible without mounting
            the overlay, that is, as long as the upper layer is empty and there is one layer below it.

    Raises:
        UnsupportedError: They could not be written.
    """
    storage = Storage(copy)
    if storage.upper or os.path.isdir(storage.lower[0]):  # a btrfs subvolume is a directory, too
        try:
            personalise_layers(storage.upper, storage.lower, copy.name, top)
        except OSError as error:
            raise UnsupportedError(
                f"cannot write the host name of {copy.name!r} to its files: {error.strerror}"
            ) from error


def personalise_layers(upper: str, lower: Sequence[str], name: str, top: str = "") -> None:
    """The same for a root file system in @lower, or an overlay with the work directory beside @upper."""
    with ExitStack() as stack:

        def opened(fd: int) -> int:
            stack.callback(os.close, fd)
            return fd

        if not upper:
            identity.personalise(opened(identity.open_root(lower[0])), name)
        elif len(lower) == 1 and not os.listdir(upper):
            above = opened(identity.open_root(top or upper))
            identity.personalise_above(above, opened(identity.open_root(lower[0])), name)
        else:
            identity.personalise(opened(_mount_overlay(upper, lower)), name)


def _mount_overlay(upper: str, lower: Sequence[str]) -> int:
    """Return a descriptor of an overlay's merged root directory, mounted nowhere."""
    with ExitStack() as stack:

        def short(path: str) -> str:  # an option has no more than 255 characters
            fd = identity.open_root(path)
            stack.callback(os.close, fd)
            return f"/proc/self/fd/{fd}"

        options = {
            "lowerdir": ":".join(map(short, lower)),
            "upperdir": short(upper),
            "workdir": short(f"{os.path.dirname(upper)}/work"),
        }
        return new_mount("overlay", {"source": "lxccopy", **options})


def clone(
    source: str,
    name: str,
    *,
    lxcpath: StrPath | None = None,
    newpath: StrPath | None = None,
    snapshot: bool = False,
    allow_running: bool = False,
    keep_name: bool = False,
    keep_mac: bool = False,
    hook_args: Sequence[str] = (),
) -> Container:
    """Make a persistent copy of a container.

    Args:
        source: The name of the container to copy.
        name: The name for the copy.
        lxcpath: The directory that holds the source; LXC's default where None.
        newpath: The directory for the copy; the source's where None.
        snapshot: Make an overlay over the source, in place of a full copy.
        allow_running: Copy it also while it runs.
        keep_name: Leave the host name, hosts and machine id as they are.
        keep_mac: Leave the network interfaces' addresses as they are.
        hook_args: Further arguments for the source's lxc.hook.clone.

    Returns:
        A reference to the copy.

    Raises:
        OptionError: An argument is not allowed.
        ContainerNotFoundError: The source is not defined.
        ContainerExistsError: The name is taken.
        AccessError: Something may not be read or written.
        UnsupportedError: The source cannot be copied in that way.
        LiblxcError: liblxc failed. Nothing of the copy is left.

    Reproduces: lxc_copy.c:do_clone().
    """
    check_name(name, "new name")
    for flag, value in (
        ("snapshot", snapshot),
        ("allow_running", allow_running),
        ("keep_name", keep_name),
        ("keep_mac", keep_mac),
    ):
        check_flag(flag, value)
    hook_args = check_words("hook_args", hook_args)
    path = None if newpath is None else check_path(newpath, "new path")
    with open_source(source, lxcpath) as base, ExitStack() as undo:
        path = path or base.lxcpath
        check_source(base, snapshot=snapshot, allow_running=allow_running)
        check_target(name, path)
        Claim(name, source, path, undo)
        copy = make(
            base,
            name,
            path,
            snapshot=snapshot,
            keep_name=keep_name,
            keep_mac=keep_mac,
            allow_running=allow_running,
            hook_args=hook_args,
        )
        undo.callback(copy.close)
        copy.save_config()
        if not keep_name:
            personalise(copy)
        undo.pop_all()
    return copy
