# SPDX-License-Identifier: LGPL-2.1-or-later
"""Copies in memory: where the memory is, what it survives, and that a copy without it never runs."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from conftest import Cli, mounts, require
from live_helpers import output, reboot

from lxccopy_ffi import Container, EphemeralCopy, LiblxcError, UnsupportedError, _raw, processes
from lxccopy_ffi.locking import forget_lock


def monitor_of(copy: EphemeralCopy) -> int:
    """The process id of a copy's monitor, the parent of its init."""
    return processes.parent(copy.container.init_pid)


def tmpfs_of(copy: EphemeralCopy) -> list[str]:
    """The tmpfs that only the copy's monitor sees, as lines of its mountinfo."""
    lines = Path(f"/proc/{monitor_of(copy)}/mountinfo").read_text(encoding="ascii").splitlines()
    return [line for line in lines if " /run/lxccopy " in line and " - tmpfs " in line]


def test_mounted_for_the_monitor_only(lxcpath: str) -> None:
    """The tmpfs has the size that was asked for, and the host sees no mount."""
    before = mounts()
    with EphemeralCopy("base", lxcpath=lxcpath, tmpfs=True, tmpfs_size="16M") as copy:
        assert before == mounts()
        (line,) = tmpfs_of(copy)
        assert "size=16384k" in line
        copy.run(["touch", "/root/x"], check=True)
        assert [] == os.listdir(f"{lxcpath}/{copy.name}/overlay/delta")


