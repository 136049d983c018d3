# SPDX-License-Identifier: LGPL-2.1-or-later
"""Call the command line again and again, each time with a little more of something that there is too little of.

    scarce.py KIND LXCPATH LEVELS ARGUMENT...

KIND is ``blocks`` or ``inodes``, free in LXCPATH, or ``pids`` or ``fds``, for the process. LEVELS is a list in JSON. It
ends with the first call that succeeds. What was printed, what was left, and what of it after a reap, goes to standard
output as JSON. Each call has a process of its own, but Python is not started anew.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lxccopy_ffi.cli import main
from lxccopy_ffi.processes import command_lines

FILLER = "filler"
CGROUP = Path("/sys/fs/cgroup/pids", f"lxccopy-scarce-{os.getpid()}")


def fill(kind: str, lxcpath: str, level: int) -> None:
    """Leave so many blocks or inodes free in a directory with a file system of its own."""
    filler = Path(lxcpath, FILLER)
    filler.mkdir(exist_ok=True)
    for file in filler.iterdir():
        file.unlink()
    if kind == "inodes":
        for number in range(os.statvfs(lxcpath).f_ffree - level):
            (filler / f"{number}").touch()
        return
    file = filler / "0"
    file.touch()
    free = os.statvfs(lxcpath)
    with file.open("wb") as blocks:
        os.posix_fallocate(blocks.fileno(), 0, (free.f_bfree - level) * free.f_bsize)


def limit(kind: str, level: int) -> None:
    """Let this process have no more than so many processes or descriptors."""
    if kind == "pids":
        (CGROUP / "pids.max").write_text(f"{level}", encoding="ascii")
        (CGROUP / "cgroup.procs").write_text("0", encoding="ascii")
    elif kind == "fds":
        resource.setrlimit(resource.RLIMIT_NOFILE, (level, level))


def call(arguments: list[str], kind: str = "", level: int = 0) -> tuple[int, str, str]:
    """Call the command line in a child; return its status and what it printed."""
    files = [tempfile.TemporaryFile(), tempfile.TemporaryFile()]  # noqa: SIM115 - closed below
    pid = os.fork()
    if pid == 0:
        for number, file in enumerate(files, 1):
            os.dup2(file.fileno(), number)
        os.closerange(3, 100)
        status = 70
        try:
            limit(kind, level)
            status = main(arguments)
        except BaseException as error:  # noqa: BLE001 - it is what is looked for
            os.write(2, f"not handled: {error!r}\n".encode())
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    said = []
    for file in files:
        file.seek(0)
        said.append(file.read().decode())
        file.close()
    return os.waitstatus_to_exitcode(status), said[0], said[1]


def look(lxcpath: str) -> list[str]:
    """What is in the directory besides what was there before, when all guards and monitors have ended."""
    deadline = time.monotonic() + 20
    titles = (f"[lxccopy guard] {lxcpath} ", f"[lxc monitor] {lxcpath} ")
    while any(line.startswith(titles) for _, line in command_lines()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return sorted(name for name in os.listdir(lxcpath) if name not in ("base", FILLER))


def act(kind: str, lxcpath: str, levels: list[int], arguments: list[str]) -> list[dict[str, Any]]:
    """Make all calls."""
    results = []
    for level in levels:
        if kind in ("blocks", "inodes"):
            fill(kind, lxcpath, level)
        status, out, err = call(["-P", lxcpath, *arguments], kind, level)
        left = look(lxcpath)
        result = {
            "level": level,
            "status": status,
            "out": out,
            "err": err,
            "left": left,
            "reap": (0, "", ""),
            "after": [],
        }
        if status != 0:
            result["reap"] = call(["-P", lxcpath, "--reap"])
            result["after"] = look(lxcpath)
        results.append(result)
        if status == 0:
            break
    return results


if __name__ == "__main__":
    if sys.argv[1] == "pids":
        CGROUP.mkdir()
    try:
        json.dump(act(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), sys.argv[4:]), sys.stdout)
    finally:
        if sys.argv[1] == "pids":
            CGROUP.rmdir()
