# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pools of copies with running containers: in order, each once, never too many, and nothing left."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import ExitStack, suppress

import pytest
from conftest import ROOT, Left
from live_helpers import await_guards, output, plain

from lxccopy_ffi import ContainerNotFoundError, EphemeralCopy, Pool
from lxccopy_ffi._raw import wait_readable

PREAMBLE = (
    "import os, sys, threading, time; from lxccopy_ffi import Pool; pool = Pool('base', 2, lxcpath=sys.argv[1])\n"
)


def program(lxcpath: str, script: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program that has a pool of two."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", PREAMBLE + script, lxcpath],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def names(lxcpath: str) -> set[str]:
    """The copies that there are now."""
    return {name for name in os.listdir(lxcpath) if name.startswith("base_")}


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that is about to happen in the background."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def no_threads() -> bool:
    """Whether no thread of a pool is there."""
    return not [thread for thread in threading.enumerate() if thread.name.startswith("lxccopy-pool")]


def no_keepers() -> bool:
    """Whether nothing is being started or removed."""
    return not [thread for thread in threading.enumerate() if thread.name == "lxccopy-pool"]


def test_each_copy_is_used_once(lxcpath: str) -> None:
    """Many commands, few copies at a time: each has one of its own, and the results are in order."""
    seen: list[int] = []
    with Pool("base", 3, lxcpath=lxcpath, on_event=lambda *_: seen.append(len(names(lxcpath)))) as pool:
        script = 'test ! -e /root/used && touch /root/used && echo "$1" && hostname'
        commands = [["sh", "-c", script, "sh", str(number)] for number in range(30)]
        results = list(pool.map(commands, capture_output=True, text=True, check=True))
    found = [result.stdout.split() for result in results]
    assert [str(number) for number in range(30)] == [number for number, _ in found]
    assert 30 == len({name for _, name in found})
    assert 3 >= max(seen)
    until(no_threads)


def test_copies_are_there_ahead(lxcpath: str) -> None:
    """Copies are started before anybody asks, handed out in the order in which they were, and replaced."""
    with Pool("base", 2, lxcpath=lxcpath) as pool:
        until(lambda: 2 == len(pool._stock._idle) and no_keepers())
        first, second = [copy.name for copy in pool._stock._idle]
        with pool.copy() as copy:
            assert first == copy.name
            with pool.copy() as other:
                assert second == other.name
                assert "<Pool of 2 copies of 'base'>" == repr(pool)
        until(lambda: 2 == len(pool._stock._idle))
        assert {first, second}.isdisjoint(copy.name for copy in pool._stock._idle)
    assert set() == names(lxcpath)


def test_who_wants_one_more_waits(lxcpath: str) -> None:
    """When all copies are out a caller waits for as long as was said, or until one is back."""
    with Pool("base", 1, lxcpath=lxcpath, max_wait=0.3) as pool:
        with pool.copy(), pytest.raises(TimeoutError, match=r"^no copy was free within 0.3 seconds$"):
            pool.run(["true"])
        assert 0 == pool.run(["true"]).returncode


def test_first_come_first_served(lxcpath: str) -> None:
    """Those who wait get their copies in the order in which they came."""
    order: list[int] = []

    def take(number: int) -> None:
        with pool.copy():
            order.append(number)

    with Pool("base", 1, lxcpath=lxcpath) as pool:
        with pool.copy():
            threads = [threading.Thread(target=take, args=(number,)) for number in range(5)]
            for count, thread in enumerate(threads, 1):
                thread.start()
                until(lambda count=count: count == len(pool._stock._waiting))  # type: ignore[misc]
        for thread in threads:
            thread.join()
    assert [0, 1, 2, 3, 4] == order


