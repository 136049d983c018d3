# SPDX-License-Identifier: LGPL-2.1-or-later
"""``python -m lxccopy_ffi``: the same as ``lxccopy``."""

import sys

from .cli import main

sys.exit(main())
