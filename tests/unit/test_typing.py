# SPDX-License-Identifier: LGPL-2.1-or-later
"""The types of Container as mypy --strict sees them in a user's program."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from conftest import ROOT, require

from lxccopy_ffi import Container

# Each public name once; what a name is wrongly taken for stands below. It is never run.
PROGRAM = """
from __future__ import annotations

from pathlib import Path

from lxccopy_ffi import Child, CloneFlag, Console, Container, Snapshot, containers


def look(c: Container) -> None:
    texts: list[str] = [c.name, c.lxcpath, c.directory, c.config_file, c.config_source, c.config_path, c.where, c.state]
    flags: list[bool] = [c.defined, c.controllable, c.running, c.closed, c.watched]
    numbers: list[int] = [c.init_pid, c.monitor_pid, c.init_pidfd(), c.devpts(), len(c.cgroups)]
    lists: list[list[str]] = [c.keys(), c.keys("lxc.net.0"), c.interfaces(), c.ips(), containers(c.lxcpath)]
    lists.append(c.ips("inet6", interface="eth0", scope=0, timeout=1.5))
    lists.append(containers(Path("/var/lib/lxc"), active=False, defined=True))
    error: Exception = c.failure("look at")
    print(texts, flags, numbers, lists, error, c.guard)
    c.require_defined()
    c.watch_monitor()


def change(c: Container) -> None:
    item: str = c.config("lxc.uts.name") + c.running_config("lxc.uts.name") + c.cgroup_item("memory.max")
    c.set_config("lxc.uts.name", item)
    c.replace_config("lxc.uts.name", item)
    c.clear_config("lxc.uts.name")
    c.load_config("/etc/lxc/default.conf")
    c.load_text("lxc.uts.name = x")
    c.save_config()
    c.set_cgroup_item("memory.max", "1G")
    c.add_device_node(Path("/dev/fuse"))
    c.remove_device_node("/dev/fuse")
    c.attach_interface("eth1")
    c.detach_interface("eth1", "eth2")


def run(c: Container) -> None:
    c.start()
    c.freeze()
    c.unfreeze()
    child: Child = c.attach(["true"], stdin=0, stdout=1, stderr=2, env={})
    status: int | None = child.wait(1.5)
    c.console(1, stdin=0, stdout=1, stderr=2, escape=None)
    with c.open_console() as console:
        lent: Console = console
        numbers: tuple[int, int] = (lent.fileno(), lent.tty)
    ends: list[bool] = [c.wait("RUNNING"), c.wait(("STOPPED", "FROZEN"), 0.5), c.wait_gone(1.5), c.reboot(1.5)]
    ends.append(c.shutdown(timeout=1.5))
    c.checkpoint("/tmp/state", stop=True, verbose=False)
    c.restore(Path("/tmp/state"))
    c.stop()
    print(status, numbers, ends)


def copy(c: Container) -> None:
    with c.clone("copy", flags=CloneFlag.SNAPSHOT | CloneFlag.KEEPNAME) as other:
        other.destroy()
    name: str = c.snapshot("why")
    snapshots: list[Snapshot] = c.snapshots()
    texts: list[str] = [text for s in snapshots for text in (s.name, s.comment, s.timestamp, s.lxcpath)]
    restored: Container = c.restore_snapshot(name, "restored")
    c.destroy_snapshot(name)
    c.destroy_snapshots()
    c.destroy_with_snapshots()
    c.destroy()
    c.close()
    print(texts, restored)
"""

WRONG = """
from lxccopy_ffi import Container, containers

c = Container("x")
c.wait(7)
c.wait("RUNNING", "1")
c.ips(4)
c.snapshot(b"x")
c.set_cgroup_item("memory.max", 1)
c.attach_interface(None)
c.open_console("1")
c.checkpoint("/tmp", True)
containers(None, True)
"""


def complaints(program: str, directory: Path) -> list[str]:
    """What mypy --strict says of a program, by line."""
    require(find_spec("mypy"), "mypy is not installed")
    file = directory / "program.py"
    file.write_text(program, encoding="utf-8")
    options = ["--strict", "--python-version", "3.10", f"--cache-dir={ROOT}/.mypy_cache", "--config-file=/dev/null"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, str(file)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if ": error: " in line]


def test_program_is_typed(tmp_path: Path) -> None:
    """A program that uses each public name of Container as it is meant has no errors."""
    public = {name for name in {*dir(Container), *Container.__annotations__} if not name.startswith("_")}
    assert set() == public - set(re.findall(r"\bc\.(\w+)", PROGRAM))
    assert [] == complaints(PROGRAM, tmp_path)


def test_wrong_types_are_errors(tmp_path: Path) -> None:
    """Each argument of a wrong type is an error for mypy, too."""
    lines = WRONG.splitlines()
    wrong = range(lines.index("c.wait(7)") + 1, len(lines) + 1)
    assert list(wrong) == [int(text.split(":")[1]) for text in complaints(WRONG, tmp_path)]
