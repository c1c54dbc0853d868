"""What a project file describes, one bundle after the other, as the library takes it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from rumpbundle import formats
from rumpbundle.bundling.batch import Target, targets
from rumpbundle.bundling.recipe import Recipe, configs_in
from rumpbundle.dataclass import dataclass
from rumpbundle.errors import ConfigError, InputError, RumpbundleError, UsageError, nearest
from rumpbundle.formats import Format
from rumpbundle.guests import ConfigFor, ordered
from rumpbundle.manifest import stem
from rumpbundle.project import rows
from rumpbundle.project.model import Image
from rumpbundle.project.reading import Project
from rumpbundle.project.stock import Stock

T = TypeVar("T")
E = TypeVar("E", bound=RumpbundleError)

_ALIKE = ("cmdline", "argv0", "firmware", "protocol", "console", "name", "size", "config_room", "strict")
"""Fields of an image that a recipe has alike."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """What the command line says, which wins over the file."""

    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Fields of a Recipe."""
    config: Mapping[str, Any] | None = None
    """The fields for another configuration than all that the file says of it."""
    guest: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What the configuration gets besides, as :func:`rumpbundle.config.combined` takes it."""
    inputs: Sequence[str] = ()
    """The files all of that was read from."""
    sbom: str | None = None
    sign: str | None = None


@dataclass(frozen=True, kw_only=True)
class ProjectEntry:
    """One bundle that a project file describes: an image, or one row's of it."""

    project: Project
    name: str
    """The image's name in the file."""
    row: rows.Row | None = None

    @property
    def label(self) -> str:
        """What its outputs are called."""
        return self.name if self.row is None else f"{self.name}-{self.row.key}"

    @property
    def where(self) -> str:
        """What errors call it."""
        if self.row is None:
            return self.name
        return f"{self.label} ({self.table}, row {self.row.number}, line {self.row.line})"

    def placed(self, error: E) -> E:
        """Return *error* for :attr:`where` to stand before it: without its row, which that names."""
        place = None if self.row is None else f"row {self.row.number} (line {self.row.line}): "
        if place and error.where == self.table and error.problem.startswith(place):
            error.where, error.problem = None, error.problem.removeprefix(place)
        return error

    @property
    def table(self) -> str:
        return os.path.join(self.project.directory, self.project.images[self.name].get("rows", ""))

    def at(self, path: str) -> str:
        """Return *path* of the project file as one of the current directory."""
        return os.path.join(self.project.directory, path)

    @property
    def output(self) -> str:
        """The directory to write into, as the file has it: :attr:`image` is far more work."""
        said = self.project.image(self.name).get("output", ".")
        return str(said if self.row is None else rows.filled(said, self.row, self.table))

    @cached_property
    def image(self) -> Image:
        """What is said of it, with the row's values filled in."""
        values = self.project.image(self.name)
        if self.row is None:
            return self.project.typed(self.name, values)
        filled = rows.filled({**values, "rows": ""}, self.row, self.table)
        try:
            return self.project.typed(self.name, filled)
        except InputError as error:
            raise rows.error_in(self.table, self.row, f"{error.problem} of {self.project.path}", error.hint) from None

    def error(self, problem: str, key: str, hint: str | None = None) -> InputError:
        """Return the error for what the project file says at *key* of this image."""
        error = self.project.error(problem, ("image", self.name, *key.split(".")), hint)
        if self.row is None:
            return error
        return rows.error_in(self.table, self.row, f"{error.problem} of {self.project.path}", hint)

    def recipe(self, stock: Stock, given: Given | None = None) -> Recipe:
        """Return what to bundle; what is *given* wins over the file.

        Raises:
            RumpbundleError: something it names is missing or wrong.
        """
        image = self.image
        given = given or Given()
        fields: dict[str, Any] = {name: getattr(image, name) for name in _ALIKE}
        fields |= {name: str(fields[name]) for name in ("size", "config_room")}  # people mean 128M by 128
        trees: dict[str, Callable[[], Any]] = {
            "modules": lambda: [self.at(each) for each in image.modules],
            "data": lambda: [stock.data(self.at(each)) for each in image.data],
            "volumes": lambda: [stock.volume(self.at(each)) for each in image.volumes],
            "esp": lambda: stock.tree(self.at(image.esp)) if image.esp is not None else None,
        }
        try:
            fields |= {name: read() for name, read in trees.items() if name not in given.fields}
            fields |= self._config(stock) if given.config is None else given.config
            if given.guest:
                from rumpbundle.config import combined

                program = stem(image.app) or "app"
                fields["config"] = combined(fields["config"], program=program, **given.guest)
            further = () if "configs" in given.fields else self._configs(stock)
            fields["configs"] = further
            fields["inputs"] = [*fields["inputs"], *given.inputs, *(each.name for each in further), self.project.path]
            fields["inputs"] += [self.table] if self.row else []
            fields["inputs"] += [key] if (key := self.key_file(given)) else []
            return Recipe(app=self.at(image.app), **fields | dict(given.fields))
        except UsageError as error:
            key = (error.where or "").replace("_", "-").removeprefix("--")
            if key not in Image.__struct_encode_fields__:
                raise
            raise self.error(error.problem, key, error.hint) from None

    def sbom_file(self, given: Given) -> Path | None:
        """Return where the SBOM of the outputs goes, if there is to be one."""
        if given.sbom is not None:
            return Path(given.sbom)
        return None if self.image.sbom is None else Path(self.at(self.image.sbom))

    def key_file(self, given: Given) -> str | None:
        """Return the file of the secret key that signs the outputs, if they are signed."""
        if given.sign is not None or self.image.sign is None:
            return given.sign
        return self.at(self.image.sign)

    def _config(self, stock: Stock) -> dict[str, Any]:
        """Return the fields of the recipe that say what the guest is told."""
        image = self.image
        path = self.at(image.config) if image.config is not None else None
        config = stock.config(path) if path is not None else None
        if image.env or image.hostname is not None or image.net or image.args:
            from rumpbundle.config import combined

            for key in image.env:
                if not key or "=" in key:
                    raise self.error(f"{key!r} is no name of a variable", "env")
            try:
                config = combined(
                    config,
                    program=stem(image.app) or "app",
                    env=[f"{key}={value}" for key, value in image.env.items()],
                    hostname=image.hostname,
                    net=image.net,
                    arguments=image.args,
                )
            except ConfigError as error:
                found, _, problem = error.problem.partition(": ")
                named = found.partition(".")[0].partition("[")[0]
                if error.where != "command line" or named not in Image.__struct_encode_fields__:
                    raise
                raise self.error(problem, named, error.hint) from None
        return {"config": config, "config_name": path or self.project.path, "inputs": [path] if path else []}

    def _configs(self, stock: Stock) -> tuple[ConfigFor, ...]:
        """Return the configurations for some machines only."""
        image = self.image
        pairs = []
        for text in image.config_for:
            key, equals, path = text.rpartition("=")
            if not equals:
                raise self.error(f"expected KEY=CFG, got {text!r}", "config-for")
            pairs.append((key, self.at(path)))
        if image.configs is not None:
            pairs += configs_in(self.at(image.configs))
        return ordered([ConfigFor(key, stock.config(path), path) for key, path in pairs])

    def targets(self, names: Sequence[str] = (), directory: Path | None = None) -> tuple[Target, ...]:
        """Return what to write: the formats the file names, or *names*; where it says, or into *directory*."""
        image = self.image
        for format in image.options:
            self._at(f"options.{format}", lambda format=format: formats.find(format))  # type: ignore[misc]
        wanted = names or image.formats
        if not wanted:
            raise self.error("does not say which formats to write", "formats", 'add formats = ["iso"]')
        place = directory if directory is not None else Path(self.at(image.output))

        def found_of() -> tuple[Target, ...]:
            return targets(self.label, wanted, place, name=self.label)

        found = found_of() if names else self._at("formats", found_of)
        return tuple(dataclasses.replace(each, options=self._options(each.format)) for each in found)

    def _at(self, key: str, work: Callable[[], T]) -> T:
        """Return what *work* gives, which reads what the file says at *key*."""
        try:
            return work()
        except UsageError as error:
            raise self.error(error.problem, key, error.hint) from None

    def _options(self, format: Format) -> Any:
        """Return *format*'s own options, as the file has them."""
        given = self.image.options.get(format.name, {})
        if not given:
            return None
        known = {} if format.options is None else {field.name: field for field in dataclasses.fields(format.options)}
        values: dict[str, Any] = {}
        for key, value in given.items():
            at = f"options.{format.name}.{key}"
            field = known.get(key.replace("-", "_"))
            if field is None or format.options is None:
                words = [name.replace("_", "-") for name in known]
                raise self.error(
                    "unknown key", at, nearest(key, words, f"{format.name} has {', '.join(words) or 'none'}")
                )
            # A number stands for what people type, who mean 128M by 128.
            values[field.name] = str(value) if field.metadata["size"] and type(value) is int else value
            try:
                format.options(**{field.name: values[field.name]})
            except UsageError as error:
                raise self.error(error.problem, at, error.hint) from None
        return format.options(**values) if format.options is not None else None


