"""reconfig: another configuration is what bundling with it would have given, byte for byte."""

from __future__ import annotations

import filecmp
import io
import json
import os
import random
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import kernels, synthetic

from rumpbundle import formats
from rumpbundle.bootloader.bootimages import boot_images
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


def test_what_stays_is_copied_by_the_kernel(inputs, tmp_path, monkeypatch):
    before, after = tmp_path / "before.iso", tmp_path / "after.iso"
    assert main(["iso", str(inputs / "web.bin"), "--data", f"{inputs / 'data'}:/data", "-q", "-o", str(before)]) == 0
    written = 0
    write = os.pwrite

    def counted(fd: int, data: bytes, offset: int) -> int:
        nonlocal written
        written += len(data)
        return write(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", counted)
    assert main(["reconfig", str(before), "-q", "-e", "A=1", "-o", str(after)]) == 0
    assert written < len(boot_images().efi)


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


@pytest.mark.parametrize("format", ["raw", "qcow2"])  # changed in place, and written anew
def test_in_place_prints_the_path_that_was_given(inputs, tmp_path, monkeypatch, capsys, format):
    (tmp_path / "real").mkdir()
    assert main([format, str(inputs / "web.bin"), "-q", "-o", str(tmp_path / f"real/a.{format}")]) == 0
    (tmp_path / "link").symlink_to(f"real/a.{format}")
    monkeypatch.chdir(tmp_path / "real")
    capsys.readouterr()
    for path in (f"a.{format}", f"../real/a.{format}", "../link"):
        assert main(["reconfig", path, "-q", "-e", f"A={len(path)}", "--in-place"]) == 0
        assert capsys.readouterr().out == f"{path}\n"
        assert main(["reconfig", path, "-q", "--in-place", "--json"]) == 0
        (artifact,) = json.loads(capsys.readouterr().out)["artifacts"]
        assert (artifact["path"], artifact["size"]) == (path, os.path.getsize(path))
    assert (tmp_path / "link").is_symlink()


def test_what_does_not_fit_says_how_much_is_missing(inputs, tmp_path, capfd):
    image, long = tmp_path / "a.raw", tmp_path / "long.json"
    assert main(["raw", str(inputs / "web.bin"), "-q", "-o", str(image)]) == 0
    long.write_text(json.dumps({"env": {f"V{n}": "x" * 100 for n in range(100)}}))
    before = image.read_bytes()
    assert main(["reconfig", str(image), "-c", str(long), "--in-place"]) == 2
    said = capfd.readouterr().err
    assert "room for" in said
    assert "--config-room" in said
    assert image.read_bytes() == before
    room, wanted = tmp_path / "room.raw", tmp_path / "wanted.raw"
    argv = ["raw", str(inputs / "web.bin"), "-q", "--config-room", "64K"]
    assert main([*argv, "-o", str(room)]) == 0
    assert main([*argv, "-c", str(long), "-o", str(wanted)]) == 0
    assert main(["reconfig", str(room), "-q", "-c", str(long), "--in-place"]) == 0
    same(room, wanted)


def test_what_goes_another_way_is_not_said_to_be_too_long(inputs, tmp_path, capfd):
    """A rumprun's configuration beyond 4094 bytes is a file; a short one is a boot module."""
    image, long = tmp_path / "a.raw", tmp_path / "long.json"
    long.write_text(json.dumps({"env": {"A": "x" * 5000}}))
    assert main(["raw", str(inputs / "web.bin"), "-q", "-c", str(long), "-o", str(image)]) == 0
    assert main(["reconfig", str(image), "-c", str(inputs / "one.json"), "-o", str(tmp_path / "b.raw")]) == 2
    said = capfd.readouterr().err
    assert "is handed to the guest in another way than the image's" in said
    assert "with --config-room 5K both are handed over in one way" in said
    assert main(["raw", str(inputs / "web.bin"), "-q", "--config-room", "99G", "-o", str(tmp_path / "b.raw")]) == 2
    assert "--config-room: expected 16M at most" in capfd.readouterr().err


def test_an_image_without_a_configuration_carries_an_empty_one(inputs, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    for kernel in ("plain", "web.bin", "linux"):
        argv = ["raw", str(inputs / kernel), "-q", "--cmdline", "a", "--force"]
        if kernel == "web.bin":
            argv.remove("--cmdline"), argv.remove("a")
        assert main([*argv, "-o", "a.raw"]) == 0
        capfd.readouterr()
        assert main(["config", "a.raw"]) == 0
        Path("cfg.json").write_text(capfd.readouterr().out)
        assert main(["reconfig", "a.raw", "-q", "-c", "cfg.json", "-o", "b.raw", "--force"]) == 0
        assert main([*argv, "-c", "cfg.json", "-o", "c.raw"]) == 0
        same(Path("b.raw"), Path("c.raw"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give -o NEW"),
        (["-o", "x", "--in-place"], "exclude each other"),
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


KEYS = ("web7", "serial:web7", "asset:a=b", "uuid:8c4f1e2a-0000-1111-2222-333344445555")
CONFIGS = st.dictionaries(st.sampled_from(KEYS), st.integers(0, 5), max_size=3)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    kernel=st.sampled_from(("web.bin", "linux")),
    default=st.none() | st.just(0),
    before=CONFIGS,
    change=CONFIGS.filter(bool),
    in_place=st.booleans(),
)
def test_one_of_many_is_replaced_and_others_join(inputs, tmp_path_factory, kernel, default, before, change, in_place):
    top = tmp_path_factory.mktemp("some")
    for number in range(6):
        config = {"env": {"N": str(number) * (number * 300)}, "hostname": f"h{number}"}
        (top / f"{number}.json").write_text(json.dumps(config))
    words = ["raw", str(inputs / kernel), "-q", "--data", f"{inputs / 'data'}:/data", "--config-room", "8K"]
    words += [] if default is None else ["-c", str(top / f"{default}.json")]

    def of(some):
        return [word for key, number in some.items() for word in ("--config-for", f"{key}={top / f'{number}.json'}")]

    assert main([*words, *of(before), "-o", str(top / "a.raw")]) == 0
    wanted = [*words, *of(before | change)]
    assert main([*wanted, "-o", str(top / "b.raw")]) == 0
    where = ["--in-place"] if in_place else ["-o", str(top / "c.raw")]
    assert main(["reconfig", str(top / "a.raw"), "-q", *of(change), *where]) == 0
    same(top / ("a.raw" if in_place else "c.raw"), top / "b.raw")


def test_who_loses_the_default_hears_of_it(inputs, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(["raw", str(inputs / "web.bin"), "-q", "-o", "a.raw"]) == 0
    capfd.readouterr()
    assert main(["reconfig", "a.raw", "--config-for", f"web7={inputs / 'one.json'}", "-o", "b.raw"]) == 0
    assert "a machine without a configuration of its own halts" in capfd.readouterr().err
    assert (
        main(["raw", str(inputs / "web.bin"), "-q", "--config-for", f"web7={inputs / 'one.json'}", "-o", "c.raw"])
        == 0
    )
    same(Path("b.raw"), Path("c.raw"))
    assert main(["config", "b.raw"]) == 2
    assert "--as" in capfd.readouterr().err


def test_one_of_many_comes_out_and_goes_in_again(inputs, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    words = ["--config-for", f"serial:web7={inputs / 'one.json'}", "--config-for", f"web8={inputs / 'two.json'}"]
    assert main(["raw", str(inputs / "web.bin"), "-q", *words, "-c", str(inputs / "one.json"), "-o", "a.raw"]) == 0
    for key, name in (("serial:web7", "one"), ("web7", "one"), ("web8", "two"), ("oem:web8", "two")):
        capfd.readouterr()
        assert main(["config", "a.raw", "--as", key]) == 0
        text = capfd.readouterr().out
        assert json.loads(text) == json.loads((inputs / f"{name}.json").read_text())
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert main(["reconfig", "a.raw", "-q", "--config-for", "web8=-", "-o", "b.raw"]) == 0
    same(Path("a.raw"), Path("b.raw"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["a.raw", "--as", "serial:web"],
            "no configuration of its own for serial:web\nhint: did you mean serial:web7?",
        ),
        (["a.raw", "--as", "a/b"], "--as: a KEY has no slash"),
        (["b.raw", "--as", "web7"], "one configuration, for all machines"),
        (["one.json", "--as", "web7"], "a file holds one configuration"),
        (["--schema", "--as", "web7"], "give a configuration, or --schema"),
    ],
)
def test_who_is_not_there_has_no_configuration(inputs, tmp_path, monkeypatch, capfd, words, message):
    monkeypatch.chdir(tmp_path)
    Path("one.json").write_text("{}")
    key = ["--config-for", "serial:web7=one.json", "--config-for", "oem:rumpbundle=b=one.json"]
    assert main(["raw", str(inputs / "web.bin"), "-q", *key, "-o", "a.raw"]) == 0
    assert main(["raw", str(inputs / "web.bin"), "-q", "-o", "b.raw"]) == 0
    assert main(["config", *words]) == 2
    assert message in capfd.readouterr().err


def test_no_output_takes_the_place_of_the_configuration(inputs, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    Path("one.json").write_text("{}")
    assert main(["raw", str(inputs / "web.bin"), "-q", "-o", "a.raw"]) == 0
    for words in (["-c", "one.json"], ["--config-for", "a=one.json"]):
        assert main(["reconfig", "a.raw", *words, "-o", "one.json", "--force"]) == 2
        assert Path("one.json").read_text() == "{}"


def test_what_the_guest_cannot_do_names_the_file(inputs, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(["raw", str(inputs / "web.bin"), "-q", "-o", "a.raw"]) == 0
    Path("six.json").write_text(json.dumps({"net": [{"if": "vioif0", "type": "inet6", "method": "auto"}]}))
    assert main(["reconfig", "a.raw", "-c", "six.json", "-o", "b.raw"]) == 2
    assert capfd.readouterr().err.startswith("error: six.json: $.net[0].method: rumprun page-faults")


@pytest.mark.parametrize("format", ["iso", "gce", "azure", "ec2"])
def test_the_dry_run_of_a_changed_copy_can_be_pasted(tmp_path, monkeypatch, capsys, format):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "web.bin").write_bytes(kernels.build("multiboot").read_bytes() + RUMPRUN)
    tail = {"gce": ".gce.tar.gz", "azure": ".azure.vhd"}.get(format, f".{format}")
    assert main([format, "web.bin", "-q", "-e", "A=1", "-o", f"./-web{tail}"]) == 0
    capsys.readouterr()
    (image,) = [each for each in os.listdir() if each.startswith("-") and not each.endswith(".json")]
    before = sorted(os.listdir())
    assert main(["run", f"./{image}", "-e", "A=2", "--timeout", "9", "--dry-run"]) == 0
    make, boot, remove = (shlex.split(line) for line in capsys.readouterr().out.splitlines())
    assert main(make[1:]) == 0
    assert main([*boot[1:], "--dry-run"]) == (2 if format == "gce" else 0)  # it says that it has to be unpacked first
    assert subprocess.run(remove, check=False).returncode == 0
    assert sorted(os.listdir()) == before
    capsys.readouterr()
    assert main(["run", f"./{image}", "-c", "none.json", "--dry-run"]) == 2
    assert capsys.readouterr().out == ""
