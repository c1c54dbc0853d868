"""What work costs, counted: modules, system calls, bytes; never seconds, which are for bench/."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
from support import kernels

from rumpbundle import volume
from rumpbundle.disk import tree
from rumpbundle.disk.flat import write_content

ROOT = Path(__file__).parents[1]
HEAVY = {
    *("concurrent.futures", "ctypes", "hashlib", "logging", "msgspec", "rich", "shutil", "subprocess", "tempfile"),
    *("rumpbundle.bundling.batch", "rumpbundle.guests.rumprun.component", "rumpbundle.config", "rumpbundle.finished"),
    *("rumpbundle.images", "rumpbundle.knowledge", "rumpbundle.launcher", "rumpbundle.bundling.minisign"),
    "rumpbundle.xen",
}
"""What a small ISO has no use for."""


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """A kernel, with GRUB's boot images made: they are, once a machine."""
    path = tmp_path_factory.mktemp("app") / "app.bin"
    path.write_bytes(kernels.build("multiboot").read_bytes())
    subprocess.run([sys.executable, "-m", "rumpbundle", "iso", path], check=True, cwd=path.parent, timeout=120)
    return path


@pytest.mark.usefixtures("unmeasured")
def test_a_small_iso_imports_little(app, tmp_path):
    code = (
        "import sys; from rumpbundle.cli import main; status = main(sys.argv[1:]);"
        "print(*sorted(sys.modules), file=sys.stderr); sys.exit(status)"
    )
    words = [sys.executable, "-c", code, "iso", str(app), "-o", str(tmp_path / "out.iso")]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert HEAVY & set(done.stderr.split()) == set()


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A directory of 2,000 small files."""
    top = tmp_path_factory.mktemp("many")
    for number in range(2000):
        path = top / f"d{number // 500}" / f"file{number}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"content" * 10)
    return top


def planned(kind: str, top: Path) -> volume.Volume:
    root = tree.scan(top)
    if kind == "ext2":
        return volume.ext2(root, label="x", epoch=0, free=0)[0]
    return volume.iso9660(root, label="x", epoch=0)


@pytest.mark.parametrize("kind", ["iso9660", "ext2"])
def test_a_file_of_a_big_tree_takes_little_memory(kind, many):
    planned(kind, many)  # what is made once and kept is not the tree's
    tracemalloc.start()
    try:
        planned(kind, many)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1000 * 2000


@pytest.mark.parametrize("kind", ["iso9660", "ext2"])
def test_a_small_file_is_opened_and_looked_at_once_more(kind, many, tmp_path, monkeypatch):
    calls: Counter[str] = Counter()

    def counted(name: str) -> None:
        real = getattr(os, name)

        def call(*arguments, **options):
            calls[name] += 1
            return real(*arguments, **options)

        monkeypatch.setattr(os, name, call)

    made = planned(kind, many)
    fd = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    try:
        for name in ("open", "fstat", "pread", "close", "stat", "lseek"):
            counted(name)
        write_content(made.content, fd)
    finally:
        monkeypatch.undo()
        os.close(fd)
    assert calls == {"open": 2000, "fstat": 2000, "pread": 2000, "close": 2000}


def test_an_empty_volume_of_a_tebibyte_takes_little_memory():
    tracemalloc.start()
    try:
        volume.ext2(tree.Directory.of("", []), label="x", epoch=0, size=1 << 40)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 24 << 20
