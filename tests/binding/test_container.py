# SPDX-License-Identifier: LGPL-2.1-or-later
"""Container: liblxc's answers as values and errors that say why, and none of its traps."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from binding_helpers import isolated, made, processes
from conftest import Left, monitors

from lxccopy_ffi import (
    CloneFlag,
    Container,
    ContainerNotFoundError,
    EphemeralCopy,
    LiblxcError,
    OptionError,
)
from lxccopy_ffi.locking import forget_lock
from lxccopy_ffi.names import random_name
from lxccopy_ffi.removal import discard

Define = Callable[[dict[str, str]], Container]

CLONE = CloneFlag.KEEPNAME | CloneFlag.SNAPSHOT


@pytest.fixture
def define(lxcpath: str) -> Iterator[Define]:
    """A function that makes a snapshot of the base with further config items; it is removed afterwards."""
    with ExitStack() as stack:
        yield lambda items: stack.enter_context(made(lxcpath, items))


@pytest.fixture
def base(lxcpath: str) -> Iterator[Container]:
    """A handle of the base."""
    with Container("base", lxcpath) as container:
        yield container


def attach(container: Container, *argv: str, stdin: int = -1) -> int | None:
    """Run a command without input and output to its end, and return what waitpid() says."""
    with open(os.devnull, "r+b", buffering=0) as null:
        fd = null.fileno()
        return container.attach(argv, stdin=fd if stdin < 0 else stdin, stdout=fd, stderr=fd, env={}).wait()


# Looking


def test_base(base: Container, lxcpath: str) -> None:
    """A container that does not run is defined, ours to control, and STOPPED."""
    seen = (base.defined, base.controllable, base.running, base.state, base.init_pid)
    assert seen == (True, True, False, "STOPPED", -1)
    assert (base.directory, base.config_file) == (f"{lxcpath}/base", f"{lxcpath}/base/config")
    base.require_defined()


def test_running_copy(lxcpath: str) -> None:
    """Another handle sees a container run, stops it, and returns when it is gone."""
    copy = EphemeralCopy("base", lxcpath=lxcpath)
    with copy, Container(copy.name, lxcpath) as other:
        assert (other.running, other.state) == (True, "RUNNING")
        assert f"PPid:\t{os.getpid()}\n" not in Path(f"/proc/{other.init_pid}/status").read_text(encoding="ascii")
        other.stop()
        assert monitors(lxcpath) == []
        assert not os.path.lexists(other.directory)
        other.stop()


def test_undefined(lxcpath: str) -> None:
    """An undefined container can be looked at, and is missed by name where it is needed."""
    with Container("undefined", lxcpath) as undefined:
        assert (undefined.defined, undefined.running, undefined.state) == (False, False, "STOPPED")
        with pytest.raises(ContainerNotFoundError) as caught:
            undefined.require_defined()
        reason = f"{lxcpath}/undefined/config does not exist"
        assert str(caught.value) == f"container 'undefined' is not defined in {lxcpath}: {reason}"
        with pytest.raises(LiblxcError, match="cannot copy container 'undefined'"):
            undefined.clone("copy")
        forget_lock(undefined.name, undefined.lxcpath)


@pytest.mark.parametrize(
    "use",
    [
        lambda c: c.state,
        lambda c: c.config("lxc.uts.name"),
        lambda c: c.stop(),
        lambda c: c.devpts(),
        lambda c: c.set_config("lxc.uts.name", "x"),
        lambda c: c.clear_config("lxc.uts.name"),
        lambda c: c.running_config("lxc.uts.name"),
        lambda c: c.load_config("/dev/null"),
        lambda c: c.load_config(c.config_file),
        lambda c: c.load_text("lxc.uts.name = x\n"),
        lambda c: c.save_config(),
        lambda c: c.clone("copy"),
        lambda c: c.destroy(),
        lambda c: c.start(),
        lambda c: attach(c, "true"),
    ],
)
def test_closed_handle(lxcpath: str, use: Callable[[Container], object]) -> None:
    """A closed handle is refused before liblxc could touch freed memory; closing it again does nothing."""
    with Container("base", lxcpath) as container:
        pass
    container.close()
    with pytest.raises(ValueError, match="the handle of container 'base' is closed"):
        use(container)


# Configuration


def test_config(base: Container) -> None:
    """Items are read as text: lists by line, unset ones empty."""
    base.clear_config("lxc.environment")
    assert base.config("lxc.environment") == ""
    base.set_config("lxc.environment", "A=\u00e4")
    base.set_config("lxc.environment", "B=2")
    assert base.config("lxc.environment") == "A=\u00e4\nB=2"
    assert base.config("lxc.ephemeral") == "0"


@pytest.mark.parametrize(
    ("use", "operation", "reason"),
    [
        (lambda c: c.config("lxc.nonsense"), "get lxc.nonsense of", 'Unsupported config key "lxc.nonsense"'),
        (lambda c: c.set_config("lxc.nonsense", "1"), "set lxc.nonsense = 1 for", None),
        (lambda c: c.clear_config("lxc.nonsense"), "clear lxc.nonsense of", None),
    ],
)
def test_unknown_key(
    base: Container, lxcpath: str, use: Callable[[Container], object], operation: str, reason: str | None
) -> None:
    """An unknown key is an error that says what was tried, with which container, where, why it failed, what to do."""
    with pytest.raises(LiblxcError):
        base.set_config("lxc.other", "1")  # is no reason for what fails later
    with pytest.raises(LiblxcError) as caught:
        use(base)
    error = caught.value
    reason = reason or 'Invalid argument - Unsupported config key "lxc.nonsense"'
    assert (error.operation, error.container, error.lxcpath, error.reason) == (operation, "base", lxcpath, reason)
    hint = " (this liblxc does not know it; see lxc.container.conf(5))"
    assert str(error) == f"cannot {operation} container 'base' in {lxcpath}: {reason}{hint}"


@pytest.mark.parametrize("character", ["\n", "\r", "\0", "\x1b", "\x7f"])
def test_value_stays_on_its_line(base: Container, character: str) -> None:
    """A value that could begin another line of the config file is refused."""
    with pytest.raises(OptionError, match=r"lxc\.uts\.name.*control character"):
        base.set_config("lxc.uts.name", f"x{character}lxc.hook.start = /bin/sh")
    assert base.config("lxc.uts.name") == "base"


def test_broken_config_file(define: Define) -> None:
    """A config file that liblxc cannot read is an error with its complaint, the line and the file."""
    copy = define({})
    with open(copy.config_file, "a", encoding="ascii") as file:
        file.write("lxc.nonsense = 1\n")
    try:
        with pytest.raises(LiblxcError) as caught:
            Container(copy.name, copy.lxcpath)
    finally:
        copy.save_config()
    assert 'Unsupported config key "lxc.nonsense"' in caught.value.reason
    assert f'config file "{copy.config_file}" at line "lxc.nonsense = 1"' in caught.value.reason
    assert caught.value.hint == f"see {copy.config_file}"


def test_config_that_cannot_be_written(define: Define) -> None:
    """A config file that cannot be written is an error."""
    copy = define({})
    os.rename(copy.config_file, f"{copy.config_file}.away")
    os.mkdir(copy.config_file)
    try:
        with pytest.raises(LiblxcError, match="cannot save the configuration of container"):
            copy.save_config()
    finally:
        os.rmdir(copy.config_file)
        os.rename(f"{copy.config_file}.away", copy.config_file)


def test_log_is_in_no_config(lxcpath: str, define: Define) -> None:
    """The way we listen to liblxc's log is in no config file: not in a copy's, nor after a start with a level."""
    failing = define({"lxc.hook.pre-mount": "/bin/false"})
    with pytest.raises(LiblxcError):
        failing.start(log_level="DEBUG")
    failing.save_config()
    copy = failing.clone(random_name("base"), flags=CLONE)
    with EphemeralCopy("base", lxcpath=lxcpath) as ephemeral:
        files = [failing.config_file, copy.config_file, ephemeral.container.config_file]
        texts = [Path(file).read_text(encoding="utf-8") for file in files]
    copy.destroy()
    copy.close()
    discard(copy.name, lxcpath)
    assert ["lxc.log" in text for text in texts] == [False, False, False]


# Configuration from elsewhere

OTHER = "lxc.uts.name = other\nlxc.environment = A=1\nlxc.environment = B=\u00e4 \udcff\n"


def check_other(container: Container) -> None:
    """The container has OTHER's configuration and nothing of its own, and still says why something failed."""
    items = [container.config(key) for key in ("lxc.uts.name", "lxc.environment", "lxc.rootfs.path", "lxc.log.file")]
    assert ["other", "A=1\nB=\u00e4 \udcff", "", ""] == items
    with pytest.raises(LiblxcError) as caught:
        container.set_config("lxc.nonsense", "1")
    assert caught.value.reason == 'Invalid argument - Unsupported config key "lxc.nonsense"'


