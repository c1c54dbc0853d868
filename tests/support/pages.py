"""The documentation's console blocks: what ``app.bin`` is on each page, and how they are run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
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


Run = Callable[[str, Path], subprocess.CompletedProcess[str]]
"""Runs a command in a directory; it has to succeed."""


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


def run_blocks(blocks: Sequence[str], place: Path, run: Run = run_command) -> None:
    """Run the commands of console *blocks* in *place*; each has to give the output that is shown below it."""
    for block in blocks:
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, shown = step.partition("\n")
            done = run(command, place)
            wanted = re.compile(pattern(shown), re.DOTALL)
            assert wanted.fullmatch(done.stdout) or wanted.fullmatch(done.stdout + done.stderr), (
                f"$ {command}\n{done.stdout}{done.stderr}"
            )
