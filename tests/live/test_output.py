# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is printed, written and told: for people, for scripts, and while a long copy is under way."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import shutil
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
from conftest import Cli, Left, require
from live_helpers import WAYS, has, plain, removed, running, script, snapshot

MEMORY = "Container is placed on tmpfs.\n"
REBOOT = "Rebooting will cause all changes made to it to be lost!\n"
TOLD = {"disk": "", "monitor": MEMORY, "hook": MEMORY + REBOOT}
BIG = 300 << 20


@pytest.mark.parametrize("way", WAYS)
def test_order_in_a_pipe(lxccopy: Cli, way: str) -> None:
    """In one pipe our lines come before the command's, as they happen; lxc-copy's came last (SPEC A4)."""
    result = lxccopy(
        *("-n", "base", "-N", "me", "-e", *WAYS[way], "--", "sh", "-c", "echo out; echo err >&2"),
        capture_output=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert (0, f"Created me as clone of base\n{TOLD[way]}out\nerr\n") == (result.returncode, result.stdout)


@pytest.mark.parametrize("way", WAYS)
def test_streams(lxccopy: Cli, lxcpath: str, way: str) -> None:
    """Our lines go to stderr where a command has stdout, else to stdout, and nowhere with -q."""
    told = f"Created me as clone of base\n{TOLD[way]}"
    options = ["-n", "base", "-N", "me", "-e", *WAYS[way]]
    command = ["--", "sh", "-c", "echo out; echo err >&2"]
    result = lxccopy(*options, *command)
    assert (0, "out\n", f"{told}err\n") == (result.returncode, result.stdout, result.stderr)
    result = lxccopy("-q", *options, *command)
    assert (0, "out\n", "err\n") == (result.returncode, result.stdout, result.stderr)
    for quiet in ([], ["-q"]):
        with removed(lxcpath, "me"):
            result = lxccopy(*quiet, *options)
            assert (0, "" if quiet else told, "") == (result.returncode, result.stdout, result.stderr)


def call(*arguments: str, closed: bool = False) -> tuple[int, list[dict[str, Any]]]:
    """Run the command line with a pipe for events; return its status and the events."""
    reader, writer = os.pipe()
    if closed:
        os.close(reader)
    process = subprocess.Popen(
        [sys.executable, "-m", "lxccopy_ffi", "-q", f"--json-status-fd={writer}", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[writer],
    )
    os.close(writer)
    status = process.wait(60)
    if closed:
        return status, []
    with os.fdopen(reader) as told:
        return status, [json.loads(line) for line in told]


def test_events(lxcpath: str) -> None:
    """Each thing that happens is an object with the copy's name: a command's status, a base, where the copy is."""
    where = ["-P", lxcpath, "-n", "base", "-N", "me"]
    created = {"event": "created", "name": "me", "base": "base", "lxcpath": lxcpath}
    removed_event = {"event": "removed", "name": "me"}
    for options in WAYS.values():
        status, events = call(*where, "-e", *options, "--", "sh", "-c", "exit 5")
        assert 5 == status
        (init,) = [event.pop("init_pid") for event in events if event["event"] == "started"]
        assert init > 1
        started, exited = {"event": "started", "name": "me"}, {"event": "exited", "name": "me", "status": 5}
        assert [created, started, exited, removed_event] == events
    with removed(lxcpath, "me"):
        status, events = call(*where, "-e", "-D", "--", "kill", "-9", "0")
        assert [137, "created", "started", "exited"] == [status, *(event["event"] for event in events)]
        assert 137 == events[-1]["status"]
    with removed(lxcpath, "me"):
        status, events = call(*where, "-e")
        assert [0, "created", "started"] == [status, *(event["event"] for event in events)]
    with removed(lxcpath, "me", "other"):
        assert (0, [created]) == call(*where, "-s")
        status, events = call("-P", lxcpath, "-n", "me", "-N", "other", "-R")
        assert [0, "removed", "created"] == [status, *(event["event"] for event in events)]
        assert ["me", "other"] == [event["name"] for event in events]


def test_event_of_a_full_copy(lxcpath: str) -> None:
    """A full copy is created, and that is all."""
    require(has("rsync"), "rsync is not installed")
    with removed(lxcpath, "me"):
        status, events = call("-P", lxcpath, "-n", "base", "-N", "me")
        assert (0, ["created"]) == (status, [event["event"] for event in events])


def test_no_event_of_a_failure(lxcpath: str) -> None:
    """What did not happen is not told: a copy that does not start is created and removed at most."""
    assert (1, []) == call("-P", lxcpath, "-n", "nobody", "-e")
    with snapshot(lxcpath, "broken", "lxc.hook.pre-start = false"):
        status, events = call("-P", lxcpath, "-n", "broken", "-e", "--", "true")
        assert 125 == status
        assert not {"started", "exited"} & {event["event"] for event in events}


@pytest.mark.parametrize("task", [["-e", "--", "sleep", "100"], ["-e"], ["-e", "-F"], ["-e", "-t"]])
def test_events_that_nobody_reads(lxcpath: str, task: list[str]) -> None:
    """Where nobody reads the events any more, no container is left behind."""
    left = Left(lxcpath)
    status, _ = call("-P", lxcpath, "-n", "base", *task, closed=True)
    assert 0 != status
    left.check()


@pytest.mark.parametrize("task", [["-e", "--", "sleep", "100"], ["-e"], ["-e", "-F"]])
def test_output_that_nobody_reads(lxcpath: str, task: list[str]) -> None:
    """Nor where nobody reads what we print."""
    left = Left(lxcpath)
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "lxccopy_ffi", "-P", lxcpath, "-n", "base", *task]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=writer, stderr=writer)
    os.close(writer)
    assert 0 != process.wait(30)
    left.check()


