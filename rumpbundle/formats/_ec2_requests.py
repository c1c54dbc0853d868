"""The requests to Amazon EC2 and EBS, as values: typed with boto3-stubs, checked in the tests by botocore's models.

boto3 itself is never imported. Facts: docs/facts/formats.md#ec2-requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self
from typing import Literal as OneOf

from rumpbundle.dataclass import dataclass
from rumpbundle.disk.layout import GIB
from rumpbundle.errors import UsageError
from rumpbundle.formats._cloud import DescribedOptions, default_description, drivers, proven_firmware
from rumpbundle.formats._contract import Job, option
from rumpbundle.formats._ebs import SnapshotPlan, base64
from rumpbundle.formats._naming import TextRule, image_name, parse_tags
from rumpbundle.images.records.kitfiles import EC2_DISK
from rumpbundle.kernels.unikernel import Firmware
from rumpbundle.xen import pvgrub

if TYPE_CHECKING:
    from mypy_boto3_ebs.type_defs import CompleteSnapshotRequestTypeDef, StartSnapshotRequestTypeDef
    from mypy_boto3_ec2.literals import BootModeValuesType
    from mypy_boto3_ec2.type_defs import (
        ImportSnapshotRequestTypeDef,
        ImportVolumeRequestTypeDef,
        RegisterImageRequestTypeDef,
        TagTypeDef,
    )

ROOT_DEVICE = "/dev/xvda"
PV_ROOT_DEVICE = "/dev/sda1"
"""PV-GRUB's ``(hd0)``, and where rumprun looks for its file (docs/facts/guests.md#rumprun-configuration)."""

# What only the user's account can tell. The values pass the API's own patterns: a request can be checked whole.
KERNEL_ID = "aki-00000000"
SNAPSHOT_ID = "snap-00000000000000000"
BUCKET = "BUCKET"
AVAILABILITY_ZONE = "AVAILABILITY_ZONE"
IMPORT_MANIFEST_URL = "https://BUCKET.s3.amazonaws.com/IMPORT_MANIFEST.xml"

