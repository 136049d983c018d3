# SPDX-License-Identifier: LGPL-2.1-or-later
"""LXC's own tests that call lxc-copy, with ours in its place: in a mount namespace, on a tmpfs of their own."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, Left, require
from live_helpers import has, script

# How often each calls lxc-copy.
CALLS = {"lxc-test-snapdeps": 20, "lxc-test-cloneconfig": 5}

# Everything that they write to, and where /var/lib/lxc is what the host's was.
DIRECTORIES = ["/var/lib/lxc", "/var/cache/lxc", "/var/log/lxc", "/run/lxc", "/tmp"]


@pytest.mark.parametrize("name", CALLS)
def test_passes(lxcpath: str, name: str) -> None:
    """It passes, having called us and nobody else as lxc-copy, and nothing of it is left on the host."""
    ours = shutil.which("lxccopy", path=os.path.dirname(sys.executable))
    require(ours, "lxccopy is not installed beside Python")
    require(has(name), f"{name} is not installed (package lxc-tests)")
    require(has("lxc-create") and os.path.exists("/usr/share/lxc/templates/lxc-busybox"), "there is no lxc-create")
    place = Path(f"/run/lxccopy-test.{os.getpid()}")  # outside of what is hidden
    before = {directory: sorted(os.listdir(directory)) for directory in DIRECTORIES if os.path.isdir(directory)}
    left = Left(lxcpath)
    place.mkdir()
    try:
        (place / "ours").mkdir()
        (place / "ours/lxc-copy").symlink_to(str(ours))
        # a wrapper, which tells that it was called and goes on as the link
        script(place / "bin/lxc-copy", f'echo "$*" >> {place}/calls; exec {place}/ours/lxc-copy "$@"')
        # but not what we are run from
        needed = (str(ROOT), os.path.realpath(sys.executable))
        there = [directory for directory in DIRECTORIES if os.path.isdir(directory)]
        hidden = [one for one in there if not any(path.startswith(f"{one}/") for path in needed)]
        hide = "; ".join(f"mount -t tmpfs none {shlex.quote(directory)}" for directory in hidden)
        result = subprocess.run(
            ["unshare", "-m", "--propagation", "private", "sh", "-ec", f"{hide}; cd /; exec {name}"],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PATH": f"{place}/bin:{os.environ['PATH']}"},
        )
        assert 0 == result.returncode, result.stdout + result.stderr
        calls = (place / "calls").read_text(encoding="ascii").splitlines()
        assert [True] * CALLS[name] == [call.startswith("-s -n ") for call in calls]
        passed = {"lxc-test-snapdeps": "Snapshot clone dependency test passed", "lxc-test-cloneconfig": "PASS"}[name]
        assert passed == result.stdout.splitlines()[-1]
        assert "Failed to find" not in result.stdout  # which lxc-test-cloneconfig prints and forgets
    finally:
        shutil.rmtree(place)
    left.check()
    after = {directory: sorted(os.listdir(directory)) for directory in before}
    assert {key: set() for key in before} == {
        key: {item for item in set(before[key]) ^ set(after[key]) if "lxctest" in item or "snapdep" in item}
        for key in before
    }
