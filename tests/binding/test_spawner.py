# SPDX-License-Identifier: LGPL-2.1-or-later
"""Starting from a helper process: the caller stays as it was, and the container gets nothing of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from binding_helpers import isolated, made, processes
from conftest import cgroups

from lxccopy_ffi import EphemeralCopy, LiblxcError, _raw, tmpfs


def status(pid: int | str, *keys: str) -> list[str]:
    """Lines of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return [line for line in lines if line.partition(":")[0] in keys]


def open_files(pid: int | str) -> dict[str, str]:
    """What each descriptor of a process is, but for the one that looks."""
    found = {}
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found[link.name] = str(link.readlink())
        except FileNotFoundError:
            continue
    return found


def parent(pid: int) -> int:
    """The process id of a process's parent; of a container's init, its monitor."""
    return int(status(pid, "PPid")[0].split()[1])


def children() -> list[int]:
    """The children of this process's main thread."""
    pid = os.getpid()
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


@pytest.fixture
def fifo(tmp_path: Path) -> str:
    """A pipe to which a hook can tell that it runs."""
    path = str(tmp_path / "fifo")
    os.mkfifo(path)
    return path


# The caller


def start_and_stop(lxcpath: str) -> list[Any]:
    """What this process is like before and after 20 starts and stops, while 8 threads of it work."""

    def look() -> list[Any]:
        texts = [Path(f"/proc/self/{file}").read_text(encoding="ascii") for file in ("cgroup", "mountinfo")]
        return [*texts, *status("self", "SigIgn", "SigCgt", "SigBlk", "Umask", "Threads"), open_files("self")]

    sys.setswitchinterval(0.0001)  # else each call of ours waits for eight threads of 5 ms
    end = threading.Event()

    def work() -> None:
        while not end.is_set():
            sum(range(1000))

    threads = [threading.Thread(target=work) for _ in range(8)]
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    for thread in threads:
        thread.start()
    try:
        before = look()
        for _ in range(20):
            with EphemeralCopy("base", lxcpath=lxcpath, tmpfs=True) as copy:
                assert copy.container.running
        return [before, look()]
    finally:
        end.set()


def test_caller_stays_as_it_was(lxcpath: str) -> None:
    """20 starts in a process with 8 busy threads change none of its cgroups, mounts, descriptors and signals."""
    before, after = isolated(start_and_stop, lxcpath)
    assert before == after


def hand_down(lxcpath: str, fifo: str) -> list[Any]:
    """What the helper, a container's init and its monitor have of a process that offers a lot."""
    pipe = os.pipe()
    for fd in pipe:
        os.set_inheritable(fd, True)
    os.dup2(pipe[0], 99, inheritable=True)
    offered = set(open_files("self").values()) - {os.devnull}
    found: list[Any] = []

    def look(pid: int) -> None:
        found.append(sorted(offered & set(open_files(pid).values())))
        found.extend([*status(pid, "SigIgn", "Umask"), os.getsid(pid) == os.getsid(0)])

    def look_at_helper() -> None:
        with open(fifo, encoding="ascii"):  # returns when the hook is there
            (helper,) = children()
            look(helper)
        os.close(os.open(f"{fifo}.go", os.O_WRONLY))

    thread = threading.Thread(target=look_at_helper)
    thread.start()
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    os.umask(0o077)
    hook = f"sh -c ': > {fifo}; : < {fifo}.go'"
    with made(lxcpath, {"lxc.init.cmd": "/bin/sleep 1000", "lxc.hook.pre-start": hook}) as copy:
        copy.start()
        thread.join()
        for pid in (parent(copy.init_pid), copy.init_pid):
            look(pid)
        return [*found, *status(copy.init_pid, "SigBlk", "SigCgt")]


