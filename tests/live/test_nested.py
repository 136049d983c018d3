# SPDX-License-Identifier: LGPL-2.1-or-later
"""Bases that are more than a directory: snapshots in layers, running ones, ones whose directory holds more files."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import Cli, Left, require
from live_helpers import WAYS, changes, configure, few_programs, has, plain, removed, script, settings, snapshot, tree

from lxccopy_ffi import Container, EphemeralCopy, clone, create_base

SOURCES = ["snap", "second", "kept", "kept-twice"]

# Inside, each source has the files of the layers below it, and the topmost of each that is in several.
LOOK = "cat /in-* /common; ls -d /etc/init.d/* /etc/profile /home /mnt/dir/* 2>/dev/null; true"
SEEN = {
    "snap": "snap\nsnap\n/mnt/dir/new\n",
    "second": "second\nsnap\nsecond\n/mnt/dir/new\n",
    "kept": "kept\nsnap\nkept\n/mnt/dir/new\n",
    "kept-twice": "kept\nkept-twice\nsnap\nkept-twice\n/mnt/dir/new\n",
}


def add_to_layer(delta: Path, name: str) -> None:
    """Put files into a writable layer."""
    (delta / f"in-{name}").write_text(f"{name}\n", encoding="ascii")
    (delta / "common").write_text(f"{name}\n", encoding="ascii")


@pytest.fixture
def nest(lxcpath: str) -> Iterator[str]:
    """Snapshots of base: snap, second of snap, and kept copies: of snap, and of that one, on 2 and 3 lower layers."""
    with removed(lxcpath, "kept-twice", "kept", "second", "snap"):
        clone("base", "snap", lxcpath=lxcpath, snapshot=True).close()
        delta = Path(lxcpath, "snap/overlay/delta")
        add_to_layer(delta, "snap")
        os.mknod(delta / "etc/profile", 0o020000, 0)  # as overlays say that a file of a lower layer is gone
        os.mknod(delta / "home", 0o020000, 0)
        (delta / "etc/init.d").mkdir()
        os.setxattr(delta / "etc/init.d", "trusted.overlay.opaque", b"y")  # and all that was in a directory
        (delta / "mnt/dir").mkdir(parents=True)
        (delta / "mnt/dir/new").touch()
        if has("rsync"):
            clone("snap", "second", lxcpath=lxcpath, snapshot=True).close()
            add_to_layer(Path(lxcpath, "second/overlay/delta"), "second")
        for source, name in (("snap", "kept"), ("kept", "kept-twice")):
            copy = EphemeralCopy(source, name, lxcpath=lxcpath, keep_data=True)
            copy.create()
            copy.detach()
            add_to_layer(Path(lxcpath, name, "overlay/delta"), name)
        yield lxcpath


@pytest.fixture
def no_rsync(tmp_path: Path) -> dict[str, str]:
    """An environment in which running rsync is a failure that shows."""
    script(tmp_path / "bin/rsync", "echo rsync was run >&2; exit 12")
    return {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}


@pytest.mark.parametrize("source", SOURCES)
def test_throwaway_copies(lxccopy: Cli, nest: str, no_rsync: dict[str, str], source: str) -> None:
    """A throwaway copy of nested layers shows all of them, on disk and in memory, without copying any."""
    require(source != "second" or has("rsync"), "rsync is not installed")
    before = tree(nest)
    for options in WAYS.values():
        change = (
            "echo changed > /common; rm -rf /in-snap /mnt/dir; mkdir /mnt/dir; touch /etc/profile; cat /etc/hostname"
        )
        result = lxccopy(
            "-q", "-n", source, "-N", "me", "-e", *options, "--", "sh", "-c", f"{LOOK};{change}", env=no_rsync
        )
        assert (0, SEEN[source] + "me\n", "") == (result.returncode, result.stdout, result.stderr)
    assert set() == changes(before, tree(nest))


@pytest.mark.parametrize("source", SOURCES)
def test_snapshots(lxccopy: Cli, nest: str, no_rsync: dict[str, str], source: str) -> None:
    """A snapshot of nested layers shows all of them, and they all remember it until it is gone."""
    stacked = source.startswith("kept")
    require(stacked or has("rsync"), "rsync is not installed")
    below = {"snap": ["snap", "base"], "second": ["second", "base"], "kept": ["kept"], "kept-twice": ["kept-twice"]}
    with removed(nest, "copy"):
        result = lxccopy("-n", source, "-N", "copy", "-s", env=no_rsync if stacked else None)
        assert (0, "", "") == (result.returncode, result.stdout, result.stderr)
        for name in below[source]:
            assert f"{nest}\ncopy\n" in Path(nest, name, "lxc_snapshots").read_text(encoding="ascii")
        seen = lxccopy("-q", "-n", "copy", "-e", "--", "sh", "-c", f"{LOOK}; cat /etc/hostname", env=no_rsync)
        assert (0, SEEN[source], "") == (
            seen.returncode,
            "".join(seen.stdout.partition("/mnt/dir/new\n")[:2]),
            seen.stderr,
        )
        with Container("copy", nest) as copy:
            copy.start()
            assert SEEN[source].endswith(
                Path(f"/proc/{copy.init_pid}/root/common").read_text(encoding="ascii") + "/mnt/dir/new\n"
            )
    for name in below[source]:
        assert "\ncopy\n" not in "".join(path.read_text() for path in Path(nest, name).glob("lxc_snapshots"))


@pytest.mark.parametrize("source", SOURCES)
def test_full_copies(lxccopy: Cli, nest: str, source: str) -> None:
    """A full copy of nested layers is a directory with all that they show, and depends on none of them."""
    require(has("rsync"), "rsync is not installed")
    with removed(nest, "full"):
        result = lxccopy("-n", source, "-N", "full")
        assert (0, "", "") == (result.returncode, result.stdout, result.stderr)
        assert [f"dir:{nest}/full/rootfs"] == settings(nest, "full", "lxc.rootfs.path")
        assert not os.path.exists(f"{nest}/full/lxc_rdepends")
        seen = lxccopy("-q", "-n", "full", "-e", "-t", "--", "sh", "-c", LOOK)
        assert (0, SEEN[source], "") == (seen.returncode, seen.stdout, seen.stderr)
        assert "full\n" == Path(nest, "full/rootfs/etc/hostname").read_text(encoding="ascii")


def test_without_rsync(lxccopy: Cli, nest: str, tmp_path: Path) -> None:
    """Where a copy needs rsync and there is none, one sentence says so before anything is made."""
    path = few_programs(tmp_path / "few")
    left = Left(nest)
    for options in (["-n", "base"], ["-n", "snap"], ["-n", "kept"], ["-n", "snap", "-s"]):
        result = lxccopy(*options, "-N", "copy", env=path)
        assert (1, "") == (result.returncode, result.stdout)
        assert result.stderr.endswith(" needs the program rsync, which is not installed (package rsync)\n"), (
            result.stderr
        )
        assert 1 == len(result.stderr.splitlines())
        left.check()
    for options in (["-n", "base", "-s"], ["-n", "kept", "-s"]):
        with removed(nest, "copy"):
            assert 0 == lxccopy(*options, "-N", "copy", env=path).returncode
    assert 3 == lxccopy("-n", "kept", "-e", "-t", "--", "sh", "-c", "exit 3", env=path).returncode


@pytest.mark.parametrize("name", ["base", "snap"])
def test_running_bases(lxccopy: Cli, nest: str, name: str) -> None:
    """A base that runs, itself a snapshot or not, is copied with -a in each way, and goes on."""
    require(has("rsync"), "rsync is not installed")
    with Container(name, nest) as base:
        base.start()
        try:
            Path(f"/proc/{base.init_pid}/root/common").write_text("live\n", encoding="ascii")
            for options in (["-e"], ["-e", "-t"], ["-e", "-t", "--tmpfs-via=hook"]):
                refused = lxccopy("-q", "-n", name, *options, "--", "true")
                assert 125 == refused.returncode
                assert "is running; stop it first, or allow the copy of a running container with -a" in refused.stderr
                result = lxccopy("-q", "-a", "-n", name, *options, "--", "cat", "/common")
                assert (0, "live\n", "") == (result.returncode, result.stdout, result.stderr)
            for options in (["-s"], []):
                with removed(nest, "copy"):
                    assert 1 == lxccopy("-n", name, "-N", "copy", *options).returncode
                    result = lxccopy("-a", "-n", name, "-N", "copy", *options)
                    assert (0, "", "") == (result.returncode, result.stdout, result.stderr)
                    assert "live\n" == lxccopy("-q", "-n", "copy", "-e", "--", "cat", "/common").stdout
            assert "RUNNING" == base.state
        finally:
            base.stop()
            Path(nest, "base/rootfs/common").unlink(missing_ok=True)


def test_running_on_several_layers(lxccopy: Cli, nest: str) -> None:
    """A running container on several lower layers cannot be copied as an overlay, which is told, but fully."""
    require(has("rsync"), "rsync is not installed")
    with Container("kept", nest) as kept:
        kept.start()
        result = lxccopy("-a", "-n", "kept", "-e", "--", "true")
        assert 125 == result.returncode
        assert "is an overlay on several layers, of which there is no snapshot while it is running" in result.stderr
        with removed(nest, "full"):
            assert 0 == lxccopy("-a", "-n", "kept", "-N", "full").returncode
            assert SEEN["kept"] == lxccopy("-q", "-n", "full", "-e", "--", "sh", "-c", LOOK).stdout
        kept.stop()


TASKS = [["-e"], ["-e", "-t"], ["-e", "-t", "--tmpfs-via=hook"], ["-s"], []]
TASK_IDS = ["disk", "monitor", "hook", "snapshot", "full"]


@contextmanager
def copied(lxccopy: Cli, lxcpath: str, source: str, task: list[str]) -> Iterator[Container]:
    """A running copy of a container."""
    require(task or has("rsync"), "rsync is not installed")
    with removed(lxcpath, "copy"):
        result = lxccopy("-q", "-n", source, "-N", "copy", *task)
        assert (0, "", "") == (result.returncode, result.stdout, result.stderr)
        with Container("copy", lxcpath) as copy:
            if "-e" not in task:
                copy.start()
            yield copy
            copy.stop()


def points(container: Container) -> set[str]:
    """The mount points in a running container."""
    text = Path(f"/proc/{container.init_pid}/mountinfo").read_text(encoding="ascii")
    return {line.split()[4] for line in text.splitlines()}


@pytest.mark.parametrize("task", TASKS, ids=TASK_IDS)
def test_fstab_and_includes(lxccopy: Cli, lxcpath: str, tmp_path: Path, task: list[str]) -> None:
    """What the base's fstab and the files that it includes say, inside its directory or outside, holds in the copy."""
    outside = tmp_path / "outside.conf"
    outside.write_text(
        "lxc.environment = OUTSIDE=1\nlxc.mount.entry = tmpfs opt tmpfs defaults 0 0\n", encoding="ascii"
    )
    directory = Path(lxcpath, "rich")
    with plain(
        lxcpath,
        "rich",
        f"lxc.mount.fstab = {directory}/fstab",
        f"lxc.include = {outside}",
        f"lxc.include = {directory}/conf/inside.conf",
    ):
        (directory / "fstab").write_text("tmpfs mnt tmpfs defaults 0 0\n", encoding="ascii")
        (directory / "conf").mkdir()
        (directory / "conf/inside.conf").write_text(
            "lxc.mount.entry = tmpfs home tmpfs defaults 0 0\n", encoding="ascii"
        )
        before = tree(directory / "conf")
        with copied(lxccopy, lxcpath, "rich", task) as copy:
            assert {"/mnt", "/opt", "/home"} <= points(copy)
            (fstab,) = settings(lxcpath, "copy", "lxc.mount.fstab")
            assert fstab == f"{lxcpath}/copy/fstab"
            if not task:
                assert f"{lxcpath}/copy/conf/inside.conf" in settings(lxcpath, "copy", "lxc.include")
        assert before == tree(directory / "conf")


