# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run a case on twin bases and compare what comes of it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conftest import monitors, mounts
from parity_cases import Case
from parity_world import Outcome, compare, world

_THEIRS = ["lxc-copy"]
_OURS = [sys.executable, "-m", "lxccopy_ffi"]


@contextmanager
def sides(directory: Path) -> Iterator[Path]:
    """A directory for both sides, in which nothing is left at the end, nor on the machine because of it."""
    yield directory
    path = str(directory)
    assert [] == os.listdir(path)
    assert [] == monitors(path)
    assert [] == [mount for mount in mounts() if mount.startswith(path)]
    shutil.rmtree(f"/run/lxc/lock{path}", ignore_errors=True)


def check(case: Case, directory: Path, template: Path) -> None:
    """Fail unless both do the same, but for exactly the differences that the case lists.

    Args:
        case: What to run.
        directory: Where to make both sides, which are removed again.
        template: The directory of a container, of which both get a copy.
    """
    theirs = _outcome(case, directory / "theirs", template, _THEIRS, case.arguments)
    ours = _outcome(case, directory / "ours", template, _OURS, f"{case.more} {case.arguments}")
    assert case.status == ours.status, ours.stderr
    assert case.says in ours.stderr
    for difference in case.differences:
        assert difference.explain(theirs, ours), f"{difference.name} is not there any more"
    left = compare(theirs, ours)
    assert not left, "\n".join(left)


def _outcome(case: Case, directory: Path, template: Path, program: list[str], arguments: str) -> Outcome:
    with world(directory, template) as side:
        side.configure(case.config)
        case.prepare(side)
        result = side.run(program, arguments)
        case.ready(side)
        return side.look(result)
