"""The examples: each README's commands, run as they stand there, in a copy of its directory."""

from __future__ import annotations

import shutil
import urllib.request
from pathlib import Path

import pytest
from support.debian import debian_file, linux_image
from support.examples import hello
from support.kernels import ROOT
from support.pages import blocks, run_blocks
from support.tools import free_port, require

import rumpbundle

EXAMPLES = ROOT / "examples"
pytestmark = pytest.mark.boot


def copied(tmp_path: Path) -> Path:
    """Return a copy of the examples with what their READMEs say is from elsewhere."""
    for program in ("qemu-system-x86_64", "qemu-img", "cpio"):
        require(program)
    app = hello()
    there = tmp_path / "examples"
    shutil.copytree(EXAMPLES, there, ignore=shutil.ignore_patterns(".lock", "*.bin", "*.iso"))
    for name in ("machines", "ci"):
        shutil.copyfile(app, there / name / "app.bin")
    for name in ("appliance", "data"):
        kernel = linux_image("cloud-amd64")
        shutil.copyfile(kernel, there / name / "vmlinuz")
        shutil.copyfile(debian_file("busybox-static", "bin/busybox"), there / name / "busybox")
        (there / name / "modules").symlink_to(kernel.parents[1] / "lib" / "modules")
    return there


def test_there_are_six():
    assert len([path for path in EXAMPLES.iterdir() if (path / "README.md").exists()]) >= 6


@pytest.mark.parametrize("name", sorted(path.parent.name for path in EXAMPLES.glob("*/README.md")))
def test_an_example_does_what_it_says(tmp_path, name):
    place = copied(tmp_path) / name
    found = blocks((place / "README.md").read_text("utf-8"))
    assert found
    run_blocks(found, place)
    if name == "appliance":
        port = free_port()
        with rumpbundle.run(place / "web.qcow2", accel="tcg", memory=256 << 20, publish=[f"{port}:80"]) as guest:
            guest.expect("serving Welcome", timeout=120)
            page = urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20).read()
        assert page == b"Welcome to the appliance\n"