def test_interrupted_wait(lxcpath: str) -> None:
    """A signal handler's exception ends a wait, and the copy that it was for goes to the next one."""

    class Interruption(Exception):  # noqa: N818
        pass

    def interrupt(*_: object) -> None:
        raise Interruption

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with Pool("base", 1, lxcpath=lxcpath) as pool:
            with pool.copy():
                signal.setitimer(signal.ITIMER_REAL, 0.1)
                with pytest.raises(Interruption):
                    pool.run(["true"])
            assert 0 == pool.run(["true"]).returncode
    finally:
        signal.signal(signal.SIGALRM, before)


def test_copies_that_die_while_idle(lxcpath: str) -> None:
    """Copies that have died since they were started are not handed out, but replaced."""
    with Pool("base", 2, lxcpath=lxcpath) as pool:
        until(lambda: 2 == len(pool._stock._idle))
        dead = list(pool._stock._idle)
        for copy in dead:
            os.kill(copy.container.init_pid, signal.SIGKILL)
            assert wait_readable(copy.container._monitor, 20)
        with pool.copy() as copy:
            assert copy.name not in {one.name for one in dead}
            assert "1\n" == output(copy, "echo 1")


def test_unusable_base(lxcpath: str) -> None:
    """When the base cannot be copied any more each caller gets the error of one try; once it can, all is well."""
    tries: list[float] = []
    with plain(lxcpath, "source") as source:
        (source / "config").rename(source / "away")
        pool = Pool("source", 3, lxcpath=lxcpath)
        make = pool._stock._make

        def count() -> EphemeralCopy:
            tries.append(time.monotonic())
            return make()

        pool._stock._make = count
        with pool:
            until(no_keepers)
            tries.clear()
            for _ in range(4):
                with pytest.raises(ContainerNotFoundError):
                    pool.run(["true"])
            with pytest.raises(ContainerNotFoundError):
                list(pool.map([["true"]] * 10))
            until(no_keepers)
            assert 4 + 1 <= len(tries) <= 4 + 3
            (source / "away").rename(source / "config")
            assert 0 == pool.run(["true"]).returncode
            until(lambda: 3 == len(pool._stock._idle))


def test_base_that_breaks_under_load(lxcpath: str) -> None:
    """Of many callers at once each gets a result or an error."""
    with plain(lxcpath, "source") as source, Pool("source", 2, lxcpath=lxcpath) as pool:
        futures = [pool.submit(["true"]) for _ in range(20)]
        futures[3].result()
        (source / "config").unlink()
        errors = [future.exception() for future in futures]
        assert {type(None), ContainerNotFoundError} == {type(error) for error in errors}


def test_failed_start_ahead_is_logged(lxcpath: str, caplog: pytest.LogCaptureFixture) -> None:
    """An error that nobody waits for is in the log."""
    with Pool("no-such", 2, lxcpath=lxcpath):
        until(no_keepers)
    assert "no copy can be started ahead of need: container 'no-such' is not defined" in caplog.text


def test_shutdown_with_work_in_flight(lxcpath: str) -> None:
    """What was submitted is finished, also functions that only then ask for a copy; nothing new is taken."""
    pool = Pool("base", 2, lxcpath=lxcpath)
    commands = [pool.submit(["sh", "-c", f"sleep 0.1; exit {number}"]) for number in range(6)]
    functions = [pool.submit(lambda: pool.run(["true"]).returncode) for _ in range(4)]
    pool.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(["true"])
    pool.shutdown()
    pool.shutdown()
    assert [0, 1, 2, 3, 4, 5] == [future.result().returncode for future in commands]
    assert [0] * 4 == [future.result() for future in functions]
    with pytest.raises(RuntimeError, match=r"^the pool is shut down$"):
        pool.run(["true"])
    until(no_threads)


def test_shutdown_that_cancels(lxcpath: str) -> None:
    """What has not begun is cancelled where that is asked for; what has is finished."""
    begun = threading.Event()

    def work() -> int:
        with pool.copy() as copy:
            begun.set()
            return copy.run(["sleep", "0.3"]).returncode

    with Pool("base", 1, lxcpath=lxcpath) as pool:
        first, second = pool.submit(work), pool.submit(["true"])
        begun.wait()
        pool.shutdown(cancel_futures=True)
        assert set() == names(lxcpath)
    assert 0 == first.result()
    with pytest.raises(CancelledError):
        second.result()


