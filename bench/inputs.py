"""What the benchmarks bundle: kernels, payloads and trees, the same bytes in every run."""

from __future__ import annotations

import random
import struct
import sys
from pathlib import Path

MIB = 1 << 20
KERNEL_BYTES = 3_000_000
CODE = Path(sys.executable).resolve().read_bytes()


def kernel(path: Path, size: int = KERNEL_BYTES) -> Path:
    """Write what passes for a Multiboot kernel of *size* bytes; nobody boots it here."""
    magic, flags, load = 0x1BADB002, 0x10003, 0x100000
    header = struct.pack("<8I", magic, flags, -(magic + flags) & 0xFFFFFFFF, load, load, 0, 0, load + 32)
    path.write_bytes((header + CODE * (size // len(CODE) + 1))[:size])
    return path


def rumprun(path: Path) -> Path:
    """Write what passes for a rumprun kernel: its configuration and its volumes are understood."""
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from support import synthetic

    path.write_bytes(synthetic.rumprun().ljust(KERNEL_BYTES, b"\0"))
    return path


def payload(path: Path, size: int) -> Path:
    """Write *size* bytes, every other MiB noise, the rest code."""
    code = CODE * (2 * MIB // len(CODE) + 2)
    draw = random.Random(1)
    with path.open("wb") as file:
        for index in range(-(-size // MIB)):
            at = index * MIB % len(CODE)
            data = code[at : at + MIB] if index % 2 else draw.randbytes(MIB)
            file.write(data[: size - file.tell()])
    return path


def tree(top: Path, files: int, size: int = 100) -> Path:
    """Make a directory of *files* files of *size* bytes, 500 in each directory below it."""
    data = random.Random(2).randbytes(size)
    top.mkdir()
    for number in range(files):
        path = top / f"d{number // 500}" / f"file{number}.txt"
        if number % 500 == 0:
            path.parent.mkdir()
        path.write_bytes(data)
    return top
