"""The OVF descriptor: one virtual machine, as VMware's and VirtualBox's importers both take it.

DMTF DSP0243 1.1. What the importers insist on is in docs/facts/formats.md#ovf-readers: a numeric operating
system id, a ResourceType on every item, memory in ``byte * 2^20``, ``required="false"`` on what VirtualBox does not
know (a serial port). VirtualBox ignores VMware's firmware setting and serial ports altogether: both need the embedded
``vbox:Machine``, which finds its disk by ``vbox:uuid``. The hardware version 13 is ESXi 6.5's; a newer one would shut
older hosts out.
"""

from __future__ import annotations

from uuid import UUID

from rumpbundle.dataclass import dataclass
from rumpbundle.disk.layout import MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller:
    """A disk controller, in the words of OVF and of VirtualBox."""

    resource_type: int
    subtype: str
    """Empty for none."""
    vbox_type: str
    vbox_ports: int


CONTROLLERS = {
    "ahci": Controller(resource_type=20, subtype="vmware.sata.ahci", vbox_type="AHCI", vbox_ports=1),
    # vSphere refuses one that says it is a PIIX4; VirtualBox takes it for one in any case.
    "ide": Controller(resource_type=5, subtype="", vbox_type="PIIX4", vbox_ports=2),
    "lsilogic": Controller(resource_type=6, subtype="lsilogic", vbox_type="LsiLogic", vbox_ports=16),
    # VirtualBox has no pvscsi and takes LsiLogic for it, as it does on its own.
    "pvscsi": Controller(resource_type=6, subtype="VirtualSCSI", vbox_type="LsiLogic", vbox_ports=16),
}

NICS = {"e1000": "E1000", "e1000e": "E1000e", "vmxnet3": "VmxNet3"}
"""Network cards and their ResourceSubType. VirtualBox knows the first, and takes it for the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """An operating system: CIM's number, VMware's name, VirtualBox's name."""

    cim: int
    vmware: str
    vbox: str


# "otherLinux64Guest" is Linux 2.6 to vSphere, and no guest for a pvscsi disk.
LINUX = System(cim=101, vmware="other3xLinux64Guest", vbox="Linux26_64")
OTHER = System(cim=102, vmware="otherGuest64", vbox="Other_64")


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualSystem:
    """The machine to describe."""

    name: str
    disk_file: str
    disk_size: int
    """Of the disk, in bytes: whole MiB."""
    disk_uuid: UUID
    machine_uuid: UUID
    cpus: int
    memory: int
    """MiB."""
    efi: bool
    controller: str
    nic: str
    """A key of ``NICS``, or empty for none."""
    vbox_nic: str
    """VirtualBox's own name of the card."""
    system: System


_ENVELOPE = """\
<?xml version="1.0" encoding="UTF-8"?>
<Envelope ovf:version="1.0" xml:lang="en-US"
    xmlns="http://schemas.dmtf.org/ovf/envelope/1"
    xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
    xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
    xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"
    xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
    xmlns:vmw="http://www.vmware.com/schema/ovf"
    xmlns:vbox="http://www.virtualbox.org/ovf/machine">
  <References>
    <File ovf:id="file1" ovf:href={href} ovf:size="{file_size}"/>
  </References>
  <DiskSection>
    <Info>The disk</Info>
    <Disk ovf:diskId="disk1" ovf:fileRef="file1" ovf:capacity="{capacity}" ovf:capacityAllocationUnits="byte * 2^20"
        ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"
        vbox:uuid="{disk_uuid}"/>
  </DiskSection>
{network}  <VirtualSystem ovf:id={name_attribute}>
    <Info>A virtual machine</Info>
    <Name>{name}</Name>
    <OperatingSystemSection ovf:id="{cim}" vmw:osType="{vmware_os}">
      <Info>The guest operating system</Info>
      <vbox:OSType ovf:required="false">{vbox_os}</vbox:OSType>
    </OperatingSystemSection>
    <VirtualHardwareSection>
      <Info>The virtual hardware</Info>
      <System>
        <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>
        <vssd:InstanceID>0</vssd:InstanceID>
        <vssd:VirtualSystemIdentifier>{name}</vssd:VirtualSystemIdentifier>
        <vssd:VirtualSystemType>vmx-13</vssd:VirtualSystemType>
      </System>
{items}      <vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="{firmware}"/>
    </VirtualHardwareSection>
    <vbox:Machine ovf:required="false" version="1.16-linux" uuid="{{{machine_uuid}}}" name={name_attribute} \
OSType="{vbox_os}">
      <ovf:Info>The same machine in VirtualBox's words</ovf:Info>
      <Hardware>
        <CPU count="{cpus}">
          <PAE enabled="true"/>
          <LongMode enabled="true"/>
        </CPU>
        <Memory RAMSize="{memory}"/>
        <Firmware type="{vbox_firmware}"/>
        <Boot>
          <Order position="1" device="HardDisk"/>
        </Boot>
        <Display VRAMSize="16"/>
        <BIOS>
          <IOAPIC enabled="true"/>
        </BIOS>
        <Network>
          {vbox_network}
        </Network>
        <UART>
          <Port slot="0" enabled="true" IOBase="0x3f8" IRQ="4" hostMode="Disconnected"/>
        </UART>
      </Hardware>
      <StorageControllers>
        <StorageController name="{controller}" type="{vbox_controller}" PortCount="{vbox_ports}" Bootable="true">
          <AttachedDevice type="HardDisk" port="0" device="0">
            <Image uuid="{{{disk_uuid}}}"/>
          </AttachedDevice>
        </StorageController>
      </StorageControllers>
    </vbox:Machine>
  </VirtualSystem>
</Envelope>
"""

