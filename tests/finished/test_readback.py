"""The options of a kit's format are read back from it: another configuration, and they stay."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import random
import tarfile
from pathlib import Path

import pytest
from finished.test_reconfig import outputs, same
from hypothesis import given, settings
from hypothesis import strategies as st
from support import kernels, synthetic

from rumpbundle import formats
from rumpbundle.cli import main
from rumpbundle.disk.layout import MIB
from rumpbundle.errors import RumpbundleError
from rumpbundle.finished import kits, readback
from rumpbundle.finished.origin import origin
from rumpbundle.formats import Job, read_back
from rumpbundle.images.detect import open_disk

RUMPRUN = b"_RUMPRUN_ROOTFSCFG=\0ld_virtio\0vioif\0"
KITS = [format for format in formats.formats() if format.options is not None]

TAGS = [["--tag", "b=x"], ["--tag", "b=x", "--tag", "a=", "--tag", "long-key_0=0"]]
ODD_TAGS = [["--tag", 'q"[0].Key=a=b=ü\\', "--tag", "Key=Value"]]
VALUES = {
    ("ova", "cpus"): [["--cpus", "1"], ["--cpus", "128"]],
    ("ova", "memory"): [["--memory", "4M"], ["--memory", "12G"], ["--memory", "256M"]],
    ("ova", "controller"): [["--controller", name] for name in ("ahci", "ide", "lsilogic", "pvscsi")],
    ("ova", "nic"): [["--nic", name] for name in ("e1000", "e1000e", "vmxnet3", "none")],
    ("ec2", "tag"): TAGS + ODD_TAGS,
    ("ec2", "driver"): [["--driver", "ena"], ["--driver", "nvme"]],
    ("ec2", "description"): [["--description", 'It is "mine" <&>']],
    ("ec2", "imds_v2"): [["--imds-v2"]],
    ("ec2", "tpm"): [["--tpm", "--firmware", "uefi"]],
    ("ec2", "whole_sha256"): [["--whole-sha256", "--size", "3G"], ["--size", "3G"]],
    ("gce", "tag"): [TAGS[0], ["--tag", "rumpbundle=mine"], TAGS[1]],
    ("gce", "driver"): [["--driver", "gvnic"], ["--driver", "virtio-scsi"], ["--driver", "nvme"]],
    ("gce", "description"): [["--description", "mine", "--tag", "a=b"], ["--description", "mine"]],
    ("azure", "tag"): [["--tag", "b=x"], ["--tag", 'a.b"]=x', "--tag", "Umläute = = =", "--tag", "tags=tags"]],
    ("azure", "driver"): [["--driver", "mlx5"], ["--driver", "mana"]],
    ("xen", "type"): [["--type", "hvm"]],
    ("xen", "memory"): [["--memory", "32M"], ["--memory", "512M"]],
    ("xen", "host_directory"): [["--host-directory", "/srv/a+b"]],
    ("xen", "set"): [["--set", "vif=['bridge=xenbr0']", "--set", "vcpus=2"]],
}
"""Words that give each option: a new one has to be read back, too."""

CASES = [
    (format.name, field.name, words)
    for format in KITS
    for field in dataclasses.fields(format.options)
    for words in VALUES.get((format.name, field.name), [["no words for it"]])
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    top = tmp_path_factory.mktemp("inputs")
    (top / "web.bin").write_bytes(kernels.build("multiboot").read_bytes() + RUMPRUN)
    (top / "linux").write_bytes(synthetic.bzimage(payload=300_000))
    (top / "one.json").write_text(json.dumps({"env": {"A": "1"}, "hostname": "one"}))
    (top / "two.json").write_text(json.dumps({"env": {"B": "x" * 900}, "hostname": "two"}))
    return top


def make(inputs, format, out, config="one", words=(), kernel="web.bin"):
    assert (
        main(
            [
                format,
                str(inputs / kernel),
                "-q",
                "--no-sync",
                "-c",
                str(inputs / f"{config}.json"),
                *words,
                "-o",
                str(out),
            ]
        )
        == 0
    )
    return out


def alike(one: Path, other: Path) -> None:
    """Compare two kits; of EC2's not the volumes of a GiB, which its manifest pins, and other tests compare."""
    if (one / "manifest.json").exists():
        assert (one / "manifest.json").read_bytes() == (other / "manifest.json").read_bytes()
    else:
        same(one.parent, other.parent) if one.is_file() else same(one, other)


