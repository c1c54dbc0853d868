"""The project file on the command line: which words name what it describes, and what wins over it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from rumpbundle.bundling.checksums import SUMS, check_checksums, write_checksums
from rumpbundle.cli import rehearsal
from rumpbundle.cli.guest import configs_from, data_of, named, origin_of, read_config, volumes_of
from rumpbundle.cli.progress import Terminal
from rumpbundle.cli.provenance import password
from rumpbundle.cli.results import artifacts_json, beside_json
from rumpbundle.cli.streams import say, say_json, say_path, tell_error
from rumpbundle.disk import tree
from rumpbundle.errors import GuestError, InputError, RumpbundleError, UsageError
from rumpbundle.events import Note
from rumpbundle.host.shell import joined

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from rumpbundle.bundling.batch import Target
    from rumpbundle.formats import Job
    from rumpbundle.project.entry import Given, ProjectEntry
    from rumpbundle.project.maker import Made, Maker

_ALIKE = ("cmdline", "size", "config_room", "firmware", "protocol", "strict", "console", "name", "modules")
_BESIDE = ("force", "dry_run", "as_json", "no_sync", "quiet", "verbose", "progress")
_GUEST = ("env", "hostname", "net", "arguments")
_NOTHING = Note("the project file describes no image: its tables have no rows")
_TAKEN = ("no_argv0", "esp", "data", "volumes", "config", "config_for", "configs", "sbom", "sign")


def is_named(words: Sequence[str], others: Collection[str] = ()) -> bool:
    """Whether *words*, perhaps none, name what a project file describes (:func:`_is_name`).

    Beside a path, one of *others* is what :func:`only` tells its place, whatever the file describes.

    Raises:
        UsageError: some do and some do not, or one is empty.
        InputError: the first is neither, for there is no such file and no project file.
    """
    if "" in words:
        raise UsageError("expected a name or a path, got ''")
    bare = [word for word in words if _is_name(word)]
    mixed = 0 < len(bare) < len(words)
    if mixed and set(bare) <= set(others):
        return False
    if bare and not _there_is_one():
        if not os.path.lexists(words[0]) and words[0] in bare:
            raise InputError("no such file, and no rumpbundle.toml here or in a directory above", where=words[0])
        return False  # then there is nothing else they could be
    if mixed:
        raise UsageError(f"{bare[0]!r} names an image of the project file, the other words are paths: give one kind")
    return len(bare) == len(words)


def _is_name(word: str) -> bool:
    """Whether *word* is a name: without ``/`` and ``.``, or a row's whose key has a dot, and no file's here."""
    if "/" in word or "." not in word:
        return "/" not in word
    if os.path.lexists(word):
        return False
    from rumpbundle.project import reading

    with contextlib.suppress(RumpbundleError):
        images = reading.read(reading.find()).images
        return any(said.get("rows") and word.startswith(f"{image}-") for image, said in images.items())
    return False


def _there_is_one() -> bool:
    from rumpbundle.project import reading

    try:
        reading.find()
    except UsageError:
        return False
    return True


def only(words: Sequence[str], others: Collection[str], hint: str) -> str:
    """Return the one kernel that *words* names; the *hint* is for who puts one of *others* beside it."""
    if len(words) > 1:
        near = hint if set(words) & set(others) else None
        raise UsageError(f"expected one kernel, got {len(words)} paths", hint=near)
    return words[0]


def completed(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the images that a word may be the name of; where it is none's, the shell looks among its files."""
    from click.shell_completion import CompletionItem

    from rumpbundle.project import reading

    found = [CompletionItem(incomplete, type="file")]
    with contextlib.suppress(RumpbundleError):
        found += [CompletionItem(name) for name in reading.read(reading.find()).images if name.startswith(incomplete)]
    return found


def entries(names: Sequence[str], file: str | None = None) -> list[ProjectEntry]:
    """Return what the project file describes under *names*, or all of it."""
    from rumpbundle.project import reading
    from rumpbundle.project.entry import entries

    return list(entries(reading.read(file or reading.find()), names))