def test_container_inherits_nothing(lxcpath: str, fifo: str) -> None:
    """Neither helper nor monitor nor init has a descriptor, an ignored signal, the umask or the session of ours."""
    os.mkfifo(f"{fifo}.go")
    nothing = "0000000000000000"
    each = [[], "Umask:\t0022", f"SigIgn:\t{nothing}", False]
    expected = [*each, *each, *each, f"SigBlk:\t{nothing}", f"SigCgt:\t{nothing}"]
    assert expected == isolated(hand_down, lxcpath, fifo)


# In the foreground


def foreground(lxcpath: str, items: dict[str, str], act: Callable[[Any], object] | None = None) -> list[Any]:
    """Start a container in the foreground, acting once it runs: the error, how often it acted, and what is left."""
    calls: list[str] = []

    def on_running() -> None:
        calls.append(copy.state)
        if act is not None:
            act(copy)

    with made(lxcpath, items) as copy:
        threading.Thread().start()  # the first one sets signal handlers of the C library's own
        before = [open_files("self"), *status("self", "SigIgn", "SigBlk")]
        try:
            copy.start(foreground=True, on_running=on_running)
            outcome = ""
        except (LiblxcError, KeyboardInterrupt) as error:
            outcome = str(error) or type(error).__name__
        after = [open_files("self"), *status("self", "SigIgn", "SigBlk")]
        left = [path for path in cgroups() if copy.name in path]
        return [outcome, calls, [copy.state, processes(lxcpath), left, copy.watched], children(), before == after]


NOTHING_LEFT: list[Any] = [["STOPPED", [], [], False], [], True]


def foreground_until_stopped(lxcpath: str, init: str) -> list[Any]:
    """One that ends by itself."""
    return foreground(lxcpath, {"lxc.init.cmd": init})


@pytest.mark.parametrize("init", ["/bin/sleep 1", "/usr/bin/timeout 1 sleep 5"])
def test_foreground(lxcpath: str, init: str) -> None:
    """A start in the foreground tells once that it runs, returns when it has stopped, and leaves nothing."""
    assert ["", ["RUNNING"], *NOTHING_LEFT] == isolated(foreground_until_stopped, lxcpath, init)


def foreground_stopped_by_another(lxcpath: str) -> list[Any]:
    """One that somebody else stops."""
    stoppers: list[subprocess.Popen[bytes]] = []

    def stop(copy: Any) -> None:
        code = "from lxccopy_ffi import Container; Container(*input().split()).stop()"
        stoppers.append(subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE))
        stdin = stoppers[0].stdin
        assert stdin is not None
        stdin.write(f"{copy.name} {lxcpath}\n".encode())
        stdin.close()

    outcome, calls, left, *_ = foreground(lxcpath, {"lxc.init.cmd": "/bin/sleep 1000"}, stop)
    return [outcome, calls, left, stoppers[0].wait(20)]


def test_foreground_stopped_by_another(lxcpath: str) -> None:
    """A start in the foreground returns also when another process has stopped the container."""
    assert ["", ["RUNNING"], NOTHING_LEFT[0], 0] == isolated(foreground_stopped_by_another, lxcpath)


def foreground_without_a_callback(lxcpath: str) -> list[Any]:
    """One that nobody asked to be told about."""
    with made(lxcpath, {"lxc.init.cmd": "/bin/sleep 0.2"}) as copy:
        copy.start(foreground=True)
        return [copy.state, processes(lxcpath), [path for path in cgroups() if copy.name in path]]


def test_foreground_without_a_callback(lxcpath: str) -> None:
    """A start in the foreground returns when it has stopped also where nobody wants to know that it runs."""
    assert ["STOPPED", [], []] == isolated(foreground_without_a_callback, lxcpath)


def foreground_that_raises(lxcpath: str) -> list[Any]:
    """One whose callback raises."""

    def interrupt_it(_: Any) -> None:
        raise KeyboardInterrupt

    return foreground(lxcpath, {"lxc.init.cmd": "/bin/sleep 1000"}, interrupt_it)


def foreground_with_a_signal(lxcpath: str) -> list[Any]:
    """One that runs when a signal's handler raises."""

    def interrupt_it(_: Any) -> None:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()

    def handler(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, handler)
    return foreground(lxcpath, {"lxc.init.cmd": "/bin/sleep 1000"}, interrupt_it)


