# SPDX-License-Identifier: LGPL-2.1-or-later
"""Each function of the extension on real containers: it does what liblxc says, and leaks nothing."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import signal
import socket
import stat
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from binding_helpers import await_init, isolated, made, quick_copy
from conftest import cgroups, require

from lxccopy_ffi import Container, EphemeralCopy, LiblxcMissingError, _raw
from lxccopy_ffi._raw import ffi, lib, wait_readable
from lxccopy_ffi.locking import forget_lock
from lxccopy_ffi.removal import discard

NULL: Any = ffi.NULL


@pytest.fixture(autouse=True)
def _liblxc() -> None:
    """Load liblxc, before which none of its wrappers may be called."""
    try:
        _raw.liblxc()
    except LiblxcMissingError as error:
        require(condition=False, reason=str(error))


@pytest.fixture
def base(lxcpath: str) -> Iterator[Any]:
    """A handle of the base, which is stopped; copies of it, and their lock files, are removed afterwards."""
    with Container("base", lxcpath) as container:
        yield container._c
    for name in set(os.listdir(lxcpath)) - {"base"}:
        discard(name, lxcpath)


@pytest.fixture
def copy(lxcpath: str) -> Iterator[EphemeralCopy]:
    """A running copy of the base with an init that is quick to halt."""
    with quick_copy(lxcpath) as running:
        yield running


@pytest.fixture
def c(copy: EphemeralCopy) -> Any:
    """The running copy's handle."""
    return copy.container._c


def strings(pointer: Any) -> list[str]:
    """A NULL-terminated list of liblxc's as text; it is freed."""
    if pointer == NULL:
        return []
    count = 0
    while pointer[count] != NULL:
        count += 1
    return _raw.take_list(pointer, count)


def listed(function: Callable[[Any, Any], int], lxcpath: str) -> list[str]:
    """The containers that one of liblxc's list functions names."""
    names: Any = ffi.new("char ***")
    count = function(lxcpath.encode(), names)
    return _raw.take_list(names[0], count) if count > 0 else []


def item(function: Callable[[Any, Any, Any, int], int], c: Any, key: Any) -> str | int:
    """What a function of the get_config_item() kind has for a key, or its negative answer."""
    size = function(c, key, NULL, 0)
    if size < 0:
        return size
    value = ffi.new("char[]", size + 1)
    assert size == function(c, key, value, size + 1)
    return _raw.text(value)


def snapshots(c: Any) -> list[tuple[str, ...]]:
    """The name, comment file and path of each snapshot, in copies."""
    found: Any = ffi.new("struct lxc_snapshot **")
    count = lib.container_snapshot_list(c, found)
    try:
        return [tuple(map(_raw.text, (s.name, s.comment_pathname, s.lxcpath))) for s in found[0][0 : max(count, 0)]]
    finally:
        lib.snapshot_list_free(found[0], count)


