# SPDX-License-Identifier: LGPL-2.1-or-later
"""The rest of Container: each method on real containers, what it raises where liblxc says no, and what it refuses."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from binding_helpers import await_init, isolated, made, quick_copy
from conftest import require

from lxccopy_ffi import (
    CloneFlag,
    Console,
    Container,
    ContainerExistsError,
    ContainerNotFoundError,
    EphemeralCopy,
    LiblxcError,
    OptionError,
    Snapshot,
    UnsupportedError,
    containers,
)
from lxccopy_ffi._raw import lib, wait_readable
from lxccopy_ffi.removal import discard

Use = Callable[[Container], object]


@pytest.fixture
def base(lxcpath: str) -> Iterator[Container]:
    """A handle of the base, which does not run."""
    with Container("base", lxcpath) as container:
        yield container


@pytest.fixture
def stopped(lxcpath: str) -> Iterator[Container]:
    """A snapshot of the base, which may be changed; it is removed afterwards, with what was made of it."""
    require(shutil.which("rsync"), "rsync is needed")
    with made(lxcpath, {}) as container:
        try:
            yield container
        finally:
            discard("restored", lxcpath)
            container.destroy_snapshots()
            shutil.rmtree(f"/run/lxc/lock{container.directory}", ignore_errors=True)


@pytest.fixture
def copy(lxcpath: str) -> Iterator[EphemeralCopy]:
    """A running copy of the base with an init that is quick to halt and to reboot."""
    with quick_copy(lxcpath) as running:
        yield running


@pytest.fixture
def running(copy: EphemeralCopy) -> Container:
    """The running copy."""
    return copy.container


# What nobody may ask


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda c: c.config(7), "the key must be a str, not int"),
        (lambda c: c.set_config(None, "x"), "the key must be a str, not NoneType"),
        (lambda c: c.clear_config("lxc.uts.name = x\n"), "the key cannot be"),
        (lambda c: c.replace_config(b"lxc.uts.name", "x"), "the key must be a str, not bytes"),
        (lambda c: c.running_config(""), "the key cannot be ''"),
        (lambda c: c.keys(7), "the prefix must be a str, not int"),
        (lambda c: c.keys(""), "the prefix cannot be ''"),
        (lambda c: c.wait(7), "the state must be a str or several, not 7"),
        (lambda c: c.wait(b"RUNNING"), "the state must be a str or several"),
        (lambda c: c.wait("running"), "there is no state 'running'; there are STOPPED, "),
        (lambda c: c.wait(["RUNNING", 7]), "there is no state 7"),
        (lambda c: c.wait(()), "no state is given"),
        (lambda c: c.wait("STOPPED", "1"), "timeout must be a number of seconds, not '1'"),
        (lambda c: c.reboot("1"), "timeout must be a number of seconds"),
        (lambda c: c.shutdown("1"), "timeout must be a number of seconds"),
        (lambda c: c.snapshot(7), "the comment must be a str, not int"),
        (lambda c: c.restore_snapshot("../x"), "the snapshot name '../x' is not allowed"),
        (lambda c: c.restore_snapshot("snap0", ".."), "the new name '..' is not allowed"),
        (lambda c: c.restore_snapshot("snap0", 7), "the new name must be a str, not int"),
        (lambda c: c.destroy_snapshot(0), "the snapshot name must be a str, not int"),
        (lambda c: c.cgroup_item(7), "the key must be a str, not int"),
        (lambda c: c.cgroup_item("../memory.max"), "the key cannot be"),
        (lambda c: c.set_cgroup_item(7, "1"), "the key must be a str, not int"),
        (lambda c: c.set_cgroup_item("memory.max", 1), "the value of memory.max must be a str, not int"),
        (lambda c: c.add_device_node(7), "the device must be a path, not 7"),
        (lambda c: c.add_device_node("/nonexistent"), "cannot look at the device /nonexistent: No such file"),
        (lambda c: c.add_device_node("/etc/passwd"), "/etc/passwd is no device"),
        (lambda c: c.remove_device_node("/dev"), "/dev is no device"),
        (lambda c: c.remove_device_node(b"/dev/null"), "the device must be a path, not b'/dev/null'"),
        (lambda c: c.ips("ipv4"), "family must be 'inet', 'inet6' or None, not 'ipv4'"),
        (lambda c: c.ips(interface=7), "the interface must be a str, not int"),
        (lambda c: c.ips(scope=-1), "scope must be a whole number from 0 on, not -1"),
        (lambda c: c.ips(scope=True), "scope must be a whole number"),
        (lambda c: c.ips(timeout="1"), "timeout must be a number of seconds"),
        (lambda c: c.attach_interface(7), "the interface must be a str, not int"),
        (lambda c: c.attach_interface("a" * 16), "the interface cannot be"),
        (lambda c: c.attach_interface("eth0", "a b"), "the new name cannot be 'a b'"),
        (lambda c: c.detach_interface("../x"), "the interface cannot be"),
        (lambda c: c.open_console("1"), "tty must be a whole number from -1 on, not '1'"),
        (lambda c: c.open_console(1 << 31), "tty must be a whole number"),
        (lambda c: c.console(stdin=None), "stdin must be a whole number from 0 on, not None"),
        (lambda c: c.console(stderr=-1), "stderr must be a whole number from 0 on, not -1"),
        (lambda c: c.console(escape="A"), "escape must be a letter from a to z, or None, not 'A'"),
        (lambda c: c.console(escape=1), "escape must be a letter"),
        (lambda c: c.checkpoint(7), "the directory must be a path, not 7"),
        (lambda c: c.checkpoint("/tmp", stop=1), "stop must be True or False, not 1"),
        (lambda c: c.checkpoint("/tmp", verbose="no"), "verbose must be True or False, not 'no'"),
        (lambda c: c.restore(""), "the directory cannot be ''"),
    ],
)
def test_wrong_arguments(base: Container, criu: Path, use: Use, words: str) -> None:
    """What is of a wrong type, or cannot be meant, is refused with the argument's name, before anything else."""
    with pytest.raises(OptionError) as caught:
        use(base)
    assert words in str(caught.value)
    assert not criu.exists()


