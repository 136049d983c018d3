# SPDX-License-Identifier: LGPL-2.1-or-later
"""The arguments of -B and -L: exactly as documented, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from lxccopy_ffi import OptionError
from lxccopy_ffi.storage import KINDS, check_kind, check_size, find_program


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("overlay", "overlay"),
        ("overlayfs", "overlay"),
        *((kind, kind) for kind in ("btrfs", "dir", "loop", "lvm", "nbd", "rbd", "zfs")),
    ],
)
def test_good_kind(kind: str, expected: str) -> None:
    """A type of storage that liblxc knows is called as liblxc calls it."""
    assert expected == check_kind(kind)
    assert expected in KINDS


@pytest.mark.parametrize(
    "kind",
    ["", "o", "ov", "over", "overla", "overlayf", "overlayfsx", "Overlay", "DIR", "di", " dir", "dir ", "dir\n", "best",
     "unknown", "dir,loop", "bogus", None, 5, b"dir", ["dir"]],
)  # fmt: skip
def test_bad_kind(kind: Any) -> None:
    """Any other type is refused and quoted, with those that there are; no part of a name will do, nor an empty one."""
    message = f"there is no storage type {kind!r}; it is one of btrfs, dir, loop, lvm, nbd, overlay, rbd, zfs"
    with pytest.raises(OptionError, match=f"^{re.escape(message)}$"):
        check_kind(kind)


def test_dropped_kind() -> None:
    """The type that liblxc has dropped is refused with what to use instead."""
    with pytest.raises(OptionError, match=r"^the storage type 'aufs' was dropped from liblxc .*; use 'overlay'$"):
        check_kind("aufs")


K, M, G, T = (1 << 10 * power for power in (1, 2, 3, 4))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        # without a unit it is MiB
        ("1", M),
        ("10", 10 * M),
        ("0x10", 16 * M),
        ("0X1f", 31 * M),
        ("0xb", 11 * M),  # a digit, and no unit
        ("0x1b", 27 * M),
        # units
        ("10b", 10),
        ("10B", 10),
        ("2k", 2 * K),
        ("2K", 2 * K),
        ("2m", 2 * M),
        ("2M", 2 * M),
        ("2g", 2 * G),
        ("2G", 2 * G),
        ("2t", 2 * T),
        ("2T", 2 * T),
        ("0x10k", 16 * K),
        # blanks before the unit
        ("10 m", 10 * M),
        ("10\tm", 10 * M),
        ("10 \t G", 10 * G),
        ("10 ", 10 * M),
        # units written out
        ("3kib", 3 * K),
        ("3KiB", 3 * K),
        ("3KB", 3 * K),
        ("3 MiB", 3 * M),
        # none: the driver's default
        ("0", 0),
        ("0x0", 0),
        ("0G", 0),
        (0, 0),
        # the largest
        (str((1 << 63) - 1) + "B", (1 << 63) - 1),
        ("8388607T", 8388607 * T),
        # bytes
        (1, 1),
        (5000, 5000),
        ((1 << 63) - 1, (1 << 63) - 1),
    ],
)
def test_good_size(size: Any, expected: int) -> None:
    """A size is a number of bytes, or a text as lxc-copy documents it."""
    assert expected == check_size(size)


@pytest.mark.parametrize(
    "size",
    ["", " ", "abc", "G", "10X", "10 X", "1.5G", "1e9", "-5", "+5", " 5", "5 5", "5G5", "5GG", "5Gx", "5Ki", "5Gi b",
     "5bb", "5bib", "010", "00", "0x", "0xg", "x10", "1_0", "5\n", "5G\n", "\u0661", "\xb2G", "5\u212a",
     "0" * 40 + "1", "1" * 40],
)  # fmt: skip
def test_bad_size(size: str) -> None:
    """What is no size is refused and quoted, where lxc-copy takes its default size."""
    with pytest.raises(OptionError, match=f"^the size {re.escape(repr(size))} is not a number with B, K, M, G or T"):
        check_size(size)


@pytest.mark.parametrize("size", [-1, 1 << 63, "8388608T", "9223372036854775808B", "9" * 20, "0x8000000000000000b"])
def test_size_out_of_range(size: Any) -> None:
    """Less than nothing, and more than a file can hold, is refused and quoted."""
    with pytest.raises(OptionError, match=f"^the size {re.escape(repr(size))} is out of range$"):
        check_size(size)


@pytest.mark.parametrize("size", [None, 2.5, float("nan"), float("inf"), b"5", True, ["5"], Path("5")])
def test_size_of_a_wrong_type(size: Any) -> None:
    """What is neither a text nor a whole number is refused."""
    with pytest.raises(OptionError, match=r"^the size "):
        check_size(size)


def test_find_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program is an executable file in the first directory of PATH that has one of its name."""
    for name in ("1", "2", "3", "4"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("PATH", ":".join(str(tmp_path / name) for name in ("0", "1", "2", "3", "4")))
    (tmp_path / "1/rsync").touch(0o644)
    (tmp_path / "2/rsync").mkdir()
    assert "" == find_program("rsync")
    for name in ("4", "3"):
        (tmp_path / name / "rsync").touch(0o755)
        assert str(tmp_path / name / "rsync") == find_program("rsync")
