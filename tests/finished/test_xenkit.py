"""Xen kits, with and without a disk in them: another configuration, what they carry, whether they are whole."""

from __future__ import annotations

import filecmp
import json
import shutil
from pathlib import Path

import pytest
from blake3 import blake3
from support import kernels, synthetic

from rumpbundle.cli import main

KITS = {
    "pv": ["xen-pv-rumprun"],
    "pv-memory": ["xen-pv-rumprun", "--memory", "128M"],
    "pv-disks": ["xen-pv-rumprun", "--data", "data:/d", "--volume", "data:/v:2M"],
    "pv-elsewhere": ["xen-pv-rumprun", "--host-directory", '/srv/a"b', "--set", "vcpus=2"],
    "pvh": ["bz", "--type", "pvh", "--cmdline", "quiet"],
    "pvh-modules": ["bz", "--type", "pvh", "--module", "one.json", "--module", "web.bin", "--module", "two.json"],
    "pvh-disk": ["bz", "--type", "pvh", "--data", "data:/d", "--volume", "data:/v:2M", "--host-directory", "/srv/x"],
    "hvm": ["web.bin", "--data", "data:/d"],
    "hvm-uefi": ["web.bin", "--firmware", "uefi", "--set", "vif=['bridge=xenbr0']", "--set", "vcpus=2"],
}
"""Words for ``rumpbundle xen``."""
WITHOUT_DISK = ["pv", "pv-disks", "pvh", "pvh-modules"]


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("xen-pv", "xen-pv-rumprun"):
        shutil.copy(kernels.build(name), name)
    Path("web.bin").write_bytes(kernels.build("multiboot").read_bytes() + b"_RUMPRUN_ROOTFSCFG=\0ld_virtio\0vioif\0")
    Path("bz").write_bytes(synthetic.bzimage(payload=300_000, packed=True))
    Path("data").mkdir()
    Path("data/f").write_bytes(b"x" * 5000)
    Path("one.json").write_text(json.dumps({"hostname": "one"}))
    Path("two.json").write_text(json.dumps({"hostname": "two", "env": {"A": "b"}}))
    return tmp_path


def make(words: list[str], output: str, config: str) -> None:
    assert main(["xen", *words, "-q", "-c", config, "-o", output]) == 0


def same(one: str, other: str) -> None:
    names = sorted(path.name for path in Path(one).iterdir())
    assert names == sorted(path.name for path in Path(other).iterdir())
    assert filecmp.cmpfiles(one, other, names, shallow=False) == (names, [], [])


@pytest.mark.parametrize("kit", KITS)
def test_another_configuration_is_what_bundling_with_it_gives(inputs, kit, capfd):
    make(KITS[kit], "before", "one.json")
    make(KITS[kit], "wanted", "two.json")
    assert main(["reconfig", "before", "-q", "-c", "two.json", "-o", "after"]) == 0
    same("after", "wanted")
    assert main(["reconfig", "before", "-q", "-c", "two.json", "--in-place"]) == 0
    same("before", "wanted")
    capfd.readouterr()
    assert main(["config", "before"]) == 0
    assert json.loads(capfd.readouterr().out) == json.loads(Path("two.json").read_text())
    assert main(["verify", "before"]) == 0


def test_the_checksums_beside_a_kit_stay_true(inputs):
    assert main(["build", "./xen-pv-rumprun", "-f", "xen", "-q", "-c", "one.json", "-o", "out", "--checksums"]) == 0
    assert main(["reconfig", "out/xen-pv-rumprun.xen", "-q", "-e", "A=1", "--in-place"]) == 0
    assert main(["verify", "out/SHA256SUMS"]) == 0


def test_a_kit_without_a_disk_says_what_it_was_made_from(inputs, capfd):
    make(KITS["pv"], "kit", "one.json")
    digest = blake3(Path("kit/rumpbundle.json").read_bytes()).hexdigest()
    assert f"# Bundle {digest}\n" in Path("kit/xl.cfg").read_text()
    Path("kit/rumpbundle.json").unlink()
    capfd.readouterr()
    for words in (["config", "kit"], ["reconfig", "kit", "-c", "two.json", "-o", "new"]):
        assert main(words) == 2
        said = capfd.readouterr().err
        assert said.startswith("error: kit: does not say what it was made from: it holds no rumpbundle.json\n")
    assert not Path("new").exists()


def test_options_given_again_win(inputs):
    make([*KITS["pv"], "--memory", "96M", "--set", "vcpus=2"], "before", "one.json")
    make([*KITS["pv"], "--memory", "64M", "--set", "vcpus=2"], "wanted", "two.json")
    assert main(["reconfig", "before", "-q", "-c", "two.json", "--memory", "64M", "-o", "after"]) == 0
    same("after", "wanted")


def test_what_somebody_added_by_hand_is_not_thrown_away(inputs, capfd):
    make(KITS["pv"], "kit", "one.json")
    with Path("kit/xl.cfg").open("a") as out:
        out.write("vcpus = 4\n")
    before = sorted(path.read_bytes() for path in Path("kit").iterdir())
    assert main(["reconfig", "kit", "-c", "two.json", "--in-place"]) == 2
    assert "kit/xl.cfg: is not what bundling wrote" in capfd.readouterr().err
    assert sorted(path.read_bytes() for path in Path("kit").iterdir()) == before
    assert main(["verify", "kit"]) == 5


def test_what_xenstore_does_not_take_is_refused(inputs, capfd):
    make(KITS["pv"], "kit", "one.json")
    Path("long.json").write_text(json.dumps({"env": {"A": "x" * 4100}}))
    assert main(["reconfig", "kit", "-c", "long.json", "-o", "new"]) == 2
    assert "xenstore takes 4064" in capfd.readouterr().err
    assert main(["reconfig", "kit", "--config-for", "serial:a=two.json", "-o", "new"]) == 2
    assert "no firmware starts this kernel" in capfd.readouterr().err
    assert not Path("new").exists()


@pytest.mark.parametrize("kit", WITHOUT_DISK)
def test_every_file_of_a_kit_is_verified(inputs, kit, capfd):
    make(KITS[kit], "kit", "one.json")
    for path in sorted(Path("kit").iterdir()):
        before = path.read_bytes()
        for after in (before[:-3] + bytes([before[-3] ^ 1]) + before[-2:], before[:-1]):
            path.write_bytes(after)
            assert main(["verify", "kit"]) == 5, path
            assert "Traceback" not in capfd.readouterr().err
        path.write_bytes(before)
    assert main(["verify", "kit"]) == 0


def test_bundled_again_it_is_the_same(inputs, capfd):
    make(KITS["pvh-modules"], "kit", "one.json")
    words = [word for word in KITS["pvh-modules"][1:] if word not in ("--type", "pvh")]
    assert main(["verify", "kit", "--rebuild", "bz", *words, "-c", "one.json"]) == 0
    capfd.readouterr()
    assert main(["verify", "kit", "--rebuild", "bz", *words, "-c", "two.json"]) == 5
    assert "kit: is different" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["kernel", "rumpbundle.json", "xl.cfg", "cfg.json"])
def test_a_kit_leads_nowhere_else(inputs, name, capfd):
    make(KITS["pv"], "kit", "one.json")
    Path("kit", name).rename("elsewhere")
    Path("kit", name).symlink_to("../elsewhere")
    assert main(["reconfig", "kit", "-c", "two.json", "-o", "new"]) == 2
    assert "is a symbolic link" in capfd.readouterr().err
