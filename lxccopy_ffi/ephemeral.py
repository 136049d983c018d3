# SPDX-License-Identifier: LGPL-2.1-or-later
"""Ephemeral copies: an overlay snapshot of a base that runs once and leaves nothing behind."""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack, suppress

from . import notices
from . import tmpfs as memory
from .clone import (
    Claim,
    check_target,
    make,
    open_source,
    personalise,
    resolve,
    warn_of_shared_settings,
)
from .errors import LiblxcError, OptionError, UnsupportedError
from .faults import reach
from .names import check_file, check_flag, check_name, check_path, check_seconds, check_words, random_suffix
from .storage import Plan, Storage, check_kind, check_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from subprocess import CompletedProcess
    from types import TracebackType
    from typing import Any

    from typing_extensions import Unpack

    from .boot import Condition
    from .container import Container
    from .mounts import Mount
    from .names import StrPath
    from .ordinary import Overlay
    from .popen import Popen
    from .request import PopenOptions, RunOptions

# How long a copy whose data is kept may take to halt before it is killed, in seconds.
KEEP_DATA_SHUTDOWN = 30.0

# What runs while a container starts. Where there is any, the log is kept in detail: it has what a failing one said.
_HOOKS = tuple(f"lxc.hook.{name}" for name in ("pre-start", "start-host", "pre-mount", "mount", "autodev", "start"))


