"""The drivers an image may count on: those its kernel's file shows; where it shows none, those of the guest's row."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from rumpbundle import knowledge
from rumpbundle.kernels.unikernel import Unikernel
from rumpbundle.knowledge import Ability, Kind


def known(kind: Kind) -> frozenset[str]:
    """Return the canonical names of all devices of *kind* some platform offers."""
    return frozenset(offer.name for platform in knowledge.platforms() for offer in platform.offers[kind])


def of(kernel: Unikernel) -> frozenset[str]:
    """Return the canonical names of *kernel*'s disk and network drivers, as far as anything tells."""
    guest = knowledge.guest(kernel.family, kernel.target)
    if kernel.drivers:
        return kernel.drivers.difference(guest.disk.linked_in_vain, guest.nic.linked_in_vain)
    return frozenset(guest.disk.drives or ()).union(guest.nic.drives or ())


def of_kind(kernel: Unikernel, kind: Kind, ability: Ability, also: AbstractSet[str]) -> frozenset[str] | None:
    """Return those of *kind*, for which it has *ability*, and those of *also* it can use; None if nothing tells."""
    useful = known(kind).difference(ability.linked_in_vain)
    added = useful & also
    if kernel.drivers:
        return kernel.drivers & useful | added
    if ability.drives is None:
        return added or None
    return added.union(ability.drives)
