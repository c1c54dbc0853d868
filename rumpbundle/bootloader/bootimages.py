"""GRUB's images, which firmware starts: made, kept and checked.

They do not depend on a bundle. They are made once: with the wheel (``hatch_build.py``), so that it works where no
GRUB is installed, else at first use into the user's cache, keyed by GRUB's version and by what goes in.
``grub-mkimage`` is reproducible for one version (docs/facts/formats.md#hybrid-boot).
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import struct
from collections.abc import Mapping
from dataclasses import field
from functools import cached_property
from pathlib import Path

from rumpbundle.dataclass import dataclass
from rumpbundle.disk.content import Content
from rumpbundle.disk.digest import hexdigest
from rumpbundle.errors import HostError, MissingToolError, RumpbundleError, ToolError
from rumpbundle.events import Note, Report, silent
from rumpbundle.host import environment
from rumpbundle.host.staging import staged_directory
from rumpbundle.kernels.unikernel import Firmware

_COMMON = (
    "boot", "configfile", "echo", "gzio", "halt", "iso9660", "linux", "multiboot", "multiboot2", "normal", "part_gpt",
    "part_msdos", "search", "search_fs_file", "serial", "sleep", "smbios", "terminal", "test",
)  # fmt: skip
_BIOS_MODULES = ("biosdisk", "linux16", "vbe", "vga", *_COMMON)
_EFI_MODULES = ("efi_gop", "efi_uga", "fat", *_COMMON)
_PREFIX = {Firmware.BIOS: "/boot/grub", Firmware.UEFI: "/EFI/BOOT"}
_LIBRARY = Path("/usr/lib/grub")
_PACKAGED = Path(__file__).parents[1] / "bootimages"
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

    @property
    def kept(self) -> Mapping[str, str | int]:
        """What is kept beside the images, ended by a digest of all before it: a sum cannot be told by looking."""
        kept: dict[str, str | int] = {**self.facts, "bios_sum": self.bios_sum}
        return {**kept, "digest": hexdigest(json.dumps(kept).encode())}


def boot_images(report: Report = silent) -> BootImages:
    """Return the boot images: packaged with the wheel, cached, or made now (0.5 s).

    Raises:
        MissingToolError: none of these is possible because GRUB is not installed.
    """
    if (_PACKAGED / _FACTS).exists():
        return _load(_PACKAGED)
    patches = "lz4, 3 ms, VBE, no screen, sum, digest"
    recipe = json.dumps([patches, _host_grub(), _BIOS_MODULES, _EFI_MODULES, list(_PREFIX.values())])
    directory = environment.cache_directory() / f"grub-{hexdigest(recipe.encode())[:16]}"
    try:
        _check_ours(directory.parent, directory, *(directory / name for name in (*_FILES, _FACTS)))
        return _load(directory)
    except (OSError, HostError) as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        why = "once; they are kept in the user's cache" if missing else f"anew: {error}"
        report(Note(f"making GRUB's boot images {why}"))
    with environment.scratch_directory() as scratch:
        made = make_boot_images(scratch, report)
        _keep(scratch, directory)
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
    for name, changed in (("bios.img", core.quickened), ("efi.img", core.quieted)):
        (directory / name).write_bytes(changed((directory / name).read_bytes()))
    mbr = directory / "mbr.img"
    mbr.write_bytes((_LIBRARY / "i386-pc" / "boot_hybrid.img").read_bytes())
    mbr.chmod(0o600)  # whatever the umask
    said = programs.run(["grub-mkimage", "--version"], report=report).decode("utf-8", "replace")
    version = (said.split() or ["unknown"])[-1]
    images = BootImages(version, *((directory / name).read_bytes() for name in _FILES))
    if len(images.mbr) != 512 or len(images.bios) < 4096 or images.efi[:2] != b"MZ":
        raise ToolError("grub-mkimage made no boot images", hint="please report it with grub-mkimage --version")
    (directory / _FACTS).write_text(json.dumps(images.kept), "ascii")
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
    if facts != images.kept:
        raise HostError("is not as it was made", where=directory / _FACTS)
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
