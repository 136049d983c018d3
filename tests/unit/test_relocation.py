# SPDX-License-Identifier: LGPL-2.1-or-later
"""A configuration that moves with its container: what follows, what stays, and nothing else changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from lxccopy_ffi import relocate
from lxccopy_ffi.relocate import Followed

SOURCE = ("/var/lib/lxc", "base")
OLD = "/var/lib/lxc/base"
NEW = "/srv/copy"


def follow(text: str, *, includes: bool = False, values: dict[tuple[str, str], str] | None = None) -> Followed:
    """What becomes of a base's configuration in its copy, as if liblxc had copied it line by line."""
    hidden = relocate.hide_hooks(text, *SOURCE)
    return Followed(hidden, SOURCE, NEW, includes=includes, values=values or {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("\n\n", []),
        ("lxc.a = b", [("lxc.a", "b")]),
        ("lxc.a=b\nlxc.a = c\n", [("lxc.a", "b"), ("lxc.a", "c")]),
        ("  lxc.a \t=  b c  \n", [("lxc.a", "b c")]),
        ("lxc.a = b = c", [("lxc.a", "b = c")]),
        ("lxc.a =\n", [("lxc.a", "")]),
        ("# lxc.a = b\n  #lxc.c = d\nlxc.e = f # g", [("lxc.e", "f # g")]),
        ("nonsense\n", []),
        ("lxc.a = b\r\n", [("lxc.a", "b")]),
    ],
)
def test_items(text: str, expected: list[tuple[str, str]]) -> None:
    """The lines that set something are keys and values; comments and the rest are none."""
    assert expected == list(relocate.items(text))


LINE_ENDS = ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"]


@pytest.mark.parametrize("character", LINE_ENDS)
def test_only_a_newline_ends_a_line(character: str) -> None:
    """A character that only Python takes for a line's end is part of the value, and begins no other setting."""
    value = f"A=x{character}lxc.hook.start = /evil"
    text = f"lxc.environment = {value}\nlxc.uts.name = base\n"
    assert [("lxc.environment", value), ("lxc.uts.name", "base")] == list(relocate.items(text))
    assert f"lxc.environment = {value}\nlxc.uts.name = copy\n" == relocate.renamed(text, OLD, NEW, "copy")
    assert text == follow(text).text


# Hooks


@pytest.mark.parametrize(
    "key",
    ["pre-start", "pre-mount", "mount", "autodev", "start-host", "start", "stop", "post-stop", "clone", "destroy"],
)
@pytest.mark.parametrize("quotes", ["", "'", '"'])
@pytest.mark.parametrize("arguments", ["", " a b", " 'a b' $x"])
def test_hooks_follow(key: str, quotes: str, arguments: str) -> None:
    """A hook in the base's directory is hidden from liblxc, and is the copy's own afterwards, with its file."""
    line = "lxc.hook.{} = {q}{}/hooks/x{}{q}\n"
    text = line.format(key, OLD, arguments, q=quotes)
    hidden = relocate.hide_hooks(text, *SOURCE)
    assert line.format(key, "/var/lib/lxc//base", arguments, q=quotes) == hidden
    followed = follow(text)
    assert (line.format(key, NEW, arguments, q=quotes), ["hooks/x"]) == (followed.text, followed.files)


@pytest.mark.parametrize(
    "line",
    [
        "lxc.hook.start = /usr/bin/x",
        "lxc.hook.start = /var/lib/lxc/base2/x",
        "lxc.hook.start = /var/lib/lxc/other/x",
        "lxc.hook.start = /var/lib/lxc/base",
        "lxc.hook.start = sh -c '/var/lib/lxc/base/x'",
        "lxc.hook.start = var/lib/lxc/base/x",
        "lxc.hook.start =",
        "lxc.hook.start = x",
        "lxc.hook.version = 1",
        "#lxc.hook.start = /var/lib/lxc/base/x",
        "lxc.rootfs.path = dir:/var/lib/lxc/base/rootfs",
        "lxc.mount.fstab = /var/lib/lxc/base/fstab",
        "lxc.mount.entry = /var/lib/lxc/base/x x none bind 0 0",
        "lxc.environment = HOOK=/var/lib/lxc/base/x",
        "# /var/lib/lxc/base/",
        "nonsense /var/lib/lxc/base/",
    ],
)
def test_other_lines_stay(line: str) -> None:
    """What is no file of the base's directory, or is liblxc's business, stays byte for byte, with what is around it."""
    text = f"# first\n\n{line}\n  lxc.last=1"
    assert text == relocate.hide_hooks(text, *SOURCE)
    followed = follow(text)
    assert (text, []) == (followed.text, followed.files)


def test_each_file_is_taken_once() -> None:
    """Files that several hooks share are copied once."""
    text = "".join(
        f"lxc.hook.{key} = {OLD}/{file}\n" for key, file in [("start", "b 1"), ("stop", "a"), ("clone", "b 2")]
    )
    followed = follow(text)
    assert ["a", "b"] == sorted(followed.files)
    assert text.replace(OLD, NEW) == followed.text


