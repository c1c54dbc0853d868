"""What runs where there is POSIX but nothing of Linux alone, as on macOS."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import kernels

FORMATS = ("iso", "raw", "vmdk", "vdi", "qcow2", "vhd", "vhdx", "ova", "ec2", "gce", "azure", "xen")
WITHOUT = """
import fcntl, os, runpy, sys

exists = os.path.exists
os.path.exists = lambda path: not str(path).startswith("/proc/") and exists(path)

def refuse(event, arguments):
    if event in ("open", "os.listdir", "os.link", "os.readlink") and str(arguments[0]).startswith("/proc/"):
        raise FileNotFoundError(2, "No such file or directory", arguments[0])

for name in ("copy_file_range", "sendfile", "SEEK_HOLE", "SEEK_DATA", "O_TMPFILE", "posix_fallocate", "posix_fadvise",
             "sched_getaffinity", "memfd_create", "splice", "getrandom", "pidfd_open"):
    if hasattr(os, name):
        delattr(os, name)
for name in [name for name in dir(fcntl) if name.startswith(("F_OFD", "FICLONE", "F_ADD_SEALS", "F_SETPIPE"))]:
    delattr(fcntl, name)
sys.addaudithook(refuse)
sys.argv[0] = "rumpbundle"
runpy.run_module("rumpbundle", run_name="__main__")
"""


def run(place: Path, *words: str, linux: bool) -> str:
    """Run the command line in *place* with all that Linux offers, or without; return its standard output."""
    program = ["-m", "rumpbundle"] if linux else ["-c", WITHOUT]
    env = os.environ | {"PYTHONPATH": str(kernels.ROOT)}
    done = subprocess.run(
        [sys.executable, *program, *words], cwd=place, env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> dict[bool, Path]:
    """All formats, made with what Linux offers and without."""
    made = {}
    for linux in (True, False):
        place = made[linux] = tmp_path_factory.mktemp("linux" if linux else "macos")
        shutil.copyfile(kernels.build("multiboot"), place / "app.bin")
        (place / "site").mkdir()
        (place / "site" / "large").write_bytes(bytes(range(256)) * 4096)
        run(place, "build", "app.bin", "--module", "site/large", "-f", ",".join(FORMATS), "--checksums", linux=linux)
    return made


def test_every_format_has_the_same_bytes(built):
    sums, others = ((built[linux] / "SHA256SUMS").read_text() for linux in (True, False))
    assert len(sums.splitlines()) >= len(FORMATS)
    assert sums == others


@pytest.mark.parametrize(
    "words",
    [
        "inspect app.vmdk",
        "ls app.qcow2 /boot",
        "cat app.vhdx /rumpbundle.json",
        "verify app.ova app.vdi",
        "check app.bin",
        "convert app.qcow2 -f vhdx -o again.vhdx",
        "reconfig app.iso --cmdline new -o new.iso",
        "volume site -o site.iso",
        "component site -o site.o",
        "formats",
        "iso app.bin --force",
        "ec2 app.bin --force --module site/large",
    ],
)
def test_every_command_does_the_same(built, words):
    assert run(built[True], *words.split(), linux=True) == run(built[False], *words.split(), linux=False)