def test_shutdown_with_a_copy_out(lxcpath: str) -> None:
    """A copy that somebody has is waited for; who waits for one is told."""
    errors: list[Exception] = []

    def wait_for_one() -> None:
        try:
            pool.run(["true"])
        except RuntimeError as error:
            errors.append(error)

    pool = Pool("base", 1, lxcpath=lxcpath)
    with pool.copy() as copy:
        waiter = threading.Thread(target=wait_for_one)
        waiter.start()
        until(lambda: bool(pool._stock._waiting))
        pool.shutdown(wait=False)
        waiter.join()
        assert ["the pool is shut down"] == [str(error) for error in errors]
        assert "1\n" == output(copy, "echo 1")
    pool.shutdown()
    assert set() == names(lxcpath)


def test_copy_that_cannot_be_removed(lxcpath: str) -> None:
    """That a copy could not be removed is said at the end, and all others are."""

    def refuse(event: str, _: str) -> None:
        if event == "removed" and not refused:
            refused.append(event)
            raise ValueError("removed")

    refused: list[str] = []
    with pytest.raises(ValueError, match="removed"), Pool("base", 2, lxcpath=lxcpath, on_event=refuse) as pool:
        pool.run(["true"])
    assert set() == names(lxcpath)


def test_failing_command_ends_map(lxcpath: str) -> None:
    """The first error is raised, and what has not begun by then does not."""
    with Pool("base", 2, lxcpath=lxcpath) as pool:
        commands = iter([["true"]] * 5 + [["false"]] + [["true"]] * 93)
        with pytest.raises(subprocess.CalledProcessError):
            pool.map(commands, check=True)
        assert 80 < len(list(commands))


def test_map_with_fewer_workers(lxcpath: str) -> None:
    """No more commands than asked for run at a time."""
    with Pool("base", 3, lxcpath=lxcpath) as pool:
        list(pool.map([["true"]] * 5, max_workers=1))
        assert 1 == len(pool._runner._threads)


def test_executor(lxcpath: str) -> None:
    """Functions are called with just what they are given, also by what drives executors, such as asyncio."""

    def work(text: str, times: int = 1) -> str:
        return str(pool.run(["echo", text * times], capture_output=True, text=True).stdout)

    async def drive() -> list[str]:
        loop = asyncio.get_running_loop()
        return list(await asyncio.gather(*(loop.run_in_executor(pool, work, text) for text in "abc")))

    with Pool("base", 2, lxcpath=lxcpath) as pool:
        assert "aa\n" == pool.submit(work, "a", times=2).result()
        assert ["a\n", "bb\n"] == list(pool.map(work, "ab", [1, 2]))
        assert ["a\n", "b\n", "c\n"] == asyncio.run(drive())


def test_forked_child(lxcpath: str) -> None:
    """A process that is forked from ours can neither use our pool nor end it, nor what is handed out."""
    with Pool("base", 2, lxcpath=lxcpath) as pool:
        until(lambda: 2 == len(pool._stock._idle))
        there = names(lxcpath)
        with ExitStack() as stack:
            copy = stack.enter_context(pool.copy())
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    with pytest.raises(RuntimeError, match="is that of process"):
                        pool.submit(["true"])
                    with pytest.raises(RuntimeError, match="is that of process"):
                        pool.run(["true"])
                    stack.close()
                    pool.shutdown()
                    until(no_keepers)
                    status = 0
                finally:
                    os._exit(status)
            assert 0 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            assert there == names(lxcpath)
            assert "1\n" == output(copy, "echo 1")


