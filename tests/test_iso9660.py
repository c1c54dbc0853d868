"""Our ISO 9660 volumes as readers that are not ours see them."""

from __future__ import annotations

import hashlib
import io
import os
import random
import stat
from pathlib import Path

import pycdlib
import pytest
from support.tools import output_of

from rumpbundle.disk import tree
from rumpbundle.disk.content import Content
from rumpbundle.disk.inputfile import InputFile
from rumpbundle.disk.tree import Directory, File, Symlink
from rumpbundle.errors import InputError
from rumpbundle.filesystems.identifiers import volume_id
from rumpbundle.filesystems.iso9660 import ALIGNED, SYSTEM_AREA, Iso9660Volume
from rumpbundle.filesystems.isodirectory import BLOCK

EPOCH = 1_000_000_000


def write(root: Directory, path: Path, **more) -> Path:
    """Write *root* as a volume without anything else to *path*."""
    volume = Iso9660Volume(root, label="test", epoch=EPOCH, **more)
    with path.open("wb") as file:
        file.truncate(volume.end)
        file.seek(SYSTEM_AREA)
        file.write(volume.metadata())
        for extent in volume.extents():
            file.seek(extent.offset)
            for at in range(0, extent.length, 1 << 20):
                file.write(extent.source.read(at, min(1 << 20, extent.length - at)))
    return path


def extract(image: Path, target: Path) -> Path:
    output_of("xorriso", "-osirrox", "on", "-indev", str(image), "-extract", "/", str(target))
    return target


def contents(top: Path) -> dict[str, tuple]:
    """Return kind, mode and content of everything below *top*."""
    found = {}
    for directory, names, files in os.walk(os.fsencode(top)):
        for name in names + files:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            key = os.path.relpath(path, os.fsencode(top))
            if stat.S_ISLNK(status.st_mode):
                found[key] = ("link", os.readlink(path))
            elif stat.S_ISDIR(status.st_mode):
                found[key] = ("directory", stat.S_IMODE(status.st_mode))
            else:
                data = Path(os.fsdecode(path)).read_bytes()
                found[key] = ("file", stat.S_IMODE(status.st_mode), hashlib.sha256(data).hexdigest())
    return found


@pytest.fixture
def source(tmp_path):
    """A directory with everything a file system can hold that is hard to keep."""
    top = tmp_path / "source"
    top.mkdir()
    names = [
        "plain", "UPPER.TXT", "upper.txt", "two.dots.tar.gz", ".hidden", "with blank", "tab\there", "quote'\"",
        "back\\slash", "ünïcödé-漢字", "a" * 255, "ä" * 127, "trailing.", "-dash", "semi;1", "star*",
        "a" * 140, "a" * 141, "a" * 200 + "b",
    ]  # fmt: skip
    for number, name in enumerate(names):
        (top / name).write_bytes(random.Random(number).randbytes(number * 700 + 1))
    (top.joinpath(os.fsdecode(b"latin1-\xe4\xff"))).write_bytes(b"not UTF-8")
    deep = top
    for level in range(20):
        deep = deep / f"level{level}"
        deep.mkdir(mode=0o750)
    (deep / "bottom").write_text("deep")
    (top / "empty directory").mkdir()
    (top / "empty").write_bytes(b"")
    (top / "setuid").write_text("x")
    (top / "setuid").chmod(0o4755)
    (top / "secret").write_text("x")
    (top / "secret").chmod(0o600)
    links = {
        "relative": "plain", "absolute": "/etc/passwd", "up": "../../x", "dots": "./a/../b/.", "slashes": "/",
        "dangling": "no such", "long": "/".join(["component"] * 60), "longest component": "x" * 255,
        "trailing": "dir/",
    }  # fmt: skip
    (top / "links").mkdir()
    for name, target in links.items():
        (top / "links" / name).symlink_to(target)
    os.link(top / "plain", top / "hard link")
    os.link(top / "two.dots.tar.gz", top / "links" / "hard link")
    many = top / "many"
    many.mkdir()
    for number in range(600):
        (many / f"a-name-that-is-the-same-for-the-first-thirty-{number}.text").write_text(str(number))
    return top


def test_every_name_mode_link_and_byte_is_read_back_by_xorriso(source, tmp_path):
    image = write(tree.scan(source), tmp_path / "a.iso")
    assert contents(extract(image, tmp_path / "out")) == _as_stored(contents(source))


def _as_stored(found: dict) -> dict:
    """A link keeps its components, not a slash after the last (Rock Ridge 4.1.3 has no place for one)."""
    return {
        key: ("link", value[1].rstrip(b"/") or b"/") if value[0] == "link" else value for key, value in found.items()
    }


def test_pycdlib_reads_every_name_and_byte(source, tmp_path):
    image = write(tree.scan(source), tmp_path / "a.iso")
    iso = pycdlib.PyCdlib()
    iso.open(str(image))
    try:
        seen = 0
        for path, node in tree.walk(tree.scan(source)):
            if not isinstance(node, File):
                continue
            try:
                path.encode()
            except UnicodeEncodeError:
                continue
            out = io.BytesIO()
            iso.get_file_from_iso_fp(out, rr_path=path)
            assert out.getvalue() == node.content.read(), path
            seen += 1
        assert seen > 600
    finally:
        iso.close()


def test_isoinfo_finds_the_long_names_and_hard_links(source, tmp_path):
    image = write(tree.scan(source), tmp_path / "a.iso")
    listing = output_of("isoinfo", "-i", str(image), "-R", "-l")
    assert "a" * 255 in listing
    assert "ünïcödé-漢字" in listing
    assert "-> /etc/passwd" in listing
    (line,) = [line for line in listing.splitlines() if line.endswith(" plain ")]
    assert line.split()[1] == "2"
    assert int(output_of("isosize", str(image))) == image.stat().st_size


