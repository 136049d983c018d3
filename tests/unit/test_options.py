# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command line: lxc-copy's options, getopt_long's habits, and the exit status of what is wrong with it."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from lxccopy_ffi import OptionError, cli
from lxccopy_ffi.options import OPTIONS, Option, Parsed, help_text, parse, usage_text

# lxc-copy's options: long name, letter, whether it takes an argument.
LXC_COPY = {
    "newname": ("N", True),
    "newpath": ("p", True),
    "rename": ("R", False),
    "snapshot": ("s", False),
    "allowrunning": ("a", False),
    "foreground": ("F", False),
    "daemon": ("d", False),
    "ephemeral": ("e", False),
    "mount": ("m", True),
    "backingstorage": ("B", True),
    "fssize": ("L", True),
    "keepdata": ("D", False),
    "keepname": ("K", False),
    "keepmac": ("M", False),
    "tmpfs": ("t", False),
    "name": ("n", True),
    "help": ("h", False),
    "usage": ("", False),
    "version": ("", False),
    "quiet": ("q", False),
    "logfile": ("o", True),
    "logpriority": ("l", True),
    "lxcpath": ("P", True),
    "rcfile": ("", True),
}


@pytest.fixture
def parsed() -> Parsed:
    """An empty command line."""
    return Parsed()


# The table


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_option_is_that_of_lxc_copy(option: Option) -> None:
    """An option that lxc-copy has is the same here; one that it has not has no letter, and is marked as new."""
    expected = (*LXC_COPY.get(option.name, ("", bool(option.argument))), option.name not in LXC_COPY)
    assert expected == (option.letter, bool(option.argument), option.new)


def test_no_option_of_lxc_copy_is_missing() -> None:
    """Each option that lxc-copy has is here."""
    assert set() == LXC_COPY.keys() - {option.name for option in OPTIONS}


def test_options_are_distinct() -> None:
    """No letter and no name is there twice."""
    for given in ([option.name for option in OPTIONS], [option.letter for option in OPTIONS if option.letter]):
        assert sorted(set(given)) == sorted(given)


def test_help_has_every_option() -> None:
    """The help has each option once, in the table's order, with its letter, argument and text."""
    found = re.findall(
        r"^  (?:-(\w), |    )--([\w-]+)(?: ([A-Z]+)|(\[=[A-Z:]+\]))?  +(.*)$", help_text("x"), re.MULTILINE
    )
    found = [(letter, name, plain or optional.replace("=", ""), text) for letter, name, plain, optional, text in found]
    assert [(option.letter, option.name, option.argument, option.help) for option in OPTIONS] == found


def test_help_fits() -> None:
    """No line of the help is longer than 100 columns."""
    assert set() == {line for line in help_text("lxc-copy").splitlines() if len(line) > 100}


def test_help_has_our_name() -> None:
    """The help calls the program what its caller does."""
    assert help_text("lxccopy").replace("lxccopy", "lxc-copy") == help_text("lxc-copy")
    assert "Usage: lxc-copy " == help_text("lxc-copy")[:16]


def test_usage_has_every_option() -> None:
    """The usage has each option once in brackets as lxc-copy has it: letter, name, and the name for its argument."""
    found = re.findall(r"\[(?:-(\w)\|)?--([\w-]+)(?:=([A-Z-]+))?\] ", usage_text("x"))
    assert [(option.letter, option.name, option.name.upper() if option.argument else "") for option in OPTIONS] == found


