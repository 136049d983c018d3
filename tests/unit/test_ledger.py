# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a copy says of itself: written as the module json would, locked by whoever has it, read with suspicion."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxccopy_ffi import ledger
from lxccopy_ffi.listing import copies
from lxccopy_ffi.orphans import reap
from lxccopy_ffi.processes import start_time

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec=None)), st.lists
)

GOOD: dict[str, Any] = {
    "schema": 1,
    "pid": 4242,
    "start": 1,
    "boot": "some other boot",
    "pidns": 1,
    "host": os.uname().nodename,
    "uid": os.geteuid(),
    "created": 1700000000,
    "task": "ephemeral",
    "name": "copy",
    "base": ["/srv/lxc", "base"],
}

RENAME = {**GOOD, "task": "rename", "to": "new"}
JOURNAL = {**RENAME, "inode": 1, "files": ["config"], "inside": [], "upper": "", "lower": ["/x"], "bases": []}


@pytest.fixture(autouse=True)
def _no_descriptor_is_left() -> Iterator[None]:
    """All descriptors are closed, whatever happens."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set() == set(os.listdir("/proc/self/fd")) - before  # those of earlier tests may go meanwhile


def read(path: Path | str) -> ledger.Record:
    """Read the ledger in a directory."""
    fd = ledger.open_in(str(path))
    try:
        return ledger.read(fd)
    finally:
        os.close(fd)


def write(path: Path, *lines: object, end: str = "\n") -> Path:
    """Write a ledger's lines into a directory; a text is taken as it is."""
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (path / ledger.FILE).write_text("\n".join(texts) + end, encoding="utf-8")
    return path


def try_to_lock(path: Path) -> bool:
    """Whether another process can lock a ledger now."""
    pid = os.fork()
    if pid == 0:
        fd = os.open(path / ledger.FILE, os.O_RDONLY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


# Writing


@given(st.dictionaries(st.text(), VALUES))
def test_text_is_that_of_json(entries: dict[str, Any]) -> None:
    """Whatever is noted has the text that the module json gives it, on one line of ASCII."""
    text = ledger._dumps(entries)
    assert json.dumps(entries) == text
    assert text.isascii()
    assert "\n" not in text


@pytest.mark.parametrize("text", ["", '"', "\\", "\n\r\t\0\x1b\x7f", "\udcff\ud800", "\u2028ä\U0001f40d", "</script>"])
def test_odd_text_comes_back(tmp_path: Path, text: str) -> None:
    """A command of any characters, also of undecodable bytes, is read as it was noted."""
    noted = ledger.Ledger(str(tmp_path), task="ephemeral", name="copy", base=("/srv", text))
    noted.add_command(["sh", text])
    noted.close()
    record = read(tmp_path)
    assert (["sh", text], ("/srv", text)) == (record.command, record.base)


def test_says_who_we_are(tmp_path: Path) -> None:
    """The first line has this process, boot, namespace, machine and user; what is added later counts."""
    noted = ledger.Ledger(str(tmp_path), task="copy", name="copy", base=("", ""), keep=True, tmpfs=None)
    record = read(tmp_path)
    assert (os.getpid(), os.geteuid(), "copy", "copy", True) == (
        record.creator,
        record.owner,
        record.name,
        record.task,
        record.kept,
    )
    assert (True, True, False, False) == (
        record.is_of_this_machine,
        record.lives(os.getpid()),
        record.started,
        record.detached,
    )
    noted.add(detached=True, monitor=os.getpid(), monitor_start=start_time(os.getpid()) + 1)
    record = read(tmp_path)
    assert (True, True, False) == (record.detached, record.started, record.lives(record.monitor))
    noted.close()
    assert 0o600 == (tmp_path / ledger.FILE).stat().st_mode & 0o7777


@pytest.mark.parametrize("argv", [["x" * (1 << 21)], ["x"] * (1 << 18), [""] * (1 << 18), ["\U0001f40d" * 2000, "b"]])
def test_long_commands_are_cut(tmp_path: Path, argv: list[str]) -> None:
    """Commands of any length, noted any number of times, leave room for what matters."""
    noted = ledger.Ledger(str(tmp_path), task="ephemeral", name="copy", base=("", ""))
    for _ in range(200):
        noted.add_command(argv)
    noted.add(detached=True)
    noted.close()
    assert (tmp_path / ledger.FILE).stat().st_size < ledger._LARGEST
    record = read(tmp_path)
    assert record.detached
    assert argv[0][:1000] == record.command[0][:1000]
    assert sum(map(len, record.command)) <= ledger._LONGEST_COMMAND


def test_half_a_line_is_taken_back(tmp_path: Path) -> None:
    """Where there is no room for a line none of it stays, so that what is noted later can be read."""
    noted = ledger.Ledger(str(tmp_path), task="ephemeral", name="copy", base=("", ""))
    size = (tmp_path / ledger.FILE).stat().st_size
    pid = os.fork()
    if pid == 0:  # as its limits are for good
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, size + 20))
        try:
            noted.add(monitor=1, monitor_start=2, cgroups=[["", "/a"]])
        except OSError:
            os._exit(0 if os.fstat(noted.fd).st_size == size else 2)
        os._exit(1)
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    noted.add(detached=True)
    noted.close()
    assert read(tmp_path).detached


