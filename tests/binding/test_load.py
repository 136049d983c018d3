# SPDX-License-Identifier: LGPL-2.1-or-later
"""Loading liblxc: what is said where it is missing or unfit, and which version may do what.

The libraries made here have a version and no behaviour: they are about the gate, not about containers.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from binding_helpers import isolated
from conftest import ROOT, require

import lxccopy_ffi._liblxc
from lxccopy_ffi._raw import ffi, lib

SYMBOLS = re.findall(r'&liblxc\.\w+, "(\w+)"', (ROOT / "csrc" / "liblxc.c").read_text(encoding="utf-8"))
MISSING = "/nonexistent/liblxc.so.1"

SOURCE = """
#include "lxcabi.h"
static int init_pidfd(struct lxc_container *c) { return c->error_num + 1; }
static int devpts_fd(struct lxc_container *c) { return c->error_num + 2; }
static bool set_timeout(struct lxc_container *c, int timeout) { return c->error_num == 40 && timeout == 7; }
static struct lxc_container container = {
	.error_num = 40, .init_pidfd = init_pidfd, .devpts_fd = devpts_fd, .set_timeout = set_timeout,
};
"""


FUNCTIONS = {
    **{symbol: f"void *{symbol}(void) {{ return 0; }}\n" for symbol in SYMBOLS},
    "lxc_get_version": "const char *lxc_get_version(void) { return VERSION; }\n",
    "lxc_container_new": "struct lxc_container *lxc_container_new(void) { return &container; }\n",
}


@pytest.fixture
def library(tmp_path: Path) -> str:
    """The path for a library, not there yet."""
    return str(tmp_path / "liblxc.so")


def make(library: str, version: str, without: str = "") -> None:
    """Build a shared library that says it is this version, and may lack a function."""
    require(shutil.which("cc"), "a C compiler is needed")
    source = SOURCE + "".join(text for symbol, text in FUNCTIONS.items() if symbol != without)
    options = ["-shared", "-fPIC", f'-DVERSION="{version}"', f"-I{ROOT / 'include'}", "-o", library]
    subprocess.run(["cc", "-x", "c", *options, "-"], input=source, text=True, check=True)


def load() -> list[str]:
    """Ask for liblxc's version: the version, or the kind of the error and its text."""
    from lxccopy_ffi import LiblxcMissingError, liblxc_version

    try:
        return ["version", liblxc_version()]
    except LiblxcMissingError as error:
        return [str(error.name), str(error)]


def load_often(file: str) -> list[str]:
    """Load a library that is missing at first, and ask again when it is loaded."""
    answers = []
    for name in (MISSING, file, MISSING):
        os.environ["LXCCOPY_LIBLXC"] = name
        answers += load()
    return answers


def late_members() -> list[list[int]]:
    """What the members answer that not every version has, and errno."""
    from lxccopy_ffi._raw import ffi, liblxc

    lib = liblxc()
    c = lib.lxc_container_new(b"any", b"/nonexistent")
    answers = []
    for call in (lib.container_init_pidfd, lib.container_devpts_fd, lambda c: lib.container_set_timeout(c, 7)):
        ffi.errno = 0
        answers.append([call(c), ffi.errno])
    return answers


def test_missing_library_is_explained() -> None:
    """Without liblxc the first use says which file is missing and which packages have it."""
    name, text = isolated(load, LXCCOPY_LIBLXC=MISSING)
    assert name == "liblxc"
    assert text.startswith(f"cannot load the LXC library {MISSING}: {MISSING}: cannot open shared object file")
    assert text.endswith(
        "; install it (Debian and Ubuntu: liblxc1 or liblxc1t64; Fedora: lxc-libs; Arch: lxc; Alpine: lxc-libs)"
    )


@pytest.mark.parametrize("arguments", [["-c", "import lxccopy_ffi"], ["-m", "lxccopy_ffi", "--help"]])
def test_missing_library_does_no_harm(arguments: list[str]) -> None:
    """Importing the package and asking for help need no liblxc."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "LXCCOPY_LIBLXC": MISSING, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "") == (0, done.stderr)


def test_reason_fits_its_room() -> None:
    """A reason that is longer than its buffer is cut."""
    reason = ffi.new("char[]", 16)
    assert lib.lxccopy_load(MISSING.encode(), reason, len(reason)) == -1
    assert ffi.string(reason) == MISSING.encode()[:15]


def test_failed_load_is_tried_again(library: str) -> None:
    """A library that is put right is found by the process that missed it before, and then stays loaded."""
    make(library, "5.0.2")
    name, _, *answers = isolated(load_often, library)
    assert (name, answers) == ("liblxc", ["version", "5.0.2"] * 2)


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_missing_function_is_named(library: str, symbol: str) -> None:
    """A library that lacks one of the functions is refused, with the function's name."""
    make(library, "5.0.2", without=symbol)
    assert f": {library} has no function {symbol}; install it" in isolated(load, LXCCOPY_LIBLXC=library)[1]


@pytest.mark.parametrize("version", ["2.0.9", "3.0.4", "unknown"])
def test_old_version_is_refused(library: str, version: str) -> None:
    """A liblxc before 3.1 is refused, with its version."""
    make(library, version)
    reason = f": {library} is version {version}, but 3.1 or later is needed; install it"
    assert reason in isolated(load, LXCCOPY_LIBLXC=library)[1]


@pytest.mark.parametrize(
    ("version", "pidfd", "devpts", "timeout"),
    [
        ("3.1.0", -1, -1, -1),
        ("4.0.4", -1, -1, -1),
        ("4.0.5", 41, 42, -1),
        ("5.0.2", 41, 42, -1),
        ("6.0.0", 41, 42, 0),
        ("7.0", 41, 42, 0),
    ],
)
def test_late_members_are_gated(library: str, version: str, pidfd: int, devpts: int, timeout: int) -> None:
    """Members of later releases are called from these on; before, they answer -1 with ENOSYS."""
    make(library, version)
    expected = [[value, errno.ENOSYS if value < 0 else 0] for value in (pidfd, devpts, timeout)]
    assert expected == isolated(late_members, LXCCOPY_LIBLXC=library)


def test_module_needs_no_liblxc() -> None:
    """The extension links libc only, and serves every Python from 3.9 on."""
    require(shutil.which("readelf"), "readelf is needed (package binutils)")
    file = lxccopy_ffi._liblxc.__file__
    assert file
    table = subprocess.run(["readelf", "-d", file], stdout=subprocess.PIPE, text=True, check=True).stdout
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", table)
    assert needed
    assert {re.split(r"[.-]", name)[0] for name in needed} <= {"libc", "libdl", "libpthread"}
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        assert ".abi3." in Path(file).name