class EphemeralCopy:
    """A throwaway copy of a container: an overlay on its base, removed when it stops.

    The constructor only checks. ``with`` starts the copy and closes it at the end:

        with EphemeralCopy("base", tmpfs=True) as copy:
            copy.run(["touch", "/root/x"], check=True)

    Args:
        source: The name of the base.
        name: The name for the copy; where None, the base's with six random characters.
        tmpfs: Keep what the copy writes in memory. If that is not possible, nothing is started.
        tmpfs_size: The size of the tmpfs: bytes with an optional K, M or G, or a percentage of memory; where None, the
            kernel's default of half the memory.
        tmpfs_inodes: How many files it may hold; where None, the kernel's default.
        tmpfs_via: ``"monitor"``: the data survive a reboot of the copy; only this package can start it. ``"hook"``:
            lxc-copy's way, a script that any tool can start it with. Where None, what is possible and fits best.
        mounts: What of the host is mounted in the copy: Mount objects, or texts as after ``lxc-copy -m``.
        storage: The type of storage; only ``"overlay"`` with tmpfs, and what fits the base where None.
        size: Of a new volume, where the base is in one, as for clone().
        keep_data: Keep the copy when it stops; not with tmpfs.
        keep_name: Keep the base's host name, hosts file and machine id.
        keep_mac: Keep the base's network addresses.
        allow_running: Copy the base also while it runs.
        hook_args: Further arguments for the base's lxc.hook.clone.
        lxcpath: The directory that holds the base; LXC's default where None.
        newpath: The directory for the copy; the base's where None.
        rcfile: A file to read the base's configuration from, in place of its own.
        on_event: Called with ``"created"``, ``"started"`` and ``"removed"`` when that has happened, and with the copy's
            name. If it raises an exception, nothing is left of the copy.
        shutdown_timeout: How long the copy may take to halt when it is closed, in seconds, before it is killed; a
            negative number waits for ever. Where None, a throwaway copy is killed at once, and a kept one has 30
            seconds.

    Attributes:
        name: The copy's name; empty before it is made.
        tmpfs_via: ``"monitor"`` or ``"hook"`` once it is made; None without a tmpfs.

    Raises:
        OptionError: An argument is not allowed, or contradicts another.

    Reproduces: lxc_copy.c:do_clone_ephemeral(). Differs: everything is checked before anything is made, and a failure
    at any step leaves nothing.
    """

    def __init__(
        self,
        source: str,
        name: str | None = None,
        *,
        tmpfs: bool = False,
        tmpfs_size: str | int | None = None,
        tmpfs_inodes: int | None = None,
        tmpfs_via: str | None = None,
        mounts: Sequence[Mount | str] = (),
        storage: str | None = None,
        size: int | str | None = None,
        keep_data: bool = False,
        keep_name: bool = False,
        keep_mac: bool = False,
        allow_running: bool = False,
        hook_args: Sequence[str] = (),
        lxcpath: StrPath | None = None,
        newpath: StrPath | None = None,
        rcfile: StrPath | None = None,
        on_event: Callable[[str, str], None] | None = None,
        shutdown_timeout: float | None = None,
    ) -> None:
        self.source = check_name(source)
        self._wanted_name = None if name is None else check_name(name, "new name")
        self._lxcpath = None if lxcpath is None else check_path(lxcpath)
        self._newpath = None if newpath is None else check_path(newpath, "new path")
        self._limits = _check_tmpfs(tmpfs, tmpfs_size, tmpfs_inodes, tmpfs_via, keep_data=keep_data)
        self._via = tmpfs_via
        self._mounts = _parse_mounts(mounts)
        self._kind = _check_storage(storage, tmpfs=tmpfs)
        self._size = 0 if size is None else check_size(size)
        self._rcfile = None if rcfile is None else check_file(rcfile)
        self._on_event = on_event
        self._keep_data = check_flag("keep_data", keep_data)
        self._keep_name = check_flag("keep_name", keep_name)
        self._keep_mac = check_flag("keep_mac", keep_mac)
        self._allow_running = check_flag("allow_running", allow_running)
        self._hook_args = check_words("hook_args", hook_args)
        self._shutdown_timeout = check_seconds("shutdown_timeout", shutdown_timeout)
        if shutdown_timeout is None and keep_data:
            self._shutdown_timeout = KEEP_DATA_SHUTDOWN
        self._container: Container | None = None
        self.name = ""
        self.tmpfs_via: str | None = None
        self._targets: list[str] = []
        self._ran = False
        self._claim: Claim | None = None
        self._memory = -1
        self._monitor_overlays: list[tuple[str, str]] = []
        self._ordinary = os.geteuid() != 0
        self._overlays: list[Overlay] = []

    @property
    def container(self) -> Container:
        """The copy's container, once it is made.

        Raises:
            ValueError: It is not made yet, or closed.
        """
        if self._container is None:
            raise ValueError(f"the copy of {self.source!r} is not started")
        return self._container

    def __repr__(self) -> str:
        return f"<EphemeralCopy of {self.source!r}: {self.name if self._container else 'not started'}>"

    def create(self) -> Container:
        """Make the copy without starting it, so that any tool can: a tmpfs is then mounted by a hook.

        Raises:
            LxcCopyError: As clone() does; nothing is left of the copy.
        """
        return self._create(self._via or memory.HOOK, ours=False)

    def start(self, *, foreground: bool = False) -> Container:
        """Start the copy, and make it first where create() was not called. It runs until it stops or is closed.

        Args:
            foreground: Give it our terminal, and return when it has stopped. An exception, as from a signal handler,
                kills it.

        Raises:
            LxcCopyError: As clone() does; LiblxcError where it does not start. Nothing is left of the copy; one that
                create() made stays until close().
            ValueError: It runs already.
        """
        made_before = self._container is not None
        if made_before and self.container.running:
            raise ValueError(f"the copy {self.name!r} runs already")
        try:
            if not made_before:
                self._create(self._via, ours=True)
            copy = self.container
            level = "DEBUG" if any(copy.config(key) for key in _HOOKS) else None
            copy.start(
                tmpfs=self._memory,
                tmpfs_path=memory.MOUNT_POINT if self._memory >= 0 else "",
                overlays=self._monitor_overlays,
                log_level=level,
                foreground=foreground,
                on_running=self._running,
                ward=None if self._claim is None else self._claim.ward(remove=not self._keep_data),
            )
        except BaseException:
            if made_before:
                self.container.stop()
                self._dismiss()
            elif not (foreground and self._ran and self._keep_data):
                self._abandon()
            raise
        self._close_memory()
        return copy

    def _running(self) -> None:
        """It runs: do so too what was asked for."""
        if self._claim is not None:
            self._claim.note_start(self.container)
        reach("started")
        self._check_mounts()
        self._tell("started")
        self._ran = True

    def _check_mounts(self) -> None:
        """Fail where liblxc skipped a mount, since that is what "optional" in its entry means."""
        if not self._targets:
            return
        from .mounts import missing

        copy = self.container
        try:
            with open(f"/proc/{copy.init_pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
                left_out = missing(file.read(), self._targets)
        except OSError:
            return  # it has ended, or is not ours to look into
        if left_out:
            reason = (
                f"nothing could be mounted on {left_out[0]}; is it a file in the copy, and a directory on the host, or"
                " the other way round?"
            )
            raise LiblxcError("start", copy.name, copy.lxcpath, reason)

    def _tell(self, event: str) -> None:
        if self._on_event is not None:
            self._on_event(event, self.name)

    def run(self, argv: Sequence[str], **options: Unpack[RunOptions]) -> CompletedProcess[Any]:
        """Run a command in the copy and wait for it, with subprocess.run()'s habits.

        Args:
            argv: The command and its arguments, looked up in the copy's PATH; no shell is involved.
            options: Those of subprocess.run() that make sense here: input, capture_output, stdin, stdout, stderr,
                text, encoding, errors, timeout, check, env, cwd, user and group, as request.RunRequest explains them.
                A time limit kills the command and all that it has started.

        Returns:
            Its status (negative for a signal, 127 for a program that is not there, 126 for one that cannot be executed)
            and output.

        Raises:
            OptionError: An argument is not allowed; nothing was run.
            LiblxcError: The copy could not be entered.
            subprocess.TimeoutExpired: It took too long. Has the output so far.
            subprocess.CalledProcessError: It failed, and check is set.
        """
        from .popen import run as run_in
        from .request import RunRequest

        request = RunRequest(argv, **options)
        copy = self.container
        self.note_command(request.argv)
        return run_in(copy, request)

    def popen(self, argv: Sequence[str], **options: Unpack[PopenOptions]) -> Popen:
        """Start a command in the copy, with subprocess.Popen's habits.

        Args:
            argv: The command and its arguments.
            options: stdin, stdout, stderr, text, encoding, errors, env, cwd, user and group, as for run().

        Returns:
            The command, which ends with the copy at the latest.

        Raises:
            OptionError: An argument is not allowed; nothing was run.
            LiblxcError: The copy could not be entered.
        """
        from .popen import Popen
        from .request import Request

        request = Request(argv, **options)
        copy = self.container
        self.note_command(request.argv)
        return Popen(copy, request)

    def shell(self, argv: Sequence[str] = ("sh", "-l")) -> int:
        """Run a shell, or another command, on our terminal.

        Returns:
            Its status, negative for a signal.

        Raises:
            OptionError: We have no terminal, or the command is none.
            LiblxcError: The copy could not be entered.
        """
        from .terminal import shell

        words = check_words("the command", argv)
        copy = self.container
        self.note_command(words)
        return shell(copy, words)

    def put(self, source: StrPath, target: StrPath, *, owner: str | int | None = None) -> None:
        """Copy a file or a tree of the host's into the running copy, as ``cp -a`` would, but for devices and the like.

        Args:
            source: The host's path. A link is copied as such.
            target: The path in the copy, whose links stay within it: a directory to put it in, or its new name in one.
            owner: Whose it is, a ``USER``, ``USER:GROUP`` or number of the copy's; its root's where None.

        Raises:
            OptionError: An argument is not allowed, or the copy has no such user.
            LiblxcError: The copy does not run.
            OSError: A file cannot be read or written.
        """
        from .transfer import put

        put(self.container, source, target, owner)

    def get(self, source: StrPath, target: StrPath) -> None:
        """Copy a file or a tree out of the running copy, as ``cp -a`` would, but for devices and the like.

        Files do not keep the bits that let them run as their owner; the owners' numbers are the copy's own.

        Args:
            source: The path in the copy. A link is copied as such, and never followed on the host.
            target: The host's path: a directory to put it in, or its new name in one.

        Raises:
            OptionError: An argument is not allowed.
            LiblxcError: The copy does not run.
            OSError: A file cannot be read or written.
        """
        from .transfer import get

        get(self.container, source, target)

    def ips(self, timeout: float | None = None) -> list[str]:
        """Return the copy's addresses as soon as it has one; none where it has none by then.

        Args:
            timeout: In seconds; None for a single look.
        """
        return self.container.ips(timeout=check_seconds("timeout", timeout) or 0)

    def wait_until(self, condition: Condition, timeout: float | None = None) -> None:
        """Wait until something is so.

        Args:
            condition: A function that returns whether it is, or a command to run in the copy that then ends with 0.
            timeout: In seconds; None for ever.

        Raises:
            OptionError: An argument is not allowed.
            TimeoutError: It is not so by then.
            LiblxcError: The copy has ended.
        """
        from .boot import wait_until

        wait_until(self.container, condition, timeout)

    def wait_booted(self, timeout: float | None = None) -> None:
        """Wait until the copy's init, which is systemd, OpenRC or busybox's, has started all that it starts.

        Args:
            timeout: In seconds; None for ever.

        Raises:
            TimeoutError: It has not by then.
            UnsupportedError: It is another init, of which nobody can tell.
            LiblxcError: The copy has ended.
        """
        from .boot import wait_booted

        wait_booted(self.container, timeout)

    def reboot(self, timeout: float | None = None) -> None:
        """Reboot the copy and wait until it runs again. With ``tmpfs_via="hook"`` its changes are lost.

        Args:
            timeout: In seconds; None for ever.

        Raises:
            TimeoutError: It has not by then.
            LiblxcError: It does not run, or has ended.
        """
        copy = self.container
        if not copy.reboot(check_seconds("timeout", timeout)):
            raise TimeoutError(f"{copy.where}: it has not rebooted after {timeout} seconds")

    def freeze(self) -> None:
        """Stop all processes of the copy where they are.

        Raises:
            LiblxcError: It does not run, or may not be frozen.
        """
        self.container.freeze()

    def thaw(self) -> None:
        """Let the processes of the frozen copy go on.

        Raises:
            LiblxcError: It does not run.
        """
        self.container.unfreeze()

    def commit(self, name: str, *, snapshot: bool = False) -> Container:
        """Keep what happened in the running copy as a container of its own, which stays.

        The copy is frozen meanwhile and goes on afterwards, as with docker commit. What was mounted in it, such as the
        directories of ``mounts``, is not kept, nor is its memory: the new container boots. It has the configuration of
        the base, and identity files of its own.

        Args:
            name: The name for the container.
            snapshot: Share with the base what is the same, in place of a full copy.

        Returns:
            A reference to the container.

        Raises:
            LxcCopyError: As clone() does; nothing is left of the new container.
        """
        from .commit import commit

        check_flag("snapshot", snapshot)
        options = {"lxcpath": self._lxcpath, "newpath": self._newpath, "rcfile": self._rcfile}
        return commit(self.container, self.source, check_name(name, "new name"), snapshot=snapshot, options=options)

    def note_command(self, argv: list[str]) -> None:
        """Say in the ledger what runs in the copy now, where there is room for it: it is only for those who look."""
        if self._claim is not None:
            with suppress(OSError):
                self._claim.ledger.add_command(argv)

    def detach(self) -> None:
        """Leave the copy running: close() then does nothing. It is removed when it stops, unless its data is kept."""
        self._close_memory()
        if self._claim is not None:
            self._release(self._claim)
        copy, self._container = self._container, None
        if copy is not None:
            if copy.config("lxc.rootfs.options") and not self._keep_data:
                from . import ordinary

                ordinary.warn_of_reboot(copy)
            copy.close()

    def _release(self, claim: Claim) -> None:
        """Nothing more is ours to do. What was to be kept is an ordinary container from here on."""
        if self._keep_data:
            claim.keep()
        else:
            claim.ledger.add(detached=True)
        self._dismiss(tidy=bool(self._monitor_overlays))
        claim.close()

    def _dismiss(self, *, tidy: bool = False) -> None:
        """It need not end with us any more."""
        if self._container is not None and self._container.guard is not None:
            self._container.guard.dismiss(tidy=tidy)

    def close(self, *, kill: bool = False) -> None:
        """Stop the copy and remove it; only stop it where its data is kept. It is gone on return. Idempotent.

        Args:
            kill: Do so at once, whatever shutdown_timeout says.

        Raises:
            LiblxcError: It could not be stopped or removed.
        """
        copy, claim = self._container, self._claim
        self._close_memory()
        if copy is None:
            return
        with ExitStack() as steps:  # the last one first, and each of them whatever becomes of those before it
            steps.callback(self._dismiss)
            if claim is not None:
                steps.callback(claim.keep if self._keep_data else claim.discard)
            steps.callback(copy.close)
            # Not when it is gone, as another one may have got its name.
            if not copy.closed and (copy.watched or (claim is not None and claim.holds())):
                steps.callback(copy.stop)
                if self._shutdown_timeout is not None and not kill:
                    copy.shutdown(None if self._shutdown_timeout < 0 else self._shutdown_timeout)
        self._container = None  # only now: an interrupted close() can be called again
        if not self._keep_data:
            self._tell("removed")

    def __enter__(self) -> EphemeralCopy:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _create(self, via: str | None, *, ours: bool) -> Container:
        """Make it; to be started by us, or by whoever likes."""
        if self._container is not None:
            raise ValueError(f"the copy {self._container.name!r} is made already")
        with ExitStack() as undo:
            base = undo.enter_context(open_source(self.source, self._lxcpath, self._rcfile))
            path = self._newpath or base.lxcpath
            plan = Plan(
                base,
                snapshot=True,
                ephemeral=True,
                tmpfs=self._limits is not None,
                kind=self._kind,
                allow_running=self._allow_running,
            )
            if self._ordinary:
                from . import ordinary

                ordinary.check(base, path)
                ordinary.check_sources([mount.source for mount in self._mounts], base)
            check_target(self._wanted_name, path)
            self.tmpfs_via = way = self._choose_way(via)
            merged = ours and way != memory.HOOK and self._wants_merged(base, plan)
            if way == memory.MONITOR or merged:
                memory.ensure_mount_point()
            targets = self._resolve_targets(plan.storage)
            self._claim = Claim(
                self._wanted_name,
                (base.lxcpath, self.source),
                path,
                undo,
                "ephemeral",
                keep=self._keep_data,
                tmpfs=way,
            )
            self.name = name = self._claim.name
            undo.callback(self._close_memory)
            copy = self._clone(base, plan, path, undo)
            try:
                if way == memory.MONITOR or merged:
                    self._use_monitor(copy, plan.storage, merged=merged)
                elif not (self._keep_name or self._ordinary):
                    personalise(copy)
                reach("personalised")
                layers = self._add_mounts(copy, targets, way)
                reach("mounts-added")
                if self._ordinary:
                    from . import ordinary

                    ordinary.prepare(
                        copy,
                        self._limits,
                        layers,
                        self._overlays,
                        keep_name=self._keep_name,
                        keep_data=self._keep_data,
                    )
                else:
                    if not merged:
                        self._allow_removals(copy)
                    if way == memory.HOOK:
                        self._use_hook(copy, layers)
            except OSError as error:
                raise UnsupportedError(f"cannot prepare {name!r} in {path}: {error.strerror}") from error
            copy.save_config()
            reach("saved")
            warn_of_shared_settings(copy)
            undo.callback(setattr, self, "_container", None)
            self._container = copy
            self._tell("created")
            undo.pop_all()
            base.close()
        return copy

    def _clone(self, base: Container, plan: Plan, path: str, undo: ExitStack) -> Container:
        """The copy, marked as ephemeral in its file before anything else is done to it."""
        copy = make(
            base,
            plan,
            self.name,
            path,
            keep_name=self._keep_name,
            keep_mac=self._keep_mac,
            size=self._size,
            hook_args=self._hook_args,
        )
        undo.callback(copy.close)
        if not self._keep_data:
            copy.set_config("lxc.ephemeral", "1")
        copy.clear_config("lxc.start.auto")  # a copy that is left over must not come up with the machine
        copy.clear_config("lxc.group")
        copy.save_config()
        reach("marked")
        return copy

    def _allow_removals(self, copy: Container) -> None:
        """Let an overlay that liblxc mounts in a user namespace do all that one can."""
        if copy.config("lxc.idmap"):
            from . import ordinary

            ordinary.prepare_overlay(copy)
            if self._keep_data:
                ordinary.warn_of_reboot(copy)

    def _choose_way(self, via: str | None) -> str | None:
        if self._limits is None:
            return None
        possible = os.geteuid() == 0
        if via == memory.MONITOR and not possible:
            raise OptionError("tmpfs_via='monitor' needs root; use 'hook'")
        return via or (memory.MONITOR if possible else memory.HOOK)

    def _wants_merged(self, base: Container, plan: Plan) -> bool:
        """Whether the overlay is ours to mount, since liblxc would mount it in the copy's user namespace."""
        mapped = os.geteuid() == 0 and bool(base.config("lxc.idmap"))
        return mapped and plan.storage.is_directory and not self._keep_data

    def _use_monitor(self, copy: Container, base: Storage, *, merged: bool) -> None:
        """Make the tmpfs and point the copy's root file system at where the monitor will have it.

        Args:
            copy: The copy.
            base: Where its base is.
            merged: Whether the overlay is ours to mount.
        """
        made = Storage(copy)
        upper, work = made.upper, f"{os.path.dirname(made.upper)}/work"
        lower = made.lower
        if self._limits is None:
            self._memory = memory.make_empty(memory.Limits("64K"))  # something to mount on
        else:
            self._memory = memory.make(self._limits, base.upper or base.lower[0])
            upper, work = memory.UPPER, f"{os.path.dirname(memory.UPPER)}/work"
        if not self._keep_name:
            personalise(copy, "" if self._limits is None else f"/proc/self/fd/{self._memory}/upper/delta")
        # What clone(), a hook of the base or we wrote to disk is not in the tmpfs: it becomes a layer below it.
        if self._limits is not None and os.listdir(made.upper):
            lower = [made.upper, *lower]
        if merged:
            self._monitor_overlays.append((memory.overlay_options(lower, upper, work), memory.MERGED))
            os.mkdir(os.path.basename(memory.MERGED), 0o755, dir_fd=self._memory)
            copy.replace_config("lxc.rootfs.path", f"dir:{memory.MERGED}")
            # liblxc would remove it as a directory, file by file, and so fill the upper layer with whiteouts.
            copy.clear_config("lxc.ephemeral")
        else:
            copy.replace_config("lxc.rootfs.path", ":".join(["overlay", *lower, upper]))

    def _mount(self, options: str) -> Mount:
        """Have an overlay mounted where only the monitor sees it, and return the mount of that in the copy."""
        from .mounts import Mount

        place = f"{memory.MERGED}-{random_suffix()}"
        os.mkdir(os.path.basename(place), 0o755, dir_fd=self._memory)
        self._monitor_overlays.append((options, place))
        return Mount(place)

    def _use_hook(self, copy: Container, layers: list[memory.Layer]) -> None:
        """Write the hook that mounts the tmpfs, and move what it would hide below it."""
        assert self._limits is not None  # noqa: S101 - for the type checker
        made = Storage(copy)
        if os.listdir(made.upper):
            carried = memory.carry(copy.directory)
            copy.replace_config("lxc.rootfs.path", ":".join(["overlay", carried, *made.lower, made.upper]))
        script = memory.hook_script(copy.directory, copy.name, self._limits, layers, keep_name=self._keep_name)
        copy.set_config("lxc.hook.pre-mount", memory.write_hook(copy.directory, script))

    def _resolve_targets(self, storage: Storage) -> list[str]:
        """Where in the copy each mount goes, with the links on the way resolved: liblxc refuses to go through any."""
        if not self._mounts:
            return []
        for mount in self._mounts:
            try:
                found = os.stat(mount.source)
            except OSError as error:
                raise OptionError(f"cannot mount {mount.source}: {error.strerror}") from error
            if mount.kind == "overlay" and not stat.S_ISDIR(found.st_mode):
                raise OptionError(f"cannot mount an overlay on {mount.source}: it is no directory")
        if not storage.is_on_host:
            raise UnsupportedError(
                f"nothing can be mounted in a copy of {self.source!r}, which is stored as {storage.kind!r}: links in it"
                " could lead the mount anywhere"
            )
        arguments = storage.layers, [mount.target for mount in self._mounts], self.source
        if self._ordinary and len(storage.layers) > 1:
            from . import userns

            targets: list[str] = userns.call("clone", "resolve", *arguments)
        else:
            targets = resolve(*arguments)
        for mount, target in zip(self._mounts, targets):
            if target == "/":
                raise OptionError(f"cannot mount on {mount.target} in {self.source!r}, which leads to its root")
        return targets

    def _add_mounts(self, copy: Container, targets: list[str], way: str | None) -> list[memory.Layer]:
        """Write the entry of each mount; return the layers that overlays need and that a hook has to make."""
        layers: list[memory.Layer] = []
        self._targets = targets
        for mount, target in zip(self._mounts, targets):
            pair = []
            lower = ""
            if mount.kind == "overlay":
                if "," in mount.source:
                    lower = f"{copy.directory}/lower#{random_suffix()}"
                    os.symlink(mount.source, lower)
                pair = [memory.Layer(mount.source, f"{kind}#{random_suffix()}", copy) for kind in ("delta", "work")]
            parent = {memory.MONITOR: os.path.dirname(memory.UPPER), memory.HOOK: f"{copy.directory}/overlay"}.get(
                way or "", copy.directory
            )
            if way == memory.MONITOR:
                memory.make_layers(f"/proc/self/fd/{self._memory}/upper", pair)
            elif way is None and not self._ordinary:
                memory.make_layers(copy.directory, pair)
            upper, work = [f"{parent}/{layer.name}" for layer in pair] or ["", ""]
            directory = os.path.isdir(mount.source)
            entry = mount.entry(target, directory=directory, lower=lower, upper=upper, work=work)
            if pair and self._monitor_overlays:
                entry = self._mount(mount.layers(lower, upper, work)).entry(target)
            elif pair and self._ordinary and not self._keep_data:
                from .ordinary import Overlay

                merged = Overlay(mount, copy.directory, mount.layers(lower, upper, work))
                self._overlays.append(merged)
                entry = merged.bind.entry(target)
            copy.set_config("lxc.mount.entry", entry)
            layers += pair
        return layers

    def _abandon(self) -> None:
        """Remove a copy that did not start, whatever keep_data says; the reason is on its way up."""
        copy, self._container = self._container, None
        self._close_memory()
        with ExitStack() as steps:
            if copy is not None:
                if copy.guard is not None:
                    steps.callback(copy.guard.dismiss)
                steps.callback(self._tell_removed)
            if self._claim is not None:
                steps.callback(self._claim.discard_quietly)
            if copy is not None:
                steps.callback(copy.close)
                if not copy.closed:
                    steps.callback(_stop_quietly, copy)

    def _tell_removed(self) -> None:
        with suppress(Exception):  # the reason that is on its way up must stay the one that is seen
            self._tell("removed")

    def _close_memory(self) -> None:
        fd, self._memory = self._memory, -1
        if fd >= 0:
            os.close(fd)


def _check_tmpfs(
    tmpfs: bool,  # noqa: FBT001 - checked, not passed on
    size: str | int | None,
    inodes: int | None,
    via: str | None,
    *,
    keep_data: bool,
) -> memory.Limits | None:
    check_flag("tmpfs", tmpfs)
    limits = memory.Limits(size, inodes)
    if via not in (None, memory.MONITOR, memory.HOOK):
        raise OptionError(f"tmpfs_via must be 'monitor' or 'hook', not {via!r}")
    if not tmpfs:
        if limits.mount_options or via:
            raise OptionError("a size, inodes or way for the tmpfs is given, but no tmpfs (-t)")
        return None
    if keep_data:
        raise OptionError("a copy on a tmpfs cannot be kept: -t and -D contradict each other")
    return limits


def _stop_quietly(copy: Container) -> None:
    try:
        copy.stop()
    except LiblxcError as error:
        notices.warn(str(error))


def _parse_mounts(mounts: Sequence[Mount | str]) -> list[Mount]:
    if isinstance(mounts, (list, tuple)) and not mounts:
        return []  # most often, and then there is nothing to import
    from .mounts import parse_all

    return parse_all(mounts)


def _check_storage(storage: str | None, *, tmpfs: bool) -> str | None:
    kind = None if storage is None else check_kind(storage)
    if tmpfs and kind not in (None, "overlay"):
        raise OptionError("A container can only be placed on a tmpfs when the overlay storage driver is used")
    return kind


def run(source: str, argv: Sequence[str], **options: Any) -> CompletedProcess[Any]:  # noqa: ANN401 - checked below
    """Run a command in a fresh copy of a container, and remove the copy.

        run("base", ["cat", "/etc/hostname"], tmpfs=True, capture_output=True, text=True).stdout

    Args:
        source: The name of the base.
        argv: The command and its arguments.
        options: The keywords of EphemeralCopy.run(), and those of EphemeralCopy. The time limit counts from the start
            of the command.

    Returns:
        The command's status and output.

    Raises:
        OptionError: An argument is not allowed; nothing was made.
        LxcCopyError: The copy could not be made or started.
        subprocess.TimeoutExpired: The command took too long.
        subprocess.CalledProcessError: It failed, and check is set.

    Reproduces: ``lxc-copy -e -- CMD``. Differs: the command's status is returned.
    """
    from .popen import run as run_in
    from .request import KEYWORDS, RunRequest

    request = RunRequest(argv, **{name: options.pop(name) for name in KEYWORDS & options.keys()})
    with EphemeralCopy(source, **options) as copy:
        copy.note_command(request.argv)
        return run_in(copy.container, request)
