# SPDX-License-Identifier: LGPL-2.1-or-later
"""Watching an rsync: how far it is, what comes of it, and how it is ended."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import require

from lxccopy_ffi.progress import watch

SIZE = 1 << 20
FILES = 6


class InterruptedCopyError(Exception):
    """What a signal handler, or a report, may raise."""


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    """A tree to copy, with a link, a sparse directory and files that no compression makes smaller; and where to."""
    require(shutil.which("rsync"), "rsync is needed")
    source = tmp_path / "source"
    (source / "a/b").mkdir(parents=True)
    for number in range(FILES):
        (source / ("a/b" if number % 2 else ".") / str(number)).write_bytes(os.urandom(SIZE))
    (source / "link").symlink_to("a")
    return source, tmp_path / "target"


def copier(trees: tuple[Path, Path], rate: int) -> Callable[[], int]:
    """A function that copies them with rsync from a child of a child, at most so many KiB a second."""
    source, target = trees
    script = 'rsync -a "--bwlimit=$1" "$2/" "$3"; exit $?'

    def copy() -> int:
        words = ["sh", "-c", script, "sh", str(rate), str(source), str(target)]
        return subprocess.run(words, stderr=subprocess.DEVNULL, check=False).returncode

    return copy


def left(target: Path) -> list[str]:
    """The rsyncs that still copy there."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            state = (process / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
        except OSError:
            continue
        if words[0] == b"rsync" and os.fsencode(target) in words and state != "Z":
            found.append(process.name)
    return found


def test_copy_is_watched(trees: tuple[Path, Path]) -> None:
    """What the function returns is returned; meanwhile the bytes done grow, and they never pass the total."""
    reports: list[tuple[int, int]] = []
    assert 0 == watch(copier(trees, 4000), [str(trees[0])], lambda *report: reports.append(report))
    done = [report[0] for report in reports]
    assert {FILES * SIZE} == {report[1] for report in reports}
    assert done == sorted(done)
    assert done[-1] <= FILES * SIZE
    assert len({number for number in done if 0 < number < FILES * SIZE}) > 1
    assert FILES == sum(1 for path in trees[1].rglob("*") if path.is_file())


def test_several_directories(trees: tuple[Path, Path], tmp_path: Path) -> None:
    """The total is that of all the directories; links are not followed, and what is not there counts for nothing."""
    (tmp_path / "more").mkdir()
    (tmp_path / "more/file").write_bytes(b"x" * 1000)
    (tmp_path / "more/link").symlink_to(trees[0])
    totals: set[int] = set()
    directories = [str(trees[0]), str(tmp_path / "more"), str(tmp_path / "missing"), str(tmp_path / "more/link")]
    watch(copier(trees, 8000), directories[:3], lambda _, total: totals.add(total))
    assert {FILES * SIZE + 1000} == totals


def test_quick_function(tmp_path: Path) -> None:
    """A function that ends at once is not waited for, and nothing is reported."""
    reports: list[tuple[int, int]] = []
    result = object()
    assert result is watch(lambda: result, [str(tmp_path)], lambda *report: reports.append(report))
    assert [] == reports


@pytest.mark.parametrize("error", [InterruptedCopyError("x"), KeyboardInterrupt(), SystemExit(3)])
def test_function_that_fails(tmp_path: Path, error: BaseException) -> None:
    """What the function raises is raised here, as it is."""

    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        watch(fail, [str(tmp_path)], lambda *_: None)
    assert error is caught.value


def test_failed_copy(trees: tuple[Path, Path]) -> None:
    """An rsync that fails by itself is the function's business: what it makes of that is returned."""
    shutil.rmtree(trees[0])
    assert 23 == watch(copier(trees, 1000), [str(trees[0])], lambda *_: None)


def test_report_that_raises(trees: tuple[Path, Path]) -> None:
    """An error raised by the report ends rsync and the function before it goes on; nothing runs after that."""
    statuses: list[int] = []
    copy = copier(trees, 200)

    def report(done: int, _: int) -> None:
        if done:
            raise InterruptedCopyError

    with pytest.raises(InterruptedCopyError):
        watch(lambda: statuses.append(copy()), [str(trees[0])], report)
    assert 1 == len(statuses)
    assert 0 != statuses[0]
    assert [] == left(trees[1])


def test_signal_handler_that_raises(trees: tuple[Path, Path]) -> None:
    """A signal's handler runs during the copy; what it raises ends rsync, and what the function made is closed."""
    closed: list[int] = []
    copy = copier(trees, 200)

    class Result:
        """What a copy gives."""

        def __init__(self) -> None:
            self.status = copy()

        def close(self) -> None:
            closed.append(self.status)

    def handler(*_: object) -> None:
        raise InterruptedCopyError

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(InterruptedCopyError):
            watch(Result, [str(trees[0])], lambda done, _: os.kill(os.getpid(), signal.SIGUSR1) if done else None)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert 1 == len(closed)
    assert 0 != closed[0]
    assert [] == left(trees[1])


def test_only_its_own_rsync_is_ended(trees: tuple[Path, Path], tmp_path: Path) -> None:
    """An rsync of somebody else in this process goes on."""
    other = tmp_path / "other"
    words = ["rsync", "-a", "--bwlimit=4000", f"{trees[0]}/", str(other)]

    def report(done: int, _: int) -> None:
        if done:
            raise InterruptedCopyError

    with subprocess.Popen(words) as process:
        with pytest.raises(InterruptedCopyError):
            watch(copier(trees, 200), [str(trees[0])], report)
        assert process.poll() is None
        assert 0 == process.wait(30)
