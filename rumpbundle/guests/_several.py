"""Several configurations for one image: each compiled, and refused, as one alone would be.

They share the kernel, the files and the disk, so what a configuration decides of these must be the same in all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rumpbundle.bootloader.smbios import Key
from rumpbundle.dataclass import dataclass
from rumpbundle.disk.tree import Directory, File
from rumpbundle.errors import ConfigError, RumpbundleError, UsageError
from rumpbundle.guests._contract import Delivery, Request, kept
from rumpbundle.kernels.unikernel import Protocol
from rumpbundle.manifest import Choice, place_of

if TYPE_CHECKING:
    from rumpbundle.config import Config

_WHERE = "--config-for"


@dataclass(frozen=True, slots=True)
class ConfigFor:
    """A configuration for the machines that *key* fits (:mod:`rumpbundle.bootloader.smbios`)."""

    key: str
    config: Config
    name: str = ""
    """What errors call it: its file's name."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", str(Key.parse(self.key, self.name or _WHERE)))

    def __str__(self) -> str:
        return f"{self.name}, for {self.key}" if self.name else f"{_WHERE} {self.key}"


def ordered(configs: Sequence[ConfigFor]) -> tuple[ConfigFor, ...]:
    """Return *configs* in the order of their keys.

    Raises:
        UsageError: two are for one key.
    """
    named: dict[str, ConfigFor] = {}
    for each in configs:
        if other := named.get(each.key):
            files = f": {other.name} and {each.name}" if other.name and each.name else ""
            raise UsageError(f"there are two configurations for {each.key}{files}", where=_WHERE)
        named[each.key] = each
    return tuple(named[key] for key in sorted(named))


Deliver = Callable[[Request], Delivery]


def several(deliver: Deliver, request: Request, configs: Sequence[ConfigFor]) -> tuple[Delivery, tuple[Choice, ...]]:
    """Return what *deliver* makes of *request* and of each of *configs*."""
    _check_boot(request)
    configs = ordered(configs)
    default = request.config is not None
    delivery = deliver(request) if default else _delivered(deliver, request, configs[0])
    data, volumes = kept(delivery, delivery.mounts)
    # What was made of directories is taken from there, not made again for each.
    shared = replace(request, data=data, volumes=volumes)
    choices = []
    for number, each in enumerate(configs):
        own = replace(shared, file=place_of(number).removeprefix("/"))
        choices.append(_choice(each, _delivered(deliver, own, each), delivery))
    return (delivery if default else _without_config(delivery)), tuple(choices)


def _check_boot(request: Request) -> None:
    if not request.boot:
        raise UsageError("no firmware starts this kernel, so nothing tells it which machine it is", where=_WHERE)
    if Protocol.EFI in request.boot.values():
        raise UsageError(
            "an EFI application is started by firmware, which does not choose",
            where=_WHERE,
            hint="start it by another protocol (--protocol), or make an image for each machine: rumpbundle reconfig",
        )


def _delivered(deliver: Deliver, request: Request, each: ConfigFor) -> Delivery:
    """Return what the guest of *request* gets for the configuration of *each*; errors say whose it is."""
    try:
        return deliver(replace(request, config=each.config))
    except RumpbundleError as error:
        error.where = f"{each}: {error.where}" if error.where else str(each)
        raise


def _choice(each: ConfigFor, delivery: Delivery, base: Delivery) -> Choice:
    """Return *delivery* as a choice beside others, whose disk is that of *base*."""
    from rumpbundle.config import builtins

    for what, one, other in _shared(base, delivery):
        if one != other:
            raise ConfigError(
                f"this configuration wants another {what} than the others, and one image has one",
                where=str(each),
                hint="give --config-room 4K if only the length differs: then each of them is a file",
            )
    module = next((module.content for module in delivery.modules if module.room), None)
    file = next((node.content for node in delivery.root.children if isinstance(node, File) and node.room), None)
    choice = Choice(key=each.key, config=builtins(each.config), cmdline=delivery.cmdline)
    if module is not None:
        return replace(choice, place="module", content=module)
    return choice if file is None else replace(choice, place="file", content=file)


def _shared(one: Delivery, other: Delivery) -> Iterator[tuple[str, object, object]]:
    """Yield what one image has once: its name, and what it is for *one* and for the *other*."""
    one, other = _without_config(one), _without_config(other)
    yield "partition table", one.table, other.table
    yield "bus for the disk", one.bus, other.bus
    yield "place for --data or --volume", one.mounts, other.mounts
    yield "volume", one.volumes, other.volumes
    yield "set of boot modules", one.modules, other.modules
    yield "set of files", one.root.children, other.root.children


def _without_config(delivery: Delivery) -> Delivery:
    """Return *delivery* without what a configuration decides: what has room kept for it, and the command line."""
    children = (node for node in delivery.root.children if not (isinstance(node, File) and node.room))
    return replace(
        delivery,
        cmdline="",
        modules=tuple(module for module in delivery.modules if not module.room),
        root=Directory("", tuple(children)),
        config=b"",
    )


__all__ = ["ConfigFor", "ordered", "several"]
