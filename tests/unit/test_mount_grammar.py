# SPDX-License-Identifier: LGPL-2.1-or-later
"""The argument of -m: what is understood, what is refused, and the text of lxc.mount.entry."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from lxccopy_ffi import Mount, OptionError
from lxccopy_ffi.mounts import missing, parse_all

# The short form: source, target, kind, and whether it is read-only.
SHORT: list[tuple[str, list[tuple[str, str, str, bool]]]] = [
    # bind
    ("bind=/a", [("/a", "/a", "bind", False)]),
    ("bind=/a:/b", [("/a", "/b", "bind", False)]),
    ("bind=/a:b", [("/a", "/b", "bind", False)]),
    ("bind=/a:ro", [("/a", "/a", "bind", True)]),
    ("bind=/a:rw", [("/a", "/a", "bind", False)]),
    ("bind=/a:/b:ro", [("/a", "/b", "bind", True)]),
    ("bind=/a:/b:rw", [("/a", "/b", "bind", False)]),
    ("bind=/a:/ro", [("/a", "/ro", "bind", False)]),
    ("bind=/a:/rw:ro", [("/a", "/rw", "bind", True)]),
    ("bind=/a:ro/", [("/a", "/ro", "bind", False)]),
    ("bind=/a:row", [("/a", "/row", "bind", False)]),
    # overlay
    ("overlay=/a", [("/a", "/a", "overlay", False)]),
    ("overlay=/a:/b", [("/a", "/b", "overlay", False)]),
    ("overlay=/a:b/c", [("/a", "/b/c", "overlay", False)]),
    # empty parts count for nothing
    ("bind=/a:", [("/a", "/a", "bind", False)]),
    ("bind=:/a", [("/a", "/a", "bind", False)]),
    ("bind=/a::ro", [("/a", "/a", "bind", True)]),
    ("bind=/a::/b::rw::", [("/a", "/b", "bind", False)]),
    ("overlay=/a:::b", [("/a", "/b", "overlay", False)]),
    # several
    ("bind=/a,bind=/b:ro", [("/a", "/a", "bind", False), ("/b", "/b", "bind", True)]),
    ("overlay=/a,bind=/b:/c", [("/a", "/a", "overlay", False), ("/b", "/c", "bind", False)]),
    ("bind=/a,bind=/a", [("/a", "/a", "bind", False)] * 2),
    # paths
    ("bind=a", [("/a", "/a", "bind", False)]),
    ("bind=tmp/x:y/z", [("/tmp/x", "/y/z", "bind", False)]),
    ("bind=//a//b/:/c///d/", [("/a/b", "/c/d", "bind", False)]),
    ("bind=/a/./b/../c:/./d/..//e", [("/a/c", "/e", "bind", False)]),
    ("bind=/../../tmp/x", [("/tmp/x", "/tmp/x", "bind", False)]),
    ("bind=/a:../../b", [("/a", "/b", "bind", False)]),
    ("bind=..", []),
    ("bind=/:/b", [("/", "/b", "bind", False)]),
    ("bind=/a b:/c d ", [("/a b", "/c d ", "bind", False)]),
    ("bind=/a\\040b:/c\\:ro", [("/a\\040b", "/c\\", "bind", True)]),
    ("bind=/a=b:/c=d", [("/a=b", "/c=d", "bind", False)]),
    ("bind=/$(id) `id` 'x' \"y\" #z;&|*?~", [(p := "/$(id) `id` 'x' \"y\" #z;&|*?~", p, "bind", False)]),
]

LONG: list[tuple[str, tuple[str, str, str, bool]]] = [
    ("type=bind,src=/a", ("/a", "/a", "bind", False)),
    ("type=bind,src=/a,dst=/b", ("/a", "/b", "bind", False)),
    ("type=bind,dst=/b,src=/a,ro", ("/a", "/b", "bind", True)),
    ("type=bind,ro,src=/a", ("/a", "/a", "bind", True)),
    ("type=bind,src=/a,readonly", ("/a", "/a", "bind", True)),
    ("type=bind,src=/a,rw", ("/a", "/a", "bind", False)),
    ("type=bind,source=/a,target=/b", ("/a", "/b", "bind", False)),
    ("type=bind,source=/a,destination=/b", ("/a", "/b", "bind", False)),
    ("type=bind,source=/a,dest=b", ("/a", "/b", "bind", False)),
    ("type=overlay,src=/a,dst=/b", ("/a", "/b", "overlay", False)),
    ("type=overlay,src=/a,rw", ("/a", "/a", "overlay", False)),
    ("type=bind,src=/a:b,dst=/c:ro", ("/a:b", "/c:ro", "bind", False)),
    ('type=bind,"src=/a,b",dst=/c,ro', ("/a,b", "/c", "bind", True)),
    ('type=bind,"src=/a ""b"", c","dst=/d,"', ('/a "b", c', "/d,", "bind", False)),
    ("type=bind,src=/a=b", ("/a=b", "/a=b", "bind", False)),
    ("type=bind,src=/./a/../b/,dst=..//c", ("/b", "/c", "bind", False)),
    ('type=bind,src=/a"b', ('/a"b', '/a"b', "bind", False)),
]


@pytest.mark.parametrize(("text", "expected"), [case for case in SHORT if case[1]])
def test_short_form(text: str, expected: list[tuple[str, str, str, bool]]) -> None:
    """What lxc-copy understands is understood as there, with paths from the root, plain and with no way above it."""
    found = [(mount.source, mount.target, mount.kind, mount.read_only) for mount in Mount.parse(text)]
    assert expected == found


@pytest.mark.parametrize(("text", "expected"), LONG)
def test_long_form(text: str, expected: tuple[str, str, str, bool]) -> None:
    """The long form is one mount, whose paths may have colons and, in quotes, commas."""
    (mount,) = Mount.parse(text)
    assert expected == (mount.source, mount.target, mount.kind, mount.read_only)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # what lxc-copy ignores
        ("", "the mount '' needs 'bind=SRC' or 'overlay=SRC', not ''"),
        ("/a", "the mount '/a' needs 'bind=SRC' or 'overlay=SRC', not '/a'"),
        ("aufs=/a", "the mount 'aufs=/a' needs 'bind=SRC' or 'overlay=SRC', not 'aufs=/a'"),
        ("bogus=/a", "the mount 'bogus=/a' needs"),
        ("BIND=/a", "the mount 'BIND=/a' needs"),
        (" bind=/a", "the mount ' bind=/a' needs"),
        ("bind =/a", "the mount 'bind =/a' needs"),
        ("overlayfs=/a", "the mount 'overlayfs=/a' needs"),
        ("bind=/a,ro", "the mount 'bind=/a,ro' needs 'bind=SRC' or 'overlay=SRC', not 'ro'"),
        ("bind=/a,", "the mount 'bind=/a,' needs 'bind=SRC' or 'overlay=SRC', not ''"),
        (",bind=/a", "the mount ',bind=/a' needs"),
        ("bind=/a,,bind=/b", "the mount 'bind=/a,,bind=/b' needs"),
        ("bind", "the mount 'bind' has no source"),
        ("bind=", "the mount 'bind=' has no source"),
        ("bind=::", "the mount 'bind=::' has no source"),
        ("overlay=:", "the mount 'overlay=:' has no source"),
        # too much
        ("bind=/a:/b:ro:rw", "Excess elements in mount specification 'bind=/a:/b:ro:rw'"),
        ("bind=/a:/b:/c:/d", "Excess elements in mount specification"),
        ("overlay=/a:/b:ro", "Excess elements in mount specification 'overlay=/a:/b:ro'"),
        ("bind=/x,overlay=/a:/b:/c", "Excess elements in mount specification 'bind=/x,overlay=/a:/b:/c'"),
        # what lxc-copy shortens, or takes for a directory
        ("bind=/a:/b:r", "the mount 'bind=/a:/b:r' has 'r' in place of 'ro' or 'rw'"),
        ("bind=/a:/b:o", "the mount 'bind=/a:/b:o' has 'o' in place of"),
        ("bind=/a:/b:RO", "the mount 'bind=/a:/b:RO' has 'RO' in place of"),
        ("bind=/a:/b:/c", "the mount 'bind=/a:/b:/c' has '/c' in place of"),
        ("bind=/a:r", "the mount 'bind=/a:r' has 'r' as its target: write '/r' for that directory"),
        ("bind=/a:w", "the mount 'bind=/a:w' has 'w' as its target"),
        ("bind=/a:ro:ro", "the mount 'bind=/a:ro:ro' has 'ro' as its target: write '/ro' for that directory"),
        ("overlay=/a:ro", "the mount 'overlay=/a:ro' has 'ro' as its target"),
        ("overlay=/a:rw", "the mount 'overlay=/a:rw' has 'rw' as its target"),
        # the root
        ("bind=/", "a mount needs a place below the root of the copy, and '/' has none"),
        ("bind=..", "a mount needs a place below the root of the copy, and '/' has none"),
        ("bind=/a:/", "a mount needs a place below the root of the copy, and '/a' has none"),
        ("bind=/a:.", "a mount needs a place below the root of the copy, and '/a' has none"),
        ("overlay=/a:/b/../..", "a mount needs a place below the root of the copy, and '/a' has none"),
        # characters
        ("bind=/a\nb", r"/a\nb', has a character that cannot be printed"),
        ("bind=/a:/b\tc", r"the target of a mount, '/b\tc', has a character that cannot be printed"),
        ("bind=/a\x00", r"/a\x00', has a character that cannot be printed"),
        ("bind=/a\u2028b", r"/a\u2028b', has a character that cannot be printed"),
        ("bind=/a:/\udcff", r"/\udcff', has a character that cannot be printed"),
        ("bind=/a:/\x7f", r"the target of a mount, '/\x7f', has a character that cannot be printed"),
        ("bind=/\ud800", r"/\ud800', has a character that cannot be printed"),
        # the long form
        ("type=bind", "the mount 'type=bind' needs src=, and one of ro and rw at most"),
        ("type=bind,dst=/a", "the mount 'type=bind,dst=/a' needs src="),
        ("type=bind,src=", "the source of a mount is empty"),
        ("type=bind,src=/a,dst=", "the target of a mount is empty"),
        ("type=bind,src=a", "the source of a mount must be an absolute path, not 'a'"),
        ("type=,src=/a", "there is no mount of kind ''; it is 'bind' or 'overlay'"),
        ("type=tmpfs,src=/a", "there is no mount of kind 'tmpfs'"),
        ("type=Bind,src=/a", "there is no mount of kind 'Bind'"),
        ("type=overlay,src=/a,ro", "an overlay cannot be read-only"),
        ("type=bind,src=/a,ro,rw", "the mount 'type=bind,src=/a,ro,rw' needs src=, and one of"),
        ("type=bind,src=/a,ro,readonly", "has 'readonly', which is repeated or none of"),
        ("type=bind,src=/a,src=/b", "has 'src=/b', which is repeated or none of type=, src=, dst=, ro, rw"),
        ("type=bind,src=/a,source=/b", "has 'source=/b', which is repeated or none of"),
        ("type=bind,type=bind,src=/a", "has 'type=bind', which is repeated"),
        ("type=bind,src=/a,ro=true", "has 'ro=true', which is"),
        ("type=bind,src=/a,dst", "has 'dst', which is"),
        ("type=bind,src=/a,", "has '', which is"),
        ("type=bind,src=/a,bogus=1", "has 'bogus=1', which is"),
        ("type=bind,src=/a, ro", "has ' ro', which is"),
        ("type=bind,src=/a,bind=/b", "has 'bind=/b', which is"),
        ('type=bind,src="/a,b"', "which is repeated or none of"),
        ('type=bind,"src=/a', "is no list of KEY=VALUE with commas: unexpected end of data"),
        ('type=bind,"src=/a"b', "is no list of KEY=VALUE with commas"),
        ("type=bind,src=/a\nb", "is no list of KEY=VALUE with commas"),
        ('type=bind,"src=/a\nb"', r"the source of a mount, '/a\nb', has a character that cannot be printed"),
    ],
)  # fmt: skip
def test_refused(text: str, message: str) -> None:
    """What is no mount is refused, and quoted."""
    with pytest.raises(OptionError, match=re.escape(message)):
        Mount.parse(text)


@pytest.mark.parametrize("text", [None, 5, b"bind=/a", ["bind=/a"], Path("/a")])
def test_text_of_a_wrong_type(text: Any) -> None:
    """What is no text is refused with the name of its type."""
    with pytest.raises(OptionError, match=f"^a mount must be a str or a Mount, not {type(text).__name__}$"):
        Mount.parse(text)


# Mount itself


@pytest.mark.parametrize(
    ("arguments", "keywords", "expected"),
    [
        (("/a",), {}, ("/a", "/a", "bind", False)),
        ((Path("/a//b"), Path("c")), {"read_only": True}, ("/a/b", "/c", "bind", True)),
        (("/a:b,c", "/d:e,f", "overlay"), {}, ("/a:b,c", "/d:e,f", "overlay", False)),
        (("//a/..//b",), {"kind": "bind"}, ("/b", "/b", "bind", False)),
    ],
)
def test_mount(arguments: tuple[Any, ...], keywords: dict[str, Any], expected: tuple[str, str, str, bool]) -> None:
    """A mount has plain paths from the root, also where it is made of paths."""
    mount = Mount(*arguments, **keywords)
    assert expected == (mount.source, mount.target, mount.kind, mount.read_only)


@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        (("a",), {}, "the source of a mount must be an absolute path, not 'a'"),
        ((Path("a"),), {}, "the source of a mount must be an absolute path, not"),
        (("",), {}, "the source of a mount is empty"),
        (("/a", ""), {}, "the target of a mount is empty"),
        ((5,), {}, "the source of a mount must be a path, not 5"),
        ((None,), {}, "the source of a mount must be a path, not None"),
        ((b"/a",), {}, "the source of a mount must be a path, not b'/a'"),
        (("/a", b"/b"), {}, "the target of a mount must be a path, not b'/b'"),
        (("/a", "/b", "aufs"), {}, "there is no mount of kind 'aufs'; it is 'bind' or 'overlay'"),
        (("/a", "/b", None), {}, "there is no mount of kind None"),
        (("/a", "/b", []), {}, "there is no mount of kind []"),
        (("/a",), {"read_only": "no"}, "read_only must be True or False, not 'no'"),
        (("/a",), {"read_only": 1}, "read_only must be True or False, not 1"),
        (("/a", "/b", "overlay"), {"read_only": True}, "an overlay cannot be read-only"),
    ],
)
def test_bad_mount(arguments: tuple[Any, ...], keywords: dict[str, Any], message: str) -> None:
    """A mount of anything else is refused by what is wrong with it."""
    with pytest.raises(OptionError, match=re.escape(message)):
        Mount(*arguments, **keywords)


def test_mounts_are_values() -> None:
    """Mounts that say the same are equal, and what one prints makes another one."""
    mounts = [Mount("/a"), Mount("/a", "/b"), Mount("/a", "/b", "overlay"), Mount("/a", "/b", read_only=True)]
    again = [eval(repr(mount), {"Mount": Mount}) for mount in mounts]  # noqa: S307
    assert mounts == again
    assert len(mounts) == len({*mounts, *again})
    assert ("/a", "/a") != Mount("/a")
    assert Mount("/a") == Mount("//a/", "/a", "bind", read_only=False)


def test_parse_all() -> None:
    """Mounts and texts may mix, in order; a text may be several."""
    expected = [Mount("/a"), Mount("/b", read_only=True), Mount("/c", kind="overlay"), Mount("/d:e")]
    texts: list[Any] = [Mount("/a"), "bind=/b:ro,overlay=/c", "type=bind,src=/d:e"]
    for mounts in (texts, tuple(texts)):
        assert expected == parse_all(mounts)
    assert [] == parse_all([])


@pytest.mark.parametrize("mounts", ["bind=/a", b"bind=/a", Mount("/a"), None, 5, True])
def test_parse_all_needs_a_list(mounts: Any) -> None:
    """A single mount in place of a list of them is refused, and quoted."""
    with pytest.raises(OptionError, match=f"^mounts must be a list of Mount or str, not {re.escape(repr(mounts))}$"):
        parse_all(mounts)


@pytest.mark.parametrize("mount", [None, 5, b"bind=/a", ("/a", "/b"), Path("/a")])
def test_parse_all_needs_mounts(mount: Any) -> None:
    """Anything in the list that is no mount is refused with the name of its type."""
    with pytest.raises(OptionError, match=f"^a mount must be a str or a Mount, not {type(mount).__name__}$"):
        parse_all([mount])


# lxc.mount.entry


@pytest.mark.parametrize(
    ("text", "directory", "expected"),
    [
        ("bind=/a", True, "/a a none bind,optional,rw,create=dir 0 0"),
        ("bind=/a:ro", True, "/a a none bind,optional,ro,create=dir 0 0"),
        ("bind=/a:/b/c:rw", True, "/a b/c none bind,optional,rw,create=dir 0 0"),
        ("bind=/a:/b", False, "/a b none bind,optional,rw,create=file 0 0"),
        ("bind=/:/b", True, "/ b none bind,optional,rw,create=dir 0 0"),
        ("bind=/a b:/c d", True, "/a\\040b c\\040d none bind,optional,rw,create=dir 0 0"),
        ("bind=/a\\b:/c\\040", False, "/a\\134b c\\134040 none bind,optional,rw,create=file 0 0"),
        ("bind=/a#b: #c", True, "/a#b \\040#c none bind,optional,rw,create=dir 0 0"),
        ("bind=/a'b:/ü", True, "/a'b ü none bind,optional,rw,create=dir 0 0"),
        ("type=bind,src=/a:b,dst=/c:d", True, "/a:b c:d none bind,optional,rw,create=dir 0 0"),
        ("overlay=/a", True, "/a a overlay lowerdir=/a,upperdir=/u,workdir=/w,create=dir"),
        ("overlay=/a:/b/c", True, "/a b/c overlay lowerdir=/a,upperdir=/u,workdir=/w,create=dir"),
        (
            "overlay=/a b:/c",
            True,
            "/a\\040b c overlay lowerdir=/a\\040b,upperdir=/u,workdir=/w,create=dir",
        ),
        (
            "type=overlay,src=/a:b,dst=/c",
            True,
            "/a:b c overlay lowerdir=/a\\134:b,upperdir=/u,workdir=/w,create=dir",
        ),
        (
            "overlay=/a\\b:/c",
            True,
            "/a\\134b c overlay lowerdir=/a\\134\\134b,upperdir=/u,workdir=/w,create=dir",
        ),
    ],
)
def test_entry(text: str, directory: bool, expected: str) -> None:
    """The entry is lxc-copy's, byte for byte; blanks, backslashes and colons are as liblxc and the kernel read them."""
    (mount,) = Mount.parse(text)
    layers = {"upper": "/u", "work": "/w"} if mount.kind == "overlay" else {}
    assert expected == mount.entry(mount.target, directory=directory, **layers)