def test_never_written_through_a_link(tmp_path: Path) -> None:
    """A ledger is a new file: neither what is there nor what a link leads to is written to, or read."""
    (tmp_path / "victim").write_text("kept", encoding="ascii")
    (tmp_path / ledger.FILE).symlink_to("victim")
    with pytest.raises(FileExistsError):
        ledger.Ledger(str(tmp_path), task="copy", name="copy", base=("", ""))
    with pytest.raises(OSError, match="symbolic links"):
        ledger.open_in(str(tmp_path))
    assert "kept" == (tmp_path / "victim").read_text(encoding="ascii")


# Locking


def test_locked_until_closed(tmp_path: Path) -> None:
    """While its maker has it open nobody else can lock it, and one who asks does not take it either."""
    noted = ledger.Ledger(str(tmp_path), task="copy", name="copy", base=("", ""))
    fd = ledger.open_in(str(tmp_path))
    assert (False, True, False) == (
        try_to_lock(tmp_path),
        ledger.is_locked(fd),
        ledger.lock(fd, str(tmp_path / ledger.FILE)),
    )
    noted.close()
    assert (False, True) == (ledger.is_locked(fd), try_to_lock(tmp_path))
    assert ledger.lock(fd, str(tmp_path / ledger.FILE))
    assert not try_to_lock(tmp_path)
    os.close(fd)


def test_lock_outlives_its_maker(tmp_path: Path) -> None:
    """A process that was forked keeps the lock when its maker lets go, and gives it back by ending."""
    noted = ledger.Ledger(str(tmp_path), task="copy", name="copy", base=("", ""))
    end, ours = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ours)
        os.read(end, 1)
        os._exit(0)
    os.close(end)
    noted.close()
    assert not try_to_lock(tmp_path)
    os.close(ours)
    os.waitpid(pid, 0)
    assert try_to_lock(tmp_path)


def test_lock_is_of_the_file_that_is_there(tmp_path: Path) -> None:
    """Who locks a ledger that was removed, or replaced, meanwhile has not locked it."""
    write(tmp_path, GOOD)
    for replace in (False, True):
        fd = ledger.open_in(str(tmp_path))
        (tmp_path / ledger.FILE).unlink()
        if replace:
            write(tmp_path, GOOD)
        assert not ledger.lock(fd, str(tmp_path / ledger.FILE))
        os.close(fd)
        if not replace:
            write(tmp_path, GOOD)


# Reading

SPOILT = {
    "nothing": [""],
    "no json": ["garbage"],
    "half of json": ['{"schema": 1'],
    "an empty object": ["{}"],
    "a number": ["5"],
    "null": ["null"],
    "a text": ['"ab"'],
    "a list": ["[]"],
    "a list of pairs": [json.dumps(GOOD), '[["name", "other"]]'],
    "a later line": [GOOD, "}"],
    "deep": ["[" * 100_000],
    "a deep object": ['{"a":' * 100_000],
    "no ascii": ['{"name": "ä"}'],
    "a later version": [{**GOOD, "schema": 2}],
    "a version of another kind": [{**GOOD, "schema": "1"}],
    "a huge number": [json.dumps(GOOD).replace("4242", "9" * 10_000)],
    "a big number": [json.dumps(GOOD).replace("4242", "9" * 400)],
    "NaN": [json.dumps(GOOD).replace("1700000000", "NaN")],
    "infinity": [json.dumps(GOOD).replace("1700000000", "-Infinity")],
    **{f"without {key}": [{other: GOOD[other] for other in GOOD if other != key}] for key in GOOD},
    **{f"{key} a list": [{**GOOD, key: [[]]}] for key in GOOD},
    **{f"{key} null": [{**GOOD, key: None}] for key in GOOD},
    **{f"{key} an object": [{**GOOD, key: {"a": 1}}] for key in GOOD},
    "a base of numbers": [{**GOOD, "base": [1, 2]}],
    "a base of one": [{**GOOD, "base": ["/srv"]}],
    "a negative process": [{**GOOD, "pid": -1}],
    "a true process": [{**GOOD, "pid": True}],
    "a command of a list": [{**GOOD, "command": [[]]}],
    "a command that is a text": [{**GOOD, "command": "rm"}],
    "a monitor that is a text": [{**GOOD, "monitor": "1"}],
    "cgroups of one": [{**GOOD, "cgroups": [["/x"]]}],
    "cgroups of numbers": [{**GOOD, "cgroups": [[1, 2]]}],
    "a rename to nothing": [{**GOOD, "task": "rename"}],
    "a rename to a list": [{**RENAME, "to": ["new"]}],
    **{f"a journal without {key}": [{**JOURNAL, key: None}] for key in JOURNAL.keys() - RENAME.keys()},
    "a journal of others' files": [{**JOURNAL, "files": ["sub/../../x"]}],
    "a journal of absolute files": [{**JOURNAL, "files": ["/etc/passwd"]}],
}


