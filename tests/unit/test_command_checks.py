# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is refused before a command is run."""

from __future__ import annotations

import inspect
import io
import os
import re
import subprocess
import types
from pathlib import Path
from typing import Any

import pytest

from lxccopy_ffi import OptionError, request
from lxccopy_ffi.accounts import choose
from lxccopy_ffi.command import check_argv, check_env
from lxccopy_ffi.request import KEYWORDS, Request, RunRequest


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
    assert expected == RunRequest(["cat"], input=data, text=text).input


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
        RunRequest(["cat"], input=data, text=text)


def test_good_request() -> None:
    """A request has what was asked for, in lists and dictionaries of its own."""
    argv, env = ["env"], {"A": "b"}
    request = RunRequest(argv, capture_output=True, text=True, timeout=0.5, check=True, env=env, cwd="/srv")
    argv.clear()
    env.clear()
    assert (["env"], {"A": "b"}, "/srv", 0.5) == (request.argv, request.env, request.cwd, request.timeout)
    assert (True, True, None) == (request.text, request.check, request.input)
    assert (subprocess.PIPE, subprocess.PIPE) == (request.stdout, request.stderr)


def test_plain_request() -> None:
    """A command is all that a request needs."""
    request = RunRequest(["true"])
    assert (None, None, None, None) == (request.env, request.cwd, request.timeout, request.input)
    assert (False, False) == (request.text, request.check)
    assert (None, None, None, None, None) == (
        request.stdin,
        request.stdout,
        request.stderr,
        request.user,
        request.group,
    )


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
        ({"input": b"", "stdin": subprocess.PIPE}, "stdin and input contradict each other"),
        ({"capture_output": True, "stdout": subprocess.PIPE}, "stdout and capture_output contradict each other"),
        ({"capture_output": True, "stderr": subprocess.STDOUT}, "stderr and capture_output contradict each other"),
        ({"text": False, "encoding": "utf-8"}, "encoding and text=False contradict each other"),
        ({"text": False, "errors": "strict"}, "errors and text=False contradict each other"),
        ({"encoding": 5}, "encoding must be a str, not 5"),
        ({"encoding": "no-such"}, "encoding: there is none called 'no-such'"),
        ({"encoding": "hex"}, "encoding: there is none called 'hex'"),
        ({"encoding": "a\0"}, "encoding: there is none called"),
        ({"errors": "no-such"}, "errors: there is no way called 'no-such'"),
        ({"errors": b"strict"}, "errors must be a str, not b'strict'"),
        ({"stdin": "file"}, "stdin must be a descriptor, a file, PIPE or DEVNULL, not 'file'"),
        ({"stdin": True}, "stdin must be a descriptor, a file, PIPE or DEVNULL, not True"),
        ({"stdin": subprocess.STDOUT}, "stdin: descriptor -2 is not open"),
        ({"stdout": subprocess.STDOUT}, "stdout: descriptor -2 is not open"),
        ({"stdout": 1 << 40}, "is not open"),
        ({"stdout": -4}, "stdout: descriptor -4 is not open"),
        ({"stderr": io.BytesIO()}, "stderr has no descriptor"),
        ({"stderr": 1.0}, "stderr must be a descriptor, a file, PIPE or DEVNULL, not 1.0"),
        ({"user": True}, "user must be a name or a number, not True"),
        ({"user": b"root"}, "user must be a name or a number, not b'root'"),
        ({"user": -1}, "user must be from 0 to 4294967294, not -1"),
        ({"user": 1 << 32}, "user must be from 0 to 4294967294, not 4294967296"),
        ({"group": ""}, "group must be a name or a number, not ''"),
        ({"group": "a:b"}, "group must be a name or a number, not 'a:b'"),
        ({"group": "a\n"}, "group must be a name or a number"),
    ],
)
def test_bad_request(option: dict[str, Any], message: str) -> None:
    """Whatever is wrong with a request is refused by its name."""
    with pytest.raises(OptionError, match=re.escape(message)):
        RunRequest(**{"argv": ["true"], **option})


@pytest.mark.parametrize("text", [None, True])
@pytest.mark.parametrize("options", [{"encoding": "latin-1"}, {"errors": "replace"}])
def test_encoding_means_text(text: bool | None, options: dict[str, Any]) -> None:
    """An encoding or a way with errors makes it text, as with subprocess."""
    assert Request(["true"], text=text, **options).text


