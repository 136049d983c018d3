# SPDX-License-Identifier: LGPL-2.1-or-later
"""Host name, hosts and machine id of a copy, in directory trees that are ordinary, layered or hostile."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import ROOT, require

from lxccopy_ffi._raw import new_mount
from lxccopy_ffi.clone import personalise_layers

NAME = "new-1"
HOSTNAME = f"{NAME}\n".encode()
HOSTS = b"127.0.0.1\tlocalhost\n127.0.1.1\told.example old\n\n# \xff caf\xe9\r\n::1  ip6-localhost"
NEW_HOSTS = HOSTS.replace(b"old", NAME.encode())
MACHINE_ID = b"0123456789abcdef0123456789abcdef\n"

FILES = {
    "etc/hostname": b"old",
    "etc/hosts": HOSTS,
    "etc/machine-id": MACHINE_ID,
    "var/lib/dbus/machine-id": MACHINE_ID,
    "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n",
}


@pytest.fixture(autouse=True)
def _never_hang() -> Iterator[None]:
    """Fail a test that waits for ever, as one does that opens a FIFO."""

    def interrupt(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module", autouse=True)
def _machine(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip where no files of others can be made, or no overlay where the tests make theirs."""
    require(os.geteuid() == 0, "files get owners, and devices are made, as root")
    root = build(tmp_path_factory.mktemp("overlay") / "root", {})
    try:
        os.close(
            new_mount("overlay", {"lowerdir": str(root), "upperdir": str(build_upper(root)), "workdir": work(root)})
        )
    except OSError as error:
        require(condition=False, reason=f"no overlay can be mounted in {root.parent}: {error}")


def build(directory: Path, files: dict[str, bytes]) -> Path:
    """Make a tree of files, with owners, modes and times that are no defaults."""
    directory.mkdir(exist_ok=True)
    for path, content in files.items():
        file = directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        os.chown(file, 100000, 100001)
        file.chmod(0o640)
        os.utime(file, ns=(10**18, 10**18))
        for number, parent in enumerate(list(file.relative_to(directory).parents)[:-1]):
            os.chown(directory / parent, 100010 + number, 100020)
            (directory / parent).chmod(0o751)
            os.utime(directory / parent, ns=(10**18 + number, 10**18 + 10 * number))
    return directory


# How a copy of a root file system is written: in its place, as an upper layer's first files, or through an overlay.
WAYS = ["plain", "direct", "mounted"]


def build_upper(root: Path, files: dict[str, bytes] | None = None) -> Path:
    """Make an upper layer for an overlay, and its work directory, beside a root file system."""
    Path(work(root)).mkdir()
    return build(root.parent / "upper", files or {})


def work(root: Path) -> str:
    """The work directory of the overlay whose upper layer is beside a root file system."""
    return str(root.parent / "work")


def layers_of(way: str, root: Path) -> list[Path]:
    """The layers, topmost first, of a copy of this root file system that is written in one of the WAYS."""
    if way == "plain":
        return [root]
    upper = build_upper(root)
    return [upper, root] if way == "direct" else [upper, build(root.parent / "empty", {}), root]


def look(directory: Path) -> dict[str, tuple[object, ...]]:
    """Everything that can be seen of a tree, but for the kernel's work directory."""
    found: dict[str, tuple[object, ...]] = {}
    paths = [path for path in directory.rglob("*") if path.relative_to(directory).parts[0] != "work"]
    for path in [directory, *sorted(paths)]:
        status = path.lstat()
        content: object = status.st_rdev
        if stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        elif stat.S_ISREG(status.st_mode) and status.st_size < 1 << 30:
            content = path.read_bytes()
        owner = (status.st_mode, status.st_uid, status.st_gid)
        found[str(path.relative_to(directory))] = (*owner, status.st_size, status.st_mtime_ns, content)
    return found


def like(path: Path) -> tuple[int, int, int]:
    """Mode and owner."""
    status = path.lstat()
    return status.st_mode, status.st_uid, status.st_gid


def personalise(top: Path, *lower: Path) -> None:
    """Personalise a root file system, or an overlay of several layers; the lower ones must stay as they are."""
    before = [look(layer) for layer in lower]
    personalise_layers(str(top) if lower else "", [str(layer) for layer in lower or [top]], NAME)
    assert before == [look(layer) for layer in lower]


