"""What to bundle, as one value that is never half valid.

A :class:`Recipe` takes what the command line takes, and in the same words: ``size="512M"``,
``modules=["initrd.gz"]``, ``data=["site:/srv/www"]``, ``config="cfg.json"``. It holds the typed values these mean.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, TypedDict, Unpack, get_args
from typing import Literal as OneOf

from rumpbundle import guests
from rumpbundle.arguments import choice, count, file_name, flag, refused, sequence, size, text
from rumpbundle.dataclass import dataclass
from rumpbundle.disk import tree
from rumpbundle.disk.inputfile import InputFile
from rumpbundle.disk.tree import Directory
from rumpbundle.errors import InputError, UsageError, nearest
from rumpbundle.guests import ConfigFor, ordered
from rumpbundle.host import environment, overlap
from rumpbundle.manifest import Console
from rumpbundle.units import parsed_size

if TYPE_CHECKING:
    from rumpbundle.config import Config

PathLike = str | os.PathLike[str]
FirmwareChoice = OneOf["both", "bios", "uefi"]
ProtocolChoice = OneOf["auto", "multiboot", "multiboot2", "linux", "linux16", "efi"]


MAX_ROOM = 16 << 20
"""Bytes of ``config_room``: a configuration has a MiB, and whatever it is compiled into is not ten times as long."""


@dataclass(frozen=True, slots=True)
class ModuleFile:
    """A boot module of the user's: a file and its command line."""

    path: PathLike
    text: str = ""

    def __post_init__(self) -> None:
        """Raise :class:`UsageError` if it is no file's name, or no text."""
        file_name("modules", self.path)
        text("modules", self.text)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``FILE[:TEXT]``. A file whose name holds a colon wins over the split."""
        if ":" not in text or os.path.exists(text):
            return cls(text)
        path, _, rest = text.partition(":")
        return cls(path, rest)


class RecipeFields(TypedDict, total=False):
    """The fields of a :class:`Recipe`, as a caller may write them."""

    cmdline: str | None
    argv0: bool
    modules: Sequence[ModuleFile | PathLike]
    config: Config | PathLike | None
    config_name: str | None
    configs: Mapping[str, Config | PathLike] | Sequence[ConfigFor | str]
    data: Sequence[guests.Data | str]
    volumes: Sequence[guests.Writable | str]
    esp: Directory | PathLike | None
    firmware: FirmwareChoice
    protocol: ProtocolChoice
    console: Console
    name: str | None
    size: int | str
    config_room: int | str
    strict: bool
    epoch: int | None
    inputs: Sequence[PathLike]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to bundle, whatever the format. See docs/cli.md for each option's meaning."""

    app: PathLike
    cmdline: str | None = None
    argv0: bool = True
    modules: tuple[ModuleFile, ...] = ()
    config: Config | None = None
    config_name: str | None = None
    """What errors call the configuration: its file's name."""
    configs: tuple[ConfigFor, ...] = ()
    """Configurations for some machines only; *config*, if there is one, is for all others."""
    data: tuple[guests.Data, ...] = ()
    volumes: tuple[guests.Writable, ...] = ()
    esp: Directory | None = None
    """A tree of files for an EFI application, from the root of the EFI system partition on which it stands."""
    firmware: FirmwareChoice = "both"
    protocol: ProtocolChoice = "auto"
    console: Console = "both"
    name: str | None = None
    size: int = 0
    """The least size of the disk, in bytes."""
    config_room: int = 0
    """Bytes to keep in the image for another configuration, besides the few KiB there always are."""
    strict: bool = False
    """Whether what is known not to work where the format is for is an error, not a warning."""
    epoch: int | None = None
    """The date of everything dated, in seconds since 1970; None asks ``SOURCE_DATE_EPOCH``."""
    inputs: tuple[PathLike, ...] = ()
    """Further files and directories this was read from, as that of *config*: no output takes their place."""

    def __post_init__(self) -> None:
        """Take what was given for what it means.

        Raises:
            UsageError: a field has a value that says nothing; ``where`` names it.
            InputError, ConfigError: a file or directory that is named cannot be read.
        """
        named: Any = self.config
        if isinstance(named, str | os.PathLike):
            path = file_name("config", named)
            self._set(config=read_config(path), config_name=path, inputs=(*sequence("inputs", self.inputs), path))
        configs, files = _configs(self.configs)
        self._set(
            app=_path("app", self.app),
            cmdline=_text("cmdline", self.cmdline),
            argv0=flag("argv0", self.argv0),
            modules=tuple(_module(each) for each in sequence("modules", self.modules)),
            config=_config(self.config),
            config_name=_text("config_name", self.config_name),
            configs=configs,
            data=tuple(_data(each) for each in sequence("data", self.data)),
            volumes=tuple(_volume(each) for each in sequence("volumes", self.volumes)),
            esp=_tree(self.esp),
            firmware=choice("firmware", self.firmware, get_args(FirmwareChoice)),
            protocol=choice("protocol", self.protocol, get_args(ProtocolChoice)),
            console=choice("console", self.console, get_args(Console)),
            name=_text("name", self.name),
            size=size("size", self.size),
            config_room=_room(self.config_room),
            strict=flag("strict", self.strict),
            epoch=_epoch(self.epoch),
            inputs=tuple(_path("inputs", each) for each in (*sequence("inputs", self.inputs), *files)),
        )

    def origins(self) -> Iterator[overlap.Inode | None]:
        """Yield the inodes of all it is made of."""
        files = (path for path in (self.app, *(module.path for module in self.modules)) if not os.path.isdir(path))
        yield from map(overlap.inode, (*files, *self.inputs))
        trees = [*(each.tree for each in self.data), *(each.tree for each in self.volumes)]
        for top in trees if self.esp is None else [*trees, self.esp]:
            yield from tree.origins(top)

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, app: PathLike | Recipe, **fields: Unpack[RecipeFields]) -> Recipe:
        """Return the recipe for *app* with these *fields*; a recipe is taken as it is, and has its own.

        Raises:
            UsageError: there is no such field, or *app* is a recipe already.
        """
        known = [field.name for field in dataclasses.fields(cls) if field.name != "app"]
        for name in fields:
            if name not in known:
                raise UsageError(f"there is no option {name!r}", hint=nearest(name, known))
        if not isinstance(app, Recipe):
            return cls(app=app, **fields)  # type: ignore[arg-type]
        if fields:
            raise UsageError(f"the recipe has {next(iter(fields))!r} already: give one of the two")
        return app


