# SPDX-License-Identifier: LGPL-2.1-or-later
"""What matters most, on a machine with nothing but cgroup2: a mount namespace in which there is nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Left, require

VIEW = "umount -R -l /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup"

# Slow, and not about cgroups.
LEFT_OUT = ("same_name", "deep_tree", "base_is_untouched", "endless_writers", "close_can_be_repeated")

RUNS = {
    "oneshot": ["test_oneshot.py"],
    "memory": ["test_tmpfs.py", "test_defects.py::test_b1_cgroups"],
    "signals": ["test_signals.py"],
    "foreground": ["test_foreground.py"],
}

# A copy whose cgroups are looked at while it runs and afterwards; its monitor may be killed, its cgroups be below ours.
COPY = """
import json, os, signal, sys
from pathlib import Path
from lxccopy_ffi import EphemeralCopy

root = Path("/sys/fs/cgroup")

def ours():
    return sorted(str(path.relative_to(root)) for path in root.rglob(f"lxc.*.{copy.name}*"))

copy = EphemeralCopy("base", lxcpath=sys.argv[1], tmpfs=True, tmpfs_via="monitor")
container = copy.create()
if "below" in sys.argv:
    container.set_config("lxc.cgroup.relative", "1")
    container.save_config()
container = copy.start()
found = [[name.replace(copy.name, "NAME") for name in ours()]]
found.append(copy.run(["sh", "-c", "exit 7"]).returncode)
if "killed" in sys.argv:
    status = Path(f"/proc/{container.init_pid}/status").read_text()
    os.kill(int(status.partition("PPid:")[2].split()[0]), signal.SIGKILL)
copy.close()
print(json.dumps([*found, ours(), Path("/proc/self/cgroup").read_text().splitlines()[-1]]))
"""


@pytest.fixture(autouse=True)
def _view() -> None:
    """Skip where there can be no such namespace."""
    require(os.geteuid() == 0 and shutil.which("unshare"), "mounts in a namespace take root, and the program unshare")
    with open("/proc/filesystems", encoding="ascii") as file:
        require("\tcgroup2\n" in file.read(), "this kernel has no cgroup2")


def in_view(*words: str, script: str = ":", timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a program where there is only cgroup2."""
    prefix = ["unshare", "-m", "--propagation", "private", "sh", "-ec", f'{VIEW}; {script}; exec "$@"', "sh"]
    return subprocess.run(
        [*prefix, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        cwd=ROOT,
    )


def look_at_copy(lxcpath: str, *how: str, script: str = ":") -> Any:
    """What COPY found."""
    done = in_view(sys.executable, "-c", COPY, lxcpath, *how, script=script)
    assert "" == done.stderr
    return json.loads(done.stdout)


def test_view() -> None:
    """There is nothing but cgroup2 where these tests run, at the usual place."""
    done = in_view("grep", "cgroup", "/proc/self/mounts")
    assert ["none /sys/fs/cgroup cgroup2"] == [line[:27] for line in done.stdout.splitlines()]


@pytest.mark.parametrize("how", [[], ["killed"]])
def test_cgroups_of_a_copy(lxcpath: str, how: list[str]) -> None:
    """A copy has a cgroup for itself and one for its monitor, and has neither afterwards, also if that was killed."""
    expected = ["lxc.monitor.NAME", "lxc.payload.NAME"]
    assert [expected, 7, [], "0::/"] == look_at_copy(lxcpath, *how, script="echo 0 >/sys/fs/cgroup/cgroup.procs")


@pytest.mark.parametrize("how", [[], ["killed"], ["below"], ["below", "killed"]])
def test_cgroups_beside_our_own(lxcpath: str, how: list[str]) -> None:
    """We stay in a cgroup of our own, whether those of a copy are beside it or below, and they are gone afterwards."""
    own = f"lxccopy-test.{os.getpid()}"
    begin = f"{own}/" if "below" in how else ""
    script = f"mkdir /sys/fs/cgroup/{own}; echo 0 >/sys/fs/cgroup/{own}/cgroup.procs"
    try:
        expected = [f"{begin}lxc.monitor.NAME", f"{begin}lxc.payload.NAME"]
        assert [expected, 7, [], f"0::/{own}"] == look_at_copy(lxcpath, *how, script=script)
    finally:
        # liblxc leaves an empty lxc.pivot beside its containers' cgroups, one for all of them and for ever
        script = f"rmdir /sys/fs/cgroup/{own}/lxc.pivot 2>/dev/null || :"
        assert 0 == in_view("rmdir", f"/sys/fs/cgroup/{own}", script=script).returncode


def test_leftovers_are_seen() -> None:
    """A cgroup that a container left is seen by what every test here ends with."""
    name = f"lxc.payload.left.{os.getpid()}"
    code = "import conftest, json; print(json.dumps(sorted(conftest.cgroups())))"
    script = f"mkdir /sys/fs/cgroup/{name}; export PYTHONPATH=tests"
    try:
        assert f"/sys/fs/cgroup/{name}" in json.loads(in_view(sys.executable, "-c", code, script=script).stdout)
    finally:
        in_view("rmdir", f"/sys/fs/cgroup/{name}")


@pytest.mark.parametrize("run", RUNS)
def test_run(lxcpath: str, tmp_path: Path, run: str) -> None:
    """Tests that pass here pass there, and the last of them finds nothing left in the tree of cgroup2."""
    left = Left(lxcpath)
    words = [f"tests/live/{name}" for name in RUNS[run]]
    chosen = "not (" + " or ".join(LEFT_OUT) + ")"
    options = ["-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path}/inner", "-k", chosen]
    done = in_view(sys.executable, "-m", "pytest", *options, *words, "tests/test_leftovers.py", timeout=120)
    assert 0 == done.returncode, done.stdout
    assert " failed" not in done.stdout
    left.check()
