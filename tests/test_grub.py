"""GRUB's configuration as text. What arrives in a guest is in test_boot.py."""

from __future__ import annotations

import shlex

import pytest

from rumpbundle import grub
from rumpbundle.errors import InputError
from rumpbundle.kernels.unikernel import Firmware, Protocol


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
