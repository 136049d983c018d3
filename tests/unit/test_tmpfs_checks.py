# SPDX-License-Identifier: LGPL-2.1-or-later
"""The tmpfs by itself: its limits, the hook's text and what that does in a shell, a tmpfs that is mounted nowhere."""

from __future__ import annotations

import errno
import os
import re
import shlex
import stat
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import require

from lxccopy_ffi import OptionError, UnsupportedError, _raw, names, tmpfs
from lxccopy_ffi.tmpfs import Layer, Limits, check_size, hook_script, make_layers, write_hook

MiB = 1 << 20

# Where a copy's upper layer is in its tmpfs.
UPPER = os.path.relpath(tmpfs.UPPER, tmpfs.MOUNT_POINT)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("64M", "64M"),
        (64, "64"),
        ("1g", "1G"),
        ("4096", "4096"),
        ("8k", "8K"),
        ("007", "7"),
        ("1%", "1%"),
        ("50%", "50%"),
        ("100%", "100%"),
        (str((1 << 63) - 1), str((1 << 63) - 1)),
    ],
)
def test_good_size(size: str, expected: str) -> None:
    """A size is returned as the kernel reads it."""
    assert expected == check_size(size)


@pytest.mark.parametrize(
    "size",
    [
        "", "0", "0K", "-1", "10X", "1T", "1KB", "1e9G", "1.5G", "1_0", "0x10", "M", "%", "0%", "101%", "-5%",
        " 1M", "1M ", "1 M", "1M\n", "1\n", "\u0661M", "1\u0661", "\xb2", "64M,uid=1", "99999999999G", str(1 << 63),
        "0" * 30 + "1", None, 0, -64, 1.5, b"64M", True,
    ],
)  # fmt: skip
def test_bad_size(size: Any) -> None:
    """What is no size in bytes, nor a share of memory, is refused and quoted."""
    with pytest.raises(OptionError, match=re.escape(f"the size of the tmpfs, {size!r}, is not")):
        check_size(size)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), ""),
        (("1m",), ",size=1M"),
        ((None, 5), ",nr_inodes=5"),
        (("50%", 1), ",size=50%,nr_inodes=1"),
        ((None, (1 << 31) - 1), ",nr_inodes=2147483647"),
    ],
)
def test_mount_options(arguments: tuple[Any, ...], expected: str) -> None:
    """Limits become options of mount(8), each with a leading comma."""
    assert expected == Limits(*arguments).mount_options


MOST_INODES = (1 << 31) - 1


@pytest.mark.parametrize("inodes", [0, -1, True, False, "5", 1.0, b"5", [5], MOST_INODES + 1, 1 << 64])
def test_bad_inodes(inodes: Any) -> None:
    """What is no whole number of inodes that a tmpfs can have is refused and quoted."""
    message = f"the number of inodes of the tmpfs must be from 1 to {MOST_INODES}, not {inodes!r}"
    with pytest.raises(OptionError, match=f"^{re.escape(message)}$"):
        Limits(inodes=inodes)


# The hook


@pytest.mark.parametrize(("limits", "options"), [(Limits(), ""), (Limits("64m", 9), ",size=64M,nr_inodes=9")])
@pytest.mark.parametrize("keep_name", [False, True])
def test_hook_of_ordinary_names(limits: Limits, options: str, keep_name: bool) -> None:
    """The hook is lxc-copy's, byte for byte, and strict."""
    expected = f"#! /bin/sh\nset -e\nmount -n -t tmpfs -o mode=0755{options} none /var/lib/lxc/new_Ab1/overlay\n"
    if not keep_name:
        expected += (
            "mkdir -p /var/lib/lxc/new_Ab1/overlay/delta/etc\n"
            "echo new_Ab1 > /var/lib/lxc/new_Ab1/overlay/delta/etc/hostname\n"
        )
    assert expected == hook_script("/var/lib/lxc/new_Ab1", "new_Ab1", limits, keep_name=keep_name)


ODD = [
    "a b",
    " a ",
    "it's",
    'say "hi"',
    "$(touch pwned)",
    "`touch pwned`",
    "a;touch pwned",
    "a&b|c>d",
    "*",
    "~",
    "#a",
    "ü",
]

