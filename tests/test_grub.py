"""GRUB's configuration as text, and where its boot images come from. What arrives in a guest is in test_boot.py."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import stat
import subprocess

import pytest
from support.stub import IMAGES
from support.tools import require

from rumpbundle import grub
from rumpbundle.bootloader import core
from rumpbundle.errors import HostError, InputError, MissingToolError
from rumpbundle.events import Ran
from rumpbundle.grub import BootImages
from rumpbundle.host import environment
from rumpbundle.kernels.unikernel import Firmware, Protocol
from rumpbundle.shell import joined


def menu(**more) -> grub.Menu:
    values = {
        "marker": "/boot/rumpbundle/ABC",
        "boot": dict.fromkeys(Firmware, Protocol.MULTIBOOT),
        "kernel": "/boot/kernel/app.bin",
        "cmdline": "",
        "modules": (),
    }
    return grub.Menu(**(values | more))


def test_the_whole_text_of_a_simple_menu():
    assert grub.config(menu(cmdline="app.bin -v", modules=(("/boot/modules/0/cfg", "a b"),))) == (
        "# Written by rumpbundle: boots one kernel and asks nothing.\n"
        "if serial --unit=0 --speed=115200; then\n"
        "  terminfo serial dumb\n"
        "  terminal_output console serial\n"
        "  terminal_input console serial\n"
        "  echo -n -e '\\r'\n"
        "fi\n"
        "search --file --set=root --hint $root '/boot/rumpbundle/ABC'\n"
        'if [ "$grub_platform" = efi ]; then\n'
        "  loaded=yes\n"
        '  if [ "$loaded" ]; then loaded=; '
        "if multiboot '/boot/kernel/app.bin' 'app.bin' '-v'; then loaded=yes; fi; fi\n"
        '  if [ "$loaded" ]; then loaded=; '
        "if module --nounzip '/boot/modules/0/cfg' 'a' 'b'; then loaded=yes; fi; fi\n"
        '  if [ "$loaded" ]; then boot; fi\n'
        "else\n"
        "  loaded=yes\n"
        '  if [ "$loaded" ]; then loaded=; '
        "if multiboot '/boot/kernel/app.bin' 'app.bin' '-v'; then loaded=yes; fi; fi\n"
        '  if [ "$loaded" ]; then loaded=; '
        "if module --nounzip '/boot/modules/0/cfg' 'a' 'b'; then loaded=yes; fi; fi\n"
        '  if [ "$loaded" ]; then boot; fi\n'
        "fi\n"
        "echo 'rumpbundle: the kernel did not start; the reason is above. Halting.'\n"
        "sleep 10\n"
        "halt\n"
    )


@pytest.mark.parametrize(
    ("protocol", "firmware", "expected"),
    [
        (Protocol.MULTIBOOT2, Firmware.BIOS, ("multiboot2 'k'", "module2 --nounzip 'm' 't'")),
        (Protocol.LINUX, Firmware.BIOS, ("linux 'k'", "initrd 'm'")),
        (Protocol.LINUX16, Firmware.BIOS, ("linux16 'k'", "initrd16 'm'")),
    ],
)
def test_each_protocol_has_its_commands(protocol, firmware, expected):
    text = grub.config(menu(boot={firmware: protocol}, kernel="k", modules=(("m", "t"),)))
    assert all(f"if {command}; then" in text for command in expected)
    other = "BIOS" if firmware is Firmware.UEFI else "UEFI"
    assert f"this kernel cannot start under {other} firmware" in text


@pytest.mark.parametrize("console", ["both", "serial", "vga"])
def test_the_console_option_chooses_the_terminals(console):
    text = grub.config(menu(console=console))
    expected = {"both": "console serial", "serial": "serial", "vga": "console"}[console]
    assert f"terminal_output {expected}\n" in text
    assert ("serial --unit" in text) == (console != "vga")


@pytest.mark.parametrize("text", ["it's", "a $b ${c}", ";{}#&|<>", 'say "x"', "back\\slash", "ä漢", "", "''"])
def test_a_quoted_word_is_one_word_whatever_it_holds(text):
    # GRUB's single quotes work as a shell's: nothing inside them is special.
    assert shlex.split(grub.quote(text)) == [text]


def test_runs_of_blanks_become_empty_words():
    assert "multiboot 'k' 'a' '' '' 'b' ''; then" in grub.config(menu(kernel="k", cmdline="a   b "))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('x "a b" y', ["x", "a b", "y"]),
        ('"--opt=a  b"', ["--opt=a  b"]),
        ('"a b"  "c d" ', ["a b", "", "c d", ""]),
    ],
)
def test_words_in_quotes_are_left_to_grub_to_quote(text, words):
    command = grub.config(menu(kernel="k", cmdline=text)).split("if multiboot 'k'")[1].partition("; then")[0]
    assert shlex.split(command) == words
    # What GRUB does with them (grub_create_loader_cmdline).
    assert " ".join(f'"{word}"' if " " in word else word for word in words) == text


@pytest.mark.parametrize("text", ['x "a"', 'x"a b"', '"a b"x', '"a b', '"a \\" b"', '"it\'s a"'])
def test_other_quotes_are_refused(text):
    with pytest.raises(InputError, match="GRUB would put a backslash before each"):
        grub.config(menu(cmdline=text))


@pytest.mark.parametrize("character", ["\\", '"', "'"])
def test_what_grub_would_rewrite_is_refused(character):
    with pytest.raises(InputError, match="GRUB would put a backslash before each") as caught:
        grub.config(menu(cmdline=f"a{character}b"))
    assert "module" in caught.value.hint


@pytest.mark.parametrize(
    ("protocol", "text", "found"),
    [
        (Protocol.MULTIBOOT, "a " + "x" * 8189, "8189 bytes"),
        (Protocol.MULTIBOOT, "é" * 4095, "8190 bytes"),
        (Protocol.MULTIBOOT, f'"{"x " * 4095}"', "8190 bytes"),
        (Protocol.MULTIBOOT, "x " * 9000, "9001 words"),
    ],
)
def test_what_grub_would_stand_still_over_is_refused(protocol, text, found):
    with pytest.raises(InputError, match=found):
        grub.config(menu(boot={Firmware.UEFI: protocol}, cmdline=text))
    grub.config(menu(cmdline=f"{'x' * 8188} {'x ' * 8990}"))


@pytest.mark.parametrize("character", ["\n", "\r", "\0"])
@pytest.mark.parametrize("field", ["cmdline", "kernel"])
def test_what_no_line_can_hold_is_refused(character, field):
    with pytest.raises(InputError, match="cannot pass through the boot loader"):
        grub.config(menu(**{field: f"a{character}b"}))


@pytest.fixture
def no_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(grub, "_PACKAGED", tmp_path / "nothing packaged")
    return tmp_path / "cache" / "rumpbundle"


def test_boot_images_are_made_once_and_kept(no_cache):
    require("grub-mkimage")
    said = []
    first = grub.boot_images(said.append)
    count = len(said)
    assert count
    assert grub.boot_images(said.append) == first
    assert len(said) == count, "the second time nothing is made"
    assert first.version.startswith("2.")
    # What is kept of them was computed from them, and is not computed again.
    second = grub.boot_images()
    assert second.known_sum == BootImages(first.version, first.mbr, first.bios, first.efi).bios_sum
    assert [path.name for path in no_cache.iterdir() if path.name.startswith(".")] == []


def test_boot_images_are_the_same_every_time(no_cache, tmp_path):
    require("grub-mkimage")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    assert grub.make_boot_images(tmp_path / "a").facts == grub.make_boot_images(tmp_path / "b").facts


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


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
        (lambda entry: (entry / "bios.img").chmod(0o666), "bios.img: others than this user can write to it"),
        (lambda entry: entry.chmod(0o777), "others than this user can write to it"),
        (lambda entry: entry.parent.chmod(0o770), "others than this user can write to it"),
        (lambda entry: (shutil.rmtree(entry), entry.write_text("foreign")), "once"),
    ],
)
def test_a_damaged_cache_is_noticed_made_again_and_said(no_cache, spoil, why):
    require("grub-mkimage")
    first = grub.boot_images()
    (entry,) = no_cache.iterdir()
    spoil(entry)
    said = []
    assert grub.boot_images(said.append) == first
    assert why in said[0].text
    said.clear()
    assert grub.boot_images(said.append) == first
    assert said == [], "it is whole again"
    assert [path.name for path in no_cache.iterdir()] == [entry.name]


def test_a_cache_that_others_own_is_not_used(no_cache, monkeypatch):
    require("grub-mkimage")
    first = grub.boot_images()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    (entry,) = no_cache.iterdir()
    (entry / "efi.img").write_bytes(b"MZ theirs")
    assert grub.boot_images() == first
    assert (entry / "efi.img").read_bytes() == b"MZ theirs"


def test_damaged_images_of_the_package_are_an_error(no_cache, tmp_path, monkeypatch):
    require("grub-mkimage")
    grub.make_boot_images(tmp_path)
    monkeypatch.setattr(grub, "_PACKAGED", tmp_path)
    _flip(tmp_path / "bios.img")
    with pytest.raises(HostError, match="is not as it was made"):
        grub.boot_images()


def test_a_cache_that_cannot_be_written_is_no_error(no_cache, monkeypatch):
    require("grub-mkimage")
    no_cache.parent.write_text("a file where the cache should be")
    assert grub.boot_images().efi[:2] == b"MZ"


def test_packaged_images_come_first_and_need_no_grub(tmp_path, monkeypatch):
    for name, data in (("mbr.img", IMAGES.mbr), ("bios.img", IMAGES.bios), ("efi.img", IMAGES.efi)):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "facts.json").write_text(json.dumps({**IMAGES.facts, "bios_sum": IMAGES.bios_sum}))
    monkeypatch.setattr(grub, "_PACKAGED", tmp_path)
    monkeypatch.setattr(environment, "find_program", lambda name: None)
    assert grub.boot_images() == IMAGES


def test_without_any_grub_the_error_names_the_packages(no_cache, monkeypatch):
    monkeypatch.setattr(environment, "find_program", lambda name: None)
    with pytest.raises(MissingToolError, match="GRUB is not installed") as caught:
        grub.boot_images()
    assert caught.value.hint == ("on Debian and Ubuntu: sudo apt install grub-common grub-pc-bin grub-efi-amd64-bin")
    assert isinstance(caught.value, HostError)
    assert caught.value.exit_code == 3


def test_the_cache_is_readable_by_nobody_else(no_cache):
    require("grub-mkimage")
    grub.boot_images()
    (directory,) = no_cache.iterdir()
    assert not stat.S_IMODE(directory.stat().st_mode) & 0o022


def test_the_commands_it_tells_make_the_same_images(tmp_path):
    require("grub-mkimage")
    (tmp_path / "ours").mkdir()
    (tmp_path / "pasted").mkdir()
    events = []
    grub.make_boot_images(tmp_path / "ours", events.append)
    lines = [joined(event.argv) for event in events if isinstance(event, Ran)]
    assert len(lines) == 3
    subprocess.run(["sh", "-e", "-c", "\n".join(lines)], cwd=tmp_path / "pasted", check=True, capture_output=True)
    assert (tmp_path / "pasted" / "efi.img").read_bytes() == (tmp_path / "ours" / "efi.img").read_bytes()
    bios = core.quickened((tmp_path / "pasted" / "bios.img").read_bytes())
    assert bios == (tmp_path / "ours" / "bios.img").read_bytes()
