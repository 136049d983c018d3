# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command line's options: one table, and a parser with getopt_long's habits.

Our own, because argparse costs more to import than a whole run of a container should, and allows neither lxc-copy's
order of options nor its prefixes.
"""

from __future__ import annotations

from .errors import OptionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Option:
    """One option.

    Args:
        letter: Its short form; empty for those lxc-copy has not.
        name: Its long form, and its key in Parsed.values.
        argument: What its argument is called in the help; empty where it takes none.
        help: What it does.
    """

    def __init__(self, letter: str, name: str, argument: str, help: str) -> None:  # noqa: A002
        self.letter = letter
        self.name = name
        self.argument = argument
        self.help = help


# Letters and names are lxc-copy's; where it has none, there is no letter.
GROUPS = (
    (
        "What to do",
        (
            Option("n", "name", "NAME", "the container to copy; also the first word that is no option"),
            Option("N", "newname", "NAME", "the name for the copy; with -e a random one where it is not given"),
            Option("e", "ephemeral", "", "start a throwaway copy, and remove it when it stops"),
            Option("s", "snapshot", "", "make a copy that shares what it does not change"),
            Option("", "create-base", "NAME", "make a small container from the host's busybox, to copy from"),
        ),
    ),
    (
        "Where",
        (
            Option("P", "lxcpath", "DIR", "the directory with the containers"),
            Option("p", "newpath", "DIR", "the directory for the copy; the same where it is not given"),
        ),
    ),
    (
        "Throwaway copies (-e)",
        (
            Option("t", "tmpfs", "", "keep in memory what the copy writes"),
            Option(
                "",
                "tmpfs-size",
                "SIZE",
                "how much: bytes with K, M or G, or a part of memory such as 25%",
            ),
            Option("", "tmpfs-inodes", "N", "how many files"),
            Option("", "tmpfs-via", "WAY", "'monitor' or 'hook': how the memory is mounted"),
            Option("d", "daemon", "", "stay in the background, which without a command is usual"),
            Option("D", "keepdata", "", "keep the copy when it stops"),
            Option(
                "", "shutdown-timeout", "SEC", "let the copy shut down for so long before it is killed; -1: for ever"
            ),
        ),
    ),
    (
        "Identity",
        (
            Option("K", "keepname", "", "keep the host name, hosts file and machine id"),
            Option("M", "keepmac", "", "keep the network addresses"),
        ),
    ),
    (
        "Other",
        (
            Option("a", "allowrunning", "", "copy the container also while it runs"),
            Option("q", "quiet", "", "print errors only"),
            Option("h", "help", "", "print this help"),
            Option("", "version", "", "print the versions of liblxc and of this program"),
        ),
    ),
)

OPTIONS = tuple(option for _, options in GROUPS for option in options)

# These act at once, whatever is wrong with what follows them.
_IMMEDIATE = ("help", "version")


class Parsed:
    """A command line.

    Attributes:
        values: What each option that was given was given last; an empty text for those without an argument.
        order: The names of the options, in order.
        words: What is left: with -n the trailing words, else the container's name and the trailing words.
        has_command: Whether there is a command to run in the copy, as far as is known.
    """

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.order: list[str] = []
        self.words: list[str] = []
        self.has_command = False

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def get(self, name: str) -> str | None:
        """The last argument of an option; None where it was not given."""
        return self.values.get(name)

    def last_of(self, *names: str) -> str | None:
        """Which of several options was given last."""
        return next((name for name in reversed(self.order) if name in names), None)


def parse(arguments: Sequence[str], parsed: Parsed) -> None:
    """Parse a command line into an object that also holds what came before an error.

    Options and words may mix, unique prefixes of long names will do, and ``--`` ends the options: as getopt_long().

    Raises:
        OptionError: An option is unknown, ambiguous, lacks its argument or has one too many.
    """
    rest = iter(arguments)
    parsed.has_command = "--" in arguments[:-1]  # for an error that ends the parsing before it is reached
    for word in rest:
        if word == "--":
            parsed.words.extend(rest)
        elif word.startswith("--"):
            _parse_long(word[2:], rest, parsed)
        elif word.startswith("-") and word != "-":
            _parse_short(word[1:], rest, parsed)
        else:
            parsed.words.append(word)
        if parsed.order and parsed.order[-1] in _IMMEDIATE:
            return


def _parse_long(text: str, rest: Iterator[str], parsed: Parsed) -> None:
    name, equals, value = text.partition("=")
    found = [option for option in OPTIONS if option.name == name] or [
        option for option in OPTIONS if option.name.startswith(name)
    ]
    if not found:
        raise OptionError(f"there is no option --{name}; see lxccopy --help")
    if len(found) > 1:
        raise OptionError(f"--{name} could be " + " or ".join(f"--{option.name}" for option in found))
    option = found[0]
    if not option.argument:
        if equals:
            raise OptionError(f"--{option.name} takes no argument")
        value = ""
    elif not equals:
        value = _next(rest, f"--{option.name}", option)
    parsed.values[option.name] = value
    parsed.order.append(option.name)


def _parse_short(letters: str, rest: Iterator[str], parsed: Parsed) -> None:
    while letters:
        letter, letters = letters[0], letters[1:]
        option = next((option for option in OPTIONS if option.letter == letter), None)
        if option is None:
            raise OptionError(f"there is no option -{letter}; see lxccopy --help")
        value = ""
        if option.argument:
            value, letters = letters or _next(rest, f"-{letter}", option), ""
        parsed.values[option.name] = value
        parsed.order.append(option.name)
        if option.name in _IMMEDIATE:
            return


def _next(rest: Iterator[str], given: str, option: Option) -> str:
    for value in rest:
        return value
    raise OptionError(f"{given} needs an argument, {option.argument}")


def help_text() -> str:
    """Return what --help prints."""
    lines = [
        "Usage: lxccopy [-P DIR] -n NAME -e [-t] [-- COMMAND ...]    run in a throwaway copy",
        "       lxccopy [-P DIR] -n NAME -N NEWNAME [-s]             make a copy, or a snapshot",
        "       lxccopy [-P DIR] --create-base NAME                  make something to copy",
        "",
        "Copy LXC containers, above all for a moment: an overlay on NAME, in memory with -t,",
        "in which COMMAND runs as root and of which nothing is left.",
    ]
    for title, options in GROUPS:
        lines += ["", f"{title}:"]
        for option in options:
            letter = f"-{option.letter}, " if option.letter else "    "
            argument = f" {option.argument}" if option.argument else ""
            lines.append(f"  {letter + '--' + option.name + argument:<26}  {option.help}")
    lines += [
        "",
        "Examples:",
        "  lxccopy --create-base base                       a base, made offline",
        "  lxccopy -n base -e -t -- sh                      a shell in a fresh system",
        "  lxccopy -n base -e -t -- sh -c 'exit 7'          its status becomes ours: 7",
        "  lxccopy -n base -N web -e -t                     in the background, until it stops",
        "",
        "The exit status is the command's, 128+N if signal N ended it, 127 if it is not there,",
        "126 if it cannot be executed, and 125 if the copy failed; 1 for failures without a command.",
    ]
    return "\n".join(lines) + "\n"