def test_entry_of_a_resolved_target() -> None:
    """The entry has the target that it is told, not the one asked for, and always without its leading slash."""
    assert "/a c/d none bind,optional,rw,create=dir 0 0" == Mount("/a", "/b").entry("/c/d")
    assert "/a c/d none bind,optional,rw,create=dir 0 0" == Mount("/a", "/b").entry("c/d")


def test_entry_with_another_lower_path() -> None:
    """Where the source has a comma, the overlay's option has another path of it."""
    (mount,) = Mount.parse('type=overlay,"src=/a,b",dst=/c')
    expected = "/a,b c overlay lowerdir=/copy/lower#1,upperdir=/copy/delta#1,workdir=/copy/work#1,create=dir"
    assert expected == mount.entry("/c", lower="/copy/lower#1", upper="/copy/delta#1", work="/copy/work#1")


# What was mounted


MOUNTINFO = r"""22 1 0:21 / / rw,relatime - overlay none rw,lowerdir=/a
23 22 0:22 / /mnt rw,nosuid shared:5 master:1 - tmpfs none rw
24 22 8:1 /x\040y /a\040b ro - ext4 /dev/sda1 rw
25 22 8:1 / /c\134d rw - ext4 /dev/sda1 rw
26 22 8:1 / /e\134040 rw - ext4 /dev/sda1 rw
27 22 8:1 / /f\043g rw - ext4 /dev/sda1 rw
28 22 8:1 /only/root /h rw - ext4 /only/source rw
"""


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ([], []),
        (["/mnt", "/", "/a b", "/c\\d", "/e\\040", "/f#g"], []),
        (["/x", "/mnt", "/mnt/", "/m", "/mnt/x"], ["/x", "/mnt/", "/m", "/mnt/x"]),
        (["/x y", "/a\\040b", "/e "], ["/x y", "/a\\040b", "/e "]),
        (["/only/root", "/only/source"], ["/only/root", "/only/source"]),
    ],
)  # fmt: skip
def test_missing(targets: list[str], expected: list[str]) -> None:
    """A target is missing unless it is a mount point in the table, decoded as the kernel encodes it."""
    assert expected == missing(MOUNTINFO, targets)


@pytest.mark.parametrize("character", ["\u2028", "\x85", "\x1c", "\x0c", "\udcff", "\xa0"])
def test_missing_knows_one_line_end(character: str) -> None:
    """Only a newline ends a line of the table: the kernel writes all other characters as they are."""
    table = f"{MOUNTINFO}29 22 8:1 / /i{character}j rw - ext4 /k{character}l rw\n"
    assert ["/i", "/ij"] == missing(table, ["/i", "/ij", f"/i{character}j"])
