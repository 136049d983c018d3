# SPDX-License-Identifier: LGPL-2.1-or-later
"""What --check finds out, in processes and mount namespaces of their own in which one thing is really missing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, mounts, require

from lxccopy_ffi import Finding, LiblxcMissingError, OptionError, _raw, check, checks, cli, liblxc_version

# Each prepares a process for the check, as Python.
AS_USER = "os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)"
IGNORE_CHILDREN = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)"
LIBLXC_7 = "lxccopy_ffi._raw.liblxc_version = lambda: '7.0.0'"
LIBLXC_3 = "lxccopy_ffi._raw.liblxc_version = lambda: '3.1.0'"

# A seccomp filter under which one system call is not there.
WITHOUT_CALL = """
import ctypes, struct
words = ((0x20, 0, 0, 0), (0x15, 0, 1, {}), (0x06, 0, 0, 0x50000 | 38), (0x06, 0, 0, 0x7fff0000))
program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *word) for word in words))
filter = struct.pack("HxxxxxxP", len(words), ctypes.addressof(program))
libc = ctypes.CDLL(None)
assert 0 == libc.prctl(38, 1, 0, 0, 0) and 0 == libc.prctl(22, 2, filter, 0, 0)
"""
PIDFD_OPEN, FSOPEN, OPENAT2 = 434, 430, 437

# Whoever gives up root afterwards may not be able to read the Python that this runs in.
CODE = """
import encodings.ascii, errno, json, os, pwd, re, shlex, shutil, stat, sys
import lxccopy_ffi.base, lxccopy_ffi.tmpfs
from lxccopy_ffi import check
{}
found = check(*sys.argv[1:])
print(json.dumps({{one.name: [one.state, one.text, one.remedy] for one in found}}))
"""

ONLY_CGROUP2 = "umount -R -l /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup"
NO_OVERLAY = "sed /overlay/d /proc/filesystems >{0}/kinds; mount --bind {0}/kinds /proc/filesystems"

FOR_ID_MAPS = "; only bases with an id map need it"


@pytest.fixture(autouse=True)
def _root() -> None:
    """Skip where it takes root, or liblxc."""
    require(os.geteuid() == 0 and shutil.which("unshare"), "what is missing is taken away as root, with unshare")
    try:
        liblxc_version()
    except LiblxcMissingError as error:
        require(condition=False, reason=str(error))


def listing() -> dict[str, object]:
    """What a trial could leave behind on the machine."""
    directories = ["/dev/shm", "/run", "/run/lxccopy"]
    ours = {
        path: [name for name in os.listdir(path) if "lxccopy" in name] for path in directories if os.path.isdir(path)
    }
    return {**ours, "mounts": mounts()}


@pytest.fixture
def lxcpath() -> Iterator[Path]:
    """A directory that everybody can get to; fails the test if anything is left in it or on the machine."""
    before = listing()
    with tempfile.TemporaryDirectory() as parent:
        os.chmod(parent, 0o755)
        path = Path(parent, "lxc")
        path.mkdir(mode=0o755)
        yield path
        assert ([], before) == (os.listdir(path), listing())


def look(
    lxcpath: Path | None, *, code: str = "", script: str = ":", prefix: str = "", **env: str
) -> dict[str, list[str]]:
    """What is found by a process and in a mount namespace of their own, which code and a script have prepared."""
    words = ["unshare", "-m", "--propagation", "private", "sh", "-ec", f'{script}\nexec "$@"', "sh", *prefix.split()]
    words += [str(shutil.which("env")), *(f"{key}={value}" for key, value in env.items())]
    words += [sys.executable, "-c", CODE.format(code), *([str(lxcpath)] if lxcpath else [])]
    done = subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=ROOT,
    )
    assert "" == done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def test_every_finding(lxcpath: Path) -> None:
    """Each thing is looked at once, in one line, and has a remedy if and only if it is not all right."""
    found = check(lxcpath)
    names = [one.name for one in found]
    assert len(set(names)) == len(names) == 16
    assert all(type(one) is Finding for one in found)
    assert {checks.OK, checks.OPTIONAL, checks.MISSING} >= {one.state for one in found}
    assert not any("\n" in one.text + one.remedy for one in found)
    assert [bool(one.remedy) for one in found] == [one.state != checks.OK for one in found]
    assert "<Finding lxcpath: ok, " in repr(found)


def test_bad_path() -> None:
    """An lxcpath that nothing could be mounted from is an error of its own."""
    with pytest.raises(OptionError, match=r"^the lxcpath "):
        check("a:b")


def test_default_lxcpath(monkeypatch: pytest.MonkeyPatch, lxcpath: Path) -> None:
    """Without an lxcpath LXC's own is looked at."""
    monkeypatch.setattr("lxccopy_ffi._raw.default_lxcpath", lambda: str(lxcpath))
    assert str(lxcpath) == next(one.text for one in check() if one.name == "lxcpath")


