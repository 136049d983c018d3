# SPDX-License-Identifier: LGPL-2.1-or-later
"""--list, --reap and --check: which options go together, and what is printed."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from lxccopy_ffi import OptionError, orphans, upkeep
from lxccopy_ffi.cli import main
from lxccopy_ffi.ledger import FILE, Record
from lxccopy_ffi.listing import Copy
from lxccopy_ffi.options import Parsed, parse
from lxccopy_ffi.orphans import Orphan

HOSTILE = "\x1b]0;x\x07\x1b[2J\r\n\t\x9b31m\x00\u202e\u2028\udc9b"

ENTRIES: dict[str, Any] = {
    "schema": 1,
    "pid": 1 << 22,
    "start": 1,
    "boot": "another boot",
    "pidns": 1,
    "host": os.uname().nodename,
    "uid": 0,
    "created": 1700000000,
    "task": "ephemeral",
    "name": "copy",
    "base": ["/srv/lxc", "base"],
}


def parsed(*arguments: str) -> Parsed:
    """A command line."""
    result = Parsed()
    parse(arguments, result)
    return result


def copy(lxcpath: Path, name: str = "copy", **more: object) -> Copy:
    """A copy that does not run, from its ledger."""
    return Copy(Record({**ENTRIES, "name": name, **more}), str(lxcpath), locked=False)


def table(found: list[Copy], monkeypatch: pytest.MonkeyPatch, *options: str) -> list[str]:
    """The lines of --list for some copies."""
    monkeypatch.setattr("lxccopy_ffi.listing.copies", lambda _: found)
    shown: list[str] = []
    assert upkeep.perform("list", parsed("--list", *options), shown.append, pytest.fail)
    return "".join(shown).splitlines()


# Options


@pytest.mark.parametrize(
    ("arguments", "task"),
    [
        (["--list"], "list"),
        (["--list", "--json", "-q", "-P", "/x"], "list"),
        (["--dry-run", "--reap"], "reap"),
        (["--reap", "--all", "--json", "--dry-run", "-P", "/x"], "reap"),
        (["--json", "--json", "--reap", "--dry-run", "--dry-run"], "reap"),
        (["--check", "--json"], "check"),
        (["--create-base", "x"], "create-base"),
    ],
)
def test_task(arguments: list[str], task: str) -> None:
    """Each of them is found, wherever its options stand."""
    assert task == upkeep.task_of(parsed(*arguments))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--list", "--reap"], "--reap takes no words"),
        (["--reap", "--list"], "--list takes no words"),
        (["--reap", "--reap"], "--reap takes no words"),
        (["--list", "--dry-run"], "no other options than -P, -q and --json"),
        (["--list", "--all", "--reap"], "--reap takes no words"),
        (["--check", "--dry-run"], "no other options than"),
        (["--reap", "base"], "--reap takes no words"),
        (["--reap", "--", "true"], "--reap takes no words"),
        (["--reap", "-n", "base"], "--json, --dry-run and --all"),
        (["--list", "-e"], "no other options than"),
        (["--reap", "-t"], "no other options than"),
        (["--create-base", "x", "--json"], "takes one name"),
        (["--create-base", "../x"], "not allowed"),
        (["--dry-run"], "--dry-run belongs to --reap"),
        (["--json"], "--json belongs to --check and --list and --reap"),
        (["--json", "-n", "base", "-e"], "--json belongs to"),
        (["--dry-run", "-n", "base", "-e", "--", "true"], "--dry-run belongs to --reap"),
    ],
)
def test_contradictions(arguments: list[str], words: str, tmp_path: Path) -> None:
    """What does not go together is refused with what does, and nothing is done."""
    (tmp_path / ".lxccopy-abcdef").mkdir()
    with pytest.raises(OptionError, match=words):
        upkeep.task_of(parsed("-P", str(tmp_path), *arguments))
    assert 0 != main(["-P", str(tmp_path), *arguments])
    assert [".lxccopy-abcdef"] == os.listdir(tmp_path)


@pytest.mark.parametrize("option", ["dry_run", "everything"])
def test_flags_are_flags(tmp_path: Path, option: str) -> None:
    """A text is no flag: "no" would count as true."""
    with pytest.raises(OptionError, match=option):
        orphans.reap(tmp_path, **{option: "no"})  # type: ignore[arg-type]


@pytest.mark.parametrize("task", ["--list", "--reap"])
def test_no_directory(tmp_path: Path, task: str, capfd: pytest.CaptureFixture[str]) -> None:
    """An lxcpath that is not there, or is no directory, is an error that names it."""
    (tmp_path / "file").touch()
    for name, reason in (("missing", "No such file"), ("file", "Not a directory")):
        assert 1 == main(["-P", str(tmp_path / name), task])
        assert capfd.readouterr().err.startswith(f"lxccopy: cannot look for copies in {tmp_path / name}: {reason}")


# The table


def test_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The columns stand below their headings, whatever is in them; -q leaves the headings out."""
    monkeypatch.setattr(time, "time", lambda: 1700000000 + 600)
    short, long = copy(tmp_path, "a"), copy(tmp_path, "x" * 64, command=["sh", "-c", "echo 'a b'"])
    long.tmpfs_size, long.tmpfs_used, long.memory = 64 << 20, 5 << 20, 3 << 30
    lines = table([short, long], monkeypatch)
    assert ["NAME", "BASE", "STATE", "AGE", "CREATOR", "TMPFS", "MEMORY", "COMMAND"] == lines[0].split()
    for heading, first, second in (
        ("NAME", "a ", "x" * 64),
        ("BASE", "base ", "base "),
        ("STATE", "STOPPED (orphan) ", "STOPPED (orphan) "),
        ("AGE", "10m ", "10m "),
        ("CREATOR", "4194304 (gone) ", "4194304 (gone) "),
        ("TMPFS", "- ", "5.0M/64.0M "),
        ("MEMORY", "- ", "3.0G "),
        ("COMMAND", "-", "sh -c 'echo '"),
    ):
        column = lines[0].index(heading)
        assert (first, second) == (lines[1][column:][: len(first)], lines[2][column:][: len(second)])
    assert all(line == line.rstrip() for line in lines)
    assert 2 == len(table([short, long], monkeypatch, "-q"))


