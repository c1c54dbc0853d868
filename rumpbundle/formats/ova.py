"""ova: a whole virtual machine in one file: OVF descriptor, manifest and stream-optimised VMDK in a ustar archive.

VMware (ESXi, Workstation, Fusion), VirtualBox and, through virt-v2v, others import it. The names inside come from the
machine's name, so the bytes do not depend on the output's.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping

from rumpbundle import knowledge
from rumpbundle.dataclass import dataclass
from rumpbundle.disk.flat import disk_errors, write_all
from rumpbundle.disk.layout import MIB, SECTOR, round_up
from rumpbundle.errors import UsageError
from rumpbundle.formats import _ovf as ovf
from rumpbundle.formats._contract import Format, FormatOptions, Job, OneFile, ReadBack, Subformat, option
from rumpbundle.formats.vmdk import LARGEST, check_stream, write_stream
from rumpbundle.host.staging import StagedFile
from rumpbundle.kernels.unikernel import Family, Firmware
from rumpbundle.knowledge import drivers
from rumpbundle.manifest import Bundle

AUTO = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class OvaOptions(FormatOptions):
    """What the machine has; by default what suits the guest."""

    cpus: int = option(1, "The number of CPUs.", metavar="N")
    memory: int = option(0, "The machine's memory.  [default: what the guest needs]", metavar="SIZE", size=True)
    controller: str = option(AUTO, "The disk controller.", choices=(AUTO, *ovf.CONTROLLERS))
    nic: str = option(AUTO, "The network card.", choices=(AUTO, *ovf.NICS, "none"))


def _check(job: Job) -> None:
    check_stream(job)
    _check_options(job.options)


def _check_options(options: OvaOptions) -> None:
    if not 1 <= options.cpus <= 128:
        raise UsageError(f"expected 1 to 128 CPUs, got {options.cpus}", where="--cpus")
    if options.memory and (options.memory % (4 * MIB) or not 4 * MIB <= options.memory <= 1 << 42):
        raise UsageError("expected a multiple of 4M up to 4T (VMware takes no other)", where="--memory")


def machine(job: Job) -> ovf.VirtualSystem:
    """Return the machine to describe."""
    bundle, options = job.bundle, job.options
    efi = Firmware.BIOS not in bundle.boot
    driven = drivers.of(bundle.kernel)
    nic = _first(ovf.NICS, driven) if options.nic == AUTO else options.nic.replace("none", "")
    # VirtualBox has virtio cards, VMware has none: a guest that drives nothing else gets one there.
    virtio = options.nic == AUTO and "virtio-net" in driven and nic not in driven
    return ovf.VirtualSystem(
        name=bundle.name,
        disk_file=f"{_file_name(bundle.name)}-disk1.vmdk",
        disk_size=job.layout.size,
        disk_uuid=job.layout.identity.uuid("streamOptimized-image"),
        machine_uuid=job.layout.identity.uuid("ova-machine"),
        cpus=options.cpus,
        memory=options.memory // MIB or round_up(_memory(bundle, efi=efi), 4),
        efi=efi,
        controller=_first(ovf.CONTROLLERS, driven) if options.controller == AUTO else options.controller,
        nic=nic,
        vbox_nic="virtio" if virtio else "82540EM",
        system=ovf.LINUX if bundle.kernel.family is Family.LINUX else ovf.OTHER,
    )


def _first(known: Iterable[str], driven: frozenset[str]) -> str:
    """Return the first of *known* devices with a driver, or the first of all: firmware boots from any."""
    names = tuple(known)
    return next((name for name in names if name in driven), names[0])


def _memory(bundle: Bundle, *, efi: bool) -> int:
    """Return MiB: what the launcher gives the guest, and what EFI firmware itself wants."""
    guest = knowledge.guest(bundle.kernel.family, bundle.kernel.target)
    return max(guest.memory_for("uefi" if efi else "bios", bundle.footprint), 256 if efi else 64)


def _file_name(name: str) -> str:
    """Return *name* for files in the archive: what every importer takes, and short enough for a ustar header."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:60].strip("._-") or "machine"


def _described(job: Job) -> bytes:
    """Return the OVF for a disk file of no size."""
    _check_options(job.options)
    return ovf.descriptor(machine(job), 0)


def _places(text: bytes) -> Mapping[str, str]:
    from rumpbundle.formats._ovf_places import places

    return places(text)


