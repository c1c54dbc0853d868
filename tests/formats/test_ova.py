"""The OVA: the archive, the manifest, and what VMware's and VirtualBox's importers insist on."""

from __future__ import annotations

import hashlib
import re
import tarfile
import xml.etree.ElementTree as ET
from types import SimpleNamespace

import pytest
from lxml import etree
from support import disks, readers
from support import ovf as rules

from rumpbundle.disk.layout import MIB
from rumpbundle.errors import UsageError
from rumpbundle.formats import _ovf
from rumpbundle.formats.ova import OvaOptions, _member
from rumpbundle.kernels.unikernel import Family, Firmware, Protocol

OVF = "{http://schemas.dmtf.org/ovf/envelope/1}"
RASD = "{http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData}"
VBOX = "{http://www.virtualbox.org/ovf/machine}"
VMW = "{http://www.vmware.com/schema/ovf}"


def bundle(name="machine", family=Family.PLAIN, drivers=(), firmware=(Firmware.BIOS, Firmware.UEFI), target=""):
    return SimpleNamespace(
        name=name,
        boot=dict.fromkeys(firmware, Protocol.MULTIBOOT),
        kernel=SimpleNamespace(family=family, target=target, drivers=frozenset(drivers)),
        footprint=0,
    )


@pytest.fixture
def make(tmp_path):
    """Return a function that writes an OVA and gives its path, members and parsed descriptor."""

    def write(options=None, **of):
        layout = disks.disk_of(16 * MIB, disks.literal(0, b"boot"), disks.late(4096, 512))
        path = disks.write(layout, tmp_path / "x.ova", "ova", bundle=bundle(**of), options=options or OvaOptions())
        with tarfile.open(path) as archive:
            files = {m.name: archive.extractfile(m).read() for m in archive}
        text = next(iter(files.values()))
        return SimpleNamespace(path=path, files=files, text=text, xml=ET.fromstring(text))

    return write


def items(xml):
    """Return the items by ResourceType, each a dictionary of its elements."""
    found = {}
    for item in xml.iter(f"{OVF}Item"):
        fields = {child.tag.removeprefix(RASD): child.text for child in item}
        assert list(fields) == sorted(fields), "the schema wants its elements in order"
        found[int(fields["ResourceType"])] = fields | {"required": item.get(f"{OVF}required")}
    return found


def test_archive_is_plain_ustar_in_the_order_importers_want(make):
    made = make()
    assert [name.rpartition(".")[2] for name in made.files] == ["ovf", "mf", "vmdk"]
    data = made.path.read_bytes()
    assert data[257:265] == b"ustar\x0000"
    assert len(data) % 10240 == 0
    with tarfile.open(made.path) as archive:
        for member in archive:
            assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")
            assert (member.mtime, member.mode, member.type) == (315532800, 0o644, tarfile.REGTYPE)


@pytest.mark.parametrize("size", [(8 << 30) - 1, 8 << 30, 1 << 40])
def test_a_disk_of_any_size_has_a_header_that_virtualbox_reads(size):
    """From 8 GiB on ustar cannot hold the size: GNU's way then, never PAX."""
    header = _member("machine-disk1.vmdk", size, 0)
    assert len(header) == 512
    assert header[156:157] == b"0"
    assert header[257:263] == (b"ustar\0" if size < 8 << 30 else b"ustar ")
    member = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
    assert (member.name, member.size, member.mode) == ("machine-disk1.vmdk", size, 0o644)


def test_manifest_has_the_sha256_of_every_file(make):
    ovf, manifest, disk = make().files.items()
    lines = [f"SHA256({name})= {hashlib.sha256(data).hexdigest()}" for name, data in (ovf, disk)]
    assert manifest[1].decode() == "\n".join(lines) + "\n"


def test_disk_is_the_stream_optimised_vmdk(make):
    made = make()
    disk = made.files["machine-disk1.vmdk"]
    file = made.xml.find(f"{OVF}References/{OVF}File")
    assert file.get(f"{OVF}href") == "machine-disk1.vmdk"
    assert int(file.get(f"{OVF}size")) == len(disk)
    assert b'SPARSE "machine-disk1.vmdk"' in disk[512:10752]
    described = made.xml.find(f"{OVF}DiskSection/{OVF}Disk")
    assert (described.get(f"{OVF}capacity"), described.get(f"{OVF}capacityAllocationUnits")) == ("16", "byte * 2^20")
    assert described.get(f"{OVF}format").endswith("vmdk.html#streamOptimized")


