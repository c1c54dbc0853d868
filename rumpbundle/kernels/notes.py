"""ELF notes that say how a kernel boots, and Solo5's among them (include/solo5/elf_abi.h and mft_abi.h)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from rumpbundle.dataclass import dataclass
from rumpbundle.kernels.elf import Elf
from rumpbundle.kernels.view import View

MAX_NOTES = 256
MAX_BYTES = 1 << 20
"""Of notes looked at in one file; Solo5's manifest, the longest, has at most 6.7 kB."""


@dataclass(frozen=True, slots=True)
class ElfNote:
    owner: str
    type: int
    value: bytes


def read(view: View, elf: Elf) -> tuple[ElfNote, ...]:
    """Return the notes of *elf*, at most ``MAX_NOTES``."""
    notes: list[ElfNote] = []
    left = MAX_BYTES
    for offset, size in elf.notes(view):
        data = view.read(offset, min(size, left))
        notes.extend(n for n in _parse(data) if n not in notes)
        left -= len(data)
        if len(notes) > MAX_NOTES:
            break
    return tuple(notes[:MAX_NOTES])


def _parse(data: bytes) -> Iterator[ElfNote]:
    at = 0
    for _ in range(MAX_NOTES):
        if at + 12 > len(data):
            return
        name_size, value_size, type_ = struct.unpack_from("<III", data, at)
        name_at = at + 12
        value_at = name_at + (name_size + 3 & ~3)
        if value_at + value_size > len(data):
            return
        owner = data[name_at : name_at + min(name_size, 64)].rstrip(b"\0").decode("latin-1")
        yield ElfNote(owner, type_, data[value_at : value_at + value_size])
        at = value_at + (value_size + 3 & ~3)


SOLO5_TARGETS = {1: "hvt", 2: "spt", 3: "virtio", 4: "muen", 5: "genode", 6: "xen"}
_ABI1, _MFT1 = 0x31494241, 0x3154464D
_DEVICE_KINDS = {1: "block", 2: "net"}
_ENTRY_SIZE = 104
_MAX_DEVICES = 64


@dataclass(frozen=True, slots=True)
class Device:
    """A device a Solo5 unikernel wants: *kind* is ``block`` or ``net``."""

    name: str
    kind: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def solo5_target(notes: tuple[ElfNote, ...]) -> str:
    """Return the Solo5 target the kernel was built for, empty if it is no Solo5 kernel."""
    for note in notes:
        if note.owner == "Solo5" and note.type == _ABI1 and len(note.value) >= 4:
            number = int.from_bytes(note.value[:4], "little")
            return SOLO5_TARGETS.get(number, f"target {number}")
    return ""


def solo5_devices(notes: tuple[ElfNote, ...]) -> tuple[Device, ...]:
    """Return the devices of the manifest in its order, without the reserved first entry."""
    for note in notes:
        if note.owner != "Solo5" or note.type != _MFT1:
            continue
        # The structure is aligned to 8 bytes in the file, which puts 4 bytes of padding before it.
        start = len(note.value) % _ENTRY_SIZE - 8
        if start not in (0, 4):
            return ()
        count = min((len(note.value) - start - 8) // _ENTRY_SIZE, _MAX_DEVICES)
        devices = []
        for index in range(count):
            at = start + 8 + index * _ENTRY_SIZE
            name = note.value[at : at + 68].split(b"\0", 1)[0].decode("utf-8", "replace")
            kind = _DEVICE_KINDS.get(int.from_bytes(note.value[at + 68 : at + 72], "little"))
            if kind is not None:
                devices.append(Device(name, kind))
        return tuple(devices)
    return ()