_VIRTUALBOX = "/Envelope/VirtualSystem/Machine"


def _candidates(_: Job, there: Mapping[str, str]) -> Iterator[OvaOptions]:
    cpus = there.get(f"{_VIRTUALBOX}/Hardware/CPU@count", "")
    memory = there.get(f"{_VIRTUALBOX}/Hardware/Memory@RAMSize", "")
    controller = there.get(f"{_VIRTUALBOX}/StorageControllers/StorageController@name", "")
    card = there.get("/Envelope/VirtualSystem/VirtualHardwareSection/Item[6]/ResourceSubType")
    nic = next((name for name, subtype in ovf.NICS.items() if subtype == card), "none")
    for given in ("0", memory):
        for kind in (AUTO, nic):
            yield OvaOptions(
                cpus=int(cpus) if _NUMBER.fullmatch(cpus) else 0,
                memory=int(given) * MIB if _NUMBER.fullmatch(given) else 0,
                controller=controller if controller in ovf.CONTROLLERS else AUTO,
                nic=kind,
            )


_NUMBER = re.compile("[0-9]{1,9}", re.ASCII)


class _Hashed:
    """Writes to a file from an offset on, and counts and hashes what it writes."""

    def __init__(self, fd: int, offset: int) -> None:
        self._fd = fd
        self._offset = offset
        self._sha256 = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        write_all(self._fd, data, self._offset + self.size)
        self._sha256.update(data)
        self.size += len(data)

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()


def _write(job: Job, out: StagedFile) -> None:
    """Leave room for descriptor and manifest, write the disk behind them, then write them: they tell its hash."""
    described = machine(job)
    stem = described.disk_file.removesuffix("-disk1.vmdk")
    room = round_up(len(ovf.descriptor(described, 1 << 62)), SECTOR)
    manifest_size = len(_manifest({f"{stem}.ovf": "0" * 64, described.disk_file: "0" * 64}))
    start = 3 * SECTOR + room + round_up(manifest_size, SECTOR)
    with disk_errors():
        disk = _Hashed(out.fd, start)
        write_stream(job, described.disk_file, disk.write, job.label)
        # Blank lines after the last element fill the room that was kept for more digits.
        text = ovf.descriptor(described, disk.size).ljust(room, b"\n")
        manifest = _manifest({f"{stem}.ovf": hashlib.sha256(text).hexdigest(), described.disk_file: disk.sha256})
        head = _member(f"{stem}.ovf", len(text), job.epoch) + text
        head += _member(f"{stem}.mf", len(manifest), job.epoch) + manifest.ljust(start - 3 * SECTOR - room, b"\0")
        head += _member(described.disk_file, disk.size, job.epoch)
        assert len(head) == start
        write_all(out.fd, head, 0)
        # Two blocks of zeros end an archive, and its records are 10 KiB.
        os.ftruncate(out.fd, round_up(start + disk.size + 2 * SECTOR, 20 * SECTOR))


def _manifest(digests: dict[str, str]) -> bytes:
    return "".join(f"SHA256({name})= {digest}\n" for name, digest in digests.items()).encode("ascii")


def _member(name: str, size: int, epoch: int) -> bytes:
    """Return the archive's header of a file; GNU's way of writing the size from 8 GiB on, else plain ustar."""
    import tarfile

    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, epoch, 0o644
    # Never PAX: VirtualBox refuses it (docs/facts/formats.md#ovf-and-ova).
    return info.tobuf(tarfile.USTAR_FORMAT if size < 8 << 30 else tarfile.GNU_FORMAT)


FORMAT = Format(
    name="ova",
    suffix=".ova",
    summary="a whole virtual machine to import: VMware (ESXi, Workstation, Fusion), VirtualBox",
    product=OneFile(_write),
    align=MIB,
    subformats=(Subformat(largest=LARGEST),),
    check=_check,
    options=OvaOptions,
    read_back=ReadBack(
        file="*.ovf",
        text=_described,
        places=_places,
        candidates=_candidates,
        decides={
            "cpus": r"/Item/|/CPU@",
            "memory": r"/Item\[2\]|/Memory@",
            "controller": r"/Item\[3\]|/StorageController@",
            "nic": r"/Item\[6\]|/NetworkSection|/Network/",
        },
    ),
    targets=("vmware", "virtualbox"),
)
