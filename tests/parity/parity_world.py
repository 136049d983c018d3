# SPDX-License-Identifier: LGPL-2.1-or-later
"""One side of a comparison: a directory of its own with a base, one command run in it, and all there is to see after.

Both sides get the same base under the same name in the same place of their own directory, which is written ``@``.
"""

from __future__ import annotations

import os
import re
import select
import shlex
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from difflib import unified_diff
from pathlib import Path

from conftest import cgroups, locks, monitors

from lxccopy_ffi import Container

# Of this process alone: what is named after it in the machine's cgroups is ours to remove.
COPY = f"copy{os.getpid()}"
BASE_MAC = "00:16:3e:11:22:33"
BASE_ID = "0123456789abcdef0123456789abcdef"

_IDENTITY = ("etc/hostname", "etc/hosts", "etc/machine-id")
_RANDOM = (
    (re.compile(r"\b(base|snap|second|debian)_[A-Za-z0-9]{6}\b"), r"\1_XXXXXX"),
    (re.compile(r"\b(pre-start-|delta#|work#)[A-Za-z0-9]{6}\b"), r"\1XXXXXX"),
    (re.compile(rf"\b(?!{BASE_MAC})[0-9a-f]{{2}}(:[0-9a-f]{{2}}){{5}}\b"), "MAC"),
    (re.compile(rf"\b(?!{BASE_ID})[0-9a-f]{{32}}\b"), "MACHINE-ID"),
)


@dataclass
class Outcome:
    """What is to be seen of a command that has been run.

    Attributes:
        status: Its exit status.
        stdout: What it printed.
        stderr: What it complained of.
        tree: All below its side's directory: kind, mode, owner and target of each path.
        files: The lines of the files that say something: all but those of root file systems, and of these who they are.
        mounts: What is mounted in each running container, in order.
        inside: Who each running container thinks it is, and how big its root file system is.
        left: What is left on the machine of containers that do not run: cgroups, and locks of those that are gone.
    """

    status: int
    stdout: str
    stderr: str
    tree: dict[str, str]
    files: dict[str, list[str]]
    mounts: dict[str, list[str]]
    inside: dict[str, list[str]]
    left: list[str]


def compare(theirs: Outcome, ours: Outcome) -> list[str]:
    """Return what differs, with ``-`` for theirs and ``+`` for ours."""
    lines = []
    for field in fields(Outcome):
        one, other = _by_name(getattr(theirs, field.name)), _by_name(getattr(ours, field.name))
        for name in sorted({*one, *other}):
            changed = list(unified_diff(one.get(name, []), other.get(name, []), lineterm="", n=0))
            lines += [
                f"{line[:1]} {field.name} {name}: {line[1:]}" for line in changed[2:] if not line.startswith("@@")
            ]
    return lines


def _by_name(value: object) -> dict[str, list[str]]:
    named = value if isinstance(value, dict) else {"": value}
    return {name: part if isinstance(part, list) else str(part).split("\n") for name, part in named.items()}


