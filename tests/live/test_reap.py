# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reaping: what a real accident has left is removed, and nothing else, whoever else is at work."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Cli, Left, cgroups, mounts, require
from live_helpers import await_guards, changes, configure, has, plain, removed, running, script, settings, tree

from lxccopy_ffi import (
    Container,
    EphemeralCopy,
    Orphan,
    clone,
    ledger,
    listing,
    locking,
    orphans,
    rdepends,
    reap,
    removal,
)
from lxccopy_ffi import rename as rename_container
from lxccopy_ffi.cgroups import hierarchies
from lxccopy_ffi.clone import Claim
from lxccopy_ffi.processes import command_lines, is_alive, start_time
from lxccopy_ffi.removal import discard

RUN = ["-n", "base", "-N", "copy", "-e", "--", "true"]


def call(lxcpath: str, step: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Call the command line, to be killed at a step."""
    return subprocess.run(
        [sys.executable, "-m", "lxccopy_ffi", "-q", "-P", lxcpath, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=ROOT,
        env={**os.environ, "LXCCOPY_KILL_AT": step},
    )


@contextmanager
def orphan(lxcpath: str, step: str = "saved", *options: str) -> Iterator[Path]:
    """A copy called "copy" whose maker was killed; its directory. It is removed at the end where it is still there."""
    with removed(lxcpath, "copy"):
        assert -signal.SIGKILL == call(lxcpath, step, *(options or RUN)).returncode
        await_guards(lxcpath)
        yield Path(lxcpath, "copy")


def found(lxcpath: str, **options: bool) -> list[tuple[str, str]]:
    """What one reap() does with what."""
    return [(one.name, one.action) for one in reap(lxcpath, **options)]


def rewrite(directory: Path, **entries: object) -> None:
    """Change what a ledger says."""
    line, *more = (directory / ledger.FILE).read_text(encoding="ascii").splitlines(keepends=True)
    changed = {**json.loads(line), **entries}
    (directory / ledger.FILE).write_text(json.dumps(changed) + "\n" + "".join(more), encoding="ascii")


def seen(lxcpath: str) -> dict[str, tuple[object, ...]]:
    """All that is in an lxcpath besides the base's root file system, and its lock files."""
    everything = {path: what for path, what in tree(lxcpath).items() if not path.startswith("base/rootfs/")}
    return {**everything, "locks": tuple(sorted(os.listdir(f"/run/lxc/lock{lxcpath}")))}


def snapshots(lxcpath: str) -> list[tuple[str, str]]:
    """What the base remembers."""
    return rdepends.snapshots(f"{lxcpath}/base")


# What is removed


@pytest.mark.parametrize("step", ["name-claimed", "copied", "marked", "saved"])
def test_orphan(lxcpath: str, step: str) -> None:
    """An orphan is removed with its cgroups, its lock file and its pair in the base's memory; then there is nothing."""
    left = Left(lxcpath)
    with orphan(lxcpath, step) as directory:
        assert [("copy", "removed")] == found(lxcpath)
        assert not directory.exists()
    left.check()
    assert ([], []) == (snapshots(lxcpath), found(lxcpath))


def test_what_is_told(lxcpath: str) -> None:
    """An orphan is told with its base, where it is, and whose death made it one."""
    with orphan(lxcpath) as directory:
        creator = json.loads((directory / ledger.FILE).read_text(encoding="ascii").splitlines()[0])["pid"]
        (one,) = reap(lxcpath)
    assert ("copy", lxcpath, (lxcpath, "base"), "removed") == (one.name, one.lxcpath, one.base, one.action)
    assert f"its maker died, process {creator}" == one.reason
    assert "<Orphan 'copy' in" in repr(one)


@pytest.mark.parametrize("step", ["saved", "directory-made", "ledger-written", "copied"])
def test_dry_run(lxcpath: str, lxccopy: Cli, step: str) -> None:
    """A dry run tells what would be removed, and changes no file, no lock and no time of change."""
    with orphan(lxcpath, step):
        name = next(one for one in os.listdir(lxcpath) if one != "base")
        status = os.stat(f"{lxcpath}/{name}")
        before = (seen(lxcpath), mounts())
        told = lxccopy("--reap", "--dry-run")
        assert (0, "") == (told.returncode, told.stderr)
        assert told.stdout.startswith("would be removed: ")
        assert before == (seen(lxcpath), mounts())
        assert status.st_mtime_ns == os.stat(f"{lxcpath}/{name}").st_mtime_ns
        assert 1 == len(found(lxcpath))


def test_killed_with_its_guard(lxcpath: str) -> None:
    """Where maker, guard and monitor are all killed, the copy is removed with the cgroups that nobody has removed."""
    before = cgroups()
    code = "import os, sys; from lxccopy_ffi import EphemeralCopy as E; c = E('base', 'copy', lxcpath=sys.argv[1])\n"
    code += "c.start(); print(c.container.monitor_pid, c.container.guard._plan.guard, flush=True); sys.stdin.read()"
    with removed(lxcpath, "copy"):
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen([sys.executable, "-c", code, lxcpath], cwd=ROOT, **pipes) as maker:
            assert maker.stdout is not None
            monitor, guard = map(int, maker.stdout.readline().split())
            began = start_time(monitor)
            os.kill(guard, signal.SIGKILL)
            maker.kill()
        assert running(lxcpath, "copy")
        assert [] == found(lxcpath, everything=True)  # it has no owner any more, but it runs
        assert running(lxcpath, "copy")
        os.kill(monitor, signal.SIGKILL)
        while is_alive(monitor, began) or running(lxcpath, "copy"):
            time.sleep(0.01)
        assert cgroups() - before or [] == list(hierarchies())
        assert [("copy", "removed")] == found(lxcpath)
        assert set() == {path for path in cgroups() - before if path.endswith(".copy")}


def test_only_its_pair(lxcpath: str) -> None:
    """The base forgets exactly the pair of the orphan, and can be renamed, and so destroyed, afterwards."""
    with plain(lxcpath, "source") as source, removed(lxcpath, "snap", "copy"):
        clone("source", "snap", lxcpath=lxcpath, snapshot=True).close()
        assert -signal.SIGKILL == call(lxcpath, "saved", "-n", "source", "-N", "copy", "-e", "--", "true").returncode
        with open(source / "lxc_snapshots", "a", encoding="ascii") as file:
            file.write(f"{lxcpath}\ncopy2\n{lxcpath}2\ncopy\n")
        assert [("copy", "removed")] == found(lxcpath)
        rest = [(lxcpath, "snap"), (lxcpath, "copy2"), (f"{lxcpath}2", "copy")]
        assert rest == rdepends.snapshots(str(source))
        for pair in rest[1:]:
            rdepends.forget((lxcpath, "source"), pair)
        discard("snap", lxcpath)
        assert not (source / "lxc_snapshots").exists()
        with Container("source", lxcpath) as container:
            container.destroy()
        assert not source.exists()


@pytest.mark.parametrize("base", [True, False])
def test_base_is_gone(lxcpath: str, base: bool) -> None:
    """An orphan is removed also where its base has no memory of it any more, or is gone itself."""
    with plain(lxcpath, "source") as source, removed(lxcpath, "copy"):
        call(lxcpath, "saved", "-n", "source", "-N", "copy", "-e", "--", "true")
        if base:
            (source / "lxc_snapshots").unlink()
        else:
            shutil.rmtree(source)
        assert [("copy", "removed")] == found(lxcpath)


def test_half_a_configuration(lxcpath: str) -> None:
    """A copy with a configuration that liblxc cannot read, or none, is removed like any other."""
    for text in ("lxc.rootfs.pa", "\0\xff" * 99, None):
        with orphan(lxcpath) as directory:
            (directory / "config").unlink()
            if text is not None:
                (directory / "config").write_text(text, encoding="latin-1")
            assert [("copy", "removed")] == found(lxcpath)
        assert ([], ["base"]) == (snapshots(lxcpath), os.listdir(lxcpath))


@pytest.mark.parametrize("task", ["-s", "copy", "create-base"])
def test_unfinished_copies_that_should_stay(lxcpath: str, task: str) -> None:
    """What should have become an ordinary container, and did not, is removed; once it has, it is nobody's business."""
    options = {"-s": ["-n", "base", "-N", "copy", "-s"], "copy": ["-n", "base", "-N", "copy"]}
    arguments = options.get(task, ["--create-base", "copy"])
    require(task != "copy" or has("rsync"), "a full copy needs rsync")
    with orphan(lxcpath, "name-claimed", *arguments):
        assert [("copy", "removed")] == found(lxcpath)
    with orphan(lxcpath, "released", *arguments) as directory:
        assert [] == found(lxcpath, everything=True)
        assert (directory / "config").exists()


def test_kept_data(lxcpath: str) -> None:
    """A copy whose data are to be kept stays with them once it has run; one that never ran does not."""
    keep = ["-n", "base", "-N", "copy", "-e", "-D", "--", "sh", "-c", "echo data > /root/kept"]
    with orphan(lxcpath, "saved", *keep):
        assert [("copy", "removed")] == found(lxcpath)
    with orphan(lxcpath, "command-ended", *keep) as directory:
        assert [("copy", "kept")] == found(lxcpath)
        assert ["data\n"] == [path.read_text(encoding="ascii") for path in directory.rglob("root/kept")]
        assert not (directory / ledger.FILE).exists()
        assert [] == found(lxcpath, everything=True)


# What is left


CANNOT_BE_JUDGED = {"host": "another-host", "pidns": 1}


@pytest.mark.parametrize("key", CANNOT_BE_JUDGED)
def test_of_another_machine(lxcpath: str, lxccopy: Cli, key: str) -> None:
    """What was made on another machine, or in a container that shares the lxcpath, is left, and it is said why."""
    with orphan(lxcpath) as directory:
        rewrite(directory, **{key: CANNOT_BE_JUDGED[key]})
        before = seen(lxcpath)
        told = lxccopy("--reap", "--all")
        assert (0, "") == (told.returncode, told.stdout)
        assert f"cannot remove 'copy' in {lxcpath}: it was made on another machine" in told.stderr
        assert before == seen(lxcpath)


@pytest.mark.parametrize("pidns", [1, None])
def test_of_another_boot(lxcpath: str, pidns: int | None) -> None:
    """After a reboot all processes of a ledger are gone, whatever has their numbers now, in whatever namespace."""
    with orphan(lxcpath) as directory:
        rewrite(directory, pid=1, start=start_time(1), boot="before", **({"pidns": pidns} if pidns else {}))
        assert [("copy", "removed")] == found(lxcpath)


def test_reused_process_id(lxcpath: str) -> None:
    """Another process that has the number of the dead maker is not taken for it; the maker itself is."""
    with orphan(lxcpath) as directory:
        rewrite(directory, pid=os.getpid(), start=start_time(os.getpid()))
        assert [] == found(lxcpath)
        rewrite(directory, pid=os.getpid(), start=start_time(os.getpid()) - 1)
        assert [("copy", "removed")] == found(lxcpath)


@pytest.mark.parametrize("what", ["ledger", "uid", "locked"])
def test_of_another_user(lxcpath: str, what: str) -> None:
    """A ledger that another user owns or has written, or that somebody has locked, is passed over in silence."""
    with orphan(lxcpath) as directory, ExitStack() as stack:
        if what == "ledger":
            os.chown(directory / ledger.FILE, 1234, 1234)
        elif what == "uid":
            rewrite(directory, uid=1234)
        else:
            fd = ledger.open_in(str(directory))
            stack.callback(os.close, fd)
            assert ledger.lock(fd, str(directory / ledger.FILE))
        before = seen(lxcpath)
        assert [] == found(lxcpath)
        assert before == seen(lxcpath)


@pytest.mark.parametrize("kind", ["owner", "fifo", "link", "hook"])
def test_configuration_of_another_user(lxcpath: str, tmp_path: Path, kind: str) -> None:
    """A copy whose configuration somebody else has put there is left: nothing of it is run or waited for."""
    hook = script(tmp_path / "hook", f"touch {tmp_path}/victim")
    with orphan(lxcpath) as directory:
        config = directory / "config"
        saved = config.read_bytes()
        if kind in ("owner", "hook"):
            configure(lxcpath, "copy", f"lxc.hook.destroy = {hook}", f"lxc.log.file = {tmp_path}/victim")
            os.chown(config, 1234, 1234)
        else:
            config.unlink()
            os.mkfifo(config) if kind == "fifo" else config.symlink_to(tmp_path / "elsewhere")
        (one,) = reap(lxcpath)
        assert ("copy", "left") == (one.name, one.action)
        assert one.reason.startswith("its configuration is another user's")
        assert not (tmp_path / "victim").exists()
        config.unlink()
        config.write_bytes(saved)


def test_empty_ledger(lxcpath: str) -> None:
    """An empty ledger is a dead one's in a hidden directory, where it was just made; with a name it says nothing."""
    with orphan(lxcpath) as directory:
        (directory / ledger.FILE).write_text("", encoding="ascii")
        (one,) = reap(lxcpath)
        assert ("copy", "left", "its ledger cannot be read: it is empty") == (one.name, one.action, one.reason)
        os.rename(directory, f"{lxcpath}/.lxccopy-copied")
        assert [(".lxccopy-copied", "removed")] == found(lxcpath)
        assert ["base"] == os.listdir(lxcpath)
        rdepends.forget((lxcpath, "base"), (lxcpath, "copy"))


def test_renamed_by_hand(lxcpath: str) -> None:
    """A copy that somebody has given another name by mv is not the ledger's any more, and left."""
    with orphan(lxcpath) as directory:
        other = directory.with_name("mine")
        os.rename(directory, other)
        (one,) = reap(lxcpath, everything=True)
        assert ("mine", "left") == (one.name, one.action)
        assert "'copy'" in one.reason
        os.rename(other, directory)
        assert [("copy", "removed")] == found(lxcpath)


def test_same_name(lxcpath: str) -> None:
    """A container of the name of a dead one's copy, made by somebody else since, is none of ours."""
    with orphan(lxcpath):
        discard("copy", lxcpath)
    with plain(lxcpath, "copy") as directory:
        before = tree(directory)
        assert [] == found(lxcpath, everything=True)
        assert set() == changes(before, tree(directory))


@pytest.mark.parametrize("options", [["-t"], []])
def test_running(lxcpath: str, options: list[str]) -> None:
    """A copy that runs stays, also when its maker has ended; once it is killed, one reap is enough."""
    arguments = ["-n", "base", "-N", "copy", "-e", "-d", *options]
    with removed(lxcpath, "copy"):
        assert 0 == call(lxcpath, "", *arguments).returncode
        for _ in range(3):
            assert [] == found(lxcpath, everything=True)
        assert running(lxcpath, "copy")
        monitor = next(pid for pid, line in command_lines() if line == f"[lxc monitor] {lxcpath} copy")
        guards = [pid for pid, line in command_lines() if line == f"[lxccopy guard] {lxcpath} copy"]
        for pid in (*guards, monitor):
            os.kill(pid, signal.SIGKILL)
        while running(lxcpath, "copy"):
            time.sleep(0.01)
        deadline = time.monotonic() + 5
        while os.path.lexists(f"{lxcpath}/copy"):
            found(lxcpath)
            assert time.monotonic() < deadline


def test_no_container(lxcpath: str) -> None:
    """Directories without a configuration, files, pipes, links and odd names are not ours, whatever is asked for."""
    names = ["dir", "dir with blanks", "-rf", "new\nline", ".hidden", ".lxccopy", "\udcff"]
    with ExitStack() as stack:
        for name in names:
            os.makedirs(f"{lxcpath}/{name}/rootfs")
            stack.callback(shutil.rmtree, f"{lxcpath}/{name}")
        for name in ("file", ".lxccopy-file"):
            Path(lxcpath, name).touch()
            stack.callback(os.unlink, f"{lxcpath}/{name}")
        os.mkfifo(f"{lxcpath}/.lxccopy-fifo")
        stack.callback(os.unlink, f"{lxcpath}/.lxccopy-fifo")
        before = sorted(os.listdir(lxcpath))
        assert [] == found(lxcpath, everything=True)
        assert before == sorted(os.listdir(lxcpath))


def test_links_lead_nowhere(lxcpath: str, tmp_path: Path) -> None:
    """Links in the place of a directory, of a hidden one, of a ledger or of what a base knows lead reap() nowhere."""
    elsewhere = tmp_path / "lxc"
    elsewhere.mkdir()
    with orphan(lxcpath) as directory, ExitStack() as stack:
        # An orphan, and what its maker had when it died, in another lxcpath that nobody asked for.
        shutil.copytree(directory, elsewhere / "copy", symlinks=True)
        (elsewhere / ".lxccopy-linked").mkdir()
        (elsewhere / ".lxccopy-linked" / "file").touch()
        shutil.copytree(directory, elsewhere / "foreign", symlinks=True)
        (elsewhere / "foreign" / ledger.FILE).unlink()
        assert [("copy", "removed")] == found(lxcpath)
        before = tree(elsewhere)
        for name in os.listdir(elsewhere):
            os.symlink(elsewhere / name, f"{lxcpath}/{name}")
            stack.callback(os.unlink, f"{lxcpath}/{name}")
        assert [] == found(lxcpath, everything=True)
        assert set() == changes(before, tree(elsewhere))


HOSTILE_BASES = {
    "dots": "{path}/x/..\nvictim\n",
    "name with dots": "{path}/x\n../victim\n",
    "name with a slash": "{path}\nx/../victim\n",
    "nothing": "\n\n",
    "null": "{path}\0\nvictim\n",
    "relative": "victim\nvictim\n",
    "odd": "{path}\n",
    "itself": "{lxcpath}\ncopy\n",
}


@pytest.mark.parametrize("text", HOSTILE_BASES.values(), ids=HOSTILE_BASES)
def test_hostile_bases(lxcpath: str, tmp_path: Path, text: str) -> None:
    """What a copy says of its bases makes no file, changes none, and opens none, where it leads out of any lxcpath."""
    with orphan(lxcpath) as directory:
        victim = tmp_path / "victim"
        (tmp_path / "x").mkdir()
        victim.mkdir()
        (victim / "lxc_snapshots").write_text(f"{lxcpath}\ncopy\n", encoding="ascii")
        (directory / "lxc_rdepends").write_text(text.format(path=tmp_path, lxcpath=lxcpath), encoding="ascii")
        before = (tree(tmp_path), sorted(os.listdir("/run/lxc/lock")))
        assert [("copy", "removed")] == found(lxcpath)
        assert before == (tree(tmp_path), sorted(os.listdir("/run/lxc/lock")))


@pytest.mark.parametrize("file", ["lxc_rdepends", "base"])
@pytest.mark.parametrize("kind", ["fifo", "link", "directory", "huge"])
def test_hostile_memory(lxcpath: str, tmp_path: Path, file: str, kind: str) -> None:
    """A pipe, a link, a directory or garbage in place of what a copy or a base remembers is not waited for."""
    with orphan(lxcpath) as directory, ExitStack() as stack:
        target = directory / "lxc_rdepends"
        if file == "base":
            (tmp_path / "b").mkdir()
            target.write_text(f"{tmp_path}\nb\n", encoding="ascii")
            target = tmp_path / "b" / "lxc_snapshots"
            stack.callback(shutil.rmtree, f"/run/lxc/lock{tmp_path}", ignore_errors=True)
        with suppress(FileNotFoundError):
            target.unlink()
        (tmp_path / "victim").write_text(f"{lxcpath}\ncopy\n", encoding="ascii")
        if kind == "fifo":
            os.mkfifo(target)
        elif kind == "link":
            target.symlink_to(tmp_path / "victim")
        elif kind == "directory":
            target.mkdir()
        else:
            target.write_bytes(b"\xff\0\n" * 100_000)
        (one,) = reap(lxcpath)
        assert ("copy", "removed") == (one.name, one.action), one.reason
        assert f"{lxcpath}\ncopy\n" == (tmp_path / "victim").read_text(encoding="ascii")


def test_files_of_a_base_lend_no_rights(tmp_path: Path) -> None:
    """What is written beside a base's file has its mode, but not the bits that lend its owner's rights."""
    (tmp_path / "b").mkdir()
    file = tmp_path / "b" / "lxc_snapshots"
    file.write_text("/x\na\n/x\nb\n", encoding="ascii")
    file.chmod(0o6775)
    rdepends.forget((str(tmp_path), "b"), ("/x", "a"))
    assert ("/x\nb\n", 0o775) == (file.read_text(encoding="ascii"), file.stat().st_mode & 0o7777)
    shutil.rmtree(f"/run/lxc/lock{tmp_path}")


# Mounts


@pytest.mark.parametrize("through_link", [False, True])
@pytest.mark.parametrize("kind", ["bind", "tmpfs"])
def test_mount_below(lxcpath: str, tmp_path: Path, kind: str, through_link: bool) -> None:
    """What is mounted in an orphan, one mount on another, is unmounted first; what it shows survives."""
    source = tmp_path / "source"
    (source / "inner").mkdir(parents=True)
    (source / "file").touch()
    os.symlink(lxcpath, tmp_path / "link")
    left = Left(lxcpath)
    with orphan(lxcpath) as directory:
        place = directory / "a place"
        place.mkdir()
        what = ["--bind", source] if kind == "bind" else ["-t", "tmpfs", "none"]
        subprocess.run(["mount", *map(str, what), str(place)], check=True)
        (place / "inner").mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "none", str(place / "inner")], check=True)
        assert [("copy", "removed")] == found(str(tmp_path / "link") if through_link else lxcpath)
        assert not directory.exists()
    left.check()
    shutil.rmtree(f"/run/lxc/lock{tmp_path}", ignore_errors=True)
    assert ["file", "inner"] == sorted(os.listdir(source))
    rdepends.forget((lxcpath, "base"), (lxcpath, "copy"))