@pytest.mark.parametrize(("format", "field", "words"), CASES, ids=lambda case: str(case)[:40])
def test_each_option_stays(inputs, tmp_path, capfd, format, field, words):
    assert words != ["no words for it"], f"say in VALUES how --{field} is given to {format}"
    kernel = "linux" if field in ("driver", "memory") else "web.bin"
    before, after, wanted = (outputs(tmp_path, format, name) for name in ("before", "after", "wanted"))
    make(inputs, format, before, "one", words, kernel)
    make(inputs, format, wanted, "two", words, kernel)
    two = ["-q", "--no-sync", "-c", str(inputs / "two.json")]
    assert main(["reconfig", str(before), *two, "-o", str(after)]) == 0
    alike(after, wanted)


@pytest.mark.parametrize("format", KITS, ids=lambda format: format.name)
def test_all_together_stay_and_what_is_given_overrides(inputs, tmp_path, format):
    asked = {field: words[-1] for (name, field), words in VALUES.items() if name == format.name}
    every = [word for words in asked.values() for word in words]
    before = make(inputs, format.name, outputs(tmp_path, format.name, "before"), "one", every)
    assert main(["verify", str(before)]) == 0
    overridden = next(iter(asked))
    words = VALUES[format.name, overridden][0]
    others = [word for name, each in asked.items() if name != overridden for word in each]
    wanted = make(inputs, format.name, outputs(tmp_path, format.name, "wanted"), "two", [*others, *words])
    after = outputs(tmp_path, format.name, "after")
    two = ["-q", "--no-sync", "-c", str(inputs / "two.json"), *words]
    assert main(["reconfig", str(before), *two, "-o", str(after)]) == 0
    alike(after, wanted)
    assert main(["reconfig", str(before), *two, "--in-place"]) == 0
    alike(before, wanted)


