# SPDX-License-Identifier: LGPL-2.1-or-later
"""-F: the copy's console is ours until the copy stops, or until we are told to end."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli
from live_helpers import WAYS, Player, removed, running

from lxccopy_ffi import Container

SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT]


class Console(Player):
    """A terminal with lxccopy -F on it."""

    def __init__(self, lxcpath: str, *options: str) -> None:
        super().__init__("-P", lxcpath, "-n", "base", "-e", "-F", *options)

    def log_in(self) -> None:
        """Get the shell that init offers on the console."""
        self.expect("Please press Enter to activate this console.")
        self.type("\n")
        self.expect("# ")

    def end(self) -> int:
        """Wait for the end and return the status, having read what is still said."""
        poll = select.poll()
        poll.register(self.ours, select.POLLIN)
        deadline = time.monotonic() + 30
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.seen
            if poll.poll(20):
                self.seen += os.read(self.ours, 4096).decode(errors="replace")
        return self.process.wait()


@pytest.fixture
def consoles(lxcpath: str) -> Iterator[Any]:
    """A function that makes consoles, which are gone at the end."""
    made: list[Console] = []

    def make(*options: str) -> Console:
        made.append(Console(lxcpath, *options))
        return made[-1]

    yield make
    for console in made:
        if console.process.poll() is None:
            console.process.terminate()
            console.process.wait(30)
        os.close(console.ours)
        os.close(console.theirs)


@pytest.mark.parametrize("way", WAYS)
def test_console(consoles: Any, lxcpath: str, way: str) -> None:
    """On a terminal the copy's console is there; when the copy powers off we end, and the terminal is as before."""
    console = consoles("-N", "front", *WAYS[way])
    said = console.expect("Please press Enter")
    assert "Created front as clone of base" in said
    assert (way != "disk") == ("Container is placed on tmpfs." in said)
    console.type("\n")
    console.expect("# ")
    assert not termios.tcgetattr(console.theirs)[3] & termios.ICANON
    console.type("hostname; tty; echo x > /root/x; cat /root/x; echo e''nd\n")
    answer = console.expect("end\r\n")
    assert "front\r\n" in answer
    assert "/dev/console\r\n" in answer
    assert "x\r\n" in answer
    console.type("poweroff -f\n")
    assert 0 == console.end()
    assert console.before == termios.tcgetattr(console.theirs)
    assert not os.path.exists(f"{lxcpath}/front")


def test_console_keys(consoles: Any) -> None:
    """Ctrl-C on the console is for what runs there, and does not end us."""
    console = consoles("-q", "-t")
    console.log_in()
    console.type("sh -c 'echo run\"\"ning; exec sleep 100'\n")
    console.expect("running\r\n")
    console.type("\x03")
    console.expect("# ")
    assert console.process.poll() is None
    console.type("poweroff -f\n")
    assert 0 == console.end()


@pytest.mark.parametrize("number", SIGNALS)
def test_signals_on_a_terminal(consoles: Any, lxcpath: str, number: signal.Signals) -> None:
    """A signal ends it at once, leaves nothing, and gives the terminal back."""
    console = consoles("-q", "-t", "-N", "front")
    console.log_in()
    console.process.send_signal(number)
    begin = time.monotonic()
    assert 128 + number == console.end()
    assert time.monotonic() - begin < 5
    assert console.before == termios.tcgetattr(console.theirs)
    assert not os.path.exists(f"{lxcpath}/front")


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.02, 0.04, 0.08])
@pytest.mark.parametrize("keep", [[], ["-D"]], ids=["", "kept"])
def test_signals_at_any_time(consoles: Any, lxcpath: str, delay: float, keep: list[str]) -> None:
    """A signal while the copy is made or started ends it, too, and leaves nothing, or with -D a copy that can start."""
    with removed(lxcpath, "front"):
        console = consoles("-q", "-N", "front", *keep)
        while not os.path.exists(f"{lxcpath}/front"):
            assert console.process.poll() is None
        threading.Event().wait(delay)
        console.process.terminate()
        assert 128 + signal.SIGTERM == console.end()
        assert console.before == termios.tcgetattr(console.theirs)
        if os.path.exists(f"{lxcpath}/front"):
            assert keep
            with Container("front", lxcpath) as front:
                front.start()