def test_mount_on_it(lxcpath: str, lxccopy: Cli) -> None:
    """An orphan that is a mount point itself is told as one that could not be removed, once, with the reason."""
    with orphan(lxcpath) as directory:
        subprocess.run(["mount", "--bind", str(directory), str(directory)], check=True)
        try:
            told = lxccopy("--reap")
        finally:
            subprocess.run(["umount", str(directory)], check=True)
        assert 1 == told.returncode
        assert told.stderr.startswith(f"lxccopy: cannot remove 'copy' in {lxcpath}: ")
        assert (1, 1) == (told.stderr.count("\n"), told.stderr.count("cannot remove"))
        assert "Device or resource busy" in told.stderr
        assert (directory / ledger.FILE).exists()
        assert [("copy", "removed")] == found(lxcpath)


# Those of others


@contextmanager
def foreign(lxcpath: str, *, kill: bool = True) -> Iterator[Path]:
    """A copy by lxc-copy -e, running, or with its monitor killed; its directory."""
    require(has("lxc-copy"), "lxc-copy is not installed")
    before = set(os.listdir(lxcpath))
    command = ["lxc-copy", "-P", lxcpath, "-n", "base", "-e"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    (name,) = set(os.listdir(lxcpath)) - before
    with removed(lxcpath, name):
        if kill:
            monitor = next(pid for pid, line in command_lines() if line == f"[lxc monitor] {lxcpath} {name}")
            began = start_time(monitor)
            os.kill(monitor, signal.SIGKILL)
            while is_alive(monitor, began) or running(lxcpath, name):
                time.sleep(0.01)
        yield Path(lxcpath, name)


def test_foreign(lxcpath: str) -> None:
    """An ephemeral copy of lxc-copy's with a killed monitor, which lxc-destroy cannot remove, is removed with --all."""
    before = cgroups()
    with foreign(lxcpath) as directory:
        done = subprocess.run(["lxc-destroy", "-P", lxcpath, "-n", directory.name], check=False, capture_output=True)
        assert (0, True) == (done.returncode, directory.exists())
        assert ([], []) == (found(lxcpath), found(lxcpath, dry_run=True))
        assert [(directory.name, "removed")] == found(lxcpath, everything=True, dry_run=True)
        assert [(directory.name, "removed")] == found(lxcpath, everything=True)
        assert (False, []) == (directory.exists(), snapshots(lxcpath))
        assert set() == {path for path in cgroups() - before if directory.name in path}


def test_foreign_that_stays(lxcpath: str) -> None:
    """A foreign container stays, also with --all, where it runs, is not ephemeral, or is another user's."""
    with foreign(lxcpath, kill=False) as directory:
        assert [] == found(lxcpath, everything=True)
        assert running(lxcpath, directory.name)
    with foreign(lxcpath) as directory:
        os.chown(directory / "config", 1234, 1234)
        assert [] == found(lxcpath, everything=True)
        os.chown(directory / "config", 0, 0)
        text = (directory / "config").read_text(encoding="utf-8")
        (directory / "config").write_text(text.replace("lxc.ephemeral = 1", "lxc.ephemeral = 0"), encoding="utf-8")
        assert [] == found(lxcpath, everything=True)
        assert directory.exists()
        (directory / "config").write_text(text, encoding="utf-8")
        assert [(directory.name, "removed")] == found(lxcpath, everything=True)


def test_running_by_another_path(lxcpath: str, tmp_path: Path) -> None:
    """A container that was started by another path of its lxcpath runs, though liblxc does not know by this one."""
    os.symlink(lxcpath, tmp_path / "link")
    with foreign(lxcpath, kill=False) as directory:
        assert not running(str(tmp_path / "link"), directory.name)
        assert [] == found(str(tmp_path / "link"), everything=True)
        assert (True, True) == (directory.exists(), running(lxcpath, directory.name))
    shutil.rmtree(f"/run/lxc/lock{tmp_path}", ignore_errors=True)


def test_starting_for_ever(lxcpath: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that starts in the foreground and whose hook hangs gives no answer: nobody waits for it."""
    monkeypatch.setattr(orphans, "_PATIENCE", 0.2)
    os.mkfifo(tmp_path / "end")
    hook = script(tmp_path / "hook", f"echo begun > {tmp_path}/begun; read x < {tmp_path}/end")
    with removed(lxcpath, "snap"):
        clone("base", "snap", lxcpath=lxcpath, snapshot=True).close()
        configure(lxcpath, "snap", "lxc.ephemeral = 1", f"lxc.hook.pre-start = {hook}")
        command = ["lxc-start", "-P", lxcpath, "-n", "snap", "-F"]
        require(has("lxc-start"), "lxc-start is not installed")
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as starter:
            while not (tmp_path / "begun").exists():
                assert starter.poll() is None
            assert [] == found(lxcpath, everything=True)
            assert (tmp_path / "begun").exists()
            with Container("snap", lxcpath) as container:
                (tmp_path / "end").write_text("go\n", encoding="ascii")
                while not container.running:
                    assert starter.poll() is None
                container.stop()
    threads = [thread for thread in threading.enumerate() if thread.name == "lxccopy-state"]
    for thread in threads:
        thread.join(10)


# Cgroups of others


def test_cgroups_of_another_container(lxcpath: str, tmp_path: Path) -> None:
    """The cgroups of a container of the same name elsewhere stay, with those in it that are empty."""
    other = str(tmp_path)
    shutil.copytree(f"{lxcpath}/base", f"{other}/base", symlinks=True)
    config = Path(other, "base", "config")
    config.write_text(config.read_text(encoding="utf-8").replace(lxcpath, other), encoding="utf-8")
    with orphan(lxcpath, "saved"), EphemeralCopy("base", "copy", lxcpath=other) as copy:
        made = [f"{hierarchies()[controllers]}{path}/empty" for controllers, path in copy.container.cgroups]
        made = [path for path in made if "lxc.payload." in path and "cpuset" not in path]
        for path in made:
            os.mkdir(path)
        began = time.monotonic()
        assert [("copy", "removed")] == found(lxcpath)
        assert time.monotonic() - began < 4
        assert made == [path for path in made if os.path.isdir(path)]
        for path in made:
            os.rmdir(path)
        assert 0 == copy.run(["true"]).returncode
    shutil.rmtree(f"/run/lxc/lock{other}")


@pytest.mark.parametrize("path", ["/lxc.payload.other", "/../../tmp/lxc.payload.copy", "/", "", "/lxc.payload.copy/x"])
def test_cgroups_that_a_ledger_makes_up(lxcpath: str, path: str) -> None:
    """What a ledger says of cgroups that are not called like the copy is not believed."""
    victims = [f"{root}/lxc.payload.other" for root in hierarchies().values()]
    with orphan(lxcpath) as directory, ExitStack() as stack:
        for victim in victims:
            os.mkdir(victim)
            stack.callback(os.rmdir, victim)
        rewrite(directory, cgroups=[[controllers, path] for controllers in hierarchies()])
        assert [("copy", "removed")] == found(lxcpath)
        assert victims == [victim for victim in victims if os.path.isdir(victim)]


# Renames


RENAMED = ["journal-written", "moved", "exchanged", "renamed-for-bases", "renamed-inside"]


@pytest.mark.parametrize("step", RENAMED)
def test_rename(lxcpath: str, step: str) -> None:
    """A rename killed half way is taken back: name, files, subdirectories, host name, and what its base remembers."""
    with removed(lxcpath, "copy", "source"):
        clone("base", "source", lxcpath=lxcpath, snapshot=True).close()
        directory = Path(lxcpath, "source")
        (directory / "sub" / "dir").mkdir(parents=True)
        inside = directory / "sub" / "dir" / "more.conf"
        inside.write_text(f"lxc.environment = HERE={directory}\n", encoding="ascii")
        configure(lxcpath, "source", f"lxc.include = {inside}", "lxc.start.order = 5")
        inside.chmod(0o640)
        before = (tree(directory), snapshots(lxcpath), sorted(os.listdir(lxcpath)))
        assert -signal.SIGKILL == call(lxcpath, step, "-n", "source", "-N", "copy", "-R").returncode
        assert before[2] != sorted(os.listdir(lxcpath))
        (one,) = reap(lxcpath, dry_run=True)
        assert ("source", "renamed back") == (one.name, one.action)
        assert [("source", "renamed back")] == found(lxcpath)
        assert before[1:] == (snapshots(lxcpath), sorted(os.listdir(lxcpath)))
        assert set() == changes(before[0], tree(directory))
        assert [] == found(lxcpath)
        rename_container("source", "copy", lxcpath=lxcpath).close()  # and it can be done after all
        assert [(lxcpath, "copy")] == snapshots(lxcpath)
        assert [f"{lxcpath}/copy/sub/dir/more.conf"] == settings(lxcpath, "copy", "lxc.include")


def test_rename_killed_while_it_is_taken_back(lxcpath: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever taking a rename back is interrupted, the next reap() does it."""

    class Killed(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    with removed(lxcpath, "copy", "source"):
        clone("base", "source", lxcpath=lxcpath, snapshot=True).close()
        before = (tree(f"{lxcpath}/source"), snapshots(lxcpath))
        for where in ("rdepends.replace", "rename.rename_new", "rename.forget_lock", "rename._write_identity"):
            call(lxcpath, "renamed-inside", "-n", "source", "-N", "copy", "-R")
            module, _, name = where.partition(".")
            with monkeypatch.context() as patch:
                patch.setattr(sys.modules[f"lxccopy_ffi.{module}"], name, die)
                with pytest.raises(Killed):
                    reap(lxcpath)
            assert [("source", "renamed back")] == found(lxcpath)
            assert set() == changes(before[0], tree(f"{lxcpath}/source"))
            assert (before[1], ["base", "source"]) == (snapshots(lxcpath), sorted(os.listdir(lxcpath)))


def test_rename_of_what_is_gone(lxcpath: str) -> None:
    """A container that was made since, with the name and even the inode of what was renamed, keeps its name."""
    with plain(lxcpath, "source"), removed(lxcpath, "copy"):
        call(lxcpath, "moved", "-n", "source", "-N", "copy", "-R")
        inode = os.stat(f"{lxcpath}/copy").st_ino
        shutil.rmtree(f"{lxcpath}/copy")
        with plain(lxcpath, "copy") as directory:
            (journal,) = Path(lxcpath).glob(".lxccopy-*")
            text = (journal / ledger.FILE).read_text(encoding="ascii")
            now = os.stat(directory).st_ino
            text = text.replace(f'"inode": {inode},', f'"inode": {now},')
            (journal / ledger.FILE).write_text(text, encoding="ascii")
            before = tree(directory)
            (one,) = reap(lxcpath)
            assert ("source", "failed") == (one.name, one.action)
            assert str(journal) in one.reason
            assert set() == changes(before, tree(directory))
            shutil.rmtree(journal)
        with suppress(FileNotFoundError):
            os.unlink(locking.lock_file("source", lxcpath))


# Several at once

_REAPER = """
import sys
from lxccopy_ffi import reap
for line in sys.stdin:
    found = [one for one in reap(line.strip()) if one.action != "removed"]
    print(found, flush=True)
"""


@contextmanager
def reapers(count: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that reap the lxcpath of each line that they get, and print what they could not remove."""
    command = [sys.executable, "-c", _REAPER]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with ExitStack() as stack:
        started = [subprocess.Popen(command, cwd=ROOT, text=True, **pipes) for _ in range(count)]
        for process in started:
            stack.enter_context(process)
        yield started


def tell(process: subprocess.Popen[str], text: str) -> None:
    """Write a line to a process."""
    assert process.stdin is not None
    process.stdin.write(f"{text}\n")
    process.stdin.flush()


def answer(process: subprocess.Popen[str]) -> str:
    """Read a line from a process."""
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.mark.parametrize("count", [2, 8])
def test_reapers_at_once(lxcpath: str, count: int) -> None:
    """Several who reap the same orphans at once have no errors, and nothing is left."""
    left = Left(lxcpath)
    with reapers(count) as processes:
        for number in range(3):
            for step in ("saved", "copied", "directory-made", "ledger-written", "name-claimed"):
                call(lxcpath, step, "-n", "base", "-N", f"copy{number}{step}", "-e", "--", "true")
            for process in processes:
                tell(process, lxcpath)
            assert ["[]\n"] * count == [answer(process) for process in processes]
            assert (["base"], []) == (os.listdir(lxcpath), snapshots(lxcpath))
    left.check()


def work(lxcpath: str, errors: list[object], rounds: int, number: int) -> None:
    """Make and use copies, and make, rename and remove snapshots, many times."""
    choice = random.Random(number)  # noqa: S311 - nobody shall not guess it
    try:
        for step in range(rounds):
            name = f"c{number}-{step}"
            if choice.random() < 0.6:
                with EphemeralCopy("base", name, lxcpath=lxcpath, tmpfs=choice.random() < 0.5) as copy:
                    assert 3 == copy.run(["sh", "-c", "exit 3"]).returncode
                assert not os.path.lexists(f"{lxcpath}/{name}")
            else:
                clone("base", name, lxcpath=lxcpath, snapshot=True).close()
                rename_container(name, f"{name}x", lxcpath=lxcpath).close()
                discard(f"{name}x", lxcpath)
    except BaseException as error:  # noqa: BLE001 - to be seen by the test
        errors.append(error)


def test_reapers_against_starters(lxcpath: str) -> None:
    """While others reap all the time, copies are made, run, renamed and removed without an error, and unharmed."""
    left = Left(lxcpath)
    errors: list[object] = []
    workers = [threading.Thread(target=work, args=(lxcpath, errors, 12, number)) for number in range(3)]
    with reapers(2) as processes:
        for worker in workers:
            worker.start()
        rounds = 0
        while any(worker.is_alive() for worker in workers):
            for process in processes:
                tell(process, lxcpath)
            errors += [line for line in map(answer, processes) if line != "[]\n"]
            rounds += 1
        for worker in workers:
            worker.join()
    assert ([], True) == (errors, rounds > 5)
    assert (["base"], []) == (os.listdir(lxcpath), snapshots(lxcpath))
    left.check()


def between(monkeypatch: pytest.MonkeyPatch, target: str, act: Callable[[], object]) -> None:
    """Let something happen once, right before a function is called."""
    module, _, name = target.rpartition(".")
    owner = sys.modules[f"lxccopy_ffi.{module}"]
    real = getattr(owner, name)
    done: list[object] = []

    def first(*arguments: Any, **options: Any) -> Any:
        if not done:
            done.append(None)
            done.append(act())
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, first)


@pytest.mark.parametrize("target", ["clone.Ledger", "clone.rename_new"])
def test_maker_loses_its_hidden_directory(lxcpath: str, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    """A maker whose hidden directory is taken for a dead one's makes another one, and loses no descriptor."""
    before = set(os.listdir("/proc/self/fd"))

    def take() -> None:
        for name in os.listdir(lxcpath):
            if name.startswith(ledger.HIDDEN):
                shutil.rmtree(f"{lxcpath}/{name}")

    between(monkeypatch, target, take)
    with ExitStack() as undo:
        claim = Claim("copy", (lxcpath, "base"), lxcpath, undo, "copy")
        assert os.path.isdir(f"{lxcpath}/copy")
        claim.discard()
    assert set() == set(os.listdir("/proc/self/fd")) - before


def test_maker_loses_its_lxcpath(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A maker whose lxcpath is removed fails, and does not try for ever."""
    lxcpath = tmp_path / "lxc"
    lxcpath.mkdir()
    between(monkeypatch, "clone.Ledger", lambda: shutil.rmtree(lxcpath))
    with pytest.raises(PermissionError, match="cannot make the directory"), ExitStack() as undo:
        Claim("copy", ("", "base"), str(lxcpath), undo, "copy")


def test_reaper_meets_a_maker(lxcpath: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A maker who gives its directory a name right before a reaper removes it keeps it, with all that is in it."""
    hidden = Path(lxcpath, ".lxccopy-abcdef")
    hidden.mkdir()
    directory = Path(lxcpath, "copy")

    def claim() -> None:
        ledger.Ledger(str(hidden), task="copy", name="copy", base=("", "")).close()
        os.rename(hidden, directory)
        (directory / "config").touch()

    between(monkeypatch, "orphans._mounts_below", claim)
    reap(lxcpath)
    assert [ledger.FILE, "config"] == sorted(os.listdir(directory))
    shutil.rmtree(directory)


@pytest.mark.parametrize("place", ["removal.remove_tree", "removal.os.unlink", "removal.os.rmdir"])
def test_reaper_meets_a_remover(lxcpath: str, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """A reaper leaves a directory that somebody is removing, with or without a ledger, and neither has an error."""
    seen_then: list[list[Orphan]] = []
    with removed(lxcpath, "copy"):
        clone("base", "copy", lxcpath=lxcpath, snapshot=True).close()
        module, _, name = place.rpartition(".")
        owner = removal if module == "removal" else os
        real = getattr(owner, name)

        def act(*arguments: Any, **options: Any) -> Any:
            if len(seen_then) < 50:
                seen_then.append([])
                seen_then[-1] = subprocess_reap(lxcpath) if len(seen_then) == 1 else []
            return real(*arguments, **options)

        monkeypatch.setattr(owner, name, act)
        discard("copy", lxcpath)
        monkeypatch.undo()
    assert seen_then
    assert not any(seen_then)
    assert ["base"] == os.listdir(lxcpath)


def subprocess_reap(lxcpath: str) -> list[Any]:
    """What another process that reaps finds."""
    command = [sys.executable, "-m", "lxccopy_ffi", "-P", lxcpath, "--reap", "--json"]
    done = subprocess.run(command, capture_output=True, check=True, cwd=ROOT)
    return list(json.loads(done.stdout)["orphans"])


def test_list_while_reaping(lxcpath: str) -> None:
    """Who lists copies that are being removed has no error, and no copy twice."""
    errors: list[object] = []
    end = threading.Event()

    def look() -> None:
        try:
            while not end.is_set():
                names = [copy.name for copy in listing.copies(lxcpath)]
                assert len(names) == len(set(names))
        except BaseException as error:  # noqa: BLE001 - to be seen by the test
            errors.append(error)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for step in ("saved", "copied", "name-claimed") * 2:
            with orphan(lxcpath, step):
                deadline = time.monotonic() + 5
                while os.path.lexists(f"{lxcpath}/copy"):  # who lists it holds its lock for a moment
                    assert time.monotonic() < deadline
                    assert {action for _, action in found(lxcpath)} <= {"removed"}
    finally:
        end.set()
        thread.join()
    assert [] == errors


def test_copy_for_others_to_start(lxcpath: str) -> None:
    """A copy that was made, but left to others to start, is no orphan before all that stands still shall go."""
    with removed(lxcpath, "copy"):
        program = """
import sys
from lxccopy_ffi import EphemeralCopy
copy = EphemeralCopy("base", "copy", lxcpath=sys.argv[1])
copy.create()
copy.detach()
"""
        subprocess.run([sys.executable, "-c", program, lxcpath], check=True, cwd=ROOT)
        assert [] == reap(lxcpath)
        assert os.path.isfile(f"{lxcpath}/copy/config")
        assert ["removed"] == [found.action for found in reap(lxcpath, everything=True)]
        assert not os.path.exists(f"{lxcpath}/copy")
