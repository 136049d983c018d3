# SPDX-License-Identifier: LGPL-2.1-or-later
"""Time one command in a throwaway copy in memory: lxccopy against lxc-copy, as whole processes.

Rounds are interleaved, so that both meet the same machine; what counts is the ratio of the medians.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from lxccopy_ffi import create_base, liblxc_version


def timed(command: list[str], lxcpath: str) -> float:
    """Run a command, wait until its copy is gone, and return how long that took, in milliseconds."""
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    while os.listdir(lxcpath) != ["base"]:  # lxc-copy returns before its copy is removed
        os.sched_yield()
    return (time.perf_counter() - begin) * 1000


def quartiles(times: list[float]) -> str:
    """The median and, in brackets, the quartiles."""
    low, middle, high = statistics.quantiles(times, n=4)
    return f"{middle:8.1f} [{low:.1f} - {high:.1f}]"


def monitor_cgroups() -> set[str]:
    """The cgroups of containers' monitors; each one that is left slows later starts."""
    walk = os.walk("/sys/fs/cgroup")
    return {f"{path}/{name}" for path, names, _ in walk for name in names if name.startswith("lxc.monitor.base_")}


def main() -> int:
    """Run the benchmark; the exit status tells whether the ratio that was asked for is reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--at-least", type=float, default=30, metavar="RATIO", help="fail below this ratio")
    parser.add_argument("--json", metavar="FILE", help="write every time to this file")
    arguments = parser.parse_args()
    if not shutil.which("lxc-copy"):
        sys.exit("lxc-copy is not installed")

    with tempfile.TemporaryDirectory() as lxcpath:
        create_base("base", lxcpath=lxcpath).close()
        ours = [str(Path(sys.executable).with_name("lxccopy")), "-q"]
        where = ["-P", lxcpath, "-n", "base", "-e", "-t", "--", "true"]
        rows = {"lxccopy": [*ours, *where], "lxc-copy": ["lxc-copy", *where]}
        times: dict[str, list[float]] = {name: [] for name in rows}
        before = monitor_cgroups()
        timed(rows["lxccopy"], lxcpath)  # fill the caches
        left = dict.fromkeys(rows, 0)
        for _ in range(arguments.rounds):
            for name, command in rows.items():
                times[name].append(timed(command, lxcpath))
                for cgroup in monitor_cgroups() - before:
                    with suppress(OSError):  # not left, but of a container that runs
                        os.rmdir(cgroup)
                        left[name] += 1
        shutil.rmtree(f"/run/lxc/lock{lxcpath}", ignore_errors=True)

    ratio = statistics.median(times["lxc-copy"]) / statistics.median(times["lxccopy"])
    print(f"liblxc {liblxc_version()}, busybox base, -e -t -- true, {arguments.rounds} interleaved rounds")
    for name, values in times.items():
        print(f"{name:<10} {quartiles(values)} ms")
    print(f"ratio      {ratio:8.1f}")
    print("cgroups left per run: " + ", ".join(f"{name} {count / arguments.rounds:g}" for name, count in left.items()))
    if arguments.json:
        Path(arguments.json).write_text(
            json.dumps({"times": times, "ratio": ratio, "cgroups_left": left}, indent=1), encoding="ascii"
        )
    return 0 if ratio >= arguments.at_least else 1


if __name__ == "__main__":
    sys.exit(main())
