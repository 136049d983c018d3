# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reading a tar archive, compressed or not, as members of a root file system, in one pass."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import contextmanager

from .errors import AccessError, LxcCopyError, UnsupportedError
from .storage import find_program
from .tree import HARD_LINK, Member

TYPE_CHECKING = False
if TYPE_CHECKING:
    import tarfile
    from collections.abc import Iterator
    from typing import IO, Any, Protocol

    class Stream(Protocol):
        """What can be read."""

        def read(self, size: int, /) -> bytes:
            """Read so much, or less."""


_GZIP, _XZ, _ZSTD = b"\x1f\x8b", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"

_BLOCK = 1 << 20

# What the names, owners and attributes of one member may take; a hostile archive must not fill our memory.
_LARGEST_HEADER = 1 << 20
_LARGEST_HEADERS = 8 << 20

# What may follow the end of an archive.
_LARGEST_REST = 1 << 30

_XATTR = "SCHILY.xattr."


def check(file: IO[bytes], path: str) -> None:
    """Refuse early what is no archive, or cannot be unpacked here.

    Args:
        file: The archive, at its beginning; it is there again afterwards.
        path: Its path, for the errors.

    Raises:
        UnsupportedError: It is none, or a program for it is missing.
    """
    with opened(file, path) as stream:
        for _ in members(stream, path):
            break
        else:
            raise UnsupportedError(f"{path} is an empty archive")
    file.seek(0)


@contextmanager
def opened(file: IO[bytes], path: str) -> Iterator[Stream]:
    """Open what is in a file that may be compressed.

    Args:
        file: The file, unbuffered.
        path: Its path, for the errors.

    Raises:
        UnsupportedError: There is nothing on this machine to unpack it with.
    """
    magic = os.pread(file.fileno(), 6, 0)
    if magic.startswith(_GZIP):
        import gzip

        with gzip.GzipFile(fileobj=file) as stream:
            yield stream
    elif magic.startswith(_XZ):
        import lzma

        with lzma.LZMAFile(file) as xz:
            yield xz
    elif magic.startswith(_ZSTD):
        with _zstd(file, path) as zstd:
            yield zstd
    else:
        yield file


