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
        letter: Its short form; empty for those without one.
        name: Its long form, and its key in Parsed.
        argument: What its argument is called in the help; empty where it takes none, in brackets where it may have one
            after an equals sign.
        help: What it does.
        new: Whether lxc-copy has not got it. A prefix that is unique among lxc-copy's means the same here.
    """

    def __init__(self, letter: str, name: str, argument: str, help: str, *, new: bool = False) -> None:  # noqa: A002
        self.letter = letter
        self.name = name
        self.argument = argument
        self.help = help
        self.new = new


# Letters and names are lxc-copy's; what it has not got has no letter.
GROUPS = (
    (
        "What to do",
        (
            Option("n", "name", "NAME", "the container to copy; also the first word that is no option"),
            Option("N", "newname", "NAME", "the name for the copy; with -e a random one where it is not given"),
            Option("e", "ephemeral", "", "start a throwaway copy, and remove it when it stops"),
            Option("s", "snapshot", "", "make a copy that shares what it does not change"),
            Option("R", "rename", "", "give the container the new name; the last of -e, -s and -R counts"),
            Option("", "create-base", "NAME", "make a small container from the host's busybox, to copy from", new=True),
            Option("", "from", "SOURCE", "with --create-base: from a directory, a tar archive or an image", new=True),
            Option("", "idmap", "[START:COUNT]", "with --create-base: with other ids on the host", new=True),
        ),
    ),
    (
        "Looking after them",
        (
            Option("", "list", "", "show the throwaway copies that there are", new=True),
            Option("", "reap", "", "remove those whose makers died before they had tidied up", new=True),
            Option("", "dry-run", "", "with --reap: only tell what would be removed", new=True),
            Option("", "all", "", "with --reap: also stopped ephemeral containers of other tools", new=True),
            Option("", "check", "", "look what this machine can and cannot do", new=True),
            Option("", "json", "", "with --list, --reap or --check: print what was found as JSON", new=True),
        ),
    ),
    (
        "Where",
        (
            Option("P", "lxcpath", "DIR", "the directory with the containers"),
            Option("p", "newpath", "DIR", "the directory for the copy; the same where it is not given"),
            Option(
                "B",
                "backingstorage",
                "TYPE",
                "btrfs, dir, loop, lvm, nbd, overlay, rbd or zfs",
            ),
            Option("L", "fssize", "SIZE", "of a new image or volume: MiB, or with B, K, M, G or T"),
        ),
    ),
    (
        "Throwaway copies (-e)",
        (
            Option("t", "tmpfs", "", "keep in memory what the copy writes"),
            Option(
                "", "tmpfs-size", "SIZE", "how much: bytes with K, M or G, or a part of memory such as 25%", new=True
            ),
            Option("", "tmpfs-inodes", "N", "how many files", new=True),
            Option("", "tmpfs-via", "WAY", "'monitor' or 'hook': how the memory is mounted", new=True),
            Option("m", "mount", "SPEC", "bind=SRC[:DEST[:ro]] or overlay=SRC[:DEST], several with commas;"),
            Option("d", "daemon", "", "stay in the background, the default without a command"),
            Option("F", "foreground", "", "without a command: stay, with the console, until the copy stops"),
            Option("D", "keepdata", "", "keep the copy when it stops"),
            Option("", "wait-booted", "[SEC]", "wait, also before the command, until the copy has booted", new=True),
            Option(
                "",
                "shutdown-timeout",
                "SEC",
                "let the copy halt for so long before it is killed; -1: for ever",
                new=True,
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
            Option("", "rcfile", "FILE", "read the container's configuration from there"),
            Option("", "hook-arg", "ARG", "an argument for the container's lxc.hook.clone", new=True),
            Option("", "json-status-fd", "FD", "write there what happens, a JSON object a line", new=True),
            Option("o", "logfile", "FILE", "where liblxc's log goes"),
            Option("l", "logpriority", "LEVEL", "how much of it: TRACE, DEBUG, INFO, NOTICE, WARN, ERROR, ..."),
            Option("q", "quiet", "", "print errors only"),
            Option("h", "help", "", "print this help"),
            Option("", "usage", "", "print the options only"),
            Option("", "version", "", "print the versions of liblxc and of this program"),
        ),
    ),
)

OPTIONS = tuple(option for _, options in GROUPS for option in options)

# What has nothing to do with copying.
UPKEEP = frozenset({"create-base", "from", "idmap", *(option.name for option in dict(GROUPS)["Looking after them"])})

# These act at once, whatever is wrong with what follows them.
_IMMEDIATE = ("help", "usage", "version", "?")

_WIDTH = 28


class Parsed:
    """A command line.

    Attributes:
        given: Each option that was given with its argument, in order; an empty text for those without an argument.
        words: What is left: with -n the trailing words, else the container's name and the trailing words.
        has_command: Whether there is a command to run in the copy, as far as is known.
    """

    def __init__(self) -> None:
        self.given: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.has_command = False

    def __contains__(self, name: str) -> bool:
        return any(name == given for given, _ in self.given)

    def get(self, name: str) -> str | None:
        """The last argument of an option; None where it was not given."""
        return next((value for given, value in reversed(self.given) if given == name), None)

    def all(self, name: str) -> list[str]:
        """All arguments of an option that may be repeated, in order."""
        return [value for given, value in self.given if given == name]

    def last_of(self, *names: str) -> str | None:
        """Which of several options was given last."""
        return next((given for given, _ in reversed(self.given) if given in names), None)


def parse(arguments: Sequence[str], parsed: Parsed) -> None:
    """Parse a command line into an object that also holds what came before an error.

    Options and words may mix, unique prefixes of long names will do, and ``--`` ends the options: as getopt_long().

    Raises:
        OptionError: An option is unknown, ambiguous, lacks its argument or has one too many; or a second -P.
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
        if len(parsed.all("lxcpath")) > 1:
            raise OptionError("this command only accepts one -P, --lxcpath")
        if parsed.given and parsed.given[-1][0] in _IMMEDIATE:
            return
    if "all" in parsed and "reap" not in parsed:  # which lxc-copy takes for the beginning of --allowrunning
        parsed.given = [("allowrunning", "") if given == ("all", "") else given for given in parsed.given]


