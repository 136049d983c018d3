# SPDX-License-Identifier: LGPL-2.1-or-later
"""commit(): what happened in a throwaway copy becomes a container of its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from live_helpers import has, removed, settings, snapshot

from lxccopy_ffi import Container, ContainerExistsError, EphemeralCopy, LiblxcError, Mount, OptionError
from lxccopy_ffi.commit import pattern

pytestmark = pytest.mark.skipif(not has("rsync"), reason="rsync is not installed")

HAPPENED = """
rm -r /var/spool /etc/group && mkdir /new && echo text >/new/file && chown 3:4 /new/file && chmod 4750 /new/file
ln -s ../x /new/link && echo more >>/etc/passwd && mv /home /moved && mkdir /home && mknod /new/pipe p
"""
LOOK = """
test ! -e /var/spool && test ! -e /etc/group && test -d /moved && test -p /new/pipe && tail -n 1 /etc/passwd
cat /new/file && stat -c '%a %u %g' /new/file && readlink /new/link && cat /etc/hostname && hostname
"""


@pytest.mark.parametrize(
    "way", [{}, {"tmpfs": True}, {"tmpfs": True, "tmpfs_via": "hook"}], ids=["disk", "monitor", "hook"]
)
@pytest.mark.parametrize("share", [False, True], ids=["full", "snapshot"])
def test_commit(lxcpath: str, tmp_path: Path, way: dict[str, object], share: bool) -> None:
    """Files, deletions, modes and owners are kept, but no mounts; stock tools start the result without the copy."""
    (tmp_path / "secret").touch()
    with removed(lxcpath, "kept"):
        mounts = [Mount(str(tmp_path), "/mnt")]
        with EphemeralCopy("base", lxcpath=lxcpath, mounts=mounts, **way) as copy:  # type: ignore[arg-type]
            copy.run(["sh", "-ec", HAPPENED], check=True)
            copy.commit("kept", snapshot=share).close()
            assert "RUNNING" == copy.container.state
            copy.run(["true"], check=True)
            name = copy.name
        text = Path(lxcpath, "kept/config").read_text(encoding="utf-8")
        assert name not in text
        assert "/run/lxccopy" not in text
        assert [] == settings(lxcpath, "kept", "lxc.ephemeral")
        assert share == settings(lxcpath, "kept", "lxc.rootfs.path")[0].startswith("overlay:")
        subprocess.run(["lxc-start", "-P", lxcpath, "-n", "kept"], check=True)
        try:
            command = ["lxc-attach", "-P", lxcpath, "-n", "kept", "--", "sh", "-ec", LOOK]
            seen = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            assert ["more", "text", "4750 3 4", "../x", "kept", "kept"] == seen.splitlines()
        finally:
            subprocess.run(["lxc-stop", "-k", "-P", lxcpath, "-n", "kept"], check=True)
        assert not any("secret" in files for _, _, files in os.walk(f"{lxcpath}/kept"))


def test_commit_of_a_copy_of_a_snapshot(lxcpath: str) -> None:
    """A copy of an overlay snapshot can be kept, too, with what the snapshot has changed."""
    with snapshot(lxcpath, "middle") as directory, removed(lxcpath, "kept"):
        (directory / "overlay/delta/middle").touch()
        with EphemeralCopy("middle", lxcpath=lxcpath, tmpfs=True) as copy:
            copy.run(["sh", "-c", "touch /top; rm -r /var/spool"], check=True)
            copy.commit("kept", snapshot=True).close()
        with EphemeralCopy("kept", lxcpath=lxcpath) as again:
            again.run(["sh", "-c", "test -e /middle && test -e /top && ! test -e /var/spool"], check=True)


def test_commit_while_frozen(lxcpath: str) -> None:
    """A copy that was frozen before stays so."""
    with removed(lxcpath, "kept"), EphemeralCopy("base", lxcpath=lxcpath, tmpfs=True) as copy:
        copy.freeze()
        copy.commit("kept").close()
        assert "FROZEN" == copy.container.state
        copy.thaw()


def test_commit_that_fails(lxcpath: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where it fails there is no new container, and the copy goes on."""
    fake = tmp_path / "rsync"
    real = subprocess.run(["which", "rsync"], capture_output=True, text=True, check=True).stdout.strip()
    fake.write_text(
        f'#!/bin/sh\ncase $* in *numeric-ids*--delete*) echo no more room >&2; exit 11;; esac\nexec {real} "$@"\n'
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with EphemeralCopy("base", lxcpath=lxcpath, tmpfs=True) as copy:
        with pytest.raises(LiblxcError, match=r"cannot keep container 'base_\w+' .*: no more room"):
            copy.commit("kept")
        with pytest.raises(ContainerExistsError):
            copy.commit("base")
        with pytest.raises(OptionError, match=r"snapshot must be True or False, not 1"):
            copy.commit("kept", snapshot=1)  # type: ignore[arg-type]
        with pytest.raises(OptionError, match=r"the new name '\.\.' is not allowed"):
            copy.commit("..")
        assert "RUNNING" == copy.container.state
        assert not os.path.exists(f"{lxcpath}/kept")
        assert not Container("kept", lxcpath).defined


@pytest.mark.parametrize(
    ("mount_point", "expected"), [("/proc", "/proc"), (r"/a\040b\134c", "/a b\\c"), ("/a*[b]", r"/a\*\[b\]")]
)
def test_pattern(mount_point: str, expected: str) -> None:
    """A mount point of the kernel's becomes a pattern of rsync's for just this path."""
    assert expected == pattern(mount_point)
