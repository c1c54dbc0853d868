"""The same bytes make the same ext2, wherever the host's file has holes and whatever locale reads its name."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rumpbundle.disk import tree
from rumpbundle.filesystems.ext2 import Ext2Volume

MIB = 1 << 20


def written(path: Path, size: int, data: list[tuple[int, int]], *, holes: bool) -> None:
    """Write *size* bytes that are zero but at *data*, ``(start, length)``; the zeros as holes or as zeros."""
    with open(path, "wb") as file:
        if not holes:
            file.write(bytes(size))
        for start, length in data:
            file.seek(start)
            file.write(b"\xa5" * max(min(length, size - start), 0))
        file.truncate(size)


def digest(directory: Path) -> tuple[str, int]:
    volume = Ext2Volume(tree.scan(directory), label="x", epoch=0)
    return volume.content().digest(), volume.size


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.one_of(st.integers(MIB - 5000, 3 * MIB), st.sampled_from([2 * MIB + 4196, MIB + 1, 2 * MIB, MIB])),
    data=st.lists(
        st.tuples(
            st.one_of(st.integers(0, 3 * MIB), st.integers(0, 700).map(lambda n: n * 4096)),
            st.one_of(st.sampled_from([1, 512, 4096, 65536, MIB]), st.integers(1, 2 * MIB)),
        ),
        max_size=5,
    ),
)
@example(size=2 * MIB + 4196, data=[(0, 2 * MIB + 4096)])
@example(size=MIB + 100, data=[(0, MIB)])
def test_holes_do_not_matter(tmp_path, size, data):
    found = set()
    with tempfile.TemporaryDirectory(prefix="rumpbundle-", dir="/dev/shm") as shm:
        for directory in (tmp_path / "top", Path(shm) / "top"):
            directory.mkdir(exist_ok=True)
            directory.chmod(0o755)
            for holes in (False, True):
                written(directory / "file", size, data, holes=holes)
                (directory / "file").chmod(0o644)
                found.add(digest(directory))
    assert len(found) == 1


SCRIPT = """
import sys
from rumpbundle.disk import tree
from rumpbundle.filesystems import cpio, ext2, iso9660
from rumpbundle.volume import iso9660 as iso
top = tree.scan(sys.argv[1])
print(ext2.Ext2Volume(top, label="x", epoch=0).content().digest(), iso(top, label="x", epoch=0).content.digest())
"""


@pytest.mark.parametrize("utf8", ["0", "1"])
def test_locales_do_not_matter(tmp_path, utf8):
    """Without UTF-8, names come to Python with an escape a byte, and are as long as their bytes."""
    top = tmp_path / "top"
    top.mkdir()
    for name in ("ünïcode.txt", "ünïcode, too.txt", "日本語"):
        (top / name).write_text(name)
    (top / os.fsdecode(b"latin-1 \xe9")).write_text("x")
    (top / "link").symlink_to("日本語")
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": utf8, "PYTHONCOERCECLOCALE": "0"}
    said = subprocess.check_output([sys.executable, "-c", SCRIPT, str(top)], env=environment, text=True)
    assert said == subprocess.check_output([sys.executable, "-c", SCRIPT, str(top)], text=True)


def test_a_link_to_the_directory_is_the_directory(tmp_path):
    (tmp_path / "top").mkdir(0o750)
    (tmp_path / "link").symlink_to("top")
    assert tree.scan(tmp_path / "link").mode == tree.scan(tmp_path / "top").mode == 0o750
