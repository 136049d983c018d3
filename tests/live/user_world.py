# SPDX-License-Identifier: LGPL-2.1-or-later
"""The world of an ordinary user with subordinate ids, for a command at a time; nothing of it shows on the machine.

As a program, by root, in a mount namespace of its own: user_world.py SETTINGS, which becomes the user and the command.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

UID = 1234
NAME = "ordinary"
FIRST = 300000 + 65536 * (os.getpid() % 20000)  # another run's processes are not ours
COUNT = 65536
RANGE = f"{NAME}:{FIRST}:{COUNT}\n"

# Which cgroups the user has been given.
V1 = "cgroup v1"
V2 = "cgroup2"
V1_CLOSED = "cgroup v1, none given"
V2_CLOSED = "cgroup2, none given"

CGROUPS = Path("/sys/fs/cgroup")


class World:
    """An ordinary user with a home, for whom commands can be run.

    Args:
        top: The directory for all of it, which others can enter.
        layout: V1, V2, V1_CLOSED or V2_CLOSED.

    Attributes:
        layout: The same.
        home: The user's home.
        lxcpath: Where the user's containers are: liblxc's default.
        runtime: The user's XDG_RUNTIME_DIR, with liblxc's locks.
    """

    def __init__(self, top: Path, layout: str) -> None:
        self._top = top
        self.layout = layout
        self._cgroup = f"lxccopy-test-{os.getpid()}-{top.name}"
        self.home = top / "home"
        self.lxcpath = self.home / ".local/share/lxc"
        self.runtime = top / "run"
        self.home.mkdir()
        for directory, mode in ((top, 0o755), (self.home, 0o755), (self.runtime, 0o700)):
            directory.mkdir(exist_ok=True)
            directory.chmod(mode)
            if directory != top:
                os.chown(directory, UID, UID)

    def command(
        self,
        *words: str,
        subuid: str = RANGE,
        subgid: str = RANGE,
        layout: str | None = None,
        over: dict[str, str] | None = None,
    ) -> list[str]:
        """What root runs so that the user runs something.

        Args:
            words: The user's command.
            subuid: What /etc/subuid has.
            subgid: What /etc/subgid has.
            layout: Other cgroups than usual.
            over: Files that others lie over, by their paths.
        """
        settings = {
            "top": str(self._top),
            "words": words,
            "files": {"subuid": subuid, "subgid": subgid},
            "layout": layout or self.layout,
            "cgroup": self._cgroup,
            "over": over or {},
            "home": str(self.home),
            "reach": [sys.base_prefix, str(Path(__file__).parents[2])],
        }
        me = [sys.executable, os.path.abspath(__file__), json.dumps(settings)]
        return ["unshare", "--mount", "--propagation", "private", *me]

    def run(self, *words: str, timeout: float = 60, **settings: Any) -> subprocess.CompletedProcess[str]:
        """Run a command as the user; its status and output."""
        return subprocess.run(
            self.command(*words, **settings),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def lxccopy(self, *arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
        """Run the command line as the user."""
        return self.run(sys.executable, "-m", "lxccopy_ffi", *arguments, **settings)

    def python(self, text: str, *arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
        """Run a Python program as the user."""
        return self.run(sys.executable, "-c", text, *arguments, **settings)

    def processes(self) -> list[int]:
        """Processes of the user in these cgroups, and those of the subordinate ids."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    owner, state = entry.stat().st_uid, (entry / "stat").read_bytes()
                    inside = self._cgroup in (entry / "cgroup").read_text()
                except OSError:
                    continue
                if b") Z " in state:
                    continue  # it is pid 1's to wait for
                if (owner == UID and inside) or FIRST <= owner < FIRST + COUNT:
                    found.append(int(entry.name))
        return found

    def cgroups(self) -> list[str]:
        """The cgroups below those that the user has been given."""
        given = [*CGROUPS.glob(f"*/{self._cgroup}"), CGROUPS / self._cgroup]
        return sorted(
            path for one in given for path, _, _ in os.walk(one) if path != str(one) and Path(path).name != "shell"
        )

    def remove_cgroups(self) -> None:
        """Remove the cgroups that the user has been given, with all below them."""
        for given in CGROUPS.glob(f"*/{self._cgroup}"):
            for path, _, _ in os.walk(given, topdown=False):
                _remove_cgroup(path)

    def _kill(self) -> None:
        """End what a test that failed has left running in these cgroups."""
        for given in CGROUPS.glob(f"*/{self._cgroup}"):
            for path, _, _ in os.walk(given):
                for pid in Path(path, "cgroup.procs").read_text().split():
                    with suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)

    def close(self) -> None:
        """Remove all of it."""
        self._kill()
        self.remove_cgroups()
        shutil.rmtree(self._top)


