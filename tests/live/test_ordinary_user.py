# SPDX-License-Identifier: LGPL-2.1-or-later
"""What an ordinary user with subordinate ids can do, on cgroup v1 and on cgroup2, and what the user is told."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, monitors, require
from user_world import COUNT, FIRST, NAME, UID, V1, V1_CLOSED, V2, V2_CLOSED, World, world

LAYOUTS = (V1, V2)


@pytest.fixture(scope="module", params=LAYOUTS)
def home(request: pytest.FixtureRequest) -> Iterator[World]:
    """A user's world, in which lxccopy has made a base."""
    require(os.geteuid() == 0, "another user's world is made by root")
    for program in ("newuidmap", "newgidmap", "unshare", "busybox"):
        require(shutil.which(program), f"there is no {program}")
    with world(request.param) as made:
        done = made.lxccopy("--create-base", "base")
        assert (0, "") == (done.returncode, done.stderr)
        yield made


@pytest.fixture
def user(home: World) -> Iterator[World]:
    """The same; fails the test if it leaves anything."""
    yield home
    assert ["base"] == sorted(os.listdir(home.lxcpath))
    assert ["config", "rootfs"] == sorted(os.listdir(home.lxcpath / "base"))
    assert [] == home.processes()
    assert [] == [path for path in home.cgroups() if not path.endswith("lxc.pivot")]
    assert {".base"} >= {path.name for path in home.runtime.rglob("*") if path.is_file()}


def await_calm(user: World) -> None:
    """Wait for what is still at work when a process of the user's was killed; a container may run on."""
    for _ in range(60):
        if not user.processes():
            return
        time.sleep(0.05)


DISCARD = "import sys; from lxccopy_ffi.removal import discard; discard(sys.argv[1], sys.argv[2])"


def discard(user: World, *names: str) -> None:
    """Remove containers as the user."""
    for name in names:
        done = user.python(DISCARD, name, str(user.lxcpath))
        assert (0, "") == (done.returncode, done.stderr)


def test_readme_example(user: World) -> None:
    """The README's commands do what it says for a user, too."""
    done = user.lxccopy("-n", "base", "-e", "-t", "--", "sh", "-c", "hostname; df -T /; exit 7")
    assert 7 == done.returncode
    assert done.stdout.startswith("base_")
    assert " overlay " in done.stdout


def test_readme_python(user: World) -> None:
    """The README's Python lines do what it says for a user, too."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    done = user.python(text)
    assert (0, "") == (done.returncode, done.stderr)
    assert done.stdout.startswith("base_")


RUNNING = """
from lxccopy_ffi import EphemeralCopy
def attempt(call):
    try:
        return call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
with EphemeralCopy("base", tmpfs=True) as copy:
    print(copy.run(["sh", "-c", "id -u; id -g"], user="nobody", stdout=-1, text=True).stdout.split())
    copy.wait_booted(20)
    print(attempt(lambda: copy.get("/etc/passwd", copy.container.directory + "/passwd")))
    print(attempt(lambda: copy.put("/etc/hostname", "/tmp/x")))
    print(attempt(lambda: copy.put("/etc/hostname", "/root/x")))
    print(attempt(lambda: copy.commit("kept")))
    print(attempt(lambda: copy.reboot(20)))
"""


def test_running_copy(user: World) -> None:
    """A user's commands can be any user of the copy; what only root can do is refused."""
    done = user.python(RUNNING)
    assert (0, "") == (done.returncode, done.stderr)
    ids, got, *refused, missing, rebooted = done.stdout.splitlines()
    assert ("['65534', '65534']", "None", "None") == (ids, got, rebooted)
    assert ["UnsupportedError: only root can put files into a copy from outside"] * 2 == [
        line.partition(";")[0] for line in refused
    ]
    assert missing.startswith("UnsupportedError: only root can keep")


def test_check(user: World) -> None:
    """--check says that it works, and no line of it asks for anything that the user lacks."""
    done = user.lxccopy("--check")
    assert (0, "") == (done.returncode, done.stderr)
    assert "missing" not in {line.split()[0] for line in done.stdout.splitlines()}


