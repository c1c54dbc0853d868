"""``rumpbundle fleet``: the matrix of a project file as one job, here or on a cluster."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rumpbundle import __version__
from rumpbundle.cli.command import Command
from rumpbundle.cli.recipe_options import NO_SYNC, report_options
from rumpbundle.cli.streams import json_text, say_json, say_path, tell
from rumpbundle.cli.values import Output
from rumpbundle.disk.inputfile import InputFile
from rumpbundle.errors import InputError, UsageError
from rumpbundle.host.directories import make_directory
from rumpbundle.host.putting import put

if TYPE_CHECKING:
    from rumpbundle.project.fleet import Failed, Progress, Summary


@click.command(
    "fleet",
    cls=Command,
    example="rumpbundle fleet -o out --scheduler tcp://10.0.0.1:8786",
    short_help="all that a project file describes as one job, here or on a Dask cluster",
)
@click.argument("file", required=False, type=click.Path(readable=False))
@click.option("-o", "--output", "directory", type=Output(), metavar="DIR",
              help="The directory to write into; made if it is missing.  [default: what the file says]")  # fmt: skip
@click.option("--scheduler", metavar="ADDRESS",
              help="The scheduler of a Dask cluster, tcp://HOST:PORT.  [default: workers here]")  # fmt: skip
@click.option("--workers", type=click.IntRange(1, 1024), metavar="N",
              help="How many workers to start on this machine.  [default: one a processor]")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print what fleet.json holds, instead of its name.")
@NO_SYNC
@report_options
def command(
    file: str | None,
    directory: Path | None,
    scheduler: str | None,
    workers: int | None,
    as_json: bool,
    no_sync: bool,
    **arguments: Any,
) -> int:
    """Make every bundle that the project FILE describes (rumpbundle.toml, here or in a directory above) and that is
    not there yet, in batches, on the workers of a Dask cluster.

    What fails does not stop the rest: it is told with its row, and the command ends with its exit status. Start the
    command again and it goes on where it ended. fleet.json lists all outputs, with sizes and digests.
    """
    from rumpbundle.project import fleet, reading
    from rumpbundle.project.record import BuildRecord

    if scheduler is not None and workers is not None:
        raise UsageError("--scheduler and --workers contradict each other: a cluster has its own workers")
    project = reading.read(reading.find() if file is None else file)
    record = BuildRecord(project.directory)
    place = directory or Path(project.directory or ".")
    _check_ours(place / NAME)
    teller = _Teller(**arguments)
    summary = fleet.run(
        project,
        record,
        directory=directory,
        scheduler=scheduler,
        workers=workers,
        sync=not no_sync,
        report=teller.progress,
        complain=teller.failed,
        alone=teller.alone,
    )
    record.tidy()
    teller.end(summary.progress)
    listed = _listed(summary, place)
    make_directory(place, parents=True)
    _check_ours(place / NAME)
    put(place / NAME, _text(listed), force=True, sync=not no_sync)
    say_json(listed) if as_json else say_path(place / NAME)
    return max((each.failure.exit_code for each in summary.failed), default=0)


NAME = "fleet.json"
_HEAD = b'{\n "rumpbundle": '


def _check_ours(path: Path) -> None:
    """Raise :class:`UsageError` if *path* is there and is no list of a fleet's outputs."""
    if os.path.lexists(path):
        ours = False
        with contextlib.suppress(InputError):
            file = InputFile(path)
            ours = file.read(0, min(file.size, len(_HEAD))) == _HEAD
        if not ours:
            raise UsageError("is no list of a fleet's outputs, so it is not replaced", where=path, hint="give -o DIR")


def _listed(summary: Summary, place: Path) -> dict[str, Any]:
    """Return what ``fleet.json`` holds: the same for the same fleet."""
    from functools import cache

    top = os.path.abspath(place)
    # Ten thousand outputs are in few directories, and were made in few ways.
    directory = cache(lambda path: os.path.relpath(path, top))
    format = cache(lambda how: json.loads(how)[1])

    def shown(path: str) -> str:
        within, name = os.path.split(path)
        return os.path.normpath(os.path.join(directory(within), name))

    bundles = []
    for entry, outputs in summary.outputs:
        artifacts = [
            {
                "path": shown(output.path),
                "format": format(output.how),
                "size": output.size,
                "files": [
                    {"path": shown(each.path), "size": each.size, "blake3": each.digest} for each in output.files
                ],
            }
            for output in outputs
        ]
        key = {} if entry.row is None else {"key": entry.row.key}
        bundles.append({"image": entry.name} | key | {"digest": outputs[0].bundle, "artifacts": artifacts})
    failed: list[dict[str, Any]] = [
        {"image": each.entry.name}
        | ({} if each.entry.row is None else {"row": each.entry.row.number, "line": each.entry.row.line})
        | {"error": each.failure.problem, "hint": each.failure.hint}
        for each in summary.failed
    ]
    return {"rumpbundle": __version__, "bundles": bundles, "failed": failed}


def _text(listed: dict[str, Any]) -> bytes:
    """Return *listed* as JSON, a line for each bundle."""
    head = f"{_HEAD.decode()}{json_text(listed['rumpbundle'])},\n"
    parts = []
    for name in ("bundles", "failed"):
        lines = ",\n".join(f"  {json_text(each)}" for each in listed[name])
        parts.append(f' "{name}": [' + (f"\n{lines}\n ]" if lines else "]"))
    return (head + ",\n".join(parts) + "\n}\n").encode("ascii")


class _Teller:
    """Tells on standard error how far the fleet is."""

    def __init__(self, *, quiet: bool, verbose: bool, progress: str) -> None:
        self._quiet = quiet
        self._json = progress == "json"
        self._silent = progress == "none" or quiet
        self._told = -1

    def progress(self, now: Progress) -> None:
        """Tell *now* once a percent."""
        percent = (now.done + now.failed) * 100 // max(1, now.total)
        if percent == self._told or self._silent:
            return
        self._told = percent
        if self._json:
            tell(json_text({"event": "fleet", "total": now.total, "done": now.done, "made": now.made,
                             "failed": now.failed, "rate": round(now.rate, 1),
                             "left": None if now.left is None else round(now.left, 1)}))  # fmt: skip
        else:
            left = "" if now.left is None else f", {_span(now.left)} left"
            tell(f"{now.done} of {now.total} done, {now.failed} failed, {now.rate:.0f} a second{left}")

    def failed(self, one: Failed) -> None:
        """Tell of *one* there is no bundle of."""
        if self._json:
            tell(json_text({"event": "failed", "bundle": one.entry.where, "error": one.failure.problem,
                             "hint": one.failure.hint}))  # fmt: skip
        tell(f"error: {one.entry.where}: {one.failure.problem}")
        if one.failure.hint:
            tell(f"hint: {one.failure.hint}")

    def alone(self) -> None:
        """Tell that there is nobody to do the work."""
        if self._json:
            tell(json_text({"event": "waiting", "workers": 0}))
        elif not self._silent:
            tell("note: the scheduler has no workers: waiting for one; it ends at once if it lacks rumpbundle")

    def end(self, now: Progress) -> None:
        """Tell how it ended."""
        if not self._silent and not self._json:
            done = "1 bundle is" if now.done == 1 else f"{now.done} bundles are"
            tell(f"note: {done} done; new outputs: {now.made}; it took {_span(now.seconds)}")


def _span(seconds: float) -> str:
    whole = round(seconds)
    return (
        f"{whole // 3600} h {whole // 60 % 60} min"
        if whole >= 3600
        else f"{whole // 60} min {whole % 60} s"
        if whole >= 60
        else f"{whole} s"
    )