@contextmanager
def world(layout: str) -> Iterator[World]:
    """The world of a user, gone at the end."""
    top = Path(tempfile.mkdtemp(prefix="lxccopy-user-"))
    made = World(top, layout)
    try:
        yield made
    finally:
        made.close()


def _remove_cgroup(path: str) -> None:
    """What was in it may still be on its way out."""
    for _ in range(100):
        try:
            os.rmdir(path)
        except OSError:
            time.sleep(0.05)
        else:
            return


# The rest runs in the namespace.


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def _let_others_reach(path: str) -> None:
    """Show a directory in its place also to those who cannot enter what it is in, such as root's home."""
    parents = [parent for parent in reversed(Path(path).parents) if not parent.stat().st_mode & 1]
    if parents:
        fd = os.open(path, os.O_PATH)
        _mount("-t", "tmpfs", "-o", "mode=755", "none", str(parents[0]))
        os.makedirs(path)
        subprocess.run(["mount", "-c", "--bind", f"/proc/self/fd/{fd}", path], check=True, pass_fds=[fd])
        os.close(fd)


def _lay_over(top: str, path: str, text: str) -> None:
    """Show another text as the content of a file."""
    source = Path(top, f"over-{Path(path).name}-{os.getpid()}")
    source.write_text(text)
    source.chmod(0o644)
    if not os.path.exists(path):
        return
    _mount("--bind", str(source), path)
    source.unlink()


def _give_cgroups(name: str, layout: str) -> None:
    hierarchies = [path for path in CGROUPS.iterdir() if path.is_dir() and not path.is_symlink()]
    if layout in {V2, V2_CLOSED}:
        subprocess.run(["umount", "-R", "-l", str(CGROUPS)], check=True)
        _mount("-t", "cgroup2", "none", str(CGROUPS))
        hierarchies = [CGROUPS]
    if layout in {V1_CLOSED, V2_CLOSED}:
        return
    for hierarchy in hierarchies:
        given = hierarchy / name
        given.mkdir(exist_ok=True)
        shell = given / "shell" if layout == V2 else given
        shell.mkdir(exist_ok=True)
        for directory in (given, shell):
            os.chown(directory, UID, UID)
            for file in ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads", "tasks"):
                if (directory / file).exists():
                    os.chown(directory / file, UID, UID)
        (shell / "cgroup.procs").write_text(str(os.getpid()))


def _become_user(settings: dict[str, Any]) -> None:
    home = settings["home"]
    os.chdir(home)
    os.umask(0o022)
    os.setgroups([])
    os.setresgid(UID, UID, UID)
    os.setresuid(UID, UID, UID)
    environment = {
        "HOME": home,
        "USER": NAME,
        "LOGNAME": NAME,
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "XDG_RUNTIME_DIR": f"{settings['top']}/run",
    }
    os.execvpe(settings["words"][0], settings["words"], environment)


def _main() -> None:
    settings = json.loads(sys.argv[1])
    for path in settings["reach"]:
        _let_others_reach(path)
    accounts = {
        "passwd": Path("/etc/passwd").read_text() + f"{NAME}:x:{UID}:{UID}::{settings['home']}:/bin/sh\n",
        "group": Path("/etc/group").read_text() + f"{NAME}:x:{UID}:\n",
    }
    for name, text in {**accounts, **settings["files"]}.items():
        _lay_over(settings["top"], f"/etc/{name}", text)
    for path, other in settings["over"].items():
        _mount("--bind", other, path)
    _give_cgroups(settings["cgroup"], settings["layout"])
    _become_user(settings)


if __name__ == "__main__":
    _main()
