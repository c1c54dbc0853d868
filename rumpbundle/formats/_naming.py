"""What clouds accept as names, tags and descriptions.

A text the user gave is refused with the rule if it breaks it. A name that came from a default (the kernel's file
name) is made to fit instead: reduced to ASCII (NFKD), in lower case where the cloud wants that, each run of other
characters one ``-``, cut at the cloud's length, and with ``vm-`` before it if it is too short or begins wrongly.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from rumpbundle.dataclass import dataclass
from rumpbundle.errors import UsageError
from rumpbundle.manifest import Bundle


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRule:
    """What a cloud takes in one place."""

    what: str
    """What the text is, with its article: ``an AMI name``."""
    words: str
    """The rule for people."""
    pattern: str
    """The rule as a regular expression the whole text matches."""
    keep: str = "A-Za-z0-9-"
    """The inside of a character class: what :meth:`fitted` keeps."""
    longest: int = 255
    lower: bool = False

    def checked(self, text: str, where: str) -> str:
        """Return *text*, which the user gave as *where*.

        Raises:
            UsageError: the cloud would not take it; the hint is the rule.
        """
        if not text.isprintable() or not re.fullmatch(self.pattern, text):
            raise UsageError(f"{text!r} is not {self.what}", where=where, hint=f"{self.what} is {self.words}")
        return text

    def fitted(self, text: str) -> str:
        """Return a name made from *text*, which nobody chose, that the cloud takes."""
        text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
        text = re.sub(f"[^{self.keep}]+", "-", text.lower() if self.lower else text)
        for candidate in (text, f"vm-{text}"):
            name = candidate.strip("-")[: self.longest].rstrip("-")
            if re.fullmatch(self.pattern, name):
                return name
        return "vm-image"


def image_name(bundle: Bundle, rule: TextRule) -> str:
    """Return the image's name: the bundle's, checked if it was given, made to fit if it is the kernel's.

    Raises:
        UsageError: it was given and the cloud would not take it.
    """
    if bundle.named_by_default:
        return rule.fitted(bundle.name)
    return rule.checked(bundle.name, "--name")


def parse_tags(texts: Iterable[str], key: TextRule, value: TextRule, most: int) -> dict[str, str]:
    """Return the tags given as ``KEY=VALUE``, sorted by key.

    Raises:
        UsageError: one is no such pair, is given twice, or breaks *key* or *value*; or there are more than *most*.
    """
    tags: dict[str, str] = {}
    for text in texts:
        name, equals, content = text.partition("=")
        if not equals:
            raise UsageError(f"expected KEY=VALUE, got {text!r}", where="--tag")
        if name in tags:
            raise UsageError(f"{name!r} is given twice", where="--tag")
        tags[key.checked(name, "--tag")] = value.checked(content, "--tag")
    if len(tags) > most:
        raise UsageError(f"{len(tags)} tags are more than the {most} it takes", where="--tag")
    return dict(sorted(tags.items()))
