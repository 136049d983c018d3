# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which cgroups are a container's, by the kernel's texts, and how they are removed, also on this machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import require

from lxccopy_ffi import cgroups
from lxccopy_ffi._raw import wait_readable

# With an end, so that no other run has a name that begins with it.
NAME = f"lxc.monitor.zz-test-{os.getpid()}-x"


def read_instead(monkeypatch: pytest.MonkeyPatch, path: str, file: Path) -> None:
    """Let the module read a file in place of the one at a path."""

    def fake(name: str, **options: Any) -> Any:
        return open(file if name == path else name, **options)

    monkeypatch.setattr(cgroups, "open", fake, raising=False)


# Whose they are


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", set()),
        (b"0::/\n", set()),
        (b"9:name=systemd:/\n4:memory:/process_api/6c6d\n0::/user.slice/session-1.scope\n", set()),
        (b"0::/lxc.payload.a\n", {("", "/lxc.payload.a")}),
        (b"0::/lxc.monitor.a-1\n", {("", "/lxc.monitor.a-1")}),
        (b"0::/user.slice/my lxc/lxc.payload.a\n", {("", "/user.slice/my lxc/lxc.payload.a")}),
        # further down, where the container's own system puts its processes
        (b"0::/lxc.payload.a/init.scope\n", {("", "/lxc.payload.a")}),
        (b"0::/lxc.payload.a/x:y/z\n", {("", "/lxc.payload.a")}),
        (b"0::/lxc.payload.a/lxc.payload.b\n", {("", "/lxc.payload.a")}),
        # one in each hierarchy
        (
            b"9:name=systemd:/lxc.payload.a/x\n8:cpu,cpuacct:/lxc.payload.a\n7:pids:/\n0::/lxc.monitor.a\n",
            {("name=systemd", "/lxc.payload.a"), ("cpu,cpuacct", "/lxc.payload.a"), ("", "/lxc.monitor.a")},
        ),
        # inside another container
        (b"0::/lxc.payload.outer/lxc.payload.a\n", {("", "/lxc.payload.outer/lxc.payload.a")}),
        (b"0::/lxc.payload.outer\n1:cpu:/lxc.monitor.ab\n2:pids:/lxc.monitor.a-b\n", set()),
        # what only looks like it
        (b"0::/lxc\n1:cpu:/lxc/a\n2:pids:/lxc.pivot\n3:memory:/lxc.payload\n4:freezer:/my-lxc.payload.a\n", set()),
        (b"0::/\xff/lxc.payload.a\n", {("", "/\udcff/lxc.payload.a")}),
    ],
)
def test_of_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: bytes, expected: set[Any]) -> None:
    """The cgroup of each hierarchy counts that liblxc made, whole, and nothing below it."""
    (tmp_path / "cgroup").write_bytes(text)
    read_instead(monkeypatch, "/proc/7/cgroup", tmp_path / "cgroup")
    assert expected == cgroups.of_process(7, "a")


@pytest.mark.parametrize("pid", [0, -1, 1 << 40])
def test_no_process(pid: int) -> None:
    """A process that is gone is in no cgroup."""
    assert set() == cgroups.of_process(pid, "a")


# Where they are

MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw
31 23 0:28 / {0} rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / {0}/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / {0}/pids rw,nosuid shared:7 master:1 - cgroup cgroup ro,clone_children,pids
34 31 0:31 / {0}/systemd rw - cgroup systemd rw,xattr,release_agent=/lib/agent,name=systemd
35 31 0:32 / {0}/unified rw,nosuid - cgroup2 cgroup2 rw,nsdelegate
36 23 0:32 / {0}/again rw - cgroup2 none rw
"""


def test_hierarchies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cgroup is removed from the hierarchy of its controllers, at its first mount, and from no other one."""
    hierarchies = {"cpu,cpuacct": "cpu", "pids": "pids", "name=systemd": "systemd", "": "unified", "memory": "again"}
    for directory in hierarchies.values():
        (tmp_path / directory / "lxc.payload.a").mkdir(parents=True)
    (tmp_path / "mountinfo").write_text(MOUNTS.format(tmp_path), encoding="utf-8")
    read_instead(monkeypatch, "/proc/self/mountinfo", tmp_path / "mountinfo")
    for controllers, directory in hierarchies.items():
        cgroups.remove({(controllers, "/lxc.payload.a")})
        assert (directory == "again") == (tmp_path / directory / "lxc.payload.a").exists()
        (tmp_path / directory / "lxc.payload.a").mkdir(exist_ok=True)
    assert 5 == len(list(tmp_path.glob("*/lxc.payload.a")))


