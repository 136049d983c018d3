# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which module may import which, held against what they import; CONTRIBUTING.md explains the layers."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter

import pytest
from conftest import ROOT

import lxccopy_ffi

PACKAGE = ROOT / "lxccopy_ffi"

LAYERS = (
    {"errors", "faults", "names", "notices"},
    {
        "_raw",
        "cgroups",
        "processes",
        "spawner",
        "children",
        "foreground",
        "waiting",
        "snapshots",
        "network",
        "console",
        "criu",
        "container",
        "inventory",
    },
    {
        "mounts",
        "relocate",
        "identity",
        "ledger",
        "locking",
        "rdepends",
        "removal",
        "storage",
        "progress",
        "tmpfs",
        "clone",
        "rename",
        "inside",
        "accounts",
        "command",
        "terminal",
        "request",
        "tree",
        "archive",
        "copying",
        "oci",
        "systems",
        "sources",
        "pipes",
        "popen",
        "transfer",
        "boot",
        "commit",
        "base",
        "subids",
        "userns",
        "ordinary",
        "checks",
    },
    {"ephemeral", "listing", "orphans", "stock", "pool", "aio"},
    {"options", "meter", "upkeep", "cli", "pytest_copies", "__init__", "__main__"},
)
LEVEL = {module: level for level, modules in enumerate(LAYERS) for module in modules}
MODULES = sorted(LEVEL)
BELOW_THE_TOP = [module for module in MODULES if LEVEL[module] < 4]

# What a module imports from its own layer, all of it.
SIDEWAYS = {
    "names": {"errors"},
    "cgroups": {"_raw"},
    "spawner": {"_raw", "cgroups", "processes"},
    "children": {"_raw"},
    "foreground": {"_raw", "spawner"},
    "waiting": {"_raw"},
    "snapshots": {"_raw"},
    "network": {"_raw"},
    "console": {"_raw"},
    "inventory": {"_raw"},
    "container": {
        "_raw",
        "cgroups",
        "children",
        "console",
        "criu",
        "foreground",
        "network",
        "processes",
        "snapshots",
        "spawner",
        "waiting",
    },
    "rdepends": {"identity", "locking"},
    "removal": {"identity", "ledger", "locking", "rdepends", "storage", "tmpfs", "userns"},
    "subids": {"storage", "tmpfs"},
    "userns": {"subids"},
    "ordinary": {"identity", "mounts", "storage", "subids", "tmpfs", "userns"},
    "storage": {"identity", "tmpfs"},
    "tmpfs": {"identity"},
    "clone": {"identity", "ledger", "locking", "ordinary", "progress", "relocate", "removal", "storage", "userns"},
    "rename": {"clone", "identity", "ledger", "locking", "rdepends", "relocate", "removal", "storage", "userns"},
    "tree": {"identity", "removal"},
    "archive": {"storage", "tree"},
    "copying": {"identity", "tree"},
    "oci": {"archive", "identity"},
    "systems": {"identity"},
    "sources": {"archive", "copying", "oci", "removal", "systems", "tree", "userns"},
    "base": {"clone", "sources", "storage", "subids", "systems", "userns"},
    "inside": {"identity"},
    "accounts": {"inside"},
    "command": {"accounts"},
    "terminal": {"accounts", "command"},
    "request": {"accounts", "command"},
    "pipes": {"command"},
    "transfer": {"accounts", "identity", "inside"},
    "commit": {"clone", "identity", "inside", "removal", "storage"},
    "boot": {"inside", "popen", "request"},
    "popen": {"command", "pipes", "request", "terminal"},
    "checks": {"base", "storage", "tmpfs"},
    "stock": {"ephemeral"},
    "pool": {"ephemeral", "stock"},
    "aio": {"ephemeral"},
    "cli": {"meter", "options", "upkeep", "__init__"},
    "upkeep": {"meter", "options"},
    "__main__": {"cli"},
}

EXTENSION = "_liblxc"
C_DATA = {("_raw", "ffi"), ("_raw", "lib"), ("_raw", "liblxc")}
OUTPUT = {"exit", "_exit", "stdout", "stderr", "__stdout__", "__stderr__"}


class Source:
    """What the text of one module names of other modules, also inside functions."""

    def __init__(self, module: str, *, types: bool = True) -> None:
        tree = ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))
        typing = [node for node in ast.walk(tree) if isinstance(node, ast.If) and _is_for_types(node.test)]
        unwanted = set() if types else {child for node in typing for child in ast.walk(node)}
        self.nodes = [node for node in ast.walk(tree) if node not in unwanted]
        self.aliases: dict[str, str] = {}
        self.uses: set[tuple[str, str]] = set()  # (module of the package, name in it, or an empty text for all of it)
        self.foreign: set[tuple[str, str]] = set()  # the same for other modules
        for node in self.nodes:
            if isinstance(node, ast.Import):
                for name in node.names:
                    self._add(name.name, "", name.asname)
            elif isinstance(node, ast.ImportFrom):
                origin = ".".join(filter(None, ["lxccopy_ffi" if node.level else "", node.module]))
                for name in node.names:
                    self._add(origin, name.name, name.asname)
        self.uses |= {
            (self.aliases[node.value.id], node.attr)
            for node in self.nodes
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in self.aliases
        }
        self.modules = {module for module, _ in self.uses}

    def _add(self, origin: str, name: str, alias: str | None) -> None:
        package, _, module = origin.partition(".")
        if package != "lxccopy_ffi":
            self.foreign.add((origin, name))
            return
        if not module and name in {*LEVEL, EXTENSION}:
            module, name, alias = name, "", alias or name
            self.aliases[alias] = module
        self.uses.add((module or "__init__", name))


