# SPDX-License-Identifier: LGPL-2.1-or-later
"""One command in one throwaway copy, from the shell and from Python; the lxcpath fixture sees that nothing is left."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import Cli, mounts, require

from lxccopy_ffi import Container, EphemeralCopy, LiblxcError, OptionError, run
from lxccopy_ffi.command import Command
from lxccopy_ffi.removal import discard

STATUSES = [
    (["sh", "-c", "exit 0"], 0),
    (["sh", "-c", "exit 3"], 3),
    (["sh", "-c", "exit 255"], 255),
    (["sh", "-c", "kill -9 $$"], 137),
    (["sh", "-c", "kill -15 $$"], 143),
    (["no-such-program"], 127),
    (["/etc/passwd"], 126),
]


@pytest.mark.parametrize(("command", "status"), STATUSES)
@pytest.mark.parametrize("tmpfs", [["-t"], []], ids=["tmpfs", "disk"])
def test_status(lxccopy: Cli, command: list[str], status: int, tmpfs: list[str]) -> None:
    """The command's exit status becomes ours, as a shell would tell it."""
    result = lxccopy("-q", "-n", "base", "-e", *tmpfs, "--", *command)
    assert status == result.returncode
    wanted = {127: "No such file or directory", 126: "Permission denied"}
    assert (1 if status in wanted else 0) == len(result.stderr.splitlines())
    assert wanted.get(status, "") in result.stderr


@pytest.mark.parametrize(("command", "status"), STATUSES)
def test_returncode(lxcpath: str, command: list[str], status: int) -> None:
    """The Python interface tells a signal by a negative number, as subprocess does."""
    expected = 128 - status if status in (137, 143) else status
    assert expected == run("base", command, lxcpath=lxcpath, tmpfs=True).returncode


def test_issue_example(lxccopy: Cli) -> None:
    """The copy has its own host name and an overlay, with its upper layer on our tmpfs, as its root."""
    script = "hostname; df -T /; grep ' / ' /proc/mounts; exit 7"
    result = lxccopy("-n", "base", "-e", "-t", "--", "sh", "-c", script)
    assert 7 == result.returncode
    hostname, _, *rest = result.stdout.splitlines()
    assert hostname.startswith("base_")
    assert len("base_XXXXXX") == len(hostname)
    assert " overlay " in " ".join(rest)
    assert "upperdir=/run/lxccopy/upper/delta" in result.stdout
    assert f"Created {hostname} as clone of base\nContainer is placed on tmpfs.\n" == result.stderr


def test_same_name(lxccopy: Cli) -> None:
    """The same name can be used a hundred times in a row."""
    assert [0] * 100 == [lxccopy("-n", "base", "-N", "same", "-e", "-t", "--", "true").returncode for _ in range(100)]


def test_name_as_word(lxccopy: Cli) -> None:
    """The first word that is no option is the container's name, as with lxc-copy."""
    result = lxccopy("-q", "-e", "--", "base", "echo", "hi")
    assert (0, "hi\n") == (result.returncode, result.stdout)


def test_streams(lxccopy: Cli) -> None:
    """Input, output and errors are passed through, apart."""
    result = lxccopy("-q", "-n", "base", "-e", "-t", "--", "sh", "-c", "cat; echo err >&2", input="in\n", stdin=None)
    assert (0, "in\n", "err\n") == (result.returncode, result.stdout, result.stderr)


def test_closed_stdio(lxcpath: str) -> None:
    """It also runs with its standard descriptors closed."""
    command = f"exec '{sys.executable}' -m lxccopy_ffi -P '{lxcpath}' -n base -e -t -- sh -c 'exit 9' <&- >&- 2>&-"
    assert 9 == subprocess.run(["sh", "-c", command], check=False, timeout=30).returncode


