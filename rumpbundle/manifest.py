"""A bundle: a kernel, what it is told, and the files it gets. Everything an image's content follows from.

The bundle is immutable and knows nothing of disks. Its :meth:`Bundle.manifest` is the ``/rumpbundle.json`` of
the image; the BLAKE3 of exactly these bytes is the bundle's digest, the seed of every id in every format, so
anyone can recompute it from a finished image (``rumpbundle cat IMAGE /rumpbundle.json | b3sum``). The manifest says
enough to plan the same disk again from the image alone.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import field
from functools import cached_property
from json.encoder import encode_basestring_ascii
from typing import Any
from typing import Literal as OneOf

from rumpbundle import __version__
from rumpbundle.dataclass import dataclass
from rumpbundle.disk.content import Content
from rumpbundle.disk.digest import hexdigest
from rumpbundle.disk.identity import Identity
from rumpbundle.disk.layout import round_up
from rumpbundle.disk.tree import Directory, File, Symlink, walk
from rumpbundle.kernels.footprint import footprint
from rumpbundle.kernels.unikernel import Family, Firmware, Protocol, Unikernel

Console = OneOf["both", "serial", "vga"]

SCHEMA = 1
"""The number of the manifest's schema (docs/manifest.schema.json); images made before 0.1.0 have none."""
LAYOUT = 1
"""The number of the disk layout: another one is another place for something."""
PATH = "/rumpbundle.json"
"""Where the manifest stands in an image."""
CONFIGS = "/boot/configs"
"""Where configurations for some machines only stand in an image."""
SLOT = 4096
"""What a configuration decides stands in slots of whole multiples of this many bytes, so that another one fits."""

HEAD_ROOM = 16 << 20
"""Bytes left free in a writable volume whose size the user does not give."""
MAX_MANIFEST = 64 << 20
"""Bytes of a manifest that are written, and read: those of some 400,000 files."""
PENDING = "0" * 64
"""Stands for a BLAKE3 that is not computed yet: same length, so the manifest's size is known at once."""


def _json(text: str) -> str:
    """Return *text*, perhaps a file name that is not UTF-8, as a JSON string in ASCII."""
    if not text.isascii():
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return encode_basestring_ascii(text)


@dataclass(frozen=True, slots=True)
class Module:
    """A boot module, in the order the kernel gets them (Linux: its initrds). *text* is its command line."""

    name: str
    content: Content
    text: str = ""
    room: int = 0
    """Bytes kept for it in the image, at least, if another configuration decides its content."""


@dataclass(frozen=True, slots=True)
class Volume:
    """A finished file system that becomes a partition of its own."""

    label: str
    filesystem: str
    content: Content
    device: str = ""
    """The name of the disk it is, where a guest wants it as one of its own (Xen's xvda); empty for a partition."""