class Mallinfo(ctypes.Structure):
    """What mallinfo2() returns; uordblks is how many bytes are in use."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in (*"abcdefg", "uordblks", "fordblks", "keepcost"))


def leak(call: Callable[[], object]) -> list[str]:
    """What 200 calls leave allocated or open, if it is a piece of memory each, or a descriptor."""
    libc = ctypes.CDLL(None)
    require(hasattr(libc, "mallinfo2"), "glibc 2.33 or later is needed")
    libc.mallinfo2.restype = Mallinfo
    for turn in range(300):
        if turn == 100:  # what is allocated once is there by now
            used, fds = libc.mallinfo2().uordblks, len(os.listdir("/proc/self/fd"))
        call()
    used, fds = libc.mallinfo2().uordblks - used, len(os.listdir("/proc/self/fd")) - fds
    return [f"{used} bytes, {fds} descriptors"] if used >= 200 * 16 or fds else []


# The library


def test_wait_states() -> None:
    """lxc_get_wait_states() counts the states, and names them where it is given room."""
    states: Any = ffi.new("const char *[]", lib.lxc_get_wait_states(NULL))
    assert len(states) == lib.lxc_get_wait_states(states)
    names = [_raw.text(state) for state in states]
    assert names == ["STOPPED", "STARTING", "RUNNING", "STOPPING", "ABORTING", "FREEZING", "FROZEN", "THAWED"]


def test_global_answers() -> None:
    """The library knows its version, its default path, its config keys and its extensions."""
    assert _raw.text(lib.lxc_get_version()).split(".")[0].isdigit()
    assert _raw.text(lib.lxc_get_global_config_item(b"lxc.lxcpath")).startswith("/")
    assert lib.lxc_get_global_config_item(b"lxc.nonsense") == NULL
    answers = [lib.lxc_config_item_is_supported(key) for key in (b"lxc.rootfs.path", b"lxc.nonsense")]
    assert answers == [True, False]
    answers = [lib.lxc_has_api_extension(name) for name in (b"mount_injection_file", b"nonsense")]
    assert answers == [True, False]


def test_lists(copy: EphemeralCopy, lxcpath: str) -> None:
    """Defined containers have a config, active ones run, and all are both."""
    both = sorted(["base", copy.name])
    assert both == listed(lib.list_defined_containers, lxcpath)
    assert [copy.name] == listed(lib.list_active_containers, lxcpath)
    assert both == listed(lib.list_all_containers, lxcpath)
    assert listed(lib.list_defined_containers, "/nonexistent") == []


def test_lists_are_freed(copy: EphemeralCopy, lxcpath: str) -> None:
    """Whatever liblxc allocates for an answer is freed, and a closed handle leaves no descriptor."""
    c = copy.container._c
    assert leak(lambda: Container("base", lxcpath).close()) == []
    assert leak(lambda: listed(lib.list_defined_containers, lxcpath)) == []
    assert leak(lambda: listed(lib.list_active_containers, lxcpath)) == []
    assert leak(lambda: strings(lib.container_get_interfaces(c))) == []
    assert leak(lambda: _raw.take_text(lib.container_get_running_config_item(c, b"lxc.uts.name"))) == []


def test_references(lxcpath: str) -> None:
    """A container's memory is given back with its last reference."""
    c: Any = lib.lxc_container_new(b"base", lxcpath.encode())
    assert lib.lxc_container_get(c) == 1
    assert [lib.lxc_container_put(c), lib.lxc_container_put(c)] == [0, 1]


# A stopped container


def test_stopped_container(base: Any) -> None:
    """A container that is defined and does not run says so."""
    assert lib.container_is_defined(base)
    assert lib.container_may_control(base)
    assert not lib.container_is_running(base)
    assert _raw.text(lib.container_state(base)) == "STOPPED"
    assert lib.container_wait(base, b"STOPPED", 0)
    assert not lib.container_wait(base, b"RUNNING", 0)
    assert lib.container_init_pid(base) == -1
    assert lib.container_init_pidfd(base) < 0
    assert lib.container_devpts_fd(base) < 0
    assert lib.container_error_num(base) == 0


def test_paths(base: Any, lxcpath: str) -> None:
    """The config path can be asked and changed, and the config file's name follows it."""
    assert _raw.text(lib.container_get_config_path(base)) == lxcpath
    name = lib.container_config_file_name(base)
    assert _raw.text(name) == f"{lxcpath}/base/config"
    lib.free(name)
    assert lib.container_set_config_path(base, b"/nonexistent")
    assert _raw.text(lib.container_get_config_path(base)) == "/nonexistent"
    assert _raw.take_text(lib.container_config_file_name(base)) == "/nonexistent/base/config"


def test_config_items(base: Any) -> None:
    """Config items are set, read, listed and cleared; unknown ones are refused."""
    assert lib.container_set_config_item(base, b"lxc.environment", b"A=1")
    assert lib.container_set_config_item(base, b"lxc.environment", b"B=2")
    assert item(lib.container_get_config_item, base, b"lxc.environment") == "A=1\nB=2\n"
    assert lib.container_clear_config_item(base, b"lxc.environment")
    assert item(lib.container_get_config_item, base, b"lxc.environment") == ""
    assert not lib.container_set_config_item(base, b"lxc.nonsense", b"1")
    assert not lib.container_clear_config_item(base, b"lxc.nonsense")
    assert int(item(lib.container_get_config_item, base, b"lxc.nonsense")) < 0
    assert "lxc.rootfs.path" in str(item(lib.container_get_keys, base, NULL)).splitlines()
    assert "type" in str(item(lib.container_get_keys, base, b"lxc.net.0")).splitlines()
    lib.container_clear_config(base)
    assert int(item(lib.container_get_config_item, base, b"lxc.uts.name")) < 0