def one(name: str) -> ProjectEntry:
    """Return the one image called *name*, or one row's of it.

    Raises:
        UsageError: there is none, or it is many.
    """
    from rumpbundle.project import reading
    from rumpbundle.project.entry import entries

    project = reading.read(reading.find())
    found = list(entries(project, [name]))
    if len(found) != 1:
        raise UsageError(f"{name!r} is an image for each row", where=project.path, hint=f"name one: {name}-KEY")
    return found[0]


def given(ctx: click.Context, arguments: dict[str, Any]) -> Given:
    """Take the options that bundle out of *arguments* and return those that were written on the command line."""
    from rumpbundle.project.entry import Given

    written = {name for name in arguments if _is_written(ctx, name)}
    fields = {name: arguments[name] for name in _ALIKE if name in written}
    if "no_argv0" in written:
        fields["argv0"] = not arguments["no_argv0"]
    if "esp" in written:
        fields["esp"] = tree.scan(arguments["esp"])
    if "data" in written:
        fields["data"] = data_of(arguments["data"])
    if "volumes" in written:
        fields["volumes"] = volumes_of(arguments["volumes"])
    config = None
    if "config" in written:
        file = arguments["config"]
        config = {"config": read_config(file), "config_name": named(file), "inputs": [origin_of(file)]}
    guest = {name: arguments[name] for name in _GUEST if name in written}
    inputs: tuple[str, ...] = ()
    if written & {"config_for", "configs"}:
        fields["configs"], inputs = configs_from(arguments)
    proof = {name: str(arguments[name]) for name in ("sbom", "sign") if name in written}
    for name in (*_ALIKE, *_GUEST, *_TAKEN):
        arguments.pop(name, None)
    return Given(fields=fields, config=config, guest=guest, inputs=inputs, **proof)


def kernels(ctx: click.Context, names: Sequence[str], firmware: str, protocol: str) -> list[tuple[str, str, str]]:
    """Return the kernels of the images called *names*, or of all, each with its firmware and protocol.

    Those given on the command line win; of an image with rows its kernel counts once.
    """
    written = {name for name in ("firmware", "protocol") if _is_written(ctx, name)}
    found = []
    for entry in entries(names):
        image = entry.image
        found.append((
            entry.at(image.app),
            firmware if "firmware" in written else image.firmware,
            protocol if "protocol" in written else image.protocol,
        ))  # fmt: skip
    return list(dict.fromkeys(found))


