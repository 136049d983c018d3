# SPDX-License-Identifier: LGPL-2.1-or-later
"""The README's examples, run as they stand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, require

README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    """The first example in a language."""
    found = re.search(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


@pytest.mark.usefixtures("lxcpath")
def test_examples() -> None:
    """The shell's and Python's example work one after the other, with an empty /var/lib/lxc of their own."""
    require(shutil.which("unshare"), "the program unshare is not installed")
    script = (
        "mkdir -p /var/lib/lxc && mount -t tmpfs tmpfs /var/lib/lxc || exit 77\n"
        f"{block('sh')}\n"
        f"'{sys.executable}' - <<'END'\n{block('python')}\nEND\n"
        "echo left: $(ls /var/lib/lxc)\n"
    )
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    result = subprocess.run(
        ["unshare", "-m", "sh", "-c", script],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    shutil.rmtree("/run/lxc/lock/var/lib/lxc", ignore_errors=True)
    assert 0 == result.returncode
    lines = result.stdout.splitlines()
    assert "Created base in /var/lib/lxc" == lines[0]
    assert lines[1].startswith("base_")
    assert " overlay " in " ".join(lines[2:5])
    assert "7" in lines
    assert "left: base" == lines[-1]
