# SPDX-License-Identifier: LGPL-2.1-or-later
"""The only importer of the compiled extension: loading, text, lists, versions, and why liblxc said no.

Importing this never fails for want of liblxc; the first use does, with a sentence that names the package.
"""

from __future__ import annotations

import os
import select
import stat
from _thread import allocate_lock

from .errors import LiblxcMissingError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from _cffi_backend import _CDataBase

    from ._liblxc import _CharPtr, _Container, _Lib, _StringList

try:
    from . import _liblxc
except ImportError as error:  # pragma: no cover - needs a broken installation
    raise LiblxcMissingError(
        f"the compiled part of lxccopy_ffi is missing or does not fit this Python ({error}): "
        "run 'make' in the source tree, or install the package with pip"
    ) from error

ffi, lib = _liblxc.ffi, _liblxc.lib

# How openat2() looks a path up: as if the directory were the root; without any symbolic link; and nor any mount point.
IN_ROOT: int = lib.RESOLVE_IN_ROOT | lib.RESOLVE_NO_MAGICLINKS
NO_LINKS: int = lib.RESOLVE_BENEATH | lib.RESOLVE_NO_SYMLINKS
NO_MOUNTS: int = NO_LINKS | lib.RESOLVE_NO_XDEV

# How many descriptors we, with liblxc and imports, may have open at once in this process.
_FEWEST_FDS = 24

SONAME = "liblxc.so.1"
_PACKAGES = "Debian and Ubuntu: liblxc1 or liblxc1t64; Fedora: lxc-libs; Arch: lxc; Alpine: lxc-libs"

_load_lock = allocate_lock()
_loaded = False


def liblxc() -> _Lib:
    """Return the functions of the extension, with liblxc loaded.

    The library is liblxc.so.1, or the file that LXCCOPY_LIBLXC names.

    Raises:
        LiblxcMissingError: It is not there, or too old.
    """
    global _loaded  # noqa: PLW0603 - liblxc is one for the whole process
    if not _loaded:
        with _load_lock:
            if not _loaded:
                _load(os.environ.get("LXCCOPY_LIBLXC") or SONAME)
                _loaded = True
    return lib


def _load(file: str) -> None:
    reason = ffi.new("char[]", 512)
    if lib.lxccopy_load(os.fsencode(file), reason, len(reason)) < 0:
        raise LiblxcMissingError(
            f"cannot load the LXC library {file}: {text(reason)}; install it ({_PACKAGES})", name="liblxc"
        )


def text(pointer: _CDataBase) -> str:
    """Return a C string as text; undecodable bytes become surrogates, as in file names."""
    value = ffi.string(pointer)
    assert isinstance(value, bytes)  # noqa: S101 - for the type checker: a char * gives bytes
    return os.fsdecode(value)


def take_text(pointer: _CharPtr) -> str:
    """Return a C string as text and free it."""
    try:
        return text(pointer)
    finally:
        lib.free(pointer)


def string_list(strings: Iterable[str]) -> tuple[_StringList, list[object]]:
    """Return a NULL-terminated ``char **`` and what must stay alive as long as it."""
    items = [ffi.new("char[]", os.fsencode(item)) for item in strings]
    array: Any = ffi.new("char *[]", [*items, ffi.NULL])
    return array, list(items)


def take_list(pointer: _StringList, count: int) -> list[str]:
    """Return an allocated list of allocated strings as text and free it all."""
    try:
        return [take_text(pointer[index]) for index in range(count)]
    finally:
        lib.free(pointer)


def liblxc_version() -> str:
    """Return the version of the loaded liblxc, for example ``"5.0.2"``."""
    return text(liblxc().lxc_get_version())


def global_config_item(key: str) -> str:
    """Return an item of LXC's global configuration, such as ``lxc.lxcpath``; empty where it is unknown."""
    value = liblxc().lxc_get_global_config_item(key.encode())
    return "" if value == ffi.NULL else text(value)


def default_lxcpath() -> str:
    """Return the directory in which containers are kept by default, an absolute path."""
    return global_config_item("lxc.lxcpath")


def above_stdio(fd: int) -> int:
    """Return the descriptor itself, or a close-on-exec duplicate above 2 and the original closed."""
    if fd > 2:
        return fd
    import fcntl

    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)


def private(fd: int) -> int:
    """Return a descriptor that liblxc gave us, above 2 and close-on-exec, which it is not in every version."""
    fd = above_stdio(fd)
    os.set_inheritable(fd, False)  # noqa: FBT003 - it takes no keyword
    return fd


