# SPDX-License-Identifier: LGPL-2.1-or-later
"""Bases from what people have: they run, copies of them do, and of a source that is refused nothing is left."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from archives import PACKERS, Layout, contents, directory, docker_save, file, hard, link, node, tar, tar_of
from conftest import Cli, Left, debian_archive, require
from live_helpers import MAPPED_ROOT, Player, has, removed, settings, traversable, with_subordinate_ids
from user_world import FIRST, UID, V1, World, world

from lxccopy_ffi import Container, EphemeralCopy, LxcCopyError, OptionError, create_base

HALTS = {"systemd": "SIGRTMIN+3", "busybox": "SIGUSR1", "shell": "SIGKILL"}


@pytest.fixture
def busybox(lxcpath: str) -> Path:
    """A root file system with busybox."""
    return Path(lxcpath, "base/rootfs")


@pytest.fixture
def layout(tmp_path: Path, busybox: Path) -> Path:
    """An image of it in two layers, the second of which changes a file and removes another one."""
    made = Layout(tmp_path / "layout")
    upper = tar(file("etc/hello", b"hello\n"), file("etc/.wh.profile"))
    return made.index([made.image(PACKERS["tar.gz"](tar_of(busybox)), PACKERS["tar"](upper))])


def packed(kind: str, busybox: Path, tmp_path: Path) -> Path:
    """The root file system as a source of a kind."""
    if kind == "directory":
        return busybox
    require(kind != "tar.zst" or has("zstd"), "zstd is not installed")
    path = tmp_path / "archive"
    data = tar_of(busybox)
    path.write_bytes(docker_save(data) if kind == "docker save" else PACKERS[kind](data))
    return path


@pytest.mark.parametrize("kind", ["directory", "docker save", *PACKERS])
def test_base(lxccopy: Cli, lxcpath: str, busybox: Path, tmp_path: Path, kind: str) -> None:
    """A base of each kind of source is the same system, runs in throwaway copies, and halts when it is told to."""
    source = packed(kind, busybox, tmp_path)
    with removed(lxcpath, "new"):
        made = lxccopy("--create-base", "new", "--from", str(source))
        assert (0, f"Created new in {lxcpath}\n", "") == (made.returncode, made.stdout, made.stderr)
        assert contents(busybox) == contents(Path(lxcpath, "new/rootfs"))
        assert ["SIGUSR1"] == settings(lxcpath, "new", "lxc.signal.halt")
        assert ["config", "rootfs"] == sorted(os.listdir(f"{lxcpath}/new"))
        ran = lxccopy(
            "-q", "-n", "new", "-N", "copy", "-e", "-t", "--", "sh", "-c", "hostname; ls -l /proc/1/exe; exit 7"
        )
        assert (7, "") == (ran.returncode, ran.stderr)
        assert ["copy", "/bin/busybox"] == [line.split()[-1] for line in ran.stdout.splitlines()]
        with EphemeralCopy("new", lxcpath=lxcpath, tmpfs=True, shutdown_timeout=20):
            pass


def test_image(lxccopy: Cli, lxcpath: str, layout: Path) -> None:
    """A base of an OCI layout has what its layers have together."""
    with removed(lxcpath, "new"):
        assert 0 == lxccopy("--create-base", "new", "--from", str(layout)).returncode
        ran = lxccopy("-q", "-n", "new", "-e", "-t", "--", "sh", "-c", "cat /etc/hello; ls /etc/profile")
        assert "hello\n" == ran.stdout
        assert "No such file" in ran.stderr


def test_without_init(lxccopy: Cli, lxcpath: str, busybox: Path, tmp_path: Path) -> None:
    """In what docker export writes there is no init; a shell stands in for it, which is said, and commands run."""
    source = tmp_path / "source"
    shutil.copytree(busybox, source, symlinks=True)
    (source / "sbin/init").unlink()
    with removed(lxcpath, "new"):
        made = lxccopy("--create-base", "new", "--from", str(source))
        assert "lxccopy: warning: new: there is no init in it, so /bin/sh stands in for one;" in made.stderr
        ran = lxccopy(
            "-q", "-n", "new", "-e", "-t", "--", "sh", "-c", "sleep 0.2; tr '\\0' ' ' < /proc/1/cmdline; exit 3"
        )
        assert (3, "/bin/sh ", "") == (ran.returncode, ran.stdout, ran.stderr)
        with EphemeralCopy("new", lxcpath=lxcpath, tmpfs=True, shutdown_timeout=20) as copy:
            assert 0 == copy.run(["true"]).returncode


BOOTED = """
for i in $(seq 200); do
    s=$(systemctl is-system-running 2>/dev/null)
    case $s in running|degraded) break;; esac
    sleep 0.1
