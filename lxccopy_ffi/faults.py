# SPDX-License-Identifier: LGPL-2.1-or-later
"""The steps of our own at which a test can end us, as an accident could: what then is left must be found by reap()."""

from __future__ import annotations

import os

# In the order in which a throwaway copy, and after it a rename, takes them. The last ones are the start helper's, in
# csrc/spawner.c.
STEPS = (
    "directory-made",
    "ledger-written",
    "name-claimed",
    "copied",
    "followed",
    "marked",
    "personalised",
    "mounts-added",
    "saved",
    "helper-forked",
    "reported",
    "started",
    "command-entered",
    "command-ended",
    "stopped",
    "bases-told",
    "lock-removed",
    "entombed",
    "emptied",
    "gone",
    "released",
    "journal-written",
    "moved",
    "exchanged",
    "renamed-for-bases",
    "renamed-inside",
    "helper-begun",
    "helper-mounted",
    "helper-loaded",
    "helper-started",
    "helper-reported",
)

KILL_AT = os.environ.get("LXCCOPY_KILL_AT", "")
"""The step at which we are killed; empty for none."""


def reach(step: str) -> None:
    """Die here if that is what was asked for."""
    if step == KILL_AT:
        os.kill(os.getpid(), 9)
