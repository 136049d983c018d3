# SPDX-License-Identifier: LGPL-2.1-or-later
"""The plugin for pytest, in runs of pytest of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, Left
from live_helpers import await_guards, has, removed

from lxccopy_ffi import Container, reap

ANY_LOAD = ("-p", "no:cacheprovider", "-p", "no:randomly", "--strict-markers", "-W", "error")

FAILING = """
    import pytest

    def test_passing(lxc_copy):
        pass

    def test_failing(lxc_copy):
        lxc_copy.run(["sh", "-c", "echo seen on the console > /dev/console; hostname > /name"], check=True)
        assert lxc_copy.run(["true"]).returncode == 1
"""


class World:
    """Runs pytest in a directory of its own, and looks what it leaves."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.path = str(pytester.path)

    def run(self, *options: str) -> pytest.RunResult:
        """Run pytest there."""
        return self.pytester.runpytest_subprocess(*ANY_LOAD, *options, timeout=120)

    def containers(self) -> set[str]:
        """The containers below that directory."""
        return {str(path.parent) for path in Path(self.path).rglob("config")}


@pytest.fixture
def world(pytester: pytest.Pytester, lxcpath: str) -> Iterator[World]:
    """A directory for tests; fails if there are containers or processes of theirs afterwards."""
    left = Left(lxcpath)
    world = World(pytester)
    yield world
    await_guards(world.path)
    left.check()
    assert set() == world.containers()
    shutil.rmtree(f"/run/lxc/lock{world.path}", ignore_errors=True)


def test_example_side_by_side(world: World) -> None:
    """The tests of the example pass with four workers, each in a copy of its own."""
    pytest.importorskip("xdist")
    shutil.copy(ROOT / "examples/pytest/test_in_copies.py", world.path)
    result = world.run("-n", "4")
    result.assert_outcomes(passed=40)


def test_report_of_a_failure(world: World) -> None:
    """A failed test's report has what its copy's console showed and what liblxc logged; the copy is gone."""
    world.pytester.makepyfile(FAILING)
    result = world.run()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.re_match_lines([r"-+ log of liblxc, base_\w{6} -+", r"-+ console, base_\w{6} -+"])
    result.stdout.fnmatch_lines("*seen on the console")


def test_report_of_a_copy_that_does_not_start(world: World) -> None:
    """Where the copy itself does not start, the report has liblxc's log, too."""
    world.pytester.makepyfile("""
        from pathlib import Path

        def test_it(lxc_base, lxc_copy_factory, tmp_path):
            text = Path(lxc_base.lxcpath, lxc_base.name, "config").read_text()
            (tmp_path / "rc").write_text(f"{text}\\nlxc.init.cmd = /no/such/init\\n")
            lxc_copy_factory(rcfile=tmp_path / "rc")
    """)
    result = world.run()
    result.assert_outcomes(failed=1)
    result.stdout.re_match_lines([r"-+ log of liblxc, .* -+", ".* ERROR .*/no/such/init.*"])


def test_kept_copy(world: World) -> None:
    """The copy of a failed test stays where that is asked for, and the report says how to enter it and to end it."""
    world.pytester.makepyfile(FAILING)
    result = world.run("--lxc-keep")
    result.assert_outcomes(passed=1, failed=1)
    text = result.stdout.str()
    found = re.search(r"^lxc-attach -P (\S+) -n (\S+)\n(.*)\n.*\n(lxc-stop .*)\n(rm -r \S+) ", text, re.MULTILINE)
    assert found
    lxcpath, name, ours, stop, remove = found.groups()
    try:
        assert ["base", name] == sorted(os.listdir(lxcpath))
        for command in (ours, f"lxc-attach -P {lxcpath} -n {name}") if has("lxc-attach") else (ours,):
            shell = subprocess.run(
                ["sh", "-c", command], input="cat /name\n", capture_output=True, text=True, check=True
            )
            assert f"{name}\n" == shell.stdout
    finally:
        with Container(name, lxcpath) as copy:
            if has("lxc-stop"):
                subprocess.run(["sh", "-c", stop], check=True)
            copy.stop()
        with removed(lxcpath, "base"):
            assert ["base"] == os.listdir(lxcpath)
        subprocess.run(["sh", "-c", remove], check=True)
        shutil.rmtree(f"/run/lxc/lock{lxcpath}")


