"""The page in a real browser: the command line's bytes and errors, boots, and nothing that leaves the machine."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from support import examples, kernels, linux
from support.browser import ROOT, Page, served
from support.debian import debian_file

pytestmark = [pytest.mark.browser, pytest.mark.boot]


def hello(place: Path) -> dict[str, list[Path]]:
    return {"kernel": [examples.hello()]}


def gnumach(place: Path) -> dict[str, list[Path]]:
    return {"kernel": [debian_file("gnumach-image-1.8-486", "boot/gnumach-1.8-486.gz")]}


def linux_with_initrd(place: Path) -> dict[str, list[Path]]:
    place.mkdir()
    (place / "data" / "below").mkdir(parents=True)
    (place / "data" / "small").write_text("small")
    (place / "data" / "below" / "large").write_bytes(bytes(range(256)) * 4096)
    initrd = linux.initrd(place / "initrd.cpio", "echo hello", modules=())
    return {"kernel": [linux.kernel()], "modules": [initrd], "data": [place / "data"]}


@pytest.mark.parametrize("given", [hello, gnumach, linux_with_initrd])
def test_the_bytes_are_the_command_lines(page, command_line, tmp_path, given):
    files = given(tmp_path / "given")
    page.type("cmdline", "one two=2")
    for id, paths in files.items():
        page.choose(id, *paths)
    formats = page.offered()
    assert set(formats) == {
        "azure", "ec2", "ec2:stream", "gce", "iso", "ova", "qcow2", "raw", "vdi", "vhd", "vhd:fixed", "vhdx", "vmdk",
        "vmdk:stream", "xen",
    }  # fmt: skip
    page.tick(*formats)
    results = page.bundle()
    words = ["--cmdline=one two=2", *(f"--module={path}" for path in files.get("modules", ()))]
    words += [f"--data={path}:/data" for path in files.get("data", ())]
    ran = command_line("build", *files["kernel"], f"--formats={','.join(formats)}", "-o", "out", *words, cwd=tmp_path)
    assert (ran.returncode, page.text("error")) == (0, "")
    made = {
        path.relative_to(tmp_path / "out").as_posix(): (path.stat().st_size, digest_of(path))
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    assert {each["name"]: (each["size"], each["digest"]) for each in results} == made
    # And a link saves what its digest says.
    iso = next(each for each in results if each["name"].endswith(".iso"))
    assert page.fetched_digest(iso["href"]) == iso["digest"]


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_a_link_saves_the_file(page, tmp_path):
    page.choose("kernel", examples.hello())
    page.tick("iso")
    (iso,) = page.bundle()
    page.js("document.querySelector('#results a').click()")
    path = page.downloads / "hello.iso"
    page.wait(path.exists, "nothing was saved")
    assert digest_of(path) == iso["digest"]


def test_a_kernel_of_100_megabytes(page, command_line, tmp_path):
    app = tmp_path / "large.bin"
    app.write_bytes(kernels.build("multiboot").read_bytes())
    os.truncate(app, 100_000_000)
    page.choose("kernel", app)
    page.tick("iso")
    (iso,) = page.bundle()
    assert command_line("iso", app, cwd=tmp_path).returncode == 0
    assert digest_of(tmp_path / "large.iso") == iso["digest"]


def test_the_example_boots(page):
    page.choose("kernel", examples.hello())
    page.type("cmdline", "how are you")
    page.click("boot")
    page.wait(lambda: "Goodbye." in page.text("console"), "the example said nothing")
    assert "command line: hello.bin how are you" in page.text("console")
    page.click("stop")


def test_grub_invaders_shows_its_ranks_and_takes_keys(page):
    page.choose("kernel", debian_file("grub-invaders", "boot/invaders.exec"))
    page.click("boot")
    page.wait(lambda: re.search(r"-\*-  +-\*-", page.text("screen-text")), "no ranks were drawn")
    colours = page.js(
        "const c = document.createElement('canvas'); const s = document.querySelector('#screen canvas');"
        "c.width = s.width; c.height = s.height; const x = c.getContext('2d'); x.drawImage(s, 0, 0);"
        "return new Set(new Uint32Array(x.getImageData(0, 0, c.width, c.height).data.buffer)).size"
    )
    assert colours > 2
    page.element("screen").click()
    page.element("screen").send_keys(" ")
    page.click("stop")


@pytest.mark.parametrize("kernel", ["multiboot-elf64", "efi"])
def test_a_64_bit_kernel_is_told_so_before_it_is_tried(page, kernel):
    page.choose("kernel", kernels.build(kernel))
    page.wait(lambda: "32-bit machine" in page.text("kernel-facts"), "nothing was told")
    page.click("boot")
    page.wait(lambda: "v86 is a 32-bit machine" in page.text("error"), "nothing was told")
    assert page.js("return document.getElementById('machine').hidden")


def test_a_reset_without_a_word_is_explained(page):
    page.choose("kernel", kernels.build("multiboot-triple"))
    page.click("boot")
    page.wait(lambda: "may be a 64-bit kernel" in page.text("boot-note"), "nothing was told", 30)
    assert page.text("machine-state") == "stopped"


def test_a_kernel_that_speaks_before_it_resets_is_no_64_bit_kernel(page):
    page.choose("kernel", kernels.build("multiboot"))
    page.type("cmdline", "triple")
    page.click("boot")
    page.wait(lambda: "fault of the kernel" in page.text("boot-note"), "nothing was told", 30)
    assert "end of report" in page.text("console")


def wrong(page: Page, command_line, cwd: Path, words: Sequence[str | Path]) -> None:
    """Check that the page says what the command line says, and gives no file."""
    assert page.bundle() == []
    ran = command_line("build", *words, "-o", "out", cwd=cwd)
    assert ran.returncode != 0
    said = [line for line in ran.stderr.splitlines() if re.match("error|hint", line)]
    assert page.text("error").splitlines() == said
    assert not any((cwd / "out").glob("*"))


def test_a_file_that_is_no_kernel(page, command_line, tmp_path):
    (tmp_path / "notes.txt").write_text("no kernel at all\n" * 100)
    page.choose("kernel", tmp_path / "notes.txt")
    page.wait(lambda: page.text("error"), "nothing was said")
    field = "return document.getElementById('error').closest('.field')?.querySelector('input').id"
    assert page.js(field) == "kernel"  # where one has just chosen it
    page.tick("iso", "raw")
    wrong(page, command_line, tmp_path, ["notes.txt", "--formats=iso,raw"])
    assert page.js(field) is None  # and now below the button that was pressed


def test_a_wrong_configuration_is_told_as_it_is_typed(page, command_line, tmp_path):
    text = '{\n  "hostname": "web1",\n  "nett": []\n}\n'
    (tmp_path / "cfg.json").write_text(text)
    page.choose("kernel", examples.hello())
    page.type("config", text)
    page.wait(lambda: "did you mean" in page.text("config-state"), "nothing was told")
    assert "(line 3, column 11)" in page.text("config-state")
    page.tick("iso")
    (tmp_path / "hello.bin").write_bytes(examples.hello().read_bytes())
    wrong(page, command_line, tmp_path, ["hello.bin", "--formats=iso", "--config=cfg.json"])
    page.type("config", '{"hostname": "web1"}')
    page.wait(lambda: "can be read" in page.text("config-state"), "it is still wrong")


def test_no_space(page):
    page.choose("kernel", examples.hello())
    page.type("size", "100G")
    page.tick("iso", "raw")
    assert page.bundle() == []
    assert "no space left on the output's file system" in page.text("error")


def test_hostile_names_are_text(page, tmp_path):
    name = "<img src=x onerror=alert(1)>&\"'.bin"
    kernel = tmp_path / name
    kernel.write_bytes(examples.hello().read_bytes())
    page.choose("kernel", kernel)
    page.wait(lambda: name in page.text("kernel-facts"), "the name is not shown")
    page.tick("iso")
    (iso,) = page.bundle()
    assert iso["name"].startswith("<img")
    page.js("document.querySelector('#results a').click()")
    made = page.wait(lambda: next(page.downloads.glob("*img*.iso"), None), "nothing was saved")
    page.choose("image", made)
    page.wait(lambda: name in page.text("report"), "no report")
    page.wait(lambda: name in page.text("entries"), "no entries")
    assert page.js("return document.querySelectorAll('img[onerror], #results img, #entries img').length") == 0
    assert "<script" not in page.js("return document.getElementById('report').innerHTML")


LOOKED_INTO = ("iso", "raw", "vdi", "vhd:fixed", "vmdk:stream", "ova", "qcow2", "vhdx", "vhd", "vmdk")


def test_an_image_is_looked_into(page, command_line, tmp_path):
    for format in LOOKED_INTO:
        words = ["--formats", format, "-o", format.replace(":", "-")]
        assert command_line("build", examples.hello(), *words, cwd=tmp_path).returncode == 0
        (image,) = (tmp_path / format.replace(":", "-")).iterdir()
        page.choose("image", image)
        page.wait(lambda: page.js("return report.ariaBusy") == "false", "it is not looked into")
        assert "/rumpbundle.json" in page.text("entries")
        for command in ("inspect", "check", "verify"):
            said = command_line(command, image.name, cwd=image.parent).stdout
            assert said.strip() in page.text("report"), (format, command)
        page.wait(lambda: page.js("return document.getElementById('picture').naturalWidth") > 0, "no picture")
    page.js(
        "[...document.querySelectorAll('#entries button')]"
        ".find(each => each.getAttribute('aria-label').includes('rumpbundle.json')).click()"
    )
    saved = page.downloads / "rumpbundle.json"
    page.wait(saved.exists, "nothing was saved")
    assert saved.read_text() == command_line("cat", image, "/rumpbundle.json", cwd=tmp_path).stdout


def test_what_is_wrong_with_an_image_is_told_above_all_else(page, command_line, tmp_path):
    assert command_line("build", examples.hello(), "--formats=iso", "-o", ".", cwd=tmp_path).returncode == 0
    image = tmp_path / "hello.iso"
    page.choose("image", image)
    page.wait(lambda: page.js("return report.ariaBusy") == "false", "it is not looked into")
    assert page.text("look-error") == ""
    data = bytearray(image.read_bytes())
    data[300_000] ^= 0xFF
    (tmp_path / "damaged.iso").write_bytes(data)
    page.choose("image", tmp_path / "damaged.iso")
    page.wait(lambda: page.js("return report.ariaBusy") == "false", "it is not looked into")
    said = command_line("verify", "damaged.iso", cwd=tmp_path)
    assert "/boot/grub/eltorito.img: its BLAKE3 is" in said.stdout
    assert page.text("look-error") == f"{said.stdout}{said.stderr.strip()}"


def test_a_link_carries_the_recipe_and_no_file(page):
    page.choose("kernel", examples.hello())
    page.type("cmdline", "a b&c=d")
    page.type("name", "web1")
    page.tick("raw", "azure")
    link = page.js("return document.getElementById('link').href")
    assert "hello" not in link
    page.open(link.removeprefix(page.address))
    assert page.js("return [cmdline.value, document.getElementById('name').value]") == ["a b&c=d", "web1"]
    ticked = page.js("return [...document.querySelectorAll('#formats input:checked')].map(box => box.id)")
    assert ticked == ["format-azure", "format-raw"]


def test_it_works_without_a_network(page):
    ready = "return navigator.serviceWorker.ready.then(() => navigator.serviceWorker.controller !== null)"
    page.wait(lambda: page.js(ready), "no service worker")
    network = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", network)
    try:
        page.open()
        page.choose("kernel", examples.hello())
        page.tick("iso")
        assert page.bundle()
    finally:
        page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", network | {"offline": False})


def test_a_host_that_does_not_know_webassembly(session, directory):
    with served(directory, {".wasm": "application/octet-stream"}) as address:
        page = Page(session.driver, address, session.downloads)
        page.open()
        page.choose("kernel", examples.hello())
        page.tick("iso")
        assert page.bundle()
        session.open()
        session.requests()  # or the next test takes this one's for its own, and foreign


def test_the_page_is_small(directory):
    files = [path for path in directory.rglob("*") if path.is_file()]
    own = [path for path in files if path.parent == directory and path.suffix in (".html", ".css", ".js")]
    assert sum(path.stat().st_size for path in own) < 150_000
    assert sum(path.stat().st_size for path in files) < 25_000_000


def test_it_names_what_it_ships(directory):
    text = (directory / "licences.html").read_text()
    packages = json.loads((ROOT / "web" / "package.json").read_text())["dependencies"]
    wheels = ["rumpbundle", *re.findall(r"^([\w-]+)==", (ROOT / "web" / "wheels.txt").read_text(), re.M)]
    for name in ("SeaBIOS", "GRUB", *packages, *wheels):
        assert name.lower() in text.lower()
    for target in re.findall(r'href="([^"#]+)"', text):
        assert (directory / target).exists(), target
