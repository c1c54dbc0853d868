"""The clouds, as far as they can be had without an account: their own machine-readable models, checked in full.

botocore's validator ignores enums, patterns, lengths and maxima; these walks check them. :class:`EbsDirect` does
what the EBS direct APIs document, which moto does not (docs/facts/formats.md#ebs-direct-apis).
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import inspect
import json
import re
from functools import cache
from pathlib import Path

import rumpbundle
from rumpbundle import formats

GIB = 1 << 30


def kit(kernel: Path, output: Path, format: str, *, guest=None, options=None, subformat="", size=0, **recipe):
    """Bundle *kernel* as *format*; *guest* are changes to what its file tells, *options* the format's own.

    Returns what was written and the command lines.
    """
    form = formats.find(format)
    plan = rumpbundle.plan(rumpbundle.Recipe(app=kernel, size=size, **recipe), formats=[form])
    if guest:
        bundle = dataclasses.replace(plan.bundle, kernel=dataclasses.replace(plan.bundle.kernel, **guest))
        plan = dataclasses.replace(plan, bundle=bundle)
    own = form.options(**options) if options else None
    _, commands = rumpbundle.write(plan, form, output, subformat=subformat, options=own)
    return form.files(output), commands


# -- Amazon: botocore's service models ---------------------------------------------------------------------------


@cache
def aws_input(service: str, operation: str):
    import botocore.session

    return botocore.session.Session().get_service_model(service).operation_model(operation).input_shape


def aws_errors(service: str, operation: str, request) -> list[str]:
    """Return everything the model of *operation* has against *request*."""
    return list(_aws(aws_input(service, operation), request, operation))


def _aws(shape, value, at):
    limits = shape.metadata
    kinds = {
        "structure": dict,
        "list": list,
        "string": str,
        "integer": int,
        "long": int,
        "boolean": bool,
        "blob": bytes,
        "double": float,
    }
    kind = kinds[shape.type_name]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        yield f"{at}: {value!r} is no {shape.type_name}"
        return
    measured = value if isinstance(value, int) else len(value)
    if kind is not bool and not limits.get("min", measured) <= measured <= limits.get("max", measured):
        yield f"{at}: {value!r} is not within {limits}"
    if kind is str and "pattern" in limits and not re.search(limits["pattern"], value):
        yield f"{at}: {value!r} does not match {limits['pattern']}"
    if kind is str and getattr(shape, "enum", None) and value not in shape.enum:
        yield f"{at}: {value!r} is none of {shape.enum}"
    if kind is list:
        for number, item in enumerate(value):
            yield from _aws(shape.member, item, f"{at}[{number}]")
    if kind is dict:
        for name in shape.required_members:
            if name not in value:
                yield f"{at}: {name} is missing"
        for name, item in value.items():
            if name not in shape.members:
                yield f"{at}: unknown {name}"
            else:
                yield from _aws(shape.members[name], item, f"{at}.{name}")


class EbsDirect:
    """The EBS direct APIs' strict half: a snapshot is made of what was put, if every promise was kept."""

    BLOCK = 524288

    def __init__(self) -> None:
        self.snapshots: dict[str, dict] = {}

    def start_snapshot(self, **request) -> str:
        assert not aws_errors("ebs", "StartSnapshot", request)
        assert request["VolumeSize"] <= 65536
        name = f"snap-{len(self.snapshots) + 1:017x}"
        self.snapshots[name] = {"size": request["VolumeSize"] * GIB, "blocks": {}, "state": "pending"}
        return name

    def put_snapshot_block(self, **request) -> None:
        assert not aws_errors("ebs", "PutSnapshotBlock", request)
        snapshot, data = self._pending(request["SnapshotId"]), request["BlockData"]
        assert request["DataLength"] == len(data) == self.BLOCK
        assert 0 <= request["BlockIndex"] < snapshot["size"] // self.BLOCK
        assert request["BlockIndex"] not in snapshot["blocks"]
        assert request["ChecksumAlgorithm"] == "SHA256"
        assert base64.b64decode(request["Checksum"], validate=True) == hashlib.sha256(data).digest()
        snapshot["blocks"][request["BlockIndex"]] = data

    def complete_snapshot(self, **request) -> None:
        assert not aws_errors("ebs", "CompleteSnapshot", request)
        snapshot = self._pending(request["SnapshotId"])
        assert request["ChangedBlocksCount"] == len(snapshot["blocks"])
        assert request["ChecksumAlgorithm"] == "SHA256"
        assert request["ChecksumAggregationMethod"] == "LINEAR"
        digests = b"".join(hashlib.sha256(data).digest() for _, data in sorted(snapshot["blocks"].items()))
        assert base64.b64decode(request["Checksum"], validate=True) == hashlib.sha256(digests).digest()
        snapshot["state"] = "completed"

    def blocks(self, name: str):
        """Yield every block of a completed snapshot."""
        snapshot = self.snapshots[name]
        assert snapshot["state"] == "completed"
        zeros = bytes(self.BLOCK)
        for index in range(snapshot["size"] // self.BLOCK):
            yield snapshot["blocks"].get(index, zeros)

    def _pending(self, name: str) -> dict:
        assert self.snapshots[name]["state"] == "pending"
        return self.snapshots[name]


# -- Google: the Compute API's discovery document -----------------------------------------------------------------


@cache
def compute_document():
    import googleapiclient

    path = Path(googleapiclient.__file__).parent / "discovery_cache/documents/compute.v1.json"
    return json.loads(path.read_text("utf-8"))


def gce_errors(schema: str, body) -> list[str]:
    """Return everything the Compute API's document has against *body*, sent as a *schema* to create one."""
    return list(_gce({"$ref": schema}, body, schema))


def _gce(schema, value, at):
    if "$ref" in schema:
        schema = compute_document()["schemas"][schema["$ref"]] | {k: v for k, v in schema.items() if k != "$ref"}
    if schema.get("readOnly") or "[Output Only]" in schema.get("description", ""):
        yield f"{at}: only the server may set it"
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": float}
    if not isinstance(value, kinds[schema["type"]]):
        yield f"{at}: {value!r} is no {schema['type']}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{at}: {value!r} is none of {schema['enum']}"
    if "pattern" in schema and not re.fullmatch(schema["pattern"], value):
        yield f"{at}: {value!r} does not match {schema['pattern']}"
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from _gce(schema["items"], item, f"{at}[{number}]")
    if isinstance(value, dict):
        for name, item in value.items():
            member = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
            if member is None:
                yield f"{at}: unknown {name}"
            else:
                yield from _gce(member, item, f"{at}.{name}")
        for name, member in schema.get("properties", {}).items():
            if "compute.images.insert" in member.get("annotations", {}).get("required", ()) and name not in value:
                yield f"{at}: {name} is missing"


# -- Microsoft: azure-mgmt-compute's models ------------------------------------------------------------------------


def azure_errors(body) -> list[str]:
    """Return everything the model of a managed disk has against *body*, sent to create one."""
    from azure.mgmt.compute import models

    return list(_azure(models.Disk, body, "Disk"))


def _azure(model, body, at):
    import enum
    import typing

    from azure.mgmt.compute import models

    model(body)  # so that the class has made its fields
    fields = {field._rest_name: (name, field) for name, field in model._attr_to_rest_field.items()}
    namespace = vars(models) | {"_models": models, "datetime": __import__("datetime")} | vars(typing)
    for rest_name, value in body.items():
        if rest_name not in fields:
            yield f"{at}: unknown {rest_name}"
            continue
        name, field = fields[rest_name]
        if field._visibility == ["read"]:
            yield f"{at}.{rest_name}: only the server may set it"
        kinds = _azure_kinds(model, name, namespace)
        enums = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, enum.Enum)]
        nested = [kind for kind in kinds if isinstance(kind, type) and hasattr(kind, "_attr_to_rest_field")]
        if enums:
            if value not in [member.value for member in enums[0]]:
                yield f"{at}.{rest_name}: {value!r} is none of {[member.value for member in enums[0]]}"
        elif nested:
            yield from _azure(nested[0], value, f"{at}.{rest_name}")
        elif isinstance(value, dict):
            if not all(isinstance(item, str) for item in (*value, *value.values())):
                yield f"{at}.{rest_name}: expected strings"
        elif type(value) not in kinds:
            yield f"{at}.{rest_name}: {value!r} is none of {kinds}"
    for rest_name, (name, field) in fields.items():
        optional = type(None) in _azure_kinds(model, name, namespace) or field._visibility == ["read"]
        if rest_name not in body and not optional:
            yield f"{at}: {rest_name} is missing"


def _own_annotations(model):
    return {name: kind for base in reversed(model.__mro__) for name, kind in inspect.get_annotations(base).items()}


def _azure_kinds(model, name, namespace):
    import typing

    kind = _own_annotations(model)[name]
    todo, kinds = [kind], []
    while todo:
        kind = todo.pop()
        if isinstance(kind, str):
            kind = eval(kind, namespace)
        if isinstance(kind, typing.ForwardRef):
            kind = eval(kind.__forward_arg__, namespace)
        if typing.get_origin(kind) is typing.Union:
            todo += typing.get_args(kind)
        else:
            kinds.append(kind)
    return kinds
