"""The XML of an OVF, read with nothing that it defines or names (DMTF DSP0243)."""

from __future__ import annotations

from collections.abc import Callable
from xml.parsers import expat


def parse(
    text: bytes,
    *,
    start: Callable[[str, dict[str, str]], None],
    end: Callable[[str], None],
    characters: Callable[[str], None],
) -> None:
    """Tell *start*, *end* and *characters* what stands in *text*, in its order.

    Raises:
        ValueError: it is no XML, in an encoding that Python does not know, or declares a document type.
    """
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = characters
    parser.StartDoctypeDeclHandler = _doctype
    try:
        parser.Parse(text, True)
    except (expat.ExpatError, LookupError) as error:
        raise ValueError(str(error)) from None


def _doctype(*_: object) -> None:
    raise ValueError("it declares a document type")


__all__ = ["parse"]