def test_load_config(base: Container, tmp_path: Path) -> None:
    """A file's configuration takes the place of that in memory, whatever its name; the container's file stays."""
    file = tmp_path / "rc,file: \u00e4"
    file.write_text(OTHER, encoding="utf-8", errors="surrogateescape")
    before = Path(base.config_file).read_bytes()
    assert base.config_source == base.config_file
    for _ in range(2):
        base.load_config(str(file))
        check_other(base)
    assert (str(file), before) == (base.config_source, Path(base.config_file).read_bytes())


def test_load_text(base: Container) -> None:
    """A text takes the place of the configuration in memory; where that came from is remembered."""
    for _ in range(2):
        base.load_text(OTHER)
        check_other(base)
    assert base.config_source == base.config_file
    base.load_text("")
    assert base.config("lxc.environment") == ""
    base.load_text("# " + "x" * 100000 + f"\n{OTHER}")
    check_other(base)


def load_special_file(lxcpath: str, kind: str, path: str) -> list[str]:
    """What is said of a file that is no regular one, and what the container is like afterwards."""
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        os.mkdir(path)
    elif kind == "socket":
        import socket

        socket.socket(socket.AF_UNIX).bind(path)
    elif kind != "missing":
        os.symlink(kind, path)
    before = sorted(os.listdir("/proc/self/fd"))
    with Container("base", lxcpath) as container:
        try:
            container.load_config(path)
        except OptionError as error:
            text = str(error)
        name, source = container.config("lxc.uts.name"), container.config_source
    after = sorted(os.listdir("/proc/self/fd"))
    return [text, name, source[len(lxcpath) :], *set(before) ^ set(after)]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("fifo", "it is no regular file"),
        ("directory", "it is no regular file"),
        ("/dev/null", "it is no regular file"),
        ("/dev/zero", "it is no regular file"),
        ("socket", "No such device or address"),
        ("missing", "No such file or directory"),
        ("/nonexistent", "No such file or directory"),
    ],
)
def test_load_no_file(lxcpath: str, tmp_path: Path, kind: str, reason: str) -> None:
    """What is no regular file is refused at once, with its path; the configuration stays as it was."""
    path = str(tmp_path / "file")
    expected = [f"cannot read the configuration file {path}: {reason}", "base", "/base/config"]
    assert expected == isolated(load_special_file, lxcpath, kind, path, timeout=20)


