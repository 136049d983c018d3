# SPDX-License-Identifier: LGPL-2.1-or-later
"""The verdict of --check, held against whether a command runs in a throwaway copy, where something is missing."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, require

# What is done to a mount namespace before, with which rights, and whether a command then runs.
PLACES = [
    ("", "", True),
    ("", "-dac_override", False),
    ("", "-setpcap", False),
    ("", "-sys_chroot", False),
    ("", "-sys_admin", False),
    ("", "-sys_ptrace,-net_admin,-mknod,-setfcap,-sys_resource", True),
    ("mount --bind {0} {0}; mount -o remount,bind,ro {0}", "", False),
    ("mount --bind {0} {0}; mount -o remount,bind,noexec,nodev,nosuid {0}", "", True),
    ("mount --bind /run /run; mount -o remount,bind,ro /run", "", False),
    ("mount -t tmpfs x /run", "", True),
    ("mount -t tmpfs x /run; mkdir -p /run/lxccopy/upper", "", False),
    ("umount -R -l /sys/fs/cgroup", "", True),
    ("umount -R -l /sys/fs/cgroup; mount -t cgroup2 x /sys/fs/cgroup", "", True),
    ("umount -R -l /sys/fs/cgroup; mount -t cgroup2 -o ro x /sys/fs/cgroup", "", True),
    ("export LXCCOPY_LIBLXC=/nowhere", "", False),
]


@pytest.mark.parametrize(("script", "capabilities", "works"), PLACES)
def test_verdict(lxcpath: str, script: str, capabilities: str, works: bool) -> None:
    """The verdict is that a command runs in a copy in memory if and only if it does."""
    require(shutil.which("unshare") and shutil.which("setpriv"), "the programs unshare and setpriv are not installed")
    statuses = []
    for words in (["--check", "-q"], ["-q", "-n", "base", "-e", "-t", "--", "true"]):
        place = ["unshare", "-m", "--propagation", "private", "sh", "-ec", f'{script.format(lxcpath)}\nexec "$@"', "sh"]
        rights = ["setpriv", f"--bounding-set={capabilities}"] if capabilities else []
        done = subprocess.run(
            [*place, *rights, sys.executable, "-m", "lxccopy_ffi", "-P", lxcpath, *words],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=60,
            cwd=ROOT,
        )
        statuses.append(done.returncode == 0)
    assert [works, works] == statuses