def check_machine_id(text: bytes) -> None:
    """It is a new version 4 id, as machine-id(5) wants it."""
    assert re.fullmatch(rb"[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}\n", text)
    assert text != MACHINE_ID


# Ordinary trees


def test_plain_root(tmp_path: Path) -> None:
    """In a root file system the four files are rewritten in place; mode, owner and everything else stay."""
    root = build(tmp_path / "root", FILES)
    before = {path: like(root / path) for path in look(root)}
    personalise(root)
    assert before == {path: like(root / path) for path in look(root)}
    assert (HOSTNAME, NEW_HOSTS) == ((root / "etc/hostname").read_bytes(), (root / "etc/hosts").read_bytes())
    check_machine_id((root / "etc/machine-id").read_bytes())
    assert (root / "etc/machine-id").read_bytes() == (root / "var/lib/dbus/machine-id").read_bytes()
    assert FILES["etc/passwd"] == (root / "etc/passwd").read_bytes()


@pytest.mark.parametrize("way", WAYS[1:])
def test_upper_layer(tmp_path: Path, way: str) -> None:
    """In an overlay the upper layer gets the four files and their parents, like those below; the rest stays there."""
    lower = build(tmp_path / "lower", FILES)
    upper, *below = layers_of(way, lower)
    personalise(upper, *below)
    parents = {".", "etc", "var", "var/lib", "var/lib/dbus"}
    assert parents | set(FILES) - {"etc/passwd"} == set(look(upper))
    for path in look(upper).keys() - {"."}:
        assert like(lower / path) == like(upper / path)
    assert (HOSTNAME, NEW_HOSTS) == ((upper / "etc/hostname").read_bytes(), (upper / "etc/hosts").read_bytes())
    check_machine_id((upper / "etc/machine-id").read_bytes())
    assert (upper / "etc/machine-id").read_bytes() == (upper / "var/lib/dbus/machine-id").read_bytes()


@pytest.mark.parametrize("way", WAYS)
def test_what_is_mounted(tmp_path: Path, way: str) -> None:
    """An overlay is mounted, for a moment and where nobody sees it, only if more than one layer has a say."""
    root = build(tmp_path / "root", FILES)
    layers = layers_of(way, root)
    before = Path("/proc/self/mountinfo").read_text(encoding="utf-8").count(str(tmp_path))
    personalise(*layers)
    assert (way == "mounted") == (tmp_path / "work/work").exists()
    assert before == Path("/proc/self/mountinfo").read_text(encoding="utf-8").count(str(tmp_path))


@pytest.mark.parametrize("way", WAYS[1:])
@pytest.mark.parametrize(
    "files", [["etc/hostname"], ["var/lib/dbus/machine-id"], ["etc/hostname", "etc/hosts"], [*FILES]]
)
def test_times_of_parents(tmp_path: Path, way: str, files: list[str]) -> None:
    """A directory made in the upper layer has the time of the one below, however many files it gets."""
    lower = build(tmp_path / "lower", {path: FILES[path] for path in files})
    upper, *below = layers_of(way, lower)
    personalise(upper, *below)
    made = look(upper).keys() - {".", *files}
    assert {parent for path in files for parent in (str(Path(path).parent), path.split("/")[0])} <= made
    for path in made:
        assert (lower / path).stat().st_mtime_ns == (upper / path).stat().st_mtime_ns


def test_topmost_file_counts(tmp_path: Path) -> None:
    """A file is taken from the topmost layer that has it, with its mode and owner."""
    bottom = build(tmp_path / "bottom", FILES)
    middle = build(tmp_path / "middle", {"etc/hosts": b"127.0.1.1 middle\n::2\n"})
    (middle / "etc/hosts").chmod(0o604)
    upper = build_upper(bottom, {"etc/hostname": b"upper"})
    (upper / "etc/hostname").chmod(0o600)
    before = like(upper / "etc/hostname")
    personalise(upper, middle, bottom)
    assert before == like(upper / "etc/hostname")
    assert HOSTNAME == (upper / "etc/hostname").read_bytes()
    assert b"127.0.1.1\tmiddle new-1\n::2\n" == (upper / "etc/hosts").read_bytes()
    assert like(middle / "etc/hosts") == like(upper / "etc/hosts")
    check_machine_id((upper / "etc/machine-id").read_bytes())


