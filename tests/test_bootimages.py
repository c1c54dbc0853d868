"""Where GRUB's boot images come from, and what becomes of those that are not as they were made."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess

import pytest
from support.stub import IMAGES
from support.tools import require

from rumpbundle.bootloader import bootimages, core
from rumpbundle.bootloader.bootimages import BootImages
from rumpbundle.errors import HostError, MissingToolError
from rumpbundle.events import Ran
from rumpbundle.host import environment
from rumpbundle.host.shell import joined


@pytest.fixture
def no_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(bootimages, "_PACKAGED", tmp_path / "nothing packaged")
    return tmp_path / "cache" / "rumpbundle"


def test_boot_images_are_made_once_and_kept(no_cache):
    require("grub-mkimage")
    said = []
    first = bootimages.boot_images(said.append)
    count = len(said)
    assert count
    assert bootimages.boot_images(said.append) == first
    assert len(said) == count, "the second time nothing is made"
    assert first.version.startswith("2.")
    # What is kept of them was computed from them, and is not computed again.
    second = bootimages.boot_images()
    assert second.known_sum == BootImages(first.version, first.mbr, first.bios, first.efi).bios_sum
    assert [path.name for path in no_cache.iterdir() if path.name.startswith(".")] == []


def test_boot_images_are_the_same_every_time(no_cache, tmp_path):
    require("grub-mkimage")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    assert bootimages.make_boot_images(tmp_path / "a").facts == bootimages.make_boot_images(tmp_path / "b").facts


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text("ascii")) | values))


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda entry: _flip(entry / "efi.img"), "efi.img: is not as it was made"),
        (lambda entry: (entry / "efi.img").write_bytes(b""), "efi.img: is not as it was made"),
        (lambda entry: os.truncate(entry / "bios.img", 100_000), "bios.img: is not as it was made"),
        (lambda entry: (entry / "bios.img").write_bytes(bytes(286_720)), "bios.img: is not as it was made"),
        (lambda entry: (entry / "mbr.img").write_bytes(b"x" * 512), "mbr.img: is not as it was made"),
        (lambda entry: (entry / "mbr.img").unlink(), "once"),
        (lambda entry: (entry / "facts.json").unlink(), "once"),
        (lambda entry: (entry / "facts.json").write_bytes(b"\xff"), "facts.json: does not tell"),
        (lambda entry: (entry / "facts.json").write_bytes(b"[1]"), "facts.json: does not tell"),
        (lambda entry: (entry / "facts.json").write_bytes(b'{"version": 1}'), "facts.json: does not tell"),
        (lambda entry: (entry / "facts.json").write_bytes(b'{"version": 1, "bios_sum": 1}'), "is not as it was made"),
        (
            lambda entry: (entry / "facts.json").write_bytes(b'{"version": 1, "bios_sum": "x"}'),
            "facts.json: does not",
        ),
        (lambda entry: (entry / "facts.json").write_bytes(b"[" * 100_000), "facts.json: does not tell"),
        (
            lambda entry: _change(entry / "facts.json", bios_sum=IMAGES.bios_sum + 1),
            "facts.json: is not as it was made",
        ),
        (lambda entry: _change(entry / "facts.json", version="2.99"), "facts.json: is not as it was made"),
        (lambda entry: _change(entry / "facts.json", more=""), "facts.json: is not as it was made"),
        (lambda entry: (entry / "bios.img").chmod(0o666), "bios.img: others than this user can write to it"),
        (lambda entry: entry.chmod(0o777), "others than this user can write to it"),
        (lambda entry: entry.parent.chmod(0o770), "others than this user can write to it"),
        (lambda entry: (shutil.rmtree(entry), entry.write_text("foreign")), "once"),
    ],
)
def test_a_damaged_cache_is_noticed_made_again_and_said(no_cache, spoil, why):
    require("grub-mkimage")
    first = bootimages.boot_images()
    (entry,) = no_cache.iterdir()
    spoil(entry)
    said = []
    assert bootimages.boot_images(said.append) == first
    assert why in said[0].text
    said.clear()
    assert bootimages.boot_images(said.append) == first
    assert said == [], "it is whole again"
    assert [path.name for path in no_cache.iterdir()] == [entry.name]


def test_a_cache_that_others_own_is_not_used(no_cache, monkeypatch):
    require("grub-mkimage")
    first = bootimages.boot_images()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    (entry,) = no_cache.iterdir()
    (entry / "efi.img").write_bytes(b"MZ theirs")
    assert bootimages.boot_images() == first
    assert (entry / "efi.img").read_bytes() == b"MZ theirs"


def test_damaged_images_of_the_package_are_an_error(no_cache, tmp_path, monkeypatch):
    require("grub-mkimage")
    bootimages.make_boot_images(tmp_path)
    monkeypatch.setattr(bootimages, "_PACKAGED", tmp_path)
    _flip(tmp_path / "bios.img")
    with pytest.raises(HostError, match="is not as it was made"):
        bootimages.boot_images()


def test_a_cache_that_cannot_be_written_is_no_error(no_cache, monkeypatch):
    require("grub-mkimage")
    no_cache.parent.write_text("a file where the cache should be")
    assert bootimages.boot_images().efi[:2] == b"MZ"


def test_packaged_images_come_first_and_need_no_grub(tmp_path, monkeypatch):
    for name, data in (("mbr.img", IMAGES.mbr), ("bios.img", IMAGES.bios), ("efi.img", IMAGES.efi)):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "facts.json").write_text(json.dumps(IMAGES.kept))
    monkeypatch.setattr(bootimages, "_PACKAGED", tmp_path)
    monkeypatch.setattr(environment, "find_program", lambda name: None)
    assert bootimages.boot_images() == IMAGES


def test_without_any_grub_the_error_names_the_packages(no_cache, monkeypatch):
    monkeypatch.setattr(environment, "find_program", lambda name: None)
    with pytest.raises(MissingToolError, match="GRUB is not installed") as caught:
        bootimages.boot_images()
    assert caught.value.hint == ("on Debian and Ubuntu: sudo apt install grub-common grub-pc-bin grub-efi-amd64-bin")
    assert isinstance(caught.value, HostError)
    assert caught.value.exit_code == 3


def test_the_cache_is_readable_by_nobody_else(no_cache):
    require("grub-mkimage")
    bootimages.boot_images()
    (directory,) = no_cache.iterdir()
    assert not stat.S_IMODE(directory.stat().st_mode) & 0o022


def test_the_commands_it_tells_make_the_same_images(tmp_path):
    require("grub-mkimage")
    (tmp_path / "ours").mkdir()
    (tmp_path / "pasted").mkdir()
    events = []
    bootimages.make_boot_images(tmp_path / "ours", events.append)
    lines = [joined(event.argv) for event in events if isinstance(event, Ran)]
    assert len(lines) == 3
    subprocess.run(["sh", "-e", "-c", "\n".join(lines)], cwd=tmp_path / "pasted", check=True, capture_output=True)
    efi = core.quieted((tmp_path / "pasted" / "efi.img").read_bytes())
    assert efi == (tmp_path / "ours" / "efi.img").read_bytes()
    bios = core.quickened((tmp_path / "pasted" / "bios.img").read_bytes())
    assert bios == (tmp_path / "ours" / "bios.img").read_bytes()
