# SPDX-License-Identifier: LGPL-2.1-or-later
"""A command on a terminal: it gets one of the container's own, and ours stays ours."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_helpers import Player

# A command in the foreground that says when it is there.
RUN = "sh -c 'echo run\"\"ning; exec sleep 100'\n"


class Terminal(Player):
    """A terminal with a command on it."""

    def __init__(self, lxcpath: str, *command: str, stdout: int | None = None) -> None:
        super().__init__("-q", "-P", lxcpath, "-n", "base", "-e", "-t", "--", *command, stdout=stdout)

    def resize(self, rows: int, columns: int, *, notify: bool = True) -> None:
        """Give the window another size."""
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if notify:
            self.process.send_signal(signal.SIGWINCH)

    def end(self) -> int:
        """Wait for the end and return the status."""
        return self.process.wait(30)


@pytest.fixture
def shell(lxcpath: str) -> Iterator[Terminal]:
    """A shell on a terminal, at its first prompt."""
    terminal = Terminal(lxcpath, "sh")
    terminal.expect("# ")
    yield terminal
    if terminal.process.poll() is None:
        terminal.process.send_signal(signal.SIGTERM)
    terminal.process.wait(30)
    os.close(terminal.ours)
    os.close(terminal.theirs)


def test_terminal_of_its_own(shell: Terminal) -> None:
    """The command's terminal is one of the container's, with a name there and the size of ours."""
    shell.type("tty; stty size; echo e''nd\n")
    answer = shell.expect("end\r\n")
    assert "/dev/pts/" in answer
    assert "40 100" in answer
    shell.type("exit 5\n")
    assert 5 == shell.end()


def test_window_size(shell: Terminal) -> None:
    """A change of the window's size reaches the command."""
    shell.resize(24, 80)
    shell.type("stty size; echo do''ne\n")
    assert "24 80" in shell.expect("done\r\n")
    shell.type("exit\n")
    assert 0 == shell.end()


def test_job_control(shell: Terminal) -> None:
    """Ctrl-C ends the command in the foreground, Ctrl-Z stops it, and the shell lives on."""
    shell.type(RUN)
    shell.expect("running\r\n")
    shell.type("\x03")
    shell.expect("# ")
    shell.type("echo st''atus $?\n")
    assert "130" in shell.expect("# ")
    shell.type(RUN)
    shell.expect("running\r\n")
    shell.type("\x1a")
    assert "Stopped" in shell.expect("Stopped")
    shell.expect("# ")
    shell.type("kill -9 %1; exit 7\nexit 7\n")  # twice, as a shell asks for with jobs left
    assert 7 == shell.end()


def test_our_terminal_is_restored(shell: Terminal) -> None:
    """Our terminal is raw while the command runs and afterwards as it was."""
    assert not termios.tcgetattr(shell.theirs)[3] & termios.ICANON
    shell.type("exit\n")
    assert 0 == shell.end()
    assert shell.before == termios.tcgetattr(shell.theirs)


def test_end_of_file(shell: Terminal) -> None:
    """Ctrl-D at the prompt ends the shell."""
    shell.type("\x04")
    assert 0 == shell.end()


def test_hang_up(shell: Terminal) -> None:
    """SIGHUP, as when the window is closed, ends the command and removes the copy."""
    shell.process.send_signal(signal.SIGHUP)
    assert shell.end() in (128 + signal.SIGHUP, 0)


def test_much_typed(lxcpath: str) -> None:
    """Pasting more than the terminal holds, to a command that echoes it, does not lock up."""
    terminal = Terminal(lxcpath, "sh", "-c", "stty -echo; echo ready; cat")
    terminal.expect("ready\r\n")
    line = "x" * 70 + "\n"
    for _ in range(50):
        terminal.type(line * 10)
        for _ in range(10):
            terminal.expect("x" * 70 + "\r\n")
    terminal.type("\x04")
    assert 0 == terminal.end()
    os.close(terminal.ours)
    os.close(terminal.theirs)


def test_output_to_a_pipe(lxcpath: str) -> None:
    """With only standard input on the terminal, the output still goes to the pipe, unaltered."""
    reader, writer = os.pipe()
    terminal = Terminal(lxcpath, "sh", "-c", "test -t 0 && ! test -t 1 && echo yes", stdout=writer)
    os.close(writer)
    assert 0 == terminal.end()
    assert b"yes\n" == os.read(reader, 100)
    for fd in (reader, terminal.ours, terminal.theirs):
        os.close(fd)


def test_last_output_arrives(lxcpath: str) -> None:
    """What the command prints just before its end is all shown."""
    for _ in range(5):
        terminal = Terminal(lxcpath, "sh", "-c", "seq 3000; echo la''st")
        terminal.expect("last\r\n")
        assert 0 == terminal.end()
        os.close(terminal.ours)
        os.close(terminal.theirs)


PYTHON = """
import sys
from lxccopy_ffi import run
result = run("base", ["sh", "-c", sys.argv[2]], lxcpath=sys.argv[1], {options})
print("status", result.returncode, getattr(result, "stdout", None))
"""


@pytest.mark.parametrize(
    ("options", "script", "shown"),
    [
        ("tmpfs=True", "tty; test -t 1 && exit 3", ["/dev/pts/", "status 3"]),
        ("input=b'typed'", "cat; test -t 1 && ! test -t 0 && exit 3", ["typed", "status 3"]),
        ("capture_output=True, text=True", "cat; test -t 1 || exit 3", ["status 3"]),
    ],
)
def test_python_on_a_terminal(lxcpath: str, options: str, script: str, shown: list[str]) -> None:
    """From Python, too, a command gets a terminal of its own in place of ours, which it never sees."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", PYTHON.format(options=options), lxcpath, script],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no threads here
    )
    os.close(theirs)
    assert 0 == process.wait(30)
    seen = os.read(ours, 4096).decode()
    os.close(ours)
    assert [] == [text for text in shown if text not in seen]


def test_terminal_that_is_only_read(lxcpath: str, tmp_path: Path) -> None:
    """Reading from a terminal with the output in a file, as with </dev/tty >file, works too."""
    ours, theirs = pty.openpty()
    reading = os.open(os.ttyname(theirs), os.O_RDONLY | os.O_NOCTTY)
    with open(tmp_path / "out", "wb") as out:
        command = [sys.executable, "-m", "lxccopy_ffi", "-q", "-P", lxcpath, "-n", "base", "-e", "--"]
        process = subprocess.Popen([*command, "sh", "-c", "read x; echo got $x"], stdin=reading, stdout=out, stderr=out)
    os.write(ours, b"this\n")
    assert 0 == process.wait(30)
    assert "got this\n" == (tmp_path / "out").read_text(encoding="ascii")
    for fd in (ours, theirs, reading):
        os.close(fd)
