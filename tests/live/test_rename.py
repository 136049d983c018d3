# SPDX-License-Identifier: LGPL-2.1-or-later
"""-R: a container gets another name, in place where that is possible, whole or not at all."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli, Left, require
from live_helpers import (
    changes,
    configure,
    few_programs,
    has,
    plain,
    removed,
    running,
    script,
    settings,
    snapshot,
    tree,
)

from lxccopy_ffi import Container, EphemeralCopy, LxcCopyError, clone, identity, rdepends, rename

BASE_ID = "0123456789abcdef0123456789abcdef"
MAC = "00:16:3e:12:34:56"


@pytest.fixture
def old(lxcpath: str) -> Iterator[Path]:
    """A container in a directory, with all that may speak of its name and its directory."""
    directory = Path(lxcpath, "old")
    lines = [
        f"lxc.mount.fstab = {directory}/fstab",
        f"lxc.include = {directory}/conf/more.conf",
        f"lxc.hook.pre-start = {directory}/hooks/pre 'an argument'",
        f"lxc.console.logfile = {directory}/console.log",
        "lxc.net.1.type = veth",
        f"lxc.net.1.hwaddr = {MAC}",
        "lxc.start.auto = 1",
        f"# {directory}2 and {lxcpath}/older are others",
        f"lxc.environment = OTHER={directory}er/x",
    ]
    with removed(lxcpath, "new"), plain(lxcpath, "old", *lines):
        (directory / "rootfs/etc/machine-id").write_text(f"{BASE_ID}\n", encoding="ascii")
        (directory / "data").mkdir()
        (directory / "fstab").write_text(f"{directory}/data mnt none bind 0 0\n", encoding="ascii")
        (directory / "conf").mkdir()
        (directory / "conf/more.conf").write_text(
            f"lxc.mount.entry = {directory}/data opt none bind 0 0\n", encoding="ascii"
        )
        (directory / "data/mark").touch()
        script(directory / "hooks/pre", f'echo "$0 $1" >> {directory.parent}/new/ran')
        yield directory


def fingerprint(directory: Path) -> dict[str, tuple[object, ...]]:
    """All of a directory, with its inodes and times."""
    found = tree(directory)
    for path in [directory, *directory.rglob("*")]:
        status = path.lstat()
        found[f"{path} itself"] = (status.st_ino, status.st_mtime_ns if path.is_file() else 0)
    return found


def test_in_place(lxccopy: Cli, lxcpath: str, old: Path, tmp_path: Path) -> None:
    """A container in its own directory is moved, without rsync, with all that speaks of its directory; and starts."""
    inode = (old / "rootfs").stat().st_ino
    modes = [(old / name).stat().st_mode for name in ("config", "fstab", ".")]
    result = lxccopy("-n", "old", "-N", "new", "-R", env=few_programs(tmp_path / "few"))
    assert (0, "", "") == (result.returncode, result.stdout, result.stderr)
    assert not old.exists()
    assert not os.path.exists(f"/run/lxc/lock{lxcpath}/.old")
    new = Path(lxcpath, "new")
    assert inode == (new / "rootfs").stat().st_ino
    assert modes == [(new / name).stat().st_mode for name in ("config", "fstab", ".")]
    config = (new / "config").read_text(encoding="ascii")
    assert f"{old}/" not in config
    assert f"# {old}2 and {lxcpath}/older are others\n" in config
    assert f"lxc.environment = OTHER={old}er/x\n" in config
    assert [f"dir:{new}/rootfs"] == settings(lxcpath, "new", "lxc.rootfs.path")
    assert ["new"] == settings(lxcpath, "new", "lxc.uts.name")
    assert [MAC] == settings(lxcpath, "new", "lxc.net.1.hwaddr")
    assert ["1"] == settings(lxcpath, "new", "lxc.start.auto")
    assert f"{new}/data mnt none bind 0 0\n" == (new / "fstab").read_text(encoding="ascii")
    etc = new / "rootfs/etc"
    assert ["new\n", f"{BASE_ID}\n"] == [
        (etc / name).read_text(encoding="ascii") for name in ("hostname", "machine-id")
    ]
    assert "127.0.1.1\tnew\n" in (etc / "hosts").read_text(encoding="ascii")
    with Container("new", lxcpath) as container:
        container.start()
        root = f"/proc/{container.init_pid}/root"
        assert os.path.exists(f"{root}/mnt/mark")
        assert os.path.exists(f"{root}/opt/mark")
    assert f"{new}/hooks/pre an argument\n" == (new / "ran").read_text(encoding="ascii")


def test_hooks_for_copies(lxccopy: Cli, lxcpath: str, old: Path) -> None:
    """A container that wants to know of copies is copied, and what it was is gone; it says so before."""
    require(has("rsync"), "rsync is not installed")
    script(old / "cloned", "echo cloned > $LXC_ROOTFS_MOUNT/cloned")
    inode = (old / "rootfs").stat().st_ino
    configure(lxcpath, "old", f"lxc.hook.clone = {old}/cloned")
    result = lxccopy("-n", "old", "-N", "new", "-R")
    assert (0, "") == (result.returncode, result.stdout)
    assert f"lxccopy: warning: renaming 'old' copies its root file system {old}/rootfs to" in result.stderr
    new = Path(lxcpath, "new")
    assert not old.exists()
    assert inode != (new / "rootfs").stat().st_ino
    assert "cloned\n" == (new / "rootfs/cloned").read_text(encoding="ascii")
    assert [MAC] == settings(lxcpath, "new", "lxc.net.1.hwaddr")
    assert f"{BASE_ID}\n" == (new / "rootfs/etc/machine-id").read_text(encoding="ascii")
    assert "1" in settings(lxcpath, "new", "lxc.start.auto")


def test_destroy_hook(lxccopy: Cli, lxcpath: str, old: Path, tmp_path: Path) -> None:
    """A hook that wants to know of the original's removal, to save something, still finds all of it."""
    require(has("rsync"), "rsync is not installed")
    log = tmp_path / "log"
    script(old / "destroyed", f"cat $LXC_ROOTFS_PATH/etc/machine-id {old}/rootfs/etc/machine-id > {log} 2>&1; exit 0")
    configure(lxcpath, "old", f"lxc.hook.destroy = {old}/destroyed")
    assert 0 == lxccopy("-q", "-n", "old", "-N", "new", "-R").returncode
    assert f"{BASE_ID}\n" * 2 == log.read_text(encoding="ascii")


