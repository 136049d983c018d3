# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a person sees of a long copy, and where notices go."""

from __future__ import annotations

import logging

import pytest

from lxccopy_ffi import notices
from lxccopy_ffi.meter import Meter, human, meter_line

K, M, G, T = (1 << 10 * power for power in (1, 2, 3, 4))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (0.4, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KiB"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (999 * K, "999.0 KiB"),
        (1000 * K, "1.0 MiB"),
        (1.5 * G, "1.5 GiB"),
        (T, "1.0 TiB"),
        (5000 * T, "5000.0 TiB"),
    ],
)
def test_human(size: float, expected: str) -> None:
    """A number of bytes has one decimal and a unit with which it is below a thousand, as far as there are units."""
    assert expected == human(size)


@pytest.mark.parametrize(
    ("done", "total", "rate", "expected"),
    [
        (0, 100 * M, 0.0, "Copied 0 B of 100.0 MiB, 0 B/s"),
        (50 * M, 100 * M, 50.0 * M, "Copied 50.0 MiB of 100.0 MiB, 50.0 MiB/s, 0:01 left"),
        (10 * M, 100 * M, 1.0 * M, "Copied 10.0 MiB of 100.0 MiB, 1.0 MiB/s, 1:30 left"),
        (M, 3601 * M, 1.0 * M, "Copied 1.0 MiB of 3.5 GiB, 1.0 MiB/s, 60:00 left"),
        (M, 66 * M, 1.0 * M, "Copied 1.0 MiB of 66.0 MiB, 1.0 MiB/s, 1:05 left"),
        (100 * M, 100 * M, 25.0 * M, "Copied 100.0 MiB of 100.0 MiB, 25.0 MiB/s, 0:00 left"),
        (50 * M, 100 * M, 0.0, "Copied 50.0 MiB of 100.0 MiB, 0 B/s"),
        (5 * M, 0, 1.0 * M, "Copied 5.0 MiB, 1.0 MiB/s"),
        (0, 0, 0.0, "Copied 0 B, 0 B/s"),
    ],
)
def test_meter_line(done: int, total: int, rate: float, expected: str) -> None:
    """The line has the bytes done, the total, the rate and the time left, as far as they are known."""
    assert expected == meter_line(done, total, rate)


class Clock:
    """A clock that tells what it is set to."""

    time = 100.0

    def __call__(self) -> float:
        """Tell it."""
        return self.time


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


def test_meter_is_patient(clock: Clock) -> None:
    """In the first half second nothing is shown, and then nothing has to be removed."""
    written: list[str] = []
    meter = Meter(written.append, clock)
    for moment in (100.0, 100.2, 100.49):
        clock.time = moment
        meter(1, 10)
    meter.close()
    assert [] == written


def test_meter(clock: Clock) -> None:
    """Each line replaces the one before, and the last one is removed, once."""
    written: list[str] = []
    meter = Meter(written.append, clock)
    clock.time = 102.0
    meter(4 * M, 8 * M)
    clock.time = 103.0
    meter(6 * M, 8 * M)
    meter.close()
    meter.close()
    lines = ["Copied 4.0 MiB of 8.0 MiB, 2.0 MiB/s, 0:02 left", "Copied 6.0 MiB of 8.0 MiB, 2.0 MiB/s, 0:01 left"]
    assert [*(f"\r{line}\x1b[K" for line in lines), "\r\x1b[K"] == written


def test_rate_is_that_of_the_last_seconds(clock: Clock) -> None:
    """The rate is taken over five seconds: what was slow or fast before that counts no more."""
    written: list[str] = []
    meter = Meter(written.append, clock)
    done = 0
    for second in range(1, 31):
        clock.time = 100.0 + second
        done += 100 * M if second <= 10 else M
        meter(done, 2000 * M)
    rates = [line.split(", ")[1] for line in written]
    assert (["100.0 MiB/s"] * 10, ["1.0 MiB/s"] * 15) == (rates[:10], rates[15:])


def test_meter_after_a_break(clock: Clock) -> None:
    """After a long time without news the rate is that since the last one."""
    written: list[str] = []
    meter = Meter(written.append, clock)
    for moment, done in ((101.0, 50 * M), (121.0, 70 * M)):
        clock.time = moment
        meter(done, 100 * M)
    assert "\rCopied 70.0 MiB of 100.0 MiB, 1.0 MiB/s, 0:30 left\x1b[K" == written[-1]


def test_meter_has_a_clock_of_its_own() -> None:
    """Without another clock the time since the meter was made counts."""
    written: list[str] = []
    Meter(written.append)(1, 10)
    assert [] == written


# Notices


def test_warning_goes_to_the_log(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Unless somebody else shows it, a notice is a warning of the logger lxccopy_ffi, and no format for one."""
    monkeypatch.setattr(notices, "_show", notices.log)
    notices.warn("50% of %s")
    assert [("lxccopy_ffi", logging.WARNING, "50% of %s")] == caplog.record_tuples


def test_warning_is_shown_otherwise(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A function that shows notices gets them, and the log does not."""
    monkeypatch.setattr(notices, "_show", notices.log)
    shown: list[str] = []
    notices.show_with(shown.append)
    for text in ("one", "two"):
        notices.warn(text)
    assert (["one", "two"], []) == (shown, caplog.record_tuples)