@pytest.mark.parametrize(
    ("use", "operation"),
    [
        (lambda c: c.freeze(), "freeze"),
        (lambda c: c.unfreeze(), "unfreeze"),
        (lambda c: c.reboot(1), "reboot"),
        (lambda c: c.init_pidfd(), "open the init of"),
        (lambda c: c.cgroup_item("memory.max"), "get memory.max of"),
        (lambda c: c.set_cgroup_item("memory.max", "1M"), "set memory.max = 1M for"),
        (lambda c: c.add_device_node("/dev/null"), "give a device to"),
        (lambda c: c.remove_device_node("/dev/null"), "take a device from"),
        (lambda c: c.interfaces(), "list the interfaces of"),
        (lambda c: c.ips(timeout=9), "list the addresses of"),
        (lambda c: c.attach_interface("eth7"), "move the interface eth7 into"),
        (lambda c: c.detach_interface("eth7"), "take the interface eth7 from"),
        (lambda c: c.open_console(), "open a terminal of"),
        (lambda c: c.console(), "open a terminal of"),
        (lambda c: c.checkpoint("/nonexistent/x"), "checkpoint"),
    ],
)
def test_not_running(base: Container, criu: Path, use: Use, operation: str) -> None:
    """What needs a running container says so where it does not run."""
    with pytest.raises(LiblxcError) as caught:
        use(base)
    assert (operation, "it is not running") == (caught.value.operation, caught.value.reason)
    assert not criu.exists()


@pytest.mark.parametrize(
    "use",
    [
        lambda c: c.config_path,
        lambda c: c.keys(),
        lambda c: c.wait("STOPPED", 0),
        lambda c: c.wait("STOPPED"),
        lambda c: c.reboot(),
        lambda c: c.freeze(),
        lambda c: c.unfreeze(),
        lambda c: c.init_pidfd(),
        lambda c: c.snapshot(),
        lambda c: c.snapshots(),
        lambda c: c.restore_snapshot("snap0"),
        lambda c: c.destroy_snapshot("snap0"),
        lambda c: c.destroy_snapshots(),
        lambda c: c.destroy_with_snapshots(),
        lambda c: c.cgroup_item("memory.max"),
        lambda c: c.set_cgroup_item("memory.max", "1"),
        lambda c: c.add_device_node("/dev/null"),
        lambda c: c.remove_device_node("/dev/null"),
        lambda c: c.interfaces(),
        lambda c: c.ips(),
        lambda c: c.attach_interface("eth7"),
        lambda c: c.detach_interface("eth7"),
        lambda c: c.open_console(),
        lambda c: c.console(),
        lambda c: c.checkpoint("/nonexistent/x"),
        lambda c: c.restore("/nonexistent/x"),
    ],
)
def test_closed_handle(lxcpath: str, criu: Path, use: Use) -> None:
    """A closed handle is refused before liblxc could touch freed memory."""
    with Container("base", lxcpath) as container:
        pass
    with pytest.raises(ValueError, match="the handle of container 'base' is closed"):
        use(container)
    assert not criu.exists()


