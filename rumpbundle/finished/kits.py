"""What stands beside a disk: the requests of a kit, and lists of checksums."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rumpbundle.bundling.checksums import MOST_SUMS, SUM, SUMS, name_of, sha256_of
from rumpbundle.disk.content import Zeros
from rumpbundle.disk.inputfile import InputFile
from rumpbundle.errors import ImageError, InputError, one_line
from rumpbundle.formats._ebs import block_request
from rumpbundle.images.disk import Disk
from rumpbundle.images.problem import Problem
from rumpbundle.images.records import vhd
from rumpbundle.images.records.kitfiles import EC2_BLOCK, EC2_DISK, EC2_MANIFEST, XEN_CONFIG, XL_CFG, is_xen

_MOST = 256 << 20
"""Bytes of a manifest: a volume of 64 TiB has 140 bytes for each half MiB that is not zero."""
_BUNDLE = re.compile(r"\b[0-9a-f]{64}\b")
_DEFAULT = re.compile(r"made by rumpbundle \S+ from bundle [0-9a-f]{64}$")
"""The end of a description that nobody gave."""


def _problem(where: str, what: str, consequence: str, offset: int | None = None) -> Problem:
    return Problem(where=where, offset=offset, what=what, consequence=consequence)


def is_sums(path: str | os.PathLike[str]) -> bool:
    """Return whether *path* is a list of checksums, by its name."""
    return os.path.basename(os.fspath(path)) == SUMS


def named_in(path: str | os.PathLike[str]) -> dict[bytes, str]:
    """Return the SHA-256 of each file that the list of checksums at *path* names.

    Raises:
        InputError: it cannot be read, is no such list, or names nothing.
    """
    named = dict(_sums(Path(path)))
    if not named:
        raise ImageError("it names no file", where=path)
    return named


def sums_problems(path: str | os.PathLike[str], named: Mapping[bytes, str]) -> Iterator[Problem]:
    """Yield the files that are not what the list of checksums at *path*, with what is *named* in it, says."""
    for name, digest in named.items():
        yield from _summed(Path(path).parent, name, digest)


def _sums(path: Path, *, strict: bool = True) -> Iterator[tuple[bytes, str]]:
    """Yield name and SHA-256 in each line of the list at *path*; with *strict* it may hold nothing else."""
    file = InputFile(path)
    if file.size > MOST_SUMS:
        raise InputError(f"a list of checksums of more than {MOST_SUMS} bytes", where=path)
    lines = file.read(0, file.size).split(b"\n")
    for number, line in enumerate(lines, 1):
        match = SUM.fullmatch(line)
        if match is None and (not line or line.startswith(b"#") or not strict):
            continue
        if match is None:
            raise ImageError(f"line {number} is no checksum of a file", where=path)
        yield name_of(match), match[2].decode()


def _summed(directory: Path, name: bytes, digest: str) -> Iterator[Problem]:
    shown = one_line(os.fsdecode(name))
    parts = Path(os.fsdecode(name))
    if parts.is_absolute() or ".." in parts.parts or (directory / parts).is_symlink():
        yield _problem(shown, "it is not in the directory of its list, or a symbolic link", "it was not looked at")
        return
    try:
        found = sha256_of(directory / parts)
    except InputError as error:
        yield _problem(shown, error.problem, f"{SUMS} names it")
        return
    if found != digest:
        yield _problem(shown, f"its SHA-256 is {found[:16]}…, {SUMS} says {digest[:16]}…", "it is another file")


def listed(path: str | os.PathLike[str]) -> Iterator[Problem]:
    """Yield what the list of checksums beside the image at *path*, if there is one, says against its files."""
    top = Path(path)
    list_of_all = top.parent / SUMS
    if is_sums(top) or not list_of_all.is_file():
        return
    # It may be anybody's, signed by PGP or as other programs write it: what is no checksum is no fault of the image.
    for name, digest in _sums(list_of_all, strict=False):
        if Path(os.fsdecode(name)).parts[:1] == (top.name,):
            yield from _summed(top.parent, name, digest)


def problems(path: str | os.PathLike[str], disk: Disk, digest: str) -> Iterator[Problem]:
    """Yield what is wrong beside the *disk* of the image at *path*, whose bundle has *digest* (empty: not ours)."""
    top = Path(path)
    if top.is_dir():
        if (top / EC2_MANIFEST).is_file():
            yield from _ec2(top, disk, digest)
        if is_xen(top):
            yield from xen(top, digest)
        return
    for request in requests(top):
        yield from _request(request, disk, digest)


def requests(path: Path) -> Iterator[Path]:
    """Yield the request that stands beside the disk at *path*, if it is named as one of Google's or Azure's."""
    for suffix, beside in ((".gce.tar.gz", ".gce.json"), (".azure.vhd", ".azure.json")):
        request = path.with_name(path.name.removesuffix(suffix) + beside)
        if path.name.endswith(suffix) and request.is_file():
            yield request


def _read(path: Path, most: int = _MOST) -> str:
    if path.is_symlink():
        raise ImageError(f"{path.name} is a symbolic link, which a kit has not")
    file = InputFile(path)
    if file.size > most:
        raise ImageError(f"{path.name} has {file.size} bytes")
    return file.read(0, file.size).decode("utf-8", "replace")


def _json(path: Path) -> Mapping[str, Any]:
    try:
        value = json.loads(_read(path))
    except (ValueError, RecursionError):
        raise ImageError(f"{path.name} is no readable JSON") from None
    if not isinstance(value, dict):
        raise ImageError(f"{path.name} is no JSON object")
    return value


def _names_bundle(name: str, text: str, digest: str) -> Iterator[Problem]:
    """Check that *text* names the bundle of the disk, or what a label of Google's can hold of it."""
    if digest and digest[:63] not in text:
        other = _BUNDLE.findall(text)
        said = f"bundle {other[0][:16]}…" if other else "no bundle"
        what = f"it names {said}, the disk holds {digest[:16]}…"
        yield _problem(name, what, "request and disk do not belong together")


