# SPDX-License-Identifier: LGPL-2.1-or-later
"""Images: the layers of an OCI layout, or of what ``docker save`` writes, once that is unpacked.

Nothing of a layer is looked at before its sha256 sum is the right one.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager

from . import identity
from ._raw import IN_ROOT, openat2
from .archive import opened, reading
from .errors import LxcCopyError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO, Any

_LARGEST_TEXT = 4 << 20
_DEEPEST = 4
_BLOCK = 1 << 20

_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)

# What images call machines, where that is not what the kernel does.
_MACHINES = {
    "x86_64": "amd64",
    "i386": "386",
    "i586": "386",
    "i686": "386",
    "aarch64": "arm64",
    "armv6l": "arm",
    "armv7l": "arm",
    "armv8l": "arm",
}


class Image:
    """An image in a directory.

    Args:
        path: The directory.

    Attributes:
        layers: The paths of its layers' archives below the directory, lowest first.
        size: How many bytes they have.

    Raises:
        UnsupportedError: It is broken, is none for this machine, or there are several.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        with _broken(path):
            self.layers = self._docker_layers() if self._is_docker() else self._oci_layers()
        if not self.layers:
            raise UnsupportedError(f"the image in {path} has no layers")
        self.size = 0
        for layer in self.layers:
            with self.open(layer) as file:
                self.size += os.fstat(file.fileno()).st_size

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file of the image; what links in there say is about the image's directory."""
        with _opened(self._path, name) as file:
            yield file

    def _is_docker(self) -> bool:
        return not os.path.lexists(f"{self._path}/oci-layout")

    def _json(self, name: str, digest: str = "") -> Any:  # noqa: ANN401 - whatever is in there
        import hashlib
        import json

        with self.open(name) as file:
            text = file.read(_LARGEST_TEXT)
        if digest and hashlib.sha256(text).hexdigest() != digest:
            raise _wrong_sum(self._path, name)
        return json.loads(text)

    # OCI

    def _oci_layers(self) -> list[str]:
        found = self._fitting(self._json("index.json")["manifests"], 0)
        if len({one["digest"] for one in found}) > 1:
            names = ", ".join(str((one.get("annotations") or {}).get(_REF, one["digest"])) for one in found)
            raise UnsupportedError(f"there are several images in {self._path}: {names}; keep the one that is wanted")
        if not found:
            raise UnsupportedError(f"there is no image for {_platform()} in {self._path}")
        manifest = self._json(*_blob(found[0]))
        self._check_platform(self._json(*_blob(manifest["config"])))
        return [self._layer(layer) for layer in manifest["layers"]]

    def _fitting(self, manifests: list[Any], depth: int) -> list[Any]:
        """The manifests for this machine; of each further index the first one, as it is the best."""
        found = []
        for one in manifests:
            platform = one.get("platform") or {}
            if platform and f"{platform.get('os')}/{platform.get('architecture')}" != _platform():
                continue
            if one.get("mediaType") not in _INDEXES:
                found.append(one)
            elif depth < _DEEPEST:
                found += self._fitting(self._json(*_blob(one))["manifests"], depth + 1)[:1]
        return found

    def _layer(self, descriptor: Any) -> str:  # noqa: ANN401 - whatever is in there
        name, digest = _blob(descriptor)
        with self.open(name) as file:
            if os.fstat(file.fileno()).st_size != descriptor["size"] or _sum(file) != digest:
                raise _wrong_sum(self._path, name)
        return name

    def _check_platform(self, config: Any) -> None:  # noqa: ANN401 - whatever is in there
        platform = f"{config.get('os', 'linux')}/{config.get('architecture')}"
        if platform != _platform():
            raise UnsupportedError(f"the image in {self._path} is for {platform}, and this machine is {_platform()}")

    # docker save

    def _docker_layers(self) -> list[str]:
        images = self._json("manifest.json")
        if len(images) != 1:
            raise UnsupportedError(f"there are {len(images)} images in {self._path}; save the one that is wanted")
        (image,) = images
        name = os.path.basename(image["Config"]).partition(".")[0]
        config = self._json(image["Config"], name if _is_sum(name) else "")
        self._check_platform(config)
        sums = config["rootfs"]["diff_ids"]
        if len(sums) != len(image["Layers"]):
            raise UnsupportedError(f"the image in {self._path} has not as many layers as it says")
        for layer, digest in zip(image["Layers"], sums):
            where = f"{self._path}/{layer}"
            with self.open(layer) as file, opened(file, where) as stream, reading(where):
                if f"sha256:{_sum(stream)}" != digest:
                    raise _wrong_sum(self._path, layer)
        return list(image["Layers"])


_REF = "org.opencontainers.image.ref.name"


def is_image(path: str) -> bool:
    """Whether a directory is an image's, and not a system's."""
    try:
        if os.path.isfile(f"{path}/oci-layout") and not os.path.islink(f"{path}/oci-layout"):
            with _opened(path, "index.json"):
                return True
        import json

        with _opened(path, "manifest.json") as file:
            said = json.loads(file.read(_LARGEST_TEXT))
    except (OSError, ValueError, RecursionError, UnsupportedError):
        return False
    return isinstance(said, list) and bool(said) and all(isinstance(one, dict) and "Layers" in one for one in said)


@contextmanager
def _opened(path: str, name: str) -> Iterator[IO[bytes]]:
    root = identity.open_root(path)
    try:
        fd = openat2(root, name, os.O_RDONLY | os.O_NONBLOCK, IN_ROOT)
    finally:
        os.close(root)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise UnsupportedError(f"{path}/{name} is no file")
    with open(fd, "rb", buffering=0) as file:
        yield file


@contextmanager
def _broken(path: str) -> Iterator[None]:
    """Puts into our words what is missing or of another type than it ought to be."""
    try:
        yield
    except LxcCopyError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise UnsupportedError(f"the image in {path} is broken: {error!r}") from error
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        raise UnsupportedError(f"the image in {path} is broken: {name}{error.strerror or error}") from error


def _blob(descriptor: Any) -> tuple[str, str]:  # noqa: ANN401 - whatever is in there
    """The path and the sum of what a descriptor stands for."""
    kind, _, digest = descriptor["digest"].partition(":")
    if kind != "sha256" or not _is_sum(digest):
        raise UnsupportedError(f"{descriptor['digest']!r} is no sha256 sum, which images here must have")
    return f"blobs/sha256/{digest}", digest


def _is_sum(text: str) -> bool:
    return len(text) == 64 and all(digit in "0123456789abcdef" for digit in text)


def _sum(stream: Any) -> str:  # noqa: ANN401 - anything that can be read
    import hashlib

    found = hashlib.sha256()
    while data := stream.read(_BLOCK):
        found.update(data)
    return found.hexdigest()


def _wrong_sum(path: str, name: str) -> UnsupportedError:
    return UnsupportedError(f"{path}/{name} is not what it was: its size or its sha256 sum is another one")


def _platform() -> str:
    machine = os.uname().machine
    return f"linux/{_MACHINES.get(machine, machine)}"