# Looking


def test_keys(base: Container, lxcpath: str) -> None:
    """All keys are listed, or those below one; where there are none, that is an error. The path is liblxc's."""
    assert {"lxc.rootfs.path", "lxc.uts.name", "lxc.net"} <= set(base.keys())
    assert "type" in base.keys("lxc.net.0")
    with pytest.raises(LiblxcError, match=r"cannot list the keys below lxc\.nonsense of container 'base'"):
        base.keys("lxc.nonsense")
    assert lxcpath == base.config_path


def test_containers(running: Container, lxcpath: str) -> None:
    """Defined containers have a configuration, active ones run; by default both are listed, sorted by name."""
    both = sorted(["base", running.name])
    assert [both, both] == [containers(lxcpath), containers(lxcpath, active=False)]
    assert [running.name] == containers(Path(lxcpath), defined=False)


def test_containers_without_configuration(running: Container, lxcpath: str) -> None:
    """A container that runs is listed also when its configuration is gone, but not among the defined ones."""
    os.rename(running.config_file, f"{running.config_file}.away")
    try:
        both = sorted(["base", running.name])
        assert [both, ["base"]] == [containers(lxcpath), containers(lxcpath, active=False)]
    finally:
        os.rename(f"{running.config_file}.away", running.config_file)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"lxcpath": "/nonexistent"}, "cannot look for containers in /nonexistent: No such file or directory"),
        ({"lxcpath": "/etc/passwd"}, "cannot look for containers in /etc/passwd: Not a directory"),
        ({"lxcpath": 7}, "the lxcpath must be a path, not int"),
        ({"active": False, "defined": False}, "active and defined are both False"),
        ({"active": 1}, "active must be True or False, not 1"),
        ({"defined": "no"}, "defined must be True or False, not 'no'"),
    ],
)
def test_containers_refuses(arguments: dict[str, Any], words: str) -> None:
    """A directory that cannot be read is an error and not an empty one, and so is asking for nothing."""
    with pytest.raises(OptionError) as caught:
        containers(**arguments)
    assert words in str(caught.value)


def test_init_pidfd(running: Container) -> None:
    """A descriptor of the init is close-on-exec, and readable when the init has ended."""
    pidfd = running.init_pidfd()
    try:
        assert f"Pid:\t{running.init_pid}\n" in Path(f"/proc/self/fdinfo/{pidfd}").read_text(encoding="ascii")
        assert (False, False) == (os.get_inheritable(pidfd), wait_readable(pidfd, 0))
        running.stop()
        assert wait_readable(pidfd, 10)
    finally:
        os.close(pidfd)


# Freezing, rebooting


def test_freeze(running: Container) -> None:
    """A container is frozen and goes on, also when told twice."""
    for change, state in ((running.freeze, "FROZEN"), (running.unfreeze, "RUNNING")):
        change()
        change()
        assert state == running.state


def test_reboot(running: Container) -> None:
    """A reboot gives the container another init, under the same monitor."""
    init, monitor = running.init_pid, running.monitor_pid
    assert running.reboot(20)
    assert running.init_pid not in {init, -1}
    assert (True, monitor) == (running.running, running.monitor_pid)
    assert Path(f"/proc/{monitor}").exists()


def test_reboot_with_command(copy: EphemeralCopy, running: Container) -> None:
    """A command of ours that nobody waits for does not keep a container from rebooting."""
    with open(os.devnull, "r+b", buffering=0) as null:
        fd = null.fileno()
        running.attach(["sleep", "1000"], stdin=fd, stdout=fd, stderr=fd, env={})
    assert running.reboot(20)
    assert 0 == copy.run(["true"]).returncode


def test_reboot_in_no_time(running: Container) -> None:
    """Whoever has no time is told that it has not happened yet; the container reboots all the same."""
    pidfd = running.init_pidfd()
    assert not running.reboot(0)
    assert wait_readable(pidfd, 10)
    os.close(pidfd)
    assert running.wait("RUNNING", 10)


