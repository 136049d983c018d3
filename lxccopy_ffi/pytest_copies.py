# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the plugin for pytest does with containers: a base for all tests, copies for one, and what is said of them."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
from contextlib import ExitStack, suppress

import pytest

from .base import create_base
from .checks import MISSING, check
from .container import Container
from .ephemeral import EphemeralCopy
from .errors import AccessError, LiblxcError, LiblxcMissingError, UnsupportedError
from .locking import lock_directory
from .removal import discard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

# How much of a log is shown, in bytes.
_SHOWN = 8192

_ENTER = (
    "import sys; from lxccopy_ffi import Container; from lxccopy_ffi.popen import run; "
    "from lxccopy_ffi.request import RunRequest; run(Container(*sys.argv[1:]), RunRequest(['sh']))"
)


class Base:
    """What is copied.

    Args:
        name: Its name.
        lxcpath: The directory that holds it.
        directory: A directory for what is written of its copies.
        ours: Whether it is removed at the end.
    """

    def __init__(self, name: str, lxcpath: str, directory: str, *, ours: bool) -> None:
        self.name = name
        self.lxcpath = lxcpath
        self.directory = directory
        self.ours = ours
        self.keep = False

    def __repr__(self) -> str:
        return f"<Base {self.name!r} in {self.lxcpath}>"

    def close(self) -> None:
        """Remove it, unless it is not ours or there is a copy that needs it."""
        if self.keep:
            return
        if self.ours:
            discard(self.name, self.lxcpath)
            with suppress(OSError):  # liblxc's, of no use to anybody else
                os.rmdir(lock_directory(self.lxcpath))
                os.rmdir(lock_directory(self.directory))
        shutil.rmtree(self.directory)


def open_base(config: pytest.Config, factory: pytest.TempPathFactory) -> Base:
    """Return the base that the options name, or make one; skip where no copy of it can be started."""
    name = config.getoption("--lxc-base")
    with ExitStack() as undo:
        directory = _directory(factory, keep=config.getoption("--lxc-keep"))
        undo.callback(shutil.rmtree, directory)
        try:
            base = _open_given(name, config, directory) if name else _make(directory)
            if not name:
                undo.callback(discard, base.name, base.lxcpath)
            with EphemeralCopy(base.name, lxcpath=base.lxcpath, tmpfs=True):
                pass
        except (AccessError, LiblxcMissingError, UnsupportedError) as error:
            _refuse(config, str(error))
        except LiblxcError as error:  # why, the machine may know better
            lacks = [f"; {one.name}: {one.text}" for one in check(base.lxcpath) if one.state == MISSING]
            if not lacks:
                raise
            _refuse(config, f"{error}{''.join(lacks)}")
        undo.pop_all()
    return base


def _refuse(config: pytest.Config, reason: str) -> NoReturn:
    text = f"there can be no containers here: {reason}"
    if config.getoption("--lxc-required"):
        pytest.fail(text, pytrace=False)
    pytest.skip(text)


def _directory(factory: pytest.TempPathFactory, *, keep: bool) -> str:
    """One that an ordinary user's container can enter, and that pytest does not remove under a kept copy."""
    if os.geteuid() == 0 and not keep:
        return str(factory.mktemp("lxc"))
    path = tempfile.mkdtemp(prefix="lxccopy-pytest-")
    os.chmod(path, 0o711)  # noqa: S103 - as said
    return path


def _open_given(name: str, config: pytest.Config, directory: str) -> Base:
    with Container(name, config.getoption("--lxc-path")) as container:
        container.require_defined()
        return Base(name, container.lxcpath, directory, ours=False)


def _make(directory: str) -> Base:
    lxcpath = f"{directory}/containers"
    create_base("base", lxcpath=lxcpath).close()
    return Base("base", lxcpath, directory, ours=True)


class Copies:
    """The copies of one test, and what liblxc and their systems say meanwhile.

    Args:
        base: What they are copies of.
        item: The test.
        keep: Whether they stay when it fails.
    """

    def __init__(self, base: Base, item: pytest.Item, *, keep: bool) -> None:
        self._base = base
        self._options = _marked(item)
        self._keep = keep
        self._failed = False
        self._copies: list[EphemeralCopy] = []
        self._directory = tempfile.mkdtemp(dir=base.directory)

    def make(self, **options: Any) -> EphemeralCopy:  # noqa: ANN401 - EphemeralCopy checks them
        """Return a copy that runs."""
        options = {"tmpfs": True, "lxcpath": self._base.lxcpath, **self._options, **options}
        options["rcfile"] = self._configuration(options.get("rcfile"), len(self._copies))
        copy = EphemeralCopy(self._base.name, **options)
        self._copies.append(copy)
        copy.start()
        return copy

    def _configuration(self, source: str | None, number: int) -> str:
        """A file with the base's configuration, by which its logs are written to where they outlive the copy."""
        own = f"{self._base.lxcpath}/{self._base.name}/config"
        path = f"{self._directory}/{number}"
        with open(source or own, encoding="utf-8", errors="surrogateescape") as file:
            lines = [line for line in file.read().splitlines() if not line.startswith(("lxc.log.", "lxc.console.log"))]
        lines += [f"lxc.log.file = {path}.log", "lxc.log.level = NOTICE", f"lxc.console.logfile = {path}.console"]
        with open(f"{path}.conf", "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write("\n".join([*lines, ""]))
        return f"{path}.conf"

    def note_failure(self) -> list[tuple[str, str]]:
        """The test has failed: return what is to be said of its copies, by title."""
        self._failed = True
        sections = []
        for number, copy in enumerate(self._copies):
            for kind, title in (("log", "log of liblxc"), ("console", "console")):
                text = _tail(f"{self._directory}/{number}.{kind}")
                if text:
                    sections.append((f"{title}, {copy.name or 'copy'}", text))
            if self._keep and copy.name:
                sections.append((f"left running, {copy.name}", self._how_to_enter(copy)))
        return sections

    def _how_to_enter(self, copy: EphemeralCopy) -> str:
        name, lxcpath = copy.name, shlex.quote(copy.container.lxcpath)
        lines = [
            f"lxc-attach -P {lxcpath} -n {name}",
            f"{shlex.quote(sys.executable)} -c {shlex.quote(_ENTER)} {name} {lxcpath}",
            "and when it is not needed any more:",
            f"lxc-stop -k -P {lxcpath} -n {name}",
        ]
        if self._base.ours:
            lines.append(f"rm -r {shlex.quote(self._base.directory)}  # the base of this and others that were left")
        return "\n".join(lines)

    def close(self) -> None:
        """Remove them, or leave them where that was asked for."""
        with ExitStack() as steps:
            for copy in self._copies:
                if self._keep and self._failed and copy.name:
                    self._base.keep = True
                    steps.callback(copy.detach)
                else:
                    steps.callback(copy.close)
        if not self._base.keep:
            shutil.rmtree(self._directory)


def _marked(item: pytest.Item) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for marker in reversed(list(item.iter_markers("lxc"))):  # the nearest one last
        if marker.args:
            pytest.fail("@pytest.mark.lxc takes keywords only, those of EphemeralCopy", pytrace=False)
        options.update(marker.kwargs)
    return options


def _tail(path: str) -> str:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _SHOWN))
            return file.read().decode("utf-8", "replace").strip()
    except FileNotFoundError:
        return ""