def require_descriptors() -> None:
    """Refuse to begin with too few descriptors: what then fails halfway could not be undone either.

    Raises:
        UnsupportedError: There are too few.
    """
    limit = os.sysconf("SC_OPEN_MAX")
    try:
        left = limit - len(os.listdir("/proc/self/fd")) + 1
    except OSError:  # not even one for that
        left = 0
    if left < _FEWEST_FDS:
        raise UnsupportedError(
            f"this process has {left} of {limit} file descriptors left, and {_FEWEST_FDS} are needed; raise the limit,"
            " as with ulimit -n"
        )


def fail(path: str = "") -> OSError:
    """Return the OSError for the errno that the last function of ours left."""
    error = ffi.errno
    return OSError(error, os.strerror(error), path or None)


def openat2(directory: int, path: str, flags: int, resolve: int, mode: int = 0) -> int:
    """Open a path below a directory descriptor so that nothing in it leads outside.

    Args:
        directory: A descriptor of the directory.
        path: Where, relative to it.
        flags: O_* flags; O_CLOEXEC is added.
        resolve: RESOLVE_* flags.
        mode: The mode of a file that O_CREAT makes.

    Returns:
        A descriptor above 2.

    Raises:
        OSError: As open() does; ENOSYS before Linux 5.6.
    """
    fd = lib.lxccopy_openat2(directory, os.fsencode(path), flags, mode, resolve)
    if fd < 0:
        raise fail(path)
    return above_stdio(fd)


def pidfd_open(pid: int) -> int:
    """Return a descriptor, above 2, that becomes readable when the process ends."""
    fd = lib.lxccopy_pidfd_open(pid)
    if fd < 0:
        raise fail(f"/proc/{pid}")
    return above_stdio(fd)


def unshare_user() -> None:
    """Enter a user and a mount namespace of our own, in which somebody else has to give us ids.

    Raises:
        OSError: The kernel does not allow it, or this process has several threads.
    """
    if lib.lxccopy_unshare_user() < 0:
        raise fail()


def wait_any(fds: Iterable[int], timeout: float | None = None) -> set[int]:
    """Wait until one of several descriptors is readable, which for a pidfd is the end of its process.

    Args:
        fds: The descriptors.
        timeout: In seconds, at least 0; None for ever. Signal handlers run meanwhile.

    Returns:
        Those that are; none when the time is up.
    """
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poll.poll(milliseconds(timeout))}
        if ready or (timeout is not None and timeout <= _LONGEST_POLL):
            return ready
        if timeout is not None:
            timeout -= _LONGEST_POLL


def wait_readable(fd: int, timeout: float | None = None) -> bool:
    """Wait until a descriptor is readable, as wait_any() does, and return whether it is."""
    return bool(wait_any([fd], timeout))


def write_all(fd: int, data: bytes) -> None:
    """Write all of it, also to a descriptor that somebody made non-blocking, as terminals are now and then.

    Raises:
        OSError: As write() does.
    """
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll()


# The longest time that poll() can be told to wait, in seconds: it takes an int of milliseconds.
_LONGEST_POLL = 2_000_000.0


def milliseconds(timeout: float | None) -> float | None:
    """Return a time in seconds as poll() takes it, cut off at what it can wait."""
    return None if timeout is None else min(max(0.0, timeout), _LONGEST_POLL) * 1000


def new_mount(kind: str, options: dict[str, str]) -> int:
    """Return a descriptor of a new file system that is mounted nowhere, and gone when nobody holds one any more.

    Args:
        kind: The type of file system, such as tmpfs or overlay.
        options: Its mount options.

    Raises:
        OSError: The kernel refused; ENOSYS before Linux 5.2.
    """
    words, keep = string_list(word for option in options.items() for word in option)
    fd = lib.lxccopy_mount(kind.encode(), words)
    if fd < 0:
        raise fail()
    del keep
    return above_stdio(fd)


def rename_new(path: str, new_path: str) -> None:
    """Rename a file or directory.

    Raises:
        FileExistsError: There is something of the new name; nothing is changed.
        OSError: As rename() does; EINVAL where the file system cannot do so.
    """
    if lib.lxccopy_rename_new(os.fsencode(path), os.fsencode(new_path)) < 0:
        raise fail(path)


def unmount(path: str) -> None:
    """Take a mount away from where it is, also while it is in use.

    Raises:
        OSError: Nothing is mounted there, or we may not.
    """
    if lib.lxccopy_unmount(os.fsencode(path)) < 0:
        raise fail(path)


def open_terminal(devpts: int) -> tuple[int, int]:
    """Return both ends of a new pseudo terminal in the devpts that a descriptor stands for: ours, and the command's."""
    ends = ffi.new("int[2]")
    if lib.lxccopy_openpty(devpts, ends, ends + 1) < 0:
        raise fail("ptmx")
    return above_stdio(ends[0]), above_stdio(ends[1])


