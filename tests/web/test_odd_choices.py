"""The page with choices that get into each other's way, and what it says of them."""

from __future__ import annotations

import hashlib
import importlib.util

import pytest
from support import examples, linux
from support.browser import ROOT


@pytest.mark.parametrize("name", ["data.d", "2", "cfg.json", "rumpbundle.toml"])
@pytest.mark.parametrize("what", ["kernel", "module"])
@pytest.mark.browser
@pytest.mark.boot
def test_a_name_that_the_page_uses_itself(page, command_line, tmp_path, name, what):
    kernel = tmp_path / (name if what == "kernel" else "vmlinuz")
    kernel.write_bytes(linux.kernel().read_bytes())
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    modules = [tmp_path / "one" / "m", tmp_path / "other" / "m", tmp_path / "other" / name]
    for each in modules:
        each.write_text(f"module {each}")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "file").write_text("data")
    page.choose("kernel", kernel)
    page.choose("modules", *(modules if what == "module" else modules[:2]))
    page.choose("data", tmp_path / "site")
    page.type("config", '{"hostname": "web1"}')
    (tmp_path / "given.json").write_text('{"hostname": "web1"}')
    page.tick("iso")
    results = page.bundle()
    words = [f"--module={each}" for each in (modules if what == "module" else modules[:2])]
    words += ["--data=site:/data", "--config=given.json"]
    ran = command_line("build", f"./{kernel.name}", "-f", "iso", "-o", "out", *words, cwd=tmp_path)
    assert (ran.returncode, page.text("error")) == (0, ""), ran.stderr
    made = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "out").iterdir()}
    assert {each["name"]: each["digest"] for each in results} == made


@pytest.mark.browser
@pytest.mark.boot
def test_what_is_said_of_an_image_is_no_state_of_the_page(page, tmp_path):
    page.choose("kernel", examples.hello())
    page.tick("iso")
    assert page.bundle()
    (tmp_path / "broken.iso").write_bytes(b"no image")
    page.choose("image", tmp_path / "broken.iso")
    page.wait(lambda: page.text("look-error"), "nothing was told")
    page.wait(lambda: page.js("return report.ariaBusy") == "false", "it is not looked into")
    assert page.text("status") == ""


@pytest.mark.browser
@pytest.mark.boot
def test_a_link_says_all_of_the_recipe(page):
    page.open("#config=%7B%22nett%22%3A1%7D&formats=iso")
    page.wait(lambda: "did you mean" in page.text("config-state"), "the link's configuration was not looked at")
    page.type("cmdline", "old words")
    page.js("location.hash = '#formats=raw'")
    page.wait(lambda: page.js("return cmdline.value") == "", "the words of before are in the way")
    assert page.js("return [config.value, mount.value, firmware.value]") == ["", "/data", "both"]
    page.type("cmdline", "kept")
    page.js("location.hash = '#machine'")
    assert page.js("return new Promise(done => setTimeout(() => done(cmdline.value), 300))") == "kept"


DROP = """
const entry = (name) => ({ isFile: true, name, file: (done) => done(new File([name], name)) });
const directory = (name, ...inside) => ({ isDirectory: true, name, createReader: () => {
  const parts = [inside, []];
  return { readEntries: (done) => done(parts.shift()) };
} });
const dropped = arguments[0] ? [directory("one", entry("same")), directory("two", entry("same"))]
  : [directory("one", entry("same"), entry("same"))];
const event = new DragEvent("drop", { bubbles: true, cancelable: true });
const items = dropped.map((each) => ({ webkitGetAsEntry: () => each }));
Object.defineProperty(event, "dataTransfer", { value: { files: [], items } });
document.querySelector("[data-into=data]").dispatchEvent(event);
"""


@pytest.mark.browser
@pytest.mark.boot
def test_files_of_one_name_in_the_data(page):
    page.js(DROP, True)
    page.wait(lambda: page.text("data-facts").startswith("2 files"), "they were not taken")
    page.choose("kernel", linux.kernel())
    page.tick("iso")
    assert page.bundle()
    page.js(DROP, False)
    page.wait(lambda: "same: two files have this name" in page.text("error"), "nothing was told")
    assert page.text("data-facts") == ""


@pytest.mark.browser
@pytest.mark.boot
def test_a_text_that_is_dropped_is_no_kernel(page):
    page.choose("kernel", examples.hello())
    page.js(
        "const data = new DataTransfer(); data.setData('text/plain', 'words');"
        "const event = new DragEvent('drop', { bubbles: true, cancelable: true, dataTransfer: data });"
        "document.querySelector('[data-into=kernel]').dispatchEvent(event)"
    )
    assert page.js("return document.getElementById('kernel').files.length") == 1
    assert not page.js("return document.getElementById('bundle').disabled")


@pytest.mark.browser
@pytest.mark.boot
def test_an_image_that_changed_is_told_where_it_boots(page, tmp_path, command_line):
    assert command_line("iso", examples.hello(), "-o", "a.iso", cwd=tmp_path).returncode == 0
    page.choose("image", tmp_path / "a.iso")
    page.wait(lambda: page.js("return report.ariaBusy") == "false", "it is not looked into")
    (tmp_path / "a.iso").unlink()
    page.click("boot-image")
    page.wait(lambda: "It cannot be started" in page.text("boot-note"), "nothing was told", 30)
    assert (page.text("machine-state"), page.text("error")) == ("stopped", "")


def test_the_page_is_not_built_over_what_is_something_else(tmp_path):
    spec = importlib.util.spec_from_file_location("build", ROOT / "web" / "build.py")
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    (tmp_path / "letters").write_text("mine")
    with pytest.raises(SystemExit, match="so it is not replaced"):
        build.main(tmp_path)
    assert (tmp_path / "letters").read_text() == "mine"
    (tmp_path / "sw.js").write_bytes((ROOT / "web" / "sw.js").read_bytes())
    build.check_ours(tmp_path)
    build.check_ours(tmp_path / "new")