@pytest.mark.parametrize("way", ["file", "text"])
@pytest.mark.parametrize("line", ["lxc.nonsense = 1", "lxc.idmap = x", "lxc.ephemeral = many"])
def test_load_bad_config(base: Container, tmp_path: Path, way: str, line: str) -> None:
    """A configuration that liblxc cannot parse is an error with its reason, which is not that of the next one."""
    file = tmp_path / "rcfile"
    file.write_text(f"lxc.uts.name = other\n{line}\n", encoding="ascii")
    load, argument = (base.load_config, str(file)) if way == "file" else (base.load_text, file.read_text("ascii"))
    with pytest.raises(LiblxcError) as caught:
        load(argument)
    error = caught.value
    assert ("load the configuration of", "base") == (error.operation, error.container)
    assert line in error.reason
    assert base.config_source == base.config_file
    base.load_text(OTHER)
    check_other(base)


def test_running_config(lxcpath: str, base: Container) -> None:
    """A running container tells what it was started with; one that does not run, or has no such item, nothing."""
    with EphemeralCopy("base", lxcpath=lxcpath) as copy:
        container = copy.container
        container.set_config("lxc.uts.name", "in-memory")
        keys = ("lxc.uts.name", "lxc.ephemeral", "lxc.environment", "lxc.nonsense")
        assert [copy.name, "1", "", ""] == [container.running_config(key) for key in keys]
    assert "" == base.running_config("lxc.uts.name")