# On this machine


@pytest.fixture
def roots() -> Iterator[dict[str, Path]]:
    """Where the hierarchies are mounted, by their controllers; the test's cgroups there are removed afterwards."""
    require(os.geteuid() == 0, "cgroups are made as root")
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()]
    own = [line.split(":")[1] for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()]
    found: dict[str, Path] = {}
    for words in mounts:
        kind, _, options = words[words.index("-") + 1 :]
        controllers = [name for name in own if name and set(name.split(",")) <= set(options.split(","))]
        if kind in {"cgroup", "cgroup2"} and os.access(words[4], os.W_OK):
            found.setdefault(controllers[0] if kind == "cgroup" else "", Path(words[4]))
    require(found, "no cgroups can be made on this machine")
    yield found
    for root in found.values():
        for top in root.glob(f"{NAME}*"):
            for directory, _, _ in os.walk(top, topdown=False):
                os.rmdir(directory)


def make(roots: dict[str, Path], path: str) -> list[Path]:
    """Make a cgroup, and those above it, in all hierarchies."""
    made = [root / path for root in roots.values()]
    for cgroup in made:
        cgroup.mkdir(parents=True)
    return made


def enter(process: subprocess.Popen[bytes], roots: dict[str, Path], path: str) -> dict[str, Path]:
    """Put a process into a cgroup of each hierarchy, and return them; into none of cpuset, which has no CPU yet."""
    entered = {controllers: root / path for controllers, root in roots.items() if "cpuset" not in controllers}
    for cgroup in entered.values():
        cgroup.joinpath("cgroup.procs").write_text(str(process.pid), encoding="ascii")
    return entered


def remove(roots: dict[str, Path], name: str = NAME) -> None:
    """Remove a cgroup from all hierarchies."""
    cgroups.remove({(controllers, f"/{name}") for controllers in roots})


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs until its standard input is closed."""
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as cat:
        yield cat


def test_empty_cgroup(roots: dict[str, Path]) -> None:
    """A cgroup without processes is removed with all below it; where it is gone, nothing happens."""
    make(roots, f"{NAME}/a/b")
    make(roots, f"{NAME}/c")
    for _ in range(2):
        remove(roots)
        assert [] == [root for root in roots.values() if (root / NAME).exists()]


@pytest.mark.parametrize("there", [True, False])
def test_cgroup_of_another_container(roots: dict[str, Path], there: bool) -> None:
    """A cgroup that liblxc made for another container, with a number at the end, is never touched."""
    others = make(roots, f"{NAME}-1/a") + make(roots, f"{NAME}0")
    if there:
        make(roots, f"{NAME}/a")
    remove(roots)
    assert others == [cgroup for cgroup in others if cgroup.exists()]
    assert [] == [root for root in roots.values() if (root / NAME).exists()]


@pytest.mark.parametrize("below", ["", "/a", "/a/b"])
def test_living_process(
    roots: dict[str, Path], process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    """A cgroup in which a process lives, there or further down, is kept with it."""
    monkeypatch.setattr(cgroups, "_GRACE", 0.001)
    make(roots, NAME + below)
    inhabited = enter(process, roots, NAME + below)
    assert {(controllers, f"/{NAME}") for controllers in inhabited} <= cgroups.of_process(
        process.pid, NAME[len("lxc.monitor.") :]
    )
    remove(roots)
    texts = [(cgroup / "cgroup.procs").read_text(encoding="ascii") for cgroup in inhabited.values()]
    assert [f"{process.pid}\n"] * len(inhabited) == texts
    assert None is process.poll()


def test_dying_process(
    roots: dict[str, Path], process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of a process that is on its way out is awaited, though not that somebody asks for its status."""

    def wait(fd: int, timeout: float) -> bool:
        assert process.stdin
        process.stdin.close()
        return wait_readable(fd, timeout)

    monkeypatch.setattr(cgroups, "wait_readable", wait)
    make(roots, f"{NAME}/a/b")
    enter(process, roots, f"{NAME}/a")
    remove(roots)
    assert [] == [root for root in roots.values() if (root / NAME).exists()]
    assert os.path.exists(f"/proc/{process.pid}")
