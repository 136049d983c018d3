# SPDX-License-Identifier: LGPL-2.1-or-later
"""lxc-copy's defects, by the paragraph of SPEC.md that tells each: none of them can happen here.

ELSEWHERE has those that other tests are about.
"""

from __future__ import annotations

import ast
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from conftest import ROOT, Cli, Left, require
from live_helpers import WAYS, call_each, changes, few_programs, has, plain, removed, script, settings, snapshot, tree

from lxccopy_ffi import EphemeralCopy

ELSEWHERE = (
    ("A2.2", "live/test_output.py::test_no_log_file"),
    ("A2.9", "live/test_failures.py::test_bad_input"),
    ("A3.3", "live/test_rename.py::test_snapshots"),
    ("A3.3", "live/test_rename.py::test_rootfs_elsewhere"),
    ("A3.4", "live/test_nested.py::test_no_copy_becomes_btrfs"),
    ("A3.4", "live/test_nested.py::test_full_copies"),
    ("A4", "live/test_output.py::test_order_in_a_pipe"),
    ("A4.4", "live/test_foreground.py::test_signals_without_a_terminal"),
    ("A5.1", "live/test_failures.py::test_storage"),
    ("A5.4", "live/test_tmpfs.py::test_failing_mount"),
    ("A5.5", "live/test_tmpfs.py::test_clone_hook_output_is_seen"),
    ("A5.5", "live/test_nested.py::test_throwaway_copies"),
    ("A5.6", "live/test_tmpfs.py::test_hook_in_an_unusual_path"),
    ("A5.7", "live/test_mounts.py::test_overlay_in_memory"),
    ("A6.7", "live/test_mounts.py::test_binds"),
    ("A6.8", "live/test_mounts.py::test_overlay"),
    ("B1", "live/test_oneshot.py::test_status"),
    ("B1", "live/test_oneshot.py::test_same_name"),
    ("B1", "live/test_signals.py::test_ends_the_command"),
    ("B7", "live/test_nested.py::test_btrfs"),
    ("B7", "live/test_nested.py::test_hooks"),
    ("B7", "live/test_nested.py::test_hooks_outside_stay"),
    ("B7", "live/test_nested.py::test_fstab_and_includes"),
    ("B7", "live/test_rename.py::test_in_place"),
    ("B8", "live/test_copies.py::test_host_name_link"),
    ("B8", "live/test_copies.py::test_not_started_at_boot"),
)


@pytest.mark.parametrize(("paragraph", "test"), ELSEWHERE)
def test_elsewhere(paragraph: str, test: str) -> None:
    """Each test that is named for a paragraph is there, and says what holds."""
    file, _, name = test.partition("::")
    tests = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8")).body
    (found,) = [node for node in tests if isinstance(node, ast.FunctionDef) and node.name == name]
    assert ast.get_docstring(found), paragraph


@pytest.fixture
def nothing_happens(lxcpath: str, tmp_path: Path) -> Iterator[None]:
    """Fails the test if any file of the containers is touched, or any is made."""
    before = tree(lxcpath)
    left = Left(lxcpath)
    yield
    left.check()
    assert set() == changes(before, tree(lxcpath))
    assert not [path for path in tmp_path.rglob("*") if "pwned" in path.name]


def refuse(lxcpath: str, words: str, *calls: Sequence[str], status: int = 1, cwd: Path | None = None) -> None:
    """Call the command line with each list of arguments, which must say one line with these words and do nothing."""
    for call, (found, out, err) in zip(calls, call_each(lxcpath, *calls, cwd=cwd)):
        assert (status, "") == (found, out), call
        assert err.startswith("lxccopy: "), call
        assert words in err, call
        assert 1 == len(err.splitlines()), call


TASKS = [["-s"], ["-e"], ["-e", "-t"], [], ["-R"]]


@pytest.mark.usefixtures("nothing_happens")
def test_a1_16_part_of_a_storage_type(lxcpath: str) -> None:
    """A part of "overlay", also an empty one, or any other word is no storage type (SPEC A1.16)."""
    kinds = ["o", "ov", "overla", "", "overlayfsx", "bogus", "aufs", "overlay\n", "OVERLAY"]
    refuse(
        lxcpath, "storage type", *(["-n", "base", "-N", "new", *task, "-B", kind] for kind in kinds for task in TASKS)
    )


