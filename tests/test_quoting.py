"""Every byte of a name, a command line or a module's text arrives at the kernel as given, or is refused.

What GRUB rewrites (docs/facts/guests.md#grub-command-lines) must be refused; nothing else may be. Many cases
share a boot.
"""

from __future__ import annotations

import re
import shutil
import string

import pytest
from support import images, kernels, qemu
from support.kernels import Module, Report

import rumpbundle
from rumpbundle.errors import InputError

REWRITTEN = r"[\n\r\0\"'\\]"
"""What must be refused: GRUB escapes quotes and backslashes."""
NOT_FOR_EFI = r"[\0\udc80-\udcff]"
"""An EFI application is given text, and no loader stands between."""

TEXTS = [
    "plain",
    "two words",
    "  leading",
    "trailing   ",
    "   ",
    "a   b     c",
    *(f"x{c}y" for c in string.punctuation),
    *(f" {c} " for c in string.punctuation),
    "$root ${root} $? $1 $@ $$ ${",
    "; halt; reboot",
    "# no comment",
    "{ a; b } }{",
    "if then else fi for do done function",
    "key=value -o --opt=\"quoted 'words'\"",
    '{"cmdline": "a b", "x": [1, 2]}',
    "a\tb\x01\x1b[31m\x7f",
    "déjà vu 日本語 🙂",
    "not UTF-8: \udcff\udc80",
    "a\nb",
    "a\rb",
    "a\0b",
    "*.c [a-z]? ~ !! $(halt) `halt` <in >out 2>&1 a|b a&b a&&b",
    "long " + "word " * 190,
]
NAMES = [
    "kernel $root ;{}#'\"\\ *",
    "'",
    "two  blanks ",
    "-x",
    "--",
    "déjà日本🙂",
    "\udcff",
    "($root)",
    "(hd0)a:b",
    "a,b",
    "x" * 200,
]


def test_every_printable_byte_is_a_case():
    together = "".join(TEXTS)
    assert set(string.printable) - set("\x0b\x0c") <= set(together) | set(string.ascii_letters + string.digits)


def refused(kernel, **recipe) -> str | None:
    """Return why a bundle cannot be made, None if it can."""
    try:
        rumpbundle.plan(rumpbundle.Recipe(app=kernel, **recipe))
    except InputError as error:
        return str(error)
    return None


def accepted(kernel, texts, forbidden, make):
    """Return the texts that can be bundled, having checked that exactly those with *forbidden* characters cannot."""
    good = []
    for text in texts:
        why = refused(kernel, **make(text))
        assert (why is not None) == bool(re.search(forbidden, text)), f"{text!a}: {why}"
        if why is None:
            good.append(text)
    return good


def report_of(image, firmware="bios"):
    return Report.parse(qemu.boot(image, firmware=firmware, memory="512M").serial)


@pytest.mark.boot
@pytest.mark.parametrize("kernel", ["multiboot", "multiboot2"])
def test_module_texts_arrive(tmp_path, kernel):
    path = kernels.build(kernel)
    module = tmp_path / "m"
    module.touch()
    texts = accepted(path, TEXTS, REWRITTEN, lambda t: {"modules": (rumpbundle.ModuleFile(module, t),)})
    assert len(texts) > 60
    # Each has a content of its own, so that a text on the wrong module shows.
    modules = [(f"m{n}", b"content %d" % n, text) for n, text in enumerate(["", *texts])]
    report = report_of(images.make(tmp_path, path, modules=modules))
    assert report.modules == tuple(
        Module.of(content, text.encode("utf-8", "surrogateescape")) for _, content, text in modules
    )


@pytest.mark.boot
@pytest.mark.parametrize(
    ("kernel", "firmware", "forbidden"),
    [
        pytest.param("multiboot", "bios", REWRITTEN, id="multiboot"),
        pytest.param("multiboot2", "bios", REWRITTEN, id="multiboot2"),
        pytest.param("linux", "bios", REWRITTEN, id="linux"),
        pytest.param("linux16", "bios", REWRITTEN, id="linux16"),
        pytest.param("efi", "uefi", NOT_FOR_EFI, id="efi"),
    ],
)
def test_command_lines_arrive(tmp_path, kernel, firmware, forbidden):
    path = kernels.build(kernel)
    texts = accepted(path, TEXTS, forbidden, lambda t: {"cmdline": t, "argv0": False})
    together = " ".join(text for text in texts if not text.startswith("long"))
    for text in [together] if firmware == "uefi" else [together, "  leading", "trailing   ", "   ", texts[-1]]:
        (image := tmp_path / "image.iso").unlink(missing_ok=True)
        images.make(tmp_path, path, cmdline=text, argv0=False)
        assert ascii(report_of(image, firmware).arguments) == ascii(text)


@pytest.mark.boot
@pytest.mark.parametrize("kernel", ["multiboot", "multiboot2", "linux"])
def test_file_names_arrive(tmp_path, kernel):
    modules = [(name, b"%d: its content " % number, "") for number, name in enumerate(NAMES)]
    contents = [content for _, content, _ in modules]
    if kernel == "linux":
        contents = [b"".join(content.ljust(-(-len(content) // 4) * 4, b"\0") for content in contents)]
    for name in NAMES if kernel == "multiboot" else ["kernel $root ;{}# *"]:
        app = shutil.copy(kernels.build(kernel), tmp_path / name)
        image = images.make(tmp_path, app, modules=modules, argv0=False, cmdline="exit=5", firmware="bios")
        report = report_of(image)
        assert report.arguments == "exit=5"
        assert report.modules == tuple(map(Module.of, contents))
        image.unlink()


@pytest.mark.boot
def test_the_name_of_an_efi_application_arrives(tmp_path):
    for name in ["a:b", "a?b", "a*b", 'a"b', "a\\b", "a|b", "a<b"]:
        assert refused(shutil.copy(kernels.build("efi"), tmp_path / name), cmdline="x")
    app = shutil.copy(kernels.build("efi"), tmp_path / "app $root ;{}#' déjà日本.EFI")
    assert report_of(images.make(tmp_path, app, cmdline="exit=5"), "uefi").arguments == "exit=5"


@pytest.mark.boot
@pytest.mark.parametrize("kernel", ["linux", "linux16"])
def test_a_linux_command_line_arrives_whole_or_is_refused(tmp_path, kernel):
    app = kernels.build(kernel)
    longest = "end".rjust(2047 - len(f"BOOT_IMAGE=/boot/kernel/{kernel} "), "x").replace("xend", " end")
    assert report_of(images.make(tmp_path, app, cmdline=longest)).arguments == longest
    assert refused(app, cmdline="x" + longest) == (
        "--cmdline: the kernel takes 2047 bytes of command line; with BOOT_IMAGE= this is 2048"
    )
    for name in ["a'b", 'a"b', "a\\b"]:
        assert "would put a backslash" in refused(shutil.copy(app, tmp_path / name))
