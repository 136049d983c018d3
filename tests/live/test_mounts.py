# SPDX-License-Identifier: LGPL-2.1-or-later
"""What -m puts into a copy: at the right place, with the right rights, and never on the host."""

from __future__ import annotations

import csv
import io
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Cli, Left, mounts, require
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from live_helpers import WAYS, output, reboot, removed, tree

from lxccopy_ffi import Container, EphemeralCopy, LiblxcError, run
from lxccopy_ffi.mounts import Mount

# Letters that mean something in config files, in fstab, in overlay options, in shells, or to -m.
ODD = " #\\:,=\"'$();&*?[]%~!@+|<>`ä"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory of the host with a file, that everybody may write."""
    directory = tmp_path / "source"
    directory.mkdir()
    directory.chmod(0o1777)
    (directory / "old").write_text("from the host\n", encoding="ascii")
    return directory


@pytest.fixture
def base_links(lxcpath: str) -> Iterator[Path]:
    """The root directory of the base, whatever the test makes below its /links."""
    links = Path(lxcpath, "base", "rootfs", "links")
    links.mkdir()
    yield links
    shutil.rmtree(links)


@pytest.mark.parametrize("way", WAYS)
def test_binds(lxccopy: Cli, tmp_path: Path, source: Path, way: str) -> None:
    """Directories and files, several to an option, are the host's own; those with ro cannot be written."""
    one = tmp_path / "one file"
    one.write_text("a file\n", encoding="ascii")
    odd = tmp_path / "back\\slash a:b,c"
    odd.mkdir()
    (odd / "x").write_text("odd\n", encoding="ascii")
    script = (
        f"cat {source}/old /mnt/ro/old '/a b/file' /odd/x; echo inside > {source}/new; touch /mnt/ro/no && exit 9;"
        "echo more >> '/a b/file'; exit 5"
    )
    result = lxccopy(
        *("-q", "-n", "base", "-e", *WAYS[way]),
        *("-m", f"bind={source},bind={source}:/mnt/ro:ro"),
        *("-m", f"bind={one}:/a b/file:rw", "-m", f'type=bind,"src={odd}",dst=/odd'),
        *("--", "sh", "-c", script),
    )
    assert (5, "from the host\nfrom the host\na file\nodd\n") == (result.returncode, result.stdout)
    assert "Read-only file system" in result.stderr
    assert "inside\n" == (source / "new").read_text(encoding="ascii")
    assert "a file\nmore\n" == one.read_text(encoding="ascii")


@pytest.mark.parametrize("way", WAYS)
def test_overlay(lxcpath: str, source: Path, way: str) -> None:
    """An overlay shows its source, takes what any user of the copy writes, and leaves the source as it is."""
    options = {"disk": {}, "monitor": {"tmpfs": True}, "hook": {"tmpfs": True, "tmpfs_via": "hook"}}[way]
    before = tree(source)
    with EphemeralCopy(
        "base",
        lxcpath=lxcpath,
        mounts=[f"overlay={source}:/mnt/data,overlay={source}"],
        **options,  # type: ignore[arg-type]
    ) as copy:
        assert "from the host\n" * 2 == output(copy, f"cat /mnt/data/old {source}/old")
        assert "1777 0 0\n" == output(copy, "stat -c '%a %u %g' /mnt/data")
        as_nobody = "su -s /bin/sh nobody -c 'cat /mnt/data/old && echo mine > /mnt/data/new'; stat -c %u /mnt/data/new"
        assert "from the host\n65534\n" == output(copy, as_nobody)
        output(copy, "rm /mnt/data/old; mkdir /mnt/data/d; echo other > /mnt/data/new")
        assert "from the host\n" == output(copy, f"cat {source}/old; test ! -e {source}/new")
    assert before == tree(source)


@pytest.mark.parametrize("via", ["monitor", "hook"])
def test_overlay_in_memory(lxcpath: str, source: Path, via: str) -> None:
    """With -t what is written to an overlay goes to the tmpfs, and nothing of it below the copy's directory."""
    mount = f"overlay={source}:/mnt/data"
    with EphemeralCopy("base", lxcpath=lxcpath, mounts=[mount], tmpfs=True, tmpfs_via=via, tmpfs_size="16M") as copy:
        directory = Path(lxcpath, copy.name)
        before = {path: entry for path, entry in tree(directory).items() if path != ".lxccopy"}
        assert "16384" in output(copy, "df -k /mnt/data")
        (line,) = [line for line in output(copy, "cat /proc/self/mounts").splitlines() if " /mnt/data " in line]
        place = "/run/lxccopy/upper/delta#" if via == "monitor" else f"{directory}/overlay/delta#"
        assert f"upperdir={place}" in line
        result = copy.run(["dd", "if=/dev/zero", "of=/mnt/data/big", "bs=1M", "count=20"], capture_output=True)
        assert b"No space left on device" in result.stderr
        assert before == {path: entry for path, entry in tree(directory).items() if path != ".lxccopy"}


