"""The one disk layout: a valid ISO 9660 volume and a valid disk at once (docs/layout.md).

::

    byte 0       MBR: GRUB's boot_hybrid.img, which loads the BIOS image, and GPT (or the table of a plain MBR)
    32 KiB       ISO 9660 with Rock Ridge and El Torito: BIOS image, /boot, kernel, modules, manifest, data
    …            EFI system partition (FAT); the ISO's files of the same content point into it
    …            volumes: further partitions, on MiB boundaries
    end          backup GPT

It boots from CD, disk and USB under BIOS and UEFI; the kernel's own file systems find the ISO at sector 0.
"""

from __future__ import annotations

import posixpath
import struct
from dataclasses import replace

from rumpbundle import grub
from rumpbundle.bootloader import bootimages, efistarter
from rumpbundle.bootloader.bootimages import BootImages
from rumpbundle.bootloader.smbios import Key
from rumpbundle.dataclass import dataclass
from rumpbundle.disk import gpt
from rumpbundle.disk.content import Content, Late, Literal
from rumpbundle.disk.layout import MIB, SECTOR, DiskLayout, Extent, Named, Partition, content_extents, round_up
from rumpbundle.disk.tree import Directory, File, Node, walk
from rumpbundle.errors import InputError
from rumpbundle.filesystems.fat import MAX_LABEL, FatVolume
from rumpbundle.filesystems.identifiers import volume_id
from rumpbundle.filesystems.iso9660 import SYSTEM_AREA, Iso9660Volume
from rumpbundle.filesystems.isodirectory import BLOCK
from rumpbundle.kernels.unikernel import Firmware, Protocol
from rumpbundle.manifest import CONFIGS, MAX_MANIFEST, PATH, SLOT, Bundle, Module, place_of