done
echo $s; systemctl --failed --no-legend --plain; id -u; xargs < /proc/self/uid_map
"""


@pytest.mark.parametrize("way", ["plain", "mapped"])
def test_debian(lxcpath: str, way: str) -> None:
    """A Debian from a tarball boots until systemd says "running", also with other ids on the host."""
    archive = debian_archive()
    require(has("newuidmap"), "newuidmap is not installed")
    call = [sys.executable, "-m", "lxccopy_ffi", "-P", lxcpath]
    made_with = [*call, "-q", "--create-base", "new", "--from", str(archive), *(["--idmap"] if way == "mapped" else [])]
    with traversable(lxcpath), removed(lxcpath, "new"):
        made = run_mapped(*made_with)
        assert (0, "", "") == (made.returncode, made.stdout, made.stderr)
        ran = run_mapped(*call, "-q", "-n", "new", "-e", "-t", "--", "sh", "-c", BOOTED)
        ids = f"0 {MAPPED_ROOT} 65536" if way == "mapped" else "0 0 4294967295"
        assert (0, f"running\n0\n{ids}\n", "") == (ran.returncode, ran.stdout, ran.stderr)
        assert [HALTS["systemd"]] == settings(lxcpath, "new", "lxc.signal.halt")
        owner = MAPPED_ROOT if way == "mapped" else 0
        assert owner == os.stat(f"{lxcpath}/new/rootfs/usr/bin/passwd").st_uid
        assert 0o4755 == os.stat(f"{lxcpath}/new/rootfs/usr/bin/passwd").st_mode & 0o7777


def run_mapped(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command with subordinate ids for root."""
    return subprocess.run(
        with_subordinate_ids(*command),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("source", [[], ["--from", "{busybox}"]], ids=["busybox", "directory"])
def test_idmap(lxcpath: str, busybox: Path, source: list[str]) -> None:
    """With --idmap a base has other ids on the host, and a copy of it runs with them."""
    require(has("newuidmap"), "newuidmap is not installed")
    call = [sys.executable, "-m", "lxccopy_ffi", "-P", lxcpath, "-q"]
    words = [word.format(busybox=busybox) for word in source]
    with traversable(lxcpath), removed(lxcpath, "new"):
        made = run_mapped(*call, "--create-base", "new", f"--idmap={MAPPED_ROOT}:65536", *words)
        assert (0, "") == (made.returncode, made.stderr)
        ran = run_mapped(
            *call, "-n", "new", "-e", "-t", "--", "sh", "-c", "stat -c %u:%g / /etc/passwd; xargs < /proc/self/uid_map"
        )
        assert (0, f"0:0\n0:0\n0 {MAPPED_ROOT} 65536\n", "") == (ran.returncode, ran.stdout, ran.stderr)
        left = Left(lxcpath)
        refused = run_mapped(*call, "--create-base", "other", f"--idmap={MAPPED_ROOT}:70000", *words)
        assert 1 == refused.returncode
        assert "does not give user 'root' all of those ids" in refused.stderr
        left.check()


# What is refused, with what is said.
REFUSED: dict[str, tuple[Any, str]] = {
    "dots": ([file("ok"), file("../../evil")], "leads out of the root file system"),
    "a link": ([link("a", "/tmp"), file("a/evil")], "lead through 'a', which is no directory"),
    "a hard link": ([hard("a", "/etc/passwd")], "is a hard link to '/etc/passwd', which is no file in it"),
    "nothing": ([], "is an empty archive"),
    "text": (b"text", "truncated header"),
    "cut off": (tar(file("a", b"x" * 9000))[:5000], "'a' is cut off"),
    "a name too long": ([file("a" * 300)], "File name too long"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused(lxccopy: Cli, lxcpath: str, tmp_path: Path, kind: str) -> None:
    """Of a base that is refused halfway nothing is left; the reason is one line."""
    members, message = REFUSED[kind]
    source = tmp_path / "archive"
    source.write_bytes(members if isinstance(members, bytes) else tar(*members))
    left = Left(lxcpath)
    result = lxccopy("--create-base", "new", "--from", str(source))
    assert (1, "", 1) == (result.returncode, result.stdout, result.stderr.count("\n"))
    assert message in result.stderr
    left.check()


def test_refused_before(lxccopy: Cli, lxcpath: str, tmp_path: Path) -> None:
    """What is wrong with the call is said before anything is made."""
    left = Left(lxcpath)
    for words, message in (
        (["--from", str(tmp_path / "missing")], "missing does not exist"),
        (["--from", "/dev/zero"], "neither a directory nor a file"),
        (["--from", ""], "source of a base cannot be ''"),
        (["--from", lxcpath], "cannot be copied into itself"),
        (["--idmap=1"], "START:COUNT"),
        (["--idmap=0:65536"], "out of range"),
    ):
        result = lxccopy("--create-base", "new", *words)
        assert (1, "") == (result.returncode, result.stdout)
        assert message in result.stderr
        left.check()
    with pytest.raises(OptionError, match="container name"):
        create_base("a/b", "/", lxcpath=lxcpath)


def test_devices_are_told(lxccopy: Cli, lxcpath: str, tmp_path: Path) -> None:
    """Device nodes that are left out are a warning, and none with -q."""
    source = tmp_path / "archive"
    source.write_bytes(tar(directory("bin"), file("bin/sh"), node("dev/mem", 1, 1)))
    with removed(lxcpath, "new", "other"):
        result = lxccopy("--create-base", "new", "--from", str(source))
        assert "lxccopy: warning: new: 'dev/mem' left out: device nodes" in result.stderr
        assert "" == lxccopy("-q", "--create-base", "other", "--from", str(source)).stderr


def test_progress(lxcpath: str, busybox: Path) -> None:
    """Somebody who asks is told how far it is, up to the size of the source."""
    seen: list[tuple[int, int]] = []
    with removed(lxcpath, "new"):
        create_base("new", busybox, lxcpath=lxcpath, progress=lambda *now: seen.append(now)).close()
    assert seen
    assert all(0 <= done <= total for done, total in seen)


# What takes a while.
LONG = tar(*(file(f"usr/{number}", b"x" * 500) for number in range(12000)))


def test_progress_on_a_terminal(lxcpath: str, tmp_path: Path) -> None:
    """On a terminal a line says how far it is, which is removed at the end."""
    source = tmp_path / "archive"
    source.write_bytes(LONG)
    with removed(lxcpath, "new"):
        player = Player("-P", lxcpath, "--create-base", "new", "--from", str(source))
        player.expect(" of ")
        player.expect("/s")
        player.expect(f"\x1b[KCreated new in {lxcpath}")
        assert 0 == player.process.wait(30)
        os.close(player.ours)
        os.close(player.theirs)


def test_a_signal_ends_it(lxcpath: str, tmp_path: Path) -> None:
    """Ended by a signal halfway, nothing is left."""
    source = tmp_path / "archive"
    source.write_bytes(LONG)
    left = Left(lxcpath)
    command = [sys.executable, "-m", "lxccopy_ffi", "-P", lxcpath, "--create-base", "new", "--from", str(source)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not os.path.isdir(f"{lxcpath}/new/rootfs/usr"):
            pass
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert (128 + 15, "lxccopy: ended by SIGTERM\n") == (process.returncode, said)
    left.check()


# Ordinary users


@pytest.fixture(scope="module")
def user() -> Iterator[World]:
    """An ordinary user."""
    require(os.geteuid() == 0 and has("newuidmap"), "a user is made by root, and needs newuidmap")
    with world(V1) as made:
        yield made


@pytest.mark.parametrize("kind", ["directory", "tar", "tar.zst", "docker save", "layout"])
def test_ordinary_user(user: World, busybox: Path, layout: Path, kind: str) -> None:
    """A user's base belongs to the user's subordinate ids, and copies of it run."""
    source = user.home / "source"
    if kind == "directory":
        subprocess.run(["cp", "-a", busybox, source], check=True)
    elif kind == "layout":
        shutil.copytree(layout, source)
    else:
        data = tar_of(busybox)
        source.write_bytes(docker_save(data) if kind == "docker save" else PACKERS[kind](data))
    subprocess.run(["chown", "-hR", f"{UID}:{UID}", source], check=True)
    try:
        made = user.lxccopy("-q", "--create-base", "new", "--from", str(source))
        assert (0, "", "") == (made.returncode, made.stdout, made.stderr)
        assert FIRST == os.stat(user.lxcpath / "new/rootfs/etc/passwd").st_uid
        ran = user.lxccopy("-q", "-n", "new", "-e", "-t", "--", "sh", "-c", "stat -c %u:%g / /etc/shadow; exit 7")
        assert (7, "0:0\n0:0\n", "") == (ran.returncode, ran.stdout, ran.stderr)
    finally:
        shutil.rmtree(user.lxcpath / "new", ignore_errors=True)
        subprocess.run(["rm", "-rf", source], check=True)


_PROGRESS = """
import sys
from lxccopy_ffi import create_base
seen = []
create_base("new", sys.argv[1], progress=lambda *now: seen.append(now)).close()
print(len(seen) > 0, all(0 <= done <= total for done, total in seen))
"""


def test_ordinary_user_sees_progress(user: World, busybox: Path) -> None:
    """A user, too, is told how far it is."""
    source = user.home / "source"
    source.write_bytes(tar_of(busybox))
    source.chmod(0o644)
    try:
        result = user.python(_PROGRESS, str(source))
        assert (0, "True True\n", "") == (result.returncode, result.stdout, result.stderr)
    finally:
        source.unlink()
        shutil.rmtree(user.lxcpath / "new", ignore_errors=True)


def test_ordinary_user_is_killed(user: World) -> None:
    """Killed halfway, a user's base is removed by one reap, and nobody goes on making it."""
    source = user.home / "source"
    source.write_bytes(LONG)
    source.chmod(0o644)
    words = [sys.executable, "-m", "lxccopy_ffi", "--create-base", "new", "--from", str(source)]
    with subprocess.Popen(user.command(*words)) as process:
        while process.poll() is None and not os.path.isdir(user.lxcpath / "new/rootfs/usr"):
            pass
        process.kill()
    deadline = time.monotonic() + 20
    while user.processes():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    try:
        assert os.path.isdir(user.lxcpath / "new/rootfs")
        reaped = user.lxccopy("--reap")
        assert (0, "") == (reaped.returncode, reaped.stderr)
        assert "new" not in os.listdir(user.lxcpath)
    finally:
        shutil.rmtree(user.lxcpath / "new", ignore_errors=True)
        source.unlink()


def test_ordinary_user_is_refused(user: World) -> None:
    """A hostile archive leaves nothing in a user's directory either, and the reason arrives."""
    source = user.home / "source"
    source.write_bytes(tar(file("a"), link("b", "/tmp"), file("b/evil")))
    source.chmod(0o644)
    assert 0 == user.run("mkdir", "-p", str(user.lxcpath)).returncode
    before = sorted(os.listdir(user.lxcpath))
    result = user.lxccopy("--create-base", "new", "--from", str(source))
    assert 1 == result.returncode
    assert "lxccopy: there are names in it that lead through 'b', which is no directory\n" == result.stderr
    assert before == sorted(os.listdir(user.lxcpath))
    refused = user.lxccopy("--create-base", "new", "--idmap=5:65536", "--from", str(source))
    assert "an ordinary user's base has the first of the subordinate ids" in refused.stderr


def test_errors_are_ours(lxcpath: str, tmp_path: Path) -> None:
    """In Python, too, every refusal is an error of this package."""
    (tmp_path / "archive").write_bytes(b"")
    with pytest.raises(LxcCopyError):
        create_base("new", tmp_path / "archive", lxcpath=lxcpath)
    with Container("new", lxcpath) as new:
        assert not new.defined
