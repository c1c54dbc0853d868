"""What a guest can be told, as one strict, typed value, and its JSON Schema.

What a particular guest cannot be told is for its module in :mod:`rumpbundle.guests` to refuse.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any
from typing import Literal as OneOf

import msgspec
from msgspec import Meta, Struct

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
SCHEMA_ID = "urn:rumpbundle:config"


def described(text: str) -> Meta:
    return Meta(description=text)


class Program(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A program that runs; of several, the Nth entry is the Nth one baked into the unikernel."""

    bin: Annotated[str, described("the program's name, its argv[0]")]
    argv: Annotated[tuple[str, ...], described("its arguments, without the name")] = ()
    runmode: Annotated[
        OneOf["", "&", "|"], described("& runs it in the background, | pipes its output to the next")
    ] = ""

    def __post_init__(self) -> None:
        if not self.bin:
            raise ValueError(".bin: expected a name, got an empty string")


class Network(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, rename={"interface": "if"}):
    """A network interface."""

    interface: Annotated[str, described("the guest's name for it: vioif0, wm0, xenif0, eth0")]
    type: Annotated[OneOf["inet", "inet6"], described("IPv4 or IPv6")]
    method: Annotated[OneOf["dhcp", "static", "auto"], described("dhcp (IPv4), auto (IPv6), or static")]
    addr: Annotated[str | None, described("static: the interface's address")] = None
    mask: Annotated[
        int | None, Meta(description="static: the prefix length", extra_json_schema={"minimum": 0, "maximum": 128})
    ] = None
    gw: Annotated[str | None, described("static: the default gateway")] = None
    cloner: Annotated[bool, described("rumprun on Xen PV: the guest creates the interface")] = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9._:-]{1,32}", self.interface):
            raise ValueError(f".if: expected an interface name, got {self.interface!r}")
        if self.method == ("auto" if self.type == "inet" else "dhcp"):
            right = "dhcp or static" if self.type == "inet" else "auto or static"
            raise ValueError(f".method: {self.type} takes {right}, got {self.method}")
        if self.method != "static":
            for name in ("addr", "mask", "gw"):
                if getattr(self, name) is not None:
                    raise ValueError(f".{name}: only method static takes it, here it is {self.method}")
            return
        for name in ("addr", "mask"):
            if getattr(self, name) is None:
                raise ValueError(f".{name}: missing, method static needs it")
        bits = 32 if self.type == "inet" else 128
        if self.mask is not None and not 0 <= self.mask <= bits:
            raise ValueError(f".mask: expected a prefix length 0-{bits}, got {self.mask}")
        for name in ("addr", "gw"):
            text = getattr(self, name)
            if text is not None:
                _check_address(text, 4 if self.type == "inet" else 6, name)


class Block(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A block device, and where it is mounted."""

    source: Annotated[
        OneOf["dev", "vnd", "etfs"], described("dev: a disk; vnd: an image file; etfs: a disk on Xen PV")
    ]
    path: Annotated[str, described("the guest's name for it: /dev/ld0a, images/data.iso, xvda")]
    fstype: Annotated[OneOf["blk", "kernfs"], described("blk: whatever file system is found there")] = "blk"
    mountpoint: Annotated[str | None, described("the directory it is mounted on; made if missing")] = None

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError(".path: expected a device or file name, got an empty string")
        if self.mountpoint is not None and not self.mountpoint.startswith("/"):
            raise ValueError(f".mountpoint: expected an absolute path, got {self.mountpoint!r}")


class Config(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a guest is told."""

    cmdline: Annotated[
        str | None, described("program and arguments in one string, split at blanks outside quotes; instead of rc")
    ] = None
    rc: Annotated[tuple[Program, ...], described("the programs that run, in the order they were baked in")] = ()
    env: Annotated[dict[str, str], described("environment variables")] = {}
    hostname: Annotated[str | None, described("the machine's name")] = None
    net: Annotated[tuple[Network, ...], described("network interfaces")] = ()
    blk: Annotated[tuple[Block, ...], described("block devices and mounts")] = ()

    def __post_init__(self) -> None:
        if self.cmdline is not None and self.rc:
            raise ValueError(".cmdline: stands in for rc, give one of the two")
        if self.cmdline is not None and not self.cmdline.strip():
            raise ValueError(".cmdline: expected a program and its arguments, got an empty string")
        if self.hostname is not None and not re.fullmatch(r"[A-Za-z0-9._-]{1,255}", self.hostname):
            raise ValueError(f".hostname: expected letters, digits, '.', '_' and '-', got {self.hostname!r}")
        for key in self.env:
            if not re.fullmatch(r"[^=\x00\s]+", key):
                raise ValueError(f".env: expected a variable's name, got {key!r}")
        for position, program in enumerate(self.rc):
            if program.runmode == "|" and position == len(self.rc) - 1:
                raise ValueError(f".rc[{position}].runmode: the last program has no next one to pipe to")
        _check_text(msgspec.to_builtins(self), "")

    def replace(self, **changes: Any) -> Config:
        """Return a copy with *changes*."""
        return msgspec.structs.replace(self, **changes)


def _check_address(text: str, version: int, name: str) -> None:
    import ipaddress  # 9 ms, and few configurations name an address

    try:
        if ipaddress.ip_address(text).version == version:
            return
    except ValueError:
        pass
    raise ValueError(f".{name}: expected an IPv{version} address, got {text!r}")


def _check_text(value: Any, path: str) -> None:
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError(f"{path}: a NUL character cannot be passed to any guest")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError(f"{path}: is not UTF-8, which a configuration is: {value!r}")
    items = (
        value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    )
    for key, inner in items:
        _check_text(key, path)
        _check_text(inner, f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}")


def schema() -> dict[str, Any]:
    """Return the JSON Schema of our clean form."""
    made = {"$schema": _DRAFT, "$id": SCHEMA_ID, "title": "rumpbundle configuration"} | msgspec.json.schema(Config)
    own = {"$schema": {"description": "where an editor finds this schema; not read", "type": "string"}}
    made["$defs"]["Config"]["properties"] = own | made["$defs"]["Config"]["properties"]
    return made


def schema_text() -> str:
    """Return the schema as docs/config.schema.json holds it."""
    return msgspec.json.format(msgspec.json.encode(schema()), indent=2).decode() + "\n"


def clean_text(config: Config) -> str:
    """Return *config* as clean JSON."""
    return msgspec.json.format(msgspec.json.encode(config), indent=2).decode() + "\n"


def builtins(config: Config) -> dict[str, Any]:
    """Return *config* as clean JSON's own types."""
    made: dict[str, Any] = msgspec.to_builtins(config)
    return made