_MARKERS = "/boot/rumpbundle"
_MARKER_PENDING = "PENDING_PENDING_"
"""Stands for the marker file's name, 16 hex digits of the bundle's digest, until that is known."""
_MENU_SLOT = 8192
"""Bytes of grub.cfg, which its end is padded to, so that another command line moves nothing."""
_GRAIN = 32768
"""Partitions begin and end on multiples of this: the first begins at sector 64, and ``sgdisk -v`` finds it
troublesome if one ends on less than what all of them begin on."""
_BIOS_IMAGE_LOADS = 4
"""Sectors the BIOS loads of the boot image; its own code loads the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """The contents whose places the plan must know."""

    root: Directory
    esp: Directory | None
    bios: Content | None
    on_esp: tuple[tuple[Content, str], ...]
    """Contents that stand on the EFI system partition and are in the ISO tree too, with their path there."""


def plan(bundle: Bundle, images: BootImages | None) -> DiskLayout:
    """Return the disk of *bundle*, as small as it can be; :meth:`DiskLayout.padded` gives it its size.

    Without *images* it boots nothing: the disk of a kernel that is started from outside of it.

    Raises:
        InputError: the bundle's files do not fit a file system, or want names the image needs itself.
    """
    parts = _parts(bundle, images)
    elsewhere = tuple(content for content, _ in parts.on_esp)
    volume = Iso9660Volume(parts.root, label=labels(bundle)["ISO 9660"], epoch=bundle.epoch, elsewhere=elsewhere)
    iso_size = end = round_up(volume.end, _GRAIN)
    partitions = []
    extents: list[Extent] = []
    esp_offset = esp_size = 0
    if parts.esp is not None:
        fat = FatVolume(parts.esp, label=labels(bundle)["EFI system partition"], epoch=bundle.epoch)
        esp_offset, esp_size = end, round_up(fat.size, _GRAIN)
        end += esp_size
        extents += fat.extents(esp_offset, lambda: bundle.identity.u32("ESP serial"))
        for content, path in parts.on_esp:
            volume.place(content, esp_offset + fat.offset_of(path))
        partitions.append(_partition("EFI system partition", esp_offset, esp_size, gpt.ESP_GUID, gpt.ESP_MBR))
    iso_end = end

    bios_offset = volume.offset_of(parts.bios) if parts.bios is not None else 0
    extents += [extent for extent in volume.extents() if extent.offset != bios_offset or not parts.bios]
    extents += [_bios_image(images, bios_offset)] if images and parts.bios is not None else []
    catalog = _boot_catalog(bios_offset // BLOCK, esp_offset // BLOCK, esp_size // SECTOR) if images else None
    extents += _iso_metadata(bundle, volume, iso_end, catalog)

    named = [Named(volume.offset_of(content), content) for content in _listed(bundle) if content.size]
    if parts.esp is not None:
        named += [Named(esp_offset + fat.offset_of(path), content) for path, content in _beside_application(bundle)]
    volumes = _volumes(bundle, end)
    for payload, partition in zip(bundle.volumes, volumes, strict=True):
        end = partition.offset + partition.length
        named.append(Named(partition.offset, payload.content))
        extents += content_extents(payload.content, partition.offset, f"volume {payload.label}")

    boot_code = _boot_code(images, bios_offset) if images and parts.bios else b""
    if bundle.table == "mbr":
        # The guest's first partition must be its volume: docs/facts/guests.md#rumprun-disks, the last row.
        partitions, tail = volumes + partitions, 0
        write_table = gpt.mbr_table(boot_code)
    else:
        iso = _partition("ISO9660", SYSTEM_AREA, iso_size - SYSTEM_AREA, gpt.BASIC_DATA_GUID, 0)
        partitions, tail = [iso, *partitions, *volumes], gpt.BACKUP_BYTES
        write_table = gpt.gpt_table(boot_code)
    return DiskLayout(
        size=round_up(end + tail, SECTOR),
        body=tuple(extents),
        partitions=tuple(partitions),
        table=bundle.table,
        write_table=write_table,
        identity=bundle.identity,
        body_end=end,
        tail=tail,
        named=tuple(sorted(named, key=lambda one: one.offset)),
    )


def _bios_image(images: BootImages, offset: int) -> Extent:
    """Return the BIOS boot image at byte *offset*, with its own address in it."""
    return Extent(offset, Literal(_with_boot_info(images, offset // BLOCK)), "/boot/grub/eltorito.img")


def _beside_application(bundle: Bundle) -> list[tuple[str, Content]]:
    """Return what stands beside an EFI application on its partition, by path."""
    files = [(path, node.content) for path, node in walk(bundle.esp) if isinstance(node, File)]
    return [(path, content) for path, content in files if content.size]


def _volumes(bundle: Bundle, end: int) -> list[Partition]:
    """Return a partition for each volume, behind what ends at byte *end*."""
    partitions = []
    for number, payload in enumerate(bundle.volumes, 1):
        start = round_up(end, MIB)
        end = start + round_up(payload.content.size, MIB)
        name = payload.label or f"volume {number}"
        partitions.append(_partition(name, start, end - start, gpt.LINUX_GUID, gpt.LINUX_MBR))
    return partitions


def _listed(bundle: Bundle) -> list[Content]:
    """Return the contents on the ISO that the manifest names, each once."""
    found = [bundle.kernel.content, *(module.content for module in bundle.modules)]
    found += [node.content for _, node in walk(bundle.root) if isinstance(node, File)]
    found += [choice.content for choice in bundle.choices]
    return list({id(content): content for content in found}.values())


def _partition(name: str, offset: int, length: int, guid: str, mbr: int) -> Partition:
    return Partition(name=name, offset=offset, length=length, type_guid=guid, mbr_type=mbr)


def labels(bundle: Bundle) -> dict[str, str]:
    """Return the labels of the image's own file systems: what their rules leave of the machine's name."""
    label = volume_id(bundle.name)
    esp = {"EFI system partition": label[:MAX_LABEL]} if Firmware.UEFI in bundle.firmware else {}
    return {"ISO 9660": label} | esp


def marker(bundle: Bundle) -> str:
    """Return the name of the file by which GRUB knows this bundle's image."""
    return bundle.identity.digest[:16].upper()


