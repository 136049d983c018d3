# SPDX-License-Identifier: LGPL-2.1-or-later
"""What this machine can do for whoever asks: tried where that leaves nothing behind, looked up elsewhere."""

from __future__ import annotations

import os

from . import _raw, cgroups
from .errors import LiblxcMissingError, LxcCopyError, UnsupportedError
from .names import check_path, random_suffix
from .storage import find_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .names import StrPath

OK = "ok"
MISSING = "missing"
OPTIONAL = "optional"

# What root cannot do without, by the number of its bit: a container's root cannot have what its starter has not.
_CAPABILITIES = {1: "CAP_DAC_OVERRIDE", 8: "CAP_SETPCAP", 18: "CAP_SYS_CHROOT", 21: "CAP_SYS_ADMIN"}
_SIGCHLD_BIT = 16

# Where a tmpfs mostly is: the writable layer of a copy in memory is tried there.
_IN_MEMORY = ("/dev/shm", "/run")  # noqa: S108 - not a file in it, but which file system it is


class Finding:
    """One thing that was looked at.

    Args:
        name: What it is.
        state: OK; MISSING where a command in a throwaway copy in memory cannot run for want of it; OPTIONAL where
            something else cannot, which the text names.
        text: What was found, without a newline.
        remedy: What to do about it, where possible a command; empty where nothing is to be done.
    """

    def __init__(self, name: str, state: str, text: str, remedy: str = "") -> None:
        self.name = name
        self.state = state
        self.text = text
        self.remedy = remedy

    def __repr__(self) -> str:
        return f"<Finding {self.name}: {self.state}, {self.text}>"


def check(lxcpath: StrPath | None = None) -> list[Finding]:
    """Find out what this machine can and cannot do, for the user who asks. Nothing is left behind.

    Args:
        lxcpath: The directory with the containers; LXC's default where None.

    Returns:
        What was found. If nothing is MISSING, a command in a throwaway copy in memory can run.

    Raises:
        OptionError: The path is not allowed.
        OSError: What was made for a trial cannot be removed.
    """
    directory = None if lxcpath is None else check_path(lxcpath)
    library, version = _check_liblxc()
    if directory is None and version:
        directory = _raw.default_lxcpath()
    return [
        library,
        _check_extension(),
        _check_root() if _is_root() else _check_user(),
        _check_kernel(),
        _check_sigchld(),
        _check_tmpfs(),
        _check_overlay(),
        _check_run(),
        _check_cgroups(version),
        _check_user_namespaces(),
        _check_id_map_programs(),
        _check_subordinate_ids(),
        _check_lxcpath(directory),
        _check_disk(directory),
        _check_rsync(),
        _check_busybox(),
    ]


def _is_root() -> bool:
    return os.geteuid() == 0


def _lacking_for_id_maps(name: str, text: str, remedy: str) -> Finding:
    """What every container of an ordinary user needs, and of root's only those that have an id map."""
    if _is_root():
        return Finding(name, OPTIONAL, f"{text}; only bases with an id map need it", remedy)
    return Finding(name, MISSING, text, remedy)


def _check_liblxc() -> tuple[Finding, str]:
    """The library, and its version where it can be loaded."""
    try:
        version = _raw.liblxc_version()
    except LiblxcMissingError as error:
        text, _, remedy = str(error).partition("; ")
        return Finding("liblxc", MISSING, text, remedy), ""
    return Finding("liblxc", OK, f"{version}, from {os.environ.get('LXCCOPY_LIBLXC') or _raw.SONAME}"), version


def _check_extension() -> Finding:
    """It is there, or this module would not be: the import of the package says so otherwise."""
    import sys

    module = sys.modules[f"{__package__}._liblxc"]
    python = ".".join(str(number) for number in sys.version_info[:3])
    return Finding("extension", OK, f"{module.__file__}, in Python {python}")


