# SPDX-License-Identifier: LGPL-2.1-or-later
"""The same on a real distribution: a Debian with systemd, made once and cached."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from conftest import DEBIAN_CONFIG, Cli, Left, debian_archive, require

from lxccopy_ffi import EphemeralCopy, _raw

BASE_ID = "0123456789abcdef0123456789abcdef"
BOOTED = (
    "until s=$(systemctl is-system-running 2>/dev/null); [ $s = running ] || [ $s = degraded ]; do :; done; echo $s"
)


@pytest.fixture(scope="module")
def debian_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A directory with one container, ``debian``, that has been booted somewhere before: it has a machine id."""
    require(os.geteuid() == 0, "containers are started as root")
    archive = debian_archive()
    path = tmp_path_factory.mktemp("debian")
    rootfs = path / "debian" / "rootfs"
    rootfs.mkdir(parents=True)
    subprocess.run(["tar", "-C", rootfs, "--numeric-owner", "-xpf", archive], check=True)
    (rootfs / "etc/machine-id").write_text(f"{BASE_ID}\n", encoding="ascii")
    (path / "debian" / "config").write_text(DEBIAN_CONFIG.format(rootfs=rootfs), encoding="ascii")
    yield str(path)
    shutil.rmtree(path)
    shutil.rmtree(f"/run/lxc/lock{path}", ignore_errors=True)


@pytest.fixture
def lxcpath(debian_path: str) -> Iterator[str]:
    """The directory with ``debian``, in place of the one with ``base``."""
    left = Left(debian_path)
    yield debian_path
    left.check()


def output(copy: EphemeralCopy, script: str) -> str:
    """What a shell script prints in a copy."""
    return str(copy.run(["sh", "-c", script], capture_output=True, text=True, timeout=60).stdout)


def test_boots(lxcpath: str) -> None:
    """A copy in memory boots until systemd says "running", no unit failed, and the machine id is fresh."""
    with EphemeralCopy("debian", "copy-1", lxcpath=lxcpath, tmpfs=True) as copy:
        assert "running\n" == output(copy, BOOTED)
        assert "" == output(copy, "systemctl --failed --no-legend --plain")
        machine_id = output(copy, "cat /etc/machine-id").strip()
        assert 32 == len(machine_id)
        assert machine_id != BASE_ID
        assert "copy-1\n" == output(copy, "hostname")
        assert " overlay " in output(copy, "df -T /")


def test_reboot(lxcpath: str) -> None:
    """A reboot, as systemd does it, keeps the data."""
    with EphemeralCopy("debian", lxcpath=lxcpath, tmpfs=True, tmpfs_size="200M") as copy:
        assert "running\n" == output(copy, BOOTED)
        output(copy, "echo kept > /root/x")
        init = _raw.pidfd_open(copy.container.init_pid)
        output(copy, "systemctl reboot")
        assert _raw.wait_readable(init, 60)
        os.close(init)
        while copy.container.state != "RUNNING":
            assert not copy.container.wait_gone(0)
        assert "running\n" == output(copy, BOOTED)
        assert "kept\n" == output(copy, "cat /root/x")
        assert "204800" in output(copy, "df -k /")


def test_status(lxccopy: Cli) -> None:
    """A command's status arrives, without waiting for the system to boot or to shut down."""
    assert 7 == lxccopy("-q", "-n", "debian", "-e", "-t", "--", "sh", "-c", "exit 7").returncode


def test_polite_shutdown(lxcpath: str) -> None:
    """Asked politely, systemd ends by itself, and the copy is gone."""
    with EphemeralCopy("debian", lxcpath=lxcpath, tmpfs=True, shutdown_timeout=60) as copy:
        assert "running\n" == output(copy, BOOTED)


def test_wait_booted(lxcpath: str) -> None:
    """wait_booted() returns when systemd has reached its target, also after a reboot, and not before."""
    with EphemeralCopy("debian", lxcpath=lxcpath, tmpfs=True) as copy:
        for _ in range(2):
            copy.wait_booted(60)
            assert output(copy, "systemctl is-system-running").strip() in ("running", "degraded")
            copy.reboot(60)
        with pytest.raises(TimeoutError, match=r"it has not booted after 0 seconds"):
            copy.wait_booted(0)


def test_wait_booted_option(lxccopy: Cli) -> None:
    """With --wait-booted the command finds a system that is up."""
    done = lxccopy("-q", "-n", "debian", "-e", "-t", "--wait-booted=60", "--", "systemctl", "is-system-running")
    assert (0, "running\n") == (done.returncode, done.stdout)


def test_user_of_a_real_system(lxcpath: str) -> None:
    """A command gets the user and the groups that Debian has, and its home."""
    with EphemeralCopy("debian", lxcpath=lxcpath, tmpfs=True) as copy:
        done = copy.run(["sh", "-c", "id; echo $HOME"], user="www-data", group="games", capture_output=True, text=True)
    assert ["uid=33(www-data) gid=60(games) groups=60(games)", "/var/www"] == done.stdout.splitlines()
