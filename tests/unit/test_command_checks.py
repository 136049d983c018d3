# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is refused before a command is run."""

from __future__ import annotations

import os
import re
import types
from pathlib import Path
from typing import Any

import pytest

from lxccopy_ffi import OptionError, request
from lxccopy_ffi.command import check_argv, check_env
from lxccopy_ffi.request import Request


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["true"], ["true"]),
        (("sh", "-c", ""), ["sh", "-c", ""]),
        ([Path("/bin/ls"), "-l"], ["/bin/ls", "-l"]),
        ([""], [""]),
        (["a b", "ü", "\n", "\udcff"], ["a b", "ü", "\n", "\udcff"]),
        ((word for word in ("echo", "x")), ["echo", "x"]),
    ],
)
def test_good_argv(argv: Any, expected: list[str]) -> None:
    """A sequence of words, or paths, becomes a list of str."""
    assert expected == check_argv(argv)


def test_argv_is_copied() -> None:
    """What the caller does to the list later changes nothing."""
    argv = ["true"]
    assert argv is not check_argv(argv)


@pytest.mark.parametrize("argv", ["true", "sh -c x", "", b"true", None, 5, True, object()])
def test_argv_that_is_no_list(argv: Any) -> None:
    """A str in place of a list, or no sequence at all, is refused, with the value and an example."""
    pattern = re.escape("the command must be a list of str such as ['sh', '-c', 'TEXT'], not ")
    with pytest.raises(OptionError, match=f"^{pattern}{re.escape(repr(argv))}$"):
        check_argv(argv)


@pytest.mark.parametrize("argv", [[], (), iter(()), {}])
def test_empty_argv(argv: Any) -> None:
    """An empty command is refused."""
    with pytest.raises(OptionError, match=r"^the command is empty$"):
        check_argv(argv)


class _BytesPath(os.PathLike[Any]):
    def __fspath__(self) -> bytes:
        return b"/bin/ls"


@pytest.mark.parametrize("word", [5, None, b"x", ["x"], 1.5, True, _BytesPath()])
@pytest.mark.parametrize("before", [[], ["echo"]])
def test_argv_with_a_wrong_type(before: list[str], word: Any) -> None:
    """A word that is no str is refused by its value."""
    shown = os.fspath(word) if isinstance(word, os.PathLike) else word
    with pytest.raises(OptionError, match=f"^the command takes str, and {re.escape(repr(shown))} is none$"):
        check_argv([*before, word])


@pytest.mark.parametrize("word", ["a\0b", "\0", Path("a\0")])
def test_argv_with_a_null(word: Any) -> None:
    """A word with a null character, which would end it, is refused."""
    with pytest.raises(OptionError, match=r"has a null character$"):
        check_argv(["echo", word])


@pytest.mark.parametrize(
    "env", [{}, {"A": "b"}, {"A": ""}, {"a b": "x=y\nz"}, types.MappingProxyType({"A": "b"}), os.environ]
)
def test_good_env(env: Any) -> None:
    """A mapping of str to str becomes a dictionary of its own."""
    assert dict(env) == check_env(env)
    assert env is not check_env(env)


@pytest.mark.parametrize("env", [{"": "x"}, {"A=B": "x"}, {"=": "x"}, {"GOOD": "1", "": ""}])
def test_env_with_a_wrong_name(env: dict[str, str]) -> None:
    """A variable that no environment can hold is refused by its name."""
    message = f"the environment variable {[*env][-1]!r} has a name that cannot be passed on"
    with pytest.raises(OptionError, match=f"^{re.escape(message)}$"):
        check_env(env)


@pytest.mark.parametrize("env", [{"A\0": "x"}, {"A": "x\0"}, {"GOOD": "1", "\0": ""}])
def test_env_with_a_null(env: dict[str, str]) -> None:
    """A name or value with a null character, which would end it, is refused."""
    with pytest.raises(OptionError, match=r"has a null character$"):
        check_env(env)


@pytest.mark.parametrize("env", [{"A": 5}, {"A": None}, {"A": b"x"}, {5: "x"}, {b"A": "x"}, {None: "x"}])
def test_env_of_wrong_types(env: Any) -> None:
    """A name or value that is no str is refused and quoted."""
    (wrong,) = (part for pair in env.items() for part in pair if not isinstance(part, str))
    with pytest.raises(OptionError, match=f"^the environment takes str, and {re.escape(repr(wrong))} is none$"):
        check_env(env)


