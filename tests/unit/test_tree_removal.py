# SPDX-License-Identifier: LGPL-2.1-or-later
"""Removing a directory with all that is in it, however deep, and nothing that is not."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, require

from lxccopy_ffi.removal import remove_tree


@pytest.fixture(autouse=True)
def _no_descriptor_is_left() -> Iterator[None]:
    """All descriptors are closed, whatever happens."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert before == set(os.listdir("/proc/self/fd"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with everything that can be in one, beside files that are none of its."""
    (tmp_path / "outside/kept").mkdir(parents=True)
    (tmp_path / "outside/file").touch()
    top = tmp_path / "tree"
    for path in ("a/b/c", "a/1", "1/2/3", "2/1", "empty", "a/.hidden/x"):
        (top / path).mkdir(parents=True)
    for path in ("file", "a/file", "a/b/c/1", "3", "1/1", " x\n", "-rf", "a/.hidden/..."):
        (top / path).touch()
    os.mkfifo(top / "a/fifo")
    (top / "a/locked").touch(0o000)
    (top / "a/readonly").mkdir(0o500)
    for name, target in (("link", "../outside"), ("a/b/link", str(tmp_path / "outside")), ("dangling", "nowhere")):
        (top / name).symlink_to(target)
    os.link(tmp_path / "outside/file", top / "a/hard")
    return top


def outside(top: Path) -> list[str]:
    """What is beside the tree."""
    return sorted(
        str(path.relative_to(top.parent)) for path in top.parent.rglob("*") if top not in (path, *path.parents)
    )


def test_tree(tree: Path) -> None:
    """All of the tree is removed, links without what they lead to; a second time there is nothing to do."""
    before = outside(tree)
    for _ in range(2):
        remove_tree(str(tree))
        assert (False, before) == (os.path.lexists(tree), outside(tree))


def test_tree_that_is_kept(tree: Path) -> None:
    """All that is in a directory is removed, and the directory stays; a second time there is nothing to do."""
    before, inode = outside(tree), tree.stat().st_ino
    for _ in range(2):
        remove_tree(str(tree), keep=True)
        assert ([], inode, before) == (os.listdir(tree), tree.stat().st_ino, outside(tree))


@pytest.mark.parametrize("keep", [False, True])
def test_no_tree(tree: Path, keep: bool) -> None:
    """A link, a file and what is not there are left alone."""
    before = sorted(tree.rglob("*"))
    for path in ("link", "dangling", "file", "a/fifo", "missing", "missing/x", "file/x"):
        remove_tree(f"{tree}/{path}", keep=keep)
    assert before == sorted(tree.rglob("*"))


@pytest.mark.parametrize("depth", [3000])
def test_deep_tree(tmp_path: Path, depth: int) -> None:
    """A tree that is deeper than any path may be long is removed, also with siblings on the way."""
    top = tmp_path / "tree"
    top.mkdir()
    fd = os.open(top, os.O_RDONLY)
    for number in range(depth):
        for name in ("deeper" * 10, f"{number}"):
            os.mkdir(name, dir_fd=fd)
        inner = os.open("deeper" * 10, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    remove_tree(str(top))
    assert [] == os.listdir(tmp_path)


_SCRIPT = """
import errno, os, sys
from lxccopy_ffi.removal import remove_tree
try:
    remove_tree(sys.argv[1])
except OSError as error:
    sys.exit(error.errno)
"""


@pytest.mark.parametrize("place", ["tree", "tree/a", "tree/a/b/c"])
@pytest.mark.parametrize("kind", ["tmpfs", "bind"])
def test_mount_point(tree: Path, place: str, kind: str) -> None:
    """What is mounted in the tree, or on it, is an error, and not touched, even where it is of the same file system."""
    require(os.geteuid() == 0 and shutil.which("unshare"), "something is mounted as root")
    mount = 'mount -t tmpfs none "$1"' if kind == "tmpfs" else 'mount --bind "$2" "$1"'
    # What is mounted may have moved with its directory.
    see = 'cd "$1"; : > mounted; (cd "$6"; exec "$3" -c "$4" "$5"); status=$?; test -e mounted || exit 78; exit $status'
    script = f"{mount} || exit 77; {see}"
    victim = tree.parent / "outside"
    words = [str(tree.parent / place), str(victim), sys.executable, _SCRIPT, str(tree), str(ROOT)]
    done = subprocess.run(["unshare", "-m", "sh", "-c", script, "sh", *words], check=False)
    require(done.returncode != 77, "nothing can be mounted")
    assert done.returncode in (errno.EXDEV, errno.EBUSY)
    assert ["file", "kept"] == sorted(set(os.listdir(victim)) - {"mounted"})
