"""A bundle: a kernel, what it is told, and the files it gets. Everything an image's content follows from.

The bundle is immutable and knows nothing of disks. Its :meth:`Bundle.manifest` is the ``/rumpbundle.json`` of
the image; the SHA-256 of exactly these bytes is the bundle's digest, the seed of every id in every format, so
anyone can recompute it from a finished image.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from copy import copy
from dataclasses import field
from functools import cached_property
from json.encoder import encode_basestring_ascii
from typing import Any
from typing import Literal as OneOf

from rumpbundle import __version__
from rumpbundle.dataclass import dataclass
from rumpbundle.disk.content import Content
from rumpbundle.disk.identity import Identity
from rumpbundle.disk.tree import Directory, File, Symlink, walk
from rumpbundle.kernels.unikernel import Family, Firmware, Protocol, Unikernel

Console = OneOf["both", "serial", "vga"]

HEAD_ROOM = 16 << 20
"""Bytes left free in a writable volume whose size the user does not give."""
PATH = "/rumpbundle.json"
"""Where it stands in an image."""
MAX_MANIFEST = 64 << 20
"""Bytes of a manifest that are written, and read: those of some 400,000 files."""
PENDING = "0" * 64
"""Stands for a SHA-256 that is not computed yet: same length, so the manifest's size is known at once."""


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


@dataclass(frozen=True, slots=True)
class Volume:
    """A finished file system that becomes a partition of its own."""

    label: str
    filesystem: str
    content: Content
    device: str = ""
    """The name of the disk it is, where a guest wants it as one of its own (Xen's xvda); empty for a partition."""


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
    """GRUB's version and the SHA-256 of the boot images used."""

    @property
    def named_by_default(self) -> bool:
        """Whether the name is the kernel's own, so that nobody chose it."""
        return self.name == stem(self.kernel.name)

    def manifest(self, *, hashed: bool = True) -> bytes:
        """Return ``/rumpbundle.json``; without *hashed*, with zeros for the hashes: same length, nothing read."""

        def described(content: Content) -> str:
            return f'"size": {content.size}, "sha256": "{content.sha256() if hashed else PENDING}"'

        kernel = self.kernel
        head = {
            "rumpbundle": __version__,
            "name": self.name,
            "family": str(kernel.family),
            "firmware": [str(firmware) for firmware in self.firmware],
            "boot": {str(firmware): str(protocol) for firmware, protocol in sorted(self.boot.items())},
            "cmdline": self.cmdline,
            "console": self.console,
            "table": self.table,
            **({"bus": self.bus} if self.bus else {}),
            **({"devices": [str(d) for d in kernel.devices]} if kernel.family is Family.SOLO5 else {}),
            "epoch": self.epoch,
            "grub": dict(sorted(self.grub.items())),
        }
        # One line an entry: people can read it, and 50,000 files take a tenth of a second.
        lines = [f" {_json(key)}: {json.dumps(value)}" for key, value in head.items()]
        if self.config:
            lines.append(f' "config": {{{described(Content.of_bytes(self.config))}}}')
        repairs = json.dumps(list(kernel.repairs))
        lines.append(
            f' "kernel": {{"name": {_json(kernel.name)}, "repairs": {repairs}, {described(kernel.content)}}}'
        )
        entries = {
            "modules": [
                f'"name": {_json(m.name)}, "text": {_json(m.text)}, {described(m.content)}' for m in self.modules
            ],
            "volumes": [
                f'"label": {_json(v.label)}, "filesystem": {_json(v.filesystem)}, {described(v.content)}'
                for v in self.volumes
            ],
            "files": [],
        }
        if self.esp.children:
            entries["esp"] = [
                f'"path": {_json(path)}' + (f", {described(node.content)}" if isinstance(node, File) else "")
                for path, node in walk(self.esp)
            ]
        for path, node in walk(self.root):
            line = f'"path": {_json(path)}, '
            match node:
                case File():
                    line += f'"mode": "{node.mode:04o}", {described(node.content)}'
                case Symlink():
                    line += f'"target": {_json(node.target)}'
                case Directory():
                    line += f'"mode": "{node.mode:04o}"'
            entries["files"].append(line)
        for key, found in entries.items():
            inner = ",\n".join(f"  {{{entry}}}" for entry in found)
            lines.append(f' "{key}": [' + (f"\n{inner}\n ]" if inner else "]"))
        return ("{\n" + ",\n".join(lines) + "\n}\n").encode("ascii")

    @cached_property
    def manifest_bytes(self) -> bytes:
        """The final manifest; computing it reads whatever payload was not hashed before."""
        return self.manifest()

    def unhashed(self) -> Bundle:
        """Return this with zeros for its digest: to see what is refused of it before its payload is read."""
        bundle = copy(self)
        vars(bundle)["identity"] = Identity(lambda: PENDING)
        return bundle

    @cached_property
    def identity(self) -> Identity:
        """The ids of this bundle, all derived from the SHA-256 of its manifest."""
        return Identity(lambda: hashlib.sha256(self.manifest_bytes).hexdigest())


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
