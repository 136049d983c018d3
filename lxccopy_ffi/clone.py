# SPDX-License-Identifier: LGPL-2.1-or-later
"""Copies and snapshots of a container, checked before anything is created and removed again if they fail."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack, contextmanager, suppress

from . import identity, notices, relocate
from ._raw import above_stdio, default_lxcpath, new_mount, rename_new, require_descriptors, write_all
from .container import CloneFlag, Container
from .errors import AccessError, ContainerExistsError, LxcCopyError, OptionError, UnsupportedError
from .faults import reach
from .ledger import FILE, HIDDEN, Ledger
from .locking import forget_lock, lock_file
from .names import check_file, check_flag, check_name, check_path, check_words, random_name, random_suffix
from .processes import start_time
from .removal import discard, remove_tree
from .spawner import Ward
from .storage import Plan, Storage, check_kind, check_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .ledger import Value
    from .names import StrPath

    Progress = Callable[[int, int], None]

_MOUNT_POINT = "lxc.rootfs.mount"


def open_source(name: str, lxcpath: StrPath | None = None, rcfile: str | None = None) -> Container:
    """Return a reference to a container that exists and that we may copy.

    Args:
        name: Its name.
        lxcpath: The directory that holds it; LXC's default where None.
        rcfile: A file to read its configuration from, in place of its own.

    Raises:
        OptionError: The rcfile cannot be read.
        ContainerNotFoundError: It is not defined.
        AccessError: Its configuration may not be read, or we may not control it.
        UnsupportedError: This process has too few descriptors left.
    """
    require_descriptors()
    path = check_path(default_lxcpath() if lxcpath is None else lxcpath)
    file = f"{path}/{check_name(name)}/config"
    try:
        open(file, "rb").close()
    except FileNotFoundError:
        pass  # require_defined() words it
    except OSError as error:
        raise AccessError(
            f"cannot read container {name!r}: {file}: {error.strerror}"
            + ("; run as the user who owns it" if isinstance(error, PermissionError) else "")
        ) from error
    with ExitStack() as undo:
        source = undo.enter_context(Container(name, path))
        if rcfile is None:
            source.require_defined()
        else:
            source.load_config(rcfile)
        if not source.controllable:
            raise AccessError(f"container {name!r} in {source.lxcpath} may not be controlled by this user")
        undo.pop_all()
    return source


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
        raise exists(name, lxcpath)
    if not os.access(lxcpath, os.W_OK | os.X_OK):
        read_only = os.statvfs(lxcpath).f_flag & os.ST_RDONLY
        raise AccessError(
            f"no directory can be made in {lxcpath}: {'it is read-only' if read_only else 'permission denied'}"
        )


class Claim:
    """A copy's directory, made by us: its name is reserved, and a ledger in it says so (see ledger.py).

    It is made under a hidden name and gets its own when the ledger is there, so that nobody finds it without one.

    Args:
        name: The copy's name; None for a random one, as lxc-copy's.
        base: The lxcpath and the name of what is copied; empty for nothing.
        lxcpath: Where to make it.
        undo: Gets what removes the copy again, in whatever state it is then.
        task: What is made, for the ledger.
        entries: What else the ledger shall say.

    Attributes:
        name: The copy's name.
        ledger: Its ledger.

    Raises:
        ContainerExistsError: Somebody else was faster.
        AccessError: It cannot be made.
        UnsupportedError: This process has too few descriptors left.
    """

    ledger: Ledger
    _fd = -1
    _hidden = ""

    def __init__(
        self, name: str | None, base: tuple[str, str], lxcpath: str, undo: ExitStack, task: str, **entries: Value
    ) -> None:
        require_descriptors()
        self._lxcpath = lxcpath
        undo.callback(self.discard_quietly)
        while True:
            self.name = name or random_name(base[1])
            self._hidden = hidden = f"{lxcpath}/{HIDDEN}{random_suffix()}"
            try:
                os.mkdir(hidden, 0o770)
            except OSError as error:
                raise self._failed(error) from error
            reach("directory-made")
            try:
                os.chmod(hidden, 0o770)  # noqa: S103 - as lxc-copy, whatever the umask
                # Held open, so that its inode's number is not used again for another directory of the same name.
                self._fd = identity.open_root(hidden)
                self.ledger = Ledger(hidden, task=task, name=self.name, base=base, **entries)
                reach("ledger-written")
                rename_new(hidden, self.directory)
            except FileNotFoundError:
                self._remove_hidden()  # somebody's reap() took it for a dead one's
            except FileExistsError:
                self._remove_hidden()
                if name is not None:
                    raise exists(name, lxcpath) from None
            except OSError as error:
                raise self._failed(error) from error
            else:
                self._hidden = ""
                reach("name-claimed")
                return

    def _failed(self, error: OSError) -> AccessError:
        return AccessError(f"cannot make the directory {self.directory}: {error.strerror}")

    @property
    def directory(self) -> str:
        """The copy's directory."""
        return f"{self._lxcpath}/{self.name}"

    def _remove_hidden(self) -> None:
        """Remove the directory if it has not got its name."""
        hidden, self._hidden = self._hidden, ""
        if hidden:
            remove_tree(hidden)
            self.close()

    def ward(self, *, remove: bool) -> Ward:
        """What a guard needs, to end the copy and to leave nothing of it."""
        return Ward(self._fd, self.ledger.fd, lock_file(self.name, self._lxcpath), remove=remove)

    def note_start(self, copy: Container) -> None:
        """Write down which processes and cgroups the copy has, now that it runs.

        Raises:
            AccessError: It cannot be written.
        """
        try:
            began = start_time(copy.monitor_pid) if copy.monitor_pid else 0
            groups = [list(group) for group in sorted(copy.cgroups)]
            self.ledger.add(monitor=copy.monitor_pid, monitor_start=began, cgroups=groups)
        except ProcessLookupError:
            pass  # it has ended already
        except OSError as error:
            raise AccessError(f"cannot write {self.directory}/{FILE}: {error.strerror}") from error

    def keep(self) -> None:
        """Hand the copy over: it is an ordinary container from here on. Idempotent."""
        if self._fd >= 0:
            with suppress(FileNotFoundError):
                os.unlink(f"{self.directory}/{FILE}")
            reach("released")
        self.close()

    def close(self) -> None:
        """Do nothing more with the directory. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        if hasattr(self, "ledger"):
            self.ledger.close()

    def __del__(self) -> None:
        self.close()

    def holds(self) -> bool:
        """Whether the directory is still there, and still the one that we made: its name may have been used again."""
        if self._fd < 0:
            return False
        try:
            found = os.lstat(self.directory)
        except FileNotFoundError:
            return False
        return os.path.samestat(found, os.fstat(self._fd))

    def discard(self) -> None:
        """Remove the copy, whole or half-made, with what its base remembers of it. Idempotent.

        Raises:
            LiblxcError: Something of it could not be removed.
        """
        if self.holds():
            discard(self.name, self._lxcpath)
        elif self._fd >= 0 and not os.path.lexists(self.directory):
            forget_lock(self.name, self._lxcpath)
        self._remove_hidden()
        reach("gone")
        self.close()

    def discard_quietly(self) -> None:
        """Do so on the way out of another error, which must stay the one that is seen: this one is logged."""
        try:
            self.discard()
        except (LxcCopyError, OSError) as error:
            notices.warn(str(error))


def exists(name: str, lxcpath: str) -> ContainerExistsError:
    """Return the error for a name that is taken."""
    return ContainerExistsError(f"there is already a {name!r} in {lxcpath}; choose another name or remove it first")


def make(
    source: Container,
    plan: Plan,
    name: str,
    lxcpath: str,
    *,
    keep_name: bool = False,
    keep_mac: bool = False,
    size: int = 0,
    hook_args: Sequence[str] = (),
    progress: Progress | None = None,
) -> Container:
    """Call clone() into a directory from claim(); the caller removes it again on any error.

    liblxc never gets to set the host name itself, since it follows links on the host (SPEC B8): it goes into the config
    here, and into the files by personalise().
    """
    flags = CloneFlag.KEEPNAME
    flags |= CloneFlag.SNAPSHOT if plan.snapshot else 0
    flags |= CloneFlag.ALLOW_RUNNING if plan.allow_running else 0
    flags |= CloneFlag.KEEPMACADDR if keep_mac else 0
    with ExitStack() as stack:
        shown = _Shown(source, plan, stack, keep_mac=keep_mac)
        # Debian and others ship the directory that liblxc mounts root file systems on apart from the library itself.
        has_mount_point = os.path.isdir(source.config(_MOUNT_POINT))
        if not has_mount_point:
            source.set_config(_MOUNT_POINT, source.directory)

        def call() -> Container:
            return source.clone(name, newpath=lxcpath, flags=flags, storage=plan.kind, size=size, hook_args=hook_args)

        if progress is not None and plan.copies_files:
            from .progress import watch

            copy = watch(call, plan.storage.layers, progress)
        else:
            copy = call()
    reach("copied")
    try:
        _follow(copy, source, plan, shown.originals)
        if plan.stacked:
            layers = [*plan.storage.layers, Storage(copy).upper]
            copy.replace_config("lxc.rootfs.path", ":".join(["overlay", *layers]))
        if not has_mount_point:
            copy.replace_config(_MOUNT_POINT, f"{copy.directory}/rootfs")
        if not keep_name:
            copy.replace_config("lxc.uts.name", name)
    except BaseException:
        copy.close()
        raise
    reach("followed")
    return copy


class _Shown:
    """What liblxc gets to see of the source's configuration: one that clone() can copy. It stays in memory.

    Args:
        source: The source.
        plan: How it is copied.
        stack: Keeps what is needed for clone().
        keep_mac: Whether addresses stay.

    Attributes:
        originals: What stands in the copy's configuration for that, and what shall.
    """

    def __init__(self, source: Container, plan: Plan, stack: ExitStack, *, keep_mac: bool) -> None:
        self.originals: dict[tuple[str, str], str] = {}
        self._stack = stack
        self._source = source
        text = read_config(source.config_source)
        if keep_mac:
            for key, value in relocate.items(text):
                if key.startswith("lxc.net.") and key.endswith(".hwaddr") and "x" in value.lower():
                    # A template, of which liblxc makes another address each time that it reads it, also for the copy.
                    address = (source.running_config(key) if source.running else "") or source.config(key)
                    self.originals[key, ""] = address
        hidden = self._hide(text)
        if hidden != text:
            source.load_text(hidden)
        if plan.stacked:
            source.set_config("lxc.rootfs.path", f"dir:{plan.storage.upper}")

    def _hide(self, text: str) -> str:
        where = (self._source.lxcpath, self._source.name)
        return relocate.hide_includes(relocate.hide_hooks(text, *where), *where, self._replace)

    def _replace(self, file: str) -> str:
        """The path of a memory file with what an included one, or those of a directory, have when they are hidden."""
        files = [file]
        if os.path.isdir(file):
            files = [f"{file}/{name}" for name in sorted(os.listdir(file)) if name.endswith(".conf")]
        try:
            texts = [read_config(one) for one in files]
        except OSError:
            return file  # liblxc says so
        hidden = [self._hide(text) for text in texts]
        if hidden == texts:
            return file
        fd = above_stdio(os.memfd_create("lxccopy-include", os.MFD_CLOEXEC))
        self._stack.callback(os.close, fd)
        write_all(fd, "\n".join(hidden).encode("utf-8", "surrogateescape"))
        path = f"/proc/self/fd/{fd}"
        self.originals["lxc.include", path] = file
        return path


def _follow(copy: Container, source: Container, plan: Plan, originals: dict[tuple[str, str], str]) -> None:
    """Let what the configuration says of files in the source's directory be about the copy's, with their files."""
    pending = ["config"]
    changed = False
    for file in pending:
        path = f"{copy.directory}/{file}"
        text = read_config(path)
        followed = relocate.Followed(
            text, (source.lxcpath, source.name), copy.directory, includes=not plan.snapshot, values=originals
        )
        name = file
        try:
            for directory in followed.directories:
                os.makedirs(directory, mode=0o755, exist_ok=True)
            for name in followed.files:
                copied = _copy_file(source.directory, copy.directory, name)
                pending += [one for one in copied if name in followed.texts and one not in pending]
        except OSError as error:
            raise UnsupportedError(
                f"cannot copy {error.filename or name}, which the configuration of {source.name!r} names:"
                f" {error.strerror}"
            ) from error
        if followed.text != text:
            changed = True
            with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as config:
                config.write(followed.text)
    if changed:
        copy.load_config(copy.config_file)


def _copy_file(source: str, target: str, name: str) -> list[str]:
    """Copy a file, or those of a directory, with mode and owner and the directories it is in; return their names."""
    if os.path.isdir(f"{source}/{name}"):
        inside = [f"{name}/{one}" for one in os.listdir(f"{source}/{name}")]
        return [done for one in inside if os.path.isfile(f"{source}/{one}") for done in _copy_file(source, target, one)]
    os.makedirs(os.path.dirname(f"{target}/{name}"), mode=0o755, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(f"{source}/{name}", "rb") as old, open(os.open(f"{target}/{name}", flags, 0o600), "wb") as new:
        identity.copy_attributes(old.fileno(), new.fileno())
        while block := old.read(1 << 20):
            new.write(block)
    return [name]


def read_config(file: str) -> str:
    """Return the text of a config file, whatever bytes are in it."""
    with open(file, encoding="utf-8", errors="surrogateescape", newline="") as text:
        return text.read()


def warn_of_shared_settings(copy: Container) -> None:
    """Say which settings the copy cannot have at the same time as its base."""
    for setting in relocate.shared_settings(read_config(copy.config_file)):
        notices.warn(f"the copy {copy.name!r} has {setting} of its base; they cannot both run with it")


def personalise(copy: Container, top: str = "", *, fresh_id: bool = True) -> None:
    """Write a copy's host name, hosts line and machine id into its root file system or its upper layer.

    Args:
        copy: The copy, not running.
        top: A directory that will lie above the upper layer. It is written to where that is possible without mounting
            the overlay, that is, as long as the upper layer is empty and there is one layer below it.
        fresh_id: Also give it a machine id of its own.

    Raises:
        UnsupportedError: They could not be written.
    """
    storage = Storage(copy)
    if storage.is_on_host:
        try:
            if os.geteuid() != 0:
                from . import userns

                userns.call("clone", "personalise_mapped", storage.upper, storage.lower, copy.name, fresh_id=fresh_id)
            else:
                personalise_layers(storage.upper, storage.lower, copy.name, top, fresh_id=fresh_id)
        except OSError as error:
            too_small = "; the tmpfs is too small" if top and error.errno == errno.ENOSPC else ""
            raise UnsupportedError(
                f"cannot write the host name of {copy.name!r} to its files: {error.strerror}{too_small}"
            ) from error
    else:
        notices.warn(
            f"{copy.name!r} is stored as {storage.kind!r}, so /etc/hostname, /etc/hosts and machine-id are the old ones"
        )


def personalise_mapped(upper: str, lower: Sequence[str], name: str, *, fresh_id: bool = True) -> None:
    """The same as root of a user namespace, where liblxc has left the upper layer to a group of the host."""
    if upper:
        os.chown(upper, 0, 0)
    personalise_layers(upper, lower, name, fresh_id=fresh_id)


def personalise_layers(upper: str, lower: Sequence[str], name: str, top: str = "", *, fresh_id: bool = True) -> None:
    """The same for a root file system in @lower, or an overlay with the work directory beside @upper."""
    with ExitStack() as stack:

        def opened(fd: int) -> int:
            stack.callback(os.close, fd)
            return fd

        if not upper:
            identity.personalise(opened(identity.open_root(lower[0])), name, fresh_id=fresh_id)
        elif len(lower) == 1 and not os.listdir(upper):
            above = opened(identity.open_root(top or upper))
            identity.personalise_above(above, opened(identity.open_root(lower[0])), name, fresh_id=fresh_id)
        else:
            identity.personalise(opened(open_merged(lower, upper)), name, fresh_id=fresh_id)


def resolve(layers: Sequence[str], targets: Sequence[str], source: str) -> list[str]:
    """Return paths in a container with the links on the way resolved.

    Args:
        layers: Its layers, topmost first.
        targets: The paths.
        source: The container's name.

    Raises:
        UnsupportedError: The layers cannot be put together.
        OptionError: A path leads through a file, or in a circle.
    """
    try:
        root = open_merged(layers) if len(layers) > 1 else identity.open_root(layers[0])
    except OSError as error:
        raise UnsupportedError(f"cannot look into the layers of {source!r}: {error.strerror}") from error
    try:
        return [identity.resolve(root, target) for target in targets]
    except OSError as error:
        raise OptionError(f"cannot mount on {error.filename} in {source!r}: {error.strerror}") from error
    finally:
        os.close(root)


@contextmanager
def open_system(upper: str, lower: Sequence[str]) -> Iterator[int]:
    """A descriptor of a container's root directory as the container would see it, from its Storage."""
    root = open_merged(lower, upper) if upper else identity.open_root(lower[0])
    try:
        yield root
    finally:
        os.close(root)


