"""A Xen kit of ours as the bundle it was made from.

A kit with a disk of ours is read as that disk. Any other holds the manifest as a file, and what that names beside it:
kernel, boot modules (one after the other in ``initrd``), volumes as disks of their own, what goes to xenstore.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace

from rumpbundle.disk.content import Content, FileSlice
from rumpbundle.disk.inputfile import InputFile
from rumpbundle.errors import ImageError
from rumpbundle.finished.manifest import Described, Manifest
from rumpbundle.finished.origin import NotOursError, Origin, described, kernel_of, planned_from
from rumpbundle.images.problem import Problem
from rumpbundle.images.records import kitfiles
from rumpbundle.manifest import MAX_MANIFEST, Module, Volume

_MOST = 1 << 20
"""Bytes of what goes to xenstore that are read."""


def has_no_disk(path: str | os.PathLike[str]) -> bool:
    """Return whether *path* is a kit for Xen without a disk of ours, which none of the readers of disks opens."""
    return kitfiles.is_xen(path) and not os.path.lexists(os.path.join(path, kitfiles.XEN_DISK))


def manifest_of(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of the manifest in the kit at *path*, which has no disk of ours.

    Raises:
        NotOursError: there is none.
        ImageError: it cannot be one.
    """
    if not os.path.lexists(os.path.join(path, kitfiles.XEN_MANIFEST)):
        raise NotOursError(
            f"does not say what it was made from: it holds no {kitfiles.XEN_MANIFEST}",
            where=path,
            hint="bundle again",
        )
    return _read(os.fspath(path), kitfiles.XEN_MANIFEST, MAX_MANIFEST)


def origin(path: str | os.PathLike[str]) -> Origin:
    """Return what the kit at *path*, which has no disk of ours, was made from.

    Raises:
        NotOursError: it does not say; the message tells why.
        ImageError: it is damaged.
    """
    directory = os.fspath(path)
    raw = manifest_of(path)
    try:
        return planned_from(raw, lambda manifest, raw: _Kit(directory, manifest).origin(raw))
    except ImageError as error:
        error.where = error.where or directory
        raise


def problems(path: str | os.PathLike[str], found: Origin) -> Iterator[Problem]:
    """Yield where the files of the kit at *path* are not what its manifest says, by which it was *found*."""
    bundle = found.bundle
    held = {"kernel": [bundle.kernel.content], "initrd": [module.content for module in bundle.modules]}
    held |= {f"{volume.device}.raw": [volume.content] for volume in bundle.volumes}
    for name, contents in held.items():
        for content in contents:
            there = Content(content.sources, sparse=content.sparse).digest()
            if there != content.digest():
                what = f"its BLAKE3 is {there[:16]}…, {kitfiles.XEN_MANIFEST} says {content.digest()[:16]}…"
                yield Problem(where=name, offset=None, what=what, consequence="Xen starts it with something else")


def _file(directory: str, name: str) -> InputFile:
    path = os.path.join(directory, name)
    if os.path.islink(path):
        raise ImageError("is a symbolic link, which a kit has not", where=path)
    return InputFile(path)


def _read(directory: str, name: str, most: int) -> bytes:
    file = _file(directory, name)
    if file.size > most:
        raise ImageError(f"has {file.size} bytes", where=file.path)
    return file.read(0, file.size)


class _Kit:
    """The files of a kit, by what the manifest says of them."""

    def __init__(self, directory: str, manifest: Manifest) -> None:
        self._directory = directory
        self._manifest = manifest

    def origin(self, raw: bytes) -> Origin:
        manifest = self._manifest
        if manifest.files or manifest.esp or manifest.choices:
            raise ImageError(f"{kitfiles.XEN_MANIFEST} lists files, and there is no disk for them")
        kernel = kernel_of(manifest.kernel.name, self._whole("kernel", manifest.kernel), manifest.kernel.repairs)
        bundle = replace(
            described(manifest, kernel),
            modules=tuple(self._modules()),
            volumes=tuple(self._volumes()),
            config=self._config(),
        )
        return Origin(manifest=manifest, raw=raw, bundle=bundle, images=None)

    def _whole(self, name: str, said: Described) -> Content:
        """Return the file *name*, which the manifest describes."""
        file = _file(self._directory, name)
        self._check(file, said.size)
        content = Content(
            (FileSlice(file, 0, file.size),) if file.size else (), sparse=said.blocks_blake3 is not None
        )
        content.remember(said.digest or "")
        return content

    def _check(self, file: InputFile, size: int) -> None:
        if file.size != size:
            raise ImageError(f"has {file.size} bytes, {kitfiles.XEN_MANIFEST} says {size}", where=file.path)

    def _modules(self) -> Iterator[Module]:
        """Yield the boot modules, which stand behind each other, each at a multiple of four bytes."""
        said = self._manifest.modules
        starts, end = [], 0
        for each in said:
            starts.append(-(-end // 4) * 4)
            end = starts[-1] + each.size
        if not end:
            yield from (Module(each.name, Content(()), each.text, each.room) for each in said)
            return
        file = _file(self._directory, "initrd")
        self._check(file, end)
        for start, each in zip(starts, said, strict=True):
            content = Content((FileSlice(file, start, each.size),) if each.size else ())
            content.remember(each.digest or "")
            yield Module(each.name, content, each.text, each.room)

    def _volumes(self) -> Iterator[Volume]:
        for said in self._manifest.volumes:
            if not re.fullmatch("xvd[a-z]", said.device):
                raise ImageError(f"{kitfiles.XEN_MANIFEST} lists a volume that is no disk of its own")
            yield Volume(said.label, said.filesystem, self._whole(f"{said.device}.raw", said), said.device)

    def _config(self) -> bytes:
        if self._manifest.config is None:
            return b""
        text = _read(self._directory, kitfiles.XEN_CONFIG, _MOST)
        self._check(_file(self._directory, kitfiles.XEN_CONFIG), self._manifest.config.size)
        return text


__all__ = ["has_no_disk", "manifest_of", "origin", "problems"]