def test_a_file_over_4_gib_has_several_extents(tmp_path):
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.write(b"begin")
        file.seek((4 << 30) - 3)
        file.write(b"across")
        file.seek((9 << 30) - 3)
        file.write(b"end")
    root = Directory.of("", [File("big", Content.of_file(InputFile(big))), File("small", Content.of_bytes(b"s"))])
    volume = Iso9660Volume(root, label="big", epoch=EPOCH)
    image = tmp_path / "big.iso"
    with image.open("wb") as file:
        file.truncate(volume.end)
        file.seek(SYSTEM_AREA)
        file.write(volume.metadata())
        start = volume.offset_of(root.children[0].content)
        for at, data in ((0, b"begin"), ((4 << 30) - 3, b"across"), ((9 << 30) - 3, b"end")):
            file.seek(start + at)
            file.write(data)
        file.seek(volume.offset_of(root.children[1].content))
        file.write(b"s")
    listing = output_of("xorriso", "-indev", str(image), "-find", "/big", "-exec", "report_lba")
    rows = [line for line in listing.splitlines() if line.startswith("File data lba:")]
    sections = [[int(field) for field in row.split(":")[1].split(",")[1:3]] for row in rows]
    assert sum(count for _, count in sections) * BLOCK == 9 << 30
    assert len(sections) == 3
    with image.open("rb") as file:
        for at, data in ((0, b"begin"), ((4 << 30) - 3, b"across"), ((9 << 30) - 3, b"end")):
            assert b"".join(_byte(file, sections, at + n) for n in range(len(data))) == data


def _byte(file, sections: list[list[int]], at: int) -> bytes:
    """Return the byte at *at* of a file that stands in *sections* (first block, number of blocks)."""
    for start, count in sections:
        if at < count * BLOCK:
            file.seek(start * BLOCK + at)
            return file.read(1)
        at -= count * BLOCK
    raise AssertionError("past the last section")


def test_names_that_collide_in_iso9660_get_different_identifiers(tmp_path):
    nodes = [File("x" * 40 + str(number), Content.of_bytes(b"%d" % number)) for number in range(3000)]
    image = write(Directory.of("", nodes), tmp_path / "a.iso")
    plain = output_of("isoinfo", "-i", str(image), "-f").split()
    assert len(plain) == len(set(plain)) == 3000
    assert all(len(name) <= 33 for name in plain)
    assert contents(extract(image, tmp_path / "out"))[b"x" * 40 + b"2999"][2] == hashlib.sha256(b"2999").hexdigest()


def test_metadata_and_files_fill_the_volume_exactly(source):
    volume = Iso9660Volume(tree.scan(source), label="x", epoch=EPOCH)
    assert len(volume.metadata()) == volume.metadata_end - SYSTEM_AREA
    position = volume.metadata_end
    for offset, content, _ in volume.files:
        assert offset == position
        position += -(-content.size // BLOCK) * BLOCK
    assert position == volume.end


def test_a_content_elsewhere_is_placed_by_the_caller(tmp_path):
    content = Content.of_bytes(b"far away")
    root = Directory.of("", [File("here", Content.of_bytes(b"near")), File("there", content)])
    volume = Iso9660Volume(root, label="x", epoch=EPOCH, elsewhere=(content,))
    volume.place(content, 1 << 20)
    image = tmp_path / "a.iso"
    with image.open("wb") as file:
        file.truncate(2 << 20)
        file.seek(SYSTEM_AREA)
        file.write(volume.metadata(size=2 << 20))
        for extent in volume.extents():
            file.seek(extent.offset)
            file.write(extent.source.read(0, extent.length))
        file.seek(1 << 20)
        file.write(b"far away")
    out = extract(image, tmp_path / "out")
    assert (out / "there").read_bytes() == b"far away"
    assert (out / "here").read_bytes() == b"near"
    with pytest.raises(ValueError, match="cannot place"):
        volume.place(content, 1000)


def test_a_link_target_that_does_not_fit_is_refused():
    root = Directory.of("", [Symlink("link", "x/" * 2000)])
    with pytest.raises(InputError, match="link: name or link target is too long for ISO 9660"):
        Iso9660Volume(root, label="x", epoch=EPOCH)


def test_more_directories_than_a_path_table_holds_are_refused():
    root = Directory.of("", [Directory(str(number)) for number in range(70_000)])
    with pytest.raises(InputError, match="70001 directories; an ISO 9660 path table holds 65,535"):
        Iso9660Volume(root, label="x", epoch=EPOCH)


@pytest.mark.parametrize(
    ("name", "label"), [("app", "APP"), ("web server.1", "WEB_SERVER_1"), ("ä", "_"), ("x" * 50, "X" * 32)]
)
def test_volume_ids_hold_only_d_characters(name, label):
    assert volume_id(name) == label


def test_the_dates_are_the_epoch(tmp_path):
    image = write(Directory.of("", [File("f", Content.of_bytes(b"x"))]), tmp_path / "a.iso")
    listing = output_of("isoinfo", "-i", str(image), "-R", "-l")
    assert listing.count("Sep  9 2001") == 3


def test_large_files_begin_on_whole_pages(tmp_path):
    sizes = {"a": 1, "b": ALIGNED, "c": 1, "d": ALIGNED - 1, "e": 2048, "f": ALIGNED + 1}
    for name, size in sizes.items():
        (tmp_path / name).write_bytes(b"x" * size)
    volume = Iso9660Volume(tree.scan(tmp_path), label="x", epoch=EPOCH)
    offsets = {path: offset for offset, _, path in volume.files}
    assert not offsets["/b"] % 4096
    assert not offsets["/f"] % 4096
    assert offsets["/d"] - offsets["/c"] == BLOCK