def test_usage_is_laid_out_like_that_of_lxc_copy() -> None:
    """Four options stand in a line, each followed by a blank, and all lines but the first begin with a tab."""
    first, *rest = usage_text("lxc-copy").split("\n")[:-1]
    begin = "Usage: lxc-copy "
    assert begin == first[: len(begin)]
    lines = [first[len(begin) :], *(line[1:] for line in rest)]
    assert {"\t"} == {line[0] for line in rest}
    assert lines == [re.sub(r"[^\]]*(\[[^\]]*\] )", r"\1", line) for line in lines]
    assert [4] * (len(OPTIONS) // 4) == [line.count("[") for line in lines][: len(OPTIONS) // 4]
    assert len(OPTIONS) == sum(line.count("[") for line in lines)


# The parser


@pytest.mark.parametrize(("given", "value"), [("--wait-booted", ""), ("--wait-booted=5", "5"), ("--wait=5", "5")])
def test_optional_argument(given: str, value: str) -> None:
    """An argument that may be left out comes after an equals sign; the next word is none."""
    parsed = Parsed()
    parse([given, "base"], parsed)
    assert ([("wait-booted", value)], ["base"]) == (parsed.given, parsed.words)


@pytest.mark.parametrize(
    ("arguments", "values", "words"),
    [
        # words and options mix
        ("base -e -t", {"ephemeral": "", "tmpfs": ""}, "base"),
        ("-e base -t x", {"ephemeral": "", "tmpfs": ""}, "base x"),
        ("-n base x -e y", {"name": "base", "ephemeral": ""}, "x y"),
        ("- -e", {"ephemeral": ""}, "-"),
        ("", {}, ""),
        # letters
        ("-et", {"ephemeral": "", "tmpfs": ""}, ""),
        ("-etN foo", {"ephemeral": "", "tmpfs": "", "newname": "foo"}, ""),
        ("-etNfoo bar", {"ephemeral": "", "tmpfs": "", "newname": "foo"}, "bar"),
        ("-Nfoo", {"newname": "foo"}, ""),
        ("-N=foo", {"newname": "=foo"}, ""),
        ("-N -e", {"newname": "-e"}, ""),
        ("-N-e", {"newname": "-e"}, ""),
        ("-N -- -e", {"newname": "--", "ephemeral": ""}, ""),
        ("-tmpfs", {"tmpfs": "", "mount": "pfs"}, ""),
        # names
        ("--newname foo", {"newname": "foo"}, ""),
        ("--newname=foo", {"newname": "foo"}, ""),
        ("--newname=", {"newname": ""}, ""),
        ("--newname=a=b", {"newname": "a=b"}, ""),
        ("--newname --tmpfs", {"newname": "--tmpfs"}, ""),
        ("--newn=x --eph", {"newname": "x", "ephemeral": ""}, ""),
        ("--newp x", {"newpath": "x"}, ""),
        ("--keepd --keepn --keepm", {"keepdata": "", "keepname": "", "keepmac": ""}, ""),
        ("--tmpfs", {"tmpfs": ""}, ""),  # whole, though others begin with it
        ("--tmpfs-s=1M", {"tmpfs-size": "1M"}, ""),
        # the end of the options
        ("-e -- base ls -la --all", {"ephemeral": ""}, "base ls -la --all"),
        ("base -- -- -e", {}, "base -- -e"),
        ("base x -- y", {}, "base x y"),
        ("--", {}, ""),
        # help and version act at once
        ("-e -h --bogus", {"ephemeral": "", "help": ""}, ""),
        ("base --help -N", {"help": ""}, "base"),
        ("--vers -? --newname", {"version": ""}, ""),
        ("-ehX", {"ephemeral": "", "help": ""}, ""),
        ("-e --usage --bogus", {"ephemeral": "", "usage": ""}, ""),
        ("-e -? --bogus", {"ephemeral": "", "?": ""}, ""),
        ("-e?x", {"ephemeral": "", "?": ""}, ""),
        ("-N --help", {"newname": "--help"}, ""),
        ("-- --help", {}, "--help"),
    ],
)
def test_parse(parsed: Parsed, arguments: str, values: dict[str, str], words: str) -> None:
    """A command line is read as getopt_long() does, in order."""
    parse(arguments.split(), parsed)
    assert ([*values.items()], words.split()) == (parsed.given, parsed.words)


@pytest.mark.parametrize(
    ("arguments", "given", "last"),
    [
        ("-ee", ["", ""], ""),
        ("-N a -t -N b --newname=c -t", ["a", "b", "c"], "c"),
        ("-m a=b,c -m d --mount= -e", ["a=b,c", "d", ""], ""),
        ("--hook-arg a -e --hook-arg=b --hook a", ["a", "b", "a"], "a"),
        ("", [], None),
    ],
)
def test_repeated_options(parsed: Parsed, arguments: str, given: list[str], last: str | None) -> None:
    """An option that is repeated has all its arguments in order, and the last one counts."""
    parse([*arguments.split(), "-q"], parsed)
    name = parsed.given[0][0] if given else "newname"
    assert (given, last) == (parsed.all(name), parsed.get(name))
    assert (bool(given), True, False) == (name in parsed, "quiet" in parsed, "rename" in parsed)


def _unique_prefixes() -> list[tuple[str, str]]:
    """What getopt_long() takes for each of lxc-copy's long options, and for no other one of them."""
    return [
        (prefix, name)
        for name in LXC_COPY
        for prefix in (name[:length] for length in range(1, len(name) + 1))
        if prefix == name or [name] == [other for other in LXC_COPY if other.startswith(prefix)]
    ]


@pytest.mark.parametrize(("prefix", "name"), _unique_prefixes())
def test_prefixes_of_lxc_copy(parsed: Parsed, prefix: str, name: str) -> None:
    """A prefix that is unique among lxc-copy's options is that option here, whatever else we have."""
    parse([f"--{prefix}=x" if LXC_COPY[name][1] else f"--{prefix}"], parsed)
    assert [(name, "x" if LXC_COPY[name][1] else "")] == parsed.given


@pytest.mark.parametrize(
    ("prefix", "name"),
    [("cr", "create-base"), ("json-", "json-status-fd"), ("ho", "hook-arg"), ("sh", "shutdown-timeout")],
)
def test_prefixes_of_ours(parsed: Parsed, prefix: str, name: str) -> None:
    """A prefix that no option of lxc-copy has is that of the option which only we have."""
    parse([f"--{prefix}", "x"], parsed)
    assert [(name, "x")] == parsed.given


@pytest.mark.parametrize(("word", "value"), [("--idmap", ""), ("--idmap=1:2", "1:2"), ("--idm=", "")])
def test_argument_that_may_be_left_out(parsed: Parsed, word: str, value: str) -> None:
    """Such an argument is only one after an equals sign: the next word is a word of its own."""
    parse([word, "3:4"], parsed)
    assert ([("idmap", value)], ["3:4"]) == (parsed.given, parsed.words)


def test_arguments_are_not_split(parsed: Parsed) -> None:
    """Empty words, blanks and newlines arrive as they are."""
    parse(["-N", "", "a b", "", "--newpath= x\n", "--", ""], parsed)
    assert ([("newname", ""), ("newpath", " x\n")], ["a b", "", ""]) == (parsed.given, parsed.words)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--bogus", "there is no option --bogus; see --help"),
        ("--bogus=1", "there is no option --bogus;"),
        ("--newnames=x", "there is no option --newnames;"),
        ("--Tmpfs", "there is no option --Tmpfs;"),
        ("-x", "there is no option -x; see --help"),
        ("-P a -e -P b", "this command only accepts one -P, --lxcpath"),
        ("--lxcpath=a --lx=a --bogus", "this command only accepts one -P, --lxcpath"),
        ("-eP a -tPb -h", "this command only accepts one -P, --lxcpath"),
        ("-V", "there is no option -V;"),
        ("-etx", "there is no option -x;"),
        ("-e=1", "there is no option -=;"),
        ("--json-", "--json-status-fd needs an argument, FD"),
        ("-m", "-m needs an argument, SPEC"),
        ("-N", "-N needs an argument, NAME"),
        ("-etN", "-N needs an argument, NAME"),
        ("--newname", "--newname needs an argument, NAME"),
        ("--newn", "--newname needs an argument, NAME"),
        ("--tmpfs-size", "--tmpfs-size needs an argument, SIZE"),
        ("--tmpfs=1M", "--tmpfs takes no argument"),
        ("--help=x", "--help takes no argument"),
        ("--tmpfs=", "--tmpfs takes no argument"),
        ("--new=x", "--new could be --newname or --newpath"),
        ("--keep", "--keep could be --keepdata or --keepname or --keepmac"),
        ("--tmpfs-", "--tmpfs- could be --tmpfs-size or --tmpfs-inodes or --tmpfs-via"),
        ("--=x", "-- could be "),
        ("--c", "--c could be --create-base or --check"),
        ("--bogus --help", "there is no option --bogus;"),
    ],
)
def test_parse_error(parsed: Parsed, arguments: str, message: str) -> None:
    """What is wrong is named, and what came before it is there."""
    with pytest.raises(OptionError, match=f"^{re.escape(message)}"):
        parse(["-q", "word", *arguments.split()], parsed)
    assert ("", ["word"]) == (parsed.get("quiet"), parsed.words)


