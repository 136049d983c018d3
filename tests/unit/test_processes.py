# SPDX-License-Identifier: LGPL-2.1-or-later
"""Processes as /proc shows them, whatever they call themselves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from lxccopy_ffi.processes import command_lines, descendants, is_alive, kill, parent, start_time

# Calls itself something, says so, and stays until its input ends.
_RENAMED = "import sys; open('/proc/self/comm', 'w').write(sys.argv[1]); print(flush=True); sys.stdin.read()"

NAMES = ["a) R 1 1", ") Z (", "((", "))))", "a b c", " ", "1 2 3", "\t)", "x" * 15]


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends when its input does."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        yield process


def test_alive(child: subprocess.Popen[bytes]) -> None:
    """A process lives as long as it runs, and only the one that began then."""
    began = start_time(child.pid)
    assert os.getpid() == parent(child.pid)
    assert start_time(os.getpid()) <= began
    assert (True, False, False) == (
        is_alive(child.pid, began),
        is_alive(child.pid, began - 1),
        is_alive(child.pid, began + 1),
    )


def test_zombie(child: subprocess.Popen[bytes]) -> None:
    """A zombie does not live, though its number is not free yet; nor does one that is gone."""
    began = start_time(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert began == start_time(child.pid)
    assert not is_alive(child.pid, began)
    child.wait()
    assert not is_alive(child.pid, began)
    for ask in (parent, start_time):
        with pytest.raises(OSError, match=r"."):
            ask(child.pid)


@pytest.mark.parametrize("pid", [1 << 22, 1 << 40, 1 << 100])
def test_no_such_process(pid: int) -> None:
    """A number that no process can have is nobody's."""
    assert not is_alive(pid, 0)


@pytest.mark.parametrize("name", NAMES)
def test_odd_names(name: str) -> None:
    """Parentheses and blanks in a process's name change nothing of what is read after it."""
    command = [sys.executable, "-c", _RENAMED, name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        began = start_time(process.pid)
        assert process.stdout is not None
        assert b"\n" == process.stdout.readline()
        assert (os.getpid(), began, True) == (
            parent(process.pid),
            start_time(process.pid),
            is_alive(process.pid, began),
        )


def test_command_lines(child: subprocess.Popen[bytes]) -> None:
    """The words of each process's command line are joined by blanks, undecodable bytes and all; zombies have none."""
    words = [b"sh", b"-c", b"read x", b"a \xff)", b""]
    with subprocess.Popen(words, stdin=subprocess.PIPE) as process:
        assert (process.pid, "sh -c read x a \udcff)") in command_lines()
        assert (child.pid, "cat") in command_lines()
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert process.pid not in [pid for pid, _ in command_lines()]


def test_descendants() -> None:
    """All that a process has started is found, the last ones first, and none twice."""
    script = "sh -c 'cat; :' & cat <&0; :"
    with subprocess.Popen(["sh", "-c", f"{script}"], stdin=subprocess.PIPE, start_new_session=True) as process:
        while len(found := descendants(process.pid)) < 2:
            assert process.poll() is None
        assert len(found) == len(set(found))
        for pid in found:
            assert pid == process.pid or parent(pid) in (*found, process.pid)
        assert process.pid not in found
        os.killpg(process.pid, signal.SIGKILL)
    assert [] == descendants(process.pid)


def test_kill(child: subprocess.Popen[bytes]) -> None:
    """A process is killed, and one that has ended already is no error."""
    kill(child.pid)
    child.wait()
    kill(child.pid)
