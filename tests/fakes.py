# SPDX-License-Identifier: LGPL-2.1-or-later
"""The one fake: a real Container that fails at a chosen call, before it or after it was really made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lxccopy_ffi import Container, LiblxcError, identity, tmpfs

# What making a copy calls, each of which can fail on a real machine.
STEPS: tuple[tuple[Any, str], ...] = (
    (Container, "require_defined"),
    (Container, "config"),
    (Container, "clone"),
    (Container, "set_config"),
    (Container, "clear_config"),
    (Container, "save_config"),
    (Container, "start"),
    (identity, "personalise"),
    (identity, "personalise_above"),
    (tmpfs, "make"),
    (tmpfs, "write_hook"),
)


class Failing:
    """Counts the calls of STEPS, and fails at one of them.

    Attributes:
        calls: The name of each call so far.
    """

    def __init__(self, at: int, *, after: bool) -> None:
        self.calls: list[str] = []
        self._at = at
        self._after = after

    def wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, failing when its turn has come; what follows, such as tidying up, is real again."""

        def call(*arguments: Any, **keywords: Any) -> Any:
            self.calls.append(name)
            if len(self.calls) - 1 != self._at:
                return real(*arguments, **keywords)
            if self._after:
                real(*arguments, **keywords)
            raise LiblxcError(f"fail in {name} of", "the", "test", "as it was told")

        return call


@contextmanager
def failing(at: int, *, after: bool = False) -> Iterator[Failing]:
    """Let the call with this number fail, counted from 0; -1 for none."""
    state = Failing(at, after=after)
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in STEPS:
            patch.setattr(owner, name, state.wrap(name, getattr(owner, name)))
        yield state
