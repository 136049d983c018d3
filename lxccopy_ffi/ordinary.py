# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is different for an ordinary user, whose containers live in a user namespace.

A copy's files belong to subordinate ids, so what root writes to them before the start is written here by a pre-mount
hook, which runs as root of that namespace.
"""

from __future__ import annotations

import os
import stat

from . import cgroups, identity, notices, subids, userns
from . import tmpfs as memory
from .errors import AccessError
from .storage import Storage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .container import Container

# Without it an overlay in a user namespace cannot remember that a directory was removed or moved: Input/output error.
_OPTION = "userxattr"

# The first Linux that knows it, which is also the first with such overlays, but for Ubuntu's.
_SINCE = (5, 11)


def check(base: Container, lxcpath: str) -> None:
    """Refuse early what liblxc would refuse late, or in other words.

    Args:
        base: What is copied.
        lxcpath: Where the copy will be.

    Raises:
        AccessError: The user lacks something.
    """
    idmap = base.config("lxc.idmap")
    subids.check()
    subids.check_idmap(idmap, base.where)
    for directory in (*Storage(base).layers, lxcpath):
        subids.check_way(directory, idmap)
    _check_cgroups()


def check_sources(paths: Iterable[str], base: Container) -> None:
    """Refuse to mount what the root of the container cannot get to; liblxc would leave it out."""
    for path in paths:
        subids.check_way(path if os.path.isdir(path) else os.path.dirname(path), base.config("lxc.idmap"))


def _check_cgroups() -> None:
    closed = cgroups.closed_to_us()
    if closed:
        raise AccessError(
            f"no cgroup can be made in {closed[0]}, and containers need their own; run it in cgroups of yours:"
            " systemd-run --user --scope -p Delegate=yes -- COMMAND"
        )


def overlay_options() -> str:
    """Return what an overlay in a user namespace needs among its options, with a leading comma."""
    release = [int(number) for number in os.uname().release.split("-")[0].split(".")[:2] if number.isdigit()]
    if tuple(release) < _SINCE:
        notices.warn(
            "before Linux 5.11 directories of the base cannot be removed or renamed in copies of ordinary users"
        )
        return ""
    return f",{_OPTION}"


def use_overlay(copy: Container) -> None:
    """Let the copy's root file system be mounted so that all can be done in it that root could do elsewhere."""
    options = copy.config("lxc.rootfs.options")
    if _OPTION not in options.split(","):
        copy.replace_config("lxc.rootfs.options", (options + overlay_options()).strip(","))


def prepare(
    copy: Container,
    limits: memory.Limits | None,
    layers: Sequence[memory.Layer],
    *,
    keep_name: bool,
    keep_data: bool,
) -> None:
    """Let the copy have what is its own: a tmpfs, its host name, hosts and machine id, and layers.

    A hook makes them when the copy starts, which costs least. A copy that stays has no such hook, which its own copies
    would inherit: a process like the hook does all of it now.

    Args:
        copy: The copy, not running.
        limits: The size of the tmpfs; None for a copy on disk.
        layers: Directories that overlays of mounts need.
        keep_name: Leave the files with the name as they are.
        keep_data: It stays; then there is no tmpfs.

    Raises:
        OSError: Something cannot be read or written.
    """
    use_overlay(copy)
    files = {} if keep_name else _new_files(copy, simple=not keep_data)
    if keep_data:
        userns.call("ordinary", "make_layers", copy.directory, [[layer.name, layer.mode] for layer in layers])
        return
    made = Storage(copy)
    if limits is not None and os.listdir(made.upper):
        carried = userns.call("tmpfs", "carry", copy.directory)
        copy.replace_config("lxc.rootfs.path", ":".join(["overlay", carried, *made.lower, made.upper]))
    script = _script(copy, limits, files, layers)
    copy.set_config("lxc.hook.pre-mount", memory.write_hook(copy.directory, script))


def make_layers(directory: str, layers: Iterable[tuple[str, int]]) -> None:
    """Make layers of these names and modes in a copy's directory."""
    for name, mode in layers:
        os.mkdir(f"{directory}/{name}", 0o700)
        os.chmod(f"{directory}/{name}", mode)


def _new_files(copy: Container, *, simple: bool) -> dict[str, bytes]:
    """What the hook shall write. Where it is not that simple, it is written here, by a process like the hook."""
    storage = Storage(copy)
    if simple and len(storage.lower) == 1 and not os.listdir(storage.upper):
        try:
            root = identity.open_root(storage.lower[0])
            try:
                files = identity.new_files(root, copy.name)
            finally:
                os.close(root)
        except PermissionError:
            pass
        else:
            if not any(b"\0" in content for content in files.values()):
                return files
    userns.call("clone", "personalise_layers", storage.upper, storage.lower, copy.name)
    return {}


def _script(
    copy: Container, limits: memory.Limits | None, files: dict[str, bytes], layers: Sequence[memory.Layer]
) -> str:
    import shlex

    lower = Storage(copy).lower[0]
    place = shlex.quote(f"{copy.directory}/overlay" if limits else copy.directory)
    delta = shlex.quote(f"{copy.directory}/overlay/delta")
    # A copy of this copy has this hook, too.
    lines = ["#! /bin/sh", "set -e", f'[ "$LXC_NAME" = {copy.name} ] || exit 0', "umask 022"]
    if limits is not None:
        lines += [memory.mount_line(copy.directory, limits), f"mkdir {delta}"]
    # What the copy itself has made could be links to elsewhere, and at its next start it has files of its own.
    lines += [f'if [ -z "$(ls -A {delta})" ]; then', f"cd {delta}", "chown 0:0 ."]
    made: set[str] = set()
    for path, content in files.items():
        parents = path.split("/")[:-1]
        for depth in range(len(parents)):
            directory = "/".join(parents[: depth + 1])
            if directory not in made:
                made.add(directory)
                lines.append(f"mkdir -m {_mode(lower, directory)} {shlex.quote(directory)}")
        target = shlex.quote(path)
        lines += [f"printf %s {shlex.quote(os.fsdecode(content))} > {target}", f"chmod {_mode(lower, path)} {target}"]
    lines += ["fi", f"cd {place}"]
    for layer in layers:
        path = shlex.quote(layer.name)
        lines += [f"[ -d {path} ] || mkdir {path}", f"chmod {layer.mode:o} {path}"]
    return "\n".join(lines) + "\n"


def _mode(root: str, path: str) -> str:
    return f"{stat.S_IMODE(os.stat(f'{root}/{path}').st_mode):o}"