def test_config_files(base: Any, lxcpath: str, tmp_path: Path) -> None:
    """A saved configuration can be loaded into another handle; one that is not there cannot."""
    file = str(tmp_path / "config").encode()
    assert lib.container_set_config_item(base, b"lxc.uts.name", b"elsewhere")
    assert lib.container_save_config(base, file)
    with Container("undefined", lxcpath) as other:
        assert lib.container_load_config(other._c, file)
        assert other.config("lxc.uts.name") == "elsewhere"
        assert not lib.container_load_config(other._c, b"/nonexistent")
        assert not other.defined
        forget_lock(other.name, other.lxcpath)


def test_clone_rename_destroy(base: Any, lxcpath: str) -> None:
    """A full copy can be renamed, a snapshot and its base cannot; the base can be destroyed last."""
    require(shutil.which("rsync"), "rsync is needed")
    path = lxcpath.encode()
    full = lib.container_clone(base, b"full", path, lib.LXC_CLONE_KEEPNAME, NULL, 0, NULL)
    snapshot = lib.container_clone(full, b"snapshot", path, lib.LXC_CLONE_SNAPSHOT, NULL, 0, NULL)
    assert listed(lib.list_defined_containers, lxcpath) == ["base", "full", "snapshot"]
    assert [lib.container_rename(c, b"other") for c in (full, snapshot)] == [False, False]
    assert [lib.container_destroy(c) for c in (full, snapshot)] == [False, True]
    assert lib.container_rename(full, b"renamed")
    assert listed(lib.list_defined_containers, lxcpath) == ["base", "renamed"]
    with Container("renamed", lxcpath) as renamed:
        assert lib.container_destroy(renamed._c)
        assert not renamed.defined
    assert [lib.lxc_container_put(c) for c in (full, snapshot)] == [1, 1]
    for name in ("full", "snapshot", "renamed", "other"):
        discard(name, lxcpath)


def test_snapshots(base: Any, lxcpath: str, tmp_path: Path) -> None:
    """Snapshots are made, listed with comments, restored, and destroyed: one, all, or with their container."""
    require(shutil.which("rsync"), "rsync is needed")
    comment = tmp_path / "comment"
    comment.write_text("why", encoding="ascii")
    clone = lib.container_clone(base, b"origin", lxcpath.encode(), lib.LXC_CLONE_SNAPSHOT, NULL, 0, NULL)
    assert snapshots(clone) == []
    assert [lib.container_snapshot(clone, str(comment).encode()) for _ in range(2)] == [0, 1]
    path = f"{lxcpath}/origin/snaps"
    assert snapshots(clone) == [(f"snap{i}", f"{path}/snap{i}/comment", path) for i in (0, 1)]
    assert leak(lambda: snapshots(clone)) == []
    assert Path(path, "snap0/comment").read_text(encoding="ascii") == "why"
    assert lib.container_snapshot_restore(clone, b"snap0", b"restored")
    with Container("restored", lxcpath) as restored:
        assert restored.defined
        restored.destroy()
    assert not lib.container_destroy(clone)
    assert lib.container_snapshot_destroy(clone, b"snap1")
    assert not lib.container_snapshot_destroy(clone, b"snap1")
    assert [name for name, *_ in snapshots(clone)] == ["snap0"]
    assert lib.container_snapshot_destroy_all(clone)
    assert snapshots(clone) == []
    assert lib.container_snapshot(clone, NULL) == 0
    assert lib.container_destroy_with_snapshots(clone)
    shutil.rmtree(f"/run/lxc/lock{lxcpath}/origin")  # the locks of the snapshots
    assert not lib.container_is_defined(clone)
    lib.lxc_container_put(clone)
    for name in ("origin", "restored"):
        discard(name, lxcpath)


def test_checkpoint_says_no(lxcpath: str, tmp_path: Path) -> None:
    """Checkpoint and restore of what does not run return false and log why."""
    directory = ffi.new("char[]", os.fsencode(tmp_path))
    with Container("base", lxcpath) as container:
        assert not lib.container_checkpoint(container._c, directory, False, False)
        assert container._log.read() == "container is not running"
        container._log.mark()
        assert not lib.container_restore(container._c, directory, False)
        assert container._log.read()


