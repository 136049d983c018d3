# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests with running containers share: containers for a moment, and a look at files and processes."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import shutil
import stat
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from conftest import ROOT

from lxccopy_ffi import Container, EphemeralCopy, _raw, clone, create_base
from lxccopy_ffi.locking import forget_lock
from lxccopy_ffi.processes import command_lines, is_alive, start_time
from lxccopy_ffi.removal import discard

# Who the root of an id-mapped container is on the host.
MAPPED_ROOT = 100000

# How the copy's writable layer is kept, as options of the command line.
WAYS = {"disk": [], "monitor": ["-t"], "hook": ["-t", "--tmpfs-via=hook"]}


@contextmanager
def removed(lxcpath: str, *names: str) -> Iterator[None]:
    """Remove containers at the end, in this order, in whatever state they are then."""
    try:
        yield
    finally:
        for name in names:
            if os.path.lexists(f"{lxcpath}/{name}"):
                discard(name, lxcpath)
            forget_lock(name, lxcpath)


@contextmanager
def snapshot(lxcpath: str, name: str, *lines: str, source: str = "base") -> Iterator[Path]:
    """A snapshot with further lines in its configuration; its directory."""
    with removed(lxcpath, name):
        clone(source, name, lxcpath=lxcpath, snapshot=True, keep_name=True).close()
        configure(lxcpath, name, *lines)
        yield Path(lxcpath, name)


@contextmanager
def plain(lxcpath: str, name: str, *lines: str) -> Iterator[Path]:
    """A container of its own like ``base``, with further lines in its configuration; its directory."""
    with removed(lxcpath, name):
        create_base(name, lxcpath=lxcpath).close()
        configure(lxcpath, name, *lines)
        yield Path(lxcpath, name)


@contextmanager
def mapped(lxcpath: str, name: str, *lines: str) -> Iterator[Path]:
    """A container of its own with an id map; its directory. Copies of it are started with with_subordinate_ids()."""
    ids = (f"lxc.idmap = {kind} 0 {MAPPED_ROOT} 65536" for kind in "ug")
    with traversable(lxcpath), plain(lxcpath, name, *ids, *lines) as directory:
        for path in (directory, directory / "rootfs", *(directory / "rootfs").rglob("*")):
            mode = path.lstat().st_mode
            os.lchown(path, MAPPED_ROOT, MAPPED_ROOT)
            if not path.is_symlink():
                path.chmod(stat.S_IMODE(mode))
        yield directory


@contextmanager
def traversable(lxcpath: str) -> Iterator[None]:
    """Let all users pass through the directories above containers."""
    parents = [Path(lxcpath), *Path(lxcpath).parents]
    modes = [stat.S_IMODE(path.stat().st_mode) for path in parents]
    for path, mode in zip(parents, modes):
        if not mode & 0o001:
            path.chmod(mode | 0o011)
    try:
        yield
    finally:
        for path, mode in zip(parents, modes):
            if stat.S_IMODE(path.stat().st_mode) != mode:
                path.chmod(mode)


def with_subordinate_ids(*command: str) -> list[str]:
    """A command that has root's subordinate ids to map, in a view of /etc that only it has."""
    script = f"""
        mount -t tmpfs none /mnt && echo root:{MAPPED_ROOT}:65536 > /mnt/ids &&
        mount --bind /mnt/ids /etc/subuid && mount --bind /mnt/ids /etc/subgid && umount -l /mnt && exec "$@"
    """
    return ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", *command]


def configure(lxcpath: str, name: str, *lines: str) -> None:
    """Add lines to a container's configuration."""
    with open(f"{lxcpath}/{name}/config", "a", encoding="ascii") as config:
        config.writelines(f"{line}\n" for line in lines)


def settings(lxcpath: str, name: str, key: str) -> list[str]:
    """The values of a key in a container's configuration file."""
    lines = Path(lxcpath, name, "config").read_text(encoding="utf-8").splitlines()
    return [value.strip() for name, _, value in (line.partition("=") for line in lines) if name.strip() == key]


def script(path: Path, text: str) -> Path:
    """Write a shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def few_programs(path: Path) -> dict[str, str]:
    """An environment whose PATH has no more than what a pre-mount hook needs."""
    path.mkdir()
    for program in ("sh", "mount", "mkdir", "chmod", "chown"):
        (path / program).symlink_to(str(shutil.which(program)))
    return {**os.environ, "PATH": str(path)}


def tree(path: Path | str) -> dict[str, tuple[object, ...]]:
    """All that is below a directory: kind, mode, owner and content."""
    found: dict[str, tuple[object, ...]] = {}
    for item in sorted(Path(path).rglob("*")):
        status = item.lstat()
        content = os.readlink(item) if item.is_symlink() else item.read_bytes() if item.is_file() else b""
        found[str(item.relative_to(path))] = (oct(status.st_mode), status.st_uid, status.st_gid, content)
    return found


# Calls the command line again and again, each time in a process of its own, but without starting Python anew.
_DRIVER = """
import json, os, sys, tempfile
from lxccopy_ffi.cli import main
results = []
for arguments in json.load(sys.stdin):
    files = [tempfile.TemporaryFile(), tempfile.TemporaryFile()]
    pid = os.fork()
    if pid == 0:
        for number, file in enumerate(files, 1):
            os.dup2(file.fileno(), number)
        status = 70
        try:
            status = main(arguments)
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    for file in files:
        file.seek(0)
    results.append([os.waitstatus_to_exitcode(status), *(file.read().decode() for file in files)])