@pytest.mark.usefixtures("nothing_happens")
def test_a1_17_wrong_size(lxcpath: str) -> None:
    """A wrong size is an error, where lxc-copy takes the default or wraps around (SPEC A1.17)."""
    sizes = ["10X", "abc", "1.5G", "", "-5", "9999999999999999999999T", "10 MB 3", "0x", "10KK", "1e3", "\u0663"]
    refuse(lxcpath, "size", *(["-n", "base", "-N", "new", "-B", "loop", f"--fssize={size}"] for size in sizes))


def test_a1_18_hook_arguments(lxccopy: Cli, lxcpath: str, tmp_path: Path) -> None:
    """A clone hook gets its arguments as they are, never through a shell, and never the command (SPEC A1.18)."""
    log = tmp_path / "log"
    hook = script(tmp_path / "hook", f"shift 3; for word; do echo \"<$word>\" >> '{log}'; done; echo end >> '{log}'")
    odd = [
        "a1",
        "a 2",
        f"$(touch {tmp_path}/pwned)",
        f"`touch {tmp_path}/pwned`",
        "'",
        '"',
        "\\",
        "*",
        "; true",
        "a\nb",
        "",
    ]
    expected = "".join(f"<{word}>\n" for word in odd) + "end\n"
    with snapshot(lxcpath, "hooked", f"lxc.hook.clone = {hook}"), removed(lxcpath, "copy"):
        assert 0 == lxccopy("-n", "hooked", "-N", "copy", "-s", "-B", "overlay", "--", *odd).returncode
        assert expected == log.read_text(encoding="ascii")
        log.unlink()
        words = [f"--hook-arg={word}" for word in odd]
        result = lxccopy("-q", "-n", "hooked", "-e", *words, "--", "echo", f"$(touch {tmp_path}/pwned)", "a  b;")
        assert (0, f"$(touch {tmp_path}/pwned) a  b;\n") == (result.returncode, result.stdout)
        assert expected == log.read_text(encoding="ascii")
    assert ["hook", "log"] == sorted(os.listdir(tmp_path))


@pytest.mark.usefixtures("nothing_happens")
def test_a2_6_directory_as_rcfile(lxcpath: str, tmp_path: Path) -> None:
    """An rcfile that is a directory, missing, or no config file is an error; lxc-copy crashes (SPEC A2.6)."""
    (tmp_path / "text").write_text("nonsense\n", encoding="ascii")
    (tmp_path / "key").write_text("lxc.nonsense = 1\n", encoding="ascii")
    os.mkfifo(tmp_path / "pipe")
    files = [tmp_path, *(tmp_path / name for name in ("missing", "pipe", "text", "key"))]
    refuse(
        lxcpath, "", *(["-n", "base", "-N", "new", *task, "--rcfile", str(file)] for task in TASKS for file in files)
    )


def test_a2_6_rcfile(lxccopy: Cli, lxcpath: str, tmp_path: Path) -> None:
    """A good rcfile is used in place of the container's own configuration, and that one stays as it is."""
    config = Path(lxcpath, "base", "config")
    before = config.read_bytes()
    other = tmp_path / "other"
    other.write_bytes(before + b"lxc.environment = FROM=rcfile\n")
    result = lxccopy(
        "-q", "-n", "base", "-e", "-t", "--rcfile", str(other), "--", "sh", "-c", "tr '\\0' '\\n' </proc/1/environ"
    )
    assert 0 == result.returncode
    assert "FROM=rcfile" in result.stdout.splitlines()
    assert before == config.read_bytes()


@pytest.mark.usefixtures("nothing_happens")
def test_a4_1_kept_in_memory(lxcpath: str) -> None:
    """A copy in memory cannot be kept: that is said before it is made, where lxc-copy leaves one (SPEC A4.1)."""
    more = [[], ["-N", "new"], ["--tmpfs-via=hook"], ["-F"]]
    refuse(lxcpath, "-t and -D contradict each other", *(["-n", "base", "-e", "-t", "-D", *extra] for extra in more))