def test_what_virtualbox_insists_on(make):
    xml = make().xml
    assert xml.tag == f"{OVF}Envelope"
    system = xml.find(f"{OVF}VirtualSystem")
    assert system.find(f"{OVF}OperatingSystemSection").get(f"{OVF}id").isdigit()
    found = items(xml)
    assert found[4]["AllocationUnits"] == "byte * 2^20"
    assert found[17]["Parent"] == found[20]["InstanceID"]
    assert found[17]["HostResource"] == "ovf:/disk/" + xml.find(f"{OVF}DiskSection/{OVF}Disk").get(f"{OVF}diskId")
    for kind, item in found.items():
        assert item["required"] == ("false" if kind == 21 else None), (
            "VirtualBox refuses unknown items that are required"
        )
    machine = system.find(f"{VBOX}Machine")
    assert machine.get(f"{OVF}required") == "false"
    assert machine.get("uuid")
    assert machine.get("name")
    image = machine.find(f".//{OVF}Image").get("uuid")
    assert image == "{" + xml.find(f"{OVF}DiskSection/{OVF}Disk").get(f"{VBOX}uuid") + "}"
    assert machine.find(f".//{OVF}Port").get("IOBase") == "0x3f8"


@pytest.mark.parametrize(
    ("firmware", "vmware", "virtualbox"),
    [
        ((Firmware.BIOS, Firmware.UEFI), "bios", "BIOS"),
        ((Firmware.BIOS,), "bios", "BIOS"),
        ((Firmware.UEFI,), "efi", "EFI"),
    ],
)
def test_firmware_survives_both_importers(make, firmware, vmware, virtualbox):
    xml = make(firmware=firmware).xml
    assert {c.get(f"{VMW}key"): c.get(f"{VMW}value") for c in xml.iter(f"{VMW}Config")} == {"firmware": vmware}
    assert xml.find(f".//{OVF}Firmware").get("type") == virtualbox


@pytest.mark.parametrize(
    ("of", "disk", "nic", "virtualbox"),
    [
        ({}, (20, "vmware.sata.ahci"), "E1000", "82540EM"),
        (
            {"family": Family.RUMPRUN, "drivers": ["virtio-blk", "virtio-net"]},
            (20, "vmware.sata.ahci"),
            "E1000",
            "virtio",
        ),
        (
            {"family": Family.RUMPRUN, "drivers": ["virtio-net", "e1000"]},
            (20, "vmware.sata.ahci"),
            "E1000",
            "82540EM",
        ),
        ({"family": Family.LINUX, "drivers": ["pvscsi", "vmxnet3"]}, (6, "VirtualSCSI"), "VmxNet3", "82540EM"),
        ({"family": Family.LINUX, "drivers": ["lsilogic", "ide"]}, (5, None), "E1000", "82540EM"),
        ({"family": Family.SOLO5}, (20, "vmware.sata.ahci"), "E1000", "virtio"),
    ],
)
def test_machine_suits_the_guests_drivers(make, of, disk, nic, virtualbox):
    xml = make(**of).xml
    found = items(xml)
    assert found[disk[0]].get("ResourceSubType") == disk[1]
    assert found[10]["ResourceSubType"] == nic
    assert xml.find(f".//{OVF}Adapter").get("type") == virtualbox


def test_options_decide(make):
    xml = make(OvaOptions(cpus=4, memory=512 * MIB, controller="lsilogic", nic="none")).xml
    found = items(xml)
    assert found[3]["VirtualQuantity"] == "4"
    assert found[4]["VirtualQuantity"] == "512"
    assert found[6]["ResourceSubType"] == "lsilogic"
    assert 10 not in found
    assert xml.find(f"{OVF}NetworkSection") is None
    assert xml.find(f".//{OVF}StorageController").get("type") == "LsiLogic"