def test_base_belongs_to_mapped_root(user: World) -> None:
    """The base's files belong to the user's first subordinate id, and its directory is closed to strangers."""
    base = user.lxcpath / "base"
    owners = {(path.lstat().st_uid, path.lstat().st_gid) for path in (base / "rootfs").rglob("*")}
    assert {(FIRST, FIRST)} == owners
    assert (FIRST, UID, 0o770) == (base.stat().st_uid, base.stat().st_gid, base.stat().st_mode & 0o777)
    assert f"lxc.idmap = u 0 {FIRST} {COUNT}\nlxc.idmap = g 0 {FIRST} {COUNT}\n" in (base / "config").read_text()


WAYS = pytest.mark.parametrize("way", [[], ["-t"]], ids=["disk", "tmpfs"])


@WAYS
def test_identity(user: World, way: list[str]) -> None:
    """A copy has its own host name, in its files, too, which belong to its root."""
    script = "hostname; cat /etc/hostname; grep 127.0.1.1 /etc/hosts; stat -c '%U %G %a' / /etc /etc/hosts"
    done = user.lxccopy("-n", "base", "-N", "me", "-e", *way, "--", "sh", "-c", script)
    assert ["me", "me", "127.0.1.1\tme", *["root root 755"] * 2, "root root 644"] == done.stdout.splitlines()


@WAYS
def test_narrow_umask(user: World, way: list[str]) -> None:
    """A narrow umask of the user's is not the copy's."""
    run = f"umask 077; exec {sys.executable} -m lxccopy_ffi -n base -e {' '.join(way)} --"
    done = user.run("sh", "-c", f"{run} stat -c '%U %G %a' / /etc /etc/hosts")
    assert ["root root 755", "root root 755", "root root 644"] == done.stdout.splitlines()


def test_base_with_narrow_umask(user: World) -> None:
    """Also with a narrow umask the directories that --create-base makes let the root of the container pass."""
    path = user.home / "new/lxc"
    run = f"umask 077; exec {sys.executable} -m lxccopy_ffi -P {path}"
    try:
        assert 0 == user.run("sh", "-c", f"{run} --create-base base").returncode
        done = user.run("sh", "-c", f"{run} -n base -e -- stat -c '%U %G %a' / /etc /etc/hosts /root")
        assert ["root root 755", "root root 755", "root root 644", "root root 700"] == done.stdout.splitlines()
        assert ["base"] == os.listdir(path)
    finally:
        shutil.rmtree(path.parent)


def test_locks_without_runtime_directory(user: World) -> None:
    """Where XDG_RUNTIME_DIR is not set, liblxc's locks are below the home, and a copy's is gone with it."""
    done = user.run("env", "-u", "XDG_RUNTIME_DIR", sys.executable, "-m", "lxccopy_ffi", *RUN)
    assert 0 == done.returncode
    assert [".base"] == [path.name for path in (user.home / ".cache/lxc/run").rglob("*") if path.is_file()]
    shutil.rmtree(user.home / ".cache")


def test_reboot(user: World) -> None:
    """A copy on disk keeps what it has done over a reboot, its own host name among it, and is gone at the end."""
    done = user.python(
        "import sys, time\n"
        "from lxccopy_ffi import EphemeralCopy\n"
        "with EphemeralCopy('base') as copy:\n"
        "    copy.run(['sh', '-c', 'echo mine > /etc/hostname'], check=True)\n"
        "    before = copy.container.init_pid\n"
        "    copy.run(['reboot', '-f'])\n"
        "    while copy.container.init_pid in (before, -1) or not copy.container.running: time.sleep(0.05)\n"
        "    copy.run(['cat', '/etc/hostname'], check=True)\n"
    )
    assert (0, "mine\n") == (done.returncode, done.stdout), done.stderr


def test_keep_name(user: World) -> None:
    """With -K a copy has the base's host name in its files."""
    done = user.lxccopy("-n", "base", "-e", "-t", "-K", "--", "cat", "/etc/hostname")
    assert "base\n" == done.stdout


@WAYS
def test_directories_of_the_base(user: World, way: list[str]) -> None:
    """Directories of the base can be removed, made anew, and renamed in a copy."""
    script = "rm -r /etc/init.d && mkdir /etc/init.d && ls -A /etc/init.d && mv /var /var2 && ls -d /var*"
    done = user.lxccopy("-n", "base", "-e", *way, "--", "sh", "-c", script)
    assert (0, "/var2\n") == (done.returncode, done.stdout)