@pytest.mark.parametrize(
    ("value", "file", "expected"),
    [
        ("{}/./a/../b", "b", "{}/./a/../b"),
        ("{}//b", "b", "{}//b"),
        ('{}/"a b" c', "a b", '{}/"a b" c'),
        ("{}/a\\ b c", "a b", "{}/a\\ b c"),
    ],
)
def test_spellings_of_a_path(value: str, file: str, expected: str) -> None:
    """A hook's path may be spelt in any way that a shell reads; the file's is plain, and below the directory."""
    followed = follow(f"lxc.hook.start = {value.format(OLD)}\n")
    assert ([file], f"lxc.hook.start = {expected.format(NEW)}\n") == (followed.files, followed.text)


@pytest.mark.parametrize("value", ["{}/../x", "{}/a/../../x", "{}/..", "{}/.", "{}/../base2/x 1", "{}//../x"])
def test_paths_that_lead_out(value: str) -> None:
    """A hook whose path only begins in the base's directory stays where it is, as the base's, and is not copied."""
    text = f"lxc.hook.start = {value.format(OLD)}\n"
    followed = follow(text)
    assert (text, []) == (followed.text, followed.files)


# Outputs, included files, addresses


@pytest.mark.parametrize("key", ["lxc.log.file", "lxc.console.logfile", "lxc.console.path"])
def test_outputs_follow(key: str) -> None:
    """A log or console in the base's directory is in the copy's, and no file is copied for it; another one stays."""
    followed = follow(f"{key} = {OLD}/x.log\n{key} = /var/log/x.log\n{key} = {OLD}2/x.log\n{key} = none\n")
    expected = f"{key} = {NEW}/x.log\n{key} = /var/log/x.log\n{key} = {OLD}2/x.log\n{key} = none\n"
    assert (expected, []) == (followed.text, followed.files)


@pytest.mark.parametrize("includes", [False, True])
def test_included_files(includes: bool) -> None:
    """An included file of the base's goes along with a full copy only; one of the system never does."""
    text = f"lxc.include = {OLD}/more.conf\nlxc.include = /usr/share/lxc/common.conf\nlxc.include = '{OLD}/conf.d'\n"
    followed = follow(text, includes=includes)
    expected = (text.replace(OLD, NEW), ["more.conf", "conf.d"]) if includes else (text, [])
    assert expected == (followed.text, followed.files)


def test_addresses_stay() -> None:
    """An address that shall stay stands in place of what liblxc made of its template."""
    text = "lxc.net.0.hwaddr = 00:16:3e:11:22:33\nlxc.net.1.hwaddr = 00:16:3e:44:55:66\nlxc.net.0.link = lxcbr0\n"
    followed = follow(text, values={("lxc.net.1.hwaddr", ""): "00:16:3e:aa:bb:cc"})
    assert text.replace("44:55:66", "aa:bb:cc") == followed.text


@pytest.mark.parametrize("end", ["", "\n", "\r\n", " \n", "\t\n\n"])
@pytest.mark.parametrize("equals", ["=", " = ", "\t=", "=   "])
def test_blanks_stay(end: str, equals: str) -> None:
    """Of a line that changes, only the value does."""
    line = "  lxc.hook.start{}{}/x{}"
    assert line.format(equals, NEW, end) == follow(line.format(equals, OLD, end)).text


# Renaming


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/a/b/c", "/x/y/c"),
        ("dir:/a/b/rootfs overlay:/a/b/lower:/a/b/upper", "dir:/x/y/rootfs overlay:/x/y/lower:/x/y/upper"),
        ("upperdir=/a/b/u,workdir='/a/b/w'", "upperdir=/x/y/u,workdir='/x/y/w'"),
        ("/a/b", "/x/y"),
        ("/a/b '/a/b' /a/b:/a/b,/a/b", "/x/y '/x/y' /x/y:/x/y,/x/y"),
        ("//a/b/c /z/a/b/c ./a/b/c ../a/b/c -/a/b", "//a/b/c /z/a/b/c ./a/b/c ../a/b/c -/a/b"),
        ("/a/b2/c /a/b-/c /a/b.d", "/a/b2/c /a/b-/c /a/b.d"),
        ("", ""),
    ],
)
def test_moved(text: str, expected: str) -> None:
    """The old directory and each path below it becomes the new one; those that only look like it stay."""
    assert expected == relocate.moved(text, "/a/b", "/x/y")


