# SPDX-License-Identifier: LGPL-2.1-or-later
"""Failures: bad input is refused before anything is made, and a failure at any step leaves nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import Cli, Left
from fakes import failing

from lxccopy_ffi import Container, ContainerExistsError, EphemeralCopy, LiblxcError, clone
from lxccopy_ffi.locking import forget_lock

BAD_INPUT = [
    (["-n", "nobody", "-e", "-t"], "container 'nobody' is not defined in"),
    (["-n", "base", "-N", "..", "-e"], "the new name '..' is not allowed"),
    (["-n", "base", "-N", "", "-e"], "the new name is empty"),
    (["-n", "base", "-N", "a/b", "-e"], "the new name 'a/b' is not allowed"),
    (["-n", "base", "-N", "a\nb", "-e"], r"the new name 'a\nb' is not allowed"),
    (["-n", "base", "-N", "x" * 65, "-e"], "has 65 characters; 64 is the longest"),
    (["-n", "base", "-N", "$(id)", "-e"], "is not allowed"),
    (["-n", "base", "-N", "base", "-e"], "there is already a 'base'"),
    (["-n", "base", "-N", "base"], "there is already a 'base'"),
    (["-n", "base"], "You must provide a NEWNAME"),
    (["-n", "base", "-e", "-t", "-D"], "-t and -D contradict each other"),
    (["-n", "base", "-e", "-t", "--tmpfs-size", "0"], "the size of the tmpfs, '0', is not"),
    (["-n", "base", "-e", "-t", "--tmpfs-size", "-1"], "the size of the tmpfs, '-1', is not"),
    (["-n", "base", "-e", "-t", "--tmpfs-size", "10X"], "the size of the tmpfs, '10X', is not"),
    (["-n", "base", "-e", "-t", "--tmpfs-size", "1e9G"], "the size of the tmpfs, '1e9G', is not"),
    (["-n", "base", "-e", "--tmpfs-size", "1M"], "but no tmpfs"),
    (["-n", "base", "-e", "-t", "--tmpfs-via", "magic"], "must be 'monitor' or 'hook'"),
    (["-n", "base", "-e", "-p", "/no/such/directory"], "/no/such/directory, does not exist"),
    (["-n", "base", "-e", "-p", "/tmp/a:b"], "has the character ':'"),
    (["-n", "base", "-e", "--shutdown-timeout", "soon"], "--shutdown-timeout needs a whole number, not 'soon'"),
    (["-Z"], "there is no option -Z"),
    (["--create-base", "a/b"], "is not allowed"),
]


@pytest.mark.parametrize(("arguments", "words"), BAD_INPUT)
@pytest.mark.parametrize("command", [[], ["--", "true"]], ids=["", "command"])
def test_bad_input(lxccopy: Cli, arguments: list[str], words: str, command: list[str]) -> None:
    """Bad input is one line on stderr and status 1, or 125 with a command."""
    result = lxccopy(*arguments, *command)
    no_command = "-e" not in arguments and "-Z" not in arguments  # what follows then is for a clone hook
    assert (1 if no_command or not command else 125, "") == (result.returncode, result.stdout)
    assert 1 == len(result.stderr.splitlines())
    assert result.stderr.startswith("lxccopy: ")
    assert words in result.stderr


@pytest.mark.parametrize(
    ("storage", "words"),
    [
        ("loop:{path}/odd/rootdev", "stored as 'loop', which no overlay can be put on"),
        ("zfs:tank/odd", "stored as 'zfs', which no overlay can be put on"),
        ("dir:{path}/odd/no,such", "has the character ','"),
        ("dir:{path}/odd/missing", "has no usable root file system"),
    ],
)
def test_storage(lxccopy: Cli, lxcpath: str, storage: str, words: str) -> None:
    """A base whose storage cannot be overlaid is refused, naming the storage."""
    directory = Path(lxcpath, "odd")
    directory.mkdir()
    try:
        (directory / "rootdev").touch()
        line = f"lxc.rootfs.path = {storage.format(path=lxcpath)}\nlxc.uts.name = odd\n"
        (directory / "config").write_text(line, encoding="ascii")
        result = lxccopy("-n", "odd", "-e", "-t", "--", "true")
        assert 125 == result.returncode
        assert words in result.stderr
        assert {"config", "rootdev"} == set(os.listdir(directory))
    finally:
        shutil.rmtree(directory)
        Path(f"/run/lxc/lock{lxcpath}/.odd").unlink()


def test_no_name(lxccopy: Cli) -> None:
    """Without any name there is nothing to copy."""
    result = lxccopy("-e", "-t")
    assert (1, "lxccopy: No container name specified: give it with -n\n") == (result.returncode, result.stderr)


def test_no_liblxc(lxccopy: Cli) -> None:
    """Without liblxc there is one line that names the library and its package."""
    environment = {**os.environ, "LXCCOPY_LIBLXC": "/no/such/liblxc.so.1"}
    result = lxccopy("-n", "base", "-e", "-t", "--", "true", env=environment)
    assert 125 == result.returncode
    assert 1 == len(result.stderr.splitlines())
    assert "liblxc1" in result.stderr


def as_user(lxcpath: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as an ordinary user, who can read our source tree and the lxcpath."""
    script = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); from lxccopy_ffi.cli import main\n"
        "os.setgroups([]); os.setgid(1234); os.setuid(1234); sys.exit(main(sys.argv[2:]))"
    )
    return subprocess.run(
        [sys.executable, "-c", script, os.getcwd(), "-P", lxcpath, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "XDG_RUNTIME_DIR": lxcpath},
    )


