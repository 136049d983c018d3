# SPDX-License-Identifier: LGPL-2.1-or-later
"""Waiting for a state of a container, for any time, and so that signal handlers run meanwhile."""

from __future__ import annotations

import os
import signal
import threading

from ._raw import above_stdio, ffi, lib, text
from .errors import LiblxcError, OptionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from ._liblxc import _Container

    Look = Callable[[_Container], bool]

STATES = ("STOPPED", "STARTING", "RUNNING", "STOPPING", "ABORTING", "FREEZING", "FROZEN", "THAWED")

# How long to wait before looking again at a container that does not run, in seconds; liblxc itself takes a whole one.
_PAUSE = 0.01


def check_states(states: str | Iterable[str]) -> frozenset[str]:
    """Return one state or several as a set, or raise OptionError for what is none."""
    if isinstance(states, bytes) or not hasattr(states, "__iter__"):
        raise OptionError(f"the state must be a str or several, not {states!r}")
    wanted = [states] if isinstance(states, str) else list(states)
    for state in wanted:
        if state not in STATES:
            raise OptionError(f"there is no state {state!r}; there are {', '.join(STATES)}")
    if not wanted:
        raise OptionError("no state is given to wait for")
    return frozenset(wanted)


def reached(states: frozenset[str]) -> Look:
    """Return what looks once for one of some states, and up to a second where the container runs."""
    words = "|".join(sorted(states)).encode()

    def look(container: _Container) -> bool:
        if text(lib.container_state(container)) in states:
            return True
        return lib.container_is_running(container) and lib.container_wait(container, words, 1)

    return look


def rebooted(init: int) -> Look:
    """Return what looks once whether a container runs with another init than that."""

    def look(container: _Container) -> bool:
        return text(lib.container_state(container)) == "RUNNING" and lib.container_init_pid(container) not in {-1, init}

    return look


class StateWatch:
    """Looks at a container again and again, from a thread and through a handle of its own.

    liblxc answers those who ask about a container that starts only when it runs, or has failed, and waits for whole
    seconds; so it is the thread that asks.

    Args:
        name: The container's name.
        lxcpath: The directory that holds it.
        look: Returns whether it is as it should be; takes a second at most, or as long as it starts.

    Raises:
        LiblxcError: It has a configuration that liblxc cannot read.

    Attributes:
        fd: Readable once it is.
    """

    def __init__(self, name: str, lxcpath: str, look: Look) -> None:
        self._container = lib.lxc_container_new(os.fsencode(name), os.fsencode(lxcpath))
        if self._container == ffi.NULL:
            raise LiblxcError("open", name, lxcpath, "liblxc gave no reason")
        self._look = look
        self._closing = threading.Event()
        ours, self._theirs = os.pipe()
        self.fd = above_stdio(ours)
        # If it is stuck in liblxc, nobody waits for it: it tidies up after itself.
        threading.Thread(target=self._run, name="lxccopy-state", daemon=True).start()

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())  # they are the main thread's, to wake it
        try:
            while not self._closing.is_set() and not self._look(self._container):
                self._closing.wait(_PAUSE)
        finally:
            os.close(self._theirs)
            lib.lxc_container_put(self._container)

    def __enter__(self) -> StateWatch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        os.close(self.fd)