def _is_written(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE


def booting(ctx: click.Context, entry: ProjectEntry, arguments: dict[str, Any]) -> tuple[str, ...]:
    """Put what the file says of booting *entry* in the place of options that were not written, and return the words
    for the hypervisor."""
    image, boot = entry.image, entry.image.boot
    firmware = boot.firmware or (image.firmware if image.firmware != "both" else None)
    said = {"backend_name": boot.boot, "memory": boot.memory, "accel": boot.accel, "bus": boot.bus, "gdb": boot.gdb,
            "publish": boot.publish, "identity": boot.identity, "expect": boot.expect, "timeout": boot.timeout,
            "log": boot.log and entry.at(boot.log), "firmware": firmware}  # fmt: skip
    for param in ctx.command.params:
        value = said.get(str(param.name))
        if value not in (None, ()) and not _is_written(ctx, str(param.name)):
            text = tuple(map(str, value)) if isinstance(value, tuple) else str(value)
            with said_by(ctx, entry):
                try:
                    arguments[str(param.name)] = param.type_cast_value(ctx, text)
                except click.BadParameter as error:
                    raise UsageError(error.message, where=max(param.opts, key=len)) from None
    theirs: tuple[str, ...] = ctx.meta["theirs"]
    return theirs or boot.args


@contextlib.contextmanager
def said_by(ctx: click.Context, entry: ProjectEntry | None) -> Iterator[None]:
    """Tell where in the project file of *entry* an option is wrong that was not written on the command line."""
    try:
        yield
    except UsageError as error:
        written = {word.partition("=")[0] for word in ctx.meta["own"]}
        key = (error.where or "").removeprefix("--")
        if entry is None or error.where in written or key not in entry.image.boot.__struct_encode_fields__:
            raise
        raise entry.error(error.problem, f"boot.{key}", error.hint) from None


def verify(names: Sequence[str], terminal: Terminal, *, as_json: bool) -> int:
    """Say whether the outputs are what the project file describes under *names*, and return the exit status."""
    from rumpbundle.project.apart import check_written_apart
    from rumpbundle.project.beside import BesideWriter
    from rumpbundle.project.compare import compared
    from rumpbundle.project.maker import Maker
    from rumpbundle.project.record import BuildRecord

    wanted = entries(names)
    rows: list[dict[str, str]] = []
    failed: list[tuple[str, RumpbundleError]] = []
    if not wanted:
        terminal(_NOTHING)
    else:
        check_written_apart(wanted)
        record = BuildRecord(wanted[0].project.directory)
        maker = Maker.of(record, beside=BesideWriter(record=record, password=password))
    for entry in wanted:
        try:
            for one in compared(entry, maker, terminal):
                rows.append({"image": entry.label, "path": str(one.path), "difference": one.difference})
        except RumpbundleError as error:
            failed.append((entry.where, entry.placed(error)))
    for where, wrong in failed:
        tell_error(wrong, where)
    if as_json:
        say_json({"outputs": rows, "failed": _failed_json(failed)})
    elif rows:
        say("\n".join(f"{row['path']}: {row['difference'] or 'as the project file describes it'}" for row in rows))
    if differing := sum(bool(row["difference"]) for row in rows):
        hint = joined(["rumpbundle", "build", *names])
        raise GuestError(f"{differing} of {len(rows)} outputs are not what the project file describes", hint=hint)
    return max((error.exit_code for _, error in failed), default=0)


def _failed_json(failed: Iterable[tuple[str, RumpbundleError]]) -> list[dict[str, Any]]:
    return [{"image": where, "error": str(error), "hint": error.hint} for where, error in failed]


def build(
    ctx: click.Context,
    names: Sequence[str],
    formats: Sequence[str],
    directory: Path | None,
    *,
    checksums: bool,
    arguments: dict[str, Any],
) -> int:
    """Build what the project file describes under *names*, and return the exit status."""
    from rumpbundle.project.apart import check_written_apart
    from rumpbundle.project.beside import BesideWriter
    from rumpbundle.project.maker import Maker
    from rumpbundle.project.record import BuildRecord

    wins = given(ctx, arguments)
    if odd := sorted(name for name in arguments if name not in _BESIDE and _is_written(ctx, name)):
        option = next(param.opts[0] for param in ctx.command.params if param.name == odd[0])
        raise UsageError("takes one kernel, not what a project file describes", where=option)
    force, dry_run, as_json = (arguments.pop(name) for name in ("force", "dry_run", "as_json"))
    sync = not arguments.pop("no_sync")
    with Terminal.of(arguments) as terminal:
        wanted = entries(names)
        if not wanted:
            terminal(_NOTHING)
            rehearsal.show([], [], as_json=as_json) if dry_run else _show([], [], [], [], as_json=as_json)
            return 0
        record = BuildRecord(wanted[0].project.directory, write=not dry_run)
        beside = BesideWriter(record=record, given=wins, password=password, force=force, sync=sync)
        maker = Maker.of(
            record, names=formats, directory=directory, given=wins, beside=beside, force=force, sync=sync
        )
        check_written_apart(
            wanted,
            names=formats,
            directory=directory,
            given=wins,
            sums=checksums,
            stock=maker.stock,
            ours=record.outputs,
        )
        if checksums:
            _check_checksums(wanted, formats, directory, force=force)
        if dry_run:
            return _rehearse(wanted, maker, terminal, as_json=as_json)
        made: list[Made] = []
        failed: list[tuple[str, RumpbundleError]] = []
        for entry in wanted:
            _make(entry, maker, terminal, made, failed)
        record.tidy()
    sums = _checksums(made, force=force, sync=sync) if checksums else []
    _show(made, failed, sums, beside.paths, as_json=as_json)
    return max((error.exit_code for _, error in failed), default=0)


def _make(
    entry: ProjectEntry, maker: Maker, terminal: Terminal, made: list[Made], failed: list[tuple[str, RumpbundleError]]
) -> None:
    """Build *entry*; what became of it goes to *made* or *failed*, and a failure is told at once."""
    try:
        for each in maker.make(entry, terminal):
            if each.outcome.error is not None:
                failed.append((f"{entry.where}: {each.outcome.target.format.name}", each.outcome.error))
            else:
                made.append(each)
                if each.kept:
                    terminal(Note(f"{each.outcome.target.output} is up to date"))
    except RumpbundleError as error:
        failed.append((entry.where, entry.placed(error)))


def _rehearse(wanted: Iterable[ProjectEntry], maker: Maker, terminal: Terminal, *, as_json: bool) -> int:
    jobs: list[tuple[Target, Job]] = []
    images: list[str] = []
    failed: list[tuple[str, RumpbundleError]] = []
    for entry in wanted:
        try:
            planned, targets = maker.plan(entry, terminal)
        except RumpbundleError as error:
            failed.append((entry.where, entry.placed(error)))
            continue
        made, wrong = rehearsal.rehearse(planned, targets, terminal, force=True, parents=True)
        jobs += made
        images += [entry.label] * len(made)
        failed += [(f"{entry.where}: {target.format.name}", error) for target, error in wrong]
    return rehearsal.show(jobs, failed, as_json=as_json, images=images)


def _check_checksums(
    wanted: Iterable[ProjectEntry], formats: Sequence[str], directory: Path | None, *, force: bool
) -> None:
    """Raise :class:`UsageError` if something else stands where a list of checksums is to go."""
    places: dict[Path, None] = {}
    for entry in wanted:
        with contextlib.suppress(RumpbundleError):  # which the build tells of
            places |= dict.fromkeys(target.output.parent for target in entry.targets(formats, directory))
    for place in places:
        check_checksums(place / SUMS, force=force)


def _checksums(made: Sequence[Made], *, force: bool, sync: bool) -> list[Path]:
    """Write SHA256SUMS into every directory that has outputs; what it says of other files there stays."""
    artifacts = [each.outcome.artifact for each in made if each.outcome.artifact is not None]
    places = sorted({artifact.path.parent for artifact in artifacts})
    inside = {place: [artifact for artifact in artifacts if artifact.path.parent == place] for place in places}
    return [write_checksums(found, place, force=force, keep=True, sync=sync) for place, found in inside.items()]


def _show(
    made: Sequence[Made],
    failed: Sequence[tuple[str, RumpbundleError]],
    sums: Sequence[Path],
    beside: Sequence[Path],
    *,
    as_json: bool,
) -> None:
    for where, error in failed:
        tell_error(error, where)
    if as_json:
        artifacts = [
            {"image": each.entry.label, "digest": each.digest, "up_to_date": each.kept} | described
            for each in made
            if each.outcome.artifact is not None
            for described in artifacts_json([each.outcome.artifact])
        ]
        value: dict[str, Any] = {"artifacts": artifacts, "failed": _failed_json(failed)}
        say_json(value | ({"checksums": [str(each) for each in sums]} if sums else {}) | beside_json(beside))
        return
    for each in made:
        if each.outcome.artifact is not None:
            say_path(each.outcome.artifact.path)
    for path in (*sums, *beside):
        say_path(path)


__all__ = ["booting", "build", "completed", "entries", "given", "is_named", "kernels", "one", "only", "verify"]