def test_rootfs_elsewhere(lxccopy: Cli, lxcpath: str, tmp_path: Path) -> None:
    """A root file system outside the lxcpath is copied into it and removed, of which a notice tells before."""
    require(has("rsync"), "rsync is not installed")
    outside = tmp_path / "old/rootfs"
    outside.parent.mkdir()
    with removed(lxcpath, "new"), plain(lxcpath, "old"):
        os.rename(f"{lxcpath}/old/rootfs", outside)
        config = Path(lxcpath, "old/config")
        config.write_text(config.read_text().replace(f"{lxcpath}/old/rootfs", str(outside)), encoding="ascii")
        result = lxccopy("-n", "old", "-N", "new", "-R")
        assert (0, "") == (result.returncode, result.stdout)
        notice = f"renaming 'old' copies its root file system {outside} to {lxcpath}/new, and then removes the original"
        assert f"lxccopy: warning: {notice}\n" == result.stderr
        assert not os.path.exists(f"{lxcpath}/old")
        assert not outside.exists()
        assert "new\n" == Path(lxcpath, "new/rootfs/etc/hostname").read_text(encoding="ascii")


def test_rootfs_elsewhere_without_rsync(lxccopy: Cli, lxcpath: str, tmp_path: Path) -> None:
    """Where it must be copied and cannot, that is said before anything is made."""
    with plain(lxcpath, "old", "lxc.hook.clone = /bin/true"):
        left = Left(lxcpath)
        result = lxccopy("-n", "old", "-N", "new", "-R", env=few_programs(tmp_path / "few"))
        assert (1, "") == (result.returncode, result.stdout)
        assert result.stderr.endswith("needs the program rsync, which is not installed (package rsync)\n")
        assert 1 == len(result.stderr.splitlines())
        left.check()


@pytest.mark.parametrize("depth", ["snapshot", "snapshot of a snapshot", "several layers"])
def test_snapshots(lxccopy: Cli, lxcpath: str, depth: str) -> None:
    """An overlay snapshot, which lxc-copy cannot rename, is; its bases know it by the new name until it is gone."""
    require(depth != "snapshot of a snapshot" or has("rsync"), "rsync is not installed")
    source = "base" if depth == "snapshot" else "middle"
    with removed(lxcpath, "new", "old"), snapshot(lxcpath, "middle") as middle:
        (middle / "overlay/delta/in-middle").touch()
        if depth == "several layers":
            copy = EphemeralCopy(source, "old", lxcpath=lxcpath, keep_data=True)
            copy.create()
            copy.detach()
        else:
            clone(source, "old", lxcpath=lxcpath, snapshot=True).close()
        bases = {name for name in ("base", "middle") if "\nold\n" in snapshots_of(lxcpath, name)}
        assert bases
        delta = Path(lxcpath, "old/overlay/delta")
        (delta / "own").touch()
        inode = delta.stat().st_ino
        result = lxccopy("-n", "old", "-N", "new", "-R")
        assert (0, "", "") == (result.returncode, result.stdout, result.stderr)
        assert not os.path.exists(f"{lxcpath}/old")
        assert inode == os.stat(f"{lxcpath}/new/overlay/delta").st_ino
        for name in bases:
            assert "\nold\n" not in snapshots_of(lxcpath, name)
            assert f"{lxcpath}\nnew\n" in snapshots_of(lxcpath, name)
        script = "ls /own /in-middle 2>/dev/null; cat /etc/hostname"
        result = lxccopy("-q", "-n", "new", "-e", "-K", "--", "sh", "-c", script)
        assert (["/in-middle"] if source == "middle" else []) + ["/own", "new"] == result.stdout.splitlines()
        with Container("new", lxcpath) as new:
            new.start()
            assert os.path.exists(f"/proc/{new.init_pid}/root/own")
            new.stop()
            new.destroy()
        assert "\nnew\n" not in "".join(snapshots_of(lxcpath, name) for name in bases)


