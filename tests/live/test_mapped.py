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
from live_helpers import MAPPED_ROOT, has, mapped, settings, tree, with_subordinate_ids

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
