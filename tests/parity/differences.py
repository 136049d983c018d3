# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where lxccopy differs from lxc-copy on purpose: every difference by name, with its paragraph of SPEC.md.

Each is a function that looks for exactly this difference between two outcomes, theirs and ours, takes it out of them
and says whether it was there. Its docstring says what ours does.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, fields

from parity_world import BASE_ID, Outcome

Explain = Callable[[Outcome, Outcome], bool]

_COPY = r"(?:COPY|(?:base|snap|second|debian)_XXXXXX)"
_CONFIG = re.compile(rf"((lxc|new)/{_COPY}|captured)/config")
_IDENTITY = "etc(/hostname|/hosts|/machine-id)?"
_CREATED = re.compile(rf"Created {_COPY} as clone of \S+\n(?:Container is placed on tmpfs\.\n)?(?:Rebooting [^\n]+\n)?")
_REBOOTING = "Rebooting will cause all changes made to it to be lost!\n"
# What lies over an overlay mount: where it is on a tmpfs, and how a hook makes it.
_LAYER_IN_MEMORY = re.compile(r"(?:/run/lxccopy/upper|@/lxc/COPY/overlay)/(delta|work)#XXXXXX")
_MAKES_LAYER = re.compile(rf"(mkdir|chmod 755|chown 0:0) '{_LAYER_IN_MEMORY.pattern}'")
# What must be there on both sides, also where only theirs made a copy.
_OF_BASE = re.compile(r"lxc/base/(?!lxc_snapshots$|base\.log$)")
# The settings of which there is one at most, so that their order says nothing.
_SINGLE = re.compile(
    r"lxc\.(rootfs\.path|uts\.name|ephemeral|mount\.fstab) = |lxc\.hook\.pre-mount = .*/pre-start-XXXXXX$"
)
# What a clone hook is given in the cases, and what a shell makes of it.
HOOK_WORDS = ["a1", "a 2", "$(echo sub)"]
_HOOK_WORDS_IN_A_SHELL = ["a1", "a", "2", "sub"]


@dataclass(frozen=True)
class Difference:
    """One intended difference.

    Args:
        name: What cases call it.
        paragraph: Where SPEC.md says what lxc-copy does.
        instead: What ours does, in a sentence.
        explain: Takes it out of both outcomes; False where it is not there.
    """

    name: str
    paragraph: str
    instead: str
    explain: Explain


DIFFERENCES: list[Difference] = []


def _difference(paragraph: str) -> Callable[[Explain], Difference]:
    """Make a difference of a function."""

    def register(explain: Explain) -> Difference:
        assert explain.__doc__
        made = Difference(explain.__name__, paragraph, explain.__doc__, explain)
        DIFFERENCES.append(made)
        return made

    return register


def _refused(name: str, paragraph: str, instead: str) -> Difference:
    """What lxc-copy does, or begins and leaves half done, and ours refuses before it makes anything."""

    def explain(theirs: Outcome, ours: Outcome) -> bool:
        made = [path for path in theirs.tree if path not in ours.tree and not _OF_BASE.match(path)]
        if ours.status == 0 or (theirs.status == ours.status and not made and not theirs.stdout):
            return False
        theirs.status = ours.status
        _drop_paths(theirs, made)
        theirs.mounts.clear()
        theirs.inside.clear()
        if not ours.stdout:
            theirs.stdout = _CREATED.sub("", theirs.stdout)
        return True

    made = Difference(name, paragraph, instead, explain)
    DIFFERENCES.append(made)
    return made


def _replace(lines: dict[str, list[str]], old: str, new: str) -> bool:
    """Replace a text in all lines; False where it is in none."""
    return _substitute(lines, re.compile(re.escape(old)), new.replace("\\", "\\\\"))


def _substitute(lines: dict[str, list[str]], old: re.Pattern[str], new: str) -> bool:
    """Replace what matches in all lines; False where nothing does."""
    found = False
    for texts in lines.values():
        changed = [old.sub(new, text) for text in texts]
        found |= changed != texts
        texts[:] = changed
    return found


