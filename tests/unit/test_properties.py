# SPDX-License-Identifier: LGPL-2.1-or-later
"""What holds for any name, path, mount, size and configuration: never a crash, never a shell, never a way out."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from conftest import ROOT
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir

from lxccopy_ffi import Mount, OptionError, identity, names, relocate, storage, tmpfs
from lxccopy_ffi._raw import IN_ROOT, openat2
from lxccopy_ffi.mounts import missing
from lxccopy_ffi.options import Parsed, parse

T = TypeVar("T")
Test = TypeVar("Test", bound=Callable[..., None])

set_hypothesis_home_dir(ROOT / ".cache/hypothesis")  # what it keeps is no part of the tree

FEW, SOME, MANY = (
    settings(max_examples=count, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
    for count in (40, 250, 400)
)

# Text that a command line can have: any bytes but the null, undecodable ones as surrogates; often what is special.
SPECIAL = ".,:;=#\\ \t\n\r\"'`$(){}[]*?~&|<>!%@^-+_0aZbcd\u00e4\u2028\x85\x0c\x7f\x1b\udcff"
ANY = st.characters(min_codepoint=1, exclude_categories=["Cs"], exclude_characters="/:,")
TEXTS = st.text(st.one_of(st.sampled_from(SPECIAL + "///"), ANY), max_size=16)
NAMES = st.text(st.one_of(st.sampled_from(SPECIAL), ANY), max_size=8)
PLAIN_NAMES = st.text(st.one_of(st.sampled_from(SPECIAL.translate({ord(","): None, ord(":"): None})), ANY), max_size=8)
WORDS = st.text(st.sampled_from("abrowz/.:, "), max_size=12)

# Parts of paths, and paths of such parts.
DOTS = st.sampled_from([".", "..", "", "a", "b", "ro", "etc"])
PARTS = st.one_of(DOTS, NAMES)
PATHS = st.lists(PARTS, min_size=1, max_size=5).map("/".join)
PLAIN_PATHS = st.lists(st.one_of(DOTS, PLAIN_NAMES), min_size=1, max_size=5).map("/".join)


class _RefusedError(Exception):
    """An argument was refused, which is as good as what the test is about."""


def accepted(check: Callable[..., T], *arguments: Any) -> T:
    """What a check returns; with one that it refuses, in one line, the test has passed."""
    try:
        return check(*arguments)
    except OptionError as error:
        assert "\n" not in str(error)  # noqa: PT017
        raise _RefusedError from error


def refusals_pass(test: Test) -> Test:
    """Let a test pass where accepted() was refused something."""

    @wraps(test)
    def wrapper(*arguments: Any, **keywords: Any) -> None:
        with suppress(_RefusedError):
            test(*arguments, **keywords)

    return cast("Test", wrapper)


# Names and paths


@MANY
@given(st.one_of(TEXTS, st.from_regex(r"[A-Za-z0-9_.\-]{1,70}\n?", fullmatch=True)))
@example("..")
@example("a\n")
@refusals_pass
def test_name(text: str) -> None:
    """A name that is accepted is the text itself, a plain file name of ASCII that is no option, hidden, or too long."""
    name = accepted(names.check_name, text)
    assert text == name
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name, re.ASCII)
    assert (f"/srv/{name}", name) == (os.path.normpath(f"/srv/{name}"), shlex.quote(name))


@MANY
@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}", fullmatch=True))
def test_random_name(base: str) -> None:
    """A random name of any container's is a legal name, and begins as that one's."""
    name = names.random_name(base)
    assert name == names.check_name(name)
    assert name.startswith(base[: names.MAX_NAME - 7] + "_")


@MANY
@given(st.one_of(TEXTS, PATHS, PATHS.map("/".__add__)))
@refusals_pass
def test_path(text: str) -> None:
    """A path that is accepted is absolute, plain, on one line, and fit for an overlay's options; again it stays."""
    path = accepted(names.check_path, text)
    assert os.path.abspath(text) == path
    assert path == names.check_path(path)
    assert set() == set(",:\\\n\r\0\t") & set(path)
    assert [path] == path.splitlines()
    assert set() == {".", ".."} & set(path.split("/"))