def test_reboot_that_stops(running: Container) -> None:
    """A container that stops where it should reboot is an error."""
    os.kill(running.init_pid, signal.SIGSTOP)  # it cannot reboot yet
    killer = threading.Timer(0.3, os.kill, (running.init_pid, signal.SIGKILL))
    killer.start()
    with pytest.raises(LiblxcError, match=r"cannot reboot container.*: it stopped instead"):
        running.reboot(20)
    killer.join()


# Waiting


def timed(call: Callable[[], object]) -> tuple[object, float]:
    """What a call returns, and how long it takes, in seconds."""
    start = time.monotonic()
    return call(), time.monotonic() - start


def test_wait_for_what_is(running: Container, base: Container) -> None:
    """A state that has come is not waited for, however little time there is."""
    for timeout in (0, 0.0, -1, 5, None):
        assert running.wait("RUNNING", timeout)
        assert running.wait(["FROZEN", "RUNNING"], timeout)
        assert base.wait("STOPPED", timeout)
    assert not running.wait("STOPPED", 0)


@pytest.mark.parametrize("state", ["FROZEN", "STOPPED", ("FROZEN", "STOPPED")])
def test_wait_in_vain(running: Container, state: str) -> None:
    """A state that does not come is waited for as long as was said, in parts of seconds, too."""
    came, seconds = timed(lambda: running.wait(state, 0.3))
    assert not came
    assert 0.3 <= seconds < 0.9


def test_wait_for_change(running: Container) -> None:
    """A state that comes is noticed at once, by whichever thread and handle it was brought about."""
    with Container(running.name, running.lxcpath) as other:
        for change, state in ((other.freeze, "FROZEN"), (other.unfreeze, "RUNNING")):
            changed: list[float] = []
            timer = threading.Timer(0.3, _note_the_time_of, (change, changed))
            timer.start()
            assert running.wait(state, 20)
            seconds = time.monotonic()
            timer.join()
            assert abs(seconds - changed[0]) < 0.5


def _note_the_time_of(call: Callable[[], object], times: list[float]) -> None:
    call()
    times.append(time.monotonic())


def test_wait_for_end(running: Container) -> None:
    """STOPPED has come when all of an ephemeral container is gone, also where another thread stops it."""
    timer = threading.Timer(0.3, running.stop)
    timer.start()
    assert running.wait("STOPPED", 20)
    assert not os.path.lexists(running.directory)
    timer.join()
    assert running.wait("STOPPED")


def test_wait_for_start(lxcpath: str, tmp_path: Path) -> None:
    """RUNNING can be waited for before a container starts and while it does; a start that takes long delays nobody."""
    obstacle = tmp_path / "obstacle"
    obstacle.touch()
    with made(lxcpath, {"lxc.hook.pre-start": f"sh -c 'while test -e {obstacle}; do sleep 0.05; done'"}) as container:
        starter = threading.Thread(target=container.start)
        with Container(container.name, lxcpath) as other:
            assert not other.wait("RUNNING", 0.1)
            starter.start()
            came, seconds = timed(lambda: other.wait("RUNNING", 0.5))
            obstacle.unlink()
            assert (False, True) == (came, seconds < 1)
            assert other.wait("RUNNING", 20)
        starter.join()
        container.stop()


