"""What is in an image, as a CycloneDX 1.6 document: the kernel, modules, files and volumes, and GRUB.

The specification: https://cyclonedx.org/docs/1.6/json/. The document follows from the bundle alone: it is the same
for every format, and dated as the bundle is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from time import gmtime, strftime
from typing import Literal as OneOf
from typing import NotRequired, TypedDict

from rumpbundle.disk.content import Content
from rumpbundle.disk.tree import File, walk
from rumpbundle.manifest import Bundle

Kind = OneOf["application", "operating-system", "file", "data"]


class Hash(TypedDict):
    alg: OneOf["BLAKE3"]
    content: str


class Property(TypedDict):
    name: str
    value: str


class Licence(TypedDict):
    expression: str


Component = TypedDict(
    "Component",
    {
        "type": Kind,
        "bom-ref": str,
        "name": str,
        "version": NotRequired[str],
        "description": NotRequired[str],
        "hashes": NotRequired[list[Hash]],
        "licenses": NotRequired[list[Licence]],
        "properties": NotRequired[list[Property]],
    },
)


class Tools(TypedDict):
    components: list[Component]


class Metadata(TypedDict):
    timestamp: str
    tools: Tools
    component: Component


class Dependency(TypedDict):
    ref: str
    dependsOn: list[str]


Bom = TypedDict(
    "Bom",
    {
        "$schema": str,
        "bomFormat": OneOf["CycloneDX"],
        "specVersion": OneOf["1.6"],
        "serialNumber": str,
        "version": int,
        "metadata": Metadata,
        "components": list[Component],
        "dependencies": list[Dependency],
    },
)


def sbom(bundle: Bundle) -> bytes:
    """Return the document about *bundle*; computing it reads whatever payload was not hashed before."""
    image: Component = {
        "type": "operating-system",
        "bom-ref": "image",
        "name": bundle.name,
        "version": bundle.identity.digest,
        "description": f"a {bundle.kernel.family} machine image; its version is the BLAKE3 of its /rumpbundle.json",
        "hashes": [{"alg": "BLAKE3", "content": bundle.identity.digest}],
    }
    ours: Component = {
        "type": "application",
        "bom-ref": "rumpbundle",
        "name": "rumpbundle",
        "version": bundle.version,
    }
    components = list(_components(bundle))
    document: Bom = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": bundle.identity.uuid("sbom").urn,
        "version": 1,
        "metadata": {
            "timestamp": strftime("%Y-%m-%dT%H:%M:%SZ", gmtime(bundle.epoch)),
            "tools": {"components": [ours]},
            "component": image,
        },
        "components": components,
        "dependencies": [{"ref": "image", "dependsOn": [each["bom-ref"] for each in components]}],
    }
    return (json.dumps(document, indent=1) + "\n").encode("ascii")


def _components(bundle: Bundle) -> Iterator[Component]:
    if "version" in bundle.grub:
        yield {
            "type": "application",
            "bom-ref": "grub",
            "name": "GRUB",
            "version": bundle.grub["version"],
            "description": "the boot loader; rumpbundle's LICENSE says where its source is",
            "licenses": [{"expression": "GPL-3.0-or-later"}],
            "properties": [{"name": f"rumpbundle:blake3:{part}", "value": bundle.grub[part]}
                           for part in ("bios", "efi", "mbr")],
        }  # fmt: skip
    kernel = bundle.kernel
    yield _of("operating-system", "kernel", kernel.name, kernel.content)
    for number, module in enumerate(bundle.modules, 1):
        yield _of("file", f"module {number}", module.name, module.content)
    for number, volume in enumerate(bundle.volumes, 1):
        yield _of("data", f"volume {number}", volume.label, volume.content)
    for kind, top in (("file", bundle.root), ("esp", bundle.esp)):
        for path, node in walk(top):
            if isinstance(node, File):
                yield _of("file", f"{kind} {_ref(path)}", path, node.content)


def _of(type: Kind, ref: str, name: str, content: Content) -> Component:
    """Return the component that *content* is; the digest of a sparse one is that of its blocks, no plain BLAKE3."""
    found: Component = {"type": type, "bom-ref": ref, "name": _text(name)}
    properties: list[Property] = [{"name": "rumpbundle:size", "value": str(content.size)}]
    if content.sparse:
        properties.append({"name": "rumpbundle:blocks_blake3", "value": content.digest()})
    else:
        found["hashes"] = [{"alg": "BLAKE3", "content": content.digest()}]
    found["properties"] = properties
    return found


def _ref(path: str) -> str:
    """Return *path* as text that no other path is: a byte that is no UTF-8 looks like backslashes of another name."""
    text = _text(path)
    return text if text == path else f"{text}//{os.fsencode(path).hex()}"


def _text(name: str) -> str:
    """Return a file name, which may be no UTF-8, as text that always is."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
