# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the command line does besides copying: tell what there is and what can be done, and tidy up."""

from __future__ import annotations

import time

from .errors import OptionError
from .names import check_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .listing import Copy
    from .options import Parsed

# Each of them, and which options it takes besides -P and -q.
TASKS = {"create-base": (), "check": ("json",), "list": ("json",), "reap": ("json", "dry-run", "all")}

_HEADINGS = ("NAME", "BASE", "STATE", "AGE", "CREATOR", "TMPFS", "MEMORY", "COMMAND")


def task_of(parsed: Parsed) -> str:
    """Return which of the tasks is asked for.

    Raises:
        OptionError: It is asked for with what it does not take, or what is asked for belongs to none.
    """
    task = parsed.last_of(*TASKS)
    if task is None:
        only_here = next((name for names in TASKS.values() for name in names if name in parsed), "")
        tasks = " and ".join(f"--{name}" for name, options in TASKS.items() if only_here in options)
        raise OptionError(f"--{only_here} belongs to {tasks}")
    allowed = (task, "lxcpath", "quiet", *TASKS[task])
    given = [name for name, _ in parsed.given]
    if task == "create-base":
        check_name(parsed.get(task) or "")
    if parsed.words or any(name not in allowed for name in given) or given.count(task) > 1:
        words = "one name" if task == "create-base" else "no words"
        *options, last = ["-P", "-q", *(f"--{name}" for name in TASKS[task])]
        raise OptionError(f"--{task} takes {words}, and no other options than {', '.join(options)} and {last}")
    return task


def perform(task: str, parsed: Parsed, show: Callable[[str], None], complain: Callable[[str], None]) -> bool:
    """Do a task, and return whether all is well.

    Args:
        task: One of TASKS.
        parsed: The command line.
        show: Gets what a person or a program wants to know.
        complain: Gets what is wrong.

    Raises:
        LxcCopyError: It cannot be done.
    """
    return {"create-base": _create_base, "check": _check, "list": _list, "reap": _reap}[task](parsed, show, complain)


def _create_base(parsed: Parsed, show: Callable[[str], None], _: Callable[[str], None]) -> bool:
    from .base import create_base

    with create_base(parsed.get("create-base") or "", lxcpath=parsed.get("lxcpath")) as base:
        if "quiet" not in parsed:
            show(f"Created {base.name} in {base.lxcpath}\n")
    return True


def _check(parsed: Parsed, show: Callable[[str], None], _: Callable[[str], None]) -> bool:
    from .checks import MISSING, check

    findings = check(parsed.get("lxcpath"))
    works = not any(finding.state == MISSING for finding in findings)
    if "json" in parsed:
        _show_json({"ok": works, "checks": [vars(finding) for finding in findings]}, show)
    elif "quiet" not in parsed:
        for found in findings:
            remedy = f"; {found.remedy}" if found.remedy else ""
            show(f"{found.state:<8} {found.name:<15}  {found.text}{remedy}\n")
    return works


def _reap(parsed: Parsed, show: Callable[[str], None], complain: Callable[[str], None]) -> bool:
    from .orphans import reap

    dry_run = "dry-run" in parsed
    found = reap(parsed.get("lxcpath"), dry_run=dry_run, everything="all" in parsed)
    if "json" in parsed:
        _show_json({"dry_run": dry_run, "orphans": [vars(orphan) for orphan in found]}, show)
    else:
        for orphan in found:
            if orphan.action in ("left", "failed"):
                complain(_printable(f"cannot remove {orphan.name!r} in {orphan.lxcpath}: {orphan.reason}"))
            elif "quiet" not in parsed:
                text = f"{'would be ' if dry_run else ''}{orphan.action}: {orphan.name}; {orphan.reason}"
                show(f"{_printable(text)}\n")
    return all(orphan.action != "failed" for orphan in found)


def _list(parsed: Parsed, show: Callable[[str], None], _: Callable[[str], None]) -> bool:
    from .listing import copies

    found = copies(parsed.get("lxcpath"))
    if "json" in parsed:
        _show_json([_attributes(copy) for copy in found], show)
        return True
    rows: list[tuple[str, ...]] = [_HEADINGS] if "quiet" not in parsed else []
    rows += [_row(copy) for copy in found]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(len(_HEADINGS))]
    for row in rows:
        show("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths)).rstrip() + "\n")
    return True


def _show_json(value: object, show: Callable[[str], None]) -> None:
    import json

    show(json.dumps(value) + "\n")


def _attributes(copy: Copy) -> dict[str, object]:
    names = ("tmpfs_used", "tmpfs_size", "memory")  # which are the class's where nobody knows
    return {**vars(copy), **{name: getattr(copy, name) for name in names}}


def _row(copy: Copy) -> tuple[str, ...]:
    import shlex

    tmpfs = "" if copy.tmpfs_size is None else f"{_bytes(copy.tmpfs_used)}/{_bytes(copy.tmpfs_size)}"
    cells = (
        copy.name,
        copy.base,
        f"{copy.state} (orphan)" if copy.orphan else copy.state,
        _age(time.time() - copy.created),
        f"{copy.creator}{'' if copy.creator_alive else ' (gone)'}",
        tmpfs or "-",
        _bytes(copy.memory),
        " ".join(map(shlex.quote, copy.command)) or "-",
    )
    return tuple(map(_printable, cells))


def _printable(text: str) -> str:
    """Without what could move the cursor of whoever reads it."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _bytes(number: int | None) -> str:
    if number is None:
        return "-"
    value, units = number / 1024, "KMGT"
    while value >= 1000 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:.1f}{units[0]}"


def _age(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(0, int(seconds))}s"
