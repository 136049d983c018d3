# SPDX-License-Identifier: LGPL-2.1-or-later
"""run() and popen() with subprocess's habits; the lxcpath fixture sees that nothing is left."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lxccopy_ffi import EphemeralCopy, OptionError, run
from lxccopy_ffi.processes import tree

PIPE, STDOUT, DEVNULL = subprocess.PIPE, subprocess.STDOUT, subprocess.DEVNULL


@pytest.fixture(scope="module")
def shared(lxcpath_with_base: str) -> Iterator[EphemeralCopy]:
    """One copy for all tests that change nothing in it; it has a user."""
    with EphemeralCopy("base", lxcpath=lxcpath_with_base, tmpfs=True) as copy:
        copy.run(["sh", "-c", "echo web:x:33:34::/srv:/bin/sh >>/etc/passwd"], check=True)
        copy.run(["sh", "-c", "printf 'www:x:34:\nadm:x:4:web\n' >>/etc/group"], check=True)
        yield copy


BOTH = "echo out; echo err >&2"


def test_streams(shared: EphemeralCopy, tmp_path: Path) -> None:
    """Each stream goes where subprocess's words say: pipes, files, descriptors, nowhere, or errors to the output."""

    def sh(script: str, **options: Any) -> subprocess.CompletedProcess[Any]:
        return shared.run(["sh", "-c", script], **options)

    assert ("out\n", None) == (sh(BOTH, stdout=PIPE, stderr=DEVNULL, text=True).stdout, None)
    assert b"out\nerr\n" == sh(BOTH, stdout=PIPE, stderr=STDOUT).stdout
    done = sh(BOTH, stdout=DEVNULL, stderr=PIPE)
    assert (None, b"err\n") == (done.stdout, done.stderr)
    with open(tmp_path / "file", "w+b", buffering=0) as file:
        sh(BOTH, stdout=file, stderr=STDOUT)
        file.seek(0)
        assert b"out\nerr\n" == sh("cat", stdin=file.fileno(), stdout=PIPE).stdout
    assert b"" == sh("cat", stdin=DEVNULL, stdout=PIPE).stdout
    assert b"" == sh("cat", stdin=PIPE, stdout=PIPE).stdout


def test_encoding(shared: EphemeralCopy) -> None:
    """Input and output are in the encoding that is asked for, and errors as asked for."""
    assert "ü€" == shared.run(["cat"], input="ü€", encoding="utf-16-le", stdout=PIPE).stdout
    assert "Ã¼" == shared.run(["printf", "\\303\\274"], encoding="latin-1", stdout=PIPE).stdout
    assert "a\ufffd" == shared.run(["printf", "a\\303"], capture_output=True, errors="replace").stdout
    with pytest.raises(UnicodeDecodeError):
        shared.run(["printf", "a\\303"], capture_output=True, encoding="utf-8")


IDENTITY = (
    "echo $(id -u) $(id -g) $(id -G) $HOME $USER $LOGNAME; test -w /root && echo root; grep CapEff /proc/self/status"
)
NO_CAPABILITIES = "CapEff: 0000000000000000"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"user": "web"}, ["33 34 34 4 /srv web web", NO_CAPABILITIES]),
        ({"user": 33}, ["33 34 34 4 /srv web web", NO_CAPABILITIES]),
        ({"user": "web", "group": "adm"}, ["33 4 4 /srv web web", NO_CAPABILITIES]),
        ({"user": 4711}, ["4711 4711 4711 / 4711 4711", NO_CAPABILITIES]),
        ({"user": "web", "env": {"HOME": "/x"}}, ["33 34 34 4 /x", NO_CAPABILITIES]),
    ],
)
def test_user(shared: EphemeralCopy, options: dict[str, Any], expected: list[str]) -> None:
    """A command has the ids, groups, environment and lack of power of a user of the container's own."""
    done = shared.run(["sh", "-c", IDENTITY], capture_output=True, text=True, **options)
    assert expected == [" ".join(line.split()) for line in done.stdout.splitlines()]


def test_group_alone(shared: EphemeralCopy) -> None:
    """A group without a user is root's."""
    done = shared.run(["sh", "-c", IDENTITY], capture_output=True, text=True, group="adm")
    assert done.stdout.startswith("0 4 4 /root root root\nroot\n")


def test_no_such_user(lxcpath: str) -> None:
    """A user that the container has not is an error that names it, and nothing runs or is left."""
    with pytest.raises(OptionError, match=r"^user: there is no user 'nobody-here' in 'base_\w+'$"):
        run("base", ["touch", "/x"], user="nobody-here", lxcpath=lxcpath)


def test_passwd_that_is_a_trap(lxcpath: str) -> None:
    """An /etc/passwd that leads out of the container, or is a pipe, is read within it, or not at all."""
    with EphemeralCopy("base", lxcpath=lxcpath, tmpfs=True) as copy:
        for trap in ("ln -s /proc/1/root/etc/passwd", "ln -s ../../../../../../etc/shadow", "mkfifo"):
            copy.run(["sh", "-c", f"rm -f /etc/passwd; {trap} /etc/passwd"], check=True)
            with pytest.raises(OptionError, match=r"^user: "):
                copy.run(["true"], user="daemon")