Hook = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hook:
    """Run a hook as liblxc would, with a mount that writes its arguments to a file and ends as $STATUS says."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "cwd").mkdir()
    mount = tmp_path / "bin" / "mount"
    mount.write_text('#!/bin/sh\nprintf "%s\\n" "$@" >"$RECORD"\nexit "${STATUS:-0}"\n', encoding="ascii")
    mount.chmod(0o755)
    monkeypatch.setenv("PATH", f"{mount.parent}:/usr/bin:/bin")
    monkeypatch.setenv("RECORD", str(tmp_path / "record"))

    def run(
        directory: Path, name: str, limits: Limits, layers: Sequence[Layer] = ()
    ) -> subprocess.CompletedProcess[str]:
        (directory / "overlay").mkdir(parents=True)
        value = write_hook(str(directory), hook_script(str(directory), name, limits, layers, keep_name=False))
        subprocess.run(["/bin/sh", "-n", *shlex.split(value)], check=True)
        return subprocess.run(
            ["/bin/sh", "-c", f"exec {value} name lxc pre-mount"],
            cwd=tmp_path / "cwd",
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.mark.parametrize("odd", ["web", *ODD])
def test_hook_passes_on_odd_names(hook: Hook, tmp_path: Path, odd: str) -> None:
    """Whatever is in a name or a path, mount gets it as one word, the file holds it, and the shell runs none of it."""
    directory = tmp_path / f"x{odd}"
    result = hook(directory, odd, Limits("1M"))
    assert (0, "", "") == (result.returncode, result.stdout, result.stderr)
    expected = ["-n", "-t", "tmpfs", "-o", "mode=0755,size=1M", "none", f"{directory}/overlay"]
    assert expected == (tmp_path / "record").read_text(encoding="utf-8").splitlines()
    assert f"{odd}\n" == (directory / "overlay/delta/etc/hostname").read_text(encoding="utf-8")
    assert {"bin", "cwd", "record", directory.name} == set(os.listdir(tmp_path))
    assert set() == set(os.listdir(tmp_path / "cwd"))


@pytest.mark.parametrize("odd", ["web", "a b"])
def test_hook_fails_with_its_mount(hook: Hook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, odd: str) -> None:
    """Where mount fails, the hook fails with its status and writes nothing to the disk."""
    monkeypatch.setenv("STATUS", "32")
    result = hook(tmp_path / odd, odd, Limits())
    assert (32, set()) == (result.returncode, set(os.listdir(tmp_path / odd / "overlay")))


@pytest.mark.parametrize("umask", [0o077, 0o000])
def test_written_hook(tmp_path: Path, umask: int) -> None:
    """A hook is an executable file with lxc-copy's kind of name, whatever the umask; its value is one shell word."""
    directory = tmp_path / "a b"
    directory.mkdir()
    before = os.umask(umask)
    try:
        words = [shlex.split(write_hook(str(directory), text)) for text in ("one\n", "two\n")]
    finally:
        os.umask(before)
    paths = [Path(path) for (path,) in words]
    assert sorted(paths) == sorted(directory.iterdir())
    assert ["one\n", "two\n"] == [path.read_text(encoding="ascii") for path in paths]
    for path in paths:
        assert re.fullmatch("pre-start-[A-Za-z0-9]{6}", path.name)
        assert stat.S_IFREG | 0o755 == path.stat().st_mode


@pytest.mark.parametrize("there", ["file", "link"])
def test_hook_takes_nothing_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: str) -> None:
    """A file or a link that has the hook's name already is left alone."""
    monkeypatch.setattr(names, "random_name", "{}_Abc123".format)
    victim, path = tmp_path / "victim", tmp_path / "pre-start-Abc123"
    victim.write_text("old", encoding="ascii")
    if there == "link":
        path.symlink_to(victim)
    else:
        victim.rename(path)
    with pytest.raises(FileExistsError):
        write_hook(str(tmp_path), "new")
    assert "old" == path.read_text(encoding="ascii")


# Layers of overlay mounts


class Idmap:
    """As much of a container as a layer looks at."""

    def __init__(self, idmap: str = "") -> None:
        self.items = {"lxc.idmap": idmap}

    def config(self, key: str) -> str:
        """Return a config item."""
        return self.items[key]


MAPPED = "u 0 100000 65536\ng 0 200000 65536"