@pytest.mark.usefixtures("nothing_happens")
def test_a5_1_memory_without_overlay(lxcpath: str) -> None:
    """Memory for another storage than overlay is refused before a copy is made (SPEC A5.1)."""
    words = "A container can only be placed on a tmpfs when the overlay storage driver is used"
    kinds = ["dir", "btrfs", "loop", "zfs"]
    refuse(lxcpath, words, *(["-n", "base", "-N", "new", "-e", "-t", "-B", kind] for kind in kinds))


@pytest.mark.usefixtures("nothing_happens")
def test_a5_6_shell_text_in_names(lxcpath: str, tmp_path: Path) -> None:
    """No name reaches a shell: those that one would take apart are refused (SPEC A5.6)."""
    names = [
        "x$(touch pwned)",
        "x`touch pwned`",
        "x;touch pwned",
        "a b",
        "a'b",
        'a"b',
        "a\\b",
        "a|b",
        "-x",
        "~",
        "*",
        "#",
    ]
    options = [[option, *way] for option in ("-N", "-n") for way in WAYS.values()]
    for name in names:
        calls = [["-n", "base", f"{option}{name}", "-e", *way, "--", "true"] for option, *way in options]
        refuse(lxcpath, f"name {name!r} is not allowed", *calls, status=125, cwd=tmp_path)


@pytest.mark.parametrize("way", WAYS)
def test_a5_6_shell_text_in_paths(lxccopy: Cli, tmp_path: Path, way: str) -> None:
    """A directory whose name a shell would run is used as it is (SPEC A5.6)."""
    odd = tmp_path / "p $(touch pwned) 'q' \"r\" `touch pwned` ; touch pwned &"
    odd.mkdir()
    result = lxccopy("-q", "-n", "base", "-N", "me", "-p", str(odd), "-e", *WAYS[way], "--", "hostname", cwd=tmp_path)
    assert (0, "me\n", "") == (result.returncode, result.stdout, result.stderr)
    assert [] == os.listdir(odd)
    assert [odd.name] == os.listdir(tmp_path)
    assert not os.path.exists("/pwned")


@pytest.mark.usefixtures("nothing_happens")
def test_a6_1_silent_mount_specs(lxcpath: str) -> None:
    """What is no mount is an error, whatever the task; lxc-copy ignores most of it in silence (SPEC A6.1)."""
    specs = [
        "",
        "/etc",
        "aufs=/etc",
        "bogus=/etc",
        "BIND=/etc",
        " bind=/etc",
        "bind=/etc,ro",
        "bind=/etc,",
        ",bind=/etc",
    ]
    specs += ["bind", "bind=", "bind=/a:/b:ro:x", "overlay=/etc:/b:ro", "overlay=", "bind=::", "type=bind"]
    specs += ["type=nfs,src=/etc", "type=bind,src=/etc,x", "type=overlay,src=/etc,dst=/mnt,ro"]
    calls = [["-n", "base", "-N", "new", *task, "-m", spec] for task in TASKS for spec in specs]
    refuse(lxcpath, "", *calls)


@pytest.mark.usefixtures("nothing_happens")
def test_a6_3_part_of_an_option(lxcpath: str) -> None:
    """Only ro and rw are options, never a part of them, and neither is a target (SPEC A6.3, A6.4)."""
    specs = [
        "bind=/etc:r",
        "bind=/etc:w",
        "bind=/etc:/mnt:r",
        "bind=/etc:/mnt:o",
        "bind=/etc:/mnt:xx",
        "overlay=/etc:ro",
    ]
    refuse(lxcpath, "the mount", *(["-n", "base", "-e", "-m", spec, "--", "true"] for spec in specs), status=125)


