"""What rumprun makes of its configuration (docs/facts/guests.md#rumprun-dialect): an oracle, not a JSON library.

A tokenizer: strings end at the first double quote, a backslash guards the next character and both stay as they are;
keys may repeat; every leaf is a string. What the guest dies on is a :class:`Panic`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MODULE_LIMIT = 4094
CMDLINE_LIMIT = 4095
FILE_LIMIT = 65536


class Panic(Exception):
    """The guest would not get past its configuration."""


@dataclass
class Guest:
    """What the guest knows after reading its configuration."""

    programs: list[tuple[list[str], str]] = field(default_factory=list)
    """``(argv, runmode)`` each."""
    env: dict[str, str] = field(default_factory=dict)
    hostname: str | None = None
    net: dict[str, str] | None = None
    blk: list[dict[str, str]] = field(default_factory=list)


def boot(cmdline: str, modules: list[bytes], files: dict[str, bytes]) -> Guest:
    """Return what the guest reads of a command line, boot modules, and the files at the root of its disk."""
    text = cmdline
    if len(cmdline) > CMDLINE_LIMIT:
        raise Panic("command line too long")
    if modules:
        if len(modules[0]) > MODULE_LIMIT:
            raise Panic("command line too long")
        text = modules[0].decode()
    _, found, path = text.partition("_RUMPRUN_ROOTFSCFG=")
    if found:
        content = files.get(path.lstrip("/"))
        if content is None:
            raise Panic(f"open {path}")
        if len(content) > FILE_LIMIT:
            raise Panic("unbelievable cfg file size")
        text = content.decode()
    return read(text)


def read(text: str) -> Guest:
    """Return what the guest reads of a configuration text."""
    start = text.find("{")
    if start < 0:
        return Guest(programs=[(["rumprun"], "")])
    guest = Guest()
    for key, value in _object(_value(text[start:])[0]):
        match key:
            case "cmdline":
                guest.programs.append((split(_leaf(value)), ""))
            case "rc" | "rc_TESTING":
                guest.programs += [_program(entry) for entry in _array(value)]
            case "env":
                name, _, content = _leaf(value).partition("=")
                guest.env[name] = content
            case "hostname":
                guest.hostname = _leaf(value)
            case "net":
                if guest.net is not None:
                    raise Panic("currently only 1 net")
                guest.net = _fields(value, {"if", "cloner", "type", "method", "addr", "mask", "gw"})
                if not {"if", "type", "method"} <= guest.net.keys():
                    raise Panic("net cfg missing vital data")
            case "blk":
                entry = _fields(value, {"source", "path", "fstype", "mountpoint"})
                if not {"source", "path"} <= entry.keys() or ("mountpoint" in entry and "fstype" not in entry):
                    raise Panic("blk cfg missing vital data")
                if entry["source"] == "vnd" and any(other["source"] == "vnd" for other in guest.blk):
                    raise Panic("cannot open /dev/rvnd1d")
                guest.blk.append(entry)
            case _:
                raise Panic(f"no match for key {key}")
    if not guest.programs:
        raise Panic("no bins")
    if guest.programs[-1][1] == "|":
        raise Panic("last bin may not output to pipe")
    return guest


def split(text: str) -> list[str]:
    """Split shell-style, as the guest splits ``cmdline``."""
    words: list[str] = []
    word: str | None = None
    quote = ""
    position = 0
    while position < len(text):
        character = text[position]
        position += 1
        if character == "\\":
            word = (word or "") + text[position : position + 1]
            position += 1
        elif quote:
            if character == quote:
                quote = ""
            else:
                word = (word or "") + character
        elif character in "'\"":
            quote, word = character, word or ""
        elif character in " \t\n":
            if word is not None:
                words.append(word)
            word = None
        else:
            word = (word or "") + character
    return words if word is None else [*words, word]


def _program(value) -> tuple[list[str], str]:
    entry = dict(_object(value))
    if not entry.keys() <= {"bin", "argv", "runmode"} or "bin" not in entry:
        raise Panic("unexpected or missing key")
    if "argv" not in entry:
        raise Panic("page fault")
    runmode = _leaf(entry.get("runmode", ""))
    if runmode not in ("", "&", "|") or (runmode == "" and "runmode" in entry):
        raise Panic("invalid runmode")
    return [_leaf(entry["bin"]), *map(_leaf, _array(entry["argv"]))], runmode


def _fields(value, known: set[str]) -> dict[str, str]:
    entry = {key: _leaf(inner) for key, inner in _object(value)}
    if not entry.keys() <= known:
        raise Panic("unexpected key")
    return entry


def _leaf(value) -> str:
    if not isinstance(value, str):
        raise Panic(f"unexpected type: {value!r}")
    return value


def _array(value) -> list:
    if not isinstance(value, list):
        raise Panic("expected an array")
    return value


def _object(value) -> tuple:
    if not isinstance(value, tuple):
        raise Panic("expected an object")
    return value


def _value(text: str):
    """Return a string, a list, or (for an object) a tuple of pairs, and the text after it."""
    text = text.lstrip(" \t\r\n")
    if text.startswith('"'):
        end = 1
        while end < len(text) and text[end] != '"':
            end += 2 if text[end] == "\\" else 1
        if end >= len(text):
            raise Panic("string not closed")
        return text[1:end], text[end + 1 :]
    if text[:1] in ("[", "{"):
        closing, items, rest = ("]" if text[0] == "[" else "}"), [], text[1:]
        while True:
            rest = rest.lstrip(" \t\r\n,")
            if rest.startswith(closing):
                return (items if closing == "]" else tuple(items)), rest[1:]
            if not rest:
                raise Panic("not closed")
            item, rest = _value(rest)
            if closing == "}":
                rest = rest.lstrip(" \t\r\n")
                if not isinstance(item, str) or not rest.startswith(":"):
                    raise Panic("expected a key")
                inner, rest = _value(rest[1:])
                item = (item, inner)
            items.append(item)
    raise Panic(f"jparse failed at {text[:20]!r}")
