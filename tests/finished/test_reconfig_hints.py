"""What reconfig refuses: each hint is true, for every family, image and change."""

from __future__ import annotations

import json
import re
from itertools import product

import pytest
from support import synthetic

from rumpbundle.cli import main

SEGMENT = synthetic.Segment(synthetic.multiboot1() + bytes(64))
SOLO5 = synthetic.Segment(synthetic.solo5_notes(3), type=synthetic.NOTE)
KERNELS = {
    "rumprun": synthetic.rumprun(),
    "plain": synthetic.multiboot_elf(),
    "linux": synthetic.bzimage(payload=3000),
    "solo5": synthetic.elf([SEGMENT, SOLO5]),
    "unikraft": synthetic.elf([SEGMENT], [synthetic.Section(".uk_x", b"y")]),
    "xen": synthetic.kernel_with_texts(b"Xen version %d\0"),
    "hermit": synthetic.kernel_with_texts(b"hermit-loader\0"),
    "efi": synthetic.pe(),
}
MADE = ("", "-c short.json", "-c long.json", "--cmdline a=1", "--module module", "--config-room 8K")
CHANGES = ("-c short.json", "-c long.json", "-e A=1", "--cmdline b=2", "-c short.json --cmdline b=2")

UNKNOWN = "does not know how this kernel reads a configuration"
BESIDE = "; {} can be given when it is bundled again"
REFUSED = {
    # family, how the image was made, change: the problem, and the hint
    ("rumprun", "", "-c long.json"): ("in another way", "--config-room 6K both are handed over in one way"),
    ("rumprun", "-c long.json", "-c short.json"): (
        "in another way",
        "--config-room 6K both are handed over in one way",
    ),
    ("rumprun", "", "--cmdline b=2"): ("no command line beside its configuration", "give a configuration (-c)"),
    ("rumprun", "-c short.json", "--cmdline b=2"): ("no command line beside its configuration", "(-e, --hostname"),
    ("rumprun", "--config-room 8K", "--cmdline b=2"): ("no command line beside", "give a configuration (-c)"),
    ("rumprun", "--cmdline a=1", "-e A=1"): ("no configuration beside --cmdline", "with -c and without --cmdline"),
    ("rumprun", "--module module", "-e A=1"): ("no configuration beside --module", "with -c and without --module"),
    ("plain", "", "-e A=1"): (UNKNOWN, "as a file with --module" + BESIDE.format("--module")),
    ("xen", "--cmdline a=1", "-c short.json"): (UNKNOWN, "as a file with --module" + BESIDE.format("--module")),
    ("efi", "", "-c short.json"): (UNKNOWN, "--esp DIR" + BESIDE.format("--esp")),
    ("efi", "", "--cmdline b=2"): ("in another way with a command line than without", "bundle again, with --cmdline"),
    ("efi", "--config-room 8K", "--cmdline b=2"): ("than without", "bundle again, with --cmdline"),
    ("solo5", "", "-c long.json"): ("bytes more than the image has room for", "with --config-room"),
    ("solo5", "-c long.json", "-c short.json"): ("takes less than the image keeps", "with --config-room"),
    ("hermit", "-c long.json", "-c short.json"): ("takes less than the image keeps", "with --config-room"),
    ("linux", "", "-c long.json"): ("linux: this kernel cuts its command line off", ""),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    top = tmp_path_factory.mktemp("hints")
    for name, content in KERNELS.items():
        (top / name).write_bytes(content)
    (top / "module").write_bytes(b"module")
    for name, length in (("short", 1), ("long", 6000)):
        (top / f"{name}.json").write_text(json.dumps({"rc": [{"bin": "a", "argv": ["x" * length]}]}))
    return top


def made(family: str, words: str, output: str = "a.raw") -> bool:
    module = ["--module", "module"] if family in ("xen", "hermit") and "--module" not in words else []
    return main(["raw", family, *module, *words.split(), "-q", "--force", "-o", output]) == 0


def changed(words: str) -> bool:
    return main(["reconfig", "a.raw", *words.split(), "-q", "--force", "-o", "b.raw"]) == 0


@pytest.mark.parametrize(("family", "image", "change"), REFUSED)
def test_what_is_refused_and_why(place, monkeypatch, capfd, family, image, change):
    problem, hint = REFUSED[family, image, change]
    monkeypatch.chdir(place)
    assert made(family, image)
    capfd.readouterr()
    assert not changed(change)
    error, _, advice = capfd.readouterr().err.partition("\nhint: ")
    assert problem in error
    assert hint in advice


@pytest.mark.parametrize("family", KERNELS)
def test_each_hint_is_true(place, monkeypatch, capfd, family):
    """What is advised for bundling again is bundled, and then changed."""
    monkeypatch.chdir(place)
    for image, change in product(MADE, CHANGES):
        if not made(family, image):
            continue
        capfd.readouterr()
        if changed(change):
            continue
        hint = capfd.readouterr().err.partition("\nhint: ")[2]
        again = "bundle again" in hint or "bundled again" in hint
        assert again or not re.search("--(module|esp|data|volume|config-room)", hint), (image, change, hint)
        if room := re.search(r"--config-room( \d+K)?", hint):
            assert made(family, f"{image} --config-room{room[1] or ' 16K'}"), (image, change, hint)
            assert changed(change), (image, change, hint)
        elif re.search("bundle again, with (-c|--cmdline)", hint):
            words = change.replace(" --cmdline b=2", "")
            assert made(family, words)
            assert changed(words), (image, change, hint)
