# SPDX-License-Identifier: LGPL-2.1-or-later
"""Container: one reference to one liblxc container. What liblxc answers with false is an exception here."""

from __future__ import annotations

import errno
import os
import stat
import time
from _thread import allocate_lock
from contextlib import contextmanager

from . import _raw, cgroups
from ._raw import ffi, lib
from .children import Child
from .errors import (
    ContainerExistsError,
    ContainerNotFoundError,
    LiblxcError,
    LxcCopyError,
    OptionError,
    UnsupportedError,
)
from .faults import reach
from .foreground import Watch
from .names import (
    check_file,
    check_flag,
    check_interface,
    check_key,
    check_name,
    check_number,
    check_path,
    check_seconds,
    check_value,
)
from .processes import parent
from .spawner import Guard, Spawn, Ward

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Any

    from _cffi_backend import FFI

    from ._liblxc import _Container
    from .console import Console
    from .names import StrPath
    from .snapshots import Snapshot


class CloneFlag:
    """What clone() shall do; combine with ``|``. The values are liblxc's LXC_CLONE_*."""

    KEEPNAME = 1
    KEEPMACADDR = 2
    SNAPSHOT = 4
    KEEPBDEVTYPE = 8
    MAYBE_SNAPSHOT = 16
    ALLOW_RUNNING = 64


# What a command says of its start, see Container.attach().
ENTERED: int = lib.LXCCOPY_ENTERED
FAILED_ROOT: int = lib.LXCCOPY_FAILED_ROOT
FAILED_CWD: int = lib.LXCCOPY_FAILED_CWD
FAILED_USER: int = lib.LXCCOPY_FAILED_USER
FAILED_EXEC: int = lib.LXCCOPY_FAILED_EXEC


# What to do about some of liblxc's reasons, by words that they have in common.
_HINTS = (
    ("does not include container name", "its root file system must lie in a directory that has its name"),
    ("hook", "correct that hook, or take it out of the base's configuration"),
    ("cgroup", "lxc-checkconfig tells about cgroups; liblxc 7 and later need a host with cgroup2 only"),
    ("has snapshots", "destroy those first"),
    ("has clones", "destroy those first"),
    ("No space left", "make room, or enlarge the tmpfs"),
    ("Failed to exec", "the base needs an init, /sbin/init or what lxc.init.cmd says"),
    ("Unsupported config key", "this liblxc does not know it; see lxc.container.conf(5)"),
)


# How long to wait before asking for addresses again, in seconds.
_ADDRESS_PAUSE = 0.1


def _hint(reason: str, operation: str) -> str:
    if "Failed to exec" in reason and operation != "start":
        return ""
    return next((hint for words, hint in _HINTS if words in reason), "")