def _replace_own(outcome: Outcome, old: str, new: str) -> bool:
    """Replace a text in the copy's config; False where it is not there."""
    return _replace({name: lines for name, lines in outcome.files.items() if _CONFIG.fullmatch(name)}, old, new)


def _drop(outcome: Outcome, pattern: str) -> list[str]:
    """Drop the paths that match from the tree and the files; return them."""
    return _drop_paths(outcome, [path for path in outcome.tree if re.fullmatch(pattern, path)])


def _drop_paths(outcome: Outcome, paths: list[str]) -> list[str]:
    for path in paths:
        del outcome.tree[path]
        outcome.files.pop(path, None)
    return paths


# What is printed, and the exit status


@_difference("A2.9")
def errors_are_printed(theirs: Outcome, ours: Outcome) -> bool:
    """A failure is told in one line on stderr, where lxc-copy fails in silence."""
    if theirs.stderr or not re.fullmatch(r"lxccopy: [^\n]+\n", ours.stderr):
        return False
    ours.stderr = ""
    return True


@_difference("A1.10, A1.11")
def errors_are_worded(theirs: Outcome, ours: Outcome) -> bool:
    """A usage error that lxc-copy tells, too, says what is wrong, in one line on stderr."""
    told = theirs.stdout + theirs.stderr
    if theirs.status != 1 or not told or not re.fullmatch(r"lxccopy: [^\n]+\n", ours.stderr):
        return False
    theirs.stdout = theirs.stderr = ours.stderr = ""
    return True


@_difference("A1.3")
def short_usage_errors(theirs: Outcome, ours: Outcome) -> bool:
    """A wrong option is one line, without the whole help after it."""
    if "Usage: lxc-copy" not in theirs.stderr or not re.fullmatch(r"lxccopy: [^\n]+\n", ours.stderr):
        return False
    theirs.stderr = ours.stderr = ""
    return True


@_difference("A1.3, A1.4")
def help_on_stdout(theirs: Outcome, ours: Outcome) -> bool:
    """Help that was asked for is printed on stdout, for a pager."""
    if not theirs.stderr.startswith("Usage: ") or not ours.stdout.startswith("Usage: "):
        return False
    theirs.stdout, theirs.stderr = theirs.stderr, ""
    return True


@_difference("A1.3, A1.4")
def own_help(theirs: Outcome, ours: Outcome) -> bool:
    """The help and the short usage are our own, under our name and with our further options."""
    for name in ("stdout", "stderr"):
        if getattr(theirs, name).startswith("Usage: lxc-copy ") and getattr(ours, name).startswith("Usage: lxccopy "):
            setattr(theirs, name, getattr(ours, name))
            return True
    return False


@_difference("A1.5")
def version_of_ours(_: Outcome, ours: Outcome) -> bool:
    """A second line has our own version."""
    found = re.search(r"\nlxccopy [0-9.]+\n\Z", ours.stdout)
    ours.stdout = ours.stdout[: found.start() + 1] if found else ours.stdout
    return found is not None


@_difference("A4 step 8")
def notices_on_stderr(theirs: Outcome, ours: Outcome) -> bool:
    """With a command, "Created ..." goes to stderr and comes before the command's output, whose stdout is its own."""
    notice = _CREATED.search(theirs.stdout)
    if not notice or notice[0] in ours.stdout or not ours.stderr.startswith(notice[0]):
        return False
    theirs.stdout = theirs.stdout.replace(notice[0], "")
    theirs.stderr = notice[0] + theirs.stderr
    return True


@_difference("B2")
def data_survive_a_reboot(theirs: Outcome, ours: Outcome) -> bool:
    """With -t, nothing warns of data that a reboot would lose, since it does not."""
    for name in ("stdout", "stderr"):
        text = getattr(theirs, name)
        if _REBOOTING in text and _REBOOTING not in getattr(ours, name):
            setattr(theirs, name, text.replace(_REBOOTING, ""))
            return True
    return False