def _status(key: str) -> int:
    """A mask of bits from our /proc/self/status."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        return next((int(line.split()[1], 16) for line in file if line.startswith(f"{key}:")), 0)


def _check_root() -> Finding:
    effective = _status("CapEff")
    absent = [name for bit, name in _CAPABILITIES.items() if not effective >> bit & 1]
    if absent:
        remedy = "ask as root of the host; a container has to be a privileged one"
        return Finding("user", MISSING, f"root, without {', '.join(absent)}", remedy)
    return Finding("user", OK, "root")


def _check_user() -> Finding:
    return Finding("user", OK, f"{_user_name()}, whose containers live in a user namespace")


def _user_name() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _check_kernel() -> Finding:
    """Whether it has what we call; its version says too little, as distributions add and sandboxes take away."""
    text = f"Linux {os.uname().release}"
    try:
        os.close(_raw.pidfd_open(os.getpid()))
        root = os.open("/", os.O_PATH | os.O_CLOEXEC)
        try:
            os.close(_raw.openat2(root, ".", os.O_PATH, _raw.NO_LINKS))
        finally:
            os.close(root)
    except OSError as error:
        remedy = "use Linux 5.6 or later, and no sandbox that forbids these calls"
        return Finding("kernel", MISSING, f"{text} has no openat2() or pidfd_open(): {error.strerror}", remedy)
    return Finding("kernel", OK, text)


def _check_sigchld() -> Finding:
    if _status("SigIgn") >> _SIGCHLD_BIT & 1:
        text = "this process ignores it, so liblxc would lose its children"
        return Finding("SIGCHLD", MISSING, text, "call signal.signal(signal.SIGCHLD, signal.SIG_DFL) first")
    return Finding("SIGCHLD", OK, "not ignored")


def _check_tmpfs() -> Finding:
    if not _is_root():
        return _check_known("tmpfs")
    try:
        os.close(_raw.new_mount("tmpfs", {"size": "1M"}))
    except OSError as error:
        return Finding("tmpfs", MISSING, f"cannot be made: {error.strerror}", _mount_remedy(error, "tmpfs"))
    return Finding("tmpfs", OK, "can be made")


def _mount_remedy(error: OSError, kind: str) -> str:
    import errno

    if error.errno == errno.ENODEV:
        return f"modprobe {kind}, or use a kernel that has it"
    if error.errno == errno.ENOSYS:
        return "use Linux 5.2 or later, and no sandbox that forbids fsopen()"
    return "ask as root with CAP_SYS_ADMIN, and without a sandbox that forbids mounts"


def _check_known(kind: str) -> Finding:
    """Whether the kernel has a file system, which for an ordinary user only the container itself can mount."""
    with open("/proc/filesystems", encoding="ascii", errors="replace") as file:
        known = any(line.split()[-1] == kind for line in file)
    if not known:
        return Finding(kind, MISSING, "the kernel has not loaded it", f"as root: modprobe {kind}")
    return Finding(kind, OK, "the kernel has it")


def _check_overlay() -> Finding:
    if not _is_root():
        found = _check_known("overlay")
        release = os.uname().release
        if found.state == OK and _numbers(release) < (5, 11):
            text = f"Linux {release} lets only root mount one: userxattr came with 5.11"
            return Finding("overlay", MISSING, text, "use Linux 5.11 or later")
        return found
    upper = _memory_directory()
    error = _try_overlay("/usr", upper)
    if error is not None:
        text = f"cannot be mounted{' with changes in memory' if upper else ''}: {error.strerror}"
        return Finding("overlay", MISSING, text, _mount_remedy(error, "overlay"))
    return Finding("overlay", OK, f"can be mounted{', with changes in memory' if upper else ''}")


def _numbers(version: str) -> tuple[int, ...]:
    """The first two numbers of a version such as 6.1.0-18-amd64."""
    import re

    return tuple(int(number) for number in re.findall("[0-9]+", version)[:2])


def _memory_directory() -> str:
    """A directory on a tmpfs where we can make one; empty where there is none."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        kinds = {line.split(" ")[4]: line.partition(" - ")[2].split(" ")[0] for line in file}
    usable = [path for path in _IN_MEMORY if kinds.get(path) == "tmpfs" and os.access(path, os.W_OK)]
    return usable[0] if usable else ""


def _try_overlay(lower: str, upper: str) -> OSError | None:
    """Mount an overlay nowhere, and let go of it.

    Args:
        lower: The directory below.
        upper: The directory in which its writable layer is made for a moment; without one it is read-only.

    Returns:
        Why that is not possible.
    """
    if not upper:
        return _mount_overlay({"lowerdir": f"{lower}:/etc"})
    trial = f"{upper}/.lxccopy-check-{random_suffix()}"
    try:
        os.mkdir(trial, 0o700)
    except OSError as error:
        return error
    try:
        for name in ("upper", "work"):
            os.mkdir(f"{trial}/{name}")
        return _mount_overlay({"lowerdir": lower, "upperdir": f"{trial}/upper", "workdir": f"{trial}/work"})
    except OSError as error:
        return error
    finally:
        import shutil

        shutil.rmtree(trial)


def _mount_overlay(options: dict[str, str]) -> OSError | None:
    try:
        os.close(_raw.new_mount("overlay", options))
    except OSError as error:
        return error
    return None


