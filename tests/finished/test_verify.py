"""verify: a whole image is whole, and whatever is changed in one is told with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import kernels

import rumpbundle
from rumpbundle.cli import main
from rumpbundle.images.detect import NoImageError


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A raw image with a module, a directory of data and a volume."""
    top = tmp_path_factory.mktemp("verify")
    app = top / "app.bin"
    app.write_bytes(kernels.build("multiboot").read_bytes())
    (top / "module").write_bytes(b"module " * 30_000)
    argv = ["raw", str(app), "-q", "-o", str(top / "app.raw"), "--module", f"{top / 'module'}:m"]
    assert main([*argv, "--cmdline", "one"]) == 0
    return top / "app.raw"


def changed(image: Path, tmp_path: Path, at: int, data: bytes) -> Path:
    content = bytearray(image.read_bytes())
    assert content[at : at + len(data)] != data
    content[at : at + len(data)] = data
    path = tmp_path / image.name
    path.write_bytes(content)
    return path


def place(image: Path, path: str) -> int:
    """Return where the file *path* begins on the disk of *image*."""
    from rumpbundle.images.detect import file_system, open_disk

    with open_disk(image) as disk:
        entry = file_system(disk).find(path)
        return entry.spans[0].offset


def test_a_whole_image_is_whole(raw, capsys):
    capsys.readouterr()
    assert main(["verify", str(raw)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{raw}: whole (raw, ")
    assert not err
    found = rumpbundle.verify(raw)
    assert found.compared
    assert not found.problems
    assert len(found.digest) == 64


def test_all_that_is_changed_is_told_with_its_place(raw, tmp_path, capsys):
    kernel, module = place(raw, "/boot/kernel/app.bin"), place(raw, "/boot/modules/0/module")
    image = changed(raw, tmp_path, kernel + 5000, b"X")
    image = changed(image, tmp_path, module + 7, b"Y")
    image = changed(image, tmp_path, 40, b"Z")
    end = image.stat().st_size
    image = changed(image, tmp_path, end - 512, b"EFI BART")
    image = changed(image, tmp_path, end - 40_000, b"left")
    capsys.readouterr()
    assert main(["verify", str(image), "--json"]) == 5
    out, err = capsys.readouterr()
    assert err == f"error: {image}: is damaged: {err.split()[-2]} findings\n"
    (told,) = json.loads(out)["images"]
    assert told["whole"] is False
    by_place = {problem["offset"]: problem for problem in told["problems"]}
    assert by_place[kernel]["where"] == "/boot/kernel/app.bin"
    assert by_place[module]["where"] == "/boot/modules/0/module"
    assert by_place[None]["where"] == "boot code in the first sector"
    assert "backup GPT" in by_place[end - 512]["where"] + by_place[end - 512]["what"]
    assert by_place[end - 40_000]["where"] == "free space"
    assert all(problem["consequence"] for problem in told["problems"])


@pytest.mark.parametrize("name", ["raw", "iso"])
def test_a_sound_foreign_image_has_nothing_to_compare_with(name, tmp_path, capsys):
    from support.tools import output_of

    image = tmp_path / f"foreign.{name}"
    if name == "iso":
        (tmp_path / "tree").mkdir()
        (tmp_path / "tree" / "file").write_text("hello")
        output_of("xorriso", "-as", "mkisofs", "-quiet", "-R", "-o", str(image), str(tmp_path / "tree"))
    else:
        with image.open("wb") as file:
            file.truncate(4 << 20)
        output_of("mkfs.fat", str(image))
    assert main(["verify", str(image)]) == 0
    out, _ = capsys.readouterr()
    assert ": whole (raw, " in out
    assert "nothing to compare with: it was not made by rumpbundle" in out
    assert not rumpbundle.verify(image).compared


def test_what_is_no_image_is_an_error_and_the_others_are_looked_at(raw, tmp_path, capsys):
    (tmp_path / "noise").write_bytes(bytes(range(1, 256)) * 100)
    capsys.readouterr()
    assert main(["verify", str(tmp_path / "noise")]) == 2
    _, err = capsys.readouterr()
    assert err.startswith(f"error: {tmp_path / 'noise'}: is no disk image")
    assert main(["verify", str(tmp_path / "noise"), str(raw)]) == 2
    out, err = capsys.readouterr()
    assert out.startswith(f"{raw}: whole")
    with pytest.raises(NoImageError):
        rumpbundle.verify(tmp_path / "noise")


def test_a_disk_that_was_cut_off_is_damaged(raw, tmp_path):
    image = tmp_path / "app.raw"
    image.write_bytes(raw.read_bytes()[:-4096])
    found = rumpbundle.verify(image)
    assert any("backup GPT" in problem.what for problem in found.damage)
