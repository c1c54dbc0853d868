"""``rumpbundle inspect``: what a kernel or a finished image is, in every layer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from rumpbundle.cli.command import Command
from rumpbundle.cli.long_json import print_json
from rumpbundle.cli.progress import Terminal
from rumpbundle.cli.tables import TableSection, show
from rumpbundle.cli.values import Input, Output
from rumpbundle.errors import UsageError
from rumpbundle.host.overlap import check_apart, inode
from rumpbundle.host.putting import put
from rumpbundle.host.staging import check_free
from rumpbundle.images.filesystem import Entry
from rumpbundle.images.report import ImageReport, inspect
from rumpbundle.images.report.image import Text, VolumeReport
from rumpbundle.kernels.unikernel import Firmware, Unikernel
from rumpbundle.units import shown_size

_FILES = 40
"""Files of a volume shown unless all are asked for."""


@click.command(
    "inspect",
    cls=Command,
    example="rumpbundle inspect app.vmdk --svg app.svg",
    short_help="what a kernel or a finished image is, in every layer",
)
@click.argument("file", type=Input())
@click.option("--json", "as_json", is_flag=True, help="Print everything, machine-readable.")
@click.option(
    "--svg",
    type=Output(file=True),
    help="Draw the image's disk, and its place in the file, to scale into this file.",
)
@click.option("--all", "everything", is_flag=True, help=f"List all files, not the first {_FILES} of a volume.")
@click.option("--force", is_flag=True, help="Overwrite an existing picture.")
def command(file: str, as_json: bool, svg: Path | None, everything: bool, force: bool) -> None:
    """Say what FILE is: of a kernel its protocols, family and drivers; of an image of any format every layer from the
    container to the files.
    """
    if svg is not None:
        check_free(svg, force=force)
        check_apart([svg], [inode(file)])
    with Terminal() as terminal:
        found = inspect(file, terminal, stored=svg is not None)
    if svg is not None:
        if isinstance(found, Unikernel):
            raise UsageError("is a kernel; a picture is drawn of an image", where=file)
        from rumpbundle.images.report.picture import svg as drawn

        put(svg, drawn(found).encode(), force=force)
    if as_json:
        described = _kernel_json(found) if isinstance(found, Unikernel) else _image_json(found)
        print_json(described)
    elif isinstance(found, Unikernel):
        show(list(_kernel(found)))
    else:
        show(list(_image(found, everything)))


# -- a kernel ----------------------------------------------------------------------------------------------


def _starts(kernel: Unikernel) -> dict[str, str]:
    """Return how each firmware starts *kernel*: a protocol, or nothing."""
    return {firmware.value: str(kernel.protocol_for(firmware) or "") for firmware in Firmware}


def _kernel(kernel: Unikernel) -> Iterator[TableSection]:
    facts = [
        ("file", f"{shown_size(kernel.content.size)}, {kernel.executable} for {kernel.machine}"),
        ("compressed", kernel.compression),
        ("family", f"{kernel.family}" + (f", {kernel.target}" if kernel.target else "")),
        ("drivers", ", ".join(sorted(kernel.drivers))),
        ("boots", ", ".join(f"{f.upper()} ({p})" for f, p in _starts(kernel).items() if p)),
        ("refused", kernel.refusal),
        ("advice", kernel.advice),
        ("loads to", _range(kernel.load)),
        ("enters at", "" if kernel.entry is None else f"{kernel.entry:#x}"),
        ("PVH entry", "" if kernel.pvh_entry is None else f"{kernel.pvh_entry:#x}"),
        ("tells Linux", kernel.cmdline),
        ("cmdline", "" if kernel.cmdline_limit is None else f"at most {kernel.cmdline_limit} bytes"),
        ("repaired", "; ".join(kernel.repairs)),
        ("mind", "; ".join(f"it {warning}" for warning in kernel.warnings)),
        ("blake3", kernel.content.digest()),
    ]
    yield TableSection(title=kernel.name, rows=tuple((name, value) for name, value in facts if value))
    if kernel.headers:
        rows = tuple(
            (each.kind, each.detail, f"not usable: {each.flaw}" if each.flaw else "") for each in kernel.headers
        )
        yield TableSection(title="boot headers", rows=rows)
    if kernel.devices:
        yield TableSection(title="devices it asks for", rows=tuple((each.kind, each.name) for each in kernel.devices))
    if kernel.xen_notes:
        yield TableSection(title="Xen notes", rows=tuple((name, _note(value)) for name, value in kernel.xen_notes))
    if kernel.troubles:
        troubles = tuple((f"{each.protocol} under {each.firmware.upper()}", each.reason) for each in kernel.troubles)
        yield TableSection(title="known troubles", rows=troubles)


def _range(load: range | None) -> str:
    return "" if load is None else f"{load.start:#x}-{load.stop:#x} ({shown_size(load.stop - load.start)})"


def _note(value: int | str) -> str:
    return f"{value:#x}" if isinstance(value, int) else value


def _kernel_json(kernel: Unikernel) -> dict[str, Any]:
    return {
        "kind": "kernel",
        "name": kernel.name,
        "size": kernel.content.size,
        "blake3": kernel.content.digest(),
        "executable": kernel.executable,
        "machine": kernel.machine,
        "compression": kernel.compression,
        "family": str(kernel.family),
        "target": kernel.target,
        "drivers": sorted(kernel.drivers),
        "protocols": [str(protocol) for protocol in kernel.protocols],
        "boot": {firmware: protocol or None for firmware, protocol in _starts(kernel).items()},
        "load": None if kernel.load is None else [kernel.load.start, kernel.load.stop],
        "entry": kernel.entry,
        "pvh_entry": kernel.pvh_entry,
        "cmdline": kernel.cmdline,
        "cmdline_limit": kernel.cmdline_limit,
        "headers": [{"kind": each.kind, "detail": each.detail, "flaw": each.flaw} for each in kernel.headers],
        "devices": [{"name": each.name, "kind": each.kind} for each in kernel.devices],
        "xen_notes": dict(kernel.xen_notes),
        "troubles": [
            {"protocol": str(each.protocol), "firmware": str(each.firmware), "reason": each.reason}
            for each in kernel.troubles
        ],
        "repairs": list(kernel.repairs),
        "warnings": list(kernel.warnings),
        "refusal": kernel.refusal,
        "advice": kernel.advice,
    }


# -- an image ----------------------------------------------------------------------------------------------


def _image(image: ImageReport, everything: bool) -> Iterator[TableSection]:
    facts = [("container", image.container), *((name, str(value)) for name, value in image.facts.items())]
    facts += [("file", f"{image.file_size} bytes ({shown_size(image.file_size)})")]
    facts += [("disk", f"{image.disk_size} bytes ({shown_size(image.disk_size)})")]
    yield TableSection(title=image.name, rows=tuple(facts))
    if image.members:
        rows = tuple((str(each.offset), str(each.size), each.name) for each in image.members)
        yield TableSection(title="archive", head=("offset", "bytes", "name"), rows=rows, right=frozenset((0, 1)))
    if image.manifest is not None:
        yield _bundle(image)
    for table in image.tables:
        slots = tuple(
            (
                str(s.number),
                str(s.offset),
                str(s.size),
                s.meaning or s.type,
                s.name,
                "active" if s.active else "",
                s.id,
            )
            for s in table.slots
        )
        head = ("#", "offset", "bytes", "type", "name", "", "id")
        yield TableSection(
            title=f"{table.kind.upper()} {table.id}", head=head, rows=slots, right=frozenset((0, 1, 2))
        )
    yield from (_catalog(volume) for volume in image.volumes if volume.boot_entries)
    for volume in image.volumes:
        yield _volume(volume, everything)
    yield from _texts("boot configuration", image.boot_configs)
    yield from _texts("guest configuration", image.guest_configs)
    if image.flaws:
        yield TableSection(title="problems", text=image.flaws)


def _catalog(volume: VolumeReport) -> TableSection:
    rows = tuple(
        (each.platform, "bootable" if each.bootable else "not bootable", str(each.offset), str(each.size))
        for each in volume.boot_entries
    )
    head = ("firmware", "", "offset", "bytes")
    return TableSection(title="El Torito boot catalog", head=head, rows=rows, right=frozenset((2, 3)))


def _bundle(image: ImageReport) -> TableSection:
    """Return what the manifest says. It comes from a file: nothing in it is as expected until looked at."""
    manifest = image.manifest or {}
    boot = manifest.get("boot")
    kernel = manifest.get("kernel")
    rows = [
        ("digest", image.digest),
        ("name", str(manifest.get("name", ""))),
        ("kernel", str(kernel.get("name", "")) if isinstance(kernel, dict) else ""),
        ("family", str(manifest.get("family", ""))),
        ("boots", ", ".join(f"{str(k).upper()} ({v})" for k, v in boot.items()) if isinstance(boot, dict) else ""),
        ("cmdline", str(manifest.get("cmdline", ""))),
        ("made by", f"rumpbundle {manifest.get('rumpbundle', '?')}"),
    ]
    return TableSection(title="bundle (/rumpbundle.json)", rows=tuple(row for row in rows if row[1]))


def _volume(volume: VolumeReport, everything: bool) -> TableSection:
    label = f" “{volume.label}”" if volume.label else ""
    facts = "".join(f", {name} {value}" for name, value in volume.facts.items())
    title = f"{volume.kind}{label}: {volume.where}, {shown_size(volume.size)}{facts}"
    shown = volume.entries if everything else volume.entries[:_FILES]
    more = len(volume.entries) - len(shown)
    return TableSection(
        title=title,
        rows=tuple(map(_entry, shown)),
        text=(f"… and {more} more (--all)",) if more else (),
        right=frozenset((1,)),
    )


_MARKS = {"file": "-", "directory": "d", "symlink": "l", "special": "?"}


def _entry(entry: Entry) -> tuple[str, str, str]:
    mode = f"{_MARKS[entry.kind]}{entry.mode:04o}" if entry.mode else _MARKS[entry.kind]
    name = f"{entry.path} -> {entry.target}" if entry.kind == "symlink" else entry.path
    return mode, str(entry.size) if entry.kind == "file" else "", name


def _texts(title: str, texts: tuple[Text, ...]) -> Iterator[TableSection]:
    """Yield a section a text; files with the same text share one."""
    paths: dict[str, list[str]] = {}
    for each in texts:
        paths.setdefault(each.text, []).append(each.path)
    for text, where in paths.items():
        said = text.rstrip("#\n")
        if (room := len(text) - len(said)) > 64:
            text = f"{said}\n# {room} bytes of room for another configuration"
        yield TableSection(title=f"{title} ({', '.join(where)})", text=tuple(text.splitlines()))


def _image_json(image: ImageReport) -> dict[str, Any]:
    return {
        "kind": "image",
        "name": image.name,
        "container": {"format": image.container, "bytes": image.file_size, **image.facts},
        "members": [{"name": each.name, "offset": each.offset, "bytes": each.size} for each in image.members],
        "disk": {"bytes": image.disk_size},
        "tables": [
            {
                "kind": table.kind,
                "id": table.id,
                "partitions": [
                    {
                        "number": slot.number, "type": slot.type, "meaning": slot.meaning, "offset": slot.offset,
                        "bytes": slot.size, "name": slot.name, "id": slot.id, "active": slot.active,
                    }
                    for slot in table.slots
                ],
            }
            for table in image.tables
        ],
        "volumes": [_volume_json(volume) for volume in image.volumes],
        "boot_configs": [{"path": each.path, "text": each.text} for each in image.boot_configs],
        "guest_configs": [{"path": each.path, "text": each.text} for each in image.guest_configs],
        "manifest": image.manifest,
        "digest": image.digest or None,
        "problems": list(image.flaws),
    }  # fmt: skip


def _volume_json(volume: VolumeReport) -> dict[str, Any]:
    return {
        "kind": volume.kind,
        "label": volume.label,
        "where": volume.where,
        "offset": volume.offset,
        "bytes": volume.size,
        **volume.facts,
        "boot_catalog": [
            {"firmware": each.platform, "bootable": each.bootable, "offset": each.offset, "bytes": each.size}
            for each in volume.boot_entries
        ],
        "entries": [
            {"path": each.path, "kind": each.kind}
            | ({"bytes": each.size} if each.kind == "file" else {})
            | ({"mode": f"{each.mode:04o}"} if each.mode else {})
            | ({"target": each.target} if each.kind == "symlink" else {})
            | ({"offset": volume.offset + each.spans[0].offset} if each.spans and each.spans[0].offset else {})
            for each in volume.entries
        ],
    }
