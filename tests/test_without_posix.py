"""What runs where there is no POSIX, as in a browser: no threads, no programs, no locks, no calls of Unix alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import kernels

FORMATS = ("iso", "raw", "vdi", "vhd:fixed", "azure", "ec2", "gce", "ova", "vmdk:stream")
WITHOUT = """
import os, runpy, sys, threading

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in ("subprocess", "fcntl", "ctypes", "mmap", "termios", "pty", "grp", "pwd", "resource"):
            raise ModuleNotFoundError(f"no module {name} here", name=name)

def start(self):
    raise RuntimeError("can't start new thread")

for name in ("copy_file_range", "sendfile", "SEEK_HOLE", "SEEK_DATA", "O_TMPFILE", "link", "posix_fallocate",
             "posix_fadvise", "fork", "preadv", "pwritev", "splice"):
    if hasattr(os, name):
        delattr(os, name)
threading.Thread.start = start
for name in ("subprocess", "fcntl", "ctypes"):
    assert name not in sys.modules, name
sys.meta_path.insert(0, Missing())
sys.argv[0] = "rumpbundle"
runpy.run_module("rumpbundle", run_name="__main__")
"""


def run(*words: str | Path, posix: bool) -> str:
    """Run the command line with all that POSIX offers, or without; return its standard output."""
    program = ["-m", "rumpbundle"] if posix else ["-c", WITHOUT]
    ran = subprocess.run([sys.executable, *program, *map(str, words)], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kernel ``app.bin`` and a directory ``data``."""
    place = tmp_path_factory.mktemp("inputs")
    shutil.copy(kernels.build("multiboot"), place / "app.bin")
    (place / "data" / "below").mkdir(parents=True)
    (place / "data" / "small").write_bytes(b"small")
    (place / "data" / "below" / "large").write_bytes(bytes(range(256)) * 4096)
    return place


@pytest.fixture(scope="module")
def built(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same bundle, made with POSIX and without."""
    place = tmp_path_factory.mktemp("built")
    made = {name: place / name for name in ("with", "without")}
    words = (inputs / "app.bin", f"--formats={','.join(FORMATS)}", f"--module={inputs / 'data' / 'below' / 'large'}")
    for name, directory in made.items():
        run("build", *words, "--checksums", f"--output={directory}", posix=name == "with")
    return made


def test_every_format_has_the_same_bytes(built):
    sums, others = ((directory / "SHA256SUMS").read_text() for directory in built.values())
    assert len(sums.splitlines()) >= len(FORMATS)
    assert sums == others


def test_an_output_takes_the_place_of_another_only_if_asked(built, inputs):
    with pytest.raises(AssertionError, match="already exists"):
        run("iso", inputs / "app.bin", "-o", built["without"] / "app.iso", posix=False)
    run("azure", inputs / "app.bin", "--force", "-o", built["without"] / "app.azure.vhd", posix=False)
    run("ec2", inputs / "app.bin", "--force", "-o", built["without"] / "app.ec2", posix=False)
    assert not [name for name in os.listdir(built["without"]) if name.startswith(".")]


def test_what_looks_into_images_needs_none_of_it(built):
    for image in ("app.iso", "app.vdi", "app.fixed.vhd", "app.stream.vmdk", "app.ova", "app.azure.vhd"):
        path = built["with"] / image
        for words in (("inspect", path), ("verify", path), ("ls", path), ("cat", path, "/rumpbundle.json")):
            assert run(*words, posix=False) == run(*words, posix=True), words


def test_a_directory_becomes_a_volume_and_a_component(inputs, tmp_path):
    data = inputs / "data"
    for name, words in {"iso9660": ("-t", "iso9660"), "ext2": ("-t", "ext2")}.items():
        for posix in (True, False):
            run("volume", data, *words, "-o", tmp_path / f"{name}{posix}", posix=posix)
        assert (tmp_path / f"{name}True").read_bytes() == (tmp_path / f"{name}False").read_bytes()
    for posix in (True, False):
        run("component", data, "-o", tmp_path / f"{posix}.o", posix=posix)
    assert (tmp_path / "True.o").read_bytes() == (tmp_path / "False.o").read_bytes()


def test_a_kernel_is_judged(inputs):
    app = inputs / "app.bin"
    for words in (("inspect", "--json", app), ("check", app, "--target", "virtualbox")):
        assert run(*words, posix=False) == run(*words, posix=True)