def test_forked_child_that_ends_as_usual(lxcpath: str) -> None:
    """The end of Python in a forked process does nothing to the pool of the process that made it."""
    script = (
        "if (pid := os.fork()) == 0: sys.exit(3)\n"
        "assert os.waitpid(pid, 0)[1] == 3 << 8\n"
        "print(pool.run(['echo', '1'], capture_output=True).stdout)\n"
        "pool.shutdown()\n"
    )
    result = program(lxcpath, script)
    assert (0, "b'1\\n'\n", "") == (result.returncode, result.stdout, result.stderr)


def test_pool_that_is_dropped(lxcpath: str) -> None:
    """The copies of a pool that nobody has any more end."""
    pool = Pool("base", 2, lxcpath=lxcpath)
    until(lambda pool=pool: 2 == len(pool._stock._idle) and no_keepers())  # type: ignore[misc]
    del pool
    until(lambda: not names(lxcpath))
    await_guards(lxcpath)


UNCLOSED = {
    "at once": "",
    "idle": "time.sleep(0.5)",
    "in a thread": "threading.Thread(target=pool.run, args=(['sleep', '0.5'],)).start()",
    "in a daemon": "threading.Thread(target=pool.run, args=(['sleep', '99'],), daemon=True).start(); time.sleep(0.5)",
    "submitted": "done = [pool.submit(['sh', '-c', 'sleep 0.1; echo 1']) for _ in range(5)]",
    "functions": "done = [pool.submit(lambda: pool.run(['echo', '1'])) for _ in range(5)]",
    "an error": "time.sleep(0.2); raise KeyboardInterrupt",
    "exit": "done = pool.submit(['echo', '1']); sys.exit(5)",
    "killed": "while len(pool._stock._idle) < 2: time.sleep(0.01)\nos.kill(os.getpid(), 9)",
}


@pytest.mark.parametrize("way", UNCLOSED)
def test_unclosed_pool(lxcpath: str, way: str) -> None:
    """A program that ends without closing its pool ends, what it submitted is done, and nothing is left."""
    result = program(lxcpath, UNCLOSED[way])
    expected = {"an error": -signal.SIGINT, "exit": 5, "killed": -signal.SIGKILL}.get(way, 0)
    if way not in {"in a daemon", "killed"}:
        assert set() == names(lxcpath)
    assert expected == result.returncode
    assert {"submitted": 5, "functions": 5, "exit": 1}.get(way, 0) == result.stdout.count("1")
    assert "KeyboardInterrupt" in result.stderr if way == "an error" else not result.stderr
    await_guards(lxcpath)


def test_end_of_python(lxcpath: str) -> None:
    """An unclosed pool is closed like any other one, and says so, before Python ends."""
    script = (
        "pool = Pool('base', 2, lxcpath=sys.argv[1], on_event=lambda event, _: os.write(1, f'{event} '.encode()))\n"
        "while len(pool._stock._idle) < 2: time.sleep(0.01)\n"
    )
    assert ["created", "created", "removed", "removed", "started", "started"] == sorted(
        program(lxcpath, script).stdout.split()
    )


def test_nothing_is_left_open(lxcpath: str) -> None:
    """After many commands there are as many descriptors and threads as before."""
    with Pool("base", 4, lxcpath=lxcpath) as pool:
        pool.run(["true"])
    until(no_threads)
    before = len(os.listdir("/proc/self/fd"))
    with Pool("base", 4, lxcpath=lxcpath) as pool:
        list(pool.map([["true"]] * 50))
    until(no_threads)
    del pool
    assert before == len(os.listdir("/proc/self/fd"))


def test_error_in_the_with_block(lxcpath: str) -> None:
    """An error in the block that has a copy, or a pool, leaves nothing either."""
    left = Left(lxcpath)
    with suppress(KeyError), ExitStack() as stack:
        pool = stack.enter_context(Pool("base", 2, lxcpath=lxcpath))
        assert stack.enter_context(pool.copy()).container.running
        raise KeyError
    left.check()
