"""The page with files and links that nobody would choose, and those that change under its hands."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from support import examples, linux
from support.browser import Page

pytestmark = [pytest.mark.browser, pytest.mark.boot]

NAMES = (
    "__proto__", "constructor", "toString", "-x", "a b", "x:y", "%2e%2e", "<b>bold<\u2044b>", "\u202egnp.exe",
    "\x1b[31mred", "two\nlines", "tab\there", "'\"`$(touch x)", "é", "e\u0301", "😀", "n" * 255, "CON", ".hidden",
    "~",
)  # fmt: skip


def data_directory(top: Path) -> Path:
    """Return a directory of files and directories with all names."""
    for name in NAMES:
        (top / "files").mkdir(parents=True, exist_ok=True)
        (top / "files" / name).write_text(f"the file {name}")
        (top / "directories" / name / name).mkdir(parents=True)
        (top / "directories" / name / name / name).write_text(f"below {name}")
    return top


def digests(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()}


def test_names_in_a_data_directory(page, command_line, tmp_path):
    top = data_directory(tmp_path / "data")
    (top / "large").write_bytes(os.urandom(16) * 200_001)
    page.choose("kernel", linux.kernel())
    page.choose("data", top)
    page.tick("iso")
    results = page.bundle()
    ran = command_line("build", linux.kernel(), "-f", "iso", "-o", "out", f"--data={top}:/data", cwd=tmp_path)
    assert (ran.returncode, page.text("error")) == (0, "")
    assert {each["name"]: each["digest"] for each in results} == digests(tmp_path / "out")


def bundled(page: Page) -> list[dict]:
    page.tick("iso")
    return page.bundle()


@pytest.mark.parametrize("change", ["longer", "removed"])
def test_a_kernel_that_changes_after_it_was_chosen(page, tmp_path, change):
    kernel = tmp_path / "kernel.bin"
    kernel.write_bytes(examples.hello().read_bytes())
    os.utime(kernel, (1_000_000_000, 1_000_000_000))
    page.choose("kernel", kernel)
    (before,) = bundled(page)
    if change == "removed":
        kernel.unlink()
    else:
        kernel.write_bytes(examples.hello().read_bytes() + b"more")
    assert bundled(page) == []
    assert "kernel.bin" in page.text("error")
    assert "choose kernel.bin again" in page.text("error")
    # It has survived that.
    kernel.write_bytes(examples.hello().read_bytes())
    page.js("document.getElementById('kernel').value = ''")
    page.choose("kernel", kernel)
    (after,) = bundled(page)
    assert (after["digest"], page.text("error")) == (before["digest"], "")