@MANY
@given(TEXTS)
@refusals_pass
def test_value(text: str) -> None:
    """A config value that is accepted is the text itself, and has nothing that would end its line for liblxc."""
    value = accepted(names.check_value, "lxc.x", text)
    assert text == value
    assert set() == set("\n\r\0") & set(value)


# Mounts


def fstab_fields(line: str) -> list[str]:
    """The fields of an fstab line as getmntent(3) has them."""
    fields = line.replace("\t", " ").strip(" ").split(" ")
    codes = {"\\040": " ", "\\011": "\t", "\\012": "\n", "\\134": "\\", "\\\\": "\\"}
    return [re.sub(r"\\(040|011|012|134|\\)", lambda found: codes[found[0]], field) for field in fields if field]


def option_value(options: str, name: str) -> str:
    """An option of an overlay as the kernel has it: a comma ends it, and a backslash makes a character plain."""
    found = re.search(rf"(?:^|,){name}=((?:\\.|[^,\\])*)(?:,|$)", options, re.DOTALL)
    assert found
    return re.sub(r"\\(.)", r"\1", found[1], flags=re.DOTALL)


def check_entry(mount: Mount) -> None:
    """The mount's entry is one line that says what the mount does."""
    assert mount.source == os.path.normpath(mount.source)
    assert mount.target == os.path.normpath(mount.target) != "/"
    for path in (mount.source, mount.target):
        assert path.startswith("/")
        assert set() == {"", ".", ".."} & set(path.split("/")[1:]) or path == "/"
    overlay = mount.kind == "overlay"
    lower = "/copy/lower#a" if "," in mount.source else ""
    layers: dict[str, Any] = {"lower": lower, "upper": "/copy/delta#a", "work": "/copy/work#a"} if overlay else {}
    entry = mount.entry(mount.target, **layers)
    assert names.check_value("lxc.mount.entry", entry) == entry
    fields = fstab_fields(entry)
    assert (4 if overlay else 6) == len(fields)
    assert (mount.source, mount.target, "overlay" if overlay else "none") == (fields[0], "/" + fields[1], fields[2])
    if overlay:
        assert lower or mount.source == option_value(fields[3], "lowerdir")
        assert ("/copy/delta#a", "/copy/work#a") == tuple(
            option_value(fields[3], name) for name in ("upperdir", "workdir")
        )
        assert ",create=dir" == fields[3][-11:]
    else:
        assert [f"bind,optional,{'ro' if mount.read_only else 'rw'},create=dir", "0", "0"] == fields[3:]


@MANY
@given(PATHS, PATHS, st.sampled_from(["bind", "overlay"]), st.booleans())
@example("//a\\040 b", "../c\\", "bind", False)
@example("/a\\", "/b:c,d", "overlay", False)
@refusals_pass
def test_mount(source: str, target: str, kind: str, read_only: bool) -> None:
    """A mount of any paths is refused, or its entry has exactly those paths, with no way above the copy's root."""
    mount = accepted(lambda: Mount("/" + source, target, kind, read_only=read_only and kind == "bind"))
    check_entry(mount)
    assert os.path.normpath("/" + source.lstrip("/")) == mount.source


@MANY
@given(
    st.one_of(
        TEXTS,
        st.lists(st.tuples(st.sampled_from(["bind", "overlay", "aufs"]), WORDS).map("=".join), max_size=4).map(
            ",".join
        ),
        st.lists(st.tuples(st.sampled_from(["bind", "overlay"]), TEXTS).map("=".join), min_size=1, max_size=2).map(
            ",".join
        ),
        st.lists(
            st.one_of(
                st.sampled_from(["src=/a", "dst=/b", "ro", "rw", '"src=/a,b"', '"']),
                st.tuples(st.sampled_from(["src=/", "dst=", "source=/", '"src=/', '"']), TEXTS).map("".join),
            ),
            max_size=4,
        ).map(lambda fields: ",".join(["type=bind", *fields])),
    )
)
@example('type=overlay,"src=/a,b:c\\",dst=/d e')
@refusals_pass
def test_mount_specification(text: str) -> None:
    """Any text is refused, or at least one mount, each with an entry that says what it does."""
    mounts = accepted(Mount.parse, text)
    assert mounts
    for mount in mounts:
        check_entry(mount)