@pytest.fixture
def source(user: World) -> Iterator[Path]:
    """A directory of the user's with one below it, which everybody may change."""
    path = user.home / "source"
    (path / "below").mkdir(parents=True)
    (path / "below/file").write_text("old\n")
    for one in (path, path / "below"):
        os.chown(one, FIRST, FIRST)
        one.chmod(0o777)
    yield path
    shutil.rmtree(path)


@WAYS
def test_overlay_mount(user: World, source: Path, way: list[str]) -> None:
    """In an overlay mount directories can be removed and made anew, of which nothing shows in the source."""
    script = "cd /mnt/a && cat below/file && rm -r below && mkdir below && touch new && ls -A . below"
    done = user.lxccopy("-n", "base", "-e", *way, "-m", f"overlay={source}:/mnt/a", "--", "sh", "-c", script)
    assert (0, "old\n.:\nbelow\nnew\n\nbelow:\n") == (done.returncode, done.stdout)
    assert ["below"] == os.listdir(source)
    assert "old\n" == (source / "below/file").read_text()


@WAYS
def test_bind_mount(user: World, source: Path, way: list[str]) -> None:
    """A bind mount has the very files of the host."""
    done = user.lxccopy("-n", "base", "-e", *way, "-m", f"bind={source}:/mnt/a", "--", "touch", "/mnt/a/new")
    assert 0 == done.returncode
    assert FIRST == (source / "new").stat().st_uid


@WAYS
def test_detached(user: World, way: list[str]) -> None:
    """A detached copy runs on, its user is told what a reboot costs, and all of it goes when it stops."""
    done = user.lxccopy("-n", "base", "-N", "web", "-e", *way)
    assert 0 == done.returncode
    assert "if 'web' is rebooted from inside, directories of its base cannot be removed" in done.stderr
    assert 1 == len(monitors(str(user.lxcpath)))
    stopped = user.python("from lxccopy_ffi import Container; Container('web').stop()")
    assert (0, "", False) == (stopped.returncode, stopped.stderr, (user.lxcpath / "web").exists())
    discard(user, "web")  # its lock


def test_kept(user: World) -> None:
    """With -D the copy stays with what was done to it, has no hook, and copies of it have that, too."""
    script = "rm -r /etc/init.d && mkdir /etc/init.d && touch /x"
    try:
        done = user.lxccopy("-n", "base", "-N", "kept", "-e", "-D", "--", "sh", "-c", script)
        assert 0 == done.returncode
        assert "if 'kept' is rebooted from inside" in done.stderr
        assert "lxc.hook" not in (user.lxcpath / "kept/config").read_text()
        for options in (["-e"], ["-e", "-t"]):
            done = user.lxccopy("-n", "kept", *options, "--", "sh", "-c", "ls -A /x /etc/init.d; cat /etc/hostname")
            assert done.stdout.startswith("/x\n\n/etc/init.d:\nkept_")
    finally:
        discard(user, "kept")


def test_snapshot_and_rename(user: World) -> None:
    """A snapshot has its own name, directories of the base can be removed in it, and -R gives it another name."""
    try:
        assert 0 == user.lxccopy("-n", "base", "-N", "snap", "-s").returncode
        done = user.lxccopy("-n", "snap", "-N", "other", "-R")
        assert (0, "") == (done.returncode, done.stderr)
        assert "lxc.rootfs.options = userxattr\n" in (user.lxcpath / "other/config").read_text()
        hostname = user.lxcpath / "other/overlay/delta/etc/hostname"
        assert (b"other\n", FIRST, FIRST) == (hostname.read_bytes(), hostname.stat().st_uid, hostname.stat().st_gid)
    finally:
        discard(user, *[name for name in ("snap", "other") if (user.lxcpath / name).exists()])


def test_full_copy(user: World) -> None:
    """A full copy of a snapshot has its own name, belongs to the same ids, and runs."""
    require(shutil.which("rsync"), "there is no rsync")
    try:
        assert 0 == user.lxccopy("-n", "base", "-N", "snap", "-s").returncode
        done = user.lxccopy("-n", "snap", "-N", "full")
        assert (0, "") == (done.returncode, done.stderr)
        hostname = user.lxcpath / "full/rootfs/etc/hostname"
        assert (b"full\n", FIRST) == (hostname.read_bytes(), hostname.stat().st_uid)
        assert "userxattr" not in (user.lxcpath / "full/config").read_text()
        done = user.lxccopy("-n", "full", "-e", "-t", "--", "true")
        assert 0 == done.returncode
    finally:
        discard(user, "full", "snap")