@_difference("B8")
def shared_addresses_are_told(theirs: Outcome, ours: Outcome) -> bool:
    """A fixed address or interface name, which two containers cannot have at once, is warned of."""
    return "warning" not in theirs.stderr and _drop_warnings(ours, "they cannot both run with it") == 2


@_difference("B8")
def images_keep_their_identity(theirs: Outcome, ours: Outcome) -> bool:
    """The files in an image stay as they are, which is said, as it is not mounted on the host."""
    return "warning" not in theirs.stderr and _drop_warnings(ours, "/etc/hosts and machine-id are the old ones") == 1


@_difference("A3.3")
def slow_renames_are_told(theirs: Outcome, ours: Outcome) -> bool:
    """Before a container is renamed by copying it and removing the original, that is said."""
    return "warning" not in theirs.stderr and _drop_warnings(ours, "and then removes the original") == 1


def _drop_warnings(outcome: Outcome, text: str) -> int:
    """Drop warnings that end in a text from stderr; return how many there were."""
    outcome.stderr, count = re.subn(rf"^lxccopy: warning: [^\n]+ {text}\n", "", outcome.stderr, flags=re.MULTILINE)
    return count


@_difference("A4 step 12, A7")
def command_status(theirs: Outcome, ours: Outcome) -> bool:
    """The exit status is the command's, 126 or 127 if it cannot be run and 128+N if signal N ended it."""
    if theirs.status != 0 or ours.status in (0, 125):
        return False
    ours.status = 0
    return True


@_difference("A7")
def own_failure_is_125(theirs: Outcome, ours: Outcome) -> bool:
    """With a command, a failure of ours is 125 and not mistaken for one of the command's."""
    if (theirs.status, ours.status) != (1, 125):
        return False
    ours.status = 1
    return True


@_difference("A4 step 11")
def missing_commands_are_told(theirs: Outcome, ours: Outcome) -> bool:
    """A command that cannot be run is one line."""
    told = re.search(r"^lxccopy: cannot run [^\n]+\n\Z", ours.stderr, re.MULTILINE)
    if not told or "cannot run" in theirs.stderr:
        return False
    ours.stderr = ours.stderr.replace(told[0], "")
    return True


@_difference("B1")
def killed(theirs: Outcome, ours: Outcome) -> bool:
    """A throwaway copy is killed after its command, where lxc-copy shuts it down in two seconds."""
    return "src/dir/halted" not in ours.tree and bool(_drop(theirs, "src/dir/halted"))


@_difference("B1")
def no_cgroups_are_left(theirs: Outcome, ours: Outcome) -> bool:
    """No cgroups are left, where lxc-copy leaves those that it sat in itself."""
    return _forget(theirs, ours, "cgroup")


@_difference("A4.3, B1")
def no_cgroups_after_failures(theirs: Outcome, ours: Outcome) -> bool:
    """After a failed start no cgroups are left; with lxc-copy it depends on who of two processes is faster."""
    _forget(theirs, ours, "cgroup")
    return not any(line.startswith("cgroup ") for line in ours.left)


@_difference("DESIGN §7")
def no_locks_are_left(theirs: Outcome, ours: Outcome) -> bool:
    """The lock file of a copy goes with it."""
    return _forget(theirs, ours, "lock")


def _forget(theirs: Outcome, ours: Outcome, kind: str) -> bool:
    """Forget what theirs left of a kind; False where that is nothing, or ours left some, too."""
    kept = [line for line in theirs.left if not line.startswith(f"{kind} ")]
    found = kept != theirs.left and not any(line.startswith(f"{kind} ") for line in ours.left)
    theirs.left = kept
    return found


