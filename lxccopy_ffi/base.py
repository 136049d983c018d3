# SPDX-License-Identifier: LGPL-2.1-or-later
"""A base container, without network: a minimal one from the host's static busybox, or one from what people have."""

from __future__ import annotations

import os
import stat
import struct
from contextlib import ExitStack

from . import notices
from .clone import Claim
from .container import Container
from .errors import AccessError, ContainerExistsError, LxcCopyError, OptionError, UnsupportedError
from .faults import reach
from .names import check_name, check_path
from .storage import find_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .names import StrPath

    Progress = Callable[[int, int], None]

_DIRECTORIES = {
    **dict.fromkeys(("bin", "sbin", "usr", "usr/bin", "usr/sbin", "etc", "etc/init.d", "home", "mnt", "opt"), 0o755),
    # what liblxc mounts on, also without lxc.autodev
    **dict.fromkeys(("dev", "dev/pts", "dev/shm", "dev/mqueue", "proc", "sys", "run"), 0o755),
    **dict.fromkeys(("var", "var/log", "var/lib", "var/cache", "var/spool"), 0o755),
    "root": 0o700,
    "tmp": 0o1777,
    "var/tmp": 0o1777,
}

_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
    "etc/hostname": "{name}\n",
    "etc/hosts": "127.0.0.1\tlocalhost\n127.0.1.1\t{name}\n::1\tlocalhost ip6-localhost ip6-loopback\n",
    "etc/fstab": "# nothing: LXC mounts what is needed\n",
    "etc/profile": "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n",
    "etc/inittab": (
        "::sysinit:/etc/init.d/rcS\n::ctrlaltdel:/sbin/reboot\n::shutdown:/bin/true\nconsole::askfirst:-/bin/sh\n"
    ),
}

_SECRETS = {"etc/shadow": "root:*:19000:0:99999:7:::\nnobody:*:19000:0:99999:7:::\n"}

_SCRIPTS = {"etc/init.d/rcS": "#!/bin/sh\n# Runs once at boot.\nip link set lo up 2>/dev/null\nexit 0\n"}

_CONFIG = (
    # busybox init's own signals
    ("lxc.signal.halt", "SIGUSR1"),
    ("lxc.signal.reboot", "SIGTERM"),
    ("lxc.tty.max", "1"),
    ("lxc.pty.max", "1024"),
    ("lxc.cap.drop", "sys_module mac_admin mac_override sys_time"),
    ("lxc.mount.auto", "proc:mixed sys:mixed cgroup:mixed"),
    ("lxc.mount.entry", "shm dev/shm tmpfs nosuid,nodev,create=dir 0 0"),
    ("lxc.mount.entry", "mqueue dev/mqueue mqueue optional,create=dir 0 0"),
)

# Where to look besides the PATH.
FALLBACK_PATH = ("/bin", "/usr/bin")

_PACKAGES = "Debian and Ubuntu: busybox-static; Fedora and Arch: busybox; Alpine: busybox-static"


