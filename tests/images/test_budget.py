"""No image, however small or sparse, makes a listing cost more than 512 MiB and ten seconds."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from support import hostile

pytestmark = pytest.mark.usefixtures("unmeasured")

SECONDS = 10
MEMORY = 512 << 20


def bounded() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))


CHECK = """
import sys
from rumpbundle.images.detect import open_disk
from rumpbundle.images.volumes import problems
with open_disk(sys.argv[1]) as disk:
    print(sum(1 for _ in problems(disk)))
"""


def look(image: Path, pieces: hostile.Pieces, size: int) -> None:
    """Let every command that reads file systems loose on it; it answers, or says in one line what is wrong."""
    hostile.write(image, pieces, size)
    module = [sys.executable, "-m", "rumpbundle"]
    for argv in (
        [*module, "ls", str(image), "--json"],
        [*module, "inspect", str(image), "--json"],
        [*module, "cat", str(image), "/file"],
        [sys.executable, "-c", CHECK, str(image)],
    ):
        with open(image.with_name("out"), "wb") as out:
            done = subprocess.run(
                argv,
                stdout=out,
                stderr=subprocess.PIPE,
                text=True,
                preexec_fn=bounded,
            )
        assert done.returncode in (0, 2), f"{argv[2:]}: {done.returncode}\n{done.stderr[-500:]}"
        assert done.returncode == 0 or len(done.stderr.splitlines()) <= 2, done.stderr


_SHAPES = [(name, block) for name in hostile.EXT2 for block in (1024, 4096, 65536)]


# "many entries" takes its seconds, and the size of blocks plays no part in it.
@pytest.mark.parametrize(("name", "block"), [s for s in _SHAPES if s[0] != "many entries" or s[1] == 4096])
def test_ext2(tmp_path, name, block):
    look(tmp_path / "image", *hostile.EXT2[name](block))


@pytest.mark.parametrize("bits", [12, 16, 32])
@pytest.mark.parametrize("name", hostile.FAT)
def test_fat(tmp_path, name, bits):
    look(tmp_path / "image", *hostile.fat(bits, hostile.FAT[name], 16))


def test_fat_with_a_long_chain(tmp_path):
    look(tmp_path / "image", *hostile.fat_long_chain())


@pytest.mark.parametrize("name", hostile.ISO)
def test_iso(tmp_path, name):
    look(tmp_path / "image", *hostile.ISO[name]())
