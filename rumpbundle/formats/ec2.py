"""ec2: a volume for Amazon EC2 and the exact requests that make it a snapshot and a machine image.

``volume.raw`` is the disk, sparse, of whole GiB. It becomes a snapshot through the EBS direct APIs (``coldsnap``,
or the plan in the manifest) or, by way of S3, through ImportSnapshot; RegisterImage makes the snapshot an AMI.
``--subformat stream`` adds ``volume.vmdk``, a streamOptimized VMDK, to upload less for ImportSnapshot.
Facts: facts/formats.md §1. The requests are typed with boto3-stubs and checked in the tests against botocore's
models; boto3 itself is never imported.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rumpbundle import __version__
from rumpbundle.ebs import BLOCK, SnapshotPlan, base64, plan_snapshot
from rumpbundle.errors import UsageError
from rumpbundle.events import Finished, Started
from rumpbundle.flat import disk_errors, write_flat
from rumpbundle.formats import Format, Job, option
from rumpbundle.formats._cloud import (
    DescribedOptions,
    check_size,
    default_description,
    drivers,
    proven_firmware,
    shell_path,
)
from rumpbundle.formats._naming import TextRule, image_name, parse_tags
from rumpbundle.layout import GIB
from rumpbundle.unikernel import Firmware

if TYPE_CHECKING:
    from mypy_boto3_ebs.type_defs import CompleteSnapshotRequestTypeDef, StartSnapshotRequestTypeDef
    from mypy_boto3_ec2.literals import BootModeValuesType
    from mypy_boto3_ec2.type_defs import (
        ImportSnapshotRequestTypeDef,
        ImportVolumeRequestTypeDef,
        RegisterImageRequestTypeDef,
        TagTypeDef,
    )

LARGEST = 65536 * GIB
"""A gp3 volume's most."""
ROOT_DEVICE = "/dev/xvda"
SNAPSHOT_ID = "snap-00000000000000000"
BUCKET = "BUCKET"
AVAILABILITY_ZONE = "AVAILABILITY_ZONE"
IMPORT_MANIFEST_URL = "https://BUCKET.s3.amazonaws.com/IMPORT_MANIFEST.xml"

