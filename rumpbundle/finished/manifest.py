"""``/rumpbundle.json`` as typed values: schema 1 (docs/manifest.schema.json)."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from rumpbundle.disk.layout import Table
from rumpbundle.errors import ImageError
from rumpbundle.host.environment import DEFAULT_EPOCH, LAST_EPOCH
from rumpbundle.kernels.unikernel import Firmware, Protocol
from rumpbundle.manifest import PATH, SCHEMA, Console

SCHEMA_ID = "https://json-schema.org/draft/2020-12/schema"

Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Size = Annotated[int, Meta(ge=0)]


class Described(Struct, frozen=True, kw_only=True):
    """Some bytes: how many, and their BLAKE3, plain or by blocks."""

    size: Size
    blake3: Digest | None = None
    blocks_blake3: Digest | None = None

    @property
    def digest(self) -> str | None:
        return self.blake3 if self.blocks_blake3 is None else self.blocks_blake3


class Kernel(Described, frozen=True, kw_only=True):
    """The kernel as it is bundled."""

    name: str
    repairs: tuple[str, ...]


class Module(Described, frozen=True, kw_only=True):
    """A boot module."""

    name: str
    text: str
    room: Size = 0


class Volume(Described, frozen=True, kw_only=True):
    """A file system in a partition of its own, or (with a device) on a disk of its own."""

    label: str
    filesystem: str
    device: str = ""


class File(Struct, frozen=True, kw_only=True):
    """A file (with a size), a symbolic link (with a target) or a directory of the guest's."""

    path: str
    mode: str = ""
    target: str | None = None
    size: Size | None = None
    blake3: Digest | None = None
    blocks_blake3: Digest | None = None
    room: Size = 0


class Mount(Struct, frozen=True, kw_only=True):
    """A directory of the user's: where the guest sees it, and where the image keeps it."""

    mount: str
    place: str
    writable: bool


class Choice(Described, frozen=True, kw_only=True):
    """A configuration for some machines only, and what was compiled from it."""

    key: str
    config: dict[str, Any]
    cmdline: str
    place: Literal["cmdline", "module", "file"]


class Asked(Struct, frozen=True, kw_only=True):
    """What the user asked for, apart from what was compiled from it."""

    cmdline: str | None
    argv0: bool
    protocol: str
    config: dict[str, Any] | None
    modules: Size
    mounts: tuple[Mount, ...]
    default: bool = True


class Manifest(Struct, frozen=True, kw_only=True):
    """What an image is made of, and what it was made from."""

    rumpbundle: str
    schema: int
    layout: int
    name: str
    family: str
    machine: str
    firmware: tuple[Firmware, ...]
    boot: dict[Firmware, Protocol]
    cmdline: str
    console: Console
    table: Table
    bus: str = ""
    devices: tuple[str, ...] = ()
    epoch: Annotated[int, Meta(ge=DEFAULT_EPOCH, le=LAST_EPOCH)]
    size: Size
    room: Size = 0
    grub: dict[str, str]
    asked: Asked
    config: Described | None = None
    kernel: Kernel
    modules: tuple[Module, ...]
    volumes: tuple[Volume, ...]
    files: tuple[File, ...]
    esp: tuple[File, ...] = ()
    choices: tuple[Choice, ...] = ()


def parse(data: bytes) -> Manifest:
    """Return the manifest *data*.

    Raises:
        ImageError: it is damaged, or of another schema.
    """
    try:
        # Not msgspec's own reader: it refuses the lone surrogates by which names tell of bytes that are no UTF-8.
        said = json.loads(data)
    except (ValueError, RecursionError):
        raise ImageError(f"{PATH} is no readable JSON") from None
    if not isinstance(said, dict) or said.get("schema") != SCHEMA:
        found = said.get("schema") if isinstance(said, dict) else None
        raise ImageError(f"{PATH} has schema {found!r}, this rumpbundle knows {SCHEMA}")
    try:
        return msgspec.convert(said, Manifest)
    except msgspec.ValidationError as error:
        raise ImageError(f"{PATH}: {error}") from None


def schema_text() -> str:
    """Return the JSON Schema as docs/manifest.schema.json holds it."""
    schema = {"$schema": SCHEMA_ID, "title": "rumpbundle manifest"} | msgspec.json.schema(Manifest)
    return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode() + "\n"