def create_base(
    name: str,
    source: StrPath | None = None,
    *,
    lxcpath: StrPath | None = None,
    idmap: bool | str = False,
    progress: Progress | None = None,
) -> Container:
    """Make a container to copy from.

    Args:
        name: Its name.
        source: What from: a directory with a root file system; a tar archive of one, also packed with gzip, xz or zstd,
            such as of ``docker export``; an image, as an OCI layout or of ``docker save``. The host's static busybox
            where None.
        lxcpath: The directory for it, made where it is missing; LXC's default where None.
        idmap: For root: let the container's ids be others on the host, the first of root's subordinate ids or
            ``"START:COUNT"``. An ordinary user's always are.
        progress: Called a few times a second with how many bytes of the source are done, and how many there are.

    Returns:
        A reference to it.

    Raises:
        OptionError: An argument is not allowed, or there is no such source.
        ContainerExistsError: There is something of that name.
        UnsupportedError: There is no static busybox on this machine; or the source is broken, too big, not for this
            machine, or has something in it that could do harm.
        AccessError: It cannot be read, or written there; or there are no such ids to be had.
        LiblxcError: liblxc refuses its configuration.
    """
    check_name(name)
    if lxcpath is not None:
        check_path(lxcpath)
    ids = None if isinstance(idmap, bool) else _parse_ids(idmap)
    busybox = find_busybox() if source is None else ""
    with ExitStack() as undo:
        base = Container(name, lxcpath)
        undo.callback(base.close)
        if os.path.lexists(base.directory):
            raise ContainerExistsError(f"there is already a {name!r} in {base.lxcpath}; it is left as it is")
        lines = _check_idmap(ids, base.lxcpath) if idmap or os.geteuid() != 0 else []
        made_from = None if source is None else _check_source(source, base.lxcpath)
        try:
            _make_lxcpath(base.lxcpath)
        except OSError as error:
            raise AccessError(f"cannot make the directory {base.lxcpath}: {error.strerror}") from error
        claim = Claim(name, ("", ""), base.lxcpath, undo, "base")
        try:
            if made_from is None:
                config = [("lxc.net.0.type", "empty"), *_CONFIG]
                _make_busybox_rootfs(base, busybox, lines)
            else:
                config = [("lxc.net.0.type", "empty"), *_unpack(base, made_from, lines, progress)]
                reach("copied")
        except LxcCopyError:
            raise
        except OSError as error:
            raise AccessError(f"cannot write {error.filename or base.directory}: {error.strerror}") from error
        base.set_config("lxc.rootfs.path", f"dir:{base.directory}/rootfs")
        base.set_config("lxc.uts.name", name)
        for line in lines:
            base.set_config("lxc.idmap", line)
        base.clear_config("lxc.net")  # what LXC's default.conf asks for
        for key, value in config:
            base.set_config(key, value)
        base.save_config()
        claim.keep()
        undo.pop_all()
    return base


def _check_source(source: StrPath, lxcpath: str) -> str:
    from .sources import check

    return check(source, lxcpath)


def _parse_ids(text: str) -> tuple[int, int]:
    """Return the first id and how many there are."""
    first, _, count = text.partition(":") if isinstance(text, str) else ("", "", "")
    if not (first.isascii() and first.isdigit() and count.isascii() and count.isdigit()):
        raise OptionError(f"an id map is given as START:COUNT, two numbers, not {text!r}")
    ids = (int(first), int(count))
    if min(ids) < 1 or sum(ids) >= 1 << 32:
        raise OptionError(f"the ids {text} are out of range, or root's own")
    return ids


def _check_idmap(ids: tuple[int, int] | None, lxcpath: str) -> list[str]:
    """What the new container's id map says; whoever makes it has to be able to start it."""
    from . import subids

    if os.geteuid() != 0 or ids is None:
        subids.check()
        lines = subids.idmap()
    if ids is not None:
        wanted = [f"{kind} 0 {ids[0]} {ids[1]}" for kind in "ug"]
        if os.geteuid() != 0 and wanted != lines:
            raise OptionError(f"an ordinary user's base has the first of the subordinate ids: {', '.join(lines)}")
        lines = wanted
        if find_program("newuidmap"):  # which liblxc then leaves it to, also for root
            subids.check_idmap("\n".join(lines), "the new base")
    subids.check_way(lxcpath, "\n".join(lines))
    return lines


def _ranges(lines: list[str]) -> list[tuple[int, int]]:
    """The ranges of users and groups in an id map."""
    numbers = [line.split()[2:] for line in lines]
    return [(int(first), int(count)) for first, count in numbers]


def _make_busybox_rootfs(base: Container, busybox: str, idmap: list[str]) -> None:
    rootfs = f"{base.directory}/rootfs"
    _make_rootfs(rootfs, base.name, busybox)
    if idmap and os.geteuid() != 0:
        from . import userns

        userns.call("base", "give_to_root", base.directory, rootfs)
    elif idmap:
        (user, _), (group, _) = _ranges(idmap)
        give_to_root(base.directory, rootfs, user, group)


def _unpack(base: Container, source: str, idmap: list[str], progress: Progress | None) -> list[tuple[str, str]]:
    """Make the root file system from what there is, and return the configuration for it."""
    from . import sources, systems

    ranges = _ranges(idmap)
    if os.geteuid() != 0:
        from . import userns

        counts = [(0, count) for _, count in ranges]
        words = (source, base.directory, counts, os.getpid())
        found, notes = userns.call("sources", "unpack_mapped", *words, report=progress)
    else:
        if ranges:
            os.chown(base.directory, ranges[0][0], -1)
        found, notes = sources.unpack(source, base.directory, ranges or None, progress)
    for note in notes:
        notices.warn(f"{base.name}: {note}")
    return systems.config(found)


