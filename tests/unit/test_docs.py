# SPDX-License-Identifier: LGPL-2.1-or-later
"""docs/lxc-copy.md, held against the options that there are."""

from __future__ import annotations

import re

from conftest import ROOT

from lxccopy_ffi.options import OPTIONS

PAGE = (ROOT / "docs/lxc-copy.md").read_text(encoding="utf-8")
EVENTS = {"`created`", "`started`", "`exited`", "`removed`"}
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ")]
LAST = {row[-1] for row in ROWS if "event" not in row[0] and row[0] not in EVENTS}


def test_every_option_has_a_row() -> None:
    """Each option is in the first column of the page's table, with its letter, and nothing else is."""
    spans = {span.split()[0] for row in ROWS for span in re.findall(r"`(-[^`]+)`", row[0]) if len(row) == 4}
    names = {f"--{option.name}" for option in OPTIONS}
    letters = {f"-{option.letter}" for option in OPTIONS if option.letter}
    assert names | letters | {"-?"} == spans


def test_new_options_are_called_new() -> None:
    """What lxc-copy has not got is called new, and only that."""
    new = {span.split()[0] for row in ROWS if row[-1] == "new" for span in re.findall(r"`(--[^`]+)`", row[0])}
    assert {f"--{option.name}" for option in OPTIONS if option.new} == new


def test_rows_end_in_a_verdict() -> None:
    """Each row says whether it is the same, safer or new."""
    assert {"same", "safer", "new", "", "---"} >= LAST