@MANY
@given(st.lists(st.tuples(PLAIN_PATHS, PLAIN_PATHS), min_size=1, max_size=2))
@refusals_pass
def test_short_form_says_what_it_says(pairs: list[tuple[str, str]]) -> None:
    """Paths without colons and commas, written out in the short form, come back."""
    pairs = [("/" + source, "/" + target) for source, target in pairs]
    text = ",".join(f"bind={source}:{target}" for source, target in pairs)
    mounts = accepted(Mount.parse, text)
    assert [Mount(*pair) for pair in pairs] == list(mounts)


@MANY
@given(st.lists(PATHS.map("/".__add__), max_size=3))
@refusals_pass
def test_mount_points_are_found(paths: list[str]) -> None:
    """Any path that is a mount point is one in the text that the kernel makes of it."""
    codes = {" ": "\\040", "\t": "\\011", "\n": "\\012", "\\": "\\134", "#": "\\043"}
    mounts = [accepted(lambda path=path: Mount("/a", path)) for path in paths]
    encoded = ["".join(codes.get(character, character) for character in mount.target) for mount in mounts]
    table = "".join(f"30 1 8:1 / {path} rw - ext4 {path} rw\n" for path in encoded)
    assert ["/no mount"] == missing(table, [*(mount.target for mount in mounts), "/no mount"])


# Sizes


@MANY
@given(st.one_of(TEXTS, st.text(st.sampled_from("0123456789abxkKmMgGtTiB .-+%\u212a"), max_size=12)))
@refusals_pass
def test_size_of_a_volume(text: str) -> None:
    """A size that is accepted is ASCII, begins with a digit, and is a number of bytes that a file may have."""
    size = accepted(storage.check_size, text)
    assert text.isascii()
    assert text[0] in "0123456789"
    assert 0 <= size < 1 << 63
    assert size == storage.check_size(f"{size}B") == storage.check_size(size)


@MANY
@given(st.one_of(TEXTS, st.text(st.sampled_from("0123456789kKmMgGtT%B .-+x\u212a"), max_size=12)))
@refusals_pass
def test_size_of_a_tmpfs(text: str) -> None:
    """A size that is accepted is digits with at most one unit, so it has no comma for the kernel; again it stays."""
    size = accepted(tmpfs.check_size, text)
    assert re.fullmatch(r"[1-9][0-9]*[KMG%]?", size, re.ASCII)
    assert size == tmpfs.check_size(size)
    assert size.lstrip("0") == text.upper().lstrip("0")


# Options


@MANY
@given(
    st.lists(
        st.one_of(TEXTS, st.sampled_from(["-e", "-t", "--", "-n", "-N", "-h", "-?", "--na", "--name=", "-"])),
        max_size=6,
    )
)
@refusals_pass
def test_command_line(arguments: list[str]) -> None:
    """Any command line is refused in one line or understood, and of its words nothing is lost or made up."""
    parsed = Parsed()
    accepted(parse, arguments, parsed)
    assert set(parsed.words) <= set(arguments)
    for _, value in parsed.given:
        assert any(argument.endswith(value) for argument in arguments)


# Configurations

KEYS = st.sampled_from(
    ["lxc.hook.start", "lxc.hook.version", "lxc.include", "lxc.log.file", "lxc.rootfs.path", "lxc.uts.name",
     "lxc.net.0.hwaddr", "lxc.mount.entry", "lxc.environment", "# lxc.hook.stop", "x"]
)  # fmt: skip
VALUES = st.one_of(
    TEXTS.map(lambda text: text.replace("\n", "")),
    st.tuples(
        st.sampled_from(["", "'", '"']),
        st.sampled_from(["/lxc/base", "/lxc/base/", "/lxc//base/", "dir:/lxc/base/", "/else/"]),
        PARTS,
    ).map(
        lambda parts: "".join(parts).replace("\n", "")
    ),
)  # fmt: skip
LINES = st.one_of(
    VALUES,
    st.tuples(KEYS, st.sampled_from(["=", " = ", " =", "=\t"]), VALUES).map("".join),
)
CONFIGS = st.lists(LINES, max_size=8).map(lambda lines: "".join(f"{line}\n" for line in lines))