def test_what_was_read_back_can_be_taken_away(inputs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [
        "--tag",
        "a=b",
        "--driver",
        "ena",
        "--imds-v2",
        "--description",
        "mine",
        "--whole-sha256",
        "--size",
        "3G",
    ]
    make(inputs, "ec2", "before.ec2", words=words)
    make(inputs, "ec2", "wanted.ec2", words=["--size", "3G"])
    none = ["--tag", "", "--driver", "", "--no-imds-v2", "--description", "", "--no-whole-sha256"]
    assert main(["reconfig", "before.ec2", "-q", "--no-sync", *none, "-o", "after.ec2"]) == 0
    alike(Path("after.ec2"), Path("wanted.ec2"))


@pytest.mark.parametrize("format", ["ova", "ec2", "gce", "azure"])
def test_converted_into_its_own_format_they_stay(inputs, tmp_path, format):
    words = VALUES[format, "cpus" if format == "ova" else "tag"][-1]
    before = make(inputs, format, outputs(tmp_path, format, "before"), words=words)
    wanted = make(inputs, format, outputs(tmp_path, format, "wanted"), words=[*words, "--size", "2G"])
    after = outputs(tmp_path, format, "after")
    argv = ["convert", str(before), "-q", "--no-sync", "-f"]
    assert main([*argv, format, "--size", "2G", "-o", str(after)]) == 0
    alike(after, wanted)


def test_converted_into_another_format_they_do_not(inputs, tmp_path):
    before = make(inputs, "azure", outputs(tmp_path, "azure", "before"), words=["--tag", "a=b"])
    wanted = make(inputs, "ova", outputs(tmp_path, "ova", "wanted"))
    after = outputs(tmp_path, "ova", "after")
    assert main(["convert", str(before), "-q", "--no-sync", "-f", "ova", "-o", str(after)]) == 0
    alike(after, wanted)


EDITS = [
    ("azure", '"acceleratedNetwork": false', '"acceleratedNetwork": 3', "acceleratedNetwork", "--driver", ["mlx5"]),
    ("azure", '"tags": {', '"tags": {"a<": "x",', "'a<' is not an Azure tag name", "--tag", ["a=b"]),
    ("azure", '"tags": {', '"tags": {"a": ["x"],', '$.tags.a[0] is "x", expected nothing', "--tag", ["a=b"]),
    ("azure", "Standard_LRS", "Premium_LRS", '$.sku.name is "Premium_LRS"', "all of --tag, --driver", None),
    ("gce", '"labels": {', '"labels": {"A": "x",', "'A' is not a GCE label key", "--tag", ["a=b"]),
    ("gce", '"X86_64"', '"ARM64"', "$.architecture", "all of --tag, --driver, --description", None),
    ("gce", "made by rumpbundle", "made\\u0007by", "description", "--description", ["mine"]),
    ("ec2", '"v2.0"', '"v1.0"', '$.register_image.ImdsSupport is "v1.0", expected "v2.0"', "--imds-v2", []),
    ("ec2", '"Key": "a"', '"Key": "aws:"', "'aws:' is not an EC2 tag key", "--tag", ["a=b"]),
    ("ec2", '"gp3"', '"io2"', "VolumeType", "all of --tag", None),
    ("ova", '<CPU count="1">', '<CPU count="3">', "expected", "--cpus", ["3"]),
    ("ova", '<CPU count="1">', '<CPU count="0">', "expected 1 to 128 CPUs, got 0", "--cpus", ["3"]),
    ("ova", "<rasd:InstanceID>6", "<rasd:InstanceID>7", "InstanceID", "--nic", ["none"]),
    ("ova", "vmx-13", "vmx-21", "VirtualSystemType", "all of --cpus, --memory, --controller, --nic", None),
    ("ova", "<Info>The disk</Info>", "<a>" * 40 + "</a>" * 40, "nests too deep", "all of --cpus", None),
    ("azure", "{", "[", "is no JSON", "all of --tag, --driver", None),
    ("gce", "{", " " * (2 << 20) + "{", "more than any request", "all of --tag", None),
]


def edited(path: Path, format: str, old: str, new: str) -> None:
    """Change the text beside, or in, the image at *path*."""
    if format != "ova":
        file = path / "manifest.json" if format == "ec2" else path.with_name(f"web.{format}.json")
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))
        return
    with tarfile.open(path) as archive:
        files = [(member, archive.extractfile(member).read()) for member in archive]
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for member, data in files:
            if member.name.endswith(".ovf"):
                assert old.encode() in data
                data = data.replace(old.encode(), new.encode(), 1)
                member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize(("format", "old", "new", "problem", "option", "value"), EDITS)
def test_what_bundling_never_writes_is_refused(inputs, tmp_path, capfd, format, old, new, problem, option, value):
    image = outputs(tmp_path, format, "kit")
    words = {"ec2": ["--imds-v2", "--tag", "a=x"], "gce": ["--tag", "a=x"]}.get(format, [])
    make(inputs, format, image, words=words)
    edited(image, format, old, new)
    capfd.readouterr()
    two = ["reconfig", str(image), "-q", "--no-sync", "-c", str(inputs / "two.json")]
    for where in (["--in-place"], ["-o", str(tmp_path / f"new{formats.find(format).tail}")]):
        assert main([*two, *where]) == 2
        said = capfd.readouterr().err
        assert problem in said
        assert f"give {option}" in said
        assert said.count("error: ") == 1
        assert len(said.splitlines()) <= 2
    assert not list(tmp_path.glob("new*"))
    if value is not None:
        given = [option, *value]
        assert main([*two, *given, "--in-place"]) == 0
        whole = {"ec2": ["--imds-v2", "--tag", "a=x"], "gce": ["--tag", "a=x"]}.get(format, [])
        whole = [] if option == "--tag" else whole
        whole = ["--imds-v2"] if (format, option) == ("ec2", "--tag") else whole
        wanted = make(inputs, format, outputs(tmp_path, format, "wanted"), "two", [*whole, *given])
        alike(image, wanted)