def _check_run() -> Finding:
    """Where liblxc has its locks; and for root, the point that each copy's memory is mounted on."""
    if not _is_root():
        path = os.environ.get("XDG_RUNTIME_DIR") or os.environ.get("HOME") or ""
        if not os.access(path, os.W_OK):
            text = f"{path or 'XDG_RUNTIME_DIR'} cannot be written, where liblxc has its locks"
            return Finding("run", MISSING, text, "set XDG_RUNTIME_DIR or HOME to a directory of yours")
        return Finding("run", OK, path)
    from .tmpfs import MOUNT_POINT, check_mount_point

    path = os.path.dirname(MOUNT_POINT)
    if not os.access(path, os.W_OK):
        text = f"{path} cannot be written, where liblxc has its locks"
        return Finding("run", MISSING, text, f"mount -o remount,rw {path}")
    try:
        check_mount_point()
    except UnsupportedError as error:
        return Finding("run", MISSING, str(error).partition("; ")[0], f"rm -r {MOUNT_POINT}")
    return Finding("run", OK, path)


def _check_cgroups(version: str) -> Finding:
    """Whether liblxc knows the layout. It starts containers also where it cannot make cgroups."""
    mounted = cgroups.hierarchies()
    pure = mounted.get("") == "/sys/fs/cgroup"
    layout = "cgroup2" if pure else "cgroup1 and cgroup2" if "" in mounted else "cgroup1" if mounted else "none"
    if version and _numbers(version) >= (7, 0) and not pure:
        remedy = "boot with systemd.unified_cgroup_hierarchy=1, or use liblxc 6"
        return Finding("cgroups", MISSING, f"{layout}; liblxc {version} knows only cgroup2", remedy)
    if version and _numbers(version) < (4, 0) and pure:
        text = f"{layout}, which liblxc {version} knows only in part: limits may have no effect"
        return Finding("cgroups", OPTIONAL, text, "use liblxc 4.0 or later")
    closed = _closed_hierarchies(mounted)
    if closed or not mounted:
        remedy = (
            "mount -o remount,rw /sys/fs/cgroup" if _is_root() else "systemd-run --user --scope -p Delegate=yes ..."
        )
        text = f"{layout}; not writable: {', '.join(closed)}" if closed else layout
        return Finding("cgroups", OPTIONAL, f"{text}; only limits for a copy need them", remedy)
    return Finding("cgroups", OK, layout)


