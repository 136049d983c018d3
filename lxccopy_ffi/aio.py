# SPDX-License-Identifier: LGPL-2.1-or-later
"""Throwaway copies for asyncio: what blocks does so in a thread, and a task that is cancelled leaves nothing.

Each call has a thread of its own. Those of asyncio.to_thread() are few, and commands that run long could take them all:
then there would be none to kill them when their tasks are cancelled.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, wait
from contextlib import suppress

from .ephemeral import EphemeralCopy
from .request import KEYWORDS, RunRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from subprocess import CompletedProcess
    from types import TracebackType
    from typing import Any, TypeVar

    from .container import Container

    T = TypeVar("T")


class AsyncEphemeralCopy:
    """An EphemeralCopy whose methods are awaited, all in one event loop.

        async with AsyncEphemeralCopy("base", tmpfs=True) as copy:
            await copy.run(["touch", "/root/x"], check=True)

    When a task is cancelled while it awaits one of them, the copy is killed with all that runs in it, and gone when the
    cancellation arrives. A start cannot be called back: it is awaited first.

    Args:
        source: The name of the base.
        name: The name for the copy.
        copy_options: The keywords of EphemeralCopy.

    Raises:
        OptionError: An argument is not allowed, or contradicts another.
    """

    def __init__(self, source: str, name: str | None = None, **copy_options: Any) -> None:  # noqa: ANN401
        self._copy = EphemeralCopy(source, name, **copy_options)
        self._calls: set[Future[Any]] = set()
        self._closing = False
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return repr(self._copy)

    @property
    def name(self) -> str:
        """The copy's name; empty before it is made."""
        return self._copy.name

    @property
    def container(self) -> Container:
        """The copy's container, once it is made.

        Raises:
            ValueError: It is not made yet, or closed.
        """
        return self._copy.container

    async def start(self) -> None:
        """Start the copy, as EphemeralCopy.start() does.

        Raises:
            LxcCopyError: As EphemeralCopy.start() does.
        """
        self._closing = False
        try:
            await self._finish(self._copy.start)
        except asyncio.CancelledError:
            await self.close(kill=True)
            raise

    async def run(self, argv: Sequence[str], **keywords: Any) -> CompletedProcess[Any]:  # noqa: ANN401
        """Run a command in the copy. Several may run at a time.

        Args:
            argv: The command and its arguments.
            keywords: Those of EphemeralCopy.run().

        Returns:
            The command's status and output.

        Raises:
            LxcCopyError: As EphemeralCopy.run() does, and its other errors.
        """
        if self._closing:
            raise ValueError(f"{self!r} is closed, or about to be")
        call = self._begin(self._copy.run, argv, **keywords)
        try:
            await asyncio.wait([call])
        except asyncio.CancelledError:
            await self.close(kill=True)
            raise
        return call.result()

    async def close(self, *, kill: bool = False) -> None:
        """Remove the copy, and kill what still runs in it. It is gone on return. Idempotent.

        Args:
            kill: Do so at once, whatever shutdown_timeout says; also done where commands are awaited.

        Raises:
            LiblxcError: It could not be stopped or removed.
        """
        self._closing = True
        await self._finish(self._end, frozenset(self._calls), kill=kill)

    async def __aenter__(self) -> AsyncEphemeralCopy:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _end(self, calls: frozenset[Future[Any]], *, kill: bool) -> None:
        with self._lock:
            if not all(call.done() for call in calls):
                with suppress(ValueError):  # it is closed already
                    self._copy.container.stop()
                wait(calls)  # nobody may use the container while its handle is closed
            self._copy.close(kill=kill)

    def _begin(self, function: Callable[..., T], *args: Any, **keywords: Any) -> asyncio.Future[T]:  # noqa: ANN401
        call: Future[T] = Future()
        call.set_running_or_notify_cancel()
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

        def work() -> None:
            try:
                result = function(*args, **keywords)
            except BaseException as error:  # noqa: BLE001 - it is the task's
                call.set_exception(error)
            else:
                call.set_result(result)

        threading.Thread(target=work, name="lxccopy-aio").start()
        return asyncio.wrap_future(call)

    async def _finish(self, function: Callable[..., T], *args: Any, **keywords: Any) -> T:  # noqa: ANN401
        """Call a function, and wait for its end also when cancelled meanwhile."""
        call = self._begin(function, *args, **keywords)
        cancelled = None
        while not call.done():
            try:
                await asyncio.wait([call])
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is None:
            return call.result()
        call.exception()  # so that nobody says that it was not looked at
        raise cancelled


async def arun(source: str, argv: Sequence[str], **options: Any) -> CompletedProcess[Any]:  # noqa: ANN401 - checked below
    """Run a command in a fresh copy of a container, and remove the copy: run() for asyncio.

    When the task is cancelled the command is killed, and the copy is gone when the cancellation arrives.

    Args:
        source: The name of the base.
        argv: The command and its arguments.
        options: Those of run(): the keywords of EphemeralCopy.run(), and those of EphemeralCopy.

    Returns:
        The command's status and output.

    Raises:
        LxcCopyError: As run() does, and its other errors.
    """
    keywords: dict[str, Any] = {name: options.pop(name) for name in KEYWORDS & options.keys()}
    RunRequest(argv, **keywords)  # what is not allowed is refused before anything is made
    async with AsyncEphemeralCopy(source, **options) as copy:
        return await copy.run(argv, **keywords)