@pytest.mark.parametrize("files", [{}, {"srv/data": b"x"}])
def test_layer_above(tmp_path: Path, files: dict[str, bytes]) -> None:
    """A layer that will lie above the upper one gets the files in its place, as long as that one is empty."""
    lower = build(tmp_path / "lower", FILES)
    upper, above = build_upper(lower, files), build(tmp_path / "above", {})
    personalise_layers(str(upper), [str(lower)], NAME, str(above))
    written, other = (upper, above) if files else (above, upper)
    assert (HOSTNAME, NEW_HOSTS) == ((written / "etc/hostname").read_bytes(), (written / "etc/hosts").read_bytes())
    assert [] == list(other.iterdir())


def test_parents_that_are_there(tmp_path: Path) -> None:
    """A directory that the upper layer has keeps its mode and owner."""
    lower = build(tmp_path / "lower", FILES)
    upper = build_upper(lower)
    (upper / "etc").mkdir(0o700)
    before = like(upper / "etc")
    personalise(upper, lower)
    assert before == like(upper / "etc")
    assert HOSTNAME == (upper / "etc/hostname").read_bytes()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "absent", [{path} for path in FILES] + [set(FILES)], ids=lambda absent: "+".join(sorted(absent))
)
def test_absent_files_stay_absent(tmp_path: Path, way: str, absent: set[str]) -> None:
    """What the base has not, the copy has not."""
    base = build(tmp_path / "base", {path: content for path, content in FILES.items() if path not in absent})
    layers = layers_of(way, base)
    personalise(*layers)
    found = set(look(layers[0])) & set(FILES) - {"etc/passwd"}
    assert set(FILES) - absent - {"etc/passwd"} == found


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"127.0.1.1 old\n", b"127.0.1.1\tnew-1\n"),
        (b"127.0.1.1", b"127.0.1.1\tnew-1"),
        (b"  127.0.1.1\told\talias # x\n\n\n", b"127.0.1.1\tnew-1\n\n\n"),
        (b"127.0.1.1 a\n127.0.1.1 b", b"127.0.1.1\tnew-1\n127.0.1.1\tnew-1"),
        (b"#127.0.1.1 old\n127.0.1.10 a\n127.0.1.1x b\n10.0.0.1 127.0.1.1\n", None),
        (b"\0\xff\r\n", None),
        (b"127.0.1.1\tnew-1\n", None),
        (b"", None),
    ],
)
def test_hosts(tmp_path: Path, old: bytes, new: bytes | None) -> None:
    """Only lines of 127.0.1.1 change, and a file without a change is not written."""
    lower = build(tmp_path / "lower", {"etc/hosts": old})
    upper = build_upper(lower)
    before = look(lower)
    personalise(upper, lower)
    personalise(lower)
    assert (new is not None) == (upper / "etc/hosts").exists()
    if new is None:
        assert before == look(lower)
    else:
        assert [new] * 2 == [(layer / "etc/hosts").read_bytes() for layer in (upper, lower)]


@pytest.mark.parametrize(
    "text",
    [b"", b"\n", b"uninitialized\n", b"uninitialized", MACHINE_ID[1:], b"0" + MACHINE_ID, b"g" * 32, MACHINE_ID * 2],
)
def test_machine_id_that_is_none(tmp_path: Path, text: bytes) -> None:
    """An empty or uninitialized machine id stays for the first boot to fill, and what is malformed stays too."""
    root = build(tmp_path / "root", {"etc/machine-id": text, "var/lib/dbus/machine-id": text})
    before = look(root)
    personalise(root)
    assert before == look(root)


