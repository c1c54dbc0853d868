"""The documentation's console blocks: what ``app.bin`` is on each page, and how they are run."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from support import kernels, synthetic
from support.examples import hello


def _copied(find: Callable[[], Path]) -> Callable[[Path], object]:
    return lambda path: shutil.copyfile(find(), path)


def _written(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


SOLO5 = synthetic.elf(
    [synthetic.Segment(synthetic.multiboot1() + bytes(64))],
    [synthetic.Section(".note.solo5", synthetic.solo5_notes(3, ("service", 2)), type=synthetic.SHT_NOTE)],
)
"""A file with the notes of a Solo5 unikernel for virtio that asks for a network card."""

KERNELS: dict[str, Callable[[Path], object]] = {
    "config": _written(synthetic.rumprun()),
    "configs": _written(synthetic.rumprun()),
    "rumprun": _written(synthetic.rumprun()),
    "solo5": _written(SOLO5),
    "unikraft": _written(synthetic.kernel_with_texts(b"Unikraft\0virtio-net\0")),
    "xen": _copied(lambda: kernels.build("xen-pv-rumprun")),
    "efi": _copied(lambda: kernels.build("efi")),
}
"""What ``app.bin`` is on a page, unless it is the kernel of ``examples/hello``."""

DOCS = kernels.ROOT / "docs"


def _generated() -> dict[str, str]:
    """Return the pages that only the site has, by name."""
    place = kernels.ROOT / "scripts" / "site_pages.py"
    spec = importlib.util.spec_from_file_location("site_pages", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {f"reference/{name}": "\n".join(make()) for name, make in module.PAGES.items()}


@cache
def texts() -> dict[str, str]:
    """Return every page by its name: the README, those of docs/, those that only the site has."""
    paths = {str(path.relative_to(DOCS).with_suffix("")): path for path in sorted(DOCS.rglob("*.md"))}
    paths["README"] = kernels.ROOT / "README.md"
    return {name: path.read_text("utf-8") for name, path in paths.items()} | _generated()


def put_projects(place: Path) -> None:
    """Write what the projects of docs/project.md are made of to *place*, and the second of them."""
    kernel = (
        kernels.build("multiboot").read_bytes() + b"_RUMPRUN_ROOTFSCFG=\0ld_virtio\0vioif\0"
    )  # as rumprun's are known
    (place / "build").mkdir()
    for path in (place / "build" / "web.bin", place / "node.bin"):
        path.write_bytes(kernel)
    for kind, block in blocks(texts()["project"]):
        if kind in FILES:
            (place / FILES[kind]).write_text(block)


Run = Callable[[str, Path], subprocess.CompletedProcess[str]]
"""Runs a command in a directory; it has to succeed."""


def blocks(text: str) -> list[tuple[str, str]]:
    """Return kind and content of the blocks of a page that a reader types: console, and the files of a project."""
    return re.findall(r"^```(console|toml|csv)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def consoles() -> dict[str, list[tuple[str, str]]]:
    """Return the blocks of every page that has a console block, by its name."""
    return {page: blocks(text) for page, text in texts().items() if "```console" in text}


def python() -> dict[str, str]:
    """Return every Python block, by its page and number."""
    found = {
        page: re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE) for page, text in texts().items()
    }
    return {f"{page}-{number}": code for page, codes in found.items() for number, code in enumerate(codes)}


def put_kernel(page: str, path: Path) -> None:
    """Write the kernel that *page* is about to *path*."""
    KERNELS.get(page, _copied(hello))(path)


def pattern(shown: str) -> str:
    """Return a regular expression for *shown*."""
    lines = [".*" if line == "…" else re.escape(line).replace("…", "[^\n]*") for line in shown.splitlines()]
    return "\n?".join(lines) + r"\s*"


def run_command(command: str, place: Path) -> subprocess.CompletedProcess[str]:
    """Run a reader's *command* in *place*, where ``rumpbundle`` is ours; it has to succeed."""
    bin = place / ".bin"
    bin.mkdir(exist_ok=True)
    (bin / "rumpbundle").write_text(f'#!/bin/sh\nexec {sys.executable} -m rumpbundle "$@"\n')
    (bin / "rumpbundle").chmod(0o755)
    env = os.environ | {"PATH": f"{bin}:{os.environ['PATH']}", "PYTHONPATH": str(kernels.ROOT)}
    done = subprocess.run(
        command, shell=True, cwd=place, env=env, timeout=240, text=True, stdin=subprocess.DEVNULL, capture_output=True
    )
    assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
    return done


FILES = {"toml": "rumpbundle.toml", "csv": "fleet.csv"}
"""What a reader saves a block as."""


def run_blocks(blocks: Sequence[tuple[str, str]], place: Path, run: Run = run_command) -> None:
    """Save files and run the commands of *blocks* in *place*; each has to give the output that is shown below it.

    One that shows an error has to fail.
    """
    for kind, block in blocks:
        if kind in FILES:
            (place / FILES[kind]).write_text(block)
            continue
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, shown = step.partition("\n")
            fails = re.search(r"^error: ", shown, re.MULTILINE)
            done = run(f"! {command}" if fails else command, place)
            wanted = re.compile(pattern(shown), re.DOTALL)
            assert wanted.fullmatch(done.stdout) or wanted.fullmatch(done.stdout + done.stderr), (
                f"$ {command}\n{done.stdout}{done.stderr}"
            )
