# SPDX-License-Identifier: LGPL-2.1-or-later
"""What tests share: a base made once, the command line, and a look at what a test leaves behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
MUST_RUN = os.environ.get("LXCCOPY_MUST_RUN") == "1"

DEBIAN_CONFIG = """\
lxc.rootfs.path = dir:{rootfs}
lxc.uts.name = debian
lxc.net.0.type = empty
lxc.tty.max = 1
lxc.pty.max = 1024
lxc.cap.drop = sys_module mac_admin mac_override sys_time
lxc.mount.auto = proc:mixed sys:mixed cgroup:mixed
lxc.signal.halt = SIGRTMIN+3
"""

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def require(condition: object, reason: str) -> None:
    """Skip the test unless the condition holds; fail it where LXCCOPY_MUST_RUN=1."""
    if not condition:
        if MUST_RUN:
            pytest.fail(f"cannot run: {reason}")
        pytest.skip(reason)


def mounts() -> list[str]:
    """The mount points of this process's namespace."""
    return [line.split()[4] for line in Path("/proc/self/mountinfo").read_text(encoding="ascii").splitlines()]


def monitors(lxcpath: str) -> list[str]:
    """The process ids of liblxc's monitors for containers below a path."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if words.startswith("[lxc monitor]") and lxcpath in words:
            found.append(process.name)
    return found


def cgroups() -> set[str]:
    """The cgroups that liblxc made for a container and left with no process in them, in all hierarchies."""
    found: set[str] = set()
    for directory, names, _ in os.walk("/sys/fs/cgroup"):
        ours = [name for name in names if name.startswith(("lxc.monitor.", "lxc.payload."))]
        found.update(f"{directory}/{name}" for name in ours if not _inhabited(f"{directory}/{name}"))
        names[:] = [name for name in names if name not in ours]
    return found


def _inhabited(cgroup: str) -> bool:
    for directory, _, _ in os.walk(cgroup):
        try:
            if Path(directory, "cgroup.procs").read_text(encoding="ascii"):
                return True
        except OSError:
            pass
    return False


def locks(lxcpath: str) -> set[str]:
    """The names of the containers below a path for which liblxc's lock file is there."""
    directory = Path(f"/run/lxc/lock{lxcpath}")
    found = {path.name[1:] for path in directory.glob(".*")} if directory.is_dir() else set()
    return found - {"base", "debian"}  # liblxc's, as long as these are there


def debian_archive() -> Path:
    """A Debian's root file system as a tarball, made with the host's own package sources where it is not cached yet."""
    lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    codename = dict(line.split("=", 1) for line in lines if "=" in line).get("VERSION_CODENAME", "")
    require(shutil.which("mmdebstrap") and codename, "mmdebstrap is not installed, or this is no Debian")
    path = ROOT / ".cache" / f"debian-{codename}.tar"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        part = path.with_suffix(".part")
        lists = ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list")
        sources = [one for one in lists if os.path.exists(one)][:1]
        options = ["--format=tar", "--variant=minbase", "--include=systemd-sysv,dbus"]
        made = subprocess.run(
            ["mmdebstrap", *options, codename, part, *sources], capture_output=True, text=True, check=False
        )
        require(made.returncode == 0, f"no Debian can be made: {made.stderr[-500:]}")
        part.rename(path)
    return path


class Left:
    """What is on the machine now because of containers below a path, to be compared later."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.cgroups = cgroups()
        self.state = self._look()

    def _look(self) -> dict[str, object]:
        return {
            "containers": sorted(os.listdir(self.path)),
            "mounts": mounts(),
            "monitors": monitors(self.path),
            "locks": locks(self.path),
        }

    def check(self) -> None:
        """Fail if anything differs from when this was made."""
        assert self.state == self._look()
        left = cgroups() - self.cgroups
        deadline = time.monotonic() + 5
        while left and time.monotonic() < deadline:  # somebody else's containers on this machine come and go
            time.sleep(0.1)
            left &= cgroups()
        assert set() == left


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """Give back the signal handlers that the command line has changed where it is called in this process."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGALRM)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        if signal.getsignal(number) != handler:
            signal.signal(number, handler)


@pytest.fixture(scope="session", autouse=True)
def at_start(tmp_path_factory: pytest.TempPathFactory) -> Left:
    """What was on the machine before the first test, with an empty directory in place of an lxcpath."""
    return Left(str(tmp_path_factory.mktemp("nothing")))


@pytest.fixture(scope="session")
def lxcpath_with_base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A directory with one container, ``base``, made by create_base()."""
    require(os.geteuid() == 0, "containers are started as root")
    from lxccopy_ffi import LiblxcMissingError, UnsupportedError, create_base

    path = str(tmp_path_factory.mktemp("lxc"))
    try:
        create_base("base", lxcpath=path).close()
    except (LiblxcMissingError, UnsupportedError) as error:
        require(condition=False, reason=str(error))
    yield path
    shutil.rmtree(path)
    shutil.rmtree(f"/run/lxc/lock{path}", ignore_errors=True)


@pytest.fixture
def lxcpath(lxcpath_with_base: str) -> Iterator[str]:
    """The directory with ``base``; fails the test if it leaves anything there or on the machine."""
    left = Left(lxcpath_with_base)
    yield lxcpath_with_base
    left.check()


@pytest.fixture
def lxccopy(lxcpath: str) -> Cli:
    """Run the command line with -P, and return its status and output."""

    def call(*arguments: str, path: str = lxcpath, **options: Any) -> subprocess.CompletedProcess[str]:
        defaults: dict[str, Any] = {"capture_output": True, "text": True, "check": False, "timeout": 60}
        where = ["-P", path] if path else []
        return subprocess.run(  # noqa: PLW1510 - it is in the defaults
            [sys.executable, "-m", "lxccopy_ffi", *where, *arguments],
            **{**defaults, "stdin": subprocess.DEVNULL, **options},
        )

    return call


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the look at what the whole run left behind at its end."""
    items.sort(key=lambda item: item.path.name == "test_leftovers.py")