_NAME = TextRule(
    what="an AMI name",
    words="3 to 128 letters, digits, blanks and ( ) [ ] . / - ' @ _",
    pattern=r"[A-Za-z0-9()\[\] ./'@_-]{3,128}",
    keep=r"A-Za-z0-9()\[\] ./'@_-",
    longest=128,
)
_DESCRIPTION = TextRule(what="an EC2 description", words="at most 255 printable characters", pattern=r".{0,255}")
_TAG_KEY = TextRule(
    what="an EC2 tag key",
    words="1 to 127 printable characters that do not begin with aws:",
    pattern=r"(?i:(?!aws:)).{1,127}",
)
_TAG = TextRule(what="an EC2 tag value", words="at most 255 printable characters", pattern=r".{0,255}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ec2Options(DescribedOptions):
    """What only the user knows."""

    imds_v2: bool = option(False, "Say that the guest speaks IMDSv2: instances get no IMDSv1 (ImdsSupport).")
    tpm: bool = option(False, "Say that the guest drives a TPM 2.0 (TpmSupport); for images that boot by UEFI only.")
    whole_sha256: bool = option(
        False, "Give the SHA-256 of volume.raw even if more than 1 GiB of it are zeros (0.6 s a GiB)."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """The file that goes to S3, and its format as the import calls name it."""

    file: str
    format: OneOf["RAW", "VMDK"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """Everything there is to ask for one image; the user's words in it are checked."""

    job: Job
    name: str
    description: str
    tags: list[TagTypeDef]
    upload: Upload

    @classmethod
    def of(cls, job: Job) -> Self:
        """Return the requests for *job*.

        Raises:
            UsageError: EC2 would not take a name, description or tag the user gave.
        """
        name = image_name(job.bundle, _NAME)
        description = _DESCRIPTION.checked(job.options.description, "--description")
        tags = parse_tags(job.options.tag, _TAG_KEY, _TAG, 50)
        stream = job.subformat == "stream"
        return cls(
            job=job,
            name=name,
            description=description or default_description(name, job.bundle),
            tags=[{"Key": key, "Value": value} for key, value in tags.items()],
            upload=Upload(
                file="volume.vmdk" if stream else EC2_DISK,
                format="VMDK" if stream else "RAW",
            ),
        )

    @property
    def volume_gib(self) -> int:
        return self.job.layout.size // GIB

    @property
    def s3_key(self) -> str:
        """The uploaded object's key: by the bundle's digest, so that two bundles never overwrite each other's."""
        return f"{self.job.bundle.identity.digest[:16]}-{self.upload.file}"

    def import_snapshot(self) -> ImportSnapshotRequestTypeDef:
        request: ImportSnapshotRequestTypeDef = {
            "Description": self.description,
            "DiskContainer": {
                "Description": self.description,
                "Format": self.upload.format,
                "UserBucket": {"S3Bucket": BUCKET, "S3Key": self.s3_key},
            },
        }
        if self.tags:
            request["TagSpecifications"] = [{"ResourceType": "import-snapshot-task", "Tags": self.tags}]
        return request

    def register_image(self) -> RegisterImageRequestTypeDef:
        """Return the request for an AMI.

        Raises:
            UsageError: the image cannot have what the user says of it.
        """
        options: Ec2Options = self.job.options
        paravirtual = pvgrub.starts(self.job.bundle)
        root = PV_ROOT_DEVICE if paravirtual else ROOT_DEVICE
        request: RegisterImageRequestTypeDef = {
            "Name": self.name,
            "Description": self.description,
            "Architecture": "x86_64",  # the default is i386
            "RootDeviceName": root,
            "BlockDeviceMappings": [
                {
                    "DeviceName": root,
                    "Ebs": {
                        "SnapshotId": SNAPSHOT_ID,
                        "VolumeSize": self.volume_gib,
                        "VolumeType": "gp3",
                        "DeleteOnTermination": True,
                    },
                }
            ],
        }
        mode = "paravirtual" if paravirtual else _boot_mode(proven_firmware(self.job.bundle))
        if mode == "paravirtual":
            request["VirtualizationType"] = "paravirtual"
            request["KernelId"] = KERNEL_ID
            if self.job.bundle.kernel.machine == "i386":
                request["Architecture"] = "i386"
        else:
            request["VirtualizationType"] = "hvm"  # the default is paravirtual
            request["BootMode"] = mode
            request["EnaSupport"] = "ena" in drivers(self.job.bundle, "ec2", options)
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
        if self.tags:
            request["TagSpecifications"] = [
                {"ResourceType": kind, "Tags": self.tags} for kind in ("image", "snapshot")
            ]
        return request

    def import_volume(self, uploaded_bytes: int) -> ImportVolumeRequestTypeDef:
        return {
            "AvailabilityZone": AVAILABILITY_ZONE,
            "Description": self.description,
            "Image": {
                "Bytes": uploaded_bytes,
                "Format": self.upload.format,
                "ImportManifestUrl": IMPORT_MANIFEST_URL,
            },
            "Volume": {"Size": self.volume_gib},
        }

    def start_snapshot(self) -> StartSnapshotRequestTypeDef:
        request: StartSnapshotRequestTypeDef = {
            "VolumeSize": self.volume_gib,
            "Description": self.description,
            "Timeout": 60,  # minutes; the default
        }
        if self.tags:
            request["Tags"] = self.tags
        return request

    def complete_snapshot(self, plan: SnapshotPlan) -> CompleteSnapshotRequestTypeDef:
        return {
            "SnapshotId": SNAPSHOT_ID,
            "ChangedBlocksCount": len(plan.blocks),
            "Checksum": base64(plan.linear),
            "ChecksumAlgorithm": "SHA256",
            "ChecksumAggregationMethod": "LINEAR",
        }


def _boot_mode(firmwares: frozenset[Firmware]) -> BootModeValuesType:
    if firmwares == {Firmware.BIOS, Firmware.UEFI}:
        return "uefi-preferred"
    return "uefi" if Firmware.UEFI in firmwares else "legacy-bios"


_MEANINGS = {
    SNAPSHOT_ID: ("snapshot id", "the snapshot's id, from ImportSnapshot's task or from StartSnapshot"),
    KERNEL_ID: ("kernel id", "your region's PV-GRUB for an unpartitioned disk, the image named pv-grub-hd0_…"),
    BUCKET: ("bucket", "your S3 bucket, which the vmimport role may read"),
    AVAILABILITY_ZONE: ("availability zone", "where ImportVolume is to make the volume"),
    IMPORT_MANIFEST_URL: ("import manifest", "the signed URL of the manifest of your upload, for ImportVolume"),
}


def placeholders(requests: dict[str, Any]) -> list[dict[str, Any]]:
    """Return every placeholder in *requests*, with its meaning and the JSON paths where it stands."""
    found: dict[str, list[str]] = {}

    def search(value: Any, path: str) -> None:
        match value:
            case dict():
                for key, item in value.items():
                    search(item, f"{path}.{key}")
            case list():
                for number, item in enumerate(value):
                    search(item, f"{path}[{number}]")
            case str() if value in _MEANINGS:
                found.setdefault(value, []).append(path)

    search(requests, "$")
    return [
        {"name": _MEANINGS[value][0], "value": value, "in": paths, "is": _MEANINGS[value][1]}
        for value, paths in found.items()
    ]