# All kinds but start, whose program liblxc looks for in the container.
HOOKS = ["clone", "pre-start", "start-host", "pre-mount", "mount", "autodev", "stop", "post-stop", "destroy"]
# How a hook may be written: its file in the container's directory, the value, and the arguments.
FORMS = {
    "direct": ("{hook}-direct", "{path}", ""),
    "sub": ("hooks/deep/{hook}-sub", "{path}", ""),
    "arguments": ("hooks/{hook}-arguments", "{path} one 'two words'", "<one><two words>"),
    "quoted": ("{hook}-quoted", '"{path}"', ""),
    "quoted-program": ("{hook}-quoted-program", '"{path}" one', "<one>"),
    "blank": ("my {hook}", "'{path}' \"a b\"", "<a b>"),
}


def hook_file(form: str, hook: str, directory: str) -> str:
    """The path of a hook's file."""
    return f"{directory}/{FORMS[form][0].format(hook=hook)}"


def add_hooks(form: str, directory: str, log: Path) -> None:
    """Add a hook of every kind to a container, each of which writes its path and its arguments to a log."""
    for hook in HOOKS:
        path = hook_file(form, hook, directory)
        script(Path(path), f'{{ echo {hook} {form} "$0"; printf \'<%s>\' "$@"; echo; }} >> {log}; exit 0')
        lxcpath, _, name = directory.rpartition("/")
        configure(lxcpath, name, f"lxc.hook.{hook} = {FORMS[form][1].format(path=path)}")


