"""Several configurations in one image: what is planned, what is refused, and how long many of them take."""

from __future__ import annotations

import json

import pytest
from support import kernels, synthetic

from rumpbundle import bundle
from rumpbundle.bootloader.smbios import Key
from rumpbundle.cli import main
from rumpbundle.errors import UsageError
from rumpbundle.finished.origin import origin
from rumpbundle.images.detect import open_disk

RUMPRUN = b"_RUMPRUN_ROOTFSCFG=\0ld_virtio\0vioif\0"


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "web.bin").write_bytes(kernels.build("multiboot").read_bytes() + RUMPRUN)
    (tmp_path / "linux").write_bytes(synthetic.bzimage(payload=300_000, packed=True))
    for name in ("one", "two", "three"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"env": {"NAME": name}}))
    (tmp_path / "long.json").write_text(json.dumps({"env": {f"V{n}": "x" * 100 for n in range(100)}}))
    (tmp_path / "bad.json").write_text(json.dumps({"net": [{"if": "x0", "type": "inet", "method": "auto"}]}))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "f").write_bytes(b"x" * 5000)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("web7", "any", "web7"),
        ("serial:web7", "serial", "web7"),
        ("oem:rumpbundle=web7", "oem", "rumpbundle=web7"),
        ("uuid:8C4F1E2A-0000-1111-2222-333344445555", "uuid", "8c4f1e2a-0000-1111-2222-333344445555"),
        ("8C4F1E2A-0000-1111-2222-333344445555", "any", "8c4f1e2a-0000-1111-2222-333344445555"),
        ("mac:52:54", "any", "mac:52:54"),
        ("..", "any", ".."),
        ("a b\\$`*?[", "any", "a b\\$`*?["),
        ("k" * 200, "any", "k" * 200),
    ],
)
def test_a_key_says_which_identity(text, kind, value):
    key = Key.parse(text)
    assert (key.kind, key.value) == (kind, value)
    assert Key.parse(str(key)) == key
    assert key.stem == f"{kind}:{value}"


@pytest.mark.parametrize(
    "text", ["", "k" * 201, "a/b", "a'b", 'a"b', " a", "a ", "ä", "a\tb", "serial:", "serial: a", "uuid:web7", "a\n"]
)
def test_what_is_no_key_is_refused(text):
    with pytest.raises(UsageError, match=r"KEY|UUID"):
        Key.parse(text)


@pytest.mark.parametrize("text", ["Serial:web7", "UUID:8c4f1e2a-0000-1111-2222-333344445555", "oem :a", "ASSET:x:y"])
def test_a_kind_spelled_otherwise_is_no_bare_key(text):
    kind, _, value = text.partition(":")
    with pytest.raises(UsageError) as caught:
        Key.parse(text)
    assert caught.value.hint == f"write {kind.strip().lower()}:{value}"
    assert Key.parse(f"serial:{text}").value == text


def test_the_key_ends_at_the_last_equals_sign(inputs):
    assert main(["raw", "web.bin", "-q", "--config-for", "oem:rumpbundle=web7=one.json", "-o", "a.raw"]) == 0
    with open_disk("a.raw") as disk:
        (choice,) = origin(disk).bundle.choices
    assert (choice.key, choice.place, choice.config) == ("oem:rumpbundle=web7", "module", {"env": {"NAME": "one"}})