def test_machine_ids_differ(tmp_path: Path) -> None:
    """Each copy gets an id of its own, also where the base's has no newline."""
    roots = [build(tmp_path / str(number), {"etc/machine-id": MACHINE_ID.strip()}) for number in range(20)]
    for root in roots:
        personalise(root)
        check_machine_id((root / "etc/machine-id").read_bytes())
    assert len(roots) == len({(root / "etc/machine-id").read_bytes() for root in roots})


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("target", ["/etc/machine-id", "../../../etc/machine-id"])
def test_machine_id_of_dbus_as_a_link(tmp_path: Path, way: str, target: str) -> None:
    """A link from D-Bus's machine id to the system's stays that, and has the new id."""
    root = build(tmp_path / "root", FILES)
    (root / "var/lib/dbus/machine-id").unlink()
    (root / "var/lib/dbus/machine-id").symlink_to(target)
    layers = layers_of(way, root)
    personalise(*layers)
    assert target == os.readlink(root / "var/lib/dbus/machine-id")
    assert (way == "plain") == (layers[0] / "var").exists()
    check_machine_id((layers[0] / "etc/machine-id").read_bytes())


# Links


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("link", "target", "real"),
    [
        ("etc/hostname", "{victim}/hostname", "{victim}/hostname"),
        ("etc/hostname", "/srv/hostname", "srv/hostname"),
        ("etc/hostname", "../../../../srv/hostname", "srv/hostname"),
        ("etc/hostname", "/proc/self/root/hostname", "proc/self/root/hostname"),
        ("etc", "{victim}", "{victim}/hostname"),
        ("etc", "../../a/b", "a/b/hostname"),
        ("etc", "/..//a/../../a/./b/", "a/b/hostname"),
    ],
)
def test_links_end_in_the_root(tmp_path: Path, way: str, link: str, target: str, real: str) -> None:
    """A link is followed as the container would, below its root: the file there is rewritten, and none outside."""
    victim = build(tmp_path / "victim", {"hostname": b"victim", "hosts": HOSTS, "machine-id": MACHINE_ID})
    before = look(victim)
    place = real.format(victim=str(victim)[1:])
    root = build(tmp_path / "root", {place: b"old"})
    (root / link).parent.mkdir(exist_ok=True)
    (root / link).symlink_to(target.format(victim=victim))
    top, *lower = layers_of(way, root)
    personalise(top, *lower)
    assert before == look(victim)
    assert HOSTNAME == (top / place).read_bytes()
    assert target.format(victim=victim) == os.readlink(root / link)
    assert (way == "plain") == os.path.lexists(top / link)
    assert like(root / place) == like(top / place)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("etc/hostname", "{victim}/hostname"),
        ("etc/hostname", "../../victim/hostname"),
        ("etc/hostname", "hostname"),
        ("etc/hostname", "/etc/hostname"),
        ("etc/hostname", "/etc/passwd/x"),
        ("etc/hostname", "x" * 255),
        ("etc/hostname", "/etc"),
        ("etc", "{victim}"),
        ("etc", "../victim"),
        ("etc", "etc"),
        ("etc", "/"),
        ("etc/hosts", "{victim}/hosts"),
        ("etc/machine-id", "../../../../../../../../../../..{victim}/machine-id"),
        ("var", "{victim}"),
        ("var/lib/dbus/machine-id", "{victim}/machine-id"),
    ],
)
def test_links_to_nothing(tmp_path: Path, way: str, link: str, target: str) -> None:
    """A link that leads to no file of the container, or round in a circle, changes nothing, inside or outside."""
    files = {"hostname": b"victim", "hosts": HOSTS, "machine-id": MACHINE_ID, "lib/dbus/machine-id": MACHINE_ID}
    victim = build(tmp_path / "victim", files)
    root = build(tmp_path / "root", {"etc/passwd": b"x"} if link != "etc" else {})
    (root / link).parent.mkdir(parents=True, exist_ok=True)
    (root / link).symlink_to(target.format(victim=victim))
    layers = layers_of(way, root)
    before = look(tmp_path)
    personalise(*layers)
    assert before == look(tmp_path)


