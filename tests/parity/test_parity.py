# SPDX-License-Identifier: LGPL-2.1-or-later
"""The same command line for lxc-copy and for ours: what comes of it is the same, but for listed differences."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import require
from differences import DIFFERENCES
from parity_cases import CASES, Case
from parity_check import check, sides
from parity_world import BASE_ID

from lxccopy_ffi import create_base

# Beside what its init runs, that is, so that there is less to copy and to compare.
APPLETS = ("ash", "cat", "echo", "init", "ip", "mount", "sh", "touch", "true")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A base that both sides get a copy of: a small one, which has been started somewhere and so has a machine id."""
    require(os.geteuid() == 0, "containers are started as root")
    require(shutil.which("lxc-copy") and shutil.which("rsync"), "lxc-copy or rsync is not installed")
    directory = tmp_path_factory.mktemp("template")
    create_base("base", lxcpath=directory).close()
    rootfs = directory / "base/rootfs"
    for path in rootfs.rglob("*"):
        if path.is_symlink() and path.name not in APPLETS:
            path.unlink()
    (rootfs / "etc/machine-id").write_text(f"{BASE_ID}\n", encoding="ascii")
    yield directory / "base"
    shutil.rmtree(directory)
    shutil.rmtree(f"/run/lxc/lock{directory}")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory for both sides."""
    with sides(tmp_path_factory.mktemp("parity")) as path:
        yield path


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_parity(directory: Path, template: Path, case: Case) -> None:
    """Both do the same, but for exactly the differences that the case lists."""
    check(case, directory, template)


def test_every_difference_is_shown() -> None:
    """There is a case for each difference, and they have names of their own."""
    shown = {difference.name for case in CASES for difference in case.differences}
    assert shown == {difference.name for difference in DIFFERENCES}
    assert len(shown) == len(DIFFERENCES)