@WAYS
def test_clone_hook(user: World, way: list[str]) -> None:
    """What the base's clone hook writes is in the copy, besides its host name."""
    hook = user.home / "hook"
    hook.write_text("#!/bin/sh\necho hooked > $LXC_ROOTFS_MOUNT/etc/hooked\n")
    hook.chmod(0o755)
    config = user.lxcpath / "base/config"
    text = config.read_text()
    config.write_text(f"{text}lxc.hook.clone = {hook}\n")
    try:
        done = user.lxccopy("-n", "base", "-N", "me", "-e", *way, "--", "cat", "/etc/hooked", "/etc/hostname")
    finally:
        config.write_text(text)
    assert (0, "hooked\nme\n") == (done.returncode, done.stdout)


@WAYS
def test_copy_of_a_running_copy(user: World, way: list[str]) -> None:
    """A running copy on disk can be copied, with what it has written and a name of its own."""
    try:
        assert 0 == user.lxccopy("-n", "base", "-N", "web", "-e", "-m", f"overlay={ROOT}:/mnt").returncode
        done = user.lxccopy("-n", "web", "-a", "-N", "two", "-e", *way, "--", "sh", "-c", "hostname; cat /etc/hostname")
        assert (0, "two\ntwo\n") == (done.returncode, done.stdout)
        assert "web\n" == (user.lxcpath / "web/overlay/delta/etc/hostname").read_text()
        (hook,) = (user.lxcpath / "web").glob("pre-start-*")
        done = user.run("env", "LXC_NAME=two", str(hook))  # which copies inherit
        assert (0, "") == (done.returncode, done.stderr)
    finally:
        discard(user, "web")


def test_copies_elsewhere(user: World) -> None:
    """A copy can be made in another directory of the user's, and is gone from there at the end."""
    other = user.home / "other"
    other.mkdir()
    os.chown(other, UID, UID)
    done = user.lxccopy("-n", "base", "-e", "-p", str(other), "--", "true")
    assert 0 == done.returncode
    other.rmdir()


def test_many_at_once(user: World) -> None:
    """Several commands at once do not disturb one another."""
    words = user.command(sys.executable, "-m", "lxccopy_ffi", *RUN)
    many = [subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(6)]
    for one in many:
        _, complaint = one.communicate(timeout=60)
        assert 0 == one.returncode, complaint


@pytest.mark.parametrize("delay", [0.1, 0.14, 0.18, 0.22, 0.26, 0.3])
def test_killed_command(user: World, delay: float) -> None:
    """Whatever is left of a copy whose command was killed, the user can remove all of it."""
    words = user.command(sys.executable, "-m", "lxccopy_ffi", "-n", "base", "-e", "--", "sleep", "60")
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        time.sleep(delay)
        process.kill()
    await_calm(user)
    discard(user, *[name for name in os.listdir(user.lxcpath) if name != "base"])


@pytest.mark.parametrize("delay", [0.1, 0.2, 0.3])
def test_reap(user: World, delay: float) -> None:
    """What is left of a copy whose command was killed, its user can have reaped."""
    words = user.command(sys.executable, "-m", "lxccopy_ffi", "-n", "base", "-e", "-t", "--", "sleep", "60")
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        time.sleep(delay)
        process.kill()
    await_calm(user)
    done = user.lxccopy("--reap")
    assert (0, "") == (done.returncode, done.stderr)


