"""An image that somebody writes to while it is read is told as that: never as whole, damaged, or the same."""

from __future__ import annotations

import gzip
import os
import random
import shutil
from pathlib import Path

import pytest
from support.tools import output_of

from rumpbundle.cli import main
from rumpbundle.images.medium import FdMedium


def _append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x" * 4096)


def _overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"y" * 100)


def _replace(path: Path) -> None:
    path.rename(path.with_name("old"))
    path.symlink_to(path.with_name("old"))


def _another(path: Path) -> None:
    path.rename(path.with_name("old"))
    shutil.copy(path.with_name("old"), path)


CHANGES = {
    "shrinks": lambda path: os.truncate(path, path.stat().st_size // 2),
    "grows": _append,
    "overwritten": _overwrite,
    "by a link": _replace,
    "by a copy": _another,
}


@pytest.fixture
def image(tmp_path):
    """Return a function that makes the image of a kind, with an old date: what is written now tells."""
    (tmp_path / "raw").write_bytes(random.Random(1).randbytes(3 << 20))

    def make(kind: str) -> Path:
        path = tmp_path / f"disk.{kind}"
        if kind == "gz":
            path.write_bytes(gzip.compress((tmp_path / "raw").read_bytes(), 1, mtime=0))
        else:
            output_of("qemu-img", "convert", "-f", "raw", "-O", kind, str(tmp_path / "raw"), str(path))
        os.utime(path, (1, 1))
        return path

    return make


def changed_at(monkeypatch, path: Path, count: int, change) -> None:
    """Have *path* changed when it is read for the *count*-th time."""
    read, seen = FdMedium.read, []

    def hooked(self, offset, length):
        if self._file is not None and self._file.path == str(path):
            seen.append(offset)
            if len(seen) == count:
                change(path)
        return read(self, offset, length)

    monkeypatch.setattr(FdMedium, "read", hooked)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ["qcow2", "vmdk", "gz"])
@pytest.mark.parametrize("command", ["verify", "diff", "inspect", "convert"])
def test_what_changes_is_told(image, monkeypatch, capfd, tmp_path, command, kind, change):
    path = image(kind)
    changed_at(monkeypatch, path, 6, CHANGES[change])
    more = {"diff": [str(tmp_path / "raw")], "convert": ["-q", "-f", "vdi", "-o", str(tmp_path / "out")]}
    assert main([command, str(path), *more.get(command, [])]) == 2
    out, err = capfd.readouterr()
    assert err.startswith(f"error: {path}: changed while it was read")
    assert out == ""
    assert not (tmp_path / "out").exists()


def test_of_two_images_the_damaged_one_is_named(image, tmp_path, capfd):
    path = image("qcow2")
    data = bytearray(path.read_bytes())
    data[0x40000:0x40008] = (0x1FF << 60 | 1).to_bytes(9, "big")[1:]  # the first entry of its only L2 table
    path.write_bytes(data)
    for pair in ([path, tmp_path / "raw"], [tmp_path / "raw", path]):
        assert main(["diff", *map(str, pair)]) == 2
        assert capfd.readouterr().err.startswith(f"error: {path}: ")
