"""gce: what Google Compute Engine imports as an image, and the request to do it with.

``disk.raw`` in a tar of the old GNU format in gzip, of whole GiB (docs/facts/formats.md#gce), and beside it the body
of the Compute API's ``images.insert``. Booted from a virtio-scsi (or NVMe) disk by BIOS or UEFI.
"""

from __future__ import annotations

import itertools
import os
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rumpbundle.disk.flat import disk_errors
from rumpbundle.disk.layout import GIB, LayoutReader
from rumpbundle.errors import UsageError
from rumpbundle.events import Advanced
from rumpbundle.formats._cloud import (
    DescribedOptions,
    default_description,
    drivers,
    json_text,
    proven_firmware,
    shell_path,
    write_json,
)
from rumpbundle.formats._contract import Beside, Format, Job, ReadBack, Subformat
from rumpbundle.formats._naming import TextRule, image_name, parse_tags
from rumpbundle.formats._readback import flat_json, members, string
from rumpbundle.host.shell import joined
from rumpbundle.images.records.kitfiles import GCE_DISK
from rumpbundle.kernels.unikernel import Family, Firmware

BUCKET = "BUCKET"
"""Stands for the Cloud Storage bucket the user uploads to: the one placeholder."""

_BLOCK = 64 << 10
_NAME = TextRule(
    what="a GCE image name",
    words="1 to 63 lower-case letters, digits and -; the first a letter, the last no -",
    pattern="[a-z]([-a-z0-9]{0,61}[a-z0-9])?",
    keep="a-z0-9-",
    longest=63,
    lower=True,
)
_LABEL_KEY = TextRule(
    what="a GCE label key",
    words="1 to 63 lower-case letters, digits, _ and -; the first a letter",
    pattern="[a-z][a-z0-9_-]{0,62}",
)
_LABEL = TextRule(
    what="a GCE label",
    words="at most 63 lower-case letters, digits, _ and -",
    pattern="[a-z0-9_-]{0,63}",
)
_BUNDLE = "rumpbundle"
"""The label that holds what a label can of the bundle's digest, where the user describes the image."""
_DESCRIPTION = TextRule(
    what="a GCE image description", words="at most 2048 printable characters", pattern=r".{0,2048}"
)


class GceOptions(DescribedOptions):
    """The options of Google's kit."""


def _write_kit(job: Job, directory: Path) -> None:
    from rumpbundle.formats._gzip_member import gzip_member

    body = _body(job)
    archive, request = (directory / path.name for path in FORMAT.files(job.output))
    with disk_errors():
        with archive.open("xb") as out, LayoutReader(job.layout) as reader:
            out.writelines(gzip_member(_tar(job, reader), job.jobs))
        write_json(request, body)


