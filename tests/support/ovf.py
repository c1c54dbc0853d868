"""The rules of OVF 1.1 (DMTF DSP0243, its schema DSP8023, CIM's classes, units of DSP0004), checked by hand.

Neither Debian nor PyPI has the schema. Here stand those of its parts that a machine with a disk uses; elements of
other namespaces may stand where the schema lets them, at the end.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

NAMESPACE = "{http://schemas.dmtf.org/ovf/envelope/1}"
CIM = "{http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/"
RASD, VSSD = f"{CIM}CIM_ResourceAllocationSettingData}}", f"{CIM}CIM_VirtualSystemSettingData}}"

ITEM = """
Address AddressOnParent AllocationUnits AutomaticAllocation AutomaticDeallocation Caption ChangeableType
ConfigurationName Connection ConsumerVisibility Description ElementName Generation HostResource InstanceID Limit
MappingBehavior OtherResourceType Parent PoolID Reservation ResourceSubType ResourceType VirtualQuantity
VirtualQuantityUnits Weight"""
SYSTEM = "Caption Description ElementName InstanceID VirtualSystemIdentifier VirtualSystemType"
UNIT = re.compile(r"(byte|hertz)( \* \d+(\^\d+)?)?")

# What follows what, by the names of children as one text; what may be left out ends in "?", what may repeat in "*".
CHILDREN = {
    "Envelope": "References DiskSection? NetworkSection? VirtualSystem",
    "References": "File*",
    "DiskSection": "Info Disk*",
    "NetworkSection": "Info Network*",
    "Network": "Description*",
    "VirtualSystem": "Info Name? OperatingSystemSection? VirtualHardwareSection*",
    "OperatingSystemSection": "Info License? Description?",
    "VirtualHardwareSection": "Info System? Item*",
}
REQUIRED = {
    "File": "id href",
    "Disk": "diskId capacity",
    "Network": "name",
    "VirtualSystem": "id",
    "OperatingSystemSection": "id",
}


def check(root: ET.Element) -> None:
    """Assert that *root* is an Envelope by the rules."""
    assert root.tag == f"{NAMESPACE}Envelope"
    for element in _own(root):
        name = element.tag.removeprefix(NAMESPACE)
        if name in CHILDREN:
            _check_children(element, CHILDREN[name])
        for attribute in REQUIRED.get(name, "").split():
            assert element.get(NAMESPACE + attribute) is not None, f"{name} without {attribute}"
    for item in root.iter(f"{NAMESPACE}Item"):
        _check_settings(item, RASD, ITEM)
    for system in root.iter(f"{NAMESPACE}System"):
        _check_settings(system, VSSD, SYSTEM)
    _check_references(root)


def _own(element: ET.Element):
    """Yield the elements of the envelope, and not what lies in those of others (VirtualBox's machine)."""
    yield element
    for child in element:
        if child.tag.startswith(NAMESPACE):
            yield from _own(child)


def _check_children(element: ET.Element, wanted: str) -> None:
    names = [child.tag for child in element]
    own = [name.removeprefix(NAMESPACE) for name in names if name.startswith(NAMESPACE)]
    assert names[: len(own)] == [NAMESPACE + name for name in own], f"foreign elements come last: {names}"
    pattern = "".join(f"({word.rstrip('?*')} ){word[len(word.rstrip('?*')) :]}" for word in wanted.split())
    assert re.fullmatch(pattern, "".join(f"{name} " for name in own)), f"{element.tag}: {own}"


def _check_settings(element: ET.Element, namespace: str, known: str) -> None:
    """CIM's properties stand in the order of their names, each once, ElementName and InstanceID always."""
    fields = {child.tag.removeprefix(namespace): child.text or "" for child in element}
    places = [known.split().index(child.tag.removeprefix(namespace)) for child in element]
    assert places == sorted(set(places)), list(fields)
    assert fields["ElementName"]
    assert fields["InstanceID"]
    if "AllocationUnits" in fields:
        assert UNIT.fullmatch(fields["AllocationUnits"])


def _check_references(root: ET.Element) -> None:
    """What is named is there, and once."""

    def each(path: str, attribute: str) -> list[str]:
        found = [element.get(NAMESPACE + attribute, "") for element in root.iter(NAMESPACE + path)]
        assert len(set(found)) == len(found), found
        return found

    files, disks, networks = each("File", "id"), each("Disk", "diskId"), each("Network", "name")
    for disk in root.iter(f"{NAMESPACE}Disk"):
        assert disk.get(f"{NAMESPACE}fileRef") in files
        assert UNIT.fullmatch(disk.get(f"{NAMESPACE}capacityAllocationUnits", "byte"))
    items = list(root.iter(f"{NAMESPACE}Item"))
    instances = [item.findtext(f"{RASD}InstanceID") for item in items]
    assert len(set(instances)) == len(instances)
    for item in items:
        assert item.findtext(f"{RASD}Parent", instances[0]) in instances
        assert item.findtext(f"{RASD}Connection", "") in ["", *networks]
        assert item.findtext(f"{RASD}HostResource", "") in ["", *(f"ovf:/disk/{disk}" for disk in disks)]
