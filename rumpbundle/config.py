"""The configuration: one strict, typed value for every guest, and the ways a user can write it.

Clean JSON (docs/config.md, docs/config.schema.json), rumprun's own dialect as its old tool wrote it
(facts/guests.md), and options on the command line all end in one :class:`Config`. What a particular guest cannot
be told is for its module in :mod:`rumpbundle.guests` to refuse.

msgspec takes 40 ms to import, so this module is imported only where a configuration is given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Any
from typing import Literal as OneOf

import msgspec
from msgspec import Meta, Struct

from rumpbundle.errors import ConfigError, UsageError
from rumpbundle.jsontext import Document, Node

SCHEMA_ID = "https://json-schema.org/draft/2020-12/schema"


def described(text: str) -> Meta:
    return Meta(description=text)


class Program(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A program that runs; of several, the Nth entry is the Nth one baked into the unikernel."""

    bin: Annotated[str, described("the program's name, its argv[0]")]
    argv: Annotated[tuple[str, ...], described("its arguments, without the name")] = ()
    runmode: Annotated[
        OneOf["", "&", "|"], described("& runs it in the background, | pipes its output to the next")
    ] = ""

    def __post_init__(self) -> None:
        if not self.bin:
            raise ValueError(".bin: expected a name, got an empty string")


class Network(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, rename={"interface": "if"}):
    """A network interface."""

    interface: Annotated[str, described("the guest's name for it: vioif0, wm0, xenif0, eth0")]
    type: Annotated[OneOf["inet", "inet6"], described("IPv4 or IPv6")]
    method: Annotated[OneOf["dhcp", "static", "auto"], described("dhcp (IPv4), auto (IPv6), or static")]
    addr: Annotated[str | None, described("static: the interface's address")] = None
    mask: Annotated[
        int | None, Meta(description="static: the prefix length", extra_json_schema={"minimum": 0, "maximum": 128})
    ] = None
    gw: Annotated[str | None, described("static: the default gateway")] = None
    cloner: Annotated[bool, described("rumprun on Xen PV: the guest creates the interface")] = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9._:-]{1,32}", self.interface):
            raise ValueError(f".if: expected an interface name, got {self.interface!r}")
        if self.method == ("auto" if self.type == "inet" else "dhcp"):
            right = "dhcp or static" if self.type == "inet" else "auto or static"
            raise ValueError(f".method: {self.type} takes {right}, got {self.method}")
        if self.method != "static":
            for name in ("addr", "mask", "gw"):
                if getattr(self, name) is not None:
                    raise ValueError(f".{name}: only method static takes it, here it is {self.method}")
            return
        for name in ("addr", "mask"):
            if getattr(self, name) is None:
                raise ValueError(f".{name}: missing, method static needs it")
        bits = 32 if self.type == "inet" else 128
        if self.mask is not None and not 0 <= self.mask <= bits:
            raise ValueError(f".mask: expected a prefix length 0-{bits}, got {self.mask}")
        for name in ("addr", "gw"):
            text = getattr(self, name)
            if text is not None:
                _check_address(text, 4 if self.type == "inet" else 6, name)


