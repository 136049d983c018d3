# SPDX-License-Identifier: LGPL-2.1-or-later
"""The exceptions, their texts, and how liblxc's log becomes a reason."""

from __future__ import annotations

import inspect
import pickle

import pytest

import lxccopy_ffi
from lxccopy_ffi import LiblxcError, LiblxcMissingError, LxcCopyError, errors
from lxccopy_ffi._raw import reason_from_log

TREE = {
    "LxcCopyError": Exception,
    "OptionError": ValueError,
    "ContainerNotFoundError": LookupError,
    "ContainerExistsError": FileExistsError,
    "AccessError": PermissionError,
    "LiblxcMissingError": ImportError,
    "UnsupportedError": LxcCopyError,
    "LiblxcError": LxcCopyError,
}
CLASSES: dict[str, type] = {name: kind for name, kind in vars(errors).items() if inspect.isclass(kind)}


def test_tree() -> None:
    """The module has these errors and no more."""
    assert TREE.keys() == CLASSES.keys()


@pytest.mark.parametrize("name", TREE)
def test_bases(name: str) -> None:
    """Each is an LxcCopyError, and the built-in error that callers know."""
    bases = (Exception,) if name == "LxcCopyError" else tuple(dict.fromkeys((LxcCopyError, TREE[name])))
    assert bases == CLASSES[name].__bases__


@pytest.mark.parametrize("name", TREE)
def test_exported(name: str) -> None:
    """Each can be imported from the package."""
    assert name in lxccopy_ffi.__all__
    assert CLASSES[name] is getattr(lxccopy_ffi, name)


def test_module_draws_the_tree() -> None:
    """The tree that the module's text shows has each with its built-in error."""
    assert errors.__doc__ is not None
    for name, base in TREE.items():
        line = next(line for line in errors.__doc__.splitlines() if name in line.split("  ")[0])
        assert f"({base.__name__})" in line or base in {Exception, LxcCopyError}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("start", "a", "/x"), "cannot start container 'a' in /x"),
        (("start", "a", "/x", "no"), "cannot start container 'a' in /x: no"),
        (("start", "a", "/x", "no", "do"), "cannot start container 'a' in /x: no (do)"),
        (("start", "a", "/x", "", "do"), "cannot start container 'a' in /x (do)"),
        (("set lxc.x = y for", "a\n", "/x"), r"cannot set lxc.x = y for container 'a\n' in /x"),
    ],
)
def test_text(arguments: tuple[str, ...], text: str) -> None:
    """A LiblxcError says what failed for which container, why, and what to do."""
    error = LiblxcError(*arguments)
    assert text == str(error)
    parts = (error.operation, error.container, error.lxcpath, error.reason, error.hint)
    assert arguments + ("",) * (5 - len(arguments)) == parts


@pytest.mark.parametrize(
    "error",
    [
        *(kind("text") for name, kind in CLASSES.items() if name != "LiblxcError"),
        LiblxcMissingError("text", name="liblxc"),
        LiblxcError("start", "a", "/x", "no", "do"),
        LiblxcError("start", "a", "/x"),
    ],
    ids=repr,
)
def test_pickle(error: LxcCopyError) -> None:
    """An error comes back from another process as it was."""
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (type(error), error.args, vars(error), str(error)) == (type(again), again.args, vars(again), str(again))
    assert getattr(error, "name", None) == getattr(again, "name", None)


def line(message: str, level: str = "ERROR", function: str = "lxc_start") -> str:
    """A line of liblxc's log."""
    place = f"../src/lxc/start.c:{function}:2107"
    return f"lxc a 20260820132155.123 {level:<8} start - {place} - {message}"


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([], ""),
        ([line("A")], "A"),
        ([line(" A  ")], "A"),
        ([line("No such file - Failed to open - x")], "No such file - Failed to open - x"),
        ([line(message, level) for message, level in zip("ABCDE", ("WARN", "ERROR", "INFO", "DEBUG", "NOTICE"))], "B"),
        ([line("an ERROR in it", "WARN")], ""),
        ([line("A"), line("B"), line("A"), line("B")], "A; B"),
        ([line(letter) for letter in "ABCDE"], "A; B; C"),
        ([line("A"), line("B", function="wait_on_daemonized_start")], "A"),
        ([line("A", function=name) for name in ("sync_wait", "copy_file", "_recursive_rmdir", "lxc_rmdir_onedev")], ""),
        ([line("A", function="my_sync_wait")], "A"),
        ([line("A"), line("Script exec /x produced output: oops ", "DEBUG", "run_buffer")], "oops; A"),
        ([line("A"), line("B"), line("C"), line("x produced output: D", "DEBUG")], "D; A; B"),
        ([line("x produced output: A", "DEBUG"), line("A")], "A"),
        (["", "nothing", "an ERROR in it", " - ERROR - ", "a - b", "a ERROR b - no_colon - A", "a ERROR b - - A"], ""),
        (["lxc a 20260820132155.123 ERROR    x", *[line("A")]], "A"),
        ([line("caf\udce9")], "caf\udce9"),
    ],
)
def test_reason(lines: list[str], reason: str) -> None:
    """The first three distinct causes are the reason, what a hook printed before all others; noise is none."""
    assert reason == reason_from_log(lines)