# What root lacks: the finding, its state, what is said, the remedy, and how it is taken away.
ROOT_LACKS = [
    (
        "user",
        ("missing", "root, without CAP_SYS_ADMIN", "ask as root of the host"),
        {"prefix": "setpriv --bounding-set=-sys_admin"},
    ),
    (
        "user",
        ("missing", "root, without CAP_SETPCAP, CAP_SYS_CHROOT", "ask as"),
        {"prefix": "setpriv --bounding-set=-setpcap,-sys_chroot"},
    ),
    (
        "tmpfs",
        ("missing", "cannot be made: Operation not permitted", "ask as root"),
        {"prefix": "setpriv --bounding-set=-sys_admin"},
    ),
    (
        "overlay",
        ("missing", "cannot be mounted with changes in memory: ", "ask as root"),
        {"prefix": "setpriv --bounding-set=-sys_admin"},
    ),
    ("kernel", ("missing", "", "use Linux 5.6 or later"), {"code": WITHOUT_CALL.format(OPENAT2)}),
    ("kernel", ("missing", "", "use Linux 5.6 or later"), {"code": WITHOUT_CALL.format(PIDFD_OPEN)}),
    ("tmpfs", ("missing", "cannot be made: Function not", "use Linux 5.2"), {"code": WITHOUT_CALL.format(FSOPEN)}),
    ("SIGCHLD", ("missing", "this process ignores it", "call signal.signal("), {"code": IGNORE_CHILDREN}),
    (
        "run",
        ("missing", "/run cannot be written", "mount -o remount,rw /run"),
        {"script": "mount -t tmpfs -o ro x /run"},
    ),
    (
        "run",
        ("missing", "/run/lxccopy is not a directory of root's", "rm -r /run/lxccopy"),
        {"script": "mount -t tmpfs x /run; : >/run/lxccopy"},
    ),
    (
        "run",
        ("missing", "/run/lxccopy/upper is not the link to nowhere that we put there", "rm -r /run/lxccopy"),
        {"script": "mount -t tmpfs x /run; mkdir -p /run/lxccopy/upper"},
    ),
    (
        "cgroups",
        ("optional", "none; only limits for a copy need them", "mount -o remount,rw /sys/fs/cgroup"),
        {"script": "umount -R -l /sys/fs/cgroup"},
    ),
    (
        "cgroups",
        ("optional", "cgroup2; not writable: cgroup2; only limits", "mount -o remount,rw /sys/fs/cgroup"),
        {"script": f"{ONLY_CGROUP2}; mount -o bind,remount,ro /sys/fs/cgroup"},
    ),
    (
        "cgroups",
        ("missing", "none; liblxc 7.0.0 knows only cgroup2", "boot with systemd.unified_cgroup_hierarchy=1"),
        {"script": "umount -R -l /sys/fs/cgroup", "code": LIBLXC_7},
    ),
    (
        "cgroups",
        ("optional", "cgroup2, which liblxc 3.1.0 knows only in part", "use liblxc 4.0"),
        {"script": ONLY_CGROUP2, "code": LIBLXC_3},
    ),
    (
        "user namespaces",
        (
            "optional",
            f"forbidden by user.max_user_namespaces=0{FOR_ID_MAPS}",
            "as root: sysctl user.max_user_namespaces=15000",
        ),
        {"script": "echo 0 >{0}/zero; mount --bind {0}/zero /proc/sys/user/max_user_namespaces"},
    ),
    (
        "subordinate ids",
        ("optional", f"root has none in /etc/subuid{FOR_ID_MAPS}", "as root: usermod --add-subuids "),
        {"script": ": >{0}/subuid; mount --bind {0}/subuid /etc/subuid"},
    ),
    ("rsync", ("optional", "not installed; only full copies", "install it (package rsync)"), {"PATH": "/nonexistent"}),
    (
        "busybox",
        (
            "optional",
            "/bin/busybox needs shared libraries; only --create-base needs it",
            "install a static busybox",
        ),
        {"script": "mount --bind /bin/sh /usr/bin/busybox; mount --bind /bin/sh /bin/busybox", "PATH": "/nonexistent"},
    ),
    ("liblxc", ("missing", "cannot load the LXC library /nowhere: ", "install it ("), {"LXCCOPY_LIBLXC": "/nowhere"}),
]