class Container:
    """One reference to one container, defined or not; it need not exist.

    Each reference may be used from any thread. Calls that fork are made one at a time: two threads in liblxc's attach()
    on one handle wait for each other for ever.

    Args:
        name: The container's name.
        lxcpath: The directory that holds it; LXC's default where None.

    Raises:
        OptionError: The name or the path is not allowed.
        LiblxcMissingError: liblxc cannot be loaded.
        LiblxcError: The container has a configuration that liblxc cannot read.
    """

    config_source: str
    """The file that the configuration in memory was read from: config_file, or that of load_config()."""

    _pointer: _Container | None = None
    monitor_pid = 0
    """The process id of the monitor, as far as it was looked at; 0 where there is none."""

    guard: Guard | None = None
    """What start() made to end the container when we die."""

    _monitor = -1
    _children: list[Child] = []  # noqa: RUF012 - never changed, only replaced

    def __init__(self, name: str, lxcpath: StrPath | None = None) -> None:
        self.cgroups: set[cgroups.Membership] = set()
        """Those of the running container and its monitor, as far as they were looked at."""
        self._log = _raw.FailureLog()
        self._children = []
        self._lock = allocate_lock()
        self.name = check_name(name)
        liblxc = _raw.liblxc()
        self.lxcpath = check_path(_raw.default_lxcpath() if lxcpath is None else lxcpath)
        self.config_source = self.config_file
        pointer = liblxc.lxc_container_new(os.fsencode(self.name), os.fsencode(self.lxcpath))
        if pointer == ffi.NULL:
            reason = self._why_unreadable()
            hint = f"see {self.config_file}" if reason else "it keeps locks in /run/lxc, XDG_RUNTIME_DIR or HOME"
            raise LiblxcError("open", self.name, self.lxcpath, reason or "liblxc gave no reason", hint)
        owned: Any = ffi.gc(pointer, liblxc.lxc_container_put)
        self._pointer = owned
        self._log.install(pointer)

    # The handle

    def close(self) -> None:
        """Give the reference back to liblxc. Idempotent; never stops the container."""
        self._children = self._running_children()
        pointer, self._pointer = self._pointer, None
        if pointer is not None:
            ffi.release(pointer)
            self._log.close()
        self._forget_monitor()

    def __enter__(self) -> Container:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if self._pointer is not None:
            self.close()

    def __repr__(self) -> str:
        return f"Container({self.name!r}, {self.lxcpath!r})"

    @property
    def _c(self) -> _Container:
        if self._pointer is None:
            raise ValueError(f"the handle of container {self.name!r} is closed")
        return self._pointer

    def _mark(self) -> None:
        """Begin an operation: what the log has from here on is about it."""
        _ = self._c  # an open handle has a log to mark
        self._log.mark()

    def failure(self, operation: str, hint: str = "") -> LiblxcError:
        """Return the error for an operation that has just failed, with the reason from liblxc's log."""
        reason = self._log.read()
        return LiblxcError(operation, self.name, self.lxcpath, reason, hint or _hint(reason, operation))

    def _do(self, operation: str, call: Callable[[], object], hint: str = "") -> None:
        """Make a call of liblxc's, or raise why that said no."""
        self._mark()
        if not call():
            raise self.failure(operation, hint)

    def _fork(self, operation: str, call: Callable[[], object], hint: str = "") -> None:
        """Do the same with a call that forks: one at a time, and only where its child is not lost."""
        with self._lock:
            self._check_sigchld(operation)
            self._do(operation, call, hint)

    def _require_running(self, operation: str) -> None:
        """Raise LiblxcError unless it runs: liblxc would say no without a reason, or yes to nothing."""
        if not self.running:
            raise LiblxcError(operation, self.name, self.lxcpath, "it is not running")

    def _require_stopped(self, operation: str) -> None:
        """Raise unless it exists and is stopped: liblxc finds that out when it has begun to remove things."""
        self.require_defined()
        if self.running:
            raise LiblxcError(operation, self.name, self.lxcpath, "it is running", "stop it first")

    def _why_unreadable(self) -> str:
        """Liblxc's complaint about the config file, from loading it into a handle that has none."""
        empty = lib.lxc_container_new(b"lxccopy-no-such-container", os.fsencode(self.lxcpath))
        if empty == ffi.NULL:
            return ""
        log = _raw.FailureLog()
        log.install(empty)
        try:
            lib.container_load_config(empty, os.fsencode(self.config_file))
            return log.read()
        finally:
            log.close()
            lib.lxc_container_put(empty)

    # What it is

    @property
    def directory(self) -> str:
        """The container's own directory, an absolute path; it need not exist."""
        return f"{self.lxcpath}/{self.name}"

    @property
    def config_file(self) -> str:
        """The container's configuration file, an absolute path; it need not exist."""
        return f"{self.directory}/config"

    @property
    def where(self) -> str:
        """What errors call it: its name and its lxcpath."""
        return f"container {self.name!r} in {self.lxcpath}"

    @property
    def config_path(self) -> str:
        """What liblxc has as the directory of the container's directory: lxcpath.

        Reproduces: lxcapi_get_config_path().
        """
        return _raw.text(lib.container_get_config_path(self._c))

    @property
    def defined(self) -> bool:
        """Whether the container exists, that is, has a configuration file."""
        return lib.container_is_defined(self._c)

    @property
    def controllable(self) -> bool:
        """Whether we may start, stop and enter it."""
        return lib.container_may_control(self._c)

    @property
    def state(self) -> str:
        """STOPPED, STARTING, RUNNING, STOPPING, ABORTING, FREEZING, FROZEN or THAWED."""
        return _raw.text(lib.container_state(self._c))

    @property
    def running(self) -> bool:
        """Whether it runs, also when frozen."""
        return lib.container_is_running(self._c)

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._pointer is None

    @property
    def watched(self) -> bool:
        """Whether we hold its monitor, so that stop() and shutdown() are about the very container that we started."""
        return self._monitor >= 0

    @property
    def init_pid(self) -> int:
        """The process id of its init as seen from here; -1 where it does not run."""
        return lib.container_init_pid(self._c)

    def init_pidfd(self) -> int:
        """Return a descriptor of its init, above 2 and close-on-exec, which is readable when that has ended.

        Returns:
            A pidfd; it is the caller's to close.

        Raises:
            LiblxcError: It does not run.
            UnsupportedError: liblxc is older than 4.0.5.

        Reproduces: lxcapi_init_pidfd().
        """
        self._require_running("open the init of")
        self._mark()
        ffi.errno = 0
        fd = lib.container_init_pidfd(self._c)
        if fd >= 0:
            return _raw.private(fd)
        if ffi.errno == errno.ENOSYS:
            raise UnsupportedError(f"init_pidfd() needs liblxc 4.0.5 or later, and this is {_raw.liblxc_version()}")
        raise self.failure("open the init of")

    def require_defined(self) -> None:
        """Raise ContainerNotFoundError unless the container exists; liblxc's clone() says nothing in that case."""
        if not self.defined:
            raise ContainerNotFoundError(
                f"container {self.name!r} is not defined in {self.lxcpath}: {self.config_file} does not exist"
            )

    # Its configuration

    def config(self, key: str) -> str:
        """Return a config item; empty where it is not set, a line for each entry where it is a list.

        Raises:
            LiblxcError: liblxc knows no such key.

        Reproduces: lxcapi_get_config_item().
        """
        name = check_key(key).encode()
        size = lib.container_get_config_item(self._c, name, ffi.NULL, 0)
        if size < 0:
            if lib.lxc_config_item_is_supported(name):
                return ""
            reason = f'Unsupported config key "{key}"'
            raise LiblxcError(f"get {key} of", self.name, self.lxcpath, reason, _hint(reason, "get"))
        value = ffi.new("char[]", size + 1)
        lib.container_get_config_item(self._c, name, value, size + 1)
        return _raw.text(value).rstrip("\n")

    def keys(self, prefix: str | None = None) -> list[str]:
        """Return the names of config items, each as it is to be put after the prefix and a dot.

        Args:
            prefix: Whose items, such as ``"lxc.net.0"``, which has ``"type"`` and others; all there are where None.

        Raises:
            OptionError: The prefix is no such name.
            LiblxcError: liblxc knows none, or none with anything below.

        Reproduces: lxcapi_get_keys().
        """
        name = ffi.NULL if prefix is None else check_key(prefix, "prefix").encode()
        self._mark()
        size = lib.container_get_keys(self._c, name, ffi.NULL, 0)
        if size < 0:
            raise self.failure(f"list the keys below {prefix} of", "there are none, or they have other names")
        value = ffi.new("char[]", size + 1)
        lib.container_get_keys(self._c, name, value, size + 1)
        return _raw.text(value).split()

    def running_config(self, key: str) -> str:
        """Return a config item as the running container has it; empty where it is not set or not running.

        Reproduces: lxcapi_get_running_config_item().
        """
        value = lib.container_get_running_config_item(self._c, check_key(key).encode())
        return "" if value == ffi.NULL else _raw.take_text(value).rstrip("\n")

    def set_config(self, key: str, value: str) -> None:
        """Set a config item in memory; list items get an entry more. save_config() writes it.

        Raises:
            OptionError: The value has a control character.
            LiblxcError: liblxc refuses the key or the value.

        Reproduces: lxcapi_set_config_item().
        """
        check_value(check_key(key), value)
        self._mark()
        if not lib.container_set_config_item(self._c, key.encode(), os.fsencode(value)):
            raise self.failure(f"set {key} = {value} for")

    def replace_config(self, key: str, value: str) -> None:
        """Set a config item in memory in place of what is there, so that the saved file has it once."""
        check_value(check_key(key), value)
        self.clear_config(key)
        self.set_config(key, value)

    def clear_config(self, key: str) -> None:
        """Remove a config item in memory, all its entries where it is a list.

        Raises:
            LiblxcError: liblxc knows no such key.

        Reproduces: lxcapi_clear_config_item().
        """
        check_key(key)
        self._mark()
        if not lib.container_clear_config_item(self._c, key.encode()):
            raise self.failure(f"clear {key} of")

    def load_config(self, path: str) -> None:
        """Replace the configuration in memory by that of a file.

        Args:
            path: An absolute path of a regular file; a directory makes liblxc's users crash (SPEC A2.6).

        Raises:
            OptionError: It is no regular file, or cannot be read.
            LiblxcError: liblxc cannot parse it.

        Reproduces: lxcapi_clear_config() and lxcapi_load_config().
        """
        try:
            fd = _raw.above_stdio(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))  # it may be a pipe
            try:
                self._load(fd, path)
            finally:
                os.close(fd)
        except OSError as error:
            raise OptionError(f"cannot read the configuration file {path}: {error.strerror}") from error
        self.config_source = path

    def load_text(self, text: str) -> None:
        """Replace the configuration in memory by a text.

        Raises:
            LiblxcError: liblxc cannot parse it.
        """
        fd = _raw.above_stdio(os.memfd_create("lxccopy-config", os.MFD_CLOEXEC))
        try:
            _raw.write_all(fd, os.fsencode(text))
            self._load(fd, self.config_file)
        finally:
            os.close(fd)

    def _load(self, fd: int, name: str) -> None:
        self._mark()
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        lib.container_clear_config(self._c)
        self._log.install(self._c)
        if not lib.container_load_config(self._c, b"/proc/self/fd/%d" % fd):
            error = self.failure("load the configuration of")
            error.reason = error.reason.replace(f"/proc/self/fd/{fd}", name)
            raise error
        self._log.install(self._c)

    def save_config(self) -> None:
        """Write the configuration to the container's config file, making its directory where needed.

        Raises:
            LiblxcError: It cannot be written.

        Reproduces: lxcapi_save_config().
        """
        self._mark()
        if not lib.container_save_config(self._c, ffi.NULL):
            raise self.failure("save the configuration of")

    # Copies

    def clone(
        self,
        name: str,
        *,
        newpath: StrPath | None = None,
        flags: int = 0,
        storage: str | None = None,
        size: int = 0,
        hook_args: Sequence[str] = (),
    ) -> Container:
        """Copy or snapshot the container.

        Args:
            name: The new container's name.
            newpath: The directory for it; the same as ours where None.
            flags: CloneFlag values.
            storage: The type of storage, as after ``lxc-copy -B``; liblxc chooses where None.
            size: Of a new block device or image, in bytes; 0 for liblxc's default.
            hook_args: Further arguments for lxc.hook.clone. liblxc pastes them into a shell line; they are quoted here.

        Returns:
            A reference to the new container, opened from disk: some storage drivers leave a wrong path in memory.

        Raises:
            LiblxcError: liblxc could not do it.

        Reproduces: lxcapi_clone().
        """
        path = self.lxcpath if newpath is None else check_path(newpath)
        check_name(name)
        arguments, keep = _raw.string_list(_quote(hook_args))
        with self._lock:
            self._check_sigchld("clone")
            self._mark()
            pointer = lib.container_clone(
                self._c,
                os.fsencode(name),
                os.fsencode(path),
                flags,
                storage.encode() if storage else ffi.NULL,
                size,
                arguments if keep else ffi.NULL,
            )
            if pointer == ffi.NULL:
                raise self.failure("copy")
        lib.lxc_container_put(pointer)
        return Container(name, path)

    def destroy(self) -> None:
        """Remove the container, its storage and what its base remembers of it.

        Raises:
            LiblxcError: It runs, others are snapshots of it, or something of it could not be removed.

        Reproduces: lxcapi_destroy().
        """
        with self._lock:
            self._mark()
            if not lib.container_destroy(self._c):
                raise self.failure("destroy")

    # Its own snapshots

    def snapshot(self, comment: str = "") -> str:
        """Make a snapshot that the container keeps of itself, below its directory. It has to be stopped.

        An overlay's is its layer and cheap; of a plain directory it is a full copy. rsync is needed.

        Args:
            comment: What it is for; any text.

        Returns:
            The snapshot's name: ``"snap0"``, or the next that is free.

        Raises:
            OptionError: The comment is no text.
            ContainerNotFoundError: The container is not defined.
            LiblxcError: It runs, or liblxc could not do it.

        Reproduces: lxcapi_snapshot().
        """
        if not isinstance(comment, str):
            raise OptionError(f"the comment must be a str, not {type(comment).__name__}")
        from . import snapshots

        self._require_stopped("make a snapshot of")
        names: list[str] = []

        def make() -> bool:
            names.append(snapshots.make(self._c, comment))
            return names[0] != ""

        self._fork("make a snapshot of", make)
        return names[0]

    def snapshots(self) -> list[Snapshot]:
        """Return the snapshots that the container keeps of itself, the oldest first.

        Reproduces: lxcapi_snapshot_list().
        """
        from . import snapshots

        return snapshots.listed(self._c)

    def restore_snapshot(self, name: str, new_name: str | None = None) -> Container:
        """Make a container of a snapshot.

        Args:
            name: The snapshot's name.
            new_name: The new container's name, in the same lxcpath; None to put it in the place of this one, which has
                to be stopped and whose present content is then lost.

        Returns:
            A reference to the container; another one than this also where it takes its place.

        Raises:
            OptionError: A name is not allowed.
            ContainerNotFoundError: There is no such snapshot.
            ContainerExistsError: There is something of the new name.
            LiblxcError: This container runs and would be replaced, or liblxc could not do it.

        Reproduces: lxcapi_snapshot_restore().
        """
        target = self.name if new_name is None else check_name(new_name, "new name")
        self._require_snapshot(name)
        operation = f"restore {name} of"
        if target == self.name:
            self._require_stopped(operation)
        elif os.path.lexists(f"{self.lxcpath}/{target}"):
            raise ContainerExistsError(f"there is already a container {target!r} in {self.lxcpath}")
        self._fork(operation, lambda: lib.container_snapshot_restore(self._c, name.encode(), target.encode()))
        if target == self.name:
            self.load_config(self.config_file)  # liblxc has lost it, and where the log goes
        return Container(target, self.lxcpath)

    def destroy_snapshot(self, name: str) -> None:
        """Remove a snapshot that the container keeps of itself.

        Raises:
            OptionError: The name is not allowed.
            ContainerNotFoundError: There is no such snapshot.
            LiblxcError: liblxc could not do it.

        Reproduces: lxcapi_snapshot_destroy().
        """
        self._require_snapshot(name)
        self._fork(f"remove {name} of", lambda: lib.container_snapshot_destroy(self._c, name.encode()))

    def destroy_snapshots(self) -> None:
        """Remove all snapshots that the container keeps of itself. Does nothing where there are none.

        Raises:
            LiblxcError: liblxc could not do it.

        Reproduces: lxcapi_snapshot_destroy_all().
        """
        if self.snapshots():
            self._fork("remove the snapshots of", lambda: lib.container_snapshot_destroy_all(self._c))

    def destroy_with_snapshots(self) -> None:
        """Remove the container as destroy() does, with the snapshots that it keeps of itself.

        Raises:
            ContainerNotFoundError: It is not defined.
            LiblxcError: It runs, or something of it could not be removed.

        Reproduces: lxcapi_destroy_with_snapshots(). Differs: of one that runs the snapshots stay, too.
        """
        self._require_stopped("destroy")
        if self.snapshots():
            self._fork("destroy", lambda: lib.container_destroy_with_snapshots(self._c))
        else:  # liblxc would complain
            self.destroy()

    def _require_snapshot(self, name: str) -> None:
        check_name(name, "snapshot name")
        if name not in {snapshot.name for snapshot in self.snapshots()}:
            raise ContainerNotFoundError(f"{self.where} has no snapshot {name!r}")

    # Running it

    def start(
        self,
        *,
        tmpfs: int = -1,
        tmpfs_path: str = "",
        overlays: Sequence[tuple[str, str]] = (),
        log_level: str | None = None,
        foreground: bool = False,
        on_running: Callable[[], None] | None = None,
        ward: Ward | None = None,
    ) -> None:
        """Start the container in the background, from a helper process that shares nothing with ours.

        The helper has its own session and, as root, its own mount namespace, in which the container's monitor stays:
        what is mounted there is invisible on the host and ends with it. The configuration is read from disk.

        Args:
            tmpfs: A descriptor from _raw.new_mount() to mount there, or -1. It is still the caller's to close.
            tmpfs_path: The directory to mount it on.
            overlays: Overlays to mount there as well, each by its options and the directory to mount it on.
            log_level: For the reason of a failure: ``"DEBUG"`` to see what failing hooks print; after log_to(), what
                that says.
            foreground: The container gets our terminal, where we have one, as its console, and has stopped on return.
                Any exception, as from a signal handler, kills it.
            on_running: Called once it is running.
            ward: Let a guard end the container when this process dies, until that guard is dismissed.

        Raises:
            LiblxcError: It did not reach RUNNING. All processes of the attempt are gone.

        Reproduces: lxcapi_start(). Differs: the caller stays in its cgroups.
        """
        self._check_sigchld("start")
        self._mark()
        self.require_defined()  # liblxc would start a system on the host's root file system
        spawn = Spawn()
        terminal = Watch(self, lambda: lib.container_stop(self._c), on_running) if foreground else None
        try:
            spawn.run(
                self.name,
                self.lxcpath,
                log_fd=self._log.fd,
                log_level=None if self._log.shared else log_level,
                tmpfs=tmpfs,
                tmpfs_path=tmpfs_path,
                overlays=overlays,
                foreground=terminal,
                ward=ward,
            )
        except OSError as error:
            raise LiblxcError("start", self.name, self.lxcpath, f"no helper process: {error.strerror}") from error
        finally:
            self.guard = spawn.guard
            if terminal is not None:
                terminal.close()
                self.wait_gone(0)  # it has ended, and with it what was watched meanwhile
            if spawn.monitor >= 0:
                self._forget_monitor()
                self._monitor, self.cgroups = spawn.monitor, spawn.cgroups
                self.monitor_pid = spawn.monitor_pid
        if spawn.failed:
            reason = "; ".join(filter(None, [spawn.failure, self._log.read()]))
            raise LiblxcError(
                "start", self.name, self.lxcpath, reason or "liblxc gave no reason", _hint(reason, "start")
            )
        if on_running is not None and not foreground:
            on_running()

    def stop(self) -> None:
        """Kill everything in the container and wait until its monitor has tidied up. Does nothing where it is stopped.

        Raises:
            LiblxcError: liblxc could not do it.

        Reproduces: lxcapi_stop(). Differs: an ephemeral container's directory is gone on return.
        """
        if self._monitor >= 0 and self.wait_gone(0):
            return  # what has our name now, if anything, is another container
        self.watch_monitor()
        if self._children and self.state == "FROZEN":
            lib.container_unfreeze(self._c)  # nobody in it could die before
        with self._lock:  # not in the middle of an attach
            children = self._children
        for child in children:
            child.kill()
        if self.running:
            self._mark()
            if not lib.container_stop(self._c) and self.running:
                raise self.failure("stop")
        self.wait_gone()
        reach("stopped")

    def shutdown(self, timeout: float | None = None) -> bool:
        """Ask the container's init to halt and wait for the monitor's end.

        Args:
            timeout: How long to wait, in seconds; None for ever.

        Returns:
            Whether it has ended.

        Reproduces: lxcapi_shutdown(). Differs: waits for the monitor, not the state, and a signal can interrupt it.
        """
        check_seconds("timeout", timeout)
        self.watch_monitor()
        if self.running:
            self._mark()
            if not lib.container_shutdown(self._c, 0) and self.running:
                raise self.failure("shut down")
        return self.wait_gone(timeout)

    def reboot(self, timeout: float | None = None) -> bool:
        """Ask the container's init to reboot, and wait until another one runs.

        Args:
            timeout: How long to wait, in seconds; None for ever, 0 to ask only.

        Returns:
            Whether another one runs.

        Raises:
            OptionError: The timeout is no number.
            LiblxcError: It does not run, or stopped for good.

        Reproduces: lxcapi_reboot2(). Differs: any time, and a signal can interrupt it.
        """
        check_seconds("timeout", timeout)
        self._require_running("reboot")
        from .waiting import StateWatch, rebooted

        deadline = None if timeout is None else time.monotonic() + timeout
        init = self.init_pid
        with self._held_monitor() as monitor, StateWatch(self.name, self.lxcpath, rebooted(init)) as watch:
            self._do("reboot", lambda: lib.container_reboot2(self._c, 0))
            ready = self._await({watch.fd, *monitor}, deadline)
            if ready & monitor:
                cgroups.remove(self.cgroups)
                raise LiblxcError("reboot", self.name, self.lxcpath, "it stopped instead")
        return bool(ready)

    def freeze(self) -> None:
        """Stop all processes of the container until unfreeze(). Does nothing where they are.

        Raises:
            LiblxcError: It does not run, or liblxc could not do it.

        Reproduces: lxcapi_freeze().
        """
        self._require_running("freeze")
        self._do("freeze", lambda: lib.container_freeze(self._c))

    def unfreeze(self) -> None:
        """Let the processes of the container go on. Does nothing where they do.

        Raises:
            LiblxcError: It does not run, or liblxc could not do it.

        Reproduces: lxcapi_unfreeze().
        """
        self._require_running("unfreeze")
        self._do("unfreeze", lambda: lib.container_unfreeze(self._c))

    def wait(self, state: str | Iterable[str], timeout: float | None = None) -> bool:
        """Wait for a state of the container, which need not be there yet.

        States that last a moment only, such as STARTING and THAWED, may be missed. STOPPED has come when the
        container's monitor has ended, so that liblxc does nothing more with it.

        Args:
            state: One of STOPPED, STARTING, RUNNING, STOPPING, ABORTING, FREEZING, FROZEN and THAWED, or several.
            timeout: How long to wait, in seconds; None for ever, 0 to look only.

        Returns:
            Whether it has come.

        Raises:
            OptionError: There is no such state, or the timeout is no number.

        Reproduces: lxcapi_wait(). Differs: any time, other threads go on, and a signal can interrupt it.
        """
        from .waiting import StateWatch, check_states, reached

        states = check_states(state)
        check_seconds("timeout", timeout)
        if timeout is not None and timeout <= 0:
            return self.state in states
        deadline = None if timeout is None else time.monotonic() + timeout
        if states == {"STOPPED"}:
            with self._held_monitor() as monitor:
                if monitor:
                    return self._has_ended(monitor, deadline)
        with StateWatch(self.name, self.lxcpath, reached(states)) as watch:
            return bool(self._await({watch.fd}, deadline))

    @contextmanager
    def _held_monitor(self) -> Iterator[set[int]]:
        """Have a pidfd of the monitor, if there is one, that no other thread closes."""
        self.watch_monitor()
        try:
            monitor = {_raw.above_stdio(os.dup(self._monitor))}
        except OSError:
            monitor = set()  # it does not run, or another thread has just seen its end
        try:
            yield monitor
        finally:
            for fd in monitor:
                os.close(fd)

    def _has_ended(self, monitor: set[int], deadline: float | None) -> bool:
        """Wait for a monitor's end, and remove the cgroups that it leaves."""
        if not self._await(monitor, deadline):
            return False
        cgroups.remove(self.cgroups)
        return True

    def _await(self, fds: set[int], deadline: float | None) -> set[int]:
        """Wait until one of some descriptors is readable, or it is so late; return those that are."""
        while True:
            pidfds = [child.pidfd for child in self._running_children() if child.pidfd >= 0]
            ready = _raw.wait_any([*fds, *pidfds], None if deadline is None else deadline - time.monotonic())
            if ready & fds or (deadline is not None and time.monotonic() >= deadline):
                return ready & fds

    def wait_gone(self, timeout: float | None = None) -> bool:
        """Wait for the end of the monitor, after which liblxc does nothing more with the container.

        Args:
            timeout: In seconds; None for ever.

        Returns:
            Whether it has ended; True where there is none.
        """
        if self._monitor < 0:
            return True
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            pidfds = [child.pidfd for child in self._running_children() if child.pidfd >= 0]
            ready = _raw.wait_any([self._monitor, *pidfds], None if deadline is None else deadline - time.monotonic())
            if self._monitor in ready:
                break
            if not ready and deadline is not None and time.monotonic() >= deadline:
                return False
        self._forget_monitor()
        cgroups.remove(self.cgroups)
        return True

    def _running_children(self) -> list[Child]:
        """Those that have not ended yet; the others are waited for."""
        return [child for child in self._children if child.wait(0) is None]

    def watch_monitor(self) -> None:
        """Hold the monitor's pidfd: it is the parent of the container's init."""
        if self._monitor >= 0:
            return
        init = self.init_pid
        if init <= 0:
            return
        try:
            monitor = parent(init)
            pidfd = _raw.pidfd_open(monitor)
            if parent(init) != monitor:
                os.close(pidfd)
                raise ProcessLookupError
        except OSError:
            return  # it has ended meanwhile
        self._monitor, self.monitor_pid = pidfd, monitor
        self.cgroups = cgroups.of_process(monitor, self.name) | cgroups.of_process(init, self.name)

    def _forget_monitor(self) -> None:
        monitor, self._monitor = self._monitor, -1  # first, as an interrupted close() may be repeated
        if monitor >= 0:
            os.close(monitor)

    # Commands in it

    def attach(
        self,
        argv: Sequence[str],
        *,
        stdin: int,
        stdout: int,
        stderr: int,
        env: Mapping[str, str],
        cwd: str | None = None,
        terminal: int = -1,
        outcome_fd: int = -1,
        ids: tuple[int, int, Sequence[int]] | None = None,
    ) -> Child:
        """Start a command in the running container, in a session of its own.

        Args:
            argv: The command and its arguments; the command is looked up in the container's PATH.
            stdin: Descriptor for its standard input; ours stays open.
            stdout: Descriptor for its standard output.
            stderr: Descriptor for its standard error.
            env: Its environment, besides PATH and ``container=lxc``, which liblxc sets.
            cwd: Its working directory, which must exist; None for ours if it exists there too, else ``/``.
            terminal: Which of 0, 1 and 2 becomes its controlling terminal, or -1.
            outcome_fd: A pipe that gets pairs of native ints: (0, 0) when the command has entered the container, then a
                stage and an errno where it could not be executed. It is closed by a successful exec.
            ids: The user, group and further groups that it has in the container; root's where None.

        Returns:
            The command's process, to be waited for; stop() kills it.

        Raises:
            LiblxcError: The container does not run, or could not be entered.

        Reproduces: lxcapi_attach().
        """
        argument_list, keep_arguments = _raw.string_list(argv)
        if not keep_arguments:
            raise OptionError("the command is empty")
        environment, keep_environment = _raw.string_list(f"{key}={value}" for key, value in env.items())
        directory = ffi.new("char[]", os.fsencode(cwd)) if cwd is not None else ffi.NULL
        command: Any = ffi.new("struct lxccopy_command *", [argument_list, directory, terminal, outcome_fd])
        if ids is not None:
            command.uid, command.gid, groups = ids
            keep_groups: Any = ffi.new("gid_t[]", groups)
            command.as_user, command.groups, command.group_count = True, keep_groups, len(groups)
        options: Any = ffi.new("lxc_attach_options_t *")
        lib.default_attach_options(options)
        options.extra_env_vars = environment
        child = Child()
        with self._lock:
            self._check_sigchld("enter")
            self._mark()
            if self.state == "FROZEN":
                reason, thaw = "it is frozen", "thaw it first, as lxc-unfreeze does"
                raise LiblxcError("run a command in", self.name, self.lxcpath, reason, thaw)
            # Descriptor 0 as stdin_fd makes liblxc ignore SIGINT in this process, for good.
            fds = _duplicates(stdin, stdout, stderr)
            try:
                options.stdin_fd, options.stdout_fd, options.stderr_fd = fds
                self._children = [*self._running_children(), child]
                entered = lib.container_attach(self._c, command, options, child.cell) == 0
                if entered:
                    child.open()
            except BaseException:
                child.kill()
                raise
            finally:
                for fd in fds:
                    os.close(fd)
            if not entered:
                raise self.failure("run a command in", "" if self.running else "it is not running")
        del keep_environment
        return child

    def devpts(self) -> int:
        """Return a descriptor of the running container's devpts, in which its terminals live.

        Raises:
            OSError: It has none, or liblxc is older than 4.0.5.
        """
        fd = lib.container_devpts_fd(self._c)
        if fd < 0:
            raise _raw.fail("devpts")
        return _raw.above_stdio(fd)

    # What it may use

    def cgroup_item(self, key: str) -> str:
        """Return an item of the running container's cgroup, without the newline at its end.

        Args:
            key: The name of a controller's file, such as ``"memory.max"``, or on cgroup v1
                ``"memory.limit_in_bytes"``.

        Raises:
            OptionError: The key is no such name.
            LiblxcError: The container does not run, or has no such item.

        Reproduces: lxcapi_get_cgroup_item().
        """
        operation = f"get {check_key(key)} of"
        self._require_running(operation)
        room = 4096
        while True:
            value = ffi.new("char[]", room)
            size = lib.container_get_cgroup_item(self._c, key.encode(), value, room)
            if size < 0:
                raise LiblxcError(operation, self.name, self.lxcpath, os.strerror(-size))
            if size < room:
                return _raw.text(value).rstrip("\n")
            room *= 2

    def set_cgroup_item(self, key: str, value: str) -> None:
        """Set an item of the running container's cgroup; its configuration stays as it is.

        Args:
            key: As for cgroup_item().
            value: What to write there.

        Raises:
            OptionError: The key is no such name, or the value is not one line of text.
            LiblxcError: The container does not run, has no such item, or the kernel refuses the value.

        Reproduces: lxcapi_set_cgroup_item().
        """
        operation = f"set {check_key(key)} = {check_value(key, value)} for"
        self._require_running(operation)
        hint = "there is no such item, or the kernel refuses the value"
        self._do(operation, lambda: lib.container_set_cgroup_item(self._c, key.encode(), os.fsencode(value)), hint)

    def add_device_node(self, path: StrPath) -> None:
        """Make a device of the host in the running container, and allow its use.

        Args:
            path: The device's path, which is the same in the container; its directory is made there where needed.

        Raises:
            OptionError: It is no device of the host.
            LiblxcError: The container does not run, has ids of its own, or liblxc could not do it.

        Reproduces: lxcapi_add_device_node(). Differs: no other path in the container, which liblxc would take for one
        of the host, too, and make whatever device it finds there.
        """
        self._change_device("give a device to", lib.container_add_device_node, path)

    def remove_device_node(self, path: StrPath) -> None:
        """Remove what add_device_node() made, if it is there, and forbid the device's use.

        Args:
            path: The device's path, on the host and in the container.

        Raises:
            OptionError: It is no device of the host.
            LiblxcError: The container does not run, has ids of its own, or liblxc could not do it.

        Reproduces: lxcapi_remove_device_node(). Differs: as add_device_node().
        """
        self._change_device("take a device from", lib.container_remove_device_node, path)

    def _change_device(
        self, operation: str, change: Callable[[_Container, bytes, FFI.CData], bool], path: StrPath
    ) -> None:
        device = check_file(path, "device")
        try:
            mode = os.stat(device).st_mode
        except OSError as error:
            raise OptionError(f"cannot look at the device {device}: {error.strerror}") from error
        if not stat.S_ISCHR(mode) and not stat.S_ISBLK(mode):
            raise OptionError(f"{device} is no device")
        self._require_running(operation)
        hint = f"is something in the way of {device} in it?"
        self._fork(operation, lambda: change(self._c, os.fsencode(device), ffi.NULL), hint)

    # Its network

    def interfaces(self) -> list[str]:
        """Return the names of the running container's network interfaces, ``lo`` among them.

        Raises:
            LiblxcError: It does not run, or liblxc could not look.

        Reproduces: lxcapi_get_interfaces().
        """
        from . import network

        operation = "list the interfaces of"
        self._require_running(operation)
        found: list[str] = []

        def look() -> list[str]:
            found[:] = network.interfaces(self._c)
            return found

        self._fork(operation, look)
        return found

    def ips(
        self, family: str | None = None, *, interface: str | None = None, scope: int = 0, timeout: float | None = 0.0
    ) -> list[str]:
        """Return the running container's IP addresses.

        Args:
            family: ``"inet"`` or ``"inet6"``; both where None.
            interface: Whose addresses; those of all but ``lo`` where None.
            scope: The scope of IPv6 addresses, as the kernel numbers them: 0 for global ones.
            timeout: How long to wait for the first one, in seconds; None for ever.

        Returns:
            The addresses as text; none where none came in time.

        Raises:
            OptionError: An argument is not allowed.
            LiblxcError: The container does not run, or stopped meanwhile.

        Reproduces: lxcapi_get_ips().
        """
        from . import network

        network.check_query(family, interface, scope)
        check_seconds("timeout", timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self._require_running("list the addresses of")
            with self._lock:
                self._check_sigchld("list the addresses of")
                found = network.addresses(self._c, family, interface, scope)
            now = time.monotonic()
            if found or (deadline is not None and now >= deadline):
                return found
            with self._held_monitor() as monitor:
                self._await(monitor, now + _ADDRESS_PAUSE if deadline is None else min(now + _ADDRESS_PAUSE, deadline))

    def attach_interface(self, name: str, new_name: str | None = None) -> None:
        """Move a network interface from our network namespace into the running container.

        Args:
            name: The interface's name here.
            new_name: Its name in the container; the same where None.

        Raises:
            OptionError: A name is none of an interface.
            LiblxcError: The container does not run, there is no such interface, or it cannot be moved.

        Reproduces: lxcapi_attach_interface().
        """
        from . import network

        words = [os.fsencode(check_interface(name)), os.fsencode(check_interface(new_name or name, "new name"))]
        operation = f"move the interface {name} into"
        self._require_running(operation)
        hint = "" if network.is_here(name) else "there is no such interface here"
        self._fork(operation, lambda: lib.container_attach_interface(self._c, words[0], words[1]), hint)

    def detach_interface(self, name: str, new_name: str | None = None) -> None:
        """Move a network interface from the running container into our network namespace.

        Args:
            name: The interface's name in the container.
            new_name: Its name here; the same where None.

        Raises:
            OptionError: A name is none of an interface.
            LiblxcError: The container does not run, has no such interface, or it cannot be moved.

        Reproduces: lxcapi_detach_interface().
        """
        words = [os.fsencode(check_interface(name)), os.fsencode(check_interface(new_name or name, "new name"))]
        operation = f"take the interface {name} from"
        self._require_running(operation)
        self._fork(operation, lambda: lib.container_detach_interface(self._c, words[0], words[1]))

    # Its terminals

    def open_console(self, tty: int = -1) -> Console:
        """Borrow a terminal of the running container: what is typed there and printed goes through a descriptor.

        Args:
            tty: Its number: 1 for ``/dev/tty1``, 0 for ``/dev/console``, -1 for the first that nobody has.

        Returns:
            The terminal, to be closed.

        Raises:
            OptionError: The number is none.
            LiblxcError: The container does not run, has no such terminal, or somebody has it.

        Reproduces: lxcapi_console_getfd().
        """
        from . import console

        check_number("tty", tty, -1)
        operation = "open a terminal of"
        self._require_running(operation)
        self._mark()
        borrowed = console.borrowed(self._c, tty)
        if borrowed is None:
            raise self.failure(operation, "it has no such terminal, or somebody has it; see lxc.tty.max")
        return borrowed

    def console(
        self, tty: int = -1, *, stdin: int = 0, stdout: int = 1, stderr: int = 2, escape: str | None = "a"
    ) -> None:
        """Connect a terminal of ours with one of the running container, until Ctrl and a letter, then ``q`` is typed.

        liblxc does it all: signal handlers run only afterwards, and where the process leads no group it becomes the
        leader of a new session. A program that wants neither uses open_console().

        Args:
            tty: As for open_console().
            stdin: A descriptor of our terminal, to read from.
            stdout: One to print on.
            stderr: One for errors.
            escape: The letter, from a to z; None for no way out but the end of the container.

        Raises:
            OptionError: An argument is not allowed.
            LiblxcError: The container does not run, has no such terminal, or somebody has it.

        Reproduces: lxcapi_console().
        """
        from .console import escape_code

        check_number("tty", tty, -1)
        fds = [check_number(what, fd, 0) for what, fd in (("stdin", stdin), ("stdout", stdout), ("stderr", stderr))]
        code = escape_code(escape)
        operation = "open a terminal of"
        self._require_running(operation)
        hint = "it has no such terminal, or somebody has it; see lxc.tty.max"
        self._do(operation, lambda: lib.container_console(self._c, tty, fds[0], fds[1], fds[2], code) == 0, hint)

    # Its whole state, in files

    def checkpoint(self, directory: StrPath, *, stop: bool = False, verbose: bool = False) -> None:
        """Write the state of the running container's processes to files, for restore().

        Args:
            directory: Where to write; it is made where needed.
            stop: Whether the container is stopped afterwards.
            verbose: Whether CRIU writes more to its log, which is in the directory.

        Raises:
            OptionError: An argument is not allowed.
            UnsupportedError: The program criu, which does it, is not in the PATH.
            LiblxcError: The container does not run, or CRIU could not do it.

        Reproduces: lxcapi_checkpoint().
        """
        path = self._checkpoint_path(directory, verbose=verbose)
        check_flag("stop", stop)
        self._require_running("checkpoint")
        hint = f"see the log in {os.fsdecode(path)}"
        self._fork(
            "checkpoint", lambda: lib.container_checkpoint(self._c, ffi.new("char[]", path), stop, verbose), hint
        )

    def restore(self, directory: StrPath, *, verbose: bool = False) -> None:
        """Start the container with the processes that checkpoint() wrote down.

        Args:
            directory: Where they are.
            verbose: Whether CRIU writes more to its log, which is in the directory.

        Raises:
            OptionError: An argument is not allowed.
            UnsupportedError: The program criu, which does it, is not in the PATH.
            ContainerNotFoundError: The container is not defined.
            LiblxcError: It runs, or CRIU could not do it.

        Reproduces: lxcapi_restore().
        """
        path = self._checkpoint_path(directory, verbose=verbose)
        self._require_stopped("restore")
        hint = f"see the log in {os.fsdecode(path)}"
        self._fork("restore", lambda: lib.container_restore(self._c, ffi.new("char[]", path), verbose), hint)

    def _checkpoint_path(self, directory: StrPath, *, verbose: bool) -> bytes:
        path = os.fsencode(check_file(directory, "directory"))
        check_flag("verbose", verbose)
        from . import criu

        criu.require()
        return path

    def _check_sigchld(self, operation: str) -> None:
        if lib.lxccopy_sigchld_ignored():
            raise LiblxcError(
                operation,
                self.name,
                self.lxcpath,
                "this process ignores SIGCHLD, so liblxc would lose its children",
                "call signal.signal(signal.SIGCHLD, signal.SIG_DFL) first",
            )


def ask_state(name: str, lxcpath: StrPath | None, patience: float) -> tuple[str, int]:
    """Return the state of a container, and the process id of its init, -1 where it has none.

    Args:
        name: Its name.
        lxcpath: The directory that holds it.
        patience: How long to wait for an answer, in seconds: liblxc gives none while it starts, which a hook can make
            last for ever. It is called STARTING then, and a thread is left that waits for it.

    Raises:
        LxcCopyError: As Container does.
    """
    import threading

    answers: list[tuple[str, int]] = []
    failures: list[LxcCopyError] = []

    def ask() -> None:
        try:
            with Container(name, lxcpath) as container:
                answers.append((container.state, container.init_pid))
        except LxcCopyError as error:
            failures.append(error)

    thread = threading.Thread(target=ask, name="lxccopy-state", daemon=True)
    thread.start()
    thread.join(patience)
    if failures:
        raise failures.pop()  # nothing here refers to it then: what failed would stay open until a garbage collection
    return answers[0] if answers else ("STARTING", -1)


def _duplicates(*fds: int) -> list[int]:
    import fcntl

    copies: list[int] = []
    try:
        for fd in fds:
            copies.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3))  # noqa: PERF401 - those made so far are closed
    except OSError:
        for copy in copies:
            os.close(copy)
        raise
    return copies


def _quote(words: Sequence[str]) -> list[str]:
    if not words:
        return []
    import shlex

    return [shlex.quote(word) for word in words]