def test_log_file(lxccopy: Cli, tmp_path: Path) -> None:
    """With -o and -l liblxc's log goes to a file, whose directories are made."""
    file = tmp_path / "a/b/log"
    assert 0 == lxccopy("-n", "base", "-e", "-o", str(file), "-l", "debug", "--", "true").returncode
    text = file.read_text(encoding="utf-8", errors="replace")
    assert re.search(r"lxccopy .* DEBUG ", text)
    assert " start - " in text
    file.unlink()
    assert 0 == lxccopy("-n", "base", "-e", "-o", str(file), "--", "true").returncode
    assert " DEBUG " not in (file.read_text(encoding="utf-8") if file.exists() else "")


def test_own_log_file(lxccopy: Cli, lxcpath: str) -> None:
    """With -l alone it goes to the container's directory, if that is one."""
    log = Path(lxcpath, "base", "base.log")
    try:
        assert 0 == lxccopy("-q", "-n", "base", "-e", "-l", "TRACE", "--", "true").returncode
        assert " TRACE " in log.read_text(encoding="utf-8", errors="replace")
    finally:
        log.unlink()


def test_no_log_file(lxccopy: Cli, lxcpath: str, tmp_path: Path) -> None:
    """No directory is made for a container that there is not, and no file named none (SPEC A2.2)."""
    left = Left(lxcpath)
    for options in (["-l", "DEBUG"], ["-o", str(tmp_path / "a/log")]):
        result = lxccopy("-n", "nobody", "-e", *options)
        assert (1, "") == (result.returncode, result.stdout)
        assert "container 'nobody' is not defined" in result.stderr
    assert 0 == lxccopy("-q", "-n", "base", "-e", "-o", "none", "-l", "DEBUG", "--", "true", cwd=tmp_path).returncode
    result = lxccopy("-n", "base", "-e", "-l", "LOUD", "--", "true")
    assert 125 == result.returncode
    assert "there is no log priority 'LOUD'" in result.stderr
    assert [] == os.listdir(tmp_path)
    assert not os.path.exists(f"{lxcpath}/base/base.log")
    left.check()


@pytest.mark.parametrize("option", ["--help", "-h", "--usage", "--version"])
def test_information(lxccopy: Cli, option: str) -> None:
    """What was asked for goes to stdout, with status 0, whatever else is wrong."""
    result = lxccopy(option, "--nonsense", "-Z")
    assert (0, "") == (result.returncode, result.stderr)
    assert re.match(r"\d+\.\d+.*\nlxccopy \d" if option == "--version" else "Usage: lxccopy ", result.stdout)


