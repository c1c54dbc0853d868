"""What the kits for clouds have in common: their options, and what an image and its guest can truly do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rumpbundle import knowledge
from rumpbundle.dataclass import dataclass
from rumpbundle.errors import UsageError, nearest
from rumpbundle.formats._contract import FormatOptions, option
from rumpbundle.kernels.unikernel import Firmware
from rumpbundle.knowledge import drivers as known_drivers
from rumpbundle.manifest import Bundle


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudOptions(FormatOptions):
    """The options of every cloud's kit."""

    tag: tuple[str, ...] = option(
        (), "A tag (GCE: label) for the image; repeatable.", metavar="KEY=VALUE", multiple=True
    )
    driver: tuple[str, ...] = option(
        (),
        "A driver the guest has though its file does not show it: ena, gvnic, virtio-scsi, …; repeatable.",
        metavar="NAME",
        multiple=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedOptions(CloudOptions):
    """The same where an image has a description."""

    description: str = option(
        "", "The image's description.  [default: its name and the bundle's digest]", metavar="TEXT"
    )


def drivers(bundle: Bundle, platform: str, options: CloudOptions) -> frozenset[str]:
    """Return the canonical names of the guest's disk and network drivers, with those *options* name.

    Raises:
        UsageError: ``--driver`` names none that *platform* has a device for.
    """
    offered = [offer.name for kind in ("disk", "nic") for offer in knowledge.platform(platform).offers[kind]]
    for name in options.driver:
        if name not in offered:
            hint = nearest(name, offered, f"{platform} has {', '.join(offered)}")
            raise UsageError(f"{platform} has no device for a driver {name!r}", where="--driver", hint=hint)
    return known_drivers.of(bundle.kernel) | frozenset(options.driver)


def proven_firmware(bundle: Bundle) -> frozenset[Firmware]:
    """Return the firmwares to announce: those the image boots from and nothing is known against.

    Where the image boots from both and the guest has a trouble under UEFI (rumprun, Solo5: memory), that is BIOS
    alone. An image for UEFI only is announced as such: the user chose that.
    """
    firmwares = frozenset(bundle.boot)
    if firmwares == {Firmware.BIOS, Firmware.UEFI}:
        guest = knowledge.guest(bundle.kernel.family, bundle.kernel.target)
        if guest.boot_rule(Firmware.UEFI, bundle.boot[Firmware.UEFI]) is not None:
            return frozenset({Firmware.BIOS})
    return firmwares


def default_description(name: str, bundle: Bundle) -> str:
    """Return what stands beside an image's name if the user says nothing: enough to find its bundle again."""
    return f"{name}, made by rumpbundle {bundle.version} from bundle {bundle.identity.digest}"


def shell_path(path: Path) -> str:
    """Return *path* as an argument no program takes for an option."""
    text = str(path)
    return f"./{text}" if text.startswith("-") else text


def write_json(path: Path, value: Any) -> None:
    """Write *value* for people and programs."""
    path.write_bytes(json_text(value))


def json_text(value: Any) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode("ascii")
