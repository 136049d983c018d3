# SPDX-License-Identifier: LGPL-2.1-or-later
"""What can be done with a running copy besides commands: files, waiting, freezing, rebooting."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli
from live_helpers import configure, plain, tree

from lxccopy_ffi import EphemeralCopy, LiblxcError, OptionError, UnsupportedError, transfer


@pytest.fixture
def copy(lxcpath: str) -> Iterator[EphemeralCopy]:
    """A running copy."""
    with EphemeralCopy("base", lxcpath=lxcpath, tmpfs=True) as copy:
        copy.run(["mkdir", "/srv"], check=True)
        yield copy


def said(copy: EphemeralCopy, script: str) -> str:
    """What a script prints in a copy."""
    return str(copy.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout)


@pytest.fixture
def things(tmp_path: Path) -> Path:
    """A tree with all kinds of things."""
    top = tmp_path / "things"
    (top / "empty").mkdir(parents=True, mode=0o700)
    (top / "file").write_bytes(os.urandom(3 << 20))
    (top / "file").chmod(0o640)
    (top / "a b\n\udcff").write_text("odd name", encoding="ascii")
    (top / "link").symlink_to("/etc/passwd")
    (top / "dangling").symlink_to("../nowhere")
    (top / "program").touch()
    os.chown(top / "program", 12, 34)
    (top / "program").chmod(0o4755)
    for path in (top / "file", top / "empty", top):
        os.utime(path, ns=(5_000_000_000, 7_000_000_001))
    os.utime(top / "link", ns=(5, 6_000_000_000), follow_symlinks=False)
    return top


def test_there_and_back(copy: EphemeralCopy, things: Path, tmp_path: Path) -> None:
    """A tree that was put is root's in the copy, with modes, links and times, and comes back the same."""
    copy.put(things, "/srv/things")
    there = said(copy, "cd /srv/things; stat -c '%n %a %U %Y' file empty program; readlink link; stat -c %Y link")
    assert there.startswith("file 640 root 7\nempty 700 root 7\nprogram 4755 root ")
    assert there.endswith("/etc/passwd\n6\n")
    copy.get("/srv/things", tmp_path / "back")
    before, after = tree(things), tree(tmp_path / "back")
    setuid = before.pop("program"), after.pop("program")
    assert before == after
    assert ("0o104755", "0o100755") == (setuid[0][0], setuid[1][0])
    assert 7_000_000_001 == (tmp_path / "back").stat().st_mtime_ns


def test_targets(copy: EphemeralCopy, things: Path, tmp_path: Path) -> None:
    """A directory gets what is copied under its old name; any other path is its new name."""
    copy.put(things / "file", "/root")
    copy.put(things / "file", "/root/new")
    copy.put(things, "/root/file2")
    copy.put(things, "/root/file2")
    assert "file2\nnew\n" == said(copy, "cd /root; ls | grep -v '^file$'; cmp file new; cmp file file2/things/file")
    copy.get("/root/file", tmp_path)
    copy.get("/root/file", str(tmp_path / "new"))
    assert (tmp_path / "file").read_bytes() == (tmp_path / "new").read_bytes() == (things / "file").read_bytes()


@pytest.mark.parametrize(("owner", "expected"), [("nobody", "nobody"), (5, "5 5"), ("0:7", "0 7"), ("11:12", "11 12")])
def test_owner(copy: EphemeralCopy, things: Path, owner: str | int, expected: str) -> None:
    """What is put belongs to the user, and the group, of the copy's that is asked for."""
    copy.put(things, "/srv/x", owner=owner)
    seen = said(copy, "cd /srv/x; for i in . file link; do stat -c '%U|%u %g' $i; done").splitlines()
    assert 3 == len([line for line in seen if expected in line.split("|")]), seen