def sleepers(copy: EphemeralCopy) -> list[str]:
    """The processes in a copy that sleep, as they are called there."""
    lines = copy.run(["ps", "-o", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in lines if "sleep" in line and line[0] != "["]  # those have ended


def test_sleepers(shared: EphemeralCopy) -> None:
    """The look at a copy's processes finds those that there are."""
    process = shared.popen(["sh", "-c", "sleep 79 & setsid sleep 78 & echo; wait"], stdout=PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.1)
    assert 3 == len(sleepers(shared))
    process.kill_tree()
    assert [] == sleepers(shared)
    with process:
        pass


def test_timeout_kills_the_tree(lxcpath: str) -> None:
    """A time limit ends all that the command has started, also in sessions of their own, and keeps the output."""
    script = "echo early; (setsid sleep 71; true) & (sh -c 'sleep 72 & sleep 73'; true) & sleep 74"
    with EphemeralCopy("base", lxcpath=lxcpath, tmpfs=True) as copy:
        with pytest.raises(subprocess.TimeoutExpired) as caught:
            copy.run(["sh", "-c", script], capture_output=True, text=True, timeout=0.5)
        assert "early\n" == str(caught.value.stdout)
        assert [] == sleepers(copy)


def test_session_of_a_dead_parent(lxcpath: str) -> None:
    """Also those are ended whose parents have died before, as long as they are in the command's session."""
    with EphemeralCopy("base", lxcpath=lxcpath, tmpfs=True) as copy:
        with pytest.raises(subprocess.TimeoutExpired):
            copy.run(["sh", "-c", "(sleep 75 &); sleep 0.1; sleep 76"], timeout=0.5, stdout=PIPE)
        assert [] == sleepers(copy)


def test_much_both_ways(shared: EphemeralCopy) -> None:
    """A lot of input and output goes through at once, all of it."""
    data = os.urandom(1 << 20) * 30
    done = shared.run(["cat"], input=data, capture_output=True)
    assert len(data) == len(done.stdout)
    assert data == done.stdout


def test_popen(shared: EphemeralCopy) -> None:
    """A started command can be written to, read from, waited for and asked for its status."""
    with shared.popen(
        ["sh", "-c", "read x; echo got $x; read x; exit 3"], stdin=PIPE, stdout=PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert (None, None, None) == (process.poll(), process.returncode, process.stderr)
        process.stdin.write("this\n")
        process.stdin.flush()
        assert "got this\n" == process.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.05)
        process.stdin.write("end\n")
        process.stdin.flush()
        assert 3 == process.wait()
    assert (3, 3, ["sh", "-c"]) == (process.poll(), process.returncode, process.args[:2])
    assert process.stdin.closed
    assert process.stdout.closed
    process.send_signal(9)


@pytest.mark.parametrize(("method", "number"), [("terminate", 15), ("kill", 9)])
def test_popen_signals(shared: EphemeralCopy, method: str, number: int) -> None:
    """A started command gets the signals that it is sent, and its status says so."""
    process = shared.popen(["sleep", "50"])
    getattr(process, method)()
    assert -number == process.wait(10)
    with shared.popen(["sh", "-c", "trap 'exit 5' USR1; echo; while :; do :; done"], stdout=PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGUSR1)
        assert 5 == process.wait(10)


@pytest.mark.parametrize("text", [False, True])
def test_communicate_goes_on(shared: EphemeralCopy, text: bool) -> None:
    """After a timeout communicate() can be called again, and nothing is lost of either input or output."""
    data = os.urandom(1 << 20).hex().encode()
    given: Any = data.decode() if text else data
    script = "dd bs=1000 count=1 2>/dev/null; sleep 0.5; cat; echo end >&2"
    process = shared.popen(["sh", "-c", script], stdin=PIPE, stdout=PIPE, stderr=PIPE, text=text)
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        process.communicate(given, 0.2)
    assert given[:1000] == caught.value.stdout
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=0.01)
    with pytest.raises(OptionError, match=r"^input cannot be given later$"):
        process.communicate(given)
    assert (given, "end\n" if text else b"end\n") == process.communicate()
    assert 0 == process.returncode
    assert (given, "end\n" if text else b"end\n") == process.communicate()
    with process:
        pass


def test_communicate_without_pipes(shared: EphemeralCopy) -> None:
    """Without pipes there is nothing to return, and input is refused."""
    process = shared.popen(["true"])
    with pytest.raises(OptionError, match=r"^input needs stdin=PIPE$"):
        process.communicate(b"x")
    assert (None, None) == process.communicate()


