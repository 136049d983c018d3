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
from .names import random_suffix
from .storage import Storage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .container import Container
    from .mounts import Mount

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
    _check_cgroups(base)


def check_sources(paths: Iterable[str], base: Container) -> None:
    """Refuse to mount what the root of the container cannot get to; liblxc would leave it out."""
    for path in paths:
        subids.check_way(path if os.path.isdir(path) else os.path.dirname(path), base.config("lxc.idmap"))


def _check_cgroups(base: Container) -> None:
    """Containers do run without cgroups of their own; but liblxc then fails over limits, or even ignores them."""
    v1, v2 = base.config("lxc.cgroup"), base.config("lxc.cgroup2")
    if not (v1 or v2):
        return
    ours = cgroups.writable()
    if (v2 and "" not in ours) or (v1 and not ours):
        raise AccessError(
            f"{base.where} has limits for its cgroups, and user {subids.user_name()!r} may not make cgroups here; run"
            " it where that is allowed: systemd-run --user --scope -p Delegate=yes -- COMMAND"
        )


def overlay_options() -> str:
    """Return what an overlay in a user namespace needs among its options, with a leading comma."""
    release = [int(number) for number in os.uname().release.split("-")[0].split(".")[:2] if number.isdigit()]
    if tuple(release) < _SINCE:
        notices.warn("before Linux 5.11 directories of the base cannot be removed or renamed in copies with an id map")
        return ""
    return f",{_OPTION}"


def prepare_overlay(copy: Container) -> None:
    """Let an overlay be mounted so that all can be done in it that root could do elsewhere; a full copy is none."""
    storage = Storage(copy)
    options = [option for option in copy.config("lxc.rootfs.options").split(",") if option not in ("", _OPTION)]
    if storage.upper:
        options += filter(None, overlay_options().split(","))
        if not os.access(storage.upper, os.R_OK | os.X_OK):  # with a narrow umask liblxc cannot finish its work
            userns.call("ordinary", "give_layers", os.path.dirname(storage.upper))
    copy.clear_config("lxc.rootfs.options")
    if options:
        copy.set_config("lxc.rootfs.options", ",".join(options))


def give_layers(overlay: str) -> None:
    """Give a copy's layers to its root, and let us look into them."""
    for directory in (overlay, f"{overlay}/delta", f"{overlay}/work"):
        os.chown(directory, 0, -1)
        os.chmod(directory, 0o755)  # noqa: S103 - what they are in is closed to strangers


class Overlay:
    """An overlay mount of a copy which the hook makes: liblxc drops what has no ``=`` from a mount entry's options.

    Args:
        mount: What is asked for.
        directory: The copy's directory.
        layers: The options that name its layers.

    Attributes:
        bind: The mount that the copy gets in its place.
        line: The hook's line.
    """

    def __init__(self, mount: Mount, directory: str, layers: str) -> None:
        import shlex

        merged = f"{directory}/merged#{random_suffix()}"
        self.bind = type(mount)(merged, mount.target)
        words = ["mount", "-n", "-t", "overlay", "-o", f"{layers}{overlay_options()}", mount.source, merged]
        self.line = " ".join(map(shlex.quote, words))


def warn_of_reboot(copy: Container) -> None:
    """Say what liblxc forgets when a copy is rebooted from inside."""
    if _OPTION in copy.config("lxc.rootfs.options").split(","):
        notices.warn(
            f"if {copy.name!r} is rebooted from inside, directories of its base cannot be removed or renamed any more,"
            " and those that were replaced have their old content again; stop and start it instead"
        )


def prepare(
    copy: Container,
    limits: memory.Limits | None,
    layers: Sequence[memory.Layer],
    overlays: Sequence[Overlay],
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
        overlays: Those that the hook mounts.
        keep_name: Leave the files with the name as they are.
        keep_data: It stays; then there is no tmpfs.

    Raises:
        OSError: Something cannot be read or written.
    """
    prepare_overlay(copy)
    files = {} if keep_name else _new_files(copy, simple=not keep_data)
    if keep_data:
        userns.call("ordinary", "make_layers", copy.directory, [[layer.name, layer.mode] for layer in layers])
        warn_of_reboot(copy)
        if layers:
            notices.warn(
                f"directories of an overlay mount in {copy.name!r} cannot be removed or renamed, as it is kept"
            )
        return
    made = Storage(copy)
    if limits is not None and os.listdir(made.upper):
        carried = userns.call("tmpfs", "carry", copy.directory)
        copy.replace_config("lxc.rootfs.path", ":".join(["overlay", carried, *made.lower, made.upper]))
    for overlay in overlays:
        os.mkdir(overlay.bind.source, 0o755)
    script = _script(copy, limits, files, layers, overlays)
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
    userns.call("clone", "personalise_mapped", storage.upper, storage.lower, copy.name)
    return {}


def _script(
    copy: Container,
    limits: memory.Limits | None,
    files: dict[str, bytes],
    layers: Sequence[memory.Layer],
    overlays: Sequence[Overlay],
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
    lines += [overlay.line for overlay in overlays]
    return "\n".join(lines) + "\n"


def _mode(root: str, path: str) -> str:
    return f"{stat.S_IMODE(os.stat(f'{root}/{path}').st_mode):o}"
