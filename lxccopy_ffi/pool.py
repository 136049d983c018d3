# SPDX-License-Identifier: LGPL-2.1-or-later
"""Copies that run already when they are needed, and an executor on them."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Executor, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from typing import overload

from .command import check_argv
from .ephemeral import EphemeralCopy
from .errors import OptionError
from .names import check_seconds
from .stock import Stock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from concurrent.futures import Future
    from subprocess import CompletedProcess
    from typing import Any, TypeVar

    from typing_extensions import ParamSpec

    P = ParamSpec("P")
    T = TypeVar("T")


class Pool(Executor):
    """Copies of a base that are started ahead, handed out in order, each once, and replaced in the background.

        with Pool("base", size=4) as pool:
            pool.run(["make", "check"])
            pool.map([["test", "-e", path] for path in paths])

    It is an executor of concurrent.futures, too, for whatever takes one: see submit(). It works in the process that has
    made it; one that is forked from that can neither use nor end it.

    Args:
        source: The name of the base.
        size: How many copies there are at a time, those in use included. Who wants one more waits.
        max_wait: How long to wait for a copy, in seconds, before a TimeoutError; None for ever.
        tmpfs: Keep what the copies write in memory.
        copy_options: The other keywords of EphemeralCopy, but for name and keep_data.

    Raises:
        OptionError: An argument is not allowed. That a copy cannot be started is told to those who want one.
    """

    def __init__(
        self,
        source: str,
        size: int = 4,
        *,
        max_wait: float | None = None,
        tmpfs: bool = True,
        **copy_options: Any,  # noqa: ANN401 - those of EphemeralCopy, checked there
    ) -> None:
        unwanted = {"name", "keep_data"} & set(copy_options)
        if unwanted:
            raise OptionError(f"the copies of a pool cannot have {unwanted.pop()}")
        make = partial(EphemeralCopy, source, tmpfs=tmpfs, **copy_options)
        make()
        self.source = source
        self.size = _check_count("size", size)
        self._max_wait = check_seconds("max_wait", max_wait)
        self._stock = Stock(make, size)
        self._runner = ThreadPoolExecutor(size, "lxccopy-pool-run")
        self._max_workers = size  # where Dask looks for how much to submit at a time
        self._lock = threading.Lock()
        self._ender: threading.Thread | None = None
        self._errors: list[Exception] = []
        self._stock.fill()

    def __repr__(self) -> str:
        return f"<Pool of {len(self._stock)} copies of {self.source!r}>"

    @contextmanager
    def copy(self) -> Iterator[EphemeralCopy]:
        """Hand out a copy that runs, for a ``with`` statement. It is removed after that, in the background.

        Raises:
            TimeoutError: None was free in time.
            LxcCopyError: It could not be started.
            RuntimeError: The pool is shut down, or another process's.
        """
        self._check_owner()
        copy = self._stock.take(self._max_wait)
        try:
            yield copy
        finally:
            if self._is_ours:
                self._stock.give_back(copy)

    def run(self, argv: Sequence[str], **keywords: Any) -> CompletedProcess[Any]:  # noqa: ANN401 - checked there
        """Run a command in a copy of its own, and wait for it.

        Args:
            argv: The command and its arguments.
            keywords: Those of EphemeralCopy.run(). A timeout begins with the command.

        Returns:
            The command's status and output.

        Raises:
            LxcCopyError: As copy() and EphemeralCopy.run() do.
            TimeoutError: No copy was free in time.
            subprocess.TimeoutExpired: The command took too long.
            subprocess.CalledProcessError: It failed, and check is set.
        """
        check_argv(argv)
        with self.copy() as copy:
            return copy.run(argv, **keywords)

    @overload
    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]: ...
    @overload
    def submit(self, fn: Sequence[str], /, **kwargs: Any) -> Future[CompletedProcess[Any]]: ...  # noqa: ANN401
    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run something in the background, as many at a time as there are copies; the rest waits in order.

        A command, as a list, runs as with run(). A function is called here, in a thread, with just what it is given:
        those who drive an executor, such as Dask, wrap what they run in functions of their own. It gets a copy where it
        asks for one, with run() or copy().

        Args:
            fn: The command or the function.
            args: The function's arguments.
            kwargs: The function's keywords; with a command, those of run().

        Returns:
            A future of the command's CompletedProcess, or of what the function returns.

        Raises:
            RuntimeError: The pool is shut down, or another process's.
        """
        self._check_owner()
        if callable(fn):
            return self._runner.submit(fn, *args, **kwargs)
        if args:
            raise OptionError("a command is one list, of all its arguments")
        return self._runner.submit(self.run, check_argv(fn), **kwargs)

    @overload  # type: ignore[override] # more than an executor's
    def map(self, fn: Callable[..., T], /, *iterables: Iterable[Any], **keywords: Any) -> Iterator[T]: ...  # noqa: ANN401
    @overload
    def map(
        self,
        fn: Iterable[Sequence[str]],
        /,
        *,
        max_workers: int | None = None,
        **keywords: Any,  # noqa: ANN401
    ) -> Iterator[CompletedProcess[Any]]: ...
    def map(
        self,
        fn: Any,
        /,
        *iterables: Iterable[Any],
        max_workers: int | None = None,
        **keywords: Any,
    ) -> Iterator[Any]:
        """Run many commands, each in a copy of its own, and return an iterator of their results, in order.

        It waits for all of them. The first error ends it, and what has not begun then does not. With a function in
        place of the commands it is Executor.map().

        Args:
            fn: The commands, or a function.
            iterables: The function's arguments.
            max_workers: How many commands at a time; as many as there are copies where None.
            keywords: Those of run(), or of Executor.map().

        Raises:
            LxcCopyError: As run() does, and its other errors.
        """
        if callable(fn):
            return super().map(fn, *iterables, **keywords)
        if iterables:
            raise OptionError("commands are given as one list of lists")
        workers = self.size if max_workers is None else min(self.size, _check_count("max_workers", max_workers))
        return iter(_Lanes(partial(self.run, **keywords), fn).run(self.submit, workers))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - Executor's
        """End the pool: nothing more can be submitted, what was is finished, and then the copies are removed.

        Who waits for a copy then, or has one, but was not submitted, gets a RuntimeError, or is waited for. Idempotent.
        At the end of Python it is called by itself; whatever happens to this process, the copies end with it.

        Args:
            wait: Return when all of that is done.
            cancel_futures: Cancel what was submitted and has not begun.

        Raises:
            LxcCopyError: A copy could not be removed, now or before; only said where wait is set.
        """
        if not self._is_ours:
            return
        self._runner.shutdown(wait=False, cancel_futures=cancel_futures)
        with self._lock:
            if self._ender is None:
                self._ender = threading.Thread(target=self._end, name="lxccopy-pool-end")
                try:
                    self._ender.start()
                except RuntimeError:  # there can be no more threads
                    self._ender = threading.current_thread()
                    self._end()
        if wait and self._ender is not threading.current_thread():
            self._ender.join()
        if wait and self._errors:
            raise self._errors[0]

    def _end(self) -> None:
        self._runner.shutdown()
        try:
            self._stock.end()
        except Exception as error:  # noqa: BLE001 - shutdown() raises it
            self._errors.append(error)

    @property
    def _is_ours(self) -> bool:
        return self._stock.owner == os.getpid()

    def _check_owner(self) -> None:
        if not self._is_ours:
            raise RuntimeError(f"the pool is that of process {self._stock.owner}; make another one here")


class _Lanes:
    """Many commands, of which some run side by side: each lane takes the next one when it is done with one."""

    def __init__(self, run: Callable[[Sequence[str]], CompletedProcess[Any]], argvs: Iterable[Sequence[str]]) -> None:
        self._run = run
        self._left = enumerate(argvs)
        self._lock = threading.Lock()
        self._results: dict[int, CompletedProcess[Any]] = {}
        self._stopped = False

    def run(self, submit: Callable[..., Future[None]], count: int) -> list[CompletedProcess[Any]]:
        lanes = [submit(self._lane) for _ in range(count)]
        try:
            wait(lanes)
        finally:
            self._stopped = True
        for lane in lanes:
            lane.result()
        return [self._results[index] for index in sorted(self._results)]

    def _lane(self) -> None:
        try:
            while True:
                with self._lock:
                    index, argv = next(self._left, (-1, []))
                if self._stopped or index < 0:
                    return
                self._results[index] = self._run(argv)
        except BaseException:
            self._stopped = True
            raise


def _check_count(name: str, value: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise OptionError(f"{name} must be a number of at least 1, not {value!r}")
    return value
