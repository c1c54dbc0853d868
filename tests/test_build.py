"""``rumpbundle build``: several formats at once, as single commands would write them, and failing one by one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import kernels

from rumpbundle.cli import main
from rumpbundle.host import environment, programs

SEVEN = ("iso", "vmdk", "vdi", "qcow2", "vhd", "vhdx", "ova")


@pytest.fixture
def app(tmp_path, monkeypatch):
    """A kernel called app.bin in an empty current directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.bin").write_bytes(kernels.build("multiboot").read_bytes())
    return "app.bin"


@pytest.fixture
def qemu_img(tmp_path, monkeypatch):
    """Return a function that puts a shell script in qemu-img's place for everything but ``--version``.

    ``$REAL`` is the real one, ``$OUT`` the file to write.
    """

    def replace(script: str, version: str = "exec $REAL --version") -> None:
        directory = tmp_path / "bin"
        directory.mkdir()
        fake = directory / "qemu-img"
        fake.write_text(f"""#!/bin/sh
REAL={shutil.which("qemu-img")}
[ "$1" != --version ] || {{ {version}; exit; }}
for OUT; do :; done
{script}
""")
        fake.chmod(0o755)
        monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")

    return replace


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


def test_a_failing_format_leaves_the_others(app, capsys, qemu_img):
    qemu_img('echo partly >"$OUT"; echo "qemu-img: boom" >&2; exit 1')
    status, out, err = run(capsys, "build", app, "-f", "iso,vmdk,ova,qcow2", "-q")
    assert status == 4
    assert out.splitlines() == ["app.iso", "app.ova"]
    assert err.splitlines() == [f"error: {name}: qemu-img failed with status 1: boom" for name in ("vmdk", "qcow2")]
    assert sorted(path.name for path in Path().iterdir()) == ["app.bin", "app.iso", "app.ova", "bin"]


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
    monkeypatch.setattr(environment, "find_program", lambda name: None if name == "qemu-img" else shutil.which(name))
    status, out, err = run(capsys, "build", app, "-f", "vmdk,vhdx", "-o", "out", "--checksums", "-q")
    assert (status, out) == (3, "")
    assert err.count("qemu-img is not installed") == 2
    assert "qemu-utils" in err
    assert sorted(os.listdir()) == ["app.bin"]


@pytest.mark.parametrize(
    ("script", "version", "status", "message"),
    [
        ("exit 0", "echo qemu-img version 2.5.0", 3, "qemu-img 2.5 is too old"),
        ("exit 0", "echo hello", 4, "does not tell a version"),
        ("kill -9 $$", "exec $REAL --version", 4, "qemu-img was killed by SIGKILL"),
        ("exit 0", "exec $REAL --version", 4, "cannot seal"),
        # The real one, but the disk is not the one it was given.
        ('exec $REAL create -q -f "$5" "$OUT" 1M', "exec $REAL --version", 4, "cannot seal"),
    ],
    ids=["too old", "no version", "killed", "wrote nothing", "wrote something else"],
)
@pytest.mark.parametrize("format", ["vmdk", "qcow2", "vhd", "vhdx"])
def test_a_qemu_img_that_will_not_do(app, capsys, qemu_img, script, version, status, message, format):
    qemu_img(script, version)
    got, out, err = run(capsys, format, app, "-q")
    assert (got, out) == (status, "")
    assert message in err
    assert sorted(os.listdir()) == ["app.bin", "bin"]


def test_a_qemu_img_that_is_too_old_says_which_will_do(app, capsys, qemu_img):
    qemu_img("exit 0", "echo qemu-img version 4.1.1")
    status, _, err = run(capsys, "vhdx", app, "-q")
    assert status == 3
    assert err.splitlines() == [
        "error: app.vhdx: qemu-img 4.1 is too old",
        "hint: install 4.2 or newer (on Debian and Ubuntu: sudo apt install qemu-utils)",
    ]


@pytest.mark.parametrize(
    ("format", "offset", "value", "message"),
    [
        ("vmdk", 4, b"\x02", "unknown values"),  # version
        ("vmdk", 8, b"\x07", "unknown values"),  # flags: zeroed grains
        ("vmdk", 0x1C, b"\x02", "unknown values"),  # where the descriptor is
        ("vmdk", 0x48, b"\x01", "unknown values"),  # not closed cleanly
        ("vmdk", 512, bytes(10240), "descriptor is not where it was"),
        ("vmdk", 0x38, b"\xff\xff\xff\x7f", "behind the end of the file"),  # the grain directory
        ("vhd", 8, b"\xff", "two footers of the VHD differ"),
        ("vhd", -512, bytes(512), "two footers of the VHD differ"),
        ("vhd", 512, b"x", "dynamic header is damaged"),
        ("vhdx", 0x30000, b"x", "two region tables of the VHDX differ"),
        ("vhdx", 0x10004, bytes(4), "a header is damaged"),  # the other header would do
        ("qcow2", 63, b"\x01", "unknown values"),  # a snapshot
        ("qcow2", 79, b"\x01", "unknown values"),  # marked as dirty
        ("qcow2", 72, b"\x80", "uses features"),
        ("qcow2", 40, b"\x7f", "a table of"),  # where the first table is
    ],
)
def test_a_field_that_is_not_as_expected_is_not_sealed_over(app, capsys, monkeypatch, format, offset, value, message):
    """What qemu-img wrote is another one's, or a newer one's: guessing would corrupt the disk."""
    before = programs.run

    def changed(argv, **kwargs):
        result = before(argv, **kwargs)
        if "convert" in argv:
            with open(argv[-1], "r+b") as file:
                file.seek(offset, os.SEEK_SET if offset >= 0 else os.SEEK_END)
                file.write(value)
        return result

    monkeypatch.setattr(programs, "run", changed)
    status, out, err = run(capsys, format, app, "-q")
    assert (status, out) == (4, "")
    said, hint = err.splitlines()
    assert said.startswith("error: qemu-img wrote what rumpbundle cannot seal: ")
    assert message in said
    assert "qemu-img --version" in hint
    assert os.listdir() == ["app.bin"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["-f", "iso,isoo"], "no such format: isoo"),
        (["-f", "vmdk:thick"], "no such subformat: thick"),
        (["-f", "vmdk:"], "no such subformat"),
        (["-f", "iso,iso"], "iso is given twice"),
        (["-f", "iso", "-o", "app.bin"], "cannot be made a directory"),
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


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "words", [("vmdk", "app.bin"), ("build", "app.bin", "-f", "vmdk,qcow2,iso")], ids=["one", "all"]
)
def test_an_interruption_does_not_wait_for_qemu_img(app, tmp_path, qemu_img, words, number):
    qemu_img(f'echo $$ >"{tmp_path}/bin/$$.pid"; exec sleep 300')
    root = str(Path(__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, "-m", "rumpbundle", *words, "-q"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": root},
    ) as process:
        while not any(path.read_text() for path in Path("bin").glob("*.pid")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "error: interrupted\n")
    assert not any(is_alive(int(path.stem)) for path in Path("bin").glob("*.pid"))
    assert {path.name for path in Path().iterdir()} <= {"app.bin", "bin", "app.iso"}, "what was done before is whole"


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
