"""What the page's Python makes before anybody asks for an image."""

from __future__ import annotations

import subprocess
import sys

from support.browser import ROOT

SCRIPT = """
import hashlib, os, sys, types
sys.modules["sha256"] = types.SimpleNamespace(sha256=hashlib.sha256)
sys.path.insert(0, sys.argv[1])
import page
print(page.warm(), os.getcwd())
print("rumpbundle.disk.flat" in sys.modules)
"""


def test_the_image_that_warms_it_up_is_made(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, ROOT / "web"], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert (ran.stdout.splitlines(), ran.stderr) == (
        ["0 /", "True"],
        "",
    )
    assert not list(tmp_path.iterdir())
