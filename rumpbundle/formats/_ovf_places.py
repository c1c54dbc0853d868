"""What stands where in an OVF, to read the options of an OVA back: places are like XPaths, without namespaces."""

from __future__ import annotations

from collections import Counter

from rumpbundle.errors import ImageError
from rumpbundle.formats._readback import MOST, Places
from rumpbundle.images.records.ovf import parse

_DEEPEST = 32


def places(text: bytes) -> dict[str, str]:
    """Return each attribute (``…/CPU@count``), and the text of each element that has one (``…/Item[2]/Parent``).

    The size of the disk's file is left out: no option decides it.

    Raises:
        ImageError: it is no XML, or not such as is written here.
    """
    if len(text) > MOST:
        raise ImageError(f"has {len(text)} bytes, more than any that is written")
    reader = _Reader()
    try:
        parse(text, start=reader.start, end=reader.end, characters=reader.characters)
    except ValueError as error:
        raise ImageError(f"is no XML that we write: {error}") from None
    found = reader.places.found
    return {place: value for place, value in found.items() if not place.endswith("/References/File@size")}


class _Reader:
    """Collects what stands where."""

    def __init__(self) -> None:
        self.places = Places()
        self._open: list[tuple[str, Counter[str]]] = [("", Counter())]
        """The elements around, each with its place and the number of its children so far by name."""
        self._text = ""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if len(self._open) > _DEEPEST:
            raise ValueError("it nests too deep")
        name = name.rpartition(":")[2]
        around, counts = self._open[-1]
        counts[name] += 1
        place = f"{around}/{name}" + (f"[{counts[name]}]" if counts[name] > 1 else "")
        self._open.append((place, Counter()))
        self._told(around)
        for key, value in attributes.items():
            self.places.add(f"{place}@{key.rpartition(':')[2]}", value)

    def end(self, _: str) -> None:
        place, children = self._open.pop()
        self._told(place, whole=not children)

    def characters(self, text: str) -> None:
        self._text += text

    def _told(self, place: str, *, whole: bool = False) -> None:
        """Add the text that was read last, which stands at *place*; blanks between elements are none."""
        if whole or self._text.strip():
            self.places.add(place, self._text)
        self._text = ""
