# SPDX-License-Identifier: LGPL-2.1-or-later
"""Child: a process of ours in a container."""

from __future__ import annotations

import os
from _thread import allocate_lock
from contextlib import suppress

from . import _raw
from ._raw import ffi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


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
