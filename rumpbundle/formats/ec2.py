"""ec2: a volume for Amazon EC2 and the exact requests that make it a snapshot and a machine image.

``volume.raw`` is the disk, sparse, of whole GiB. It becomes a snapshot through the EBS direct APIs (``coldsnap``,
or the plan in the manifest) or, by way of S3, through ImportSnapshot; RegisterImage makes the snapshot an AMI.
A kernel that only Xen starts becomes a paravirtual image, which PV-GRUB boots (:mod:`rumpbundle.xen.pvgrub`).
``--subformat stream`` adds ``volume.vmdk``, a streamOptimized VMDK, to upload less for ImportSnapshot.
Facts: docs/facts/formats.md#ec2-requests.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from base64 import b64decode
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rumpbundle.disk.flat import disk_errors, write_flat
from rumpbundle.disk.layout import GIB
from rumpbundle.errors import KernelError
from rumpbundle.events import Finished, Started
from rumpbundle.formats._cloud import default_description, json_text, shell_path
from rumpbundle.formats._contract import Folder, Format, Job, ReadBack, Standing, Subformat
from rumpbundle.formats._ebs import SnapshotPlan, base64, block_request, hashes_whole, plan_changed, plan_snapshot
from rumpbundle.formats._ec2_requests import BUCKET, KERNEL_ID, SNAPSHOT_ID, Ec2Options, Requests, placeholders
from rumpbundle.formats._readback import flat_json, string
from rumpbundle.formats.vmdk import check_stream, write_stream
from rumpbundle.host.shell import joined
from rumpbundle.images.records.kitfiles import EC2_BLOCK, EC2_DISK, EC2_MANIFEST
from rumpbundle.manifest import Bundle
from rumpbundle.xen import pvgrub

LARGEST = 64 << 40
"""A gp3 volume's most."""


def _write_kit(job: Job, directory: Path) -> None:
    Requests.of(job).register_image()
    files: dict[str, dict[str, Any]] = {}
    with disk_errors():
        with (directory / EC2_DISK).open("x+b") as out:
            write_flat(job.layout, out.fileno(), job.report, job.label)
        plan = _hashed(job)
        files[EC2_DISK] = _described(job, plan)
        if job.subformat == "stream":
            files["volume.vmdk"] = _write_vmdk(job, directory / "volume.vmdk")
    with disk_errors(), (directory / EC2_MANIFEST).open("x", encoding="ascii", newline="\n") as out:
        out.writelines(_manifest(job, plan, files))


def _texts(job: Job, standing: Standing) -> dict[str, bytes]:
    known = None
    if not hashes_whole(job.layout, whole=job.options.whole_sha256):
        known = _known(standing.texts[EC2_MANIFEST])
    plan = _hashed(job) if known is None else plan_changed(job.layout, known, standing.changed)
    return {EC2_MANIFEST: "".join(_manifest(job, plan, {EC2_DISK: _described(job, plan)})).encode("ascii")}


def _known(manifest: bytes) -> dict[int, bytes] | None:
    """Return the digests of the blocks in *manifest* by their numbers; None if it is not as bundling writes it."""
    try:
        listed = json.loads(manifest)["ebs_direct"]["put_snapshot_blocks"]
        found = {each["BlockIndex"]: b64decode(each["Checksum"], validate=True) for each in listed}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    whole = all(type(index) is int and index >= 0 and len(digest) == 32 for index, digest in found.items())
    return found if whole else None


def _hashed(job: Job) -> SnapshotPlan:
    label = f"{job.label}: hashing"
    job.report(Started(label, job.layout.payload))
    plan = plan_snapshot(job.layout, jobs=job.jobs, whole=job.options.whole_sha256, report=job.report, label=label)
    job.report(Finished(label))
    return plan