def test_stream_of_the_wrong_direction(tmp_path: Path) -> None:
    """A file that cannot be read, or written, is refused by the name of the stream."""
    with open(tmp_path / "file", "wb") as file, open(os.devnull, "rb") as null:
        assert file.fileno() == Request(["true"], stdout=file, stderr=file.fileno()).stdout
        with pytest.raises(OptionError, match=r"^stdin cannot be read$"):
            Request(["true"], stdin=file)
        with pytest.raises(OptionError, match=r"^stderr cannot be written$"):
            Request(["true"], stderr=null)
    with pytest.raises(OptionError, match=r"^stdin has no descriptor: I/O operation on closed file$"):
        Request(["true"], stdin=file)


def test_constants() -> None:
    """The constants for streams are subprocess's."""
    assert (subprocess.PIPE, subprocess.STDOUT, subprocess.DEVNULL) == (request.PIPE, request.STDOUT, request.DEVNULL)


def test_keywords_are_the_same_everywhere() -> None:
    """What run() hands on, what type checkers know and what is checked are the same keywords."""
    checked = {*inspect.signature(Request).parameters, *inspect.signature(RunRequest).parameters} - {"argv", "streams"}
    assert KEYWORDS == checked
    text = inspect.getsource(request)
    names = re.findall(
        r"^        (\w+): ", text[text.index("class PopenOptions") : text.index("# subprocess's")], re.MULTILINE
    )
    assert sorted(checked) == sorted(names)


@pytest.mark.parametrize(
    ("data", "options", "expected"),
    [
        (b"a\r\nb\rc\n\xff", {}, b"a\r\nb\rc\n\xff"),
        ("a\r\nb\rc\nü".encode(), {"encoding": "utf-8"}, "a\nb\nc\nü"),
        (b"a\xff", {"encoding": "latin-1"}, "aÿ"),
        (b"a\xff", {"encoding": "utf-8", "errors": "replace"}, "a\ufffd"),
        (b"", {"text": True}, ""),
        (b"", {}, b""),
    ],
)
def test_output(data: bytes, options: dict[str, Any], expected: bytes | str) -> None:
    """Output is bytes as they are, or a str with newlines as subprocess makes them."""
    assert expected == Request(["true"], **options).decode(data)


USERS = [
    line.split(":") for line in ("root:x:0:0::/root:/bin/sh", "web:x:33:34::/srv:", "12:x:5:5::/twelve:", "no:x:6:7:::")
]
GROUPS = [line.split(":") for line in ("root:x:0:", "www:x:34:", "adm:x:4:web,root", "disk:x:6:web", "33:x:40:")]


@pytest.mark.parametrize(
    ("user", "group", "expected"),
    [
        (None, None, (0, 0, [0, 4], "root", "/root")),
        ("web", None, (33, 34, [34, 4, 6], "web", "/srv")),
        (33, None, (33, 34, [34, 4, 6], "web", "/srv")),
        ("33", None, (33, 34, [34, 4, 6], "web", "/srv")),
        ("12", None, (5, 5, [5], "12", "/twelve")),
        (12, None, (12, 12, [12], "12", "/")),
        ("no", None, (6, 7, [7], "no", "/")),
        (99, None, (99, 99, [99], "99", "/")),
        ("web", "disk", (33, 6, [6, 4], "web", "/srv")),
        ("web", 77, (33, 77, [77, 4, 6], "web", "/srv")),
        (None, "adm", (0, 4, [4], "root", "/root")),
        (0, "33", (0, 40, [40, 4], "root", "/root")),
    ],
)
def test_account(user: Any, group: Any, expected: tuple[Any, ...]) -> None:
    """A user has the ids, groups and home of the container's own files; a name that is a number is a name first."""
    account = choose(USERS, GROUPS, user, group, "c")
    name = account.environment["USER"]
    assert name == account.environment["LOGNAME"]
    assert expected == (account.uid, account.gid, account.groups, name, account.environment["HOME"])


@pytest.mark.parametrize(("user", "group"), [("nobody", None), ("web", "nobody"), ("99999999999", None)])
def test_no_such_account(user: str, group: str | None) -> None:
    """A user or group that the container has not is refused by its name."""
    with pytest.raises(OptionError, match=f"there is no (user|group) '{group or user}' in 'c'"):
        choose(USERS, GROUPS, user, group, "c")