@pytest.mark.parametrize("function", [foreground_that_raises, foreground_with_a_signal])
def test_foreground_that_is_interrupted(lxcpath: str, function: Callable[..., object]) -> None:
    """An exception during a start in the foreground kills the container, and nothing is left when it is raised."""
    assert ["KeyboardInterrupt", ["RUNNING"], *NOTHING_LEFT] == isolated(function, lxcpath)


def foreground_that_fails(lxcpath: str, key: str, value: str) -> list[Any]:
    """One that does not start."""
    outcome, calls, *left = foreground(lxcpath, {key: value})
    return [outcome.partition(": ")[2], calls, *left]


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("lxc.hook.pre-mount", "/bin/false", "Script exited with status 1"),
        ("lxc.hook.pre-start", "/bin/false", "Script exited with status 1"),
        ("lxc.init.cmd", "/nonexistent", 'No such file or directory - Failed to exec "/nonexistent"'),
    ],
)
def test_foreground_that_fails(lxcpath: str, key: str, value: str, reason: str) -> None:
    """A start in the foreground that fails says why, tells nobody that it runs, and leaves nothing."""
    found, *rest = isolated(foreground_that_fails, lxcpath, key, value)
    assert reason in found
    assert [[], *NOTHING_LEFT] == rest


def start_in_background(lxcpath: str) -> list[Any]:
    """Starts in the background with a callback: what it saw, and what becomes of one that raises."""
    calls: list[str] = []
    with made(lxcpath, {"lxc.init.cmd": "/bin/sleep 1000"}) as copy:
        for _ in range(2):
            copy.start(on_running=lambda: calls.append(copy.state))
            copy.stop()

        def interrupt_it() -> None:
            raise KeyboardInterrupt

        try:
            copy.start(on_running=interrupt_it)
        except KeyboardInterrupt:
            calls.append("interrupted")
        calls.append(copy.state)
        copy.stop()
        return [calls, processes(lxcpath)]


def test_callback_in_the_background(lxcpath: str) -> None:
    """In the background the callback is called once, and what it raises leaves the container to its caller."""
    assert [["RUNNING", "RUNNING", "interrupted", "RUNNING"], []] == isolated(start_in_background, lxcpath)


# The monitor's mounts


def mount_tmpfs(lxcpath: str) -> list[Any]:
    """Where the tmpfs of a copy is seen: in the monitor's mount table, and in ours."""

    def lines(pid: int | str) -> list[str]:
        table = Path(f"/proc/{pid}/mountinfo").read_text(encoding="ascii").splitlines()
        return [line.partition(" - ")[2] for line in table if line.split()[4].startswith(tmpfs.MOUNT_POINT)]

    with EphemeralCopy("base", lxcpath=lxcpath, tmpfs=True, tmpfs_size="4M") as copy:
        return [lines(parent(copy.container.init_pid)), lines("self"), os.path.lexists(tmpfs.UPPER)]


def test_tmpfs_is_the_monitors(lxcpath: str) -> None:
    """The monitor has the tmpfs, with its size; the host has not, even where its mounts are shared with others."""
    monitors, *ours = isolated(mount_tmpfs, lxcpath, prefix=["unshare", "--mount", "--propagation", "shared"])
    assert ["tmpfs lxccopy rw,size=4096k"] == [line[:27] for line in monitors]
    assert ours == [[], False]


def test_missing_mount_point(lxcpath: str, tmp_path: Path) -> None:
    """A tmpfs that cannot be mounted is an error with its errno, and nothing is started."""
    fd = _raw.new_mount("tmpfs", {"size": "1M"})
    try:
        with made(lxcpath, {}) as copy, pytest.raises(LiblxcError) as caught:
            copy.start(tmpfs=fd, tmpfs_path=str(tmp_path / "missing"))
    finally:
        os.close(fd)
    assert caught.value.reason == "mounting the tmpfs: No such file or directory"


