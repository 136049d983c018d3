# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which subordinate ids a user has, which id maps they allow, and where the root of a container may go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lxccopy_ffi import AccessError, subids

FILE = """\
# comment
root:100000:65536
ordinary:300000:1000
1234:301000:1000
ordinary:500000:10

ordinary:x:5
ordinary:7
ordinary:600000:0
another:301000:5000
"""


@pytest.fixture(autouse=True)
def _user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """User 1234, called ordinary, has the ids of FILE."""
    (tmp_path / "subuid").write_text(FILE)
    monkeypatch.setattr(subids, "_FILES", dict.fromkeys("ug", str(tmp_path / "subuid")))
    monkeypatch.setattr(subids, "user_name", lambda: "ordinary")
    monkeypatch.setattr(os, "geteuid", lambda: 1234)


def test_ranges() -> None:
    """A user's ranges are those of the name and of the number; lines that are none are left out."""
    assert [(300000, 1000), (301000, 1000), (500000, 10)] == subids.ranges("u")
    assert ["u 0 300000 1000", "g 0 300000 1000"] == subids.idmap()


def test_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where there is no file, nobody has subordinate ids."""
    monkeypatch.setattr(subids, "_FILES", dict.fromkeys("ug", str(tmp_path / "missing")))
    with pytest.raises(AccessError, match=r"user 'ordinary' has no subordinate ids in .*: usermod --add-subgids "):
        subids.ranges("g")


@pytest.mark.parametrize(
    ("idmap", "allowed"),
    [
        ("u 0 300000 1000\ng 0 300000 1000", True),
        ("b 0 300000 1000", True),
        ("u 0 300500 1500", True),  # two ranges that follow one another
        ("u 0 300000 2001", False),
        ("g 0 299999 10", False),
        ("u 0 500000 10\nu 10 500000 11", False),
        ("b 0 100000 65536", False),
    ],
)
def test_check_idmap(idmap: str, *, allowed: bool) -> None:
    """An id map is allowed that has the user's ids only."""
    if allowed:
        subids.check_idmap(idmap, "it")
    else:
        with pytest.raises(AccessError, match=r"^it has the id map '.*', and .* does not give user 'ordinary' all"):
            subids.check_idmap(idmap, "it")


def test_own_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's own id may be in a map, but not more than that."""
    monkeypatch.setattr(subids, "_OWN", dict.fromkeys("ug", lambda: 1234))
    subids.check_idmap("u 0 300000 5\nu 5 1234 1", "it")
    with pytest.raises(AccessError):
        subids.check_idmap("u 5 1234 2", "it")


def test_way(tmp_path: Path) -> None:
    """The first directory that the root of a container cannot enter is named; what is missing does not matter."""
    deep = tmp_path / "a/b/c"
    deep.mkdir(parents=True)
    closed = tmp_path / "a"
    idmap = f"b 0 {tmp_path.stat().st_uid} 1"  # whom the directories belong to
    subids.check_way(str(deep / "missing/more"), idmap)
    closed.chmod(0o077)
    with pytest.raises(AccessError, match=rf"cannot enter {closed}, .* way to {deep}; .*: chmod o\+x {closed}$"):
        subids.check_way(str(deep), idmap)
    closed.chmod(0o755)