def test_links_in_the_copy_stay_in_it(copy: EphemeralCopy, things: Path, tmp_path: Path) -> None:
    """Whatever links a copy has, nothing is written to or read from the host through them."""
    (tmp_path / "victim").mkdir()
    said(
        copy,
        f"mkdir -p {tmp_path}/victim; ln -s {tmp_path}/victim /srv/out; ln -s /proc/1/root /srv/root; mkdir /srv/t",
    )
    copy.put(things / "file", "/srv/out")
    assert [] == os.listdir(tmp_path / "victim")
    assert "file\n" == said(copy, f"ls {tmp_path}/victim")
    with pytest.raises(OSError, match=r"Too many levels of symbolic links"):
        copy.put(things / "file", "/srv/root/srv/x")
    said(copy, f"cd /srv/t; ln -s {tmp_path}/victim d; ln -s {tmp_path}/victim/x f; ln -s /proc/1/root r")
    copy.get("/srv/t", tmp_path / "got")
    copy.get("/srv/t", tmp_path / "got")
    assert [] == os.listdir(tmp_path / "victim")
    assert all((tmp_path / "got" / name).is_symlink() for name in ("d", "f", "r"))
    copy.get("/../../srv/t/f", tmp_path / "f")
    assert (tmp_path / "f").is_symlink()


def test_link_on_the_host_in_the_way(copy: EphemeralCopy, tmp_path: Path) -> None:
    """A link that lies where a directory or file is to go is not followed on the host."""
    (tmp_path / "victim").mkdir()
    (tmp_path / "got").mkdir()
    for name in ("d", "f"):
        (tmp_path / "got" / name).symlink_to(tmp_path / "victim")
    said(copy, "mkdir -p /srv/got/d; touch /srv/got/d/x /srv/got/f")
    copy.get("/srv/got/f", tmp_path / "got" / "new")
    with pytest.raises(OSError, match=r"Too many levels|Not a directory"):
        copy.get("/srv/got", tmp_path)
    assert [] == os.listdir(tmp_path / "victim")


def test_special_files(copy: EphemeralCopy, tmp_path: Path) -> None:
    """Pipes, devices and sockets are neither opened nor copied."""
    said(copy, "mkdir /srv/s; mkfifo /srv/s/pipe; mknod /srv/s/null c 1 3 || true; touch /srv/s/file")
    copy.get("/srv/s", tmp_path / "s")
    assert ["file"] == os.listdir(tmp_path / "s")
    os.mkfifo(tmp_path / "s/pipe")
    copy.put(tmp_path / "s", "/srv/again")
    assert "file\n" == said(copy, "ls /srv/again")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.put("/etc/hostname", "relative"), "target must be an absolute path in the container"),
        (lambda c: c.get("relative", "/tmp"), "source must be an absolute path in the container"),
        (lambda c: c.put(5, "/tmp"), "the source must be a path, not 5"),
        (lambda c: c.put("/etc/hostname", None), "target takes str, and None is none"),
        (lambda c: c.get("/etc/hostname", b"/tmp"), "the target must be a path"),
        (lambda c: c.put("/etc/hostname", "/a\0"), "has a null character"),
        (lambda c: c.get("/", "/tmp"), "give it a new name"),
        (lambda c: c.put("/", "/tmp"), "the host's root directory is not copied"),
        (lambda c: c.put("/etc/hostname", "/x", owner=True), "owner must be a name or a number, not True"),
        (lambda c: c.put("/etc/hostname", "/x", owner="a:"), "owner must be a name or a number, not ''"),
        (lambda c: c.put("/etc/hostname", "/x", owner="nobody-here"), "there is no user 'nobody-here'"),
        (lambda c: c.wait_until(5), "the condition must be a function or a command, not 5"),
        (lambda c: c.wait_until([]), "the command is empty"),
        (lambda c: c.wait_until(["true"], "1"), "timeout must be a number of seconds, not '1'"),
        (lambda c: c.wait_booted("1"), "timeout must be a number of seconds, not '1'"),
        (lambda c: c.ips([]), "timeout must be a number of seconds, not []"),
        (lambda c: c.reboot(True), "timeout must be a number of seconds, not True"),
        (lambda c: c.shell("sh"), "the command must be a list of str"),
        (lambda c: c.popen("sh"), "the command must be a list of str"),
        (lambda c: c.popen(["sh"], stdin="x"), "stdin must be a descriptor"),
    ],
)
def test_bad_calls(copy: EphemeralCopy, call: Any, message: str) -> None:
    """What is wrong with a call is an error that names it."""
    with pytest.raises(OptionError, match=re.escape(message)):
        call(copy)


