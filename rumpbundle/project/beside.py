"""What stands beside the outputs of a project file: SBOMs and signatures, each made only if it is not up to date."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from rumpbundle import __version__
from rumpbundle.bundling.batch import files_of
from rumpbundle.bundling.minisign import SecretKey, path_beside
from rumpbundle.bundling.writing import Artifact
from rumpbundle.dataclass import dataclass
from rumpbundle.host.directories import make_directory
from rumpbundle.host.putting import put
from rumpbundle.manifest import Bundle
from rumpbundle.project import record
from rumpbundle.project.entry import Given, ProjectEntry
from rumpbundle.project.overwritten import SBOM, SIGNATURE, check_replaced
from rumpbundle.project.record import BuildRecord, RecordedOutput


@dataclass(frozen=True, kw_only=True)
class BesideWriter:
    """Writes what is asked for beside the outputs of one entry after the other."""

    record: BuildRecord
    given: Given = dataclasses.field(default_factory=Given)
    """What wins over the file."""
    password: Callable[[], str] = lambda: ""
    """Asks for that of a key that has one."""
    force: bool = False
    """Whether what is no SBOM or signature may be overwritten."""
    sync: bool = True
    paths: list[Path] = dataclasses.field(default_factory=list)
    """All that stands, in the order in which it was asked for."""
    _keys: dict[str, SecretKey] = dataclasses.field(default_factory=dict)

    def check(self, entry: ProjectEntry) -> None:
        """Raise if what is made of *entry* cannot be signed, or something else stands where its SBOM is to go.

        Raises:
            RumpbundleError: the message says which.
        """
        self._key(entry)
        if (sbom := entry.sbom_file(self.given)) is not None:
            check_replaced(sbom, SBOM, force=self.force)

    def write(self, entry: ProjectEntry, bundle: Bundle, artifacts: Sequence[Artifact]) -> None:
        """Write what is asked for of *artifacts*, which stand, and is not up to date."""
        sbom, key = entry.sbom_file(self.given), self._key(entry)
        if sbom is not None:
            data = _sbom_of(bundle)
            if _read(sbom, len(data)) != data:
                self._put(sbom, data)
            self.paths.append(sbom)
        for path, file in () if key is None else _signed(artifacts, sbom):
            assert key is not None
            how = msgspec.json.encode([__version__, "minisign", key.number.hex()]).decode()
            digest, at = bundle.identity.digest, os.path.abspath(path)
            stands = record.standing(self.record.outputs.get(at), how, digest, self.record.now)
            if stands is None:
                check_replaced(path, SIGNATURE, force=self.force)
                self._put(path, key.sign_output(file, digest))
                kept = tuple(record.look(str(each), self.record.now) for each in (path, file))
                stands = RecordedOutput(at, how, digest, kept)
            self.record.add([stands])
            self.paths.append(path)

    def differences(
        self, entry: ProjectEntry, bundle: Bundle, artifacts: Sequence[Artifact]
    ) -> Iterator[tuple[Path, str]]:
        """Yield each file that is asked for beside *artifacts*, which stand, and in what it differs; or nothing."""
        sbom, key = entry.sbom_file(self.given), self._key(entry)
        if sbom is not None:
            yield sbom, _difference(sbom, _sbom_of(bundle))
        for path, file in () if key is None else _signed(artifacts, sbom):
            if file.exists():
                assert key is not None
                yield path, _difference(path, key.sign_output(file, bundle.identity.digest))

    def _key(self, entry: ProjectEntry) -> SecretKey | None:
        path = entry.key_file(self.given)
        if path is None:
            return None
        if path not in self._keys:
            self._keys[path] = SecretKey.read(path, self.password)
        return self._keys[path]

    def _put(self, path: Path, data: bytes) -> None:
        make_directory(path.parent, parents=True)
        put(path, data, force=True, sync=self.sync)


def _signed(artifacts: Sequence[Artifact], sbom: Path | None) -> Iterator[tuple[Path, Path]]:
    """Yield the path of each signature, and the file that it is of."""
    for artifact in artifacts:
        for file in files_of(artifact):
            yield path_beside(artifact.path, file), file
    if sbom is not None:
        yield path_beside(sbom, sbom), sbom


def _sbom_of(bundle: Bundle) -> bytes:
    from rumpbundle.bundling.sbom import sbom

    return sbom(bundle)


def _read(path: Path, size: int) -> bytes | None:
    """Return the file *path* if it has *size* bytes."""
    try:
        return path.read_bytes() if path.is_file() and path.stat().st_size == size else None
    except OSError:
        return None


def _difference(path: Path, wanted: bytes) -> str:
    if not path.exists():
        return "is missing"
    return "" if _read(path, len(wanted)) == wanted else "is of something else"