def test_killed_run(world: World) -> None:
    """When pytest itself is killed its copies end, and the base is left for pytest's next runs to remove."""
    world.pytester.makepyfile("""
        import os

        def test_it(lxc_copy, lxc_pool):
            os.kill(os.getpid(), 9)
    """)
    assert -9 == world.run().ret
    await_guards(world.path)
    (base,) = (one for one in world.containers() if os.path.basename(one) == "base")
    deadline = time.monotonic() + 20
    while {base} != world.containers():  # of the pool's copies one may just have been about to be started
        assert time.monotonic() < deadline
        await_guards(world.path)
        reap(os.path.dirname(base))
    with removed(*os.path.split(base)):
        pass


def test_machine_without_containers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there can be no containers tests are skipped with the reason, or fail where they are required."""
    monkeypatch.setenv("LXCCOPY_LIBLXC", "/no/such/liblxc.so")
    world.pytester.makepyfile("def test_it(lxc_copy): pass\ndef test_pool(lxc_pool): pass")
    result = world.run("-rs")
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines("SKIPPED * there can be no containers here: */no/such/liblxc.so*")
    result = world.run("--lxc-required")
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines("*there can be no containers here: */no/such/liblxc.so*")


def test_given_base(world: World, lxcpath: str) -> None:
    """A base that the options name is copied, and left as it is; that it is not there is an error."""
    world.pytester.makepyfile("""
        def test_it(lxc_copy, lxc_base, lxc_pool):
            assert lxc_copy.container.lxcpath == lxc_base.lxcpath
            assert lxc_pool.source == lxc_base.name
            assert lxc_copy.name.startswith("base_")
            assert lxc_copy.tmpfs_via
    """)
    world.run("--lxc-base=base", f"--lxc-path={lxcpath}").assert_outcomes(passed=1)
    assert ["base"] == os.listdir(lxcpath)
    result = world.run("--lxc-base=other", f"--lxc-path={lxcpath}")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(f"*container 'other' is not defined in {lxcpath}*")
    result = world.run(f"--lxc-path={lxcpath}")
    result.stderr.fnmatch_lines("ERROR: --lxc-path says where the base is that --lxc-base names")


def test_marker(world: World) -> None:
    """The marker's keywords reach the copy, those of the function over those of the class, the factory's over both."""
    world.pytester.makepyfile("""
        import pytest

        @pytest.mark.lxc(tmpfs=False, mounts=["bind=/usr:/mnt:ro"])
        class TestMarked:
            def test_class(self, lxc_copy):
                assert lxc_copy.tmpfs_via is None
                assert lxc_copy.run(["test", "-d", "/mnt/bin"]).returncode == 0

            @pytest.mark.lxc(tmpfs=True)
            def test_function(self, lxc_copy, lxc_copy_factory):
                assert lxc_copy.tmpfs_via
                other = lxc_copy_factory(tmpfs=False, mounts=[])
                assert other.tmpfs_via is None
                assert other.run(["test", "-d", "/mnt/bin"]).returncode == 1

        @pytest.mark.lxc("base")
        def test_positional(lxc_copy):
            pass

        @pytest.mark.lxc(tmpfs="no")
        def test_wrong(lxc_copy):
            pass
    """)
    result = world.run()
    result.assert_outcomes(passed=2, errors=2)
    result.stdout.fnmatch_lines("*lxc takes keywords only*")
    result.stdout.fnmatch_lines("*OptionError: tmpfs must be True or False, not 'no'")


def test_other_suites_do_not_pay(world: World) -> None:
    """A run of pytest that does not use it imports nothing of the package."""
    world.pytester.makepyfile("""
        import sys

        def test_it():
            assert "lxccopy_pytest" in sys.modules
            assert not [name for name in sys.modules if name.startswith("lxccopy_ffi")]
    """)
    world.run().assert_outcomes(passed=1)
