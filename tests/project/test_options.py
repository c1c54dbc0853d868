"""What the command line can say, a project file can; what it says of configurations, SBOMs and signatures is done."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from pathlib import Path

import click
import pytest
from support import fleet as support
from support import kernels
from support.tools import require

from rumpbundle import formats
from rumpbundle.cli import cli, main
from rumpbundle.project import model, starter

OTHER_NAMES = {
    "app": "app", "apps": "app", "arguments": "args", "directory": "output", "names": "formats",
    "no_argv0": "argv0", "subformat": "formats", "backend_name": "boot", "identity": "as",
}  # fmt: skip
"""The key of each parameter that is not called as it is."""
OF_A_RUN = {
    "as_json", "checksums", "dry_run", "force", "no_sync", "print_commands", "progress", "quiet", "verbose",
}  # fmt: skip
"""What is said of a run, not of an image."""


def keys(table) -> set[str]:
    return set(table.__struct_encode_fields__)


def without_place(name: str) -> list[str]:
    """Return the options of the command *name* that no key stands for."""
    command = cli.get_command(click.Context(cli), name)
    own = set()
    if name not in ("build", "boot") and formats.find(name).options is not None:
        own = {field.name for field in dataclasses.fields(formats.find(name).options)}
    known = keys(model.Image) | (keys(model.Boot) if name == "boot" else set())
    return [
        str(each.name)
        for each in command.params
        if each.name not in OF_A_RUN | own
        and OTHER_NAMES.get(str(each.name), str(each.name).replace("_", "-")) not in known
    ]


@pytest.mark.parametrize("name", ["build", "boot", *(format.name for format in formats.formats())])
def test_every_option_has_its_key(name):
    assert without_place(name) == []


def test_the_first_file_names_every_key(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rumprun = kernels.build("multiboot").read_bytes() + b"_RUMPRUN_ROOTFSCFG=\0ld_virtio\0vioif\0"
    Path("web.bin").write_bytes(rumprun)
    shutil.copy(kernels.build("linux"), "linux")
    shutil.copy(kernels.build("efi"), "app.efi")
    text = "".join(starter.text(name) for name in ("web.bin", "linux", "app.efi"))
    wanted = (keys(model.Image) | keys(model.Boot)) - {"argv0", "accel", "bus", "gdb", "log", "boot"}
    assert sorted(key for key in wanted if f"{key} = " not in text and f"{key}." not in text) == []


TEXT = """
[defaults]
formats = ["iso"]
output = "out"
config = "cfg/one.json"
[image.web]
app = "web.bin"
config-for = ["oem:rumpbundle=a=cfg/n1.json", "serial:web7=cfg/n2.json"]
configs = "more"
[image.node]
app = "web.bin"
rows = "fleet.csv"
config-for = ["serial:{id}=cfg/{id}.json"]
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project in the current directory, of an image and of two rows."""
    monkeypatch.chdir(tmp_path)
    rumprun = kernels.build("multiboot").read_bytes() + b"_RUMPRUN_ROOTFSCFG=\0ld_virtio\0vioif\0"
    Path("web.bin").write_bytes(rumprun)
    Path("cfg").mkdir()
    for name in ("n1", "n2", "one"):
        Path("cfg", f"{name}.json").write_text(json.dumps({"hostname": name}))
    Path("more").mkdir()
    Path("more/asset:b.json").write_text(json.dumps({"hostname": "b"}))
    Path("fleet.csv").write_text("id\nn1\nn2\n")
    Path("rumpbundle.toml").write_text(TEXT)
    return tmp_path


CONFIGS = [
    *("--config-for", "oem:rumpbundle=a=cfg/n1.json", "--config-for", "serial:web7=cfg/n2.json", "--configs", "more"),
]


def test_configurations_are_those_of_a_single_run(project, monkeypatch):
    assert main(["build", "-q"]) == 0
    assert main(["iso", "web.bin", "-q", "-c", "cfg/one.json", *CONFIGS, "-o", "a.iso"]) == 0
    assert Path("out/web.iso").read_bytes() == Path("a.iso").read_bytes()
    words = ["-c", "cfg/one.json", "--config-for", "serial:n2=cfg/n2.json"]
    assert main(["iso", "web.bin", "-q", *words, "-o", "b.iso"]) == 0
    assert Path("out/node-n2.iso").read_bytes() == Path("b.iso").read_bytes()
    assert main(["build", "web", "-q", "--config-for", "serial:n2=cfg/n2.json"]) == 0
    assert Path("out/web.iso").read_bytes() == Path("b.iso").read_bytes()
    Path("below").mkdir()
    monkeypatch.chdir("below")
    assert main(["build", "web", "-q"]) == 0
    assert Path("../out/web.iso").read_bytes() == Path("../a.iso").read_bytes()


def test_a_fleet_has_them_too(project):
    ran = support.run(project, "--workers", "1", "-o", "made")
    assert (ran.returncode, ran.stderr.count("error")) == (0, 0), ran.stderr
    assert main(["build", "-q"]) == 0
    for path in Path("out").iterdir():
        assert path.read_bytes() == Path("made", path.name).read_bytes()


def edited(old: str, new: str) -> None:
    path = Path("rumpbundle.toml")
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"serial:web7=cfg/n2.json"', '"cfg/n2.json"', "image.web.config-for: expected KEY=CFG, got 'cfg/n2.json'"),
        ('"serial:web7=cfg/n2.json"', '"a/b=cfg/n2.json"', "a KEY has no slash"),
        ('"serial:web7=cfg/n2.json"', '"asset:b=cfg/n2.json"', "there are two configurations for asset:b"),
        ('"serial:web7=cfg/n2.json"', '"a=cfg/nowhere.json"', "cfg/nowhere.json: "),
        ('configs = "more"', 'configs = "cfg/nowhere"', "cfg/nowhere: cannot be read"),
        ('configs = "more"', 'configs = ["more"]', "image.web.configs: "),
        ('configs = "more"', 'config-form = "more"', "did you mean config-for?"),
        ("serial:{id}", "serial:{name}", "node-n1 (fleet.csv, row 1, line 2): there is no column 'name'"),
        ("serial:{id}=", "serial:a{{=", "{{"),
    ],
)
def test_what_is_wrong_with_them_says_where(project, capfd, old, new, message):
    edited(old, new)
    if new == "serial:a{{=":
        assert main(["build", "node", "-q"]) == 0
        assert main(["config", "out/node-n1.iso", "--as", "serial:a{"]) == 0
        return
    assert main(["build", "-q"]) == 2
    err = capfd.readouterr().err
    assert message in err
    if message.startswith("image.web.config-for"):
        assert "(line 8, column " in err


@pytest.fixture
def signing(project):
    minisign("-G", "-W", "-p", "k.pub", "-s", "k.key")
    edited("[image.web]\n", '[image.web]\nsbom = "out/web.cdx.json"\nsign = "k.key"\n')
    edited('formats = ["iso"]', 'formats = ["iso", "gce"]')
    return project


def minisign(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([require("minisign"), *words], capture_output=True, text=True, timeout=60, input="")


BESIDE = ["web.cdx.json", "web.cdx.json.minisig", "web.gce.json.minisig", "web.gce.tar.gz.minisig", "web.iso.minisig"]


def test_outputs_are_signed_and_only_once(signing, capfd):
    assert main(["build", "web", "-q"]) == 0
    out = capfd.readouterr().out.split()
    assert sorted(out) == sorted(f"out/{name}" for name in (*BESIDE, "web.iso", "web.gce.tar.gz"))
    for name in BESIDE[1:]:
        done = minisign("-V", "-p", "k.pub", "-m", f"out/{name.removesuffix('.minisig')}", "-x", f"out/{name}")
        assert (done.returncode, done.stderr) == (0, ""), name
    words = ["iso", "web.bin", "-q", "-c", "cfg/one.json", *CONFIGS, "--sbom", "a.cdx.json", "-o", "a.iso"]
    assert main(words) == 0
    assert Path("a.cdx.json").read_bytes() == Path("out/web.cdx.json").read_bytes()
    assert main(["verify", "web"]) == 0
    before = {path.name: path.stat().st_ino for path in Path("out").iterdir()}
    assert main(["build", "web", "-q"]) == 0
    assert {path.name: path.stat().st_ino for path in Path("out").iterdir()} == before


# An SBOM and its own signature apart.
@pytest.mark.parametrize("names", [BESIDE[0::2], BESIDE[1::2]], ids=["first", "second"])
def test_what_is_missing_or_changed_beside_them_is_made_again(signing, names, capfd):
    assert main(["build", "web", "-q"]) == 0
    was = {Path("out", name): Path("out", name).read_bytes() for name in names}

    def changed(path):
        data = was[path]
        other = b"x" if data[-9:-8] != b"x" else b"y"  # the keys, and so the signatures, are new in each run
        path.write_bytes(data[:-9] + other + data[-8:])

    for spoil in (Path.unlink, changed):
        for path in was:
            spoil(path)
        capfd.readouterr()
        assert main(["verify", "web"]) == 5
        out = capfd.readouterr().out
        assert [path for path in was if f"{path}: is " not in out] == []
        assert main(["build", "web", "-q"]) == 0
        assert {path: path.read_bytes() for path in was} == was


def test_what_is_no_sbom_and_no_signature_stays(signing, capfd):
    """Though another image's output is none of those that are wanted now."""
    assert main(["build", "node", "-q"]) == 0
    before = Path("out/node-n1.iso").read_bytes()
    assert main(["build", "web", "-q", "--sbom", "out/node-n1.iso"]) == 2
    assert "out/node-n1.iso: is there, and is no SBOM" in capfd.readouterr().err
    assert Path("out/node-n1.iso").read_bytes() == before
    assert not Path("out/web.iso").exists()
    Path("out/web.iso.minisig").write_text("mine")
    assert main(["build", "web", "-q"]) == 2
    assert "out/web.iso.minisig: is there, and is no signature" in capfd.readouterr().err
    assert Path("out/web.iso.minisig").read_text() == "mine"
    assert main(["build", "web", "-q", "--force"]) == 0
    assert Path("out/web.iso.minisig").read_text().startswith("untrusted comment:")


