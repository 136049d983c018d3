# SPDX-License-Identifier: LGPL-2.1-or-later
"""Build the extension ``lxccopy_ffi._liblxc`` with cffi, out of line, in API mode.

It needs a C compiler and cffi: no lxc-dev and no liblxc, which is loaded when first used.
"""

from __future__ import annotations

from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent

SOURCE = """
#include "kernel.c"
#include "liblxc.c"
#include "spawner.c"
#include "command.c"
"""


def extension() -> FFI:
    """The builder that setup.py names; cffi calls it when setuptools builds extensions."""
    ffi = FFI()
    ffi.cdef((HERE / "include" / "liblxc.cdef.h").read_text(encoding="utf-8"))
    ffi.set_source(
        "lxccopy_ffi._liblxc",
        SOURCE,
        include_dirs=["include", "csrc"],
        depends=["include/lxcabi.h", *sorted(f"csrc/{path.name}" for path in (HERE / "csrc").glob("*.c"))],
        libraries=["dl"],  # glibc before 2.34 keeps dlopen() there
        extra_compile_args=["-std=gnu11", "-Wall", "-Wextra", "-Werror=implicit-function-declaration"],
    )
    return ffi


if __name__ == "__main__":
    extension().compile(verbose=True)
