"""azure: what Azure takes as a managed disk, and the request that makes one to upload into.

A fixed VHD: the disk, whole MiB, at least 20 of them, and a footer (docs/facts/formats.md#azure); beside it the body
of the Disks API's ``Create Or Update``. Generation 1 boots it by BIOS from IDE, generation 2 by UEFI from SCSI.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from typing import Literal as OneOf

from rumpbundle.disk.flat import disk_errors, write_all, write_flat
from rumpbundle.disk.layout import MIB
from rumpbundle.errors import UsageError
from rumpbundle.formats._cloud import CloudOptions, drivers, json_text, proven_firmware, shell_path, write_json
from rumpbundle.formats._contract import Beside, Format, Job, ReadBack, Standing, Subformat
from rumpbundle.formats._naming import TextRule, image_name, parse_tags
from rumpbundle.formats._readback import flat_json, members
from rumpbundle.host.shell import joined, quoted
from rumpbundle.images.records import vhd
from rumpbundle.kernels.unikernel import Firmware

LOCATION = "LOCATION"
"""Stands for the Azure region: the one placeholder of the request."""

_NAME = TextRule(
    what="an Azure disk name",
    words="1 to 80 letters, digits, _ . and -; the first a letter or digit, the last one of these or _",
    pattern="[A-Za-z0-9]([A-Za-z0-9_.-]{0,78}[A-Za-z0-9_])?",
    keep="A-Za-z0-9_.-",
    longest=80,
)
_TAG_KEY = TextRule(
    what="an Azure tag name",
    words="1 to 512 printable characters without < > % & \\ ? /",
    pattern=r"[^<>%&\\?/]{1,512}",
)
_BUNDLE = "rumpbundle"
"""The tag that holds the bundle's digest."""
_TAG = TextRule(what="an Azure tag value", words="at most 256 printable characters", pattern=r".{0,256}")


class AzureOptions(CloudOptions):
    """The options of Azure's kit."""


def _write_kit(job: Job, directory: Path) -> None:
    disk, request = (directory / path.name for path in FORMAT.files(job.output))
    with disk_errors(), disk.open("x+b") as out:
        write_flat(job.layout, out.fileno(), job.report, job.label)
        footer = vhd.footer(job.layout.size, job.layout.identity.uuid("vhd-fixed").bytes, job.epoch)
        write_all(out.fileno(), footer.pack(), job.layout.size)
    with disk_errors():
        write_json(request, _request(job))


def _texts(job: Job, _: Standing) -> dict[str, bytes]:
    return {FORMAT.files(job.output)[1].name: json_text(_request(job))}


def _generation(job: Job) -> OneOf["V1", "V2"]:
    """Return Hyper-V's generation: 2 where UEFI is announced (newer machine sizes have nothing else), else 1."""
    return "V2" if Firmware.UEFI in proven_firmware(job.bundle) else "V1"


def _body(job: Job) -> dict[str, Any]:
    """Return the body of ``PUT …/providers/Microsoft.Compute/disks/NAME``."""
    options: CloudOptions = job.options
    image_name(job.bundle, _NAME)
    body: dict[str, Any] = {
        "location": LOCATION,
        "sku": {"name": "Standard_LRS"},
        "properties": {
            # "Linux" is the API's word for everything that is not Windows.
            "osType": "Linux",
            "hyperVGeneration": _generation(job),
            "creationData": {"createOption": "Upload", "uploadSizeBytes": job.layout.size + vhd.Footer.SIZE},
            "supportedCapabilities": {
                "architecture": "x64",
                # What accelerated networking shows the guest: an mlx5 or a mana card besides netvsc.
                "acceleratedNetwork": bool({"mlx5", "mana"} & drivers(job.bundle, "azure", options)),
            },
        },
    }
    tags = parse_tags(options.tag, _TAG_KEY, _TAG, 49)  # of the 50 Azure takes, one is ours
    if _BUNDLE in tags:
        raise UsageError("is the tag with the bundle's digest", where=f"--tag {_BUNDLE}")
    return body | {"tags": tags}


def _request(job: Job) -> dict[str, Any]:
    """Return the body with the bundle's digest, which tells whether disk and request belong together."""
    body = _body(job)
    return body | {"tags": body["tags"] | {_BUNDLE: job.bundle.identity.digest}}


def _candidates(_: Job, there: Mapping[str, str]) -> Iterator[AzureOptions]:
    tags = members(there, "$.tags")
    tags.pop(_BUNDLE, None)
    for driver in ((), ("mlx5",)):
        yield AzureOptions(tag=tuple(map("=".join, tags.items())), driver=driver)


def _commands(job: Job) -> tuple[str, ...]:
    body = _request(job)
    name = image_name(job.bundle, _NAME)
    disk, _ = FORMAT.files(job.output)
    generation = body["properties"]["hyperVGeneration"]
    size = body["properties"]["creationData"]["uploadSizeBytes"]
    create = ["az", "disk", "create", "--resource-group=GROUP", f"--name={name}", f"--location={LOCATION}"]
    create += ["--os-type=Linux", f"--hyper-v-generation={generation}", "--architecture=x64", "--sku=Standard_LRS"]
    create += ["--upload-type=Upload", f"--upload-size-bytes={size}"]
    create += ["--tags", *(f"{key}={value}" for key, value in body["tags"].items())]
    grant = ["az", "disk", "grant-access", "--resource-group=GROUP", f"--name={name}", "--access-level=Write"]
    grant += ["--duration-in-seconds=86400", "--query=accessSas", "--output=tsv"]
    revoke = ["az", "disk", "revoke-access", "--resource-group=GROUP", f"--name={name}"]
    run = ["az", "vm", "create", "--resource-group=GROUP", f"--name={name}", f"--attach-os-disk={name}"]
    # An unsigned GRUB does not pass the Secure Boot of the default, Trusted Launch.
    run += ["--os-type=Linux", "--size=Standard_B1s", "--security-type=Standard"]
    watch = ["az", "vm", "boot-diagnostics", "enable", "--resource-group=GROUP", f"--name={name}"]
    log = ["az", "vm", "boot-diagnostics", "get-boot-log", "--resource-group=GROUP", f"--name={name}"]
    return (
        f"# put your resource group for GROUP and your region for {LOCATION}",
        joined(create),
        f'sas="$({joined(grant)})"',
        f'azcopy copy {quoted(shell_path(disk))} "$sas" --blob-type PageBlob',
        *map(joined, (revoke, run, watch, log)),
    )


FORMAT = Format(
    name="azure",
    suffix=".azure.vhd",
    summary="Azure: fixed VHD and the request for a disk to upload it into",
    targets=("azure",),
    product=Beside(_write_kit, (".azure.json",), _texts),
    commands=_commands,
    options=AzureOptions,
    read_back=ReadBack(
        file="",
        text=lambda job: json_text(_request(job)),
        places=flat_json,
        candidates=_candidates,
        decides={"tag": rf"^\$\.tags(?!\.{_BUNDLE}$)", "driver": r"\.acceleratedNetwork$"},
        filled=r"^\$\.location$",
    ),
    align=MIB,
    least=20 * MIB,
    subformats=(Subformat(largest=32 << 40),),
    check=_body,
)