_HASHING = "ec2: hashing"
_NAME = TextRule(
    what="an AMI name",
    words="3 to 128 letters, digits, blanks and ( ) [ ] . / - ' @ _",
    pattern=r"[A-Za-z0-9()\[\] ./'@_-]{3,128}",
    keep=r"A-Za-z0-9()\[\] ./'@_-",
    longest=128,
)
_DESCRIPTION = TextRule(
    what="an EC2 description", words="at most 255 printable characters", pattern=r"[^\x00-\x1f\x7f]{0,255}"
)
_TAG_KEY = TextRule(
    what="an EC2 tag key",
    words="1 to 127 printable characters that do not begin with aws:",
    pattern=r"(?i:(?!aws:))[^\x00-\x1f\x7f]{1,127}",
)
_TAG = TextRule(what="an EC2 tag value", words="at most 255 printable characters", pattern=r"[^\x00-\x1f\x7f]{0,255}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ec2Options(DescribedOptions):
    """What only the user knows."""

    imds_v2: bool = option(False, "say that the guest speaks IMDSv2: instances get no IMDSv1 (ImdsSupport)")
    tpm: bool = option(False, "say that the guest drives a TPM 2.0 (TpmSupport); for images that boot by UEFI only")
    whole_sha256: bool = option(
        False, "give the SHA-256 of volume.raw even if more than 1 GiB of it are zeros (0.6 s a GiB)"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Texts:
    """The user's words, checked."""

    name: str
    description: str
    tags: dict[str, str]

    @classmethod
    def of(cls, job: Job) -> _Texts:
        name = image_name(job.bundle, _NAME)
        description = _DESCRIPTION.checked(job.options.description, "--description")
        return cls(
            name=name,
            description=description or default_description(name, job.bundle),
            tags=parse_tags(job.options.tag, _TAG_KEY, _TAG, 50),
        )

    @property
    def ec2_tags(self) -> list[TagTypeDef]:
        return [{"Key": key, "Value": value} for key, value in self.tags.items()]


def _write_kit(job: Job, directory: Path) -> None:
    check_size(job.layout.size, LARGEST, "EBS")
    texts = _Texts.of(job)
    register = _register_image(job, texts)
    files: dict[str, dict[str, Any]] = {}
    with disk_errors():
        with (directory / "volume.raw").open("xb") as out:
            write_flat(job.layout, out.fileno(), job.report, "ec2")
        job.report(Started(_HASHING, job.layout.payload))
        plan = plan_snapshot(
            job.layout, jobs=job.jobs, whole=job.options.whole_sha256, report=job.report, label=_HASHING
        )
        job.report(Finished(_HASHING))
        files["volume.raw"] = _described(job, plan)
        if job.subformat == "stream":
            files["volume.vmdk"] = _write_vmdk(job, directory / "volume.vmdk")
    parts = {
        "import_snapshot": _import_snapshot(job, texts),
        "register_image": register,
        "import_volume": _import_volume(job, texts, files),
        "ebs_direct": {
            "start_snapshot": _start_snapshot(job, texts),
            "put_snapshot_blocks": None,
            "complete_snapshot": _complete_snapshot(plan),
        },
        "files": files,
        "bundle": _bundle(job),
        "placeholders": PLACEHOLDERS,
    }
    with disk_errors(), (directory / "manifest.json").open("x", encoding="ascii", newline="\n") as manifest:
        manifest.writelines(_json(parts, plan))


def _described(job: Job, plan: SnapshotPlan) -> dict[str, Any]:
    """Return what ``files`` says of the volume.

    Its content is always pinned by the LINEAR checksum; ``sha256`` is left out where it would cost far more than
    the content (:data:`rumpbundle.ebs.HASHED_ZEROS`), never replaced by something else.
    """
    described: dict[str, Any] = {"size": job.layout.size}
    if plan.disk_sha256 is not None:
        described["sha256"] = plan.disk_sha256
    described["blocks"] = {
        "block_size": BLOCK,
        "not_zero": len(plan.blocks),
        "sha256_of_block_sha256s": plan.linear.hex(),
    }
    return described


def _write_vmdk(job: Job, path: Path) -> dict[str, Any]:
    """Write the stream-optimised VMDK and return what ``files`` says of it."""
    from rumpbundle.formats.vmdk import write_stream

    digest = hashlib.sha256()
    with path.open("xb") as out:

        def write(data: bytes) -> None:
            digest.update(data)
            out.write(data)

        write_stream(job, path.name, write, "ec2: vmdk")
        return {"size": out.tell(), "sha256": digest.hexdigest()}


def _upload(job: Job) -> tuple[str, str]:
    """Return the file to upload to S3, and its format as the import calls name it."""
    return ("volume.vmdk", "VMDK") if job.subformat == "stream" else ("volume.raw", "RAW")


def _s3_key(job: Job) -> str:
    """Return the object's key: by the bundle's digest, so that two bundles never overwrite each other's upload."""
    name, _ = _upload(job)
    return f"{job.bundle.identity.digest[:16]}-{name}"


def _import_snapshot(job: Job, texts: _Texts) -> ImportSnapshotRequestTypeDef:
    _, kind = _upload(job)
    request: ImportSnapshotRequestTypeDef = {
        "Description": texts.description,
        "DiskContainer": {
            "Description": texts.description,
            "Format": kind,
            "UserBucket": {"S3Bucket": BUCKET, "S3Key": _s3_key(job)},
        },
    }
    if texts.tags:
        request["TagSpecifications"] = [{"ResourceType": "import-snapshot-task", "Tags": texts.ec2_tags}]
    return request


def _register_image(job: Job, texts: _Texts) -> RegisterImageRequestTypeDef:
    options: Ec2Options = job.options
    mode = _boot_mode(proven_firmware(job.bundle))
    request: RegisterImageRequestTypeDef = {
        "Name": texts.name,
        "Description": texts.description,
        "Architecture": "x86_64",  # the default is i386
        "VirtualizationType": "hvm",  # the default is paravirtual
        "BootMode": mode,
        "EnaSupport": "ena" in drivers(job.bundle, "ec2", options),
        "RootDeviceName": ROOT_DEVICE,
        "BlockDeviceMappings": [
            {
                "DeviceName": ROOT_DEVICE,
                "Ebs": {
                    "SnapshotId": SNAPSHOT_ID,
                    "VolumeSize": job.layout.size // GIB,
                    "VolumeType": "gp3",
                    "DeleteOnTermination": True,
                },
            }
        ],
    }
    if options.imds_v2:
        request["ImdsSupport"] = "v2.0"
    if options.tpm:
        if mode != "uefi":
            raise UsageError(
                f"EC2 gives a TPM to images of boot mode uefi only; this one has {mode}",
                where="--tpm",
                hint="make the image with --firmware uefi",
            )
        request["TpmSupport"] = "v2.0"
    if texts.tags:
        request["TagSpecifications"] = [
            {"ResourceType": kind, "Tags": texts.ec2_tags} for kind in ("image", "snapshot")
        ]
    return request


def _boot_mode(firmwares: frozenset[Firmware]) -> BootModeValuesType:
    if firmwares == {Firmware.BIOS, Firmware.UEFI}:
        return "uefi-preferred"
    return "uefi" if Firmware.UEFI in firmwares else "legacy-bios"


def _import_volume(job: Job, texts: _Texts, files: dict[str, dict[str, Any]]) -> ImportVolumeRequestTypeDef:
    name, kind = _upload(job)
    return {
        "AvailabilityZone": AVAILABILITY_ZONE,
        "Description": texts.description,
        "Image": {
            "Bytes": files[name]["size"],
            "Format": "VMDK" if kind == "VMDK" else "RAW",
            "ImportManifestUrl": IMPORT_MANIFEST_URL,
        },
        "Volume": {"Size": job.layout.size // GIB},
    }


def _start_snapshot(job: Job, texts: _Texts) -> StartSnapshotRequestTypeDef:
    request: StartSnapshotRequestTypeDef = {
        "VolumeSize": job.layout.size // GIB,
        "Description": texts.description,
        "Timeout": 60,  # minutes; the default
    }
    if texts.tags:
        request["Tags"] = texts.ec2_tags
    return request


def _complete_snapshot(plan: SnapshotPlan) -> CompleteSnapshotRequestTypeDef:
    return {
        "SnapshotId": SNAPSHOT_ID,
        "ChangedBlocksCount": len(plan.blocks),
        "Checksum": base64(plan.linear),
        "ChecksumAlgorithm": "SHA256",
        "ChecksumAggregationMethod": "LINEAR",
    }


def _bundle(job: Job) -> dict[str, Any]:
    bundle = job.bundle
    return {
        "name": bundle.name,
        "digest": bundle.identity.digest,
        "rumpbundle": __version__,
        "family": bundle.kernel.family,
        "boot": {str(firmware): str(protocol) for firmware, protocol in sorted(bundle.boot.items())},
    }


PLACEHOLDERS = [
    {
        "name": "snapshot id",
        "value": SNAPSHOT_ID,
        "in": [
            "$.register_image.BlockDeviceMappings[0].Ebs.SnapshotId",
            "$.ebs_direct.complete_snapshot.SnapshotId",
        ],
        "is": "the snapshot's id, from ImportSnapshot's task or from StartSnapshot",
    },
    {
        "name": "bucket",
        "value": BUCKET,
        "in": ["$.import_snapshot.DiskContainer.UserBucket.S3Bucket"],
        "is": "your S3 bucket, which the vmimport role may read",
    },
    {
        "name": "availability zone",
        "value": AVAILABILITY_ZONE,
        "in": ["$.import_volume.AvailabilityZone"],
        "is": "where the volume is to be",
    },
    {
        "name": "import manifest",
        "value": IMPORT_MANIFEST_URL,
        "in": ["$.import_volume.Image.ImportManifestUrl"],
        "is": "the signed URL of the manifest with the parts you uploaded, for ImportVolume only",
    },
]
"""What only the user's account can tell. The values pass the API's own patterns: a request can be checked whole."""


def _json(parts: dict[str, Any], plan: SnapshotPlan) -> Iterator[str]:
    """Yield the manifest; the blocks, of which a large volume has 10^5, are one line each and made one by one."""
    hole = '"put_snapshot_blocks": null'
    head, tail = json.dumps(parts, indent=1).split(hole)
    yield head + '"put_snapshot_blocks": ['
    separator = "\n   "
    for block in plan.blocks:
        entry = {
            "BlockIndex": block.index,
            "DataLength": BLOCK,
            "Checksum": base64(block.sha256),
            "ChecksumAlgorithm": "SHA256",
        }
        yield separator + json.dumps(entry)
        separator = ",\n   "
    yield "\n  ]" + tail + "\n"


def _commands(job: Job) -> tuple[str, ...]:
    texts = _Texts.of(job)
    register = json.dumps(_register_image(job, texts))
    name, _ = _upload(job)
    request = json.dumps(_import_snapshot(job, texts))
    coldsnap = ["coldsnap", "upload", "--wait", f"--volume-size={job.layout.size // GIB}"]
    coldsnap += [f"--description={texts.description}", shell_path(job.output / "volume.raw")]
    s3 = ["aws", "s3", "cp", shell_path(job.output / name), f"s3://{BUCKET}/{_s3_key(job)}"]
    wait = ["aws", "ec2", "wait", "snapshot-imported", "--import-task-ids=IMPORT_TASK_ID"]
    show = ["aws", "ec2", "describe-import-snapshot-tasks", "--import-task-ids=IMPORT_TASK_ID"]
    show += ["--query=ImportSnapshotTasks[0].SnapshotTaskDetail.SnapshotId", "--output=text"]
    run = ["aws", "ec2", "run-instances", "--image-id=IMAGE_ID", "--instance-type=INSTANCE_TYPE"]
    console = ["aws", "ec2", "get-console-output", "--latest", "--instance-id=INSTANCE_ID", "--output=text"]
    lines: Iterable[str | list[str]] = (
        "# either straight into a snapshot (EBS direct APIs), which prints its id:",
        coldsnap,
        f"# or through S3; put your bucket for {BUCKET} and the id import-snapshot prints for IMPORT_TASK_ID:",
        s3,
        ["aws", "ec2", "import-snapshot", "--cli-input-json", request],
        wait,
        show,
        f"# then make an image and run it; put the snapshot's id for {SNAPSHOT_ID}:",
        ["aws", "ec2", "register-image", "--cli-input-json", register],
        run,
        console,
    )
    return tuple(line if isinstance(line, str) else shlex.join(line) for line in lines)


FORMAT = Format(
    name="ec2",
    suffix=".ec2/",
    summary="Amazon EC2: a volume and a manifest with the requests that import and register it",
    targets=("ec2",),
    write_kit=_write_kit,
    commands=_commands,
    options=Ec2Options,
    align=GIB,
    subformats=("raw", "stream"),
)
