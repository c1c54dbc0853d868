"""What platforms offer and what guests can use: two tables a person can read and correct, as values.

The tables are ``platforms.toml`` and ``guests.toml`` beside this file; each explains its fields at its head and
gives the source of every fact. One of them is parsed when first asked for (3 ms), never on import. ``check``
compares the two, the launcher and ova choose hardware by them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any
from typing import Literal as OneOf

from rumpbundle.dataclass import dataclass
from rumpbundle.errors import UsageError, nearest

Answer = OneOf["yes", "no", "unknown"]
Basis = OneOf["seen", "read", "told"]
Kind = OneOf["firmware", "disk", "nic", "console", "clock"]
KINDS: tuple[Kind, ...] = ("firmware", "disk", "nic", "console", "clock")


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One thing a machine can have; *how* is empty if it has it unless told otherwise."""

    name: str
    how: str = ""
    on: str = ""
    """The one firmware it is there with; empty for any."""
    virtio: OneOf["both", "modern"] = "both"
    most: int = 0
    """How many of them a machine can have; 0 if nobody knows."""
    always: bool = False
    """Whether every machine has one, asked for or not."""
    basis: Basis
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """Where an image can be run."""

    name: str
    title: str
    formats: tuple[str, ...]
    """The formats of ours it takes, the most fitting first."""
    display: OneOf["always", "choice", "never"]
    no_display: str = ""
    usb: str = ""
    """The USB controller a machine has unless told otherwise; *no_usb* says how to do without."""
    no_usb: str = ""
    sectors: tuple[int, ...] = ()
    """Bytes of a sector of its disks; none if who attaches one says it. Of several the container says which."""
    source: str
    notes: tuple[str, ...] = ()
    offers: Mapping[Kind, tuple[Offer, ...]]

    @property
    def firmwares(self) -> tuple[str, ...]:
        """``bios`` and ``uefi``, or ``pv``; the default first."""
        return tuple(offer.name for offer in self.offers["firmware"])

    def having(self, kind: Kind, firmware: str) -> tuple[Offer, ...]:
        """Return what a machine with *firmware* can have of *kind*, the default first."""
        return tuple(offer for offer in self.offers[kind] if offer.on in ("", firmware))


@dataclass(frozen=True, slots=True, kw_only=True)
class BootRule:
    """What happens under a firmware by a protocol (empty: any)."""

    answer: Answer
    why: str
    fix: str = ""
    firmware: str = ""
    protocol: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleUse:
    """A console a guest prints on; *alone*: only in a machine without a display adapter."""

    name: str
    on: str = ""
    alone: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ability:
    """What a guest can do with one kind of device, and why; *fix* is the way out if that does not suit."""

    why: str
    fix: str = ""
    source: str
    basis: Basis
    drives: tuple[str, ...] | None = None
    """disk, nic: the devices it has drivers for; None if the table cannot know."""
    virtio: OneOf["any", "legacy", "modern"] = "any"
    not_boot: tuple[str, ...] = ()
    linked_in_vain: tuple[str, ...] = ()
    """disk, nic: drivers that the file shows and that find no device all the same."""
    uses: tuple[ConsoleUse, ...] | None = None
    """console: what it prints on, best first; None if not known."""
    all: tuple[str, ...] = ()
    """clock: it needs every one of these."""
    any: tuple[str, ...] = ()
    """clock: and one of these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchHints:
    """How to run a guest under QEMU."""

    display: str = ""
    """The value of ``-vga``, empty for QEMU's own choice."""
    s3: bool = True
    """Whether ACPI S3 may stay on under UEFI."""
    buses: tuple[str, ...] = ("virtio-blk",)
    nics: tuple[str, ...] = ("virtio-net",)
    memory: int = 128
    """MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestProfile:
    """A guest family, or one build of it."""

    title: str
    source: str
    basis: Basis
    memory: Mapping[str, int]
    """The least memory in MiB by firmware, where known."""
    boot: tuple[BootRule, ...]
    usb_panic: str = ""
    """Why a build with the usb driver dies on the controllers of *usb_fatal*."""
    usb_fatal: tuple[str, ...] = ()
    disk: Ability
    nic: Ability
    console: Ability
    clock: Ability
    launch: LaunchHints

    def memory_for(self, firmware: str, footprint: int = 0) -> int:
        """Return the memory in MiB to give it: what it is known to need, and room beside its *footprint* in bytes.

        *firmware* is ``bios``, ``uefi``, or empty for none.
        """
        known = max(self.launch.memory, self.memory.get(firmware, 0))
        taken = -(-footprint >> 20)
        if taken < _SMALL:
            return known
        # Under UEFI, GRUB takes a quarter of the memory for itself (grub-core/kern/efi/mm.c).
        return max(known, (taken + 128) * 4 // 3 if firmware == "uefi" else taken + 32)

    def boot_rule(self, firmware: str, protocol: str) -> BootRule | None:
        """Return the rule for this start, or None: nothing speaks against it."""
        for rule in self.boot:
            if rule.firmware in ("", firmware) and rule.protocol in ("", protocol):
                return rule
        return None


_SMALL = 16
"""MiB that fit beside what a guest is known to need."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineType:
    """A QEMU machine type: the firmwares it suits, best first, and the ``-global`` that turns ACPI S3 off."""

    firmware: tuple[str, ...]
    s3_off: str
    low: int
    """MiB of memory below 4 GiB, at most, where a boot loader puts what it loads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bus:
    """How QEMU is told to attach the boot disk to a bus; ``{drive}`` in *device* stands for the drive's id."""

    option: str
    """Its name as the value of ``--bus``."""
    device: tuple[str, ...]
    machine: str = ""
    """The one machine type that has it; empty for any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Qemu:
    """QEMU's own facts, by canonical name."""

    machines: Mapping[str, MachineType]
    buses: Mapping[str, Bus]
    cards: Mapping[str, str]
    """The ``-device`` of a network card; ``{netdev}`` stands for the network's id."""


