# SPDX-License-Identifier: LGPL-2.1-or-later
"""The fault matrix: killed with SIGKILL at each of its own steps, in each way, one reap makes all as it was before."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import ROOT, Cli, Left
from live_helpers import await_guards, changes, mapped, plain, removed, running, tree, with_subordinate_ids

from lxccopy_ffi import Container, clone, rdepends, reap, rename
from lxccopy_ffi.faults import STEPS
from lxccopy_ffi.removal import discard

RUN = "import sys; from lxccopy_ffi import run; run('source', ['true'], lxcpath=sys.argv[1], tmpfs=True)"

# What is done, as options of the command line; the base is made anew for each.
WAYS: dict[str, list[str]] = {
    "-e": ["-n", "source", "-N", "copy", "-e", "--", "true"],
    "-e -m": ["-n", "source", "-N", "copy", "-e", "-m", "overlay=/usr/share:/mnt", "--", "true"],
    "-e -t": ["-n", "source", "-N", "copy", "-e", "-t", "--", "true"],
    "-e -t hook": ["-n", "source", "-N", "copy", "-e", "-t", "--tmpfs-via=hook", "--", "true"],
    "-e -D": ["-n", "source", "-N", "copy", "-e", "-D", "--", "true"],
    "-e -d": ["-n", "source", "-N", "copy", "-e", "-t"],
    "-s": ["-n", "source", "-N", "copy", "-s"],
    "copy": ["-n", "source", "-N", "copy"],
    "-R": ["-n", "source", "-N", "copy", "-R"],
    "create-base": ["--create-base", "copy"],
    "run": [],
    "-e mapped": ["-n", "source", "-N", "copy", "-e", "--", "true"],
    "-e -t mapped": ["-n", "source", "-N", "copy", "-e", "-t", "--", "true"],
    "-e -d mapped": ["-n", "source", "-N", "copy", "-e", "-t"],
    "too small": ["-n", "source", "-N", "copy", "-e", "-t", "--tmpfs-size=4096", "--", "true"],
}

HELPER = [step for step in STEPS if step.startswith("helper-") and step != "helper-forked"]
CLAIM = ["directory-made", "ledger-written", "name-claimed"]
COPY = [*CLAIM, "copied", "followed"]
START = ["marked", "personalised", "mounts-added", "saved", "helper-forked", "reported", "started", *HELPER]
COMMAND = ["command-entered", "command-ended"]
DISCARD = ["stopped", "bases-told", "lock-removed", "entombed", "emptied", "gone"]

# Which steps each of them takes.
MATRIX: dict[str, list[str]] = {
    "-e": [*COPY, *START, *COMMAND, "stopped", "gone"],
    "-e -m": [*COPY, *START, *COMMAND, "stopped", "gone"],
    "-e -t": [*COPY, *START, *COMMAND, "stopped", "gone"],
    "-e -t hook": [*COPY, *START, *COMMAND, "stopped", "gone"],
    "-e -D": [*COPY, *START, *COMMAND, "stopped", "released"],
    "-e -d": [*COPY, *START],
    "-s": [*COPY, "saved", "personalised", "released"],
    "copy": [*COPY, "saved", "personalised", "released"],
    "-R": ["journal-written", "moved", "exchanged", "renamed-for-bases", "renamed-inside", "released"],
    "create-base": [*CLAIM, "released"],
    "run": [*COPY, *START, *COMMAND, "stopped", "gone"],
    "-e mapped": [*COPY, *START, *COMMAND, *DISCARD],
    "-e -t mapped": [*COPY, *START, *COMMAND, *DISCARD],
    "-e -d mapped": [*COPY, *START],
    "too small": DISCARD,
}


# The cells in which the process dies when its work is done, but for saying so.
DONE = {(way, "released") for way in WAYS}

# Those in which a copy has run whose data are to be kept (-D): nobody may take them away.
KEPT = {("-e -D", step) for step in ("started", *COMMAND, "stopped", "helper-reported")} | {("-e -D", "released")}

CELLS = [(way, step) for way, steps in MATRIX.items() for step in steps]


def test_every_step_is_in_the_matrix() -> None:
    """The steps in the code are those of the table, each is in the matrix, and there are at least 60 cells."""
    found = set()
    for path in (*(ROOT / "lxccopy_ffi").glob("*.py"), ROOT / "csrc" / "spawner.c"):
        found |= set(re.findall(r'\breach\((?:&?plan, )?"([a-z-]+)"\)', path.read_text(encoding="utf-8")))
    assert set(STEPS) == found
    assert set(STEPS) == {step for _, step in CELLS}
    assert WAYS.keys() == MATRIX.keys()
    assert 60 <= len(CELLS)


@contextmanager
def prepared_source(lxcpath: str, way: str) -> Iterator[Path]:
    """What is copied: a container of its own, for -R a snapshot, whose base remembers it."""
    if way != "-R":
        with (mapped if way.endswith("mapped") else plain)(lxcpath, "source") as directory:
            yield directory
        return
    with removed(lxcpath, "source"):
        clone("base", "source", lxcpath=lxcpath, snapshot=True).close()
        yield Path(lxcpath, "source")


def command_of(way: str, lxcpath: str) -> list[str]:
    """The command line of a way."""
    if way == "run":
        return [sys.executable, "-c", RUN, lxcpath]
    command = [sys.executable, "-m", "lxccopy_ffi", "-q", "-P", lxcpath, *WAYS[way]]
    return with_subordinate_ids(*command) if way.endswith("mapped") else command


def call(way: str, lxcpath: str, step: str) -> subprocess.CompletedProcess[str]:
    """Do it, killed at a step."""
    environment = {**os.environ, "LXCCOPY_KILL_AT": step, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command_of(way, lxcpath), capture_output=True, text=True, check=False, timeout=60, env=environment
    )


def seen(lxcpath: str, source: Path) -> tuple[list[str], list[tuple[str, str]], dict[str, tuple[object, ...]]]:
    """All that may change for others: the containers, the source, and what the base remembers."""
    return sorted(os.listdir(lxcpath)), rdepends.snapshots(f"{lxcpath}/base"), tree(source)


@pytest.mark.parametrize(("way", "step"), CELLS)
def test_killed(lxccopy: Cli, lxcpath: str, way: str, step: str) -> None:
    """Killed at this step, and then one reap: everything is as it was before."""
    with prepared_source(lxcpath, way) as source, removed(lxcpath, "copy"):
        before, left = seen(lxcpath, source), Left(lxcpath)
        result = call(way, lxcpath, step)
        if step in HELPER:
            assert result.returncode in (0, 1, 125), result
        else:
            assert -signal.SIGKILL == result.returncode, result
        stays = way.startswith("-e -d") and step == "helper-reported"  # there was nothing left to do for the helper
        if not stays:
            await_guards(lxcpath)
        if (way, step) in KEPT | DONE:
            check_complete(lxcpath, way, step)
            if way == "-R":
                rename("copy", "source", lxcpath=lxcpath).close()
                assert before[0] == sorted(os.listdir(lxcpath))
                return
            discard("copy", lxcpath)
        elif stays:
            assert running(lxcpath, "copy")
            discard("copy", lxcpath)
            await_guards(lxcpath)
        else:
            reaped = lxccopy("--reap")
            assert (0, "") == (reaped.returncode, reaped.stderr)
        left.check()
        after = seen(lxcpath, source)
        assert (before[:2], set()) == (after[:2], changes(before[2], after[2]))
        again = lxccopy("--reap")
        assert (0, "", "") == (again.returncode, again.stdout, again.stderr)


def check_complete(lxcpath: str, way: str, step: str) -> None:
    """The copy is there, stopped, complete and an ordinary container after one reap."""
    found = [(orphan.name, orphan.action) for orphan in reap(lxcpath)]
    if step in ("released", "helper-reported"):  # there may be an empty journal
        assert all(name.startswith(".lxccopy-") for name, _ in found)
    else:
        assert [("copy", "kept")] == found
    assert not os.path.lexists(f"{lxcpath}/copy/.lxccopy")
    assert [] == [name for name in os.listdir(lxcpath) if name.startswith(".")]
    with Container("copy", lxcpath) as copy:
        assert (True, "STOPPED", "copy") == (copy.defined, copy.state, copy.config("lxc.uts.name"))
    assert way == "-R" or os.path.isdir(f"{lxcpath}/source")
