"""``rumpbundle build``: several formats at once, as single commands would write them, and failing one by one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import kernels, synthetic

from rumpbundle import build
from rumpbundle.cli import main
from rumpbundle.events import Started, Warned

SEVEN = ("iso", "vmdk", "vdi", "qcow2", "vhd", "vhdx", "ova")


@pytest.fixture
def app(tmp_path, monkeypatch):
    """A kernel called app.bin in an empty current directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.bin").write_bytes(kernels.build("multiboot").read_bytes())
    return "app.bin"


def run(capsys, *argv: str) -> tuple[int, str, str]:
    status = main(argv)
    out, err = capsys.readouterr()
    return status, out, err


def test_build_writes_what_single_commands_write(app, capsys):
    for name in SEVEN:
        assert run(capsys, name, app)[0] == 0
    single = {path.name: path.read_bytes() for path in Path().glob("app.*") if path.name != app}
    status, out, err = run(capsys, "build", app, "-f", ",".join(SEVEN), "-o", "out", "-q")
    assert (status, err) == (0, "")
    assert out.splitlines() == [f"out/app.{name}" for name in SEVEN]
    assert {path.name: path.read_bytes() for path in Path("out").iterdir()} == single


def test_checksums_are_what_sha256sum_reads(app, capsys):
    status, out, _ = run(capsys, "build", app, "-f", "iso,ova", "-f", "vmdk:stream,ec2", "-o", "out", "--checksums")
    assert status == 0
    assert out.splitlines() == [
        "out/app.iso", "out/app.ova", "out/app.stream.vmdk", "out/app.ec2", "out/SHA256SUMS",
    ]  # fmt: skip
    lines = [line.split("  ", 1) for line in Path("out/SHA256SUMS").read_text().splitlines()]
    kit = sorted(f"app.ec2/{path.name}" for path in Path("out/app.ec2").iterdir())
    assert [name for _, name in lines] == ["app.iso", "app.ova", "app.stream.vmdk", *kit]
    for digest, name in lines:
        assert hashlib.sha256(Path("out", name).read_bytes()).hexdigest() == digest


def test_a_failing_format_leaves_the_others(app, capsys, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("rumpbundle.formats._blocks.write_extents", full)
    status, out, err = run(capsys, "build", app, "-f", "iso,vmdk,ova,qcow2", "-q")
    assert status == 3
    assert out.splitlines() == ["app.iso", "app.ova"]
    assert err.splitlines() == [
        f"error: {name}: app.{name}: no space left on the output's file system" for name in ("vmdk", "qcow2")
    ]
    assert sorted(path.name for path in Path().iterdir()) == ["app.bin", "app.iso", "app.ova"]


def test_json_tells_both_results_and_failures(app, capsys):
    Path("app.iso").touch()
    status, out, _ = run(capsys, "build", app, "-f", "iso,raw", "--json", "-q")
    said = json.loads(out)
    assert status == 2
    assert [(each["format"], each["path"]) for each in said["artifacts"]] == [("raw", "app.raw")]
    assert said["failed"][0]["format"] == "iso"
    assert len(said["digest"]) == 64
    assert Path("app.iso").read_bytes() == b""


def test_nothing_written_leaves_nothing(app, capsys, monkeypatch):
    def broken(*_):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr("rumpbundle.formats._blocks.write_extents", broken)
    status, out, err = run(capsys, "build", app, "-f", "vmdk,vhdx", "-o", "out", "--checksums", "-q")
    assert (status, out) == (3, "")
    assert err.count("cannot write the output") == 2
    assert sorted(os.listdir()) == ["app.bin"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["-f", "iso,isoo"], "no such format: isoo"),
        (["-f", "vmdk:thick"], "no such subformat: thick"),
        (["-f", "vmdk:"], "no such subformat"),
        (["-f", "iso,iso"], "iso is given twice"),
        (["-f", "iso", "-o", "app.bin"], "is there, and is no directory"),
        (["-f", "iso", "-o", "a/b"], "cannot be made a directory"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_written(app, capsys, argv, message):
    status, out, err = run(capsys, "build", app, *argv, "-q")
    assert (status, out) == (2, "")
    assert message in err
    assert os.listdir() == ["app.bin"]


def writes_into(directory: Path, pid: int) -> bool:
    """Return whether process *pid* has a file without a name open in *directory*."""
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            if os.readlink(fd).startswith(f"{directory}/#"):
                return True
    return False


def test_an_interruption_ends_all_of_them(app, tmp_path):
    (tmp_path / "big").write_bytes(os.urandom(1 << 20) * 64)
    argv = [sys.executable, "-m", "rumpbundle", "build", app, "--module", "big", "-q"]
    argv += ["-f", "vmdk,ova,vdi,qcow2,vmdk:stream"]
    root = str(Path(__file__).parents[1])
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": root}
    ) as process:
        while not writes_into(tmp_path, process.pid):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "error: interrupted\n")
    assert sorted(os.listdir()) == ["app.bin", "big"]


