# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a pool refuses before anything is made."""

from __future__ import annotations

from typing import Any

import pytest

from lxccopy_ffi import OptionError, Pool

WRONG: dict[str, dict[str, Any]] = {
    "the copies of a pool cannot have name": {"name": "copy"},
    "the copies of a pool cannot have keep_data": {"keep_data": True},
    "size must be a number of at least 1, not 0": {"size": 0},
    "size must be a number of at least 1, not True": {"size": True},
    "size must be a number of at least 1, not '4'": {"size": "4"},
    "max_wait must be a number of seconds, not 'long'": {"max_wait": "long"},
    "tmpfs must be True or False, not 'no'": {"tmpfs": "no"},
}


@pytest.mark.parametrize("text", WRONG)
def test_wrong_options(text: str) -> None:
    """Each wrong option is refused where the pool is made."""
    with pytest.raises(OptionError, match=f"^{text}$"):
        Pool("base", **WRONG[text])


@pytest.fixture
def pool(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> Any:
    """A pool whose base is not there."""
    with caplog.at_level("CRITICAL"), Pool("base", 1, lxcpath=tmp_path) as pool:
        yield pool


def test_commands_are_lists(pool: Pool) -> None:
    """A command that is none, or has arguments elsewhere, is refused before it has to wait for a copy."""
    with pytest.raises(OptionError, match=r"^the command must be a list of str"):
        pool.submit("true")
    with pytest.raises(OptionError, match=r"^the command must be a list of str"):
        pool.run("true")
    with pytest.raises(OptionError, match=r"^a command is one list, of all its arguments$"):
        pool.submit(["echo"], "1")  # type: ignore[call-overload]
    with pytest.raises(OptionError, match=r"^commands are given as one list of lists$"):
        pool.map(["echo"], ["1"])  # type: ignore[call-overload]
    with pytest.raises(OptionError, match=r"^max_workers must be a number of at least 1, not 0$"):
        pool.map([["echo"]], max_workers=0)