@pytest.mark.parametrize("env", [["A=b"], "A=b", 5, [("A", "b")]])
def test_env_that_is_no_mapping(env: Any) -> None:
    """What is no mapping is refused and quoted."""
    with pytest.raises(OptionError, match=f"^the environment must be a dict of str, not {re.escape(repr(env))}$"):
        check_env(env)


@pytest.mark.parametrize(
    ("data", "text", "expected"),
    [
        (None, False, None),
        (None, True, None),
        (b"a\xff", False, b"a\xff"),
        (b"", False, b""),
        ("ü", True, "ü".encode()),
        ("", True, b""),
        (bytearray(b"a"), False, b"a"),
        (memoryview(b"a"), False, b"a"),
    ],
)
def test_good_input(monkeypatch: pytest.MonkeyPatch, data: Any, text: bool, expected: bytes | None) -> None:
    """Input is bytes, or a str in the locale's encoding where text is set."""
    monkeypatch.setattr(request, "_encoding", lambda: "utf-8")
    assert expected == Request(["cat"], input=data, text=text).input


@pytest.mark.parametrize(
    ("data", "text", "wanted"),
    [
        ("a", False, "bytes"),
        ("", False, "bytes"),
        (b"a", True, "str"),
        (b"", True, "str"),
        (5, True, "str"),
        (5, False, "bytes"),
        ([65, 66], False, "bytes"),
    ],
)
def test_bad_input(data: Any, text: bool, wanted: str) -> None:
    """Input of the wrong type is refused, with the one that is wanted."""
    message = f"^input must be {wanted} with text={text}, not {type(data).__name__}$"
    with pytest.raises(OptionError, match=message):
        Request(["cat"], input=data, text=text)


def test_good_request() -> None:
    """A request has what was asked for, in lists and dictionaries of its own."""
    argv, env = ["env"], {"A": "b"}
    request = Request(argv, capture_output=True, text=True, timeout=0.5, check=True, env=env, cwd="/srv")
    argv.clear()
    env.clear()
    assert (["env"], {"A": "b"}, "/srv", 0.5) == (request.argv, request.env, request.cwd, request.timeout)
    assert (True, True, True, None) == (request.capture_output, request.text, request.check, request.input)


def test_plain_request() -> None:
    """A command is all that a request needs."""
    request = Request(["true"])
    assert (None, None, None, None) == (request.env, request.cwd, request.timeout, request.input)
    assert (False, False, False) == (request.capture_output, request.text, request.check)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"argv": "true"}, "the command must be a list of str"),
        ({"argv": []}, "the command is empty"),
        ({"capture_output": 1}, "capture_output must be True or False, not 1"),
        ({"text": "utf-8", "input": "x"}, "text must be True or False, not 'utf-8'"),
        ({"check": None}, "check must be True or False, not None"),
        ({"timeout": "5"}, "timeout must be a number of seconds, not '5'"),
        ({"timeout": True}, "timeout must be a number of seconds, not True"),
        ({"timeout": float("nan")}, "timeout must be a number of seconds, not nan"),
        ({"env": ["A=b"]}, "the environment must be a dict of str, not ['A=b']"),
        ({"env": {"A": 5}}, "the environment takes str"),
        ({"cwd": 5}, "cwd takes str"),
        ({"cwd": b"/"}, "cwd takes str"),
        ({"cwd": "/\0"}, "has a null character"),
        ({"input": 5}, "input must be bytes with text=False, not int"),
    ],
)
def test_bad_request(option: dict[str, Any], message: str) -> None:
    """Whatever is wrong with a request is refused by its name."""
    with pytest.raises(OptionError, match=re.escape(message)):
        Request(**{"argv": ["true"], **option})


@pytest.mark.parametrize(
    ("data", "text", "expected"),
    [
        (b"a\r\nb\rc\n\xff", False, b"a\r\nb\rc\n\xff"),
        ("a\r\nb\rc\nü".encode(), True, "a\nb\nc\nü"),
        (b"", True, ""),
        (b"", False, b""),
    ],
)
def test_output(monkeypatch: pytest.MonkeyPatch, data: bytes, text: bool, expected: bytes | str) -> None:
    """Output is bytes as they are, or a str with newlines as subprocess makes them."""
    monkeypatch.setattr(request, "_encoding", lambda: "utf-8")
    assert expected == request._decoded(bytearray(data), text=text, errors="strict")