def open_merged(lower: Sequence[str], upper: str = "") -> int:
    """Return a descriptor of an overlay's merged root directory, mounted nowhere; read-only without an upper layer."""
    with ExitStack() as stack:

        def short(path: str) -> str:  # an option has no more than 255 characters
            fd = identity.open_root(path)
            stack.callback(os.close, fd)
            return f"/proc/self/fd/{fd}"

        options = {"source": "lxccopy", "lowerdir": ":".join(map(short, lower))}
        if upper:
            options.update(upperdir=short(upper), workdir=short(f"{os.path.dirname(upper)}/work"))
        return new_mount("overlay", options)


def clone(
    source: str,
    name: str,
    *,
    lxcpath: StrPath | None = None,
    newpath: StrPath | None = None,
    snapshot: bool = False,
    storage: str | None = None,
    size: int | str | None = None,
    allow_running: bool = False,
    keep_name: bool = False,
    keep_mac: bool = False,
    fresh_id: bool = True,
    hook_args: Sequence[str] = (),
    rcfile: StrPath | None = None,
    progress: Progress | None = None,
) -> Container:
    """Make a persistent copy of a container.

    Args:
        source: The name of the container to copy.
        name: The name for the copy.
        lxcpath: The directory that holds the source; LXC's default where None.
        newpath: The directory for the copy; the source's where None.
        snapshot: Make an overlay over the source, in place of a full copy.
        storage: The type of storage: btrfs, dir, loop, lvm, nbd, overlay, rbd or zfs; what fits where None.
        size: Of a new image or volume, in bytes, or as a text such as ``"2G"``; the driver's default where None.
        allow_running: Copy it also while it runs.
        keep_name: Leave the host name, hosts and machine id as they are.
        keep_mac: Leave the network interfaces' addresses as they are.
        fresh_id: Make a machine id, unless keep_name is set.
        hook_args: Further arguments for the source's lxc.hook.clone.
        rcfile: A file to read the source's configuration from, in place of its own.
        progress: Called a few times a second during a full copy with how many bytes are done, and how many there are.

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
        ("fresh_id", fresh_id),
    ):
        check_flag(flag, value)
    hook_args = check_words("hook_args", hook_args)
    path = None if newpath is None else check_path(newpath, "new path")
    kind = None if storage is None else check_kind(storage)
    wanted_size = 0 if size is None else check_size(size)
    file = None if rcfile is None else check_file(rcfile)
    with open_source(source, lxcpath, file) as base, ExitStack() as undo:
        path = path or base.lxcpath
        plan = Plan(base, snapshot=snapshot, kind=kind, allow_running=allow_running)
        check_target(name, path)
        if hook_args and not base.config("lxc.hook.clone"):
            notices.warn(f"{source!r} has no lxc.hook.clone that would get the words {' '.join(hook_args)!r}")
        claim = Claim(name, (base.lxcpath, source), path, undo, "copy")
        copy = make(
            base,
            plan,
            name,
            path,
            keep_name=keep_name,
            keep_mac=keep_mac,
            size=wanted_size,
            hook_args=hook_args,
            progress=progress,
        )
        undo.callback(copy.close)
        if copy.config("lxc.idmap"):
            from .ordinary import prepare_overlay

            prepare_overlay(copy)
        copy.save_config()
        reach("saved")
        if not keep_name:
            personalise(copy, fresh_id=fresh_id)
        reach("personalised")
        claim.keep()
        undo.pop_all()
    warn_of_shared_settings(copy)
    return copy