class World:
    """A side's directory: ``lxc`` with the containers, ``new`` for copies elsewhere, ``src`` with things to mount.

    Attributes:
        written_by: A container that has been running for so long that what it wrote is nobody's business.
    """

    def __init__(self, root: Path, template: Path) -> None:
        self.root = root
        self.lxc = root / "lxc"
        self.base = self.lxc / template.name
        self.written_by = ""
        self._names = {COPY}
        for directory in (self.lxc, root / "new", root / "src/dir"):
            directory.mkdir(parents=True)
        (root / "src/file").write_text("content\n", encoding="ascii")
        self._copy(template)

    def configure(self, text: str) -> None:
        """Add lines to the base's config."""
        with open(self.base / "config", "a", encoding="ascii") as config:
            config.write(self.expand(text))

    def expand(self, text: str) -> str:
        """The text with this side's directory and the copy's real name in it."""
        return text.replace("@", str(self.root)).replace("COPY", COPY)

    def run(self, program: list[str], arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a copy program and wait until what it started either runs or is gone."""
        words = [self.expand(word) for word in shlex.split(arguments)]
        before = self._entries()
        where = [] if {"-P", "--lxcpath"} & set(words) else ["-P", str(self.lxc)]
        result = subprocess.run(
            [*program, *where, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self._names.update(re.findall(r"Created (\S+) as clone", result.stdout + result.stderr))
        self._names.update(self._entries() - before)
        for container, monitor in self._monitored():
            if container.state != "RUNNING":  # lxc-copy does not wait until it is gone
                _wait(monitor)
        return result

    def look(self, result: subprocess.CompletedProcess[str]) -> Outcome:
        """Everything that is to be seen now."""
        files = {}
        tree = {}
        for path in sorted(self._walk(self.root)):
            if self.written_by and f"/{self.written_by}/overlay/delta/" in str(path):
                continue
            name = self._normal(str(path.relative_to(self.root)))
            while name in tree:  # two random names
                name += "+"
            tree[name] = self._normal(_describe(path))
            if path.is_file() and not path.is_symlink() and self._is_telling(path):
                files[name] = self._normal(path.read_text(encoding="utf-8")).split("\n")
        left = [f"cgroup {Path(path).name}" for path in self._cgroups()]
        left += [f"lock {name}" for path in self._lxcpaths() for name in locks(str(path)) if not (path / name).exists()]
        outcome = Outcome(
            result.returncode,
            self._normal(result.stdout),
            self._normal(result.stderr),
            tree,
            files,
            {},
            {},
            sorted({self._normal(line) for line in left}),
        )
        for container, _ in self._monitored():
            name = self._normal(container.name)
            mounts = self._mounts(container.init_pid)
            outcome.mounts[name] = sorted(mounts) if self.written_by else mounts  # systemd does many at once
            outcome.inside[name] = self._inside(container.init_pid)
        return outcome

    def remove(self) -> None:
        """Stop what runs and remove everything, also what lxc-copy forgets: locks, and the cgroups it sat in."""
        for container, monitor in self._monitored():
            container.stop()
            _wait(monitor)
        for cgroup in self._cgroups():
            for directory, _, _ in os.walk(cgroup, topdown=False):
                os.rmdir(directory)
        shutil.rmtree(self.root)
        shutil.rmtree(f"/run/lxc/lock{self.root}", ignore_errors=True)

    def _copy(self, template: Path) -> None:
        """Copy a container: its root file system with hard links, for speed, but for what cases change."""
        self.base.mkdir()
        self.base.chmod(0o770)
        config = (template / "config").read_text(encoding="ascii")
        self.configure(config.replace(str(template), str(self.base)))
        (self.base / "config").chmod(0o640)
        subprocess.run(["cp", "-a", "--link", template / "rootfs", self.base], check=True)
        shutil.rmtree(self.base / "rootfs/etc")
        subprocess.run(["cp", "-a", template / "rootfs/etc", self.base / "rootfs"], check=True)

    def _entries(self) -> set[str]:
        return {entry for path in self._lxcpaths() for entry in os.listdir(path)}

    def _cgroups(self) -> set[str]:
        """The empty cgroups of this side's containers; liblxc numbers those that it finds taken."""
        names = "|".join(map(re.escape, self._names))
        ours = re.compile(rf"/lxc\.(monitor|payload)\.({names})(-\d+)?$")
        return {cgroup for cgroup in cgroups() if ours.search(cgroup)}

    def _lxcpaths(self) -> tuple[Path, Path]:
        return self.lxc, self.root / "new"

    def _monitored(self) -> Iterator[tuple[Container, int]]:
        """The containers that have a monitor, with a pidfd of it."""
        for monitor in monitors(str(self.root)):
            try:
                pidfd = os.pidfd_open(int(monitor))
            except ProcessLookupError:
                continue
            try:
                # "[lxc monitor] PATH NAME", or nothing of one that has ended since
                words = Path(f"/proc/{monitor}/cmdline").read_text(encoding="ascii").strip("\0 ").split(" ")
                if len(words) == 4:
                    with Container(words[3], words[2]) as container:
                        yield container, pidfd
            except OSError:
                continue
            finally:
                os.close(pidfd)

    def _walk(self, top: Path) -> Iterator[Path]:
        for directory, directories, names in os.walk(top):
            for name in (*directories, *names):
                yield Path(directory, name)

    def _is_telling(self, path: Path) -> bool:
        if path.suffix == ".log" or path.name in ("log", "rootdev"):
            return False
        below = re.search(r"/(rootfs|delta)/(.*)", str(path))
        return below is None or below[2] in _IDENTITY

    def _mounts(self, init: int) -> list[str]:
        found = []
        for line in Path(f"/proc/{init}/mountinfo").read_text(encoding="ascii").splitlines():
            left, _, right = line.partition(" - ")
            _, _, _, root, target, options, *_ = left.split(" ")
            kind, source, more = right.split(" ")
            if kind.startswith("cgroup"):
                root = more = ""  # they have the number in them that the name got
            below = root.partition(f"/{self.root.name}/")[2]
            root = f"@/{below}" if below else root
            found.append(self._normal(f"{target} {kind} {source} {root} {options} {more}"))
        return found

    def _inside(self, init: int) -> list[str]:
        root = Path(f"/proc/{init}/root")
        size = os.statvfs(root)
        lines = [f"size {size.f_blocks * size.f_frsize}"]
        for name in _IDENTITY:
            path = root / name
            if path.is_file():
                lines += [f"{name}: {line}" for line in self._normal(path.read_text(encoding="utf-8")).split("\n")]
        return lines

    def _normal(self, text: str) -> str:
        root = str(self.root)
        text = text.replace(root, "@").replace(root[1:], "@").replace(COPY, "COPY")
        for pattern, replacement in _RANDOM:
            text = pattern.sub(replacement, text)
        return text


def _describe(path: Path) -> str:
    status = os.lstat(path)
    more = f" -> {os.readlink(path)}" if stat.S_ISLNK(status.st_mode) else ""
    if path.name == "rootdev":
        more = f" {status.st_size} bytes"
    return f"{stat.filemode(status.st_mode)} {status.st_uid}:{status.st_gid}{more}"


def _wait(pidfd: int) -> None:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(10_000), "a monitor does not end"


@contextmanager
def world(root: Path, template: Path) -> Iterator[World]:
    """A side's directory, removed at the end with all that ran in it."""
    made = World(root, template)
    try:
        yield made
    finally:
        made.remove()
