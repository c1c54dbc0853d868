"""What a guest family is asked for and what it answers, as values; and what several families share."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING
from typing import Literal as OneOf

from rumpbundle.dataclass import dataclass
from rumpbundle.disk.content import Content
from rumpbundle.disk.tree import Directory, File, walk
from rumpbundle.errors import ConfigError, ImageError, InputError, UsageError
from rumpbundle.kernels.unikernel import Firmware, Protocol, Unikernel
from rumpbundle.manifest import HEAD_ROOM, Bundle, Module, Mounted, Volume

if TYPE_CHECKING:
    from rumpbundle.config import Config

ESP_HINT = "put its files beside it on its EFI system partition: --esp DIR"


@dataclass(frozen=True, slots=True)
class Data:
    """A tree the guest sees, read-only, at *mount*."""

    tree: Directory
    mount: str
    made: Content | None = None
    """What was made of the tree, where that is at hand (in an image that is planned anew) and the tree is not."""

    def __post_init__(self) -> None:
        check_mount(self.mount)

    def as_iso9660(self, labels: set[str], epoch: int) -> Volume:
        """Return it as an ISO 9660 file system, under a label that is not in *labels*."""
        from rumpbundle import volume  # most bundles have none, and need no writer of file systems

        if self.made is not None:
            return Volume(volume.label_for(self.mount, labels), "iso9660", self.made)
        return volume.iso9660(self.tree, label=volume.label_for(self.mount, labels), epoch=epoch)

    def as_initrd(self, labels: set[str], epoch: int) -> Module:
        """Return it as an archive that a Linux kernel unpacks, under a name that is not in *labels*."""
        from rumpbundle import volume
        from rumpbundle.filesystems import cpio

        name = f"{volume.label_for(self.mount, labels)}.cpio"
        if self.made is not None:
            return Module(name, self.made)
        return Module(name, cpio.archive(self.tree, mount=self.mount, epoch=epoch))


@dataclass(frozen=True, slots=True)
class Writable:
    """A tree the guest sees at *mount* and can write to.

    *size* is that of the partition in bytes; None makes it fit the tree with *free* bytes of head room.
    """

    tree: Directory
    mount: str
    size: int | None = None
    free: int = HEAD_ROOM
    made: Content | None = None
    """The finished file system, as :attr:`Data.made`."""

    def __post_init__(self) -> None:
        check_mount(self.mount)

    def as_ext2(self, labels: set[str], epoch: int) -> tuple[Volume, str]:
        """Return it as an ext2 file system, under a label that is not in *labels*, and its UUID."""
        from rumpbundle import volume

        label = volume.label_for(self.mount, labels)
        if self.made is not None:
            return Volume(label, "ext2", self.made), volume.uuid_of(self.made)
        try:
            return volume.ext2(self.tree, label=label, epoch=epoch, size=self.size, free=self.free)
        except InputError as error:
            error.where = error.where or f"--volume {self.mount}"
            raise


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user wants a kernel to be told and to find."""

    kernel: Unikernel
    boot: Mapping[Firmware, Protocol]
    cmdline: str | None = None
    argv0: bool = True
    """Whether a Multiboot kernel gets its file name as the first word of its command line."""
    modules: tuple[Module, ...] = ()
    config: Config | None = None
    data: tuple[Data, ...] = ()
    volumes: tuple[Writable, ...] = ()
    has_esp_files: bool = False
    """Whether files stand beside an EFI application on its volume."""
    bus: str = ""
    """Where the guest will find the disk the image is (:mod:`rumpbundle.knowledge`'s name); empty if nobody knows."""
    epoch: int
    room: int = 0
    """Bytes to keep for another configuration than this."""
    file: str = "json.cfg"
    """Where the configuration goes if it becomes a file: its path from the root of the image's ISO 9660."""


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What goes into the image so that the guest gets what was requested."""

    cmdline: str = ""
    """Exactly what the guest receives as its command line."""
    modules: tuple[Module, ...] = ()
    root: Directory = field(default_factory=lambda: Directory(""))
    """Files for the root of the image's ISO 9660 file system."""
    volumes: tuple[Volume, ...] = ()
    table: OneOf["gpt", "mbr"] = "gpt"
    bus: str = ""
    """Where the guest looks for the disk the image is (:mod:`rumpbundle.knowledge`'s name); empty if it does not."""
    mounts: tuple[Mounted, ...] = ()
    """Where the image keeps each directory of the user's."""
    config: bytes = b""
    """The configuration in the guest's own format, for launchers that hand it over themselves (xenstore)."""
    notes: tuple[str, ...] = ()
    """What the user should know: where data is found, what the guest's limits changed."""


def kept(holder: Bundle | Delivery, mounts: Sequence[Mounted]) -> tuple[tuple[Data, ...], tuple[Writable, ...]]:
    """Return what is mounted at *mounts* as what *holder* keeps of it: requested again, it is made as it is there.

    Raises:
        ImageError: *holder* does not have it.
    """
    data = tuple(_data(holder, mount) for mount in mounts if not mount.writable)
    return data, tuple(
        Writable(Directory(""), mount.mount, made=_made(holder, mount)) for mount in mounts if mount.writable
    )


