"""What others can check of an output: an SBOM the published schema takes, and signatures minisign takes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from support import kernels, synthetic
from support.tools import require

from rumpbundle.cli import main

PASSWORD = "correct horse\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A place with a kernel, a directory, and a key pair of minisign's, ``k``."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(kernels.build("multiboot"), "app.bin")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ä").write_bytes(b"small")
    minisign("-G", "-W", "-p", "k.pub", "-s", "k.key")
    return tmp_path


def minisign(*words: str, said: str = "") -> subprocess.CompletedProcess[str]:
    program = require("minisign")
    return subprocess.run([program, *words], input=said, capture_output=True, text=True, timeout=60)


def run(*words: str) -> int:
    return main(list(words))


def test_minisign_verifies_ours(here, capsys):
    assert run("build", "app.bin", "-f", "iso,ec2,gce", "--checksums", "--sbom", "b.json", "--sign", "k.key") == 0
    said = capsys.readouterr().out.split()
    expected = {
        "app.iso": "app.iso.minisig",
        "app.ec2/volume.raw": "app.ec2.volume.raw.minisig",
        "app.ec2/manifest.json": "app.ec2.manifest.json.minisig",
        "app.gce.tar.gz": "app.gce.tar.gz.minisig",
        "app.gce.json": "app.gce.json.minisig",
        "SHA256SUMS": "SHA256SUMS.minisig",
        "b.json": "b.json.minisig",
    }
    assert {name for name in said if name.endswith(".minisig")} == set(expected.values())
    for file, signature in expected.items():
        done = minisign("-V", "-p", "k.pub", "-m", file, "-x", signature)
        assert (done.returncode, done.stderr) == (0, ""), file
        assert "bundle:" in done.stdout
    assert run("verify", "--key", "k.pub", "app.iso") == 0


def test_a_signature_is_the_same_bytes_again(here):
    assert run("iso", "app.bin", "--sign", "k.key") == 0
    first = (here / "app.iso.minisig").read_bytes()
    assert run("iso", "app.bin", "--sign", "k.key") == 2
    assert run("iso", "app.bin", "--sign", "k.key", "--force") == 0
    assert (here / "app.iso.minisig").read_bytes() == first


def test_we_verify_minisigns(here, capsys):
    assert run("iso", "app.bin") == 0
    assert minisign("-S", "-s", "k.key", "-m", "app.iso", "-t", "by me").returncode == 0
    key = (here / "k.pub").read_text().split("\n")
    number = key[0].rpartition(" ")[2].zfill(16)  # one key in sixteen: this minisign leaves leading zeros out
    for given in ("k.pub", key[1]):
        capsys.readouterr()
        assert run("verify", "--key", given, "app.iso") == 0
        assert f"signed with the key {number}: by me\n" in capsys.readouterr().out


@pytest.mark.parametrize(("format", "disk"), [("gce", "app.gce.tar.gz"), ("azure", "app.azure.vhd")])
def test_the_request_beside_a_disk_is_signed_too(here, capsys, format, disk):
    assert run(format, "app.bin", "--sign", "k.key") == 0
    assert run("verify", "--key", "k.pub", disk) == 0
    assert capsys.readouterr().out.count("signed with the key") == 2
    request = here / f"app.{format}.json"
    request.write_text(request.read_text().replace("BUCKET", "theirs").replace("LOCATION", "theirs"))
    assert run("verify", disk) == 0  # a placeholder that is filled in
    assert run("verify", "--key", "k.pub", disk) == 5
    assert f"{request.name}: is not what was signed" in capsys.readouterr().err
    (here / f"{request.name}.minisig").unlink()
    assert run("verify", "--key", "k.pub", disk) == 5


def test_a_key_with_a_password(here, monkeypatch):
    made = minisign("-G", "-p", "p.pub", "-s", "p.key", said=PASSWORD * 2)
    assert made.returncode == 0, made.stderr
    with open(here / "password", "w+") as file:
        file.write(PASSWORD)
        file.seek(0)
        monkeypatch.setattr("sys.stdin", file)
        assert run("iso", "app.bin", "--sign", "p.key") == 0
        assert run("iso", "app.bin", "--force", "--sign", "p.key") == 2  # at the file's end: an empty password
    assert minisign("-V", "-p", "p.pub", "-m", "app.iso").returncode == 0


@pytest.mark.parametrize(
    ("spoil", "status", "error"),
    [
        ("image", 5, "app.iso: is not what was signed"),
        ("comment", 5, "app.iso.minisig: has a trusted comment that was not signed"),
        ("key", 5, "app.iso: is signed by another key, "),
        ("missing", 5, "app.iso: is not signed: there is no app.iso.minisig"),
        ("legacy", 5, "app.iso.minisig: is a signature of the old kind"),
        ("short", 2, "app.iso.minisig: is not a signature of minisign"),
        ("swapped", 2, "k.key: is not a public key of minisign"),
    ],
)
def test_what_is_not_signed_is_not_believed(here, capsys, spoil, status, error):
    assert run("iso", "app.bin", "--sign", "k.key") == 0
    image, signature, key = here / "app.iso", here / "app.iso.minisig", "k.pub"
    text = signature.read_text()
    if spoil == "image":
        with image.open("r+b") as file:
            file.seek(40000)
            file.write(b"\xff")
    elif spoil == "comment":
        signature.write_text(text.replace("file:app.iso", "file:web.iso"))
    elif spoil == "key":
        minisign("-G", "-W", "-p", "other.pub", "-s", "other.key")
        key = "other.pub"
    elif spoil == "missing":
        signature.unlink()
    elif spoil == "legacy":
        assert minisign("-S", "-l", "-s", "k.key", "-m", "app.iso").returncode == 0
    elif spoil == "short":
        signature.write_text(text[: len(text) // 3])
    else:
        key = "k.key"
    capsys.readouterr()
    assert run("verify", "--key", key, "app.iso") == status
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"error: {error}")


@pytest.mark.parametrize("words", [["--sign", "app.bin"], ["--sign", "missing.key"], ["--sbom", "app.bin"]])
def test_nothing_is_written_if_it_cannot_be_signed_or_told(here, words):
    before = sorted(here.iterdir())
    assert run("iso", "app.bin", *words, "--force") == 2
    assert sorted(here.iterdir()) == before


def test_the_published_schema_takes_the_sbom(here, capsys):
    words = ["app.bin", "--module", "data/ä:text", "--sbom", "app.cdx.json", "--json"]
    assert run("iso", *words) == 0
    assert json.loads(capsys.readouterr().out)["provenance"] == ["app.cdx.json"]
    text = (here / "app.cdx.json").read_text("ascii")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    told = json.loads(text)
    names = {each["bom-ref"]: each["name"] for each in told["components"]}
    assert names == {"grub": "GRUB", "kernel": "app.bin", "module 1": "ä"}
    assert run("vdi", *words, "--force") == 0
    assert (here / "app.cdx.json").read_text("ascii") == text
    told["components"][0]["licenses"] = "GPL"
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(told)) is not None


def test_no_two_files_of_an_sbom_are_one_reference(here):
    (here / "rump.bin").write_bytes(synthetic.rumprun())
    for name in (b"\xff", b"\xfe", b"\\xff", "ä".encode()):
        (here / "data" / os.fsdecode(name)).write_bytes(name)
    assert run("raw", "rump.bin", "--data", "data:/data", "--sbom", "b.json") == 0
    text = (here / "b.json").read_text("ascii")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    found = [each["bom-ref"] for each in json.loads(text)["components"]]
    assert len(found) == len(set(found)) == 7
    assert "file /ä" in found


def test_the_key_is_never_an_output(here, capsys):
    before = (here / "k.key").read_bytes()
    for words in (["-o", "k.key"], ["-o", "a.iso", "--sbom", "k.key"]):
        assert run("iso", "app.bin", *words, "--sign", "k.key", "--force") == 2
        assert "k.key: is an input and cannot be the output too" in capsys.readouterr().err
    assert (here / "k.key").read_bytes() == before


def test_a_signature_that_is_there_is_told_before_anything_is_written(here, capsys):
    for argv, old in (
        (["ec2", "app.bin"], "app.ec2.volume.raw.minisig"),
        (["iso", "app.bin"], "app.iso.minisig"),
        (["build", "app.bin", "-f", "raw,iso"], "app.iso.minisig"),
    ):
        (here / old).write_text("old")
        before = sorted(os.listdir())
        assert run(*argv, "-q", "--sign", "k.key") == 2
        assert capsys.readouterr().err.startswith(f"error: {old}: already exists")
        assert sorted(os.listdir()) == before
        (here / old).unlink()


def test_a_password_that_is_not_utf_8(here, monkeypatch, capsys):
    made = subprocess.run(
        [require("minisign"), "-G", "-p", "p.pub", "-s", "p.key"],
        input=b"\xff\n" * 2,
        capture_output=True,
        timeout=60,
    )
    assert made.returncode == 0, made.stderr
    with open(here / "password", "w+", encoding="utf-8") as file:
        file.buffer.write(b"\xff\n")
        file.seek(0)
        monkeypatch.setattr("sys.stdin", file)
        assert run("iso", "app.bin", "--sign", "p.key") == 0
    assert minisign("-V", "-p", "p.pub", "-m", "app.iso").returncode == 0
    capsys.readouterr()
    assert run("verify", "--key", "p.pub", "app.iso", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)["images"]
    assert found["signed"][0]["comment"].startswith("file:app.iso bundle:")
