"""The other commands that take the names of a project file: ``init``, ``boot``, ``check`` and ``verify``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import kernels, synthetic
from support.tools import require

from rumpbundle.cli import main

TEXT = """
[image.web]
app = "web.bin"
formats = ["iso", "ec2"]
output = "out"
cmdline = "one two"
[image.web.boot]
accel = "tcg"
memory = "64M"
timeout = 60
publish = ["8080:80"]
log = "console.txt"
args = ["-nic", "none"]
[image.node]
app = "web.bin"
formats = ["iso"]
output = "out"
rows = "fleet.csv"
cmdline = "id={id}"
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project in the current directory."""
    (tmp_path / "web.bin").write_bytes(kernels.build("multiboot").read_bytes())
    (tmp_path / "rumpbundle.toml").write_text(TEXT)
    (tmp_path / "fleet.csv").write_text("id\nn1\nn2\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys, *argv: str) -> tuple[int, str, str]:
    status = main(argv)
    out, err = capsys.readouterr()
    return status, out, err


def test_verify_compares_every_byte_of_every_output(project, capsys):
    status, out, err = run(capsys, "verify", "web")
    assert (status, out) == (5, "out/web.iso: is missing\nout/web.ec2: is missing\n")
    assert err == ("error: 2 of 2 outputs are not what the project file describes\nhint: rumpbundle build web\n")
    run(capsys, "build", "-q")
    status, out, err = run(capsys, "verify")
    assert (status, err, out.count("as the project file describes it")) == (0, "", 4)
    with open("out/node-n2.iso", "r+b") as file:
        file.seek(70_000)
        file.write(b"?")
    Path("out/web.ec2/more").touch()
    status, out, err = run(capsys, "verify", "--json")
    assert status == 5
    assert {row["path"]: row["difference"] for row in json.loads(out)["outputs"]} == {
        "out/web.iso": "",
        "out/web.ec2": "holds more, which is not part of it",
        "out/node-n1.iso": "",
        "out/node-n2.iso": "differs from byte 70000 on",
    }
    assert sorted(os.listdir(".rumpbundle")) == [".gitignore", "record"]


def test_check_judges_the_kernel_of_an_image(project, capsys):
    one = run(capsys, "check", "./web.bin", "--target", "ec2", "--firmware", "bios")
    assert run(capsys, "check", "web", "--target", "ec2", "--firmware", "bios") == one
    text = (project / "rumpbundle.toml").read_text()
    (project / "rumpbundle.toml").write_text(text.replace("output", "firmware = 'bios'\noutput"))
    assert run(capsys, "check", "--target", "ec2") == one  # all images have this one kernel


def test_boot_takes_from_the_file_what_the_command_line_does_not_say(project, capsys):
    status, out, _ = run(capsys, "boot", "web", "--dry-run")
    assert status == 0
    assert "-m 64M" in out
    assert "hostfwd=tcp:127.0.0.1:8080-:80" in out
    assert out.splitlines()[-1].endswith("-nic none")
    assert out.splitlines()[0] == "rumpbundle build -f raw web"
    status, out, _ = run(capsys, "boot", "web", "--dry-run", "--memory", "128M", "--", "-S")
    assert "-m 128M" in out
    assert out.splitlines()[-1].endswith(" -S")


@pytest.mark.parametrize(("key", "value"), [("memory", "'1Q'"), ("accel", "'no'"), ("bus", "'no'"), ("timeout", "0")])
def test_what_cannot_be_booted_so_is_one_error(project, capsys, key, value):
    (project / "rumpbundle.toml").write_text(f"[image.a]\napp = 'web.bin'\n[image.a.boot]\n{key} = {value}\n")
    status, _, err = run(capsys, "boot", "a", "--dry-run")
    assert (status, err.startswith("error: ")) == (2, True)


@pytest.mark.boot
def test_an_image_boots_by_its_name(project, capfd):
    assert main(["boot", "node-n2", "--accel", "tcg", "--timeout", "60", "--", "-nic", "none"]) == 0
    assert '"web.bin id=n2"' in capfd.readouterr().out
    assert main(["boot", "node"]) == 2
    assert "hint: name one: node-KEY" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["multiboot", "multiboot2"])
def test_init_writes_a_file_that_builds(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    Path('odd "näme".bin').write_bytes(kernels.build(name).read_bytes())
    assert run(capsys, "init", 'odd "näme".bin') == (0, "rumpbundle.toml\n", "")
    assert run(capsys, "build", "-q") == (0, "odd-n-me.iso\n", "")
    plain = Path("rumpbundle.toml").read_text()
    # What stands in comments is right, too.
    lines = [line.removeprefix("# ") if " = " in line else line for line in plain.splitlines()]
    kept = [line for line in lines if not line.startswith(("rows", "modules", "timeout", "expect", "sign"))]
    Path("rumpbundle.toml").write_text("\n".join(kept))
    assert run(capsys, "build", "-q") == (0, "out/odd-n-me.iso\nodd-n-me.cdx.json\n", "")
    status, _, err = run(capsys, "init", 'odd "näme".bin')
    assert (status, err.startswith("error: rumpbundle.toml: already exists")) == (2, True)
    assert run(capsys, "init", "rumpbundle.toml", "--force")[0] == 2
    assert "\n".join(kept) == Path("rumpbundle.toml").read_text()


def test_a_dry_run_tells_every_error_and_goes_on(project, capsys):
    (project / "out").write_text("a file")
    real = run(capsys, "build", "-q")
    status, out, err = run(capsys, "build", "-q", "--dry-run", "--json")
    assert (status, real[0]) == (2, 2)
    assert json.loads(out) == []
    assert err.count("error: ") == 4
    (project / "out").unlink()
    text = (project / "rumpbundle.toml").read_text()
    (project / "rumpbundle.toml").write_text(text.replace('cmdline = "one two"', 'config = "none.json"'))
    status, out, err = run(capsys, "build", "-q", "--dry-run", "--json")
    assert status == 2
    assert [each["image"] for each in json.loads(out)] == ["node-n1", "node-n2"]
    assert err == "error: web: none.json: no such file\n"
    status, out, err = run(capsys, "verify", "web", "--json")
    assert (status, json.loads(out)["outputs"]) == (2, [])
    assert json.loads(out)["failed"] == [{"image": "web", "error": "none.json: no such file", "hint": None}]
    assert run(capsys, "verify", "web")[1] == ""


def test_a_hint_names_a_row_as_a_shell_takes_it(project, capsys):
    (project / "fleet.csv").write_text("id\nn 1\n")
    assert run(capsys, "verify", "node-n 1")[2].endswith("hint: rumpbundle build 'node-n 1'\n")


def test_verify_waits_for_no_fifo(project, capsys):
    run(capsys, "build", "node", "-q")
    os.remove("out/node-n1.iso")
    os.mkfifo("out/node-n1.iso")
    status, out, _ = run(capsys, "verify", "node-n1")
    assert (status, out) == (5, "out/node-n1.iso: is no file\n")


def test_verify_of_a_name_bundles_nothing_else(project, capsys):
    assert run(capsys, "verify", "web", "--rebuild", "web.bin")[2].startswith("error: --rebuild: takes images, ")


def test_what_a_killed_verify_has_left_is_swept(project, capsys):
    code = (
        "import os, signal, rumpbundle.project.compare as c; from rumpbundle.cli import main\n"
        "c.write = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\n"
        "main(['verify', 'web'])"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == -9
    assert len(os.listdir(".rumpbundle")) == 2
    run(capsys, "build", "-q")
    assert sorted(os.listdir(".rumpbundle")) == [".gitignore", "record"]


def test_a_secret_key_is_an_input(project, capsys):
    text = (project / "rumpbundle.toml").read_text()
    (project / "k.key").write_text("secret")
    (project / "rumpbundle.toml").write_text(text.replace("output", 'sbom = "k.key"\nsign = "k.key"\noutput', 1))
    assert run(capsys, "build", "web", "-q")[0] == 2
    assert (project / "k.key").read_text() == "secret"


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ('sbom = "out/node-n1.iso"', "out/node-n1.iso: is node-n1's, too: each image has an SBOM of its own"),
        ('sbom = "fleet.csv"', "fleet.csv: is an input and cannot be the output too"),
        ('sbom = "out/node-n1.iso.minisig"', "out/node-n1.iso.minisig: is web's, and a signature of node-n1, too"),
        ('sbom = "./out/../out/web.ec2/a.json"', "out/web.ec2/a.json: would lie in an output of web"),
        (
            'sbom = "out/web.ec2.volume.raw.minisig"',
            "volume.raw.minisig: is web's, and may be the name of a",
        ),
        ('sbom = "out/SHA256SUMS"', "out/SHA256SUMS: is web's, and the list of checksums, too"),
        ('config = "out/node-n2.iso.minisig"', "out/node-n2.iso.minisig: is an input and cannot be the output too"),
        ('modules = ["out/node-n2.iso"]', "out/node-n2.iso: is an input and cannot be the output too"),
    ],
)
def test_nothing_that_is_written_takes_the_place_of_anything_else(project, capsys, said, error):
    """Not of another image's files either, and none is written before that is known."""
    (project / "rumpbundle.toml").write_text(TEXT.replace("output", f"{said}\noutput", 1))
    (project / "out").mkdir()
    (project / "out" / "node-n2.iso").write_text("mine")
    (project / "out" / "node-n2.iso.minisig").write_text("{}")
    made = run_minisign("-G", "-W", "-p", "k.pub", "-s", "k.key")
    assert made.returncode == 0, made.stderr
    for words in (["--dry-run"], ["-q"]):
        status, out, err = run(capsys, "build", "--checksums", "--sign", "k.key", *words)
        assert (status, out) == (2, "")
        assert error in err
    assert sorted(os.listdir("out")) == ["node-n2.iso", "node-n2.iso.minisig"]