def entries(project: Project, names: Sequence[str] = ()) -> Iterator[ProjectEntry]:
    """Yield what *project* describes under *names*, or all of it, in the order of the file and of its rows.

    Raises:
        InputError: an image is unknown, or a row is wrong.
    """
    labels: set[str] = set()
    wanted: dict[str, set[str]] = {}
    for name in names or project.images:
        image, key = _named(project, name)
        wanted.setdefault(image, set()).add(key)
    for name, keys in wanted.items():
        table = project.image(name).get("rows")
        if table and not isinstance(table, str):
            project.typed(name, project.image(name))
        for row in rows.read(os.path.join(project.directory, table)) if table else (None,):
            if row is not None and "" not in keys and row.key not in keys:
                continue
            keys.discard("" if row is None else row.key)
            entry = ProjectEntry(project=project, name=name, row=row)
            if entry.label in labels:
                raise entry.error(f"two images are called {entry.label}, and so their outputs", "rows")
            labels.add(entry.label)
            yield entry
        if odd := sorted(keys - {""}):
            raise UsageError(f"has no row {odd[0]!r}", where=os.path.join(project.directory, str(table)))


def _named(project: Project, name: str) -> tuple[str, str]:
    """Return the image that *name* is of, and the key of its row, as outputs are called; empty for all of it."""
    found = [
        (image, name[len(image) + 1 :])
        for image, said in project.images.items()
        if said.get("rows") and name.startswith(f"{image}-")
    ]
    if name in project.images or not found:
        project.image(name)
        return name, ""
    # web-a-b may be the row a-b of web, or the row b of web-a.
    rightly = (each for each in found if len(found) > 1 and _has_row(project, *each))
    return next(rightly, found[0])


def _has_row(project: Project, image: str, key: str) -> bool:
    table = project.images[image]["rows"]
    return isinstance(table, str) and any(row.key == key for row in rows.read(os.path.join(project.directory, table)))
