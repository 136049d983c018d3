# SPDX-License-Identifier: LGPL-2.1-or-later
"""liblxc's lock of a container, and the files that say who is a snapshot of whom."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import ROOT

from lxccopy_ffi import rdepends
from lxccopy_ffi.locking import forget_lock, lock_file, locked

# Takes the lock as liblxc does, by a descriptor of its own, without waiting; ends with 0 or the errno.
_TAKE = """
import fcntl, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
try:
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
except OSError as error:
    sys.exit(error.errno)
"""

# Takes it by our own function, says so, and holds it until its input ends.
_HOLD = """
import sys
from lxccopy_ffi import locking
locking.os.geteuid = lambda: 1000
with locking.locked(*sys.argv[1:]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runtime directory for locks that is not the machine's, as an ordinary user has it."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    path = tmp_path / "runtime"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(path))
    return path


def take(name: str, lxcpath: str) -> int:
    """Whether another process can take a container's lock now: 0, or the errno."""
    return subprocess.run([sys.executable, "-c", _TAKE, lock_file(name, lxcpath)], check=False).returncode


def test_lock_file(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock is where liblxc has it: for root in /run, for a user in the runtime directory, or else at home."""
    assert f"{runtime}/lxc/lock/srv/lxc/.base" == lock_file("base", "/srv/lxc")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setenv("HOME", "/home/x")
    assert "/home/x/.cache/lxc/run/lxc/lock/srv/lxc/.base" == lock_file("base", "/srv/lxc")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "/run/lxc/lock/srv/lxc/.base" == lock_file("base", "/srv/lxc")


def test_lock_excludes_other_processes() -> None:
    """While the lock is held no other process gets it, but that of another container; afterwards one does."""
    with locked("base", "/srv/lxc"):
        with locked("other", "/srv/lxc"), locked("base", "/srv/lxc2"):
            assert errno.EAGAIN == take("base", "/srv/lxc")
        assert (errno.EAGAIN, 0, 0) == (take("base", "/srv/lxc"), take("other", "/srv/lxc"), take("base", "/srv/lxc2"))
    assert 0 == take("base", "/srv/lxc")


def test_lock_survives_other_descriptors() -> None:
    """Closing another descriptor of the lock file in this process does not give the lock away, as POSIX locks do."""
    with locked("base", "/srv/lxc"):
        os.close(os.open(lock_file("base", "/srv/lxc"), os.O_RDWR))
        assert errno.EAGAIN == take("base", "/srv/lxc")


def test_lock_is_given_back_by_an_exception() -> None:
    """An error in the block gives the lock back, and goes on; no descriptor is left."""
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(KeyboardInterrupt), locked("base", "/srv/lxc"):
        raise KeyboardInterrupt
    assert (0, before) == (take("base", "/srv/lxc"), set(os.listdir("/proc/self/fd")))


def test_lock_is_waited_for(runtime: Path) -> None:
    """As long as another process holds the lock we wait, and have it when that one ends."""
    events: list[str] = []

    def wait() -> None:
        with locked("base", "/srv/lxc"):
            events.append("ours")

    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, "base", "/srv/lxc"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "XDG_RUNTIME_DIR": str(runtime)},
    )
    with holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert b"held\n" == holder.stdout.readline()
        thread = threading.Thread(target=wait)
        thread.start()
        inode = f":{os.stat(lock_file('base', '/srv/lxc')).st_ino} "
        while not any("->" in line and inode in line for line in Path("/proc/locks").read_text().splitlines()):
            assert thread.is_alive()
        events.append("theirs")
        holder.stdin.close()
        thread.join(20)
    assert ["theirs", "ours"] == events


def test_lock_is_no_link(runtime: Path, tmp_path: Path) -> None:
    """A link in the place of the lock file is not followed."""
    file = Path(lock_file("base", "/srv/lxc"))
    file.parent.mkdir(parents=True)
    file.symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)), locked("base", "/srv/lxc"):
        pass
    assert ["runtime"] == os.listdir(tmp_path)
    assert runtime.is_dir()


def test_forget_lock(runtime: Path) -> None:
    """The lock file of a container that is gone is removed, and only that one; twice is once."""
    for name in ("base", "other"):
        with locked(name, "/srv/lxc"):
            pass
    for _ in range(2):
        forget_lock("base", "/srv/lxc")
        assert [".other"] == os.listdir(runtime / "lxc/lock/srv/lxc")


def test_lock_is_of_all_bytes() -> None:
    """The lock is a write lock of the whole file, as liblxc's, so that any other one conflicts with it."""
    with locked("base", "/srv/lxc"):
        fd = os.open(lock_file("base", "/srv/lxc"), os.O_RDWR)
        try:
            question = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 1 << 40, 1, 0)
            kind, whence, start, length, pid = struct.unpack("hhqqi4x", fcntl.fcntl(fd, fcntl.F_OFD_GETLK, question))
        finally:
            os.close(fd)
    assert (fcntl.F_WRLCK, os.SEEK_SET, 0, 0, -1) == (kind, whence, start, length, pid)


# Snapshots and their bases


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, []),
        ("", []),
        ("/srv/lxc\na\n", [("/srv/lxc", "a")]),
        ("/srv/lxc\na\n/other path\nb\n", [("/srv/lxc", "a"), ("/other path", "b")]),
        ("/srv/lxc\na\n/cut\n", [("/srv/lxc", "a")]),
        ("/srv/lxc\na", [("/srv/lxc", "a")]),
        ("/\u2028\udcff\na\n", [("/\u2028\udcff", "a")]),
    ],
)
def test_pairs(tmp_path: Path, text: str | None, expected: list[tuple[str, str]]) -> None:
    """Each container is two lines, its lxcpath and its name; there may be no file at all."""
    for function, name in ((rdepends.snapshots, "lxc_snapshots"), (rdepends.bases, "lxc_rdepends")):
        assert [] == function(str(tmp_path))
        if text is not None:
            (tmp_path / name).write_text(text, encoding="utf-8", errors="surrogateescape")
        assert expected == function(str(tmp_path))
        if text is not None:
            (tmp_path / name).unlink()


