# SPDX-License-Identifier: LGPL-2.1-or-later
"""Many at once: one winner for one name, all for different ones, and a base that knows its copies at every moment."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import ROOT, Left
from live_helpers import running

from lxccopy_ffi.locking import locked

# Starts copies, each in a thread of its own, when it is told to, and removes them when its input ends.
CONTENDER = """
import sys, threading
from lxccopy_ffi import EphemeralCopy, LxcCopyError

def start(name):
    copy = EphemeralCopy("base", name, lxcpath=sys.argv[1], tmpfs=True)
    barrier.wait()
    try:
        copy.start()
    except LxcCopyError as error:
        told.append(f"{type(error).__name__} {error}")
    else:
        told.append(f"started {name}")
        won.append(copy)

names, told, won = sys.argv[2:], [], []
barrier = threading.Barrier(len(names) + 1)
threads = [threading.Thread(target=start, args=[name]) for name in names]
for thread in threads:
    thread.start()
print("ready", flush=True)
sys.stdin.readline()
barrier.wait()
for thread in threads:
    thread.join()
print("\\n".join(told), flush=True)
sys.stdin.read()
for copy in won:
    copy.close()
"""


@contextmanager
def contenders(lxcpath: str, groups: list[list[str]]) -> Iterator[list[subprocess.Popen[str]]]:
    """A process for each group of names, which is ready to start."""
    command = [sys.executable, "-c", CONTENDER, lxcpath]
    started = [
        subprocess.Popen(
            [*command, *names],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for names in groups
    ]
    try:
        for one in started:
            assert one.stdout is not None
            assert "ready\n" == one.stdout.readline()
        yield started
    finally:
        for one in started:
            if one.stdin is not None and not one.stdin.closed:
                one.stdin.close()
            one.wait(60)
            assert one.stdout is not None
            one.stdout.close()


def begin(started: list[subprocess.Popen[str]], counts: list[int]) -> list[str]:
    """Let all of them start, and return what they say, so many lines each."""
    for one in started:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    return [line.rstrip("\n") for one, count in zip(started, counts) for line in read_lines(one, count)]


def read_lines(one: subprocess.Popen[str], count: int) -> list[str]:
    """So many lines of its output."""
    assert one.stdout is not None
    return [one.stdout.readline() for _ in range(count)]


@pytest.mark.parametrize("threads", [[8], [1] * 8, [8] * 8], ids=["threads", "processes", "both"])
def test_one_name(lxcpath: str, threads: list[int]) -> None:
    """Of all who want a name at the same time one gets it, the others are told, and that one is unharmed."""
    with contenders(lxcpath, [["wanted"] * count for count in threads]) as started:
        told = begin(started, threads)
        assert 1 == told.count("started wanted"), told
        told.remove("started wanted")
        assert {f"ContainerExistsError there is already a 'wanted' in {lxcpath}"} == {
            line.partition(";")[0] for line in told
        }
        assert running(lxcpath, "wanted")
        assert [(lxcpath, "wanted")] == snapshots(lxcpath)


def snapshots(lxcpath: str) -> list[tuple[str, str]]:
    """What the base remembers, which is whole: pairs of lines, each pair once, each of a directory that is there."""
    with locked("base", lxcpath):
        try:
            text = Path(lxcpath, "base", "lxc_snapshots").read_text(encoding="ascii")
        except FileNotFoundError:
            return []
        lines = text.split("\n")
        assert "" == lines.pop(), text
        assert 0 == len(lines) % 2, text
        pairs = list(zip(lines[::2], lines[1::2]))
        assert len(pairs) == len(set(pairs)), text
        assert [] == [pair for pair in pairs if not os.path.isdir("/".join(pair))]
    return pairs


class Watcher(threading.Thread):
    """Reads all the time what the base remembers.

    Attributes:
        most: How many copies it remembered at most.
        error: What was wrong; None for nothing.
    """

    def __init__(self, lxcpath: str) -> None:
        super().__init__()
        self._lxcpath = lxcpath
        self._done = threading.Event()
        self.most = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        """Do so until stop(), or until something is wrong."""
        try:
            while not self._done.wait(0.001):
                self.most = max(self.most, len(snapshots(self._lxcpath)))
        except BaseException as error:  # noqa: BLE001 - it is the test's, not this thread's
            self.error = error

    def stop(self) -> None:
        """End it, and fail if something was wrong."""
        self._done.set()
        self.join()
        if self.error is not None:
            raise self.error


def test_many_names(lxcpath: str) -> None:
    """64 copies in four processes start and end at once, and at every moment the base knows just those there are."""
    left = Left(lxcpath)
    groups = [[f"many-{process}-{thread}" for thread in range(16)] for process in range(4)]
    watcher = Watcher(lxcpath)
    watcher.start()
    try:
        with contenders(lxcpath, groups) as started:
            told = begin(started, [16] * 4)
            assert sorted(f"started {name}" for names in groups for name in names) == sorted(told)
            assert sorted((lxcpath, name) for names in groups for name in names) == sorted(snapshots(lxcpath))
            assert [] == [name for names in groups for name in names if not running(lxcpath, name)]
            for one in started:
                assert one.stdin is not None
                one.stdin.close()
            for one in started:
                assert 0 == one.wait(60)
    finally:
        watcher.stop()
    assert 64 == watcher.most
    assert [] == snapshots(lxcpath)
    left.check()


def test_soak() -> None:
    """Of copies in many processes, with these and the monitors killed at random, nothing is left after one reap."""
    result = subprocess.run(
        [sys.executable, ROOT / "tests" / "soak.py", "--cycles", "60"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert 0 == result.returncode, result.stdout + result.stderr
