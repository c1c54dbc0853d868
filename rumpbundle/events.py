"""What the library tells while it works: values, rendered (or not) by the caller.

Every function that takes long accepts a ``report`` callable and gives it these. The library itself
never prints. What ``report`` raises ends the work, and nothing is left behind.
"""

from __future__ import annotations

from collections.abc import Callable

from rumpbundle.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Started:
    """A piece of work begins: *label* for people, and no two at a time have the same; *total* bytes to come,
    0 where nobody knows how much there is.
    """

    label: str
    total: int


@dataclass(frozen=True, slots=True)
class Advanced:
    """*count* more bytes of the work called *label* are done."""

    label: str
    count: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The work called *label* is done."""

    label: str


@dataclass(frozen=True, slots=True)
class Ran:
    """An external program is about to run."""

    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Waiting:
    """*program* is still at work. Said a few times a second, so that a ``report`` that raises can end it soon."""

    program: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something the user should know, but need not act on."""

    text: str


@dataclass(frozen=True, slots=True)
class Warned:
    """Something the user probably wants to change."""

    text: str


Event = Started | Advanced | Finished | Ran | Waiting | Note | Warned
Report = Callable[[Event], None]


class Exact:
    """A ``report`` that passes events on so that what advanced always adds up: never past a total, to it at the end.

    Writers count what they can: whole grains, say, of which the last is not full.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._left: dict[str, int] = {}

    def __call__(self, event: Event) -> None:
        match event:
            case Started(label, total):
                self._left[label] = total
            case Advanced(label, count):
                event = Advanced(label, min(count, self._left.get(label, 0)))
                self._left[label] = self._left.get(label, 0) - event.count
            case Finished(label) if left := self._left.pop(label, 0):
                self._report(Advanced(label, left))
        self._report(event)


def silent(event: Event) -> None:
    """Take an event and do nothing: the default."""
