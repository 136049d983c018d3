# SPDX-License-Identifier: LGPL-2.1-or-later
"""The extension, its declaration, its stub for type checkers and the tests of it name the same things."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from conftest import ROOT

from lxccopy_ffi._raw import lib

CDEF = (ROOT / "include" / "liblxc.cdef.h").read_text(encoding="utf-8")
CDEF = re.sub(r"/\*.*?\*/", "", CDEF, flags=re.DOTALL)
PARAMETERS = {
    name: 0 if text == "void" else text.count(",") + 1
    for name, text in re.findall(r"^\w[^;{}]*?(\w+)\(([^;]*)\);", CDEF, re.MULTILINE)
}
CONSTANTS = set(re.findall(r"^#define (\w+) \.\.\.$", CDEF, re.MULTILINE))


def test_declaration_is_the_module() -> None:
    """The extension was built from the declaration that is here."""
    assert set(dir(lib)) == PARAMETERS.keys() | CONSTANTS


def test_stub_is_the_module() -> None:
    """The stub has each function with as many parameters as the declaration, each constant, and nothing else."""
    tree = ast.parse((ROOT / "lxccopy_ffi" / "_liblxc.pyi").read_text(encoding="utf-8"))
    (stub,) = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    functions = {node.name: node.args for node in stub.body if isinstance(node, ast.FunctionDef)}
    counts = {name: len(arguments.posonlyargs + arguments.args) - 1 for name, arguments in functions.items()}
    assert counts == PARAMETERS
    constants = {ast.unparse(node.target) for node in stub.body if isinstance(node, ast.AnnAssign)}
    assert constants == CONSTANTS


def test_each_function_has_a_test() -> None:
    """Every function of the extension is called in a test of the binding."""
    tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    assert sorted(PARAMETERS.keys() - set(re.findall(r"\blib\.(\w+)", tests))) == []