@pytest.mark.parametrize(("source", "target"), [("/no/such", "/srv"), ("/etc/hostname", "/no/such/file")])
def test_paths_that_are_not_there(copy: EphemeralCopy, source: str, target: str) -> None:
    """A path that is not there is an error that names it, in either direction."""
    with pytest.raises(FileNotFoundError, match=r"/no/such"):
        copy.put(source, target)
    with pytest.raises(FileNotFoundError, match=r"/no/such"):
        copy.get(source, target)


def test_interrupted_transfer(
    copy: EphemeralCopy, things: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What interrupts a transfer leaves no half a file, neither here nor there."""

    def interrupted(*_: int) -> None:
        raise KeyboardInterrupt

    copy.put(things / "file", "/srv/file")
    monkeypatch.setattr(transfer, "_copy_content", interrupted)
    with pytest.raises(KeyboardInterrupt):
        copy.put(things / "file", "/srv/file")
    with pytest.raises(KeyboardInterrupt):
        copy.get("/srv/file", tmp_path)
    assert ["things"] == os.listdir(tmp_path)
    assert "file\n" == said(copy, "ls -A /srv")


def test_freeze_and_thaw(copy: EphemeralCopy) -> None:
    """A frozen copy does nothing until it is thawed; files can be put meanwhile."""
    with copy.popen(["sh", "-c", "while :; do echo; sleep 0.02; done"], stdout=subprocess.PIPE) as process:
        copy.freeze()
        assert "FROZEN" == copy.container.state
        copy.put("/etc/hostname", "/srv/x")
        with pytest.raises(LiblxcError, match=r"frozen"):
            copy.run(["true"])
        copy.thaw()
        assert "RUNNING" == copy.container.state
        assert b"" == copy.run(["test", "-e", "/srv/x"], check=True, capture_output=True).stdout
        process.kill()


def test_reboot(copy: EphemeralCopy) -> None:
    """After a reboot the copy has another init, what was written, and takes commands again."""
    init = copy.container.init_pid
    said(copy, "touch /srv/x")
    process = copy.popen(["sleep", "60"])
    copy.wait_booted(10)
    copy.reboot(20)
    assert init != copy.container.init_pid
    assert process.wait(5) in (-15, -9)
    copy.run(["test", "-e", "/srv/x"], check=True)


def test_wait_until(copy: EphemeralCopy) -> None:
    """wait_until() takes a command or a function, and says so when the time is up."""
    copy.popen(["sh", "-c", "sleep 0.3; touch /srv/there"])
    copy.wait_until(["test", "-e", "/srv/there"], 10)
    answers = iter([0, "", 1])
    copy.wait_until(lambda: next(answers))
    begin = time.monotonic()
    for condition in (["false"], ["sleep", "50"], lambda: False):
        with pytest.raises(TimeoutError, match=r"what was waited for is not so after 0.2 seconds"):
            copy.wait_until(condition, 0.2)
    assert time.monotonic() - begin < 5


def test_wait_for_one_that_ends(copy: EphemeralCopy) -> None:
    """Waiting ends when the copy does."""
    copy.wait_booted(10)
    copy.popen(["sh", "-c", "sleep 0.2; poweroff -f"])
    with pytest.raises(LiblxcError, match=r"it is not running"):
        copy.wait_until(lambda: False, 20)


def test_no_addresses(copy: EphemeralCopy) -> None:
    """A copy without a network has no addresses, and waiting for one ends in time."""
    assert [] == copy.ips()
    assert [] == copy.ips(0.2)


def test_addresses(lxcpath: str) -> None:
    """A copy with a network has its addresses, but for the loopback device's, as soon as there is one."""
    with (
        plain(
            lxcpath, "netted", "lxc.net.0.type = veth", "lxc.net.0.ipv4.address = 10.199.3.2/24", "lxc.net.0.flags = up"
        ),
        EphemeralCopy("netted", lxcpath=lxcpath, tmpfs=True) as copy,
    ):
        assert ["10.199.3.2"] == [address for address in copy.ips(10) if "." in address]


SLOW_BOOT = "sleep 1; touch /run/booted"


def test_wait_booted(lxcpath: str) -> None:
    """wait_booted() returns when busybox's rcS has finished, and raises when it has not in time."""
    with plain(lxcpath, "slow") as directory:
        script = directory / "rootfs/etc/init.d/rcS"
        script.write_text(f"#!/bin/sh\n{SLOW_BOOT}\n", encoding="ascii")
        for inittab in ("::sysinit:/etc/init.d/rcS\n", None):
            if inittab:
                (directory / "rootfs/etc/inittab").write_text(inittab, encoding="ascii")
            with EphemeralCopy("slow", lxcpath=lxcpath) as copy:
                with pytest.raises(
                    TimeoutError, match=r"container 'slow_\w+' in .*: it has not booted after 0.2 seconds"
                ):
                    copy.wait_booted(0.2)
                copy.wait_booted(10)
                copy.run(["test", "-e", "/run/booted"], check=True)


def test_unknown_init(lxcpath: str) -> None:
    """With an init that nobody knows it is said that nobody can tell."""
    with plain(lxcpath, "odd") as directory:
        os.link(directory / "rootfs/bin/busybox", directory / "rootfs/bin/busyboxodd")
        configure(lxcpath, "odd", "lxc.init.cmd = /bin/busyboxodd sleep 100")
        with EphemeralCopy("odd", lxcpath=lxcpath) as copy, pytest.raises(UnsupportedError, match=r"init 'busyboxodd'"):
            copy.wait_booted(10)


def test_wait_booted_option(lxccopy: Cli, lxcpath: str) -> None:
    """--wait-booted lets the command wait for the boot, with a time limit that makes the call fail."""
    with plain(lxcpath, "slow") as directory:
        (directory / "rootfs/etc/init.d/rcS").write_text(f"#!/bin/sh\n{SLOW_BOOT}\n", encoding="ascii")
        test = ["--", "test", "-e", "/run/booted"]
        assert 0 == lxccopy("-n", "slow", "-e", "-t", "--wait-booted", *test).returncode
        assert 0 == lxccopy("-n", "slow", "-e", "-t", "--wait-booted=20", *test).returncode
        failed = lxccopy("-q", "-n", "slow", "-e", "-t", "--wait-booted=0", *test)
        assert (125, 1) == (failed.returncode, len(failed.stderr.splitlines()))
        assert "it has not booted after 0 seconds" in failed.stderr
    for wrong in ("--wait-booted=x", "--wait-booted="):
        assert ("needs a whole number" in lxccopy("-n", "base", "-e", wrong, "-F").stderr) == (wrong[-1] == "x")
    assert "--wait-booted and -F contradict each other" in lxccopy("-n", "base", "-e", "--wait-booted", "-F").stderr


SHELL = """
import sys
from lxccopy_ffi import EphemeralCopy
with EphemeralCopy("base", lxcpath=sys.argv[1]) as copy:
    print("status", copy.shell(), copy.shell(["sh", "-c", "tty; exit 3"]))
"""


def test_shell(lxcpath: str) -> None:
    """shell() gives a shell on our terminal; without one it is refused."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", SHELL, lxcpath], stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.write(ours, b"exit 7\n")
    assert 0 == process.wait(30)
    seen = os.read(ours, 4096).decode()
    os.close(ours)
    assert "status 7 3" in seen
    assert "/dev/pts/" in seen
    without = subprocess.run(
        [sys.executable, "-c", SHELL, lxcpath], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert "OptionError: a shell needs a terminal" in without.stderr.replace("lxccopy_ffi.errors.", "")
