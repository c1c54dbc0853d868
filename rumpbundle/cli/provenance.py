"""``--sbom`` and ``--sign``: what others can check of an output, written beside it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import click

from rumpbundle.bundling.recipe import Recipe
from rumpbundle.bundling.writing import Artifact, check_no_inputs
from rumpbundle.cli.command import group, options
from rumpbundle.cli.values import Output
from rumpbundle.dataclass import dataclass
from rumpbundle.errors import InputError
from rumpbundle.host import overlap
from rumpbundle.host.putting import put
from rumpbundle.host.staging import check_free
from rumpbundle.manifest import Bundle

if TYPE_CHECKING:
    from rumpbundle.bundling.minisign import SecretKey

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = group(
    "Provenance", "--sbom app.cdx.json --sign minisign.key",
    click.option("--sbom", type=Output(), metavar="FILE",
                 help="Write what is in the image as a CycloneDX document."),
    click.option("--sign", metavar="KEY", type=click.Path(readable=False),
                 help="Sign each output with this secret key of minisign: APP.iso.minisig beside APP.iso."),
)  # fmt: skip


def provenance_options(function: F) -> F:
    """Add ``--sbom`` and ``--sign``; :meth:`Provenance.of` takes them out again."""
    return options(_OPTIONS)(function)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What to write beside the outputs."""

    sbom: Path | None
    key: SecretKey | None
    key_file: Path | None
    force: bool
    sync: bool

    @classmethod
    def of(cls, arguments: dict[str, Any], *, force: bool, sync: bool) -> Self:
        """Take the options out of *arguments*, and read the key before there is anything to sign."""
        sbom, sign = arguments.pop("sbom"), arguments.pop("sign")
        key = None
        if sign is not None:
            from rumpbundle.bundling.minisign import SecretKey

            key = SecretKey.read(sign, password)
        return cls(
            sbom=sbom,
            key=key,
            key_file=None if sign is None else Path(sign),
            force=force,
            sync=sync,
        )

    def check(
        self, recipe: Recipe, outputs: Iterable[Path], kits: Iterable[Path] = (), *, placed: bool = True, tidy: bool
    ) -> None:
        """Raise if to write *outputs* and what stands beside them would touch an input or one another, or is there.

        A signature that is there does not count where its output is: then that is told. *kits* are the outputs that
        are directories. The one that all go to is there only if they are *placed*.
        """
        outputs = [*outputs]
        paths = [self.sbom] if self.sbom else []
        taken = [*paths]
        if self.key:
            import glob

            from rumpbundle.bundling.minisign import SUFFIX, signature_path

            signatures = {output: signature_path(output, output) for output in [*outputs, *paths]}
            paths += signatures.values()
            taken += [path for output, path in signatures.items() if not os.path.lexists(output)]
            for kit in kits:  # nobody knows yet which files it will have
                found = glob.glob(f"{glob.escape(str(kit))}.*{SUFFIX}") if not os.path.lexists(kit) else ()
                taken += map(Path, found)
        check_no_inputs(recipe, paths)
        overlap.check_distinct([*outputs, *paths])
        if self.key_file is not None:
            overlap.check_apart([*outputs, *paths], [overlap.inode(self.key_file)])
        for path in taken:
            if placed or os.path.lexists(path):
                check_free(path, force=self.force, tidy=tidy)

    def write(self, bundle: Bundle, artifacts: Iterable[Artifact], more: Iterable[Path] = ()) -> list[Path]:
        """Write all that was asked for about *artifacts* and the files *more*, and return its paths."""
        written = []
        if self.sbom is not None:
            from rumpbundle.bundling.sbom import sbom

            put(self.sbom, sbom(bundle), force=self.force, sync=self.sync)
            written.append(self.sbom)
        if self.key is None:
            return written
        from rumpbundle.bundling.batch import files_of
        from rumpbundle.bundling.minisign import path_beside

        files = [(each.path, file) for each in artifacts for file in files_of(each)]
        for top, file in [*files, *((path, path) for path in [*written, *more])]:
            path = path_beside(top, file)
            put(path, self.key.sign_output(file, bundle.identity.digest), force=self.force, sync=self.sync)
            written.append(path)
        return written


def password() -> str:
    """Return the key's password: asked for on a terminal, else the first line of standard input."""
    if sys.stdin is not None and sys.stdin.isatty():
        return str(click.prompt("password of the key", hide_input=True, default="", show_default=False, err=True))
    try:
        line = sys.stdin.buffer.readline() if sys.stdin is not None else b""
    except OSError as error:
        raise InputError(f"cannot be read: {os.strerror(error.errno or 0)}", where="standard input") from None
    return line.decode("utf-8", "surrogateescape").rstrip("\r\n")
