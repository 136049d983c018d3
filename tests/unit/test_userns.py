# SPDX-License-Identifier: LGPL-2.1-or-later
"""How a process in a user namespace says what became of a call, and what its caller makes of that."""

from __future__ import annotations

import errno
import os

import pytest

from lxccopy_ffi import AccessError, OptionError, UnsupportedError, userns


def test_no_namespace(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Where no user namespace can be made, the error says so and names the settings that forbid it."""

    def fail() -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(userns, "unshare_user", fail)
    userns.serve(pytest.fail, [], {})
    with pytest.raises(UnsupportedError, match=r"^no user namespace can be made: Operation not permitted; see the sys"):
        userns._read(capfdbinary.readouterr().out)


@pytest.mark.parametrize(
    ("said", "error", "text"),
    [
        (b'[null, 13, "Permission denied", "/x"]', PermissionError, "Permission denied: '/x'"),
        (b'[null, 0, "it", "OptionError"]', OptionError, "^it$"),
        (b'[null, 0, "it", "AccessError"]', AccessError, "^it$"),
        (b'[null, 0, "it", "LiblxcError"]', UnsupportedError, "^it$"),
        (b"Traceback: no\n", UnsupportedError, "^no process in a user namespace could be started: Traceback: no$"),
        (b"", UnsupportedError, "^no process in a user namespace could be started: $"),
    ],
)
def test_errors(said: bytes, error: type[Exception], text: str) -> None:
    """An error in the process is one in its caller; a process that died without a word is one, too."""
    with pytest.raises(error, match=text):
        userns._read(said)


def test_result() -> None:
    """What the function returned is returned."""
    assert ["/a"] == userns._read(b'[["/a"], 0, "", null]')