def check_hooks(form: str, log: Path, copy: str, *, base: str, but: str = "") -> None:
    """Check that they ran for a copy, from its directory: that for its making from the base's."""
    lines = log.read_text(encoding="ascii").splitlines()
    ran = dict(zip(lines[::2], lines[1::2]))
    for hook in HOOKS:
        path = hook_file(form, hook, base if hook == "clone" else copy)
        (found,) = [line for line in ran if line.startswith(f"{hook} {form} ")] or [""]
        assert ("" if hook == but else f"{hook} {form} {path}") == found.replace("//", "/")
        assert ran.get(found, "").startswith(f"{FORMS[form][2]}<copy><lxc><{hook}>" if hook != but else "")


@pytest.mark.parametrize("task", TASKS, ids=TASK_IDS)
def test_hooks(lxccopy: Cli, lxcpath: str, tmp_path: Path, task: list[str]) -> None:
    """Hooks of every kind in the base's directory run for the copy, from the copy's directory, with their arguments."""
    log = tmp_path / "log"
    forms = ["direct", "sub", "arguments", "quoted"]
    with plain(lxcpath, "hooked", "lxc.hook.start = /from/start") as directory:
        for form in forms:
            add_hooks(form, str(directory), log)
        script(directory / "rootfs/from/start", "echo $1 $2 $3 > /from/it")
        with copied(lxccopy, lxcpath, "hooked", task) as copy:
            assert "copy lxc start\n" == Path(f"/proc/{copy.init_pid}/root/from/it").read_text(encoding="ascii")
        for form in forms:
            # liblxc's monitor, which removes a throwaway copy, does not run that one
            check_hooks(form, log, f"{lxcpath}/copy", base=str(directory), but="destroy" if "-e" in task else "")


