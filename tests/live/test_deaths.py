# SPDX-License-Identifier: LGPL-2.1-or-later
"""Deaths: whoever of those who run a copy is killed, at most one reap makes all as it was before."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import ROOT, Cli, Left, monitors, require
from live_helpers import WAYS, Pause, Player, await_guards, output, plain, reboot, removed, running, titled
from test_foreground import Front

from lxccopy_ffi import Container, EphemeralCopy, LiblxcError, _raw, reap

# A command that says when it runs.
READY = ["sh", "-c", "echo ready; exec sleep 1000"]

PYTHON = """
import sys
from lxccopy_ffi import run
run("base", sys.argv[2:], name="mortal", lxcpath=sys.argv[1], tmpfs=True)
"""

COPIES = {**WAYS, "kept": ["-D"]}


@contextmanager
def process(*command: str) -> Iterator[subprocess.Popen[str]]:
    """A Python with these arguments, which has ended at the end."""
    with subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as started:
        try:
            yield started
        finally:
            started.kill()


@contextmanager
def making(lxcpath: str, *options: str, source: str = "base") -> Iterator[subprocess.Popen[str]]:
    """Lxccopy that makes ``mortal``."""
    with process("-m", "lxccopy_ffi", "-q", "-P", lxcpath, "-n", source, "-N", "mortal", "-e", *options) as started:
        yield started


@contextmanager
def commanding(lxcpath: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Lxccopy with a command that runs."""
    with making(lxcpath, *options, "--", *READY) as started:
        await_ready(started)
        yield started


def await_ready(started: subprocess.Popen[str]) -> None:
    """Wait until the command runs."""
    assert started.stdout is not None
    assert "ready\n" == started.stdout.readline()


@contextmanager
def paused(lxcpath: str, directory: Path, key: str, first: str = "") -> Iterator[Pause]:
    """A base of its own, ``source``, with a hook that waits for us."""
    with Pause(directory, first) as pause, plain(lxcpath, "source", f"lxc.hook.{key} = {pause.hook}"):
        yield pause


def monitor_of(lxcpath: str) -> int:
    """The monitor of ``mortal``."""
    (pid,) = titled(f"[lxc monitor] {lxcpath} mortal")
    return pid


def guard_of(lxcpath: str) -> int:
    """The guard of ``mortal``."""
    (pid,) = titled(f"[lxccopy guard] {lxcpath} mortal")
    return pid


def helper_of(maker: int) -> int:
    """The start helper: the child of its maker that is not the guard."""
    children = Path(f"/proc/{maker}/task/{maker}/children").read_text(encoding="ascii").split()
    names = {int(pid): Path(f"/proc/{pid}/comm").read_text(encoding="ascii") for pid in children}
    (pid,) = [pid for pid, name in names.items() if name != "lxccopy-guard\n"]
    return pid


def kill(pid: int) -> None:
    """Kill a process, and wait for its end."""
    pidfd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    assert _raw.wait_readable(pidfd, 10)
    os.close(pidfd)


def settle(lxccopy: Cli, left: Left, *, reaped: bool | None = None) -> None:
    """Wait for guards and monitors, reap once, and look: all is as it was.

    Args:
        lxccopy: The command line.
        left: How it was.
        reaped: Whether there must have been something to reap; None where that may be.
    """
    await_guards(left.path)
    deadline = time.monotonic() + 20
    while monitors(left.path):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    first = lxccopy("--reap")
    assert (0, "") == (first.returncode, first.stderr)
    assert reaped is None or reaped == bool(first.stdout), first.stdout
    left.check()
    again = lxccopy("--reap")
    assert (0, "", "") == (again.returncode, again.stdout, again.stderr)


def settle_kept(lxccopy: Cli, left: Left) -> None:
    """The same for a copy whose data are to be kept: it is an ordinary container, and is removed here."""
    await_guards(left.path)
    with removed(left.path, "mortal"):
        result = lxccopy("--reap")
        assert (0, "") == (result.returncode, result.stderr)
        assert ["mortal"] == [name for name in os.listdir(left.path) if name.startswith(("mortal", "."))]
        with Container("mortal", left.path) as copy:
            assert (True, "STOPPED") == (copy.defined, copy.state)
        assert not os.path.lexists(f"{left.path}/mortal/.lxccopy")
    left.check()


def one_line(text: str) -> bool:
    """Whether this is one message of ours."""
    return text.startswith("lxccopy: ") and 1 == len(text.splitlines())