# Copying


def test_clone_onto_existing(define: Define, base: Container) -> None:
    """A name that is taken is the reason for a failed copy, and what has it stays."""
    taken = define({})
    with pytest.raises(LiblxcError) as caught:
        base.clone(taken.name, flags=CLONE)
    assert caught.value.reason == f"error: clone: {taken.config_file} exists"
    assert taken.defined


@pytest.mark.parametrize("root", ["dir:{0}/root", "overlay:{0}/lower:{0}/upper"])
def test_clone_of_broken_root(define: Define, tmp_path: Path, root: str) -> None:
    """A root file system that cannot be copied is named, and nothing is left of the copy."""
    root = root.format(tmp_path)
    broken = define({"lxc.rootfs.path": root})
    with pytest.raises(LiblxcError) as caught:
        broken.clone("copy", flags=CLONE)
    path = root.partition(":")[2]
    assert f'Original rootfs path "{path}" does not include container name' in caught.value.reason
    assert not os.path.lexists(f"{broken.lxcpath}/copy")
    with Container("copy", broken.lxcpath) as copy:
        forget_lock(copy.name, copy.lxcpath)


def test_destroy_of_running(lxcpath: str) -> None:
    """A running container is not destroyed."""
    with EphemeralCopy("base", lxcpath=lxcpath) as copy:
        with pytest.raises(LiblxcError, match=f"cannot destroy container '{copy.name}'.*is not stopped"):
            copy.container.destroy()
        assert copy.container.running


# Starting


@pytest.mark.parametrize(
    ("items", "reasons"),
    [
        (
            {"lxc.hook.pre-mount": "sh -c 'echo no space on $LXC_NAME >&2; exit 3'"},
            ["no space on {name}", "Script exited with status 3", "Failed to run pre-mount hooks"],
        ),
        ({"lxc.rootfs.path": "dir:{dir}/x"}, ['No such file or directory - Failed to open "{dir}/x"']),
        (
            {"lxc.rootfs.path": "overlay:{dir}/low:{dir}/up"},
            ['No such file or directory - Failed to mount "{dir}/low"'],
        ),
        ({"lxc.init.cmd": "/nonexistent/init"}, ['No such file or directory - Failed to exec "/nonexistent/init"']),
    ],
    ids=["hook", "directory", "overlay", "init"],
)
def test_failed_start_says_why(define: Define, tmp_path: Path, items: dict[str, str], reasons: list[str]) -> None:
    """The reason of a failed start is the first thing that went wrong; a hook's own words come before it."""
    broken = define({key: value.format(dir=tmp_path) for key, value in items.items()})
    with pytest.raises(LiblxcError) as caught:
        broken.start(log_level="DEBUG")
    assert caught.value.operation == "start"
    found = caught.value.reason.split("; ")
    expected = [reason.format(name=broken.name, dir=tmp_path) for reason in reasons]
    assert [text[: len(reason)] for text, reason in zip(found, expected)] == expected


@pytest.mark.parametrize("hook", ["pre-start", "pre-mount", "start-host"])
def test_start_after_failed_start(define: Define, lxcpath: str, tmp_path: Path, hook: str) -> None:
    """When a start has failed, at whatever point, nothing runs or is left of it, and the next one works at once."""
    obstacle = tmp_path / "obstacle"
    copy = define({f"lxc.hook.{hook}": f"sh -c 'test ! -e {obstacle}'"})
    before = Left(lxcpath)
    for _ in range(3):
        obstacle.touch()
        with pytest.raises(LiblxcError, match="Script exited with status 1"):
            copy.start()
        assert (copy.state, processes(lxcpath)) == ("STOPPED", [])
        before.check()
        obstacle.unlink()
        copy.start()
        assert copy.running
        copy.stop()
        before.check()


