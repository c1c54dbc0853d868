"""The test kernels of ``tests/testkernels``: building them, once per source, and reading their reports."""

from __future__ import annotations

import ast
import fcntl
import gzip
import hashlib
import os
import re
import shutil
import struct
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from support.tools import output_of

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "tests" / "testkernels"
CACHE = ROOT / ".cache" / "testkernels"

CFLAGS = (
    *("-std=gnu11", "-Os", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-nostdlib", "-fno-pic", "-fno-pie"),
    *("-mgeneral-regs-only", "-fno-stack-protector", "-fno-asynchronous-unwind-tables", "-fcf-protection=none"),
    "-fno-ident",
)
SUCCESS = 33
"""QEMU's exit status when a test kernel ends well: it writes 16, isa-debug-exit makes 2 n + 1 of it."""


@dataclass(frozen=True)
class Module:
    """A module as the kernel saw it."""

    text: bytes
    size: int
    crc32: int

    @classmethod
    def of(cls, content: bytes, text: bytes = b"") -> Module:
        """Return what a kernel should report for *content*."""
        return cls(text, len(content), zlib.crc32(content))


@dataclass(frozen=True)
class Report:
    """What a test kernel said. *cmdline* is UTF-16 for the EFI application."""

    protocol: str
    magic: int
    cmdline: bytes
    modules: tuple[Module, ...]

    @property
    def arguments(self) -> str:
        """The command line as text, without what the protocol itself adds to it."""
        if self.protocol == "efi":
            return self.cmdline.decode("utf-16-le", "surrogatepass").removesuffix("\0")
        text = self.cmdline.decode("utf-8", "surrogateescape")
        if self.protocol == "linux":
            # GRUB puts the kernel's path first, in quotes if it holds a blank; QEMU does not.
            return re.sub(r'^BOOT_IMAGE=("(\\.|[^"])*"|\S+) ?', "", text)
        return text

    @classmethod
    def parse(cls, serial: bytes) -> Report:
        """Read the last report in *serial*; an AssertionError shows the console if there is none."""
        text = serial.decode("latin-1").replace("\r", "")
        begin = text.rfind("testkernel ")
        assert begin >= 0, f"no report on the console:\n{text}"
        assert "end of report" in text[begin:], f"the report is cut short:\n{text}"
        lines = text[begin : text.index("end of report", begin)].splitlines()
        fields = dict(line.split(" ", 1) for line in lines)
        modules = []
        for line in lines:
            if match := re.fullmatch(r"module ([0-9a-f]{8}) ([0-9a-f]{8}) (\".*\")", line):
                modules.append(Module(_unescape(match[3]), int(match[1], 16), int(match[2], 16)))
        return cls(
            protocol=fields["testkernel"],
            magic=int(fields.get("magic", "0"), 16),
            cmdline=_unescape(fields["cmdline"]),
            modules=tuple(modules),
        )


def field(console: bytes, name: str) -> bytes | None:
    """Return what a test kernel said *name* is, or None if it did not."""
    match = re.search(rb"^%s (\".*\")\r?$" % name.encode(), console, re.MULTILINE)
    return _unescape(match[1].decode("latin-1")) if match else None


def _unescape(quoted: str) -> bytes:
    value = ast.literal_eval("b" + quoted)
    assert isinstance(value, bytes)
    return value


def build(name: str) -> Path:
    """Return the test kernel called *name* (see ``KERNELS``), built if it was not yet."""
    CACHE.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for source in sorted(SOURCES.iterdir()):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    directory = CACHE / digest.hexdigest()[:16]
    with open(CACHE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.exists():
            for stale in CACHE.glob("????????????????"):
                shutil.rmtree(stale)
            with tempfile.TemporaryDirectory(dir=CACHE) as temporary:
                done = Path(temporary) / "done"
                done.mkdir()
                for kernel, make in KERNELS.items():
                    make(done / kernel)
                os.rename(done, directory)
    return directory / name


def _gcc(*arguments: str | Path) -> None:
    output_of("gcc", *map(str, arguments), cwd=SOURCES)


def _multiboot(*defines: str, main: str = "multiboot.c") -> Callable[[Path], None]:
    def make(output: Path) -> None:
        options = [f"-D{define}" for define in defines]
        _gcc(
            *("-m32", *CFLAGS, *options, "-static", "-Wl,--build-id=none", "-Wl,-z,max-page-size=4096"),
            *("-T", "multiboot.ld", "multiboot.S", main, "report.c", "pc.c", "-o", output),
        )

    return make


def _with(make: Callable[[Path], None], change: Callable[[Path], None]) -> Callable[[Path], None]:
    def both(output: Path) -> None:
        make(output)
        change(output)

    return both


def _flatten(output: Path) -> None:
    output_of("objcopy", "-O", "binary", str(output))


def _to_elf64(output: Path) -> None:
    output_of("objcopy", "-O", "elf64-x86-64", str(output))


def _compress(output: Path) -> None:
    output.write_bytes(gzip.compress(output.read_bytes(), mtime=0))


def _overlap(output: Path) -> None:
    """Turn PT_GNU_STACK into what Unikraft's linker leaves: an empty PT_LOAD inside another segment."""
    elf = bytearray(output.read_bytes())
    table, size, count = struct.unpack_from("<I", elf, 28) + struct.unpack_from("<HH", elf, 42)
    for at in range(table, table + size * count, size):
        if struct.unpack_from("<I", elf, at) == (0x6474E551,):
            struct.pack_into("<8I", elf, at, 1, 0x1000, 0x100400, 0x100400, 0, 0, 6, 8)
            output.write_bytes(elf)
            return
    raise AssertionError("no PT_GNU_STACK to replace")


def _linux(*defines: str) -> Callable[[Path], None]:
    def make(output: Path) -> None:
        options = [f"-D{define}" for define in defines]
        _gcc(
            *("-m32", *CFLAGS, *options, "-static", "-Wl,--build-id=none", "-T", "linux.ld"),
            *("linux.S", "linux.c", "report.c", "pc.c", "-o", output),
        )

    return make


def _efi(output: Path) -> None:
    """PE32+ straight from ld; nothing in it needs relocating, so it has no relocation directory."""
    with tempfile.TemporaryDirectory(dir=CACHE) as objects:
        for source in ("efi", "report", "pc"):
            _gcc(
                "-m64",
                *CFLAGS,
                "-mno-red-zone",
                "-fpie",
                "-fshort-wchar",
                "-c",
                f"{source}.c",
                "-o",
                f"{objects}/{source}.o",
            )
        output_of(
            *("ld", "-m", "i386pep", "--subsystem", "10", "-e", "efi_main", "--image-base", "0x400000", "-s"),
            *("--no-insert-timestamp", "-o", str(output)),
            *(f"{objects}/{source}.o" for source in ("efi", "report", "pc")),
        )


def _xen(mode: str, *defines: str) -> Callable[[Path], None]:
    def make(output: Path) -> None:
        _gcc(
            *(
                mode,
                *CFLAGS,
                *(f"-D{define}" for define in defines),
                "-mno-red-zone",
                "-static",
                "-Wl,--build-id=none",
                "-T",
                "xen.ld",
            ),
            *("xen.S", "xen.c", "report.c", "-o", output),
        )

    return make


KERNELS: dict[str, Callable[[Path], None]] = {
    "multiboot": _multiboot("HEADER1"),
    "multiboot-gz": _with(_multiboot("HEADER1"), _compress),
    "multiboot-kludge": _with(_multiboot("HEADER1", "KLUDGE"), _flatten),
    "multiboot-elf64": _with(_multiboot("HEADER1"), _to_elf64),
    "multiboot-late": _multiboot("HEADER1", "HEADER_AT=0x2000-0x1000-12"),
    "multiboot-overlap": _with(_multiboot("HEADER1"), _overlap),
    "multiboot-triple": _multiboot("HEADER1", "TRIPLE"),
    "multiboot2": _multiboot("HEADER2"),
    "multiboot2-late": _multiboot("HEADER2", "HEADER_AT=0x8000-0x1000-24"),
    "multiboot2-framebuffer": _multiboot("HEADER2", "FRAMEBUFFER"),
    "multiboot2-services": _multiboot("HEADER2", "SERVICES"),
    "multiboot2-services-long": _multiboot("HEADER2", "SERVICES", "LONG"),
    "multiboot2-services-64": _with(_multiboot("HEADER2", "SERVICES", "LONG"), _to_elf64),
    "multiboot2-services-both": _multiboot("HEADER1", "HEADER2", "SERVICES"),
    "multiboot-both": _multiboot("HEADER1", "HEADER2"),
    "hardware": _multiboot("HEADER1", main="hardware.c"),
    "linux": _linux(),
    "linux16": _linux("CODE32_START=0"),
    "efi": _efi,
    "xen-pv": _xen("-m64"),
    "xen-pv-rumprun": _xen("-m64", "RUMPRUN"),
    "xen-pvh": _xen("-m32"),
}
"""What can be built; the name is the file's."""