@pytest.mark.parametrize("format", ["ec2", "gce", "azure"])
def test_a_request_that_is_missing_is_told_and_made_anew(inputs, tmp_path, capfd, format):
    image, wanted = (outputs(tmp_path, format, name) for name in ("kit", "wanted"))
    make(inputs, format, image, words=["--tag", "a=x"])
    make(inputs, format, wanted, "two", ["--tag", "a=x"])
    request = image / "manifest.json" if format == "ec2" else image.with_name(f"web.{format}.json")
    request.unlink()
    two = ["reconfig", str(image), "--no-sync", "-c", str(inputs / "two.json"), "--tag", "a=x", "--in-place"]
    assert main(two) == 0
    said = capfd.readouterr().err
    assert f"note: {request.name} is missing, which says what the image was made with: give it again, of --" in said
    alike(image, wanted)


@pytest.mark.parametrize("kind", ["fifo", "directory", "link"])
def test_what_is_no_file_is_not_read(inputs, tmp_path, capfd, kind):
    image, wanted, new = (outputs(tmp_path, "azure", name) for name in ("kit", "wanted", "new"))
    make(inputs, "azure", image, words=["--tag", "a=x"])
    make(inputs, "azure", wanted, "two", ["--tag", "a=x"])
    request = image.with_name("web.azure.json")
    request.unlink()
    {"fifo": os.mkfifo, "directory": os.mkdir, "link": lambda path: path.symlink_to("/dev/zero")}[kind](request)
    two = ["reconfig", str(image), "-q", "--no-sync", "-c", str(inputs / "two.json"), "-o", str(new)]
    capfd.readouterr()
    assert main(two) == 2
    assert f"error: {request}: is a" in capfd.readouterr().err
    assert main(["verify", str(image)]) in (2, 5)
    assert main([*two, "--tag", "a=x", "--driver", ""]) == 0
    alike(new, wanted)


@pytest.mark.parametrize(
    ("format", "old", "new", "place"),
    [
        ("azure", '"LOCATION"', '"westeurope"', "$.location"),
        ("gce", "com/BUCKET/web", "com/mine/renamed", "$.rawDisk.source"),
        ("ec2", '"snap-00000000000000000"', '"snap-0123456789abcdef0"', "Ebs.SnapshotId"),
    ],
)
def test_a_placeholder_is_the_users_to_fill_in(inputs, tmp_path, capfd, format, old, new, place):
    image, wanted = (outputs(tmp_path, format, name) for name in ("kit", "wanted"))
    make(inputs, format, image, words=["--tag", "a=x"])
    make(inputs, format, wanted, "two", ["--tag", "a=x"])
    edited(image, format, old, new)
    assert main(["verify", str(image)]) == 0
    assert main(["reconfig", str(image), "--no-sync", "-c", str(inputs / "two.json"), "--in-place"]) == 0
    said = capfd.readouterr().err
    assert f"{place} is a placeholder again" in said
    alike(image, wanted)


@pytest.mark.parametrize("format", ["ova", "ec2", "gce", "azure", "xen"])
def test_of_what_was_made_without_options_nothing_is_asked(inputs, tmp_path, capfd, format):
    image = make(inputs, format, outputs(tmp_path, format, "kit"))
    capfd.readouterr()
    after = outputs(tmp_path, format, "after")
    assert main(["reconfig", str(image), "--no-sync", "-o", str(after), "-c", str(inputs / "two.json")]) == 0
    assert "cannot be told" not in capfd.readouterr().err


