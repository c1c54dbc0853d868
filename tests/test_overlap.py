"""No output takes the place of an input, whatever it is called, and nothing is written then."""

from __future__ import annotations

import io
import os
import shutil
import sys

import pytest
from support import kernels

import rumpbundle
from rumpbundle import formats
from rumpbundle.cli import main
from rumpbundle.errors import UsageError


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    """Return the current directory, with one input of each kind."""
    kernel = kernels.build("multiboot").resolve()
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(kernel, "app.bin")
    (tmp_path / "cfg.json").write_text('{"hostname": "web1"}')
    (tmp_path / "initrd").write_text("module")
    for name in ("data", "volume"):
        (tmp_path / name / "below").mkdir(parents=True)
        (tmp_path / name / "below" / "file").write_text(name)
    yield tmp_path
    assert (tmp_path / "app.bin").read_bytes() == kernel.read_bytes()
    assert (tmp_path / "cfg.json").read_text() == '{"hostname": "web1"}'
    assert (tmp_path / "initrd").read_text() == "module"
    assert (tmp_path / "data/below/file").read_text() == "data"
    assert not [name for name in os.listdir() if name.endswith(".part")]


def bundled(format: str, output: str, *more: str) -> int:
    argv = [format, "app.bin", "-c", "cfg.json", "--module", "initrd", "--data", "data:/data"]
    return main([*argv, "--volume", "volume:/volume", "-o", output, "-q", *more])


def refused(capsys, problem: str = "is an input and cannot be the output too") -> bool:
    said = capsys.readouterr()
    return said.out == "" and said.err.startswith("error: ") and problem in said.err and "\nhint: " in said.err


@pytest.mark.parametrize("format", formats.names())
@pytest.mark.parametrize("victim", ["app.bin", "cfg.json", "initrd", "data/below/file", "volume/below/file"])
def test_an_input_by_another_name(inputs, capsys, format, victim):
    os.link(victim, "other")
    product = formats.find(format).product
    if isinstance(product, formats.Folder):
        os.mkdir("kit")
        os.rename("other", f"kit/{product.holds[0]}")
        assert bundled(format, "kit", "--force") == 2
    else:
        assert bundled(format, "other", "--force") == 2
    assert refused(capsys)
    assert sorted(set(os.listdir()) - {"other", "kit"}) == ["app.bin", "cfg.json", "data", "initrd", "volume"]


@pytest.mark.parametrize("victim", ["app.bin", "cfg.json", "initrd"])
def test_an_input_by_its_own_name_or_through_links(inputs, capsys, victim):
    os.symlink(victim, "link")
    os.symlink(".", "here")
    for output in (victim, "link", f"here/{victim}", f"{os.getcwd()}/./{victim}"):
        assert bundled("iso", output, "--force") == 2
        assert refused(capsys)


def test_the_file_beside_a_kit(inputs, capsys):
    os.rename("app.bin", "app.gce.json")
    assert main(["gce", "app.gce.json", "-o", "app.gce.tar.gz", "--force"]) == 2
    assert refused(capsys)
    os.rename("app.gce.json", "app.bin")
    os.rename("cfg.json", "cfg.azure.json")
    assert main(["azure", "app.bin", "-c", "cfg.azure.json", "-o", "cfg.vhd", "--force", "-q"]) == 2
    assert refused(capsys)
    os.rename("cfg.azure.json", "cfg.json")


def test_checksums_are_an_output_too(inputs, capsys):
    os.rename("initrd", "SHA256SUMS")
    assert main(["build", "app.bin", "-f", "iso", "--module", "SHA256SUMS", "--checksums", "--force"]) == 2
    assert refused(capsys)
    os.rename("SHA256SUMS", "initrd")
    assert not os.path.exists("app.iso")


def test_a_configuration_on_standard_input(inputs, capsys, monkeypatch):
    copy = os.dup(0)
    try:
        with open("cfg.json", "rb") as file:
            os.dup2(file.fileno(), 0)
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(file.read())))
            assert main(["iso", "app.bin", "-c", "-", "-o", "cfg.json", "--force"]) == 2
    finally:
        os.dup2(copy, 0)
    assert refused(capsys)