@pytest.mark.parametrize("nic", [*_ovf.NICS, "none"])
@pytest.mark.parametrize("controller", _ovf.CONTROLLERS)
@pytest.mark.parametrize("firmware", [Firmware.BIOS, Firmware.UEFI])
def test_the_descriptor_keeps_the_rules_of_the_standard(make, controller, nic, firmware):
    rules.check(make(OvaOptions(controller=controller, nic=nic, cpus=2), firmware=(firmware,), name="R&D").text)


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        (b'ovf:id="file1" ', b""),
        (b' ovf:size="', b' ovf:size="x'),
        (b" ovf:href=", b' ovf:name="x" ovf:href='),
        (b"<Info>The disk</Info>", b""),
        (b'ovf:capacity="16"', b""),
        (b"byte * 2^20", b"MegaBytes"),
        (b"</Info>\n    <Name>", b"</Info>\n    <vmw:Config/>\n    <Name>"),
        (b'OperatingSystemSection ovf:id="102"', b'OperatingSystemSection ovf:id="65536"'),
        (b"<rasd:InstanceID>1</rasd:InstanceID>", b""),
        (b"<rasd:InstanceID>1</rasd:InstanceID>", b"<rasd:InstanceID>2</rasd:InstanceID>"),
        (b"<rasd:Parent>3</rasd:Parent>", b"<rasd:Parent>9</rasd:Parent>"),
        (b"<rasd:AutomaticAllocation>true<", b"<rasd:AutomaticAllocation>yes<"),
        (b"<vssd:InstanceID>0</vssd:InstanceID>", b""),
        (b'ovf:fileRef="file1"', b'ovf:fileRef="file2"'),
        (b"<ovf:Info>The same", b"<Info>The same</Info><ovf:Info>The same"),
    ],
)
def test_those_rules_find_what_is_wrong(make, was, becomes):
    text = make().text
    assert was in text
    with pytest.raises((etree.DocumentInvalid, AssertionError)):
        rules.check(text.replace(was, becomes, 1))


@pytest.mark.parametrize("controller", _ovf.CONTROLLERS)
def test_what_vsphere_refuses_is_not_there(make, controller):
    """As its users report it (docs/facts/formats.md#ovf-readers)."""
    xml = make(OvaOptions(controller=controller), family=Family.LINUX).xml
    subtypes = {item.get("ResourceSubType") for item in items(xml).values()}
    system = xml.find(f".//{OVF}OperatingSystemSection").get(f"{VMW}osType")
    assert "PIIX4" not in subtypes
    assert "VirtualSCSI" not in subtypes or system == "other3xLinux64Guest"
    assert system == "other3xLinux64Guest"


@pytest.mark.parametrize("controller", _ovf.CONTROLLERS)
def test_what_proxmox_reads(make, controller):
    """It believes a disk's size only with a unit of this form, and knows controllers by their numbers."""
    xml = make(OvaOptions(controller=controller)).xml
    disk = xml.find(f"{OVF}DiskSection/{OVF}Disk")
    base, exponent = re.fullmatch(r"byte \* (\d+)\^(\d+)", disk.get(f"{OVF}capacityAllocationUnits")).groups()
    assert int(disk.get(f"{OVF}capacity")) * int(base) ** int(exponent) == 16 * MIB
    assert re.fullmatch(r"[\w.~/-]+", disk.get(f"{OVF}fileRef"))
    found = items(xml)
    (kind,) = (kind for kind, item in found.items() if item["InstanceID"] == found[17]["Parent"])
    assert kind in {5: "ide", 6: "scsi", 20: "sata"}


@pytest.mark.parametrize(
    ("options", "where"),
    [(OvaOptions(cpus=0), "--cpus"), (OvaOptions(memory=5 * MIB), "--memory"), (OvaOptions(memory=3), "--memory")],
)
def test_what_no_hypervisor_takes_is_refused(make, options, where):
    with pytest.raises(UsageError) as caught:
        make(options)
    assert caught.value.where == where


def test_any_name_is_escaped_and_gives_plain_file_names(make):
    name = "R&D <\"x\"> 'y' {0} \N{SNOWMAN} ]]>" + "z" * 60
    made = make(name=name)
    assert made.xml.find(f"{OVF}VirtualSystem/{OVF}Name").text == name
    assert made.xml.find(f".//{VBOX}Machine").get("name") == name
    for file in made.files:
        assert file.isascii()
        assert not set(file) & set(" /\\\"'&<>")


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_virt_v2v_reads_it(make, firmware):
    said = readers.virt_v2v_source(make(name="a & b", firmware=(Firmware(firmware),)).path)
    facts = {key.strip(): value for key, _, value in (line.partition(": ") for line in said.splitlines())}
    assert facts["source name"] == "a & b"
    assert facts["nr vCPUs"] == "1"
    assert facts["firmware"] == firmware
    assert "0 [sata]" in said
    assert "[e1000]" in said