def _tar(job: Job, reader: LayoutReader) -> Iterator[bytes | int]:
    """Yield the archive's bytes in order, runs of zeros as their length.

    They are those of ``tar --format=oldgnu --owner=0 --group=0 --numeric-owner --mode=0644 --mtime=@0``.
    """
    info = tarfile.TarInfo(GCE_DISK)
    info.size = job.layout.size
    yield info.tobuf(tarfile.GNU_FORMAT)
    position = 0
    for index, block in reader.blocks(_BLOCK):
        if index * _BLOCK > position:
            yield index * _BLOCK - position
        yield block
        job.report(Advanced(job.label, len(block)))
        position = (index + 1) * _BLOCK
    end = tarfile.BLOCKSIZE + job.layout.size
    padded = -(-(end + 2 * tarfile.BLOCKSIZE) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE
    yield padded - tarfile.BLOCKSIZE - position


def _body(job: Job) -> dict[str, Any]:
    """Return the body of ``images.insert`` (``POST …/projects/PROJECT/global/images``)."""
    options: DescribedOptions = job.options
    name = image_name(job.bundle, _NAME)
    body: dict[str, Any] = {
        "name": name,
        "description": _DESCRIPTION.checked(options.description, "--description")
        or default_description(name, job.bundle),
        "architecture": "X86_64",
        "sourceType": "RAW",
        "rawDisk": {
            "source": f"https://storage.googleapis.com/{BUCKET}/{quote(os.fsencode(job.output.name))}",
            "containerType": "TAR",
        },
        "guestOsFeatures": [{"type": feature} for feature in _features(job)],
    }
    labels = parse_tags(options.tag, _LABEL_KEY, _LABEL, 63)  # of the 64 GCE takes, one is ours
    if options.description:
        # Without it in the description nothing else tells whether archive and request belong together.
        if _BUNDLE in labels:
            raise UsageError("is the label with the bundle's digest", where=f"--tag {_BUNDLE}")
        labels[_BUNDLE] = job.bundle.identity.digest[:63]
    return body | ({"labels": labels} if labels else {})


def _features(job: Job) -> Iterator[str]:
    """Yield what the guest can do: each is a promise about its drivers."""
    found = drivers(job.bundle, "gce", job.options)
    if Firmware.UEFI in proven_firmware(job.bundle):
        yield "UEFI_COMPATIBLE"
    if "gvnic" in found:
        yield "GVNIC"
    # rumprun's vioscsi has one queue; Linux's driver has had several since 3.17.
    if "virtio-scsi" in found and job.bundle.kernel.family is Family.LINUX:
        yield "VIRTIO_SCSI_MULTIQUEUE"


def _candidates(_: Job, there: Mapping[str, str]) -> Iterator[GceOptions]:
    labels = members(there, "$.labels")
    others = {key: value for key, value in labels.items() if key != _BUNDLE}
    description = string(there, "$.description")
    drivers = ((), ("gvnic",), ("virtio-scsi",), ("gvnic", "virtio-scsi"))
    # With a description of the user's a label holds the digest; without, there may be one of that name all the same.
    for (words, tags), driver in itertools.product((("", labels), (description, others)), drivers):
        yield GceOptions(description=words, tag=tuple(map("=".join, tags.items())), driver=driver)


def _commands(job: Job) -> tuple[str, ...]:
    body = _body(job)
    archive, _ = FORMAT.files(job.output)
    target = f"gs://{BUCKET}/{archive.name}"
    create = ["gcloud", "compute", "images", "create", body["name"], f"--source-uri={target}"]
    create += [f"--description={body['description']}", f"--architecture={body['architecture']}"]
    if features := ",".join(feature["type"] for feature in body["guestOsFeatures"]):
        create.append(f"--guest-os-features={features}")
    if labels := ",".join(f"{key}={value}" for key, value in body.get("labels", {}).items()):
        create.append(f"--labels={labels}")
    run = ["gcloud", "compute", "instances", "create", body["name"], f"--image={body['name']}", "--zone=ZONE"]
    run += ["--machine-type=e2-small", "--metadata=serial-port-enable=TRUE"]
    output = ["gcloud", "compute", "instances", "get-serial-port-output", body["name"], "--zone=ZONE"]
    return (
        f"# put your bucket for {BUCKET} and your zone for ZONE",
        *map(joined, (["gcloud", "storage", "cp", shell_path(archive), target], create, run, output)),
    )


FORMAT = Format(
    name="gce",
    suffix=".gce.tar.gz",
    summary="Google Compute Engine: disk.raw in a tar.gz and the images.insert request",
    targets=("gce",),
    product=Beside(_write_kit, (".gce.json",)),
    commands=_commands,
    options=GceOptions,
    read_back=ReadBack(
        file="",
        text=lambda job: json_text(_body(job)),
        places=flat_json,
        candidates=_candidates,
        decides={
            "description": rf"^\$\.(description|labels|labels\.{_BUNDLE})$",
            "tag": r"^\$\.labels\b",
            "driver": r"^\$\.guestOsFeatures\b",
        },
        filled=r"^\$\.rawDisk\.source$",
    ),
    align=GIB,
    subformats=(Subformat(largest=64 << 40),),
    check=_body,
)