def test_ordinary_user(lxcpath: str) -> None:
    """A base that may not be read, and a user without subordinate ids, are refused with what to do about it."""
    parents = [Path(lxcpath), *list(Path(lxcpath).parents)[:2]]
    modes = [path.stat().st_mode for path in parents]
    try:
        for path in parents:
            path.chmod(0o755)
        Path(lxcpath).chmod(0o777)
        unreadable = as_user(lxcpath, "-n", "base", "-e", "-t", "--", "true")
        assert 125 == unreadable.returncode
        assert "cannot read container 'base'" in unreadable.stderr
        assert "Permission denied" in unreadable.stderr
        base = Path(lxcpath, "base")
        base.chmod(0o755)
        (base / "config").chmod(0o644)
        no_ids = as_user(lxcpath, "-n", "base", "-e", "-t", "--", "true")
        assert 125 == no_ids.returncode
        assert "has no subordinate ids" in no_ids.stderr
        assert "usermod --add-subuids" in no_ids.stderr
    finally:
        for path, mode in zip(parents, modes):
            path.chmod(mode)
        shutil.rmtree(f"{lxcpath}/lxc", ignore_errors=True)  # liblxc's locks
        Path(lxcpath, "base").chmod(0o770)
        Path(lxcpath, "base", "config").chmod(0o640)


WAYS = {
    "monitor": {"tmpfs": True},
    "hook": {"tmpfs": True, "tmpfs_via": "hook"},
    "disk": {},
    "kept": {"keep_data": True},
}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("way", WAYS)
def test_failure_at_every_step(lxcpath: str, way: str, *, after: bool) -> None:
    """Whichever call fails while a copy is made and started, the error comes through and nothing is left."""
    options = WAYS[way]
    with failing(-1) as counting:
        copy = EphemeralCopy("base", "step", lxcpath=lxcpath, **options)  # type: ignore[arg-type]
        copy.start()
        steps = len(counting.calls)
        copy.close(kill=True)
    if way == "kept":
        with Container("step", lxcpath) as kept:
            kept.destroy()
            forget_lock(kept.name, kept.lxcpath)
    assert {"clone", "save_config", "start", "personalise_above"} <= set(counting.calls)
    left = Left(lxcpath)
    for step in range(steps):
        with failing(step, after=after) as state, pytest.raises(LiblxcError, match="as it was told"):
            EphemeralCopy("base", "step", lxcpath=lxcpath, **options).start()  # type: ignore[arg-type]
        assert step + 1 <= len(state.calls)
        left.check()


@pytest.mark.parametrize("snapshot", [False, True], ids=["full", "snapshot"])
def test_failure_at_every_step_of_a_clone(lxcpath: str, *, snapshot: bool) -> None:
    """The same for a copy that is to stay."""
    with failing(-1) as counting, clone("base", "step", lxcpath=lxcpath, snapshot=snapshot) as copy:
        steps = len(counting.calls)
        copy.destroy()
        forget_lock(copy.name, copy.lxcpath)
    left = Left(lxcpath)
    for step in range(steps):
        with failing(step), pytest.raises(LiblxcError, match="as it was told"):
            clone("base", "step", lxcpath=lxcpath, snapshot=snapshot)
        left.check()


def test_same_name_at_once(lxcpath: str) -> None:
    """Of eight that want the same name at the same time one gets it, and the others are told."""
    results: list[object] = []
    barrier = threading.Barrier(8)

    def start() -> None:
        copy = EphemeralCopy("base", "wanted", lxcpath=lxcpath, tmpfs=True)
        barrier.wait()
        try:
            copy.start()
        except ContainerExistsError as error:
            results.append(error)
        else:
            results.append(copy)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    (winner,) = [result for result in results if isinstance(result, EphemeralCopy)]
    assert 7 == sum(isinstance(result, ContainerExistsError) for result in results)
    assert "RUNNING" == winner.container.state
    winner.close()


def test_failed_close_is_told(lxcpath: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error while closing is raised, and the copy is removed all the same."""
    copy = EphemeralCopy("base", lxcpath=lxcpath, tmpfs=True, shutdown_timeout=1)
    copy.start()

    def no_shutdown(self: Container, timeout: float | None = None) -> bool:
        raise LiblxcError("shut down", self.name, self.lxcpath, f"after {timeout}")

    monkeypatch.setattr(Container, "shutdown", no_shutdown)
    with pytest.raises(LiblxcError, match="shut down"):
        copy.close()