# A running container


def test_running_container(c: Any, copy: EphemeralCopy) -> None:
    """A running container says so; init_pidfd() and devpts_fd() give descriptors of its init and terminals."""
    assert lib.container_is_running(c)
    assert lib.container_wait(c, b"RUNNING", 0)
    pid = lib.container_init_pid(c)
    assert Path(f"/proc/{pid}/ns/pid").readlink() != Path("/proc/self/ns/pid").readlink()
    pidfd, devpts = lib.container_init_pidfd(c), lib.container_devpts_fd(c)
    assert f"Pid:\t{pid}\n" in Path(f"/proc/self/fdinfo/{pidfd}").read_text(encoding="ascii")
    assert stat.S_ISCHR(os.stat("ptmx", dir_fd=devpts).st_mode)
    os.close(devpts)
    assert lib.container_stop(c)
    assert wait_readable(pidfd, 10)
    os.close(pidfd)
    assert copy.container.wait_gone(10)


def test_freeze(c: Any) -> None:
    """A frozen container is FROZEN until it is thawed."""
    assert lib.container_freeze(c)
    assert _raw.text(lib.container_state(c)) == "FROZEN"
    assert lib.container_unfreeze(c)
    assert _raw.text(lib.container_state(c)) == "RUNNING"


def test_running_config(c: Any, copy: EphemeralCopy) -> None:
    """A running container's config is asked of its monitor."""
    assert lib.container_set_config_item(c, b"lxc.uts.name", b"in-memory-only")
    assert _raw.take_text(lib.container_get_running_config_item(c, b"lxc.uts.name")) == copy.name
    assert lib.container_get_running_config_item(c, b"lxc.nonsense") == NULL


def test_cgroup_items(c: Any) -> None:
    """A memory limit set from outside holds, in either version of cgroups; unknown items have a negative size."""
    version_1 = os.path.isdir("/sys/fs/cgroup/memory")
    limit = b"memory.limit_in_bytes" if version_1 else b"memory.max"
    assert lib.container_set_cgroup_item(c, limit, b"64M")
    value = ffi.new("char[64]")
    assert lib.container_get_cgroup_item(c, limit, value, len(value)) > 0
    assert _raw.text(value) == f"{64 << 20}\n"
    assert lib.container_get_cgroup_item(c, b"memory.nonsense", value, len(value)) < 0
    assert not lib.container_set_cgroup_item(c, b"memory.nonsense", b"1")


def test_network_lists(c: Any, copy: EphemeralCopy) -> None:
    """A container without network has the loopback interface, and its address where that is asked for."""
    copy.run(["ip", "link", "set", "lo", "up"], check=True)
    assert strings(lib.container_get_interfaces(c)) == ["lo"]
    assert strings(lib.container_get_ips(c, b"lo", b"inet", 0)) == ["127.0.0.1"]
    assert strings(lib.container_get_ips(c, NULL, NULL, 0)) == []


def test_device_nodes(c: Any, copy: EphemeralCopy) -> None:
    """A device of the host can be given to the container, usable, and taken away again."""
    show = ["stat", "-c", "%t,%T", "/dev/kmsg"]
    for change, expected in ((lib.container_add_device_node, "1,b\n"), (lib.container_remove_device_node, "")):
        assert change(c, b"/dev/kmsg", NULL)
        assert expected == copy.run(show, capture_output=True, text=True).stdout
    assert not lib.container_add_device_node(c, b"/nonexistent", NULL)


def test_console_getfd(c: Any) -> None:
    """The container's one terminal is lent to one at a time."""
    number: Any = ffi.new("int *", -1)
    terminal: Any = ffi.new("int *")
    held = lib.container_console_getfd(c, number, terminal)
    assert held >= 0
    assert number[0] == 1
    assert os.isatty(terminal[0])
    assert lib.container_console_getfd(c, ffi.new("int *", -1), ffi.new("int *")) < 0
    os.close(terminal[0])
    os.close(held)
    assert lib.container_console_getfd(c, number, terminal) >= 0
    os.close(terminal[0])


