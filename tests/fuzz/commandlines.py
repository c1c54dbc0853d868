"""Command lines: an input is an argument vector as a program gets it, words with a NUL between them.

``rumpbundle`` is given each in a directory that has something of every kind to name; the end is success, or one error
in one line. Nothing is written elsewhere, as words that could name a place elsewhere are left out. No program is
started, as none is found.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import json
import os
import re
import resource
import shutil
import signal
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from unittest import mock

import click
from support import stub, synthetic

from rumpbundle import cli
from rumpbundle.bootloader import bootimages
from rumpbundle.host import environment

_ELSEWHERE = re.compile(r"(^|=)/|^-[^:]*/|\.\.")
"""What a word holds that could name a place elsewhere: ``/etc``, ``-o/etc``, ``--output=/etc``, ``../x``."""
_MOST = 2 << 30
"""Bytes a file may have: a command line may ask for more than there is room for, be it holes or not."""

STARTS = tuple(
    line.replace(" ", "\0").encode()
    for line in (
        "iso app.bin -o new.iso --cmdline x=1 --module m.bin:text --size 64M",
        "raw app.bin --firmware uefi --protocol multiboot --console vga --name n --force",
        "vmdk app.bin --subformat stream --no-argv0 --json --progress json",
        "vhd rump.bin -c cfg.json -e A=B --hostname h --net vioif0,inet,dhcp --arg x --data tree:/data",
        "qcow2 rump.bin --volume tree:/db:1M --config-for serial:web7=cfg.json --config-room 8K --dry-run",
        "ova app.bin --cpus 2 --memory 128M --controller ide --nic e1000",
        "ec2 app.bin --tag K=V --description d --imds-v2 --print-commands",
        "xen app.bin --type hvm --set vcpus=2 --strict",
        "azure app.bin --driver mlx5 --sbom s -q",
        "build app.bin --formats iso,vmdk:stream -o out --checksums",
        "boot app.bin --bus cd --publish 8080:80 --gdb 1234 --timeout 1 --expect x --log log",
        "--boot qemu app.bin",
        "run app.iso --persist --as serial:web7 --memory 64M --accel tcg",
        "convert app.iso --formats vdi -o new.vdi --size 1G",
        "reconfig app.iso --cmdline y -o new.iso",
        "reconfig app.iso --in-place",
        "check app.bin --target gce --driver ahci --json",
        "inspect app.iso --all --svg new.svg",
        "verify app.iso --rebuild app.bin",
        "diff app.iso app.iso",
        "ls app.iso fat:/EFI",
        "cat app.iso /rumpbundle.json",
        "component tree --machine x86_64 --follow --replace-base -o c",
        "volume tree -o new.ext2 --type ext2 --free 1M --label l",
        "config cfg.json --as web7",
        "config --schema",
        "init app.bin",
        "completion bash",
        "formats --json",
        "help guests",
    )
)


def words() -> tuple[str, ...]:
    """Return each command and option, as a word of its own behind a NUL."""
    context = click.Context(cli.cli)
    names = cli.cli.list_commands(context)
    commands = (cli.cli.get_command(context, name) for name in names)
    options = {option for command in commands if command for each in command.params for option in each.opts}
    return tuple(f"\0{word}" for word in (*names, *sorted(option for option in options if option[0] == "-")))


def commandlines(data: bytes) -> None:
    """Give *data* to ``rumpbundle`` as its arguments."""
    line = [os.fsdecode(word) for word in data.split(b"\0")]
    # A fleet has processes of its own.
    if "fleet" in line or any(_ELSEWHERE.search(word) for word in line):
        return
    status, said, told = _run(line, _files())
    errors = [each for each in told.splitlines() if each.startswith(b"error: ")]
    assert len(errors) <= 1, told
    assert not status or said or told, status


def _run(line: list[str], files: dict[str, bytes]) -> tuple[int, bytes, bytes]:
    """Run *line* where *files* are, and return its exit status and what it wrote to standard output and error."""
    shutil.rmtree(_directory(), ignore_errors=True)
    for name, content in files.items():
        path = _directory() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (_directory() / "tree" / "link").symlink_to("file")
    os.mkfifo(_directory() / "pipe")
    nothing, out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(3))
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.chdir(_directory()))
        stack.enter_context(_limited())
        stack.enter_context(mock.patch("sys.stdin", nothing))
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        stack.enter_context(mock.patch.object(environment, "find_program", return_value=None))
        stack.enter_context(mock.patch.object(bootimages, "_PACKAGED", _boot_images()))
        status = cli.main(line)
    return status, out.buffer.getvalue(), err.buffer.getvalue()


@cache
def scratch() -> Path:
    """Return a directory in memory where there is one, which this process's end removes."""
    directory = tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    atexit.register(directory.cleanup)
    return Path(directory.name)


def _directory() -> Path:
    return scratch() / "commandlines"


@cache
def _boot_images() -> Path:
    """Return a directory with boot images as a wheel has them."""
    directory = scratch() / "boot-images"
    directory.mkdir()
    for name, data in zip(bootimages._FILES, (stub.IMAGES.mbr, stub.IMAGES.bios, stub.IMAGES.efi), strict=True):
        (directory / name).write_bytes(data)
    (directory / bootimages._FACTS).write_text(json.dumps(stub.IMAGES.kept))
    return directory


@cache
def _files() -> dict[str, bytes]:
    """Return what there is to name, with a finished image among it."""
    files = {
        "app.bin": synthetic.multiboot_elf(),
        "rump.bin": synthetic.rumprun(b"vioscsi"),
        "cfg.json": b'{"env": {"A": "1"}}',
        "m.bin": b"module",
        "tree/file": b"x",
    }
    assert _run(["iso", "app.bin"], files)[0] == 0
    return files | {"app.iso": (_directory() / "app.iso").read_bytes()}


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """Let no file become longer than ``_MOST``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python has it, and libFuzzer has not
    resource.setrlimit(resource.RLIMIT_FSIZE, (_MOST, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