def layer(source: Path, name: str, idmap: str = "") -> Layer:
    """A layer for an overlay on a directory, in a container with this id map."""
    copy: Any = Idmap(idmap)
    return Layer(str(source), name, copy)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory to put an overlay on, that is like no default."""
    require(os.geteuid() == 0, "owners are changed as root")
    path = tmp_path / "source"
    path.mkdir()
    os.chown(path, 1234, 5678)
    return path


@pytest.mark.parametrize(
    ("mode", "expected"),
    [(0o700, 0o755), (0o755, 0o755), (0o770, 0o775), (0o1777, 0o1777), (0o2700, 0o2755), (0, 0o555)],
)
def test_layer_is_like_its_source(source: Path, mode: int, expected: int) -> None:
    """A layer has the source's owner, and its mode, but that everybody may enter and read it."""
    source.chmod(mode)
    made = layer(source, "delta#x")
    assert ("delta#x", expected, (1234, 5678), False) == (made.name, made.mode, made.owner, made.mapped)


@pytest.mark.parametrize(
    ("idmap", "owner"),
    [
        (MAPPED, (100000, 200000)),
        ("b 0 300000 65536", (300000, 300000)),
        ("u 0 100000 65536", (100000, 0)),
        ("u 1 5 9\nu 0 100000 1\ng 1000 1 5\ng 0 7 2", (100000, 7)),
        ("u 1000 1000 1", (0, 0)),
    ],
)
def test_layer_of_a_mapped_container(source: Path, idmap: str, owner: tuple[int, int]) -> None:
    """In a user namespace a layer is owned by the ids that its root has on the host."""
    made = layer(source, "work#x", idmap)
    assert (owner, True) == (made.owner, made.mapped)


def test_layer_of_nothing(tmp_path: Path) -> None:
    """A source that is not there is an error with its path."""
    with pytest.raises(FileNotFoundError) as caught:
        layer(tmp_path / "missing", "x")
    assert str(tmp_path / "missing") == caught.value.filename


@pytest.mark.parametrize("umask", [0o077, 0o000])
@pytest.mark.parametrize("idmap", ["", MAPPED])
def test_make_layers(source: Path, tmp_path: Path, umask: int, idmap: str) -> None:
    """Layers are made with their owners and modes, whatever the umask; one that is there already is an error."""
    source.chmod(0o1770)
    layers = [layer(source, name, idmap) for name in ("delta#a", "work#a")]
    (tmp_path / "copy").mkdir()
    before = os.umask(umask)
    try:
        make_layers(str(tmp_path / "copy"), layers)
    finally:
        os.umask(before)
    assert ["delta#a", "work#a"] == sorted(os.listdir(tmp_path / "copy"))
    for made in (tmp_path / "copy").iterdir():
        found = made.lstat()
        owner = (100000, 200000) if idmap else (1234, 5678)
        assert (stat.S_IFDIR | 0o1775, owner) == (found.st_mode, (found.st_uid, found.st_gid))
    with pytest.raises(FileExistsError):
        make_layers(str(tmp_path / "copy"), layers[1:])


def test_no_layer(tmp_path: Path) -> None:
    """Without layers nothing is made."""
    make_layers(str(tmp_path / "missing"), [])
    assert [] == os.listdir(tmp_path)


@pytest.mark.parametrize("idmap", ["", MAPPED])
def test_hook_with_layers(source: Path, idmap: str) -> None:
    """The hook makes the layers too, on the tmpfs; where ids are mapped it is their owner already."""
    source.chmod(0o1700)
    layers = [layer(source, name, idmap) for name in ("delta#a", "work#a")]
    head = hook_script("/p/x", "x", Limits(), keep_name=True)
    expected = head
    for name in ("'/p/x/overlay/delta#a'", "'/p/x/overlay/work#a'"):
        expected += f"mkdir {name}\nchmod 1755 {name}\n" + ("" if idmap else f"chown 1234:5678 {name}\n")
    assert expected == hook_script("/p/x", "x", Limits(), layers, keep_name=True)
    assert head == hook_script("/p/x", "x", Limits(), [], keep_name=True)


