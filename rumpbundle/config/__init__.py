"""The configuration: one strict, typed value for every guest, and the ways a user can write it.

Clean JSON (docs/config.md, docs/config.schema.json), rumprun's own dialect as its old tool wrote it
(docs/facts/guests.md#rumprun-dialect), and options on the command line all end in one :class:`Config`.

msgspec takes 40 ms to import, so this package is imported only where a configuration is given.
"""

from __future__ import annotations

from rumpbundle.config.model import Block, Config, Network, Program, builtins, clean_text, schema, schema_text
from rumpbundle.config.options import combined, network, variable
from rumpbundle.config.reading import parse

__all__ = [
    "Block",
    "Config",
    "Network",
    "Program",
    "builtins",
    "clean_text",
    "combined",
    "network",
    "parse",
    "schema",
    "schema_text",
    "variable",
]