def platforms() -> tuple[Platform, ...]:
    """Return every platform, in the table's order."""
    return tuple(map(platform, _table("platforms")))


ALIASES: Mapping[str, str] = {"aws": "ec2", "esxi": "vmware", "gcp": "gce", "vbox": "virtualbox"}
"""What people also call a platform."""
_MEANT: Mapping[str, str] = {
    "amazon": "ec2",
    "google": "gce",
    "kvm": "qemu",
    "libvirt": "qemu",
    "proxmox": "qemu",
    "xen": "xen-hvm, xen-pv or xen-pvh",
    "xl": "xen-hvm, xen-pv or xen-pvh",
}
"""The platforms that other words may mean: hints, no names."""


def platform(name: str) -> Platform:
    """Return the platform called *name*.

    Raises:
        UsageError: there is none; the hint names the nearest.
    """
    table = _table("platforms")
    name = ALIASES.get(name, name)
    if name not in table:
        hint = nearest(name, (*table, *ALIASES), f"known targets: {', '.join(table)}", also=_MEANT)
        raise UsageError(f"no such target: {name}", hint=hint)
    return _platform(name)


@cache
def _platform(name: str) -> Platform:
    row = _row("platforms", name)
    common = {"basis": row.pop("basis"), "source": row["source"]}
    offers = {kind: tuple(Offer(**(common | offer)) for offer in row.pop(kind)) for kind in KINDS}
    for extra in ("machine", "bus", "card"):
        row.pop(extra, None)
    return Platform(name=name, offers=MappingProxyType(offers), **_frozen(row))


@cache
def qemu() -> Qemu:
    """Return QEMU's machines, buses and network cards."""
    row = _row("platforms", "qemu")
    return Qemu(
        machines=MappingProxyType(
            {name: MachineType(**_frozen(machine)) for name, machine in row["machine"].items()}
        ),
        buses=MappingProxyType({name: Bus(**_frozen(bus)) for name, bus in row["bus"].items()}),
        cards=MappingProxyType(row["card"]),
    )


@cache
def guest(family: str, target: str = "") -> GuestProfile:
    """Return what is known of a *family*'s guests, or of its build *target* where the table has that.

    Raises:
        KeyError: the table has no such family.
    """
    row = _row("guests", family)
    override = row.pop("target", {}).get(target, {})
    common = {"source": row["source"], "basis": row.pop("basis")}
    override = {key: row[key] | value if isinstance(value, dict) else value for key, value in override.items()}
    row |= override
    for kind in ("disk", "nic", "console", "clock"):
        ability = common | row[kind]
        if "uses" in ability:
            ability["uses"] = tuple(ConsoleUse(**use) for use in ability["uses"])
        row[kind] = Ability(**_frozen(ability))
    row["boot"] = tuple(BootRule(**rule) for rule in row.get("boot", ()))
    row["launch"] = LaunchHints(**_frozen(row.get("launch", {})))
    return GuestProfile(basis=common["basis"], **_frozen(row))


def guests() -> tuple[tuple[str, str], ...]:
    """Return the ``(family, target)`` of every row of the guests' table; the target is empty for the family's own."""
    table = _table("guests")
    return tuple((family, target) for family in table for target in ("", *table[family].get("target", {})))


@cache
def _table(name: str) -> dict[str, Any]:
    import tomllib

    return tomllib.loads(_text(name))


def _row(name: str, key: str) -> dict[str, Any]:
    """Return one row of a table; the others are not even parsed, which would take most of the time of a launch.

    Raises:
        KeyError: the table has no such row.
    """
    import tomllib

    sections = re.findall(rf"^\[{re.escape(key)}[].].*?(?=^\[|\Z)", _text(name), re.MULTILINE | re.DOTALL)
    row = tomllib.loads("".join(sections))[key]
    assert isinstance(row, dict)
    return row


@cache
def _text(name: str) -> str:
    return Path(__file__).with_name(f"{name}.toml").read_text("utf-8")


def _frozen(row: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of *row* with every list and table made immutable."""
    return {key: _freeze(value) for key, value in row.items()}


def _freeze(value: Any) -> Any:
    match value:
        case list():
            return tuple(value)
        case dict():
            return MappingProxyType(value)
    return value


__all__ = [
    "Ability",
    "Answer",
    "Basis",
    "BootRule",
    "Bus",
    "ConsoleUse",
    "GuestProfile",
    "Kind",
    "LaunchHints",
    "Machine",
    "Offer",
    "Platform",
    "Qemu",
    "guest",
    "guests",
    "platform",
    "platforms",
    "qemu",
]
