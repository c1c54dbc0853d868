"""What goes wrong half-way leaves nothing behind, keeps what was there, and is one clear line: for every format."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import kernels
from support.tools import as_somebody, require

import rumpbundle
from rumpbundle import formats
from rumpbundle.errors import InputError
from rumpbundle.events import Started

FORMATS = formats.names()
MIB = 1 << 20
PAYLOAD = 48 * MIB


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Return a directory with a kernel and a module that takes its time and does not compress."""
    directory = tmp_path_factory.mktemp("inputs")
    shutil.copyfile(kernels.build("multiboot"), directory / "app.bin")
    (directory / "module").write_bytes(random.Random(1).randbytes(PAYLOAD))
    return directory


def command(inputs: Path, format: str, output: Path, *more: str) -> list[str]:
    argv = [sys.executable, "-m", "rumpbundle", format, str(inputs / "app.bin")]
    return [*argv, "--module", str(inputs / "module"), "-o", str(output), *more]


def environment(temporary: Path) -> dict[str, str]:
    root = str(Path(__file__).parents[1])
    return os.environ | {"PYTHONPATH": root, "TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture
def outputs(tmp_path):
    """Return a directory for outputs; afterwards it, and the one for temporary files, must be empty."""
    directory = tmp_path / "out"
    directory.mkdir()
    (tmp_path / "tmp").mkdir()
    yield directory
    assert os.listdir(directory) == []
    assert os.listdir(tmp_path / "tmp") == []


UNSHARE = ["unshare", "-m" if os.geteuid() == 0 else "-rm"]
"""Gives a process mounts of its own; who is not root becomes it in a user namespace, if the machine allows that."""


@pytest.fixture(scope="module")
def may_mount():
    require("unshare")
    if subprocess.run([*UNSHARE, "true"], stderr=subprocess.DEVNULL).returncode:
        message = "this machine lets nobody mount a file system of their own"
        if os.environ.get("CI") and os.getuid() == 0:
            pytest.fail(message)
        pytest.skip(message)


@pytest.mark.parametrize("format", FORMATS)
def test_disk_full(may_mount, inputs, outputs, format):
    """On a file system of 8 MiB: the error says so, the old output stays, nothing new does."""
    output = outputs / f"app{formats.find(format).suffix}"
    argv = command(inputs, format, output, "--force")
    # The shell sees the small file system only while it runs; it tells what is left there.
    small = 'mount -t tmpfs -o size=8m tmpfs "$OUT"; cd "$OUT"; echo old >"$1"; shift'
    script = f'{small}; "$@" 2>&1; echo "status $?"; ls -A; cat *'
    done = subprocess.run(
        [*UNSHARE, "sh", "-c", script, "sh", output.name, *argv],
        env=environment(outputs.parent / "tmp") | {"OUT": str(outputs)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    said = [line for line in done.stdout.splitlines() if not line.startswith(("note:", "warning:", "hint:"))]
    assert said[0].startswith("error: "), done.stdout
    assert "no space left on" in said[0].lower()
    assert said[1:] == ["status 3", output.name, "old"]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("change", ["truncated", "rewritten"])
def test_an_input_changes_while_it_is_read(inputs, outputs, monkeypatch, format, change):
    monkeypatch.setattr("tempfile.tempdir", str(outputs.parent / "tmp"))
    module = outputs.parent / "module"
    module.write_bytes(b"x" * 3 * MIB)
    os.utime(module, (1, 1))

    def spoil(event):
        if isinstance(event, Started) and event.total:
            with module.open("r+b") as file:
                if change == "truncated":
                    file.truncate(MIB)
                else:
                    file.write(b"new")

    output = outputs / f"app{formats.find(format).suffix}"
    with pytest.raises(InputError, match=r"^\S+/module: changed while it was read"):
        rumpbundle.bundle(
            inputs / "app.bin", format, output=output, modules=(rumpbundle.ModuleFile(module),), report=spoil
        )


@pytest.mark.parametrize(
    ("format", "number"), [*((f, signal.SIGINT) for f in FORMATS), ("iso", signal.SIGTERM), ("qcow2", signal.SIGTERM)]
)
def test_a_signal_in_the_middle(inputs, outputs, format, number):
    output = outputs / f"app{formats.find(format).suffix}"
    for _ in range(5):
        argv = command(inputs, format, output, "--quiet", "--force")
        env = environment(outputs.parent / "tmp")
        with subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            while process.poll() is None and not writes_below(process.pid, outputs):
                time.sleep(0.001)
            process.send_signal(number)
            _, said = process.communicate(timeout=60)
        if process.returncode != 0:
            break
        empty(outputs)  # it was done before the signal came
    assert (process.returncode, said) == (130, b"error: interrupted\n")


def empty(directory: Path) -> None:
    for path in directory.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def writes_below(pid: int, directory: Path) -> bool:
    """Tell whether the process has begun to write in *directory*, be it a file without a name."""
    if os.listdir(directory):
        return True
    try:
        links = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    except FileNotFoundError:
        return False
    return any(link.startswith(f"{directory}/") for link in links)


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("format", ["iso", "gce", "ec2"])
def test_a_read_only_directory(inputs, outputs, format):
    outputs.chmod(0o555)
    argv = command(inputs, format, outputs / f"app{formats.find(format).suffix}")
    done = subprocess.run(
        [*as_somebody(), *argv],
        env=environment(outputs.parent / "tmp"),
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    outputs.chmod(0o755)
    assert (done.returncode, done.stderr) == (3, f"error: {outputs}: the directory is not writable\n")


def test_the_boot_images_are_no_secret_of_the_user_who_made_them(inputs, outputs):
    """A cache that cannot be written, and a home that is not there, are no reason to fail."""
    env = environment(outputs.parent / "tmp") | {"HOME": "/nonexistent", "XDG_CACHE_HOME": "/proc/nonexistent"}
    output = outputs / "app.iso"
    subprocess.run(command(inputs, "iso", output, "--quiet"), env=env, check=True, timeout=60)
    output.unlink()


def bundled_while(inputs, output, monkeypatch, change):
    """Bundle as raw while *change* does something to the module."""
    monkeypatch.setattr("tempfile.tempdir", str(output.parent.parent / "tmp"))
    module = output.parent.parent / "module"
    module.write_bytes(b"x" * 3 * MIB)
    os.utime(module, (1, 1))

    def report(event):
        if isinstance(event, Started) and event.total:
            change(module)

    return rumpbundle.bundle(
        inputs / "app.bin", "raw", output=output, modules=(rumpbundle.ModuleFile(module),), report=report
    )


def test_a_link_or_a_mode_made_meanwhile_changes_no_byte(inputs, outputs, monkeypatch):
    for change in (lambda path: os.link(path, f"{path}2"), lambda path: path.chmod(0o600)):
        bundled_while(inputs, outputs / "app.raw", monkeypatch, change)
        (outputs / "app.raw").unlink()
        (outputs.parent / "module").unlink()


def test_a_change_that_sets_its_time_back_is_seen(inputs, outputs, monkeypatch):
    def change(path):
        with path.open("r+b") as file:
            file.write(b"new")
        os.utime(path, (1, 1))

    with pytest.raises(InputError, match="changed while it was read"):
        bundled_while(inputs, outputs / "app.raw", monkeypatch, change)


def test_a_file_that_hides_its_size_is_refused(inputs, outputs):
    with pytest.raises(InputError, match="/proc/version: says it is empty but is not"):
        rumpbundle.bundle(
            inputs / "app.bin", output=outputs / "app.iso", modules=(rumpbundle.ModuleFile("/proc/version"),)
        )


WRAPPER = """\
#!/bin/sh
sleep 1000 &
echo $! >{pids}
echo $$ >>{pids}
wait
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGKILL])
def test_no_program_outlives_us_nor_do_its_children(inputs, outputs, number):
    """A grub-mkimage that hangs, behind a wrapper: with us, however we end, all of it ends."""
    binaries, pids = outputs.parent / "bin", outputs.parent / "pids"
    binaries.mkdir()
    (binaries / "grub-mkimage").write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && exec {require("grub-mkimage")} --version\n' + WRAPPER.format(pids=pids)
    )
    (binaries / "grub-mkimage").chmod(0o755)
    env = environment(outputs.parent / "tmp")
    env["PATH"] = f"{binaries}:{env['PATH']}"
    # Where grub-mkimage writes to; what a SIGKILL leaves there is the system's to tidy up.
    env["XDG_CACHE_HOME"] = env["TMPDIR"] = str(binaries)
    with subprocess.Popen(
        command(inputs, "qcow2", outputs / "app.qcow2"), env=env, stderr=subprocess.PIPE
    ) as process:
        deadline = time.monotonic() + 30
        while not (pids.exists() and len(pids.read_text().split()) == 2) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(number)
        process.communicate(timeout=30)
    assert process.returncode == (-9 if number == signal.SIGKILL else 130)
    while any(map(lives, pids.read_text().split())) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(lives, pids.read_text().split()))


def lives(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
