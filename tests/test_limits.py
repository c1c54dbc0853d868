"""A dry run refuses what the real run would, in the same words, before anything is read or written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support import kernels, stub, synthetic

from rumpbundle import formats, hybrid
from rumpbundle.cli import main
from rumpbundle.disk.content import Content, Zeros
from rumpbundle.errors import InputError
from rumpbundle.manifest import Volume


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.symlink(kernels.build("multiboot"), "app.bin")
    Path("linux").write_bytes(synthetic.bzimage())
    Path("tree").mkdir()
    return tmp_path


def too_large():
    for format in formats.formats():
        for subformat in format.subformats:
            if subformat.largest is not None:
                words = ["--subformat", subformat.name] if subformat.name else []
                yield [format.name, *words, "--size", str(subformat.largest + 1)], "is more than the "


REFUSED = [
    *too_large(),
    (["vhd", "--size", "2041G"], "hint: --subformat fixed takes it"),
    (["ova", "--cpus", "129"], "--cpus: expected 1 to 128 CPUs, got 129"),
    (["ova", "--memory", "5M"], "--memory: expected a multiple of 4M"),
    (["gce", "--name", "A_B"], "is not a GCE image name"),
    (["ec2", "--name", "x"], "is not an AMI name"),
    (["ec2", "--description", "x" * 256], "is not an EC2 description"),
    (["ec2", "--tpm"], "EC2 gives a TPM to images of boot mode uefi only"),
    (["azure", "--tag", "x"], "expected KEY=VALUE"),
    (["azure", "--driver", "ena"], "azure has no device for a driver 'ena'"),
    (["azure", "-o", "app.azure.json"], "app.azure.json: .json is what the file beside the disk is called"),
    (["gce", "-o", "x.json"], "hint: give a name that ends in .gce.tar.gz"),
    (["xen", "--set", "vcpu=1"], "hint: did you mean vcpus?"),
    (["xen", "--type", "pv"], "is no pv kernel"),
    (["raw", "-o", "app.bin", "--force"], "is an input and cannot be the output too"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=lambda value: " ".join(value)[:40])
def test_a_dry_run_refuses_what_the_real_run_refuses(place, capsys, words, message):
    before = sorted(os.listdir())
    said = []
    for more in (["--dry-run"], ["--dry-run", "--json"], []):
        assert main([words[0], "app.bin", *words[1:], *more]) == 2
        out, err = capsys.readouterr()
        assert not out
        said.append(err)
    assert message in said[0]
    assert said[0] == said[1] == said[2]
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize(("format", "limit"), [("vmdk", "_LARGEST_SPARSE"), ("qcow2", "_LARGEST_FILE")])
def test_a_dry_run_knows_how_much_payload_a_file_can_hold(place, capsys, monkeypatch, format, limit):
    """What is zero takes no room in it: the same file full of holes is taken."""
    with open("full", "wb") as full, open("holes", "wb") as holes:
        full.write(b"x" * (8 << 20))
        holes.truncate(8 << 20)
    monkeypatch.setattr(f"rumpbundle.formats.{format}.{limit}", 8 << 20)
    for name, status in (("full", 2), ("holes", 0)):
        said = []
        for more in (["--dry-run"], []):
            assert main([format, "app.bin", "--module", name, "-q", *more]) == status
            said.append(capsys.readouterr().err)
        assert said[0] == said[1]
        assert ("error: the payload is too large for a" in said[0]) == bool(status)


OUTPUTS = [
    (["iso", "app.bin"], "app.iso: already exists"),
    (["gce", "app.bin"], "app.gce.json: already exists"),
    (["build", "app.bin", "-f", "iso"], "iso: app.iso: already exists"),
    (["build", "app.bin", "-f", "vdi", "-o", "no/where"], "no"),
    (["convert", "app.iso", "-f", "raw", "-o", "app.iso"], "app.iso: already exists"),
    (["convert", "app.iso", "-f", "raw", "-o", "no/where"], "no: no such directory"),
    (["component", "tree", "-o", "app.iso"], "app.iso: already exists"),
    (["vdi", "app.bin", "--sbom", "app.iso"], "app.iso: already exists"),
    (["iso", "app.bin", "-o", "/dev/null"], "is no regular file"),
    (["iso", "app.bin", "-o", ""], "expected a name, got nothing"),
    (["iso", "app.bin", "-o", "new/"], "expected the name of a file, got a directory's"),
]


@pytest.mark.parametrize(("words", "message"), OUTPUTS, ids=lambda value: " ".join(value)[:40])
def test_a_dry_run_looks_where_the_output_would_go(place, capsys, words, message):
    assert main(["iso", "app.bin", "-q"]) == 0
    Path("app.gce.json").write_text("{}")
    before = sorted(os.listdir())
    capsys.readouterr()
    for more in (["--dry-run"], []):
        assert main([*words, *more]) == 2
        out, err = capsys.readouterr()
        assert not out
        assert message in err
        assert sorted(os.listdir()) == before


def test_a_dry_run_of_several_formats_tells_of_each(place, capsys):
    words = ["build", "app.bin", "-f", "iso,vhd,vhd:fixed,azure", "--size", "2041G"]
    assert main([*words, "--dry-run"]) == 2
    out, err = capsys.readouterr()
    assert [line for line in out.splitlines() if line.startswith("would write")] == [
        "would write  app.iso (iso)", "would write  app.fixed.vhd (vhd)", "would write  app.azure.vhd (azure)",
    ]  # fmt: skip
    assert [line for line in err.splitlines() if line.startswith("error: ")] == [
        "error: vhd: a disk of 2041 GiB is more than the 2040 GiB that vhd:dynamic holds"
    ]


def test_a_gpt_holds_128_partitions(place, capsys):
    words = ["raw", "linux", "--firmware", "bios", "-q"]
    # The ISO is one of them.
    for count, status in ((127, 0), (128, 2)):
        volumes = [word for number in range(count) for word in ("--volume", f"tree:/v{number}:1M")]
        assert main([*words, *volumes, "--dry-run"]) == status
    assert capsys.readouterr().err == "error: 129 partitions do not fit a GPT, which holds 128\n"


def test_an_mbr_holds_four_partitions_below_2_tib():
    def volume(number, size=1 << 20):
        return Volume(f"v{number}", "ext2", Content((Zeros(size),)))

    hybrid.plan(stub.bundle(volumes=(volume(1), volume(2), volume(3)), table="mbr"), stub.IMAGES)
    with pytest.raises(InputError, match="5 partitions do not fit an MBR, which holds 4"):
        hybrid.plan(stub.bundle(volumes=tuple(map(volume, range(4))), table="mbr"), stub.IMAGES)
    with pytest.raises(InputError, match="partition v1 ends past the 2 TiB an MBR can express"):
        hybrid.plan(stub.bundle(volumes=(volume(1, 1 << 41),), table="mbr"), stub.IMAGES)


def test_a_partitions_name_is_counted_in_utf_16():
    def bundle(label):
        return stub.bundle(volumes=(Volume(label, "ext2", Content((Zeros(1 << 20),))),))

    for label in ("x" * 36, "\U0001f600" * 18):
        assert label in [partition.name for partition in hybrid.plan(bundle(label), stub.IMAGES).partitions]
    for label in ("x" * 37, "\U0001f600" * 19):
        with pytest.raises(InputError, match="has more than the 36 characters of a GPT name"):
            hybrid.plan(bundle(label), stub.IMAGES)