@_difference("DESIGN §7")
def ledger(_: Outcome, ours: Outcome) -> bool:
    """A throwaway copy says of itself who made it, in a file in its directory, for the case that it outlives him."""
    return bool(_drop(ours, rf"((lxc|new)/{_COPY}|captured)/\.lxccopy"))


# Who the copy is


@_difference("B8")
def hostname_line(theirs: Outcome, ours: Outcome) -> bool:
    """The host name in /etc/hostname is a line with its newline."""
    found = False
    for path, lines in theirs.files.items():
        if path.endswith("/etc/hostname") and ours.files.get(path) == [*lines, ""]:
            ours.files[path] = lines
            found = True
    for name, lines in ours.inside.items():
        if "etc/hostname: " in lines and "etc/hostname: " not in theirs.inside.get(name, []):
            lines.remove("etc/hostname: ")
            found = True
    return found


@_difference("B8")
def own_hosts_line(theirs: Outcome, ours: Outcome) -> bool:
    """The copy has its own 127.0.1.1 line in hosts, in its upper layer where it has one."""
    return _own_file(theirs, ours, "hosts", r"127\.0\.1\.1\t(base|debian)", rf"127\.0\.1\.1\t(base )?{_COPY}")


@_difference("B8")
def fresh_machine_id(theirs: Outcome, ours: Outcome) -> bool:
    """The copy has a fresh machine id, in its upper layer where it has one."""
    return _own_file(theirs, ours, "machine-id", BASE_ID, "MACHINE-ID")


def _own_file(theirs: Outcome, ours: Outcome, name: str, inherited: str, own: str) -> bool:
    """Make a file of /etc that is the copy's own in ours what it is in theirs."""
    found = False
    for path in [path for path in ours.files if path.endswith(f"/etc/{name}")]:
        if path in theirs.files:
            found |= _undo_line(ours.files[path], theirs.files[path], inherited, own)
        elif any(re.fullmatch(own, line) for line in ours.files[path]):
            found = True
            _drop_paths(ours, [path])
            parent = path.rpartition("/")[0]
            if parent not in theirs.tree and not any(other.startswith(f"{parent}/") for other in ours.tree):
                _drop_paths(ours, [parent])
    for container, lines in ours.inside.items():
        old = theirs.inside.get(container, [])
        found |= _undo_line(lines, old, f"etc/{name}: {inherited}", f"etc/{name}: {own}")
    return found


def _undo_line(lines: list[str], old: list[str], inherited: str, own: str) -> bool:
    """Put the line that is only inherited in the place of the own one."""
    before = [line for line in old if re.fullmatch(inherited, line)]
    now = [line for line in lines if re.fullmatch(own, line)]
    if len(before) != 1 or len(now) != 1:
        return False
    lines[lines.index(now[0])] = before[0]
    return True


@_difference("A3.6, A4 steps 2 to 7")
def own_order_of_settings(theirs: Outcome, ours: Outcome) -> bool:
    """The name is set after the clone, which shall not do it, and lxc.ephemeral before all else, against orphans."""
    found = False
    for path in [path for path in theirs.files if _CONFIG.fullmatch(path)]:
        lines, own = theirs.files[path], ours.files.get(path, [])
        single = [line for line in lines if _SINGLE.match(line)]
        if sorted(single) == sorted(line for line in own if _SINGLE.match(line)) and len(lines) == len(own):
            others = (line for line in own if not _SINGLE.match(line))
            ours.files[path] = [line if _SINGLE.match(line) else next(others) for line in lines]
            found |= ours.files[path] != own
    return found


@_difference("B3")
def not_started_at_boot(theirs: Outcome, _: Outcome) -> bool:
    """A throwaway copy has no lxc.start.auto and no lxc.group: one that is left over must not come up by itself."""
    found = False
    for path, lines in theirs.files.items():
        if _CONFIG.fullmatch(path):
            kept = [line for line in lines if not line.startswith(("lxc.start.auto", "lxc.group"))]
            found |= kept != lines
            theirs.files[path] = kept
    return found


