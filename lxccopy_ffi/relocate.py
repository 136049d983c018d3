# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a container's configuration says of files in the container's own directory, and how that follows a copy.

liblxc's clone() does so for hooks directly in the directory and without arguments; one in a subdirectory it copies to
the wrong place, one with arguments makes it fail, and log files, consoles and included files it leaves behind (SPEC
B7, B8). So it gets to see none of the hooks, and this does it all. Only text; the files are copied by clone.py.
"""

from __future__ import annotations

import os
import posixpath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_HOOKS = "lxc.hook."
_OUTPUTS = frozenset({"lxc.log.file", "lxc.console.logfile", "lxc.console.path"})
_NAMED = ("lxc.rootfs.path", "lxc.uts.name")
_QUOTES = "'\""
_BLANKS = " \t\r\v\f"

# These are the system's own: what the configuration names in there is not copied with it.
_ROOTS = ("rootfs/", "overlay/")


def items(text: str) -> Iterator[tuple[str, str]]:
    """Yield the key and value of each line of a config file that sets one."""
    for line in text.split("\n"):  # and at nothing else that Python takes for the end of a line
        key, equals, value = line.partition("=")
        if equals and not line.lstrip(_BLANKS).startswith("#"):
            yield key.strip(_BLANKS), value.strip(_BLANKS)


def _edit(text: str, edit: Callable[[str, str], str]) -> str:
    """The text with each line's value replaced by what a function of its key and value returns."""
    lines = text.split("\n")
    for index, line in enumerate(lines):
        for key, value in items(line):
            new = edit(key, value)
            if new != value:
                before, equals, after = line.partition("=")
                lines[index] = before + equals + after.replace(value, new, 1)
    return "\n".join(lines)


def hide_hooks(text: str, lxcpath: str, name: str) -> str:
    """Return a configuration whose hooks in the container's directory liblxc does not recognise as such."""
    return _edit(
        text, lambda key, value: _moved(value, f"{lxcpath}/{name}/", _hidden(lxcpath, name)) if _is_hook(key) else value
    )


def hide_includes(text: str, lxcpath: str, name: str, replace: Callable[[str], str]) -> str:
    """Return a configuration in which files of the container's directory that it includes are replaced by others.

    Args:
        text: The configuration.
        lxcpath: The container's lxcpath.
        name: The container's name.
        replace: Returns the path of another file for that of an included one, or the same.
    """
    own = f"{lxcpath}/{name}/"

    def edit(key: str, value: str) -> str:
        file = unquoted(value)
        return replace(file) if key == "lxc.include" and file.startswith(own) else value

    return _edit(text, edit)


def _hidden(lxcpath: str, name: str) -> str:
    return f"{lxcpath}//{name}/"


def _is_hook(key: str) -> bool:
    return key.startswith(_HOOKS) and key != "lxc.hook.version"


def _moved(value: str, old: str, new: str) -> str:
    """A value that begins with one path, perhaps in quotes, with another one in its place."""
    quote = value[: len(value) - len(value.lstrip(_QUOTES))]
    return quote + new + value[len(quote) + len(old) :] if value.startswith(quote + old) else value