@pytest.mark.parametrize("odd", ["web", *ODD])
def test_hook_makes_layers(hook: Hook, source: Path, tmp_path: Path, odd: str) -> None:
    """Whatever is in the copy's path, the layers are made below it, as make_layers() does."""
    layers = [layer(source, name) for name in ("delta#a", "work#a")]
    directory = tmp_path / f"x{odd}"
    result = hook(directory, "x", Limits(), layers)
    assert (0, "", "") == (result.returncode, result.stdout, result.stderr)
    assert {"delta", "delta#a", "work#a"} == set(os.listdir(directory / "overlay"))
    make_layers(str(tmp_path / "cwd"), layers)
    for made in layers:
        ours, theirs = (directory / "overlay" / made.name).lstat(), (tmp_path / "cwd" / made.name).lstat()
        assert (ours.st_mode, ours.st_uid, ours.st_gid) == (theirs.st_mode, theirs.st_uid, theirs.st_gid)


def test_hook_fails_with_its_layers(hook: Hook, source: Path, tmp_path: Path) -> None:
    """Where a layer cannot be made, the hook fails: the container must not start without it."""
    result = hook(tmp_path / "x", "x", Limits(), [layer(source, "delta")])
    assert 0 != result.returncode
    assert "delta" in result.stderr


# A tmpfs of ours


@pytest.fixture
def root_directory(tmp_path: Path) -> Path:
    """A base's root directory that is like no default."""
    require(os.geteuid() == 0, "a tmpfs is made as root")
    os.chown(tmp_path, 100000, 100001)
    tmp_path.chmod(0o1751)
    os.utime(tmp_path, ns=(10**18, 10**18 + 123_456_789))
    return tmp_path


def _make(limits: Limits, like: Path) -> int:
    try:
        return tmpfs.make(limits, str(like))
    except UnsupportedError as error:
        require("Operation not permitted" not in str(error), str(error))
        raise


def test_tmpfs_is_like_the_base(root_directory: Path) -> None:
    """The upper layer has mode, owner and times of the base's root; nobody else reaches the work directory."""
    like = root_directory.stat()
    fd = _make(Limits(), root_directory)
    try:
        assert not os.get_inheritable(fd)
        layer = os.path.dirname(UPPER)
        assert {"delta", "work"} == set(os.listdir(f"/proc/self/fd/{fd}/{layer}"))
        delta, work = (os.stat(f"{layer}/{name}", dir_fd=fd, follow_symlinks=False) for name in ("delta", "work"))
        assert _identity(like) == _identity(delta)
        assert (stat.S_IFDIR | 0o700, 0, 0) == (work.st_mode, work.st_uid, work.st_gid)
        assert stat.S_IFDIR | 0o755 == os.fstat(fd).st_mode
    finally:
        os.close(fd)


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_atime_ns


def test_tmpfs_is_mounted_nowhere(root_directory: Path) -> None:
    """The host's mount table does not change, and each tmpfs is a file system of its own."""
    before = Path("/proc/self/mountinfo").read_bytes()
    fds = [_make(Limits(), root_directory) for _ in range(2)]
    try:
        assert before == Path("/proc/self/mountinfo").read_bytes()
        devices = {os.fstat(fd).st_dev for fd in fds} | {root_directory.stat().st_dev}
        assert 3 == len(devices)
    finally:
        for fd in fds:
            os.close(fd)


def test_tmpfs_has_its_size(root_directory: Path) -> None:
    """A tmpfs of one MiB takes that much and no more."""
    fd = _make(Limits("1M"), root_directory)
    try:
        file = os.open(f"/proc/self/fd/{fd}/{UPPER}/file", os.O_WRONLY | os.O_CREAT, 0o600)
        assert MiB // 2 < _fill(lambda _: os.write(file, b"x" * 4096), 3 * MiB >> 12) << 12 <= MiB
        os.close(file)
    finally:
        os.close(fd)


def test_tmpfs_has_its_inodes(root_directory: Path) -> None:
    """A tmpfs of ten inodes takes no more files than that."""
    fd = _make(Limits(inodes=10), root_directory)
    try:
        assert 1 < _fill(lambda number: Path(f"/proc/self/fd/{fd}/{UPPER}/{number}").touch(), 11) < 10
    finally:
        os.close(fd)


@pytest.mark.parametrize("limits", [Limits(inodes=MOST_INODES), Limits("100%"), Limits(str((1 << 63) - 1))])
def test_largest_tmpfs(root_directory: Path, limits: Limits) -> None:
    """The kernel makes the largest tmpfs that can be asked for."""
    os.close(_make(limits, root_directory))