@pytest.mark.parametrize("form", ["quoted-program", "blank"])
def test_hooks_with_a_quoted_program(lxccopy: Cli, lxcpath: str, tmp_path: Path, form: str) -> None:
    """The same where the program alone is in quotes, as the shell that runs a hook takes them."""
    log = tmp_path / "log"
    with plain(lxcpath, "hooked") as directory:
        add_hooks(form, str(directory), log)
        with copied(lxccopy, lxcpath, "hooked", ["-s"]):
            pass
        check_hooks(form, log, f"{lxcpath}/copy", base=str(directory))


@pytest.mark.parametrize("task", TASKS, ids=TASK_IDS)
@pytest.mark.parametrize(
    "how", ["direct in a file", "sub in a file", "arguments in a file", "arguments in a directory", "blank in a nested"]
)
def test_hooks_of_included_files(lxccopy: Cli, lxcpath: str, tmp_path: Path, how: str, task: list[str]) -> None:
    """Hooks that an included file of the base's directory has run for the copy; a full copy needs its base no more."""
    form, _, _, include = how.split()
    log = tmp_path / "log"
    with plain(lxcpath, "hooked") as directory:
        before = (directory / "config").read_text(encoding="ascii")
        add_hooks(form, str(directory), log)
        after = (directory / "config").read_text(encoding="ascii")
        (directory / "conf").mkdir()
        (directory / "conf/hooks.conf").write_text(after[len(before) :], encoding="ascii")
        (directory / "nested.conf").write_text(f"lxc.include = {directory}/conf/hooks.conf\n", encoding="ascii")
        included = {"file": "conf/hooks.conf", "directory": "conf", "nested": "nested.conf"}[include]
        (directory / "config").write_text(f"{before}lxc.include = {directory}/{included}\n", encoding="ascii")
        with copied(lxccopy, lxcpath, "hooked", task):
            inside = "hooked" if task else "copy"
            assert [f"{lxcpath}/{inside}/{included}"] == settings(lxcpath, "copy", "lxc.include")
        lines = log.read_text(encoding="ascii").splitlines()
        for hook in ("pre-start", "mount", "post-stop"):
            path = hook_file(form, hook, f"{lxcpath}/{inside}")
            assert [f"{hook} {form} {path}"] == [line for line in lines if line.startswith(f"{hook} ")]


