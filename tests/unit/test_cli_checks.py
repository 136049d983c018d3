# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the command line checks before anything is made: its descriptors, its log, wrong values of any task."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import ROOT, require

from lxccopy_ffi import LiblxcMissingError, liblxc_version

Call = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def lxcpath(tmp_path: Path) -> Iterator[Path]:
    """A directory with one container, of which there is only a configuration that cannot be copied."""
    (tmp_path / "lxc/base").mkdir(parents=True)
    (tmp_path / "lxc/base/config").write_text("lxc.uts.name = base\n", encoding="ascii")
    yield tmp_path / "lxc"
    shutil.rmtree(f"/run/lxc/lock{tmp_path}", ignore_errors=True)


@pytest.fixture
def call(lxcpath: Path) -> Call:
    """Run the command line in a process of its own, with -P."""

    def run(*words: str, pass_fds: tuple[int, ...] = ()) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "lxccopy_ffi", "-P", str(lxcpath), *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            cwd=ROOT,
            pass_fds=pass_fds,
        )

    return run


@pytest.fixture
def _liblxc() -> None:
    """Skip without liblxc."""
    try:
        liblxc_version()
    except LiblxcMissingError as error:
        require(condition=False, reason=str(error))


def tree(path: Path) -> list[str]:
    """What is below a path."""
    return sorted(str(found.relative_to(path)) for found in path.rglob("*"))


def check_refused(done: subprocess.CompletedProcess[str], status: int, message: str) -> None:
    """It ended with this status, and one line on stderr that begins like that."""
    first = f"lxccopy: {message}"
    assert (status, "", first, 1) == (done.returncode, done.stdout, done.stderr[: len(first)], done.stderr.count("\n"))


TASKS = [(), ("-s",), ("-R",), ("-e",)]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-B", "o"], "there is no storage type 'o'"),
        (["-B", ""], "there is no storage type ''"),
        (["-B", "bogus", "-B", "dir"], "there is no storage type 'bogus'"),
        (["-B", "aufs"], "the storage type 'aufs' was dropped"),
        (["-L", "1.5G"], "the size '1.5G' is not a number"),
        (["-L", "abc", "-L", "1G"], "the size 'abc' is not a number"),
        (["-m", "/a"], "the mount '/a' needs 'bind=SRC'"),
        (["-m", "bind=/a", "-m", ""], "the mount '' needs 'bind=SRC'"),
        (["-m", "bind=/a:/b:r"], "the mount 'bind=/a:/b:r' has 'r' in place of"),
        (["-l", "LOUD"], "there is no log priority 'LOUD'; it is one of TRACE, DEBUG"),
        (["-l", ""], "there is no log priority ''"),
        (["-o", ""], "-o needs the path of a file"),
        (["--json-status-fd", "x"], "--json-status-fd needs a whole number, not 'x'"),
        (["--json-status-fd", ""], "--json-status-fd needs a whole number, not ''"),
        (["--json-status-fd", "99"], "--json-status-fd: descriptor 99 is not open"),
        (["--json-status-fd", "-1"], "--json-status-fd: descriptor -1 is not open"),
        (["--json-status-fd", "99999999999"], "--json-status-fd: descriptor 99999999999 is not open"),
    ],
)
def test_wrong_values(call: Call, lxcpath: Path, task: tuple[str, ...], words: list[str], message: str) -> None:
    """A wrong value is a usage error whatever the task, also where a later one would count, and nothing is made."""
    before = tree(lxcpath)
    check_refused(call(*task, "-n", "base", "-N", "x", *words), 1, message)
    assert before == tree(lxcpath)


@pytest.mark.parametrize(("task", "status"), [*zip(TASKS, (1, 1, 1, 125))])
def test_wrong_value_with_a_command(call: Call, task: tuple[str, ...], status: int) -> None:
    """The status of a wrong value is 125 where words would have run in a copy, and 1 where they are a hook's."""
    check_refused(call(*task, "-n", "base", "-N", "x", "-B", "o", "--", "true"), status, "there is no storage type 'o'")


# The log


@pytest.mark.usefixtures("_liblxc")
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    "words", [["-l", "DEBUG"], ["-o", "{}/log"], ["-o", "{}/a/b/log", "-l", "INFO"], ["-o", "none"]]
)
def test_no_log_of_an_undefined_container(
    call: Call, lxcpath: Path, tmp_path: Path, task: tuple[str, ...], words: list[str]
) -> None:
    """For a container that is not there neither a directory nor a file is made, and that is what is said."""
    before = tree(tmp_path)
    words = [word.format(tmp_path) for word in words]
    done = call(*task, "-n", "missing", "-N", "x", *words)
    check_refused(done, 1, f"container 'missing' is not defined in {lxcpath}")
    assert before == tree(tmp_path)