class Block(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A block device, and where it is mounted."""

    source: Annotated[
        OneOf["dev", "vnd", "etfs"], described("dev: a disk; vnd: an image file; etfs: a disk on Xen PV")
    ]
    path: Annotated[str, described("the guest's name for it: /dev/ld0a, images/data.iso, xvda")]
    fstype: Annotated[OneOf["blk", "kernfs"], described("blk: whatever file system is found there")] = "blk"
    mountpoint: Annotated[str | None, described("the directory it is mounted on; made if missing")] = None

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError(".path: expected a device or file name, got an empty string")
        if self.mountpoint is not None and not self.mountpoint.startswith("/"):
            raise ValueError(f".mountpoint: expected an absolute path, got {self.mountpoint!r}")


class Config(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a guest is told."""

    cmdline: Annotated[
        str | None, described("program and arguments in one string, split at blanks outside quotes; instead of rc")
    ] = None
    rc: Annotated[tuple[Program, ...], described("the programs that run, in the order they were baked in")] = ()
    env: Annotated[dict[str, str], described("environment variables")] = {}
    hostname: Annotated[str | None, described("the machine's name")] = None
    net: Annotated[tuple[Network, ...], described("network interfaces")] = ()
    blk: Annotated[tuple[Block, ...], described("block devices and mounts")] = ()

    def __post_init__(self) -> None:
        if self.cmdline is not None and self.rc:
            raise ValueError(".cmdline: stands in for rc, give one of the two")
        if self.cmdline is not None and not self.cmdline.strip():
            raise ValueError(".cmdline: expected a program and its arguments, got an empty string")
        if self.hostname is not None and not re.fullmatch(r"[A-Za-z0-9._-]{1,255}", self.hostname):
            raise ValueError(f".hostname: expected letters, digits, '.', '_' and '-', got {self.hostname!r}")
        for key in self.env:
            if not re.fullmatch(r"[^=\x00\s]+", key):
                raise ValueError(f".env: expected a variable's name, got {key!r}")
        for position, program in enumerate(self.rc):
            if program.runmode == "|" and position == len(self.rc) - 1:
                raise ValueError(f".rc[{position}].runmode: the last program has no next one to pipe to")
        _refuse_nul(msgspec.to_builtins(self), "")

    def replace(self, **changes: Any) -> Config:
        """Return a copy with *changes*."""
        return msgspec.structs.replace(self, **changes)


def _check_address(text: str, version: int, name: str) -> None:
    import ipaddress  # 9 ms, and few configurations name an address

    try:
        if ipaddress.ip_address(text).version == version:
            return
    except ValueError:
        pass
    raise ValueError(f".{name}: expected an IPv{version} address, got {text!r}")


def _refuse_nul(value: Any, path: str) -> None:
    if isinstance(value, str) and "\0" in value:
        raise ValueError(f"{path}: a NUL character cannot be passed to any guest")
    items = (
        value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    )
    for key, inner in items:
        _refuse_nul(inner, f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}")


def parse(data: bytes, where: str) -> Config:
    """Read a configuration: clean JSON, or rumprun's dialect. *where* names it in errors.

    Raises:
        ConfigError: it is malformed; the message has the JSON path, line and column, and a near miss a hint.
    """
    document = Document(data, where)
    if document.root.kind != "object":
        raise document.error(f"expected an object, got {_article(document.root.kind)}", document.root.offset, "$")
    root = _normalised(document)
    try:
        return msgspec.convert(root.plain(), Config, strict=True)
    except msgspec.ValidationError as error:
        problem, path, hint = _explained(str(error))
        raise document.error(problem, root.at(path).offset, path, hint) from None


def _explained(message: str) -> tuple[str, str, str | None]:
    """Return what msgspec says as (problem, JSON path, hint)."""
    problem, _, path = message.partition(" - at `")
    path = path.rstrip("`") or "$"
    hint = None
    if match := re.match(r"(\.[\w.\[\]]+): (.*)", problem, re.DOTALL):
        return match[2], path + match[1], None
    if match := re.fullmatch(r"Object contains unknown field `(.*)`", problem, re.DOTALL):
        known = _fields(path)
        near = get_close_matches(match[1], known, 1)
        hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}"
        return "unknown key", f"{path}.{match[1]}", hint
    if match := re.fullmatch(r"Object missing required field `(.*)`", problem):
        return f"the key {match[1]!r} is missing", path, None
    if match := re.fullmatch(r"Invalid enum value '(.*)'", problem, re.DOTALL):
        known = _choices(path)
        near = get_close_matches(match[1], known, 1)
        return f"expected {' or '.join(known)}, got {match[1]!r}", path, f"did you mean {near[0]}?" if near else None
    if match := re.fullmatch(r"Expected `(.*)`, got `(.*)`", problem):
        return f"expected {_kinds(match[1])}, got {_kinds(match[2])}", path, None
    return problem[:1].lower() + problem[1:].replace("`", ""), path, None