def _parts(bundle: Bundle, images: BootImages | None) -> _Parts:
    """Return the trees of both file systems."""
    kernel = File(bundle.kernel.name, bundle.kernel.content)
    modules = [
        Directory.of(str(number), [File(module.name, module.content, room=module.room)])
        for number, module in enumerate(bundle.modules)
    ]
    config = File("grub.cfg", _config_content(bundle))
    in_grub: list[Node] = [config]
    top: list[Node] = [_manifest(bundle)]
    if not bundle.kernel.protocols:
        # No firmware starts it; Xen may.
        from rumpbundle.xen import pvgrub

        if pvgrub.starts(bundle):
            in_grub = [File(pvgrub.MENU, Content.of_bytes(_pvgrub_menu(bundle)), room=SLOT)]
            if bundle.config:
                top.append(File(pvgrub.CONFIG, Content.of_bytes(bundle.config), room=SLOT + bundle.asked.room))
    boot: list[Node] = [Directory.of("kernel", [kernel])]
    if modules:
        boot.append(Directory.of("modules", list(modules)))
    bios = None
    if images and Firmware.BIOS in bundle.firmware:
        bios = Content.of_bytes(images.bios)
        in_grub.append(File("eltorito.img", bios))
    if bundle.choices:
        boot.append(_configs(bundle))
    boot += [
        Directory.of("grub", in_grub),
        Directory.of("rumpbundle", [File(_MARKER_PENDING, Content(()))]),
    ]
    top.append(Directory.of("boot", boot))
    esp = None
    on_esp: list[tuple[Content, str]] = []
    if images and Firmware.UEFI in bundle.firmware:
        application = bundle.boot.get(Firmware.UEFI) is Protocol.EFI
        inside: list[Node] = []
        if not application:
            efi_boot = [File("BOOTX64.EFI", images.loader), config]
        elif bundle.cmdline:
            efi_boot = [File("BOOTX64.EFI", _starter(bundle))]
            inside.append(Directory.of("rumpbundle", [kernel]))
            on_esp.append((kernel.content, f"/EFI/rumpbundle/{kernel.name}"))
        else:
            efi_boot = [File("BOOTX64.EFI", kernel.content)]
        on_esp.append((efi_boot[0].content, "/EFI/BOOT/BOOTX64.EFI"))
        inside.append(Directory.of("BOOT", list(efi_boot)))
        esp = _beside(Directory.of("", [Directory.of("EFI", inside)]), bundle.esp)
        top.append(Directory.of("EFI", [Directory.of("BOOT", list(efi_boot))]))
    taken = {node.name for node in top}
    for node in bundle.root.children:
        if node.name in taken:
            raise InputError("the image needs this name itself", where=f"/{node.name}", hint="rename it in your data")
    return _Parts(root=Directory.of("", [*top, *bundle.root.children]), esp=esp, bios=bios, on_esp=tuple(on_esp))


def _manifest(bundle: Bundle) -> File:
    """Return the file of the manifest, with the room that is kept for another."""
    size = len(bundle.manifest(hashed=False))
    if size > MAX_MANIFEST:
        raise InputError(
            f"so many files: their list takes {size} bytes, more than the {MAX_MANIFEST >> 20} MiB there are for it",
            hint="put them into an archive, or on a disk of their own: rumpbundle volume",
        )
    listed = Content((Late(size, lambda: bundle.manifest_bytes),))
    return File(PATH.removeprefix("/"), listed, room=bundle.manifest_slot)


def _starter(bundle: Bundle) -> Content:
    """Return what starts an EFI application with its arguments, which firmware gives none."""
    starter = efistarter.starter(f"\\EFI\\rumpbundle\\{bundle.kernel.name}", bundle.cmdline)
    size = max(_MENU_SLOT + bundle.asked.room, round_up(len(starter), SLOT))
    return Content.of_bytes(starter.ljust(size, b"\xff"))


def _configs(bundle: Bundle) -> Directory:
    """Return the directory of the configurations for some machines only: a script each, and what the guest reads."""
    scripts: list[Node] = []
    files: list[Node] = []
    shared = tuple((path, module.text) for path, module in _modules(bundle) if not module.room)
    common = menu(bundle, "")
    for number, choice in enumerate(bundle.choices):
        path = place_of(number)
        own = ((path, ""),) if choice.place == "module" else ()
        chosen = replace(common, cmdline=choice.cmdline, modules=(*shared, *own))
        text = grub.script(chosen).encode("utf-8", "surrogateescape")
        scripts.append(File(f"{Key.parse(choice.key).stem}.cfg", Content.of_bytes(text)))
        if choice.place != "cmdline":
            files.append(File(posixpath.basename(path), choice.content))
    return Directory.of(posixpath.basename(CONFIGS), [*scripts, Directory.of("files", files)])


def _beside(ours: Directory, theirs: Directory, path: str = "") -> Directory:
    """Return *ours* with the files of *theirs* in it; FAT does not tell names apart by case.

    Raises:
        InputError: they want one name for two things.
    """
    own = {node.name.upper(): node for node in ours.children}
    more: list[Node] = []
    for node in theirs.children:
        there = own.get(node.name.upper())
        if isinstance(there, Directory) and isinstance(node, Directory):
            own[node.name.upper()] = _beside(there, node, f"{path}/{there.name}")
        elif there is None:
            more.append(node)
        else:
            raise InputError(
                "the image needs this name itself", where=f"{path}/{node.name}", hint="rename it in what --esp gives"
            )
    return Directory.of(ours.name, [*own.values(), *more])


def _kernel_path(bundle: Bundle) -> str:
    return f"/boot/kernel/{bundle.kernel.name}"


def _modules(bundle: Bundle) -> list[tuple[str, Module]]:
    return [(f"/boot/modules/{number}/{module.name}", module) for number, module in enumerate(bundle.modules)]


def _pvgrub_menu(bundle: Bundle) -> bytes:
    from rumpbundle.xen import pvgrub

    paths = [path for path, _ in _modules(bundle)]
    return pvgrub.menu(bundle, _kernel_path(bundle), paths).encode("utf-8", "surrogateescape")