def test_overlay_on_disk(lxcpath: str, source: Path) -> None:
    """Without -t it goes to a directory beside the copy's own, and away with it."""
    with EphemeralCopy("base", lxcpath=lxcpath, mounts=[f"overlay={source}:/mnt"]) as copy:
        output(copy, "echo x > /mnt/new")
        (delta,) = Path(lxcpath, copy.name).glob("delta#*")
        assert ["new"] == os.listdir(delta)
        assert 0o1777 == delta.stat().st_mode & 0o7777


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["bind", "overlay"])
def test_targets_through_links(lxccopy: Cli, base_links: Path, source: Path, way: str, kind: str) -> None:
    """A target through links of the base is resolved inside the copy, wherever they lead, and never on the host."""
    (base_links / "real").mkdir()
    (base_links / "relative").symlink_to("real")
    (base_links / "absolute").symlink_to("/links/real")
    (base_links / "up").symlink_to("../../../../../links")
    (base_links / "host").symlink_to(source)
    (base_links / "deep").symlink_to("/links/missing/dir")
    targets = {
        "relative/a": "real/a",
        "absolute/b": "real/b",
        "up/real/c": "real/c",
        "host": source,
        "host/../d": "d",  # by its text, as lxc-copy means to
        "deep/e": "missing/dir/e",
        "relative": "real",
    }
    before = tree(source)
    specs = ",".join(f"{kind}={source}:/links/{target}" for target in reversed(list(targets)))
    script = ";".join(f"cat '/links/{place}/old' >/dev/null || echo no {place}" for place in targets.values())
    script = script.replace(f"/links/{source}", str(source))
    result = lxccopy("-q", "-n", "base", "-e", *WAYS[way], "-m", specs, "--", "sh", "-c", script)
    assert (0, "", "") == (result.returncode, result.stdout, result.stderr)
    left = {key: value for key, value in tree(source).items() if value[3] or key == "old"}
    assert before == left
    # a bind on a directory that is another bind has to make its place there, which is the source itself
    assert (set() if kind == "overlay" else {"a", "b", "c"}) == {path.name for path in source.iterdir()} - {"old"}


@pytest.mark.parametrize("way", WAYS)
def test_target_of_another_kind(lxccopy: Cli, lxcpath: str, source: Path, way: str) -> None:
    """A file cannot be mounted on a directory nor the other way round: that is an error, and leaves nothing."""
    left = Left(lxcpath)
    for spec in (f"bind={source}:/etc/hostname", f"bind={source}/old:/etc", f"overlay={source}:/etc/hostname"):
        result = lxccopy("-q", "-n", "base", "-e", *WAYS[way], "-m", spec, "--", "echo", "ran")
        assert (125, "") == (result.returncode, result.stdout)
        assert 1 == len(result.stderr.splitlines())
        left.check()


@pytest.mark.parametrize("target", ["/etc/hostname/below", "/links/circle/x"])
def test_impossible_target(lxccopy: Cli, base_links: Path, source: Path, target: str) -> None:
    """A target below a file, or behind links in a circle, is told before anything is made."""
    (base_links / "circle").symlink_to("circle")
    result = lxccopy("-n", "base", "-e", "-t", "-m", f"bind={source}:{target}", "--", "true")
    assert 125 == result.returncode
    assert f"lxccopy: cannot mount on {target} in 'base': " in result.stderr
    assert 1 == len(result.stderr.splitlines())


def test_detached_copy_has_its_mounts(lxccopy: Cli, lxcpath: str, source: Path) -> None:
    """A copy that is left running has its mounts; one whose mount is impossible is not left running."""
    with removed(lxcpath, "web"):
        assert 0 == lxccopy("-q", "-n", "base", "-N", "web", "-e", "-m", f"overlay={source}:/mnt").returncode
        with Container("web", lxcpath) as web:
            assert "from the host\n" == Path(f"/proc/{web.init_pid}/root/mnt/old").read_text(encoding="ascii")
    result = lxccopy("-q", "-n", "base", "-N", "web", "-e", "-m", f"bind={source}:/etc/hostname")
    assert 1 == result.returncode
    assert not os.path.exists(f"{lxcpath}/web")


def test_kept_copy_has_its_overlays_again(lxccopy: Cli, lxcpath: str, source: Path) -> None:
    """What was written to an overlay of a kept copy is there again after lxc-start."""
    require(shutil.which("lxc-start"), "lxc-start is not installed")
    with removed(lxcpath, "kept"):
        command = ["--", "sh", "-c", "echo kept > /mnt/new; rm /mnt/old"]
        result = lxccopy("-q", "-n", "base", "-N", "kept", "-e", "-D", "-m", f"overlay={source}:/mnt", *command)
        assert (0, "") == (result.returncode, result.stderr)
        assert ["old"] == os.listdir(source)
        subprocess.run(["lxc-start", "-P", lxcpath, "-n", "kept"], check=True, timeout=60)
        inside = subprocess.run(
            ["lxc-attach", "-P", lxcpath, "-n", "kept", "--", "sh", "-c", "ls /mnt; cat /mnt/new"],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )
        assert "new\nkept\n" == inside.stdout