@pytest.mark.parametrize("format", ["ova", "xen"])
def test_what_cannot_be_told_and_makes_a_difference_is_said(inputs, tmp_path, capfd, monkeypatch, format):
    """A guest that needs more with its new configuration: 64 MiB asked for look like 64 MiB for want of a wish."""
    image = make(inputs, format, outputs(tmp_path, format, "kit"), kernel="linux")
    argv = ["reconfig", str(image), "--no-sync", "-o"]
    capfd.readouterr()
    assert main([*argv, str(outputs(tmp_path, format, "same")), "-c", str(inputs / "two.json")]) == 0
    assert "--memory" not in capfd.readouterr().err
    from rumpbundle import manifest

    monkeypatch.setattr(
        manifest.Bundle, "footprint", property(lambda bundle: 512 * MIB if b"x" * 900 in bundle.manifest() else 1)
    )
    after = outputs(tmp_path, format, "after")
    assert main([*argv, str(after), "-c", str(inputs / "two.json")]) == 0
    said = capfd.readouterr().err
    assert "whether it was made with --memory cannot be told, and makes a difference now: give it again" in said
    kept = outputs(tmp_path, format, "kept")
    assert main([*argv, str(kept), "-c", str(inputs / "two.json"), "--memory", "64M"]) == 0
    assert "--memory" not in capfd.readouterr().err


def test_another_version_described_it(inputs, tmp_path, monkeypatch):
    """What an image's own rumpbundle wrote is no description of the user's, and stays its own."""
    from rumpbundle.bundling import planning

    real = planning.Bundle
    monkeypatch.setattr(planning, "Bundle", lambda *args, **rest: real(*args, **{"version": "0.0.9"} | rest))
    before = make(inputs, "ec2", outputs(tmp_path, "ec2", "before"), words=["--tag", "a=x"])
    wanted = make(inputs, "ec2", outputs(tmp_path, "ec2", "wanted"), "two", ["--tag", "a=x"])
    monkeypatch.undo()
    assert "made by rumpbundle 0.0.9" in (before / "manifest.json").read_text()
    assert main(["reconfig", str(before), "-q", "--no-sync", "-c", str(inputs / "two.json"), "--in-place"]) == 0
    alike(before, wanted)


def test_digests_of_the_users_own_are_no_bundles(inputs, tmp_path):
    for format, words in (
        ("azure", ["--tag", f"commit={'a' * 64}"]),
        ("gce", ["--tag", f"commit={'a' * 63}", "--description", "b" * 64]),
        ("ec2", ["--tag", f"commit={'a' * 64}", "--description", "b" * 64]),
    ):
        assert main(["verify", str(make(inputs, format, outputs(tmp_path, format, format), words=words))]) == 0