def test_hooks_outside_stay(lxccopy: Cli, lxcpath: str, tmp_path: Path) -> None:
    """Hooks elsewhere, by name only, or below another container's directory are left as they are (SPEC B7)."""
    outside = script(tmp_path / "outside", "exit 0")
    values = [
        "true",
        str(outside),
        f"{lxcpath}/hooked2/x || true",
        f"sh -c 'exit 0' {lxcpath}/hooked/x",
        f"{lxcpath}/hooked/in",
    ]
    lines = [f"lxc.hook.pre-start = {value}" for value in values]
    with plain(lxcpath, "hooked", *lines) as directory, removed(lxcpath, "copy"):
        script(directory / "in", "exit 0")
        assert 0 == lxccopy("-n", "hooked", "-N", "copy", "-s").returncode
        assert [*values[:4], f"{lxcpath}/copy/in"] == settings(lxcpath, "copy", "lxc.hook.pre-start")
        assert os.access(f"{lxcpath}/copy/in", os.X_OK)


def test_running_template_address(lxccopy: Cli, lxcpath: str) -> None:
    """With -M the copy of a running base whose address is a template has the very address that the base has now."""
    lines = ["lxc.net.1.type = veth", "lxc.net.1.hwaddr = 00:16:3e:xx:xx:xx"]
    with plain(lxcpath, "net", *lines), removed(lxcpath, "copy"), Container("net", lxcpath) as base:
        base.start()
        assert 0 == lxccopy("-q", "-n", "net", "-N", "copy", "-s", "-M", "-a").returncode
        assert [base.running_config("lxc.net.1.hwaddr")] == settings(lxcpath, "copy", "lxc.net.1.hwaddr")
        base.stop()


def test_missing_hook(lxccopy: Cli, lxcpath: str) -> None:
    """A hook whose file is missing is told by its path, and nothing is left."""
    with snapshot(lxcpath, "hooked", f"lxc.hook.pre-start = {lxcpath}/hooked/missing"):
        left = Left(lxcpath)
        for options in (["-e"], ["-N", "copy", "-s"]):
            result = lxccopy("-n", "hooked", *options)
            assert (1, "") == (result.returncode, result.stdout)
            assert f"cannot copy {lxcpath}/hooked/missing" in result.stderr
            left.check()