def _is_for_types(test: ast.expr) -> bool:
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def test_every_module_has_a_layer() -> None:
    """The table has each module of the package, and none that is not there."""
    assert sorted(path.stem for path in PACKAGE.glob("*.py")) == MODULES


def test_contributing_has_the_same_layers() -> None:
    """CONTRIBUTING.md's table names the same modules in the same layers, each once."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([0-9]) \| ([^|]*) \|", text, re.MULTILINE)
    documented = sorted((int(level), module) for level, modules in rows for module in re.findall(r"`(\w+)`", modules))
    assert sorted((LEVEL[module], module) for module in LEVEL.keys() - {"__init__", "__main__"}) == documented


@pytest.mark.parametrize("module", MODULES)
def test_imports_lead_downwards(module: str) -> None:
    """A module imports from layers below, and from its own only what the table allows."""
    imported = Source(module).modules - {EXTENSION}
    assert set() == {other for other in imported if LEVEL[other] > LEVEL[module]}
    assert SIDEWAYS.get(module, set()) == {other for other in imported if LEVEL[other] == LEVEL[module]}


def test_neighbours_make_no_circle() -> None:
    """The imports within the layers can be put in an order."""
    assert set(SIDEWAYS) <= set(TopologicalSorter(SIDEWAYS).static_order())


@pytest.mark.parametrize("module", MODULES)
def test_imports_are_plain(module: str) -> None:
    """No import escapes this test: none is relative to another package, starred, or made by a function."""
    source = Source(module)
    assert set() == {name for _, name in source.uses | source.foreign} & {"*"}
    importers = {origin.partition(".")[0] for origin, _ in source.foreign} & {"importlib", "imp", "runpy"}
    assert ({"importlib"} if module == "__init__" else set()) == importers
    assert set() == {node.id for node in source.nodes if isinstance(node, ast.Name)} & {"__import__", "exec", "eval"}
    assert {0, 1} >= {node.level for node in source.nodes if isinstance(node, ast.ImportFrom)}


def test_late_imports_are_those_for_types() -> None:
    """What the package imports when it is first asked for is what its imports for type checkers say."""
    early, all_of_them = Source("__init__", types=False).uses, Source("__init__").uses
    late = {(origin, name) for name, origin in lxccopy_ffi._LATE.items()}
    assert late == all_of_them - early
    for origin, name in late:
        assert f"lxccopy_ffi.{origin}" == getattr(lxccopy_ffi, name).__module__
    assert set(lxccopy_ffi.__all__) <= set(dir(lxccopy_ffi))


def test_unknown_name_of_the_package() -> None:
    """A name that the package has not is an AttributeError, as with any other module."""
    with pytest.raises(AttributeError, match=r"^module 'lxccopy_ffi' has no attribute 'Mounts'$"):
        lxccopy_ffi.Mounts  # noqa: B018


@pytest.mark.parametrize("module", MODULES)
def test_private_names_stay_at_home(module: str) -> None:
    """A name with an underscore is used in its own module only, and on self only."""
    source = Source(module, types=False)
    attributes = [node for node in source.nodes if isinstance(node, ast.Attribute) and _is_private(node.attr)]
    assert set() == {use for use in source.uses if _is_private(use[1])}
    assert set() == {ast.unparse(node.value) for node in attributes} - {"self"}


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def test_only_raw_imports_the_extension() -> None:
    """At run time _raw alone imports the compiled extension; for the type checker its layer may."""
    assert {"_raw"} == {module for module in MODULES if EXTENSION in Source(module, types=False).modules}
    assert LAYERS[1] >= {module for module in MODULES if EXTENSION in Source(module).modules}


def test_c_data_stays_in_its_layer() -> None:
    """Nobody above layer 1 has ffi or lib."""
    assert LAYERS[1] >= {module for module in MODULES if C_DATA & Source(module).uses}


@pytest.mark.parametrize("module", BELOW_THE_TOP)
def test_lower_layers_are_silent(module: str) -> None:
    """Below the command line nothing prints, exits, or has the standard streams."""
    source = Source(module)
    assert set() == {("sys", name) for name in OUTPUT} & source.foreign
    names = {node.id for node in source.nodes if isinstance(node, ast.Name)}
    assert set() == names & {"print", "exit", "quit", "SystemExit"}
    members = {ast.unparse(node) for node in source.nodes if isinstance(node, ast.Attribute)}
    assert set() == {f"{module}.{name}" for module in ("sys", "os") for name in OUTPUT} & members


def test_only_the_command_line_knows_exit_statuses() -> None:
    """125 and 126 are written in cli alone."""
    found = {
        module
        for module in MODULES
        for node in Source(module).nodes
        if isinstance(node, ast.Constant) and type(node.value) is int and node.value in {125, 126}
    }
    assert {"cli"} == found