@_difference("A3.3, B8")
def templates_stay(_: Outcome, ours: Outcome) -> bool:
    """The template of an address stays one in a container that is renamed."""
    return _replace_own(ours, "hwaddr = 00:16:3e:xx:xx:xx", "hwaddr = MAC")


# In memory


@_difference("A5.2, A5.3")
def tmpfs_of_the_monitor(theirs: Outcome, ours: Outcome) -> bool:
    """With -t, the tmpfs is in the monitor's mount namespace and no hook mounts it; nothing of the copy is on disk."""
    hooks = _drop_hooks(theirs)
    if len(hooks) != 1:
        return False
    directory, text = hooks[0]
    overlay = f"{directory}/overlay"
    expected = ["#! /bin/sh", f"mount -n -t tmpfs -o mode=0755 none {overlay}"]
    name = directory.rpartition("/")[2]
    own_name = [f"mkdir -p {overlay}/delta/etc", f"echo {name} > {overlay}/delta/etc/hostname"]
    if text not in ([*expected, ""], [*expected, *own_name, ""]):
        return False
    _drop(theirs, rf"(lxc|new)/{_COPY}/overlay/delta/etc(/hostname)?")
    in_config = _replace_own(ours, ":/run/lxccopy/upper/delta", f":{overlay}/delta")
    for part in ("delta", "work"):
        _replace(ours.mounts, f"=/run/lxccopy/upper/{part}", f"={overlay}/{part}")
    return in_config


def _drop_hooks(outcome: Outcome) -> list[tuple[str, list[str]]]:
    """Drop the hook that mounts a tmpfs; return the copy's directory and the script."""
    scripts = {path: outcome.files[path] for path in outcome.files if path.endswith("/pre-start-XXXXXX")}
    found = []
    for path, text in scripts.items():
        _drop_paths(outcome, [path])
        config = outcome.files[path.replace("pre-start-XXXXXX", "config")]
        line = next(line for line in config if re.fullmatch(r"lxc\.hook\.pre-mount = .*/pre-start-XXXXXX", line))
        config.remove(line)
        found.append((line.partition(" = ")[2].rpartition("/")[0], text))
    return found


@_difference("A5.3")
def no_host_name_where_none_was(theirs: Outcome, ours: Outcome) -> bool:
    """With -t, a system without /etc/hostname gets none; lxc-copy gives it one, with -t only."""
    made = ["etc/hostname: COPY", "etc/hostname: "]
    lines = theirs.inside.get("COPY", [])
    found = set(made) <= set(lines) and not set(made) & set(ours.inside.get("COPY", []))
    lines[:] = [line for line in lines if line not in made]
    return found


@_difference("A5.5")
def tmpfs_hides_nothing(theirs: Outcome, ours: Outcome) -> bool:
    """With -t, what the copy of a snapshot has on disk is a layer below the tmpfs; lxc-copy hides it."""
    layer = "@/lxc/COPY/overlay/delta:"
    if not _replace_own(ours, f":{layer}", ":") or any(
        layer in line for lines in theirs.mounts.values() for line in lines
    ):
        return False
    _replace(ours.mounts, layer, "")
    return bool(_drop(ours, rf"lxc/COPY/overlay/delta/{_IDENTITY}"))


@_difference("A5.4")
def hook_fails_with_its_mount(_: Outcome, ours: Outcome) -> bool:
    """With --tmpfs-via=hook the script has ``set -e``: no copy runs on disk that was to be in memory."""
    found = False
    for path, text in ours.files.items():
        if path.endswith("/pre-start-XXXXXX") and text[1:2] == ["set -e"]:
            del text[1]
            found = True
    return found