def test_their_order_and_where_they_stand_make_no_difference(inputs):
    (inputs / "configs").mkdir()
    for key, name in (("b", "one"), ("serial:a", "two")):
        (inputs / "configs" / f"{key}.json").write_bytes((inputs / f"{name}.json").read_bytes())
    images = []
    for words in (
        ["--config-for", "b=one.json", "--config-for", "serial:a=two.json"],
        ["--config-for", "serial:a=two.json", "--config-for", "b=one.json"],
        ["--configs", "configs"],
        ["--config-for", "b=one.json", "--configs", "some"],
    ):
        (inputs / "some").mkdir(exist_ok=True)
        (inputs / "some" / "serial:a.json").write_bytes((inputs / "two.json").read_bytes())
        assert main(["raw", "web.bin", "-q", *words, "-o", "a.raw", "--force"]) == 0
        images.append((inputs / "a.raw").read_bytes())
    bundle("web.bin", "raw", output="b.raw", configs={"b": "one.json", "serial:a": "two.json"})
    bundle("web.bin", "raw", output="c.raw", configs=["b=one.json", "serial:a=two.json"])
    bundle("web.bin", "raw", output="d.raw", configs="configs")
    images += [(inputs / f"{name}.raw").read_bytes() for name in "bcd"]
    assert len(set(images)) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["web.bin", "--config-for", "one.json"], "--config-for: expected KEY=CFG, got 'one.json'"),
        (["web.bin", "--config-for", "=one.json"], "1 to 200 printable"),
        (["web.bin", "--config-for", "a/b=one.json"], "one.json: a KEY has no slash"),
        (["web.bin", "--config-for", "a=one.json", "--config-for", "a=two.json"], "for a: one.json and two.json"),
        (["web.bin", "--config-for", "a=missing.json"], "missing.json"),
        (["web.bin", "--config-for", "a=bad.json"], "bad.json: $.net[0]"),
        (["linux", "--config-for", "a=long.json"], "long.json, for a: linux: this kernel cuts"),
        (["web.bin", "--config-for", "a=one.json", "--config-for", "a=one.json"], "two configurations for a"),
        (["{multiboot}", "--config-for", "a=one.json"], "one.json, for a: multiboot: rumpbundle does not know how"),
        (["{efi}", "--config-for", "a=one.json"], "an EFI application is started by firmware"),
        (["{xen-pv}", "--config-for", "a=one.json"], "no firmware starts this kernel"),
        (
            ["web.bin", "--data", "data:/d", "-c", "one.json", "--config-for", "a=long.json"],
            "long.json, for a: this configuration wants another place for --data or --volume",
        ),
        (["web.bin", "--configs", "data"], "data/f: is not called KEY.json"),
        (["web.bin", "--configs", "nowhere"], "nowhere: cannot be read"),
    ],
)
def test_what_cannot_be_is_refused_and_named(inputs, capfd, words, message):
    argv = [str(kernels.build(word[1:-1])) if word.startswith("{") else word for word in words]
    assert main(["xen" if "{xen-pv}" in words else "raw", *argv, "-o", "out"]) == 2
    assert message in capfd.readouterr().err
    assert not (inputs / "out").exists()


def test_a_pvh_kit_has_no_identity(inputs, capfd):
    assert main(["xen", "linux", "--type", "pvh", "--config-for", "a=one.json", "-o", "out"]) == 2
    assert "a pvh domain has no firmware" in capfd.readouterr().err
    assert main(["xen", "linux", "--type", "hvm", "--config-for", "a=one.json", "-o", "out"]) == 0


def test_a_directory_leads_nowhere_else(inputs, capfd):
    (inputs / "configs").mkdir()
    (inputs / "configs" / "a.json").symlink_to("../one.json")
    assert main(["raw", "web.bin", "--configs", "configs"]) == 2
    assert "configs/a.json: is a symbolic link that leads out" in capfd.readouterr().err
    (inputs / "configs" / "a.json").unlink()
    (inputs / "configs" / "b.json").write_text("{}")
    (inputs / "configs" / "a.json").symlink_to("b.json")
    assert main(["raw", "web.bin", "-q", "--configs", "configs"]) == 0


def test_no_output_takes_the_place_of_a_configuration(inputs, capfd):
    assert main(["raw", "web.bin", "--config-for", "a=one.json", "-o", "one.json", "--force"]) == 2
    assert (inputs / "one.json").read_text().startswith("{")


def test_another_default_leaves_the_others_as_they_are(inputs):
    words = ["raw", "web.bin", "-q", "--config-for", "a=two.json", "--config-for", "serial:b=long.json"]
    assert main([*words, "-c", "one.json", "-o", "one.raw"]) == 0
    assert main([*words, "-c", "three.json", "-o", "three.raw"]) == 0
    assert main(["reconfig", "one.raw", "-q", "-c", "three.json", "-o", "new.raw"]) == 0
    assert (inputs / "new.raw").read_bytes() == (inputs / "three.raw").read_bytes()


def test_data_is_there_once_for_all(inputs):
    words = ["raw", "linux", "-q", "--data", "data:/srv", "--volume", "data:/var:8M"]
    assert main([*words, "-c", "one.json", "-o", "one.raw"]) == 0
    assert main([*words, "-c", "one.json", "--config-for", "a=two.json", "-o", "two.raw"]) == 0
    assert (inputs / "two.raw").stat().st_size - (inputs / "one.raw").stat().st_size < 1 << 16
