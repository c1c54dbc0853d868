"""What we read of an ELF or PE file, pyelftools and pefile read as well: of gcc's, Debian's and our own files."""

from __future__ import annotations

import io
from pathlib import Path

import pefile
import pytest
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st
from support import kernels, synthetic
from support.debian import debian_file
from support.synthetic import Section, Segment

from rumpbundle.kernels import elf, pe
from rumpbundle.kernels.view import View

ELF_KERNELS = [
    name for name in kernels.KERNELS if name not in ("multiboot-gz", "multiboot-kludge", "linux", "linux16", "efi")
]
MACHINES = {"EM_386": "i386", "EM_X86_64": "x86-64", "EM_AARCH64": "aarch64"}


def check_elf(data: bytes) -> None:
    """Assert that we and pyelftools read the same."""
    ours, theirs = elf.read(View.of_bytes(data)), ELFFile(io.BytesIO(data))
    assert ours is not None
    assert (ours.bits, ours.entry, ours.flaw) == (theirs.elfclass, theirs["e_entry"], "")
    big = "" if theirs.little_endian else " (big-endian)"
    assert ours.machine == MACHINES[theirs["e_machine"]] + big
    fields = ("p_offset", "p_vaddr", "p_paddr", "p_filesz", "p_memsz")
    segments = list(theirs.iter_segments())
    assert [(s.offset, s.vaddr, s.paddr, s.filesz, s.memsz) for s in ours.segments] == [
        tuple(segment[field] for field in fields) for segment in segments
    ]
    assert [s.type == elf.PT_LOAD for s in ours.segments] == [segment["p_type"] == "PT_LOAD" for segment in segments]
    assert [(s.name, s.addr, s.offset, s.size) for s in ours.sections] == [
        (section.name, section["sh_addr"], section["sh_offset"], section["sh_size"])
        for section in theirs.iter_sections()
    ]
    dynamic = [segment for segment in segments if isinstance(segment, DynamicSegment)]
    tags = {tag.entry.d_tag for each in dynamic for tag in each.iter_tags()}
    program = any(segment["p_type"] == "PT_INTERP" for segment in segments)
    assert ours.is_library == ("DT_SONAME" in tags or ("DT_NEEDED" in tags and not program))
    notes = [note for segment in segments if segment["p_type"] == "PT_NOTE" for note in segment.iter_notes()]
    assert bool(list(ours.notes(View.of_bytes(data)))) == bool(notes)


@pytest.mark.parametrize("name", ELF_KERNELS)
def test_elf_kernels_of_gcc(name):
    check_elf(kernels.build(name).read_bytes())


def test_a_shared_library():
    library = next(Path("/usr/lib/x86_64-linux-gnu").glob("libc.so.6"))
    check_elf(library.read_bytes())


@given(
    bits=st.sampled_from([32, 64]),
    order=st.sampled_from("<>"),
    segments=st.lists(
        st.builds(
            lambda data, paddr, vaddr, more: Segment(data, paddr=paddr, vaddr=vaddr, memsz=len(data) + more),
            st.binary(max_size=40), st.integers(0, 2**31), st.integers(0, 2**31), st.integers(0, 2**20),
        ),
        max_size=5,
    ),
    sections=st.lists(
        st.builds(
            lambda name, data, addr: Section(f".{name}", data, addr=addr),
            st.text("abcxyz._", min_size=1, max_size=12), st.binary(max_size=40), st.integers(0, 2**31),
        ),
        min_size=1, max_size=5,
    ) | st.none(),
)  # fmt: skip
def test_any_elf_file(bits, order, segments, sections):
    check_elf(synthetic.elf(segments, sections, bits=bits, order=order))


def check_pe(data: bytes) -> None:
    """Assert that we and pefile read the same."""
    ours, theirs = pe.read(View.of_bytes(data)), pefile.PE(data=data, fast_load=True)
    assert ours is not None
    assert (
        ours.bits == {pefile.OPTIONAL_HEADER_MAGIC_PE: 32, pefile.OPTIONAL_HEADER_MAGIC_PE_PLUS: 64}[theirs.PE_TYPE]
    )
    machine = pefile.MACHINE_TYPE[theirs.FILE_HEADER.Machine]
    assert (
        ours.machine == {"AMD64": "x86-64", "I386": "i386", "ARM64": "aarch64"}[machine[len("IMAGE_FILE_MACHINE_") :]]
    )
    assert ours.subsystem == theirs.OPTIONAL_HEADER.Subsystem
    assert list(ours.sections) == [section.Name.rstrip(b"\0").decode() for section in theirs.sections]


def test_an_efi_application_of_gcc():
    check_pe(kernels.build("efi").read_bytes())


@pytest.mark.parametrize(
    ("package", "pattern"),
    [
        ("linux-image-cloud-amd64", "boot/vmlinuz-*"),
        ("xen-hypervisor-4.17-amd64", "boot/xen-*.efi"),
        ("memtest86+", "boot/memtest86+x64.efi"),
        ("systemd-boot-efi", "usr/lib/systemd/boot/efi/systemd-bootx64.efi"),
    ],
)
def test_pe_files_of_debian(package, pattern):
    check_pe(debian_file(package, pattern).read_bytes())


@pytest.mark.parametrize("machine", [0x8664, 0x14C, 0xAA64])
@pytest.mark.parametrize("sections", [(".text",), (".linux", ".initrd", ".cmdline"), ("12345678",)])
def test_pe_files_of_every_machine(machine, sections):
    check_pe(synthetic.pe(machine=machine, magic=0x10B if machine == 0x14C else 0x20B, sections=sections))
