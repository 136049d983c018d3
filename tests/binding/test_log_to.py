# SPDX-License-Identifier: LGPL-2.1-or-later
"""liblxc's log in a file of the user's: what is in it, and that errors still say why."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from binding_helpers import isolated

from lxccopy_ffi import Container, EphemeralCopy, LiblxcError, log_to

REASON = 'Invalid argument - Unsupported config key "lxc.nonsense"'


def reason_of(container: Container, key: str = "lxc.nonsense") -> str:
    """Why an unknown key cannot be set."""
    try:
        container.set_config(key, "1")
    except LiblxcError as error:
        return error.reason
    return ""


def use_log(lxcpath: str, level: str, log: str, stderr: str) -> list[Any]:
    """Fail, and run a copy, with the log in a file: the reason, and the files of the log and of our standard error."""
    os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT), 2)
    log_to(log, level)
    with Container("base", lxcpath) as base:
        reasons = [reason_of(base)]
        reasons += [reason_of(base, "lxc.other")]
    with EphemeralCopy("base", lxcpath=lxcpath) as copy:
        copy.run(["true"], check=True)
        reasons += [reason_of(copy.container)]
        config = Path(copy.container.config_file).read_text(encoding="utf-8")
    return [reasons, Path(log).read_text(encoding="utf-8"), Path(stderr).read_text(encoding="utf-8"), config]


def levels(log: str) -> set[str]:
    """The levels of a log's lines."""
    return {line.split()[3] for line in log.splitlines()}


@pytest.mark.parametrize(
    ("level", "there", "not_there"),
    [
        ("ERROR", {"ERROR"}, {"WARN", "NOTICE", "INFO", "DEBUG", "TRACE"}),
        ("INFO", {"ERROR", "INFO"}, {"DEBUG", "TRACE"}),
        ("TRACE", {"ERROR", "INFO", "DEBUG", "TRACE"}, set()),
    ],
)
def test_log(lxcpath: str, tmp_path: Path, level: str, there: set[str], not_there: set[str]) -> None:
    """The file has what liblxc logs at the level and above, also of a start; errors have each its own reason."""
    file = tmp_path / "log"
    reasons, log, stderr, config = isolated(use_log, lxcpath, level, str(file), str(tmp_path / "stderr"))
    assert [REASON, REASON.replace("nonsense", "other"), REASON] == reasons
    assert (there, set()) == (there & levels(log), not_there & levels(log))
    assert {"lxccopy"} == {line.split()[0] for line in log.splitlines()}
    assert ("", False) == (stderr, "lxc.log" in config)
    assert log == file.read_text(encoding="utf-8")


def log_twice(lxcpath: str, one: str, two: str) -> list[Any]:
    """Log to one file and then to another, with a failure each, and the descriptors before and after."""
    before = sorted(os.listdir("/proc/self/fd"))
    found: list[Any] = []
    for file in (one, two, two):
        log_to(file)
        with Container("base", lxcpath) as base:
            found.append(reason_of(base))
    after = sorted(os.listdir("/proc/self/fd"))
    return [
        *found,
        len(after) - len(before),
        *(Path(file).read_text(encoding="utf-8").count(REASON) for file in (one, two)),
    ]


def test_another_log(lxcpath: str, tmp_path: Path) -> None:
    """A second file takes the place of the first one, whose descriptor is closed; what is in a file stays there."""
    one, two = tmp_path / "one", tmp_path / "two"
    two.write_text(f"old {REASON}\n", encoding="ascii")
    assert [REASON] * 3 + [1, 1, 3] == isolated(log_twice, lxcpath, str(one), str(two))
    assert two.read_text(encoding="utf-8").startswith(f"old {REASON}\n")


def log_to_bad_files(*files: str) -> list[Any]:
    """What is said of files that cannot be written, and whether any descriptor is left."""
    before = sorted(os.listdir("/proc/self/fd"))
    found = []
    for file in files:
        try:
            log_to(file)
        except OSError as error:
            found.append(error.strerror)
    return [found, before == sorted(os.listdir("/proc/self/fd"))]


def test_log_that_cannot_be_written(tmp_path: Path) -> None:
    """A file that cannot be written is an OSError, and no descriptor is left."""
    expected = [["Is a directory", "No such file or directory"], True]
    assert expected == isolated(log_to_bad_files, str(tmp_path), str(tmp_path / "x/y"))


def log_with_mask(lxcpath: str, file: str) -> int:
    """Make a log under a wide umask."""
    os.umask(0)
    log_to(file)
    Container("base", lxcpath).close()
    return stat.S_IMODE(os.stat(file).st_mode)


def test_mode_of_the_log(lxcpath: str, tmp_path: Path) -> None:
    """The file is not for everybody, whatever the umask: a log may tell what only root may see."""
    assert 0 == isolated(log_with_mask, lxcpath, str(tmp_path / "log")) & 0o007
