# SPDX-License-Identifier: LGPL-2.1-or-later
"""Our lock of a container is liblxc's own: each waits for the other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from binding_helpers import made
from conftest import ROOT

from lxccopy_ffi import rdepends
from lxccopy_ffi.locking import lock_file, locked

_SAVE = """
import sys
from lxccopy_ffi import Container
with Container(*sys.argv[1:]) as container:
    container.set_config("lxc.environment", "SAVED=1")
    print("ready", flush=True)
    sys.stdin.readline()
    container.save_config()
"""


def test_liblxc_waits_for_us(lxcpath: str) -> None:
    """While we hold a container's lock, liblxc in another process waits with saving its configuration."""
    with made(lxcpath, {}) as copy:
        words = [sys.executable, "-c", _SAVE, copy.name, lxcpath]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert b"ready\n" == process.stdout.readline()  # opening it takes the lock, too
            with locked(copy.name, lxcpath):
                process.stdin.close()
                inode = f":{os.stat(lock_file(copy.name, lxcpath)).st_ino} "
                while not any("->" in line and inode in line for line in _kernel_locks()):
                    assert process.poll() is None
                assert "SAVED" not in Path(copy.config_file).read_text(encoding="utf-8")
            assert 0 == process.wait(20)
        assert "SAVED=1" in Path(copy.config_file).read_text(encoding="utf-8")


def _kernel_locks() -> list[str]:
    return Path("/proc/locks").read_text(encoding="ascii").splitlines()


def test_files_are_liblxcs(lxcpath: str) -> None:
    """Snapshot and base name each other as we read it, and a replaced entry is where liblxc looks for it."""
    with made(lxcpath, {}) as copy:
        mine, base = (lxcpath, copy.name), (lxcpath, "base")
        assert [base] == rdepends.bases(copy.directory)
        assert [mine] == rdepends.snapshots(f"{lxcpath}/base")
        rdepends.replace(base, mine, (lxcpath, "another"))
        assert [(lxcpath, "another")] == rdepends.snapshots(f"{lxcpath}/base")
        rdepends.replace(base, (lxcpath, "another"), mine)
    assert [] == rdepends.snapshots(f"{lxcpath}/base")
