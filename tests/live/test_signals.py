# SPDX-License-Identifier: LGPL-2.1-or-later
"""Signals: passed on to the command, then everything is removed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import pytest
from conftest import Left

import lxccopy_ffi
from lxccopy_ffi import Container, EphemeralCopy, run
from lxccopy_ffi.locking import forget_lock

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT]


@contextmanager
def started(lxcpath: str, script: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Lxccopy with a shell script that has said that it runs."""
    command = [sys.executable, "-m", "lxccopy_ffi", "-q", "-P", lxcpath, "-n", "base", "-e", "-t", *options, "--"]
    with subprocess.Popen([*command, "sh", "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "ready\n" == process.stdout.readline()
        yield process


def children(pid: int) -> list[str]:
    """The names of a process's children."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split():
        with suppress(OSError):  # it has ended meanwhile
            found.append(Path(f"/proc/{child}/comm").read_text(encoding="ascii").strip())
    return found


@pytest.mark.parametrize("number", SIGNALS)
def test_ends_the_command(lxcpath: str, number: signal.Signals) -> None:
    """A signal ends a command that does not care, and the status says so."""
    command = [sys.executable, "-m", "lxccopy_ffi", "-q", "-P", lxcpath, "-n", "base", "-e", "-t", "--", "sleep", "100"]
    with subprocess.Popen(command) as process:
        while "sleep" not in children(process.pid):
            assert process.poll() is None
        process.send_signal(number)
        assert 128 + number == process.wait(20)


@pytest.mark.parametrize("number", SIGNALS)
def test_reaches_the_command(lxcpath: str, number: signal.Signals) -> None:
    """A command that handles the signal ends as it likes."""
    script = f"trap 'echo caught; exit 9' {number.name[3:]}; echo ready; while :; do sleep 0.1; done"
    with started(lxcpath, script) as process:
        process.send_signal(number)
        assert 9 == process.wait(20)
        assert process.stdout is not None
        assert "caught\n" == process.stdout.read()


def test_second_signal_hurries(lxcpath: str) -> None:
    """A command that ignores the signal is killed by the second one."""
    with started(lxcpath, "trap '' TERM; echo ready; while :; do sleep 0.1; done") as process:
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        process.send_signal(signal.SIGTERM)
        assert 128 + signal.SIGKILL == process.wait(20)


def test_ignored_hang_up_stays_ignored(lxcpath: str) -> None:
    """Under nohup(1), SIGHUP does nothing."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with started(lxcpath, "echo ready; sleep 1; exit 4") as process:
            process.send_signal(signal.SIGHUP)
            assert 4 == process.wait(20)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_ignored_sigchld(lxcpath: str) -> None:
    """A parent that ignores SIGCHLD, which is inherited, does not disturb the command line."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with started(lxcpath, "echo ready; exit 4", "-N", "chld") as process:
            assert process.stdout is not None
            assert "" == process.stdout.read()
        assert not os.path.exists(f"{lxcpath}/chld")
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_polite_shutdown_is_hurried(lxcpath: str) -> None:
    """A shutdown without a limit, by an init that ignores it, ends with a signal."""
    config = Path(lxcpath, "stubborn", "config")
    with Container("base", lxcpath) as base:
        base.clone("stubborn", flags=5).close()
    try:
        text = config.read_text(encoding="ascii")
        config.write_text(text + "lxc.init.cmd = /bin/sleep 1000\n", encoding="ascii")
        command = [sys.executable, "-m", "lxccopy_ffi", "-q", "-P", lxcpath, "-n", "stubborn", "-N", "st", "-e"]
        with subprocess.Popen(
            [*command, "--shutdown-timeout=-1", "--", "echo", "ready"], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert "ready\n" == process.stdout.readline()
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.5)
            process.send_signal(signal.SIGINT)
            assert 128 + signal.SIGINT == process.wait(20)
    finally:
        with Container("stubborn", lxcpath) as stubborn:
            stubborn.destroy()
            forget_lock(stubborn.name, stubborn.lxcpath)


def handles_signals(pid: int) -> bool:
    """Whether a process has handlers for all of SIGNALS."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return all(caught & 1 << number - 1 for number in SIGNALS)


@pytest.mark.parametrize("delay", [0.0, 0.005, 0.01, 0.02, 0.04, 0.08])
def test_interrupted_at_any_time(lxcpath: str, delay: float) -> None:
    """Ctrl-C while the copy is made, started or removed leaves nothing."""
    command = [sys.executable, "-m", "lxccopy_ffi", "-q", "-P", lxcpath, "-n", "base", "-e", "-t", "--", "sleep", "9"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        while not handles_signals(process.pid):
            assert process.poll() is None
        threading.Event().wait(delay)
        process.send_signal(signal.SIGINT)
        assert 128 + signal.SIGINT == process.wait(20)


# A module that was being imported when the interrupt came is closed by the garbage collector, which warns.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("delay", [0.0, 0.005, 0.01, 0.02, 0.04])
def test_keyboard_interrupt(lxcpath: str, delay: float) -> None:
    """KeyboardInterrupt comes through run() soon and leaves nothing."""
    timer = threading.Timer(delay, os.kill, [os.getpid(), signal.SIGINT])

    def interrupted() -> None:
        timer.start()
        run("base", ["sleep", "9"], lxcpath=lxcpath, tmpfs=True)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    timer.join()


def test_threads_signals_untouched(lxcpath: str) -> None:
    """The library changes no signal handler of the process."""
    before = [signal.getsignal(number) for number in signal.valid_signals()]
    with EphemeralCopy("base", lxcpath=lxcpath, tmpfs=True) as copy:
        copy.run(["true"], check=True)
    assert before == [signal.getsignal(number) for number in signal.valid_signals()]


def test_burst_of_signals(lxcpath: str) -> None:
    """Many signals at once neither lock up nor leave anything."""
    for _ in range(5):
        with started(lxcpath, "echo ready; while :; do sleep 0.1; done") as process:
            for number in [signal.SIGTERM, signal.SIGINT] * 100:
                process.send_signal(number)
            assert process.wait(30) in {128 + number for number in (*SIGNALS, signal.SIGKILL)}


# A file that was being opened when the interrupt came is closed by the garbage collector, which warns.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_interrupted_close_can_be_repeated(lxcpath: str) -> None:
    """A close() that was interrupted at any line can be called again, and then finishes its work."""

    def interrupt(at: int) -> bool:
        lines = 0

        def trace(frame: FrameType, event: str, _: object) -> object:
            nonlocal lines
            if "__del__" in (frame.f_code.co_name, frame.f_back and frame.f_back.f_code.co_name):
                return None  # what is raised there reaches nobody
            if event == "line" and frame.f_code.co_filename.startswith(package):
                lines += 1
                if lines == at:
                    sys.settrace(None)
                    raise KeyboardInterrupt
            return trace

        copy = EphemeralCopy("base", "close", lxcpath=lxcpath, tmpfs=True)
        copy.start()
        sys.settrace(trace)  # type: ignore[arg-type]
        try:
            copy.close()
        except KeyboardInterrupt:
            copy.close()
            return True
        finally:
            sys.settrace(None)
        return False

    package = str(Path(lxccopy_ffi.__file__).parent)
    left = Left(lxcpath)
    at = 1
    while interrupt(at):
        left.check()
        at += 2
    assert at > 30
