# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a name, a path and a value may be."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from lxccopy_ffi import OptionError
from lxccopy_ffi.names import (
    MAX_NAME,
    check_file,
    check_flag,
    check_interface,
    check_key,
    check_name,
    check_number,
    check_path,
    check_seconds,
    check_value,
    check_words,
    random_name,
    random_suffix,
)


@pytest.mark.parametrize("name", ["a", "Z", "7", "web-1", "a.b_c-d", "base_OtUYGm", "a..b", "a-", "x" * 64])
def test_good_name(name: str) -> None:
    """A name of letters, digits and few signs is returned as it is."""
    assert name == check_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "...", "a/b", "/a", "../a", "-x", "_x", ".x", "x" * 65, "ü", "aü", "\u0661", "a\u0661", "ª",
        " a", "a ", "a b", "a\n", "\na", "a\nlxc.ephemeral = 7", "a\tb", "a\0", "\x7fa", "\udcffa",
        "$(id)", "`id`", "a;b", "a|b", "a&b", "a*", "a?", "~", "a~", "#a", "a:b", "a,b", "a\\b", "a'b", 'a"b', "a=b",
    ],
)  # fmt: skip
def test_bad_name(name: str) -> None:
    """A name that a path, a host name, a config line or a shell could misread is refused, and quoted in the error."""
    with pytest.raises(OptionError, match=r"^the new name ") as caught:
        check_name(name, "new name")
    assert (repr(name) if name else "is empty") in str(caught.value)


@pytest.mark.parametrize("name", [None, 5, b"a", ["a"], Path("a"), True])
def test_name_of_a_wrong_type(name: Any) -> None:
    """What is no str is refused with the name of its type."""
    with pytest.raises(OptionError, match=f"container name must be a str, not {type(name).__name__}$"):
        check_name(name)


def test_too_long_name_is_counted() -> None:
    """The error says how long the name is and may be."""
    with pytest.raises(OptionError, match="has 65 characters; 64 is the longest"):
        check_name("x" * (MAX_NAME + 1))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/srv/lxc", "/srv/lxc"),
        ("/srv/lxc//", "/srv/lxc"),
        ("/srv/./a/../lxc", "/srv/lxc"),
        ("/..", "/"),
        ("/a b/ü", "/a b/ü"),
        ("/a 'b' $(c) #d *", "/a 'b' $(c) #d *"),
        ("/a=b;c", "/a=b;c"),
        (Path("/srv/lxc"), "/srv/lxc"),
    ],
)
def test_good_path(path: Any, expected: str) -> None:
    """A path is made absolute and plain."""
    assert expected == check_path(path)