def _room(value: Any) -> int:
    """Return *value* as the bytes kept for later configurations; they are filled in memory."""
    room = size("config_room", value)
    if room > MAX_ROOM:
        raise UsageError("expected 16M at most: no configuration takes more", where="--config-room")
    return room


def parsed_mount(text: str, *, sized: bool) -> tuple[str, str, int | None]:
    """Read ``DIR:MOUNT``, if *sized* also ``DIR:MOUNT:SIZE``; MOUNT begins with a slash, so DIR may hold colons.

    Raises:
        ValueError: it is not of that form, or the size is none.
    """
    form = r"(.+?):(/[^:]*)(?::([^:/]+))?" if sized else r"(.+):(/[^:]*)()"
    match = re.fullmatch(form, text, re.DOTALL)
    if not match:
        wanted = "DIR:MOUNT[:SIZE]" if sized else "DIR:MOUNT"
        raise ValueError(f"expected {wanted} with an absolute MOUNT, got {text!r}")
    return match[1], match[2], parsed_size(match[3]) if match[3] else None


def read_config(path: str) -> Config:
    """Read the configuration in the file *path*; never more than it may have."""
    from rumpbundle.config import parse
    from rumpbundle.config.jsontext import MAX_BYTES

    file = InputFile(path)
    return parse(file.read(0, min(file.size, MAX_BYTES + 1)), path)


