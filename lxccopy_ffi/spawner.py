# SPDX-License-Identifier: LGPL-2.1-or-later
"""Starting a container from a helper process, the Python side of csrc/spawner.c."""

from __future__ import annotations

import errno
import os
import time

from . import cgroups
from ._raw import above_stdio, fail, ffi, lib, string_list, text, wait_readable
from .faults import KILL_AT, reach
from .processes import command_lines, descendants, kill, parent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Protocol

    class Foreground(Protocol):
        """Waits for a container in the foreground until its socket is readable, which is when it has stopped."""

        def wait(self, socket: int) -> None:
            """Wait; any exception means that it shall be ended."""

        def end(self, socket: int, helper: int) -> None:
            """End it, in whatever state its start is."""


_STEPS = {
    lib.LXCCOPY_STEP_FDS: "preparing descriptors",
    lib.LXCCOPY_STEP_NAMESPACE: "making a private mount namespace",
    lib.LXCCOPY_STEP_TMPFS: "mounting the tmpfs",
    lib.LXCCOPY_STEP_OVERLAY: "mounting the overlay",
    lib.LXCCOPY_STEP_LOAD: "loading the configuration",
    lib.LXCCOPY_STEP_MONITOR: "watching its monitor",
    lib.LXCCOPY_STEP_HELPER: "the start helper died",
}

_ENDED = "its init ended at once"

# How long a start that was interrupted may still take before its processes are killed, in seconds.
_GRACE = 5.0

# How often a start that takes long is looked at, in seconds.
_LOOK = 1.0

# How long its helper may take to report that, in seconds.
_ENDING = 1.5


class Ward:
    """What a guard shall end, and remove, when this process dies: a container in a directory of its own.

    Args:
        directory_fd: A descriptor of the container's directory.
        ledger_fd: One that is locked as long as the guard has it.
        lock_file: liblxc's lock file of the container.
        remove: Whether the container is removed.
    """

    def __init__(self, directory_fd: int, ledger_fd: int, lock_file: str, *, remove: bool) -> None:
        self.directory_fd = directory_fd
        self.ledger_fd = ledger_fd
        self.lock_file = lock_file
        self.remove = remove


class Guard:
    """A process that ends a container when ours dies, or loses this object, before it was dismissed."""

    def __init__(self, plan: Any) -> None:  # noqa: ANN401 - C data
        self._plan = plan

    def dismiss(self, *, tidy: bool = False) -> None:
        """Let it go. Idempotent.

        Args:
            tidy: It shall still remove the container when that has stopped.
        """
        if self._plan is not None:
            lib.lxccopy_dismiss(self._plan, tidy)  # which does nothing when repeated, after an interrupt
            self._plan = None

    def __del__(self) -> None:
        if self._plan is not None and self._plan.guard > 0:
            os.close(self._plan.guard_socket)
            try:
                os.waitpid(self._plan.guard, 0)
            except ChildProcessError:
                pass  # it is our parent's