@MANY
@given(CONFIGS, st.booleans())
def test_configuration_that_follows(text: str, includes: bool) -> None:
    """No line is lost, added or split, no key changes, only what is in the directory moves, and no file is outside."""
    hidden = relocate.hide_hooks(text, "/lxc", "base")
    followed = relocate.Followed(hidden, ("/lxc", "base"), "/lxc/copy", includes=includes, values={})
    assert hidden == relocate.hide_hooks(hidden, "/lxc", "base")
    for new in (hidden, followed.text):
        lines = list(zip(text.split("\n"), new.split("\n")))
        assert text.count("\n") == new.count("\n")
        for before, after in lines:
            assert before.partition("=")[0] == after.partition("=")[0]
            assert before == after or "/lxc/base/" in before or "/lxc//base/" in before
    for file in followed.files:
        assert file == os.path.normpath(file)
        assert not file.startswith(("/", "../"))
        assert file not in (".", "..")


@MANY
@given(CONFIGS)
def test_configuration_of_a_renamed_container(text: str) -> None:
    """The root and the name are at the end of the new configuration, the rest keeps its order; again it stays."""
    renamed = relocate.renamed(text, "/lxc/base", "/lxc/new", "new")
    assert renamed == relocate.renamed(renamed, "/lxc/base", "/lxc/new", "new")
    before = text.split("\n")[:-1]
    named = [line for line in before if re.match(r"lxc\.(rootfs\.path|uts\.name)\s*=", line)]
    kept = [line for line in before if line not in named]
    roots = [line for line in named if line.startswith("lxc.rootfs.path")]
    lines = renamed.split("\n")[:-1]
    assert "lxc.uts.name = new" == lines[-1]
    assert len(kept) + bool(roots) + 1 == len(lines)
    assert [relocate.moved(line, "/lxc/base", "/lxc/new") for line in kept] == lines[: len(kept)]


@MANY
@given(TEXTS, st.lists(PARTS, max_size=4))
def test_moved(text: str, parts: list[str]) -> None:
    """What speaks of a directory speaks of the new one, and there and back nothing has changed."""
    text = f"{text} /lxc/base/{'/'.join(parts)}"
    assume("/lxc/new/" not in text)
    there = relocate.moved(text, "/lxc/base", "/lxc/new")
    assert f" /lxc/new/{'/'.join(parts)}" == there[-len(" /lxc/new/" + "/".join(parts)) :]
    assert text == relocate.moved(there, "/lxc/new", "/lxc/base")


@MANY
@given(VALUES)
def test_program_of_a_hook(hook: str) -> None:
    """Any text has a program, which has no blank at its ends unless it was quoted; an empty one has none."""
    program = relocate.program_file(hook)
    assert isinstance(program, str)
    if hook.strip("'\" ") == "":
        assert "" == program.strip("'\" ")


# The shell

# What a directory can be called where there may be copies: what check_path() accepts.
DIRECTORIES = st.text(
    st.one_of(
        st.sampled_from(" \"'`$(){}[]*?~&|<>!%@^-+_=;#0aZ\u00e4"),
        st.characters(exclude_characters=",:\\/").filter(str.isprintable),
    ),
    min_size=1,
    max_size=12,
).filter(lambda text: text not in (".", "..") and not text.endswith(" ") and len(os.fsencode(text)) < 200)


@contextmanager
def directory() -> Iterator[Path]:
    """A directory for one example."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


@FEW
@given(DIRECTORIES)
@example("$(touch pwned) `touch pwned` '\";#")
def test_value_of_a_hook(name: str) -> None:
    """What lxc.hook.pre-mount says is, for the shell that liblxc starts, one word: the hook's path; and it runs."""
    with directory() as top:
        path = top / name
        path.mkdir()
        value = tmpfs.write_hook(str(path), '#! /bin/sh\nprintf "%s\\n" "$0" "$@"\n')
        names.check_value("lxc.hook.pre-mount", value)
        assert value == value.strip(" '\"")  # which liblxc would take away
        done = subprocess.run(
            ["sh", "-c", f"exec {value} base lxc pre-mount"], cwd=top, capture_output=True, check=True
        )
        (hook,) = path.iterdir()
        assert f"{hook}\nbase\nlxc\npre-mount\n".encode("utf-8", "surrogateescape") == done.stdout
        assert [name] == os.listdir(top)


