# SPDX-License-Identifier: LGPL-2.1-or-later
"""Archives and images for tests, good ones and hostile ones."""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Union

# A file with its content, or anything else.
Packed = Union["tuple[tarfile.TarInfo, bytes]", tarfile.TarInfo]

PLATFORM = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)


def info(name: str, kind: bytes = tarfile.REGTYPE, **more: Any) -> tarfile.TarInfo:
    """The header of a member, with further attributes of TarInfo."""
    header = tarfile.TarInfo(name)
    header.type = kind
    header.mode = 0o755
    for key, value in more.items():
        setattr(header, key, value)
    return header


def file(name: str, content: bytes = b"text\n", **more: Any) -> Packed:
    """A file."""
    return info(name, size=len(content), **more), content


def link(name: str, target: str) -> Packed:
    """A symbolic link."""
    return info(name, tarfile.SYMTYPE, linkname=target)


def hard(name: str, target: str) -> Packed:
    """A hard link."""
    return info(name, tarfile.LNKTYPE, linkname=target)


def directory(name: str, **more: Any) -> Packed:
    """A directory."""
    return info(name, tarfile.DIRTYPE, **more)


def node(name: str, major: int, minor: int, kind: bytes = tarfile.CHRTYPE) -> Packed:
    """A device node."""
    return info(name, kind, devmajor=major, devminor=minor)


def tar(*members: Packed) -> bytes:
    """An archive, as it is: no name, link or size is checked."""
    parts = []
    for member in members:
        header, content = member if isinstance(member, tuple) else (member, b"")
        parts += [header.tobuf(tarfile.PAX_FORMAT, "utf-8"), content, bytes(-len(content) % tarfile.BLOCKSIZE)]
    return b"".join(parts) + bytes(2 * tarfile.BLOCKSIZE)


def tar_of(path: Path) -> bytes:
    """An archive of what is in a directory."""
    command = ["tar", "-C", str(path), "--numeric-owner", "--xattrs", "--xattrs-include=*", "-S", "-cf", "-", "."]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout


def zstd(data: bytes) -> bytes:
    """Pack it with zstd."""
    return subprocess.run(["zstd", "-q", "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "tar.gz": gzip.compress,
    "tar.xz": lzma.compress,
    "tar.zst": zstd,
}


class Layout:
    """An OCI layout that is being written.

    Args:
        path: Its directory, which is made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "blobs/sha256").mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def blob(self, data: bytes, **more: Any) -> dict[str, Any]:
        """Write a blob; its descriptor, with further entries."""
        digest = hashlib.sha256(data).hexdigest()
        (self.path / "blobs/sha256" / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data), **more}

    def image(self, *layers: bytes, architecture: str = PLATFORM, **more: Any) -> dict[str, Any]:
        """Write an image; its descriptor, with further entries."""
        config = self.blob(json.dumps({"os": "linux", "architecture": architecture}).encode())
        manifest = {"schemaVersion": 2, "config": config, "layers": [self.blob(layer) for layer in layers]}
        return self.blob(json.dumps(manifest).encode(), **more)

    def index(self, manifests: Iterable[Any]) -> Path:
        """Write which images there are."""
        (self.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": list(manifests)}))
        return self.path


def docker_save(*layers: bytes, architecture: str = PLATFORM, broken: bool = False) -> bytes:
    """What older versions of docker save write."""
    sums = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    if broken:
        sums[-1] = f"sha256:{'0' * 64}"
    config = {"os": "linux", "architecture": architecture, "rootfs": {"type": "layers", "diff_ids": sums}}
    text = json.dumps(config).encode()
    name = hashlib.sha256(text).hexdigest()
    manifest = [{"Config": f"{name}.json", "RepoTags": ["x"], "Layers": [f"{n}/layer.tar" for n in range(len(layers))]}]
    files = [file(f"{number}/layer.tar", layer) for number, layer in enumerate(layers)]
    return tar(*files, file(f"{name}.json", text), file("manifest.json", json.dumps(manifest).encode()))


def contents(top: Path) -> dict[str, tuple[object, ...]]:
    """All that is below a directory: kind, mode, owner and content."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(top))] = (oct(status.st_mode), status.st_uid, status.st_nlink, content)
    return found