def use_console(name: str, lxcpath: str) -> int:
    """Attach to a container's terminal and leave it with the escape sequence, once it is in raw mode."""
    primary, replica = os.openpty()

    def leave() -> None:
        deadline = time.monotonic() + 10
        while termios.tcgetattr(replica)[3] & termios.ICANON and time.monotonic() < deadline:
            pass
        os.write(primary, b"\x01q")

    with Container(name, lxcpath) as container:
        threading.Thread(target=leave).start()
        return lib.container_console(container._c, -1, replica, replica, replica, 1)


def test_console(copy: EphemeralCopy, lxcpath: str) -> None:
    """The console ends with Ctrl-a q."""
    assert isolated(use_console, copy.name, lxcpath) == 0


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["sh", "-c", "exit 3"], 3 << 8),
        (["sh", "-c", "kill -9 $$"], 9),
        (["/nonexistent"], 127 << 8),
        (["/etc/hostname"], 126 << 8),
    ],
)
def test_attach_run_wait(c: Any, command: list[str], status: int) -> None:
    """attach_run_wait() returns what waitpid() does."""
    options: Any = ffi.new("lxc_attach_options_t *")
    lib.default_attach_options(options)
    argv, keep = _raw.string_list(command)
    assert status == lib.container_attach_run_wait(c, options, command[0].encode(), argv)
    del keep


@pytest.mark.parametrize(("command", "status", "error"), [("true", 0, 0), ("/nonexistent", 127, errno.ENOENT)])
def test_attach(c: Any, command: str, status: int, error: int) -> None:
    """attach() gives a child of ours, which says that it has entered, and the errno of a failed exec."""
    options: Any = ffi.new("lxc_attach_options_t *")
    lib.default_attach_options(options)
    argv, keep = _raw.string_list([command])
    errors, theirs = os.pipe()
    pid: Any = ffi.new("pid_t *")
    assert lib.container_attach(c, ffi.new("struct lxccopy_command *", [argv, NULL, -1, theirs]), options, pid) == 0
    os.close(theirs)
    assert (pid[0], status << 8) == os.waitpid(pid[0], 0)
    records = [(lib.LXCCOPY_ENTERED, 0)] + ([(lib.LXCCOPY_FAILED_EXEC, error)] if error else [])
    assert records == list(struct.iter_unpack("ii", os.read(errors, 64)))
    os.close(errors)
    del keep


@pytest.mark.parametrize(("uid", "gid", "groups"), [(5, 6, [6, 7]), (0, 0, []), (1, 2, [])])
def test_attach_as_user(c: Any, uid: int, gid: int, groups: list[int]) -> None:
    """attach() gives the command the user, group and further groups that are asked for, and no more."""
    options: Any = ffi.new("lxc_attach_options_t *")
    lib.default_attach_options(options)
    argv, keep = _raw.string_list(["grep", "-E", "^(Uid|Gid|Groups|CapEff)", "/proc/self/status"])
    output, theirs = os.pipe()
    options.stdout_fd = theirs
    list_of_groups: Any = ffi.new("gid_t[]", groups)
    command: Any = ffi.new("struct lxccopy_command *", [argv, NULL, -1, -1])
    command.as_user, command.uid, command.gid = True, uid, gid
    command.groups, command.group_count = list_of_groups, len(groups)
    pid: Any = ffi.new("pid_t *")
    assert lib.container_attach(c, command, options, pid) == 0
    os.close(theirs)
    assert (pid[0], 0) == os.waitpid(pid[0], 0)
    seen = [line.split()[1:] for line in os.read(output, 1000).decode().splitlines()]
    os.close(output)
    assert [[str(uid)] * 4, [str(gid)] * 4, [*map(str, groups)]] == seen[:3]
    assert (uid == 0) == bool(int(seen[3][0], 16))
    del keep


def test_reboot(c: Any, copy: EphemeralCopy) -> None:
    """reboot() asks for a reboot, reboot2() also waits for it; either gives the container another init."""
    inits = [lib.container_init_pid(c)]
    pidfd = lib.container_init_pidfd(c)
    assert lib.container_reboot(c)
    assert wait_readable(pidfd, 10)
    os.close(pidfd)
    assert lib.container_wait(c, b"RUNNING", 10)
    inits.append(lib.container_init_pid(c))
    await_init(inits[-1])
    assert lib.container_reboot2(c, 10)
    inits.append(lib.container_init_pid(c))
    assert len(set(inits)) == 3
    assert copy.container.running


