"""The same inputs give the same bytes, for every format: whoever builds, where, and when."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from support import everything, synthetic
from support.tools import as_somebody, require

from rumpbundle import formats

CONFIG = '{"cmdline": "app -x", "env": {"B": "2", "A": "1"}}'
NAMES = ["b", "a", "Zebra", "déjà", "10", "9", *(f"file{n}" for n in range(40))]


def make_inputs(directory: Path, names: list[str], date: int) -> None:
    """Make the inputs, files in the order of *names* and of *date*; nothing else differs."""
    directory.mkdir()
    (directory / "app.bin").write_bytes(synthetic.rumprun())
    (directory / "cfg.json").write_text(CONFIG)
    for tree in ("data", "volume"):
        for parent in (directory / tree, directory / tree / "sub"):
            parent.mkdir()
            for name in names:
                (parent / name).write_text(f"content of {name}")
        (directory / tree / "link").symlink_to("sub/a")
    for path in [directory, *directory.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)
        os.utime(path, (date, date), follow_symlinks=False)


def build(
    inputs: Path, outputs: Path, *, wrapper: list[str], umask: int, cwd: Path, **environment: str
) -> dict[str, str]:
    """Build every format in *outputs* and return the digest of every file written, by its path."""
    search = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    base = {"PATH": os.environ["PATH"], "PYTHONPATH": search, "PYTHONDONTWRITEBYTECODE": "1"}
    argv = [*wrapper, sys.executable, everything.__file__, str(inputs), str(outputs)]
    done = subprocess.run(
        argv,
        env=base | environment,
        umask=umask,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout.decode("utf-8", "replace")
    return {str(path.relative_to(outputs)): digest_of(path) for path in outputs.rglob("*") if path.is_file()}


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.fixture(scope="module")
def builds(tmp_path_factory):
    """Build everything twice, with everything different that must not matter."""
    here = tmp_path_factory.mktemp("here")
    make_inputs(here / "inputs", NAMES, 1_000_000_000)
    (here / "outputs").mkdir()
    first = build(
        *(here / "inputs", here / "outputs"),
        wrapper=[],
        umask=0o022,
        cwd=here,
        HOME=str(here),
        TZ="UTC",
        LC_ALL="C.UTF-8",
        PYTHONHASHSEED="1",
    )
    with tempfile.TemporaryDirectory(prefix="rumpbundle-", dir="/dev/shm") as shm:
        there = Path(shm)
        there.chmod(0o755)
        make_inputs(there / "elsewhere with blanks", NAMES[::-1], 1_700_000_001)
        (there / "out").mkdir()
        wrapper = [require("taskset"), "-c", str(min(os.sched_getaffinity(0)))]
        if os.getuid() == 0:
            shutil.chown(there / "out", 65534)
        second = build(
            *(there / "elsewhere with blanks", there / "out"),
            wrapper=[*wrapper, *as_somebody(), require("faketime"), "-f", "+366d"],
            umask=0o077,
            cwd=Path("/"),
            HOME="/nonexistent",
            TMPDIR=str(there / "out"),
            TZ="Asia/Kathmandu",
            LC_ALL="C",
            PYTHONHASHSEED="2",
        )
    return first, second


@pytest.mark.parametrize("format", formats.names())
def test_two_builds_differ_in_no_byte(builds, format):
    first, second = (
        {name: digest for name, digest in build.items() if name.startswith(f"{format}-")} for build in builds
    )
    assert first
    assert first == second


def test_nothing_is_left_behind(builds):
    first, second = builds
    assert set(first) == set(second)