def menu(bundle: Bundle, marker_name: str) -> grub.Menu:
    """Return what GRUB is to do for *bundle*."""
    return grub.Menu(
        marker=f"{_MARKERS}/{marker_name}",
        boot={firmware: bundle.boot[firmware] for firmware in bundle.firmware if firmware in bundle.boot},
        kernel=_kernel_path(bundle),
        cmdline=bundle.cmdline,
        modules=tuple((path, module.text) for path, module in _modules(bundle)),
        cmdline_limit=bundle.kernel.cmdline_limit,
        console=bundle.console,
        kinds=tuple(sorted({Key.parse(choice.key).kind for choice in bundle.choices})),
        default=bundle.asked.default,
    )


def _config_content(bundle: Bundle) -> Content:
    def text(marker_name: str) -> bytes:
        written = grub.config(menu(bundle, marker_name)).encode("utf-8", "surrogateescape")
        size = max(_MENU_SLOT + bundle.asked.room, round_up(len(written), SLOT))
        return written + _comment(size - len(written))

    return Content((Late(len(text(_MARKER_PENDING)), lambda: text(marker(bundle))),))


def _comment(size: int) -> bytes:
    """Return *size* bytes of comment lines; GRUB stands still over a line of 8 KiB."""
    lines = (b"#" * 63 + b"\n") * (size // 64 + 1)
    return lines[len(lines) - size :]


def _iso_metadata(bundle: Bundle, volume: Iso9660Volume, iso_end: int, catalog: bytes | None) -> list[Extent]:
    """Return the volume's own structures; the one directory that shows the marker's name comes late."""
    data = volume.metadata(size=iso_end, boot_catalog=catalog)
    start, length = volume.directory_range(_MARKERS)
    low, high = start - SYSTEM_AREA, start - SYSTEM_AREA + length
    pending = data[low:high]

    def with_marker() -> bytes:
        return pending.replace(_MARKER_PENDING.encode(), marker(bundle).encode())

    label = "ISO 9660 structures"
    return [
        Extent(SYSTEM_AREA, Literal(data[:low]), label),
        Extent(start, Late(length, with_marker), f"ISO 9660 directory {_MARKERS}"),
        Extent(start + length, Literal(data[high:]), label),
    ]


def _with_boot_info(images: BootImages, block: int) -> bytes:
    """Return GRUB's El Torito image with its own address written in (docs/facts/formats.md#hybrid-boot).

    A boot-info table at byte 8 (volume descriptor, image, length, checksum of all words from byte 64), and at byte
    2548 the address, in 512-byte sectors, of what follows the first five sectors: for boot_hybrid.img.
    """
    patched = bytearray(images.bios)
    address = struct.pack("<Q", block * 4 + 5)
    patched[bootimages.NEXT_SECTOR] = address
    checksum = (images.bios_sum + sum(struct.unpack("<II", address))) & 0xFFFFFFFF
    patched[bootimages.BOOT_INFO] = struct.pack("<IIII40x", SYSTEM_AREA // BLOCK, block, len(images.bios), checksum)
    return bytes(patched)


def _boot_code(images: BootImages, bios_offset: int) -> bytes:
    code = bytearray(images.mbr[: gpt.BOOT_CODE_BYTES])
    code[bootimages.MBR_ADDRESS] = struct.pack("<Q", bios_offset // SECTOR + 4)
    return bytes(code)


def _boot_catalog(bios_block: int, esp_block: int, esp_sectors: int) -> bytes:
    """Return the El Torito catalog: a BIOS entry, a UEFI entry, or both (El Torito 1.0 §2; UEFI 2.10 §13.3.2)."""
    # A count of 0 lets UEFI take everything to the end of the disc: for what 16 bits cannot say.
    esp_count = esp_sectors if esp_sectors <= 0xFFFF else 0
    bios = _catalog_entry(_BIOS_IMAGE_LOADS, bios_block)
    uefi = _catalog_entry(esp_count, esp_block)
    if not bios_block:
        return _validation_entry(0xEF) + uefi
    if not esp_block:
        return _validation_entry(0) + bios
    return _validation_entry(0) + bios + struct.pack("<BBH28s", 0x91, 0xEF, 1, b"") + uefi


def _catalog_entry(sectors: int, block: int) -> bytes:
    return struct.pack("<BBHBBHI20x", 0x88, 0, 0, 0, 0, sectors, block)


def _validation_entry(platform: int) -> bytes:
    entry = struct.pack("<BBH24sHBB", 1, platform, 0, b"", 0, 0x55, 0xAA)
    checksum = -sum(struct.unpack("<16H", entry)) & 0xFFFF
    return entry[:28] + struct.pack("<H", checksum) + entry[30:]