class Followed:
    """A copy's configuration, with all that lies in the source's directory at the same place in the copy's.

    Args:
        text: What liblxc made of the text from hide_hooks().
        source: The source's lxcpath and name.
        directory: The copy's directory.
        includes: Whether to take included files along, too: for a copy that shall not need its source.
        values: Values that shall be other ones, by key and value; by an empty value, whatever it is.

    Attributes:
        text: The new text.
        files: The files to copy, relative to either directory.
        texts: Those of them that are included, and speak of files themselves.
        directories: Those that must be there, for what is written.
    """

    def __init__(
        self, text: str, source: tuple[str, str], directory: str, *, includes: bool, values: dict[tuple[str, str], str]
    ) -> None:
        self._old = "/".join(source) + "/"
        self._hidden = _hidden(*source)
        self._new = f"{directory}/"
        self._includes = includes
        self._values = values
        self.files: list[str] = []
        self.texts: list[str] = []
        self.directories: list[str] = []
        self.text = _edit(text, self._follow)

    def _follow(self, key: str, value: str) -> str:
        value = self._values.get((key, value)) or self._values.get((key, "")) or value
        if _is_hook(key):
            hidden = self._hidden if self._hidden in value else self._old
            return self._take(value, hidden, program_file(value))
        if key == "lxc.include" and self._includes:
            file = unquoted(value)
            new = self._take(value, self._old, file)
            if new != value:
                self.texts.append(self.files[-1])
            return new
        if key in _OUTPUTS:
            new = _moved(value, self._old, self._new)
            if posixpath.normpath(unquoted(new)[len(self._new) :].lstrip("/")).startswith(("../", *_ROOTS)):
                return value
            if new != value:
                self.directories.append(posixpath.dirname(unquoted(new)))
            return new
        return value

    def _take(self, value: str, old: str, file: str) -> str:
        if not file.startswith(old):
            return value
        path = posixpath.normpath(file[len(old) :].lstrip("/"))
        if path.startswith(("../", *_ROOTS)) or path in (".", ".."):
            return _moved(value, old, self._old)  # not a file of the configuration's after all
        if path in self.files:
            self.files.remove(path)
        self.files.append(path)
        return _moved(value, old, self._new)


def moved(text: str, old: str, new: str) -> str:
    """Return a text in which every path below one directory is below another one."""
    import re

    return re.sub(rf"(?<![\w./-]){re.escape(old)}(?=[/\s'\":,]|\Z)", lambda _: new, text)


def renamed(text: str, old: str, new: str, name: str) -> str:
    """Return the configuration of a container whose directory, and name, have changed.

    Reproduces: what lxcapi_rename() makes of it, in the same order.
    """
    text = moved(text, old, new)
    lines = [line for line in text.split("\n") if not any(key in _NAMED for key, _ in items(line))]
    if lines and not lines[-1]:
        lines.pop()
    roots = [f"lxc.rootfs.path = {value}" for key, value in items(text) if key == "lxc.rootfs.path"]
    return "\n".join([*lines, *roots[-1:], f"lxc.uts.name = {name}"]) + "\n"


def own_texts(text: str, directory: str) -> list[str]:
    """Return the files of text in a container's directory that its configuration includes, relative to it."""
    values = [unquoted(value) for key, value in items(text) if key in ("lxc.include", "lxc.mount.fstab")]
    files: list[str] = []
    for path in values:
        if posixpath.isdir(path):
            files += sorted(f"{path}/{name}" for name in os.listdir(path) if name.endswith(".conf"))
        elif posixpath.isfile(path):
            files.append(path)
    # Not through links: what is in the root file system, for example, is not to be trusted with their names.
    own = [file[len(directory) + 1 :] for file in files if file.startswith(f"{directory}/")]
    return [
        file
        for file in dict.fromkeys(map(posixpath.normpath, own))
        if not file.startswith(("../", *_ROOTS))
        and posixpath.realpath(f"{directory}/{file}") == f"{posixpath.realpath(directory)}/{file}"
    ]


def unquoted(value: str) -> str:
    """Return a value as liblxc reads it: without equal quotes at both ends."""
    return value[1:-1] if len(value) > 1 and value[0] in _QUOTES and value[-1] == value[0] else value


def program_file(hook: str) -> str:
    """Return the program of a hook's command line."""
    import shlex

    line = unquoted(hook)
    try:
        words = shlex.split(line)
    except ValueError:
        words = line.split()
    return words[0] if words else ""


def shared_settings(text: str) -> list[str]:
    """Return a sentence for each setting that two containers cannot have at once: addresses and interface names."""
    found = []
    for key, value in items(text):
        parts = key.split(".")
        if parts[:2] != ["lxc", "net"] or not value:
            continue
        if parts[3:] in (["ipv4", "address"], ["ipv6", "address"]):
            found.append(f"the address {value} ({key})")
        elif parts[3:] == ["veth", "pair"]:
            found.append(f"the interface {value} on the host ({key})")
    return found