def test_options_say_it_of_all_or_of_one(signing, capfd):
    minisign("-G", "-W", "-p", "l.pub", "-s", "l.key")
    assert main(["build", "-q", "--sign", "l.key"]) == 0
    done = minisign("-V", "-p", "l.pub", "-m", "out/node-n2.iso")
    assert done.returncode == 0, done.stderr
    capfd.readouterr()
    assert main(["build", "-q", "--sbom", "all.json"]) == 2
    assert "all.json: is web's, too: each image has an SBOM of its own" in capfd.readouterr().err
    assert main(["build", "web", "-q", "--sbom", "out/web.iso"]) == 2
    assert "is what an output is called" in capfd.readouterr().err
    assert main(["build", "web", "-q", "--sbom", "web.bin"]) == 2
    assert "error: " in capfd.readouterr().err


def test_a_fleet_refuses_to_sign(signing):
    ran = support.run(signing, "--workers", "1")
    assert ran.returncode == 2
    assert "image.web.sbom: a fleet writes no SBOMs and signs nothing (line 7, column 1)" in ran.stderr
    assert "rumpbundle build" in ran.stderr
    assert not Path("out").exists()


def test_the_machine_is_told_who_it_is(project, capfd):
    Path("rumpbundle.toml").write_text(Path("rumpbundle.toml").read_text() + '[image.web.boot]\nas = "serial:web7"\n')
    assert main(["boot", "web", "--dry-run"]) == 0
    assert "serial=web7" in capfd.readouterr().out
    assert main(["boot", "web", "--dry-run", "--as", "asset:b"]) == 0
    assert "asset=b" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '["iso"]',
            '["isoo"]',
            "defaults.formats: no such format: isoo (line 3, column 1)\nhint: did you mean iso?",
        ),
        (
            '["iso"]',
            '["vmdk:strem"]',
            "defaults.formats: no such subformat: strem (vmdk has sparse, stream) (line 3",
        ),
        ('["iso"]', '["iso", "iso"]', "defaults.formats: iso is given twice (line 3, column 1)"),
        ("[image.node]", "[image.web.options.isso]\nx = 1\n[image.node]", "image.web.options.isso: no such format"),
        (
            "[image.node]",
            "[image.web.env]\n'A=B' = '1'\n[image.node]",
            "image.web.env: 'A=B' is no name of a variable",
        ),
    ],
)
def test_every_error_in_the_file_has_its_line(project, capfd, old, new, message):
    edited(old, new)
    assert main(["build", "web", "-q"]) == 2
    assert message in capfd.readouterr().err


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ('memory = "x"', "memory: expected a size"),
        ('publish = ["x"]', "publish: expected HOST:GUEST"),
        ('as = "uuid:x"', "as: expected a UUID"),
        ('expect = "("', "expect: is no regular expression"),
        ('bus = "isa"', "bus: 'isa' is not one of"),
        ("timeout = -1", "timeout: expected seconds"),
        ("gdb = 99999999", "gdb: expected a port"),
    ],
)
def test_what_is_wrong_about_booting_says_where(project, capfd, said, message):
    edited("[image.node]", f"[image.web.boot]\n{said}\n[image.node]")
    assert main(["boot", "web", "--dry-run"]) == 2
    err = capfd.readouterr().err
    assert err.startswith(f"error: rumpbundle.toml: image.web.boot.{message}")
    assert "(line 11, column 1)" in err


