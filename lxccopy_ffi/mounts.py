# SPDX-License-Identifier: LGPL-2.1-or-later
"""Mounts for a copy: the grammar of -m, and the lxc.mount.entry that each becomes. Only text; nothing is looked up."""

from __future__ import annotations

import os

from .errors import OptionError
from .names import check_flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .names import StrPath

BIND = "bind"
OVERLAY = "overlay"

_LONG_KEYS = {"source": "src", "dest": "dst", "destination": "dst", "target": "dst", "readonly": "ro"}


class Mount:
    """A directory or file of the host in a copy.

    Args:
        source: What to mount, an absolute path on the host.
        target: Where in the copy, from its root; the same path where None. ``.`` and ``..`` never lead above the root.
        kind: ``"bind"``: the very same files. ``"overlay"``: the same directory, but what is changed in it stays in the
            copy.
        read_only: The copy cannot change it; for a bind.

    Raises:
        OptionError: An argument is not allowed.
    """

    def __init__(
        self, source: StrPath, target: StrPath | None = None, kind: str = BIND, *, read_only: bool = False
    ) -> None:
        self.source = _check_path(source, "source")
        if not os.fspath(source).startswith("/"):
            raise OptionError(f"the source of a mount must be an absolute path, not {source!r}")
        self.target = self.source if target is None else _check_path(target, "target")
        if self.target == "/":
            raise OptionError(f"a mount needs a place below the root of the copy, and {self.source!r} has none")
        if kind not in (BIND, OVERLAY):
            raise OptionError(f"there is no mount of kind {kind!r}; it is 'bind' or 'overlay'")
        self.kind = kind
        self.read_only = check_flag("read_only", read_only)
        if read_only and kind == OVERLAY:
            raise OptionError(f"an overlay cannot be read-only: what would be changed in {self.source!r}? use a bind")

    def __repr__(self) -> str:
        return f"Mount({self.source!r}, {self.target!r}, {self.kind!r}, read_only={self.read_only})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mount) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self.source, self.target, self.kind, self.read_only))

    @classmethod
    def parse(cls, text: str) -> tuple[Mount, ...]:
        """Return the mounts that an argument of -m asks for, at least one.

        Args:
            text: ``bind=SRC[:DEST][:ro|rw]`` or ``overlay=SRC[:DEST]``, several of them with commas. Or one mount in
                the long form, for paths with colons or commas: ``type=bind,src=SRC,dst=DEST,ro``, in which a field
                with a comma stands in double quotes, as in CSV.

        Raises:
            OptionError: It is anything else.

        Reproduces: lxc_copy.c:parse_mntsubopts(). Differs: what lxc-copy ignores is refused, ``ro`` and ``rw`` are
        never shortened, and ``.`` and ``..`` are resolved.
        """
        if not isinstance(text, str):
            raise OptionError(f"a mount must be a str or a Mount, not {type(text).__name__}")
        if text.startswith("type="):
            return (_parse_long(text),)
        return tuple(_parse_short(item, text) for item in text.split(","))

    def entry(self, target: str, *, directory: bool = True, lower: str = "", upper: str = "", work: str = "") -> str:
        """Return the value of lxc.mount.entry.

        Args:
            target: Where in the copy, with its symbolic links resolved; liblxc refuses to go through any.
            directory: Whether the source is one, rather than a file.
            lower: A path of an overlay's source without commas, which liblxc would take for the next option.
            upper: The writable layer of an overlay, an absolute path.
            work: Its work directory.

        Reproduces: lxc_copy.c:set_mnt_entry().
        """
        where = _escape(target.lstrip("/"))
        if self.kind == OVERLAY:
            layers = self.layers(lower, upper, work)
            return f"{_escape(self.source)} {where} overlay {_escape(layers)},create=dir"
        option, create = ("ro" if self.read_only else "rw"), ("dir" if directory else "file")
        return f"{_escape(self.source)} {where} none bind,optional,{option},create={create} 0 0"

    def layers(self, lower: str, upper: str, work: str) -> str:
        """Return the options of the overlay that this is; the arguments are those of entry()."""
        return f"lowerdir={_escape_option(lower or self.source)},upperdir={upper},workdir={work}"


