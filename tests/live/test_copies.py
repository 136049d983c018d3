# SPDX-License-Identifier: LGPL-2.1-or-later
"""Copies that stay or run on their own: full, snapshot, detached, kept; and who they are."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import Cli, locks, require

from lxccopy_ffi import Container, ContainerNotFoundError, EphemeralCopy, LiblxcError, UnsupportedError, base, clone
from lxccopy_ffi.locking import forget_lock

BASE_ID = "0123456789abcdef0123456789abcdef"


@contextmanager
def removed(lxcpath: str, name: str) -> Iterator[None]:
    """Remove the container at the end."""
    try:
        yield
    finally:
        with Container(name, lxcpath) as container:
            container.stop()
            if container.defined:
                container.destroy()
            forget_lock(container.name, container.lxcpath)


@contextmanager
def base_file(lxcpath: str, path: str, text: str) -> Iterator[None]:
    """Give the base another content in a file, or a file it has not."""
    file = Path(lxcpath, "base", "rootfs", path)
    before = file.read_text(encoding="ascii") if file.exists() else None
    file.write_text(text, encoding="ascii")
    try:
        yield
    finally:
        if before is None:
            file.unlink()
        else:
            file.write_text(before, encoding="ascii")


def test_detached(lxccopy: Cli, lxcpath: str) -> None:
    """Without a command the copy stays, running, until it stops, and then is gone."""
    with removed(lxcpath, "web"):
        result = lxccopy("-n", "base", "-N", "web", "-e", "-t")
        assert (0, "Created web as clone of base\nContainer is placed on tmpfs.\n", "") == (
            result.returncode,
            result.stdout,
            result.stderr,
        )
        with Container("web", lxcpath) as web:
            assert "RUNNING" == web.state
            web.stop()
        assert not os.path.exists(f"{lxcpath}/web")


def test_quiet(lxccopy: Cli, lxcpath: str) -> None:
    """With -q nothing is printed but errors."""
    with removed(lxcpath, "web"):
        result = lxccopy("-q", "-n", "base", "-N", "web", "-e")
        assert (0, "", "") == (result.returncode, result.stdout, result.stderr)
        again = lxccopy("-q", "-n", "base", "-N", "web", "-e")
        assert 1 == again.returncode
        assert again.stderr.startswith("lxccopy: there is already a 'web'")


def test_keep_data(lxccopy: Cli, lxcpath: str) -> None:
    """With -D the copy and what it wrote stay, and it can be started again."""
    with removed(lxcpath, "kept"):
        result = lxccopy("-q", "-n", "base", "-N", "kept", "-e", "-D", "--", "sh", "-c", "echo data > /root/x; exit 3")
        assert 3 == result.returncode
        assert "data\n" == Path(lxcpath, "kept/overlay/delta/root/x").read_text(encoding="ascii")
        with Container("kept", lxcpath) as kept:
            assert "STOPPED" == kept.state
            assert kept.config("lxc.ephemeral") in ("", "0")
            kept.start()
            assert "RUNNING" == kept.state


@pytest.mark.parametrize("options", [["-s"], []], ids=["snapshot", "full"])
def test_copy_that_stays(lxccopy: Cli, lxcpath: str, options: list[str]) -> None:
    """A full copy and a snapshot are defined, stopped, named after themselves, and say nothing when they are made."""
    require(options or os.path.exists("/usr/bin/rsync"), "rsync is not installed")
    with removed(lxcpath, "copy"):
        result = lxccopy("-n", "base", "-N", "copy", *options)
        assert (0, "", "") == (result.returncode, result.stdout, result.stderr)
        root = Path(lxcpath, "copy", "overlay/delta" if options else "rootfs")
        assert "copy\n" == (root / "etc/hostname").read_text(encoding="ascii")
        assert "127.0.1.1\tcopy\n" in (root / "etc/hosts").read_text(encoding="ascii")
        with Container("copy", lxcpath) as copy:
            assert ("copy", "STOPPED") == (copy.config("lxc.uts.name"), copy.state)
            copy.start()
            assert "RUNNING" == copy.state


def test_clone_in_python(lxcpath: str, tmp_path: Path) -> None:
    """clone() puts the copy where newpath says, and the base cannot be destroyed as long as a snapshot is there."""
    with clone("base", "elsewhere", lxcpath=lxcpath, newpath=tmp_path, snapshot=True) as copy:
        assert str(tmp_path) == copy.lxcpath
        assert f"{tmp_path}\nelsewhere\n" == Path(lxcpath, "base/lxc_snapshots").read_text(encoding="ascii")
        copy.destroy()
        forget_lock(copy.name, copy.lxcpath)
    assert not os.path.exists(f"{lxcpath}/base/lxc_snapshots")
    assert set() == locks(str(tmp_path))


@pytest.mark.parametrize("options", [["-t"], ["-t", "--tmpfs-via=hook"], []], ids=["monitor", "hook", "disk"])
def test_identity(lxccopy: Cli, lxcpath: str, options: list[str]) -> None:
    """A copy has its own host name, its own hosts line and a fresh machine id; with -K it has the base's."""
    script = "cat /etc/hostname /proc/sys/kernel/hostname; grep 127.0.1.1 /etc/hosts; cat /etc/machine-id"
    with base_file(lxcpath, "etc/machine-id", f"{BASE_ID}\n"):
        own = lxccopy("-q", "-n", "base", "-N", "me", "-e", *options, "--", "sh", "-c", script).stdout.splitlines()
        kept = lxccopy("-q", "-n", "base", "-N", "me", "-e", "-K", *options, "--", "sh", "-c", script).stdout
    assert ["me", "me", "127.0.1.1\tme"] == own[:3]
    assert 32 == len(own[3])
    assert own[3] != BASE_ID
    assert ["base", "base", "127.0.1.1\tbase", BASE_ID] == kept.splitlines()