def test_environment(lxccopy: Cli) -> None:
    """The command sees a root's environment and nothing of ours."""
    os.environ["LXCCOPY_TEST_SECRET"] = "x"
    try:
        result = lxccopy("-q", "-n", "base", "-e", "-t", "--", "env")
    finally:
        del os.environ["LXCCOPY_TEST_SECRET"]
    assert {"PATH", "HOME", "USER", "LOGNAME", "container"} == {
        line.split("=")[0] for line in result.stdout.splitlines()
    } - {"PWD", "SHLVL"}
    assert "container=lxc" in result.stdout.splitlines()
    assert "HOME=/root" in result.stdout.splitlines()


def test_sigpipe(lxcpath: str) -> None:
    """The command gets the default action for SIGPIPE, which Python itself ignores."""
    result = run("base", ["grep", "SigIgn", "/proc/self/status"], lxcpath=lxcpath, capture_output=True, text=True)
    assert ["SigIgn:", "0000000000000000"] == result.stdout.split()


def test_own_session(lxcpath: str) -> None:
    """The command cannot reach our terminal: it is the leader of a session without one."""
    with EphemeralCopy("base", lxcpath=lxcpath) as copy:
        result = copy.run(["sh", "-c", "cat /proc/$$/stat"], capture_output=True, text=True)
    fields = result.stdout.rpartition(")")[2].split()
    assert ("0", "0") == (fields[4], fields[1])  # no terminal; its parent is outside
    assert fields[3] == result.stdout.split()[0]


def test_capture_with_input(lxcpath: str) -> None:
    """Large input and output go through at once without a deadlock."""
    data = os.urandom(1 << 20)
    result = run("base", ["cat"], input=data, capture_output=True, lxcpath=lxcpath, tmpfs=True, check=True)
    assert data == result.stdout
    assert b"" == result.stderr


def test_input_not_read(lxcpath: str) -> None:
    """A command that does not read its input is no error."""
    assert 0 == run("base", ["true"], input=b"x" * (1 << 20), lxcpath=lxcpath).returncode


def test_timeout(lxcpath: str) -> None:
    """A command that takes too long is killed and its output so far is in the exception."""
    with EphemeralCopy("base", lxcpath=lxcpath, tmpfs=True) as copy:
        begin = time.monotonic()
        with pytest.raises(subprocess.TimeoutExpired) as caught:
            copy.run(["sh", "-c", "echo early; exec sleep 30"], capture_output=True, text=True, timeout=0.3)
        assert "early\n" == str(caught.value.stdout)
        assert time.monotonic() - begin < 10
        assert 0 == copy.run(["true"]).returncode


def test_held_pipe(lxcpath: str) -> None:
    """A background process that keeps the output open does not keep us."""
    with EphemeralCopy("base", lxcpath=lxcpath, tmpfs=True) as copy:
        begin = time.monotonic()
        result = copy.run(["sh", "-c", "sleep 60 & echo done"], capture_output=True, text=True)
        assert "done\n" == result.stdout
        assert time.monotonic() - begin < 10


def test_check(lxcpath: str) -> None:
    """check=True raises for a status other than 0, with the output."""
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run("base", ["sh", "-c", "echo out; exit 4"], check=True, capture_output=True, text=True, lxcpath=lxcpath)
    assert (4, "out\n") == (caught.value.returncode, caught.value.stdout)


def test_cwd_and_env(lxcpath: str) -> None:
    """The command gets the directory and the environment it shall have; a missing directory is an error."""
    with EphemeralCopy("base", lxcpath=lxcpath, tmpfs=True) as copy:
        result = copy.run(
            ["sh", "-c", "pwd; echo $A $HOME"], cwd="/etc", env={"A": "b"}, capture_output=True, text=True
        )
        assert "/etc\nb\n" == result.stdout
        with pytest.raises(OptionError, match="the directory '/no/such' cannot be entered"):
            copy.run(["true"], cwd="/no/such")


def test_bad_command_creates_nothing(lxcpath: str) -> None:
    """A command that no exec can take is refused before the copy is made."""
    for argv in ([], "true", ["a\0b"], [1]):
        with pytest.raises(OptionError):
            run("base", argv, lxcpath=lxcpath)  # type: ignore[arg-type]


