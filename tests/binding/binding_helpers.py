# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests of the binding share: containers with given config items, and functions in processes of their own."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

_CODE = """
import importlib, json, sys
sys.path[:0] = sys.argv[1:4]
print(json.dumps(getattr(importlib.import_module(sys.argv[4]), sys.argv[5])(*sys.argv[6:])))
"""


def isolated(
    function: Callable[..., object], *arguments: str, prefix: Sequence[str] = (), timeout: float = 60, **env: str
) -> Any:
    """Return what the function returns, which must be JSON, in a fresh single-threaded Python; fail if it raises."""
    file = Path(inspect.getfile(function))
    paths = [str(path) for path in (ROOT, ROOT / "tests", file.parent)]
    done = subprocess.run(
        [*prefix, sys.executable, "-c", _CODE, *paths, file.stem, function.__name__, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        env={**os.environ, **env},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


# An init that halts and reboots at once, where busybox's takes two seconds.
INIT = """#!/bin/sh
trap 'poweroff -f' USR1
trap 'reboot -f' TERM
sleep 1000 &
while :; do wait; done
"""


@contextmanager
def quick_copy(lxcpath: str) -> Iterator[Any]:
    """Run an EphemeralCopy of the base with an init that is quick to halt and to reboot; remove it at the end."""
    from lxccopy_ffi import EphemeralCopy

    copy = EphemeralCopy("base", lxcpath=lxcpath)
    try:
        container = copy.create()
        script = Path(container.directory, "overlay/delta/quick-init")
        script.write_text(INIT, encoding="ascii")
        script.chmod(0o755)
        for key, value in (("init.cmd", "/quick-init"), ("signal.halt", "SIGUSR1"), ("signal.reboot", "SIGTERM")):
            container.replace_config(f"lxc.{key}", value)
        container.save_config()
        copy.start()
        await_init(container.init_pid)
        yield copy
    finally:
        copy.close()


def await_init(pid: int) -> None:
    """Wait until that init has its signal handlers, without which the kernel drops the signals."""
    wanted = 1 << signal.SIGUSR1 - 1 | 1 << signal.SIGTERM - 1
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        if int(status.partition("SigCgt:")[2].split()[0], 16) & wanted == wanted:
            return
    pytest.fail("init has set no handlers")


@contextmanager
def made(lxcpath: str, items: Mapping[str, str]) -> Iterator[Any]:
    """Make a snapshot of the base, a Container, with further config items; it is removed at the end in any case."""
    from lxccopy_ffi.clone import clone
    from lxccopy_ffi.names import random_name
    from lxccopy_ffi.removal import discard

    with clone("base", random_name("base"), lxcpath=lxcpath, snapshot=True) as copy:
        try:
            for key, value in items.items():
                copy.set_config(key, value)
            copy.save_config()
            yield copy
        finally:
            discard(copy.name, lxcpath)


def processes(lxcpath: str) -> list[str]:
    """The command lines of the processes that liblxc, or a hook, runs for containers below a path."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words, environment = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:
            continue
        if lxcpath.encode() in words + environment and int(process.name) != os.getpid():
            found.append(words.replace(b"\0", b" ").decode(errors="replace"))
    return found