def test_popen_ends_with_the_copy(lxcpath: str) -> None:
    """A command that is still running when the copy is closed is ended by that."""
    with EphemeralCopy("base", lxcpath=lxcpath, tmpfs=True) as copy:
        process = copy.popen(["sleep", "60"], stdout=PIPE)
    assert -9 == process.wait(0)
    assert (b"", None) == process.communicate()
    with process:
        pass


def test_tree(shared: EphemeralCopy) -> None:
    """The tree of a command has it and its descendants, and nobody else."""
    process = shared.popen(["sh", "-c", "sleep 60 & sleep 61 & echo; wait"], stdout=PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    assert 3 == len(tree(process.pid))
    process.kill_tree()
    assert set() == tree(process.pid)
    with process:
        pass


ON_A_TERMINAL = """
import subprocess, sys
from lxccopy_ffi import EphemeralCopy
with EphemeralCopy("base", lxcpath=sys.argv[1]) as copy:
    done = copy.run(["sh", "-c", "test -t 0 || test -t 1 || test -t 2; echo st $? >&2; cat"], stdout=subprocess.PIPE)
    assert done.stdout == b"", done
    copy.run(["sh", "-c", "test -t 1; echo two $?"], stdout=sys.stdout, stderr=sys.stderr)
    copy.popen(["echo", "three"]).wait()
"""


def test_no_terminal_of_ours(lxcpath: str) -> None:
    """A command that would get our terminal together with pipes gets a pipe in its place, whose output is shown."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", ON_A_TERMINAL, lxcpath], stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    assert 0 == process.wait(30)
    seen = os.read(ours, 4096).decode()
    os.close(ours)
    assert "st 1\r\ntwo 1\r\nthree\r\n" == seen


# What it costs


def _usage() -> tuple[int, int, int]:
    """Descriptors, threads, and resident kilobytes of this process."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines())
    return len(os.listdir("/proc/self/fd")), int(status["Threads"]), int(status["VmRSS"].split()[0])


def test_many_runs(shared: EphemeralCopy) -> None:
    """A hundred commands in one copy leave no descriptor, thread or memory behind."""
    for _ in range(20):
        shared.run(["true"], capture_output=True)
    fds, threads, memory = _usage()
    for _ in range(100):
        shared.run(["true"], input=b"x" * 1000, capture_output=True, check=False)
    after = _usage()
    assert (fds, threads) == after[:2]
    assert after[2] < memory + 1000


def test_threads_on_one_copy(shared: EphemeralCopy) -> None:
    """Two threads can run commands in one copy, with a SIGCHLD handler in Python."""
    seen: list[bytes] = []

    def work(word: str) -> None:
        seen.extend(shared.run(["echo", word], stdout=PIPE).stdout for _ in range(20))

    before = signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        threads = [threading.Thread(target=work, args=(word,)) for word in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert [b"a\n"] * 20 + [b"b\n"] * 20 == sorted(seen)


def test_threads_and_forks(lxcpath: str) -> None:
    """Threads with copies of their own go on while other threads fork."""
    done: list[int] = []

    def work() -> None:
        done.append(run("base", ["true"], lxcpath=lxcpath, tmpfs=True).returncode)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        subprocess.run(["true"], check=True)
    assert [0] * 8 == done


INTERRUPTED = """
import os, signal, sys, threading, time
from lxccopy_ffi import EphemeralCopy
with EphemeralCopy("base", lxcpath=sys.argv[1], tmpfs=True) as copy:
    begin = 0
    def interrupt():
        global begin
        begin = time.monotonic()
        os.kill(os.getpid(), signal.SIGINT)
    threading.Timer(0.4, interrupt).start()
    try:
        {call}
    except KeyboardInterrupt:
        took = time.monotonic() - begin
    left = [line for line in copy.run(["ps"], capture_output=True, check=True).stdout.split(b"\\n") if b"sleep" in line]
print(took < 0.3, left)
"""


@pytest.mark.parametrize(
    "call",
    [
        'copy.run(["sleep", "60"])',
        'copy.run(["sh", "-c", "sleep 60 & sleep 61"], capture_output=True)',
        'copy.run(["sleep", "60"], input=b"x" * 1000000)',
        'copy.run(["sleep", "60"], user="nobody", timeout=50)',
        'copy.wait_until(["sleep", "60"])',
        "copy.wait_until(lambda: False)",
        "copy.ips(50)",
    ],
)
def test_interrupt(lxcpath: str, call: str) -> None:
    """Ctrl-C ends a call at once, and with it what it has started."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED.format(call=call), lxcpath],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        stdin=subprocess.DEVNULL,
    )
    assert ("True []\n", "") == (done.stdout, done.stderr)


def test_late_output_is_awaited_shortly(shared: EphemeralCopy) -> None:
    """A daemon that keeps the pipe open does not keep us, whatever way we wait."""
    begin = time.monotonic()
    with shared.popen(["sh", "-c", "sleep 3 & echo done"], stdout=PIPE) as process:
        assert (b"done\n", None) == process.communicate()
    assert time.monotonic() - begin < 2
