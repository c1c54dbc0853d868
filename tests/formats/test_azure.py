"""The Azure kit against azure-mgmt-compute's models, qemu-img and dissect."""

from __future__ import annotations

import hashlib
import json
import shlex

import pytest
from support.clouds import azure_errors, kit
from support.kernels import SUCCESS, build
from support.qemu import boot
from support.tools import output_of

from rumpbundle.errors import UsageError
from rumpbundle.kernels.unikernel import Family

MIB = 1 << 20


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The disk, the request and the command lines."""
    directory = tmp_path_factory.mktemp("azure")
    # The size asked for stands in the bundle; without it Azure's least would be the disk's size all the same.
    (disk, request), commands = kit(
        build("multiboot"),
        directory / "my app.azure.vhd",
        "azure",
        name="Web_1",
        size=20 * MIB,
        options={"tag": ("owner=me", "e=")},
    )
    return disk, json.loads(request.read_text()), commands


def properties(tmp_path, *, kernel="multiboot", **choices):
    tmp_path.mkdir(exist_ok=True)
    (_, request), _ = kit(build(kernel), tmp_path / "app.azure.vhd", "azure", **choices)
    return json.loads(request.read_text())["properties"]


def test_the_request_obeys_the_whole_model(made):
    assert azure_errors(made[1]) == []


@pytest.mark.parametrize(
    "broken",
    [
        {"properties": {"creationData": {"createOption": "Upload"}}},
        {"location": "x", "name": "x"},
        {"location": "x", "size": 1},
        {"location": "x", "sku": {"name": "Cheap_LRS"}},
        {"location": "x", "properties": {"hyperVGeneration": "V3"}},
        {"location": "x", "properties": {"creationData": {"uploadSizeBytes": 1}}},
        {"location": "x", "properties": {"creationData": {"createOption": "Upload", "uploadSizeBytes": "1"}}},
        {"location": "x", "tags": {"a": 1}},
    ],
)
def test_the_model_walk_would_notice(broken):
    assert azure_errors(broken)


def test_the_file_has_the_size_azure_insists_on(made):
    disk, body, _ = made
    size = disk.stat().st_size
    assert (size - 512) % MIB == 0
    assert size >= 20 * MIB + 512
    assert body["properties"]["creationData"] == {"createOption": "Upload", "uploadSizeBytes": size}


def test_qemu_img_and_dissect_read_the_disk(made, tmp_path):
    from dissect.hypervisor.disk.vhd import VHD

    disk = made[0]
    information = json.loads(output_of("qemu-img", "info", "-f", "vpc", "--output=json", str(disk)))
    assert information["virtual-size"] == disk.stat().st_size - 512
    kit(build("multiboot"), tmp_path / "disk.raw", "raw", name="Web_1", size=20 * MIB)
    output_of("qemu-img", "compare", "-f", "vpc", "-F", "raw", str(disk), str(tmp_path / "disk.raw"))
    with disk.open("rb") as file:
        vhd = VHD(file)
        assert vhd.size == 20 * MIB
        theirs = hashlib.sha256(vhd.read(vhd.size)).digest()
    assert theirs == hashlib.sha256((tmp_path / "disk.raw").read_bytes()).digest()


def test_two_runs_give_the_same_bytes(made, tmp_path):
    (disk, request), _ = kit(
        build("multiboot"),
        tmp_path / "other.azure.vhd",
        "azure",
        name="Web_1",
        size=20 * MIB,
        options={"tag": ("e=", "owner=me")},
    )
    assert disk.read_bytes() == made[0].read_bytes()
    assert json.loads(request.read_text()) == made[1]


@pytest.mark.parametrize(("firmware", "generation"), [("both", "V2"), ("bios", "V1"), ("uefi", "V2")])
def test_the_generation_follows_what_image_and_guest_can_do(tmp_path, firmware, generation):
    found = properties(tmp_path, kernel="linux", firmware=firmware, guest={"family": Family.LINUX})
    assert found["hyperVGeneration"] == generation


def test_a_guest_that_only_bios_is_proven_for_gets_generation_1(tmp_path):
    assert properties(tmp_path)["hyperVGeneration"] == "V1"


def test_accelerated_networking_is_a_promise_about_drivers(tmp_path):
    assert properties(tmp_path)["supportedCapabilities"]["acceleratedNetwork"] is False
    linux = properties(
        tmp_path / "other", kernel="linux", guest={"family": Family.LINUX}, options={"driver": ("mana",)}
    )
    assert linux["supportedCapabilities"]["acceleratedNetwork"] is True


@pytest.mark.parametrize(
    ("recipe", "options", "where"),
    [
        ({"name": "a b"}, {}, "--name"),
        ({"name": "a" * 81}, {}, "--name"),
        ({}, {"tag": ("a/b=1",)}, "--tag"),
        ({}, {"tag": (f"a={'v' * 257}",)}, "--tag"),
        ({}, {"driver": ("ena",)}, "--driver"),
    ],
)
def test_what_azure_would_refuse_is_refused_with_the_rule(tmp_path, recipe, options, where):
    with pytest.raises(UsageError) as caught:
        kit(build("multiboot"), tmp_path / "app.azure.vhd", "azure", options=options, **recipe)
    assert caught.value.where == where
    assert list(tmp_path.iterdir()) == []


def test_commands_are_shell_lines_that_use_the_files(made):
    disk, body, commands = made
    lines = [shlex.split(line, comments=True) for line in commands]
    (create,) = [line for line in lines if line[:3] == ["az", "disk", "create"]]
    assert f"--upload-size-bytes={disk.stat().st_size}" in create
    assert f"--hyper-v-generation={body['properties']['hyperVGeneration']}" in create
    assert ["azcopy", "copy", str(disk), "$sas", "--blob-type", "PageBlob"] in lines


@pytest.mark.boot
def test_the_disk_boots_from_ide(made):
    assert boot(made[0], bus="ide", fmt="vpc").status == SUCCESS
