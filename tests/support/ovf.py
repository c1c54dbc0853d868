"""The rules of OVF 1.1: what may stand where (``ovf.rng``), and that what is named is there (DMTF DSP0243)."""

from __future__ import annotations

from pathlib import Path

from lxml import etree

NAMESPACE = "{http://schemas.dmtf.org/ovf/envelope/1}"
RASD = "{http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData}"
SCHEMA = etree.RelaxNG(etree.parse(Path(__file__).with_name("ovf.rng")))


def check(text: bytes) -> None:
    """Assert that *text* is an Envelope by the rules."""
    root = etree.fromstring(text)
    SCHEMA.assertValid(root)

    def each(path: str, attribute: str) -> list[str]:
        found = [element.get(NAMESPACE + attribute, "") for element in root.iter(NAMESPACE + path)]
        assert len(set(found)) == len(found), found
        return found

    files, disks, networks = each("File", "id"), each("Disk", "diskId"), each("Network", "name")
    for disk in root.iter(f"{NAMESPACE}Disk"):
        assert disk.get(f"{NAMESPACE}fileRef") in files
    items = list(root.iter(f"{NAMESPACE}Item"))
    instances = [item.findtext(f"{RASD}InstanceID") for item in items]
    assert len(set(instances)) == len(instances)
    for item in items:
        assert item.findtext(f"{RASD}Parent", instances[0]) in instances
        assert item.findtext(f"{RASD}Connection", "") in ["", *networks]
        assert item.findtext(f"{RASD}HostResource", "") in ["", *(f"ovf:/disk/{disk}" for disk in disks)]