def test_killed_monitor(user: World) -> None:
    """What is left of a copy whose monitor was killed can be removed by the user, whatever is in it."""
    done = user.lxccopy("-n", "base", "-N", "web", "-e")
    assert 0 == done.returncode
    deep = "cd /; i=0; while [ $i -lt 300 ]; do mkdir dddddddddddddddddddd; cd dddddddddddddddddddd; i=$((i+1)); done"
    done = user.python(
        "import sys; from lxccopy_ffi import Container; from lxccopy_ffi.popen import run\n"
        "from lxccopy_ffi.request import RunRequest\n"
        "run(Container('web'), RunRequest(['sh', '-c', sys.argv[1]]))",
        f"{deep}; mkdir -m 0 /closed; touch /closed/x; mkdir -p /sys/fs/cgroup/a/b || true",
    )
    assert 0 == done.returncode, done.stderr
    assert user.layout == V1 or [path for path in user.cgroups() if path.endswith("/a/b")]
    (monitor,) = monitors(str(user.lxcpath))
    os.kill(int(monitor), signal.SIGKILL)
    await_calm(user)
    assert (user.lxcpath / "web/overlay/delta/closed").exists()
    discard(user, "web")
    removed = user.python(
        "from lxccopy_ffi import userns\n"
        "ours = [line.rstrip().split(':', 2)[1:] for line in open('/proc/self/cgroup')]\n"
        "left = [[names, f'{path}/lxc.{kind}.web'] for names, path in ours for kind in ('monitor', 'payload')]\n"
        "userns.call('cgroups', 'remove', left)"
    )
    assert (0, "") == (removed.returncode, removed.stderr)


def test_half_made_copy(user: World) -> None:
    """A copy without a configuration, whose files belong to subordinate ids, can be removed by the user."""
    half = user.lxcpath / "half"
    (half / "overlay/work/work").mkdir(parents=True)
    for path in (half, *half.rglob("*")):
        os.chown(path, FIRST, UID if path == half else FIRST)
    (half / "overlay/work/work").chmod(0)
    half.chmod(0o770)
    discard(user, "half")


def test_failing_start(user: World) -> None:
    """Nothing is left of a copy that does not start."""
    config = user.lxcpath / "base/config"
    text = config.read_text()
    config.write_text(f"{text}lxc.init.cmd = /no/such/init\n")
    try:
        done = user.lxccopy("-n", "base", "-e", "--", "true")
    finally:
        config.write_text(text)
    assert 125 == done.returncode
    assert done.stderr.splitlines()[-1].startswith("lxccopy: cannot start container 'base_")


def test_interrupted(user: World) -> None:
    """Nothing is left when the command is ended by a signal."""
    words = user.command(sys.executable, "-m", "lxccopy_ffi", "-n", "base", "-e", "--", "sleep", "60")
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        for _ in range(200):
            if monitors(str(user.lxcpath)):
                break
            time.sleep(0.02)
        time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    assert 143 == process.returncode


# What the user is told, before anything is made.

RUN = ("-n", "base", "-e", "--", "true")


@pytest.mark.parametrize("file", ["subuid", "subgid"])
def test_no_subordinate_ids(user: World, file: str) -> None:
    """Who has no subordinate ids is told so, for users and for groups, with the command that gives some."""
    done = user.lxccopy(*RUN, **{file: "somebody:100000:65536\n"})
    assert 125 == done.returncode
    assert (
        f"lxccopy: user {NAME!r} has no subordinate ids in /etc/{file}, which containers of ordinary users need;"
        f" as root: usermod --add-{file}s 100000-165535 {NAME}\n"
    ) == done.stderr


def test_other_ids(user: World) -> None:
    """Who may not use all ids of the base is told which."""
    done = user.lxccopy(*RUN, subgid=f"{NAME}:{FIRST}:1000\n")
    assert 125 == done.returncode
    assert (
        f"lxccopy: container 'base' in {user.lxcpath} has the id map 'g 0 {FIRST} {COUNT}', and /etc/subgid does not"
        f" give user {NAME!r} all of those ids\n"
    ) == done.stderr


@pytest.mark.parametrize("program", ["newuidmap", "newgidmap"])
def test_no_program(user: World, program: str) -> None:
    """Where the program that hands out subordinate ids is missing, the user is told its package."""
    path = shutil.which(program)
    done = user.lxccopy(*RUN, over={str(path): "/dev/null"})
    assert 125 == done.returncode
    assert done.stderr.startswith(f"lxccopy: the program {program} is not installed, which containers")
    assert "uidmap" in done.stderr