def _fill(write: Callable[[int], object], most: int) -> int:
    """How often it could be written until there was no space left."""
    for number in range(most):
        try:
            write(number)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return number
    return most


def test_tmpfs_without_room(root_directory: Path) -> None:
    """A tmpfs that cannot even hold its own directories is refused, and its descriptor closed."""
    fds = set(os.listdir("/proc/self/fd"))
    with pytest.raises(UnsupportedError, match="too small to hold anything: No space left on device"):
        tmpfs.make(Limits(inodes=2), str(root_directory))
    assert fds == set(os.listdir("/proc/self/fd"))


def test_tmpfs_that_the_kernel_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel makes no tmpfs, that is UnsupportedError with the options and the kernel's reason."""

    def refuse(*_: object) -> int:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(_raw, "new_mount", refuse)
    with pytest.raises(UnsupportedError, match=r"a tmpfs \(mode=0755,size=1M,nr_inodes=5\): Operation not permitted$"):
        tmpfs.make(Limits("1M", 5), str(tmp_path))


# Where it goes


@pytest.fixture
def mount_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mount point that is not the machine's."""
    require(os.geteuid() == 0, "the mount point is root's")
    path = tmp_path / "lxccopy"
    monkeypatch.setattr(tmpfs, "MOUNT_POINT", str(path))
    monkeypatch.setattr(tmpfs, "UPPER", str(path / UPPER))
    return path


def test_mount_point_is_made(mount_point: Path) -> None:
    """The mount point is made where it is missing, and left alone where it is there."""
    tmpfs.ensure_mount_point()
    before = [mount_point.lstat(), (mount_point / "upper").lstat()]
    tmpfs.ensure_mount_point()
    assert before == [mount_point.lstat(), (mount_point / "upper").lstat()]
    assert stat.S_IFDIR | 0o755 == before[0].st_mode


def test_upper_layer_cannot_be_made_on_disk(mount_point: Path) -> None:
    """Without a tmpfs over it, there is no upper layer below the mount point, and nobody can make one."""
    tmpfs.ensure_mount_point()
    with pytest.raises(FileNotFoundError):
        os.makedirs(tmpfs.UPPER)
    with pytest.raises(FileNotFoundError):
        os.mkdir(os.path.realpath(mount_point / "upper"))
    assert not os.path.exists(mount_point / "upper")


OCCUPIED = [
    ("", "link"),
    ("", "dangling link"),
    ("", "file"),
    ("", "foreign directory"),
    ("upper", "link"),
    ("upper", "dangling link"),
    ("upper", "file"),
    ("upper", "directory"),
]


def _put(path: Path, kind: str, elsewhere: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    if kind == "file":
        path.touch()
    elif "directory" in kind:
        path.mkdir()
        os.chown(path, 1234 if "foreign" in kind else 0, 0)
    else:
        path.symlink_to(elsewhere)
        if kind == "link":
            elsewhere.mkdir()


@pytest.mark.parametrize(("name", "kind"), OCCUPIED)
def test_mount_point_of_somebody_else(mount_point: Path, tmp_path: Path, name: str, kind: str) -> None:
    """What is not ours is refused by its path."""
    _put(mount_point / name, kind, tmp_path / "elsewhere")
    with pytest.raises(UnsupportedError, match=re.escape(str(mount_point / name))):
        tmpfs.ensure_mount_point()


@pytest.mark.parametrize(("name", "kind"), OCCUPIED)
def test_mount_point_of_somebody_else_is_left_alone(mount_point: Path, tmp_path: Path, name: str, kind: str) -> None:
    """What is not ours is neither followed nor changed."""
    _put(mount_point / name, kind, tmp_path / "elsewhere")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UnsupportedError):
        tmpfs.ensure_mount_point()
    assert before == sorted(tmp_path.rglob("*"))


def test_mount_point_that_cannot_be_made(mount_point: Path) -> None:
    """Where the directory cannot be made, the error has its path and the reason."""
    mount_point.parent.rmdir()
    with pytest.raises(UnsupportedError, match=f"cannot make {re.escape(str(mount_point))}.*: No such file"):
        tmpfs.ensure_mount_point()
