# SPDX-License-Identifier: LGPL-2.1-or-later
"""The same on a real distribution: a Debian with systemd, from the cache of tests/live/test_systemd.py."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import DEBIAN_CONFIG, debian_archive, require
from parity_cases import DEBIAN_CASES, Case
from parity_check import check, sides
from parity_world import BASE_ID


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Debian that has been booted somewhere before: it has a machine id."""
    require(os.geteuid() == 0, "containers are started as root")
    require(shutil.which("lxc-copy") and shutil.which("rsync"), "lxc-copy or rsync is not installed")
    directory = tmp_path_factory.mktemp("template")
    rootfs = directory / "debian/rootfs"
    rootfs.mkdir(parents=True)
    # Documentation and the like are most of its files, and nobody reads them here.
    less = ["--exclude=./usr/share/[!d]*", "--exclude=./usr/share/doc*"]
    subprocess.run(["tar", "-C", rootfs, "--numeric-owner", *less, "-xpf", debian_archive()], check=True)
    (rootfs / "etc/machine-id").write_text(f"{BASE_ID}\n", encoding="ascii")
    hosts = "127.0.0.1\tlocalhost\n127.0.1.1\tdebian\n"
    (rootfs / "etc/hosts").write_text(hosts, encoding="ascii")
    (rootfs / "etc/hostname").write_text("debian\n", encoding="ascii")
    (directory / "debian/config").write_text(DEBIAN_CONFIG.format(rootfs=rootfs), encoding="ascii")
    (directory / "debian").chmod(0o770)
    yield directory / "debian"
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory for both sides."""
    with sides(tmp_path_factory.mktemp("parity")) as path:
        yield path


@pytest.mark.parametrize("case", DEBIAN_CASES, ids=lambda case: case.name)
def test_parity(directory: Path, template: Path, case: Case) -> None:
    """Both do the same, but for exactly the differences that the case lists."""
    check(case, directory, template)
