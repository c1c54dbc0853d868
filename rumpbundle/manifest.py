"""A bundle: a kernel, what it is told, and the files it gets. Everything an image's content follows from.

The bundle is immutable and knows nothing of disks. Its :meth:`Bundle.manifest` is the ``/rumpbundle.json`` of
the image; the SHA-256 of exactly these bytes is the bundle's digest, the seed of every id in every format, so
anyone can recompute it from a finished image.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from typing import Literal as OneOf

from rumpbundle import __version__
from rumpbundle.content import Content
from rumpbundle.identity import Identity
from rumpbundle.payload import Module, Volume
from rumpbundle.tree import Directory, File, Symlink, walk
from rumpbundle.unikernel import Firmware, Protocol, Unikernel

Console = OneOf["both", "serial", "vga"]

PENDING = "0" * 64
"""Stands for a SHA-256 that is not computed yet: same length, so the manifest's size is known at once."""


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
    volumes: tuple[Volume, ...] = ()
    table: OneOf["gpt", "mbr"] = "gpt"
    """``mbr`` for guests that cannot read GPT and get a volume (facts/guests.md, Disks)."""
    console: Console = "both"
    epoch: int
    grub: Mapping[str, str]
    """GRUB's version and the SHA-256 of the boot images used."""

    def manifest(self, *, hashed: bool = True) -> bytes:
        """Return ``/rumpbundle.json``; without *hashed*, with zeros for the hashes (same length, no reading)."""

        def digest(content: Content) -> str:
            return content.sha256() if hashed else PENDING

        def described(content: Content, **more: Any) -> dict[str, Any]:
            return more | {"size": content.size, "sha256": digest(content)}

        files = []
        for path, node in walk(self.root):
            name = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            match node:
                case File():
                    files.append(described(node.content, path=name, mode=f"{node.mode:04o}"))
                case Symlink():
                    files.append(
                        {
                            "path": name,
                            "target": node.target.encode("utf-8", "surrogateescape").decode(
                                "utf-8", "backslashreplace"
                            ),
                        }
                    )
                case Directory():
                    files.append({"path": name, "mode": f"{node.mode:04o}"})
        head = {
            "rumpbundle": __version__,
            "name": self.name,
            "family": str(self.kernel.family),
            "firmware": [str(firmware) for firmware in self.firmware],
            "boot": {str(firmware): str(protocol) for firmware, protocol in sorted(self.boot.items())},
            "cmdline": self.cmdline,
            "console": self.console,
            "table": self.table,
            "epoch": self.epoch,
            "grub": dict(sorted(self.grub.items())),
            "kernel": described(self.kernel.content, name=self.kernel.name, repairs=list(self.kernel.repairs)),
        }
        lists = {
            "modules": [described(m.content, name=m.name, text=m.text) for m in self.modules],
            "volumes": [described(v.content, label=v.label, filesystem=v.filesystem) for v in self.volumes],
            "files": files,
        }
        # One line an entry: people can read it, and 50,000 files are written by the C encoder.
        lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
        for key, entries in lists.items():
            inner = ",\n".join(f"  {json.dumps(entry)}" for entry in entries)
            lines.append(f" {json.dumps(key)}: [" + (f"\n{inner}\n ]" if inner else "]"))
        return ("{\n" + ",\n".join(lines) + "\n}\n").encode("ascii")

    @cached_property
    def manifest_bytes(self) -> bytes:
        """The final manifest; computing it reads whatever payload was not hashed before."""
        return self.manifest()

    @cached_property
    def identity(self) -> Identity:
        """The ids of this bundle, all derived from the SHA-256 of its manifest."""
        return Identity(lambda: hashlib.sha256(self.manifest_bytes).hexdigest())