def test_logs_do_not_mix(define: Define) -> None:
    """Six threads whose starts fail get each its own container's reason, every time."""
    copies = [define({"lxc.hook.pre-mount": f"sh -c 'echo hook {number} >&2; exit 1'"}) for number in range(6)]
    reasons: list[list[str]] = [[] for _ in copies]

    def fail(number: int) -> None:
        for _ in range(5):
            try:
                copies[number].start(log_level="DEBUG")
            except LiblxcError as error:
                reasons[number].append(error.reason.split("; ")[0])

    threads = [threading.Thread(target=fail, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reasons == [[f"hook {number}"] * 5 for number in range(6)]


# Traps of liblxc


IGNORE = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"


def refused(name: str, lxcpath: str) -> list[str]:
    """The errors of the calls that fork, on a running container."""
    texts = []
    with Container(name, lxcpath) as running:
        for call in (running.start, lambda: running.clone("copy"), lambda: attach(running, "true")):
            try:
                call()
            except LiblxcError as error:
                texts.append(f"{error.operation}: {error.reason} ({error.hint})")
    return texts


def test_ignored_sigchld_is_refused(lxcpath: str) -> None:
    """With SIGCHLD ignored, as a parent may hand it down, nothing is started, copied or entered, and we say why."""
    with EphemeralCopy("base", lxcpath=lxcpath) as copy:
        texts = isolated(refused, copy.name, lxcpath, prefix=[sys.executable, "-c", IGNORE])
    reason = "this process ignores SIGCHLD, so liblxc would lose its children"
    hint = "call signal.signal(signal.SIGCHLD, signal.SIG_DFL) first"
    assert [f"{operation}: {reason} ({hint})" for operation in ("start", "clone", "enter")] == texts


def attach_often(name: str, lxcpath: str) -> list[list[str]]:
    """What this process ignores and holds open before and after 60 commands, which get its own standard input."""

    def look() -> list[str]:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        ignored = status.partition("SigIgn:")[2].split()[0]
        return [ignored, *sorted(os.listdir("/proc/self/fd"))]

    with Container(name, lxcpath) as container:
        attach(container, "true")
        before = look()
        for _ in range(60):
            attach(container, "true", stdin=0)
        return [before, look()]


def test_attach_changes_nothing_here(lxcpath: str) -> None:
    """60 commands in a single-threaded process leave no descriptor, and SIGINT and SIGQUIT are not ignored."""
    with EphemeralCopy("base", lxcpath=lxcpath) as copy:
        before, after = isolated(attach_often, copy.name, lxcpath)
    assert before == after
    assert int(before[0], 16) & 0b110 == 0


def attach_from_threads(name: str, lxcpath: str) -> list[int | None]:
    """Run 50 commands in each of two threads, through one handle."""
    statuses: list[int | None] = []
    with Container(name, lxcpath) as container:

        def work() -> None:
            statuses.extend(attach(container, "true") for _ in range(50))

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return statuses


def test_two_threads_on_one_handle(lxcpath: str) -> None:
    """Two threads that use one handle do not wait for each other for ever."""
    with EphemeralCopy("base", lxcpath=lxcpath) as copy:
        assert isolated(attach_from_threads, copy.name, lxcpath, timeout=60) == [0] * 100


def test_attach_to_stopped(base: Container) -> None:
    """A container that does not run cannot be entered, and we say so."""
    with pytest.raises(LiblxcError) as caught:
        attach(base, "true")
    assert caught.value.hint == "it is not running"


def test_attach_needs_a_command(base: Container) -> None:
    """An empty command is refused."""
    with pytest.raises(OptionError, match="the command is empty"):
        attach(base)