def test_shutdown(c: Any, copy: EphemeralCopy) -> None:
    """shutdown() asks the init to halt and waits for it."""
    assert lib.container_shutdown(c, 10)
    assert copy.container.wait_gone(10)
    assert not copy.container.defined


def test_set_timeout(c: Any) -> None:
    """set_timeout() works from 6.0 on, and says that it does not exist before."""
    expected = (0, 0) if int(_raw.liblxc_version().split(".")[0]) >= 6 else (-1, errno.ENOSYS)
    ffi.errno = 0
    assert expected == (lib.container_set_timeout(c, 10), ffi.errno)


def ip(*words: str) -> bool:
    """Whether the program ip could do this."""
    return subprocess.run(["ip", *words], stderr=subprocess.DEVNULL, check=False).returncode == 0


def test_interfaces(c: Any) -> None:
    """A network interface moves into the container under another name, and back."""
    require(shutil.which("ip"), "ip is needed (package iproute2)")
    ours, back = (f"lxccopy{os.getpid() % 10000}{letter}" for letter in "ab")
    kinds = [kind for kind in ("dummy", "veth") if ip("link", "add", ours, "type", kind)][:1]
    require(kinds, "the kernel makes no network interfaces of ours")
    try:
        assert lib.container_attach_interface(c, ours.encode(), b"theirs")
        assert [name for name in strings(lib.container_get_interfaces(c)) if name != "lo"] == ["theirs"]
        assert ours not in os.listdir("/sys/class/net")
        assert lib.container_detach_interface(c, b"theirs", back.encode())
        assert strings(lib.container_get_interfaces(c)) == ["lo"]
        assert back in os.listdir("/sys/class/net")
        assert not lib.container_detach_interface(c, b"theirs", back.encode())
    finally:
        for name in (ours, back):
            ip("link", "delete", name)


def start_and_stop(name: str, lxcpath: str) -> list[Any]:
    """Start a container in the background from this process, as liblxc does it, and stop it."""
    with Container(name, lxcpath) as container:
        c = container._c
        seen: list[Any] = [lib.container_want_daemonize(c, True), lib.container_want_close_all_fds(c, True)]
        seen += [lib.container_start(c, 0, NULL), container.state, lib.container_stop(c)]
        return [*seen, lib.container_wait(c, b"STOPPED", 10)]


def test_start(lxcpath: str) -> None:
    """start() starts it, and moves its caller into the monitor's cgroups, which is why we never call it ourselves."""
    with made(lxcpath, {}) as container:
        assert isolated(start_and_stop, container.name, lxcpath) == [True, True, True, "RUNNING", True, True]
        left = {path for path in cgroups() if container.name in path}
        assert left
        for path in left:
            os.rmdir(path)


def log_at(level: str, lxcpath: str, file: str) -> list[Any]:
    """Set the level for this process: what it answers, and the levels of what a handle with a log file writes."""
    _raw.liblxc()
    answer = lib.lxccopy_log_level(level.encode())
    c = lib.lxc_container_new(b"base", os.fsencode(lxcpath))
    lib.container_set_config_item(c, b"lxc.log.file", os.fsencode(file))
    lib.container_save_config(c, os.fsencode(f"{file}.config"))
    lib.container_set_config_item(c, b"lxc.nonsense", b"1")
    lib.lxc_container_put(c)
    with open(file, encoding="utf-8") as text:
        return [answer, sorted({line.split()[3] for line in text})]


@pytest.mark.parametrize("level", ["TRACE", "ERROR"])
def test_log_level(lxcpath: str, tmp_path: Path, level: str) -> None:
    """What liblxc logs in this process has at least the level that was set."""
    answer, levels = isolated(log_at, level, lxcpath, str(tmp_path / "log"))
    assert (0, True) == (answer, "ERROR" in levels)
    assert ("TRACE" in levels) == (level == "TRACE")


# The kernel