@dataclass(frozen=True, slots=True)
class Mounted:
    """A directory of the user's, and where the image keeps it."""

    mount: str
    """Where the guest sees it."""
    place: str
    """``root`` (of the ISO), ``module 1``, ``volume 0``, or the path of a file-system image on the ISO."""
    writable: bool = False


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the user asked for, apart from what was compiled from it."""

    cmdline: str | None = None
    argv0: bool = True
    protocol: str = "auto"
    config: Mapping[str, Any] | None = None
    """The user's own configuration, in our clean JSON."""
    modules: int = 0
    """How many of the bundle's first modules are the user's own."""
    mounts: tuple[Mounted, ...] = ()
    size: int = 0
    """The least size of the disk in bytes."""
    room: int = 0
    """Bytes kept for another configuration, besides what there always is."""
    default: bool = True
    """Whether there is something to start on a machine for which there is no :class:`Choice`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A configuration for some machines only: those that *key* fits (:mod:`rumpbundle.bootloader.smbios`)."""

    key: str
    config: Mapping[str, Any]
    """The user's own, in our clean JSON."""
    cmdline: str = ""
    """As :attr:`Bundle.cmdline`."""
    place: OneOf["cmdline", "module", "file"] = "cmdline"
    """What carries it: the command line alone, or :attr:`content`, as boot module or as file."""
    content: Content = field(default_factory=lambda: Content(()))


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What goes into an image. Paths inside the image are absolute, with ``/``."""

    name: str
    kernel: Unikernel
    firmware: tuple[Firmware, ...]
    """What the image carries boot code for."""
    boot: Mapping[Firmware, Protocol]
    """How the kernel starts under each of them; one it cannot start under shows a clear message."""
    cmdline: str = ""
    """Exactly what the kernel receives as its command line (argv[0] included where the guest wants one)."""
    modules: tuple[Module, ...] = ()
    root: Directory = field(default_factory=lambda: Directory(""))
    """Files for the guest, at the root of the image's ISO 9660 file system."""
    esp: Directory = field(default_factory=lambda: Directory(""))
    """Files for an EFI application, from the root of the EFI system partition on which it stands."""
    volumes: tuple[Volume, ...] = ()
    table: OneOf["gpt", "mbr"] = "gpt"
    """``mbr`` for guests that cannot read GPT and get a volume (docs/facts/guests.md#rumprun-disks)."""
    bus: str = ""
    """Where the guest looks for this disk (:mod:`rumpbundle.knowledge`'s name); empty if it does not, or anywhere."""
    console: Console = "both"
    config: bytes = b""
    """The guest's configuration where it is handed over beside the image (xenstore); empty if the image holds it."""
    epoch: int
    grub: Mapping[str, str]
    """GRUB's version and the BLAKE3 of the boot images used."""
    asked: Asked = field(default_factory=Asked)
    choices: tuple[Choice, ...] = ()
    """Further configurations, in the order of their keys."""
    version: str = __version__
    """The rumpbundle that made it."""

    @property
    def named_by_default(self) -> bool:
        """Whether the name is the kernel's own, so that nobody chose it."""
        return self.name == stem(self.kernel.name)

    @cached_property
    def footprint(self) -> int:
        """Bytes of memory that its kernel and modules take once they are loaded.

        Read once: when a kit was made in the place of the one it was made from, that is gone.
        """
        return footprint(self.kernel, ((m.content.size, m.content.part(0, 6).read()) for m in self.modules))

    def manifest(self, *, hashed: bool = True) -> bytes:
        """Return ``/rumpbundle.json``; without *hashed*, with zeros for the hashes: same length, nothing read."""

        def described(content: Content) -> str:
            kind = "blocks_blake3" if content.sparse else "blake3"
            return f'"size": {content.size}, "{kind}": "{content.digest() if hashed else PENDING}"'

        def kept(room: int) -> str:
            return f'"room": {room}, ' if room else ""

        kernel = self.kernel
        # One line an entry: people can read it, and 50,000 files take a tenth of a second.
        lines = [f" {_json(key)}: {json.dumps(value)}" for key, value in self._head()]
        lines.append(self._asked_line)
        if self.config:
            lines.append(f' "config": {{{described(Content.of_bytes(self.config))}}}')
        repairs = json.dumps(list(kernel.repairs))
        lines.append(
            f' "kernel": {{"name": {_json(kernel.name)}, "repairs": {repairs}, {described(kernel.content)}}}'
        )
        entries = {
            "modules": [
                f'"name": {_json(m.name)}, "text": {_json(m.text)}, {kept(m.room)}{described(m.content)}'
                for m in self.modules
            ],
            "volumes": [
                f'"label": {_json(v.label)}, "filesystem": {_json(v.filesystem)}, '
                + (f'"device": {_json(v.device)}, ' if v.device else "")
                + described(v.content)
                for v in self.volumes
            ],
            "files": [],
        }
        if self.esp.children:
            entries["esp"] = [
                f'"path": {_json(path)}' + (f", {described(node.content)}" if isinstance(node, File) else "")
                for path, node in walk(self.esp)
            ]
        if self.choices:
            entries["choices"] = [
                f'"key": {_json(c.key)}, "config": {json.dumps(c.config)}, "cmdline": {json.dumps(c.cmdline)}, '
                f'"place": "{c.place}", {described(c.content)}'
                for c in self.choices
            ]
        for path, node in walk(self.root):
            line = f'"path": {_json(path)}, '
            match node:
                case File():
                    line += f'"mode": "{node.mode:04o}", {kept(node.room)}{described(node.content)}'
                case Symlink():
                    line += f'"target": {_json(node.target)}'
                case Directory():
                    line += f'"mode": "{node.mode:04o}"'
            entries["files"].append(line)
        for key, found in entries.items():
            inner = ",\n".join(f"  {{{entry}}}" for entry in found)
            lines.append(f' "{key}": [' + (f"\n{inner}\n ]" if inner else "]"))
        return ("{\n" + ",\n".join(lines) + "\n}\n").encode("ascii")

    def _head(self) -> Iterator[tuple[str, Any]]:
        kernel = self.kernel
        yield "rumpbundle", self.version
        yield "schema", SCHEMA
        yield "layout", LAYOUT
        yield "name", self.name
        yield "family", str(kernel.family)
        yield "machine", kernel.machine
        yield "firmware", [str(firmware) for firmware in self.firmware]
        yield "boot", {str(firmware): str(protocol) for firmware, protocol in sorted(self.boot.items())}
        yield "cmdline", self.cmdline
        yield "console", self.console
        yield "table", self.table
        if self.bus:
            yield "bus", self.bus
        if kernel.family is Family.SOLO5:
            yield "devices", [str(device) for device in kernel.devices]
        yield "epoch", self.epoch
        yield "size", self.asked.size
        if self.asked.room:
            yield "room", self.asked.room
        yield "grub", dict(sorted(self.grub.items()))

    @cached_property
    def _asked_line(self) -> str:
        asked = self.asked
        said: dict[str, Any] = {"cmdline": asked.cmdline, "argv0": asked.argv0, "protocol": asked.protocol}
        said |= {"config": asked.config, "modules": asked.modules}
        if not asked.default:
            said["default"] = False
        said["mounts"] = [{"mount": m.mount, "place": m.place, "writable": m.writable} for m in asked.mounts]
        return f' "asked": {json.dumps(said)}'

    @cached_property
    def manifest_slot(self) -> int:
        """Bytes the image keeps for the manifest: what it has without the configuration, and room for that."""
        size = len(self.manifest(hashed=False))
        decided = [module.content.size for module in self.modules if module.room]
        decided += [node.content.size for node in self.root.children if isinstance(node, File) and node.room]
        decided += [len(self.config)] if self.config else []
        lines = [self.cmdline, *(choice.cmdline for choice in self.choices)]
        fixed = size - len(self._asked_line) - sum(len(json.dumps(each)) for each in lines)
        fixed -= sum(len(str(each)) for each in decided)
        return max(round_up(fixed, SLOT) + SLOT + 2 * self.asked.room, round_up(size, SLOT))

    @cached_property
    def manifest_bytes(self) -> bytes:
        """The final manifest; computing it reads whatever payload was not hashed before."""
        return self.manifest()

    def identified(self, identity: Identity) -> Bundle:
        """Return this with another *identity* than the one that follows from its manifest."""
        bundle = copy(self)
        vars(bundle)["identity"] = identity
        return bundle

    def unhashed(self) -> Bundle:
        """Return this with zeros for its digest: to see what is refused of it before its payload is read."""
        return self.identified(Identity(lambda: PENDING))

    @cached_property
    def identity(self) -> Identity:
        """The ids of this bundle, all derived from the BLAKE3 of its manifest."""
        return Identity(lambda: hexdigest(self.manifest_bytes))


def place_of(number: int) -> str:
    """Return where an image keeps what the guest reads of choice *number*."""
    return f"{CONFIGS}/files/{number}.json"


def said(data: bytes) -> dict[str, Any]:
    """Return what the manifest *data* says of the image, without its list of files, which may be long.

    Raises:
        ValueError: it is no JSON object.
    """
    import msgspec  # a bundle is made without it

    entries = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    return {key: msgspec.json.decode(value) for key, value in entries.items() if key != "files"}


def stem(path: str) -> str:
    """Return the file name of *path* without its extension; ``.0-18-amd64`` of a Linux version is none."""
    return re.sub(r"(?<=.)\.[A-Za-z][A-Za-z0-9_]{0,9}$", "", os.path.basename(path))