@pytest.mark.parametrize(("name", "expected", "how"), ROOT_LACKS)
def test_what_root_lacks(lxcpath: Path, name: str, expected: tuple[str, str, str], how: dict[str, str]) -> None:
    """What root lacks is named with its remedy, and is missing only where no command could run in a copy in memory."""
    require("prefix" not in how or shutil.which("setpriv"), "the program setpriv is not installed")
    require(name != "busybox" or os.path.exists("/usr/bin/busybox"), "there is no /usr/bin/busybox to hide")
    values = {**how, "script": how.get("script", ":").format(lxcpath.parent)}
    found = look(lxcpath, **values)[name]
    assert list(expected) == [found[0], found[1][: len(expected[1])], found[2][: len(expected[2])]]


@pytest.mark.parametrize(
    ("code", "text"),
    [("", "cgroup2"), (LIBLXC_7, "cgroup2")],
)
def test_only_cgroup2(lxcpath: Path, code: str, text: str) -> None:
    """A machine with nothing but cgroup2 is all right for liblxc 4 and later."""
    assert ["ok", text, ""] == look(lxcpath, code=code, script=ONLY_CGROUP2)["cgroups"]


def test_no_newuidmap(lxcpath: Path) -> None:
    """Where newuidmap is not installed, root needs neither it nor subordinate ids."""
    found = look(lxcpath, PATH="/nonexistent")
    assert ["ok", "ok"] == [found[name][0] for name in ("newuidmap", "subordinate ids")]


def test_nothing_is_made_in_run(lxcpath: Path) -> None:
    """Where no copy was ever in memory, the mount point for that is not made either."""
    ours, theirs = os.pipe()
    code = f"import atexit; atexit.register(lambda: os.write({theirs}, repr(os.listdir('/run')).encode()))"
    script = "mount -t tmpfs x /run"
    words = ["unshare", "-m", "--propagation", "private", "sh", "-ec", f'{script}; exec "$@"', "sh"]
    done = subprocess.run(
        [*words, sys.executable, "-c", CODE.format(code), str(lxcpath)],
        check=True,
        capture_output=True,
        pass_fds=(theirs,),
        cwd=ROOT,
    )
    os.close(theirs)
    with open(ours, encoding="ascii") as pipe:
        assert "[]" == pipe.read()
    assert ["ok", "/run", ""] == json.loads(done.stdout)["run"]


# The lxcpath

LXCPATH_LACKS = [
    ("lxcpath", ("missing", "is on a read-only file system", "mount -o remount,rw {}"), "mount -t tmpfs -o ro x {}"),
    (
        "lxcpath",
        ("optional", "is mounted noexec", "mount -o remount,exec {}"),
        "mount -t tmpfs -o noexec,mode=755 x {}",
    ),
    (
        "lxcpath",
        ("optional", "cannot be entered by a container's root", "chmod o+x {}"),
        "mount -t tmpfs -o mode=700 x {}",
    ),
    (
        "copies on disk",
        ("optional", "only -e without -t needs it", "use -t, or -p"),
        "mkdir /dev/shm/u /dev/shm/w; mount -t overlay -o lowerdir=/usr,upperdir=/dev/shm/u,workdir=/dev/shm/w x {}",
    ),
]


@pytest.mark.parametrize(("name", "expected", "script"), LXCPATH_LACKS)
def test_lxcpath(lxcpath: Path, name: str, expected: tuple[str, str, str], script: str) -> None:
    """What is wrong with the file system of the lxcpath is said, with a remedy that names its mount point."""
    found = look(lxcpath, script=f"mount -t tmpfs x /dev/shm; {script.format(lxcpath)}")
    state, text, remedy = (one.format(lxcpath) for one in expected)
    assert (state, True, remedy) == (found[name][0], text in found[name][1], found[name][2][: len(remedy)])


def test_lxcpath_on_an_overlay(lxcpath: Path) -> None:
    """An lxcpath that lies on an overlay is good enough for copies in memory."""
    script = "mount -t tmpfs x /dev/shm; " + LXCPATH_LACKS[3][2].format(lxcpath)
    found = look(lxcpath, script=script)
    assert ("ok", "ok") == (found["overlay"][0], found["lxcpath"][0])


def test_lxcpath_that_cannot_be_below_an_overlay(lxcpath: Path) -> None:
    """An lxcpath on which no overlay can be put is missing, however well overlays work elsewhere."""
    layer = "cd /dev/shm; mkdir {0} {0}w; mount -t overlay -o lowerdir={1},upperdir={0},workdir={0}w x "
    script = "mount -t tmpfs x /dev/shm; " + layer.format("a", "/usr") + f"{lxcpath}; "
    script += layer.format("b", lxcpath) + str(lxcpath)
    found = look(lxcpath, script=script)
    assert ("ok", "missing") == (found["overlay"][0], found["lxcpath"][0])
    assert found["lxcpath"][1].startswith(f"no overlay can be put on {lxcpath}: ")