def _make_lxcpath(path: str) -> None:
    """Make the directory, and those it is in; a user's are such that the root of a container can pass through them."""
    missing = []
    while not os.path.exists(path):
        missing.append(path)
        path = os.path.dirname(path)
    for directory in reversed(missing):
        os.makedirs(directory, 0o711, exist_ok=True)
        if os.geteuid() != 0:
            os.chmod(directory, 0o711)  # noqa: S103 - whatever the umask


def give_to_root(directory: str, rootfs: str, user: int = 0, group: int = 0) -> None:
    """Give a container's root file system to its root, and its directory too, which our group may still write."""
    os.chown(directory, user, -1)
    for path, directories, files in os.walk(rootfs):
        for name in (".", *directories, *files):
            os.chown(f"{path}/{name}", user, group, follow_symlinks=False)


def find_busybox() -> str:
    """Return the path of a static busybox.

    Raises:
        UnsupportedError: There is none, or it needs shared libraries that the container would not have.
    """
    dynamic = ""
    for directory in (*os.get_exec_path(), *FALLBACK_PATH):
        for program in ("busybox", "busybox.static", "busybox-static"):
            path = os.path.join(directory, program)
            if os.path.isfile(path) and os.access(path, os.X_OK):
                if _is_static(path):
                    return path
                dynamic = dynamic or path
    if dynamic:
        raise UnsupportedError(f"{dynamic} needs shared libraries; install a static busybox ({_PACKAGES})")
    raise UnsupportedError(f"there is no busybox on this machine; install a static one ({_PACKAGES})")


def _is_static(path: str) -> bool:
    """Whether an ELF program has no interpreter, which would load its shared libraries."""
    program_interpreter = 3
    with open(path, "rb") as file:
        head = file.read(64)
        if len(head) < 64 or head[:4] != b"\x7fELF":
            return False
        order = "<" if head[5] == 1 else ">"
        if head[4] == 2:
            (offset,) = struct.unpack_from(order + "Q", head, 32)
            size, count = struct.unpack_from(order + "HH", head, 54)
        else:
            (offset,) = struct.unpack_from(order + "I", head, 28)
            size, count = struct.unpack_from(order + "HH", head, 42)
        file.seek(offset)
        table = file.read(size * count)
    kinds = [struct.unpack_from(order + "I", table, index * size)[0] for index in range(count)]
    return program_interpreter not in kinds


def _make_rootfs(rootfs: str, name: str, busybox: str) -> None:
    os.mkdir(rootfs, 0o755)
    os.chmod(rootfs, 0o755)  # noqa: S103 - a root directory is like that
    for path, mode in _DIRECTORIES.items():
        os.mkdir(f"{rootfs}/{path}")
        os.chmod(f"{rootfs}/{path}", mode)
    for files, mode in ((_FILES, 0o644), (_SECRETS, 0o640), (_SCRIPTS, 0o755)):
        for path, text in files.items():
            with open(f"{rootfs}/{path}", "x", encoding="ascii") as file:
                os.fchmod(file.fileno(), mode)
                file.write(text.format(name=name))
    _install_busybox(rootfs, busybox)


def _install_busybox(rootfs: str, busybox: str) -> None:
    import subprocess

    with open(busybox, "rb") as source, open(f"{rootfs}/bin/busybox", "xb") as target:
        size = os.fstat(source.fileno()).st_size
        done = 0
        while done < size:
            done += os.sendfile(target.fileno(), source.fileno(), done, size - done)
        os.fchmod(target.fileno(), stat.S_IRUSR | stat.S_IWUSR | 0o111 | 0o044)
    listing = subprocess.run([busybox, "--list-full"], stdout=subprocess.PIPE, check=False, text=True)
    applets = listing.stdout.split()
    for applet in applets:
        path = os.path.normpath(applet)
        directory = os.path.dirname(path)
        if directory not in _DIRECTORIES:  # also a name that would lead elsewhere
            continue
        up = "../" * (directory.count("/") + 1)
        try:
            os.symlink(f"{up}bin/busybox" if directory != "bin" else "busybox", f"{rootfs}/{path}")
        except FileExistsError:
            continue
    if "sbin/init" not in applets or "bin/sh" not in applets:
        raise UnsupportedError(f"{busybox} has no init or no sh; install a complete busybox ({_PACKAGES})")