def parse_all(mounts: Sequence[Mount | str]) -> list[Mount]:
    """Return mounts given as such, or as arguments of -m, or raise OptionError."""
    if isinstance(mounts, (str, bytes, Mount)) or not hasattr(mounts, "__iter__"):
        raise OptionError(f"mounts must be a list of Mount or str, not {mounts!r}")
    return [one for mount in mounts for one in ((mount,) if isinstance(mount, Mount) else Mount.parse(mount))]


def _parse_short(item: str, text: str) -> Mount:
    kind, _, value = item.partition("=")
    if kind not in (BIND, OVERLAY):
        long = "; the long form begins with type=" if kind in ("src", "source", "dst") else ""
        raise OptionError(f"the mount {text!r} needs 'bind=SRC' or 'overlay=SRC', not {item!r}{long}")
    parts = [part for part in value.split(":") if part]
    option = ""
    if kind == BIND and (len(parts) == 3 or (len(parts) == 2 and parts[1] in ("ro", "rw"))):
        option = parts.pop()
        if option not in ("ro", "rw"):
            raise OptionError(f"the mount {text!r} has {option!r} in place of 'ro' or 'rw'")
    if not 1 <= len(parts) <= 2:
        why = "; an overlay is always writable" if kind == OVERLAY else ""
        raise OptionError(
            f"Excess elements in mount specification {text!r}{why}" if parts else f"the mount {text!r} has no source"
        )
    if len(parts) == 2 and parts[1] in ("r", "o", "w", "ro", "rw"):
        raise OptionError(f"the mount {text!r} has {parts[1]!r} as its target: write '/{parts[1]}' for that directory")
    # lxc-copy takes relative paths from the root of the file system.
    return Mount("/" + parts[0].lstrip("/"), parts[1] if len(parts) == 2 else None, kind, read_only=option == "ro")


def _parse_long(text: str) -> Mount:
    import csv

    try:
        (fields,) = csv.reader([text], strict=True)
    except (csv.Error, ValueError) as error:
        raise OptionError(f"the mount {text!r} is no list of KEY=VALUE with commas: {error}") from error
    values: dict[str, str] = {}
    for field in fields:
        key, equals, value = field.partition("=")
        key = _LONG_KEYS.get(key, key)
        if key in values or key not in ("type", "src", "dst", "ro", "rw") or bool(equals) == (key in ("ro", "rw")):
            raise OptionError(
                f"the mount {text!r} has {field!r}, which is repeated or none of type=, src=, dst=, ro, rw"
            )
        values[key] = value
    if "src" not in values or ("ro" in values and "rw" in values):
        raise OptionError(f"the mount {text!r} needs src=, and one of ro and rw at most")
    return Mount(values["src"], values.get("dst"), values["type"], read_only="ro" in values)


def _check_path(path: StrPath, what: str) -> str:
    """The path from the root, with ``.``, ``..`` and empty parts resolved by their text as lxc-copy means to."""
    if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
        raise OptionError(f"the {what} of a mount must be a path, not {path!r}")
    text = str(os.fspath(path))
    if not text:
        raise OptionError(f"the {what} of a mount is empty")
    if not text.isprintable():
        raise OptionError(f"the {what} of a mount, {text!r}, has a character that cannot be printed")
    return os.path.normpath("/" + text.lstrip("/"))


def _escape(text: str) -> str:
    """A field of an fstab line, as getmntent(3) decodes it."""
    return text.replace("\\", "\\134").replace(" ", "\\040")


def _escape_option(path: str) -> str:
    """A path among the options of an overlay, as the kernel decodes it."""
    return "".join(f"\\{character}" if character in "\\:" else character for character in path)


def missing(mountinfo: str, targets: Sequence[str]) -> list[str]:
    """Return those targets that are no mount points, going by the text of a process's /proc/PID/mountinfo.

    Args:
        mountinfo: The text.
        targets: Absolute paths, as that process sees them.
    """
    points = {unescape(line.split(" ", 5)[4]) for line in mountinfo.split("\n") if line}
    return [target for target in targets if target not in points]


def unescape(path: str) -> str:
    """Return a path as it is, from how a mountinfo writes it."""
    return path.replace("\\040", " ").replace("\\043", "#").replace("\\134", "\\")
