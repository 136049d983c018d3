# SPDX-License-Identifier: LGPL-2.1-or-later
"""Watch: a container in the foreground, until it has stopped."""

from __future__ import annotations

import os

from . import _raw
from .spawner import await_or_kill, end_start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Named(Protocol):
        """What of a Container is needed here."""

        name: str

        @property
        def running(self) -> bool:
            """Whether it runs."""

        def watch_monitor(self) -> None:
            """Hold its monitor."""


class Watch:
    """A container in the foreground: waits for its end, and ends it.

    liblxc answers those who ask for the state of a container that starts only when it runs, or has failed. So a thread
    asks, and signal handlers can run here meanwhile.
    """

    def __init__(self, container: Named, stop: Callable[[], object], on_running: Callable[[], None] | None) -> None:
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
        if self._fd in _raw.wait_any([socket, self._fd]):
            self._container.watch_monitor()
            if self._on_running is not None:
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
