"""Every console block of the documentation, run as a reader would, gives the output it shows.

The blocks of a page run in their order in one directory, where ``app.bin`` is a kernel of the kind the page is about;
a TOML block is saved as ``rumpbundle.toml``, a CSV block as ``fleet.csv``. In what a block shows ``…`` stands for any
text, or for any lines if it is alone on one; what is shown may be standard output alone, or standard error after it.
"""

from __future__ import annotations

import re
import shutil

import pytest
from support.debian import debian_file, linux_image
from support.examples import hello
from support.pages import consoles, put_kernel, put_projects, run_blocks, run_command, texts
from support.tools import free_port, require

BLOCKS = consoles()
CONFIG = '{"hostname": "web1", "rc": [{"bin": "httpd", "argv": ["-p", "80"]}]}'


@pytest.fixture
def place(tmp_path):
    """A directory with what the pages use: configurations, directories."""
    for name in ("site", "etc", "www"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.html").write_text("Welcome\n")
    (tmp_path / "cfg").mkdir()
    for name in ("cfg", "web", "cfg/n7", "cfg/n8"):
        (tmp_path / f"{name}.json").write_text(CONFIG)
    return tmp_path


@pytest.mark.boot
@pytest.mark.parametrize("page", sorted(BLOCKS))
def test_a_page_shows_true_output(page, place):
    for program in ("qemu-system-x86_64", "qemu-img", "minisign"):
        require(program)
    put_kernel(page, place / "app.bin")
    found = BLOCKS[page]
    if page == "linux":
        shutil.copyfile(linux_image("cloud-amd64"), place / "vmlinuz")
        shutil.copyfile(debian_file("busybox-static", "bin/busybox"), place / "busybox")
    if page in ("fleet", "project"):
        put_projects(place)
        found = [(kind, block.replace('["8080:', f'["{free_port()}:')) for kind, block in found]
    run_blocks(found, place)


@pytest.mark.boot
def test_the_readmes_first_minutes(place):
    """What it tells to type after ``make demo``, in a copy of what that leaves."""
    require("qemu-system-x86_64")
    (place / "examples" / "hello").mkdir(parents=True)
    shutil.copyfile(hello(), place / "examples" / "hello" / "hello.bin")
    commands = re.findall(r"^\.venv/bin/(rumpbundle [^#\n]*)", texts()["README"], re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        said = run_command(command, place).stdout
    assert "Hello from a unikernel." in said


ELSEWHERE = {
    "README": "typed on fresh systems by tests/fresh/run.py",
    "start": "typed on fresh systems by tests/fresh/run.py",
    "page": "make page is what tests/web build the page with",
    "fleet": "tests/project/test_fleet_page.py",
}
"""Pages with ``sh`` blocks, and who runs these: they install something, or are for several machines."""


def test_what_can_run_is_run():
    """A block without a kind shows a form or a picture; one of ``sh`` is for a reader's own machine."""
    shell = set()
    for page, text in texts().items():
        for kind, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            assert kind in ("", "console", "csv", "json", "python", "sh", "text", "toml", "yaml"), page
            if kind == "":
                assert not re.search(r"^(\$|error:|hint:) ", block, re.MULTILINE), f"{page}: {block}"
                assert page == "cli" or not re.search(r"^rumpbundle [a-z]", block, re.MULTILINE), f"{page}: {block}"
            if kind == "text":
                assert page.startswith("reference/")
            if kind == "sh":
                shell.add(page)
    assert shell == set(ELSEWHERE)