def test_openat2(tmp_path: Path) -> None:
    """A path below a directory is opened, close-on-exec, unless something in it leads out of there."""
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").symlink_to("../../../file")
    root = os.open(tmp_path, os.O_PATH)
    try:
        fd = lib.lxccopy_openat2(root, b"link", os.O_RDONLY, 0, lib.RESOLVE_IN_ROOT | lib.RESOLVE_NO_MAGICLINKS)
        assert os.path.samestat(os.fstat(fd), os.stat(tmp_path / "file"))
        assert not os.get_inheritable(fd)
        os.close(fd)
        for path, resolve, error in (
            (b"link", lib.RESOLVE_BENEATH, errno.EXDEV),
            (b"../x", lib.RESOLVE_BENEATH, errno.EXDEV),
            (b"link", lib.RESOLVE_NO_SYMLINKS, errno.ELOOP),
        ):
            assert lib.lxccopy_openat2(root, path, os.O_RDONLY, 0, resolve) == -1
            assert error == ffi.errno
        assert lib.lxccopy_openat2(os.open("/proc/self/fd", os.O_PATH), b"0", 0, 0, lib.RESOLVE_NO_MAGICLINKS) == -1
        assert ffi.errno == errno.ELOOP
    finally:
        os.close(root)


def test_pidfd_open() -> None:
    """A pidfd becomes readable when its process ends; there is none of a process that is gone."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        fd = lib.lxccopy_pidfd_open(process.pid)
        assert not wait_readable(fd, 0)
        process.kill()
        assert wait_readable(fd, 10)
        os.close(fd)
    assert lib.lxccopy_pidfd_open(process.pid) == -1
    assert ffi.errno == errno.ESRCH


def enter_namespaces() -> list[object]:
    """In a process of its own: enter new namespaces; what that gives, and whether they are others than before."""
    kinds = ("user", "mnt")
    before = [os.readlink(f"/proc/self/ns/{kind}") for kind in kinds]
    status = lib.lxccopy_unshare_user()
    return [status, *[os.readlink(f"/proc/self/ns/{kind}") != old for kind, old in zip(kinds, before)]]


def test_unshare_user() -> None:
    """A process enters a user and a mount namespace; one with threads cannot."""
    assert isolated(enter_namespaces) == [0, True, True]
    assert isolated(enter_namespaces_with_threads) == [-1, errno.EINVAL]


def enter_namespaces_with_threads() -> list[object]:
    """In a process of its own: try to enter new namespaces while there is a thread."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    found: list[object] = [lib.lxccopy_unshare_user(), ffi.errno]
    done.set()
    thread.join()
    return found


def test_mount() -> None:
    """A file system that is mounted nowhere has the options that were asked for; those it refuses are an error."""
    options, keep = _raw.string_list(["size", "64k", "nr_inodes", "7", "mode", "0711"])
    fd = lib.lxccopy_mount(b"tmpfs", options)
    found = os.fstatvfs(fd)
    assert (found.f_blocks * found.f_frsize, found.f_files) == (64 << 10, 7)
    assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o711
    assert not os.get_inheritable(fd)
    os.close(fd)
    options, keep = _raw.string_list(["size", "lots"])
    for kind, error in ((b"tmpfs", errno.EINVAL), (b"nonsense", errno.ENODEV)):
        assert lib.lxccopy_mount(kind, options) == -1
        assert error == ffi.errno
    del keep


def test_openpty() -> None:
    """Both ends of a new terminal are close-on-exec and connected; where there is no devpts, there is no terminal."""
    devpts = os.open("/dev/pts", os.O_RDONLY | os.O_DIRECTORY)
    ends: Any = ffi.new("int[2]")
    assert lib.lxccopy_openpty(devpts, ends, ends + 1) == 0
    assert [os.get_inheritable(fd) for fd in ends] == [False, False]
    os.write(ends[0], b"line\n")
    assert os.read(ends[1], 10) == b"line\n"
    for fd in (*ends, devpts):
        os.close(fd)
    directory = os.open("/etc", os.O_RDONLY)
    assert lib.lxccopy_openpty(directory, ends, ends + 1) == -1
    assert ffi.errno == errno.ENOENT
    os.close(directory)


def test_sigchld_ignored() -> None:
    """An ignored SIGCHLD is noticed, and a handler is none."""
    before = signal.getsignal(signal.SIGCHLD)
    try:
        answers = []
        for action in (signal.SIG_DFL, lambda *_: None, signal.SIG_IGN):
            signal.signal(signal.SIGCHLD, action)
            answers.append(lib.lxccopy_sigchld_ignored())
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert answers == [False, False, True]


