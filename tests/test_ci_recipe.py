"""docs/ci.md's job: GitHub understands it, and its commands do what the page says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest
from support.examples import hello
from support.kernels import ROOT
from support.tools import output_of, require

(JOB,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "ci.md").read_text("utf-8"), re.DOTALL)
STEPS = re.findall(r"- run: (rumpbundle .*)", JOB)


def test_github_understands_it(tmp_path):
    (tmp_path / "image.yml").write_text(JOB)
    schema = "vendor.github-workflows"
    output_of(sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(tmp_path / "image.yml"))


@pytest.mark.boot
def test_its_commands_work(tmp_path):
    for program in ("qemu-system-x86_64", "qemu-img"):
        require(program)
    shutil.copyfile(hello(), tmp_path / "app.bin")
    assert len(STEPS) == 3
    for step in STEPS:
        command = step.replace("rumpbundle", f"'{sys.executable}' -m rumpbundle", 1)
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, shell=True, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{step}\n{done.stderr}"
    subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=tmp_path / "image", check=True)
    assert "Hello from a unikernel" in (tmp_path / "console.txt").read_text()
