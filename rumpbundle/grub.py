"""The only place that knows GRUB: its configuration text, and the images that firmware starts.

The boot images do not depend on a bundle. They are made once: with the wheel (``hatch_build.py``), so that it
works where no GRUB is installed, else at first use into the user's cache, keyed by GRUB's version and by what
goes in. ``grub-mkimage`` is reproducible for one version (docs/facts/formats.md#hybrid-boot).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import struct
from collections.abc import Mapping, Sequence
from dataclasses import field
from functools import cached_property
from pathlib import Path

from rumpbundle.bootloader import choice
from rumpbundle.dataclass import dataclass
from rumpbundle.disk.content import Content
from rumpbundle.disk.digest import hexdigest
from rumpbundle.errors import HostError, InputError, MissingToolError, RumpbundleError, ToolError
from rumpbundle.events import Note, Report, silent
from rumpbundle.host import environment
from rumpbundle.host.staging import staged_directory
from rumpbundle.kernels.unikernel import Firmware, Protocol

# -- boot images -----------------------------------------------------------------------------------------

_COMMON = (
    "boot", "configfile", "echo", "gzio", "halt", "iso9660", "linux", "multiboot", "multiboot2", "normal", "part_gpt",
    "part_msdos", "search", "search_fs_file", "serial", "sleep", "smbios", "terminal", "test",
)  # fmt: skip
_BIOS_MODULES = ("biosdisk", "linux16", "vbe", "vga", *_COMMON)
_EFI_MODULES = ("efi_gop", "efi_uga", "fat", *_COMMON)
_PREFIX = {Firmware.BIOS: "/boot/grub", Firmware.UEFI: "/EFI/BOOT"}
_LIBRARY = Path("/usr/lib/grub")
_PACKAGED = Path(__file__).parent / "bootimages"
_FILES = ("mbr.img", "bios.img", "efi.img")
_FACTS = "facts.json"
"""Version, digests and a sum: what is in a directory of boot images, and that it is whole."""

MBR_ADDRESS = slice(0x1B0, 0x1B8)
"""Of the boot sector's code, which ends with it: where the BIOS image is."""
BOOT_INFO = slice(8, 64)
"""Of the BIOS image: the boot-info table."""
NEXT_SECTOR = slice(2548, 2556)
"""Of the BIOS image: where what follows its first five sectors is."""


def blanked(image: bytes, *places: slice) -> bytes:
    """Return *image* without what an image's layout writes into it at *places*."""
    made = bytearray(image)
    for place in places:
        made[place] = bytes(place.stop - place.start)
    return bytes(made)