def test_wait_is_interrupted(running: Container) -> None:
    """A signal handler runs at once, and what it raises ends the wait."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise InterruptedError

    def wait() -> None:
        with pytest.raises(InterruptedError):
            running.wait("FROZEN")

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        assert timed(wait)[1] < 0.9
    finally:
        signal.signal(signal.SIGALRM, before)


def test_wait_leaves_nothing(running: Container) -> None:
    """A wait leaves neither a thread nor a descriptor."""

    def left() -> tuple[int, int]:
        return threading.active_count(), len(os.listdir("/proc/self/fd"))

    before = left()
    running.wait("FROZEN", 0.05)
    running.wait("RUNNING", 5)
    deadline = time.monotonic() + 10
    while left() != before and time.monotonic() < deadline:
        time.sleep(0.05)  # liblxc takes up to a second to come back
    assert before == left()


def test_wait_gives_its_handle_back(running: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    """The handle with which a wait looks is given back to liblxc once."""
    given: list[object] = []

    def put(pointer: Any) -> int:
        given.append(pointer)
        return lib.lxc_container_put(pointer)

    monkeypatch.setattr("lxccopy_ffi.waiting.lib", Replaced(lxc_container_put=put))
    assert running.wait("RUNNING", 10)
    deadline = time.monotonic() + 10
    while not given and time.monotonic() < deadline:
        time.sleep(0.01)
    assert 1 == len(given)


class Replaced:
    """The functions of the extension, some of them replaced."""

    def __init__(self, **functions: object) -> None:
        self._functions = functions

    def __getattr__(self, name: str) -> object:
        return self._functions.get(name) or getattr(lib, name)


# Its own snapshots


def seen(snapshots: list[Snapshot]) -> list[tuple[str, str, str]]:
    """The names, comments and paths of snapshots."""
    return [(snapshot.name, snapshot.comment, snapshot.lxcpath) for snapshot in snapshots]


def test_snapshots(stopped: Container) -> None:
    """Snapshots are made with and without a comment, listed, and removed one by one."""
    path = f"{stopped.directory}/snaps"
    assert [] == stopped.snapshots()
    assert ["snap0", "snap1"] == [stopped.snapshot("why: \u00e4 \udcff\n"), stopped.snapshot()]
    found = stopped.snapshots()
    assert [("snap0", "why: \u00e4 \udcff\n", path), ("snap1", "", path)] == seen(found)
    for snapshot in found:
        time.strptime(snapshot.timestamp, "%Y:%m:%d %H:%M:%S")
    assert "snap0" in repr(found[0])
    stopped.destroy_snapshot("snap0")
    assert ["snap1"] == [snapshot.name for snapshot in stopped.snapshots()]
    stopped.destroy_snapshots()
    assert [] == stopped.snapshots()
    stopped.destroy_snapshots()


def test_order_of_snapshots(stopped: Container) -> None:
    """Snapshots are listed in the order in which they were made, also beyond the tenth."""
    for number in range(12):
        directory = Path(stopped.directory, f"snaps/snap{number}")
        directory.mkdir(parents=True)
        (directory / "config").touch()
    try:
        assert [f"snap{number}" for number in range(12)] == [snapshot.name for snapshot in stopped.snapshots()]
    finally:
        shutil.rmtree(f"{stopped.directory}/snaps")


def test_restored_snapshot(stopped: Container) -> None:
    """A snapshot becomes a container of another name that has what was there when it was made, and runs."""
    file = Path(stopped.directory, "overlay/delta/file")
    file.parent.mkdir(exist_ok=True)
    file.touch()
    name = stopped.snapshot()
    file.unlink()
    with stopped.restore_snapshot(name, "restored") as restored:
        assert ("restored", stopped.lxcpath, True) == (restored.name, restored.lxcpath, restored.defined)
        restored.start()
        with open(os.devnull, "r+b", buffering=0) as null:
            fd = null.fileno()
            child = restored.attach(["test", "-e", "/file"], stdin=fd, stdout=fd, stderr=fd, env={})
        status = child.wait()
        restored.stop()
        assert 0 == status


def test_snapshot_in_its_own_place(stopped: Container) -> None:
    """A snapshot takes its container's place; the old handle still works and still says why something failed."""
    file = Path(stopped.directory, "overlay/delta/file")
    name = stopped.snapshot()
    file.parent.mkdir(exist_ok=True)
    file.touch()
    with stopped.restore_snapshot(name) as again:
        assert (stopped.name, True, False) == (again.name, again.defined, file.exists())
    assert stopped.config("lxc.uts.name") == stopped.name
    with pytest.raises(LiblxcError) as caught:
        stopped.set_config("lxc.nonsense", "1")
    assert 'Invalid argument - Unsupported config key "lxc.nonsense"' == caught.value.reason


def test_snapshot_errors(stopped: Container) -> None:
    """There must be such a snapshot, and nothing of the new name."""
    where = f"container '{stopped.name}' in {stopped.lxcpath} has no snapshot 'snap0'"
    for use in (stopped.restore_snapshot, stopped.destroy_snapshot):
        with pytest.raises(ContainerNotFoundError) as caught:
            use("snap0")
        assert where == str(caught.value)
    stopped.snapshot()
    with pytest.raises(ContainerExistsError, match="there is already a container 'base' in"):
        stopped.restore_snapshot("snap0", "base")