@_difference("A5.5")
def hook_hides_nothing(theirs: Outcome, ours: Outcome) -> bool:
    """With --tmpfs-via=hook, what is on disk already becomes a layer below, in ``carried``, where lxc-copy hides it."""
    carried = _drop(ours, rf"(lxc|new)/{_COPY}/carried(/{_IDENTITY})?")
    if not carried:
        return False
    _drop(theirs, rf"(lxc|new)/{_COPY}/overlay/delta/.*")
    directory = f"@/{carried[0]}"
    return _replace_own(ours, f":{directory}:", ":") and _replace(ours.mounts, f"{directory}:", "")


# Clone hooks


@_difference("A1.18")
def hook_arguments_are_no_shell_text(theirs: Outcome, ours: Outcome) -> bool:
    """Arguments of a clone hook arrive as they were given; lxc-copy has a shell split and execute them."""
    theirs_words, ours_words = theirs.files.get("hook.args", []), ours.files.get("hook.args", [])
    if theirs_words[-5:-1] != _HOOK_WORDS_IN_A_SHELL or ours_words[-4:-1] != HOOK_WORDS:
        return False
    theirs.files["hook.args"], ours.files["hook.args"] = theirs_words[:-5], ours_words[:-4]
    return True


@_difference("A1.18")
def command_is_no_hook_argument(theirs: Outcome, ours: Outcome) -> bool:
    """With -e, the words are the command and nothing else; --hook-arg gives arguments to a clone hook."""
    words = theirs.files.get("hook.args", [])
    if words[-3:] != ["echo", "zz", ""] or ours.files.get("hook.args") != [*words[:-3], ""]:
        return False
    ours.files["hook.args"] = words
    return True


@_difference("B7")
def hooks_in_subdirectories(theirs: Outcome, ours: Outcome) -> bool:
    """A hook in a subdirectory of the base is copied to where the copy's config says; lxc-copy puts it elsewhere."""
    wrong, right = "lxc/COPY/deep", "lxc/COPY/hooks/deep"
    if wrong not in theirs.tree or ours.tree.get(right) != theirs.tree[wrong]:
        return False
    if ours.files[right] != theirs.files[wrong]:
        return False
    _drop_paths(theirs, [wrong])
    _drop(ours, "lxc/COPY/hooks(/deep)?")
    return True


@_difference("B7")
def hooks_with_arguments(theirs: Outcome, ours: Outcome) -> bool:
    """A hook in the base's directory may have arguments, of which lxc-copy makes a failure."""
    config = ours.files.get("lxc/COPY/config", [])
    works = "lxc.hook.pre-mount = @/lxc/COPY/flat one two" in config and "lxc/COPY/flat" in ours.tree
    return works and _works_only_here(theirs, ours)


@_difference("B7, B8")
def logs_follow(theirs: Outcome, ours: Outcome) -> bool:
    """Log and console files in the base's directory are in the copy's for the copy."""
    found = [
        _replace_own(ours, f"{key} = @/lxc/COPY/", f"{key} = @/lxc/base/")
        for key in ("lxc.log.file", "lxc.console.logfile")
    ]
    for log in ("base.log", "console.log"):
        written = f"lxc/base/{log}" in theirs.tree and f"lxc/base/{log}" not in ours.tree
        found.append(bool(_drop(ours, f"lxc/COPY/{log}")) or not written)
        if written:
            _drop(theirs, f"lxc/base/{log}")
    return all(found)


@_difference("B7")
def included_files_follow(_: Outcome, ours: Outcome) -> bool:
    """A file beside the base's config that it includes goes along with a full copy and a renamed container."""
    included = "lxc/COPY/more"
    return bool(_drop(ours, included)) and _replace_own(ours, f"= @/{included}", "= @/lxc/base/more")


@_difference("B8")
def links_are_not_followed(theirs: Outcome, ours: Outcome) -> bool:
    """A base whose /etc/hostname leads out of it has no file on the host overwritten."""
    if (theirs.files["src/file"], ours.files["src/file"]) != (["COPY"], ["content", ""]):
        return False
    ours.files["src/file"] = theirs.files["src/file"]
    return True


# Mounts