# Lines at level ERROR that liblxc also writes when nothing is wrong, or that only say that something else went wrong,
# by the function that writes them.
_NOISE = frozenset(
    {
        "wait_on_daemonized_start",
        "lxc_abstract_unix_recv_fds_iov",
        "lxc_cmd_rsp_recv_fds",
        "get_config_unsupported_key",
        "sync_wait",
        "copy_file",
        "lxc_rmdir_onedev",
        "_recursive_rmdir",
        "lxc_rmdir_onedev_wrapper",
    }
)

_MOST_REASONS = 3

# Where liblxc's log goes to a terminal, a pipe, or a file that we may only write.
_ELSEWHERE = "the reason is in liblxc's log"

LOG_LEVELS = ("TRACE", "DEBUG", "INFO", "NOTICE", "WARN", "ERROR", "CRIT", "ALERT", "FATAL")

_log_file = -1


def log_to(path: str, level: str = "ERROR") -> None:
    """Let liblxc log to a file, in this process and for all containers that it opens from now on.

    Args:
        path: The file, to which is appended.
        level: The least important lines to log, one of LOG_LEVELS.

    Raises:
        OSError: The file cannot be written.

    Reproduces: lxc_log_init().
    """
    global _log_file
    fd = above_stdio(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o660))
    liblxc().lxccopy_log_level(level.encode())
    fd, _log_file = _log_file, fd
    if fd >= 0:
        os.close(fd)


class FailureLog:
    """Where one handle's errors are kept, so that a failure can say why: a memory file, or the file of log_to().

    liblxc logs to files only. Setting lxc.log.file to a descriptor's path and clearing it again leaves the file open in
    the handle and no line in its configuration. Lines at level ERROR are no failures by themselves: read() belongs
    after one.
    """

    fd = -1
    _own = -1

    @property
    def shared(self) -> bool:
        """Whether it is the file of log_to(), whose reader has chosen what is in it."""
        return self._shared

    def __init__(self) -> None:
        self._start = 0
        self._shared = _log_file >= 0
        self.fd = above_stdio(os.dup(_log_file) if self._shared else os.memfd_create("lxccopy-log", os.MFD_CLOEXEC))

    def install(self, container: _Container) -> None:
        """Let liblxc write the errors of a handle here; where the container has a log of its own, read that one."""
        self._close_own()
        path = ffi.new("char[]", 4096)
        if lib.container_get_config_item(container, b"lxc.log.file", path, len(path)) <= 0:
            lib.container_set_config_item(container, b"lxc.log.file", b"/proc/self/fd/%d" % self.fd)
            lib.container_clear_config_item(container, b"lxc.log.file")
            return
        try:
            self._own = above_stdio(os.open(text(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError:
            return  # then nobody knows the reasons
        if not stat.S_ISREG(os.fstat(self._own).st_mode):
            self._close_own()  # nor where they went to a terminal, or the like

    def mark(self) -> None:
        """Forget what was logged so far: the next operation begins here."""
        if self._own >= 0 or self._shared:
            self._start = os.fstat(self._active).st_size
        else:
            os.ftruncate(self.fd, 0)  # liblxc appends

    def read(self) -> str:
        """Return why the operation since mark() failed, in liblxc's words; empty if it gave no reason."""
        if not stat.S_ISREG(os.fstat(self._active).st_mode):
            return _ELSEWHERE
        try:
            with open(f"/proc/self/fd/{self._active}", "rb") as file:
                file.seek(self._start)
                return reason_from_log(os.fsdecode(file.read()).splitlines())
        except OSError:
            return _ELSEWHERE

    @property
    def _active(self) -> int:
        return self._own if self._own >= 0 else self.fd

    def _close_own(self) -> None:
        fd, self._own = self._own, -1
        self._start = 0
        if fd >= 0:
            os.close(fd)

    def close(self) -> None:
        """Close the memory file; liblxc's own descriptor of it goes with the handle. Idempotent."""
        self._close_own()
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


def reason_from_log(lines: Sequence[str]) -> str:
    """Return the first few distinct causes in lines of liblxc's log, joined by semicolons.

    Each line is ``PREFIX NAME TIME LEVEL CATEGORY - FILE:FUNCTION:LINE - MESSAGE``. At level DEBUG the output of a
    failing hook is a message too; it comes first, because it says most.
    """
    reasons: list[str] = []
    said: list[str] = []
    for line in lines:
        parts = line.split(" - ", 2)
        if len(parts) < 3:
            continue
        head, place, message = parts
        _, produced, output = message.partition(" produced output: ")
        if produced:
            said.append(output.strip())
        elif " ERROR " in head and place.split(":")[1:2] != [] and place.split(":")[1] not in _NOISE:
            reasons.append(message.strip())
    distinct = list(dict.fromkeys(said + reasons))
    return "; ".join(distinct[:_MOST_REASONS])
