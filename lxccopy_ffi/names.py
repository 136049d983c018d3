# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a container name, an lxcpath and a config value may be; everything else is refused here.

liblxc itself takes almost anything, to the point of deleting a whole lxcpath for a container named "..".
"""

from __future__ import annotations

import os

from .errors import OptionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Union

    StrPath = Union[str, "os.PathLike[str]"]

_ALNUM = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
_NAME = _ALNUM | frozenset("_.-")

MAX_NAME = 64
"""Longest name, in characters: the kernel's limit for a host name, which a copy's name becomes."""

MAX_INTERFACE = 15
"""Longest name of a network interface, in bytes."""


def check_name(name: str, what: str = "container name") -> str:
    """Return a container name that is safe as a file name, a host name and a config value, or raise OptionError.

    Args:
        name: The name: a letter or digit, then letters, digits, ``_``, ``.`` and ``-``; 64 characters at most.
        what: How an error calls it.

    Raises:
        OptionError: The name is anything else.
    """
    if not isinstance(name, str):
        raise OptionError(f"the {what} must be a str, not {type(name).__name__}")
    if not name:
        raise OptionError(f"the {what} is empty")
    if len(name) > MAX_NAME:
        raise OptionError(f"the {what} {name!r} has {len(name)} characters; {MAX_NAME} is the longest")
    if name[0] not in _ALNUM or not _NAME.issuperset(name):
        raise OptionError(
            f"the {what} {name!r} is not allowed: use letters, digits, '_', '.' and '-',"
            " and begin with a letter or digit"
        )
    return name


def check_path(path: StrPath, what: str = "lxcpath") -> str:
    r"""Return a path made absolute, or raise OptionError for one that liblxc would misread.

    Container paths become options of an overlay mount and lines of a config file, neither of which has a usable escape.

    Args:
        path: A path, absolute or relative to the current directory; it need not exist.
        what: How an error calls it.

    Raises:
        OptionError: The path is empty, has a control character, ``,`` ``:`` or ``\``, or ends in a blank.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise OptionError(f"the {what} must be a path, not {type(path).__name__}")
    text = os.fspath(path)
    if not isinstance(text, str):
        raise OptionError(f"the {what} must be text, not {type(text).__name__}")
    if not text:
        raise OptionError(f"the {what} is empty")
    try:
        absolute = os.path.abspath(text)
    except OSError as error:
        raise OptionError(f"the {what} {text!r} is relative to a directory that is gone") from error
    for character in absolute:
        if character in ",:\\" or not character.isprintable():
            raise OptionError(
                f"the {what} {absolute!r} has the character {character!r}, which overlay mounts cannot carry"
            )
    if absolute.endswith(" "):
        raise OptionError(f"the {what} {absolute!r} ends in a blank, which config files cannot carry")
    return absolute


def check_file(path: StrPath, what: str = "configuration file") -> str:
    """Return the path of a file made absolute, or raise OptionError."""
    if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
        raise OptionError(f"the {what} must be a path, not {path!r}")
    text = os.fspath(path)
    if not text or "\0" in text:
        raise OptionError(f"the {what} cannot be {text!r}")
    try:
        return os.path.abspath(text)
    except OSError as error:
        raise OptionError(f"the {what} {text!r} is relative to a directory that is gone") from error


def check_value(key: str, value: str) -> str:
    """Return a config value that stays on its line, or raise OptionError.

    Args:
        key: The config key, for the error's text.
        value: Text without control characters.

    Raises:
        OptionError: The value has a control character, such as a newline that would begin another config line.
    """
    if not isinstance(value, str):
        raise OptionError(f"the value of {key} must be a str, not {type(value).__name__}")
    if any((ord(character) < 32 and character != "\t") or ord(character) == 127 for character in value):
        raise OptionError(f"the value of {key}, {value!r}, has a control character")
    return value


def check_key(key: str, what: str = "key") -> str:
    """Return the name of a config or cgroup item, or raise OptionError for what no such name can be.

    Args:
        key: Printable ASCII without blanks and slashes, such as ``lxc.net.0.type`` or ``memory.max``.
        what: How an error calls it.

    Raises:
        OptionError: It is anything else.
    """
    if not isinstance(key, str):
        raise OptionError(f"the {what} must be a str, not {type(key).__name__}")
    if not key or not key.isascii() or not key.isprintable() or " " in key or "/" in key:
        raise OptionError(f"the {what} cannot be {key!r}")
    return key


def check_interface(name: str, what: str = "interface") -> str:
    """Return the name of a network interface, or raise OptionError for what the kernel does not take.

    Args:
        name: 1 to 15 bytes without blanks, slashes and colons.
        what: How an error calls it.

    Raises:
        OptionError: It is anything else.
    """
    if not isinstance(name, str):
        raise OptionError(f"the {what} must be a str, not {type(name).__name__}")
    forbidden = any(character in "/:" or character.isspace() or not character.isprintable() for character in name)
    if forbidden or name in {"", ".", ".."} or len(os.fsencode(name)) > MAX_INTERFACE:
        raise OptionError(f"the {what} cannot be {name!r}: an interface has 1 to {MAX_INTERFACE} printable characters")
    return name


def check_number(name: str, value: int, least: int) -> int:
    """Return a whole number that fits a C int, or raise OptionError.

    Args:
        name: How an error calls it.
        value: The number.
        least: The smallest that is allowed.

    Raises:
        OptionError: It is smaller, larger, or no int.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 1 << 31:
        raise OptionError(f"{name} must be a whole number from {least} on, not {value!r}")
    return value


def check_flag(name: str, value: bool) -> bool:  # noqa: FBT001 - it is what is checked
    """Return a flag that is True or False, or raise OptionError: ``"no"`` would count as true."""
    if not isinstance(value, bool):
        raise OptionError(f"{name} must be True or False, not {value!r}")
    return value


def check_seconds(name: str, value: float | None) -> float | None:
    """Return a time in seconds or None, or raise OptionError."""
    if value is None:
        return None
    try:
        if isinstance(value, (int, float)) and not isinstance(value, bool) and float(value) == value:  # unlike NaN
            return value
    except OverflowError:
        pass
    raise OptionError(f"{name} must be a number of seconds, not {value!r}")


def check_words(name: str, words: Sequence[str]) -> list[str]:
    """Return arguments for a program as a list of str, or raise OptionError for what no exec can take."""
    if isinstance(words, (str, bytes)) or not hasattr(words, "__iter__"):
        raise OptionError(f"{name} must be a list of str such as ['sh', '-c', 'TEXT'], not {words!r}")
    checked = [os.fspath(word) if isinstance(word, os.PathLike) else word for word in words]
    for word in checked:
        if not isinstance(word, str):
            raise OptionError(f"{name} takes str, and {word!r} is none")
        if "\0" in word:
            raise OptionError(f"{name}: {word!r} has a null character")
        try:
            os.fsencode(word)
        except UnicodeEncodeError as error:
            raise OptionError(f"{name}: {word!r} cannot be encoded") from error
    return checked


def random_name(base: str) -> str:
    """Return a fresh name for a copy, ``BASE_XXXXXX``, shortened at the end of BASE to stay a legal name.

    Reproduces: the name lxc-copy makes with mkdtemp().
    """
    return f"{base[: MAX_NAME - 7]}_{random_suffix()}"


def random_suffix() -> str:
    """Return six random letters and digits, as mkdtemp() makes them."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    return "".join(letters[byte % len(letters)] for byte in os.urandom(6))