@pytest.mark.parametrize("force", [(), ("--force",)])
@pytest.mark.parametrize("output", ["data/app.iso", "data/below/app.iso", "volume/app.iso", "link/app.iso"])
def test_an_output_inside_of_its_own_data(inputs, capsys, output, force):
    """It would grow with every build; so also where it does not exist yet."""
    os.symlink("data/below", "link")
    assert bundled("iso", output, *force) == 2
    assert refused(capsys, "would lie in a directory that is an input")
    assert not os.path.exists(output)


def test_the_plan_says_so_already(inputs, capsys):
    assert bundled("iso", "cfg.json", "--force", "--dry-run") == 2
    assert refused(capsys)
    assert bundled("iso", "data/x.iso", "--dry-run") == 2
    assert refused(capsys, "would lie in")


def test_a_build_of_several_writes_none(inputs, capsys):
    os.rename("initrd", "app.raw")
    assert main(["build", "app.bin", "-f", "iso,raw", "--module", "app.raw", "--force", "-o", "."]) == 2
    assert refused(capsys)
    assert not os.path.exists("app.iso")
    os.rename("app.raw", "initrd")
    assert main(["build", "app.bin", "-f", "iso", "--data", "data:/data", "-o", "data/new"]) == 2
    assert not os.path.exists("data/new")


def test_the_other_commands_that_write(inputs, capsys):
    for argv in (
        ["volume", "data", "-o", "data/x.iso"],
        ["volume", "data", "-o", "data/below/file", "-t", "ext2", "--force"],
        ["component", "data:/", "-o", "data/x.o"],
        ["component", "data", "-o", "data/below/file", "--force"],
        ["inspect", "app.bin", "--svg", "app.bin", "--force"],
        ["boot", "--boot", "qemu", "app.bin", "--log", "app.bin"],
        ["boot", "--boot", "qemu", "app.bin", "-c", "cfg.json", "--log", "cfg.json"],
        ["run", "app.bin", "--boot", "qemu", "--log", "app.bin"],
        ["run", "app.bin", "--boot", "qemu", "--data", "data:/data", "--log", "data/below/file"],
    ):
        assert main(argv) == 2, argv
        assert "hint: give a" in capsys.readouterr().err, argv


def test_from_python(inputs):
    with pytest.raises(UsageError, match="is an input"):
        rumpbundle.bundle("app.bin", "raw", output="cfg.json", force=True, inputs=("cfg.json",))


def test_two_outputs_of_one_name(inputs, capsys):
    """An SBOM took the place of the image it told of."""
    for words in (
        ["iso", "app.bin", "-o", "a.iso", "--sbom", "./a.iso"],
        ["gce", "app.bin", "-o", "a.gce.tar.gz", "--sbom", "a.gce.json"],
        ["build", "app.bin", "-f", "iso", "--checksums", "--sbom", "SHA256SUMS"],
    ):
        for more in ([], ["--force"], ["--dry-run"]):
            assert main([*words, *more]) == 2
            assert "would be written twice, the one over the other" in capsys.readouterr().err
    assert not os.path.exists("a.iso")


@pytest.mark.parametrize("words", [["-c", "cfg.json"], ["--config-for", "serial:a=cfg.json"], ["--configs", "many"]])
def test_the_console_is_not_logged_into_a_configuration(inputs, capsys, words):
    (inputs / "rump.bin").write_bytes((inputs / "app.bin").read_bytes() + b"_RUMPRUN_ROOTFSCFG=\0")
    os.mkdir("many")
    os.link("cfg.json", "many/serial:a.json")
    assert main(["iso", "rump.bin", "-e", "A=1", "-q"]) == 0
    capsys.readouterr()
    log = "many/serial:a.json" if words[0] == "--configs" else "cfg.json"
    for more in ([], ["--dry-run"]):
        assert main(["run", "rump.iso", *words, "--log", log, "--accel", "tcg", "--timeout", "5", *more]) == 2
        assert refused(capsys, "is an input") or refused(capsys, "would lie in")