def test_snapshots_of_running(stopped: Container) -> None:
    """Of a container that runs no snapshot is made, and none takes its place or goes with it."""
    name = stopped.snapshot()
    stopped.start()
    try:
        for use in (stopped.snapshot, lambda: stopped.restore_snapshot(name), stopped.destroy_with_snapshots):
            with pytest.raises(LiblxcError) as caught:
                use()
            assert ("it is running", "stop it first") == (caught.value.reason, caught.value.hint)
        assert stopped.running
    finally:
        stopped.stop()
    assert [name] == [snapshot.name for snapshot in stopped.snapshots()]


def test_snapshot_that_fails(stopped: Container) -> None:
    """A snapshot that cannot be made is an error with liblxc's reason."""
    Path(stopped.directory, "snaps").touch()
    try:
        with pytest.raises(LiblxcError) as caught:
            stopped.snapshot()
    finally:
        os.unlink(f"{stopped.directory}/snaps")
    assert "make a snapshot of" == caught.value.operation
    assert caught.value.reason


@pytest.mark.parametrize("number", [0, 2])
def test_destroy_with_snapshots(stopped: Container, number: int) -> None:
    """A container goes with its snapshots, however many it has; one that is not defined is missed."""
    with stopped.clone("restored", flags=CloneFlag.KEEPNAME | CloneFlag.SNAPSHOT) as full:
        for _ in range(number):
            full.snapshot()
        full.destroy_with_snapshots()
        shutil.rmtree(f"/run/lxc/lock{full.directory}", ignore_errors=True)
        assert not os.path.lexists(full.directory)
        for use in (full.snapshot, full.destroy_with_snapshots):
            with pytest.raises(ContainerNotFoundError):
                use()


# Its cgroups and devices


def limit() -> str:
    """The cgroup item that limits memory here."""
    return "memory.limit_in_bytes" if os.path.isdir("/sys/fs/cgroup/memory") else "memory.max"


def test_cgroup_items(running: Container) -> None:
    """A limit that is set holds and can be read; items of many lines are read whole."""
    running.set_cgroup_item(limit(), "64M")
    assert str(64 << 20) == running.cgroup_item(limit())
    assert len(running.cgroup_item("memory.stat").splitlines()) > 10