def _manifest(job: Job, plan: SnapshotPlan, files: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Yield the text of the manifest of *files*."""
    requests = Requests.of(job)
    manifest: dict[str, Any] = {
        "import_snapshot": requests.import_snapshot(),
        "register_image": requests.register_image(),
        "import_volume": requests.import_volume(files[requests.upload.file]["size"]),
        "ebs_direct": {
            "start_snapshot": requests.start_snapshot(),
            "put_snapshot_blocks": None,
            "complete_snapshot": requests.complete_snapshot(plan),
        },
        "files": files,
        "bundle": _bundle(job),
    }
    manifest["placeholders"] = placeholders(manifest)
    yield from _json(manifest, plan)


def _check(job: Job) -> None:
    _check_kernel(job.bundle)
    Requests.of(job).register_image()
    if job.subformat == "stream":
        check_stream(job)


def _check_kernel(bundle: Bundle) -> None:
    """Raise unless EC2 can start *bundle*'s kernel: by firmware, or a PV kernel by PV-GRUB."""
    kernel = bundle.kernel
    if pvgrub.starts(bundle):
        pvgrub.check(bundle)
    elif not kernel.protocols:
        raise KernelError(kernel.refusal, where=kernel.name, hint=kernel.advice or None)


def _described(job: Job, plan: SnapshotPlan) -> dict[str, Any]:
    """Return what ``files`` says of the volume.

    Its content is always pinned by the LINEAR checksum; ``sha256`` is left out where it would cost far more than
    the content (:data:`rumpbundle.formats._ebs.HASHED_ZEROS`), never replaced by something else.
    """
    described: dict[str, Any] = {"size": job.layout.size}
    if plan.disk_sha256 is not None:
        described["sha256"] = plan.disk_sha256
    described["blocks"] = {
        "block_size": EC2_BLOCK,
        "not_zero": len(plan.blocks),
        "sha256_of_block_sha256s": plan.linear.hex(),
    }
    return described


def _write_vmdk(job: Job, path: Path) -> dict[str, Any]:
    """Write the stream-optimised VMDK and return what ``files`` says of it."""
    digest = hashlib.sha256()
    with path.open("xb") as out:

        def write(data: bytes) -> None:
            digest.update(data)
            out.write(data)

        label = f"{job.label}: volume.vmdk"
        job.report(Started(label, job.layout.payload))
        write_stream(job, path.name, write, label)
        job.report(Finished(label))
        return {"size": out.tell(), "sha256": digest.hexdigest()}


def _bundle(job: Job) -> dict[str, Any]:
    bundle = job.bundle
    return {
        "name": bundle.name,
        "digest": bundle.identity.digest,
        "rumpbundle": bundle.version,
        "family": bundle.kernel.family,
        "boot": {str(firmware): str(protocol) for firmware, protocol in sorted(bundle.boot.items())},
    }


def _json(manifest: dict[str, Any], plan: SnapshotPlan) -> Iterator[str]:
    """Yield the manifest; the blocks, of which a large volume has 10^5, are one line each and made one by one."""
    head, tail = json.dumps(manifest, indent=1).split('"put_snapshot_blocks": null')
    yield head + '"put_snapshot_blocks": ['
    separator = "\n   "
    for block in plan.blocks:
        entry = block_request(block.index, base64(block.sha256))
        yield separator + json.dumps(entry)
        separator = ",\n   "
    yield "\n  ]" + tail + "\n"


_WHOLE = f'$.files["{EC2_DISK}"].sha256'
_ASKED = re.compile(
    r"\$\.(import_snapshot|register_image|import_volume|ebs_direct\.start_snapshot|bundle)\b(?!.*\.Bytes$)"
)
_BLOCKS = re.compile(rb'"put_snapshot_blocks": \[.*?\n  \]', re.DOTALL)


def _asked(job: Job) -> bytes:
    """Return what options decide of the manifest, without reading the disk."""
    requests = Requests.of(job)
    whole = hashes_whole(job.layout, whole=job.options.whole_sha256)
    return json_text(
        {
            "import_snapshot": requests.import_snapshot(),
            "register_image": requests.register_image(),
            "import_volume": requests.import_volume(0),
            "ebs_direct": {"start_snapshot": requests.start_snapshot()},
            "files": {EC2_DISK: {"sha256": ""} if whole else {}},
            "bundle": _bundle(job),
        }
    )


def _places(manifest: bytes) -> dict[str, str]:
    # Of blocks there may be 10^5.
    there = flat_json(_BLOCKS.sub(b'"put_snapshot_blocks": null', manifest, count=1))
    return {place: text for place, text in there.items() if _ASKED.match(place)} | (
        {_WHOLE: "a digest"} if _WHOLE in there else {}
    )


def _candidates(job: Job, there: Mapping[str, str]) -> Iterator[Ec2Options]:
    tags, image = [], "$.register_image"
    for number in range(50):
        tag = f"{image}.TagSpecifications[0].Tags[{number}]"
        if f"{tag}.Key" in there:
            tags.append(f"{string(there, f'{tag}.Key')}={string(there, f'{tag}.Value')}")
    asked = (_WHOLE in there,)
    wholes = (False, True) if hashes_whole(job.layout, whole=False) else asked
    described = string(there, f"{image}.Description")
    # Nobody asks for what stands there without a wish: it has the bundle's digest.
    own = described == default_description(string(there, f"{image}.Name"), job.bundle)
    words = ("",) if own else ("", described)
    for whole, driver, description in itertools.product(wholes, ((), ("ena",)), words):
        yield Ec2Options(
            description=description,
            tag=tuple(tags),
            driver=driver,
            imds_v2=f"{image}.ImdsSupport" in there,
            tpm=f"{image}.TpmSupport" in there,
            whole_sha256=whole,
        )


def _commands(job: Job) -> tuple[str, ...]:
    requests = Requests.of(job)
    coldsnap = ["coldsnap", "upload", "--wait", f"--volume-size={requests.volume_gib}"]
    coldsnap += [f"--description={requests.description}", shell_path(job.output / EC2_DISK)]
    s3 = ["aws", "s3", "cp", shell_path(job.output / requests.upload.file), f"s3://{BUCKET}/{requests.s3_key}"]
    wait = ["aws", "ec2", "wait", "snapshot-imported", "--import-task-ids=IMPORT_TASK_ID"]
    show = ["aws", "ec2", "describe-import-snapshot-tasks", "--import-task-ids=IMPORT_TASK_ID"]
    show += ["--query=ImportSnapshotTasks[0].SnapshotTaskDetail.SnapshotId", "--output=text"]
    aki = ["aws", "ec2", "describe-images", "--owners=amazon", "--filters=Name=name,Values=pv-grub-hd0_*"]
    run = ["aws", "ec2", "run-instances", "--image-id=IMAGE_ID", "--instance-type=INSTANCE_TYPE"]
    console = ["aws", "ec2", "get-console-output", "--latest", "--instance-id=INSTANCE_ID", "--output=text"]
    return (
        "# either straight into a snapshot (EBS direct APIs), which prints its id:",
        joined(coldsnap),
        f"# or through S3; put your bucket for {BUCKET} and the id import-snapshot prints for IMPORT_TASK_ID:",
        joined(s3),
        _call("import-snapshot", requests.import_snapshot()),
        joined(wait),
        joined(show),
        f"# then make an image and run it; put the snapshot's id for {SNAPSHOT_ID}:",
        *([f"# and the id this prints last for {KERNEL_ID}:", joined(aki)] if pvgrub.starts(job.bundle) else []),
        _call("register-image", requests.register_image()),
        joined(run),
        joined(console),
    )


def _call(command: str, request: Any) -> str:
    return joined(["aws", "ec2", command, "--cli-input-json", json.dumps(request)])


FORMAT = Format(
    name="ec2",
    suffix=".ec2/",
    summary="Amazon EC2: a volume and a manifest with the requests that import and register it",
    targets=("ec2",),
    product=Folder(_write_kit, (EC2_MANIFEST, EC2_DISK, "volume.vmdk"), _texts),
    check=_check,
    commands=_commands,
    needs_disk=False,
    options=Ec2Options,
    read_back=ReadBack(
        file=EC2_MANIFEST,
        text=_asked,
        places=_places,
        candidates=_candidates,
        decides={
            "description": r"\.Description$",
            "tag": r"\.(TagSpecifications|Tags)\b",
            "driver": r"\.EnaSupport$",
            "imds_v2": r"\.ImdsSupport$",
            "tpm": r"\.TpmSupport$",
            "whole_sha256": r"\.sha256$",
        },
        filled=r"\.(SnapshotId|KernelId|S3Bucket|AvailabilityZone|ImportManifestUrl)$",
    ),
    align=GIB,
    subformats=(Subformat(name="raw", largest=LARGEST), Subformat(name="stream", largest=LARGEST)),
)