def test_a6_5_dots(lxccopy: Cli, tmp_path: Path) -> None:
    """Dots in paths are resolved, and never lead out of the copy (SPEC A6.5)."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "mark").write_text("mark\n", encoding="ascii")
    spec = f"bind={source}/../source/.:/../../mnt/./x/../y,overlay={source}/../source:../../../../opt/"
    result = lxccopy("-q", "-n", "base", "-e", "-m", spec, "--", "cat", "/mnt/y/mark", "/opt/mark")
    assert (0, "mark\nmark\n", "") == (result.returncode, result.stdout, result.stderr)
    assert ["source"] == os.listdir(tmp_path)


@pytest.mark.usefixtures("nothing_happens")
def test_a6_7_missing_source(lxcpath: str) -> None:
    """A source that is missing, or cannot be mounted so, is an error before a copy is made (SPEC A6.7)."""
    specs = ["bind=/no/such", "overlay=/no/such", "overlay=/etc/passwd", "bind=/", "overlay=/:/"]
    refuse(lxcpath, "mount", *(["-n", "base", "-e", "-m", spec, "--", "true"] for spec in specs), status=125)


@pytest.mark.parametrize("options", [[], ["-t", "--tmpfs-via=hook"]], ids=["disk", "hook"])
def test_a6_8_overlay_with_an_id_map(lxccopy: Cli, lxcpath: str, tmp_path: Path, options: list[str]) -> None:
    """An overlay in a copy with an id map is writable for its root; with lxc-copy it is not (SPEC A6.8)."""
    parents = [tmp_path, *list(tmp_path.parents)[:2], Path(lxcpath)]
    modes = [path.stat().st_mode for path in parents]
    source = tmp_path / "source"
    source.mkdir()
    path = few_programs(tmp_path / "few")  # without which root needs no subordinate ids
    try:
        for parent in parents:
            parent.chmod(0o755)
        with plain(lxcpath, "mapped", "lxc.idmap = u 0 100000 65536", "lxc.idmap = g 0 100000 65536") as directory:
            subprocess.run(["chown", "-R", "-h", "100000:100000", str(directory / "rootfs")], check=True)
            directory.chmod(0o755)
            result = lxccopy(
                *("-q", "-n", "mapped", "-e", *options, "-m", f"overlay={source}:/mnt"),
                *("--", "sh", "-c", "echo x > /mnt/new && cat /mnt/new"),
                env=path,
            )
            assert (0, "x\n", "") == (result.returncode, result.stdout, result.stderr)
    finally:
        for parent, mode in zip(parents, modes):
            parent.chmod(mode)
    assert [] == os.listdir(source)


def test_b1_cgroups(lxccopy: Cli, lxcpath: str) -> None:
    """Starting moves nobody into a container's cgroup, and runs leave none behind (SPEC B1)."""
    before = Path("/proc/self/cgroup").read_text(encoding="ascii")
    with EphemeralCopy("base", "me", lxcpath=lxcpath) as copy:
        assert before == Path("/proc/self/cgroup").read_text(encoding="ascii")
        copy.run(["true"], check=True)
    for _ in range(3):
        assert 0 == lxccopy("-q", "-n", "base", "-N", "leaky", "-e", "--", "true").returncode
    found = [
        path for path, _, _ in os.walk("/sys/fs/cgroup") if path.rpartition("/")[2].endswith((".leaky", ".leaky-1"))
    ]
    assert [] == found


def test_b1_destroyed_on_return(lxcpath: str) -> None:
    """The copy's directory is gone the moment that we return, and its name is free (SPEC B1)."""
    for _ in range(5):
        with EphemeralCopy("base", "again", lxcpath=lxcpath) as copy:
            copy.run(["true"], check=True)
        assert not os.path.lexists(f"{lxcpath}/again")


BAD_NAMES = [
    "..",
    ".",
    "",
    "../esc",
    "a/b",
    "/abs",
    "nl\nlxc.ephemeral = 7",
    "x" * 65,
    "x" * 252,
    "x\x01",
    "a:b",
    "a,b",
    "ä",
]


@pytest.mark.usefixtures("nothing_happens")
def test_b6_names(lxcpath: str) -> None:
    """Names that lead elsewhere, or into the config, are refused; with -N .. lxc-copy removes the lxcpath (SPEC B6)."""
    refuse(lxcpath, "new name", *(["-n", "base", "-N", name, *task] for name in BAD_NAMES for task in TASKS))
    refuse(lxcpath, "name", *(["-n", name, "-N", "new", *task] for name in BAD_NAMES for task in TASKS))


@pytest.mark.usefixtures("nothing_happens")
def test_b6_line_ends(lxcpath: str, tmp_path: Path) -> None:
    """No argument puts another line into a config file (SPEC B6)."""
    evil = f"{tmp_path}/x\nlxc.ephemeral = 7"
    os.mkdir(evil)
    refuse(
        lxcpath, "has the character", ["-n", "base", "-N", "new", "-s", "-p", evil], ["-n", "base", "-e", "-p", evil]
    )
    refuse(evil, "has the character", ["-n", "base", "-N", "new", "-s"], ["-n", "base", "-e"])
    mounts = [f"bind={evil}:/mnt", f"overlay={tmp_path}:/mnt\nlxc.ephemeral = 7", f'type=bind,"src={evil}"']
    refuse(lxcpath, "character", *(["-n", "base", "-e", "-m", mount] for mount in mounts))