def test_outputs_follow(lxccopy: Cli, lxcpath: str) -> None:
    """Log and console files in the base's directory are in the copy's, for the copy, and others stay (SPEC B8)."""
    inside = f"{lxcpath}/logs"
    lines = [f"lxc.log.file = {inside}/it.log", f"lxc.console.logfile = {inside}/console", "lxc.log.level = INFO"]
    with snapshot(lxcpath, "logs", *lines), copied(lxccopy, lxcpath, "logs", ["-e"]):
        assert [f"{lxcpath}/copy/it.log"] == settings(lxcpath, "copy", "lxc.log.file")
        assert [f"{lxcpath}/copy/console"] == settings(lxcpath, "copy", "lxc.console.logfile")
        assert os.path.exists(f"{lxcpath}/copy/console")
        assert not os.path.exists(f"{inside}/console")


@pytest.fixture
def loop(lxccopy: Cli, lxcpath: str) -> Iterator[str]:
    """A container in an image file."""
    require(
        has("mkfs.ext4") and has("rsync") and os.path.exists("/dev/loop-control"), "no loop devices, or no mkfs.ext4"
    )
    with removed(lxcpath, "loop"):
        result = lxccopy("-q", "-n", "base", "-N", "loop", "-B", "loop", "-L", "32M")
        require("oop device" not in result.stderr, result.stderr)
        assert (0, "", "") == (result.returncode, result.stdout, result.stderr)
        assert 32 << 20 <= os.path.getsize(f"{lxcpath}/loop/rootdev") <= (32 << 20) + 1
        yield "loop"


def test_loop(lxccopy: Cli, lxcpath: str, loop: str) -> None:
    """A container in an image is copied fully; as an overlay it is refused in a sentence."""
    left = Left(lxcpath)
    for options in (["-s", "-N", "copy"], ["-e"], ["-e", "-t"], ["-e", "-B", "overlay"]):
        result = lxccopy("-n", loop, *options)
        assert (1, "") == (result.returncode, result.stdout)
        assert "is stored as 'loop', of which" in result.stderr.replace("which no overlay can be put on", "of which")
        assert 1 == len(result.stderr.splitlines())
        left.check()
    with removed(lxcpath, "copy"):
        result = lxccopy("-q", "-n", loop, "-N", "copy")
        assert (0, "", "") == (result.returncode, result.stdout, result.stderr)
        with Container("copy", lxcpath) as copy:
            copy.start()
            assert "copy" == copy.config("lxc.uts.name")
            assert os.path.exists(f"/proc/{copy.init_pid}/root/bin/busybox")


def command(*words: str) -> None:
    """Run a program that must not fail."""
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, timeout=60)


@pytest.fixture
def btrfs(lxcpath: str, tmp_path: Path) -> Iterator[str]:
    """An lxcpath on a btrfs with a container, tree, on a subvolume."""
    require(lxcpath and has("mkfs.btrfs") and has("btrfs"), "there is no mkfs.btrfs")
    require(os.path.exists("/dev/loop-control"), "there are no loop devices")
    image, place = tmp_path / "image", tmp_path / "btrfs"
    with open(image, "wb") as file:
        file.truncate(256 << 20)
    place.mkdir()
    command("mkfs.btrfs", "-q", str(image))
    mounted = subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=False, timeout=60)
    require(mounted.returncode == 0, "no btrfs can be mounted")
    try:
        create_base("tree", lxcpath=str(place)).close()
        rootfs = f"{place}/tree/rootfs"
        os.rename(rootfs, f"{rootfs}.old")
        command("btrfs", "subvolume", "create", rootfs)
        command("cp", "-a", f"{rootfs}.old/.", rootfs)
        command("rm", "-r", f"{rootfs}.old")
        config = Path(place, "tree/config")
        config.write_text(config.read_text(encoding="ascii").replace("= dir:", "= btrfs:"), encoding="ascii")
        yield str(place)
    finally:
        command("umount", str(place))
        command("rm", "-rf", f"/run/lxc/lock{place}")


