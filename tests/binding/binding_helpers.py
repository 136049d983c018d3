# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests of the binding share: containers with given config items, and functions in processes of their own."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
