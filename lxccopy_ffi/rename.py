# SPDX-License-Identifier: LGPL-2.1-or-later
"""Giving a container another name."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress

from . import identity, ledger, notices, rdepends, relocate
from ._raw import above_stdio, rename_new
from .clone import check_target, clone, exists, open_source, open_system, personalise, read_config
from .container import Container
from .errors import AccessError, UnsupportedError
from .faults import reach
from .identity import write_like
from .ledger import FILE, HIDDEN, Ledger
from .locking import forget_lock, locked
from .names import check_file, check_name, random_suffix
from .removal import discard, remove_tree
from .storage import Plan, Storage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .clone import Progress
    from .ledger import Record
    from .names import StrPath


# A container's configuration before and after it is renamed, as its journal calls them.
_CONFIGS = ("old", "new")


def rename(
    source: str,
    name: str,
    *,
    lxcpath: StrPath | None = None,
    rcfile: StrPath | None = None,
    progress: Progress | None = None,
) -> Container:
    """Give a container another name, with its directory, its host name and what its base remembers of it.

    Its addresses and its machine id stay. Where all of it is in its own directory, nothing is copied. Otherwise, and
    where hooks want to know of copies, it is copied and the original removed, of which a notice tells before.

    Args:
        source: The container's name.
        name: Its new name.
        lxcpath: The directory that holds it; LXC's default where None.
        rcfile: A file to read its configuration from, in place of its own.
        progress: As for clone(), where it is copied.

    Returns:
        A reference to the renamed container.

    Raises:
        OptionError: An argument is not allowed.
        ContainerNotFoundError: It is not defined.
        ContainerExistsError: The name is taken.
        AccessError: Something may not be read or written.
        UnsupportedError: It is running, has snapshots, or cannot be copied.
        LiblxcError: liblxc failed.

    Reproduces: lxc_copy.c:do_clone_rename(). Differs: that one always copies, needs rsync for it, and cannot rename
    snapshots.
    """
    check_name(name, "new name")
    file = None if rcfile is None else check_file(rcfile)
    with open_source(source, lxcpath, file) as old:
        _check(old)
        check_target(name, old.lxcpath)
        storage = Storage(old)
        if _lies_inside(storage, old) and (storage.upper or not _has_hooks(old)):
            return _move(old, name)
        if storage.upper:
            raise UnsupportedError(
                f"{old.where} cannot be renamed: its changes are in {storage.upper}, outside its own directory"
            )
        Plan(old, snapshot=False)
        notices.warn(
            f"renaming {source!r} copies its root file system {storage.lower[0]} to {old.lxcpath}/{name}, and then"
            " removes the original"
        )
        new = clone(source, name, lxcpath=old.lxcpath, keep_mac=True, fresh_id=False, rcfile=file, progress=progress)
    try:
        try:
            with open_source(source, new.lxcpath) as old:
                _check(old)  # somebody may have started it meanwhile
        except BaseException:
            discard(name, new.lxcpath)
            raise
        discard(source, new.lxcpath)
    except BaseException:
        new.close()
        raise
    return new


def _check(container: Container) -> None:
    if container.running:
        raise UnsupportedError(
            f"{container.where} is running; stop it first, as a container that runs cannot be renamed"
        )
    snapshots = [name for _, name in rdepends.snapshots(container.directory)]
    with suppress(FileNotFoundError):
        snapshots += [f"{name} of lxc-snapshot" for name in os.listdir(f"{container.directory}/snaps")]
    if snapshots:
        raise UnsupportedError(
            f"Renaming a container with snapshots is not supported: {container.where} has {', '.join(snapshots)};"
            " destroy them first"
        )


def _lies_inside(storage: Storage, container: Container) -> bool:
    top = storage.upper or storage.lower[0]
    return storage.kind in ("dir", "overlay", "btrfs", "loop") and top.startswith(f"{container.directory}/")


def _has_hooks(container: Container) -> bool:
    """Whether the container wants to know of copies, or of its removal, which is what lxc-copy makes of a new name."""
    return any(container.config(f"lxc.hook.{hook}") for hook in ("clone", "destroy"))


def _move(old: Container, name: str) -> Container:
    """Rename the directory, with all that speaks of it; or nothing, if anything fails."""
    lxcpath, before = old.lxcpath, old.name
    try:
        with locked(before, lxcpath), ExitStack() as always, ExitStack() as undo:
            _check(old)  # nobody else changes it from here on
            journal = _Journal(old, name, always, undo)
            try:
                rename_new(old.directory, f"{lxcpath}/{name}")
            except FileExistsError:
                raise exists(name, lxcpath) from None
            reach("moved")
            journal.exchange_files()
            for base in journal.bases:
                rdepends.replace(base, (lxcpath, before), (lxcpath, name))
            reach("renamed-for-bases")
            new = Container(name, lxcpath)
            undo.callback(new.close)
            personalise(new, fresh_id=False)
            reach("renamed-inside")
            journal.close()
            undo.pop_all()
    except OSError as error:
        raise AccessError(
            f"cannot rename {before!r} in {lxcpath}: {error.filename or old.directory}: {error.strerror}"
        ) from error
    forget_lock(before, lxcpath)
    return new


class _Journal:
    """A hidden directory with all that it takes to give a container its old name back, and a ledger: see recover().

    Args:
        old: The container.
        name: The name that it gets.
        always: Gets what is to be done in any case.
        undo: Gets what gives the old one back.

    Attributes:
        bases: Those whose memory of it changes.
    """

    def __init__(self, old: Container, name: str, always: ExitStack, undo: ExitStack) -> None:
        self._target = f"{old.lxcpath}/{name}"
        self._directory = ""
        new_texts = _new_texts(old, self._target, name)
        self.bases = [*({*rdepends.bases(old.directory)} - {(old.lxcpath, old.name)})]
        undo.callback(self._recover)
        self._make_directory(old.lxcpath, always)
        self._ledger = Ledger(self._directory, task="rename", name=old.name, to=name, base=("", ""))
        self._files = list(new_texts)
        for number, file in enumerate(self._files):
            path = f"{old.directory}/{file}"
            os.link(path, f"{self._directory}/old-{number}", follow_symlinks=False)
            write_like(path, f"{self._directory}/new-{number}", new_texts[file].encode("utf-8", "surrogateescape"))
        # By these it is known again: the number of a directory alone is soon another one's when that is gone.
        for kind in _CONFIGS:
            os.link(f"{self._directory}/{kind}-0", f"{self._directory}/{kind}-config", follow_symlinks=False)
        storage = Storage(old)
        inside = _read_identity(storage) if storage.is_on_host else {}
        for number, content in enumerate(inside.values()):
            with open(f"{self._directory}/inside-{number}", "xb") as saved:
                saved.write(content)
        self._ledger.add(
            inode=os.stat(old.directory).st_ino,
            files=self._files,
            inside=list(inside),
            upper=storage.upper,
            lower=storage.lower,
            bases=self.bases,
        )
        reach("journal-written")

    def _make_directory(self, lxcpath: str, always: ExitStack) -> None:
        """Make it and hold it: a reap() takes no directory that has no ledger from those who do."""
        while True:
            self._directory = f"{lxcpath}/{HIDDEN}{random_suffix()}"
            os.mkdir(self._directory, 0o700)
            with suppress(FileNotFoundError):
                fd = above_stdio(os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
                always.callback(os.close, fd)
                if ledger.lock(fd, self._directory):
                    return
            # It was faster than we.

    def exchange_files(self) -> None:
        """Put the new files in place of the old ones."""
        for number, file in enumerate(self._files):
            os.rename(f"{self._directory}/new-{number}", f"{self._target}/{file}")
            reach("exchanged")

    def _recover(self) -> None:
        if os.path.exists(f"{self._directory}/{FILE}") and hasattr(self, "_ledger"):
            recover(self._directory, ledger.read(self._ledger.fd))
            self._ledger.close()
        elif self._directory:  # nothing was changed yet, or all is done
            remove_tree(self._directory)

    def close(self) -> None:
        """There is no way back any more."""
        os.unlink(f"{self._directory}/{FILE}")
        self._ledger.close()
        reach("released")
        remove_tree(self._directory)


def recover(journal: str, record: Record) -> None:
    """Give a container back the name that it had before a rename that did not come to its end. Idempotent.

    Args:
        journal: The directory with what is needed for it.
        record: The ledger in there, which is locked.

    Raises:
        UnsupportedError: The container is not there any more, or has another one's place.
        OSError: Something could not be written.
    """
    entries = record.entries
    lxcpath, before, name = os.path.dirname(journal), record.name, check_name(entries["to"])
    if "inode" in entries:  # otherwise nothing was changed yet
        directory = _find(journal, entries["inode"], [f"{lxcpath}/{name}", f"{lxcpath}/{before}"])
        for base in entries["bases"]:
            rdepends.replace((base[0], base[1]), (lxcpath, name), (lxcpath, before))
        for number, file in enumerate(entries["files"]):
            with suppress(FileNotFoundError):
                os.rename(f"{journal}/old-{number}", f"{directory}/{file}")
        if directory == f"{lxcpath}/{name}":
            rename_new(directory, f"{lxcpath}/{before}")
        forget_lock(name, lxcpath)
        _write_identity(journal, entries)
    remove_tree(journal, last=FILE)


def _find(journal: str, inode: int, directories: list[str]) -> str:
    for directory in directories:
        with suppress(FileNotFoundError):
            config = os.lstat(f"{directory}/config")
            same = [os.path.samestat(config, os.lstat(f"{journal}/{kind}-config")) for kind in _CONFIGS]
            if os.lstat(directory).st_ino == inode and any(same):
                return directory
    raise UnsupportedError(
        f"what was to be renamed is neither {' nor '.join(directories)} any more; if it is gone, remove {journal}"
    )


def _read_identity(storage: Storage) -> dict[str, bytes]:
    layers = storage.upper, storage.lower
    if os.geteuid() == 0:
        texts = read_inside(*layers)
    else:
        from . import userns

        texts = userns.call("rename", "read_inside", *layers)
    return {path: text.encode("latin-1") for path, text in texts.items()}


def read_inside(upper: str, lower: list[str]) -> dict[str, str]:
    """Return the files by which a system knows itself, each byte as one character, which JSON can carry."""
    with open_system(upper, lower) as root:
        return {path: content.decode("latin-1") for path, content in identity.read_all(root).items()}


def _write_identity(journal: str, entries: dict[str, Any]) -> None:
    texts = {}
    for number, path in enumerate(entries["inside"]):
        with open(f"{journal}/inside-{number}", "rb") as saved:
            texts[path] = saved.read().decode("latin-1")
    arguments = entries["upper"], entries["lower"], texts
    if texts and os.geteuid() == 0:
        write_inside(*arguments)
    elif texts:
        from . import userns

        userns.call("rename", "write_inside", *arguments)


def write_inside(upper: str, lower: list[str], texts: dict[str, str]) -> None:
    """Give these files such content again."""
    with open_system(upper, lower) as root:
        identity.write_all(root, {path: text.encode("latin-1") for path, text in texts.items()})


def _new_texts(old: Container, target: str, name: str) -> dict[str, str]:
    """What is to be written: the configuration, and those files of its that name the directory."""
    config = read_config(old.config_source)
    texts = {"config": relocate.renamed(config, old.directory, target, name)}
    pending = relocate.own_texts(config, old.directory)
    for file in pending:
        text = read_config(f"{old.directory}/{file}")
        pending += [one for one in relocate.own_texts(text, old.directory) if one not in pending]
        moved = relocate.moved(text, old.directory, target)
        if moved != text:
            texts[file] = moved
    return texts
