"""Directories that are not what they seem: links out of the tree, special files, trees that change while read."""

from __future__ import annotations

import os
import socket
import time

import pytest
from support import ext2 as ext2_reader

from rumpbundle import volume
from rumpbundle.disk import tree
from rumpbundle.errors import InputError
from rumpbundle.filesystems import cpio
from rumpbundle.filesystems.ext2 import Ext2Volume


def as_ext2(path):
    return Ext2Volume(tree.scan(path), label="x", epoch=0).content()


def as_iso(path):
    return volume.iso9660(tree.scan(path), label="x", epoch=0).content


def as_cpio(path):
    return cpio.archive(tree.scan(path), mount="/x", epoch=0)


KINDS = pytest.mark.parametrize("make", [as_ext2, as_iso, as_cpio])


@KINDS
def test_links_out_of_the_tree_are_not_followed(make, tmp_path):
    (tmp_path / "secret").write_text("the secret of the host")
    (tmp_path / "top").mkdir()
    (tmp_path / "top" / "file").symlink_to(tmp_path / "secret")
    (tmp_path / "top" / "directory").symlink_to(tmp_path)
    (tmp_path / "top" / "loop").symlink_to("loop")
    assert b"the secret" not in make(tmp_path / "top").read()


@KINDS
@pytest.mark.parametrize("kind", ["fifo", "socket", "device"])
def test_special_files_are_refused_at_once(make, kind, tmp_path):
    (tmp_path / "top").mkdir()
    path = tmp_path / "top" / "it"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(os.path.relpath(path))
    else:
        try:
            os.mknod(path, 0o020666, os.makedev(1, 5))
        except PermissionError:
            pytest.skip("only root makes devices")
    start = time.monotonic()
    with pytest.raises(InputError, match="expected a regular file"):
        make(tmp_path / "top")
    assert time.monotonic() - start < 10


@KINDS
@pytest.mark.parametrize(
    "change", ["shorter", "longer", "replaced", "rewritten", "gone", "fifo", "directory", "link", "parent"]
)
def test_a_tree_that_changes_is_an_error_not_a_corrupt_image(make, change, tmp_path):
    """Least of all one with the files of somebody who swaps in a link where the tree was."""
    secrets = tmp_path / "secrets"
    path = tmp_path / "top" / "sub" / "it"
    for file in (secrets / "it", path):
        file.parent.mkdir(parents=True)
        file.write_bytes(b"x" * 100_000)
        os.utime(file, (1, 1))
    content = make(tmp_path / "top")
    match change:
        case "shorter":
            os.truncate(path, 10)
        case "longer":
            os.truncate(path, 200_000)
        case "rewritten":
            path.write_bytes(b"y" * 100_000)
        case "gone":
            path.unlink()
        case "replaced":
            path.unlink()
            path.write_bytes(b"x" * 100_000)
        case "fifo":
            path.unlink()
            os.mkfifo(path)
        case "directory":
            path.unlink()
            path.mkdir()
        case "link":
            path.unlink()
            path.symlink_to(secrets / "it")
        case "parent":
            path.parent.rename(tmp_path / "elsewhere")
            path.parent.symlink_to(secrets)
    with pytest.raises(InputError, match="it: no such file" if change == "gone" else "it: changed while it was read"):
        content.read()


@KINDS
def test_a_file_of_terabytes_is_placed_or_refused_at_once(make, tmp_path):
    """A sparse file costs its owner nothing; neither may it cost us."""
    (tmp_path / "top").mkdir()
    with open(tmp_path / "top" / "it", "wb") as file:
        file.truncate(15 << 40)
    start = time.monotonic()
    with pytest.raises(InputError, match=r"larger than ext2|8 TiB|4 GiB or more"):
        make(tmp_path / "top")
    with open(tmp_path / "top" / "it", "wb") as file:
        file.truncate(3 << 30)
    assert make(tmp_path / "top").size >= 1 << 20
    assert time.monotonic() - start < 10


def test_too_deep_a_tree_is_refused(tmp_path):
    deep = tmp_path
    for _ in range(tree.MAX_DEPTH + 1):
        deep = deep / "d"
    deep.mkdir(parents=True)
    with pytest.raises(InputError, match="nested deeper than"):
        tree.scan(tmp_path)


def test_an_unreadable_file_is_named(tmp_path, monkeypatch):
    (tmp_path / "it").write_text("x")
    real = os.open

    def refuse(path, *rest, **options):
        if str(path).endswith("/it"):
            raise PermissionError(13, "Permission denied", path)
        return real(path, *rest, **options)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(InputError, match="it: cannot be read: Permission denied"):
        as_cpio(tmp_path).read()


def test_names_of_any_bytes_arrive(tmp_path):
    names = [b"new\nline", b"quote'\"", b"\xff\xfe", b"tab\t", b"-rf", b" ", b"*?[]", "é\u202e".encode()]
    (tmp_path / "top").mkdir()
    for name in names:
        (tmp_path / "top" / os.fsdecode(name)).write_bytes(name)
    image = ext2_reader.write(as_ext2(tmp_path / "top"), tmp_path / "image")
    copy = ext2_reader.unpacked(image, tmp_path / "copy")
    assert {os.fsencode(path.name): path.read_bytes() for path in copy.iterdir()} == {name: name for name in names}