def test_overlay_after_a_reboot(lxcpath: str, source: Path) -> None:
    """A rebooted copy in memory has its overlays again, with what was written to them."""
    with EphemeralCopy("base", lxcpath=lxcpath, tmpfs=True, mounts=[f"overlay={source}:/mnt"]) as copy:
        output(copy, "echo kept > /mnt/new")
        for _ in range(2):
            reboot(copy)
            assert "kept\nfrom the host\n" == output(copy, "cat /mnt/new /mnt/old")
    assert ["old"] == os.listdir(source)


def test_nothing_is_seen_on_the_host(lxcpath: str, source: Path) -> None:
    """No mount of a copy shows in the host's table."""
    before = mounts()
    with EphemeralCopy("base", lxcpath=lxcpath, tmpfs=True, mounts=[f"overlay={source}:/mnt,bind={source}:/opt"]):
        assert before == mounts()


def test_mount_objects(lxcpath: str, source: Path) -> None:
    """From Python a mount is an object or a text; a bind of a symbolic link shows what it leads to."""
    link = source.parent / "link"
    link.symlink_to(source)
    result = run(
        "base",
        ["cat", "/opt/old", "/mnt/old"],
        lxcpath=lxcpath,
        mounts=[Mount(link, "/opt", read_only=True), f"overlay={link}:/mnt"],
        capture_output=True,
        text=True,
    )
    assert (0, "from the host\n" * 2) == (result.returncode, result.stdout)


def test_base_of_another_kind_fails_in_python(lxcpath: str, source: Path) -> None:
    """From Python a mount that liblxc skips is an error of the start."""
    with pytest.raises(LiblxcError, match="nothing could be mounted on /etc/hostname") as caught:
        run("base", ["true"], lxcpath=lxcpath, mounts=[Mount(source, "/etc/hostname")])
    assert "start" == caught.value.operation


def _long_form(kind: str, source: str, target: str, *, read_only: bool) -> str:
    text = io.StringIO()
    fields = [f"type={kind}", f"src={source}", f"dst={target}", *(["ro"] if read_only else [])]
    csv.writer(text, lineterminator="").writerow(fields)
    return text.getvalue()


names = st.text("ab" + ODD, min_size=1, max_size=6)
places = st.lists(names | st.sampled_from([".", "..", ""]), max_size=3).map("/".join)
mount_lists = st.lists(
    st.tuples(st.sampled_from(["bind", "ro", "overlay"]), st.booleans(), names, places), min_size=1, max_size=8
)


@settings(
    derandomize=True,
    max_examples=15,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(wanted=mount_lists, way=st.sampled_from(["disk", "monitor", "hook"]))
def test_every_mount_is_where_it_says(
    lxcpath: str, tmp_path_factory: pytest.TempPathFactory, wanted: list[tuple[str, bool, str, str]], way: str
) -> None:
    """Whatever is in their paths, all mounts that are accepted are in the copy exactly where they say."""
    sources = tmp_path_factory.mktemp("sources")
    specs, expected = [], {}
    for number, (kind, is_file, name, place) in enumerate(wanted):
        source = sources / f"{number}{name}".replace("/", "")
        if is_file and kind != "overlay":
            source.write_text(f"{number}", encoding="ascii")
        else:
            source.mkdir()
            (source / "mark").write_text(f"{number}", encoding="ascii")
        target = f"/{number}/{place}/t{name.replace('/', '')}"
        where = os.path.normpath(target)
        if where.split("/")[1] != f"{number}":
            target, where = f"/{number}", f"/{number}"  # not among another one's
        specs.append(_long_form(kind.replace("ro", "bind"), str(source), target, read_only=kind == "ro"))
        expected[where] = f"{number}"
    options = {"disk": {}, "monitor": {"tmpfs": True}, "hook": {"tmpfs": True, "tmpfs_via": "hook"}}[way]
    with EphemeralCopy("base", lxcpath=lxcpath, mounts=specs, **options) as copy:  # type: ignore[arg-type]
        root = f"/proc/{copy.container.init_pid}/root"
        found = {}
        for where in expected:
            inside = Path(root + where)
            found[where] = (inside / "mark" if inside.is_dir() else inside).read_text(encoding="ascii")
        mounted = {
            bytes(line.split(" ")[4], "utf-8").decode("unicode_escape").encode("latin-1").decode()
            for line in Path(f"/proc/{copy.container.init_pid}/mountinfo").read_text(encoding="utf-8").splitlines()
        }
    assert expected == found
    assert set() == set(expected) - mounted
    shutil.rmtree(sources)