@pytest.mark.parametrize(
    ("arguments", "last"),
    [
        ("-e", "ephemeral"),
        ("-s", "snapshot"),
        ("-e -s", "snapshot"),
        ("-s -e", "ephemeral"),
        ("-ese", "ephemeral"),
        ("-e -R", "rename"),
        ("-R -e", "ephemeral"),
        ("-eRs -N x", "snapshot"),
        ("-s --rename -t", "rename"),
        ("-t", None),
    ],
)
def test_last_task_counts(parsed: Parsed, arguments: str, last: str | None) -> None:
    """Of -e, -s and -R the last one is known."""
    parse(arguments.split(), parsed)
    assert last == parsed.last_of("ephemeral", "snapshot", "rename")
    assert None is parsed.last_of("help", "version")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("-e base -- true", True),
        ("-n base -e -- --", True),
        ("-e base true", False),
        ("-e base --", False),
        ("", False),
    ],
)
def test_command_is_seen(parsed: Parsed, arguments: str, expected: bool) -> None:
    """Words after the end of the options count as a command when an error comes before them."""
    with pytest.raises(OptionError):
        parse(["--bogus", *arguments.split()], parsed)
    assert expected == parsed.has_command


# The exit status


@pytest.fixture
def _signals_as_before() -> Iterator[None]:
    """Undo what the command line does to the handlers of signals."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD, signal.SIGALRM)
    handlers = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


# Wrong command lines, with what is said and the status where words follow them after "--".
WRONG = [
    ("--bogus -n base", "there is no option --bogus", 125),
    ("--create-base a --bogus", "there is no option --bogus", 125),  # nobody knows yet what is to be done
    ("-n base -e -x", "there is no option -x", 125),
    ("-n base", "You must provide a NEWNAME for the clone: give it with -N", 1),
    ("base -s", "You must provide a NEWNAME for the clone", 1),
    ("-e -s base", "You must provide a NEWNAME for the clone", 1),
    ("base -N ../x", "the new name '../x' is not allowed", 1),
    ("-e -s base -N ../x", "the new name '../x' is not allowed", 1),
    ("base -N x -P a:b", "the lxcpath ", 1),
    ("-s -e base -N ../x", "the new name '../x' is not allowed", 125),
    ("-n .. -e", "the container name '..' is not allowed", 125),
    ("-n= -e", "the container name '=' is not allowed", 125),
    ("--name= -e", "the container name is empty", 125),
    ("base -e -N ..", "the new name '..' is not allowed", 125),
    ("base -e -P a:b", "the lxcpath ", 125),
    ("base -e -p a,b", "the new path ", 125),
    ("base -e -t -D", "a copy on a tmpfs cannot be kept", 125),
    ("base -e --tmpfs-size 1M", "a size, inodes or way for the tmpfs is given, but no tmpfs (-t)", 125),
    ("base -e -t --tmpfs-size 1X", "the size of the tmpfs, '1X', is not", 125),
    ("base -e -t --tmpfs-inodes x", "--tmpfs-inodes needs a whole number, not 'x'", 125),
    ("base -e -t --tmpfs-inodes 0", "the number of inodes of the tmpfs must be from 1 to 2147483647, not 0", 125),
    ("base -e -t --tmpfs-inodes 2147483648", "the number of inodes of the tmpfs must be from 1 to 2147483647", 125),
    ("base -e --shutdown-timeout 1.5", "--shutdown-timeout needs a whole number, not '1.5'", 125),
    ("base -e --shutdown-timeout 5-", "--shutdown-timeout needs a whole number, not '5-'", 125),
    ("base -e -t --tmpfs-via x", "tmpfs_via must be 'monitor' or 'hook', not 'x'", 125),
    ("--create-base a/b", "the container name 'a/b' is not allowed", 1),
    ("--create-base a b", "--create-base takes one name, and no other options than -P, -q, --from and --idmap", 1),
    ("--create-base a --json", "--create-base takes one name, and no other options than", 1),
    ("--list --from x", "--list takes no words, and no other options than", 1),
    ("base -N x --from x", "--from belongs to --create-base", 1),
    ("base -N x --idmap", "--idmap belongs to --create-base", 1),
    ("--create-base a/b base -e", "the container name 'a/b' is not allowed", 1),
    ("--check base", "--check takes no words, and no other options than -P, -q and --json", 1),
    ("--check -e", "--check takes no words, and no other options than -P, -q and --json", 1),
    ("base -N x --json", "--json belongs to --check", 1),
]


def check_usage_error(capfd: pytest.CaptureFixture[str], words: list[str], message: str, status: int) -> None:
    """It ends with this status, and one line on stderr that begins like that."""
    assert status == cli.main(words)
    out, err = capfd.readouterr()
    assert ("", 1, True) == (out, err.count("\n"), err.startswith(f"lxccopy: {message}"))


@pytest.mark.usefixtures("_signals_as_before")
@pytest.mark.parametrize("words", [[], ["--"]])
@pytest.mark.parametrize(
    ("arguments", "message", "_"), [*WRONG, ("-e", "No container name specified: give it with -n", 1)]
)
def test_usage_error(capfd: pytest.CaptureFixture[str], arguments: str, message: str, words: list[str], _: int) -> None:
    """A usage error without a command is one line on stderr, and status 1."""
    check_usage_error(capfd, [*arguments.split(), *words], message, 1)


@pytest.mark.usefixtures("_signals_as_before")
@pytest.mark.parametrize(("arguments", "message", "status"), WRONG)
def test_usage_error_with_a_command(
    capfd: pytest.CaptureFixture[str], arguments: str, message: str, status: int
) -> None:
    """The status is 125 where a command, which has its own, would have run in a copy, or might have; else it is 1."""
    check_usage_error(capfd, [*arguments.split(), "--", "true"], message, status)


@pytest.mark.usefixtures("_signals_as_before")
@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ("-e -t -D -- base", 1),
        ("-e -t -D base --", 1),
        ("-e -t -D -- base true", 125),
        ("-e -t -D base true", 125),
        ("-n base -e -t -D true", 125),
        ("-n base true -e -t -D", 125),
        ("-n base -e -t -D -- --", 125),
    ],
)
def test_name_is_no_command(capfd: pytest.CaptureFixture[str], arguments: str, status: int) -> None:
    """A command is what is left without the container's name, with or without --."""
    check_usage_error(capfd, arguments.split(), "a copy on a tmpfs cannot be kept", status)


