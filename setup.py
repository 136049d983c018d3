# SPDX-License-Identifier: LGPL-2.1-or-later
"""What pyproject.toml cannot say: the cffi module, and the stable-ABI tag it allows."""

from __future__ import annotations

import sysconfig

from setuptools import setup

# Free-threaded builds of Python have no stable ABI before 3.15.
options = {} if sysconfig.get_config_var("Py_GIL_DISABLED") else {"bdist_wheel": {"py_limited_api": "cp39"}}

setup(cffi_modules=["build_ffi.py:extension"], options=options)
