"""reconfig: another configuration is what bundling with it would have given, byte for byte."""

from __future__ import annotations

import filecmp
import json
import random
from pathlib import Path

import pytest
from support import kernels, synthetic

from rumpbundle import formats
from rumpbundle.cli import main

RUMPRUN = b"_RUMPRUN_ROOTFSCFG=\0ld_virtio\0vioif\0"
KINDS = [(format.name, name) for format in formats.formats() for name in format.variants or ("",)]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    top = tmp_path_factory.mktemp("inputs")
    (top / "web.bin").write_bytes(kernels.build("multiboot").read_bytes() + RUMPRUN)
    (top / "linux").write_bytes(synthetic.bzimage(payload=300_000))
    (top / "plain").write_bytes(kernels.build("multiboot").read_bytes())
    (top / "data").mkdir()
    (top / "data" / "f").write_bytes(random.Random(1).randbytes(3 << 20))
    (top / "one.json").write_text(json.dumps({"env": {"A": "1"}, "hostname": "one"}))
    (top / "two.json").write_text(json.dumps({"env": {"B": "x" * 900}, "rc": [{"bin": "two", "argv": ["-v"]}]}))
    return top


def same(one: Path, other: Path) -> None:
    if one.is_file():
        assert filecmp.cmp(one, other, shallow=False)
        return
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in other.iterdir())
    for name in names:
        assert filecmp.cmp(one / name, other / name, shallow=False), name


def outputs(top: Path, format: str, name: str) -> Path:
    directory = top / name
    directory.mkdir()
    return directory / f"web{formats.find(format).tail}"


@pytest.mark.parametrize(("format", "subformat"), KINDS)
def test_it_is_what_bundling_gives_in_every_format(inputs, tmp_path, format, subformat):
    before, after, wanted = (outputs(tmp_path, format, name) for name in ("before", "after", "wanted"))
    words = [str(inputs / "web.bin"), "--data", f"{inputs / 'data'}:/data", "-q"]
    kind = ["--subformat", subformat] if subformat else []
    for out, config in ((before, "one"), (wanted, "two")):
        assert main([format, *words, *kind, "-c", str(inputs / f"{config}.json"), "-o", str(out)]) == 0
    assert main(["reconfig", str(before), "-q", "-c", str(inputs / "two.json"), "-o", str(after)]) == 0
    same(after.parent, wanted.parent) if before.is_file() else same(after, wanted)
    assert main(["reconfig", str(before), "-q", "-c", str(inputs / "two.json"), "--in-place"]) == 0
    same(before.parent, wanted.parent) if before.is_file() else same(before, wanted)


LINES = {
    "linux": (["--hostname", "one"], ["--hostname", "two", "-e", "A=b"], ["-e", "A=b", "--hostname", "two"]),
    "plain": (["--cmdline", "a"], ["--cmdline", "b " * 300], ["--cmdline", "b " * 300]),
    "web.bin": (["-e", "A=1", "--arg", "x"], ["-e", "A=2", "--arg", "x"], ["-e", "A=2"]),
}


@pytest.mark.parametrize("kernel", LINES)
def test_options_override_what_the_image_carries(inputs, tmp_path, kernel):
    before, wanted, change = LINES[kernel]
    app = str(inputs / kernel)
    assert main(["raw", app, "-q", *before, "-o", str(tmp_path / "a.raw")]) == 0
    assert main(["raw", app, "-q", *wanted, "-o", str(tmp_path / "b.raw")]) == 0
    assert main(["reconfig", str(tmp_path / "a.raw"), "-q", *change, "-o", str(tmp_path / "c.raw")]) == 0
    same(tmp_path / "c.raw", tmp_path / "b.raw")


def test_the_command_line_stays_unless_another_is_given(inputs, tmp_path):
    argv = ["raw", str(inputs / "linux"), "-q", "--cmdline", "quiet", "--hostname", "a"]
    assert main([*argv, "-o", str(tmp_path / "a.raw")]) == 0
    assert main(["reconfig", str(tmp_path / "a.raw"), "-q", "--hostname", "b", "-o", str(tmp_path / "b.raw")]) == 0
    assert main(["raw", str(inputs / "linux"), "-q", "--cmdline", "quiet", "--hostname", "b", "-o",
                 str(tmp_path / "c.raw")]) == 0  # fmt: skip
    same(tmp_path / "b.raw", tmp_path / "c.raw")


def test_the_configuration_comes_out_and_goes_in_again(inputs, tmp_path, capfd):
    image = tmp_path / "a.vdi"
    assert main(["vdi", str(inputs / "web.bin"), "-q", "-c", str(inputs / "one.json"), "-o", str(image)]) == 0
    capfd.readouterr()
    assert main(["config", str(image)]) == 0
    text = capfd.readouterr().out
    assert json.loads(text) == json.loads((inputs / "one.json").read_text())
    (tmp_path / "cfg.json").write_text(text)
    assert main(["reconfig", str(image), "-q", "-c", str(tmp_path / "cfg.json"), "-o", str(tmp_path / "b.vdi")]) == 0
    same(image, tmp_path / "b.vdi")


def test_what_does_not_fit_says_how_much_is_missing(inputs, tmp_path, capfd):
    image, long = tmp_path / "a.raw", tmp_path / "long.json"
    assert main(["raw", str(inputs / "web.bin"), "-q", "-o", str(image)]) == 0
    long.write_text(json.dumps({"env": {f"V{n}": "x" * 100 for n in range(100)}}))
    before = image.read_bytes()
    assert main(["reconfig", str(image), "-c", str(long), "--in-place"]) == 2
    said = capfd.readouterr().err
    assert "keeps room for" in said
    assert "--config-room" in said
    assert image.read_bytes() == before
    room, wanted = tmp_path / "room.raw", tmp_path / "wanted.raw"
    argv = ["raw", str(inputs / "web.bin"), "-q", "--config-room", "64K"]
    assert main([*argv, "-o", str(room)]) == 0
    assert main([*argv, "-c", str(long), "-o", str(wanted)]) == 0
    assert main(["reconfig", str(room), "-q", "-c", str(long), "--in-place"]) == 0
    same(room, wanted)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give -o NEW"),
        (["-o", "x", "--in-place"], "give -o NEW"),
        (["-o", "x", "--controller", "ide"], "no option of raw"),
        (["-o", "x", "-e", "novalue"], "novalue"),
    ],
)
def test_wrong_words_say_so(inputs, tmp_path, monkeypatch, capfd, words, message):
    monkeypatch.chdir(tmp_path)
    assert main(["raw", str(inputs / "plain"), "-q", "-o", "a.raw"]) == 0
    assert main(["reconfig", "a.raw", *words]) == 2
    assert message in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.raw"]


def test_a_foreign_image_has_no_configuration(tmp_path, capfd):
    image = tmp_path / "a.raw"
    image.write_bytes(b"\xeb" + bytes((1 << 20) - 1))
    assert main(["reconfig", str(image), "--cmdline", "x", "-o", str(tmp_path / "b.raw")]) == 2
    assert "was not made by rumpbundle" in capfd.readouterr().err
