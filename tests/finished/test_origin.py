"""An image of ours is enough to plan its disk again, byte for byte, whatever it is packed in."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
from support import images, kernels, synthetic

from rumpbundle.cli import main
from rumpbundle.disk.layout import LayoutReader
from rumpbundle.errors import ImageError
from rumpbundle.finished import manifest as records
from rumpbundle.finished.origin import NotOursError, origin
from rumpbundle.finished.request import rebundled, request_of
from rumpbundle.images.detect import open_disk

ROOT = Path(__file__).parents[2]
RUMPRUN = b"_RUMPRUN_ROOTFSCFG=\0ld_virtio\0vioif\0"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    top = tmp_path_factory.mktemp("inputs")
    (top / "rumprun.bin").write_bytes(kernels.build("multiboot").read_bytes() + RUMPRUN)
    (top / "linux").write_bytes(synthetic.bzimage(payload=300_000))
    data = top / "data"
    (data / "sub" / "empty directory").mkdir(parents=True, mode=0o700)
    (data / "a").write_bytes(b"hard")
    os.link(data / "a", data / "sub" / "linked")
    (data / "empty").touch()
    (data / "other empty").touch(mode=0o600)
    (data / "link").symlink_to("sub/../a")
    (data / os.fsdecode(b"latin-\xe4")).write_bytes(b"\xff")
    (data / ("n" * 200)).write_bytes(b"")
    (data / "big").write_bytes(random.Random(1).randbytes(3 << 20) + bytes(2 << 20) + b"end")
    (top / "esp" / "loader" / "empty directory").mkdir(parents=True)
    (top / "esp" / "loader" / "a longer name.conf").write_bytes(b"x" * 3000)
    (top / "cfg.json").write_text(json.dumps({"env": {"A": "ä b"}, "rc": [{"bin": "x", "argv": ["y z"]}]}))
    (top / "other.json").write_text(json.dumps({"hostname": "other", "rc": [{"bin": "y"}]}))
    (top / "env.json").write_text(json.dumps({"env": {"A": "b"}, "hostname": "other"}))
    (top / "long.json").write_text(json.dumps({"env": {f"V{n}": "x" * 100 for n in range(100)}}))
    return top


RECIPES = {
    "plain": ["{multiboot}", "--cmdline", "a  b", "--module", "{data}/big:te xt", "--name", "Some name"],
    "bios only": ["{multiboot2}", "--firmware", "bios", "--console", "serial", "--size", "9M"],
    "repaired": ["{multiboot-overlap}", "--no-argv0"],
    "gzip": ["{multiboot-gz}"],
    "linux": [
        "{inputs}/linux",
        "--data",
        "{data}:/srv",
        "--volume",
        "{data}:/var:8M",
        "--hostname",
        "w",
        "-e",
        "A=b",
    ],
    "rumprun": ["{inputs}/rumprun.bin", "-c", "{inputs}/cfg.json", "--data", "{data}:/data"],
    "rumprun, from a file": ["{inputs}/rumprun.bin", "-c", "{inputs}/long.json", "--data", "{data}:/data"],
    "rumprun, with a volume": ["{inputs}/rumprun.bin", "--data", "{data}:/data", "--volume", "{data}:/vol"],
    "room": ["{inputs}/rumprun.bin", "-c", "{inputs}/cfg.json", "--config-room", "20K"],
    "several configurations": [
        *("{inputs}/rumprun.bin", "-c", "{inputs}/cfg.json", "--data", "{data}:/data", "--volume", "{data}:/vol"),
        *("--config-for", "a key=with=that={inputs}/other.json"),
        *("--config-for", "oem:rumpbundle=7={inputs}/cfg.json"),
    ],
    "several, one from a file, and no default": [
        *("{inputs}/rumprun.bin", "--config-for", "serial:a={inputs}/long.json"),
        *("--config-for", "b={inputs}/cfg.json"),
    ],
    "several command lines": ["{inputs}/linux", "--data", "{data}:/srv", "--config-for", "a={inputs}/env.json"],
    "efi": ["{efi}", "--esp", "{inputs}/esp"],
    "efi with arguments": ["{efi}", "--cmdline", "x=1"],
}


def made(inputs: Path, recipe: str, format: str, out: Path) -> Path:
    words = {"inputs": inputs, "data": inputs / "data"}
    argv = []
    for word in RECIPES[recipe]:
        before, brace, rest = word.partition("{")
        name, _, after = rest.partition("}")
        argv.append(f"{before}{words.get(name) or kernels.build(name)}{after}" if brace else word)
    assert main([format, *argv, "-q", "-o", str(out)]) == 0
    return out


def check(image: Path) -> None:
    with open_disk(image) as disk:
        found = origin(disk)
        layout = found.plan().padded(least=disk.size)
        assert layout.size == disk.size
        with LayoutReader(layout) as reader:
            for extent in layout.extents:
                ours, theirs = reader.read(extent.offset, extent.length), disk.read(extent.offset, extent.length)
                assert ours == theirs, extent.label
            known = [(extent.offset, extent.length) for extent in layout.extents]
            position = 0
            for offset, length in known:
                assert not any(disk.read(position, offset - position)), f"a gap at {position} is not zero"
                position = offset + length


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_disk_is_planned_again(inputs, tmp_path, recipe):
    check(made(inputs, recipe, "raw", tmp_path / "app.raw"))


@pytest.mark.parametrize(("format", "subformat"), images.disk_formats())
def test_whatever_it_is_packed_in(inputs, tmp_path, format, subformat):
    out = tmp_path / "app.image"
    argv = [format, str(inputs / "rumprun.bin"), "-q", "-o", str(out), "--data", f"{inputs / 'data'}:/data"]
    assert main([*argv, *(["--subformat", subformat] if subformat else [])]) == 0
    check(out)


def test_what_was_asked_for_stands_apart_from_what_was_made(inputs, tmp_path):
    with open_disk(made(inputs, "rumprun", "raw", tmp_path / "app.raw")) as disk:
        found = origin(disk)
    assert found.manifest.asked.config == json.loads((inputs / "cfg.json").read_text())
    assert [(mount.mount, mount.place) for mount in found.bundle.asked.mounts] == [("/data", "root")]
    assert found.manifest.cmdline == "rumprun.bin"
    assert found.manifest.asked.cmdline is None


def test_nothing_is_read_of_the_payload(inputs, tmp_path):
    """Damage in a file changes nothing: its digest is what the manifest says, and verify compares them."""
    image = made(inputs, "plain", "raw", tmp_path / "app.raw")
    data = bytearray(image.read_bytes())
    at = data.index((inputs / "data" / "big").read_bytes()[1000:2000])
    data[at] ^= 1
    image.write_bytes(data)
    check(image)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((b'"schema": 1,', b'"schemo": 1,'), "before 0.1.0"),
        ((b'"layout": 1,', b'"layout": 2,'), "another layout"),
        ((b'"schema": 1,', b'"schema": 7,'), "another layout"),
        ((b'"argv0": true', b'"argv0": null'), "argv0"),
        ((b'"console": "both"', b'"console":  "both'), "readable JSON"),
    ],
)
def test_what_cannot_be_planned_again_says_why(inputs, tmp_path, change, message):
    image = made(inputs, "plain", "raw", tmp_path / "app.raw")
    data = image.read_bytes()
    assert change[0] in data
    image.write_bytes(data.replace(*change))
    with open_disk(image) as disk, pytest.raises(ImageError, match=message):
        origin(disk)


def test_a_foreign_image_is_not_ours(tmp_path):
    image = tmp_path / "a.raw"
    image.write_bytes(b"\xeb" + bytes(65535))
    with open_disk(image) as disk, pytest.raises(NotOursError, match="not made by rumpbundle"):
        origin(disk)


def test_the_published_schema_is_the_one_that_is_read():
    assert (ROOT / "docs" / "manifest.schema.json").read_text() == records.schema_text()


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_was_asked_for_makes_the_same_bundle_again(inputs, tmp_path, recipe):
    with open_disk(made(inputs, recipe, "raw", tmp_path / "app.raw")) as disk:
        found = origin(disk)
        bundle, _ = rebundled(found, request_of(found))
        assert bundle.manifest() == found.raw
