# SPDX-License-Identifier: LGPL-2.1-or-later
"""README.md, CHANGELOG.md and pyproject.toml, held against the code they speak of."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
import shutil
import subprocess

import pytest
from conftest import ROOT, require

import lxccopy_ffi
from lxccopy_ffi.options import OPTIONS, Parsed, parse
from lxccopy_ffi.request import KEYWORDS as RUN_KEYWORDS

README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCED = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PROSE = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
INDENTED = re.findall(r"^    (\S.*)$", PROSE, re.MULTILINE)
SPANS = re.findall(r"`([^`\n]+)`", PROSE)

SHELL = [text for language, text in FENCED if language == "sh"] + ["\n".join(INDENTED)]
PYTHON = [text for language, text in FENCED if language == "python"]

COMMANDS = [line for text in SHELL for line in text.splitlines() if line.startswith("lxccopy ")]
COMMANDS += [span for span in SPANS if span.startswith("lxccopy ")]
OPTION_SPANS = [span for span in SPANS if span.startswith("-")]

# What is Python in the running text: calls, methods, and assignments, which are keywords of EphemeralCopy.
CALLS = [span for span in SPANS if re.match(r"\w+\(.*\)(\.\w+\(\))*$", span)]
METHODS = [span for span in SPANS if re.match(r"\.\w+\(\)$", span)]
KEYWORDS = [span for span in SPANS if re.match(r"[a-z_]+=", span)]

COPY_KEYWORDS = set(inspect.signature(lxccopy_ffi.EphemeralCopy).parameters)
NAMES = {given for option in OPTIONS for given in (f"--{option.name}", f"-{option.letter}")}


def test_readme_is_understood() -> None:
    """Each kind of example is found, so that none of the tests below is empty; nothing else is fenced."""
    assert {"sh", "python"} == {language for language, _ in FENCED}
    assert all([INDENTED, COMMANDS, OPTION_SPANS, CALLS, METHODS, KEYWORDS])


@pytest.mark.parametrize("text", SHELL)
def test_shell_parses(text: str) -> None:
    """A shell can read the examples."""
    assert not subprocess.run(["/bin/sh", "-n"], input=text, text=True, check=True, stderr=subprocess.PIPE).stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_command_line(command: str) -> None:
    """Each command line is one that we understand, with whole names of options."""
    shell = shlex.shlex(command, posix=True, punctuation_chars=True)
    shell.whitespace_split = True
    words = list(shell)[1:]
    words = words[: words.index(";")] if ";" in words else words
    parsed = Parsed()
    parse(words, parsed)
    assert parsed.given
    ours = words[: words.index("--")] if "--" in words else words
    assert NAMES >= {word.partition("=")[0] for word in ours if word.startswith("-")}


@pytest.mark.parametrize("span", OPTION_SPANS)
def test_option_exists(span: str) -> None:
    """An option in the running text is in the table, and has an argument where the table says so."""
    given, *argument = re.split("[ =]", span)
    assert given in NAMES
    option = next(option for option in OPTIONS if given in {f"--{option.name}", f"-{option.letter}"})
    assert option.argument or not argument


@pytest.mark.parametrize("text", PYTHON)
def test_python_block(text: str) -> None:
    """A Python example compiles, imports what there is, and calls it with keywords that it has."""
    tree = ast.parse(text)
    compile(text, "README.md", "exec")
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert {"lxccopy_ffi", "subprocess"} >= {node.module for node in imports}
    imports = [node for node in imports if node.module == "lxccopy_ffi"]
    assert set(lxccopy_ffi.__all__) >= {alias.name for node in imports for alias in node.names}
    check_calls(tree)


@pytest.mark.parametrize("span", CALLS)
def test_call(span: str) -> None:
    """A call in the running text is of a public name, and fits its signature."""
    assert check_calls(ast.parse(span))


def check_calls(tree: ast.AST) -> int:
    """Check every call of a public name, and every method called on such a call; return how many there are."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    named = [node for node in calls if isinstance(node.func, ast.Name) and node.func.id != "print"]
    for node in named:
        assert isinstance(node.func, ast.Name)
        assert node.func.id in lxccopy_ffi.__all__
        keywords = {keyword.arg: None for keyword in node.keywords if keyword.arg}
        signature = inspect.signature(getattr(lxccopy_ffi, node.func.id))
        signature.bind(*node.args, **keywords)
        assert set(signature.parameters) | COPY_KEYWORDS | RUN_KEYWORDS >= set(keywords)
    for node in calls:
        if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Call):
            assert hasattr(lxccopy_ffi.EphemeralCopy, node.func.attr)
    return len(named)


@pytest.mark.parametrize("span", METHODS)
def test_method(span: str) -> None:
    """A method in the running text is one of EphemeralCopy's."""
    assert callable(getattr(lxccopy_ffi.EphemeralCopy, span[1:-2]))


@pytest.mark.parametrize("span", KEYWORDS)
def test_keyword(span: str) -> None:
    """An assignment in the running text is a keyword of EphemeralCopy."""
    assert span.partition("=")[0] in COPY_KEYWORDS


def test_make_targets() -> None:
    """Each target that README.md and CONTRIBUTING.md speak of is in the list that make help prints."""
    require(shutil.which("make"), "the program make is not installed")
    text = README + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    mentioned = set(re.findall(r"(?:^    |`)make ([a-z]+)", text, re.MULTILINE))
    output = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    listed = re.findall(r"^  make (\w+) +\S", output, re.MULTILINE)
    assert mentioned
    assert set(listed) >= mentioned


def test_linked_files_exist() -> None:
    """Each file that README.md links is there."""
    links = re.findall(r"\]\(([^):#]+)\)", PROSE)
    assert links
    assert set() == {link for link in links if not (ROOT / link).exists()}


def test_version() -> None:
    """pyproject.toml has the package's version, and CHANGELOG.md that or an unreleased one on top."""
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert version
    assert lxccopy_ffi.__version__ == version[1]
    headings = re.findall(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] in {"Unreleased", lxccopy_ffi.__version__}
