# SPDX-License-Identifier: LGPL-2.1-or-later
"""docs/, held against the options and the tests that there are."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

from lxccopy_ffi.options import OPTIONS

PAGE = (ROOT / "docs/lxc-copy.md").read_text(encoding="utf-8")
EVENTS = {"`created`", "`started`", "`exited`", "`removed`"}
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ")]
LAST = {row[-1] for row in ROWS if "event" not in row[0] and row[0] not in EVENTS}


def test_every_option_has_a_row() -> None:
    """Each option is in the first column of the page's table, with its letter, and nothing else is."""
    spans = {re.split(r"[ \[]", span)[0] for row in ROWS for span in re.findall(r"`(-[^`]+)`", row[0]) if len(row) == 4}
    names = {f"--{option.name}" for option in OPTIONS}
    letters = {f"-{option.letter}" for option in OPTIONS if option.letter}
    assert names | letters | {"-?"} == spans


def test_new_options_are_called_new() -> None:
    """What lxc-copy has not got is called new, and only that."""
    new = {
        re.split(r"[ \[]", span)[0] for row in ROWS if row[-1] == "new" for span in re.findall(r"`(--[^`]+)`", row[0])
    }
    assert {f"--{option.name}" for option in OPTIONS if option.new} == new


def test_rows_end_in_a_verdict() -> None:
    """Each row says whether it is the same, safer or new."""
    assert {"same", "safer", "new", "", "---"} >= LAST


SECURITY = (ROOT / "docs/security.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "named", sorted(set(re.findall(r"`((?:unit|binding|live)/[a-z0-9_]+\.py(?:::\w+)?)`", SECURITY)))
)
def test_tests_named_for_security(named: str) -> None:
    """Each test that the security notes name is there."""
    file, _, name = named.partition("::")
    tests = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8")).body
    assert not name or name in [node.name for node in tests if isinstance(node, ast.FunctionDef)]


@pytest.mark.parametrize("unit", sorted((ROOT / "docs/systemd").iterdir()), ids=lambda unit: str(unit.name))
def test_systemd_units(unit: Path, tmp_path: Path) -> None:
    """Systemd understands the units for boot time."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    program = tmp_path / "lxccopy"
    program.touch(0o755)
    for one in (ROOT / "docs/systemd").iterdir():
        text = one.read_text(encoding="utf-8").replace("ExecStart=lxccopy", f"ExecStart={program}")
        (tmp_path / one.name).write_text(text, encoding="utf-8")
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / unit.name], capture_output=True, text=True, check=False
    )
    assert (0, "") == (result.returncode, "\n".join(line for line in result.stderr.splitlines() if "lxccopy" in line))