def test_image(lxccopy: Cli, lxcpath: str) -> None:
    """A container in an image file is moved with it, and starts."""
    require(has("mkfs.ext4") and has("rsync") and os.path.exists("/dev/loop-control"), "there are no loop devices")
    with removed(lxcpath, "new", "old"):
        result = lxccopy("-q", "-n", "base", "-N", "old", "-B", "loop", "-L", "32M")
        require("oop device" not in result.stderr, result.stderr)
        inode = os.stat(f"{lxcpath}/old/rootdev").st_ino
        result = lxccopy("-q", "-n", "old", "-N", "new", "-R")
        assert (0, "", "") == (result.returncode, result.stdout, result.stderr)
        assert not os.path.exists(f"{lxcpath}/old")
        assert inode == os.stat(f"{lxcpath}/new/rootdev").st_ino
        with Container("new", lxcpath) as new:
            new.start()
            assert os.path.exists(f"/proc/{new.init_pid}/root/bin/busybox")


def snapshots_of(lxcpath: str, name: str) -> str:
    """What a container remembers of its snapshots."""
    return "".join(path.read_text(encoding="ascii") for path in Path(lxcpath, name).glob("lxc_snapshots"))


def test_refused(lxccopy: Cli, lxcpath: str, old: Path) -> None:
    """A container with snapshots, a running one, one whose new name is taken or bad: each is told and untouched."""

    def refuse(words: str, *options: str) -> None:
        before = fingerprint(old)
        left = Left(lxcpath)
        result = lxccopy("-n", "old", "-R", *options)
        assert (1, "") == (result.returncode, result.stdout)
        assert words in result.stderr
        assert 1 == len(result.stderr.splitlines())
        left.check()
        assert set() == {
            key for key in changes(before, fingerprint(old)) if "console.log" not in key
        }  # which a running one writes

    refuse("there is already a 'base'", "-N", "base")
    refuse("there is already a 'old'", "-N", "old")
    refuse("the new name '../x' is not allowed", "-N", "../x")
    refuse("You must provide a NEWNAME")
    with removed(lxcpath, "snap"):
        clone("old", "snap", lxcpath=lxcpath, snapshot=True).close()
        refuse("Renaming a container with snapshots is not supported: container 'old'", "-N", "new")
    (old / "snaps/snap0").mkdir(parents=True)
    refuse("Renaming a container with snapshots is not supported", "-N", "new")
    (old / "snaps/snap0").rmdir()
    (old / "snaps").rmdir()
    (old / "hooks/pre").write_text("#!/bin/true\n", encoding="ascii")
    with Container("old", lxcpath) as container:
        container.start()
        refuse("is running; stop it first", "-N", "new", "-a")
        assert running(lxcpath, "old")
        container.stop()


def test_not_defined(lxccopy: Cli, lxcpath: str) -> None:
    """A container that does not exist is told."""
    result = lxccopy("-n", "nobody", "-N", "new", "-R")
    assert (1, "") == (result.returncode, result.stdout)
    assert f"container 'nobody' is not defined in {lxcpath}" in result.stderr
    assert not os.path.exists(f"{lxcpath}/new")


