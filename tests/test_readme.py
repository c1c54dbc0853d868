"""The README's console blocks, run as a reader would, give the output it shows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.examples import hello

import rumpbundle

ROOT = Path(rumpbundle.__file__).parents[1]
BLOCKS = re.findall(r"```console\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)


def pattern(shown: str) -> str:
    """Return a regular expression for *shown*, in which ``…`` stands for any text, or any lines if alone on one."""
    lines = [".*" if line == "…" else re.escape(line).replace("…", "[^\n]*") for line in shown.splitlines()]
    return "\n?".join(lines) + r"\s*"


@pytest.mark.boot
@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[0][2:40])
def test_the_readme_shows_true_output(block, tmp_path):
    shutil.copyfile(hello(), tmp_path / "app.bin")
    bin = tmp_path / "path"
    bin.mkdir()
    (bin / "rumpbundle").write_text(f'#!/bin/sh\nexec {sys.executable} -m rumpbundle "$@"\n')
    (bin / "rumpbundle").chmod(0o755)
    env = os.environ | {"PATH": f"{bin}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, shown = step.partition("\n")
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env=env, timeout=120, text=True, stdin=subprocess.DEVNULL,
            capture_output=True,
        )  # fmt: skip
        assert re.fullmatch(pattern(shown), done.stdout, re.DOTALL), f"$ {command}\n{done.stdout}{done.stderr}"