def test_an_image_may_be_made_of_anothers_output(project, capsys):
    """Also when that stands already, without a record, and where a directory of such, with SBOMs, is its data."""
    (project / "rump").write_bytes(synthetic.rumprun())
    more = '[image.kit]\napp = "rump"\nformats = ["iso"]\ndata = ["out:/out"]\noutput = "kit"\n'
    more += '[image.set]\napp = "web.bin"\nformats = ["iso"]\nmodules = ["out/web.iso"]\noutput = "kit"\n'
    (project / "rumpbundle.toml").write_text(TEXT.replace("output", 'sbom = "out/web.json"\noutput', 1) + more)
    for _ in range(2):
        status, _, err = run(capsys, "build", "web", "kit", "set", "-q")
        assert (status, err) == (0, "")
        os.utime("web.bin")
    Path(".rumpbundle/record").unlink()
    (project / "web.bin").write_bytes((project / "web.bin").read_bytes() + b"\0")
    assert run(capsys, "build", "web", "kit", "set", "-q")[::2] == (0, "")
    assert run(capsys, "verify", "web", "kit", "set", "-q")[0] == 0


def run_minisign(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([require("minisign"), *words], capture_output=True, text=True, timeout=60, input="")


def test_a_directory_whose_name_is_not_utf_8(project, capsys, monkeypatch):
    os.mkdir(b"p\xff")
    for name in ("web.bin", "rumpbundle.toml", "fleet.csv"):
        os.link(name, os.path.join(os.fsdecode(b"p\xff"), name))
    monkeypatch.chdir(os.fsdecode(b"p\xff"))
    for _ in range(2):
        status, out, err = run(capsys, "build", "-q", "--json")
        assert (status, err) == (0, "")
        assert len(json.loads(out)["artifacts"]) == 4


def test_a_row_whose_key_has_a_dot_is_named(project, capsys):
    (project / "fleet.csv").write_text("id\n10.0.0.1\n")
    assert run(capsys, "build", "node-10.0.0.1", "-q")[:2] == (0, "out/node-10.0.0.1.iso\n")
    assert run(capsys, "boot", "node-10.0.0.1", "--dry-run", "--accel", "tcg")[0] == 0
    assert run(capsys, "build", "node-9.9")[2] == "error: fleet.csv: has no row '9.9'\n"
    (project / "node-10.0.0.1").write_text("a file")
    assert "-f: expected the formats" in run(capsys, "build", "node-10.0.0.1")[2]


def test_of_a_file_that_is_there_no_project_file_is_read(project):
    code = "import sys; from rumpbundle.cli import project; project.is_named(['web.bin']); "
    code += "print('msgspec' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"


def test_a_table_without_rows_is_nothing_to_do(project, capsys):
    Path("fleet.csv").write_text("id\n")
    for words in (["build", "node"], ["build", "node", "--dry-run"], ["verify", "node"]):
        status, out, err = run(capsys, *words)
        assert (status, out) == (0, "")
        assert "have no rows" in err
        status, out, _ = run(capsys, *words, "--json")
        assert (status, any(json.loads(out).values()) if out.startswith("{") else json.loads(out) != []) == (0, False)


def test_the_dash_of_a_row_may_be_one_of_the_images_name(project, capsys):
    text = TEXT.replace('rows = "fleet.csv"', 'rows = "other.csv"').replace("image.node", "image.node-a")
    Path("rumpbundle.toml").write_text(TEXT + text[text.index("[image.node-a]") :])
    Path("other.csv").write_text("id\nb\n")
    for name in ("node-a-b", "node-n1"):
        assert main(["build", name, "-q"]) == 0
        assert Path(f"out/{name}.iso").exists()
    capsys.readouterr()
    assert main(["build", "node-a-c", "-q"]) == 2
    assert "has no row 'a-c'" in capsys.readouterr().err


def test_a_dry_run_writes_nothing_at_all(project, capsys):
    before = sorted(os.listdir())
    assert run(capsys, "build", "web", "--dry-run")[0] == 0
    assert sorted(os.listdir()) == before


def test_two_rows_that_want_one_file_are_refused(project, capsys):
    Path("fleet.csv").write_text("id\nx.fixed\nx\n10.0.0.1\n10.0.0\n")
    assert run(capsys, "build", "node", "--dry-run")[0] == 0
    text = TEXT.replace('formats = ["iso"]', 'formats = ["vhd", "vhd:fixed"]')
    Path("rumpbundle.toml").write_text(text)
    for words in (["build"], ["build", "node"], ["verify", "node"], ["fleet", "--workers", "1"]):
        status, _, err = run(capsys, *words)
        assert status == 2
        assert "node-x and node-x.fixed are both to be written to out/node-x.fixed.vhd" in err
    assert not Path("out").exists()
    assert run(capsys, "build", "node", "-f", "iso", "-q")[0] == 0
