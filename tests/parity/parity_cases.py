# SPDX-License-Identifier: LGPL-2.1-or-later
"""The combinations of options that are compared, each with the differences that it is expected to show.

In arguments and configurations ``@`` stands for a side's directory and COPY for the name of the copy.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace

import differences as d
import parity_bases as bases
from differences import Difference
from parity_bases import NETWORKS, SETTINGS, STARTED_AT_BOOT
from parity_world import World

Prepare = Callable[[World], None]


@dataclass(frozen=True)
class Case:
    """One combination of options.

    Args:
        name: What it is about.
        arguments: The command line of both, split as by a shell.
        differences: Those that it shows, and that are taken out one after the other.
        config: Further lines of the base's config.
        prepare: What else is done to each side before.
        ready: What is done to each side after the run, before it is looked at.
        more: Further arguments of ours.
        says: A part of what ours complains of.
        status: The exit status of ours.
    """

    name: str
    arguments: str
    differences: tuple[Difference, ...] = ()
    config: str = ""
    prepare: Prepare = lambda _: None
    ready: Prepare = lambda _: None
    more: str = ""
    says: str = ""
    status: int = 0


def refused(
    name: str,
    arguments: str,
    says: str,
    *differences: Difference,
    told: Difference = d.errors_are_printed,
    config: str = "",
    prepare: Prepare = lambda _: None,
) -> Case:
    """A case in which ours fails, and says so otherwise than lxc-copy."""
    return Case(name, arguments, (*differences, told), config, prepare, says=says, status=1)


LOCK = d.no_locks_are_left
GONE = (d.no_cgroups_are_left, LOCK)
FAILED = (d.no_cgroups_after_failures, LOCK)
FILES_OF_ITS_OWN = (d.own_hosts_line, d.fresh_machine_id)
IDENTITY = (d.hostname_line, *FILES_OF_ITS_OWN)
RENAMED = (d.hostname_line, d.own_hosts_line)  # it is the same machine as before
SHARED = (*IDENTITY, d.shared_addresses_are_told)
IN_MEMORY = (d.tmpfs_of_the_monitor, d.own_order_of_settings)
TMPFS = (*IN_MEMORY, d.data_survive_a_reboot, *FILES_OF_ITS_OWN)
HOOK = (d.hook_fails_with_its_mount, d.own_order_of_settings)
HOOK_FILES = (d.hook_hides_nothing, *HOOK, *FILES_OF_ITS_OWN)
VIA_HOOK = "--tmpfs-via=hook"
WORDS = shlex.join(d.HOOK_WORDS)

COPIES = (
    Case("plain", "-n base -N COPY", IDENTITY),
    Case("plain, name kept", "-n base -N COPY -K"),
    Case("plain, elsewhere", "-n base -N COPY -p @/new", IDENTITY),
    Case("plain, networks", "-n base -N COPY", SHARED, NETWORKS),
    Case("plain, addresses kept", "-n base -N COPY -M", SHARED, NETWORKS),
    Case("plain, settings", "-n base -N COPY", IDENTITY, STARTED_AT_BOOT + SETTINGS),
    Case("plain, running", "-n base -N COPY -a", IDENTITY, prepare=bases.running),
    Case("plain, of type dir", "-n base -N COPY -B dir", IDENTITY),
    Case("snapshot", "-n base -N COPY -s", IDENTITY),
    Case("snapshot, name kept", "-n base -N COPY -s -K"),
    Case("snapshot, elsewhere", "-n base -N COPY -s -p @/new//", IDENTITY),
    Case("snapshot, addresses kept", "-n base -N COPY -s -M", SHARED, NETWORKS),
    Case("snapshot, quiet, running", "-q -n base -N COPY -s -a", IDENTITY, prepare=bases.running),
    Case("snapshot, overlay", "-n base -N COPY -s -B overlay", IDENTITY),
    Case("snapshot, overlayfs", "-n base -N COPY -s -B overlayfs", IDENTITY),
    Case("snapshot, options without effect", "-n base -N COPY -s -t -D -d -F -m bind=/mnt -L 10", IDENTITY),
    Case("snapshot, mount table", "-n base -N COPY -s", (*IDENTITY, d.own_order_of_settings), prepare=bases.fstab),
    Case("snapshot, overlay mount", "-n base -N COPY -s", IDENTITY, prepare=bases.overlay_mount),
    Case("snapshot, included file", "-n base -N COPY -s", IDENTITY, prepare=bases.included),
    Case("snapshot, hook", "-n base -N COPY -s", IDENTITY, prepare=bases.own_hook),
    Case("last task: snapshot", "-n base -N COPY -R -e -s", IDENTITY),
    Case("mixed order, prefixes", "-s --newn=COPY base --keepm", SHARED, NETWORKS),
    Case("last name", "-n nobody -N no -N COPY -n base -s", IDENTITY),
    Case("path with slashes", "-P @/lxc// -n base -N COPY -s", IDENTITY),
)

EPHEMERAL = (
    Case("ephemeral", "-n base -e", IDENTITY),
    Case("ephemeral, named", "base -N COPY -e -F -d", IDENTITY),
    Case("ephemeral, name kept", "-n base -N COPY -e -K"),
    Case("ephemeral, quiet, elsewhere", "-q -n base -e -p @/new", IDENTITY),
    Case("ephemeral, kept", "-n base -N COPY -e -D", IDENTITY),
    Case("ephemeral, running", "-n base -N COPY -e -a", IDENTITY, prepare=bases.running),
    Case("ephemeral, started at boot", "-n base -N COPY -e", (*IDENTITY, d.not_started_at_boot), STARTED_AT_BOOT),
    Case("ephemeral, mount table", "-n base -N COPY -e", (*IDENTITY, d.own_order_of_settings), prepare=bases.fstab),
    Case("ephemeral, hook", "-n base -N COPY -e", IDENTITY, prepare=bases.own_hook),
    Case("ephemeral, foreground", "-n base -N COPY -e -F", (LOCK,), "lxc.init.cmd = /bin/true\n"),
    refused(
        "ephemeral, networks",
        "-n base -N COPY -e -M",
        "lxc.hook.pre-start",
        LOCK,
        *SHARED,
        config=NETWORKS,
        prepare=bases.captured,
    ),
    Case("last task: ephemeral", "-n base -N COPY -s -R -e", IDENTITY),
    Case("tmpfs", "-n base -N COPY -e -t", TMPFS),
    Case("tmpfs, name kept, elsewhere", "-n base -e -t -K -p @/new", (*IN_MEMORY, d.data_survive_a_reboot)),
    Case("tmpfs, overlay", "-q -n base -e -t -B overlay", (*IN_MEMORY, *FILES_OF_ITS_OWN)),
    Case(
        "tmpfs, no host name",
        "-n base -N COPY -e -t",
        (*TMPFS, d.no_host_name_where_none_was),
        prepare=bases.no_host_name,
    ),
    Case("tmpfs by hook", "-n base -N COPY -e -t", HOOK_FILES, more=VIA_HOOK),
    Case("tmpfs by hook, name kept", "-n base -e -t -K", HOOK, more=VIA_HOOK),
)

COMMANDS = (
    Case("command", "-n base -N COPY -e -- true", (*GONE, d.notices_on_stderr, d.killed), prepare=bases.halted),
    Case(
        "command, status",
        "-n base -e -t -- sh -c 'echo out; exit 3'",
        (*GONE, d.data_survive_a_reboot, d.notices_on_stderr, d.command_status),
        status=3,
    ),
    Case(
        "command, missing",
        "-q base -N COPY -e -- /nonexisting",
        (*GONE, d.command_status, d.missing_commands_are_told),
        says="No such file",
        status=127,
    ),
    Case(
        "command, kept",
        "-q -n base -N COPY -e -D -- touch /root/x",
        (d.no_cgroups_are_left, *IDENTITY),
        prepare=bases.halted,
    ),
    Case(
        "command, no such container",
        "-n nobody -e -- true",
        (d.errors_are_printed, d.own_failure_is_125),
        says="nobody",
        status=125,
    ),
)

HOOKS = (
    Case(
        "hook arguments",
        f"-n base -N COPY -s -- {WORDS}",
        (*IDENTITY, d.hook_arguments_are_no_shell_text),
        prepare=bases.noted_arguments,
    ),
    Case(
        "command is no hook argument",
        "-q -n base -N COPY -e -- echo zz",
        (*GONE, d.command_is_no_hook_argument),
        prepare=bases.noted_arguments,
    ),
    Case(
        "command and hook arguments",
        "-q -n base -N COPY -e -- echo zz",
        GONE,
        prepare=bases.noted_arguments,
        more="--hook-arg=echo --hook-arg zz",
    ),
    Case("tmpfs, clone hook", "-n base -N COPY -e -t", TMPFS, prepare=bases.noted_arguments),
    refused("clone hook fails", "-n base -N COPY -s", "clone hook", LOCK, prepare=bases.failing_clone_hook),
    Case(
        "hook in a subdirectory", "-n base -N COPY -s", (*IDENTITY, d.hooks_in_subdirectories), prepare=bases.deep_hook
    ),
    Case("hook with arguments", "-n base -N COPY", (d.hooks_with_arguments,), prepare=bases.hook_with_arguments),
)

FILES_OF_THE_BASE = (
    Case("logs", "-n base -N COPY -s", (*IDENTITY, d.logs_follow), prepare=bases.own_logs),
    Case("logs, ephemeral", "-n base -N COPY -e", (*IDENTITY, d.logs_follow), prepare=bases.own_logs),
    Case("included file", "-n base -N COPY", (*IDENTITY, d.included_files_follow), prepare=bases.included),
    Case(
        "host name is a link", "-n base -N COPY -s", (d.links_are_not_followed, *FILES_OF_ITS_OWN), prepare=bases.link
    ),
)

NESTED = (
    Case("snapshot of a snapshot", "-n snap -N COPY -s", IDENTITY, prepare=bases.snapshot),
    Case("full copy of a snapshot", "-n snap -N COPY", (d.snapshots_are_copied,), prepare=bases.snapshot),
    Case("full copy of a snapshot, of type dir", "-n snap -N COPY -B dir", IDENTITY, prepare=bases.snapshot),
    Case("ephemeral of a snapshot", "-n snap -N COPY -e", (d.snapshots_are_stacked, *IDENTITY), prepare=bases.snapshot),
    Case(
        "ephemeral of a snapshot, name kept",
        "-n snap -N COPY -e -K",
        (d.snapshots_are_stacked,),
        prepare=bases.snapshot,
    ),
    Case(
        "ephemeral of a snapshot of a snapshot",
        "-n second -N COPY -e",
        (d.snapshots_are_stacked, *IDENTITY),
        prepare=bases.snapshot_of_snapshot,
    ),
    Case(
        "tmpfs of a snapshot",
        "-n snap -N COPY -e -t",
        (d.tmpfs_hides_nothing, d.snapshots_are_stacked, *TMPFS),
        prepare=bases.snapshot,
    ),
    Case(
        "tmpfs by hook of a snapshot",
        "-n snap -N COPY -e -t",
        (d.snapshots_are_stacked, *HOOK_FILES),
        prepare=bases.snapshot,
        more=VIA_HOOK,
    ),
)

RENAMES = (
    Case("rename", "-n base -N COPY -R", RENAMED),
    Case("rename, options without effect", "-n base -N COPY -p @/new -a -B dir -t -K -R", RENAMED),
    Case(
        "rename, networks, mount table",
        "-n base -N COPY -R",
        (*RENAMED, d.templates_stay, d.own_order_of_settings),
        NETWORKS,
        bases.fstab,
    ),
    Case("rename, hook, settings", "-n base -N COPY -R", RENAMED, STARTED_AT_BOOT + SETTINGS, bases.own_hook),
    Case("rename, included file", "-n base -N COPY -R", (*RENAMED, d.included_files_follow), prepare=bases.included),
    Case("rename, other files", "-n base -N COPY -R", (*RENAMED, d.renames_keep_files), prepare=bases.notes),
    Case("rename, logs", "-n base -N COPY -R", (*RENAMED, d.logs_follow), prepare=bases.own_logs),
    Case(
        "rename, clone hook", "-n base -N COPY -R", (*RENAMED, d.slow_renames_are_told), prepare=bases.noted_arguments
    ),
    Case("rename a snapshot", "-n snap -N COPY -R", (d.snapshots_are_renamed,), prepare=bases.snapshot),
    refused("rename with snapshots", "-n base -N COPY -R", "snapshot", prepare=bases.snapshot),
    refused("rename, running", "-n base -N COPY -R -a", "is running", prepare=bases.running),
    Case("last task: rename", "-n base -N COPY -e -R", RENAMED),
)

MOUNTS = (
    Case("bind", "-n base -N COPY -e -m bind=@/src/dir:/mnt/a", IDENTITY),
    Case("bind, same place", "-n base -N COPY -e -m bind=@/src/dir:ro", IDENTITY),
    Case("bind, slashes", "-n base -N COPY -e -m bind=@//src/dir/:mnt//x/:rw", IDENTITY),
    Case("bind, relative, empty parts", "-n base -N COPY -e -m bind=etc::mnt:ro", IDENTITY),
    Case(
        "bind, dots", "-n base -N COPY -e -m bind=@/src/dir/../file:/mnt/../mnt/./f", (*IDENTITY, d.dots_are_resolved)
    ),
    Case(
        "bind, link",
        "-n base -N COPY -e -m bind=@/src/dir:/link/x",
        (*IDENTITY, d.links_are_resolved),
        prepare=bases.linked_directory,
    ),
    Case("bind, blank", "-n base -N COPY -e -m 'bind=@/src/a b:mnt/x'", (d.blanks_are_escaped,), prepare=bases.blank),
    Case(
        "several mounts",
        "-n base -N COPY -e -m bind=@/src/dir:mnt:ro,bind=@/src/file:/opt/file:rw -m overlay=@/src/dir:/srv",
        (*IDENTITY, d.overlay_mounts_are_for_all_users),
    ),
    Case(
        "overlay mount, kept",
        "-n base -N COPY -e -D -m overlay=@/src/dir:mnt",
        (*IDENTITY, d.overlay_mounts_are_for_all_users),
    ),
    Case(
        "tmpfs, mounts",
        "-n base -N COPY -e -t -m overlay=@/src/dir:mnt,bind=@/src/file:mnt2",
        (d.overlay_mounts_in_memory, *TMPFS),
    ),
    Case(
        "tmpfs by hook, mounts",
        "-n base -N COPY -e -t -m overlay=@/src/dir:mnt",
        (d.overlay_mounts_in_memory, *HOOK_FILES),
        more=VIA_HOOK,
    ),
    refused("mount of nothing", "-n base -N COPY -e -m ''", "bind=SRC", d.mounts_are_known),
    refused("mount of unknown kind", "-n base -N COPY -e -m aufs=@/src/dir", "aufs", d.mounts_are_known),
    refused(
        "mount of what is not there", "-n base -N COPY -e -m bind=@/src/none:mnt", "@/src/none", d.sources_are_there
    ),
    refused(
        "overlay mount of what is not there",
        "-n base -N COPY -e -m overlay=@/src/none:mnt",
        "@/src/none",
        *FAILED,
        d.sources_are_there,
    ),
    refused(
        "mount of a directory on a file",
        "-n base -N COPY -e -m bind=@/src/dir:/etc/passwd",
        "/etc/passwd",
        d.mounts_are_made,
    ),
    refused("mount option r", "-n base -N COPY -e -m bind=@/src/dir:mnt:r", "'r'", d.mount_options_are_whole),
    refused("mount with r only", "-n base -N COPY -e -m bind=@/src/dir:r", "'r'", d.mount_options_are_whole),
    refused("mount option xx", "-n base -N COPY -e -m bind=@/src/dir:mnt:xx", "'xx'", told=d.errors_are_worded),
    refused(
        "mount with too much",
        "-n base -N COPY -e -m bind=@/src/dir:mnt:rw:x",
        "Excess elements",
        told=d.errors_are_worded,
    ),
    refused(
        "overlay mount with too much",
        "-n base -N COPY -e -m overlay=@/src/dir:mnt:ro",
        "Excess elements",
        told=d.errors_are_worded,
    ),
    refused("overlay mount on ro", "-n base -N COPY -e -m overlay=@/src/dir:ro", "'/ro'", d.ro_is_no_place),
)

STORAGE = (
    Case("image", "-n base -N COPY -B loop -L '10 m'", (d.images_keep_their_identity,), prepare=bases.loop_devices),
    refused("image, wrong size", "-n base -N COPY -s -L 10X", "10X", d.sizes_are_checked),
    refused("storage o", "-n base -N COPY -s -B o", "'o'", d.storage_is_not_shortened),
    refused("storage of no name", "-n base -N COPY -s -B ''", "''", d.storage_is_not_shortened),
    refused("storage btrfs", "-n base -N COPY -B btrfs", "btrfs", d.storage_is_what_it_says),
    refused("unknown storage", "-n base -N COPY -s -B bogus", "bogus", LOCK),
    refused("dropped storage", "-n base -N COPY -s -B aufs", "dropped", LOCK),
    refused("full copy as overlay", "-n base -N COPY -B overlay", "overlay", LOCK),
    refused("snapshot as directory", "-n base -N COPY -s -B dir", "dir", LOCK),
    refused("ephemeral, directory", "-n base -e -B dir", "dir", LOCK),
    refused("tmpfs, directory", "-n base -N COPY -e -t -B dir", "overlay", LOCK),
    refused("tmpfs, kept", "-n base -N COPY -e -t -D", "cannot be kept", d.nothing_is_left),
)

FILES = (
    Case("other config", "-n base -N COPY -s --rcfile @/rcfile", IDENTITY, prepare=bases.other_config),
    refused("other config is missing", "-n base -N COPY -s --rcfile @/none", "@/none"),
    refused("other config is a directory", "-n base -N COPY -s --rcfile @/src", "@/src", d.rcfile_is_a_file),
    Case("log file", "-n base -N COPY -s -o @/log", IDENTITY),
    Case("log file in new directories", "-n base -N COPY -s -o @/a/b/log -l DEBUG", IDENTITY),
    Case("log file none", "-n base -N COPY -s -o none -l INFO", IDENTITY),
    Case("log", "-n base -N COPY -s -l DEBUG", IDENTITY),
    refused(
        "log of no such container",
        "-n nobody -N COPY -s -l DEBUG",
        "not defined",
        d.no_log_of_nobody,
        told=d.errors_are_worded,
    ),
    refused("log level", "-n base -N COPY -s -l BAD", "BAD", d.log_levels_are_checked),
)

NAMES = (
    refused("no name", "", "-n", told=d.errors_are_worded),
    refused("no new name", "base COPY", "-N"),
    refused("no such container", "-n nobody -N COPY -s", "not defined"),
    refused("two paths", "-P @/lxc -P @/new -n base -N COPY -s", "-P", told=d.errors_are_worded),
    refused("no such path", "-n base -N COPY -s -p @/none", "@/none"),
    refused("name is taken", "-n base -N base -e", "already"),
    refused(
        "directory is taken", "-n base -N COPY -s", "already", d.existing_directories_stay, prepare=bases.in_the_way
    ),
    refused("name with a blank", "-n base -N 'COPY b' -s", "not allowed", d.names_are_safe),
    refused("name with a newline", "-n base -N 'COPY\nlxc.ephemeral = 1' -s", "not allowed", d.names_are_safe),
    refused("name is empty", "-n base -N '' -s", "is empty", d.names_are_safe, told=d.errors_are_worded),
    refused("name with a slash", "-n base -N a/b -s", "not allowed"),
    refused("name is the path", "-n base -N .. -s", "not allowed", d.names_are_safe),
)

MOUNT_OF_NOTHING = "lxc.mount.entry = /nonexisting mnt none bind 0 0\n"
STATES = (
    refused("running", "-n base -N COPY -s", "is running", prepare=bases.running),
    refused(
        "does not start",
        "-n base -N COPY -e",
        "/nonexisting",
        *FAILED,
        config=MOUNT_OF_NOTHING,
    ),
    refused(
        "does not start, kept",
        "-n base -N COPY -e -D",
        "/nonexisting",
        d.no_cgroups_after_failures,
        d.nothing_half_made_is_kept,
        config=MOUNT_OF_NOTHING,
    ),
)

HELP = (
    Case("help", "--help -Z", (d.help_on_stdout, d.own_help)),
    Case("help, by mistake", "-? -n base", (d.own_help,), status=1),
    Case("usage", "--usage -Z", (d.help_on_stdout, d.own_help)),
    Case("version", "-n base --version -Z", (d.version_of_ours,)),
    refused("no such option", "-n base -N COPY -s -Z", "-Z", told=d.short_usage_errors),
    refused("missing argument", "-n base -s -N", "-N needs an argument", told=d.short_usage_errors),
)


def _with_ledgers(*cases: Case) -> tuple[Case, ...]:
    """The same, with the difference that all share which leave a throwaway copy running, or a picture of one."""
    return tuple(
        replace(case, differences=(d.ledger, *case.differences)) if _leaves_a_copy(case) else case for case in cases
    )


def _leaves_a_copy(case: Case) -> bool:
    options = case.arguments.split()
    tasks = [option for option in options if option in ("-e", "--ephemeral", "-s", "-R")]
    runs = case.status == 0 or case.prepare is bases.captured
    stays = [option for option in options if option in ("-F", "-d")][-1:] == ["-F"]
    return runs and not stays and tasks[-1:] in (["-e"], ["--ephemeral"]) and not {"--", "-D"} & set(options)


CASES = _with_ledgers(
    *COPIES,
    *EPHEMERAL,
    *COMMANDS,
    *HOOKS,
    *FILES_OF_THE_BASE,
    *NESTED,
    *RENAMES,
    *MOUNTS,
    *STORAGE,
    *FILES,
    *NAMES,
    *STATES,
    *HELP,
)

BINDS = "-m bind=@/src/dir:/srv:ro,bind=@/src/file:/opt/file"
DEBIAN_CASES = _with_ledgers(
    Case("plain", "-n debian -N COPY", IDENTITY),
    Case("snapshot", "-n debian -N COPY -s", IDENTITY),
    Case("snapshot, name kept, elsewhere", "-n debian -N COPY -s -K -p @/new"),
    Case("snapshot, addresses kept", "-n debian -N COPY -s -M", SHARED, NETWORKS),
    refused(
        "ephemeral, started at boot",
        "-q -n debian -e",
        "pre-start",
        LOCK,
        *IDENTITY,
        d.not_started_at_boot,
        config=STARTED_AT_BOOT,
        prepare=bases.captured,
    ),
    Case("ephemeral", "-n debian -N COPY -e", IDENTITY, ready=bases.booted),
    Case("ephemeral, mounts", f"-n debian -N COPY -e {BINDS}", IDENTITY, ready=bases.booted),
    Case("tmpfs", "-n debian -N COPY -e -t", TMPFS, ready=bases.booted),
    Case("tmpfs by hook", "-n debian -N COPY -e -t", HOOK_FILES, more=VIA_HOOK, ready=bases.booted),
    Case("rename", "-n debian -N COPY -R", RENAMED),
)