@pytest.mark.usefixtures("_signals_as_before")
@pytest.mark.parametrize("option", ["--tmpfs-inodes", "--shutdown-timeout"])
@pytest.mark.parametrize("text", ["\u0661", "1_0", " 5", "5\n", "+5", "--5", "-", "", "0x5", "\xb2"])
def test_number_is_digits(capfd: pytest.CaptureFixture[str], option: str, text: str) -> None:
    """A whole number on the command line is digits and a sign, nothing else that Python takes for one."""
    check_usage_error(capfd, ["base", "-e", "-t", option, text], f"{option} needs a whole number, not {text!r}", 1)


@pytest.mark.usefixtures("_signals_as_before")
@pytest.mark.parametrize("text", ["5", "-1", "007"])
def test_good_number(capfd: pytest.CaptureFixture[str], text: str) -> None:
    """Digits with or without a sign are a whole number."""
    check_usage_error(capfd, ["base", "-e", "-t", "-D", "--shutdown-timeout", text], "a copy on a tmpfs", 1)


def test_parse_errors_leave_signals_alone(capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing is done to the process before the command line is understood."""
    before = signal.getsignal(signal.SIGTERM)
    cli.main(["--bogus"])
    assert before == signal.getsignal(signal.SIGTERM)
    assert capfd.readouterr().err


@pytest.mark.usefixtures("_signals_as_before")
@pytest.mark.parametrize("arguments", ["-h", "--help", "--he", "base -e -th --bogus", "-h --version", "-h -- x"])
def test_help(capfd: pytest.CaptureFixture[str], arguments: str) -> None:
    """Help goes to stdout with status 0, whatever comes after it."""
    assert 0 == cli.main(arguments.split())
    assert (help_text("lxccopy"), "") == tuple(capfd.readouterr())


@pytest.mark.usefixtures("_signals_as_before")
@pytest.mark.parametrize("arguments", ["-?", "base -e -t? --bogus", "-? --help", "-? -- x"])
def test_question_mark(capfd: pytest.CaptureFixture[str], arguments: str) -> None:
    """With -? the help goes to stderr, with status 1, as where lxc-copy does not know an option."""
    assert 1 == cli.main(arguments.split())
    assert ("", help_text("lxccopy")) == tuple(capfd.readouterr())


@pytest.mark.usefixtures("_signals_as_before")
@pytest.mark.parametrize("arguments", ["--usage", "-e --usa --bogus", "--usage --help"])
def test_usage(capfd: pytest.CaptureFixture[str], arguments: str) -> None:
    """The usage goes to stdout with status 0."""
    assert 0 == cli.main(arguments.split())
    assert (usage_text("lxccopy"), "") == tuple(capfd.readouterr())


@pytest.mark.usefixtures("_signals_as_before")
@pytest.mark.parametrize(
    ("called", "name"),
    [("/usr/bin/lxc-copy", "lxc-copy"), ("lxc-copy", "lxc-copy"), ("/x/lxccopy", "lxccopy"), ("/x/y.py", "lxccopy")],
)
def test_name_of_the_program(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, called: str, name: str
) -> None:
    """Where we are called by lxc-copy's name, help, usage and errors have it; otherwise they have ours."""
    for argument, begin in (("--help", "Usage: {} "), ("--usage", "Usage: {} "), ("--bogus", "{}: there is no")):
        monkeypatch.setattr("sys.argv", [called, argument])
        cli.main()
        assert begin.format(name) == "".join(capfd.readouterr())[: len(begin) - 2 + len(name)]


@pytest.mark.usefixtures("_signals_as_before")
def test_arguments_of_the_process(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without arguments main() reads those of the process."""
    monkeypatch.setattr("sys.argv", ["lxccopy", "--help"])
    assert 0 == cli.main()
    assert help_text("lxccopy") == capfd.readouterr().out


@pytest.mark.usefixtures("_signals_as_before")
def test_usage_error_makes_nothing(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A contradiction is found before anything is made, even the lxcpath."""
    assert 1 == cli.main(["-P", str(tmp_path / "x"), "base", "-e", "-t", "-D"])
    assert 1 == cli.main(["-P", str(tmp_path / "x"), "--create-base", "a/b"])
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr().err
