"""The unit tests of the core under Pyodide in Node.js: a Python of 32 bits, without threads, programs or links."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import msgspec
from support.browser import ROOT, built_page
from support.tools import require

SUBSET = (
    "test_units.py", "test_layout.py", "test_config.py", "test_digest.py", "test_cpio.py", "test_ext2.py",
    "test_iso9660.py", "test_hybrid.py", "test_knowledge.py", "test_dataclass.py", "test_manifest.py",
    "test_component.py", "test_gzip_member.py", "kernels/test_elf.py", "kernels/test_multiboot.py",
    "kernels/test_notes.py", "kernels/test_packed.py", "kernels/test_pe.py", "kernels/test_linux.py",
    "kernels/test_foreign.py", "guests", "images/test_partitions.py", "images/test_problems.py",
    "test_volume.py", "test_inspect.py", "test_check.py", "test_ebs.py",
    "formats/test_azure.py", "formats/test_ec2.py::test_the_manifest_has_exactly_the_promised_keys",
    *(f"finished/test_verify.py::test_{name}" for name in (
        "a_whole_image_is_whole", "all_that_is_changed_is_told_with_its_place",
        "what_no_program_is_needed_for_is_whole_until_it_is_changed")),
)  # fmt: skip


def test_the_core_works_in_another_python():
    require("node")
    page = built_page()
    sys.path.insert(0, str(ROOT / "web"))
    try:
        import build
    finally:
        sys.path.remove(str(ROOT / "web"))
    (hypothesis,) = build.fetch_wheels("wheels-test.txt")
    site = Path(msgspec.__file__).parents[1]
    tests = [f"/repository/tests/{name}" for name in SUBSET]
    core = ROOT / "tests" / "web" / "core.mjs"
    ran = subprocess.run(
        ["node", core, page, ROOT, site, hypothesis, "-q", "--tb=short", "-m", "not boot", *tests],
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-2000:]
    passed = re.search(r"(\d+) passed", ran.stdout)
    assert passed is not None
    assert int(passed[1]) > 580, ran.stdout[-300:]