@pytest.mark.parametrize("size", ["16M", "10%"])
def test_size(lxcpath: str, size: str) -> None:
    """The size of the file system that the container sees is the limit."""
    with EphemeralCopy("base", lxcpath=lxcpath, tmpfs=True, tmpfs_size=size) as copy:
        blocks = int(output(copy, "df -k / | tail -1 | awk '{print $(NF-4)}'"))
    memory = int(Path("/proc/meminfo").read_text(encoding="ascii").split()[1])
    assert blocks == pytest.approx(16384 if size == "16M" else memory // 10, rel=0.01)


def test_full(lxcpath: str) -> None:
    """Filling a small tmpfs gives "No space left" inside and costs the host nothing."""
    free = os.statvfs(lxcpath).f_bfree
    with EphemeralCopy("base", lxcpath=lxcpath, tmpfs=True, tmpfs_size="16M") as copy:
        result = copy.run(["dd", "if=/dev/zero", "of=/root/big", "bs=1M", "count=64"], capture_output=True, text=True)
        assert 0 != result.returncode
        assert "No space left on device" in result.stderr
        assert abs(free - os.statvfs(lxcpath).f_bfree) < 2000
        copy.run(["sh", "-c", "rm /root/big && touch /root/small"], check=True)


def test_inodes(lxcpath: str) -> None:
    """The number of files can be limited too."""
    with EphemeralCopy("base", lxcpath=lxcpath, tmpfs=True, tmpfs_inodes=100) as copy:
        result = copy.run(["sh", "-c", "for i in $(seq 200); do : > /root/$i || exit 9; done"], capture_output=True)
        assert 0 != result.returncode
        assert b"No space left on device" in result.stderr


def test_reboot(lxcpath: str) -> None:
    """Data, limit and identity survive reboots of the copy."""
    with EphemeralCopy("base", lxcpath=lxcpath, tmpfs=True, tmpfs_size="16M") as copy:
        output(copy, "echo kept > /root/x")
        for _ in range(3):
            reboot(copy)
            assert f"kept\n{copy.name}\n" == output(copy, "cat /root/x /etc/hostname")
            (line,) = tmpfs_of(copy)
            assert "size=16384k" in line


def test_killed_monitor(lxcpath: str) -> None:
    """Kill -9 of the monitor takes the tmpfs with it, and closing the copy removes the rest."""
    before = mounts()
    with EphemeralCopy("base", lxcpath=lxcpath, tmpfs=True) as copy:
        os.kill(monitor_of(copy), signal.SIGKILL)
        assert copy.container.wait_gone(10)
        assert before == mounts()


def test_gone_when_it_stops(lxcpath: str) -> None:
    """A detached copy removes itself when its system halts."""
    copy = EphemeralCopy("base", "halting", lxcpath=lxcpath, tmpfs=True)
    copy.start()
    pidfd = os.pidfd_open(monitor_of(copy))
    copy.run(["poweroff", "-f"])
    copy.detach()
    assert _raw.wait_readable(pidfd, 10)
    os.close(pidfd)
    assert not os.path.exists(f"{lxcpath}/halting")
    os.unlink(f"/run/lxc/lock{lxcpath}/.halting")


def test_too_small(lxcpath: str) -> None:
    """A tmpfs that cannot even hold the directories is refused."""
    with pytest.raises(UnsupportedError, match="too small"):
        EphemeralCopy("base", lxcpath=lxcpath, tmpfs=True, tmpfs_inodes=1).start()


def test_only_we_can_start_it(lxcpath: str) -> None:
    """A copy whose memory only we can mount does not run on disk when another tool starts it."""
    require(os.path.exists("/usr/bin/lxc-start"), "lxc-start is not installed")
    copy = EphemeralCopy("base", "ours", lxcpath=lxcpath, tmpfs=True, tmpfs_via="monitor")
    copy.create()
    try:
        started = subprocess.run(
            ["lxc-start", "-P", lxcpath, "-n", "ours", "-F"], capture_output=True, text=True, check=False, timeout=60
        )
        assert 0 != started.returncode
        assert "STOPPED" == copy.container.state
    finally:
        copy.close()
    assert ["upper"] == os.listdir("/run/lxccopy")
    assert not os.path.exists("/run/lxccopy/upper")


def test_hook_for_other_tools(lxcpath: str) -> None:
    """A copy that create() made can be started by lxc-start, and is on a tmpfs."""
    require(os.path.exists("/usr/bin/lxc-start"), "lxc-start is not installed")
    copy = EphemeralCopy("base", "theirs", lxcpath=lxcpath, tmpfs=True, tmpfs_size="32M")
    made = copy.create()
    try:
        hook = made.config("lxc.hook.pre-mount")
        assert hook.startswith(f"{lxcpath}/theirs/pre-start-")
        subprocess.run(["lxc-start", "-P", lxcpath, "-n", "theirs"], check=True, timeout=60)
        assert "32768" in output(copy, "df -k /")
        assert "theirs\n127.0.1.1\ttheirs\n" == output(copy, "cat /etc/hostname; grep 127.0.1.1 /etc/hosts")
        output(copy, "touch /root/x")
        assert [] == os.listdir(f"{lxcpath}/theirs/overlay/delta")
    finally:
        copy.close()


@pytest.mark.parametrize("via", ["monitor", "hook"])
def test_forced_way(lxccopy: Cli, via: str) -> None:
    """--tmpfs-via chooses the way, and both put the root on an overlay over memory of the asked-for size."""
    result = lxccopy("-q", "-n", "base", "-e", "-t", "--tmpfs-size=16M", f"--tmpfs-via={via}", "--", "df", "-k", "/")
    assert 0 == result.returncode
    assert "16384" in result.stdout


def test_failing_mount(lxccopy: Cli, tmp_path: Path) -> None:
    """When the hook cannot mount, the run fails and says so; lxc-copy would go on, on disk (SPEC A5.4)."""
    mount = tmp_path / "mount"
    mount.write_text("#!/bin/sh\necho mount: no memory today >&2\nexit 32\n", encoding="ascii")
    mount.chmod(0o755)
    path = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    result = lxccopy("-q", "-n", "base", "-e", "-t", "--tmpfs-via=hook", "--", "touch", "/root/secret", env=path)
    assert 125 == result.returncode
    assert "mount: no memory today" in result.stderr
    assert 1 == len(result.stderr.splitlines())


@pytest.mark.parametrize("via", ["monitor", "hook"])
def test_clone_hook_output_is_seen(lxcpath: str, tmp_path: Path, via: str) -> None:
    """What the base's clone hook wrote into the copy is there, though the memory lies above it (SPEC A5.5)."""
    hook = tmp_path / "hook"
    hook.write_text('#!/bin/sh\necho from-hook > "$LXC_ROOTFS_MOUNT/root/made"\n', encoding="ascii")
    hook.chmod(0o755)
    with Container("base", lxcpath) as base:
        base.clone("hooked", flags=5).close()
    try:
        with open(f"{lxcpath}/hooked/config", "a", encoding="ascii") as config:
            config.write(f"lxc.hook.clone = {hook}\n")
        with EphemeralCopy("hooked", lxcpath=lxcpath, tmpfs=True, tmpfs_via=via) as copy:
            assert "from-hook\n" == output(copy, "cat /root/made")
    finally:
        with Container("hooked", lxcpath) as hooked:
            hooked.destroy()
            forget_lock(hooked.name, hooked.lxcpath)


def test_start_failure_is_told(lxcpath: str) -> None:
    """A start that fails tells the reason in liblxc's words and leaves nothing."""
    with Container("base", lxcpath) as base:
        base.clone("broken", flags=5).close()
    try:
        with open(f"{lxcpath}/broken/config", "a", encoding="ascii") as config:
            config.write("lxc.hook.pre-start = sh -c 'echo nothing goes here >&2; exit 3'\n")
        with pytest.raises(LiblxcError, match=r"nothing goes here.*status 3") as caught:
            EphemeralCopy("broken", lxcpath=lxcpath, tmpfs=True).start()
        assert "start" == caught.value.operation
    finally:
        with Container("broken", lxcpath) as broken:
            broken.destroy()
            forget_lock(broken.name, broken.lxcpath)


def test_hook_in_an_unusual_path(lxcpath: str, tmp_path: Path) -> None:
    """A path that a shell would take apart, or run, is neither: not in the hook and not in the line that names it."""
    odd = tmp_path / "it's $(touch pwned) a `place`"
    odd.mkdir()
    copy = EphemeralCopy("base", "odd", lxcpath=lxcpath, newpath=odd, tmpfs=True, tmpfs_via="hook")
    copy.create()
    copy.start()
    assert "odd\n" == output(copy, "cat /etc/hostname")
    assert [] == os.listdir(odd / "odd/overlay/delta")
    copy.close()
    assert [] == os.listdir(odd)
    assert not any(Path(place, "pwned").exists() for place in ("/", os.getcwd(), tmp_path, odd))


def test_attributes_of_rewritten_files(lxcpath: str) -> None:
    """What is rewritten for the copy keeps its extended attributes, and so do the directories on the way."""
    rootfs = f"{lxcpath}/base/rootfs"
    paths = ["", "/etc", "/etc/hostname"]
    for path in paths:
        os.setxattr(rootfs + path, "trusted.lxccopy", path.encode() or b"/")
    try:
        with EphemeralCopy("base", lxcpath=lxcpath, tmpfs=True) as copy:
            root = f"/proc/{copy.container.init_pid}/root"
            found = [os.getxattr(root + path, "trusted.lxccopy") for path in paths]
    finally:
        for path in paths:
            os.removexattr(rootfs + path, "trusted.lxccopy")
    assert [path.encode() or b"/" for path in paths] == found