def test_btrfs(lxccopy: Cli, btrfs: str) -> None:
    """Snapshots of a btrfs subvolume are subvolumes, and throwaway copies of it run, which lxc-copy's cannot (B7)."""
    look = "cat /etc/hostname; echo new > /new; exit 4"
    result = lxccopy("-q", "-n", "tree", "-N", "leaf", "-e", "--", "sh", "-c", look, path=btrfs)
    assert (4, "leaf\n", "") == (result.returncode, result.stdout, result.stderr)
    assert ["tree"] == os.listdir(btrfs)
    refused = lxccopy("-q", "-n", "tree", "-e", "-t", "--", "true", path=btrfs)
    assert 125 == refused.returncode
    assert "is stored as 'btrfs', which no overlay can be put on" in refused.stderr
    with removed(btrfs, "leaf"):
        result = lxccopy("-n", "tree", "-N", "leaf", "-s", path=btrfs)
        assert (0, "", "") == (result.returncode, result.stdout, result.stderr)
        assert 256 == os.stat(f"{btrfs}/leaf/rootfs").st_ino  # that of every subvolume's root
        with Container("leaf", btrfs) as leaf:
            leaf.start()
            assert "leaf\n" == Path(f"/proc/{leaf.init_pid}/root/etc/hostname").read_text(encoding="ascii")
    assert ["tree"] == os.listdir(btrfs)


def test_btrfs_with_mounts(lxccopy: Cli, btrfs: str, tmp_path: Path) -> None:
    """What is mounted in a throwaway copy of a subvolume is there, also where links of the base lead to."""
    (tmp_path / "mark").write_text("mark\n", encoding="ascii")
    Path(btrfs, "tree/rootfs/link").symlink_to("/mnt")
    mount = f"bind={tmp_path}/mark:/mnt/a,overlay={tmp_path}:/opt,bind={tmp_path}:/link/b:ro"
    result = lxccopy(
        "-q", "-n", "tree", "-e", "-m", mount, "--", "cat", "/mnt/a", "/opt/mark", "/mnt/b/mark", path=btrfs
    )
    assert (0, "mark\n" * 3, "") == (result.returncode, result.stdout, result.stderr)
    assert ["tree"] == os.listdir(btrfs)


def test_btrfs_rename(lxccopy: Cli, btrfs: str) -> None:
    """A container on a subvolume is renamed in place, and snapshots of subvolumes too; lxc-copy leaves the old (B7)."""
    inode = os.stat(f"{btrfs}/tree/rootfs/bin/busybox").st_ino
    with removed(btrfs, "leaf", "new", "oak"):
        for old, new in (("tree", "oak"), ("oak", "new")):
            result = lxccopy("-n", old, "-N", new, "-R", path=btrfs)
            assert (0, "", "") == (result.returncode, result.stdout, result.stderr)
            assert [new] == os.listdir(btrfs)
        assert inode == os.stat(f"{btrfs}/new/rootfs/bin/busybox").st_ino
        assert 0 == lxccopy("-n", "new", "-N", "twig", "-s", path=btrfs).returncode
        result = lxccopy("-n", "twig", "-N", "leaf", "-R", path=btrfs)
        assert (0, "", "") == (result.returncode, result.stdout, result.stderr)
        result = lxccopy("-q", "-n", "leaf", "-e", "-K", "--", "cat", "/etc/hostname", path=btrfs)
        assert (0, "leaf\n", "") == (result.returncode, result.stdout, result.stderr)


def test_btrfs_full_copy(lxccopy: Cli, btrfs: str) -> None:
    """A full copy of a btrfs subvolume starts, and its name in the original is untouched."""
    with removed(btrfs, "full"):
        result = lxccopy("-n", "tree", "-N", "full", path=btrfs)
        assert (0, "", "") == (result.returncode, result.stdout, result.stderr)
        with Container("full", btrfs) as full:
            full.start()
            assert "full\n" == Path(f"/proc/{full.init_pid}/root/etc/hostname").read_text(encoding="ascii")
    assert "tree\n" == Path(btrfs, "tree/rootfs/etc/hostname").read_text(encoding="ascii")


def test_no_copy_becomes_btrfs(lxccopy: Cli, lxcpath: str) -> None:
    """A copy of a directory as btrfs, which with lxc-copy is a plain directory, is refused (SPEC A3.4)."""
    left = Left(lxcpath)
    result = lxccopy("-n", "base", "-N", "copy", "-B", "btrfs")
    assert (1, "") == (result.returncode, result.stdout)
    assert "use -B dir" in result.stderr
    left.check()
