# SPDX-License-Identifier: LGPL-2.1-or-later
"""The last test of a run: the machine is as it was before the first."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import Left, monitors


def test_nothing_is_left(
    at_start: Left, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """No mount, process, container, cgroup or lock file of ours is left; only the bases are still there."""
    assert request.session.items[-1] is request.node
    at_start.check()
    below = tmp_path_factory.getbasetemp()
    bases = {"base", "debian"}
    assert set() == {path.parent.name for path in below.glob("*/*/config")} - bases
    assert set() == {path.name[1:] for path in Path(f"/run/lxc/lock{below}").rglob(".*")} - bases
    assert [] == monitors(str(below))
    children = [path.read_text(encoding="ascii") for path in Path("/proc/self/task").glob("*/children")]
    assert "" == "".join(children)
    assert ["upper"] == os.listdir("/run/lxccopy") if os.path.isdir("/run/lxccopy") else True
