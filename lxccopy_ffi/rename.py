# SPDX-License-Identifier: LGPL-2.1-or-later
"""Giving a container another name."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress

from . import identity, notices, rdepends, relocate
from .clone import Claim, check_target, clone, open_source, open_system, personalise, read_config
from .container import Container
from .errors import AccessError, UnsupportedError
from .locking import forget_lock, locked
from .names import check_file, check_name, random_suffix
from .removal import discard
from .storage import Plan, Storage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .clone import Progress
    from .names import StrPath


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
    lxcpath, before, own = old.lxcpath, old.name, old.directory
    target = f"{lxcpath}/{name}"
    try:
        with locked(before, lxcpath), ExitStack() as tidy, ExitStack() as undo:
            _check(old)  # nobody else changes it from here on
            new_texts = _new_texts(old, target, name)
            Claim(name, before, lxcpath, undo)
            written = {
                file: os.path.basename(undo.enter_context(identity.prepared(f"{own}/{file}", text)))
                for file, text in new_texts.items()
            }
            mark = f".{random_suffix()}"
            tidy.callback(_forget, [f"{target}/{file}{mark}" for file in written])
            undo.callback(_move_back, target, own, os.stat(own))
            os.rename(own, target)  # over the empty directory that holds the name
            for file, new_file in written.items():
                _exchange(f"{target}/{file}", f"{os.path.dirname(f'{target}/{file}')}/{new_file}", mark, undo)
            for base in {*rdepends.bases(target)} - {(lxcpath, before)}:
                undo.callback(rdepends.replace, base, (lxcpath, name), (lxcpath, before))
                rdepends.replace(base, (lxcpath, before), (lxcpath, name))
            new = Container(name, lxcpath)
            undo.callback(new.close)
            storage = Storage(new)
            if os.geteuid() != 0:
                from . import userns

                undo.callback(
                    userns.call, "clone", "personalise_mapped", storage.upper, storage.lower, before, fresh_id=False
                )
            elif storage.is_on_host:
                with open_system(storage) as root:
                    undo.callback(_restore, storage, identity.read_all(root))
            personalise(new, fresh_id=False)
            undo.pop_all()
    except OSError as error:
        raise AccessError(
            f"cannot rename {before!r} in {lxcpath}: {error.filename or own}: {error.strerror}"
        ) from error
    forget_lock(before, lxcpath)
    return new


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


def _move_back(target: str, own: str, was: os.stat_result) -> None:
    if os.path.lexists(target) and os.path.samestat(os.lstat(target), was):
        os.rename(target, own)


def _exchange(file: str, new: str, mark: str, undo: ExitStack) -> None:
    """Put a file in place of another one, so that going back takes no room on the disk."""
    before = f"{file}{mark}"
    undo.callback(_exchange_back, before, file)
    os.link(file, before, follow_symlinks=False)
    os.rename(new, file)


def _exchange_back(before: str, file: str) -> None:
    with suppress(FileNotFoundError):
        os.rename(before, file)
        os.unlink(before)  # rename(2) leaves both where they are links of the same file, for we had not come further


def _forget(files: list[str]) -> None:
    for file in files:
        with suppress(FileNotFoundError):
            os.unlink(file)


def _restore(storage: Storage, files: dict[str, bytes]) -> None:
    with open_system(storage) as root:
        identity.write_all(root, files)
