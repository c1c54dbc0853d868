"""A project file as a value, found from any directory below it, with errors that name line and column."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from rumpbundle.config.reading import explained
from rumpbundle.dataclass import dataclass
from rumpbundle.disk.inputfile import InputFile
from rumpbundle.errors import InputError, UsageError, nearest
from rumpbundle.project import places
from rumpbundle.project.model import Boot, File, Image, Shared

NAME = "rumpbundle.toml"
MAX_BYTES = 1 << 20
_TABLES = ("env", "boot", "options")
"""What an image has in common with the defaults key by key; of all else its own stands in the place of theirs."""
_TRUSTED = (0,)
"""Users whose project file is used from below it, besides one's own."""
_IMAGE_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, kw_only=True)
class Project:
    """What a project file says. Images are as they were written, with the defaults in them."""

    path: str
    """What errors call the file."""
    text: str
    images: Mapping[str, Mapping[str, Any]]

    @property
    def directory(self) -> str:
        """What the paths in it are relative to."""
        return os.path.dirname(self.path)

    @cached_property
    def _places(self) -> places.KeyOffsets:
        return places.KeyOffsets(self.text)

    def image(self, name: str) -> Mapping[str, Any]:
        """Return the image called *name*.

        Raises:
            UsageError: there is none.
        """
        if name not in self.images:
            known = ", ".join(self.images) or "none"
            hint = f"write ./{name} for the file of that name" if os.path.exists(name) else None
            hint = hint or nearest(name, self.images, f"it has {known}")
            raise UsageError(f"describes no image {name!r}", where=self.path, hint=hint)
        return self.images[name]

    def error(self, problem: str, path: places.Path, hint: str | None = None) -> InputError:
        """Return the error for what stands at *path*; if that came from the defaults, there."""
        default = ("defaults", *path[2:])
        if path[:1] == ("image",) and path not in self._places and default in self._places:
            path = default
        line, column = self._places.line_of(path)
        shown = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
        subject = f"{shown}: {problem}" if shown else problem
        return InputError(f"{subject} (line {line}, column {column})", where=self.path, hint=hint)

    def typed(self, name: str, values: Mapping[str, Any]) -> Image:
        """Return the image *name* with these *values*, its own or those a row makes of them.

        Raises:
            InputError: one of them is wrong; the message tells where it is written.
        """
        return convert(self, values, Image, ("image", name))


def find(start: str = ".") -> str:
    """Return the path of the project file of *start*: there, or in the nearest directory above that has one.

    Raises:
        UsageError: there is none, or it is somebody else's.
    """
    directory = Path(os.path.abspath(start))
    for each in (directory, *directory.parents):
        path = each / NAME
        if not os.path.isfile(path):  # or it cannot be told: some directory may be closed to us
            continue
        owner = path.stat().st_uid
        if each != directory and owner not in (*_TRUSTED, os.geteuid()):
            hint = f"go into {each} to use it all the same"
            raise UsageError("belongs to another user, so it is not read from here", where=path, hint=hint)
        return os.path.relpath(path)
    raise UsageError(f"there is no {NAME} here or in a directory above", hint="rumpbundle init APP writes one")


def read(path: str) -> Project:
    """Read the project file *path*.

    Raises:
        InputError: it cannot be read, or something in it is wrong.
    """
    file = InputFile(path)
    if file.size > MAX_BYTES:
        raise InputError(f"is larger than {MAX_BYTES >> 20} MiB", where=path)
    return parse(file.read(0, file.size), path)


def parse(data: bytes, path: str) -> Project:
    """Return the project that *data* describes; *path* is its file's."""
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
        root = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise InputError(f"byte {error.start} is not UTF-8", where=path) from None
    except tomllib.TOMLDecodeError as error:
        problem, _, place = str(error).partition(" (at ")
        where = f" ({place}" if place else ""
        raise InputError(f"{problem[:1].lower()}{problem[1:]}{where}", where=path) from None
    except RecursionError:
        raise InputError("is nested too deep", where=path) from None
    root.pop("$schema", None)
    bare = Project(path=path, text=text, images={})
    _check_texts(bare, root, ())
    _check_outline(bare, root)
    defaults = root.get("defaults", {})
    images = {name: _merged(defaults, own) for name, own in root["image"].items()}
    project = Project(path=path, text=text, images=images)
    for name, values in images.items():
        if not values.get("rows"):
            project.typed(name, values)
    return project