@_difference("A6.5")
def dots_are_resolved(theirs: Outcome, ours: Outcome) -> bool:
    """``.`` and ``..`` in a mount are resolved, as lxc-copy once did."""
    entry = "lxc.mount.entry = {} {} none bind,optional,rw,create=file 0 0"
    theirs_entry, ours_entry = entry.format("@/src/dir/../file", "mnt/../mnt/./f"), entry.format("@/src/file", "mnt/f")
    return _replace_own(theirs, theirs_entry, ours_entry) and any(ours_entry in lines for lines in ours.files.values())


@_difference("A6.7")
def blanks_are_escaped(theirs: Outcome, ours: Outcome) -> bool:
    """A path with a blank can be mounted, where lxc-copy's container does not start."""
    mounted = any(line.startswith("/mnt/x ") and "@/src/a\\040b" in line for line in ours.mounts.get("COPY", []))
    return mounted and _works_only_here(theirs, ours)


@_difference("A6.5")
def links_are_resolved(theirs: Outcome, ours: Outcome) -> bool:
    """Links on the way to the place of a mount are followed, inside the copy; lxc-copy leaves such a mount out."""
    mounted = [line for line in ours.mounts["COPY"] if line.startswith("/mnt/x ") and "@/src/dir" in line]
    if len(mounted) != 1 or any("@/src/dir" in line for line in theirs.mounts["COPY"]):
        return False
    ours.mounts["COPY"].remove(mounted[0])
    _drop(ours, "lxc/COPY/overlay/delta/mnt(/x)?")
    return _replace_own(theirs, "@/src/dir link/x none", "@/src/dir mnt/x none")


@_difference("A6.8")
def overlay_mounts_are_for_all_users(theirs: Outcome, ours: Outcome) -> bool:
    """What lies over an overlay mount has the mode of the mounted directory; with lxc-copy only root may enter it."""
    found = False
    for path, mode in ours.tree.items():
        if re.search(r"/(delta|work)#XXXXXX$", path) and mode == "drwxr-xr-x 0:0":
            found |= theirs.tree.get(path) == "drwx------ 0:0"
            ours.tree[path] = "drwx------ 0:0"
    return found


@_difference("A5.7")
def overlay_mounts_in_memory(theirs: Outcome, ours: Outcome) -> bool:
    """With -t, also what lies over an overlay mount is on the tmpfs, where --tmpfs-via=hook has the script make it."""
    made = _drop(theirs, r"lxc/COPY/(delta|work)#XXXXXX(/work)?")
    for path, lines in ours.files.items():
        if path.endswith("/pre-start-XXXXXX"):
            lines[:] = [line for line in lines if not _MAKES_LAYER.fullmatch(line)]
    found = [
        _substitute(where, _LAYER_IN_MEMORY, r"@/lxc/COPY/\1#XXXXXX")
        for where in ({"": ours.files["lxc/COPY/config"]}, ours.mounts)
    ]
    return bool(made) and all(found)


# Nested bases


@_difference("A3.4, B7")
def snapshots_are_stacked(theirs: Outcome, ours: Outcome) -> bool:
    """The upper layer of a snapshot becomes a lower one of its throwaway copy; lxc-copy copies it with rsync."""
    for source in ("snap", "second"):
        layer = f"lxc/{source}/overlay/delta"
        if _replace_own(ours, f":@/{layer}:", ":"):
            _replace(ours.mounts, f"@/{layer}:", "")
            copied = [path for path in theirs.tree if path.startswith("lxc/COPY/overlay/delta/")]
            for path in copied:
                original = path.replace("lxc/COPY/overlay/delta", layer)
                if path not in ours.tree and theirs.tree[path] == theirs.tree.get(original):
                    _drop_paths(theirs, [path])
            return bool(copied)
    return False


@_difference("A3.3")
def renames_keep_files(theirs: Outcome, ours: Outcome) -> bool:
    """What else is in a container's directory is still there when it is renamed; lxc-copy removes it."""
    kept = "lxc/COPY/notes"
    return ours.files.get(kept) == ["mine"] and kept not in theirs.tree and bool(_drop(ours, kept))