def test_base_is_untouched(lxccopy: Cli, lxcpath: str) -> None:
    """Twenty runs that change and delete what they can leave every file of the base as it was."""

    def tree() -> dict[str, tuple[object, ...]]:
        found: dict[str, tuple[object, ...]] = {}
        for path in sorted(Path(lxcpath, "base", "rootfs").rglob("*")):
            status = path.lstat()
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            found[str(path)] = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, hash(content))
        return found

    before = tree()
    vandal = (
        "for f in /etc/*; do echo x >> $f; chmod 777 $f; chown 7 $f; done; touch /new; rm -rf /etc /var /root /home"
    )
    for tmpfs in [["-t"], []] * 10:
        assert 0 == lxccopy("-q", "-n", "base", "-e", *tmpfs, "--", "sh", "-c", vandal).returncode
    assert before == tree()


def test_no_mount_point(lxcpath: str) -> None:
    """It runs where the directory that liblxc mounts root file systems on is missing, as with liblxc1 alone."""
    with Container("base", lxcpath) as base:
        base.clone("pointless", flags=5).close()
    try:
        with open(f"{lxcpath}/pointless/config", "a", encoding="ascii") as config:
            config.write("lxc.rootfs.mount = /no/such/directory\n")
        assert 7 == run("pointless", ["sh", "-c", "exit 7"], lxcpath=lxcpath, tmpfs=True).returncode
    finally:
        discard("pointless", lxcpath)


def test_not_from_a_chroot(lxcpath: str, tmp_path: Path) -> None:
    """In a chroot, where liblxc's attach() would run the command on the host, nothing is run."""
    require(shutil.which("unshare"), "the program unshare is not installed")
    victim = tmp_path / "victim"
    command = f"'{sys.executable}' -m lxccopy_ffi -q -P '{lxcpath}' -n base -e -t -- touch '{victim}'"
    root = tmp_path / "root"
    root.mkdir()
    script = f"mount --rbind / '{root}' && exec chroot '{root}' sh -c \"cd '{os.getcwd()}' && {command}\""
    result = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert 125 == result.returncode
    assert "we run in a chroot" in result.stderr
    assert not victim.exists()


