# SPDX-License-Identifier: LGPL-2.1-or-later
"""What cases do to a base before it is copied: lines for its config, and functions of a side."""

from __future__ import annotations

import os
import subprocess

from conftest import require
from parity_world import BASE_MAC, COPY, World

from lxccopy_ffi import Container

NETWORKS = f"""\
lxc.net.0.type = veth
lxc.net.0.hwaddr = {BASE_MAC}
lxc.net.0.ipv4.address = 10.0.0.2/24
lxc.net.0.veth.pair = vpair
lxc.net.1.type = empty
lxc.net.1.hwaddr = 00:16:3e:xx:xx:xx
lxc.net.2.type = empty
"""
STARTED_AT_BOOT = "lxc.start.auto = 1\nlxc.start.delay = 5\nlxc.group = onboot\n"
SETTINGS = "lxc.environment = A=b\nlxc.cap.drop = sys_boot\n"


def script(world: World, path: str, text: str) -> None:
    """Make an executable script below a side's directory."""
    file = world.root / path
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"#!/bin/sh\n{world.expand(text)}\n", encoding="ascii")
    file.chmod(0o755)


def captured(world: World) -> None:
    """Let a hook of the base keep what was made of the copy, and end it there: for what cannot be started here."""
    script(world, "hook", 'cp -a "${LXC_CONFIG_FILE%/config}" @/captured\nexit 1')
    world.configure("lxc.hook.pre-start = @/hook\n")


def noted_arguments(world: World) -> None:
    """Let a clone hook of the base write down its arguments."""
    script(world, "hook", 'for word; do echo "$word" >> @/hook.args; done')
    world.configure("lxc.hook.clone = @/hook\n")


def failing_clone_hook(world: World) -> None:
    """Give the base a clone hook that fails."""
    script(world, "hook", "exit 7")
    world.configure("lxc.hook.clone = @/hook\n")


def own_hook(world: World) -> None:
    """Put a hook into the base's directory."""
    script(world, "lxc/base/flat", "exit 0")
    world.configure("lxc.hook.pre-mount = @/lxc/base/flat\n")


def deep_hook(world: World) -> None:
    """Put a hook into a subdirectory of the base's directory."""
    script(world, "lxc/base/hooks/deep", "exit 0")
    world.configure("lxc.hook.pre-mount = @/lxc/base/hooks/deep\n")


def hook_with_arguments(world: World) -> None:
    """Put a hook into the base's directory, with arguments."""
    script(world, "lxc/base/flat", "exit 0")
    world.configure("lxc.hook.pre-mount = @/lxc/base/flat one two\n")


def fstab(world: World) -> None:
    """Give the base a mount table of its own."""
    (world.base / "fstab").write_text(world.expand("@/src/dir mnt none bind 0 0\n"), encoding="ascii")
    world.configure("lxc.mount.fstab = @/lxc/base/fstab\n")


def included(world: World) -> None:
    """Let the base's config include a file beside it."""
    (world.base / "more").write_text("lxc.tty.max = 2\n", encoding="ascii")
    world.configure("lxc.include = @/lxc/base/more\n")


def own_logs(world: World) -> None:
    """Let the base write logs into its directory."""
    world.configure("lxc.log.file = @/lxc/base/base.log\nlxc.console.logfile = @/lxc/base/console.log\n")


def overlay_mount(world: World) -> None:
    """Give the base an overlay mount that keeps its layers in the base's directory."""
    for part in ("upper", "work"):
        (world.base / part).mkdir()
    layers = "lowerdir=@/src/dir,upperdir=@/lxc/base/upper,workdir=@/lxc/base/work"
    world.configure(f"lxc.mount.entry = @/src/dir mnt overlay {layers},create=dir\n")


def halted(world: World) -> None:
    """Let the base tell when it is shut down rather than killed."""
    world.configure("lxc.mount.entry = @/src/dir mnt none bind 0 0\n")
    table = world.base / "rootfs/etc/inittab"
    table.write_text(table.read_text(encoding="ascii").replace("/bin/true", "/bin/touch /mnt/halted"), encoding="ascii")


def snapshot(world: World) -> None:
    """Make an overlay snapshot ``snap`` of the base, as lxc-copy does, with a file of its own."""
    snapshot_of(world, "base", "snap")
    (world.lxc / "snap/overlay/delta/root").mkdir(mode=0o700)
    (world.lxc / "snap/overlay/delta/root/mine").touch()


def snapshot_of_snapshot(world: World) -> None:
    """Make a snapshot ``second`` of ``snap``."""
    snapshot(world)
    snapshot_of(world, "snap", "second")


def snapshot_of(world: World, name: str, newname: str) -> None:
    """Make a snapshot with lxc-copy."""
    subprocess.run(["lxc-copy", "-P", world.lxc, "-n", name, "-N", newname, "-s"], check=True)


def running(world: World) -> None:
    """Start the base."""
    with Container("base", world.lxc) as base:
        base.start()


def other_config(world: World) -> None:
    """Make another config file for the base."""
    text = (world.base / "config").read_text(encoding="ascii")
    (world.root / "rcfile").write_text(f"{text}lxc.tty.max = 3\n", encoding="ascii")


def blank(world: World) -> None:
    """Make a directory with a blank in its name."""
    (world.root / "src/a b").mkdir()


def loop_devices(_: World) -> None:
    """Skip the case where an image cannot be mounted."""
    require(os.path.exists("/dev/loop-control"), "there are no loop devices")


def in_the_way(world: World) -> None:
    """Make a directory, with a file, where the copy is to be."""
    (world.lxc / COPY).mkdir()
    (world.lxc / COPY / "mine").touch()


def notes(world: World) -> None:
    """Put a file of the user's into the base's directory."""
    (world.base / "notes").write_text("mine", encoding="ascii")


def no_host_name(world: World) -> None:
    """Take the base's /etc/hostname away."""
    (world.base / "rootfs/etc/hostname").unlink()


def linked_directory(world: World) -> None:
    """Let a directory of the base be a link."""
    (world.base / "rootfs/link").symlink_to("/mnt")


def link(world: World) -> None:
    """Let the base's /etc/hostname lead out of it."""
    name = world.base / "rootfs/etc/hostname"
    name.unlink()
    name.symlink_to(world.root / "src/file")


def booted(world: World) -> None:
    """Wait until the copy's systemd has started everything, and forget what it wrote meanwhile."""
    state = 's=$(systemctl is-system-running 2>&1); [ "$s" = running ] || [ "$s" = degraded ]'
    subprocess.run(
        ["lxc-attach", "--clear-env", "-P", world.lxc, "-n", COPY, "--", "sh", "-c", f"until {state}; do :; done"],
        check=True,
        timeout=60,
    )
    world.written_by = COPY