def test_b6_relative_lxcpath(lxccopy: Cli, lxcpath: str) -> None:
    """A relative -P, of which lxc-copy makes no snapshot, is good (SPEC B6)."""
    parent, _, name = lxcpath.rpartition("/")
    with removed(lxcpath, "new"):
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        assert 0 == lxccopy("-n", "base", "-N", "new", "-s", path=name, cwd=parent, env=environment).returncode
        (root,) = settings(lxcpath, "new", "lxc.rootfs.path")
        assert root.startswith(f"overlay:{lxcpath}/base/rootfs:{lxcpath}/new/")
        result = lxccopy(
            "-q", "-n", "base", "-e", "-t", "--", "echo", "hi", path=f"./{name}/", cwd=parent, env=environment
        )
        assert (0, "hi\n") == (result.returncode, result.stdout)


@pytest.mark.parametrize("task", [["-s"], [], ["-e"], ["-e", "-t", "--tmpfs-via=hook"]])
@pytest.mark.parametrize("kind", ["link", "file"])
def test_b8_links_in_the_base(lxccopy: Cli, lxcpath: str, tmp_path: Path, task: list[str], kind: str) -> None:
    """No file of the host is written through links of the base, in whichever file or directory they are (SPEC B8)."""
    require(task or has("rsync"), "rsync is not installed")
    victim = tmp_path / "victim"
    victim.mkdir()
    for name in ("hostname", "hosts", "machine-id"):
        (victim / name).write_text("127.0.1.1 evil\n", encoding="ascii")
    before = tree(victim)
    with plain(lxcpath, "evil") as directory, removed(lxcpath, "copy"):
        etc = directory / "rootfs/etc"
        if kind == "link":
            os.rename(etc, directory / "rootfs/old")
            etc.symlink_to(victim)
        else:
            for name in ("hostname", "hosts", "machine-id"):
                (etc / name).unlink(missing_ok=True)
                (etc / name).symlink_to(f"../../../../../../../../../{victim}/{name}")
        result = lxccopy("-q", "-n", "evil", "-N", "copy", *task)
        assert result.returncode in (0, 1)
        if task == ["-s"]:
            assert (0, "") == (result.returncode, result.stderr)
    assert set() == changes(before, tree(victim))


def test_b10_existing_directory(lxcpath: str) -> None:
    """What has the new name already stays untouched, be it a directory, a file or a link (SPEC B10)."""

    def full(path: Path) -> None:
        path.mkdir()
        (path / "precious").write_text("x", encoding="ascii")

    def with_rootfs(path: Path) -> None:
        (path / "rootfs").mkdir(parents=True)

    def link(path: Path) -> None:
        path.symlink_to("/no/such")

    makers: list[Callable[[Path], object]] = [full, with_rootfs, Path.mkdir, Path.touch, link]
    target = Path(lxcpath, "taken")
    with snapshot(lxcpath, "other"):
        for make in makers:
            make(target)
            before = tree(lxcpath)
            refuse(lxcpath, "there is already a 'taken'", *(["-n", "other", "-N", "taken", *task] for task in TASKS))
            assert set() == changes(before, tree(lxcpath))
            subprocess.run(["rm", "-r", str(target)], check=True)


def test_b7_failing_clone_hook(lxccopy: Cli, lxcpath: str) -> None:
    """A copy whose hook fails is not left, also where its root file system is not managed by liblxc (SPEC B7)."""
    for lines in (["lxc.hook.clone = sh -c 'exit 7'"], ["lxc.hook.clone = sh -c 'exit 7'", "lxc.rootfs.managed = 0"]):
        with plain(lxcpath, "failing", *lines):
            left = Left(lxcpath)
            for task in (["-s"], ["-e"], ["-e", "-t"]):
                result = lxccopy("-q", "-n", "failing", "-N", "new", *task)
                assert (1, "") == (result.returncode, result.stdout)
                assert "hook" in result.stderr
                left.check()
