# SPDX-License-Identifier: LGPL-2.1-or-later
"""Jobs on a Dask cluster of this machine, whose workers have pools of copies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from live_helpers import await_guards

from lxccopy_ffi import Pool, reap

JOBS = 200


def python(file: Path, *arguments: str) -> str:
    """What a Python program prints that has a cluster."""
    pytest.importorskip("distributed")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'examples'}", "PYTHONWARNINGS": "default"}
    result = subprocess.run(
        [sys.executable, str(file), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert 0 == result.returncode, result.stderr
    return result.stdout


def test_killed_worker(lxcpath: str) -> None:
    """One of two workers is killed midway: each job's result is there once, and nothing of any worker is left."""
    found, before, after = json.loads(python(ROOT / "tests/live/cluster_driver.py", lxcpath, str(JOBS)))
    assert list(range(JOBS)) == sorted(number for number, _ in found)
    assert all(text.startswith(f"{number}: base_") for number, text in found)
    assert JOBS == len({text for _, text in found})
    assert 1 == len(set(before) & set(after))
    await_guards(lxcpath)
    reap(lxcpath)


def test_example(lxcpath: str) -> None:
    """The example runs its jobs on a cluster of its own, and removes all copies."""
    printed = python(ROOT / "examples/cluster_dask.py", "--lxcpath", lxcpath, "--jobs", "20")
    assert "20 jobs done, each once\n" == printed
    assert ["base"] == os.listdir(lxcpath)
    await_guards(lxcpath)


def test_dask_without_a_cluster(lxcpath: str) -> None:
    """Dask's own functions are what a pool gets as an executor, and it calls them as they are."""
    dask = pytest.importorskip("dask")

    def status(number: int) -> int:
        return pool.run(["sh", "-c", f"exit {number}"]).returncode

    with Pool("base", 2, lxcpath=lxcpath) as pool:
        results = dask.compute(*(dask.delayed(status)(number) for number in range(6)), scheduler=pool)
    assert (0, 1, 2, 3, 4, 5) == results