def test_magic_links(tmp_path: Path) -> None:
    """Also with a real /proc in the root file system no link of its leads out."""
    root = build(tmp_path / "root", {"etc/passwd": b"x"})
    (root / "proc").mkdir()
    victim = build(tmp_path / "victim", {"hostname": b"victim", "hosts": HOSTS})
    for file in ("hostname", "hosts"):
        (root / "etc" / file).symlink_to(f"/proc/self/root{victim}/{file}")
    before = look(tmp_path)
    code = (
        "import sys; from lxccopy_ffi.clone import personalise_layers\n"
        "assert open(sys.argv[1] + '/proc/self/root' + sys.argv[2] + '/hostname').read() == 'victim'\n"
        "personalise_layers('', [sys.argv[1]], 'new')"
    )
    script = 'mount -t proc proc "$1/proc" || exit 77; exec "$3" -c "$4" "$1" "$2"'
    command = ["unshare", "-m", "sh", "-c", script, "sh", str(root), str(victim), sys.executable, code]
    require(shutil.which("unshare"), "the program unshare is not installed")
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    require(result.returncode != 77, f"no /proc can be mounted: {result.stderr}")
    assert (0, "") == (result.returncode, result.stderr)
    assert before == look(tmp_path)


@pytest.mark.parametrize("linked", ["upper", "middle", "below"])
@pytest.mark.parametrize("target", ["../data/hosts", "/data/hosts"])
@pytest.mark.parametrize(
    "contents",
    [
        {"below": b"127.0.1.1 below\n"},
        {"middle": b"127.0.1.1 middle\n::1\n", "below": b"127.0.1.1 below\n"},
        {"middle": b"127.0.1.1 middle\n"},
        {"upper": b"127.0.1.1 upper\n", "below": b"127.0.1.1 below\n"},
        {"upper": b"127.0.1.1 upper\n"},
    ],
    ids="+".join,
)
def test_link_into_another_layer(tmp_path: Path, linked: str, target: str, contents: dict[str, bytes]) -> None:
    """A link is followed through all layers: its target may be in one above its own, or below."""
    layers = [
        build(tmp_path / name, {"data/hosts": contents[name]} if name in contents else {})
        for name in ("upper", "middle", "below")
    ]
    Path(work(layers[0])).mkdir()
    (tmp_path / linked / "etc").mkdir()
    (tmp_path / linked / "etc/hosts").symlink_to(target)
    personalise(*layers)
    topmost = next(iter(contents.values()))
    expected = re.sub(rb" (upper|middle|below)", b"\t" + NAME.encode(), topmost)
    assert expected == (layers[0] / "data/hosts").read_bytes()
    assert (linked == "upper") == os.path.lexists(layers[0] / "etc/hosts")


# What is no file


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _null(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))


def _disk(path: Path) -> None:
    os.mknod(path, stat.S_IFBLK | 0o666, os.makedev(7, 99))


def _directory(path: Path) -> None:
    path.mkdir()
    (path / "x").touch()


def _huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


def _large(path: Path) -> None:
    path.write_bytes(MACHINE_ID + b"127.0.1.1 old\n" * 80000)


def _whiteout(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR, 0)


@pytest.mark.parametrize("place", ["alone", "upper", "only lower", "middle"])
@pytest.mark.parametrize("path", [*FILES][:4])
@pytest.mark.parametrize("make", [_fifo, _null, _disk, _directory, _huge, _large, _whiteout])
def test_no_regular_file(tmp_path: Path, place: str, path: str, make: Callable[[Path], None]) -> None:
    """What is no small regular file is neither opened nor replaced, nor looked for further down."""
    bottom = build(tmp_path / "bottom", {path: FILES[path]})
    upper = build_upper(bottom)
    root = upper if place == "upper" else tmp_path / "root"
    build(root, {path: b""})
    (root / path).unlink()
    make(root / path)
    layers = {"alone": [root], "upper": [root, bottom], "only lower": [upper, root], "middle": [upper, root, bottom]}
    before = look(tmp_path)
    personalise(*layers[place])
    assert before == look(tmp_path)


def _opaque(path: Path) -> None:
    path.mkdir()
    os.setxattr(path, "trusted.overlay.opaque", b"y")


def _file(path: Path) -> None:
    path.write_bytes(b"x")


def _link(path: Path) -> None:
    path.symlink_to("elsewhere")


@pytest.mark.parametrize("path", ["etc", "var/lib"])
@pytest.mark.parametrize("hide", [_whiteout, _file, _opaque, _link])
@pytest.mark.parametrize("layer", ["upper", "middle"])
def test_hidden_directory(tmp_path: Path, path: str, hide: Callable[[Path], None], layer: str) -> None:
    """What a layer hides of those below it, by a whiteout, an opaque directory or another file, stays hidden."""
    hidden = {file: content for file, content in FILES.items() if file.startswith(f"{path}/")}
    bottom, middle = build(tmp_path / "bottom", hidden), build(tmp_path / "middle", {})
    upper = build_upper(bottom)
    (tmp_path / layer / path).parent.mkdir(parents=True, exist_ok=True)
    hide(tmp_path / layer / path)
    before = look(tmp_path)
    personalise(upper, middle, bottom)
    assert before == look(tmp_path)