@FEW
@given(DIRECTORIES, st.booleans())
@example("$(touch pwned) `touch pwned` '\";#", False)
def test_script_of_a_hook(name: str, keep_name: bool) -> None:
    """The script is good shell, and each path in it one word, whatever is in the copy's directory and name."""
    script = tmpfs.hook_script(f"/lxc/{name}", name, tmpfs.Limits("1M"), keep_name=keep_name)
    subprocess.run(["sh", "-n"], input=os.fsencode(script), check=True)
    words = shlex.split(script, comments=True)
    paths = ["/lxc/{}/overlay"] + (
        [] if keep_name else ["/lxc/{}/overlay/delta/etc", "/lxc/{}/overlay/delta/etc/hostname"]
    )
    assert [path.replace("{}", name) for path in paths] == [word for word in words if word.startswith("/lxc/")]
    assert keep_name or name in words


@FEW
@given(DIRECTORIES, DIRECTORIES)
@example("a b", "$(touch pwned)")
def test_hook_writes_only_where_it_shall(name: str, host: str) -> None:
    """Run by a shell, the hook makes the host name's file in the copy's directory, with the name, and nothing else."""
    with directory() as top:
        (top / name / "overlay").mkdir(parents=True)
        script = tmpfs.hook_script(str(top / name), host, tmpfs.Limits(), keep_name=False)
        # In place of the mount, which is a plain command with plain words.
        script = script.replace("mount -n -t tmpfs -o mode=0755 none", "test -d")
        subprocess.run(["sh"], input=os.fsencode(script), cwd=top, check=True)
        assert [name] == os.listdir(top)
        file = top / name / "overlay/delta/etc/hostname"
        found = sorted(path for path in (top / name).rglob("*") if path.is_file())
        assert [file] == found
        # echo takes some words for options of its own; a name cannot begin like that
        assert host.startswith("-") or os.fsencode(host + "\n") == file.read_bytes()


# Links


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where trees are made."""
    return tmp_path_factory.mktemp("trees")


TARGETS = st.lists(st.sampled_from(["..", ".", "", "a", "b", "c", "d"]), min_size=1, max_size=5).map("/".join)
TREES = st.dictionaries(
    st.lists(st.sampled_from("abcd"), min_size=1, max_size=3).map("/".join),
    st.one_of(st.none(), st.just(""), TARGETS, TARGETS.map("/".__add__)),
    max_size=10,
)


def plant(root: Path, tree: dict[str, str | None]) -> None:
    """Make directories (None), files (an empty text) and links to what is said, where there is room for them."""
    root.mkdir()
    for place in sorted(tree, key=lambda place: (place.count("/"), place)):
        path, target = root / place, tree[place]
        if any(parent.is_symlink() or parent.is_file() for parent in path.parents if parent != root):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            continue
        if target is None:
            path.mkdir()
        elif not target:
            path.touch()
        else:
            path.symlink_to(target)


@SOME
@given(TREES, st.lists(st.sampled_from("abcd"), min_size=1, max_size=4).map("/".join).map("/".__add__))
@example({"a": "missing/../../../b"}, "/a/c")
@example({"a": "/../..", "b/c": "../../../a/d"}, "/b/c/d")
def test_links_never_lead_out(places: Path, tree: dict[str, str | None], path: str) -> None:
    """In any tree of links a path is an error, or a plain one without links, where the kernel finds the same."""
    outer = places / "outer"
    root = outer / "root"
    outer.mkdir()
    try:
        plant(root, tree)
        fd = identity.open_root(str(root))
        try:
            found = identity.resolve(fd, path)
        except OSError as error:
            assert path == error.filename  # noqa: PT017 - an error is one of two good ends
            return
        finally:
            os.close(fd)
        assert found == os.path.normpath(found)
        assert set() == {".", ".."} & set(found.split("/"))
        place = root / found[1:]
        assert not any(parent.is_symlink() for parent in [place, *place.parents])
        assert [root.name] == os.listdir(outer)
        assert_kernel_agrees(root, path, place)
    finally:
        shutil.rmtree(outer)


def assert_kernel_agrees(root: Path, path: str, place: Path) -> None:
    """Where the kernel finds something by the path, inside that root, it is what is at the place."""
    fd = os.open(root, os.O_PATH)
    try:
        found = openat2(fd, path, os.O_PATH, IN_ROOT)
    except OSError:
        return
    finally:
        os.close(fd)
    try:
        assert os.path.samestat(os.fstat(found), place.stat())
    finally:
        os.close(found)
