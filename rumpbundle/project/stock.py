"""What one process reads once for all the bundles it makes: kernels, directories, boot images, digests."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rumpbundle import guests
from rumpbundle.bootloader.bootimages import BootImages, boot_images
from rumpbundle.bundling.planning import Plan, plan, read_kernel
from rumpbundle.bundling.recipe import Recipe, parsed_mount, read_config
from rumpbundle.config import Config
from rumpbundle.disk import tree
from rumpbundle.disk.content import Content, FileSlice
from rumpbundle.disk.inputfile import Fingerprint, InputFile
from rumpbundle.disk.tree import Directory, File, walk
from rumpbundle.errors import UsageError
from rumpbundle.events import Report, silent
from rumpbundle.formats import Format
from rumpbundle.kernels.unikernel import Unikernel
from rumpbundle.manifest import Bundle

_WORTH = 64 << 10
"""Bytes of a file whose digest is worth to be kept."""


class Stock:
    """Inputs that several bundles share. A file that changed is read anew; directories until :meth:`refresh`."""

    def __init__(self) -> None:
        self._kernels: dict[tuple[Fingerprint, str, bool], Unikernel] = {}
        self._images: BootImages | None = None
        self._trees: dict[str, Directory] = {}
        self.digests: dict[Fingerprint, str] = {}
        """The BLAKE3 of files, by how they were when they were read."""

    def refresh(self) -> None:
        """Forget what directories hold."""
        self._trees.clear()

    def forget(self, written: Iterable[Path]) -> None:
        """Forget what directories hold in which something is to be *written*: it may be for the next bundle."""
        around = {str(parent) for path in written for parent in Path(os.path.realpath(path.parent), "x").parents}
        self._trees = {path: held for path, held in self._trees.items() if os.path.realpath(path) not in around}

    def images(self, report: Report = silent) -> BootImages:
        """Return the boot images."""
        if self._images is None:
            self._images = boot_images(report)
        return self._images

    def tree(self, path: str) -> Directory:
        """Return what is in the directory *path*."""
        found = self._trees.get(path)
        if found is None:
            found = self._trees[path] = tree.scan(path)
        return found

    def data(self, text: str) -> guests.Data:
        """Read ``DIR:MOUNT``."""
        directory, mount, _ = _mounted("data", text)
        return guests.Data(self.tree(directory), mount)

    def volume(self, text: str) -> guests.Writable:
        """Read ``DIR:MOUNT[:SIZE]``."""
        directory, mount, size = _mounted("volumes", text)
        return guests.Writable(self.tree(directory), mount, size)

    def config(self, path: str) -> Config:
        return read_config(path)

    def plan(self, recipe: Recipe, formats: Sequence[Format], report: Report = silent) -> Plan:
        """Plan *recipe* with what is known already; then learn what it has hashed by :meth:`learn`."""
        disk = any(format.needs_disk for format in formats)
        key = InputFile(recipe.app).fingerprint, str(recipe.app), disk
        kernel = self._kernels.get(key)
        if kernel is None:
            kernel = self._kernels[key] = read_kernel(recipe, formats)
        images = self.images(report) if kernel.protocols else None
        planned = plan(recipe, formats=formats, kernel=kernel, images=images, report=report)
        for file, content in _files(planned.bundle):
            digest = self.digests.get(file.fingerprint)
            if digest is not None and not content.hashed:
                content.remember(digest)
        return planned

    def learn(self, planned: Plan) -> Iterator[tuple[InputFile, str]]:
        """Keep the digests of the files *planned* is made of, which are known by now, and yield what is new."""
        for file, content in _files(planned.bundle):
            if content.hashed and file.fingerprint not in self.digests:
                self.digests[file.fingerprint] = digest = content.digest()
                yield file, digest


def _mounted(key: str, text: str) -> tuple[str, str, int | None]:
    try:
        return parsed_mount(text, sized=key == "volumes")
    except ValueError as error:
        raise UsageError(str(error), where=key) from None


def _files(bundle: Bundle) -> Iterator[tuple[InputFile, Content]]:
    """Yield the large input files that *bundle* holds whole, with their contents."""
    trees = [bundle.root, bundle.esp]
    contents = [bundle.kernel.content, *(module.content for module in bundle.modules)]
    contents += [node.content for top in trees for _, node in walk(top) if isinstance(node, File)]
    for content in contents:
        if len(content.sources) == 1 and content.size >= _WORTH and not content.sparse:
            (source,) = content.sources
            if isinstance(source, FileSlice) and source.start == 0 and source.length == source.file.size:
                yield source.file, content