def _check_texts(project: Project, value: Any, at: places.Path) -> None:
    """Raise if a text in *value*, which stands at *at*, holds a NUL: no word on a command line can."""
    if isinstance(value, str) and "\0" in value:
        raise project.error("holds a NUL, which nothing here can", at)
    if isinstance(value, dict | list):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            _check_texts(project, each, (*at, key))


def _check_outline(project: Project, root: dict[str, Any]) -> None:
    """Raise unless *root* has nothing but images and defaults, all of them tables of known keys."""
    for key in root:
        if key not in ("image", "defaults"):
            hint = nearest(key, ("image", "defaults"), "an image is a table: [image.NAME]")
            raise project.error("unknown key", (key,), hint)
    images = root.get("image")
    if not isinstance(images, dict) or not images:
        raise project.error("describes no image", (), "describe one: [image.NAME], with app = 'KERNEL' below it")
    for name, values in images.items():
        if not _IMAGE_NAME.fullmatch(name):
            problem = "expected a name of at most 64 letters, digits, '_' and '-'"
            raise project.error(problem, ("image", name))
        if not isinstance(values, dict):
            raise project.error("expected a table", ("image", name), f"write [image.{name}] and its keys below")
        _check_keys(project, values, Image, ("image", name))
    if not isinstance(root.get("defaults", {}), dict):
        raise project.error("expected a table", ("defaults",))
    _check_keys(project, root.get("defaults", {}), Shared, ("defaults",))


def _keys(model: type[msgspec.Struct]) -> list[str]:
    return [field.encode_name for field in msgspec.structs.fields(model)]


def _check_keys(project: Project, values: dict[str, Any], model: type[msgspec.Struct], at: places.Path) -> None:
    for key, value in values.items():
        if key not in _keys(model):
            known = _keys(model)
            raise project.error("unknown key", (*at, key), nearest(key, known, f"known keys: {', '.join(known)}"))
        if key in _TABLES and model is not Boot and not isinstance(value, dict):
            raise project.error("expected a table", (*at, key))
    if isinstance(values.get("boot"), dict) and model is not Boot:
        _check_keys(project, values["boot"], Boot, (*at, "boot"))


def _merged(defaults: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    tables = {key: defaults[key] | own[key] for key in _TABLES if key in defaults and key in own}
    return {**defaults, **own, **tables}


def convert(project: Project, values: Mapping[str, Any], model: type[Image], at: places.Path) -> Image:
    """Return *values*, written at *at*, as *model*."""
    try:
        return msgspec.convert(values, model, strict=True)
    except msgspec.ValidationError as error:
        message, _, found = str(error).partition(" - at `")
        path = *at, *_parts(found.rstrip("`"))
        if match := re.fullmatch(r"Invalid enum value '(.*)'", message, re.DOTALL):
            known = _choices(str(path[-1]), in_boot=path[2:3] == ("boot",))
            problem, hint = f"expected {', '.join(known)}; got {match[1]!r}", nearest(match[1], known)
        else:
            problem, _, hint = explained(message)
        raise project.error(problem, path, hint) from None


def _parts(path: str) -> places.Path:
    """Return the keys and indices in msgspec's *path*, such as ``$.data[0]``."""
    found = re.findall(r"\.([^.\[]+)|\[(\d+)\]|\[(\.\.\.)\]", path)
    return tuple(int(index) if index else key for key, index, any_key in found if not any_key)


def _choices(key: str, *, in_boot: bool) -> list[str]:
    definitions = msgspec.json.schema(File)["$defs"]
    schema = definitions["Boot" if in_boot else "Image"]["properties"][key]
    kinds = [schema, *schema.get("anyOf", ())]
    return [str(choice) for kind in kinds for choice in kind.get("enum", ()) if choice is not None]