_KINDS = {"str": "string", "int": "number", "float": "number", "bool": "boolean", "None": "null"}


def _kinds(names: str) -> str:
    kinds = [_KINDS.get(name.strip(), name.strip()) for name in names.split("|")]
    return " or ".join(_article(kind) for kind in kinds if kind != "null" or len(kinds) == 1)


def _article(kind: str) -> str:
    return kind if kind == "null" else f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


_ENTRIES: Mapping[str, type[Struct]] = {"rc": Program, "net": Network, "blk": Block}


def _fields(path: str) -> list[str]:
    """Return the keys that may stand in the object at *path*."""
    match = re.match(r"\$\.(\w+)\[", path)
    return [field.encode_name for field in msgspec.structs.fields(_ENTRIES[match[1]] if match else Config)]


def _choices(path: str) -> list[str]:
    """Return the strings that may stand at *path*, as one would write them."""
    key = path.rpartition(".")[2]
    definitions = msgspec.json.schema(Config)["$defs"].values()
    enums = [properties[key] for entry in definitions if "enum" in (properties := entry["properties"]).get(key, ())]
    return [choice or "''" for choice in enums[0]["enum"]]


def _normalised(document: Document) -> Node:
    """Return the root object in our form, whichever of the two it was written in."""
    members: dict[str, Node] = {}
    repeatable: dict[str, list[Node]] = {}
    for key, node in document.root.value:
        name = "rc" if key == "rc_TESTING" else key
        if (name, node.kind) in (("env", "string"), ("net", "object"), ("blk", "object")):
            # rumprun's dialect: one entry a key, and the key repeated.
            if name in members and name not in repeatable:
                raise document.error("repeated key", node.offset, f"$.{name}", "put all entries into the first")
            repeatable.setdefault(name, []).append(node)
            members[name] = node
        elif name in members:
            raise document.error("repeated key", node.offset, f"$.{name}")
        else:
            _refuse_repeated(document, node, f"$.{name}")
            members[name] = node
    for name, nodes in repeatable.items():
        for index, node in enumerate(nodes):
            _refuse_repeated(document, node, f"$.{name}[{index}]")
        merged = _variables(document, nodes) if name == "env" else Node("array", tuple(nodes), nodes[0].offset)
        members[name] = merged
    if "env" in members and members["env"].kind == "object":
        for key, node in members["env"].value:
            if node.kind != "string":
                hint = "put it in double quotes" if node.kind in ("number", "boolean") else None
                raise document.error(
                    f"expected a string, got {_article(node.kind)}", node.offset, f"$.env.{key}", hint
                )
    if "net" in members and members["net"].kind == "array":
        entries = tuple(_typed(node) for node in members["net"].value)
        members["net"] = Node("array", entries, members["net"].offset)
    return Node("object", tuple(members.items()), document.root.offset)


def _refuse_repeated(document: Document, node: Node, path: str) -> None:
    if node.kind == "object":
        seen = set()
        for key, child in node.value:
            if key in seen:
                raise document.error("repeated key", child.offset, f"{path}.{key}")
            seen.add(key)
            _refuse_repeated(document, child, f"{path}.{key}")
    elif node.kind == "array":
        for index, child in enumerate(node.value):
            _refuse_repeated(document, child, f"{path}[{index}]")


def _variables(document: Document, nodes: Sequence[Node]) -> Node:
    """Return the object that ``"env": "KEY=VALUE"`` entries mean; of one variable the last wins."""
    variables: dict[str, Node] = {}
    for node in nodes:
        key, equals, value = node.value.partition("=")
        if not equals or not key:
            raise document.error(f"expected KEY=VALUE, got {node.value!r}", node.offset, "$.env")
        variables.pop(key, None)
        variables[key] = Node("string", value, node.offset)
    return Node("object", tuple(variables.items()), nodes[0].offset)


