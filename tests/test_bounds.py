"""No file system is written that our own readers refuse: writers and readers have the same bounds."""

from __future__ import annotations

import pytest
from support.tools import output_of

from rumpbundle import volume
from rumpbundle.cli import main
from rumpbundle.disk import bounds
from rumpbundle.disk.content import Content, Literal
from rumpbundle.disk.flat import write_content
from rumpbundle.disk.tree import MAX_DEPTH, Directory, File
from rumpbundle.errors import InputError
from rumpbundle.filesystems.fat import FatVolume
from rumpbundle.images.detect import file_system, open_disk


def fat(root):
    made = FatVolume(root, label="TEST", epoch=1_000_000_000)
    pieces = [(each.offset, Literal(each.source.read(0, each.length))) for each in made.extents(0, lambda: 1)]
    return Content.spread(pieces, made.size)


WRITERS = {
    "ext2": lambda root: volume.ext2(root, label="test", epoch=0)[0].content,
    "iso9660": lambda root: volume.iso9660(root, label="TEST", epoch=0).content,
    "fat": fat,
}


def files(count, name="file {:06}"):
    return [File(name.format(number), Content(())) for number in range(count)]


def nested(depth):
    tree = Directory("innermost")
    for _ in range(depth):
        tree = Directory.of("d", [tree])
    return tree


LONG = "{:06}" + "x" * 194
SHAPES = {
    "one directory": lambda over: Directory.of("", [Directory.of("sub", files(6000 if over else 1000, LONG))]),
    "all directories": lambda over: Directory.of(
        "", [Directory.of(f"d{number}", files(300, LONG)) for number in range(24 if over else 5)]
    ),
    "entries": lambda over: Directory.of("", [Directory.of("sub", files(1000 if over else 990))]),
    "names": lambda over: Directory.of("", [Directory.of("é" * 100, files(900 if over else 400))]),
    "depth": lambda over: nested(MAX_DEPTH + 1 if over else MAX_DEPTH),
}
SMALL = {
    "one directory": {"MAX_DIRECTORY": 500_000},
    "all directories": {"MAX_DIRECTORIES": 900_000},
    "entries": {"MAX_ENTRIES": 995},
    "names": {"MAX_NAMES": 300_000},
    "depth": {},
}


@pytest.mark.parametrize("kind", ["ext2", "iso9660"])
@pytest.mark.parametrize("shape", SHAPES)
def test_what_a_writer_takes_a_reader_reads(tmp_path, monkeypatch, kind, shape):
    for name, value in SMALL[shape].items():
        monkeypatch.setattr(bounds, name, value)
    with pytest.raises(InputError):
        WRITERS[kind](SHAPES[shape](True))
    content = WRITERS[kind](SHAPES[shape](False))
    with (tmp_path / "image").open("x+b") as out:
        write_content(content, out.fileno())
    monkeypatch.undo()
    with open_disk(tmp_path / "image") as disk:
        found = file_system(disk)
        assert sum(1 for _ in found.entries()) >= sum(1 for _ in SHAPES[shape](False).children)
        assert list(found.problems()) == []


@pytest.mark.parametrize(("kind", "most"), [("ext2", 15 * 4096), ("iso9660", 13 * 8192 - 1)])
def test_the_largest_directory_is_read_and_one_file_more_is_refused(tmp_path, kind, most):
    """Names of 255 bytes: 15 stand in a block of ext2, 13 in one of ISO 9660 (they go on elsewhere)."""
    tree = Directory.of("", [Directory.of("sub", files(most, "{:06}" + "x" * 249))])
    with pytest.raises(InputError, match=r"the directory would take 16\d+ bytes, more than the 16 MiB one can") as no:
        WRITERS[kind](Directory.of("", [Directory.of("sub", files(most + 8, "{:06}" + "x" * 249))]))
    assert no.value.where == "/sub"
    with (tmp_path / "image").open("x+b") as out:
        write_content(WRITERS[kind](tree), out.fileno())
    with open_disk(tmp_path / "image") as disk:
        assert sum(1 for entry in file_system(disk).entries() if entry.path.startswith("/sub/")) == most


def test_fat_holds_as_many_entries_as_its_readers_allow():
    with pytest.raises(InputError, match="the directory would have 65537 entries"):
        fat(Directory.of("", [Directory.of("SUB", files(65535, "F{:06}"))]))
    with pytest.raises(InputError, match="nested deeper than 128"):
        fat(nested(MAX_DEPTH + 1))


def test_a_volume_that_could_not_be_read_is_refused_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bounds, "MAX_ENTRIES", 3)
    (tmp_path / "tree").mkdir()
    for number in range(4):
        (tmp_path / "tree" / str(number)).touch()
    for kind in ("ext2", "iso9660"):
        assert main(["volume", str(tmp_path / "tree"), "-o", str(tmp_path / "out"), "-t", kind]) == 2
        error, hint = capsys.readouterr().err.splitlines()
        assert error.startswith("error: ")
        assert "files and directories in one file system; there can be 3" in error
        assert hint.startswith("hint: put them into an archive")
    assert not (tmp_path / "out").exists()


def test_many_alike_names_on_a_fat_are_unique_and_none_is_another_files(tmp_path):
    """A short name made up for a long one is not one that a file has for its own."""
    names = [f"long name {number:05}.txt" for number in range(3000)] + ["LONGNA~1.TXT", "LONGN~12.TXT"]
    image = tmp_path / "fat"
    with image.open("x+b") as out:
        write_content(
            fat(Directory.of("", [Directory.of("SUB", [File(name, Content(())) for name in names])])), out.fileno()
        )
    assert "3004 files" in output_of("fsck.fat", "-n", str(image))
