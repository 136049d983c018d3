# SPDX-License-Identifier: LGPL-2.1-or-later
"""A line on a terminal that says how far a copy is."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager, suppress

from ._raw import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Progress = Callable[[int, int], None]

# What takes less is not worth a line, in seconds.
_PATIENCE = 0.5

# Over how long the rate is taken, in seconds.
_WINDOW = 5.0


class Meter:
    """Shows the bytes done, the total, the rate and the time left, in one line.

    Args:
        write: Puts text on the terminal.
        clock: Tells the time, in seconds.
    """

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._start = clock()
        self._samples = [(self._start, 0)]
        self._shown = False

    def __call__(self, done: int, total: int) -> None:
        """Show how far it is, in bytes."""
        now = self._clock()
        self._samples = [sample for sample in self._samples if now - sample[0] <= _WINDOW] or self._samples[-1:]
        (since, before), *_ = self._samples
        self._samples.append((now, done))
        if now - self._start >= _PATIENCE:
            self._shown = True
            self._put(f"\r{meter_line(done, total, (done - before) / max(now - since, 0.001))}\x1b[K")

    def close(self) -> None:
        """Remove the line."""
        if self._shown:
            self._put("\r\x1b[K")
            self._shown = False

    def _put(self, text: str) -> None:
        with suppress(OSError):  # the terminal is gone, which is no reason to stop
            self._write(text)


@contextmanager
def metered(*, quiet: bool) -> Iterator[Progress]:
    """Shows a person on stderr how far a copy is; a pipe gets nothing."""
    if quiet or not os.isatty(2):
        from .progress import ignore

        yield ignore
        return
    meter = Meter(lambda text: write_all(2, os.fsencode(text)))
    try:
        yield meter
    finally:
        meter.close()


def meter_line(done: int, total: int, rate: float) -> str:
    """Return what is shown.

    Args:
        done: In bytes.
        total: In bytes; 0 where it is not known.
        rate: In bytes a second.
    """
    line = f"Copied {human(done)}" + (f" of {human(total)}" if total else "") + f", {human(rate)}/s"
    if rate and total >= done:
        minutes, seconds = divmod(round((total - done) / rate), 60)
        line += f", {minutes}:{seconds:02} left"
    return line


def human(size: float) -> str:
    """Return a number of bytes as people read it, for example ``1.5 GiB``."""
    units = ["TiB", "GiB", "MiB", "KiB"]
    unit = "B"
    while size >= 1000 and units:
        size, unit = size / 1024, units.pop()
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
