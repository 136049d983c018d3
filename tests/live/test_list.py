# SPDX-License-Identifier: LGPL-2.1-or-later
"""--list: which copies there are, how they are, and what they use; whatever state they are in."""

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
from typing import Any

import pytest
from conftest import ROOT, Cli, require
from live_helpers import configure, has, plain, removed, script

from lxccopy_ffi import Container, EphemeralCopy, cgroups, clone, ledger, listing, reap
from lxccopy_ffi.processes import command_lines

MEGABYTE = 1 << 20

FIELDS: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "lxcpath": (str,),
    "base": (str,),
    "base_lxcpath": (str,),
    "state": (str,),
    "orphan": (bool,),
    "created": (float,),
    "creator": (int,),
    "creator_alive": (bool,),
    "init_pid": (int,),
    "tmpfs": (str, type(None)),
    "tmpfs_used": (int, type(None)),
    "tmpfs_size": (int, type(None)),
    "memory": (int, type(None)),
    "command": (list,),
}


def listed(lxccopy: Cli) -> dict[str, dict[str, Any]]:
    """What --list --json says, by name; it must not take long."""
    began = time.monotonic()
    done = lxccopy("--list", "--json")
    assert time.monotonic() - began < 20
    assert (0, "") == (done.returncode, done.stderr)
    found = json.loads(done.stdout)
    for copy in found:
        assert FIELDS.keys() == copy.keys()
        for name, kinds in FIELDS.items():
            assert type(copy[name]) in kinds, name
    return {copy["name"]: copy for copy in found}


@contextmanager
def killed_at(lxcpath: str, step: str) -> Iterator[None]:
    """A copy whose maker was killed."""
    command = [sys.executable, "-m", "lxccopy_ffi", "-P", lxcpath, "-n", "base", "-N", "copy", "-e", "--", "true"]
    environment = {**os.environ, "LXCCOPY_KILL_AT": step}
    with removed(lxcpath, "copy"):
        done = subprocess.run(command, check=False, cwd=ROOT, env=environment, timeout=60)
        assert -signal.SIGKILL == done.returncode
        yield