def test_long_cgroup_item(running: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    """An item is read whole, however long it is."""
    text = b"x" * 10_000 + b"\n"

    def get(_c: object, _key: bytes, value: Any, size: int) -> int:
        part = text[: size - 1]
        value[0 : len(part)] = part
        return min(len(text), size)

    monkeypatch.setattr("lxccopy_ffi.container.lib", Replaced(container_get_cgroup_item=get))
    assert "x" * 10_000 == running.cgroup_item("memory.stat")


def test_cgroup_items_that_fail(running: Container) -> None:
    """An item that is not there, or a value that the kernel refuses, is an error."""
    with pytest.raises(LiblxcError) as caught:
        running.cgroup_item("memory.nonsense")
    assert ("get memory.nonsense of", "No such file or directory") == (caught.value.operation, caught.value.reason)
    for key, value in (("memory.nonsense", "1"), (limit(), "lots")):
        with pytest.raises(LiblxcError, match=f"cannot set {key} = {value} for .*the kernel refuses the value"):
            running.set_cgroup_item(key, value)


def test_device_nodes(copy: EphemeralCopy, running: Container) -> None:
    """A device of the host can be given to the container and taken away again."""
    show = ["stat", "-c", "%t,%T", "/dev/kmsg"]
    running.add_device_node(Path("/dev/kmsg"))
    assert "1,b\n" == copy.run(show, capture_output=True, text=True).stdout
    running.remove_device_node("/dev/kmsg")
    assert "" == copy.run(show, capture_output=True, text=True).stdout


def test_device_nodes_that_fail(copy: EphemeralCopy, running: Container, tmp_path: Path) -> None:
    """A device cannot be made where the container has a file in place of its directory."""
    device = tmp_path / "device"
    os.mknod(device, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    copy.run(["sh", "-c", f"mkdir -p {tmp_path.parent} && touch {tmp_path}"], check=True)
    with pytest.raises(LiblxcError, match=f"cannot give a device to .*is something in the way of {device}"):
        running.add_device_node(device)


# Its network


def test_interfaces(running: Container) -> None:
    """A container without network has the loopback interface."""
    assert ["lo"] == running.interfaces()


def test_ips(copy: EphemeralCopy, running: Container) -> None:
    """Addresses are listed for an interface and a family, and waited for as long as was said."""
    came, seconds = timed(lambda: running.ips(interface="lo", timeout=0.3))
    assert [] == came
    assert 0.3 <= seconds < 0.9
    assert [] == running.ips("inet", interface="nonsense")
    timer = threading.Timer(0.3, copy.run, (["ip", "link", "set", "lo", "up"],))
    timer.start()
    assert ["127.0.0.1"] == running.ips("inet", interface="lo", timeout=20)
    timer.join()
    assert [] == running.ips()


def test_ips_of_what_stops(running: Container) -> None:
    """Whoever waits for addresses learns that the container has stopped."""
    timer = threading.Timer(0.3, running.stop)
    timer.start()
    with pytest.raises(LiblxcError, match=r"cannot list the addresses of .*: it is not running"):
        running.ips(timeout=None)
    timer.join()


def exchange_interfaces(lxcpath: str) -> list[Any]:
    """In a network namespace of its own: give a container an interface, and take it back; what is seen meanwhile."""
    kinds = [kind for kind in ("dummy", "veth") if _ip("link", "add", "ours", "type", kind)][:1]
    if not kinds:
        return []
    with quick_copy(lxcpath) as copy:
        container = copy.container
        container.attach_interface("ours", "theirs")
        copy.run(["sh", "-c", "ip address add 192.0.2.7/24 dev theirs && ip link set theirs up"], check=True)
        found = [sorted(set(container.interfaces()) & {"ours", "theirs"}), container.ips("inet"), _here()]
        container.detach_interface("theirs", "back")
        return [*found, _here(), [_refusal(container.attach_interface), _refusal(container.detach_interface)]]


def _refusal(use: Callable[[str], None]) -> str:
    try:
        use("theirs")
    except LiblxcError as error:
        return f"{error.operation}: {error.reason}{error.hint}"
    return ""


def _ip(*words: str) -> bool:
    return subprocess.run(["ip", *words], stderr=subprocess.DEVNULL, check=False).returncode == 0


def _here() -> list[str]:
    done = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True)
    return sorted({line.split(": ")[1].partition("@")[0] for line in done.stdout.splitlines()} & {"ours", "back"})


def test_moved_interface(lxcpath: str) -> None:
    """An interface moves into the container, gets an address there, and back; what is not there is an error."""
    require(shutil.which("ip"), "ip is needed (package iproute2)")
    found = isolated(exchange_interfaces, lxcpath, prefix=["unshare", "--net"])
    require(found, "the kernel makes no network interfaces of ours")
    assert [["theirs"], ["192.0.2.7"], [], ["back"]] == found[:4]
    into, out = found[4]
    assert "move the interface theirs into: there is no such interface here" == into
    assert out.startswith('take the interface theirs from: Failed to determine whether network device "theirs" is up')


# Its terminals


def read_until(console: Console, word: bytes) -> bytes:
    """What a container prints on its terminal, up to a word."""
    data = b""
    while word not in data and wait_readable(console.fd, 10):
        data += os.read(console.fd, 4096)
    return data


def test_open_console(copy: EphemeralCopy, running: Container) -> None:
    """A terminal is lent to one at a time, passes on what is printed and typed, and can be lent again."""
    with running.open_console() as console:
        assert (1, console.fd, False) == (console.tty, console.fileno(), os.get_inheritable(console.fd))
        assert os.isatty(console.fd)
        copy.run(["sh", "-c", "echo printed >/dev/tty1"], check=True)
        assert b"printed\r\n" in read_until(console, b"printed\r\n")
        for tty in (-1, 1, 99):
            with pytest.raises(LiblxcError, match=r"cannot open a terminal of .*or somebody has it"):
                running.open_console(tty)
    assert -1 == console.fd
    console.close()
    with running.open_console(1) as again:
        os.write(again.fd, b"typed\n")
        reading = copy.run(["sh", "-c", "head -n 1 /dev/tty1"], capture_output=True, text=True, timeout=10)
        assert "typed\n" == reading.stdout


def test_console_of_boot(running: Container) -> None:
    """Terminal 0 is the container's console."""
    with running.open_console(0) as console:
        assert (0, True) == (console.tty, os.isatty(console.fd))
        assert "tty 0" in repr(console)


def use_console(name: str, lxcpath: str) -> bool:
    """Have a container's terminal on one of ours, and leave it with Ctrl-b q once ours is raw."""
    primary, replica = os.openpty()

    def leave() -> None:
        deadline = time.monotonic() + 10
        while termios.tcgetattr(replica)[3] & termios.ICANON and time.monotonic() < deadline:
            pass
        os.write(primary, b"\x02q")

    with Container(name, lxcpath) as container:
        threading.Thread(target=leave).start()
        container.console(1, stdin=replica, stdout=replica, stderr=replica, escape="b")
        return bool(termios.tcgetattr(replica)[3] & termios.ICANON)


def test_console(running: Container, lxcpath: str) -> None:
    """A console ends with its escape sequence and leaves our terminal as it was; one that is lent is an error."""
    assert isolated(use_console, running.name, lxcpath)
    with running.open_console(1), pytest.raises(LiblxcError, match=r"cannot open a terminal of .*or somebody has it"):
        running.console(1)


# Checkpoint and restore

# CRIU as liblxc calls it, as far as needed: it is too deep in the kernel to work everywhere.
CRIU = """#!/bin/sh
test "$1" = --version && echo 'Version: 3.17.1' && exit
echo "$@" >{log}
exit {status}
"""


@pytest.fixture
def criu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in CRIU's place that writes its arguments to this file, and fails."""
    log = tmp_path / "criu.log"
    install_criu(log, 1)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return log


def install_criu(log: Path, status: int) -> None:
    """Put a program in CRIU's place."""
    program = log.parent / "criu"
    program.write_text(CRIU.format(log=log, status=status), encoding="ascii")
    program.chmod(0o755)


def test_checkpoint(running: Container, criu: Path, tmp_path: Path) -> None:
    """A checkpoint is CRIU's to make, in the directory that was said, which is made; the container goes on."""
    install_criu(criu, 0)
    directory = tmp_path / "state"
    running.checkpoint(directory)
    words = criu.read_text(encoding="utf-8").split()
    assert "dump" == words[0]
    assert str(directory) == words[words.index("-D") + 1]
    assert (True, True) == (directory.is_dir(), running.running)


def test_checkpoint_that_fails(running: Container, criu: Path, tmp_path: Path) -> None:
    """A CRIU that fails is an error that says where it has its log."""
    with pytest.raises(LiblxcError) as caught:
        running.checkpoint(tmp_path / "state", verbose=True)
    assert ("checkpoint", f"see the log in {tmp_path}/state") == (caught.value.operation, caught.value.hint)
    assert criu.exists()
    assert running.running


@pytest.mark.usefixtures("criu")
def test_restore_that_fails(stopped: Container, tmp_path: Path) -> None:
    """A restore that fails is an error, and nothing runs then; what is not defined is not restored."""
    before = Path("/proc/self/cgroup").read_bytes()
    with pytest.raises(LiblxcError) as caught:
        stopped.restore(tmp_path)
    assert before == Path("/proc/self/cgroup").read_bytes()
    assert ("restore", f"see the log in {tmp_path}") == (caught.value.operation, caught.value.hint)
    assert "STOPPED" == stopped.state
    with Container("restored", stopped.lxcpath) as undefined, pytest.raises(ContainerNotFoundError):
        undefined.restore(tmp_path)


def test_restore_of_running(running: Container, criu: Path, tmp_path: Path) -> None:
    """A container that runs is not restored."""
    with pytest.raises(LiblxcError, match=r"cannot restore container.*: it is running"):
        running.restore(tmp_path)
    assert not criu.exists()


def test_no_criu(running: Container, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without CRIU there is neither, and the error names it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for use in (running.checkpoint, running.restore):
        with pytest.raises(UnsupportedError, match=r"need the program criu in the PATH \(package criu\)"):
            use(tmp_path)


def refused(name: str, lxcpath: str) -> list[str]:
    """The operations that are refused in a process that ignores SIGCHLD."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    found = []
    with Container(name, lxcpath) as container:
        for use in (container.interfaces, container.ips, lambda: container.add_device_node("/dev/kmsg")):
            try:
                use()
            except LiblxcError as error:
                found.append(f"{error.operation}: {error.reason}")
    return found


def test_ignored_sigchld(running: Container, lxcpath: str) -> None:
    """With SIGCHLD ignored, calls of liblxc that wait for a child are refused."""
    reason = "this process ignores SIGCHLD, so liblxc would lose its children"
    operations = ("list the interfaces of", "list the addresses of", "give a device to")
    assert [f"{operation}: {reason}" for operation in operations] == isolated(refused, running.name, lxcpath)


def test_quick_init_is_ready(running: Container) -> None:
    """The init of these tests has its handlers again after a reboot."""
    assert running.reboot(20)
    await_init(running.init_pid)
    assert running.shutdown(20)
