"""A configuration as a file: clean JSON, or rumprun's own dialect, with errors that name the place."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from rumpbundle.config.jsontext import Document, Node
from rumpbundle.config.model import Block, Config, Network, Program
from rumpbundle.errors import nearest


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
        problem, path, hint = explained(str(error))
        raise document.error(problem, root.at(path).offset, path, hint) from None


def explained(message: str) -> tuple[str, str, str | None]:
    """Return what msgspec says as (problem, JSON path, hint)."""
    # A key or a value of the user's may read like a path; the last one is msgspec's own, which the root has none of.
    told = re.fullmatch(r"(.*) - at `(\$(?:\.\w+|\[(?:\d+|\.\.\.)\])+)`", message, re.DOTALL)
    problem, path = told.groups() if told else (message, "$")
    if match := re.match(r"(\.[\w.\[\]]+): (.*)", problem, re.DOTALL):
        return match[2], path + match[1], None
    if match := re.fullmatch(r"Object contains unknown field `(.*)`", problem, re.DOTALL):
        known = _fields(path)
        return "unknown key", f"{path}.{match[1]}", nearest(match[1], known, f"known keys: {', '.join(known)}")
    if match := re.fullmatch(r"Object missing required field `(.*)`", problem):
        return f"the key {match[1]!r} is missing", path, None
    if match := re.fullmatch(r"Invalid enum value '(.*)'", problem, re.DOTALL):
        known = _choices(path)
        return f"expected {' or '.join(known)}, got {match[1]!r}", path, nearest(match[1], known)
    if re.fullmatch(r"Expected `int.*`, got `float`", problem):
        return "expected a whole number, without a point or an exponent", path, None
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
    holder = _ENTRIES.get(match[1], Config) if match else Config
    return [field.encode_name for field in msgspec.structs.fields(holder)]


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
        if key == "$schema" and node.kind == "string":
            continue  # for editors
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