def test_in_place_of_lxc_copy(lxcpath: str, tmp_path: Path) -> None:
    """A script that calls lxc-copy runs with ours first in PATH under that name, and its errors name lxc-copy."""
    ours = shutil.which("lxccopy", path=os.path.dirname(sys.executable))
    require(ours, "lxccopy is not installed beside Python")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/lxc-copy").symlink_to(str(ours))
    text = """set -e
        lxc-copy --lxcpath=$1 -n base --newname web --snapshot
        lxc-copy -P $1 web -N web2 -R
        test -d $1/web2 -a ! -e $1/web
        lxc-copy -P $1 -en web2 -N run -tm overlay=/usr:/opt -q -- ls /opt/bin >/dev/null
        lxc-copy -P $1 -n web2 -e -N live
        lxc-stop -k -P $1 -n live
        lxc-destroy -P $1 -n web2
        lxc-copy --help | head -n 1
        lxc-copy -P $1 -n web2 -N x || echo status $?"""
    result = subprocess.run(
        ["sh", str(script(tmp_path / "it", text)), lxcpath],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"},
    )
    with removed(lxcpath, "live", "run", "web2", "web", "x"):
        assert 0 == result.returncode, result.stderr
        made, usage, status = result.stdout.splitlines()
        assert "Created live as clone of web2" == made
        assert usage.startswith("Usage: lxc-copy [-P DIR]")
        assert "status 1" == status
        assert f"lxc-copy: container 'web2' is not defined in {lxcpath}" in result.stderr


SHARED = [
    "lxc.net.1.type = veth",
    "lxc.net.1.veth.pair = vethx7",
    "lxc.net.1.ipv4.address = 10.9.8.7/24",
    "lxc.net.1.ipv6.address = fd00::7/64",
]


def test_warnings(lxccopy: Cli, lxcpath: str) -> None:
    """Fixed addresses and interface names, which a copy cannot have with its base, are warned of; -q is silent."""
    with snapshot(lxcpath, "fixed", *SHARED), removed(lxcpath, "copy"):
        for task in (["-s"], ["-e"]):
            for quiet in ([], ["-q"]):
                with removed(lxcpath, "copy"):
                    result = lxccopy(*quiet, "-n", "fixed", "-N", "copy", *task)
                    assert 0 == result.returncode
                    warnings = result.stderr.splitlines()
                    assert (0 if quiet else 3) == len(warnings)
                    for word in ("vethx7", "10.9.8.7/24", "fd00::7/64") if not quiet else ():
                        assert 1 == sum(word in line for line in warnings)
                    assert all(line.startswith("lxccopy: warning: the copy 'copy' has ") for line in warnings)


# A copy that takes its time


@pytest.fixture
def big(lxcpath: str, tmp_path: Path) -> Iterator[dict[str, str]]:
    """A container, big, with 300 MB, and an environment in which rsync is not too fast."""
    rsync = shutil.which("rsync")
    require(rsync, "rsync is not installed")
    script(tmp_path / "bin/rsync", f'exec {rsync} --bwlimit=150m "$@"')
    with removed(lxcpath, "copy"), plain(lxcpath, "big") as directory:
        with open(directory / "rootfs/blob", "wb") as file:
            os.posix_fallocate(file.fileno(), 0, BIG)
        yield {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}


