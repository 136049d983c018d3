# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where a path of a root file system leads, with links that are ordinary, dangling, circular or hostile."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lxccopy_ffi import identity

# Links by their place, and what they say.
LINKS = {
    "absolute": "/srv/data",
    "relative": "srv/data",
    "srv/up": "../etc",
    "srv/here": ".",
    "top": "/",
    "beyond": "../../../../../etc",
    "srv/beyond": "/../../../etc/..//./srv",
    "chain": "/srv/link",
    "srv/link": "data",
    "dangling": "/srv/missing",
    "dangling-deep": "missing/a/b",
    "to-file": "/etc/hostname",
    "self": "self",
    "circle-1": "/circle-2",
    "circle-2": "circle-1",
    "through-file": "/etc/hostname/x",
    "host": "/proc/self/root/etc",
    "slashes": "//srv///data//",
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system with LINKS, beside a directory that must not be reached."""
    root = tmp_path_factory.mktemp("links") / "root"
    for directory in ("etc", "srv/data/deep"):
        (root / directory).mkdir(parents=True)
    (root / "etc/hostname").touch()
    (root.parent / "victim").mkdir()
    for place, target in LINKS.items():
        (root / place).symlink_to(target)
    (root / "victim").symlink_to(root.parent / "victim")
    return root


@pytest.fixture
def root(tree: Path) -> Iterator[int]:
    """A descriptor of it; no other descriptor is left open."""
    fd = identity.open_root(str(tree))
    before = set(os.listdir("/proc/self/fd"))
    yield fd
    assert before == set(os.listdir("/proc/self/fd"))
    os.close(fd)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "/"),
        ("/srv/data", "/srv/data"),
        ("/srv//data/", "/srv/data"),
        ("/etc/hostname", "/etc/hostname"),
        # what is not there yet
        ("/new", "/new"),
        ("/srv/new/a/b", "/srv/new/a/b"),
        ("/absolute/new/a", "/srv/data/new/a"),
        # links
        ("/absolute", "/srv/data"),
        ("/absolute/deep", "/srv/data/deep"),
        ("/relative/deep/x", "/srv/data/deep/x"),
        ("/chain/x", "/srv/data/x"),
        ("/slashes/x", "/srv/data/x"),
        ("/srv/up/hostname", "/etc/hostname"),
        ("/srv/here/here/data", "/srv/data"),
        ("/top/top/srv/here/data", "/srv/data"),
        ("/to-file", "/etc/hostname"),
        # the way out ends at the root
        ("/beyond/hostname", "/etc/hostname"),
        ("/srv/beyond/data", "/srv/data"),
        ("/host/hostname", "/proc/self/root/etc/hostname"),
        # links to what is not there
        ("/dangling", "/srv/missing"),
        ("/dangling/x", "/srv/missing/x"),
        ("/dangling-deep/x", "/missing/a/b/x"),
    ],
)
def test_resolve(root: int, path: str, expected: str) -> None:
    """A path is that which it is inside, where absolute links begin at the root, and none leads above it."""
    assert expected == identity.resolve(root, path)


def test_link_to_the_host(root: int, tree: Path) -> None:
    """A link to a directory of the host is one to the same path below the root."""
    assert f"{tree.parent}/victim/x" == identity.resolve(root, "/victim/x")


@pytest.mark.parametrize(
    "target", ["missing/..", "missing/../../x", "missing/a/../../../../x", "/missing/../../../etc", "missing/./a/..//b"]
)
@pytest.mark.parametrize("path", ["/link", "/link/y", "/link/etc/hostname"])
def test_dots_behind_what_is_missing(tmp_path: Path, target: str, path: str) -> None:
    """A link that goes up again from what is not there is refused, or leads to a path that has no dots in it."""
    (tmp_path / "root/etc").mkdir(parents=True)
    (tmp_path / "root/link").symlink_to(target)
    fd = identity.open_root(str(tmp_path / "root"))
    try:
        found = identity.resolve(fd, path)
    except OSError as error:
        assert path == error.filename  # noqa: PT017 - an error is one of two good ends
    else:
        assert set() == {".", ".."} & set(found.split("/"))
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/self", errno.ELOOP),
        ("/self/x", errno.ELOOP),
        ("/circle-1", errno.ELOOP),
        ("/circle-2/x", errno.ELOOP),
        ("/etc/hostname/x", errno.ENOTDIR),
        ("/to-file/x", errno.ENOTDIR),
        ("/through-file", errno.ENOTDIR),
        ("/" + "x" * 256, errno.ENAMETOOLONG),
    ],
)
def test_no_way(root: int, path: str, error: int) -> None:
    """A circle, a file on the way and a name that is too long are errors with the path that was asked for."""
    with pytest.raises(OSError, match=os.strerror(error)) as caught:
        identity.resolve(root, path)
    assert (error, path) == (caught.value.errno, caught.value.filename)


def test_longest_chain(tmp_path: Path) -> None:
    """As many links are followed as the kernel does, and not one more."""
    (tmp_path / "0").mkdir()
    for number in range(1, 42):
        (tmp_path / str(number)).symlink_to(str(number - 1))
    fd = identity.open_root(str(tmp_path))
    try:
        assert "/0/x" == identity.resolve(fd, "/40/x")
        assert (tmp_path / "40").resolve(strict=True) == tmp_path / "0"
        with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
            identity.resolve(fd, "/41/x")
    finally:
        os.close(fd)