def _closed_hierarchies(mounted: dict[str, str]) -> list[str]:
    """The hierarchies in which none can be made where liblxc does: below init's cgroup for root, else below ours."""
    with open(f"/proc/{1 if _is_root() else 'self'}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        memberships = [line.rstrip("\n").split(":", 2)[1:] for line in file]
    closed = []
    for controllers, path in memberships:
        root = mounted.get(controllers)
        if root is None:
            continue
        if not os.access(f"{root}{path.removesuffix('/init.scope')}", os.W_OK):
            closed.append(controllers or "cgroup2")
    return closed


def _check_user_namespaces() -> Finding:
    name = "user namespaces"
    if not os.path.exists("/proc/self/ns/user"):
        return _lacking_for_id_maps(name, "the kernel has none", "use another kernel")
    wrong = {"user/max_user_namespaces": 0}
    if not _is_root():
        # Debian's and Ubuntu's own.
        wrong.update({"kernel/unprivileged_userns_clone": 0, "kernel/apparmor_restrict_unprivileged_userns": 1})
    for key, value in wrong.items():
        if _sysctl(key) == value:
            dotted = key.replace("/", ".")
            remedy = f"as root: sysctl {dotted}={'15000' if key.startswith('user/') else 1 - value}"
            return _lacking_for_id_maps(name, f"forbidden by {dotted}={value}", remedy)
    return Finding(name, OK, "allowed")


def _sysctl(key: str) -> int | None:
    try:
        with open(f"/proc/sys/{key}", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def _check_id_map_programs() -> Finding:
    name = "newuidmap"
    found = [find_program(program) for program in ("newuidmap", "newgidmap")]
    if _is_root():
        return Finding(name, OK, found[0] or "not installed, nor needed by root")
    packages = "Debian and Ubuntu: uidmap; Fedora: shadow-utils; Arch: shadow; Alpine: shadow-uidmap"
    if not all(found):
        text = "newuidmap or newgidmap is not installed"
        return Finding(name, MISSING, text, f"install them ({packages})")
    for path in found:
        if not _gains_rights(path):
            return Finding(name, MISSING, f"{path} is not setuid root", f"as root: chmod u+s {path}")
    return Finding(name, OK, found[0])


def _gains_rights(path: str) -> bool:
    """Whether a program runs with more rights than its caller's."""
    import stat

    if os.statvfs(path).f_flag & os.ST_NOSUID:
        return False
    found = os.stat(path)
    if found.st_uid == 0 and found.st_mode & stat.S_ISUID:
        return True
    try:
        return bool(os.getxattr(path, "security.capability"))
    except OSError:
        return False


def _check_subordinate_ids() -> Finding:
    name = "subordinate ids"
    if _is_root() and not find_program("newuidmap"):
        return Finding(name, OK, "not needed by root without newuidmap")
    user = _user_name()
    for file in ("/etc/subuid", "/etc/subgid"):
        if not _count_ids(file, user):
            remedy = f"as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}"
            text = f"{user} has none in {file}"
            return _lacking_for_id_maps(name, text, remedy)
    return Finding(name, OK, f"{_count_ids('/etc/subuid', user)} for {user}")


def _count_ids(file: str, user: str) -> int:
    """How many ids a file like /etc/subuid gives to a user, who may be there by name or number."""
    count = 0
    try:
        with open(file, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                words = line.strip().split(":")
                if len(words) == 3 and words[0] in (user, str(os.geteuid())) and words[2].isdecimal():
                    count += int(words[2])
    except OSError:
        pass
    return count


def _check_lxcpath(directory: str | None) -> Finding:
    if directory is None:
        return Finding("lxcpath", MISSING, "not known without liblxc", "name it with -P")
    if not os.path.isdir(directory):
        remedy = f"lxccopy -P {_quoted(directory)} --create-base base"
        return Finding("lxcpath", MISSING, f"{directory} is no directory; it can be made", remedy)
    return _check_writing(directory) or _check_reach(directory) or Finding("lxcpath", OK, directory)


def _check_writing(directory: str) -> Finding | None:
    """What keeps us from making a copy there."""
    if os.statvfs(directory).f_flag & os.ST_RDONLY:
        remedy = f"mount -o remount,rw {_quoted(_mount_point(directory))}, or use -P"
        return Finding("lxcpath", MISSING, f"{directory} is on a read-only file system", remedy)
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        text = f"{directory} is not for {_user_name()} to write"
        return Finding("lxcpath", MISSING, text, "use -P with a directory of yours")
    error = _try_overlay(directory, _memory_directory()) if _is_root() else None
    if error is not None:
        text = f"no overlay can be put on {directory}: {error.strerror}"
        return Finding("lxcpath", MISSING, text, "use -P with a directory on a file system such as ext4")
    return None


def _check_reach(directory: str) -> Finding | None:
    """What keeps some containers from running there."""
    closed = _closed_to_others(directory)
    if closed:
        text = f"{closed} cannot be entered by a container's root, who is nobody here"
        return _lacking_for_id_maps("lxcpath", text, f"chmod o+x {_quoted(closed)}")
    if os.statvfs(directory).f_flag & os.ST_NOEXEC:
        text = f"{directory} is mounted noexec; only containers that are no overlays cannot run there"
        return Finding("lxcpath", OPTIONAL, text, f"mount -o remount,exec {_quoted(_mount_point(directory))}")
    return None


def _closed_to_others(directory: str) -> str:
    """The first directory on the way to this one, or itself, that others may not pass."""
    path = ""
    for part in os.path.realpath(directory).split("/"):
        path = f"{path.rstrip('/')}/{part}"
        if not os.stat(path).st_mode & 0o001:
            return path
    return ""


def _mount_point(path: str) -> str:
    path = os.path.realpath(path)
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    return path


def _quoted(path: str) -> str:
    import shlex

    return shlex.quote(path)


def _check_disk(directory: str | None) -> Finding:
    """Whether a copy's changes can be kept beside it, as without -t: not every file system can hold an upper layer."""
    name = "copies on disk"
    if directory is None or not os.access(directory, os.W_OK | os.X_OK):
        return Finding(name, OPTIONAL, "not tried; only -e without -t needs it", "mend the lxcpath first")
    if not _is_root():
        return Finding(name, OK, "not tried, which only root can")
    error = _try_overlay("/usr", directory)
    if error is not None:
        text = f"no overlay can write to {directory}: {error.strerror}; only -e without -t needs it"
        return Finding(name, OPTIONAL, text, "use -t, or -p with a directory on a file system such as ext4")
    return Finding(name, OK, f"an overlay can write to {directory}")


def _check_rsync() -> Finding:
    found = find_program("rsync")
    if not found:
        return Finding("rsync", OPTIONAL, "not installed; only full copies need it", "install it (package rsync)")
    return Finding("rsync", OK, found)


def _check_busybox() -> Finding:
    from .base import find_busybox

    try:
        return Finding("busybox", OK, find_busybox())
    except LxcCopyError as error:
        text, _, remedy = str(error).partition("; ")
        return Finding("busybox", OPTIONAL, f"{text}; only --create-base needs it", remedy)