def _path(where: str, value: Any) -> Any:
    file_name(where, value)
    return value


def _text(where: str, value: Any) -> str | None:
    return None if value is None else text(where, value)


def _epoch(value: Any) -> int | None:
    least, most = environment.DEFAULT_EPOCH, environment.LAST_EPOCH  # 1980 to 2107: what FAT can say
    return None if value is None else count("epoch", value, least, most)


def _module(value: Any) -> ModuleFile:
    if isinstance(value, ModuleFile):
        return value
    return ModuleFile.parse(file_name("modules", value)) if isinstance(value, str) else ModuleFile(value)


def _config(value: Any) -> Any:
    if value is not None:
        from rumpbundle.config import Config

        if not isinstance(value, Config):
            raise refused("config", "a Config or the name of its file", value)
    return value


def _configs(value: Any) -> tuple[tuple[ConfigFor, ...], tuple[str, ...]]:
    """Return the configurations *value* names, and the files they were read from."""
    found: list[ConfigFor] = []
    files: list[str] = []
    pairs = value.items() if isinstance(value, Mapping) else ((None, each) for each in sequence("configs", value))
    for key, each in pairs:
        if isinstance(each, ConfigFor):
            found.append(each)
        elif key is not None and not isinstance(each, str | os.PathLike):
            found.append(ConfigFor(text("configs", key), _config(each)))
        elif key is None and not isinstance(each, str):
            raise refused("configs", "'KEY=CFG', a directory or a ConfigFor", each)
        else:
            path = file_name("configs", each)
            named = _named(path) if key is None else ((text("configs", key), path),)
            found += [ConfigFor(key, read_config(path), path) for key, path in named]
            files += [path for _, path in named]
    return ordered(found), tuple(files)


def _named(text: str) -> tuple[tuple[str, str], ...]:
    """Return the keys and files that *text* names: ``KEY=CFG``, or a directory of files ``KEY.json``."""
    key, equals, path = text.rpartition("=")
    return ((key, path),) if equals else configs_in(text)


def configs_in(directory: str) -> tuple[tuple[str, str], ...]:
    """Return the keys and files of *directory*, which holds files ``KEY.json`` and nothing else.

    Raises:
        InputError: it cannot be read, holds something else or nothing, or leads out of itself.
    """
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=directory) from None
    top = os.path.realpath(directory)
    found = []
    for name in names:
        path = os.path.join(directory, name)
        if not name.endswith(".json") or name == ".json":
            raise InputError("is not called KEY.json, as all in a directory of configurations is", where=path)
        if os.path.islink(path) and os.path.dirname(os.path.realpath(path)) != top:
            raise InputError("is a symbolic link that leads out of the directory", where=path)
        found.append((name.removesuffix(".json"), path))
    if not found:
        raise InputError("holds no configuration: files called KEY.json", where=directory)
    return tuple(found)


def _tree(value: Any) -> Directory | None:
    return value if value is None or isinstance(value, Directory) else tree.scan(_path("esp", value))


def _data(value: Any) -> guests.Data:
    if isinstance(value, guests.Data):
        return value
    directory, mount, _ = _mounted("data", value, sized=False)
    return guests.Data(tree.scan(directory), mount)


def _volume(value: Any) -> guests.Writable:
    if isinstance(value, guests.Writable):
        return value
    directory, mount, size = _mounted("volumes", value, sized=True)
    return guests.Writable(tree.scan(directory), mount, size)


def _mounted(where: str, value: Any, *, sized: bool) -> tuple[str, str, int | None]:
    if not isinstance(value, str):
        raise refused(where, "'DIR:MOUNT' or its value", value)
    try:
        return parsed_mount(file_name(where, value), sized=sized)
    except ValueError as error:
        raise UsageError(str(error), where=where) from None


__all__ = ["ConfigFor", "ModuleFile", "Recipe", "RecipeFields"]
