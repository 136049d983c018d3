# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tests in throwaway containers, each in one of its own: run them with ``pytest``, or ``pytest -n 4``."""

from __future__ import annotations

import pytest

from lxccopy_ffi import EphemeralCopy, Pool

SEEN: set[str] = set()


@pytest.mark.parametrize("number", range(30))
def test_fresh_system(lxc_copy: EphemeralCopy, number: int) -> None:
    """Each test has a system in which no other one has been."""
    assert lxc_copy.name not in SEEN
    SEEN.add(lxc_copy.name)
    script = 'test ! -e /etc/changed && echo "$1" > /etc/changed && cat /etc/changed'
    result = lxc_copy.run(["sh", "-c", script, "sh", str(number)], capture_output=True, text=True, check=True)
    assert result.stdout == f"{number}\n"


@pytest.mark.lxc(tmpfs_size="1M")
@pytest.mark.parametrize("size", range(5))
def test_full_disk(lxc_copy: EphemeralCopy, size: int) -> None:
    """The marker's keywords are those of EphemeralCopy."""
    result = lxc_copy.run(["dd", "if=/dev/zero", "of=/file", "bs=512k", f"count={size}"], capture_output=True)
    assert (result.returncode == 0) == (size < 2)


@pytest.mark.parametrize("command", ["true", "hostname", "id", "ls", "pwd"])
def test_command(lxc_pool: Pool, command: str) -> None:
    """A test that needs no more than one command gets a copy that runs already."""
    assert lxc_pool.run([command], capture_output=True).returncode == 0