# We are killed


@pytest.mark.parametrize("way", COPIES)
def test_we_die_while_a_command_runs(lxccopy: Cli, lxcpath: str, way: str) -> None:
    """When lxccopy is killed, its command ends, the copy is gone, and nothing is left to reap."""
    left = Left(lxcpath)
    with commanding(lxcpath, *COPIES[way]) as maker:
        maker.kill()
    if way == "kept":
        settle_kept(lxccopy, left)
    else:
        settle(lxccopy, left, reaped=False)


def test_python_dies_while_a_command_runs(lxccopy: Cli, lxcpath: str) -> None:
    """The same for a program that calls run()."""
    left = Left(lxcpath)
    with process("-c", PYTHON, lxcpath, *READY) as maker:
        await_ready(maker)
        maker.kill()
    settle(lxccopy, left, reaped=False)


@pytest.mark.parametrize("way", WAYS)
def test_we_die_in_the_foreground(lxccopy: Cli, lxcpath: str, way: str) -> None:
    """The same for a copy on our terminal, whose monitor is our child."""
    left = Left(lxcpath)
    with Front(lxcpath, "-q", "-N", "mortal", *WAYS[way]) as front:
        front.process.kill()
    settle(lxccopy, left)


@pytest.mark.parametrize("key", ["pre-start", "start-host"])
def test_we_die_while_it_starts(lxccopy: Cli, lxcpath: str, tmp_path: Path, key: str) -> None:
    """When lxccopy is killed while a hook of the starting copy sleeps, all of that is gone."""
    with paused(lxcpath, tmp_path, key) as pause:
        left = Left(lxcpath)
        with making(lxcpath, "-t", "--", "true", source="source") as maker:
            pause.wait()
            maker.kill()
        settle(lxccopy, left, reaped=False)


# The start helper is killed


@pytest.mark.parametrize("key", ["pre-start", "start-host", "mount"])
@pytest.mark.parametrize("way", WAYS)
def test_helper_dies(lxccopy: Cli, lxcpath: str, tmp_path: Path, key: str, way: str) -> None:
    """When the helper is killed while a hook sleeps, that is one line, and nothing is left of the start."""
    with paused(lxcpath, tmp_path, key) as pause:
        left = Left(lxcpath)
        with making(lxcpath, *WAYS[way], "--", "true", source="source") as maker:
            pause.wait()
            kill(helper_of(maker.pid))
            _, said = maker.communicate(timeout=30)
        assert 125 == maker.returncode
        assert one_line(said), said
        assert "the start helper died" in said
        settle(lxccopy, left)


@pytest.mark.parametrize("key", ["pre-start", "start-host"])
def test_monitor_dies_while_it_starts(lxccopy: Cli, lxcpath: str, tmp_path: Path, key: str) -> None:
    """When the monitor is killed while a hook sleeps, that is one line, and nothing is left of the start."""
    with paused(lxcpath, tmp_path, key) as pause:
        left = Left(lxcpath)
        with making(lxcpath, "-t", "--", "true", source="source") as maker:
            kill(pause.wait())
            _, said = maker.communicate(timeout=30)
        assert 125 == maker.returncode
        assert one_line(said), said
        settle(lxccopy, left)


def test_helper_in_the_foreground_dies(lxccopy: Cli, lxcpath: str) -> None:
    """In the foreground the helper is the monitor: killed, it takes the copy along, and we tidy up."""
    left = Left(lxcpath)
    with Front(lxcpath, "-q", "-N", "mortal", "-t") as front:
        kill(helper_of(front.process.pid))
        status, _, said = front.end()
    assert status in (0, 1)
    assert said == "" or one_line(said), said
    settle(lxccopy, left, reaped=False)


# The guard is killed


@pytest.mark.parametrize("way", WAYS)
def test_guard_dies(lxccopy: Cli, lxcpath: str, way: str) -> None:
    """Without its guard the command ends as it likes, and all is removed as ever."""
    left = Left(lxcpath)
    with making(
        lxcpath, *WAYS[way], "--", "sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done 2>/dev/null"
    ) as maker:
        await_ready(maker)
        kill(guard_of(lxcpath))
        maker.terminate()
        _, said = maker.communicate(timeout=30)
    assert (7, "") == (maker.returncode, said)
    settle(lxccopy, left, reaped=False)