def test_no_descriptor_comes_along(lxcpath: str) -> None:
    """A directory of the host that our caller has open is not open in the container."""
    command = [sys.executable, "-m", "lxccopy_ffi", "-q", "-P", lxcpath, "-n", "base", "-e", "-t"]
    fds = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in ("/", "/etc")]
    os.dup2(fds[0], 251)
    result = subprocess.run(
        [*command, "--", "ls", "/proc/self/fd"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        pass_fds=[*fds, 251],
    )
    for fd in (*fds, 251):
        os.close(fd)
    assert ["0", "1", "2", "3"] == result.stdout.split()  # the last is ls's own


def test_umask(lxcpath: str) -> None:
    """The command has an ordinary umask, whatever ours."""
    before = os.umask(0o077)
    try:
        result = run("base", ["sh", "-c", "umask"], lxcpath=lxcpath, capture_output=True, text=True)
    finally:
        os.umask(before)
    assert "0022\n" == result.stdout


def test_another_of_the_same_name(lxcpath: str) -> None:
    """Closing a copy that has ended by itself leaves another one alone that has got its name."""
    first = EphemeralCopy("base", "same", lxcpath=lxcpath, tmpfs=True)
    first.start()
    first.run(["poweroff", "-f"])
    assert first.container.shutdown(10)
    with EphemeralCopy("base", "same", lxcpath=lxcpath, tmpfs=True) as second:
        first.close()
        assert "RUNNING" == second.container.state
        assert 0 == second.run(["true"]).returncode


def test_deep_tree(lxccopy: Cli) -> None:
    """A tree that is too deep for recursion is removed, too."""
    script = "cd /root; i=0; while [ $i -lt 3000 ]; do mkdir d && cd d || break; i=$((i+1)); done; exit 0"
    for options in ([], ["-t"]):
        assert 0 == lxccopy("-q", "-n", "base", "-e", *options, "--", "sh", "-c", script).returncode


def test_mounted_directory_is_left_alone(lxcpath: str, tmp_path: Path) -> None:
    """Removing a copy never goes through a mount point, not even to the same file system."""
    (tmp_path / "victim").touch()
    with EphemeralCopy("base", "mounted", lxcpath=lxcpath, keep_data=True) as copy:
        copy.run(["mkdir", "/mnt/host"], check=True)
    place = f"{lxcpath}/mounted/overlay/delta/mnt/host"
    subprocess.run(["mount", "--bind", tmp_path, place], check=True)
    try:
        with pytest.raises(LiblxcError, match=r"Invalid cross-device link|Device or resource busy"):
            discard("mounted", lxcpath)
    finally:
        (moved,) = [mount for mount in mounts() if mount.startswith(f"{lxcpath}/mounted/")]
        subprocess.run(["umount", moved], check=True)
    assert ["victim"] == os.listdir(tmp_path)
    discard("mounted", lxcpath)


def test_frozen(lxcpath: str) -> None:
    """A frozen copy with a command in it can be closed."""
    with EphemeralCopy("base", lxcpath=lxcpath, tmpfs=True) as copy:
        null = os.open(os.devnull, os.O_RDWR)
        command = Command(copy.container, ["sleep", "100"], stdin=null, stdout=null, stderr=null)
        os.close(null)
        subprocess.run(["lxc-freeze", "-P", lxcpath, "-n", copy.name], check=True)
        copy.close()
        assert -9 == command.wait()


def test_threads_wait_for_one_command(lxcpath: str) -> None:
    """Several threads may wait for a command, and another kill it: all get its status."""
    with EphemeralCopy("base", lxcpath=lxcpath, tmpfs=True) as copy:
        null = os.open(os.devnull, os.O_RDWR)
        for _ in range(10):
            command = Command(copy.container, ["sleep", "100"], stdin=null, stdout=null, stderr=null)
            found: list[int | None] = []
            threads = [threading.Thread(target=lambda c=command, f=found: f.append(c.wait())) for _ in range(4)]
            for thread in threads:
                thread.start()
            command.kill()
            for thread in threads:
                thread.join(20)
            assert [-9] * 4 == found
        os.close(null)


def test_endless_writers(lxcpath: str) -> None:
    """Background processes that write without end do not defeat the time limit."""
    with EphemeralCopy("base", lxcpath=lxcpath, tmpfs=True) as copy:
        begin = time.monotonic()
        with pytest.raises(subprocess.TimeoutExpired):
            copy.run(["sh", "-c", "cat /dev/zero & sleep 30"], capture_output=True, timeout=0.3)
        assert time.monotonic() - begin < 10


def test_timeout_in_the_middle_of_a_character(lxcpath: str) -> None:
    """Output that a time limit cuts is decoded as far as it goes."""
    with EphemeralCopy("base", lxcpath=lxcpath) as copy, pytest.raises(subprocess.TimeoutExpired) as caught:
        copy.run(["sh", "-c", "printf 'a\\303'; exec sleep 30"], text=True, capture_output=True, timeout=0.3)
    assert "a\ufffd" == str(caught.value.stdout)


def test_directory_removed_meanwhile(lxcpath: str) -> None:
    """A copy whose directory somebody removed is stopped all the same."""
    copy = EphemeralCopy("base", "robbed", lxcpath=lxcpath, tmpfs=True)
    copy.start()
    shutil.rmtree(f"{lxcpath}/robbed")
    init = copy.container.init_pid
    copy.close()
    assert not os.path.exists(f"/proc/{init}")
    Path(lxcpath, "base/lxc_snapshots").unlink()  # liblxc found nothing to take out of it