class Spawn:
    """One attempt to start a container.

    Attributes:
        monitor: A pidfd of the container's monitor; -1 where it did not start.
        monitor_pid: Its process id; 0 where it did not start, or in the foreground.
        cgroups: The cgroups that it has, for cgroups.remove().
        guard: What ends it when we die; None where nothing does.
        failed: Whether it failed.
        failure: Where and why, as far as the helper knows; the rest is in liblxc's log.
    """

    def __init__(self) -> None:
        self.monitor = -1
        self.monitor_pid = 0
        self.guard: Guard | None = None
        self.failed = False
        self.cgroups: set[cgroups.Membership] = set()
        self.failure = ""

    def run(
        self,
        name: str,
        lxcpath: str,
        *,
        log_fd: int,
        log_level: str | None,
        tmpfs: int,
        tmpfs_path: str,
        overlays: Sequence[tuple[str, str]] = (),
        foreground: Foreground | None = None,
        ward: Ward | None = None,
    ) -> None:
        """Start the container; the arguments are explained at Container.start().

        When interrupted, the start is awaited first, since it cannot be called back; the container then runs.

        Args:
            name: The container's name.
            lxcpath: The directory that holds it.
            log_fd: Where liblxc's log goes.
            log_level: What goes there.
            tmpfs: What to mount.
            tmpfs_path: Where to mount it.
            overlays: Overlays to mount, by their options and where to mount them.
            foreground: Waits for the end of a container that gets our terminal.
            ward: What a guard shall end; None for no guard.

        Raises:
            OSError: There can be no further process or descriptor.
        """
        plan: Any = ffi.new("struct lxccopy_plan *")
        strings = [ffi.new("char[]", os.fsencode(item)) for item in (name, lxcpath, tmpfs_path, log_level or "")]
        plan.name, plan.lxcpath, plan.tmpfs_path = strings[:3]
        plan.log_level = strings[3] if log_level else ffi.NULL
        words = string_list(word for overlay in overlays for word in overlay)  # kept until the helper has them
        plan.overlays = words[0]
        plan.log_fd, plan.tmpfs_fd = log_fd, tmpfs
        plan.private_mounts = os.geteuid() == 0
        plan.foreground = foreground is not None
        kill_at = ffi.new("char[]", KILL_AT.encode())
        plan.kill_at = kill_at
        plan.guarded = ward is not None
        if ward is not None:
            lock_file = ffi.new("char[]", os.fsencode(ward.lock_file))
            plan.lock_file, plan.remove = lock_file, ward.remove
            plan.ledger_fd, plan.directory_fd = ward.ledger_fd, ward.directory_fd
            self.guard = Guard(plan)
        try:
            # Its result goes into the plan: an exception raised by a signal handler could make us lose a return value.
            lib.lxccopy_spawn(plan)
            if plan.helper < 0:
                raise fail()  # noqa: TRY301
            reach("helper-forked")
            if foreground is None:
                _await_report(plan.socket, plan.helper, name)
            else:
                foreground.wait(plan.socket)
        except BaseException:
            if foreground is not None and plan.helper > 0:
                foreground.end(plan.socket, plan.helper)
            raise
        finally:
            try:
                if plan.helper > 0:
                    self._finish(plan, name, lxcpath)
            finally:
                if plan.helper > 0:  # interrupted before it had begun; the helper is in the monitor's cgroup
                    self._finish(plan, name, lxcpath)

    def _finish(self, plan: Any, name: str, lxcpath: str) -> None:  # noqa: ANN401 - C data
        end: Any = ffi.new("struct lxccopy_end *")
        lib.lxccopy_finish(plan, end)
        reach("reported")
        report = end.report
        # Those of the helper, which the monitor could not remove as long as it was in there.
        self.cgroups = cgroups.in_text(text(end.cgroups), name)
        self.monitor = above_stdio(end.monitor) if end.monitor >= 0 else -1
        self.monitor_pid = report.monitor_pid
        self.failed = report.step != lib.LXCCOPY_STARTED
        if report.step == lib.LXCCOPY_STEP_HELPER:
            self.cgroups |= _end_monitor(name, lxcpath)
        if self.monitor >= 0:
            payload = cgroups.of_process(report.init_pid, name)
            if len(payload) < len(self.cgroups):  # it has ended already, so cgroup1 does not tell
                payload |= cgroups.of_name(name)
            self.cgroups |= payload
        else:
            # Where the monitor was killed, there is the payload's, too.
            cgroups.remove(self.cgroups | (cgroups.of_name(name) if self.failed else set()))
        if self.failed:
            ended = report.step == lib.LXCCOPY_STEP_MONITOR and report.error == errno.ESRCH
            words = [_ENDED if ended else _STEPS.get(report.step, "")]
            if report.error and not ended:
                words.append(os.strerror(report.error))
            self.failure = ": ".join(filter(None, words))


def _end_monitor(name: str, lxcpath: str) -> set[cgroups.Membership]:
    """Kill the monitor that a helper which died has left, with all that it has started; return their cgroups.

    As long as a start is under way a monitor answers nobody, so nothing else would end it.
    """
    memberships: set[cgroups.Membership] = set()
    for monitor, line in command_lines():
        if line == f"[lxc monitor] {lxcpath} {name}":
            pids = [monitor, *descendants(monitor)]
            for pid in pids:
                memberships |= cgroups.of_process(pid, name)
            for pid in pids:
                kill(pid)
    return memberships


def _await_report(socket: int, helper: int, name: str) -> None:
    try:
        while not wait_readable(socket, _LOOK):
            if _has_lost_monitor(helper):
                end_start(socket, helper, name)
    except BaseException:
        await_or_kill(socket, helper, name)
        raise


def _has_lost_monitor(helper: int) -> bool:
    """Whether the monitor died just when it had made the container's init, which then waits for it, and we for that."""
    try:
        ours = os.stat("/proc/self/ns/pid").st_ino
        return any(
            parent(pid) == helper and os.stat(f"/proc/{pid}/ns/pid").st_ino != ours for pid in descendants(helper)
        )
    except OSError:
        return False  # they are on their way


def await_or_kill(socket: int, helper: int, name: str) -> None:
    """Wait a moment for a helper's report, and end the start if that does not come."""
    try:
        done = wait_readable(socket, _GRACE)
    except BaseException:  # a second one hurries it
        end_start(socket, helper, name)
        raise
    if not done:
        end_start(socket, helper, name)


def end_start(socket: int, helper: int, name: str) -> None:
    """Kill all that a helper has started, so that it tidies up and reports a failure; or else the helper, too."""
    deadline = time.monotonic() + _ENDING
    memberships: set[cgroups.Membership] = set()
    while time.monotonic() < deadline:
        for pid in descendants(helper):
            memberships |= cgroups.of_process(pid, name)
            kill(pid)
        # Again and again: what it starts next, or what has lost its parent, for which it is a subreaper.
        if wait_readable(socket, 0.01):
            memberships -= cgroups.of_process(helper, name)  # it is still in there
            break
    else:  # liblxc waits for ever for a child that dies at the wrong moment
        memberships |= cgroups.of_process(helper, name)
        kill(helper)
    cgroups.remove(memberships)
