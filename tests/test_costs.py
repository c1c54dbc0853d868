"""What work costs, counted: modules, system calls, bytes; never seconds, which are for bench/."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import kernels

ROOT = Path(__file__).parents[1]
HEAVY = {
    *("concurrent.futures", "ctypes", "hashlib", "logging", "msgspec", "rich", "shutil", "subprocess", "tempfile"),
    *("rumpbundle.batch", "rumpbundle.component", "rumpbundle.config", "rumpbundle.finished", "rumpbundle.images"),
    *("rumpbundle.knowledge", "rumpbundle.launcher", "rumpbundle.provenance.minisign", "rumpbundle.xen"),
}
"""What a small ISO has no use for."""


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """A kernel, with GRUB's boot images made: they are, once a machine."""
    path = tmp_path_factory.mktemp("app") / "app.bin"
    path.write_bytes(kernels.build("multiboot").read_bytes())
    subprocess.run([sys.executable, "-m", "rumpbundle", "iso", path], check=True, cwd=path.parent, timeout=120)
    return path


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