def rsyncs(lxcpath: str) -> list[str]:
    """The rsync processes that copy a container below a path."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if b"rsync" in words and lxcpath.encode() in words and b"copy/rootfs" in words:
            found.append(process.name)
    return found


class Watched:
    """A full copy on a terminal, whose output is collected."""

    def __init__(self, lxcpath: str, environment: dict[str, str], *options: str) -> None:
        self.ours, self.theirs = pty.openpty()
        self.seen = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lxccopy_ffi", "-P", lxcpath, "-n", "big", "-N", "copy", *options],
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=self.theirs,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no threads here
        )

    def read(self, until: str = "") -> None:
        """Read until a text comes, or until the end."""
        poll = select.poll()
        poll.register(self.ours, select.POLLIN)
        deadline = time.monotonic() + 30
        while not (until and until in self.seen):
            ended = self.process.poll() is not None
            if poll.poll(50):
                self.seen += os.read(self.ours, 4096).decode()
            elif ended:
                break
            assert time.monotonic() < deadline, self.seen

    def close(self) -> None:
        """Close the terminal."""
        os.close(self.ours)
        os.close(self.theirs)


def test_progress_on_a_terminal(lxcpath: str, big: dict[str, str]) -> None:
    """On a terminal a line tells bytes, total, rate and the time left, growing, and is gone at the end."""
    watched = Watched(lxcpath, big)
    watched.read()
    assert 0 == watched.process.returncode
    line = r"\rCopied ([\d.]+) (MiB|KiB|B) of (30\d\.\d) MiB, [\d.]+ \w+/s(, \d+:\d\d left)?\x1b\[K"
    found = re.findall(line, watched.seen)
    assert len(found) >= 3
    done = [float(number) for number, unit, *_ in found if unit == "MiB"]
    assert sorted(done) == done
    assert done[0] < done[-1] <= 309
    assert any(left for *_, left in found)
    assert "" == re.sub(line, "", watched.seen).replace("\r\x1b[K", "")
    assert watched.seen.endswith("\r\x1b[K")
    assert BIG == os.path.getsize(f"{lxcpath}/copy/rootfs/blob")
    watched.close()


def test_no_progress(lxccopy: Cli, lxcpath: str, big: dict[str, str]) -> None:
    """In a pipe, and with -q, there is none."""
    big["PATH"] = os.environ["PATH"]  # at full speed
    result = lxccopy("-n", "big", "-N", "copy", env=big)
    assert (0, "", "") == (result.returncode, result.stdout, result.stderr)
    with removed(lxcpath, "copy"):
        pass
    watched = Watched(lxcpath, big, "-q")
    watched.read()
    assert (0, "") == (watched.process.returncode, watched.seen)
    watched.close()


@pytest.mark.parametrize("how", ["Ctrl-C", "TERM", "HUP"])
def test_interrupted_copy(lxcpath: str, big: dict[str, str], how: str) -> None:
    """Ctrl-C or a signal ends a full copy promptly, and nothing of it is left, neither files nor processes."""
    left = Left(lxcpath)
    watched = Watched(lxcpath, big)
    watched.read("Copied ")
    assert rsyncs(lxcpath)
    begin = time.monotonic()
    if how == "Ctrl-C":
        os.write(watched.ours, b"\x03")
    else:
        watched.process.send_signal(getattr(signal, f"SIG{how}"))
    number = signal.SIGINT if how == "Ctrl-C" else getattr(signal, f"SIG{how}")
    watched.read()
    assert 128 + number == watched.process.returncode
    assert time.monotonic() - begin < 3
    assert f"lxccopy: ended by SIG{'INT' if how == 'Ctrl-C' else how}" in watched.seen
    assert [] == rsyncs(lxcpath)
    left.check()
    watched.close()


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.3])
def test_interrupted_copy_in_a_pipe(lxcpath: str, big: dict[str, str], delay: float) -> None:
    """The same without a terminal, at other moments."""
    left = Left(lxcpath)
    command = [sys.executable, "-m", "lxccopy_ffi", "-P", lxcpath, "-n", "big", "-N", "copy"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=big) as process:
        while not os.path.exists(f"{lxcpath}/copy"):
            assert process.poll() is None
        threading.Event().wait(delay)
        process.terminate()
        assert 128 + signal.SIGTERM == process.wait(20)
    assert [] == rsyncs(lxcpath)
    left.check()


def test_failing_copy(lxccopy: Cli, lxcpath: str, tmp_path: Path) -> None:
    """Where rsync fails halfway, that is told, and nothing is left."""
    rsync = shutil.which("rsync")
    require(rsync, "rsync is not installed")
    script(tmp_path / "rsync", f'{rsync} "$@"; echo no room >&2; exit 11')
    left = Left(lxcpath)
    result = lxccopy("-n", "base", "-N", "copy", env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert (1, "") == (result.returncode, result.stdout)
    assert result.stderr.splitlines()[-1].startswith("lxccopy: cannot copy container 'base'")
    assert "no room" in result.stderr
    left.check()


def test_interrupted_rename(lxcpath: str, big: dict[str, str]) -> None:
    """A renaming that must copy, and is interrupted, leaves the original as it was."""
    with open(f"{lxcpath}/big/config", "a", encoding="ascii") as config:
        config.write("lxc.hook.clone = /bin/true\n")
    left = Left(lxcpath)
    watched = Watched(lxcpath, big, "-R")
    watched.read("Copied ")
    watched.process.terminate()
    watched.read()
    assert 128 + signal.SIGTERM == watched.process.returncode
    assert "warning: renaming 'big' copies its root file system" in watched.seen
    left.check()
    assert BIG == os.path.getsize(f"{lxcpath}/big/rootfs/blob")
    assert not running(lxcpath, "big")
    watched.close()