def _data(holder: Bundle | Delivery, mount: Mounted) -> Data:
    if mount.place == "root":
        # What has room kept for it is the configuration's own file, not the user's.
        children = [node for node in holder.root.children if not (isinstance(node, File) and node.room)]
        return Data(Directory("", tuple(children)), mount.mount)
    return Data(Directory(""), mount.mount, made=_made(holder, mount))


def _made(holder: Bundle | Delivery, mount: Mounted) -> Content:
    """Return the file system, or the archive, that *holder* keeps for *mount*."""
    kind, _, number = mount.place.partition(" ")
    found: Content | None = None
    if kind in ("module", "volume") and number.isdigit():
        held = holder.modules if kind == "module" else holder.volumes
        found = held[int(number)].content if int(number) < len(held) else None
    else:
        files = (node.content for path, node in walk(holder.root) if path == mount.place and isinstance(node, File))
        found = next(files, None)
    if found is None:
        raise ImageError(f"{mount.mount} should stand in {mount.place!r}, which the image does not have")
    return found


def command_line(request: Request, text: str) -> str:
    """Return *text* as the guest gets it: after the kernel's file name if the kernel starts by Multiboot.

    QEMU's ``-kernel`` and GRUB Legacy pass the name, so Multiboot kernels take or drop the first word
    (docs/facts/guests.md#grub-command-lines); a Linux kernel and an EFI application do not. What would split or
    change the name on its way becomes ``_``.
    """
    multiboot = {Protocol.MULTIBOOT, Protocol.MULTIBOOT2}
    if not request.argv0 or multiboot.isdisjoint(request.boot.values()):
        return text
    name = plain_word(request.kernel.name)
    return f"{name} {text}" if text else name


def plain_word(name: str) -> str:
    """Return *name* with ``_`` for whatever a boot loader or a guest might take for more than a letter."""
    return re.sub(r"[^A-Za-z0-9._+,@%:=-]", "_", name)


def words(arguments: Sequence[str], path: str) -> str:
    """Return *arguments* as one command line that splits into them again; one with blanks goes into ``"…"``.

    *path* is where they stand in the configuration, for errors.

    Raises:
        ConfigError: one is empty, or holds quotes, backslashes or control characters: every loader and kernel has
            rules of its own for these.
    """
    shown = []
    for index, argument in enumerate(arguments):
        if not argument or re.search(r"[\"'\\\x00-\x1f\x7f]", argument):
            problem = "is empty" if not argument else f"holds quotes, backslashes or control characters: {argument!r}"
            raise ConfigError(
                f"{path}[{index}]: {problem}; this guest gets its arguments on a command line, which cannot carry it",
                hint="put it into a file the program reads",
            )
        shown.append(f'"{argument}"' if " " in argument else argument)
    return " ".join(shown)


def arguments_of(config: Config) -> str:
    """Return the arguments of the one program *config* runs, as a command line without the program's name.

    Raises:
        ConfigError: it runs several, or in a way only rumprun knows.
    """
    if config.cmdline is not None:
        return _without_first_word(config.cmdline)
    if len(config.rc) > 1:
        raise ConfigError("$.rc[1]: this guest is one program; only rumprun runs several")
    for program in config.rc:
        if program.runmode:
            raise ConfigError("$.rc[0].runmode: this guest is one program, there is nothing beside it to run")
        return words(program.argv, "$.rc[0].argv")
    return ""


_WORD = re.compile(r'(?:"[^"]*"|\S)+')


def around_arguments(text: str, config: Config) -> tuple[str, str]:
    """Return what stands before the word ``--`` in the command line *text*, and behind it, *config*'s arguments too.

    Raises:
        ConfigError: as :func:`arguments_of`.
        UsageError: both have arguments.
    """
    end = next((word for word in _WORD.finditer(text) if word[0] == "--"), None)
    before, after = (text, "") if end is None else (text[: end.start()], text[end.end() :].strip())
    arguments = arguments_of(config)
    if after and arguments:
        raise UsageError("has arguments after --, and the configuration has arguments too", where="--cmdline")
    return before.strip(), after or arguments


_FIRST_WORD = re.compile(r"""\s*(?:"[^"]*"|'[^']*'|[^\s"'])+(?:\s+|$)""")
"""The program's name as a shell reads it: blanks inside quotes are part of it."""


def _without_first_word(text: str) -> str:
    """Return the command line *text* without its first word, which is the program's name.

    Raises:
        ConfigError: a quote in that word is never closed.
    """
    if not text.strip():
        return ""
    match = _FIRST_WORD.match(text)
    if match is None:
        raise ConfigError("$.cmdline: a quote in the program's name is not closed")
    return text[match.end() :].rstrip()


def refuse(config: Config, why: Mapping[str, str]) -> None:
    """Raise :class:`ConfigError` if *config* sets a key of *why*, with the reason *why* gives."""
    for key, reason in why.items():
        if getattr(config, key):
            raise ConfigError(f"$.{key}: {reason}")


def check_mount(mount: str) -> None:
    """Raise :class:`UsageError` unless *mount* is an absolute path in its shortest form."""
    if posixpath.normpath(mount) != mount or not re.match("/(?!/)", mount) or not mount.isprintable():
        raise UsageError(
            f"expected an absolute path without '.', '..' or doubled slashes, got {mount!r}", where="mount point"
        )