def test_nothing(lxccopy: Cli, lxcpath: str) -> None:
    """Containers that are no copies of ours, or were handed over, are not listed."""
    with removed(lxcpath, "snap"):
        clone("base", "snap", lxcpath=lxcpath, snapshot=True).close()
        assert {} == listed(lxccopy)
        done = lxccopy("--list", "-q")
        assert (0, "", "") == (done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("via", ["monitor", "hook", None])
def test_running(lxccopy: Cli, lxcpath: str, via: str | None) -> None:
    """A running copy is listed with all that is known of it; when it is closed it is gone."""
    before = time.time()
    options: dict[str, Any] = {"tmpfs": True, "tmpfs_size": "64M", "tmpfs_via": via} if via else {}
    with EphemeralCopy("base", "copy", lxcpath=lxcpath, **options) as copy:
        copy.run(["sh", "-c", "exit 0"])
        one = listed(lxccopy)["copy"]
        assert ("RUNNING", False, lxcpath, "base", lxcpath) == tuple(
            one[key] for key in ("state", "orphan", "lxcpath", "base", "base_lxcpath")
        )
        assert (os.getpid(), True, copy.container.init_pid) == (one["creator"], one["creator_alive"], one["init_pid"])
        assert (["sh", "-c", "exit 0"], via) == (one["command"], one["tmpfs"])
        assert int(before) <= one["created"] <= time.time()
        assert (64 * MEGABYTE if via else None) == one["tmpfs_size"]
        line = lxccopy("--list", "-q").stdout
        assert ["copy", "base", "RUNNING"] == line.split()[:3]
        assert f"{os.getpid()} " in line
        assert line.endswith("sh -c 'exit 0'\n")
    assert {} == listed(lxccopy)


def test_numbers(lxccopy: Cli, lxcpath: str) -> None:
    """A file of known size that is written in the copy is seen in the use of its tmpfs, and of its memory."""
    with EphemeralCopy("base", "copy", lxcpath=lxcpath, tmpfs=True, tmpfs_size="64M") as copy:
        copy.run(["true"])
        first = listed(lxccopy)["copy"]
        script = "dd if=/dev/zero of=/root/file bs=1M count=20 2>/dev/null"
        assert 0 == copy.run(["sh", "-c", script]).returncode
        second = listed(lxccopy)["copy"]
        assert 20 * MEGABYTE <= second["tmpfs_used"] - first["tmpfs_used"] < 21 * MEGABYTE
        assert second["tmpfs_used"] < second["tmpfs_size"] == 64 * MEGABYTE
        if first["memory"] is not None:
            assert 19 * MEGABYTE <= second["memory"] - first["memory"] < 40 * MEGABYTE
        copy.run(["rm", "/root/file"])
        assert listed(lxccopy)["copy"]["tmpfs_used"] < first["tmpfs_used"] + MEGABYTE


def test_frozen(lxccopy: Cli, lxcpath: str) -> None:
    """A frozen copy is listed as such, with its numbers."""
    require(has("lxc-freeze"), "lxc-freeze is not installed")
    with EphemeralCopy("base", "copy", lxcpath=lxcpath, tmpfs=True) as copy:
        subprocess.run(["lxc-freeze", "-P", lxcpath, "-n", "copy"], check=True)
        one = listed(lxccopy)["copy"]
        assert ("FROZEN", False, copy.container.init_pid) == (one["state"], one["orphan"], one["init_pid"])
        assert one["tmpfs_used"] is not None
        subprocess.run(["lxc-unfreeze", "-P", lxcpath, "-n", "copy"], check=True)


def test_detached(lxccopy: Cli, lxcpath: str) -> None:
    """A copy in the background is listed when its maker has ended, and is no orphan."""
    with removed(lxcpath, "copy"):
        assert 0 == lxccopy("-q", "-n", "base", "-N", "copy", "-e", "-t").returncode
        one = listed(lxccopy)["copy"]
        assert ("RUNNING", False, False, []) == tuple(
            one[key] for key in ("state", "orphan", "creator_alive", "command")
        )
        assert " (gone)" in lxccopy("--list").stdout


@pytest.mark.parametrize("step", ["name-claimed", "copied", "saved"])
def test_orphan(lxccopy: Cli, lxcpath: str, step: str) -> None:
    """A copy whose maker was killed is listed as an orphan until it is reaped, half made or whole."""
    with killed_at(lxcpath, step):
        one = listed(lxccopy)["copy"]
        assert ("STOPPED", True, False, -1, None) == tuple(
            one[key] for key in ("state", "orphan", "creator_alive", "init_pid", "memory")
        )
        assert "STOPPED (orphan)" in lxccopy("--list").stdout
        assert ["removed"] == [orphan.action for orphan in reap(lxcpath)]
        assert {} == listed(lxccopy)


def test_being_made(lxccopy: Cli, lxcpath: str) -> None:
    """A copy that is made and not started is listed as such as long as its maker has it, and is no orphan."""
    copy = EphemeralCopy("base", "copy", lxcpath=lxcpath)
    copy.create()
    try:
        one = listed(lxccopy)["copy"]
        assert ("STARTING", False, True) == (one["state"], one["orphan"], one["creator_alive"])
    finally:
        copy.close()


def hanging_hook(tmp_path: Path) -> Path:
    """A hook that says that it has begun, and then waits for a word."""
    os.mkfifo(tmp_path / "end")
    return script(tmp_path / "hook", f"touch {tmp_path}/begun; read x < {tmp_path}/end")


def await_file(path: Path) -> None:
    """Wait until a file is there."""
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_hook_that_hangs(lxccopy: Cli, lxcpath: str, tmp_path: Path) -> None:
    """A copy whose start hangs in a hook is listed as starting, at once."""
    with plain(lxcpath, "source"):
        configure(lxcpath, "source", f"lxc.hook.pre-start = {hanging_hook(tmp_path)}")
        command = [sys.executable, "-m", "lxccopy_ffi", "-q", "-P", lxcpath, "-n", "source", "-N", "copy", "-e"]
        with subprocess.Popen([*command, "--", "true"], cwd=ROOT) as maker:
            await_file(tmp_path / "begun")
            one = listed(lxccopy)["copy"]
            assert ("STARTING", False, maker.pid) == (one["state"], one["orphan"], one["creator"])
            (tmp_path / "end").write_text("go\n", encoding="ascii")
            assert 0 == maker.wait(20)
        assert {} == listed(lxccopy)


@pytest.mark.parametrize("everything", [False, True])
def test_hook_that_hangs_without_its_maker(lxccopy: Cli, lxcpath: str, tmp_path: Path, everything: bool) -> None:
    """Where the maker and the guard of such a copy are killed, it starts still: it is listed so, and not reaped."""
    with plain(lxcpath, "source"), removed(lxcpath, "copy"):
        configure(lxcpath, "source", f"lxc.hook.pre-start = {hanging_hook(tmp_path)}")
        command = [sys.executable, "-m", "lxccopy_ffi", "-q", "-P", lxcpath, "-n", "source", "-N", "copy", "-e"]
        with subprocess.Popen([*command, "--", "true"], cwd=ROOT) as maker:
            await_file(tmp_path / "begun")
            (guard,) = (pid for pid, line in command_lines() if line == f"[lxccopy guard] {lxcpath} copy")
            os.kill(guard, signal.SIGKILL)
            maker.kill()
        one = listed(lxccopy)["copy"]
        assert ("STARTING", False) == (one["state"], one["orphan"])
        assert [] == reap(lxcpath, everything=everything)
        (tmp_path / "end").write_text("go\n", encoding="ascii")
        with Container("copy", lxcpath) as container:
            while not container.running:
                time.sleep(0.01)
        assert "RUNNING" == listed(lxccopy)["copy"]["state"]


def test_reboot_that_hangs(lxccopy: Cli, lxcpath: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that runs, and then hangs in a hook of its reboot, does not stop the list."""
    monkeypatch.setattr(listing, "_PATIENCE", 0.2)
    hook = hanging_hook(tmp_path)
    text = hook.read_text(encoding="ascii").replace("touch", f"test -e {tmp_path}/armed || exit 0; touch")
    hook.write_text(text, encoding="ascii")
    with plain(lxcpath, "source"):
        configure(lxcpath, "source", f"lxc.hook.pre-start = {hook}")
        with EphemeralCopy("source", "copy", lxcpath=lxcpath) as copy:
            (tmp_path / "armed").touch()
            copy.run(["reboot", "-f"])
            await_file(tmp_path / "begun")
            one = listed(lxccopy)["copy"]
            assert ("STARTING", False) == (one["state"], one["orphan"])
            assert [] == reap(lxcpath)
            (tmp_path / "end").write_text("go\n", encoding="ascii")
            while copy.container.state != "RUNNING":
                assert copy.container._monitor >= 0


def test_ledgers_of_others(lxccopy: Cli, lxcpath: str) -> None:
    """A ledger of another user, of another machine or of another name is no reason to fail."""
    with killed_at(lxcpath, "saved"):
        file = Path(lxcpath, "copy", ledger.FILE)
        text = file.read_text(encoding="ascii")
        os.chown(file, 1234, 1234)
        assert ["copy"] == list(listed(lxccopy))
        for old, new in (('"copy"', '"other"'), ('"host": "', '"host": "x'), ('"schema": 1', '"schema": 2')):
            file.write_text(text.replace(old, new), encoding="ascii")
            assert (["copy"] if "host" in old else []) == list(listed(lxccopy))


def test_configuration_that_is_no_file(lxccopy: Cli, lxcpath: str) -> None:
    """A pipe in the place of a copy's configuration is not waited for."""
    with killed_at(lxcpath, "saved"):
        config = Path(lxcpath, "copy", "config")
        saved = config.read_bytes()
        config.unlink()
        os.mkfifo(config)
        try:
            assert "STOPPED" == listed(lxccopy)["copy"]["state"]
        finally:
            config.unlink()
            config.write_bytes(saved)


def test_memory_is_that_of_its_cgroup(lxcpath: str) -> None:
    """The memory is what the kernel says of the copy's own cgroup, not that of one further down."""
    with EphemeralCopy("base", "copy", lxcpath=lxcpath, tmpfs=True) as copy:
        init = copy.container.init_pid
        first = cgroups.memory(init, "copy")
        require(first is not None, "memory is not accounted for")
        assert None is cgroups.memory(init, "other")
        (one,) = listing.copies(lxcpath)
        assert one.memory is not None
        assert 0 < one.memory < 200 * MEGABYTE
        assert "RUNNING" in repr(one)