def _typed(node: Node) -> Node:
    """Return a ``net`` entry with the number and the boolean that rumprun's dialect writes as strings."""
    if node.kind != "object":
        return node
    members = []
    for key, child in node.value:
        if child.kind == "string" and key == "mask" and re.fullmatch(r"[0-9]{1,9}", child.value):
            child = Node("number", int(child.value), child.offset)
        elif child.kind == "string" and key == "cloner" and child.value in ("true", "false"):
            child = Node("boolean", child.value == "true", child.offset)
        members.append((key, child))
    return Node("object", tuple(members), node.offset)


def network(text: str) -> Network:
    """Read ``--net``: ``IF,inet,dhcp``, ``IF,inet6,auto``, ``IF,inet,static,ADDR/MASK[,GW]``.

    Raises:
        UsageError: it is none of these; ConfigError: a part of it is wrong.
    """
    parts = text.split(",")
    entry: dict[str, Any] = dict(zip(("if", "type", "method"), parts, strict=False))
    rest = parts[3:]
    if len(parts) < 3 or len(rest) > (2 if entry.get("method") == "static" else 0):
        raise UsageError(
            f"expected IF,inet,dhcp or IF,inet6,auto or IF,inet,static,ADDR/MASK[,GW], got {text!r}", where="--net"
        )
    if rest:
        entry["addr"], _, mask = rest[0].partition("/")
        if mask:
            entry["mask"] = int(mask) if mask.isascii() and mask.isdigit() and len(mask) < 10 else mask
    if len(rest) > 1:
        entry["gw"] = rest[1]
    try:
        return msgspec.convert(entry, Network, strict=True)
    except msgspec.ValidationError as error:
        problem, path, hint = _explained(str(error))
        raise ConfigError(f"{path.removeprefix('$.')}: {problem}", where=f"--net {text}", hint=hint) from None


def variable(text: str) -> tuple[str, str]:
    """Read ``-e KEY=VALUE``.

    Raises:
        UsageError: it is not of that form.
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"expected KEY=VALUE, got {text!r}", where="-e")
    return key, value


def combined(
    base: Config | None,
    *,
    program: str,
    env: Sequence[str] = (),
    hostname: str | None = None,
    net: Sequence[str] = (),
    arguments: Sequence[str] = (),
) -> Config:
    """Return *base* (or an empty configuration) with what command line options say.

    Variables and interfaces replace those of the same name; *arguments* are added to the one program's, which is
    called *program* where *base* names none.

    Raises:
        UsageError, ConfigError: an option is malformed, or there are several programs the arguments could be for.
    """
    config = Config() if base is None else base
    changes: dict[str, Any] = {}
    if env:
        changes["env"] = config.env | dict(variable(text) for text in env)
    if hostname is not None:
        changes["hostname"] = hostname
    if net:
        entries = {entry.interface: entry for entry in config.net}
        entries |= {entry.interface: entry for entry in map(network, net)}
        changes["net"] = tuple(entries.values())
    if arguments:
        if len(config.rc) > 1:
            raise UsageError("the configuration runs several programs; give their arguments there", where="--arg")
        if config.cmdline is not None:
            raise UsageError("the configuration has a cmdline; add the arguments there, or use rc", where="--arg")
        only = config.rc[0] if config.rc else Program(bin=program)
        changes["rc"] = (msgspec.structs.replace(only, argv=(*only.argv, *arguments)),)
    try:
        return config.replace(**changes)
    except ValueError as error:
        raise ConfigError(str(error).removeprefix("."), where="command line") from None


def schema() -> dict[str, Any]:
    """Return the JSON Schema of our clean form."""
    return {"$schema": SCHEMA_ID, "title": "rumpbundle configuration"} | msgspec.json.schema(Config)


def schema_text() -> str:
    """Return the schema as docs/config.schema.json holds it."""
    return msgspec.json.format(msgspec.json.encode(schema()), indent=2).decode() + "\n"


def clean_text(config: Config) -> str:
    """Return *config* as clean JSON."""
    return msgspec.json.format(msgspec.json.encode(config), indent=2).decode() + "\n"