_NETWORK = """\
  <NetworkSection>
    <Info>The network</Info>
    <Network ovf:name="VM Network">
      <Description>The network the machine is on</Description>
    </Network>
  </NetworkSection>
"""


def descriptor(machine: VirtualSystem, file_size: int) -> bytes:
    """Return the OVF of *machine*, whose disk file has *file_size* bytes."""
    from xml.sax.saxutils import escape, quoteattr  # which import what speaks HTTP

    controller = CONTROLLERS[machine.controller]
    cpus = "1 virtual CPU" if machine.cpus == 1 else f"{machine.cpus} virtual CPUs"
    items = [
        _item(3, 1, cpus, AllocationUnits="hertz * 10^6", VirtualQuantity=machine.cpus),
        _item(4, 2, f"{machine.memory} MB of memory", AllocationUnits="byte * 2^20", VirtualQuantity=machine.memory),
        _item(controller.resource_type, 3, "Disk controller", Address=0, ResourceSubType=controller.subtype),
        _item(17, 4, "Disk", AddressOnParent=0, HostResource="ovf:/disk/disk1", Parent=3),
        _item(21, 5, "Serial port", required=False, AutomaticAllocation="true"),
    ]
    if machine.nic:
        items.append(
            _item(10, 6, "Network card", AddressOnParent=7, AutomaticAllocation="true", Connection="VM Network",
                  ResourceSubType=NICS[machine.nic])
        )  # fmt: skip
    adapter = f'<Adapter slot="0" enabled="true" type="{machine.vbox_nic}"><NAT/></Adapter>'
    text = _ENVELOPE.format(
        href=quoteattr(machine.disk_file),
        file_size=file_size,
        capacity=machine.disk_size // MIB,
        disk_uuid=machine.disk_uuid,
        machine_uuid=machine.machine_uuid,
        network=_NETWORK if machine.nic else "",
        name=escape(machine.name),
        name_attribute=quoteattr(machine.name),
        cim=machine.system.cim,
        vmware_os=machine.system.vmware,
        vbox_os=machine.system.vbox,
        items="".join(items),
        firmware="efi" if machine.efi else "bios",
        vbox_firmware="EFI" if machine.efi else "BIOS",
        cpus=machine.cpus,
        memory=machine.memory,
        vbox_network=adapter if machine.nic else '<Adapter slot="0" enabled="false"/>',
        controller=machine.controller,
        vbox_controller=controller.vbox_type,
        vbox_ports=controller.vbox_ports,
    )
    return text.encode("utf-8")


def _item(resource_type: int, instance: int, name: str, *, required: bool = True, **fields: str | int) -> str:
    """Return one ``Item`` without its empty fields; the schema wants its elements in the order of their names."""
    fields |= {"ElementName": name, "InstanceID": instance, "ResourceType": resource_type}
    lines = "".join(
        f"        <rasd:{key}>{value}</rasd:{key}>\n" for key, value in sorted(fields.items()) if value != ""
    )
    attribute = "" if required else ' ovf:required="false"'
    return f"      <Item{attribute}>\n{lines}      </Item>\n"