def test_rename_new(tmp_path: Path) -> None:
    """A directory gets a name that is free, and none that is taken, not even by an empty directory."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    paths = [os.fsencode(tmp_path / name) for name in "abc"]
    assert (-1, errno.EEXIST) == (lib.lxccopy_rename_new(paths[0], paths[1]), ffi.errno)
    assert 0 == lib.lxccopy_rename_new(paths[0], paths[2])
    assert ["b", "c"] == sorted(os.listdir(tmp_path))


def test_unmount(tmp_path: Path) -> None:
    """A mount goes, also while it is in use; what is no mount point, or a link to one, is an error."""
    place, link = tmp_path / "place", tmp_path / "link"
    place.mkdir()
    link.symlink_to(place)
    assert (-1, errno.EINVAL) == (lib.lxccopy_unmount(os.fsencode(place)), ffi.errno)
    subprocess.run(["mount", "-t", "tmpfs", "test", place], check=True)
    with open(place / "file", "w", encoding="ascii"):
        assert (-1, errno.EINVAL) == (lib.lxccopy_unmount(os.fsencode(link)), ffi.errno)
        assert 0 == lib.lxccopy_unmount(os.fsencode(place))
    assert [] == os.listdir(place)


def test_dismiss(lxcpath: str) -> None:
    """A guard ends when it is dismissed, and is waited for; without one nothing is done."""
    texts = [ffi.new("char[]", text) for text in (b"base", os.fsencode(lxcpath), b"/nonexistent")]
    tmpfs = _raw.new_mount("tmpfs", {})
    plan: Any = ffi.new("struct lxccopy_plan *", [texts[0], texts[1], NULL, -1, tmpfs, texts[2], NULL, True])
    plan.guarded, plan.ledger_fd, plan.directory_fd = True, -1, -1
    lib.lxccopy_spawn(plan)
    os.close(tmpfs)
    guard = plan.guard
    lib.lxccopy_finish(plan, ffi.new("struct lxccopy_end *"))
    assert Path(f"/proc/{guard}").exists()
    lib.lxccopy_dismiss(plan, False)
    assert (0, -1) == (plan.guard, plan.guard_socket)
    assert not Path(f"/proc/{guard}").exists()
    lib.lxccopy_dismiss(plan, False)


def test_spawn_reports(lxcpath: str) -> None:
    """The helper reports where it failed and with which errno, and ends when that is read; its death is noticed."""
    texts = [ffi.new("char[]", text) for text in (b"base", os.fsencode(lxcpath), b"/nonexistent")]
    tmpfs = _raw.new_mount("tmpfs", {})
    plan: Any = ffi.new("struct lxccopy_plan *", [texts[0], texts[1], NULL, -1, tmpfs, texts[2], NULL, True])
    end: Any = ffi.new("struct lxccopy_end *")
    lib.lxccopy_spawn(plan)
    helper, cgroup = plan.helper, Path("/proc/self/cgroup").read_bytes()
    os.close(tmpfs)
    lib.lxccopy_finish(plan, end)
    assert (end.monitor, plan.helper, ffi.string(end.cgroups)) == (-1, 0, cgroup)
    assert (end.report.step, end.report.error, end.report.init_pid) == (lib.LXCCOPY_STEP_TMPFS, errno.ENOENT, 0)
    assert not Path(f"/proc/{helper}").exists()


def test_spawn_reports_a_dead_helper(lxcpath: str) -> None:
    """A helper that is killed before its report is noticed."""
    texts = [ffi.new("char[]", text) for text in (b"base", os.fsencode(lxcpath))]
    plan: Any = ffi.new("struct lxccopy_plan *", [texts[0], texts[1], NULL, -1, -1, NULL, NULL, True])
    end: Any = ffi.new("struct lxccopy_end *")
    plan.helper = os.posix_spawn("/bin/true", ["true"], {})
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.close()
    plan.socket = ours.detach()
    lib.lxccopy_finish(plan, end)
    assert (end.monitor, end.report.step, end.report.error) == (-1, lib.LXCCOPY_STEP_HELPER, 0)