@pytest.mark.parametrize("path", ["x", "./x", "y/../x", Path("x")])
def test_relative_path(path: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is one below the current directory."""
    monkeypatch.chdir(tmp_path)
    assert str(tmp_path / "x") == check_path(path)


@pytest.mark.parametrize(
    "path",
    [
        "", "/a,b", "/a:b", "/a\\b", "/a\nb", "/a\tb", "/a\0b", "/a\x1b", "/a\x7f", "/a\x85", "/a\u2028b", "/a\udcff",
        "/a ", "/a /", "/a /.", "a,b",
    ],
)  # fmt: skip
def test_bad_path(path: str) -> None:
    """A path that overlay options or a config line cannot carry is refused."""
    with pytest.raises(OptionError, match=r"^the new path "):
        check_path(path, "new path")


def test_bad_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What makes a relative path absolute is checked too."""
    (tmp_path / "a,b").mkdir()
    monkeypatch.chdir(tmp_path / "a,b")
    with pytest.raises(OptionError, match="','"):
        check_path("x")


@pytest.mark.parametrize(("path", "good"), [("x", False), ("./x", False), ("/srv", True)])
def test_deleted_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, good: bool) -> None:
    """A path that is relative to a deleted directory is refused; an absolute one does not care."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    if good:
        assert path == check_path(path)
    else:
        with pytest.raises(OptionError, match=f"^the lxcpath '{path}' is relative to a directory that is gone$"):
            check_path(path)


class _BytesPath(os.PathLike[Any]):
    def __fspath__(self) -> bytes:
        return b"/a"


@pytest.mark.parametrize("path", [None, 5, b"/a", ["/a"], True, _BytesPath()])
def test_path_of_a_wrong_type(path: Any) -> None:
    """What is no path of text is refused with the name of its type."""
    with pytest.raises(OptionError, match=r"^the lxcpath must be .*, not (NoneType|int|bytes|list|bool)$"):
        check_path(path)


@pytest.mark.parametrize("value", ["", "a b", "a\tb", "ü", "$(id) 'x' #y", "a\udcffb", "x" * 5000])
def test_good_value(value: str) -> None:
    """A value on one line is returned as it is."""
    assert value == check_value("lxc.uts.name", value)


@pytest.mark.parametrize("value", ["a\nb", "\n", "a\rb", "a\0b", "a\x0bb", "\x1b", "a\x7f"])
def test_bad_value(value: str) -> None:
    """A value with a control character is refused, naming the key."""
    with pytest.raises(OptionError, match=r"^the value of lxc\.uts\.name, .* has a control character$"):
        check_value("lxc.uts.name", value)


@pytest.mark.parametrize("value", [None, 1, b"a", ["a"]])
def test_value_of_a_wrong_type(value: Any) -> None:
    """What is no str is refused with the name of its type."""
    with pytest.raises(OptionError, match=f"must be a str, not {type(value).__name__}$"):
        check_value("lxc.uts.name", value)


@pytest.mark.parametrize("value", [True, False])
def test_good_flag(value: bool) -> None:
    """True and False are flags."""
    assert value is check_flag("tmpfs", value)


@pytest.mark.parametrize("value", [None, 0, 1, "", "no", "True", [], 1.0])
def test_bad_flag(value: Any) -> None:
    """What is only true or false in a manner of speaking is refused by its name, and quoted."""
    with pytest.raises(OptionError, match=f"^tmpfs must be True or False, not {re.escape(repr(value))}$"):
        check_flag("tmpfs", value)


@pytest.mark.parametrize("value", [None, 0, 5, -1, 0.5, 1e9, float("inf")])
def test_good_seconds(value: float | None) -> None:
    """A number of seconds, or None, is returned as it is."""
    assert value is check_seconds("timeout", value)


@pytest.mark.parametrize("value", [True, False, "5", "", b"5", [5], 1j, float("nan")])
def test_bad_seconds(value: Any) -> None:
    """What is no number of seconds is refused by its name, and quoted."""
    with pytest.raises(OptionError, match=f"^timeout must be a number of seconds, not {re.escape(repr(value))}$"):
        check_seconds("timeout", value)


@pytest.mark.parametrize("key", ["lxc.net.0.type", "memory.max", "hugetlb.2MB.max", "x"])
def test_good_key(key: str) -> None:
    """The names of config and cgroup items are returned as they are."""
    assert key == check_key(key)


@pytest.mark.parametrize(
    "key", ["", " ", "a b", "a/b", "../x", "a\n", "a\0", "\u00e4", "\udcff", None, 7, b"memory.max"]
)
def test_bad_key(key: Any) -> None:
    """What leads elsewhere, ends a line or is no str is refused by name."""
    with pytest.raises(OptionError, match=r"^the prefix "):
        check_key(key, "prefix")


@pytest.mark.parametrize("name", ["lo", "eth0", "veth1.2@x", "a" * 15, "\u00e4" * 7])
def test_good_interface(name: str) -> None:
    """What the kernel takes as the name of an interface is returned as it is."""
    assert name == check_interface(name)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a:b", "a b", "a\t", "a\0", "a" * 16, "\u00e4" * 8, None, 7, b"lo"]
)
def test_bad_interface(name: Any) -> None:
    """What the kernel does not take, counted in bytes, is refused by name."""
    with pytest.raises(OptionError, match=r"^the new name "):
        check_interface(name, "new name")


@pytest.mark.parametrize("value", [-1, 0, 1, (1 << 31) - 1])
def test_good_number(value: int) -> None:
    """A number from the least on, up to a C int's, is returned as it is."""
    assert value == check_number("tty", value, -1)