def _request(path: Path, disk: Disk, digest: str) -> Iterator[Problem]:
    value = _json(path)
    yield from _names_bundle(path.name, json.dumps(value), digest)
    creation: Any = value
    for key in ("properties", "creationData"):
        creation = creation.get(key) if isinstance(creation, dict) else None
    if not path.name.endswith(".azure.json") or not isinstance(creation, dict):
        return
    size = creation.get("uploadSizeBytes")
    if size != disk.size + vhd.Footer.SIZE:
        what = f"it announces {size} bytes, the file has {disk.size + vhd.Footer.SIZE}"
        yield _problem(path.name, what, "Azure refuses the upload")


def xen(path: str | os.PathLike[str], digest: str) -> Iterator[Problem]:
    """Yield what is wrong with the text files of the kit for Xen at *path*, whose bundle has *digest*."""
    directory = Path(path)
    yield from _names_bundle(XL_CFG, _read(directory / XL_CFG, 1 << 20), digest)
    if (directory / XEN_CONFIG).exists():
        _json(directory / XEN_CONFIG)


def _ec2(directory: Path, disk: Disk, digest: str) -> Iterator[Problem]:
    """Compare the volume with the manifest: its size, and the checksum of every block that is to be uploaded."""
    value = _json(directory / EC2_MANIFEST)
    name = EC2_MANIFEST
    try:
        said = value["bundle"]["digest"]
        volume = value["files"][EC2_DISK]
        requests = {each["BlockIndex"]: each for each in value["ebs_direct"]["put_snapshot_blocks"]}
        blocks = {int(index): each["Checksum"] for index, each in requests.items() if index >= 0}
        complete = value["ebs_direct"]["complete_snapshot"]
        size, linear = volume["size"], volume["blocks"]["sha256_of_block_sha256s"]
        counts = (volume["blocks"]["not_zero"], complete["ChangedBlocksCount"], len(blocks))
        texts = [str(value[each]["Description"]) for each in ("import_snapshot", "register_image")]
        vmdk = value["files"].get("volume.vmdk", {}).get("sha256")
        checksum = complete["Checksum"]
        how = (complete["ChecksumAlgorithm"], complete["ChecksumAggregationMethod"])
    except (KeyError, TypeError, ValueError, AttributeError):
        yield _problem(name, "it is not as bundling writes it", "the requests cannot be made")
        return
    if digest and said != digest:
        yield _problem(name, f"it names bundle {said}, the disk holds {digest}", "they do not belong together")
    for text in texts:
        if _DEFAULT.search(text):
            yield from _names_bundle(name, text, digest)
    if size != disk.size:
        yield _problem(name, f"it says {size} bytes, the volume has {disk.size}", "the upload is refused")
    found = dict(_hashes(disk))
    for index in sorted({*blocks, *found}):
        if index not in found or blocks.get(index) != found[index]:
            what = f"the checksum of block {index} is not that of the volume"
            yield _problem(name, what, "EBS refuses the block", index * EC2_BLOCK)
        elif requests[index] != block_request(index, found[index]):
            what = f"the request for block {index} is not as bundling writes it"
            yield _problem(name, what, "EBS refuses the block", index * EC2_BLOCK)
    whole = hashlib.sha256(b"".join(base64.b64decode(found[index]) for index in sorted(found)))
    if how != ("SHA256", "LINEAR"):
        yield _problem(
            name, "it completes the snapshot in another way than bundling writes", "EBS refuses the snapshot"
        )
    wanted = (len(found),) * len(counts), whole.hexdigest(), base64.b64encode(whole.digest()).decode()
    if (counts, linear, checksum) != wanted:
        yield _problem(
            name, "number or checksum of all blocks are not those of the volume", "EBS refuses the snapshot"
        )
    if "sha256" in volume and volume["sha256"] != sha256_of(directory / EC2_DISK):
        yield _problem(name, "the SHA-256 of volume.raw is another one", "it is another file")
    if vmdk is not None and vmdk != sha256_of(directory / "volume.vmdk"):
        yield _problem(name, "the SHA-256 of volume.vmdk is another one", "it is another file")


def _hashes(disk: Disk) -> Iterator[tuple[int, str]]:
    """Yield the number of every block that is not zero, and its SHA-256 as EBS has it."""
    touched = 0
    for run in disk.runs():
        if isinstance(run.source, Zeros):
            continue
        for index in range(max(run.offset // EC2_BLOCK, touched), -(-(run.offset + run.length) // EC2_BLOCK)):
            touched = index + 1
            data = disk.read(index * EC2_BLOCK, min(EC2_BLOCK, disk.size - index * EC2_BLOCK)).ljust(EC2_BLOCK, b"\0")
            if data.count(0) != len(data):
                yield index, base64.b64encode(hashlib.sha256(data).digest()).decode()


__all__ = ["is_sums", "listed", "named_in", "problems", "sums_problems", "xen"]
