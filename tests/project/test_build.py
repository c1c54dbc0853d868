"""``rumpbundle build`` with a project file: what it makes, what it leaves, and what wins over the file."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from support import kernels

from rumpbundle.cli import main
from rumpbundle.project import record

TEXT = """
[defaults]
formats = ["iso"]
output = "out"
[image.web]
app = "build/web.bin"
formats = ["iso", "vmdk:stream", "ec2"]
cmdline = "one"
data = ["site:/"]
[image.web.options.ec2]
description = "the shop"
[image.node]
app = "build/web.bin"
rows = "fleet.csv"
cmdline = "id={id}"
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project in the current directory."""
    (tmp_path / "build").mkdir()
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("hello")
    (tmp_path / "build" / "web.bin").write_bytes(kernels.build("multiboot").read_bytes())
    (tmp_path / "rumpbundle.toml").write_text(TEXT.replace('data = ["site:/"]\n', ""))
    (tmp_path / "fleet.csv").write_text("id\nn1\nn2\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys, *argv: str) -> tuple[int, list[str], str]:
    status = main(argv)
    out, err = capsys.readouterr()
    return status, out.splitlines(), err


def states(directory: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(directory)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_it_makes_all_of_it_as_single_runs_would_and_then_nothing(project, capsys):
    status, out, err = run(capsys, "build")
    assert (status, err) == (0, "")
    assert out == ["out/web.iso", "out/web.stream.vmdk", "out/web.ec2", "out/node-n1.iso", "out/node-n2.iso"]
    assert main(["iso", "build/web.bin", "--cmdline", "one", "-q"]) == 0
    assert Path("web.iso").read_bytes() == Path("out/web.iso").read_bytes()
    assert main(["iso", "build/web.bin", "--cmdline", "id=n2", "-o", "single.iso", "-q"]) == 0
    assert Path("single.iso").read_bytes() == Path("out/node-n2.iso").read_bytes()
    assert main(["ec2", "build/web.bin", "--cmdline", "one", "--description", "the shop", "-q"]) == 0
    assert Path("web.ec2/manifest.json").read_bytes() == Path("out/web.ec2/manifest.json").read_bytes()
    before = states(project / "out")
    capsys.readouterr()
    status, again, err = run(capsys, "build")
    assert (status, again, states(project / "out")) == (0, out, before)
    assert err.count("is up to date") == 5


def test_only_what_changed_is_made_anew(project, capsys):
    run(capsys, "build")
    before = states(project / "out")
    (project / "fleet.csv").write_text("id\nn1\nn2\nn3\n")
    text = (project / "rumpbundle.toml").read_text()
    (project / "rumpbundle.toml").write_text(text.replace('cmdline = "one"', 'cmdline = "two"'))
    os.truncate(project / "out" / "node-n2.iso", 512)
    status, _, _ = run(capsys, "build")
    after = states(project / "out")
    assert status == 0
    assert {name for name in after if before.get(name) != after[name]} == {
        "web.iso", "web.stream.vmdk", "web.ec2/volume.raw", "web.ec2/manifest.json", "node-n2.iso", "node-n3.iso",
    }  # fmt: skip
    assert main(["iso", "build/web.bin", "--cmdline", "id=n2", "-o", "single.iso", "-q"]) == 0
    assert Path("single.iso").read_bytes() == Path("out/node-n2.iso").read_bytes()


def test_a_change_that_keeps_size_and_time_is_noticed_while_the_file_is_young(project, capsys):
    run(capsys, "build", "node")
    output = project / "out" / "node-n1.iso"
    whole, times = output.read_bytes(), output.stat()
    output.write_bytes(whole[:-1] + b"x")
    os.utime(output, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert run(capsys, "build", "node")[0] == 0
    assert output.read_bytes() == whole


def test_a_kept_file_is_trusted_only_when_it_was_old_enough(tmp_path):
    (tmp_path / "f").write_bytes(b"x")
    status = os.stat(tmp_path / "f")
    last = max(status.st_mtime_ns, status.st_ctime_ns)
    young = record.Kept.of(str(tmp_path / "f"), "digest", last + 1_999_999_999)
    old = record.Kept.of(str(tmp_path / "f"), "digest", last + 2_000_000_000)
    assert (young.is_still(status), old.is_still(status)) == (False, True)
    time.sleep(0.02)
    os.chmod(tmp_path / "f", 0o600)
    assert not old.is_still(os.stat(tmp_path / "f"))


@pytest.mark.parametrize("damage", ["gone", "garbage", "torn", "nul"])
def test_without_its_record_it_takes_longer_and_makes_the_same(project, capsys, damage):
    run(capsys, "build", "node")
    whole = Path("out/node-n1.iso").read_bytes()
    path = project / record.DIRECTORY / record.NAME
    match damage:
        case "gone":
            path.unlink()
        case "garbage":
            path.write_bytes(b'\xff\x00[1]\n{}\nnull\n["output"]\n' + path.read_bytes())
        case "torn":
            path.write_bytes(path.read_bytes()[:-20])
        case "nul":
            lines = map(json.loads, path.read_text().split())
            odd = [[*line[:4], [["/a\0b", *file[1:]] for file in line[4]]] for line in lines if line[0] == "output"]
            path.write_text("\n".join(map(json.dumps, odd)))
    for _ in range(2):
        status, out, _ = run(capsys, "build", "node")
        assert (status, out) == (0, ["out/node-n1.iso", "out/node-n2.iso"])
        assert Path("out/node-n1.iso").read_bytes() == whole


def test_a_large_input_is_not_read_again_but_if_it_changed(project, capsys, monkeypatch):
    (project / "site" / "big.bin").write_bytes(bytes(200_000))
    os.utime(project / "site" / "big.bin", (1, 1))
    known = record.BuildRecord("").known_inputs
    assert known() == {}
    (project / "rumpbundle.toml").write_text(
        "[image.a]\napp='build/web.bin'\nformats=['iso']\nmodules=['site/big.bin']\n"
    )
    run(capsys, "build")
    after = record.BuildRecord("")
    (line,) = after.inputs.values()
    assert line.kept.path.endswith("big.bin")
    status = os.stat(line.kept.path)
    assert record.Kept.of(line.kept.path, "", status.st_ctime_ns + 2 * 10**9).is_still(status)
    assert after.known_inputs() == {}  # its ctime is young


def test_the_command_line_wins_over_the_file(project, capsys):
    status, out, _ = run(capsys, "build", "web", "-f", "raw", "--cmdline", "three", "-o", ".")
    assert (status, out) == (0, ["web.raw"])
    assert main(["raw", "build/web.bin", "--cmdline", "three", "-o", "single.raw", "-q"]) == 0
    assert Path("single.raw").read_bytes() == Path("web.raw").read_bytes()


def test_an_sbom_is_one_images(project, capsys):
    status, _, err = run(capsys, "build", "-q", "--sbom", "a.json")
    assert (status, "a.json: is web's, too: each image has an SBOM of its own" in err) == (2, True)


def test_it_builds_from_below_the_file(project, capsys, monkeypatch):
    (project / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(project / "a" / "b")
    status, out, _ = run(capsys, "build", "node")
    assert (status, out) == (0, ["../../out/node-n1.iso", "../../out/node-n2.iso"])


def test_one_that_fails_does_not_stop_the_others(project, capsys):
    (project / "fleet.csv").write_text("id\nn1\n" + "x" * 9000 + "\nn3\n")
    text = (project / "rumpbundle.toml").read_text()
    (project / "rumpbundle.toml").write_text(
        text.replace("id={id}", "id={id}").replace("[image.node]", "[image.bad]\napp = 'no.bin'\n[image.node]")
    )
    status, out, err = run(capsys, "build", "--json")
    found = json.loads("\n".join(out))
    assert status == 2
    assert [each["path"] for each in found["artifacts"]][-2:] == ["out/node-n1.iso", "out/node-n3.iso"]
    assert "error: bad: no.bin: no such file\n" in err
    assert "row 2, line 3" in err
    assert len(found["failed"]) == 2


def test_words_are_names_or_paths(project, capsys):
    assert run(capsys, "build", "nod")[2].endswith(
        "error: rumpbundle.toml: describes no image 'nod'\nhint: did you mean node?\n"
    )
    assert run(capsys, "build", "web", "build/web.bin", "-f", "iso")[0] == 2
    (project / "kernel").write_bytes((project / "build" / "web.bin").read_bytes())
    status, _, err = run(capsys, "build", "kernel", "-f", "iso")
    assert (status, "hint: write ./kernel for the file of that name" in err) == (2, True)
    assert run(capsys, "build", "./kernel", "-f", "iso", "-q")[:2] == (0, ["kernel.iso"])
    (project / "rumpbundle.toml").unlink()
    assert run(capsys, "build", "kernel", "-f", "raw", "-q")[:2] == (0, ["kernel.raw"])
    assert run(capsys, "build")[2] == (
        "error: there is no rumpbundle.toml here or in a directory above\nhint: rumpbundle init APP writes one\n"
    )


def test_a_rehearsal_writes_nothing(project, capsys):
    status, out, _ = run(capsys, "build", "--dry-run", "--json")
    assert (status, [each["image"] for each in json.loads("\n".join(out))]) == (
        0, ["web", "web", "web", "node-n1", "node-n2"],
    )  # fmt: skip
    assert not (project / "out").exists()


@pytest.mark.parametrize("key", ["app", "cmdline", "configs", "esp", "name", "output", "rows", "sbom", "sign"])
def test_a_nul_is_refused_wherever_it_stands(project, capsys, key):
    app = "" if key == "app" else "app='build/web.bin'\n"
    (project / "rumpbundle.toml").write_text(f'[image.a]\n{app}{key}="a\\u0000b"\n')
    for command in ("build", "boot", "check", "verify", "fleet"):
        status, _, err = run(capsys, command, *(["a"] if command == "boot" else []))
        assert (status, err.startswith(f"error: rumpbundle.toml: image.a.{key}: holds a NUL")) == (2, True), err


def test_a_nul_in_a_row_is_refused(project, capsys):
    (project / "r.jsonl").write_text('{"id": "a", "c": "x\\u0000"}\n')
    (project / "rumpbundle.toml").write_text("[image.a]\napp='build/web.bin'\nformats=['raw']\nrows='r.jsonl'\n")
    status, _, err = run(capsys, "build")
    assert (status, err) == (2, "error: r.jsonl: row 1 (line 1): c: holds a NUL, which nothing here can\n")


@pytest.mark.parametrize("key", ["size", "config-room"])
def test_a_bare_number_is_asked_about(project, capsys, key):
    (project / "rumpbundle.toml").write_text(f"[image.a]\napp='build/web.bin'\nformats=['raw']\n{key}=10\n")
    status, _, err = run(capsys, "build")
    assert (status, err.splitlines()[-1]) == (2, "hint: did you mean 10M?")


def test_options_of_formats_are_checked_with_their_place(project, capsys):
    text = "[image.a]\napp='build/web.bin'\nformats=['ova']\n[image.a.options.ova]\n"
    for line, message in {
        "cpu = 1": "image.a.options.ova.cpu: unknown key (line 5, column 1)",
        "cpus = 'x'": "image.a.options.ova.cpus: expected a whole number from 0 to 2147483648, got 'x' (line 5",
        "memory = 128": "image.a.options.ova.memory: 128 is a number of bytes, and too small (line 5, column 1)\n"
        "hint: did you mean 128M?",
        "memory = '1Q'": "image.a.options.ova.memory:",
    }.items():
        (project / "rumpbundle.toml").write_text(text + line)
        status, _, err = run(capsys, "build")
        assert (status, message in err) == (2, True), err
    (project / "rumpbundle.toml").write_text(text + "memory = '64M'\ncpus = 2")
    assert run(capsys, "build")[0] == 0
    assert main(["ova", "build/web.bin", "--memory", "64M", "--cpus", "2", "-q"]) == 0
    assert Path("web.ova").read_bytes() == Path("a.ova").read_bytes()


def test_a_kit_that_holds_more_is_not_up_to_date(project, capsys):
    run(capsys, "build", "-q")
    (project / "out" / "web.ec2" / "extra").write_text("x")
    assert run(capsys, "verify", "web")[0] == 5
    status, _, err = run(capsys, "build", "web", "-q")
    assert status == 2
    assert "extra" in err
    (project / "out" / "web.ec2" / "extra").unlink()
    assert run(capsys, "build", "web", "-q")[0] == 0
    assert run(capsys, "verify", "web")[0] == 0


def test_a_file_where_outputs_are_to_stand(project, capsys):
    (project / "out").write_text("x")
    status, out, err = run(capsys, "build", "web", "-q")
    assert (status, out) == (2, [])
    assert err.startswith("error: web: out: is there, and is no directory\nhint: ")
    assert main(["build", "web.bin", "-f", "iso", "-o", "out"]) == 2


def test_a_file_in_the_way_to_the_outputs(project, capsys):
    text = (project / "rumpbundle.toml").read_text()
    (project / "rumpbundle.toml").write_text(text.replace('output = "out"', 'output = "rumpbundle.toml/a/b"'))
    status, out, err = run(capsys, "build", "web", "-q")
    assert (status, out) == (2, [])
    assert "rumpbundle.toml/a/b: cannot be made a directory: Not a directory" in err


def test_a_list_of_checksums_keeps_what_it_says_of_others(project, capsys):
    (project / "out").mkdir()
    (project / "out/theirs").write_text("x")
    sums = project / "out/SHA256SUMS"
    sums.write_text(f"{'a' * 64}  theirs\n{'b' * 64} *gone\n\\{'c' * 64}  a\\nb\n")
    (project / "out/a\nb").write_text("y")
    assert run(capsys, "build", "-q", "--checksums")[0] == 0
    lines = sums.read_text().splitlines()
    assert lines[:2] == [f"{'a' * 64}  theirs", f"\\{'c' * 64}  a\\nb"]
    assert {line.split("  ")[1] for line in lines[2:]} >= {"web.iso", "node-n1.iso", "node-n2.iso", "web.stream.vmdk"}
    assert run(capsys, "build", "-q", "--checksums", "node-n1")[0] == 0
    assert sorted(sums.read_text().splitlines()) == sorted(lines)
    sums.write_text(f"{'d' * 64}  ./web.iso\n{'a' * 64}  ./theirs\n")
    assert run(capsys, "build", "-q", "--checksums")[0] == 0
    assert sums.read_text().splitlines()[0] == f"{'a' * 64}  ./theirs"
    assert "./web.iso" not in sums.read_text()


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_what_is_no_list_of_checksums_is_not_replaced(project, capsys, more):
    (project / "out").mkdir()
    (project / "out/SHA256SUMS").write_text("notes\n")
    status, _, err = run(capsys, "build", "-q", "--checksums", *more)
    assert (status, "out/SHA256SUMS: is there, and is no list of checksums" in err) == (2, True)
    assert os.listdir(project / "out") == ["SHA256SUMS"]
    assert run(capsys, "build", "-q", "--checksums", "--force", *more)[0] == 0