def test_guard_dies_while_it_starts(lxccopy: Cli, lxcpath: str, tmp_path: Path) -> None:
    """The same while a hook of the starting copy sleeps."""
    with paused(lxcpath, tmp_path, "pre-start") as pause:
        left = Left(lxcpath)
        with making(lxcpath, "-t", "--", "sh", "-c", "exit 7", source="source") as maker:
            pause.wait()
            kill(guard_of(lxcpath))
            pause.go_on()
            assert ("", "") == maker.communicate(timeout=30)
        assert 7 == maker.returncode
        settle(lxccopy, left, reaped=False)


@pytest.mark.parametrize("way", WAYS)
def test_guard_and_we_die(lxccopy: Cli, lxcpath: str, way: str) -> None:
    """With both dead the copy runs on: it is listed, no reap takes it, and once it is stopped it is gone."""
    require(os.path.exists("/usr/bin/lxc-stop"), "lxc-stop is not installed")
    left = Left(lxcpath)
    with commanding(lxcpath, *WAYS[way]) as maker:
        kill(guard_of(lxcpath))
        maker.kill()
    (listed,) = json.loads(lxccopy("--list", "--json").stdout)
    found = [listed[key] for key in ("name", "state", "orphan", "creator_alive")]
    assert ["mortal", "RUNNING", False, False] == found
    result = lxccopy("--reap")
    assert (0, "", "") == (result.returncode, result.stdout, result.stderr)
    assert running(lxcpath, "mortal")
    subprocess.run(["lxc-stop", "-k", "-P", lxcpath, "-n", "mortal"], check=True, timeout=30)
    settle(lxccopy, left)


# The monitor or the copy's init is killed


def victim(lxcpath: str, who: str) -> int:
    """The process that is meant."""
    with Container("mortal", lxcpath) as copy:
        return monitor_of(lxcpath) if who == "monitor" else copy.init_pid


@pytest.mark.parametrize("who", ["monitor", "init"])
@pytest.mark.parametrize("way", WAYS)
def test_dies_between_commands(lxccopy: Cli, lxcpath: str, who: str, way: str) -> None:
    """A copy without monitor or init takes no further command, which is an error, and is gone when it is closed."""
    left = Left(lxcpath)
    via = {"disk": None, "monitor": "monitor", "hook": "hook"}[way]
    with EphemeralCopy("base", "mortal", lxcpath=lxcpath, tmpfs=via is not None, tmpfs_via=via) as copy:
        copy.run(["true"], check=True)
        kill(victim(lxcpath, who))
        assert copy.container.wait_gone(10)
        with pytest.raises(LiblxcError, match="it is not running"):
            copy.run(["true"])
    settle(lxccopy, left, reaped=False)


@pytest.mark.parametrize("who", ["monitor", "init"])
@pytest.mark.parametrize("way", COPIES)
def test_dies_while_a_command_runs(lxccopy: Cli, lxcpath: str, who: str, way: str) -> None:
    """The command is killed with it, the status says so, and all is removed."""
    left = Left(lxcpath)
    with commanding(lxcpath, *COPIES[way]) as maker:
        kill(victim(lxcpath, who))
        _, said = maker.communicate(timeout=30)
    assert (128 + signal.SIGKILL, "") == (maker.returncode, said)
    if way == "kept":
        settle_kept(lxccopy, left)
    else:
        settle(lxccopy, left, reaped=False)


@pytest.mark.parametrize("who", ["monitor", "init"])
@pytest.mark.parametrize("way", WAYS)
def test_dies_detached(lxccopy: Cli, lxcpath: str, who: str, way: str) -> None:
    """A copy that lives on its own ends with its monitor or its init, and is gone after a reap at the latest."""
    left = Left(lxcpath)
    with making(lxcpath, *WAYS[way]) as maker:
        assert ("", "") == maker.communicate(timeout=30)
    assert 0 == maker.returncode
    kill(victim(lxcpath, who))
    settle(lxccopy, left, reaped=who == "monitor")


# Reboots


def test_ten_reboots(lxcpath: str) -> None:
    """What is in memory is there after each of ten reboots."""
    with EphemeralCopy("base", "mortal", lxcpath=lxcpath, tmpfs=True) as copy:
        for number in range(10):
            output(copy, f"echo {number} >>/root/x")
            reboot(copy)
            assert [str(one) for one in range(number + 1)] == output(copy, "cat /root/x").split()


ON_REBOOT = '[ "$LXC_TARGET" = reboot ] || exit 0'


