# SPDX-License-Identifier: LGPL-2.1-or-later
"""Copies that are started ahead of need, and handed out in order, each of them once."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections import deque
from concurrent.futures import Future, wait
from functools import partial

from . import notices

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .ephemeral import EphemeralCopy


class Stock:
    """At most so many copies at a time: idle, with somebody, or about to be started or removed.

    Threads start and remove them. Each ends when there is nothing to do, so none waits, and none need be told to end.

    Args:
        make: Returns a copy that is not started yet.
        size: How many there may be.
    """

    def __init__(self, make: Callable[[], EphemeralCopy], size: int) -> None:
        self._make = make
        self._size = size
        self._most_keepers = min(size, 2 * (os.cpu_count() or 1))
        self._changed = threading.Condition()
        self._idle: deque[EphemeralCopy] = deque()
        self._used: deque[EphemeralCopy] = deque()
        self._waiting: deque[Future[EphemeralCopy]] = deque()
        self._count = 0
        self._starting = 0
        self._keepers = 0
        self._failed = False
        self._ending = False
        self._errors: list[Exception] = []
        self.owner = os.getpid()
        _stocks.add(self)

    def __len__(self) -> int:
        """How many there are now."""
        return self._count

    def fill(self) -> None:
        """Start what may be started, in the background."""
        self._call_keepers()

    def take(self, patience: float | None = None) -> EphemeralCopy:
        """Return a copy that runs, for the caller alone; those who came first are served first.

        Args:
            patience: How long to wait for one, in seconds; None for ever.

        Raises:
            TimeoutError: It took too long.
            LxcCopyError: The copy that was to be the caller's could not be started.
            RuntimeError: There are none any more, after end().
        """
        ticket: Future[EphemeralCopy] = Future()
        with self._changed:
            if self._ending:
                raise _ended()
            copy = self._take_idle()
            if copy is None:
                self._waiting.append(ticket)
            else:
                ticket.set_result(copy)
        try:
            self._call_keepers()
            wait([ticket], patience)
            self._check_served(ticket, patience)
            return ticket.result()
        except BaseException:
            self._withdraw(ticket)
            raise

    def _take_idle(self) -> EphemeralCopy | None:
        """One that still runs. Those that have died meanwhile are replaced."""
        while self._idle:
            copy = self._idle.popleft()
            if not copy.container.wait_gone(0):
                return copy
            self._used.append(copy)
        return None

    def _check_served(self, ticket: Future[EphemeralCopy], patience: float | None) -> None:
        with self._changed:
            if ticket in self._waiting:
                raise TimeoutError(f"no copy was free within {patience} seconds")

    def _withdraw(self, ticket: Future[EphemeralCopy]) -> None:
        """Somebody does not wait any more; what was the caller's already has not been seen by anybody."""
        with self._changed:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
            elif ticket.exception() is None:
                self._offer(ticket.result())
        self._call_keepers()

    def give_back(self, copy: EphemeralCopy) -> None:
        """Have a copy removed, and replaced."""
        with self._changed:
            self._used.append(copy)
        self._call_keepers()

    def end(self) -> None:
        """Remove all copies, also those that somebody still has, once they are given back. They are gone on return.

        Raises:
            LxcCopyError: One of them, now or before, could not be removed.
        """
        self._begin_end()
        self._call_keepers()
        with self._changed:
            self._changed.wait_for(lambda: not self._count and not self._keepers)
            if self._errors:
                raise self._errors[0]

    def end_here(self) -> None:
        """Remove the idle copies without another thread, which none can be any more at the end of Python.

        What somebody still has then ends with this process.
        """
        self._begin_end()
        self._call_keepers(here=True)

    def _begin_end(self) -> None:
        with self._changed:
            self._ending = True
            while self._waiting:
                self._waiting.popleft().set_exception(_ended())
            self._used.extend(self._idle)
            self._idle.clear()

    def _call_keepers(self, *, here: bool = False) -> None:
        """See to it that somebody does what there is to do."""
        while True:
            with self._changed:
                task = self._next_task() if self._keepers < self._most_keepers else None
                if task is None:
                    return
                self._keepers += 1
            try:
                if here:
                    self._keep(task)
                else:
                    threading.Thread(target=self._keep, args=(task,), name="lxccopy-pool").start()
            except RuntimeError:  # there can be no more threads
                self._keep(task)

    def _keep(self, task: Callable[[], None] | None) -> None:
        while task is not None:
            task()
            with self._changed:
                task = self._next_task()
                if task is None:
                    self._keepers -= 1
                    self._changed.notify_all()

    def _next_task(self) -> Callable[[], None] | None:
        ahead = not self._failed and not self._ending
        if self._count < self._size and (ahead or self._starting < len(self._waiting)):
            self._count += 1
            self._starting += 1
            return self._start
        if self._used:
            return partial(self._remove, self._used.popleft())
        return None

    def _start(self) -> None:
        try:
            copy = self._make()
            copy.start()
        except BaseException as error:  # noqa: BLE001 - it is the caller's
            self._start_failed(error)
            return
        with self._changed:
            self._starting -= 1
            self._failed = False
            self._offer(copy)

    def _start_failed(self, error: BaseException) -> None:
        """Tell one who waits. No more are started ahead until one succeeds, so a bad base is tried once a caller."""
        with self._changed:
            self._count -= 1
            self._starting -= 1
            self._failed = True
            self._changed.notify_all()
            if self._waiting:
                self._waiting.popleft().set_exception(error)
                return
        notices.warn(f"no copy can be started ahead of need: {error}")

    def _offer(self, copy: EphemeralCopy) -> None:
        if self._waiting:
            self._waiting.popleft().set_result(copy)
        else:
            (self._used if self._ending else self._idle).append(copy)

    def _remove(self, copy: EphemeralCopy) -> None:
        try:
            copy.close()
        except Exception as error:  # noqa: BLE001 - end() raises it
            self._errors.append(error)
        with self._changed:
            self._count -= 1
            self._changed.notify_all()


def _ended() -> RuntimeError:
    return RuntimeError("the pool is shut down")


_stocks: weakref.WeakSet[Stock] = weakref.WeakSet()


def _end_all() -> None:
    for stock in list(_stocks):
        if stock.owner == os.getpid():
            stock.end_here()


atexit.register(_end_all)
