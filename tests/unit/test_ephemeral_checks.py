# SPDX-License-Identifier: LGPL-2.1-or-later
"""What EphemeralCopy and run() refuse before anything is made, and without liblxc."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from lxccopy_ffi import EphemeralCopy, LiblxcMissingError, OptionError, run

BAD = [
    ({"tmpfs": True, "keep_data": True}, "cannot be kept: -t and -D contradict each other"),
    ({"tmpfs_size": "1M"}, "a size, inodes or way for the tmpfs is given, but no tmpfs"),
    ({"tmpfs_inodes": 5}, "a size, inodes or way for the tmpfs is given, but no tmpfs"),
    ({"tmpfs_via": "hook"}, "a size, inodes or way for the tmpfs is given, but no tmpfs"),
    ({"tmpfs_via": "monitor", "keep_data": True}, "a size, inodes or way for the tmpfs is given, but no tmpfs"),
    ({"tmpfs": True, "tmpfs_via": "mount"}, "tmpfs_via must be 'monitor' or 'hook', not 'mount'"),
    ({"tmpfs": True, "tmpfs_via": ""}, "tmpfs_via must be 'monitor' or 'hook', not ''"),
    ({"tmpfs": True, "tmpfs_via": 5}, "tmpfs_via must be 'monitor' or 'hook', not 5"),
    ({"tmpfs_via": "mount"}, "tmpfs_via must be"),
    ({"tmpfs": True, "tmpfs_size": "10X"}, "the size of the tmpfs, '10X', is not"),
    ({"tmpfs": True, "tmpfs_size": ""}, "the size of the tmpfs, '', is not"),
    ({"tmpfs": True, "tmpfs_size": 64.0}, "the size of the tmpfs, 64.0, is not"),
    ({"tmpfs_size": "10X"}, "the size of the tmpfs, '10X', is not"),
    ({"tmpfs": True, "tmpfs_inodes": 0}, "the number of inodes of the tmpfs must be from 1 to 2147483647, not 0"),
    ({"tmpfs": True, "tmpfs_inodes": "5"}, "the number of inodes of the tmpfs must be from 1 to 2147483647, not '5'"),
    ({"tmpfs_inodes": 1 << 31}, "the number of inodes of the tmpfs must be from 1 to 2147483647, not 2147483648"),
    ({"tmpfs": "no"}, "tmpfs must be True or False, not 'no'"),
    ({"tmpfs": 1}, "tmpfs must be True or False, not 1"),
    ({"keep_data": "no"}, "keep_data must be True or False, not 'no'"),
    ({"keep_name": 0}, "keep_name must be True or False, not 0"),
    ({"keep_mac": None}, "keep_mac must be True or False, not None"),
    ({"allow_running": "yes"}, "allow_running must be True or False, not 'yes'"),
    ({"shutdown_timeout": "5"}, "shutdown_timeout must be a number of seconds, not '5'"),
    ({"shutdown_timeout": True}, "shutdown_timeout must be a number of seconds, not True"),
    ({"shutdown_timeout": float("nan")}, "shutdown_timeout must be a number of seconds, not nan"),
    ({"hook_args": "a b"}, "hook_args must be a list of str such as ['sh', '-c', 'TEXT'], not 'a b'"),
    ({"hook_args": [5]}, "hook_args takes str, and 5 is none"),
    ({"hook_args": ["a\0"]}, "has a null character"),
    ({"source": ".."}, "the container name '..' is not allowed"),
    ({"source": ""}, "the container name is empty"),
    ({"source": None}, "the container name must be a str, not NoneType"),
    ({"name": "a/b"}, "the new name 'a/b' is not allowed"),
    ({"name": ""}, "the new name is empty"),
    ({"name": b"a"}, "the new name must be a str, not bytes"),
    ({"name": "x" * 65}, f"the new name {'x' * 65!r} has 65 characters"),
    ({"lxcpath": "/a:b"}, "the lxcpath '/a:b' has the character ':'"),
    ({"lxcpath": ""}, "the lxcpath is empty"),
    ({"lxcpath": 5}, "the lxcpath must be a path, not int"),
    ({"newpath": "/a\nb"}, "the new path '/a\\nb' has the character '\\n'"),
    ({"newpath": ""}, "the new path is empty"),
    ({"newpath": b"/a"}, "the new path must be a path, not bytes"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_refused(options: dict[str, Any], message: str) -> None:
    """A malformed or contradictory option is refused by its name when the copy is described, not when it is made."""
    with pytest.raises(OptionError, match=re.escape(message)):
        EphemeralCopy(**{"source": "base", **options})


GOOD: list[dict[str, Any]] = [
    {},
    {"tmpfs": True},
    {"tmpfs": True, "tmpfs_size": "1M", "tmpfs_inodes": 9, "tmpfs_via": "hook", "name": "x"},
    {"tmpfs": True, "tmpfs_via": "monitor", "shutdown_timeout": -1},
    {"tmpfs": True, "tmpfs_inodes": (1 << 31) - 1, "shutdown_timeout": 1e9},
    {"keep_data": True, "lxcpath": Path("x"), "newpath": "y", "hook_args": ["a"]},
    {"keep_name": True, "keep_mac": True, "allow_running": True, "hook_args": ("", Path("/b")), "shutdown_timeout": 0},
]


@pytest.mark.parametrize("options", GOOD)
def test_accepted(options: dict[str, Any]) -> None:
    """A copy that could be made is only described."""
    copy = EphemeralCopy("base", **options)
    assert "<EphemeralCopy of 'base': not started>" == repr(copy)
    with pytest.raises(ValueError, match="the copy of 'base' is not started"):
        copy.container  # noqa: B018
    copy.close()
    copy.detach()


# The arguments of run() that are wrong, with the error that says so; an empty one where nothing is wrong.
RUNS: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    ("true", {}, OptionError, "the command must be a list of str"),
    ([], {}, OptionError, "the command is empty"),
    (["a\0b"], {}, OptionError, "has a null character"),
    ([5], {}, OptionError, "5 is none"),
    (["true"], {"env": {"A": 5}}, OptionError, "the environment takes str"),
    (["true"], {"env": ["A=b"]}, OptionError, "the environment must be a dict of str, not ['A=b']"),
    (["true"], {"env": {"": ""}}, OptionError, "the environment variable ''"),
    (["true"], {"timeout": "5"}, OptionError, "timeout must be a number of seconds, not '5'"),
    (["true"], {"check": 1}, OptionError, "check must be True or False, not 1"),
    (["true"], {"input": "x"}, OptionError, "input must be bytes with text=False, not str"),
    (["true"], {"cwd": 5}, OptionError, "cwd takes str"),
    (["true"], {"tmpfs": True, "keep_data": True}, OptionError, "contradict each other"),
    (["true"], {"tmpfs": "no"}, OptionError, "tmpfs must be True or False, not 'no'"),
    (["true"], {"name": ".."}, OptionError, "the new name '..' is not allowed"),
    (["true"], {"bogus": 1}, TypeError, "bogus"),
    (["true"], {}, LiblxcMissingError, "cannot load the LXC library /nonexistent"),
]

_SCRIPT = """
import test_ephemeral_checks as checks
for options in checks.GOOD:
    checks.test_accepted(options)
for options, message in checks.BAD:
    checks.test_refused(options, message)
for case in checks.RUNS:
    checks.check_run(*case)
print("ok")
"""


def check_run(argv: Any, options: dict[str, Any], kind: type[Exception], message: str) -> None:
    """Run a command in a copy, which must fail in this way."""
    with pytest.raises(kind, match=re.escape(message)):
        run("base", argv, **options)


def test_checked_without_liblxc(tmp_path: Path) -> None:
    """All that is wrong is said where there is no liblxc, and what is right makes nothing before it is needed."""
    path = os.pathsep.join(str(directory) for directory in (ROOT, ROOT / "tests", ROOT / "tests/unit"))
    environment = {**os.environ, "LXCCOPY_LIBLXC": "/nonexistent", "PYTHONPATH": path}
    command = [sys.executable, "-c", _SCRIPT]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (0, "ok\n", "") == (result.returncode, result.stdout, result.stderr)
    assert not list(tmp_path.iterdir())
