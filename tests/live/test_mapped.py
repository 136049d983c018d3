# SPDX-License-Identifier: LGPL-2.1-or-later
"""Copies of a base with an id map, started by root: the overlay is root's, so that it can do all that one can."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, Cli, Left, require
from live_helpers import MAPPED_ROOT, has, mapped, removed, settings, tree, with_subordinate_ids

# What an overlay that was mounted in a user namespace cannot do without the option userxattr.
SHELL = """
set -e
rm -r /etc/init.d; mkdir /etc/init.d; test -z "$(ls -A /etc/init.d)"
mv /var/spool /var/moved; test -d /var/moved
rm -r /home; mkdir /home; echo data > /home/file
cat /etc/hostname /home/file; id -u; xargs < /proc/self/uid_map
"""

WAYS = {"memory": ["-t"], "disk": []}


@pytest.fixture
def source(lxcpath: str) -> Iterator[Path]:
    """The base."""
    require(has("newuidmap"), "newuidmap is not installed")
    with mapped(lxcpath, "source") as directory:
        yield directory


def call(lxcpath: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Call the command line with subordinate ids for root."""
    command = [sys.executable, "-m", "lxccopy_ffi", "-q", "-P", lxcpath, *arguments]
    return subprocess.run(
        with_subordinate_ids(*command),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("way", WAYS)
def test_directories_of_the_base(lxcpath: str, source: Path, way: str) -> None:
    """Directories of the base can be removed, moved and made again, and the base stays as it was."""
    before, left = tree(source), Left(lxcpath)
    result = call(lxcpath, "-n", "source", "-N", "copy", "-e", *WAYS[way], "--", "sh", "-c", SHELL)
    assert (0, f"copy\ndata\n0\n0 {MAPPED_ROOT} 65536\n", "") == (result.returncode, result.stdout, result.stderr)
    assert before == tree(source)
    left.check()


# Run in a process of its own, in which root has subordinate ids.
REBOOT = """
import sys
sys.path[:0] = sys.argv[3:]
from live_helpers import output, reboot
from lxccopy_ffi import EphemeralCopy
with EphemeralCopy("source", "copy", lxcpath=sys.argv[1], tmpfs=sys.argv[2] == "memory") as copy:
    output(copy, "rm -r /etc/init.d; mkdir /etc/init.d; mv /opt /moved; echo 1 > /root/file")
    for _ in range(2):
        reboot(copy)
        print(output(copy, "ls -A /etc/init.d; test -d /opt || cat /root/file; ls -d /moved"), end="")
"""


@pytest.mark.parametrize("way", WAYS)
def test_reboot(lxcpath: str, source: Path, way: str) -> None:
    """What was removed stays removed after a reboot, and what was written is there."""
    before, left = tree(source), Left(lxcpath)
    command = [sys.executable, "-c", REBOOT, lxcpath, way, str(ROOT), str(ROOT / "tests"), str(ROOT / "tests/live")]
    result = subprocess.run(with_subordinate_ids(*command), capture_output=True, text=True, check=False, timeout=60)
    assert (0, "1\n/moved\n" * 2, "") == (result.returncode, result.stdout, result.stderr)
    assert before == tree(source)
    left.check()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.usefixtures("source")
def test_mounted_overlay(lxcpath: str, tmp_path: Path, way: str) -> None:
    """A mounted overlay can do the same, and what it lies on stays as it was."""
    (tmp_path / "data/sub").mkdir(parents=True)
    (tmp_path / "data/sub/file").touch()
    for path in (tmp_path / "data", *(tmp_path / "data").rglob("*")):
        os.chown(path, MAPPED_ROOT, MAPPED_ROOT)
    script = "touch /mnt/new && rm -r /mnt/sub && mkdir /mnt/sub && ls -A /mnt /mnt/sub"
    mount = f"overlay={tmp_path}/data:/mnt"
    before = tree(tmp_path)
    result = call(lxcpath, "-n", "source", "-e", *WAYS[way], "-m", mount, "--", "sh", "-c", script)
    assert (0, "/mnt:\nnew\nsub\n\n/mnt/sub:\n", "") == (result.returncode, result.stdout, result.stderr)
    assert before == tree(tmp_path)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.usefixtures("source")
def test_in_the_background(lxccopy: Cli, lxcpath: str, way: str) -> None:
    """A copy that nobody waits for is removed when it stops, without its base's files being walked over."""
    left = Left(lxcpath)
    result = call(lxcpath, "-n", "source", "-N", "copy", "-e", *WAYS[way])
    assert (0, "", "") == (result.returncode, result.stdout, result.stderr)
    (copy,) = json.loads(lxccopy("--list", "--json").stdout)
    assert ("copy", "RUNNING", False) == (copy["name"], copy["state"], copy["orphan"])
    assert [] == settings(lxcpath, "copy", "lxc.ephemeral")  # liblxc must not remove it itself
    assert ["dir:/run/lxccopy/merged"] == settings(lxcpath, "copy", "lxc.rootfs.path")
    os.kill(copy["init_pid"], 9)
    deadline = time.monotonic() + 20
    while os.path.exists(f"{lxcpath}/copy") or os.path.exists(f"/run/lxc/lock{lxcpath}/.copy"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    left.check()


RUNNING = """
import os, sys
from lxccopy_ffi import EphemeralCopy
lxcpath, place = sys.argv[1:]
with EphemeralCopy("source", lxcpath=lxcpath, tmpfs=True) as copy:
    said = lambda *argv, **options: copy.run(argv, stdout=-1, text=True, check=True, **options).stdout.split()
    print(said("id", "-u", user="nobody"), said("whoami", user=0), said("id", "-g", user="nobody", group=7))
    os.chown(place + "/file", 5, 6)
    copy.put(place + "/file", "/root")
    copy.put(place + "/file", "/root/his", owner="7:8")
    print(said("stat", "-c", "%u:%g:%a", "/root/file", "/root/his"))
    copy.get("/root/his", place)
    found = os.stat(place + "/his")
    print(found.st_uid, found.st_gid)
    try:
        copy.put(place + "/file", "/root", owner=70000)
    except ValueError as error:
        print(error)
    said("rm", "-r", "/etc/init.d")
    copy.commit("kept").close()
with EphemeralCopy("kept", lxcpath=lxcpath) as copy:
    owner = copy.run(["stat", "-c", "%u", "/root/his"], stdout=-1).stdout
    print(owner, copy.run(["test", "-e", "/etc/init.d"]).returncode)
"""


def test_running_copy(lxcpath: str, source: Path, tmp_path: Path) -> None:
    """Users, owners of files and what commit() keeps are the container's, whatever its ids are on the host."""
    require(has("rsync"), "rsync is not installed")
    (tmp_path / "file").touch(0o640)
    with removed(lxcpath, "kept"):
        done = subprocess.run(
            with_subordinate_ids(sys.executable, "-c", RUNNING, lxcpath, str(tmp_path)),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    assert [
        "['65534'] ['root'] ['7']",
        "['0:0:640', '7:8:640']",
        "7 8",
        "owner: the container's ids do not reach to 70000",
        "b'7\\n' 1",
    ] == done.stdout.splitlines(), done.stderr
    assert source.exists()