def test_an_interruption_does_not_wait_for_checksums(app, tmp_path):
    argv = [sys.executable, "-m", "rumpbundle", "build", app, "-f", "raw", "--size", "512G", "--checksums", "-q"]
    root = str(Path(__file__).parents[1])
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": root}
    ) as process:
        while not Path("app.raw").exists():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)  # hashing that much takes minutes
    assert (process.returncode, out, err) == (130, "", "error: interrupted\n")
    assert sorted(os.listdir()) == ["app.bin", "app.raw"]


def test_dry_run_plans_every_format(app, capsys):
    status, out, _ = run(capsys, "build", app, "-f", "iso,vmdk:stream", "--dry-run", "-q")
    assert status == 0
    assert "would write  app.iso (iso)" in out
    assert "would write  app.stream.vmdk (vmdk)" in out
    assert os.listdir() == ["app.bin"]


def test_what_there_is_to_warn_of_comes_in_the_order_of_the_formats(tmp_path):
    kernel = tmp_path / "rump.bin"
    kernel.write_bytes(synthetic.rumprun())
    orders = {("vhd", "vdi"): ["Hyper-V", "VirtualBox"], ("vdi", "vhd"): ["VirtualBox", "Hyper-V"]}
    for names, machines in orders.items():
        events: list[object] = []
        build(kernel, names, tmp_path, force=True, report=events.append)
        warned = [event.text for event in events if isinstance(event, Warned)]
        named = [next((name for name in machines if text.startswith(f"on {name}")), "") for text in warned]
        assert list(dict.fromkeys(filter(None, named))) == machines
        begun = [isinstance(event, Started) and "." in event.label for event in events].index(True)
        assert not any(isinstance(event, Warned) for event in events[begun:])


@pytest.mark.parametrize("name", ["SHA256SUMS", "b.json"])
def test_what_stands_beside_already_is_told_before_anything_is_written(app, capsys, name):
    os.mkdir("out")
    Path("out", name).write_text("old")
    argv = ["build", app, "-f", "iso", "-o", "out", "-q", "--checksums", "--sbom", "out/b.json"]
    for more in ([], ["--dry-run"]):
        status, out, err = run(capsys, *argv, *more)
        assert (status, out) == (2, "")
        assert err.startswith(f"error: out/{name}: already exists\nhint: ")
    assert os.listdir("out") == [name]
    assert run(capsys, *argv, "--force")[0] == 0


@pytest.mark.parametrize("format", ["iso", "ec2", "gce"])
def test_a_dry_run_refuses_what_the_run_does(app, capsys, format):
    """A directory with something of the user's is replaced by no kit, and any directory by no file."""
    output = Path("out", f"app.{format}" + (".tar.gz" if format == "gce" else ""))
    output.mkdir(parents=True)
    (output / "mine").write_text("mine")
    for argv in (["build", app, "-f", format, "-o", "out"], [format, app, "-o", str(output)]):
        said = [run(capsys, *argv, "--force", "-q", *more) for more in ([], ["--dry-run"])]
        assert said[0][0] == 2
        assert said[0] == said[1]
    assert (output / "mine").read_text() == "mine"


def test_a_directory_that_somebody_else_fills_stays(app, capsys, monkeypatch):
    from rumpbundle.cli import build as command
    from rumpbundle.errors import HostError

    def write_targets(planned, wanted, **_):
        Path("out/theirs").touch()
        return tuple(command.Outcome(target=each, error=HostError("no space")) for each in wanted)

    monkeypatch.setattr(command, "write_targets", write_targets)
    assert run(capsys, "build", app, "-f", "iso", "-o", "out") == (3, "", "error: iso: no space\n")
    assert os.listdir("out") == ["theirs"]


def test_a_directory_made_for_an_interrupted_run_goes(app, capsys, monkeypatch):
    from rumpbundle.cli import build as command

    def write_targets(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "write_targets", write_targets)
    assert run(capsys, "build", app, "-f", "iso", "-o", "out")[0] == 130
    assert not os.path.exists("out")
