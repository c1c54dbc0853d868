"""What was planned or written, as JSON and as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rumpbundle import hybrid
from rumpbundle.bundling.writing import Artifact, Result
from rumpbundle.cli.streams import say, say_json, say_path
from rumpbundle.errors import one_line
from rumpbundle.formats import Format, Job
from rumpbundle.units import shown_size


def artifacts_json(artifacts: Iterable[Artifact]) -> list[dict[str, Any]]:
    """Return what was written, each with the size and SHA-256 of every file; of a kit they stand in ``files``."""
    from rumpbundle.bundling.batch import files_of

    found = []
    for artifact in artifacts:
        files: list[dict[str, Any]] = [{"path": str(path)} | size_and_digest(path) for path in files_of(artifact)]
        value: dict[str, Any] = {"format": artifact.format, "path": str(artifact.path)}
        if len(files) == 1 and files[0]["path"] == value["path"]:
            value |= files[0]
        else:
            value |= {"size": sum(file["size"] for file in files), "files": files}
        found.append(value)
    return found


def size_and_digest(path: Path) -> dict[str, Any]:
    """Return the size and SHA-256 of the file *path*, for ``--json``."""
    from rumpbundle.bundling.checksums import sha256_of

    return {"size": path.stat().st_size, "sha256": sha256_of(path)}


def result_json(result: Result, beside: Sequence[Path] = ()) -> dict[str, Any]:
    """Return *result* for ``--json``, with the files *beside* it; of a kit with the commands that use it."""
    commands = {"commands": list(result.commands)} if result.commands else {}
    return {"artifacts": artifacts_json(result.artifacts), "digest": result.digest} | commands | beside_json(beside)


def beside_json(paths: Sequence[Path]) -> dict[str, Any]:
    """Return the key for the SBOM and signatures *paths*, if there are any."""
    return {"provenance": list(map(str, paths))} if paths else {}


def show(
    result: Result, found: dict[str, Any] | None, beside: Sequence[Path] = (), *, print_commands: bool = False
) -> None:
    """Print *result* to standard output: *found* as JSON, or a path a line (and commands, if asked for)."""
    if found is not None:
        say_json(found)
        return
    for path in (*result.paths, *beside):
        say_path(path)
    for line in result.commands if print_commands else ():
        say(line)


def plan_json(job: Job, format: Format) -> dict[str, Any]:
    """Return the plan for ``--dry-run --json``."""
    disk, bundle = job.layout, job.bundle
    return {
        "format": format.name,
        "output": str(job.output),
        "tools": [],
        "name": bundle.name,
        "labels": hybrid.labels(bundle),
        "family": str(bundle.kernel.family),
        "boot": {str(firmware): str(protocol) for firmware, protocol in bundle.boot.items()},
        "cmdline": bundle.cmdline,
        "size": disk.size,
        "table": disk.table,
        "partitions": [{"name": p.name, "first_lba": p.first_lba, "last_lba": p.last_lba} for p in disk.partitions],
        "extents": [{"offset": e.offset, "length": e.length, "what": e.label} for e in disk.extents],
    }


def plan_text(job: Job, format: Format) -> str:
    """Return the plan for ``--dry-run``."""
    disk, bundle = job.layout, job.bundle
    boots = ", ".join(f"{firmware.upper()} ({protocol})" for firmware, protocol in bundle.boot.items())
    lines = [
        f"would write  {job.output} ({format.name})",
        f"boots        {bundle.kernel.name} ({bundle.kernel.family}) under {boots or 'no firmware'}",
        f"cmdline      {bundle.cmdline}",
        f"labels       {', '.join(f'{label} ({of})' for of, label in hybrid.labels(bundle).items())}",
        f"disk         {disk.size} bytes ({shown_size(disk.size)}), {shown_size(disk.payload)} of them used",
        "needs        no external program",
        "",
        f"partitions ({disk.table})",
    ]
    lines += [f"  {p.first_lba:>12} {p.last_lba:>12}  {p.name}" for p in disk.partitions]
    lines += ["", "extents (offset, length in bytes)"]
    lines += [f"  {e.offset:>14} {e.length:>14}  {e.label}" for e in disk.extents]
    return "\n".join(map(one_line, lines))
