# SPDX-License-Identifier: LGPL-2.1-or-later
"""Doing something to files of an ordinary user's containers, which belong to the user's subordinate ids.

A process in a user namespace that has all of these ids, and the user's own, may do with their files what root may.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from . import subids
from ._raw import unshare_user, write_all
from .errors import AccessError, LxcCopyError, OptionError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import Popen
    from typing import Any

# What the process there runs. It is a new one, since a process with threads cannot enter a user namespace.
_PROGRAM = """\
import json, sys
sys.path[:], arguments, keywords = json.loads(sys.argv[1])
from lxccopy_ffi.userns import serve
from lxccopy_ffi.{module} import {function}
serve({function}, arguments, keywords)
"""

_READY = b"ready\n"
_PROGRESS = b"progress "

_ERRORS = {error.__name__: error for error in (AccessError, OptionError, UnsupportedError)}


def call(
    module: str,
    function: str,
    *arguments: object,
    report: Callable[[int, int], None] | None = None,
    **keywords: object,
) -> Any:  # noqa: ANN401 - what the function returns
    """Call a function of this package as root of a user namespace that has all our ids.

    Args:
        module: Its module.
        function: Its name.
        arguments: What JSON can carry.
        report: Gets what the function gives to tell().
        keywords: As the arguments.

    Returns:
        What the function does; JSON can carry that, too.

    Raises:
        AccessError: There are no subordinate ids, or no programs that hand them out.
        UnsupportedError: There is no such namespace to be had.
        LxcCopyError: What the function raised of this package's errors.
        OSError: What the function raised.
    """
    import json
    import subprocess
    import sys

    subids.check()
    program = _PROGRAM.format(module=module, function=function)
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", program, json.dumps([sys.path, arguments, keywords])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        try:
            said = _give_ids(process, report)
        except BaseException:
            process.kill()
            raise
    return _read(said)


def tell(done: int, total: int) -> None:
    """Say in the process how far it is."""
    write_all(1, _PROGRESS + b"%d %d\n" % (done, total))


def _give_ids(process: Popen[bytes], report: Callable[[int, int], None] | None) -> bytes:
    """Let the process go on when it has its ids; return what it says at the end."""
    assert process.stdout is not None  # noqa: S101 - for the type checker
    assert process.stdin is not None  # noqa: S101
    assert process.stderr is not None  # noqa: S101
    first = process.stdout.readline()
    if first != _READY:
        rest, complaint = process.communicate()
        return first + rest or complaint[-500:]
    for kind in "ug":
        _write_map(process.pid, kind)
    with suppress(BrokenPipeError):
        process.stdin.write(b"\n")
        process.stdin.close()
    said = b""
    for line in process.stdout:
        if not line.startswith(_PROGRESS):
            said += line
        elif report is not None:
            done, total = line[len(_PROGRESS) :].split()
            report(int(done), int(total))
    return said or process.stderr.read()[-500:]


def _write_map(pid: int, kind: str) -> None:
    import subprocess

    words = []
    inside = 0
    for first, count in subids.ranges(kind):
        words += [inside, first, count]
        inside += count
    words += [inside, os.geteuid() if kind == "u" else os.getegid(), 1]
    done = subprocess.run(
        [f"new{kind}idmap", str(pid), *map(str, words)], stderr=subprocess.PIPE, check=False, text=True
    )
    if done.returncode != 0:
        raise UnsupportedError(f"new{kind}idmap gives no subordinate ids: {done.stderr.strip()}")


def _read(said: bytes) -> Any:  # noqa: ANN401 - what the function returned
    import json

    try:
        result, number, text, detail = json.loads(said)
    except ValueError:
        raise UnsupportedError(
            f"no process in a user namespace could be started: {said.decode(errors='replace').strip()}"
        ) from None
    if number:
        raise OSError(number, text, detail)
    if text:
        raise _ERRORS.get(detail, UnsupportedError)(text)
    return result


def _enter() -> None:
    try:
        unshare_user()
    except OSError as error:
        raise UnsupportedError(
            f"no user namespace can be made: {error.strerror}; see the sysctls user.max_user_namespaces and"
            " kernel.apparmor_restrict_unprivileged_userns"
        ) from error


def serve(function: Callable[..., object], arguments: list[object], keywords: dict[str, object]) -> None:
    """Be the process in the namespace: enter it, wait for our ids, call the function, and say how that went."""
    import json

    try:
        _enter()
        write_all(1, _READY)
        if not os.read(0, 1):
            return  # our caller has given up
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        said = [function(*arguments, **keywords), 0, "", None]
    except LxcCopyError as error:  # of which some are an OSError, too
        said = [None, 0, str(error), type(error).__name__]
    except OSError as error:
        said = [None, error.errno or errno.EIO, error.strerror, error.filename]
    write_all(1, json.dumps(said).encode())