PAIRS = [("/srv", "a"), ("/srv", "b"), ("/srv", "a")]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (("/srv", "b"), ("/srv", "c"), [("/srv", "a"), ("/srv", "c"), ("/srv", "a")]),
        (("/srv", "a"), ("/else", "d e"), [("/else", "d e"), ("/srv", "b"), ("/srv", "a")]),
        (("/srv", "x"), ("/srv", "y"), PAIRS),
        (("b", "/srv"), ("/srv", "y"), PAIRS),
    ],
)
def test_replace(tmp_path: Path, old: tuple[str, str], new: tuple[str, str], expected: list[tuple[str, str]]) -> None:
    """A base remembers a snapshot by its new lxcpath and name, in the old one's place; all others stay."""
    base = tmp_path / "base"
    base.mkdir()
    (base / "lxc_snapshots").write_text("".join(f"{path}\n{name}\n" for path, name in PAIRS), encoding="ascii")
    rdepends.replace((str(tmp_path), "base"), old, new)
    assert expected == rdepends.snapshots(str(base))
    assert ["lxc_snapshots"] == os.listdir(base)
    assert "".join(f"{path}\n{name}\n" for path, name in expected) == (base / "lxc_snapshots").read_text(
        encoding="ascii"
    )


def test_replace_without_a_file(tmp_path: Path) -> None:
    """A base that remembers no snapshot, or is gone itself, is left alone."""
    (tmp_path / "base").mkdir()
    for base in ("base", "gone"):
        rdepends.replace((str(tmp_path), base), ("/srv", "a"), ("/srv", "b"))
    assert ([], False) == (os.listdir(tmp_path / "base"), os.path.lexists(tmp_path / "gone"))


def test_replace_holds_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The base's lock is held while its file is read and written, so that no entry of liblxc's is lost."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base/lxc_snapshots").write_text("/srv\na\n", encoding="ascii")
    answers: list[int] = []
    real = os.rename

    def rename(*paths: str) -> None:
        answers.append(take("base", str(tmp_path)))
        real(*paths)

    monkeypatch.setattr(os, "rename", rename)
    rdepends.replace((str(tmp_path), "base"), ("/srv", "a"), ("/srv", "b"))
    assert [errno.EAGAIN] == answers