@contextmanager
def _zstd(file: IO[bytes], path: str) -> Iterator[Stream]:
    if sys.version_info >= (3, 14):
        from compression.zstd import ZstdFile

        with ZstdFile(file) as stream:
            yield stream
        return
    import subprocess

    program = find_program("zstd")
    if not program:
        raise UnsupportedError(f"the program zstd is not installed, which {path} is packed with; its package is zstd")
    command = [program, "-q", "-d", "-c"]
    with subprocess.Popen(command, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None  # noqa: S101 - for the type checker
        try:
            yield _Output(process)
        finally:
            process.kill()


class _Output:
    """What a program writes, whose end is one only if the program says so."""

    def __init__(self, process: Any) -> None:  # noqa: ANN401 - subprocess costs too much to import
        self._process = process

    def read(self, size: int) -> bytes:
        data: bytes = self._process.stdout.read(size)
        if not data and size and self._process.wait() != 0:
            raise EOFError("zstd cannot unpack it")
        return data


class _Bounded:
    """A stream of which no more than so much is read until it is told again that it may."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.left: int | None = None

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        if self.left is not None:
            self.left -= len(data)
            if self.left < 0:
                raise UnsupportedError("a member's name or attributes are larger than any system has")
        return data


def members(stream: Stream, path: str) -> Iterator[Member]:
    """Yield the members of a tar archive, each to be used before the next one.

    Args:
        stream: The archive.
        path: Its path, for the errors.

    Raises:
        UnsupportedError: It is broken, cut off, or has what does not belong into a root file system.
    """
    import tarfile

    bounded = _Bounded(stream)
    with reading(path):
        bounded.left = _LARGEST_HEADERS
        tar = tarfile.open(  # noqa: SIM115 - it has nothing to close
            fileobj=bounded,  # type: ignore[call-overload]
            mode="r|",
            tarinfo=_checked(tarfile),
            encoding="utf-8",
            errors="surrogateescape",
        )
    while True:
        with reading(path):
            bounded.left = _LARGEST_HEADERS
            info = tar.next()
            bounded.left = None
            if info is None:
                break
            tar.members = []  # it would keep all of them
            member = _member(tar, info, path)
        yield member
    rest = _LARGEST_REST
    with reading(path):
        while data := bounded.read(_BLOCK):  # to the end, where a compressed file has its checksum
            rest -= len(data)
            if rest < 0:
                raise UnsupportedError(f"{path} goes on long after the end of the archive")


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Puts what tarfile and the like say of a broken archive into our words."""
    import tarfile
    import zlib

    try:
        from lzma import LZMAError
    except ImportError:
        LZMAError = EOFError  # type: ignore[assignment, misc]  # noqa: N806 - then nobody raises it
    broken = (
        tarfile.TarError,
        zlib.error,
        LZMAError,
        EOFError,
        ValueError,
        ArithmeticError,
        LookupError,
        RecursionError,
    )
    try:
        yield
    except LxcCopyError:
        raise
    except broken as error:
        raise UnsupportedError(f"{path} is no tar archive that can be read: {error}") from error
    except OSError as error:
        if error.errno is None:  # gzip's
            raise UnsupportedError(f"{path} is no tar archive that can be read: {error}") from error
        raise AccessError(f"cannot read {path}: {error.strerror}") from error


def _checked(tarfile: Any) -> Any:  # noqa: ANN401 - a module, and a class of what is in it
    """A class for headers like tarfile's, but for those that are broken, which it takes for the end."""

    class Checked(tarfile.TarInfo):  # type: ignore[misc]
        @classmethod
        def frombuf(cls, buf: bytes, encoding: str, errors: str) -> Any:  # noqa: ANN401 - itself
            try:
                info = super().frombuf(buf, encoding, errors)
            except tarfile.EOFHeaderError:
                raise
            except tarfile.HeaderError as error:
                raise UnsupportedError(f"the archive is broken or cut off: {error}") from error
            extension = info.type in (b"L", b"K", b"x", b"g", b"X")
            if info.size < 0 or (extension and info.size > _LARGEST_HEADER):
                raise UnsupportedError(f"the archive has a member of the impossible size {info.size}")
            return info

    return Checked


def _member(tar: tarfile.TarFile, info: tarfile.TarInfo, path: str) -> Member:
    kinds = {
        b"1": HARD_LINK,
        b"2": stat.S_IFLNK,
        b"3": stat.S_IFCHR,
        b"4": stat.S_IFBLK,
        b"5": stat.S_IFDIR,
        b"6": stat.S_IFIFO,
    }
    kind = stat.S_IFREG if info.isreg() else kinds.get(info.type)
    if kind is None:
        raise UnsupportedError(f"{info.name!r} is of a kind that is unknown, {info.type!r}")
    sparse: Any = info.sparse
    parts = [(0, info.size)] if sparse is None else [(int(offset), int(size)) for offset, size in sparse]
    return Member(
        _native(info.name),
        kind,
        mode=info.mode,
        owner=(info.uid, info.gid),
        time=int(info.mtime * 10**9),
        target=_native(info.linkname),
        device=os.makedev(info.devmajor, info.devminor) if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0,
        size=info.size if kind == stat.S_IFREG else 0,
        stored=sum(size for _, size in parts) if kind == stat.S_IFREG else 0,
        content=_content(tar, info, parts, path) if kind == stat.S_IFREG else (),
        attributes={
            key[len(_XATTR) :]: value.encode("utf-8", "surrogateescape")
            for key, value in info.pax_headers.items()
            if key.startswith(_XATTR)
        },
    )


def _native(name: str) -> str:
    """A name as this process's functions take it, which stands for the same bytes."""
    return os.fsdecode(name.encode("utf-8", "surrogateescape"))


def _content(
    tar: tarfile.TarFile, info: tarfile.TarInfo, parts: list[tuple[int, int]], path: str
) -> Iterator[tuple[int, bytes]]:
    file: Any = tar.fileobj  # whose own reader fills holes with zeros
    with reading(path):
        file.seek(info.offset_data)
    for offset, size in parts:
        begin, end = offset, offset + size
        while begin < end:
            with reading(path):
                data = file.read(min(_BLOCK, end - begin))
                if not data:
                    raise EOFError(f"{info.name!r} is cut off")
            yield begin, data
            begin += len(data)
