"""The page with files and links that nobody would choose, and those that change under its hands."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
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


def test_names_that_act_on_the_text_around_them(page, command_line, tmp_path):
    kernel = tmp_path / "\u202egnp.exe\x1b[31m<b>x'%\\.bin"
    kernel.write_bytes(examples.hello().read_bytes())
    page.choose("kernel", kernel)
    page.wait(lambda: "ELF32" in page.text("kernel-facts"), "nothing is known of the kernel")
    (iso,) = bundled(page)
    assert iso["name"] == r"\u202egnp.exe\x1b[31m<b>x'%\.iso"
    shown = page.js("return document.body.innerText")
    assert not re.search(r"[\u202a-\u202e\x1b]", shown)
    # The line to paste makes the same file.
    words = page.text("command").replace("rumpbundle", f"{sys.executable} -P -m rumpbundle", 1)
    env = command_line.env
    subprocess.run(["sh", "-ec", words], cwd=tmp_path, env=env, check=True, capture_output=True, timeout=60)
    (made,) = tmp_path.glob("*.iso")
    assert hashlib.sha256(made.read_bytes()).hexdigest() == iso["digest"]


def test_an_image_is_no_kernel_and_a_kernel_no_image(page, command_line, tmp_path):
    assert command_line("iso", examples.hello(), "-o", "a.iso", cwd=tmp_path).returncode == 0
    page.choose("kernel", tmp_path / "a.iso")
    page.wait(lambda: page.text("error"), "nothing was told")
    said = command_line("iso", "a.iso", "-o", "b.iso", cwd=tmp_path).stderr
    assert page.text("error") == said.strip()
    page.choose("image", examples.hello())
    page.wait(lambda: page.js("return report.ariaBusy") == "false", "it is not looked into")
    assert "target" in page.text("report")
    assert "error" not in page.text("report")
    assert page.text("look-error") == ""


LINKS = (
    "#cmdline=<img src=x onerror=alert(1)>%00%E0%A4%A&toString=1&formats=__proto__,qcow2,,%00,ISO&firmware=none",
    "#%" + "a" * 100_000,
)


def test_links(page):
    for link in LINKS:
        page.open(link)
        assert page.js("return document.getElementById('firmware').value") == "both"
        assert page.js("return document.querySelectorAll('#formats input:checked').length") <= 1
        page.choose("kernel", examples.hello())
        page.type("cmdline", page.js("return document.getElementById('cmdline').value").replace("\0", ""))
        (iso,) = bundled(page)
        assert (iso["name"], page.text("error")) == ("hello.iso", "")
        assert page.js("return document.querySelectorAll('img[onerror]').length") == 0


def test_names_for_the_machine(page, command_line, tmp_path):
    (tmp_path / "hello.bin").write_bytes(examples.hello().read_bytes())
    page.choose("kernel", tmp_path / "hello.bin")
    for number, name in enumerate(("../../x", "a/b", "..", "-x", "x\u202ey", "n" * 300)):
        page.type("name", name)
        results = bundled(page)
        ran = command_line("build", "hello.bin", "-f", "iso", "-o", f"out{number}", f"--name={name}", cwd=tmp_path)
        assert (ran.returncode == 0) == bool(results), (ran.stderr, page.text("error"))
        told = [line for line in ran.stderr.replace(f"out{number}/", "").splitlines() if re.match("error|hint", line)]
        assert page.text("error").splitlines() == told


def test_another_kernel_while_one_is_bundled(page, tmp_path):
    for name, kernel in (("first.bin", linux.kernel()), ("second.bin", examples.hello())):
        (tmp_path / name).write_bytes(kernel.read_bytes())
    page.choose("kernel", tmp_path / "first.bin")
    page.tick("iso", "ova")
    page.click("bundle")
    page.choose("kernel", tmp_path / "second.bin")
    page.wait(lambda: "ELF32" in page.text("kernel-facts"), "nothing is known of the kernel")
    assert page.results() == []
    (iso,) = bundled(page)
    assert iso["name"] == "second.iso"
    # Twice in a row, the second asked for before the first is done.
    page.js("for (let n = 0; n < 2; n++) document.getElementById('form').requestSubmit()")
    page.wait(lambda: page.text("status") == "", "it does not end")
    assert [each["digest"] for each in page.results()] == [iso["digest"]]


DROP = """
const [target, name, directory] = arguments;
const data = new DataTransfer();
data.items.add(new File(["x"], name));
const event = new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: data });
if (directory) {
  const entry = { isDirectory: true, name };
  const value = { files: data.files, items: [{ webkitGetAsEntry: () => entry }] };
  Object.defineProperty(event, "dataTransfer", { value });
}
document.querySelector(target).dispatchEvent(event);
return event.defaultPrevented;
"""


def test_what_is_dropped(page):
    assert page.js(DROP, "h1", "beside.bin", False), "the browser would open it in the place of the page"
    assert page.js(DROP, "[data-into=kernel]", "<b>d", True)
    page.wait(lambda: "<b>d: is a directory" in page.text("error"), "nothing was told")
    assert page.js(DROP, "[data-into=image]", "d", True)
    page.wait(lambda: "d: is a directory" in page.text("look-error"), "nothing was told")
    assert page.js(DROP, "[data-into=kernel]", "x.bin", False)
    page.wait(lambda: "x.bin" in page.text("error"), "the kernel was not taken")
    assert page.js("return document.getElementById('kernel').files[0].name") == "x.bin"


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
    page.choose("kernel", kernel)
    (after,) = bundled(page)
    assert (after["digest"], page.text("error")) == (before["digest"], "")