@pytest.mark.parametrize("lines", SPOILT.values(), ids=SPOILT)
def test_spoilt(tmp_path: Path, lines: list[object]) -> None:
    """What is no ledger of ours is a ValueError; reap() leaves it as it is and says why, and the list goes on."""
    directory = tmp_path / "copy"
    directory.mkdir()
    write(directory, *lines)
    with pytest.raises(ValueError, match=r"."):
        read(directory)
    before = (directory / ledger.FILE).read_bytes()
    (found,) = reap(tmp_path, everything=True)
    assert ("copy", "left") == (found.name, found.action)
    assert found.reason.startswith("its ledger cannot be read: ")
    assert (before, []) == ((directory / ledger.FILE).read_bytes(), copies(tmp_path))


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "../esc", "/", "-x", "a\nb", "\x1b[2J", "x" * 65])
def test_hostile_names(tmp_path: Path, name: str) -> None:
    """A ledger with a name that no container may have is left alone, with what is beside it."""
    (tmp_path / "other").mkdir()
    for place in ("copy", ".lxccopy-abcdef"):
        (tmp_path / place).mkdir()
    for entries in ({**GOOD, "name": name}, {**RENAME, "to": name}, {**RENAME, "name": name}):
        for place in ("copy", ".lxccopy-abcdef"):
            write(tmp_path / place, entries)
        found = [(orphan.name, orphan.action) for orphan in reap(tmp_path, everything=True)]
        assert [(".lxccopy-abcdef", "left"), ("copy", "left")] == found
        assert [".lxccopy-abcdef", "copy", "other"] == sorted(os.listdir(tmp_path))


def test_cut_in_the_last_line(tmp_path: Path) -> None:
    """A last line in which its writer died does not count, at whatever character; those before it do."""
    second = json.dumps({"detached": True})
    for length in range(len(second)):
        write(tmp_path, GOOD, second[:length], end="")
        assert not read(tmp_path).detached
    write(tmp_path, GOOD, second)
    assert read(tmp_path).detached


def test_cut_in_the_first_line(tmp_path: Path) -> None:
    """Half of the first line is as good as none."""
    write(tmp_path, json.dumps(GOOD), end="")
    with pytest.raises(ValueError, match="empty"):
        read(tmp_path)


def test_huge(tmp_path: Path) -> None:
    """Of a huge file, which may even be sparse, no more is read than a ledger ever has."""
    with open(tmp_path / ledger.FILE, "wb") as file:
        file.truncate(1 << 40)
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"."):
        read(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < usage + 100_000
    write(tmp_path, GOOD, *[json.dumps({"command": ["x" * 900]})] * 2000)
    assert ["x" * 900] == read(tmp_path).command


@pytest.mark.parametrize("kind", ["directory", "fifo", "link", "dangling"])
def test_no_file(tmp_path: Path, kind: str) -> None:
    """A directory, a pipe or a link in the place of a ledger is not waited for, and left."""
    path = tmp_path / "copy" / ledger.FILE
    path.parent.mkdir()
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        write(tmp_path, GOOD)
        path.symlink_to(tmp_path / ledger.FILE if kind == "link" else "nowhere")
    found = [orphan for orphan in reap(tmp_path) if orphan.name == "copy"]
    assert [("copy", "left")] == [(orphan.name, orphan.action) for orphan in found]
    assert [] == copies(tmp_path)
    assert path.parent.exists()


def test_not_cpython(tmp_path: Path) -> None:
    """Without CPython's own module the text is the same."""
    code = (
        "import sys; sys.modules['_json'] = None\n"
        "from lxccopy_ffi import ledger\n"
        "ledger.Ledger(sys.argv[1], task='copy', name='copy', base=('/\\u00e4\\\"', 'b')).close()"
    )
    pid = os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", code, str(tmp_path)])
    assert (0, ('/ä"', "b")) == (pid, read(tmp_path).base)
