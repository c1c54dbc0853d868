"""No image makes verify, convert, diff and the picture of ``inspect`` cost more than 512 MiB and a minute of CPU."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from support import hostile
from support.hostile_containers import MAKERS, MBR

from rumpbundle.disk.layout import MIB

pytestmark = pytest.mark.usefixtures("unmeasured")

MEMORY, SECONDS, LARGEST = 512 << 20, 60, 4 << 30
"""Of all commands together: address space and CPU; and the largest file that one may write."""

ALL = """
import contextlib, io, json, sys
from rumpbundle.cli import main
told = []
for argv in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as err:
        status = main(argv)
    told.append((argv[0], status, err.getvalue()))
print(json.dumps(told))
"""
EXPECTED = {"verify": (0, 2, 5), "convert": (0, 2), "diff": (0, 1, 2), "inspect": (0, 2)}


def bounded() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST, LARGEST))


def attack(image: Path, tmp_path: Path) -> None:
    """Let all of them loose on *image*: each answers, or says in one line what is wrong and leaves nothing."""
    other = hostile.write(tmp_path / "other", {0: MBR, 2 * MIB: b"other"}, 8 * MIB)
    (tmp_path / "made").mkdir()
    commands = (
        ["verify", str(image), "--json"],
        ["convert", str(image), "-f", "vdi", "-o", str(tmp_path / "made/disk.vdi"), "-q", "--no-sync"],
        ["diff", str(image), str(other), "--json"],
        ["inspect", str(image), "--svg", str(tmp_path / "made/disk.svg"), "--json"],
    )
    done = subprocess.run(
        [sys.executable, "-c", ALL, json.dumps(commands)], stdout=subprocess.PIPE, check=True, preexec_fn=bounded
    )
    status = {}
    for name, status[name], said in json.loads(done.stdout):
        assert status[name] in EXPECTED[name], f"{name}: {status[name]}\n{said}"
        errors = [line for line in said.splitlines() if not line.startswith("warning: other is not all there")]
        assert len(errors) <= 2 or name == "inspect", f"{name}:\n{said}"
    made = {path.name for path in (tmp_path / "made").iterdir()}
    assert made == {f"disk.{suffix}" for name, suffix in (("convert", "vdi"), ("inspect", "svg")) if not status[name]}


@pytest.mark.parametrize("name", MAKERS)
def test_containers(tmp_path, name):
    attack(MAKERS[name](tmp_path), tmp_path)


# How large blocks are makes no difference to what is done with a listing.
@pytest.mark.parametrize("name", hostile.EXT2)
def test_ext2(tmp_path, name):
    attack(hostile.write(tmp_path / "image", *hostile.EXT2[name](4096)), tmp_path)


@pytest.mark.parametrize("name", hostile.FAT)
def test_fat(tmp_path, name):
    attack(hostile.write(tmp_path / "image", *hostile.fat(16, hostile.FAT[name], 16)), tmp_path)


def test_fat_with_a_long_chain(tmp_path):
    attack(hostile.write(tmp_path / "image", *hostile.fat_long_chain()), tmp_path)


@pytest.mark.parametrize("name", hostile.ISO)
def test_iso(tmp_path, name):
    attack(hostile.write(tmp_path / "image", *hostile.ISO[name]()), tmp_path)