def test_the_file_may_say_what_boots_it(project, capfd):
    edited("[image.node]", '[image.web.boot]\nboot = "xl"\n[image.node]')
    assert main(["boot", "web", "--dry-run"]) == 0
    assert "xl create" in capfd.readouterr().out
    assert main(["boot", "web", "--dry-run", "--boot", "qemu", "--publish", "x"]) == 2
    assert capfd.readouterr().err.startswith("error: --publish: expected HOST:GUEST")


def test_one_row_is_named_as_its_outputs_are(project, capfd):
    assert main(["build", "node-n2", "-q"]) == 0
    assert [path.name for path in Path("out").iterdir()] == ["node-n2.iso"]
    assert main(["verify", "node-n2"]) == 0
    capfd.readouterr()
    assert main(["build", "node-n3"]) == 2
    assert capfd.readouterr().err == "error: fleet.csv: has no row 'n3'\n"


def test_an_error_in_a_row_names_it_once_and_what_the_file_says(project, capfd):
    edited("[image.node]", '[image.node]\nhostname = "{id}"\nname = "{x}"')
    assert main(["build", "node-n1", "-q"]) == 2
    err = capfd.readouterr().err
    assert err.startswith("error: node-n1 (fleet.csv, row 1, line 2): there is no column 'x', which")
    edited('name = "{x}"', "")
    Path("fleet.csv").write_text("id\nö\n")
    edited("serial:{id}=cfg/{id}.json", "serial:a=cfg/one.json")
    assert main(["build", "node", "-q"]) == 2
    problem = "image.node.hostname: expected letters, digits, '.', '_' and '-', got 'ö' (line 11, column 1)"
    assert f"error: node-ö (fleet.csv, row 1, line 2): {problem} of rumpbundle.toml" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"id": "a", "a": 1.50}', "1.50"),
        ('{"id": "a", "a": 12345678901234567890123}', "12345678901234567890123"),
        ('{"id": "a", "a": "x", "id": "b"}', "line 1: is no JSON: 'id' stands twice"),
        ('{"id": "a", "a": true}', "line 1: a: expected a text or a number, got true"),
    ],
)
def test_a_number_in_a_row_is_what_is_written(project, capfd, line, said):
    Path("rows.jsonl").write_text(f"{line}\n")
    edited('rows = "fleet.csv"', 'rows = "rows.jsonl"\nenv = { A = "{a}" }')
    edited("serial:{id}=cfg/{id}.json", "serial:a=cfg/one.json")
    status = main(["build", "node", "-q"])
    assert status == (0 if said[0] in "1" else 2)
    if status:
        assert said in capfd.readouterr().err
        return
    capfd.readouterr()
    assert main(["config", "out/node-a.iso"]) == 0
    assert json.loads(capfd.readouterr().out)["env"] == {"A": said}
