# SPDX-License-Identifier: LGPL-2.1-or-later
"""Shortages: whatever runs out or goes away, that is one line, and nothing is left."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Cli, require
from live_helpers import Pause, has, output, plain, removed, running

from lxccopy_ffi import Container, EphemeralCopy, LxcCopyError, reap

SCARCE = Path(__file__).with_name("scarce.py")

NAME = ["-q", "-n", "base", "-N", "scarce"]

# What is done, and at which levels: at the last one it succeeds.
WAYS = {
    "disk": [*NAME, "-e", "--", "true"],
    "monitor": [*NAME, "-e", "-t", "--", "true", "x" * 4000],
    "hook": [*NAME, "-e", "-t", "--tmpfs-via=hook", "--", "true"],
    "kept": [*NAME, "-e", "-D", "--", "true", "x" * 4000],
    "mounts": [*NAME, "-e", "-m", "overlay=/usr/share:/mnt", "--", "true"],
    "snapshot": [*NAME, "-s"],
    "copy": NAME,
    "rename": [*NAME, "-R"],
    "base": ["-q", "--create-base", "scarce"],
}
FULL = [*range(20), *(20 * 2**power for power in range(6))]

IN_A_NAMESPACE = """
set -e
mount -t tmpfs -o size=16M,nr_inodes=2000 lxccopy "$1"
"$2" -m lxccopy_ffi -q -P "$1" --create-base base
shift
exec "$@"
"""


def scarce(kind: str, lxcpath: str, levels: list[int], *arguments: str, prefix: tuple[str, ...] = ()) -> list[Any]:
    """What scarce.py found."""
    result = subprocess.run(
        [*prefix, sys.executable, SCARCE, kind, lxcpath, json.dumps(levels), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert 0 == result.returncode, result.stderr
    return list(json.loads(result.stdout))


def check(results: list[Any], *, kept: bool) -> None:
    """Each failed with one line, and left nothing, but for the last one, which succeeded."""
    *failures, success = results
    for one in failures:
        assert one["status"] in (1, 125), one
        assert one["err"].startswith("lxccopy: "), one
        assert 1 == len(one["err"].splitlines()), one
        assert ([0, "", ""], [], []) == (one["reap"], one["left"], one["after"]), one
    assert (0, "", ["scarce"] if kept else []) == (success["status"], success["err"], success["left"]), success


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["blocks", "inodes"])
def test_full_disk(tmp_path: Path, kind: str, way: str) -> None:
    """However full the lxcpath is, it works, or is one line and leaves nothing."""
    require(way != "copy" or has("rsync"), "rsync is not installed")
    elsewhere = str(tmp_path / "full")
    Path(elsewhere).mkdir()
    prefix = ("unshare", "-m", "sh", "-c", IN_A_NAMESPACE, "sh", elsewhere)
    try:
        results = scarce(kind, elsewhere, FULL, *WAYS[way], prefix=prefix)
    finally:
        shutil.rmtree(f"/run/lxc/lock{elsewhere}", ignore_errors=True)
    check(results, kept=way in ("kept", "snapshot", "copy", "rename", "base"))
    assert len(results) > 1 or way == "rename"


@pytest.mark.parametrize("way", ["disk", "monitor", "hook"])
def test_few_processes(lxcpath: str, way: str) -> None:
    """However few processes we may have, it works, or is one line and leaves nothing."""
    require(os.path.isdir("/sys/fs/cgroup/pids"), "there is no cgroup1 hierarchy for pids")
    results = scarce("pids", lxcpath, [*range(1, 40)], *WAYS[way])
    check(results, kept=False)
    assert len(results) > 3


@pytest.mark.parametrize("way", ["disk", "monitor", "snapshot", "base"])
def test_few_descriptors(lxcpath: str, way: str) -> None:
    """However few descriptors we may have, it works, or is one line and leaves nothing."""
    with removed(lxcpath, "scarce"):
        results = scarce("fds", lxcpath, [*range(4, 34), *range(34, 200, 3)], *WAYS[way])
        check(results, kept=way in ("snapshot", "base"))
        assert len(results) > 10


def test_full_tmpfs(lxcpath: str) -> None:
    """A copy that has filled its tmpfs is told so, inside, and can still be used, and closed."""
    with EphemeralCopy("base", "scarce", lxcpath=lxcpath, tmpfs=True, tmpfs_size="1M") as copy:
        full = copy.run(["sh", "-c", "cat /dev/zero >/root/x"], capture_output=True, text=True)
        assert 0 != full.returncode
        assert "No space left on device" in full.stderr
        assert "still\n" == output(copy, "echo still")
        assert "freed\n" == output(copy, "rm /root/x; echo freed >/root/y; cat /root/y")


@pytest.mark.parametrize("way", WAYS)
def test_read_only(lxccopy: Cli, lxcpath: str, way: str) -> None:
    """Where the lxcpath cannot be written to, that is one line."""
    remount = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'
    command = ["unshare", "-m", "sh", "-c", remount, "sh", lxcpath, sys.executable, "-m", "lxccopy_ffi", "-P", lxcpath]
    result = subprocess.run([*command, *WAYS[way]], capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode in (1, 125)
    assert result.stderr.startswith("lxccopy: ")
    assert 1 == len(result.stderr.splitlines()), result.stderr
    assert "read-only" in result.stderr.lower()
    again = lxccopy("--reap")
    assert (0, "", "") == (again.returncode, again.stdout, again.stderr)


def test_read_only_base(lxcpath: str, tmp_path: Path) -> None:
    """A copy elsewhere of a base that cannot be written to, and so forgets it, is made and removed as ever."""
    remount = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'
    command = ["unshare", "-m", "sh", "-c", remount, "sh", lxcpath, sys.executable, "-m", "lxccopy_ffi", "-P", lxcpath]
    result = subprocess.run(
        [*command, "-p", str(tmp_path), *WAYS["monitor"]], capture_output=True, text=True, check=False, timeout=60
    )
    assert (0, "", "") == (result.returncode, result.stdout, result.stderr)
    assert [] == os.listdir(tmp_path)
    shutil.rmtree(f"/run/lxc/lock{tmp_path}", ignore_errors=True)


# The base goes away


def remove_base(base: Path) -> None:
    """All of it is removed, by force."""
    shutil.rmtree(base)


def rename_base(base: Path) -> None:
    """It gets another name behind our back."""
    base.rename(base.with_name("moved"))


def rename_rootfs(base: Path) -> None:
    """So does its root file system."""
    (base / "rootfs").rename(base / "moved")


GONE = [remove_base, rename_base, rename_rootfs]


def restore(base: Path) -> None:
    """Have a base again, so that it can be removed as ever."""
    if base.with_name("moved").is_dir():
        shutil.rmtree(base, ignore_errors=True)
        base.with_name("moved").rename(base)
    if (base / "moved").is_dir():
        (base / "moved").rename(base / "rootfs")
    (base / "lxc_snapshots").unlink(missing_ok=True)  # what could not be told there


@pytest.mark.parametrize("tmpfs", [False, True], ids=["disk", "tmpfs"])
@pytest.mark.parametrize("event", ["created", "started"])
@pytest.mark.parametrize("gone", GONE)
def test_base_goes_away(lxcpath: str, gone: Callable[[Path], None], event: str, *, tmpfs: bool) -> None:
    """A copy whose base goes away does not start, or ends as ever, and nothing of it is left."""
    with plain(lxcpath, "source") as base:
        copy = EphemeralCopy(
            "source",
            "scarce",
            lxcpath=lxcpath,
            tmpfs=tmpfs,
            on_event=lambda now, _: gone(base) if now == event else None,
        )
        if event == "created":
            with pytest.raises(LxcCopyError, match="cannot start"):
                copy.start()
        else:
            with copy:
                copy.run(["/bin/true"])  # whatever becomes of it
        assert not os.path.lexists(f"{lxcpath}/scarce")
        assert [] == reap(lxcpath)
        assert not [name for name in os.listdir(lxcpath) if name.startswith(".")]
        restore(base)


def test_base_is_stopped(lxcpath: str) -> None:
    """A copy of a running base runs on when that stops."""
    with plain(lxcpath, "source"), Container("source", lxcpath) as base:
        base.start()
        with EphemeralCopy("source", "scarce", lxcpath=lxcpath, tmpfs=True, allow_running=True) as copy:
            base.stop()
            assert not running(lxcpath, "source")
            assert "on\n" == output(copy, "echo on")


@pytest.mark.parametrize("snapshot", [False, True], ids=["full", "snapshot"])
@pytest.mark.parametrize("gone", GONE)
def test_base_goes_away_while_it_is_copied(
    lxccopy: Cli, lxcpath: str, tmp_path: Path, gone: Callable[[Path], None], *, snapshot: bool
) -> None:
    """When the base goes away in the middle of a copy, that is done, or one line, and a half one is not left."""
    require(snapshot or has("rsync"), "rsync is not installed")
    with Pause(tmp_path) as pause, plain(lxcpath, "source", f"lxc.hook.clone = {pause.hook}") as base:
        command = [sys.executable, "-m", "lxccopy_ffi", "-q", "-P", lxcpath, "-n", "source", "-N", "scarce"]
        with subprocess.Popen([*command, *(["-s"] if snapshot else [])], stderr=subprocess.PIPE, text=True) as copying:
            pause.wait()
            gone(base)
            pause.go_on()
            _, said = copying.communicate(timeout=30)
        assert copying.returncode in (0, 1)
        if copying.returncode:
            assert said.startswith("lxccopy: ")
            assert 1 == len(said.splitlines()), said
            assert not os.path.lexists(f"{lxcpath}/scarce")
        else:
            assert os.path.isfile(f"{lxcpath}/scarce/rootfs/bin/busybox") or snapshot
        again = lxccopy("--reap")
        assert (0, "", "") == (again.returncode, again.stdout, again.stderr)
        restore(base)
        with removed(lxcpath, "scarce"):
            pass