class Front:
    """Lxccopy -F without a terminal, once its copy runs."""

    def __init__(self, lxcpath: str, *options: str) -> None:
        reader, writer = os.pipe()
        command = [sys.executable, "-m", "lxccopy_ffi", "-P", lxcpath, "-n", "base", "-e", "-F"]
        self.process = subprocess.Popen(
            [*command, f"--json-status-fd={writer}", *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[writer],
            text=True,
        )
        os.close(writer)
        self.told = os.fdopen(reader)
        self.events: list[str] = []

    def __enter__(self) -> Front:
        while "started" not in self.events:
            line = self.told.readline()
            assert line, self.process.communicate(timeout=20)
            self.events.append(json.loads(line)["event"])
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.communicate(timeout=30)
        self.told.close()

    def end(self) -> tuple[int, str, str]:
        """Wait for the end and return status and output."""
        out, err = self.process.communicate(timeout=30)
        self.events += [json.loads(line)["event"] for line in self.told]
        return self.process.returncode, out, err


@pytest.mark.parametrize("number", SIGNALS)
def test_signals_without_a_terminal(lxcpath: str, number: signal.Signals) -> None:
    """Without a terminal it stays as well, and a signal ends it and leaves nothing."""
    with Front(lxcpath, "-q", "-N", "front") as front:
        assert running(lxcpath, "front")
        front.process.send_signal(number)
        status, out, err = front.end()
        assert (128 + number, f"lxccopy: ended by {number.name}\n") == (status, err)
        assert "Created" not in out
        assert not os.path.exists(f"{lxcpath}/front")


def test_end_without_a_terminal(lxcpath: str) -> None:
    """It ends with the copy, with status 0, when somebody else stops that."""
    with Front(lxcpath, "-N", "front", "-t") as front:
        subprocess.run(["lxc-stop", "-k", "-P", lxcpath, "-n", "front"], check=True, timeout=30)
        status, out, err = front.end()
        assert (0, "") == (status, err)
        assert out.startswith("Created front as clone of base\nContainer is placed on tmpfs.\n")
        assert ["created", "started", "exited", "removed"] == front.events
        assert not os.path.exists(f"{lxcpath}/front")


@pytest.mark.parametrize("number", [0, signal.SIGTERM])
def test_kept(consoles: Any, lxcpath: str, number: int) -> None:
    """With -D the copy and what it wrote stay when it ends, also when a signal ended it."""
    with removed(lxcpath, "front"):
        console = consoles("-q", "-N", "front", "-D")
        console.log_in()
        console.type("echo data > /root/x; sync; echo writ''ten\n")
        console.expect("written")
        if number:
            console.process.send_signal(number)
        else:
            console.type("poweroff -f\n")
        assert (128 + number if number else 0) == console.end()
        assert not running(lxcpath, "front")
        assert "data\n" == Path(lxcpath, "front/overlay/delta/root/x").read_text(encoding="ascii")
        assert os.path.exists(f"{lxcpath}/front/config")


def test_with_a_command(lxccopy: Cli) -> None:
    """With a command -F is as without it, and the last of -F and -d counts."""
    result = lxccopy("-q", "-n", "base", "-e", "-F", "--", "sh", "-c", "echo out; exit 3")
    assert (3, "out\n", "") == (result.returncode, result.stdout, result.stderr)


def test_last_counts(lxccopy: Cli, lxcpath: str) -> None:
    """After -F a -d puts the copy into the background, as lxc-copy does."""
    with removed(lxcpath, "back"):
        assert 0 == lxccopy("-q", "-n", "base", "-N", "back", "-e", "-F", "-d").returncode
        assert running(lxcpath, "back")


@pytest.mark.parametrize("way", WAYS)
def test_start_that_fails(lxccopy: Cli, lxcpath: str, tmp_path: Path, way: str) -> None:
    """A start that fails in the foreground tells why and leaves nothing, also with -D."""
    (tmp_path / "x").mkdir()
    for keep in [[], *([["-D"]] if way == "disk" else [])]:
        result = lxccopy(
            "-n", "base", "-N", "front", "-e", "-F", "-m", f"bind={tmp_path}/x:/etc/hostname", *keep, *WAYS[way]
        )
        assert 1 == result.returncode
        assert "nothing could be mounted on /etc/hostname" in result.stderr
        assert not os.path.exists(f"{lxcpath}/front")
