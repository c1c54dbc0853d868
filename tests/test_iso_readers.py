"""A finished image, as made for a user, looks right to every reader that is not ours."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
from blake3 import blake3
from support import images, kernels
from support.tools import output_of, require

MODULES = [
    ("module", bytes(range(256)) * 4096, "text"),
    ("Mixed Case and blanks.JSON", b"{}", ""),
    ("déjà日本", b"", ""),
    ("x" * 200, b"long name", ""),
    (".hidden;1", b"dot", ""),
]


@pytest.fixture(scope="module", params=["iso", "raw"])
def image(request, tmp_path_factory):
    return images.make(
        tmp_path_factory.mktemp("image"), kernels.build("multiboot"), request.param, modules=MODULES, name="My app!"
    )


def expected() -> dict[str, bytes]:
    """Return the files a user put into the image, by path."""
    files = {f"/boot/modules/{n}/{name}": content for n, (name, content, _) in enumerate(MODULES)}
    return files | {"/boot/kernel/multiboot": kernels.build("multiboot").read_bytes()}


def test_partition_tables_are_clean(image):
    said = output_of("sgdisk", "-v", str(image))
    assert "No problems found" in said
    assert not re.search("warning|caution|problem(?!s found)", said, re.IGNORECASE), said
    assert "No errors detected" in output_of("sfdisk", "-V", str(image))
    table = json.loads(output_of("sfdisk", "--json", str(image)))["partitiontable"]
    assert table["label"] == "gpt"
    assert [p["name"] for p in table["partitions"]] == ["ISO9660", "EFI system partition"]
    ends = [0, *(p["start"] + p["size"] for p in table["partitions"])]
    assert all(p["start"] >= end for p, end in zip(table["partitions"], ends, strict=False)), "partitions overlap"
    assert ends[-1] <= table["lastlba"] + 1
    assert image.stat().st_size == (table["lastlba"] + 34) * 512


def test_the_iso_is_clean(image):
    said = output_of(
        "xorriso", "-report_about", "NOTE", "-indev", str(image), "-pvd_info", "-report_el_torito", "plain"
    )
    assert not re.search("WARNING|SORRY|MISHAP|FAILURE|damaged|error", said), said
    assert re.search(r"Volume Id +: '?MY_APP_?'?\n", said), said
    assert re.search(r"El Torito boot img : +1 +BIOS +y", said)
    assert re.search(r"El Torito boot img : +2 +UEFI +y", said)
    size = int(output_of("isosize", str(image)))
    assert size % 2048 == 0
    assert size <= image.stat().st_size


def test_every_file_is_read_back_identical(image, tmp_path):
    output_of("xorriso", "-osirrox", "on", "-indev", str(image), "-extract", "/", str(tmp_path / "x"))
    (tmp_path / "b").mkdir()
    output_of("bsdtar", "-xf", str(image), "-C", str(tmp_path / "b"))
    for tree in (tmp_path / "x", tmp_path / "b"):
        for path, content in expected().items():
            assert (tree / path[1:]).read_bytes() == content, path
        manifest = json.loads((tree / "rumpbundle.json").read_text())
        assert [m["blake3"] for m in manifest["modules"]] == [blake3(c).hexdigest() for _, c, _ in MODULES]
    for path, content in expected().items():
        argv = [require("isoinfo"), "-R", "-i", str(image), "-x", path]
        assert subprocess.run(argv, stdout=subprocess.PIPE, check=True, timeout=60).stdout == content, path


def test_the_esp_is_clean(image, tmp_path):
    table = json.loads(output_of("sfdisk", "--json", str(image)))["partitiontable"]
    esp = table["partitions"][1]
    assert esp["type"] == "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
    partition = tmp_path / "esp"
    with image.open("rb") as file:
        file.seek(esp["start"] * 512)
        partition.write_bytes(file.read(esp["size"] * 512))
    said = output_of("fsck.fat", "-n", "-v", str(partition))
    assert re.search(r"\d+ files, \d+/\d+ clusters", said)
    assert not re.search("differ|differences|dirty|orphan|bad|invalid|not ", said, re.IGNORECASE), said
    loader = tmp_path / "BOOTX64.EFI"
    output_of("mcopy", "-i", str(partition), "::/EFI/BOOT/BOOTX64.EFI", str(loader))
    output_of("xorriso", "-osirrox", "on", "-indev", str(image), "-extract", "/EFI/BOOT/BOOTX64.EFI", f"{loader}.iso")
    assert loader.read_bytes() == (tmp_path / "BOOTX64.EFI.iso").read_bytes()
