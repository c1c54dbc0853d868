"""What may stand in a project file; docs/project.schema.json follows from it."""

from __future__ import annotations

from typing import Annotated, Any
from typing import Literal as OneOf

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from rumpbundle.bundling.recipe import FirmwareChoice, ProtocolChoice

SCHEMA_ID = "urn:rumpbundle:project"
_DRAFT = "https://json-schema.org/draft/2020-12/schema"

Size = int | str


def described(text: str) -> Meta:
    return Meta(description=text)


class _Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab", omit_defaults=True):
    """A table of the file."""


class Boot(_Table, frozen=True, kw_only=True):
    """How ``rumpbundle boot NAME`` boots it."""

    boot: Annotated[str, described("what runs the guest: qemu, xl")] = "qemu"
    memory: Annotated[Size | None, described("the guest's memory: 64M")] = None
    accel: Annotated[OneOf["auto", "tcg", "kvm", "hvf"], described("what runs the guest's code")] = "auto"
    firmware: Annotated[OneOf["bios", "uefi"] | None, described("the firmware to boot with")] = None
    bus: Annotated[str | None, described("where the disk is: virtio, ide, sata, scsi, nvme, usb, cd")] = None
    publish: Annotated[tuple[str, ...], described("ports of 127.0.0.1 that lead to the guest: HOST:GUEST[/udp]")] = ()
    identity: Annotated[str | None, described("what firmware says of the machine: serial:web7")] = msgspec.field(
        name="as", default=None
    )
    gdb: Annotated[int | None, described("a port of 127.0.0.1 on which to wait for a debugger")] = None
    expect: Annotated[str | None, described("succeed when the console matches this pattern")] = None
    timeout: Annotated[float | None, described("fail if that, or the guest's end, takes longer, in seconds")] = None
    log: Annotated[str | None, described("write the console to this file as well")] = None
    args: Annotated[tuple[str, ...], described("further arguments of the hypervisor")] = ()


class Shared(_Table, frozen=True, kw_only=True):
    """What images may share: everything but which kernel it is."""

    formats: Annotated[tuple[str, ...], described("what to write, each FORMAT or FORMAT:SUBFORMAT")] = ()
    output: Annotated[str, described("the directory to write into")] = "."
    rows: Annotated[str | None, described("a CSV or JSON lines file: one image a row, {column} in any string")] = None
    cmdline: Annotated[str | None, described("the kernel's command line")] = None
    argv0: Annotated[bool, described("whether the kernel's file name comes before a Multiboot command line")] = True
    modules: Annotated[tuple[str, ...], described("further boot modules: FILE[:TEXT]")] = ()
    config: Annotated[str | None, described("the guest's configuration, a JSON file")] = None
    env: Annotated[dict[str, str], described("environment variables")] = {}
    hostname: Annotated[str | None, described("the guest's host name")] = None
    net: Annotated[tuple[str, ...], described("interfaces: IF,TYPE,METHOD as --net has them")] = ()
    args: Annotated[tuple[str, ...], described("arguments of the guest's program")] = ()
    config_for: Annotated[tuple[str, ...], described("configurations for some machines only: KEY=CFG")] = ()
    configs: Annotated[str | None, described("the same for each file KEY.json of a directory")] = None
    data: Annotated[tuple[str, ...], described("directories the guest sees, read-only: DIR:MOUNT")] = ()
    volumes: Annotated[tuple[str, ...], described("writable ext2 partitions: DIR:MOUNT[:SIZE]")] = ()
    esp: Annotated[str | None, described("a directory of files beside an EFI application")] = None
    size: Annotated[Size, described("the least size of the disk: 512M")] = 0
    config_room: Annotated[Size, described("room for a later reconfig")] = 0
    firmware: Annotated[FirmwareChoice, described("which firmware it can boot from")] = "both"
    protocol: Annotated[ProtocolChoice, described("which of the kernel's boot protocols to use")] = "auto"
    console: Annotated[OneOf["both", "serial", "vga"], described("where the boot loader speaks")] = "both"
    name: Annotated[str | None, described("the machine's name; without it the stem of the kernel's file name")] = None
    strict: Annotated[bool, described("whether what is known not to work is an error")] = False
    sbom: Annotated[str | None, described("a file to write what is in the image into, as CycloneDX")] = None
    sign: Annotated[str | None, described("a secret key of minisign, to sign each output with")] = None
    options: Annotated[
        dict[str, dict[str, Any]], described("options of single formats: options.ova.memory is --memory of ova")
    ] = {}
    boot: Annotated[Boot, described("how it is booted here")] = Boot()


class Image(Shared, frozen=True, kw_only=True):
    """An image: a kernel, what goes with it, and what is written."""

    app: Annotated[str, described("the kernel's file")]


class File(_Table, frozen=True, kw_only=True):
    """A project file: images, and what they share."""

    image: Annotated[
        dict[Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{1,64}$")], Image], described("the images, by name")
    ]
    defaults: Annotated[Shared | UnsetType, described("what every image has that does not say otherwise")] = UNSET


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a project file. An image may lack what the defaults give it."""
    made = {"$schema": _DRAFT, "$id": SCHEMA_ID, "title": "rumpbundle project"} | msgspec.json.schema(File)
    own = {"$schema": {"description": "where an editor finds this schema; not read", "type": "string"}}
    made["$defs"]["File"]["properties"] = own | made["$defs"]["File"]["properties"]
    made["$defs"]["Image"]["required"] = []
    return made


def schema_text() -> str:
    """Return the schema as ``init --schema`` prints it and docs/project.schema.json holds it."""
    return msgspec.json.format(msgspec.json.encode(schema()), indent=2).decode() + "\n"