@pytest.mark.usefixtures("_liblxc")
def test_no_log_of_an_undefined_container_with_another_file(call: Call, tmp_path: Path) -> None:
    """Nor is a directory made for a container that is not there where its configuration comes from elsewhere."""
    (tmp_path / "rcfile").write_text("lxc.uts.name = x\n", encoding="ascii")
    before = tree(tmp_path)
    call("-n", "missing", "-N", "x", "-l", "DEBUG", "--rcfile", str(tmp_path / "rcfile"))
    assert before == [path for path in tree(tmp_path) if path != "lxc/missing.log"]


@pytest.mark.parametrize("name", ["..", "a/b", ".", "", "x\n"])
@pytest.mark.parametrize("words", [["-l", "DEBUG"], ["-o", "log"]])
def test_no_log_of_a_bad_name(call: Call, tmp_path: Path, name: str, words: list[str]) -> None:
    """A name that is not allowed is no part of a log file's path."""
    before = tree(tmp_path)
    done = call("-n", name, "-N", "x", *words)
    assert (1, True) == (done.returncode, done.stderr.startswith("lxccopy: the container name "))
    assert before == tree(tmp_path)


@pytest.mark.usefixtures("_liblxc")
@pytest.mark.parametrize(
    ("words", "made"),
    [
        ([], set()),
        (["-o", "none"], set()),
        (["-o", "none", "-l", "TRACE"], set()),
        (["-l", "debug"], {"lxc/base/base.log"}),
        (["-o", "{}/log"], {"log"}),
        (["-o", "{}/a/b/log", "-l", "ERROR"], {"a", "a/b", "a/b/log"}),
        (["-o", "{}/one", "-o", "{}/two"], {"two"}),
    ],
)
def test_log_of_a_container(call: Call, tmp_path: Path, words: list[str], made: set[str]) -> None:
    """The log of a container that is there goes where -o says, or with -l alone in its directory; or nowhere."""
    before = set(tree(tmp_path))
    done = call("-n", "base", "-N", "x", *(word.format(tmp_path) for word in words))
    assert 1 == done.returncode
    assert made == set(tree(tmp_path)) - before


@pytest.mark.usefixtures("_liblxc")
def test_log_is_appended_to(call: Call, tmp_path: Path) -> None:
    """What a log file has stays; liblxc's own lines come after it."""
    log = tmp_path / "log"
    log.write_text("first\n", encoding="ascii")
    call("-n", "base", "-N", "x", "-o", str(log), "-l", "TRACE")
    text = log.read_text(encoding="utf-8")
    assert "first\n" == text[:6]
    assert {"lxccopy"} == {line.split()[0] for line in text[6:].splitlines()}


@pytest.mark.usefixtures("_liblxc")
@pytest.mark.parametrize("file", ["{}", "/dev/null/x", "{}/lxc/base/config/x"])
def test_log_that_cannot_be_written(call: Call, tmp_path: Path, file: str) -> None:
    """A log file that cannot be written is an error with its path, before anything else is done."""
    path = file.format(tmp_path)
    done = call("-n", "base", "-N", "x", "-o", path)
    assert (1, 1) == (done.returncode, done.stderr.count("\n"))
    assert re.match(
        rf"lxccopy: {re.escape(path.rpartition('/x')[0] or path)}.*: (Is|Not) a directory$|lxccopy: .*File exists$",
        done.stderr,
    )


# The status descriptor


@pytest.mark.usefixtures("_liblxc")
def test_nothing_is_told_of_what_has_not_happened(call: Call) -> None:
    """A failure before anything is made leaves the status descriptor empty; what is written is our caller's to read."""
    ours, theirs = os.pipe()
    done = call("-n", "missing", "-e", "--json-status-fd", str(theirs), pass_fds=(theirs,))
    os.close(theirs)
    with open(ours, encoding="ascii") as pipe:
        assert (1, []) == (done.returncode, [json.loads(line) for line in pipe])


@pytest.mark.usefixtures("_liblxc")
def test_status_descriptor_that_cannot_be_written(call: Call, lxcpath: Path) -> None:
    """A descriptor that is only for reading is refused before anything is made, too."""
    before = tree(lxcpath)
    fd = os.open(os.devnull, os.O_RDONLY)
    done = call("-n", "base", "-N", "x", "--json-status-fd", str(fd), pass_fds=(fd,))
    os.close(fd)
    check_refused(done, 1, f"--json-status-fd: descriptor {fd} ")
    assert before == tree(lxcpath)


def test_signal_in_a_destructor() -> None:
    """A signal whose exception Python drops, for it was raised in a destructor, ends us all the same."""
    code = (
        "import os, signal, threading\n"
        "from lxccopy_ffi import cli\n"
        "class Late:\n"
        "    def __del__(self):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        os.getpid()\n"
        "cli._Signals().install()\n"
        "try:\n"
        "    late = Late()\n"
        "    del late\n"
        "    threading.Event().wait(20)\n"
        "except cli._Interrupted as error:\n"
        "    print(error.number)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert (f"{int(signal.SIGTERM)}\n", "") == (result.stdout, result.stderr)