def test_identity_keeps_modes(lxcpath: str) -> None:
    """What is rewritten keeps its mode and owner, and so do the directories on the way and the root."""
    with EphemeralCopy("base", lxcpath=lxcpath, tmpfs=True) as copy:
        rootfs = f"{lxcpath}/base/rootfs"
        paths = ["/", "/etc", "/etc/hosts", "/etc/hostname"]
        result = copy.run(["stat", "-c", "%a %u %g", *paths], capture_output=True, text=True, check=True)
        status = [os.stat(f"{rootfs}{path}") for path in paths]
        expected = [f"{stat.S_IMODE(one.st_mode):o} {one.st_uid} {one.st_gid}" for one in status]
        assert expected == result.stdout.splitlines()


def test_host_name_link(lxcpath: str, tmp_path: Path) -> None:
    """A base whose /etc/hostname leads out of it cannot make us write there; lxc-copy does (SPEC B8)."""
    victim = tmp_path / "victim"
    victim.write_text("untouched\n", encoding="ascii")
    link = Path(lxcpath, "base/rootfs/etc/hostname")
    link.unlink()
    link.symlink_to(victim)
    try:
        with removed(lxcpath, "linked"):
            clone("base", "linked", lxcpath=lxcpath, snapshot=True).close()
        for tmpfs in (True, False):
            with EphemeralCopy("base", lxcpath=lxcpath, tmpfs=tmpfs):
                pass
    finally:
        link.unlink()
        link.write_text("base\n", encoding="ascii")
    assert "untouched\n" == victim.read_text(encoding="ascii")


def test_not_started_at_boot(lxcpath: str) -> None:
    """A throwaway copy of a container that starts with the machine does not."""
    with Container("base", lxcpath) as base:
        base.clone("booting", flags=5).close()
    with removed(lxcpath, "booting"):
        with open(f"{lxcpath}/booting/config", "a", encoding="ascii") as config:
            config.write("lxc.start.auto = 1\nlxc.group = onboot\n")
        copy = EphemeralCopy("booting", lxcpath=lxcpath)
        made = copy.create()
        assert ("0", "") == (made.config("lxc.start.auto"), made.config("lxc.group"))
        assert "1" == made.config("lxc.ephemeral")
        copy.close()


def test_running_base(lxccopy: Cli, lxcpath: str) -> None:
    """A running base is refused without -a and copied with it."""
    with EphemeralCopy("base", "runs", lxcpath=lxcpath, keep_data=True), removed(lxcpath, "runs"):
        refused = lxccopy("-n", "runs", "-e", "--", "true")
        assert 125 == refused.returncode
        assert "is running" in refused.stderr
        assert 0 == lxccopy("-q", "-n", "runs", "-e", "-a", "--", "true").returncode


def test_create_base_refuses_to_overwrite(lxccopy: Cli, lxcpath: str) -> None:
    """--create-base leaves what is there alone."""
    before = os.stat(f"{lxcpath}/base/config").st_mtime_ns
    result = lxccopy("--create-base", "base")
    assert 1 == result.returncode
    assert "there is already a 'base'" in result.stderr
    assert before == os.stat(f"{lxcpath}/base/config").st_mtime_ns


@pytest.mark.parametrize("words", ["there is no busybox", "needs shared libraries"])
def test_create_base_without_busybox(lxcpath: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    """A missing or dynamic busybox is one sentence that names the package."""
    if words == "needs shared libraries":
        (tmp_path / "busybox").symlink_to(os.path.realpath("/bin/cat"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(base, "FALLBACK_PATH", ())
    with pytest.raises(UnsupportedError, match=words) as caught:
        base.create_base("other", lxcpath=lxcpath)
    assert "busybox-static" in str(caught.value)


def test_create_base_makes_the_lxcpath(lxccopy: Cli, tmp_path: Path) -> None:
    """The directory for the first base is made."""
    path = str(tmp_path / "srv" / "lxc")
    with removed(path, "first"):
        assert 0 == lxccopy("--create-base", "first", path=path).returncode
        result = lxccopy("-q", "-n", "first", "-e", "-t", "--", "hostname", path=path)
        assert result.stdout.startswith("first_")
    os.rmdir(path)


def test_started_by_somebody_else(lxcpath: str) -> None:
    """A copy that create() made and another one started is neither started again nor removed for that."""
    copy = EphemeralCopy("base", "theirs", lxcpath=lxcpath, keep_data=True)
    copy.create()
    with removed(lxcpath, "theirs"), Container("theirs", lxcpath) as theirs:
        theirs.start()
        with pytest.raises(ValueError, match="runs already"):
            copy.start()
        assert "RUNNING" == theirs.state
        copy.close(kill=True)


def test_container_without_a_config(lxcpath: str) -> None:
    """A container that does not exist is not started on the host's files."""
    with Container("ghost", lxcpath) as ghost, pytest.raises(ContainerNotFoundError, match="is not defined"):
        ghost.start()
    forget_lock("ghost", lxcpath)


def test_frozen_is_told(lxcpath: str) -> None:
    """A command for a frozen copy is refused in place of waiting for ever."""
    with EphemeralCopy("base", lxcpath=lxcpath, tmpfs=True) as copy:
        subprocess.run(["lxc-freeze", "-P", lxcpath, "-n", copy.name], check=True)
        with pytest.raises(LiblxcError, match="it is frozen"):
            copy.run(["true"], timeout=1)
