# SPDX-License-Identifier: LGPL-2.1-or-later
"""How far a full copy is, and ending one: liblxc lets rsync do the work, and only waits for it."""

from __future__ import annotations

import os
import threading

from .processes import descendants, kill

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import TypeVar

    T = TypeVar("T")

_INTERVAL = 0.2


def ignore(done: int, total: int) -> None:
    """Report nothing; watch() then does not look either."""


def watch(copy: Callable[[], T], directories: Iterable[str], report: Callable[[int, int], None]) -> T:
    """Call a function that copies files with rsync, and tell how far it is meanwhile.

    It runs in a thread, so that signal handlers can run here. If one raises an exception, rsync is ended, and the
    function with it, before the exception goes on.

    Args:
        copy: The function.
        directories: What is copied.
        report: Called with the bytes that are done, and with all.

    Returns:
        What the function returned.
    """
    results: list[T] = []
    errors: list[BaseException] = []
    begun, cancelled, done = threading.Event(), threading.Event(), threading.Event()
    gate = threading.Lock()

    def work() -> None:
        with gate:
            if cancelled.is_set():
                return
            begun.set()
        try:
            results.append(copy())
        except BaseException as error:  # noqa: BLE001 - it is raised where the function was called
            errors.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=work, name="lxccopy-copy")
    try:
        thread.start()
        _report(thread, done, directories, report)
    except BaseException:
        # Not by asking the thread: an interrupted start() leaves one that is about to begin, and an interrupted join()
        # takes it for ended.
        with gate:
            cancelled.set()
        while begun.is_set() and not done.wait(_INTERVAL / 10):
            for pid in _rsyncs(thread):
                kill(pid)
        for result in results:  # it had just been done
            getattr(result, "close", lambda: None)()
        raise
    if errors:
        raise errors[0]
    return results[0]


def _report(
    thread: threading.Thread, done: threading.Event, directories: Iterable[str], report: Callable[[int, int], None]
) -> None:
    if report is ignore:
        while not done.wait(_INTERVAL):  # not for ever: a signal may have been delivered to the other thread
            pass
        return
    total = written = 0
    for size in _sizes(directories):
        total += size
        if done.is_set():
            return
    while not done.wait(_INTERVAL):
        written = max([written, *map(_written, _rsyncs(thread))])
        report(min(written, total) if total else written, total)


def _sizes(directories: Iterable[str]) -> Iterator[int]:
    """The size of each file below some directories."""
    pending = list(directories)
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        yield entry.stat(follow_symlinks=False).st_size
        except OSError:
            pass  # it has gone meanwhile


def _rsyncs(thread: threading.Thread) -> list[int]:
    """The rsync processes that a thread of ours has started, directly or not."""
    return [pid for pid in descendants(os.getpid(), thread.native_id) if _command_name(pid) == b"rsync\n"]


def _command_name(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return file.read()
    except OSError:
        return b""  # it has ended


def _written(pid: int) -> int:
    """How many bytes a process has written, to files and pipes."""
    try:
        with open(f"/proc/{pid}/io", encoding="ascii") as file:
            counts = dict(line.split(": ") for line in file)
        return int(counts["wchar"])
    except (OSError, KeyError):
        return 0