class Breaking:
    """Counts the calls of some functions, and fails at one of them."""

    def __init__(self, at: int) -> None:
        self.calls: list[str] = []
        self.at = at

    def wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, failing when its turn has come; what undoes the rest is real again."""

        def call(*arguments: Any, **keywords: Any) -> Any:
            self.calls.append(name)
            if len(self.calls) - 1 == self.at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[0]))
            return real(*arguments, **keywords)

        return call


def broken(at: int, lxcpath: str) -> list[str]:
    """Rename old to new with the call of this number failing; return the calls."""
    state = Breaking(at)
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in (
            (os, "rename"),
            (os, "link"),
            (rename_module(), "read_config"),
            (rename_module(), "Container"),
            (rename_module(), "personalise"),
            (rdepends, "replace"),
            (identity, "prepared"),
            (identity, "_edit"),
        ):
            patch.setattr(owner, name, state.wrap(name, getattr(owner, name)))
        if at < 0:
            rename("old", "new", lxcpath=lxcpath).close()
        else:
            with pytest.raises((OSError, LxcCopyError), match="No space left on device"):
                rename("old", "new", lxcpath=lxcpath)
    return state.calls


def rename_module() -> Any:
    """The module, whose name is that of its function, too."""
    return sys.modules["lxccopy_ffi.rename"]


@pytest.mark.parametrize("kind", ["directory", "snapshot"])
def test_failure_at_every_step(lxcpath: str, old: Path, kind: str) -> None:
    """Whatever fails while a container is moved, all is as it was: it, and what its base remembers."""
    name = "old"
    if kind == "snapshot":
        with removed(lxcpath, "old"):
            pass
        clone("base", "old", lxcpath=lxcpath, snapshot=True).close()
    counted = broken(-1, lxcpath)
    rename("new", "old", lxcpath=lxcpath).close()
    assert {"rename", "Container", "personalise"} <= set(counted)
    assert kind == "directory" or "replace" in counted
    before = (tree(old), snapshots_of(lxcpath, "base"))
    left = Left(lxcpath)
    for step in range(len(counted)):
        broken(step, lxcpath)
        left.check()
        assert (set(), before[1]) == (changes(before[0], tree(old)), snapshots_of(lxcpath, "base")), (
            step,
            counted[step],
        )
    with Container(name, lxcpath) as container:
        assert container.defined


def test_owner_and_mode_stay(lxcpath: str, old: Path) -> None:
    """The files that are written anew keep their owners, modes and attributes."""
    os.chown(old / "config", 12, 34)
    os.chmod(old / "config", 0o604)
    os.setxattr(old / "config", "user.mark", b"x")
    rename("old", "new", lxcpath=lxcpath).close()
    status = os.stat(f"{lxcpath}/new/config")
    assert (12, 34, 0o604) == (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))
    assert b"x" == os.getxattr(f"{lxcpath}/new/config", "user.mark")


def test_interrupted_at_any_time(lxcpath: str, old: Path) -> None:
    """A signal at any time leaves either the old container, as it was, or the new one, complete."""
    before = tree(old)
    config = sorted((old / "config").read_text(encoding="ascii").splitlines())
    names = ["old", "new"]
    with removed(lxcpath, "old"):
        for step in range(16):
            left = Left(lxcpath)
            command = [sys.executable, "-m", "lxccopy_ffi", "-P", lxcpath, "-n", names[0], "-N", names[1], "-R"]
            process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            while not handles_signals(process.pid):
                assert process.poll() is None
            threading.Event().wait(step / 400)
            process.terminate()
            # by the signal itself, where Python has put its handlers away already
            assert process.wait(20) in (0, 128 + signal.SIGTERM, -signal.SIGTERM)
            if os.path.exists(f"{lxcpath}/{names[1]}"):
                assert not os.path.exists(f"{lxcpath}/{names[0]}")
                assert [names[1]] == settings(lxcpath, names[1], "lxc.uts.name")
                assert f"{names[1]}\n" == Path(lxcpath, names[1], "rootfs/etc/hostname").read_text(encoding="ascii")
                names.reverse()
            else:
                left.check()
            assert not [path for path in Path(lxcpath, names[0]).rglob("*") if path.name.endswith((".new", ".before"))]
        if names[0] == "new":
            rename("new", "old", lxcpath=lxcpath).close()
        after = tree(old)
        del before["config"], after["config"]
        assert config == sorted((old / "config").read_text(encoding="ascii").splitlines())  # in whatever order
        assert set() == changes(before, after)


def handles_signals(pid: int) -> bool:
    """Whether a process has a handler for SIGTERM."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return bool(int(status.partition("SigCgt:")[2].split()[0], 16) & 1 << signal.SIGTERM - 1)


def test_two_at_once(lxcpath: str, old: Path) -> None:
    """Of several that rename one container at the same time one succeeds, and the container is there once."""
    command = ["-P", lxcpath, "-n", "old", "-R", "-N"]
    processes = [
        subprocess.Popen([sys.executable, "-m", "lxccopy_ffi", *command, f"new{number}"], stderr=subprocess.DEVNULL)
        for number in range(4)
    ]
    with removed(lxcpath, *(f"new{number}" for number in range(4))):
        assert [0, 1, 1, 1] == sorted(process.wait(60) for process in processes)
        (new,) = Path(lxcpath).glob("new*")
        assert ["dir:" + str(new / "rootfs")] == settings(lxcpath, new.name, "lxc.rootfs.path")
        assert not old.exists()