def test_empty_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any copy there are the headings, or nothing with -q, or an empty list as JSON."""
    assert ["NAME", "BASE", "STATE", "AGE", "CREATOR", "TMPFS", "MEMORY", "COMMAND"] == table([], monkeypatch)[
        0
    ].split()
    assert [] == table([], monkeypatch, "-q")
    assert ["[]"] == table([], monkeypatch, "--json")


def test_table_cannot_move_the_cursor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No character of a command, a base or a name reaches the terminal that is not to be seen there."""
    found = copy(tmp_path, command=["sh", HOSTILE], base=["/srv", HOSTILE])
    found.name = HOSTILE
    lines = table([found], monkeypatch)
    assert 2 == len(lines)
    assert all(line.isprintable() for line in lines)
    assert HOSTILE == json.loads(table([found], monkeypatch, "--json")[0])[0]["command"][1]


def test_orphans_cannot_move_the_cursor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said of orphans, removed or not, is printable, and one line each."""
    actions = ["removed", "kept", "left", "failed"]
    found = [Orphan(HOSTILE, str(tmp_path), ("", ""), HOSTILE, action) for action in actions]
    monkeypatch.setattr(orphans, "reap", lambda *_, **__: found)
    shown: list[str] = []
    complaints: list[str] = []
    assert not upkeep.perform("reap", parsed("--reap"), shown.append, complaints.append)
    assert (2, 2) == (len(shown), len(complaints))
    assert all(line.rstrip("\n").isprintable() for line in shown + complaints)


def test_reap_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be removed makes the call fail; what is left on purpose does not; -q is about good news only."""
    for action, well in (("removed", True), ("kept", True), ("left", True), ("failed", False)):
        found = [Orphan("x", "/p", ("", ""), "why", action)]
        monkeypatch.setattr(orphans, "reap", lambda *_, found=found, **__: found)
        shown: list[str] = []
        complaints: list[str] = []
        assert well == upkeep.perform("reap", parsed("--reap", "-q"), shown.append, complaints.append)
        expected = ["cannot remove 'x' in /p: why"] if action in ("left", "failed") else []
        assert ([], expected) == (shown, complaints)
        assert well == upkeep.perform("reap", parsed("--reap", "--dry-run", "--json"), shown.append, pytest.fail)
        entry = {"name": "x", "lxcpath": "/p", "base": ["", ""], "reason": "why", "action": action}
        assert {"dry_run": True, "orphans": [entry]} == json.loads("".join(shown))


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, "-"),
        (0, "0.0K"),
        (1, "0.0K"),
        (1024, "1.0K"),
        (1023 * 1024, "1.0M"),
        (5 << 20, "5.0M"),
        (int(1.5 * (1 << 30)), "1.5G"),
        (1 << 40, "1.0T"),
        (1 << 60, "1048576.0T"),
    ],
)
def test_bytes(number: int | None, text: str) -> None:
    """Sizes have a unit with which they are short."""
    assert text == upkeep._bytes(number)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0s"),
        (0, "0s"),
        (0.9, "0s"),
        (119.9, "119s"),
        (120, "2m"),
        (7199, "119m"),
        (7200, "2h"),
        (172799, "47h"),
        (172800, "2d"),
        (1e9, "11574d"),
        (-1e19, "0s"),
    ],
)
def test_age(seconds: float, text: str) -> None:
    """Ages have a unit with which they are exact enough; a clock that was set back makes none negative."""
    assert text == upkeep._age(seconds)


def test_unreadable_ledgers_do_not_end_the_list(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """One copy with a ledger that is garbage does not hide the others."""
    for name, text in (("a", "5\n"), ("copy", json.dumps(ENTRIES) + "\n"), ("z", "[" * 99999 + "\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / FILE).write_text(text, encoding="ascii")
    assert 0 == main(["-P", str(tmp_path), "--list", "-q"])
    out, err = capfd.readouterr()
    assert (["copy"], "") == ([line.split()[0] for line in out.splitlines()], err)
