# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a system boots with, and the configuration for that."""

from __future__ import annotations

import os
import stat

from . import identity
from ._raw import IN_ROOT, openat2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_SYSTEMD = ("usr/lib/systemd/systemd", "lib/systemd/systemd")
_OPENRC = ("sbin/openrc", "usr/sbin/openrc", "usr/bin/openrc")
_SHELL = "bin/sh"

_COMMON = (
    ("lxc.tty.max", "1"),
    ("lxc.pty.max", "1024"),
    # as LXC's own common.conf; with sys_rawio systemd would also try to mount debugfs in a user namespace
    ("lxc.cap.drop", "sys_module sys_rawio mac_admin mac_override sys_time"),
    ("lxc.mount.auto", "proc:mixed sys:mixed cgroup:mixed"),
)

# What an init that is none of the big ones does not mount itself.
_MOUNTS = (
    ("lxc.mount.entry", "shm dev/shm tmpfs nosuid,nodev,create=dir 0 0"),
    ("lxc.mount.entry", "mqueue dev/mqueue mqueue optional,create=dir 0 0"),
)

_BUSYBOX = (("lxc.signal.halt", "SIGUSR1"), ("lxc.signal.reboot", "SIGTERM"))

# Where it is LXC's own SIGPWR, nothing has to be said.
_CONFIGS: dict[str, tuple[tuple[str, str], ...]] = {
    "systemd": (("lxc.signal.halt", "SIGRTMIN+3"),),
    "openrc-init": _MOUNTS,
    "openrc": (*_BUSYBOX, *_MOUNTS),  # of busybox, as in Alpine
    "busybox": (*_BUSYBOX, *_MOUNTS),
    "other": _MOUNTS,
    # A shell as init ends of nothing else.
    "shell": (("lxc.init.cmd", f"/{_SHELL}"), ("lxc.signal.halt", "SIGKILL"), *_MOUNTS),
    "nothing": _MOUNTS,
}

# ELF's number of a machine, with the number of bits, and what liblxc calls it.
_MACHINES = {
    (62, 64): "x86_64",
    (3, 32): "i686",
    (183, 64): "aarch64",
    (40, 32): "armv7l",
    (21, 64): "ppc64le",
    (22, 64): "s390x",
}

# What else a machine can run.
_ALSO = {"x86_64": {"i686"}, "aarch64": {"armv7l"}}


def look(rootfs: str) -> list[str]:
    """Return what a system boots with, the command for that where it is not /sbin/init, and its machine.

    Args:
        rootfs: The path of its root file system.
    """
    root = identity.open_root(rootfs)
    try:
        init = _resolve(root, "sbin/init")
        kind, command = _kind(root, init), ""
        if kind == "systemd" and not init:
            command = next(f"/{path}" for path in _SYSTEMD if _resolve(root, path))
        return [kind, command, _machine(root, init or command.strip("/") or _SHELL)]
    finally:
        os.close(root)


def config(found: Sequence[str]) -> list[tuple[str, str]]:
    """Return the configuration for what look() found."""
    kind, command, machine = found
    lines = [*_COMMON, *_CONFIGS[kind]]
    if command:
        lines.append(("lxc.init.cmd", command))
    if _runs(machine):
        lines.append(("lxc.arch", machine))
    return lines


def warnings(found: Sequence[str]) -> list[str]:
    """Return what is worth saying of what look() found."""
    kind, _, machine = found
    said = []
    if kind == "shell":
        said.append("there is no init in it, so /bin/sh stands in for one; lxc.init.cmd in its config names another")
    if kind == "nothing":
        said.append("there is neither an init nor a shell in it; lxc.init.cmd in its config must name a program")
    if machine and not _runs(machine):
        said.append(f"its programs are for {machine}, and this machine is {os.uname().machine}")
    return said


def _runs(machine: str) -> bool:
    ours = os.uname().machine
    return bool(machine) and (machine == ours or machine in _ALSO.get(ours, ()))


def _kind(root: int, init: str) -> str:
    name = os.path.basename(init)
    if name == "systemd" or (not init and any(_resolve(root, path) for path in _SYSTEMD)):
        return "systemd"
    if name == "openrc-init":
        return name
    if "busybox" in name:
        return "openrc" if any(_resolve(root, path) for path in _OPENRC) else "busybox"
    if init:
        return "other"
    return "shell" if _resolve(root, _SHELL) else "nothing"


def _resolve(root: int, path: str) -> str:
    """Where in the system a program really is; empty where there is none."""
    try:
        fd = openat2(root, path, os.O_PATH, IN_ROOT)
    except OSError:
        return ""
    try:
        found = os.fstat(fd)
        if not (stat.S_ISREG(found.st_mode) and found.st_mode & 0o111):
            return ""
    finally:
        os.close(fd)
    return identity.resolve(root, f"/{path}").strip("/")


def _machine(root: int, path: str) -> str:
    """The machine that a program is for; empty where that is not known."""
    try:
        fd = openat2(root, path, os.O_RDONLY | os.O_NONBLOCK, IN_ROOT)
    except OSError:
        return ""
    try:
        head = os.read(fd, 20) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    finally:
        os.close(fd)
    if len(head) < 20 or head[:4] != b"\x7fELF":
        return ""
    bits, little = (32, 64)[head[4] == 2], head[5] == 1
    number = int.from_bytes(head[18:20], "little" if little else "big")
    return _MACHINES.get((number, bits), "")