def test_no_lxcpath(tmp_path: Path) -> None:
    """A directory that is not there is missing, with the command that makes it and a base, and is not made."""
    path = tmp_path / "a b"
    found = look(path)
    assert ["missing", f"{path} is no directory; it can be made", f"lxccopy -P '{path}' --create-base base"] == found[
        "lxcpath"
    ]
    assert not path.exists()


def test_unknown_lxcpath() -> None:
    """Without liblxc nobody knows LXC's own lxcpath, and everything else is looked at all the same."""
    found = look(None, LXCCOPY_LIBLXC="/nowhere")
    assert ["missing", "not known without liblxc", "name it with -P"] == found["lxcpath"]
    assert ["ok"] * 4 == [found[name][0] for name in ("user", "kernel", "tmpfs", "overlay")]


# Ordinary users


USER_LACKS = [
    ("lxcpath", ("is not for nobody to write", "use -P with a directory of yours"), {}),
    ("overlay", ("the kernel has not loaded it", "as root: modprobe overlay"), {"script": NO_OVERLAY}),
    (
        "run",
        ("/root cannot be written, where liblxc has its locks", "set XDG_RUNTIME_DIR"),
        {"XDG_RUNTIME_DIR": "/root"},
    ),
    ("newuidmap", ("newuidmap or newgidmap is not installed", "install them ("), {"PATH": "/nonexistent"}),
    (
        "newuidmap",
        ("{0}/newuidmap is not setuid root", "as root: chmod u+s {0}/newuidmap"),
        {"script": "cp /bin/true {0}/newuidmap; cp /bin/true {0}/newgidmap", "PATH": "{0}:/usr/bin:/bin"},
    ),
    (
        "newuidmap",
        ("{0}/lxc/newuidmap is not setuid root", "as root: chmod u+s "),
        {
            "script": "mount -t tmpfs -o nosuid,mode=755 x {0}/lxc; cd {0}/lxc; cp /bin/true newuidmap;"
            " cp /bin/true newgidmap; chmod u+s new?idmap; cd /",
            "PATH": "{0}/lxc:/usr/bin:/bin",
        },
    ),
    (
        "user namespaces",
        ("forbidden by kernel.unprivileged_userns_clone=0", "as root: sysctl kernel.unprivileged_userns_clone=1"),
        {"script": "mount -t tmpfs x /proc/sys/kernel; echo 0 >/proc/sys/kernel/unprivileged_userns_clone"},
    ),
    (
        "user namespaces",
        (
            "forbidden by kernel.apparmor_restrict_unprivileged_userns=1",
            "as root: sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        {"script": "mount -t tmpfs x /proc/sys/kernel; echo 1 >/proc/sys/kernel/apparmor_restrict_unprivileged_userns"},
    ),
    (
        "subordinate ids",
        (
            "nobody has none in /etc/subgid",
            "as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 nobody",
        ),
        {
            "script": "echo nobody:200000:65536 >{0}/subuid; echo nobody:200000:none >{0}/subgid;"
            " mount --bind {0}/subuid /etc/subuid; mount --bind {0}/subgid /etc/subgid"
        },
    ),
]


@pytest.mark.parametrize(("name", "expected", "how"), USER_LACKS)
def test_what_an_ordinary_user_lacks(lxcpath: Path, name: str, expected: tuple[str, str], how: dict[str, str]) -> None:
    """What an ordinary user lacks is missing, for root's containers do without it and theirs do not."""
    values = {key: value.format(lxcpath.parent) for key, value in how.items()}
    found = look(lxcpath, code=AS_USER, **values)[name]
    text, remedy = (one.format(lxcpath.parent) for one in expected)
    assert ("missing", True, True) == (found[0], text in found[1], remedy in found[2])


def test_old_kernel_of_an_ordinary_user(lxcpath: Path) -> None:
    """Ordinary users can mount an overlay from Linux 5.11 on."""
    require(shutil.which("setarch"), "the program setarch is not installed")
    look(lxcpath)  # root mounts one, so that the kernel has loaded it
    found = look(lxcpath, code=AS_USER, prefix="setarch --uname-2.6")["overlay"]
    assert ("missing", "use Linux 5.11 or later", True) == (found[0], found[2], "userxattr" in found[1])


def test_what_an_ordinary_user_has(lxcpath: Path) -> None:
    """An ordinary user with ids, a runtime directory and an lxcpath of their own lacks nothing of these."""
    os.chown(lxcpath, 65534, 65534)
    script = f"echo 65534:200000:65536 >{lxcpath.parent}/ids"
    script += "".join(f"; mount --bind {lxcpath.parent}/ids /etc/{file}" for file in ("subuid", "subgid"))
    found = look(lxcpath, code=AS_USER, script=script, XDG_RUNTIME_DIR=str(lxcpath))
    names = ["liblxc", "user", "kernel", "SIGCHLD", "tmpfs", "run", "subordinate ids", "lxcpath"]
    assert dict.fromkeys(names, "ok") == {name: found[name][0] for name in names}
    assert "65536 for nobody" == found["subordinate ids"][1]


def test_closed_parent_of_an_ordinary_user(lxcpath: Path) -> None:
    """A directory that a container's root could not pass is missing for an ordinary user, with its path."""
    os.chown(lxcpath, 65534, 65534)
    lxcpath.chmod(0o700)
    found = look(lxcpath, code=AS_USER)["lxcpath"]
    assert ("missing", f"chmod o+x {lxcpath}") == (found[0], found[2])


def test_cgroups_of_an_ordinary_user(lxcpath: Path) -> None:
    """Ordinary users can do without cgroups of their own, and are told how to get some."""
    found = look(lxcpath, code=AS_USER, script=ONLY_CGROUP2)["cgroups"]
    assert ("optional", "systemd-run --user --scope -p Delegate=yes ...") == (found[0], found[2])


# The command line


def run(lxcpath: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command line with --check."""
    command = [sys.executable, "-m", "lxccopy_ffi", "-P", str(lxcpath), "--check", *words]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, cwd=ROOT, env={**os.environ, **env}
    )


def test_lines(lxcpath: Path) -> None:
    """The command line prints a line for each finding, with state, name and text in columns and the remedy behind."""
    done = run(lxcpath, PATH="/nonexistent")
    lines = done.stdout.splitlines()
    assert (0, "", 16) == (done.returncode, done.stderr, len(lines))
    assert "optional rsync            not installed; only full copies need it; install it (package rsync)" in lines
    assert f"ok       lxcpath          {lxcpath}" in lines


def test_json(lxcpath: Path) -> None:
    """With --json it is one object, which says first whether the main thing works, on a line of its own."""
    done = run(lxcpath, "--json", "-q", PATH="/nonexistent")
    found = json.loads(done.stdout)
    assert (0, "", 1, ["ok", "checks"], True) == (
        done.returncode,
        done.stderr,
        done.stdout.count("\n"),
        list(found),
        found["ok"],
    )
    assert {
        "name": "rsync",
        "state": "optional",
        "text": "not installed; only full copies need it",
        "remedy": "install it (package rsync)",
    } in found["checks"]


@pytest.mark.parametrize("words", [[], ["--json"], ["-q"]])
def test_status_of_what_cannot_work(lxcpath: Path, words: list[str]) -> None:
    """The status is 1 where something is missing, which is no error, and -q prints nothing."""
    done = run(lxcpath, *words, LXCCOPY_LIBLXC="/nowhere")
    assert (1, "", words != ["-q"]) == (done.returncode, done.stderr, bool(done.stdout))
    if words == ["--json"]:
        assert json.loads(done.stdout)["ok"] is False


def test_ignored_children_of_the_caller(lxcpath: Path) -> None:
    """A caller that ignores SIGCHLD is no obstacle on the command line, which sets that right by itself."""
    command = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    )
    words = [sys.executable, "-m", "lxccopy_ffi", "-P", str(lxcpath), "--check"]
    done = subprocess.run(
        [sys.executable, "-c", command, *words], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (0, True) == (done.returncode, "ok       SIGCHLD  " in done.stdout)


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_signal_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], lxcpath: Path, number: str
) -> None:
    """A signal in the middle of a trial leaves nothing of it."""
    import signal

    handlers = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)}
    mount = _raw.new_mount

    def interrupted(kind: str, options: dict[str, str]) -> Any:
        if kind == "overlay":
            os.kill(os.getpid(), getattr(signal, number))
        return mount(kind, options)

    monkeypatch.setattr("lxccopy_ffi._raw.new_mount", interrupted)
    try:
        assert 128 + getattr(signal, number) == cli.main(["-P", str(lxcpath), "--check"])
    finally:
        for one, handler in handlers.items():
            signal.signal(one, handler)
    assert f"lxccopy: ended by {number}\n" == capfd.readouterr().err
