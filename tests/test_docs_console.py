"""Every console block of the documentation, run as a reader would, gives the output it shows.

The blocks of a page run in their order in one directory, where ``app.bin`` is a kernel of the kind the page is about.
In what a block shows ``…`` stands for any text, or for any lines if it is alone on one; what is shown may be standard
output alone, or standard error after it.
"""

from __future__ import annotations

import re
import shutil

import pytest
from support.debian import debian_file, linux_image
from support.examples import hello
from support.kernels import ROOT
from support.pages import put_kernel, run_blocks, run_command
from support.tools import require

ELSEWHERE = {"fleet", "project"}
"""Pages that need a cluster, or a project of several kernels: tests/fleet and tests/project run what they tell."""
PAGES = sorted(path for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")] if path.stem not in ELSEWHERE)
BLOCKS = {
    page.stem: re.findall(r"```console\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    for page in PAGES
    if "```console" in page.read_text("utf-8")
}
CONFIG = '{"hostname": "web1", "rc": [{"bin": "httpd", "argv": ["-p", "80"]}]}'


@pytest.fixture
def place(tmp_path):
    """A directory with what the pages use: a configuration, directories."""
    for name in ("site", "etc", "www"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.html").write_text("Welcome\n")
    (tmp_path / "cfg.json").write_text(CONFIG)
    return tmp_path


@pytest.mark.boot
@pytest.mark.parametrize("page", sorted(BLOCKS))
def test_a_page_shows_true_output(page, place):
    for program in ("qemu-system-x86_64", "qemu-img", "minisign"):
        require(program)
    put_kernel(page, place / "app.bin")
    if page == "linux":
        shutil.copyfile(linux_image("cloud-amd64"), place / "vmlinuz")
        shutil.copyfile(debian_file("busybox-static", "bin/busybox"), place / "busybox")
    run_blocks(BLOCKS[page], place)


@pytest.mark.boot
def test_the_readmes_first_minutes(place):
    """What it tells to type after ``make demo``, in a copy of what that leaves."""
    require("qemu-system-x86_64")
    (place / "examples" / "hello").mkdir(parents=True)
    shutil.copyfile(hello(), place / "examples" / "hello" / "hello.bin")
    text = (ROOT / "README.md").read_text("utf-8")
    commands = re.findall(r"^\.venv/bin/(rumpbundle [^#\n]*)", text, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        said = run_command(command, place).stdout
    assert "Hello from a unikernel." in said


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_can_run_is_run(page):
    """A block without a kind shows a form or a picture; one of ``sh`` is for a reader's own machine."""
    for kind, block in re.findall(r"^```(\w*)\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE):
        assert kind in ("", "console", "json", "python", "sh", "toml", "yaml")
        if kind == "":
            assert not re.search(r"^\$ ", block, re.MULTILINE), f"{page.name}: {block}"
        if kind == "sh":
            for line in block.splitlines():
                assert re.match(r"(make|pipx|sudo apt|\.venv/bin/rumpbundle |$)", line), f"{page.name}: {line}"