def _parse_long(text: str, rest: Iterator[str], parsed: Parsed) -> None:
    name, equals, value = text.partition("=")
    option = _find_long(name)
    if not option.argument:
        if equals:
            raise OptionError(f"--{option.name} takes no argument")
        value = ""
    elif not equals and not option.argument.startswith("["):
        value = _next(rest, f"--{option.name}", option)
    parsed.given.append((option.name, value))


def _find_long(name: str) -> Option:
    found = [option for option in OPTIONS if option.name.startswith(name)]
    exact = [option for option in found if option.name == name]
    old = [option for option in found if not option.new]
    if not found:
        raise OptionError(f"there is no option --{name}; see --help")
    for candidates in (exact, old, found):
        if len(candidates) == 1:
            return candidates[0]
    raise OptionError(f"--{name} could be " + " or ".join(f"--{option.name}" for option in found))


def _parse_short(letters: str, rest: Iterator[str], parsed: Parsed) -> None:
    while letters:
        letter, letters = letters[0], letters[1:]
        if letter == "?":  # what lxc-copy has in its help, and getopt() for what it does not know
            parsed.given.append(("?", ""))
            return
        option = next((option for option in OPTIONS if option.letter == letter), None)
        if option is None:
            raise OptionError(f"there is no option -{letter}; see --help")
        value = ""
        if option.argument:
            value, letters = letters or _next(rest, f"-{letter}", option), ""
        parsed.given.append((option.name, value))
        if option.name in _IMMEDIATE:
            return


def _next(rest: Iterator[str], given: str, option: Option) -> str:
    for value in rest:
        return value
    raise OptionError(f"{given} needs an argument, {option.argument}")


def usage_text(program: str) -> str:
    """Return what --usage prints: all options in brackets, four in a line, in lxc-copy's manner."""
    groups = []
    for option in OPTIONS:
        letter = f"-{option.letter}|" if option.letter else ""
        argument = f"={option.name.upper()}" if option.argument else ""
        groups.append(f"[{letter}--{option.name}{argument}] ")
    lines = ["".join(groups[index : index + 4]) for index in range(0, len(groups), 4)]
    return f"Usage: {program} " + "\n\t".join(lines) + "\n"


def help_text(program: str) -> str:
    """Return what --help prints."""
    lines = [
        f"Usage: {program} [-P DIR] -n NAME -e [-t] [-- COMMAND ...]    run in a throwaway copy",
        f"       {program} [-P DIR] -n NAME -N NEWNAME [-s]             make a copy, or a snapshot",
        f"       {program} [-P DIR] -n NAME -N NEWNAME -R               give it another name",
        f"       {program} [-P DIR] --create-base NAME [--from SOURCE]  make something to copy",
        f"       {program} [-P DIR] --list | --reap | --check [--json]  see what there is, tidy up, ...",
        "",
        "Copy LXC containers, above all for a moment: an overlay on NAME, in memory with -t,",
        "in which COMMAND runs as root and of which nothing is left.",
    ]
    for title, options in GROUPS:
        lines += ["", f"{title}:"]
        for option in options:
            letter = f"-{option.letter}, " if option.letter else "    "
            argument = f" {option.argument}".replace(" [", "[=") if option.argument else ""
            lines.append(f"  {letter + '--' + option.name + argument:<{_WIDTH}}  {option.help}")
            if option.name == "mount":
                lines.append(" " * (_WIDTH + 4) + "or type=bind,src=SRC,dst=DEST,ro; may be repeated")
    lines += [
        "",
        "Examples:",
        f"  {program} --create-base base                       a base, made offline",
        f"  {program} -n base -e -t -- sh                      a shell in a fresh system",
        f"  {program} -n base -e -t -- sh -c 'exit 7'          its status becomes ours: 7",
        f"  {program} -n base -e -t -m bind=/src -- ls /src    with a directory of the host",
        f"  {program} -n base -N web -e -t                     in the background, until it stops",
        "",
        "The exit status is the command's, 128+N if signal N ended it, 127 if it is not there,",
        "126 if it cannot be executed, and 125 if the copy failed; 1 for failures without a command.",
    ]
    return "\n".join(lines) + "\n"