@pytest.mark.parametrize("attached", [False, True], ids=["detached", "attached"])
def test_monitor_dies_while_it_reboots(lxccopy: Cli, lxcpath: str, tmp_path: Path, *, attached: bool) -> None:
    """A copy whose monitor is killed in the middle of a reboot is gone when it is closed, or reaped."""
    with paused(lxcpath, tmp_path, "pre-start", ON_REBOOT) as pause:
        left = Left(lxcpath)
        with EphemeralCopy("source", "mortal", lxcpath=lxcpath, tmpfs=True) as copy:
            copy.run(["reboot", "-f"])
            pid = pause.wait()
            if not attached:
                copy.detach()
            kill(pid)
        settle(lxccopy, left, reaped=not attached)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("attached", [False, True], ids=["detached", "attached"])
def test_reboot_fails(lxccopy: Cli, lxcpath: str, tmp_path: Path, way: str, *, attached: bool) -> None:
    """A copy whose hook fails at a reboot, which crashes liblxc's monitor, is gone when it is closed, or reaped."""
    with paused(lxcpath, tmp_path, "pre-start", ON_REBOOT) as pause:
        with open(pause.hook, "a", encoding="ascii") as file:
            file.write("exit 1\n")
        left = Left(lxcpath)
        via = {"disk": None, "monitor": "monitor", "hook": "hook"}[way]
        with EphemeralCopy("source", "mortal", lxcpath=lxcpath, tmpfs=via is not None, tmpfs_via=via) as copy:
            copy.run(["reboot", "-f"])
            pidfd = os.pidfd_open(pause.wait())
            if not attached:
                copy.detach()
            pause.go_on()
            assert _raw.wait_readable(pidfd, 10)
            os.close(pidfd)
        settle(lxccopy, left, reaped=None if not attached else False)


def test_reboot_fails_under_a_command(lxccopy: Cli, lxcpath: str, tmp_path: Path) -> None:
    """The same where the command that reboots is lxccopy's own: its status says that it was killed."""
    with paused(lxcpath, tmp_path, "pre-start", ON_REBOOT) as pause:
        pause.go_on()
        with open(pause.hook, "a", encoding="ascii") as file:
            file.write("exit 1\n")
        left = Left(lxcpath)
        with making(lxcpath, "-t", "--", "sh", "-c", "reboot -f; sleep 1000", source="source") as maker:
            _, said = maker.communicate(timeout=30)
        assert (128 + signal.SIGKILL, "") == (maker.returncode, said)
        settle(lxccopy, left, reaped=False)


# Signals and terminals


def test_signals_while_it_starts(lxccopy: Cli, lxcpath: str, tmp_path: Path) -> None:
    """Each signal ends a start in which a hook sleeps for ever, with a status that says so, and nothing is left."""
    with paused(lxcpath, tmp_path, "pre-start") as pause:
        left = Left(lxcpath)
        makers = []
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
            command = ["-P", lxcpath, "-n", "source", "-e", "-t", "-q", "--", "true"]
            maker = subprocess.Popen([sys.executable, "-m", "lxccopy_ffi", *command], stderr=subprocess.PIPE, text=True)
            pause.wait()
            maker.send_signal(number)
            makers.append((number, maker))
        for number, maker in makers:
            _, said = maker.communicate(timeout=30)
            assert (128 + number, f"lxccopy: ended by {number.name}\n") == (maker.returncode, said)
        settle(lxccopy, left, reaped=False)


@pytest.mark.parametrize("options", [["--", "sh"], ["-F"]], ids=["command", "console"])
def test_terminal_is_closed(lxccopy: Cli, lxcpath: str, options: list[str]) -> None:
    """When the window is closed in which a shell runs, that and the copy are gone, and we have ended by the hang-up."""
    left = Left(lxcpath)
    player = Player("-q", "-P", lxcpath, "-n", "base", "-e", "-t", "-N", "mortal", *options)
    player.expect("# " if "sh" in options else "activate this console.")
    os.close(player.ours)
    os.close(player.theirs)
    assert 128 + signal.SIGHUP == player.process.wait(30)
    settle(lxccopy, left, reaped=False)


def test_reap_while_it_starts(lxcpath: str, tmp_path: Path) -> None:
    """A reap does not take what is just being started."""
    with paused(lxcpath, tmp_path, "pre-start") as pause:
        with making(lxcpath, "-t", "--", "true", source="source") as maker:
            pause.wait()
            assert [] == reap(lxcpath)
            pause.go_on()
            assert ("", "") == maker.communicate(timeout=30)
        assert 0 == maker.returncode