# What works only here


def _works_only_here(theirs: Outcome, ours: Outcome) -> bool:
    """Take ours for both, where lxc-copy fails."""
    if theirs.status == 0 or ours.status != 0:
        return False
    for field in fields(Outcome):
        setattr(theirs, field.name, deepcopy(getattr(ours, field.name)))
    return True


@_difference("A3.3, A3.4")
def snapshots_are_copied(theirs: Outcome, ours: Outcome) -> bool:
    """A full copy of an overlay snapshot is made as one of type dir, where lxc-copy fails without -B dir."""
    whole = "lxc.rootfs.path = dir:@/lxc/COPY/rootfs" in ours.files.get("lxc/COPY/config", [])
    own = {"lxc/COPY/rootfs/root/mine", "lxc/COPY/rootfs/bin/busybox"} <= set(ours.tree)
    return whole and own and _works_only_here(theirs, ours)


@_difference("A3.3")
def snapshots_are_renamed(theirs: Outcome, ours: Outcome) -> bool:
    """An overlay snapshot can be renamed, and its base knows it by its new name."""
    path = "lxc.rootfs.path = overlay:@/lxc/base/rootfs:@/lxc/COPY/overlay/delta"
    renamed = "lxc/snap" not in ours.tree and path in ours.files.get("lxc/COPY/config", [])
    moved = "lxc/COPY/overlay/delta/root/mine" in ours.tree
    known = ours.files.get("lxc/base/lxc_snapshots") == ["@/lxc", "COPY", ""]
    return renamed and moved and known and _works_only_here(theirs, ours)


# What is refused, and by lxc-copy is not or only halfway

nothing_is_left = _refused(
    "nothing_is_left", "A4.1", "-t with -D is refused before anything is made; lxc-copy fails and leaves the copy."
)
nothing_half_made_is_kept = _refused(
    "nothing_half_made_is_kept", "A4.2", "A copy that does not start is removed also with -D."
)
existing_directories_stay = _refused(
    "existing_directories_stay", "B10", "A directory that is there already is refused, with a config or without."
)
names_are_safe = _refused(
    "names_are_safe", "B6", "A name is letters, digits, _, . and -, and begins with one of the first two."
)
storage_is_not_shortened = _refused(
    "storage_is_not_shortened", "A1.16", "Parts of the word overlay, and no word at all, are no type of storage."
)
storage_is_what_it_says = _refused(
    "storage_is_what_it_says",
    "A3.4",
    "A directory is not copied as a btrfs subvolume, which lxc-copy does not make of it.",
)
sizes_are_checked = _refused("sizes_are_checked", "A1.17", "A wrong size is a usage error.")
rcfile_is_a_file = _refused("rcfile_is_a_file", "A2.6", "--rcfile with a directory is refused; lxc-copy crashes.")
no_log_of_nobody = _refused("no_log_of_nobody", "A2.2", "-l makes no directory for a container that is not defined.")
log_levels_are_checked = _refused("log_levels_are_checked", "A2.2", "A log level that does not exist is a usage error.")
mounts_are_known = _refused(
    "mounts_are_known", "A6.1", "A mount of an unknown kind, or an empty one, is refused; lxc-copy leaves it out."
)
sources_are_there = _refused(
    "sources_are_there", "A6.7", "A mount of what is not there is refused; lxc-copy leaves it out."
)
mounts_are_made = _refused(
    "mounts_are_made", "A6.6, A6.7", "A copy whose -m mount fails does not start; with lxc-copy it runs without."
)
mount_options_are_whole = _refused(
    "mount_options_are_whole", "A6.3", "The option of a mount is ro or rw, and no part of these."
)
ro_is_no_place = _refused(
    "ro_is_no_place", "A6.4", 'An overlay mount on "ro" is refused, since it was meant as an option.'
)
