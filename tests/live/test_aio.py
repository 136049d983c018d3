# SPDX-License-Identifier: LGPL-2.1-or-later
"""Copies for asyncio: a task that is cancelled leaves nothing, wherever it is."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from conftest import ROOT
from live_helpers import await_guards

from lxccopy_ffi import AsyncEphemeralCopy, ContainerNotFoundError, OptionError, arun

LONG = ["sleep", "1000"]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that is about to happen in another task."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def cancelled(task: asyncio.Task[Any]) -> float:
    """Cancel a task, wait for its end, and return how long that took."""
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return time.monotonic() - began


def run(work: Awaitable[Any]) -> Any:
    """Run in an event loop that says what nobody looked at; fail if it says anything."""

    async def watched() -> Any:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
        return await work

    said: list[Any] = []
    result = asyncio.run(watched())
    assert [] == said
    return result


def threads() -> list[str]:
    """The threads of calls that have not returned."""
    return [thread.name for thread in threading.enumerate() if thread.name == "lxccopy-aio" and thread.is_alive()]


def test_arun(lxcpath: str) -> None:
    """It is run(), awaited."""
    result = run(arun("base", ["cat"], input="1", capture_output=True, text=True, tmpfs=True, lxcpath=lxcpath))
    assert ("1", 0) == (result.stdout, result.returncode)


def test_errors(lxcpath: str) -> None:
    """The errors are those of run(); what is not allowed is refused before anything is made."""
    with pytest.raises(ContainerNotFoundError):
        run(arun("other", ["true"], lxcpath=lxcpath))
    with pytest.raises(subprocess.CalledProcessError):
        run(arun("base", ["false"], check=True, lxcpath=lxcpath))
    with pytest.raises(subprocess.TimeoutExpired):
        run(arun("base", LONG, timeout=0.1, lxcpath=lxcpath))
    events: list[str] = []
    with pytest.raises(OptionError):
        run(arun("base", "true", lxcpath=lxcpath, on_event=lambda *event: events.extend(event)))
    assert [] == events


def test_commands_side_by_side(lxcpath: str) -> None:
    """Several commands run in one copy at a time."""

    async def work() -> list[int]:
        async with AsyncEphemeralCopy("base", tmpfs=True, lxcpath=lxcpath) as copy:
            assert copy.container.running
            assert copy.name in repr(copy)
            wait = copy.run(["sh", "-c", "until test -e /go; do sleep 0.01; done; exit 3"])
            go = copy.run(["touch", "/go"])
            results = await asyncio.gather(wait, go)
        await copy.close()
        with pytest.raises(ValueError, match="is closed, or about to be"):
            await copy.run(["true"])
        return [result.returncode for result in results]

    assert [3, 0] == run(work())


def test_cancelled_command(lxcpath: str) -> None:
    """A task that is cancelled while a command runs kills it, and the copy is gone."""

    async def work() -> float:
        task = asyncio.create_task(arun("base", LONG, tmpfs=True, lxcpath=lxcpath))
        await until(lambda: len(os.listdir(lxcpath)) == 2)
        await asyncio.sleep(0.3)
        took = await cancelled(task)
        assert ["base"] == os.listdir(lxcpath)
        assert [] == threads()
        return took

    assert 5 > run(work())


@pytest.mark.parametrize("delay", [0, 0.005, 0.01, 0.02, 0.03, 0.05])
def test_cancelled_at_any_time(lxcpath: str, delay: float) -> None:
    """Whenever a task is cancelled, be it while its copy starts, nothing is left."""

    async def work() -> None:
        task = asyncio.create_task(arun("base", LONG, tmpfs=True, lxcpath=lxcpath))
        await asyncio.sleep(delay)
        await cancelled(task)
        assert ["base"] == os.listdir(lxcpath)

    run(work())


def test_cancelled_twice(lxcpath: str) -> None:
    """A second cancellation does not end the removal."""

    async def work() -> None:
        task = asyncio.create_task(arun("base", LONG, tmpfs=True, lxcpath=lxcpath))
        await until(lambda: len(os.listdir(lxcpath)) == 2)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        await cancelled(task)
        assert ["base"] == os.listdir(lxcpath)

    run(work())


def test_many_cancelled(lxcpath: str) -> None:
    """More tasks at once than asyncio has threads are cancelled without delay."""

    async def work() -> None:
        count = 2 * min(32, (os.cpu_count() or 1) + 4)
        tasks = [asyncio.create_task(arun("base", LONG, tmpfs=True, lxcpath=lxcpath)) for _ in range(count)]
        await until(lambda: len(os.listdir(lxcpath)) > count)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert {asyncio.CancelledError} == {type(result) for result in results}
        assert ["base"] == os.listdir(lxcpath)

    run(work())


def test_time_limit(lxcpath: str) -> None:
    """Asyncio's own time limits work."""
    with pytest.raises(asyncio.TimeoutError):
        run(asyncio.wait_for(arun("base", LONG, tmpfs=True, lxcpath=lxcpath), 0.3))
    assert ["base"] == os.listdir(lxcpath)


def test_other_commands_of_a_cancelled_one(lxcpath: str) -> None:
    """One cancelled task ends the copy for all: the others' commands are killed, too."""

    async def work() -> None:
        async with AsyncEphemeralCopy("base", tmpfs=True, lxcpath=lxcpath) as copy:
            first, second = (asyncio.create_task(copy.run(LONG)) for _ in range(2))
            await asyncio.sleep(0.3)
            await cancelled(first)
            assert -signal.SIGKILL == (await second).returncode
            assert ["base"] == os.listdir(lxcpath)

    run(work())


def test_two_loops(lxcpath: str) -> None:
    """Loops in two threads do not disturb each other."""
    results: list[int] = []

    async def work(number: int) -> None:
        tasks = [arun("base", ["sh", "-c", f"exit {number}"], tmpfs=True, lxcpath=lxcpath) for _ in range(4)]
        results.extend(result.returncode for result in await asyncio.gather(*tasks))

    loops = [threading.Thread(target=lambda number=number: asyncio.run(work(number))) for number in (1, 2)]
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join()
    assert [1] * 4 + [2] * 4 == sorted(results)


def test_interrupted_program(lxcpath: str) -> None:
    """Ctrl-C ends a program that awaits a command, and nothing is left."""
    script = (
        "import asyncio, sys; from lxccopy_ffi import arun\n"
        "asyncio.run(arun('base', ['sh', '-c', 'echo ready; sleep 1000'], tmpfs=True, lxcpath=sys.argv[1]))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, lxcpath],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert b"ready\n" == process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert -signal.SIGINT == process.wait(20)
    assert ["base"] == os.listdir(lxcpath)
    await_guards(lxcpath)
