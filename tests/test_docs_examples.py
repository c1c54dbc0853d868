"""The documentation's Python, run as it stands there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import kernels, linux
from support.pages import put_kernel, python
from support.tools import free_port, require

EXAMPLES = {name: code for name, code in python().items() if name != "fleet-0"}
"""All Python of the pages; what is for a cluster, tests/project/test_fleet_page.py runs."""
FIXTURE = "launch-1"


def run(directory: Path, *words: str) -> str:
    """Run Python with *words* in *directory* and return what it printed."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(kernels.ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.boot
@pytest.mark.parametrize("name", sorted(EXAMPLES.keys() - {FIXTURE}))
def test_examples(tmp_path: Path, name: str):
    require("qemu-system-x86_64")
    put_kernel(name.rpartition("-")[0], tmp_path / "app.bin")
    (tmp_path / "site").mkdir()
    code = EXAMPLES[name].replace("8080:", f"{free_port()}:")
    said = run(tmp_path, "-c", code if "import rumpbundle" in code else f"import rumpbundle\n{code}")
    for shown in re.findall(r"print\(.*\)  # (.*)", code):
        assert f"{shown}\n" in said
    for written in re.findall(r'output="(.*?)"', code):
        assert (tmp_path / written).exists()


SERVER = """
ip link set lo up; ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0
mkdir /www; echo Welcome > /www/index.html
httpd -f -vv -h /www 2>&1 | while read line; do case $line in *response:200*) echo 'GET / 200' ;; esac; done &
until wget -q -O /dev/null http://10.0.2.15/; do sleep 0.1; done
echo listening
wait
"""


@pytest.mark.boot
def test_the_pytest_fixture(tmp_path: Path):
    """With a Linux in the place of the page's ``httpd.bin``."""
    require("qemu-system-x86_64")
    linux.initrd(tmp_path / "initrd", SERVER, ["virtio_pci", "virtio_net"])
    shutil.copyfile(linux.kernel(), tmp_path / "vmlinuz")
    code = EXAMPLES[FIXTURE]
    modules = 'modules=(rumpbundle.ModuleFile("initrd"),)'
    port = str(free_port())
    for shown, ours in (
        ('"httpd.bin", cmdline="-p 80"', f'"vmlinuz", cmdline="console=ttyS0 quiet", {modules}'),
        ("timeout=20", "timeout=90"),
        ("8080", port),
    ):
        assert shown in code
        code = code.replace(shown, ours)
    (tmp_path / "test_web.py").write_text(code)
    assert "1 passed" in run(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir=.", "test_web.py")
