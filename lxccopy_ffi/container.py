# SPDX-License-Identifier: LGPL-2.1-or-later
"""Container: one reference to one liblxc container. What liblxc answers with false is an exception here."""

from __future__ import annotations

import errno
import os
import stat
import time
from _thread import allocate_lock
from contextlib import suppress

from . import _raw, cgroups
from ._raw import ffi, lib
from .errors import ContainerNotFoundError, LiblxcError, OptionError
from .faults import reach
from .names import check_name, check_path, check_value
from .processes import parent
from .spawner import Guard, Spawn, Ward, await_or_kill, end_start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType
    from typing import Any

    from ._liblxc import _Container
    from .names import StrPath


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


def _hint(reason: str, operation: str) -> str:
    if "Failed to exec" in reason and operation != "start":
        return ""
    return next((hint for words, hint in _HINTS if words in reason), "")


class Child:
    """A process of ours in a container: attach() made it our child.

    Until it is waited for, the container cannot end: its init waits for all processes of its namespace, zombies too.

    Attributes:
        status: What waitpid() said of its end; None before that.
        pidfd: Readable once it has ended. Open as long as this object is there, since any thread may be waiting on it.
    """

    pidfd = -1

    def __init__(self) -> None:
        # liblxc writes here: an exception raised by a signal handler could make us lose a return value.
        self.cell: Any = ffi.new("pid_t *")
        self.status: int | None = None
        self._lock = allocate_lock()

    def __del__(self) -> None:
        if self.pidfd >= 0:
            os.close(self.pidfd)

    @property
    def pid(self) -> int:
        """Its process id; 0 before it exists."""
        return int(self.cell[0])

    def open(self) -> None:
        """Open the pidfd.

        Raises:
            OSError: There can be no more descriptors.
        """
        self.pidfd = _raw.pidfd_open(self.pid)

    def send_signal(self, number: int) -> None:
        """Send it a signal; does nothing once it has ended. Takes no lock, so that a signal handler may call it."""
        if self.status is None and self.pid > 0:
            try:
                if self.pidfd >= 0:
                    import signal

                    signal.pidfd_send_signal(self.pidfd, number)
                else:
                    os.kill(self.pid, number)
            except ProcessLookupError:
                pass

    def signal_group(self, number: int) -> None:
        """Send a signal to its process group, which it leads. Takes no lock, either."""
        if self.status is None and self.pid > 0:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)  # nobody else's: the number is free only once it has been waited for

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for its end and return the status; None if it still runs after so many seconds. For any thread."""
        if self.status is None and self.pid > 0:
            fd = self.pidfd
            if timeout is not None and fd < 0:
                return None  # attach() is about to return it
            if fd >= 0 and not _raw.wait_readable(fd, timeout):
                return None
            with self._lock:
                if self.status is None:
                    self._reap()
        return self.status

    def _reap(self) -> None:
        try:
            _, self.status = os.waitpid(self.pid, 0)
        except ChildProcessError:
            self.status = 255 << 8  # somebody else in this process waits for any child, and has it

    def kill(self) -> None:
        """Kill it and wait for its end."""
        self.send_signal(9)
        self.wait()


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
    """The process id of the monitor that start() has left; 0 where there is none."""

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
        name = key.encode()
        size = lib.container_get_config_item(self._c, name, ffi.NULL, 0)
        if size < 0:
            if lib.lxc_config_item_is_supported(name):
                return ""
            reason = f'Unsupported config key "{key}"'
            raise LiblxcError(f"get {key} of", self.name, self.lxcpath, reason, _hint(reason, "get"))
        value = ffi.new("char[]", size + 1)
        lib.container_get_config_item(self._c, name, value, size + 1)
        return _raw.text(value).rstrip("\n")

    def running_config(self, key: str) -> str:
        """Return a config item as the running container has it; empty where it is not set or not running.

        Reproduces: lxcapi_get_running_config_item().
        """
        value = lib.container_get_running_config_item(self._c, key.encode())
        return "" if value == ffi.NULL else _raw.take_text(value).rstrip("\n")

    def set_config(self, key: str, value: str) -> None:
        """Set a config item in memory; list items get an entry more. save_config() writes it.

        Raises:
            OptionError: The value has a control character.
            LiblxcError: liblxc refuses the key or the value.

        Reproduces: lxcapi_set_config_item().
        """
        check_value(key, value)
        self._mark()
        if not lib.container_set_config_item(self._c, key.encode(), os.fsencode(value)):
            raise self.failure(f"set {key} = {value} for")

    def replace_config(self, key: str, value: str) -> None:
        """Set a config item in memory in place of what is there, so that the saved file has it once."""
        check_value(key, value)
        self.clear_config(key)
        self.set_config(key, value)

    def clear_config(self, key: str) -> None:
        """Remove a config item in memory, all its entries where it is a list.

        Raises:
            LiblxcError: liblxc knows no such key.

        Reproduces: lxcapi_clear_config_item().
        """
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
        terminal = _Foreground(self, lambda: lib.container_stop(self._c), on_running) if foreground else None
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
        self._watch_monitor()
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
        self._watch_monitor()
        if self.running:
            self._mark()
            if not lib.container_shutdown(self._c, 0) and self.running:
                raise self.failure("shut down")
        return self.wait_gone(timeout)

    def reboot(self, timeout: float | None = None) -> None:
        """Ask the container's init to reboot, and wait for the next one.

        Args:
            timeout: How long to wait, in seconds; None for ever.

        Raises:
            LiblxcError: It is not running or frozen, did not reboot in time, or ended.

        Reproduces: lxcapi_reboot2(). Differs: a signal can interrupt it.
        """
        self._watch_monitor()
        deadline = None if timeout is None else time.monotonic() + timeout
        before = self.init_pid
        self._mark()
        if self.state == "FROZEN" or not lib.container_reboot(self._c):
            raise self.failure("reboot")
        while self.init_pid in (-1, before) or self.state != "RUNNING":
            self._running_children()  # until they are waited for, the init cannot end
            if self._monitor < 0 or _raw.wait_readable(self._monitor, 0.01):
                raise LiblxcError("reboot", self.name, self.lxcpath, "it has ended")
            if deadline is not None and time.monotonic() >= deadline:
                raise LiblxcError("reboot", self.name, self.lxcpath, f"it did not within {timeout} seconds")

    def freeze(self) -> None:
        """Stop all processes of the container where they are.

        Raises:
            LiblxcError: It is not running, or liblxc could not do it.

        Reproduces: lxcapi_freeze().
        """
        self._mark()
        if not lib.container_freeze(self._c):
            raise self.failure("freeze")

    def thaw(self) -> None:
        """Let the processes of a frozen container go on.

        Raises:
            LiblxcError: It is not running, or liblxc could not do it.

        Reproduces: lxcapi_unfreeze().
        """
        self._mark()
        if not lib.container_unfreeze(self._c):
            raise self.failure("thaw")

    def ips(self) -> list[str]:
        """Return the addresses of the running container's network interfaces but for its loopback device.

        Reproduces: lxcapi_get_ips().
        """
        with self._lock:  # it forks
            found = lib.container_get_ips(self._c, ffi.NULL, ffi.NULL, 0)
        if found == ffi.NULL:
            return []
        count = 0
        while found[count] != ffi.NULL:
            count += 1
        return _raw.take_list(found, count)

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

    def _watch_monitor(self) -> None:
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
        self._monitor = pidfd
        self.cgroups = cgroups.of_process(monitor, self.name) | cgroups.of_process(init, self.name)

    def _forget_monitor(self) -> None:
        fd, self._monitor = self._monitor, -1  # first: whoever is interrupted here must not close it twice
        if fd >= 0:
            os.close(fd)

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

    def _check_sigchld(self, operation: str) -> None:
        if lib.lxccopy_sigchld_ignored():
            raise LiblxcError(
                operation,
                self.name,
                self.lxcpath,
                "this process ignores SIGCHLD, so liblxc would lose its children",
                "call signal.signal(signal.SIGCHLD, signal.SIG_DFL) first",
            )


class _Foreground:
    """A container in the foreground: waits for its end, and ends it.

    liblxc answers those who ask for the state of a container that starts only when it runs, or has failed. So a thread
    asks, and signal handlers can run here meanwhile.
    """

    def __init__(self, container: Container, stop: Callable[[], object], on_running: Callable[[], None] | None) -> None:
        import threading

        self._container = container
        self._stop = stop
        self._on_running = on_running
        self._running = False
        self._closing = threading.Event()
        self._fd, self._theirs = os.pipe()
        self._thread = threading.Thread(target=self._look, name="lxccopy-watch", daemon=True)

    def _look(self) -> None:
        import signal

        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())  # they are the main thread's, to wake it
        while not self._closing.wait(0.01):  # before it answers at all; liblxc itself would look once a second
            if self._container.running:
                self._running = True
                os.write(self._theirs, b"\n")
                return

    def wait(self, socket: int) -> None:
        """Wait until it has stopped, and call on_running when it runs."""
        self._thread.start()
        if self._fd in _raw.wait_any([socket, self._fd]) and self._on_running is not None:
            self._on_running()
        _raw.wait_readable(socket)

    def end(self, socket: int, helper: int) -> None:
        """Stop it; or what there is of it, where it does not run yet."""
        if self._running:
            self._stop()
            await_or_kill(socket, helper, self._container.name)
        else:
            end_start(socket, helper, self._container.name)

    def close(self) -> None:
        """Let the thread end."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join()
        os.close(self._fd)
        os.close(self._theirs)


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