# Ends


def test_init_that_ends_at_once(lxcpath: str) -> None:
    """A container whose init ends at once was started, or is said to have ended; either way nothing is left."""
    reasons = {"its init ended at once"}
    left: set[str] = set()
    with made(lxcpath, {"lxc.init.cmd": "/bin/true"}) as copy:
        for _ in range(30):
            try:
                copy.start()
            except LiblxcError as error:
                reasons.add(error.reason)
            copy.stop()
            assert (copy.state, processes(lxcpath)) == ("STOPPED", [])
            left |= {path for path in cgroups() if copy.name in path}
        for path in left:
            os.rmdir(path)
    assert reasons == {"its init ended at once"}
    assert left == set()


def interrupt(lxcpath: str, fifo: str, seconds: str, action: Callable[[], None]) -> list[Any]:
    """Act while a start waits for its hook: its error, its time, what is left when it returns, and if it comes up."""

    def act() -> None:
        with open(fifo, encoding="ascii"):  # returns when the hook is there
            action()

    thread = threading.Thread(target=act)
    thread.start()
    with made(lxcpath, {"lxc.hook.pre-start": f"sh -c ': > {fifo}; exec sleep {seconds}'"}) as copy:
        began = time.monotonic()
        try:
            copy.start()
            outcome = ""
        except (LiblxcError, KeyboardInterrupt) as error:
            outcome = str(error) or type(error).__name__
        took = time.monotonic() - began
        thread.join()
        return [outcome, took, processes(lxcpath), copy.running]


def interrupt_once(lxcpath: str, fifo: str, seconds: str) -> list[Any]:
    """A Ctrl-C during the start."""
    return interrupt(lxcpath, fifo, seconds, lambda: os.kill(os.getpid(), signal.SIGINT))


def interrupt_twice(lxcpath: str, fifo: str, seconds: str) -> list[Any]:
    """A Ctrl-C during the start, and another one while we wait for its end."""
    first = threading.Event()

    def handler(*_: object) -> None:
        first.set()
        raise KeyboardInterrupt

    def action() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        first.wait()
        os.kill(os.getpid(), signal.SIGINT)

    signal.signal(signal.SIGINT, handler)
    return interrupt(lxcpath, fifo, seconds, action)


def kill_helper(lxcpath: str, fifo: str, seconds: str) -> list[Any]:
    """The end of the helper during the start."""

    def action() -> None:
        (helper,) = children()
        os.kill(helper, signal.SIGKILL)

    return interrupt(lxcpath, fifo, seconds, action)


def test_interrupted_start(lxcpath: str, fifo: str) -> None:
    """Ctrl-C during a start that hangs kills it, all of it, after a grace of five seconds."""
    outcome, took, left, running = isolated(interrupt_once, lxcpath, fifo, "30")
    assert (outcome, left, running) == ("KeyboardInterrupt", [], False)
    assert 4.5 < took < 7


def test_interrupted_start_that_ends(lxcpath: str, fifo: str) -> None:
    """Ctrl-C during a start that ends within the grace is raised at its end; the container runs and can be stopped."""
    outcome, took, _, running = isolated(interrupt_once, lxcpath, fifo, "0.2")
    assert (outcome, running) == ("KeyboardInterrupt", True)
    assert took < 4


def test_start_interrupted_twice(lxcpath: str, fifo: str) -> None:
    """A second Ctrl-C ends the grace, and leaves no more than the first."""
    outcome, took, left, running = isolated(interrupt_twice, lxcpath, fifo, "8")
    assert (outcome, left, running) == ("KeyboardInterrupt", [], False)
    assert took < 4


def test_killed_helper(lxcpath: str, fifo: str) -> None:
    """A start whose helper is killed fails, and the container does not come up later."""
    outcome, _, _, running = isolated(kill_helper, lxcpath, fifo, "1")
    assert outcome.endswith(": the start helper died")
    assert not running
    assert processes(lxcpath) == []