@dataclass(frozen=True)
class BootImages:
    """What firmware starts; bytes that every bundle shares."""

    version: str
    """GRUB's version."""
    mbr: bytes
    """Boot sector for a disk (boot_hybrid.img): loads the BIOS image by the address at byte 0x1B0."""
    bios: bytes
    """El Torito image: cdboot.img and a core."""
    efi: bytes
    """The PE file that becomes BOOTX64.EFI."""
    found: Content | None = field(default=None, compare=False, kw_only=True)
    """The same where it was found, in a finished image: what is written then can share its blocks."""
    known_sum: int | None = field(default=None, compare=False, kw_only=True)
    """What :attr:`bios_sum` is, where it is kept: to add up 70,000 words takes a fifth of a small bundle's time."""

    @property
    def loader(self) -> Content:
        """What BOOTX64.EFI holds."""
        return Content.of_bytes(self.efi) if self.found is None else self.found

    @cached_property
    def bios_sum(self) -> int:
        """The sum of the BIOS image's 32-bit words behind its boot-info table, but for those of the address."""
        if self.known_sum is not None:
            return self.known_sum
        words = blanked(self.bios.ljust(-(-len(self.bios) // 4) * 4, b"\0"), NEXT_SECTOR)[BOOT_INFO.stop :]
        return sum(struct.unpack(f"<{len(words) // 4}I", words))

    @cached_property
    def facts(self) -> Mapping[str, str]:
        """Version and digests, for the manifest: of what every image holds alike, so that an image can be checked."""
        mbr = blanked(self.mbr[: MBR_ADDRESS.stop], MBR_ADDRESS)
        bios = blanked(self.bios, BOOT_INFO, NEXT_SECTOR)
        return {"version": self.version, "mbr": hexdigest(mbr), "bios": hexdigest(bios), "efi": hexdigest(self.efi)}


def boot_images(report: Report = silent) -> BootImages:
    """Return the boot images: packaged with the wheel, cached, or made now (0.5 s).

    Raises:
        MissingToolError: none of these is possible because GRUB is not installed.
    """
    if (_PACKAGED / _FACTS).exists():
        return _load(_PACKAGED)
    recipe = json.dumps(["lz4, 3 ms, VBE, sum", _host_grub(), _BIOS_MODULES, _EFI_MODULES, list(_PREFIX.values())])
    directory = environment.cache_directory() / f"grub-{hexdigest(recipe.encode())[:16]}"
    try:
        _check_ours(directory.parent, directory, *(directory / name for name in (*_FILES, _FACTS)))
        return _load(directory)
    except (OSError, HostError) as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        why = "once; they are kept in the user's cache" if missing else f"anew: {error}"
        report(Note(f"making GRUB's boot images {why}"))
    import tempfile

    with tempfile.TemporaryDirectory(prefix="rumpbundle-") as scratch:
        made = make_boot_images(Path(scratch), report)
        _keep(Path(scratch), directory)
    return made


def make_boot_images(directory: Path, report: Report = silent) -> BootImages:
    """Make the boot images of the installed GRUB in *directory* and return them.

    Raises:
        MissingToolError: GRUB's tools or modules are not installed.
        ToolError: ``grub-mkimage`` failed.
    """
    # Most bundles find the images made, and need nothing that runs programs.
    from rumpbundle.bootloader import core
    from rumpbundle.host import programs

    _host_grub()
    for target, modules, name, firmware in (
        ("i386-pc-eltorito", _BIOS_MODULES, "bios.img", Firmware.BIOS),
        ("x86_64-efi", _EFI_MODULES, "efi.img", Firmware.UEFI),
    ):
        command = ("grub-mkimage", "-O", target, "-p", _PREFIX[firmware], "-o")
        told = (*command, name, *modules)
        programs.run([*command, str(directory / name), *modules], report=report, told=told)
    bios = directory / "bios.img"
    bios.write_bytes(core.quickened(bios.read_bytes()))
    (directory / "mbr.img").write_bytes((_LIBRARY / "i386-pc" / "boot_hybrid.img").read_bytes())
    said = programs.run(["grub-mkimage", "--version"], report=report).decode("utf-8", "replace")
    version = (said.split() or ["unknown"])[-1]
    images = BootImages(version, *((directory / name).read_bytes() for name in _FILES))
    if len(images.mbr) != 512 or len(images.bios) < 4096 or images.efi[:2] != b"MZ":
        raise ToolError("grub-mkimage made no boot images", hint="please report it with grub-mkimage --version")
    (directory / _FACTS).write_text(json.dumps({**images.facts, "bios_sum": images.bios_sum}), "ascii")
    return images


def _host_grub() -> list[tuple[str, int, int]]:
    """Return what tells one installed GRUB from another, without running it (which costs as much as a bundle)."""
    program = environment.find_program("grub-mkimage")
    needed = [_LIBRARY / name for name in ("i386-pc/boot_hybrid.img", "i386-pc/normal.mod", "x86_64-efi/normal.mod")]
    if program is None or not all(path.exists() for path in needed):
        raise MissingToolError(
            "GRUB is not installed, and this rumpbundle was built without boot images of its own",
            hint="on Debian and Ubuntu: sudo apt install grub-common grub-pc-bin grub-efi-amd64-bin",
        )
    status = [(str(path), path.stat()) for path in (Path(program), *needed)]
    return [(path, one.st_size, one.st_mtime_ns) for path, one in status]


def _load(directory: Path) -> BootImages:
    """Return the boot images in *directory*.

    Raises:
        FileNotFoundError: there are none.
        HostError: they are not as they were made.
    """
    try:
        facts = json.loads((directory / _FACTS).read_bytes())
        files = ((directory / name).read_bytes() for name in _FILES)
        images = BootImages(str(facts["version"]), *files, known_sum=int(facts["bios_sum"]))
    except (ValueError, TypeError, KeyError, RecursionError):
        raise HostError("does not tell what belongs there", where=directory / _FACTS) from None
    for name, file in zip(("mbr", "bios", "efi"), _FILES, strict=True):
        if facts.get(name) != images.facts[name]:
            raise HostError("is not as it was made", where=directory / file)
    return images


def _check_ours(*paths: Path) -> None:
    """Raise :class:`HostError` if somebody else may change one of *paths*."""
    for path in paths:
        status = path.stat()
        if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise HostError("others than this user can write to it", where=path)


def _keep(made: Path, directory: Path) -> None:
    """Move the finished images into the cache in one step; a cache that cannot be written is no error."""
    cache = directory.parent
    with contextlib.suppress(OSError, RumpbundleError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        cache.mkdir(mode=0o700, exist_ok=True)
        # One of an earlier version may have got its mode from a umask that lets the group write.
        cache.chmod(cache.stat().st_mode & 0o755)
        _check_ours(cache)
        with staged_directory(directory, force=True, sync=False) as new:
            new.chmod(0o700)
            for name in (*_FILES, _FACTS):
                (new / name).write_bytes((made / name).read_bytes())
                (new / name).chmod(0o600)


# -- configuration ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Menu:
    """What ``grub.cfg`` is to do. Paths are inside the image."""

    marker: str
    """A file only this bundle's image has; GRUB finds its root by it."""
    boot: Mapping[Firmware, Protocol]
    kernel: str
    cmdline: str
    modules: tuple[tuple[str, str], ...]
    """Path and command line of each."""
    cmdline_limit: int | None = None
    """The most bytes the kernel takes as its command line, where its header says so."""
    console: str = "both"
    kinds: tuple[str, ...] = ()
    """The kinds of identity that choose another configuration than this; empty if there is no other."""
    default: bool = True
    """Whether this is for every machine for which there is no other."""


_HALT = ("sleep 10", "halt")


def config(menu: Menu) -> str:
    """Return the text of ``grub.cfg``: boot one kernel at once, or say on every console why not, and halt.

    Raises:
        InputError: a name or command line cannot reach the guest unchanged.
    """
    lines = ["# Written by rumpbundle: boots one kernel and asks nothing."]
    lines += _console(menu.console)
    lines.append(f"search --file --set=root --hint $root {quote(menu.marker)}")
    start = _starts(menu) if menu.default else [*choice.nothing(), *_HALT]
    if menu.kinds:
        start = [
            *choice.lookup(menu.kinds, everything=not menu.default),
            'if [ "x$config" != x ]; then',
            f"  {choice.START}",
            "else",
            *start,
            "fi",
        ]
    lines += start
    lines.append("echo 'rumpbundle: the kernel did not start; the reason is above. Halting.'")
    lines += _HALT
    return "\n".join(lines) + "\n"


def script(menu: Menu) -> str:
    """Return the text of the script that boots *menu*'s kernel, for some machines only: grub.cfg reads it.

    Raises:
        InputError: as :func:`config`.
    """
    return "\n".join(_starts(menu)) + "\n"


def _starts(menu: Menu) -> list[str]:
    """Return the lines that boot the kernel."""
    efi, bios = _start(menu, Firmware.UEFI), _start(menu, Firmware.BIOS)
    return ['if [ "$grub_platform" = efi ]; then', *efi, "else", *bios, "fi"]


def _console(console: str) -> list[str]:
    if console == "vga":
        return ["terminal_output console", "terminal_input console"]
    both = "console serial" if console == "both" else "serial"
    return [
        # A machine without COM1 has no serial terminal; then the screen is all there is.
        "if serial --unit=0 --speed=115200; then",
        # Serial consoles are logged and read in terminals that are somebody's: GRUB must not clear them.
        "  terminfo serial dumb",
        f"  terminal_output {both}",
        f"  terminal_input {both}",
        # GRUB programs the port when it first writes to it, and a kernel may rely on that: a harmless first byte.
        r"  echo -n -e '\r'",
        "fi",
    ]


def _start(menu: Menu, firmware: Firmware) -> list[str]:
    protocol = menu.boot.get(firmware)
    if protocol is None:
        other = "UEFI" if firmware is Firmware.BIOS else "BIOS"
        return [f"  echo 'rumpbundle: this kernel cannot start under {firmware.upper()} firmware; use {other}.'"]
    if protocol is Protocol.EFI:
        return ["  echo 'rumpbundle: this is an EFI application, which firmware starts: EFI/BOOT/BOOTX64.EFI.'"]
    commands = [f"{protocol} {quote(menu.kernel)}{_arguments(menu.cmdline)}"]
    if protocol in (Protocol.LINUX, Protocol.LINUX16):
        _check_linux_line(menu)
        if menu.modules:
            initrd = "initrd" if protocol is Protocol.LINUX else "initrd16"
            commands.append(" ".join([initrd, *(quote(path) for path, _ in menu.modules)]))
    else:
        module = "module" if protocol is Protocol.MULTIBOOT else "module2"
        # Else GRUB unpacks a gzip file it is given as a module: the guest would not get what the user gave.
        commands += [f"{module} --nounzip {quote(path)}{_arguments(text)}" for path, text in menu.modules]
    # Flat, each step only after the last went well: GRUB runs nothing that is nested 50 deep, and says nothing.
    steps = [f'  if [ "$loaded" ]; then loaded=; if {command}; then loaded=yes; fi; fi' for command in commands]
    return ["  loaded=yes", *steps, '  if [ "$loaded" ]; then boot; fi']


def _check_linux_line(menu: Menu) -> None:
    """Raise unless the command line arrives whole behind the ``BOOT_IMAGE=PATH`` that GRUB puts first.

    GRUB leaves out the words for which there is no room, without a word (grub_create_loader_cmdline).
    """
    _check_rewritten(menu.kernel, "kernel's name, which Linux gets as BOOT_IMAGE=", "rename the kernel")
    path = f'"{menu.kernel}"' if " " in menu.kernel else menu.kernel
    length = len(f"BOOT_IMAGE={path} {menu.cmdline}".encode("utf-8", "surrogateescape"))
    if menu.cmdline_limit is not None and length > menu.cmdline_limit:
        raise InputError(
            f"the kernel takes {menu.cmdline_limit} bytes of command line; with BOOT_IMAGE= this is {length}",
            where="--cmdline",
        )


def quote(text: str) -> str:
    """Return *text* as one word of GRUB's script language, every byte as it is.

    Raises:
        InputError: it holds a newline or NUL, which no GRUB line can.
    """
    check_line(text)
    return "'" + text.replace("'", "'\\''") + "'"


def check_line(text: str) -> None:
    """Raise :class:`InputError` if *text* holds what no GRUB line can carry."""
    for character, name in (("\n", "a newline"), ("\r", "a carriage return"), ("\0", "a NUL byte")):
        if character in text:
            raise InputError(f"{name} cannot pass through the boot loader", where=repr(text))


WORD_LIMIT = 8188
"""Bytes of a word in quotes; GRUB 2.06 stands still over 8189 and more."""
WORDS_LIMIT = 9000
"""Words of a line; GRUB 2.06's parser ends with ``memory exhausted`` short of 10,000."""
_QUOTED = re.compile(r'"([^"\\\']* [^"\\\']*)"(?= |$)')


def _arguments(text: str) -> str:
    """Return *text* as arguments after which GRUB, joining them with blanks, gives the guest *text* again.

    An argument that holds blanks GRUB wraps in double quotes, so exactly the words so wrapped are given to it as one;
    runs of blanks survive as empty words.
    """
    words: list[str] = []
    position = 0
    while text and position <= len(text):
        if match := _QUOTED.match(text, position):
            words.append(match[1])
            position = match.end() + 1
        else:
            words.append(text[position:].partition(" ")[0])
            position += len(words[-1]) + 1
    hint = "leave it out, or pass it in a module or file, which arrive byte for byte"
    _check_rewritten(" ".join(words), "command line", hint)
    return _words(words)


def _words(words: Sequence[str]) -> str:
    """Return *words* as arguments in GRUB's script language.

    Raises:
        InputError: they are more, or one is longer, than GRUB's script reader can take.
    """
    longest = max((len(word.encode("utf-8", "surrogateescape")) for word in words), default=0)
    if longest > WORD_LIMIT or len(words) > WORDS_LIMIT:
        found = f"{longest} bytes" if longest > WORD_LIMIT else f"{len(words)} words"
        raise InputError(
            f"GRUB reads at most {WORDS_LIMIT} words of at most {WORD_LIMIT} bytes on a line, this has {found}",
            hint="pass it in a module or file",
        )
    return "".join(f" {quote(word)}" for word in words)


def _check_rewritten(text: str, what: str, hint: str) -> None:
    """Raise if GRUB would put a backslash before something in *text* (grub_create_loader_cmdline)."""
    for character in ("\\", '"', "'"):
        if character in text:
            raise InputError(
                f"GRUB would put a backslash before each {character} of this {what}", where=repr(text), hint=hint
            )