def test_program_without_setuid(user: World, tmp_path: Path) -> None:
    """Where it is not setuid root, the user is told so."""
    path = shutil.which("newuidmap")
    assert path is not None
    shutil.copyfile(path, tmp_path / "newuidmap")
    (tmp_path / "newuidmap").chmod(0o755)
    done = user.lxccopy(*RUN, over={path: str(tmp_path / "newuidmap")})
    assert 125 == done.returncode
    assert (
        f"lxccopy: {path} is not setuid root, so it cannot hand out subordinate ids; as root: chmod u+s {path}\n"
        == done.stderr
    )


@pytest.mark.parametrize("arguments", [RUN, ("--create-base", "other")], ids=["run", "base"])
def test_closed_home(user: World, arguments: tuple[str, ...]) -> None:
    """Where others cannot pass through the user's home, the user is told its name and what to do."""
    user.home.chmod(0o700)
    try:
        done = user.lxccopy(*arguments)
    finally:
        user.home.chmod(0o755)
    assert 125 == done.returncode if arguments == RUN else 0 != done.returncode
    assert f"cannot enter {user.home}, which is on the way to {user.lxcpath}" in done.stderr
    assert done.stderr.endswith(f": chmod o+x {user.home}\n")


def test_home_with_acl(user: World) -> None:
    """A home that an access control list opens for the container's root is open enough."""
    nobody = 0xFFFFFFFF
    entries = [(1, 7, nobody), (2, 1, FIRST), (4, 0, nobody), (16, 1, nobody), (32, 0, nobody)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(user.home, "system.posix_acl_access", acl)
    except OSError:
        require(condition=False, reason="this file system has no access control lists")
    try:
        done = user.lxccopy(*RUN)
    finally:
        os.removexattr(user.home, "system.posix_acl_access")
        user.home.chmod(0o755)
    assert 0 == done.returncode


def test_closed_source(user: World) -> None:
    """A directory to mount that the container's root cannot get to is refused."""
    closed = user.home / "closed"
    (closed / "source").mkdir(parents=True)
    closed.chmod(0o700)
    os.chown(closed, UID, UID)
    try:
        done = user.lxccopy("-n", "base", "-e", "-m", f"bind={closed}/source:/mnt", "--", "true")
    finally:
        shutil.rmtree(closed)
    assert 125 == done.returncode
    assert f"cannot enter {closed}, which is on the way to {closed}/source" in done.stderr


def test_no_id_map(user: World) -> None:
    """A base without an id map is root's alone."""
    config = user.lxcpath / "base/config"
    text = config.read_text()
    config.write_text("".join(line for line in text.splitlines(keepends=True) if "idmap" not in line))
    try:
        done = user.lxccopy(*RUN)
    finally:
        config.write_text(text)
    assert 125 == done.returncode
    assert done.stderr.endswith("has no id map (lxc.idmap), so only root can start a copy of it\n")


@pytest.mark.parametrize("layout", [V1_CLOSED, V2_CLOSED])
def test_no_cgroups(user: World, layout: str) -> None:
    """Without cgroups of the user's own copies run all the same, but none with limits that nobody would keep."""
    assert 0 == user.lxccopy(*RUN, layout=layout).returncode
    config = user.lxcpath / "base/config"
    text = config.read_text()
    config.write_text(f"{text}lxc.cgroup2.pids.max = 20\n")
    try:
        done = user.lxccopy(*RUN, layout=layout)
    finally:
        config.write_text(text)
    assert 125 == done.returncode
    assert done.stderr.endswith("systemd-run --user --scope -p Delegate=yes -- COMMAND\n")


def test_pytest_plugin(user: World) -> None:
    """The plugin for pytest works for a user, with a base of its own and with one of the user's."""
    tests = user.home / "test_it.py"
    tests.write_text(
        "def test_copy(lxc_copy): assert lxc_copy.run(['test', '-w', '/etc/hostname']).returncode == 0\n"
        "def test_pool(lxc_pool): assert lxc_pool.run(['true']).returncode == 0\n"
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "--lxc-required", str(tests)]
    for options in ([], ["--lxc-base=base"]):
        done = user.run(*command, *options, "--basetemp", str(user.home / "tmp"))
        assert (0, "2 passed") == (done.returncode, done.stdout.splitlines()[-1][:8]), done.stdout
    tests.unlink()
    shutil.rmtree(user.home / "tmp", ignore_errors=True)
    assert [] == [path for path in Path("/tmp").glob("lxccopy-pytest-*") if path.stat().st_uid == UID]