@pytest.mark.parametrize("value", [-2, 1 << 31, 1.0, True, "1", None])
def test_bad_number(value: Any) -> None:
    """A number that is too small or too large, and what is none, is refused by name."""
    with pytest.raises(OptionError, match=r"^tty must be a whole number from -1 on, not "):
        check_number("tty", value, -1)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], []),
        (("a", ""), ["a", ""]),
        ([Path("/a"), "b c"], ["/a", "b c"]),
        (iter(["ü", "\n", "\udcff"]), ["ü", "\n", "\udcff"]),
    ],
)
def test_good_words(words: Any, expected: list[str]) -> None:
    """A sequence of words or paths becomes a list of str, also an empty one."""
    assert expected == check_words("hook_args", words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("a", "hook_args must be a list of str such as ['sh', '-c', 'TEXT'], not 'a'"),
        (b"a", "hook_args must be a list of str such as ['sh', '-c', 'TEXT'], not b'a'"),
        (None, "hook_args must be a list of str such as ['sh', '-c', 'TEXT'], not None"),
        (5, "hook_args must be a list of str such as ['sh', '-c', 'TEXT'], not 5"),
        ([5], "hook_args takes str, and 5 is none"),
        (["a", b"b"], "hook_args takes str, and b'b' is none"),
        ([_BytesPath()], "hook_args takes str, and b'/a' is none"),
        (["a\0"], r"hook_args: 'a\x00' has a null character"),
        (["a", "\ud800"], r"hook_args: '\ud800' cannot be encoded"),
    ],
)
def test_bad_words(words: Any, message: str) -> None:
    """What no program can be given is refused by its name, and quoted."""
    with pytest.raises(OptionError, match=f"^{re.escape(message)}$"):
        check_words("hook_args", words)


@pytest.mark.parametrize("base", ["a", "base", "x" * 57, "x" * 58, "y" * 63 + ".", "z" * 64])
def test_random_name_is_legal(base: str) -> None:
    """A random name is the base's beginning, an underscore and six letters or digits, and legal."""
    name = check_name(random_name(base))
    assert (base[:57], "_", 6) == (name[:-7], name[-7], len(name[-6:]))
    assert name[-6:].isalnum()


def test_random_names_differ() -> None:
    """A thousand random names are a thousand names."""
    assert 1000 == len({check_name(random_name("base")) for _ in range(1000)})


def test_random_suffix() -> None:
    """A random suffix is six letters and digits, each of which comes up."""
    suffixes = [random_suffix() for _ in range(2000)]
    assert {6} == {len(suffix) for suffix in suffixes}
    assert set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") == set("".join(suffixes))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a", "/a"),
        ("/a/../b//c/", "/b/c"),
        (Path("/a/b"), "/a/b"),
        ("/a,b:c\\d", "/a,b:c\\d"),
        ("/a\nb \x7f\udcff", "/a\nb \x7f\udcff"),
    ],
)
def test_good_file(path: Any, expected: str) -> None:
    """A file may have any name; its path is made absolute and plain."""
    assert expected == check_file(path)


def test_relative_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path of a file is one below the current directory."""
    monkeypatch.chdir(tmp_path)
    assert [str(tmp_path / "x")] * 2 == [check_file("x"), check_file(Path("./y/../x"))]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "the rcfile cannot be ''"),
        ("/a\0b", r"the rcfile cannot be '/a\x00b'"),
        (None, "the rcfile must be a path, not None"),
        (5, "the rcfile must be a path, not 5"),
        (b"/a", "the rcfile must be a path, not b'/a'"),
        (_BytesPath(), "the rcfile must be a path, not <"),
        (["/a"], "the rcfile must be a path, not ['/a']"),
    ],
)
def test_bad_file(path: Any, message: str) -> None:
    """What is no path of a file is refused, and quoted."""
    with pytest.raises(OptionError, match=f"^{re.escape(message)}"):
        check_file(path, "rcfile")


def test_file_relative_to_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is relative to a deleted directory is refused; an absolute one does not care."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert "/srv" == check_file("/srv")
    with pytest.raises(OptionError, match=r"is gone$"):
        check_file("x")