def test_moved_takes_nothing_for_a_pattern() -> None:
    """What is special in patterns is nothing special in a path, old or new."""
    assert r"/n\1\g<0>/c /axb/c" == relocate.moved("/a.b/c /axb/c", "/a.b", r"/n\1\g<0>")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            f"lxc.rootfs.path = dir:{OLD}/rootfs\nlxc.uts.name = base\nlxc.arch = x86_64\n",
            f"lxc.arch = x86_64\nlxc.rootfs.path = dir:{NEW}/rootfs\nlxc.uts.name = new\n",
        ),
        ("lxc.arch = x86_64", "lxc.arch = x86_64\nlxc.uts.name = new\n"),
        ("", "lxc.uts.name = new\n"),
        (
            "lxc.rootfs.path = dir:/1\n#lxc.uts.name = x\nlxc.rootfs.path = dir:/2\n\nlxc.uts.name=a\nlxc.uts.name=b\n",
            "#lxc.uts.name = x\n\nlxc.rootfs.path = dir:/2\nlxc.uts.name = new\n",
        ),
        (
            f"lxc.hook.start = {OLD}/x {OLD}/y\nlxc.include = {OLD}/z\nlxc.log.file = {OLD}2/w\n",
            f"lxc.hook.start = {NEW}/x {NEW}/y\nlxc.include = {NEW}/z\nlxc.log.file = {OLD}2/w\nlxc.uts.name = new\n",
        ),
    ],
)  # fmt: skip
def test_renamed(text: str, expected: str) -> None:
    """The directory and the name are the new ones, root and name at the end as liblxc has them, and the rest stays."""
    assert expected == relocate.renamed(text, OLD, NEW, "new")


def test_own_texts(tmp_path: Path) -> None:
    """A container's own texts are the files in its directory that it includes or mounts by, each once."""
    own = tmp_path / "base"
    (own / "d").mkdir(parents=True)
    (tmp_path / "base2").mkdir()
    for file in ("more.conf", "d/fstab", "unused", "../base2/x"):
        (own / file).touch()
    text = (
        f"lxc.include = {own}/more.conf\n"
        f"lxc.mount.fstab = {own}/d/fstab\n"
        f"lxc.include = {own}/more.conf\n"
        f"lxc.include = {own}/d\n"
        f"lxc.include = {own}/missing\n"
        f"lxc.include = {tmp_path}/base2/x\n"
        f"#lxc.include = {own}/unused\n"
        f"lxc.hook.start = {own}/unused\n"
        "lxc.include = /etc/hostname\n"
    )
    assert ["more.conf", "d/fstab"] == relocate.own_texts(text, str(own))


def test_own_texts_are_below_the_directory(tmp_path: Path) -> None:
    """A file that is reached through the container's directory, and lies elsewhere, is none of its own."""
    own = tmp_path / "base"
    own.mkdir()
    (tmp_path / "shared.conf").touch()
    assert [] == relocate.own_texts(f"lxc.include = {own}/../shared.conf\n", str(own))


# Words


@pytest.mark.parametrize(
    ("hook", "program"),
    [
        ("/a/b", "/a/b"),
        ("/a/b c d", "/a/b"),
        ('"/a/b c"', "/a/b"),  # liblxc takes the quotes of a whole value away
        ("/a\\ b c", "/a b"),
        ('/a/"b c" d', "/a/b c"),
        ("/a/b 'c", "/a/b"),
        ("sh -c '/a/b'", "sh"),
        ("", ""),
        ("''", ""),
        ("  /a/b", "/a/b"),
    ],
)
def test_program_file(hook: str, program: str) -> None:
    """The program of a hook is its first word, as a shell reads it."""
    assert program == relocate.program_file(hook)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("lxc.net.0.ipv4.address = 10.0.3.5/24", ["the address 10.0.3.5/24 (lxc.net.0.ipv4.address)"]),
        ("lxc.net.12.ipv6.address = fd00::5/64", ["the address fd00::5/64 (lxc.net.12.ipv6.address)"]),
        ("lxc.net.0.veth.pair = vethbase", ["the interface vethbase on the host (lxc.net.0.veth.pair)"]),
        ("lxc.net.0.ipv4.address =", []),
        ("lxc.net.0.ipv4.gateway = 10.0.3.1", []),
        ("lxc.net.0.hwaddr = 00:16:3e:11:22:33", []),
        ("lxc.net.0.link = lxcbr0", []),
        ("lxc.net.0.veth.mode = bridge", []),
        ("lxc.net =", []),
        ("#lxc.net.0.veth.pair = x", []),
        ("lxc.uts.name = x", []),
    ],
)
def test_shared_settings(line: str, expected: list[str]) -> None:
    """Fixed addresses and interface names are what two containers cannot have at once, each with its key."""
    assert expected == relocate.shared_settings(f"lxc.arch = x86_64\n{line}\n")


def test_hide_includes() -> None:
    """Included files of the container's directory are replaced, in quotes or not; others and other keys stay."""
    lines = ["lxc.include = /l/a/x", "lxc.include = '/l/a/y'", "lxc.include = /l/ab/x", "lxc.mount.fstab = /l/a/x"]
    found = relocate.hide_includes("\n".join(lines), "/l", "a", lambda file: f"[{file}]").split("\n")
    assert ["lxc.include = [/l/a/x]", "lxc.include = [/l/a/y]", *lines[2:]] == found
