# SPDX-License-Identifier: LGPL-2.1-or-later
"""A minimal base container made from the host's static busybox: no template, no download, no network in it."""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack

from .clone import Claim
from .container import Container
from .errors import AccessError, ContainerExistsError, UnsupportedError
from .names import check_name, check_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .names import StrPath

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
    ("lxc.net.0.type", "empty"),
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


def create_base(name: str, *, lxcpath: StrPath | None = None) -> Container:
    """Make a container from the host's static busybox, to copy from.

    Args:
        name: Its name.
        lxcpath: The directory for it, made where it is missing; LXC's default where None.

    Returns:
        A reference to it.

    Raises:
        OptionError: The name or the path is not allowed.
        ContainerExistsError: There is something of that name.
        UnsupportedError: There is no static busybox on this machine.
        AccessError: It cannot be written there.
        LiblxcError: liblxc refuses its configuration.
    """
    check_name(name)
    if lxcpath is not None:
        check_path(lxcpath)
    busybox = find_busybox()
    with ExitStack() as undo:
        base = Container(name, lxcpath)
        undo.callback(base.close)
        if os.path.lexists(base.directory):
            raise ContainerExistsError(f"there is already a {name!r} in {base.lxcpath}; it is left as it is")
        idmap = [] if os.geteuid() == 0 else _check_user(base.lxcpath)
        try:
            _make_lxcpath(base.lxcpath)
        except OSError as error:
            raise AccessError(f"cannot make the directory {base.lxcpath}: {error.strerror}") from error
        claim = Claim(name, ("", ""), base.lxcpath, undo, "base")
        rootfs = f"{base.directory}/rootfs"
        try:
            _make_rootfs(rootfs, name, busybox)
            if idmap:
                from . import userns

                userns.call("base", "give_to_root", base.directory, rootfs)
        except OSError as error:
            raise AccessError(f"cannot write {error.filename or rootfs}: {error.strerror}") from error
        base.set_config("lxc.rootfs.path", f"dir:{rootfs}")
        base.set_config("lxc.uts.name", name)
        for line in idmap:
            base.set_config("lxc.idmap", line)
        base.clear_config("lxc.net")  # what LXC's default.conf asks for
        for key, value in _CONFIG:
            base.set_config(key, value)
        base.save_config()
        claim.keep()
        undo.pop_all()
    return base


def _check_user(lxcpath: str) -> list[str]:
    """What the new container's id map says; an ordinary user has to be able to start it."""
    from . import subids

    subids.check()
    idmap = subids.idmap()
    subids.check_way(lxcpath, "\n".join(idmap))
    return idmap


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


def give_to_root(directory: str, rootfs: str) -> None:
    """Give a container's root file system to root, and its directory too, which our group may still write."""
    os.chown(directory, 0, -1)
    for path, directories, files in os.walk(rootfs):
        for name in (".", *directories, *files):
            os.chown(f"{path}/{name}", 0, 0, follow_symlinks=False)


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
    import struct

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