json.dump(results, sys.stdout)
"""


def call_each(lxcpath: str, *calls: Sequence[str], cwd: Path | None = None) -> list[list[Any]]:
    """Call the command line with -P and each list of arguments; return the status, stdout and stderr of each."""
    result = subprocess.run(
        [sys.executable, "-c", _DRIVER],
        input=json.dumps([["-P", lxcpath, *call] for call in calls]),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return list(json.loads(result.stdout))


def changes(before: dict[str, tuple[object, ...]], after: dict[str, tuple[object, ...]]) -> set[str]:
    """The paths in which two trees differ; pytest would take minutes to show the difference of big files."""
    return {path for path in {*before, *after} if before.get(path) != after.get(path)}


def running(lxcpath: str, name: str) -> bool:
    """Whether a container runs."""
    with Container(name, lxcpath) as container:
        return container.running


def has(program: str) -> bool:
    """Whether a program is installed."""
    return shutil.which(program) is not None


def output(copy: EphemeralCopy, script: str) -> str:
    """What a shell script prints in a copy."""
    return str(copy.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout)


def reboot(copy: EphemeralCopy) -> None:
    """Reboot a copy from the inside and wait until it is back."""
    init = copy.container.init_pid
    pidfd = os.pidfd_open(init)
    copy.run(["reboot", "-f"])
    assert _raw.wait_readable(pidfd, 10)
    os.close(pidfd)
    while copy.container.init_pid in (-1, init) or copy.container.state != "RUNNING":
        assert copy.container._monitor >= 0


def titled(title: str) -> list[int]:
    """The processes whose command line begins with these words, such as ``[lxccopy guard] LXCPATH``."""
    return [pid for pid, line in command_lines() if f"{line} ".startswith(f"{title} ")]


def await_guards(lxcpath: str) -> None:
    """Wait until those who end what was running when its maker died have done so."""
    deadline = time.monotonic() + 20
    began = {}
    for pid in titled(f"[lxccopy guard] {lxcpath}"):
        with suppress(OSError):
            began[pid] = start_time(pid)
    while any(is_alive(pid, when) for pid, when in began.items()):  # a title goes before what is locked
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Pause:
    """A hook that says when it is there, and goes on when it is told, or when the test ends.

    Args:
        directory: Where to write it.
        first: What it does before that.
    """

    def __init__(self, directory: Path, first: str = "") -> None:
        for name in ("at", "go"):
            os.mkfifo(directory / name)
        self._at, self._go = (os.open(directory / name, os.O_RDWR | os.O_CLOEXEC) for name in ("at", "go"))
        self.hook = script(directory / "pause", f"{first}\necho $PPID >{directory}/at\nread line <{directory}/go")

    def __enter__(self) -> Pause:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._at)
        os.close(self._go)

    def wait(self) -> int:
        """Wait until it is there, and return the process id of the monitor that runs it."""
        assert _raw.wait_readable(self._at, 20)
        return int(os.read(self._at, 100).split()[0])

    def go_on(self) -> None:
        """Tell it to."""
        os.write(self._go, b"\n")


class Player:
    """A terminal with lxccopy on it, played by the test."""

    def __init__(self, *arguments: str, stdout: int | None = None) -> None:
        self.ours, theirs = pty.openpty()
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        self.theirs = theirs
        self.before = termios.tcgetattr(theirs)
        self.seen = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lxccopy_ffi", *arguments],
            stdin=theirs,
            stdout=theirs if stdout is None else stdout,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no threads here
        )

    def type(self, text: str) -> None:
        """Type a text."""
        os.write(self.ours, text.encode())

    def expect(self, text: str) -> str:
        """Wait until a text is printed; return what came up to its end, and forget that."""
        poll = select.poll()
        poll.register(self.ours, select.POLLIN)
        while text not in self.seen:
            assert poll.poll(15000), f"no {text!r} in {self.seen!r}"
            # liblxc leaves our terminal to translate line ends, too
            self.seen = (self.seen + os.read(self.ours, 4096).decode(errors="replace")).replace("\r\r\n", "\r\n")
        found, _, self.seen = self.seen.partition(text)
        return found + text