@pytest.mark.parametrize("layer", ["upper", "middle"])
def test_opaque_directory(tmp_path: Path, layer: str) -> None:
    """Of an opaque directory the files in it are rewritten, and none of those that it hides."""
    bottom, middle = build(tmp_path / "bottom", FILES), build(tmp_path / "middle", {})
    upper = build_upper(bottom)
    build(tmp_path / layer, {"etc/hosts": b"127.0.1.1 seen\n"})
    os.setxattr(tmp_path / layer / "etc", "trusted.overlay.opaque", b"y")
    personalise(upper, middle, bottom)
    assert b"127.0.1.1\tnew-1\n" == (upper / "etc/hosts").read_bytes()
    assert ["hosts"] == os.listdir(upper / "etc")
    check_machine_id((upper / "var/lib/dbus/machine-id").read_bytes())


# What is left


def _fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("way", WAYS)
def test_no_descriptor_is_left(tmp_path: Path, way: str) -> None:
    """All descriptors are closed, that of the overlay too."""
    layers = layers_of(way, build(tmp_path / "root", FILES))
    before = _fds()
    personalise(*layers)
    assert before == _fds()


@pytest.mark.parametrize("path", ["data", "etc", "var", "var/lib", "var/lib/dbus"])
def test_no_descriptor_is_left_by_a_whiteout(tmp_path: Path, path: str) -> None:
    """All descriptors are closed, also where a whiteout is in the way."""
    lower = build(tmp_path / "lower", FILES)
    upper = build_upper(lower)
    (upper / path).parent.mkdir(parents=True, exist_ok=True)
    _whiteout(upper / path)
    before = _fds()
    personalise(upper, lower)
    assert before == _fds()


@pytest.mark.parametrize("inodes", range(1, 9))
def test_layer_above_is_full(tmp_path: Path, inodes: int) -> None:
    """Where the layer above has no room for a file or a directory, that is an error, and all descriptors are closed."""
    lower = build(tmp_path / "lower", FILES)
    upper = build_upper(lower)
    memory = new_mount("tmpfs", {"nr_inodes": str(inodes)})
    try:
        before = _fds()
        with pytest.raises(OSError, match="No space left on device"):
            personalise_layers(str(upper), [str(lower)], NAME, f"/proc/self/fd/{memory}")
        assert before == _fds()
    finally:
        os.close(memory)


def test_without_work_directory(tmp_path: Path) -> None:
    """Where an overlay cannot be mounted, that is an error, and nothing is written or left open."""
    layers = [build(tmp_path / name, FILES) for name in ("upper", "lower")]
    before = look(tmp_path), _fds()
    with pytest.raises(FileNotFoundError):
        personalise(*layers)
    assert before == (look(tmp_path), _fds())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"127.0.1.1 old", b"127.0.1.1\tnew-1"),
        (b"127.0.1.1 old.example.org old", b"127.0.1.1\tnew-1.example.org new-1"),
        (b"127.0.1.1   db.corp db  # the old one", b"127.0.1.1\tdb.corp db new-1 # the old one"),
        (b"127.0.1.1 older", b"127.0.1.1\tolder new-1"),
        (b"127.0.1.1", b"127.0.1.1\tnew-1"),
        (b"127.0.1.1 new-1 old", b"127.0.1.1\tnew-1 new-1"),
        (b"#127.0.1.1 old", b"#127.0.1.1 old"),
    ],
)
def test_hosts_keeps_other_names(tmp_path: Path, line: bytes, expected: bytes) -> None:
    """Where the old host name is known, it alone is replaced; other names and comments stay."""
    root = build(tmp_path / "root", {"etc/hostname": b"old\n", "etc/hosts": line + b"\n"})
    personalise(root)
    assert expected + b"\n" == (root / "etc/hosts").read_bytes()
