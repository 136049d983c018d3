# SPDX-License-Identifier: LGPL-2.1-or-later
"""Waiting for descriptors, and for processes of ours."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from lxccopy_ffi import _raw
from lxccopy_ffi._raw import milliseconds, wait_any, wait_readable
from lxccopy_ffi.children import Child

# The longest time that poll(2) takes, in milliseconds: a C int.
LONGEST = (1 << 31) - 1


@pytest.fixture
def pipes() -> Iterator[list[tuple[int, int]]]:
    """Two pipes with nothing in them."""
    made = [os.pipe() for _ in range(2)]
    yield made
    for ends in made:
        for fd in ends:
            os.close(fd)


@pytest.mark.parametrize(
    ("timeout", "expected"), [(None, None), (0, 0), (0.5, 500), (5, 5000), (-1, 0), (float("-inf"), 0)]
)
def test_milliseconds(timeout: float | None, expected: float | None) -> None:
    """A time in seconds is one in milliseconds, and none that is over is less than nothing."""
    assert expected == milliseconds(timeout)


@pytest.mark.parametrize("timeout", [2147483.647, 2147483.648, 1e9, 1e300, float("inf"), 1 << 64])
def test_milliseconds_are_cut_off(timeout: float) -> None:
    """No time is longer than what poll() can wait."""
    cut = milliseconds(timeout)
    assert cut is not None
    assert 1_000_000_000 < cut <= LONGEST


def test_nothing_to_read(pipes: list[tuple[int, int]]) -> None:
    """Where nothing can be read the answer is empty, after the time and no earlier."""
    before = time.monotonic()
    assert set() == wait_any([ours for ours, _ in pipes], 0.02)
    assert 0.02 <= time.monotonic() - before
    assert not wait_readable(pipes[0][0], 0)
    assert not wait_readable(pipes[0][0], -1)


@pytest.mark.parametrize("timeout", [0, 1, 1e9, float("inf"), None])
def test_something_to_read(pipes: list[tuple[int, int]], timeout: float | None) -> None:
    """Those descriptors are named that can be read, also for an end of file, however long one would wait."""
    os.write(pipes[0][1], b"x")
    fds = [ours for ours, _ in pipes]
    assert {fds[0]} == wait_any(fds, timeout)
    os.write(pipes[1][1], b"x")
    assert set(fds) == wait_any(iter(fds), timeout)
    assert wait_readable(fds[1], timeout)


@pytest.mark.parametrize("timeout", [1e9, None])
def test_long_wait_is_interrupted(pipes: list[tuple[int, int]], timeout: float | None) -> None:
    """A wait of 30 years ends when there is something to read."""
    writer = threading.Timer(0.02, os.write, (pipes[1][1], b"x"))
    writer.start()
    try:
        assert {pipes[1][0]} == wait_any([ours for ours, _ in pipes], timeout)
    finally:
        writer.join()


@pytest.mark.parametrize("written", [False, True])
def test_long_wait_is_made_of_shorter_ones(
    pipes: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    """A wait that is too long for poll() goes on after it, until its own time is up or there is something to read."""
    monkeypatch.setattr(_raw, "_LONGEST_POLL", 0.01)
    writer = threading.Timer(0.025, os.write, (pipes[0][1], b"x"))
    if written:
        writer.start()
    before = time.monotonic()
    try:
        assert written == wait_readable(pipes[0][0], 60 if written else 0.035)
    finally:
        writer.cancel()
    assert (0.02 if written else 0.035) <= time.monotonic() - before


def test_signal_handlers_run(pipes: list[tuple[int, int]]) -> None:
    """A signal handler runs while we wait for ever, and what it raises ends that."""

    def interrupt(*_: object) -> None:
        raise InterruptedError

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    try:
        with pytest.raises(InterruptedError):
            wait_any([pipes[0][0]], 1e9)
    finally:
        signal.signal(signal.SIGALRM, before)


# Processes


def _child(code: str) -> Child:
    """A process of ours that runs some Python."""
    child = Child()
    child.cell[0] = os.posix_spawn(sys.executable, [sys.executable, "-c", code], os.environ)
    child.open()
    return child


def test_child_that_ends() -> None:
    """A child is waited for once, and remembers how it ended; its descriptor is closed when nobody has it any more."""
    child = _child("raise SystemExit(7)")
    pidfd = child.pidfd
    assert [7, 7] == [os.waitstatus_to_exitcode(child.wait() or 0) for _ in range(2)]
    child.send_signal(9)
    assert os.path.exists(f"/proc/self/fd/{pidfd}")
    del child
    assert not os.path.exists(f"/proc/self/fd/{pidfd}")


def test_child_that_runs() -> None:
    """A child that runs has no status, until it is killed."""
    child = _child("import signal; signal.pause()")
    try:
        assert (None, None) == (child.wait(0), child.wait(0.01))
    finally:
        child.kill()
    assert 9 == child.status


def test_child_of_somebody_else() -> None:
    """A child that other code has waited for counts as failed."""
    child = _child("")
    os.waitpid(child.pid, 0)
    child.send_signal(9)
    assert 255 == os.waitstatus_to_exitcode(child.wait() or 0)


def test_child_that_never_was() -> None:
    """Where there is no process yet, nothing is waited for or killed, least of all our own group."""
    child = Child()
    child.kill()
    assert (None, 0, None) == (child.wait(), child.pid, child.status)
