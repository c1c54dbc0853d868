"""The knowledge tables as the Markdown of docs/check.md; run as a program it writes them there.

PYTHONPATH=.:tests python tests/support/tables.py
"""

from __future__ import annotations

from pathlib import Path

from rumpbundle import knowledge
from rumpbundle.knowledge import Ability, Offer

PAGE = Path(__file__).parents[2] / "docs" / "check.md"
BEGIN, END = "<!-- the tables, written by tests/support/tables.py -->\n", "<!-- end of the tables -->\n"

_MARK = {"seen": "", "read": "°", "told": "?"}


def rendered() -> str:
    """Return both tables."""
    lines = [
        "| platform | firmware | disk | network | console | clock | its formats |",
        "|---|---|---|---|---|---|---|",
    ]
    for platform in knowledge.platforms():
        offers = [_offers(platform.offers[kind]) for kind in knowledge.KINDS]
        lines.append(f"| `{platform.name}` | {' | '.join(offers)} | {' '.join(platform.formats)} |")
    lines += [
        "",
        "| guest | drives disks | drives NICs | prints on | clock | why a disk or NIC fails |",
        "|---|---|---|---|---|---|",
    ]
    for family, target in knowledge.guests():
        guest = knowledge.guest(family, target)
        if all(rule.answer == "no" and not rule.firmware for rule in guest.boot) and guest.boot:
            lines.append(
                f"| {family} {target} | boots from no disk: {guest.boot[0].why} | | | | {guest.boot[0].fix} |"
            )
            continue
        clock = " ".join([*guest.clock.all, *(["one of " + "/".join(guest.clock.any)] if guest.clock.any else [])])
        cells = (f"{family} {target}".strip(), _drives(guest.disk), _drives(guest.nic), _prints(guest.console))
        lines.append(f"| {' | '.join(cells)} | {clock or 'unknown'} | {guest.disk.why} |")
    return "\n".join(lines) + "\n"


def _offers(offers: tuple[Offer, ...]) -> str:
    names = []
    for number, offer in enumerate(offers):
        name = f"**{offer.name}**" if not number else offer.name
        only = f" ({offer.on})" if offer.on else ""
        names.append(name + _MARK[offer.basis] + only + (" (modern)" if offer.virtio == "modern" else ""))
    return ", ".join(names)


def _drives(ability: Ability) -> str:
    if ability.drives is None:
        return "by its file, else unknown"
    legacy = " (legacy registers)" if ability.virtio == "legacy" else ""
    return (", ".join(ability.drives) or "none") + legacy


def _prints(ability: Ability) -> str:
    if ability.uses is None:
        return "unknown"
    words = []
    for use in ability.uses:
        limits = [use.on.upper()] if use.on else []
        limits += ["no display"] if use.alone else []
        words.append(use.name + (f" ({', '.join(limits)})" if limits else ""))
    return ", ".join(words)


if __name__ == "__main__":
    head, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    PAGE.write_text(head + BEGIN + rendered() + END + rest.partition(END)[2], "utf-8")
