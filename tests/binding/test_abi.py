# SPDX-License-Identifier: LGPL-2.1-or-later
"""include/lxcabi.h, our own words for liblxc's binary interface, against the real header."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, require

from lxccopy_ffi._raw import ffi, lib
from lxccopy_ffi.container import CloneFlag

HEADER = ROOT / "include" / "lxcabi.h"
TEXT = re.sub(r"/\*.*?\*/", "", HEADER.read_text(encoding="utf-8"), flags=re.DOTALL)
STRUCTURES = {
    "lxc_container": "struct ",
    "lxc_snapshot": "struct ",
    "lxc_log": "struct ",
    "lxc_attach_options_t": "",
    "lxc_groups_t": "",
}
CONSTANTS = re.findall(r"\b(LXC_\w+) =", TEXT)

# The release that brought a member; the others are as old as 3.0.
LATE = {
    **dict.fromkeys(("mount", "umount"), (3, 1, 0)),
    **dict.fromkeys(("seccomp_notify_fd", "seccomp_notify_fd_active", "init_pidfd", "devpts_fd"), (4, 0, 5)),
    **dict.fromkeys(("lsm_label", "groups"), (4, 0, 7)),
    **dict.fromkeys(("rcv_timeout", "set_timeout"), (6, 0, 0)),
}

PRELUDE = """
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <lxc/lxccontainer.h>
#include <lxc/attach_options.h>
#include <lxc/version.h>
#define VERSION(a, b, c) (a * 10000 + b * 100 + c)
#define INSTALLED VERSION(LXC_VERSION_MAJOR, LXC_VERSION_MINOR, LXC_VERSION_MICRO)
#define TYPE(structure, member) __typeof__(((structure *)0)->member)
#define SAME(ours, theirs, member) \\
    _Static_assert(offsetof(ours, member) == offsetof(theirs, member), "offset of " #member); \\
    _Static_assert(__builtin_types_compatible_p(TYPE(ours, member), TYPE(theirs, member)), "type of " #member);
"""


def cc(source: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Compile C text."""
    require(shutil.which("cc"), "a C compiler is needed")
    return subprocess.run(
        ["cc", "-x", "c", "-std=gnu11", *options, "-"], input=source, capture_output=True, text=True, check=False
    )


def members(structure: str) -> list[str]:
    """The names of a structure's members, in their order."""
    body = re.search(rf"struct {structure} {{(.*?)\n}}", TEXT, re.DOTALL)
    assert body
    declarations = body[1].split(";")[:-1]
    return [(re.findall(r"\(\*(\w+)\)\(", text) or re.findall(r"\w+", text)[-1:])[0] for text in declarations]


def assertions(header: str = TEXT) -> str:
    """C text that compiles only if the header says what the real one says; its own names get OUR_ in front."""
    renamed = re.sub(r"\bLXC_(?=CLONE|ATTACH)", "OUR_LXC_", header)
    renamed = re.sub(r"(struct|enum) (lxc_\w+) {", r"\1 OUR_\2 {", renamed)
    renamed = re.sub(r"^} (lxc_\w+);", r"} OUR_\1;", renamed, flags=re.MULTILINE)
    lines = [PRELUDE, renamed]
    for structure, keyword in STRUCTURES.items():
        for member in members(structure):
            since = "VERSION({}, {}, {})".format(*LATE.get(member, (3, 0, 0)))
            same = f"SAME({keyword}OUR_{structure}, {keyword}{structure}, {member})"
            lines.append(f"#if INSTALLED >= {since}\n{same}\n#endif")
    lines += [f'_Static_assert(OUR_{name} == {name}, "value of {name}");' for name in CONSTANTS]
    for structure in ("struct OUR_lxc_snapshot", "struct OUR_lxc_log", "OUR_lxc_attach_options_t"):
        theirs = structure.replace("OUR_", "")
        lines.append(f'_Static_assert(sizeof({structure}) >= sizeof({theirs}), "size of {theirs}");')
    return "\n".join(lines)


@pytest.fixture
def _lxc_dev() -> None:
    """Skip without liblxc's own headers."""
    require(Path("/usr/include/lxc/lxccontainer.h").exists(), "liblxc's headers are needed (lxc-dev)")


def test_header_is_complete() -> None:
    """What is compared below is everything: the 66 common members and the 8 late ones, and every constant."""
    container = members("lxc_container")
    assert container[:2] == ["name", "configfile"]
    assert container.index("reboot2") == 65
    assert len(container) == 66 + 8
    assert {"lsm_label", "groups"} < set(members("lxc_attach_options_t"))
    assert members("lxc_log") == ["name", "lxcpath", "file", "level", "prefix", "quiet"]
    assert len(CONSTANTS) == len(set(CONSTANTS)) == 15


@pytest.mark.usefixtures("_lxc_dev")
def test_layout_is_liblxcs() -> None:
    """Every member of ours has the real one's offset and type, and every constant its value."""
    done = cc(assertions(), "-fsyntax-only")
    assert (done.returncode, "") == (0, done.stderr)


@pytest.mark.usefixtures("_lxc_dev")
@pytest.mark.parametrize(
    ("ours", "wrong", "complaint"),
    [
        (r"(bool \(\*freeze\).*?;)(\s*)(bool \(\*unfreeze\).*?;)", r"\3\2\1", "offset of freeze"),
        (r"char \*pidfile;", "", "offset of slock"),
        (r"(\*stop\)\(struct lxc_container \*c)", r"\1, int timeout", "type of stop"),
        (r"int numthreads;", "long numthreads;", "type of numthreads"),
        (r"ALLOW_RUNNING = 1 << 6", "ALLOW_RUNNING = 1 << 5", "value of LXC_CLONE_ALLOW_RUNNING"),
        (r"(uid_t uid;)\s*(gid_t gid;)", r"\2 \1", "offset of uid"),
        (r"char \*timestamp;", "char **timestamp;", "type of timestamp"),
        (r"(const char \*level;)\s*(const char \*prefix;)", r"\2 \1", "offset of level"),
        (r"bool quiet;", "int quiet;", "type of quiet"),
    ],
)
def test_wrong_layout_is_noticed(ours: str, wrong: str, complaint: str) -> None:
    """A header with a swapped, missing or changed declaration does not compile against the real one."""
    changed, count = re.subn(ours, wrong, TEXT, flags=re.DOTALL)
    assert count == 1
    assert f'static assertion failed: "{complaint}"' in cc(assertions(changed), "-fsyntax-only").stderr


@pytest.mark.parametrize("standard", ["c99", "c11", "gnu17"])
def test_header_stands_alone(standard: str) -> None:
    """The header includes all it needs and raises no warning."""
    options = [f"-std={standard}", "-pedantic", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
    done = cc(HEADER.read_text(encoding="utf-8"), *options)
    assert (done.returncode, "") == (0, done.stderr)


@pytest.mark.usefixtures("_lxc_dev")
def test_constants_and_attach_defaults(tmp_path: Path) -> None:
    """Python sees the real constants, and liblxc's attach options but for a cleared environment and no descriptors."""
    options: Any = ffi.new("lxc_attach_options_t *")
    lib.default_attach_options(options)
    ours = {name: int(ffi.cast("long", value)) for name, value in ((f, getattr(options, f)) for f in dir(options))}
    ours.update((name, getattr(lib, name)) for name in CONSTANTS)
    fields = "".join(f'printf("{field} %ld\\n", (long)options.{field});' for field in dir(options))
    values = "".join(f'printf("{name} %ld\\n", (long){name});' for name in CONSTANTS)
    body = f"lxc_attach_options_t options = LXC_ATTACH_OPTIONS_DEFAULT; {fields} {values}"
    program = tmp_path / "defaults"
    assert cc(f"{PRELUDE} int main(void) {{ {body} }}", "-o", str(program)).stderr == ""
    printed = subprocess.run([program], stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    theirs = dict(zip(printed[::2], map(int, printed[1::2])))
    assert {**theirs, "env_policy": lib.LXC_ATTACH_CLEAR_ENV, "stdin_fd": -1, "stdout_fd": -1, "stderr_fd": -1} == ours


def test_clone_flags() -> None:
    """The literal values of CloneFlag are the header's."""
    flags = {name: value for name, value in vars(CloneFlag).items() if name.isupper()}
    assert {name[len("LXC_CLONE_") :]: getattr(lib, name) for name in CONSTANTS if "_CLONE_" in name} == flags
