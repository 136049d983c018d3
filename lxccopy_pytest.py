# SPDX-License-Identifier: LGPL-2.1-or-later
"""A plugin for pytest: tests in throwaway copies.

Every run of pytest loads it, also those that do not use it. So it stands outside of the package, which takes 30 ms to
import, and imports that when a fixture is asked for.
"""

from __future__ import annotations

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lxccopy_ffi.ephemeral import EphemeralCopy
    from lxccopy_ffi.pool import Pool
    from lxccopy_ffi.pytest_copies import Base, Copies

_COPIES = "lxccopy_copies"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("lxc", "throwaway LXC containers (lxccopy_ffi)")
    group.addoption("--lxc-base", metavar="NAME", help="what to copy; where not given, a small one is made")
    group.addoption("--lxc-path", metavar="DIR", help="the directory with that base; LXC's own where not given")
    group.addoption(
        "--lxc-pool-size", metavar="N", type=int, default=2, help="how many copies lxc_pool has (default 2)"
    )
    group.addoption(
        "--lxc-keep", action="store_true", help="leave the copies of failed tests running, and say how to enter"
    )
    group.addoption("--lxc-required", action="store_true", help="fail where there can be no containers, do not skip")


def pytest_configure(config: pytest.Config) -> None:
    """Say what the marker is, and refuse options that contradict each other."""
    config.addinivalue_line("markers", "lxc(**options): keywords of EphemeralCopy for lxc_copy and lxc_copy_factory")
    if config.getoption("--lxc-path") and not config.getoption("--lxc-base"):
        raise pytest.UsageError("--lxc-path says where the base is that --lxc-base names")


@pytest.fixture(scope="session")
def lxc_base(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Base]:
    """What is copied: has a name and an lxcpath. With pytest-xdist each worker makes one of its own."""
    from lxccopy_ffi import pytest_copies

    base = pytest_copies.open_base(pytestconfig, tmp_path_factory)
    yield base
    base.close()


@pytest.fixture
def lxc_copy_factory(request: pytest.FixtureRequest, lxc_base: Base) -> Iterator[Callable[..., EphemeralCopy]]:
    """Makes and starts copies, with the keywords of EphemeralCopy over those of the marker. They end with the test."""
    from lxccopy_ffi.pytest_copies import Copies

    copies = Copies(lxc_base, request.node, keep=request.config.getoption("--lxc-keep"))
    setattr(request.node, _COPIES, copies)
    yield copies.make
    copies.close()


@pytest.fixture
def lxc_copy(lxc_copy_factory: Callable[..., EphemeralCopy]) -> EphemeralCopy:
    """A fresh copy that runs, with its changes in memory where the marker does not say otherwise."""
    return lxc_copy_factory()


@pytest.fixture(scope="session")
def lxc_pool(pytestconfig: pytest.Config, lxc_base: Base) -> Iterator[Pool]:
    """A pool of copies, for tests that run a command each in a copy of its own."""
    from lxccopy_ffi.pool import Pool

    with Pool(lxc_base.name, pytestconfig.getoption("--lxc-pool-size"), lxcpath=lxc_base.lxcpath) as pool:
        yield pool


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Add what is known of its copies to the report of a failed test, while they are still there."""
    outcome = yield
    copies: Copies | None = getattr(item, _COPIES, None)
    if copies is None:
        return
    report: pytest.TestReport = outcome.get_result()  # type: ignore[attr-defined]
    if report.failed and report.when != "teardown":
        report.sections += copies.note_failure()