@pytest.fixture(scope="module")
def jobs(inputs, tmp_path_factory):
    """A job for each format, of a Linux without drivers of its own."""
    top = tmp_path_factory.mktemp("jobs")
    image = make(inputs, "raw", top / "web.raw", kernel="linux")
    with open_disk(image) as disk:
        found = origin(disk)
        yield {
            format.name: Job(
                layout=found.plan().padded(align=format.align, least=format.least),
                bundle=found.bundle,
                output=Path(f"web{format.tail}"),
                subformat=format.subformats[0].name,
                options=format.options(),
                epoch=0,
                jobs=1,
            )
            for format in KITS
        }


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=40)
KEYS = st.text('abcxyzKT._-0[]"\\ :é', min_size=1, max_size=12)
ASKED = {
    "tag": st.dictionaries(KEYS, WORDS | st.text("abc_-0", max_size=9), max_size=4).map(
        lambda tags: tuple(f"{key}={value}" for key, value in sorted(tags.items()))
    ),
    "driver": st.lists(st.sampled_from(["ena", "gvnic", "virtio-scsi", "mlx5", "mana", "nvme"]), unique=True).map(
        tuple
    ),
    "description": WORDS,
    "imds_v2": st.booleans(),
    "tpm": st.just(False),
    "whole_sha256": st.booleans(),
    "cpus": st.integers(1, 128),
    "memory": st.integers(0, 1 << 20).map(lambda number: number * 4 * MIB),
    "controller": st.sampled_from(["auto", "ahci", "ide", "lsilogic", "pvscsi"]),
    "nic": st.sampled_from(["auto", "e1000", "e1000e", "vmxnet3", "none"]),
    "type": st.just("auto"),
    "host_directory": st.sampled_from(["", "/srv/kits/web", "/"]),
    "set": st.lists(st.sampled_from(["vif=['']", "vcpus=2", "a = b", "on_crash=x", "memory_=3"]), unique=True).map(
        tuple
    ),
}


@pytest.mark.parametrize("format", KITS, ids=lambda format: format.name)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_whatever_was_asked_for_is_read_back(jobs, format, data):
    job = jobs[format.name]
    fields = [field.name for field in dataclasses.fields(format.options)]
    asked = format.options(**{name: data.draw(ASKED[name], name) for name in fields})
    try:
        text = format.read_back.text(dataclasses.replace(job, options=asked))
    except RumpbundleError:
        return  # bundling would refuse it
    for options in read_back(format, job, text).options:
        again = format.read_back.text(dataclasses.replace(job, options=options))
        assert again == text


@pytest.mark.parametrize("format", KITS, ids=lambda format: format.name)
def test_no_text_ends_in_a_traceback(jobs, format):
    dice = random.Random(format.name)
    job = jobs[format.name]
    text = format.read_back.text(job)
    for _ in range(300):
        spoiled = bytearray(text)
        for _ in range(dice.choice((1, 1, 3))):
            at = dice.randrange(len(spoiled))
            spoiled[at : at + dice.choice((0, 1, 20))] = dice.choice(
                (b"", b"9" * 30, b"\xff", b'"', b"{}", b"[[", b"null", b"<a/>", b"\\ud800", spoiled[at - 30 : at])
            )
        with contextlib.suppress(RumpbundleError):
            read_back(format, job, bytes(spoiled))
    deep = {"ova": b"<a>" * 10_000, "xen": b"memory = " + b"9" * 9000}.get(format.name, b"[" * 100_000)
    with pytest.raises(RumpbundleError):
        read_back(format, job, deep)


@pytest.mark.parametrize("format", ["ec2", "gce", "azure"])
def test_whatever_stands_in_a_request_verify_has_no_traceback(inputs, tmp_path, format):
    image = make(inputs, format, outputs(tmp_path, format, "kit"), words=["--tag", "a=x"])
    request = image / "manifest.json" if format == "ec2" else image.with_name(f"web.{format}.json")
    text = json.loads(request.read_text())

    def spoiled(value):
        """Yield *value* with one part of it replaced, or left out."""
        yield from ([], {}, None, "x", -1, 1.5)
        if isinstance(value, dict | list):
            for key in value if isinstance(value, dict) else range(min(len(value), 1)):
                for other in spoiled(value[key]):
                    copy = value.copy()
                    copy[key] = other
                    yield copy
                copy = value.copy()
                del copy[key]
                yield copy

    with open_disk(image) as disk:
        found = origin(disk)
        for number, other in enumerate(spoiled(text)):
            if format == "ec2" and number % 25:
                continue  # each hashes the volume
            request.write_text(json.dumps(other))
            with contextlib.suppress(RumpbundleError):
                for one in (*kits.problems(image, disk, found.bundle.identity.digest),
                            *readback.problems(image, disk, found)):  # fmt: skip
                    assert str(one).isprintable()
